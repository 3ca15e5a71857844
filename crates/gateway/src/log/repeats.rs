//! Failures that repeat, as a client in a loop or an attack makes them: the first few of a kind in a period are told
//! one by one, the rest as a number when the period is over.
//!
//! Kinds and causes are the code's own words, so there are few of them whatever clients do. Nothing here knows the
//! time: whoever ends the periods does.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How long a period should be.
pub(crate) const PERIOD: Duration = Duration::from_secs(10);
/// How many of a kind are told in a period.
const TOLD_MAX: u64 = 5;

/// What failed, and why.
type Kind = (&'static str, &'static str);

/// The failures of this period.
#[derive(Debug, Default)]
pub(crate) struct Repeats {
    counts: Mutex<BTreeMap<Kind, u64>>,
}

impl Repeats {
    /// Notes a failure and says whether it may be told.
    pub(crate) fn may_tell(&self, what: &'static str, cause: &'static str) -> bool {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry((what, cause)).or_default();
        *count += 1;
        *count <= TOLD_MAX
    }

    /// Ends the period: tells how many failures were held back in it, a line for each kind that had any.
    pub(crate) fn end_period(&self) {
        for ((what, cause), held_back) in self.held_back() {
            tracing::info!(what, cause, held_back, "more of these were held back");
        }
    }

    fn held_back(&self) -> Vec<(Kind, u64)> {
        let counts = std::mem::take(&mut *self.counts.lock().unwrap_or_else(PoisonError::into_inner));
        let beyond = |(kind, count): (Kind, u64)| (count > TOLD_MAX).then(|| (kind, count - TOLD_MAX));
        counts.into_iter().filter_map(beyond).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_each_kind_the_first_few_are_told_and_the_rest_counted() {
        let repeats = Repeats::default();
        let told = |what, cause, times| (0..times).filter(|_| repeats.may_tell(what, cause)).count();
        assert_eq!(told("upgrade", "expired", 100), 5);
        assert_eq!(told("upgrade", "node_full", 5), 5);
        assert_eq!(told("publish", "expired", 7), 5);
        assert_eq!(repeats.held_back(), [(("publish", "expired"), 2), (("upgrade", "expired"), 95)]);
    }

    #[test]
    fn a_new_period_begins_with_nothing() {
        let repeats = Repeats::default();
        for _ in 0..3 {
            let told = (0..10).filter(|_| repeats.may_tell("upgrade", "expired")).count();
            assert_eq!(told, 5);
            assert_eq!(repeats.held_back(), [(("upgrade", "expired"), 5)]);
        }
        assert!(repeats.held_back().is_empty());
    }
}
