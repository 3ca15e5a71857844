//! The memory budget of the node: what may wait for clients, in all outboxes and inboxes together.
//!
//! One client's outbox has its own bound; ten thousand slow clients at once are bounded here. Nearly at the
//! bound nobody is let in any more; close to it the largest backlogs are given up, so that the others go on.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Above this many percent nobody is let in.
const CLOSED_ABOVE: usize = 80;
/// Above this many percent backlogs are given up.
const CUT_ABOVE: usize = 90;

/// What may wait on the node, and what does: workers report their part.
#[derive(Debug)]
pub(crate) struct Budget {
    bytes: usize,
    used: AtomicUsize,
}

impl Budget {
    pub(crate) fn new(bytes: usize) -> Self {
        Self { bytes, used: AtomicUsize::new(0) }
    }

    /// A worker's part was `before` and is `now`.
    pub(crate) fn change(&self, before: usize, now: usize) {
        self.used.fetch_add(now.wrapping_sub(before), Relaxed);
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn used(&self) -> usize {
        self.used.load(Relaxed)
    }

    /// Whether nobody should be let in.
    pub(crate) fn is_tight(&self) -> bool {
        self.used() > self.percent(CLOSED_ABOVE)
    }

    /// How much a worker that uses `own` should give up: its share of what is too much.
    pub(crate) fn excess_of(&self, own: usize) -> usize {
        let used = self.used().max(1);
        let excess = used.saturating_sub(self.percent(CUT_ABOVE));
        usize::try_from(excess as u128 * own as u128 / used as u128).unwrap_or(usize::MAX)
    }

    fn percent(&self, percent: usize) -> usize {
        self.bytes / 100 * percent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_gives_up_its_share_of_what_is_too_much() {
        let budget = Budget::new(1000);
        budget.change(0, 600);
        budget.change(0, 200);
        assert!(!budget.is_tight());
        assert_eq!(budget.excess_of(600), 0);
        budget.change(200, 400);
        assert!(budget.is_tight());
        assert_eq!((budget.excess_of(600), budget.excess_of(400)), (60, 40));
        budget.change(600, 0);
        assert_eq!(budget.used(), 400);
        assert!(!budget.is_tight());
    }
}
