//! What the nodes of a cluster tell each other of themselves, while an operator looks.
//!
//! A node whose figures somebody looks at calls the roll once a second (see `control`); every node that hears the call
//! answers with its own figures. So a cluster that nobody looks at says nothing, and one of *n* nodes that somebody looks
//! at says *n* small messages a second, whoever and however many look.
//!
//! Answers are kept for as long as they can be believed. Whoever may publish in Redis may answer, so no more is kept than
//! is worth showing.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::node::{Life, Node, Phase};
use crate::peers::Member;

/// Neither called nor answered more often, however many look.
const PAUSE: Duration = Duration::from_millis(700);
/// A node that has not answered for so long is not shown any more.
const BELIEVED_FOR: Duration = Duration::from_secs(5);
/// One that was serving when it was heard for the last time is missed for so long.
const MISSED_FOR: Duration = Duration::from_secs(600);
/// How many other nodes are kept.
const NODES_MAX: usize = 256;
/// The longest name that is kept, in bytes.
const NAME_BYTES_MAX: usize = 256;

/// A node, as it tells of itself. Unknown fields are those of a later version.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub(crate) struct Answer {
    /// Of the process: after a restart it is another.
    life: Life,
    node: String,
    version: String,
    /// Since its start.
    uptime_ms: u64,
    phase: Phase,
    ready: bool,
    connections: u64,
    connections_max: usize,
    subscriptions: u64,
    /// Totals, as of `uptime_ms`.
    messages_received: u64,
    messages_sent: u64,
}

/// When the roll was called, and who has answered.
#[derive(Debug, Default)]
pub(crate) struct RollCall(Mutex<Heard>);

#[derive(Debug, Default)]
struct Heard {
    /// By their processes, and when.
    answers: HashMap<Life, (Answer, Instant)>,
    called_at: Option<Instant>,
    /// The first of the calls that followed each other so closely that answers to all of them are believed.
    called_since: Option<Instant>,
    answered_at: Option<Instant>,
}

impl RollCall {
    /// Whether it is time to call; if so, that counts as done.
    pub(crate) fn is_call_due(&self, now: Instant) -> bool {
        let mut heard = self.heard();
        if heard.called_at.is_none_or(|last| now.saturating_duration_since(last) >= BELIEVED_FOR) {
            heard.called_since = Some(now);
        }
        is_due(&mut heard.called_at, now)
    }

    /// Since when the roll has been called without a pause: who has had the time to answer is known since then.
    pub(crate) fn called_since(&self) -> Option<Instant> {
        self.heard().called_since
    }

    /// Whether a call is to be answered; if so, that counts as done.
    pub(crate) fn is_answer_due(&self, now: Instant) -> bool {
        is_due(&mut self.heard().answered_at, now)
    }

    /// Takes note of another node's answer.
    pub(crate) fn note(&self, answer: Answer, now: Instant) {
        if [&answer.node, &answer.version].iter().any(|name| name.len() > NAME_BYTES_MAX) {
            return;
        }
        let mut heard = self.heard();
        heard.forget_old(MISSED_FOR, now);
        if heard.answers.len() >= NODES_MAX {
            // Who is missed makes room for who is there.
            heard.forget_old(BELIEVED_FOR, now);
        }
        if heard.answers.len() < NODES_MAX || heard.answers.contains_key(&answer.life) {
            heard.answers.insert(answer.life, (answer, now));
        }
    }

    /// The nodes that have answered lately, by name, without the one of this life.
    pub(crate) fn others(&self, own: Life, now: Instant) -> Vec<Answer> {
        let heard = self.heard();
        let others =
            heard.answers.values().filter(|(answer, at)| answer.life != own && is_believed(*at, now));
        let mut others: Vec<_> = others.map(|(answer, _)| answer.clone()).collect();
        others.sort_by(|a, b| (&a.node, a.life).cmp(&(&b.node, b.life)));
        others
    }

