//! The interest table: which workers want which topic, and how far Redis has been told.
//!
//! It decides and does nothing else: no socket, no clock, no lock. What happens on the link is told to it,
//! what to send is asked of it, and time is an argument.
//!
//! ```text
//!             want            next_subscribes         confirmed
//!   (absent) ──────▶ Queued ──────────────────▶ Asked ──────────▶ Live ◀─────────┐ want
//!                      ▲                          │                 │ last leave  │
//!                      │ requeue_due              │ refused         ▼             │
//!                      └─────────── Refused ◀─────┘             Lingering ────────┘
//!                                                                   │ next_unsubscribes
//!   lost: whatever is wanted is Queued again, the rest is forgotten ▼ (absent)
//! ```
//!
//! A topic leaves the table only when its UNSUBSCRIBE is handed out, and UNSUBSCRIBE is handed out only for a
//! topic that Redis has confirmed. So on one link, which Redis answers in order, there is never more than one
//! SUBSCRIBE of a topic without its answer, and a confirmation cannot be taken for that of an earlier one.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use causeway_protocol::Topic;

use crate::workers::Wanting;
use crate::{Ticket, WorkerId};

/// How long a topic stays subscribed after its last worker left: a client that reconnects or turns a page
/// finds it live.
pub(crate) const LINGER: Duration = Duration::from_secs(1);

/// How long after a refusal (Redis's access rules) a topic is asked for again.
pub(crate) const REFUSED_PAUSE: Duration = Duration::from_secs(10);

/// All topics this node is, or tries to be, subscribed to.
#[derive(Debug, Default)]
pub(crate) struct InterestTable {
    topics: HashMap<Topic, Entry>,
    /// The topics that are `Queued`. Kept sorted only to be taken from piece by piece and removed from.
    queued: BTreeSet<Topic>,
    /// The topics that are `Lingering`, by when that is over.
    lingering: Deadlines,
    /// The topics that are `Refused`, by when they are to be asked for again.
    refused: Deadlines,
}

type Deadlines = BTreeSet<(Instant, Topic)>;

#[derive(Debug)]
struct Entry {
    wanting: Wanting,
    state: State,
    /// When the link on which the topic was live last was heard from for the last time. `None` as long as it
    /// was never lost, and once its workers were told.
    missing_since: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Joining; its SUBSCRIBE is still to be sent.
    Queued,
    /// Joining; its SUBSCRIBE is on its way. The only state besides `Lingering` in which nobody may want the
    /// topic: the answer has to be awaited before it can be given up.
    Asked,
    /// Joining, and refused by Redis; queued again at `until`.
    Refused { until: Instant },
    /// Confirmed on this link.
    Live,
    /// Confirmed, and given up at `until` unless somebody wants it again.
    Lingering { until: Instant },
}

impl InterestTable {
    /// A worker wants `topic`. Returns whether it is live already.
    pub(crate) fn want(&mut self, worker: WorkerId, topic: Topic, ticket: Ticket) -> bool {
        let entry = self.topics.entry(topic.clone()).or_insert_with(|| {
            self.queued.insert(topic.clone());
            Entry { wanting: Wanting::default(), state: State::Queued, missing_since: None }
        });
        entry.wanting.add(worker, ticket);
        if let State::Lingering { until } = entry.state {
            self.lingering.remove(&(until, topic));
            entry.state = State::Live;
        }
        entry.state == State::Live
    }

    /// A worker wants `topic` no more.
    pub(crate) fn leave(&mut self, worker: WorkerId, topic: Topic, now: Instant) {
        let Some(entry) = self.topics.get_mut(&topic) else { return };
        entry.wanting.remove(worker);
        if !entry.wanting.is_empty() {
            return;
        }
        match entry.state {
            State::Asked | State::Lingering { .. } => {}
            State::Live => {
                entry.state = State::Lingering { until: now + LINGER };
                self.lingering.insert((now + LINGER, topic));
            }
            State::Queued => {
                self.queued.remove(&topic);
                self.topics.remove(&topic);
            }
            State::Refused { until } => {
                self.topics.remove(&topic);
                self.refused.remove(&(until, topic));
            }
        }
    }

    /// Up to `count_max` topics to send in one SUBSCRIBE now, behind everything handed out before.
    pub(crate) fn next_subscribes(&mut self, count_max: usize) -> Vec<Topic> {
        let mut batch = Vec::new();
        while batch.len() < count_max
            && let Some(topic) = self.queued.pop_first()
        {
            self.entry(&topic).state = State::Asked;
            batch.push(topic);
        }
        batch
    }

