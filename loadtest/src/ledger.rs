//! What one subscriber has heard of a numbered series: 16 bytes as long as nothing is wrong.

use std::collections::BTreeMap;
use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

/// One subscriber's record.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// Every number below was heard, apart from those in holes.
    next: u64,
    trouble: Option<Box<Trouble>>,
}

#[derive(Debug, Default)]
struct Trouble {
    /// By their first number.
    holes: BTreeMap<u64, Hole>,
    excuse: Option<Excused>,
    duplicated: u64,
    reordered: u64,
    late: u64,
}

/// Numbers that have not been heard, although later ones have.
#[derive(Clone, Copy, Debug)]
struct Hole {
    /// The first number behind it.
    end: u64,
    excuse: Option<Excuse>,
}

/// What the subscriber was told when it was waiting for number `from`: numbers from there on may be missing, but only
/// those below `below`, which had been sent by then.
#[derive(Clone, Copy, Debug)]
struct Excused {
    from: u64,
    below: u64,
    excuse: Excuse,
}

/// Why a subscriber need not wonder that it misses something: it has been told to fetch the present state again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Excuse {
    /// The gateway announced a gap.
    Gap,
    /// It was not connected, or not subscribed again yet.
    Away,
}

/// What was wrong, over one or many subscribers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tally {
    /// Never heard, and nothing was said.
    pub(crate) lost: u64,
    /// Never heard, and announced by a gap.
    pub(crate) missed_in_gap: u64,
    /// Never heard for lack of a connection.
    pub(crate) missed_away: u64,
    /// Heard again.
    pub(crate) duplicated: u64,
    /// Heard after a later one.
    pub(crate) reordered: u64,
    /// Heard later than was allowed.
    pub(crate) late: u64,
    /// Subscribers to whom any of this happened.
    pub(crate) subscribers: u64,
}

impl Ledger {
    /// Enters `seq`; says whether it is heard for the first time.
    pub(crate) fn hear(&mut self, seq: u64) -> bool {
        if seq == self.next {
            self.next += 1;
            return true;
        }
        self.hear_out_of_turn(seq)
    }

    #[cold]
    fn hear_out_of_turn(&mut self, seq: u64) -> bool {
        let trouble = self.trouble.get_or_insert_default();
        if seq > self.next {
            trouble.dig(self.next, seq);
            self.next = seq + 1;
            return true;
        }
        let is_new = trouble.fill(seq);
        *(if is_new { &mut trouble.reordered } else { &mut trouble.duplicated }) += 1;
        is_new
    }

    /// Whether the last of the numbers below `published` was heard or is excused; what is missing then will not come.
    pub(crate) fn is_up_to(&self, published: u64) -> bool {
        let excused = self.trouble.as_ref().and_then(|trouble| trouble.excuse);
        let excused = excused.filter(|excused| excused.from == self.next).map_or(0, |excused| excused.below);
        published <= self.next.max(excused)
    }

    /// Notes that a message was late.
    #[cold]
    pub(crate) fn note_late(&mut self) {
        self.trouble.get_or_insert_default().late += 1;
    }

    /// Notes that the subscriber was told that it may have missed something, when the numbers below `published` had
    /// been sent. That excuses every number it misses by now, and those between the last it heard and the next.
    #[cold]
    pub(crate) fn excuse(&mut self, excuse: Excuse, published: u64) {
        let trouble = self.trouble.get_or_insert_default();
        for hole in trouble.holes.values_mut() {
            hole.excuse.get_or_insert(excuse);
        }
        trouble.excuse = Some(Excused { from: self.next, below: published, excuse });
    }

    /// What was wrong, now that the numbers below `published` have been sent and nothing more will come.
    pub(crate) fn tally(&self, published: u64) -> Tally {
        let Some(trouble) = &self.trouble else {
            let lost = published.saturating_sub(self.next);
            return Tally { lost, subscribers: u64::from(lost > 0), ..Tally::default() };
        };
        let Trouble { duplicated, reordered, late, .. } = **trouble;
        let mut tally = Tally { duplicated, reordered, late, ..Tally::default() };
        let tail = trouble.split(self.next, published.max(self.next));
        for (start, hole) in trouble.holes.iter().map(|(start, hole)| (*start, *hole)).chain(tail) {
            let count = hole.end - start;
            *match hole.excuse {
                None => &mut tally.lost,
                Some(Excuse::Gap) => &mut tally.missed_in_gap,
                Some(Excuse::Away) => &mut tally.missed_away,
            } += count;
        }
        tally.subscribers = u64::from(tally != Tally::default());
        tally
    }
}

impl Trouble {
    /// The numbers from `start` to `end` are missing.
    fn dig(&mut self, start: u64, end: u64) {
        self.holes.extend(self.split(start, end));
    }

