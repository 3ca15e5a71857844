//! What one subscriber has heard of a numbered series: 16 bytes as long as nothing is wrong.

use std::collections::BTreeSet;
use std::ops::AddAssign;

/// One subscriber's record.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// Every number below was heard, apart from those that are missing.
    next: u64,
    trouble: Option<Box<Trouble>>,
}

#[derive(Debug, Default)]
struct Trouble {
    missing: BTreeSet<u64>,
    duplicated: u64,
    reordered: u64,
}

/// What was wrong, over one or many subscribers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Never heard.
    pub(crate) lost: u64,
    /// Heard again.
    pub(crate) duplicated: u64,
    /// Heard after a later one.
    pub(crate) reordered: u64,
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
            trouble.missing.extend(self.next..seq);
            self.next = seq + 1;
            return true;
        }
        let is_new = trouble.missing.remove(&seq);
        *(if is_new { &mut trouble.reordered } else { &mut trouble.duplicated }) += 1;
        is_new
    }

    /// What was wrong, now that the numbers below `published` have been sent and nothing more will come.
    pub(crate) fn tally(&self, published: u64) -> Tally {
        let mut tally = Tally { lost: published.saturating_sub(self.next), ..Tally::default() };
        if let Some(trouble) = &self.trouble {
            tally.lost += trouble.missing.len() as u64;
            tally.duplicated = trouble.duplicated;
            tally.reordered = trouble.reordered;
        }
        tally.subscribers = u64::from(tally != Tally::default());
        tally
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
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
        assert_eq!(wrong(&[]), (5, 0, 0));
    }

    #[test]
    fn only_the_first_hearing_is_new() {
        let mut ledger = Ledger::default();
        assert_eq!([1, 1, 0, 0, 2].map(|seq| ledger.hear(seq)), [true, false, true, false, true]);
        assert_eq!(size_of::<Ledger>(), 16);
    }
}