    /// Up to `count_max` topics to send in one UNSUBSCRIBE now, behind everything handed out before.
    pub(crate) fn next_unsubscribes(&mut self, count_max: usize, now: Instant) -> Vec<Topic> {
        let mut batch = Vec::new();
        while batch.len() < count_max
            && let Some(topic) = pop_due(&mut self.lingering, now)
        {
            self.topics.remove(&topic);
            batch.push(topic);
        }
        batch
    }

    /// Queues the refused topics whose pause is over.
    pub(crate) fn requeue_due(&mut self, now: Instant) {
        while let Some(topic) = pop_due(&mut self.refused, now) {
            self.entry(&topic).state = State::Queued;
            self.queued.insert(topic);
        }
    }

    /// When [`next_unsubscribes`](Self::next_unsubscribes) or [`requeue_due`](Self::requeue_due) will next have
    /// something to do.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        let firsts = [self.lingering.first(), self.refused.first()];
        firsts.into_iter().flatten().map(|(due, _)| *due).min()
    }

    /// Redis has confirmed the SUBSCRIBE of `name`. Returns whom to tell that it is live.
    pub(crate) fn confirmed(&mut self, name: &str, now: Instant) -> Option<(&Topic, &Wanting)> {
        let entry = self.topics.get_mut(name).filter(|entry| entry.state == State::Asked)?;
        if !entry.wanting.is_empty() {
            entry.state = State::Live;
            return self.wanting(name);
        }
        entry.state = State::Lingering { until: now + LINGER };
        let (topic, _) = self.topics.get_key_value(name).expect("it was found just now");
        self.lingering.insert((now + LINGER, topic.clone()));
        None
    }

    /// Redis has refused the SUBSCRIBE of `topic` alone. When it was live before a loss of the link, the first
    /// refusal since returns whom to tell that messages are missing, and since when.
    pub(crate) fn refused(&mut self, topic: &Topic, now: Instant) -> Option<(&Wanting, Instant)> {
        if self.entry(topic).wanting.is_empty() {
            self.topics.remove(topic);
            return None;
        }
        let until = now + REFUSED_PAUSE;
        self.refused.insert((until, topic.clone()));
        let entry = self.entry(topic);
        entry.state = State::Refused { until };
        let since = entry.missing_since.take()?;
        Some((&entry.wanting, since))
    }

    /// Whom a message on `name` is for, whatever the state of the topic: behind a SUBSCRIBE's effect it may
    /// come before we know. `None` when nobody wants it.
    pub(crate) fn wanting(&self, name: &str) -> Option<(&Topic, &Wanting)> {
        let (topic, entry) = self.topics.get_key_value(name)?;
        (!entry.wanting.is_empty()).then_some((topic, &entry.wanting))
    }

    /// The link is lost, and with it all that Redis was told and has confirmed; to `complete_to` everything had
    /// arrived. Returns whether any topic was live for somebody.
    pub(crate) fn lost(&mut self, complete_to: Instant) -> bool {
        let mut any_live = false;
        self.topics.retain(|_, entry| {
            if entry.state == State::Live {
                any_live = true;
                entry.missing_since = Some(complete_to);
            }
            entry.state = State::Queued;
            !entry.wanting.is_empty()
        });
        self.lingering.clear();
        self.refused.clear();
        self.queued = self.topics.keys().cloned().collect();
        any_live
    }

    /// How many topics there are, in any state.
    pub(crate) fn len(&self) -> usize {
        self.topics.len()
    }

    fn entry(&mut self, topic: &Topic) -> &mut Entry {
        self.topics.get_mut(topic).expect("a topic that is queued, asked for or refused is in the table")
    }
}

/// Takes out a topic whose time has come, the earliest first.
fn pop_due(deadlines: &mut Deadlines, now: Instant) -> Option<Topic> {
    deadlines.first().filter(|(due, _)| *due <= now)?;
    deadlines.pop_first().map(|(_, topic)| topic)
}

#[cfg(test)]
mod simulation;

#[cfg(test)]
mod tests {
    use super::*;

    const ANN: WorkerId = WorkerId(0);
    const BOB: WorkerId = WorkerId(1);
    const MANY: usize = 512;

    fn topic(name: &str) -> Topic {
        Topic::parse(name).unwrap()
    }

    fn names(topics: &[Topic]) -> Vec<&str> {
        topics.iter().map(Topic::as_str).collect()
    }

