//! Who is connected to this node, a page at a time.
//!
//! A page is put together from pieces that workers look through one after the other, so that a hundred thousand
//! sessions hold none of them up. The cursor is where the next piece begins.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use actix_web::web;
use causeway_hub::{Hub, SessionFacts};
use serde::{Deserialize, Serialize};

use super::{bad_question, limit};
use crate::client_addr::ClientAddr;
use crate::node::Node;
use crate::order::{Name, TopicName};
use crate::rejection::Rejection;
use crate::worker::Worker;

/// How many places a worker looks at before others have their turn: less than a millisecond.
pub(super) const PLACES_PER_TURN: usize = 4096;
/// How many sessions a page may have, and how many it has where nothing is said.
const LIMIT: (usize, usize) = (1000, 100);

/// What is asked.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Question {
    subject: Option<Name>,
    address: Option<String>,
    topic: Option<TopicName>,
    limit: Option<String>,
    cursor: Option<String>,
}

/// What is answered.
#[derive(Debug, Serialize)]
pub(super) struct Page {
    node: Box<str>,
    sessions: Vec<Row>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// One session.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    session: String,
    subject: String,
    address: String,
    /// In seconds since 1970.
    since: u64,
    subscriptions: usize,
    messages: u64,
    bytes: u64,
    queued_bytes: usize,
}

/// Which sessions are wanted.
#[derive(Debug)]
struct Wanted {
    subject: Option<Name>,
    address: Option<ClientAddr>,
    topic: Option<TopicName>,
}

/// Where to look next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Cursor {
    worker: u16,
    place: usize,
}

/// `GET /admin/sessions`
pub(super) async fn list(
    node: web::Data<Node>,
    question: web::Query<Question>,
) -> Result<web::Json<Page>, Rejection> {
    let Question { subject, address, topic, limit: most, cursor } = question.into_inner();
    let address = address.map(|text| parse_address(&text)).transpose()?;
    let cursor = cursor.map_or(Ok(Cursor::default()), |text| Cursor::parse(&text))?;
    let most = limit(most.as_deref(), LIMIT)?;
    let (sessions, next) = find(&node, Wanted { subject, address, topic }, cursor, most).await?;
    Ok(web::Json(Page { node: node.name.clone(), sessions, next: next.map(Cursor::to_text) }))
}

/// At most `most` sessions from the cursor on, and where to go on if there may be more.
async fn find(
    node: &Node,
    wanted: Wanted,
    mut at: Cursor,
    most: usize,
) -> Result<(Vec<Row>, Option<Cursor>), Rejection> {
    let wanted = Arc::new(wanted);
    let mut found = Vec::new();
    while at.worker < node.crew.len() {
        if found.len() == most {
            return Ok((found, Some(at)));
        }
        let (wanted, from, most) = (Arc::clone(&wanted), at.place, most - found.len());
        let (rows, next) = node.crew.ask(at.worker, move |worker| wanted.look(worker, from, most)).await?;
        found.extend(rows);
        at = match next {
            Some(place) => Cursor { place, ..at },
            None => Cursor { worker: at.worker + 1, place: 0 },
        };
    }
    Ok((found, None))
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
                rows.extend(Row::of(&hub, worker, &facts));
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
    pub(super) fn of(hub: &Hub, worker: &Worker, facts: &SessionFacts<'_>) -> Option<Self> {
        let socket = worker.socket_of(facts.key)?;
        Some(Self {
            session: hub.session_name(facts.key),
            subject: facts.subject.to_owned(),
            address: socket.client().to_string(),
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

fn parse_address(text: &str) -> Result<ClientAddr, Rejection> {
    ClientAddr::parse(text).ok_or_else(|| {
        bad_question(&format_args!("address is `{text}`: expected an IP address, such as 203.0.113.7"))
    })
}

impl Cursor {
    fn parse(text: &str) -> Result<Self, Rejection> {
        let parsed = text.split_once('-').and_then(|(worker, place)| {
            Some(Self { worker: worker.parse().ok()?, place: place.parse().ok()? })
        });
        parsed.ok_or_else(|| {
            bad_question(&format_args!("cursor is `{text}`: expected `next` of the page before"))
        })
    }

    fn to_text(self) -> String {
        format!("{}-{}", self.worker, self.place)
    }
}
