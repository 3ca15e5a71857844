//! Durations counted by length, to three digits: recorded by `hdrhistogram`, carried and joined as plain counts.

use std::cmp::Ordering;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// The finest that is told apart, and the longest that is recorded.
const BOUNDS: (u64, u64) = (1_000, 3_600_000_000_000);
const DIGITS: u8 = 3;

/// Counts durations as they come.
#[derive(Debug)]
pub(crate) struct Recorder(Histogram<u64>);

/// How often each length occurred, in nanoseconds and in ascending order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counts(Vec<(u64, u64)>);

impl Default for Recorder {
    fn default() -> Self {
        Self(Histogram::new_with_bounds(BOUNDS.0, BOUNDS.1, DIGITS).expect("the bounds are in order"))
    }
}

impl Recorder {
    /// Counts `duration`; anything above an hour counts as an hour.
    pub(crate) fn record(&mut self, duration: Duration) {
        self.0.saturating_record(duration.as_nanos() as u64);
    }

    /// What has been counted since the last time.
    pub(crate) fn take(&mut self) -> Counts {
        if self.0.is_empty() {
            return Counts::default();
        }
        let recorded = self.0.iter_recorded();
        let counts =
            recorded.map(|step| (step.value_iterated_to(), step.count_at_value())).collect::<Vec<_>>();
        self.0.reset();
        Counts(counts)
    }
}

impl Counts {
    /// How many durations there are.
    pub(crate) fn total(&self) -> u64 {
        self.0.iter().map(|(_, count)| count).sum()
    }

    /// The length that the share `quantile` of all durations does not exceed; `None` if there are none.
    pub(crate) fn quantile(&self, quantile: f64) -> Option<Duration> {
        let rank = ((quantile * self.total() as f64).ceil() as u64).max(1);
        let mut below = 0;
        self.0.iter().find_map(|&(nanos, count)| {
            below += count;
            (below >= rank).then_some(Duration::from_nanos(nanos))
        })
    }

    /// Every length that occurred, with how often.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Duration, u64)> {
        self.0.iter().map(|&(nanos, count)| (Duration::from_nanos(nanos), count))
    }

    /// Adds what another has counted.
    pub(crate) fn join(&mut self, other: &Self) {
        let mut joined = Vec::with_capacity(self.0.len().max(other.0.len()));
        let (mut ours, mut theirs) = (self.0.iter().peekable(), other.0.iter().peekable());
        while let (Some(our), Some(their)) = (ours.peek(), theirs.peek()) {
            joined.push(match our.0.cmp(&their.0) {
                Ordering::Less => **our,
                Ordering::Greater => **their,
                Ordering::Equal => (our.0, our.1 + their.1),
            });
            let order = our.0.cmp(&their.0);
            ours.next_if(|_| order.is_le());
            theirs.next_if(|_| order.is_ge());
        }
        joined.extend(ours.chain(theirs));
        self.0 = joined;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(millis: &[u64]) -> Counts {
        let mut recorder = Recorder::default();
        millis.iter().for_each(|&millis| recorder.record(Duration::from_millis(millis)));
        recorder.take()
    }

    fn is_about(found: Option<Duration>, millis: u64) -> bool {
        let difference = found.unwrap().abs_diff(Duration::from_millis(millis));
        difference <= Duration::from_millis(millis) / 1000
    }

    #[test]
    fn quantiles_are_lengths_that_occurred() {
        let counts = counts(&(1..=100).collect::<Vec<_>>());
        assert!(is_about(counts.quantile(0.5), 50) && is_about(counts.quantile(0.99), 99));
        assert!(is_about(counts.quantile(0.0), 1) && is_about(counts.quantile(1.0), 100));
        assert_eq!(Counts::default().quantile(0.5), None);
    }

    #[test]
    fn two_halves_joined_are_the_whole() {
        let mut joined = counts(&[1, 1, 5, 900]);
        joined.join(&counts(&[2, 5, 5, 9_000, 8_000_000]));
        assert_eq!(joined, counts(&[1, 1, 2, 5, 5, 5, 900, 9_000, 8_000_000]));
        assert_eq!(joined.total(), 9);
        joined.join(&Counts::default());
        assert_eq!(joined.total(), 9);
    }

    #[test]
    fn taking_begins_anew() {
        let mut recorder = Recorder::default();
        recorder.record(Duration::from_millis(1));
        assert_eq!((recorder.take().total(), recorder.take().total()), (1, 0));
    }
}
