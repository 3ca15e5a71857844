//! Which sessions of a node are wanted.
//!
//! Its workers look through what they have one after the other and a piece at a time, so that a hundred thousand sessions
//! hold none of them up. A search ends where enough is found, or where it has taken its time, and says where to go on.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use causeway_hub::{Hub, SessionFacts};
use serde::{Deserialize, Serialize};

use crate::client_addr::ClientAddr;
use crate::crew::NoAnswer;
use crate::node::Node;
use crate::order::{Name, SessionName, TopicName};
use crate::peers::Ask;
use crate::worker::Worker;

/// How many places a worker looks at before others have their turn: less than a millisecond.
pub(crate) const PLACES_PER_TURN: usize = 4096;
/// How many sessions one search finds at most. Of the longest subjects that is 100 KiB or so.
const ROWS_MAX: usize = 250;
/// How long one search takes, but for its last piece. Whoever asks another node does not wait much longer.
const TIME_MAX: Duration = Duration::from_millis(250);

/// One search, as a node also asks it of another: strictly, because a filter that was passed over would find strangers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Search {
    pub(crate) wanted: Wanted,
    pub(crate) from: Place,
    pub(crate) most: usize,
}

/// Sessions that are all that is said here.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wanted {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) subject: Option<Name>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) address: Option<ClientAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) topic: Option<TopicName>,
}

/// Where to look: places of the first worker come before those of the second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Place {
    pub(crate) worker: u16,
    pub(crate) place: usize,
}

/// What a search has found. Unknown fields are those of a later version.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Found {
    pub(crate) sessions: Vec<Row>,
    /// Where to go on, if there may be more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) next: Option<Place>,
}

/// One session. Unknown fields are those of a later version.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    session: SessionName,
    subject: Name,
    address: ClientAddr,
    /// In seconds since 1970.
    since: u64,
    subscriptions: usize,
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
    queued_bytes: usize,
}

impl Ask for Search {
    type Answer = Found;

    async fn here(&self, node: &Node) -> Result<Found, NoAnswer> {
        let (began, most) = (Instant::now(), self.most.min(ROWS_MAX));
        let (mut sessions, mut at) = (Vec::new(), self.from);
        while at.worker < node.crew.len() {
            let (wanted, from, more) = (self.wanted.clone(), at.place, most - sessions.len());
            let (rows, next) =
                node.crew.ask(at.worker, move |worker| wanted.look(worker, from, more)).await?;
            sessions.extend(rows);
            at = match next {
                Some(place) => Place { place, ..at },
                None => Place { worker: at.worker + 1, place: 0 },
            };
            if sessions.len() >= most || began.elapsed() >= TIME_MAX {
                break;
            }
        }
        let next = (at.worker < node.crew.len()).then_some(at);
        Ok(Found { sessions, next })
    }
}

impl Wanted {
    /// Looks through some places of a worker, until `most` sessions are found; says where to go on, if there is more.
    fn look(&self, worker: &Worker, from: usize, most: usize) -> (Vec<Row>, Option<usize>) {
        let hub = worker.hub.borrow();
        let end = from.saturating_add(PLACES_PER_TURN).min(hub.session_places());
        let mut rows = Vec::new();
        for facts in hub.sessions_at(from..end) {
            if rows.len() == most {
                return (rows, Some(facts.key.index()));
            }
            if self.fits(&hub, worker, &facts) {
                rows.extend(Row::of(worker, &facts));
            }
        }
        (rows, (end < hub.session_places()).then_some(end))
    }

    fn fits(&self, hub: &Hub, worker: &Worker, facts: &SessionFacts<'_>) -> bool {
        let has_subject = |subject: &Name| *subject.0 == *facts.subject;
        let has_address =
            |address| worker.socket_of(facts.key).is_some_and(|socket| socket.client() == address);
        let has_topic = |topic: &TopicName| hub.is_subscribed(facts.key, topic.0.as_str());
        self.subject.as_ref().is_none_or(has_subject)
            && self.address.is_none_or(has_address)
            && self.topic.as_ref().is_none_or(has_topic)
    }
}

impl Row {
    /// `None` where its socket has just gone.
    pub(crate) fn of(worker: &Worker, facts: &SessionFacts<'_>) -> Option<Self> {
        let socket = worker.socket_of(facts.key)?;
        Some(Self {
            session: SessionName::of(worker.number, facts.key),
            subject: Name(facts.subject.into()),
            address: socket.client(),
            since: seconds_at(socket.age()),
            subscriptions: facts.subscriptions,
            messages: facts.messages_sent,
            bytes: facts.bytes_sent,
            queued_bytes: facts.queued_bytes,
        })
    }
}

/// When that was, in seconds since 1970.
fn seconds_at(ago: Duration) -> u64 {
    let then = SystemTime::now().checked_sub(ago).unwrap_or(UNIX_EPOCH);
    then.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