    /// A table where `name` is live for Ann with ticket 1.
    fn live(name: &str, now: Instant) -> InterestTable {
        let mut table = InterestTable::default();
        assert!(!table.want(ANN, topic(name), Ticket(1)));
        assert_eq!(names(&table.next_subscribes(MANY)), [name]);
        assert!(table.confirmed(name, now).is_some());
        table
    }

    fn told(who: Option<(&Topic, &Wanting)>) -> Vec<(WorkerId, Ticket)> {
        who.map(|(_, wanting)| wanting.iter().collect()).unwrap_or_default()
    }

    #[test]
    fn a_topic_is_live_for_all_who_want_it_when_redis_confirms() {
        let now = Instant::now();
        let mut table = InterestTable::default();
        assert!(!table.want(ANN, topic("a"), Ticket(1)));
        assert_eq!(names(&table.next_subscribes(MANY)), ["a"]);
        assert!(!table.want(BOB, topic("a"), Ticket(2)));
        assert!(!table.want(ANN, topic("a"), Ticket(3)));
        assert!(table.next_subscribes(MANY).is_empty(), "asked once for all");
        assert_eq!(told(table.confirmed("a", now)), [(ANN, Ticket(3)), (BOB, Ticket(2))]);
        assert!(table.want(BOB, topic("a"), Ticket(4)), "live at once from then on");
    }

    #[test]
    fn topics_are_asked_for_in_batches() {
        let mut table = InterestTable::default();
        for number in 0..5 {
            table.want(ANN, topic(&format!("t{number}")), Ticket(number));
        }
        let sizes = [2, 2, 1, 0].map(|_| table.next_subscribes(2).len());
        assert_eq!(sizes, [2, 2, 1, 0]);
    }

    #[test]
    fn a_topic_lingers_before_it_is_given_up() {
        let now = Instant::now();
        let mut table = live("a", now);
        table.leave(ANN, topic("a"), now);
        assert!(table.next_unsubscribes(MANY, now + LINGER - Duration::from_millis(1)).is_empty());
        assert_eq!(table.next_due(), Some(now + LINGER));
        assert_eq!(names(&table.next_unsubscribes(MANY, now + LINGER)), ["a"]);
        assert_eq!((table.len(), table.next_due()), (0, None));
    }

    #[test]
    fn a_lingering_topic_is_live_for_who_comes_back() {
        let now = Instant::now();
        let mut table = live("a", now);
        table.leave(ANN, topic("a"), now);
        assert!(table.want(BOB, topic("a"), Ticket(2)));
        assert!(table.next_subscribes(MANY).is_empty());
        assert!(table.next_unsubscribes(MANY, now + 2 * LINGER).is_empty());
    }

    #[test]
    fn one_worker_of_two_leaving_changes_nothing() {
        let now = Instant::now();
        let mut table = live("a", now);
        table.want(BOB, topic("a"), Ticket(2));
        table.leave(ANN, topic("a"), now);
        assert_eq!(table.next_due(), None);
        assert_eq!(told(table.wanting("a")), [(BOB, Ticket(2))]);
    }

    #[test]
    fn leaving_before_redis_was_asked_forgets_the_topic() {
        let mut table = InterestTable::default();
        table.want(ANN, topic("a"), Ticket(1));
        table.leave(ANN, topic("a"), Instant::now());
        assert!(table.next_subscribes(MANY).is_empty());
        assert_eq!(table.len(), 0);
    }

    #[test]
    fn leaving_while_redis_is_asked_gives_up_only_after_the_answer() {
        let now = Instant::now();
        let mut table = InterestTable::default();
        table.want(ANN, topic("a"), Ticket(1));
        table.next_subscribes(MANY);
        table.leave(ANN, topic("a"), now);
        assert!(table.next_unsubscribes(MANY, now + 2 * LINGER).is_empty());
        assert_eq!(told(table.confirmed("a", now)), []);
        assert_eq!(names(&table.next_unsubscribes(MANY, now + LINGER)), ["a"]);
    }

    #[test]
    fn coming_back_while_redis_is_asked_needs_no_second_question() {
        let now = Instant::now();
        let mut table = InterestTable::default();
        table.want(ANN, topic("a"), Ticket(1));
        table.next_subscribes(MANY);
        table.leave(ANN, topic("a"), now);
        assert!(!table.want(ANN, topic("a"), Ticket(2)));
        assert!(table.next_subscribes(MANY).is_empty());
        assert_eq!(told(table.confirmed("a", now)), [(ANN, Ticket(2))]);
    }

