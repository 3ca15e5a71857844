//! What a hub counts. Plain numbers of one thread: whoever wants sums over workers adds up, now and then.

use std::time::Duration;

use causeway_protocol::frame::DeflateCounts;
use causeway_protocol::{CommandOp, ErrorCode, GapReason};

/// Totals since the hub was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HubCounters {
    /// Messages written to sockets, one per subscriber.
    pub messages_sent: u64,
    /// Bytes written to sockets, frames of all kinds.
    pub bytes_sent: u64,
    /// Commands received, well formed or not.
    pub commands: CommandCounts,
    /// Gaps announced, one per topic and subscriber, by reason.
    pub gaps: GapCounts,
    /// Sessions that were told to go, by a drain of all or of some.
    pub drains: u64,
    /// Frames of messages put into outboxes compressed, one per subscriber.
    pub deflate: DeflateCounts,
    /// How long messages took from the broker to the socket, one entry per subscriber.
    pub delivery: LatencyCounts,
}

/// What there is right now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HubGauges {
    /// Sessions, those that are closing included.
    pub sessions: usize,
    /// Of these, sessions that agreed on compression.
    pub deflating_sessions: usize,
    /// Subscriptions, one per topic and subscriber.
    pub subscriptions: usize,
    /// Topics somebody is subscribed to or waiting for.
    pub topics: usize,
    /// Frames that wait in outboxes, one per subscriber.
    pub frames_waiting: usize,
    /// Bytes of those frames, each frame once, however many wait for it.
    pub frame_bytes: usize,
}

impl HubGauges {
    /// About how much memory the outboxes take, in bytes: the frames, and their places in the queues.
    pub fn outbox_bytes(&self) -> usize {
        // A queue of pointers has grown to at most twice what it holds.
        self.frame_bytes + self.frames_waiting * 2 * size_of::<usize>()
    }
}

/// Of one topic class: [`Hub::with_classes`](crate::Hub::with_classes).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClassCounts {
    /// Messages put into outboxes, one per subscriber, since the hub was made.
    pub messages_offered: u64,
    /// Subscriptions right now.
    pub subscriptions: usize,
}

/// Commands by what they asked for and how they were answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CommandCounts([[u64; 1 + ErrorCode::ALL.len()]; 1 + CommandOp::ALL.len()]);

impl CommandCounts {
    /// Counts a command: `op` is `None` where it could not be read, `refused` where it was carried out.
    pub(crate) fn count(&mut self, op: Option<CommandOp>, refused: Option<ErrorCode>) {
        self.0[op.map_or(0, |op| 1 + op as usize)][refused.map_or(0, |code| 1 + code as usize)] += 1;
    }

    /// All of them, those that never came included: `(what, refused as, how often)`.
    pub fn iter(&self) -> impl Iterator<Item = (Option<CommandOp>, Option<ErrorCode>, u64)> {
        let ops = std::iter::once(None).chain(CommandOp::ALL.iter().copied().map(Some));
        let outcomes = || std::iter::once(None).chain(ErrorCode::ALL.iter().copied().map(Some));
        ops.zip(self.0)
            .flat_map(move |(op, counts)| outcomes().zip(counts).map(move |(code, count)| (op, code, count)))
    }

    /// How many in all.
    pub fn total(&self) -> u64 {
        self.iter().map(|(_, _, count)| count).sum()
    }
}

/// Gaps by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GapCounts([u64; GapReason::ALL.len()]);

impl GapCounts {
    pub(crate) fn count(&mut self, reason: GapReason, told: usize) {
        self.0[reason as usize] += told as u64;
    }

    /// All of them: `(reason, how often)`.
    pub fn iter(&self) -> impl Iterator<Item = (GapReason, u64)> {
        GapReason::ALL.iter().copied().zip(self.0)
    }

    /// How many in all.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }
}

/// A histogram of durations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LatencyCounts {
    /// How many were up to each of [`BOUNDS`](Self::BOUNDS) and above the one before; the last, how many were
    /// above all.
    pub buckets: [u64; 1 + LatencyCounts::BOUNDS.len()],
    /// Their sum, in microseconds.
    pub sum_us: u64,
}

impl LatencyCounts {
    /// The upper bounds of the buckets, in microseconds.
    pub const BOUNDS: [u64; 16] = [
        50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
        2_500_000, 10_000_000,
    ];

    /// Counts one duration.
    pub(crate) fn record(&mut self, duration: Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        // Most are in one of the first buckets.
        let bucket = Self::BOUNDS.iter().position(|&bound| us <= bound).unwrap_or(Self::BOUNDS.len());
        self.buckets[bucket] += 1;
        self.sum_us = self.sum_us.saturating_add(us);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_counted_where_it_belongs() {
        let mut counts = LatencyCounts::default();
        for us in [0, 50, 51, 10_000_000, 10_000_001] {
            counts.record(Duration::from_micros(us));
        }
        assert_eq!((counts.buckets[0], counts.buckets[1]), (2, 1));
        assert_eq!((counts.buckets[15], counts.buckets[16]), (1, 1));
        assert_eq!(counts.sum_us, 20_000_102);
    }

    #[test]
    fn commands_are_counted_by_what_they_were_and_what_became_of_them() {
        let mut counts = CommandCounts::default();
        counts.count(Some(CommandOp::Ping), None);
        counts.count(Some(CommandOp::Ping), None);
        counts.count(Some(CommandOp::Publish), Some(ErrorCode::Forbidden));
        counts.count(None, Some(ErrorCode::Malformed));
        let came: Vec<_> = counts.iter().filter(|(_, _, count)| *count > 0).collect();
        assert_eq!(
            came,
            [
                (None, Some(ErrorCode::Malformed), 1),
                (Some(CommandOp::Publish), Some(ErrorCode::Forbidden), 1),
                (Some(CommandOp::Ping), None, 2),
            ]
        );
        assert_eq!(counts.total(), 4);
    }
}