    /// The names of the nodes that were serving when they were heard for the last time, and that are not heard any more.
    pub(crate) fn silent(&self, now: Instant) -> BTreeSet<Box<str>> {
        let mut heard = self.heard();
        heard.forget_old(MISSED_FOR, now);
        let (here, away): (Vec<_>, Vec<_>) =
            heard.answers.values().partition(|(_, at)| is_believed(*at, now));
        let is_here = |name: &str| here.iter().any(|(answer, _)| answer.node == name);
        let is_missed = |answer: &&Answer| answer.phase == Phase::Serving && !is_here(&answer.node);
        let away = away.iter().map(|(answer, _)| answer).filter(is_missed);
        away.map(|answer| answer.node.as_str().into()).collect()
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Heard {
    fn forget_old(&mut self, after: Duration, now: Instant) {
        self.answers.retain(|_, (_, at)| now.saturating_duration_since(*at) < after);
    }
}

/// Whether what was heard then still holds.
fn is_believed(at: Instant, now: Instant) -> bool {
    now.saturating_duration_since(at) < BELIEVED_FOR
}

/// Whether the last time is long enough ago; if so, it is now.
fn is_due(last: &mut Option<Instant>, now: Instant) -> bool {
    let is_due = last.is_none_or(|last| now.saturating_duration_since(last) >= PAUSE);
    if is_due {
        *last = Some(now);
    }
    is_due
}

impl Answer {
    /// Of this node now.
    pub(crate) fn of(node: &Node) -> Self {
        let report = node.report();
        let figures = node.metrics.figures(&report);
        Self {
            life: node.life,
            node: node.name.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_ms: u64::try_from(node.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            phase: node.phase(),
            ready: report.is_ready,
            connections: figures.connections,
            connections_max: figures.connections_max,
            subscriptions: figures.subscriptions,
            messages_received: figures.messages_received,
            messages_sent: figures.messages_sent,
        }
    }

    /// Who tells this.
    pub(crate) fn member(&self) -> Member {
        Member { node: self.node.as_str().into(), life: self.life }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Life = Life(0);

    fn answer(life: u64, node: &str) -> Answer {
        Answer {
            life: Life(life),
            node: node.to_owned(),
            version: "1".to_owned(),
            uptime_ms: 1,
            phase: Phase::Serving,
            ready: true,
            connections: 2,
            connections_max: 3,
            subscriptions: 4,
            messages_received: 5,
            messages_sent: 6,
        }
    }

    fn names(roll_call: &RollCall, now: Instant) -> Vec<String> {
        roll_call.others(OWN, now).into_iter().map(|answer| answer.node).collect()
    }

    fn missed(roll_call: &RollCall, now: Instant) -> Vec<String> {
        roll_call.silent(now).into_iter().map(String::from).collect()
    }

    #[test]
    fn others_are_known_by_their_answers_and_forgotten_without() {
        let (roll_call, begin) = (RollCall::default(), Instant::now());
        for (life, node) in [(3, "gone"), (2, "b"), (0, "self")] {
            roll_call.note(answer(life, node), begin);
        }
        assert_eq!(names(&roll_call, begin), ["b", "gone"]);
        let later = begin + BELIEVED_FOR / 2;
        roll_call.note(answer(1, "a"), later);
        roll_call.note(answer(2, "b"), later);
        assert_eq!(names(&roll_call, begin + BELIEVED_FOR), ["a", "b"]);
    }

    #[test]
    fn who_served_and_is_silent_is_missed_for_a_while_and_who_took_leave_or_came_back_is_not() {
        let (roll_call, begin) = (RollCall::default(), Instant::now());
        for (life, node) in [(1, "silent"), (2, "restarted"), (3, "stopped"), (4, "there")] {
            roll_call.note(answer(life, node), begin);
        }
        roll_call.note(Answer { phase: Phase::Leading, ..answer(3, "stopped") }, begin);
        assert!(missed(&roll_call, begin).is_empty());
        let later = begin + BELIEVED_FOR;
        roll_call.note(answer(5, "restarted"), later);
        roll_call.note(answer(4, "there"), later);
        assert_eq!(names(&roll_call, later), ["restarted", "there"]);
        assert_eq!(missed(&roll_call, later), ["silent"]);
        assert!(missed(&roll_call, begin + MISSED_FOR).iter().all(|name| name != "silent"));
    }

    #[test]
    fn the_nodes_are_known_once_calls_were_answered_and_not_after_a_pause() {
        let (roll_call, begin) = (RollCall::default(), Instant::now());
        assert_eq!(roll_call.called_since(), None);
        for pause in 0..3 {
            assert!(roll_call.is_call_due(begin + pause * BELIEVED_FOR / 2));
            assert_eq!(roll_call.called_since(), Some(begin));
        }
        let later = begin + 2 * BELIEVED_FOR;
        assert!(roll_call.is_call_due(later));
        assert_eq!(roll_call.called_since(), Some(later));
    }

    #[test]
    fn one_call_is_answered_but_not_each_of_many() {
        let (roll_call, now) = (RollCall::default(), Instant::now());
        assert!(roll_call.is_call_due(now) && roll_call.is_answer_due(now));
        assert!(!roll_call.is_call_due(now) && !roll_call.is_answer_due(now));
        assert!(roll_call.is_answer_due(now + PAUSE));
    }

    #[test]
    fn what_strangers_answer_is_bounded() {
        let (roll_call, now) = (RollCall::default(), Instant::now());
        roll_call.note(answer(1, &"n".repeat(NAME_BYTES_MAX + 1)), now);
        assert_eq!(names(&roll_call, now), [""; 0]);
        for number in 1..NODES_MAX as u64 + 10 {
            roll_call.note(answer(number, "many"), now);
        }
        assert_eq!(names(&roll_call, now).len(), NODES_MAX);
        let later = now + BELIEVED_FOR;
        roll_call.note(answer(0x1000, "real"), later);
        assert_eq!(names(&roll_call, later), ["real"], "who is missed keeps nobody out");
    }
}
