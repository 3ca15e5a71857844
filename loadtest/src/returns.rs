//! Connections that end, and come back after a pause of random length that grows with every attempt.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;

use crate::clock::Moment;
use crate::connection::Ended;
use crate::crowd::{News, State};
use crate::histogram::Recorder;

/// How long a connection pauses before it comes back: a random part of a span that doubles from `first` to `longest`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    /// Before the first attempt.
    pub(crate) first: Duration,
    /// At most.
    pub(crate) longest: Duration,
}

/// What has become of every member's connection.
pub(crate) struct Returns {
    /// `None`: whoever ends stays away.
    backoff: Option<Backoff>,
    random: StdRng,
    absences: Vec<Option<Absence>>,
    due: BinaryHeap<Reverse<(Moment, usize)>>,
    /// When those may come back whom a node that is drained has told so.
    invited: HashMap<usize, Moment>,
    /// The first that ended unasked, and why.
    pub(crate) first_ended: Option<(usize, Ended)>,
    /// The first refusal of a subscribe.
    pub(crate) first_refusal: Option<(usize, String)>,
    /// Members that were up and ended unasked.
    pub(crate) ended: u64,
    /// Attempts that came to nothing.
    pub(crate) refused: u64,
    /// Members that came back.
    pub(crate) returned: u64,
    /// How many members are away now.
    pub(crate) away: usize,
    /// Arrivals so far, by step.
    pub(crate) welcomed: u64,
    /// See `welcomed`.
    pub(crate) subscribed: u64,
    /// Members that came back and have to subscribe again.
    pub(crate) welcomed_back: Vec<usize>,
    /// From the beginning of a connection to its welcome.
    pub(crate) opening: Recorder,
    /// From the end of a connection until it was subscribed again.
    pub(crate) returning: Recorder,
    /// When the first ended.
    pub(crate) first_end: Option<Moment>,
    /// When the last came back.
    pub(crate) last_return: Option<Moment>,
}

/// A member that is not up.
#[derive(Clone, Copy, Debug)]
struct Absence {
    since: Moment,
    attempts: u32,
}

impl Backoff {
    /// The pause before attempt number `attempts`, where `share` is random, from 0 up to 1.
    fn pause(&self, attempts: u32, share: f64) -> Duration {
        let span = self.first.saturating_mul(2_u32.saturating_pow(attempts)).min(self.longest);
        span.mul_f64(share)
    }
}

impl Returns {
    /// Everybody has yet to come.
    pub(crate) fn new(members: usize, backoff: Option<Backoff>, random: StdRng) -> Self {
        Self {
            backoff,
            random,
            absences: vec![None; members],
            due: BinaryHeap::new(),
            invited: HashMap::new(),
            first_ended: None,
            first_refusal: None,
            ended: 0,
            refused: 0,
            returned: 0,
            away: 0,
            welcomed: 0,
            subscribed: 0,
            welcomed_back: Vec::new(),
            opening: Recorder::default(),
            returning: Recorder::default(),
            first_end: None,
            last_return: None,
        }
    }

    /// Enters what happened to `member`; says whether it came or went, if it did.
    pub(crate) fn note(&mut self, member: usize, news: News, now: Moment) -> Option<Change> {
        match news {
            News::Welcomed(waited) => {
                self.welcomed += 1;
                self.opening.record(waited);
                if self.absences[member].is_some() {
                    self.welcomed_back.push(member);
                }
                None
            }
            News::Subscribed => {
                self.subscribed += 1;
                let absence = self.absences[member].take()?;
                self.away -= 1;
                self.returned += 1;
                self.returning.record(now.since(absence.since));
                self.last_return = Some(now);
                Some(Change::Came)
            }
            News::Refused(answer) => {
                self.first_refusal.get_or_insert((member, answer));
                None
            }
            News::Ponged => None,
            News::Ended(ended, state) => self.end(member, ended, state, now),
        }
    }

    /// The gateway will end the connection of `member`, who may come back at `at`.
    pub(crate) fn invite(&mut self, member: usize, at: Moment) {
        self.invited.insert(member, at);
    }

    fn end(&mut self, member: usize, ended: Ended, state: State, now: Moment) -> Option<Change> {
        let was_asked = matches!(ended, Ended::Left);
        let was_up = state == State::Up;
        self.ended += u64::from(was_up && !was_asked);
        self.refused += u64::from(!was_up);
        if !was_asked {
            self.first_end.get_or_insert(now);
            self.first_ended.get_or_insert((member, ended));
        }
        let is_new = self.absences[member].is_none();
        let absence = self.absences[member].get_or_insert(Absence { since: now, attempts: 0 });
        if let Some(backoff) = self.backoff {
            let pause = backoff.pause(absence.attempts, self.random.random());
            absence.attempts += 1;
            let at = self.invited.remove(&member).unwrap_or(now + pause).max(now);
            self.due.push(Reverse((at, member)));
        }
        self.away += usize::from(is_new);
        was_up.then_some(Change::Went)
    }