    /// Divides them into those that are excused and those that are not, leaving out what is empty.
    fn split(&self, start: u64, end: u64) -> impl Iterator<Item = (u64, Hole)> + use<> {
        let excused = self.excuse.filter(|excused| excused.from == start);
        let middle = excused.map_or(start, |excused| excused.below.clamp(start, end));
        [(start, middle, excused.map(|excused| excused.excuse)), (middle, end, None)]
            .into_iter()
            .filter(|(start, end, _)| start < end)
            .map(|(start, end, excuse)| (start, Hole { end, excuse }))
    }

    /// Takes `seq` out of the hole it is in; says whether there was one.
    fn fill(&mut self, seq: u64) -> bool {
        let Some((&start, &hole)) = self.holes.range(..=seq).next_back().filter(|(_, hole)| seq < hole.end)
        else {
            return false;
        };
        self.holes.remove(&start);
        for (start, end) in [(start, seq), (seq + 1, hole.end)] {
            if start < end {
                self.holes.insert(start, Hole { end, ..hole });
            }
        }
        true
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.lost += other.lost;
        self.missed_in_gap += other.missed_in_gap;
        self.missed_away += other.missed_away;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.late += other.late;
        self.subscribers += other.subscribers;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is wrong with having heard `heard` of 0 to 4: lost, duplicated, reordered.
    fn wrong(heard: &[u64]) -> (u64, u64, u64) {
        let mut ledger = Ledger::default();
        for &seq in heard {
            ledger.hear(seq);
        }
        let tally = ledger.tally(5);
        assert_eq!(tally.subscribers, u64::from(heard != [0, 1, 2, 3, 4]));
        (tally.lost, tally.duplicated, tally.reordered)
    }

    #[test]
    fn each_kind_of_trouble_is_told_apart() {
        assert_eq!(wrong(&[0, 1, 2, 3, 4]), (0, 0, 0));
        assert_eq!(wrong(&[0, 1, 2]), (2, 0, 0));
        assert_eq!(wrong(&[0, 4]), (3, 0, 0));
        assert_eq!(wrong(&[0, 1, 1, 2, 3, 4, 0]), (0, 2, 0));
        assert_eq!(wrong(&[1, 0, 2, 4, 3]), (0, 0, 2));
        assert_eq!(wrong(&[2, 0, 0]), (3, 1, 1));
        assert_eq!(wrong(&[0, 4, 2]), (2, 0, 1));
        assert_eq!(wrong(&[]), (5, 0, 0));
    }

    #[test]
    fn only_the_first_hearing_is_new() {
        let mut ledger = Ledger::default();
        assert_eq!([1, 1, 0, 0, 2].map(|seq| ledger.hear(seq)), [true, false, true, false, true]);
        assert_eq!(size_of::<Ledger>(), 16);
    }

    /// The numbers that were lost and missed in a gap of 0 to 19, where a gap was announced after `before`, with the
    /// numbers below 10 sent, and `after` was heard then.
    fn with_gap(before: &[u64], after: &[u64]) -> (u64, u64) {
        let mut ledger = Ledger::default();
        for &seq in before {
            ledger.hear(seq);
        }
        ledger.excuse(Excuse::Gap, 10);
        for &seq in after.iter().chain(&[19]) {
            ledger.hear(seq);
        }
        let tally = ledger.tally(20);
        (tally.lost, tally.missed_in_gap)
    }

    #[test]
    fn a_gap_excuses_what_was_missing_by_then_and_nothing_else() {
        let tail: Vec<u64> = (10..19).collect();
        assert_eq!(with_gap(&[0, 1, 2, 3], &tail), (0, 6), "the hole right behind the announcement");
        assert_eq!(with_gap(&[0, 3, 4, 5, 6, 7, 8, 9], &tail), (0, 2), "a hole from before");
        assert_eq!(with_gap(&[0, 1], &tail[2..]), (2, 8), "what was sent after the announcement is lost");
        let (skipped, tail) = ([4, 6, 7, 8, 9], &tail[..]);
        assert_eq!(with_gap(&[0, 1, 2, 3], &[&skipped, tail].concat()), (1, 0), "delivery had begun again");
    }

    #[test]
    fn silence_at_the_end_is_excused_as_far_as_the_announcement_reaches() {
        let mut ledger = Ledger::default();
        ledger.hear(0);
        ledger.excuse(Excuse::Away, 4);
        assert!(ledger.is_up_to(4) && !ledger.is_up_to(5));
        let Tally { lost, missed_away, subscribers, .. } = ledger.tally(6);
        assert_eq!((lost, missed_away, subscribers), (2, 3, 1));
    }

    #[test]
    fn an_excuse_that_was_not_needed_is_no_trouble() {
        let mut ledger = Ledger::default();
        ledger.excuse(Excuse::Gap, 0);
        ledger.hear(0);
        assert_eq!(ledger.tally(1), Tally::default());
        ledger.note_late();
        assert_eq!(ledger.tally(1), Tally { late: 1, subscribers: 1, ..Tally::default() });
    }
}