    #[test]
    fn coming_back_after_the_unsubscribe_asks_again() {
        let now = Instant::now();
        let mut table = live("a", now);
        table.leave(ANN, topic("a"), now);
        assert_eq!(table.next_unsubscribes(MANY, now + LINGER).len(), 1);
        assert!(!table.want(ANN, topic("a"), Ticket(2)), "Redis will have given it up");
        assert_eq!(names(&table.next_subscribes(MANY)), ["a"]);
        assert_eq!(told(table.confirmed("a", now)), [(ANN, Ticket(2))]);
    }

    #[test]
    fn a_lost_link_makes_all_that_is_wanted_join_again() {
        let now = Instant::now();
        let mut table = live("a", now);
        table.want(BOB, topic("b"), Ticket(2));
        table.want(BOB, topic("c"), Ticket(3));
        assert_eq!(names(&table.next_subscribes(1)), ["b"]);
        assert!(table.lost(now));
        assert!(!table.want(ANN, topic("a"), Ticket(4)), "not live any more");
        assert_eq!(names(&table.next_subscribes(MANY)), ["a", "b", "c"]);
        assert_eq!(told(table.confirmed("a", now)), [(ANN, Ticket(4))]);
    }

    #[test]
    fn a_lost_link_forgets_what_nobody_wants() {
        let now = Instant::now();
        let mut table = live("lingering", now);
        table.want(BOB, topic("asked"), Ticket(2));
        table.next_subscribes(MANY);
        table.leave(ANN, topic("lingering"), now);
        table.leave(BOB, topic("asked"), now);
        assert!(!table.lost(now), "nothing was live for anybody");
        assert_eq!((table.len(), table.next_due()), (0, None));
        assert!(table.next_subscribes(MANY).is_empty());
    }

    #[test]
    fn what_was_not_asked_for_is_ignored() {
        let now = Instant::now();
        let mut table = InterestTable::default();
        assert_eq!(told(table.confirmed("stranger", now)), []);
        assert!(table.wanting("stranger").is_none());
        table.want(ANN, topic("a"), Ticket(1));
        assert_eq!(told(table.confirmed("a", now)), [], "queued, so this answers somebody else");
        table.leave(BOB, topic("a"), now);
        assert_eq!(told(table.wanting("a")), [(ANN, Ticket(1))]);
    }

    #[test]
    fn a_refused_topic_is_asked_for_again_later() {
        let now = Instant::now();
        let mut table = InterestTable::default();
        table.want(ANN, topic("a"), Ticket(1));
        table.next_subscribes(MANY);
        assert!(table.refused(&topic("a"), now).is_none(), "nothing was missed: it was never live");
        assert!(!table.want(BOB, topic("a"), Ticket(2)));
        table.requeue_due(now + REFUSED_PAUSE - Duration::from_millis(1));
        assert!(table.next_subscribes(MANY).is_empty());
        assert_eq!(table.next_due(), Some(now + REFUSED_PAUSE));
        table.requeue_due(now + REFUSED_PAUSE);
        assert_eq!(names(&table.next_subscribes(MANY)), ["a"]);
        assert_eq!(told(table.confirmed("a", now)).len(), 2);
    }

    #[test]
    fn a_refused_topic_is_forgotten_with_its_last_worker() {
        let now = Instant::now();
        let mut table = InterestTable::default();
        table.want(ANN, topic("a"), Ticket(1));
        table.want(BOB, topic("b"), Ticket(1));
        table.next_subscribes(MANY);
        table.refused(&topic("a"), now);
        table.leave(ANN, topic("a"), now);
        table.leave(BOB, topic("b"), now);
        table.refused(&topic("b"), now);
        assert_eq!((table.len(), table.next_due()), (0, None), "nobody wanted it any more");
    }

    #[test]
    fn a_live_topic_that_is_refused_after_a_loss_is_missed_once() {
        let heard_at = Instant::now();
        let now = heard_at + Duration::from_secs(3);
        let mut table = live("a", heard_at);
        table.lost(heard_at);
        // The next link is lost before Redis answers.
        table.next_subscribes(MANY);
        table.lost(now);
        table.next_subscribes(MANY);
        let (wanting, since) = table.refused(&topic("a"), now).unwrap();
        assert_eq!((wanting.iter().collect::<Vec<_>>(), since), (vec![(ANN, Ticket(1))], heard_at));

        table.requeue_due(now + REFUSED_PAUSE);
        table.next_subscribes(MANY);
        assert!(table.refused(&topic("a"), now + REFUSED_PAUSE).is_none(), "told already");
    }
}