    /// Whether those that end come back.
    pub(crate) fn comes_back(&self) -> bool {
        self.backoff.is_some()
    }

    /// When the next member will try to come back.
    pub(crate) fn next(&self) -> Option<Moment> {
        self.due.peek().map(|Reverse((at, _))| *at)
    }

    /// A member whose pause is over.
    pub(crate) fn take_due(&mut self, now: Moment) -> Option<usize> {
        match self.due.peek() {
            Some(Reverse((at, _))) if *at <= now => self.due.pop().map(|Reverse((_, member))| member),
            _ => None,
        }
    }

    /// From when the first ended until all were back; `None` if some are not, or nobody ended.
    pub(crate) fn all_back(&self) -> Option<Duration> {
        let (first, last) = self.first_end.zip(self.last_return)?;
        (self.away == 0).then(|| last.since(first))
    }
}

/// Whether a member came or went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// It is up again.
    Came,
    /// It was up and is not any more.
    Went,
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    const BACKOFF: Backoff = Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(5) };
    const SECOND: Duration = Duration::from_secs(1);

    fn ended(state: State) -> News {
        News::Ended(Ended::HungUp, state)
    }

    #[test]
    fn pauses_grow_up_to_the_longest() {
        let pauses = [0, 1, 2, 3, 60].map(|attempts| BACKOFF.pause(attempts, 0.5).as_millis());
        assert_eq!(pauses, [500, 1000, 2000, 2500, 2500]);
    }

    #[test]
    fn a_return_is_counted_from_the_end_over_all_attempts() {
        let mut returns = Returns::new(2, Some(BACKOFF), StdRng::seed_from_u64(1));
        assert_eq!(returns.note(1, ended(State::Up), Moment(0)), Some(Change::Went));
        assert_eq!((returns.away, returns.all_back()), (1, None));
        let at = returns.next().unwrap();
        assert!(at <= Moment(0) + SECOND);
        assert_eq!(returns.take_due(at), Some(1));
        assert_eq!(returns.note(1, ended(State::Opening), Moment(0) + SECOND), None);
        let at = returns.next().unwrap();
        assert_eq!(returns.take_due(at), Some(1));
        returns.note(1, News::Welcomed(SECOND), Moment(0) + SECOND * 3);
        let change = returns.note(1, News::Subscribed, Moment(0) + SECOND * 4);
        assert_eq!(change, Some(Change::Came));
        assert_eq!(returns.all_back(), Some(SECOND * 4));
        assert_eq!((returns.ended, returns.refused, returns.returned, returns.away), (1, 1, 1, 0));
        assert_eq!(returns.returning.take().total(), 1);
    }

    #[test]
    fn nobody_is_taken_before_the_pause_is_over() {
        let mut returns = Returns::new(1, Some(BACKOFF), StdRng::seed_from_u64(2));
        returns.note(0, ended(State::Up), Moment(0) + SECOND);
        let at = returns.next().unwrap();
        assert!(at > Moment(0) + SECOND);
        assert_eq!(returns.take_due(Moment(0) + SECOND), None);
        assert_eq!(returns.take_due(at), Some(0));
    }

    #[test]
    fn whoever_was_told_when_to_come_back_comes_then() {
        let mut returns = Returns::new(1, Some(BACKOFF), StdRng::seed_from_u64(4));
        returns.invite(0, Moment(0) + SECOND * 9);
        returns.note(0, ended(State::Up), Moment(0) + SECOND);
        assert_eq!(returns.next(), Some(Moment(0) + SECOND * 9));
        assert_eq!(returns.take_due(Moment(0) + SECOND * 9), Some(0));
        // The next pause is its own.
        returns.note(0, ended(State::Opening), Moment(0) + SECOND * 10);
        assert!(returns.next() <= Some(Moment(0) + SECOND * 12));
    }

    #[test]
    fn without_backoff_nobody_comes_back_and_leaving_is_not_ending() {
        let mut returns = Returns::new(2, None, StdRng::seed_from_u64(3));
        returns.note(0, News::Ended(Ended::Left, State::Up), Moment(0));
        assert_eq!((returns.ended, returns.away), (0, 1));
        assert!(returns.first_ended.is_none());
        returns.note(1, ended(State::Up), Moment(0));
        assert_eq!((returns.ended, returns.next()), (1, None));
        assert!(matches!(returns.first_ended, Some((1, Ended::HungUp))));
    }
}
