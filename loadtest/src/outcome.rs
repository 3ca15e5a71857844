//! What one process found: what the report is made of, in a form that joins.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::histogram::Counts;
use crate::ledger::Tally;
use crate::scratch::Traffic;
use crate::timeline::Timeline;

/// The findings of a process, or of several joined.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Connections that were asked for.
    pub(crate) connections: u64,
    /// Messages published while it counted, and how many should have been; equal where no rate was asked for.
    pub(crate) published: u64,
    /// See `published`.
    pub(crate) asked: u64,
    /// Messages heard while it counted.
    pub(crate) delivered: u64,
    /// What that was in bytes.
    pub(crate) traffic: Traffic,
    /// What was wrong with them, warming up included.
    pub(crate) tally: Tally,
    /// Gaps announced.
    pub(crate) gaps: u64,
    /// Messages that reached a subscriber of another topic.
    pub(crate) misrouted: u64,
    /// How often a closed loop gave up on what was in the air.
    pub(crate) stalls: u64,
    /// Connections that ended without being asked to.
    pub(crate) ended: u64,
    /// Connections that came back.
    pub(crate) returned: u64,
    /// Attempts to connect that came to nothing.
    pub(crate) refused: u64,
    /// Connections that were still away at the end.
    pub(crate) away: u64,
    /// Upgrades that went through while it counted.
    pub(crate) upgrades: u64,
    /// From the first byte of a connection to its welcome.
    pub(crate) opening: Counts,
    /// From a connection's end until it was subscribed again.
    pub(crate) returning: Counts,
    /// From the first end until all were subscribed again.
    pub(crate) all_back: Option<Duration>,
    /// Latencies of the quiet topic beside the hot one.
    pub(crate) quiet: Counts,
    /// Round trips of ping commands.
    pub(crate) pings: Counts,
    /// From when a message was due to its acknowledgement.
    pub(crate) acknowledged: Counts,
    /// How overdue messages were when they were published.
    pub(crate) overdue: Counts,
    /// How long what happened waited for this process, at most.
    pub(crate) lag: Counts,
    /// How much of the time the busiest process was not waiting for something to happen, from 0 to 1.
    pub(crate) busy: f64,
    /// How much of the time a process was ready to work and had to wait for a CPU, from 0 to 1.
    pub(crate) starved: f64,
    /// How long it counted.
    pub(crate) measured: Duration,
    /// Interval by interval.
    pub(crate) timeline: Timeline,
    /// What must not happen and did.
    pub(crate) faults: Vec<String>,
}

impl Outcome {
    /// Adds what another process found in the same run.
    pub(crate) fn join(&mut self, other: Self) {
        for (ours, theirs) in [
            (&mut self.connections, other.connections),
            (&mut self.published, other.published),
            (&mut self.asked, other.asked),
            (&mut self.delivered, other.delivered),
            (&mut self.gaps, other.gaps),
            (&mut self.misrouted, other.misrouted),
            (&mut self.stalls, other.stalls),
            (&mut self.ended, other.ended),
            (&mut self.returned, other.returned),
            (&mut self.refused, other.refused),
            (&mut self.away, other.away),
            (&mut self.upgrades, other.upgrades),
        ] {
            *ours += theirs;
        }
        for (ours, theirs) in [
            (&mut self.opening, &other.opening),
            (&mut self.returning, &other.returning),
            (&mut self.quiet, &other.quiet),
            (&mut self.pings, &other.pings),
            (&mut self.acknowledged, &other.acknowledged),
            (&mut self.overdue, &other.overdue),
            (&mut self.lag, &other.lag),
        ] {
            ours.join(theirs);
        }
        self.tally += other.tally;
        self.traffic += other.traffic;
        self.all_back = self.all_back.max(other.all_back);
        self.busy = self.busy.max(other.busy);
        self.starved = self.starved.max(other.starved);
        self.measured = self.measured.max(other.measured);
        self.timeline.join(&other.timeline);
        self.faults.extend(other.faults);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::histogram::Recorder;

    fn outcome(delivered: u64, millis: u64) -> Outcome {
        let mut recorder = Recorder::default();
        recorder.record(Duration::from_millis(millis));
        Outcome {
            delivered,
            busy: delivered as f64 / 10.0,
            measured: Duration::from_secs(delivered),
            tally: Tally { lost: delivered, subscribers: 1, ..Tally::default() },
            opening: recorder.take(),
            faults: vec![format!("{delivered}")],
            ..Outcome::default()
        }
    }

    #[test]
    fn counts_are_added_and_limits_are_the_widest() {
        let mut joined = outcome(2, 10);
        // As it comes from the process that found it.
        let told = serde_json::to_string(&outcome(3, 20)).unwrap();
        joined.join(serde_json::from_str(&told).unwrap());
        assert_eq!((joined.delivered, joined.tally.lost, joined.tally.subscribers), (5, 5, 2));
        assert_eq!((joined.busy, joined.measured), (0.3, Duration::from_secs(3)));
        assert_eq!(joined.opening.total(), 2);
        assert!(joined.opening.quantile(1.0) > joined.opening.quantile(0.5));
        assert_eq!(joined.faults, ["2", "3"]);
    }
}
