//! How a run went, interval by interval.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Moment;
use crate::histogram::{Counts, Recorder};

/// A plot needs no more points than this.
const INTERVALS_MAX: u32 = 240;
const WIDTH_MIN: Duration = Duration::from_millis(250);

/// What happened in one interval.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Interval {
    /// Messages published.
    pub(crate) published: u64,
    /// Messages heard, over all subscribers.
    pub(crate) delivered: u64,
    /// Connections that were up at its end.
    pub(crate) up: u64,
    /// From when each message was due until it was heard.
    pub(crate) latency: Counts,
}

/// The intervals of a run, all equally long.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Timeline {
    /// When the first began.
    pub(crate) start: Moment,
    /// How long each is.
    pub(crate) width: Duration,
    /// In order.
    pub(crate) intervals: Vec<Interval>,
}

/// Draws a timeline up.
#[derive(Debug)]
pub(crate) struct Chronicle {
    timeline: Timeline,
    latency: Recorder,
    /// The totals when the present interval began.
    totals: Totals,
}

/// What a process has counted so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Totals {
    /// Messages published.
    pub(crate) published: u64,
    /// Messages heard.
    pub(crate) delivered: u64,
    /// Connections that are up.
    pub(crate) up: u64,
}

impl Timeline {
    /// An empty one of a run that takes about as long as `expected`.
    pub(crate) fn new(start: Moment, expected: Duration) -> Self {
        Self { start, width: WIDTH_MIN.max(expected / INTERVALS_MAX), intervals: Vec::new() }
    }

    /// Adds what another process saw in the same intervals.
    pub(crate) fn join(&mut self, other: &Self) {
        if self.intervals.is_empty() {
            return self.clone_from(other);
        }
        let len = self.intervals.len().max(other.intervals.len());
        self.intervals.resize_with(len, Interval::default);
        for (ours, theirs) in self.intervals.iter_mut().zip(&other.intervals) {
            ours.published += theirs.published;
            ours.delivered += theirs.delivered;
            ours.up += theirs.up;
            ours.latency.join(&theirs.latency);
        }
    }

    /// All latencies.
    pub(crate) fn latency(&self) -> Counts {
        // Like a tournament: joining one by one would go over the early ones again and again.
        let mut counts: Vec<_> = self.intervals.iter().map(|interval| interval.latency.clone()).collect();
        while counts.len() > 1 {
            let pairs = counts.chunks(2);
            counts = pairs
                .map(|pair| {
                    pair.iter().fold(Counts::default(), |mut joined, counts| {
                        joined.join(counts);
                        joined
                    })
                })
                .collect();
        }
        counts.pop().unwrap_or_default()
    }
}

impl Chronicle {
    /// Begins with `timeline`.
    pub(crate) fn new(timeline: Timeline, totals: Totals) -> Self {
        Self { timeline, latency: Recorder::default(), totals }
    }

    /// A message was heard, so long after it was due.
    pub(crate) fn heard(&mut self, latency: Duration) {
        self.latency.record(latency);
    }

    /// Goes over to the interval that `now` is in. What happened since the last call counts as the interval's it began
    /// in; to be called often.
    pub(crate) fn roll(&mut self, now: Moment, totals: Totals) {
        let Timeline { start, width, intervals } = &self.timeline;
        let present = (now.since(*start).as_nanos() / width.as_nanos().max(1)) as usize;
        if present > intervals.len() {
            self.close(present, totals);
        }
    }

    /// The whole, with the interval that was under way.
    pub(crate) fn finish(mut self, totals: Totals) -> Timeline {
        let begun = self.timeline.intervals.len() + 1;
        self.close(begun, totals);
        self.timeline
    }

    /// Fills the intervals up to `present`: the first of them with what happened, the others with none of it.
    fn close(&mut self, present: usize, totals: Totals) {
        self.timeline.intervals.push(Interval {
            published: totals.published - self.totals.published,
            delivered: totals.delivered - self.totals.delivered,
            up: totals.up,
            latency: self.latency.take(),
        });
        self.timeline.intervals.resize_with(present, || Interval { up: totals.up, ..Interval::default() });
        self.totals = totals;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn chronicle() -> Chronicle {
        Chronicle::new(Timeline::new(Moment(0), SECOND * INTERVALS_MAX), Totals::default())
    }

    fn totals(published: u64, delivered: u64) -> Totals {
        Totals { published, delivered, up: 5 }
    }

    #[test]
    fn what_happens_is_told_in_the_interval_it_began_in() {
        let mut chronicle = chronicle();
        chronicle.heard(SECOND);
        chronicle.roll(Moment(0) + SECOND / 2, totals(1, 1));
        chronicle.roll(Moment(0) + SECOND * 3, totals(2, 4));
        let timeline = chronicle.finish(totals(2, 5));
        let told = timeline.intervals.iter().map(|interval| (interval.published, interval.delivered));
        assert_eq!(told.collect::<Vec<_>>(), [(2, 4), (0, 0), (0, 0), (0, 1)]);
        assert!(timeline.intervals.iter().all(|interval| interval.up == 5));
        assert_eq!(timeline.latency().total(), 1);
    }

    #[test]
    fn the_timelines_of_two_processes_are_added_up() {
        let [mut ours, theirs] = [1, 3].map(|seconds| {
            let mut chronicle = chronicle();
            chronicle.heard(SECOND * seconds);
            chronicle.roll(Moment(0) + SECOND * seconds, totals(1, 10));
            chronicle.finish(totals(1, 10))
        });
        let mut joined = Timeline::default();
        joined.join(&ours);
        joined.join(&theirs);
        ours.join(&theirs);
        assert_eq!(ours, joined);
        assert_eq!(joined.intervals[0].delivered, 20);
        assert_eq!((joined.intervals.len(), joined.latency().total()), (4, 2));
    }
}
