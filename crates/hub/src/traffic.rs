//! How much a topic has been owed to its subscribers lately.
//!
//! A count that is read now and then must not cost a message anything: it has its place in the topic's own entry,
//! which a message looks at anyway, and is exact. What is older fades: with every period that passes, what was
//! counted before counts half.

use crate::Moment;

/// One period is 2^25 µs, about half a minute: dividing by it is a shift.
const PERIOD_BITS: u32 = 25;

/// Messages and payload bytes, one for each subscriber. Sixteen bytes of every topic.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Traffic {
    bytes: u64,
    /// Ends at its largest value, which no worker reaches within the minute that is counted.
    messages: u32,
    /// The period up to which both have faded.
    period: u32,
}

impl Traffic {
    /// Counts a message of `payload_bytes` for so many subscribers.
    pub(crate) fn count(&mut self, subscribers: usize, payload_bytes: usize, now: Moment) {
        // Most messages come in the period of the one before.
        if self.period != period(now) {
            *self = self.faded(now);
        }
        self.messages = self.messages.saturating_add(u32::try_from(subscribers).unwrap_or(u32::MAX));
        self.bytes += (subscribers * payload_bytes) as u64;
    }

    /// Messages and bytes a second.
    pub(crate) fn per_second(self, now: Moment) -> (f64, f64) {
        let Self { bytes, messages, .. } = self.faded(now);
        let seconds = seconds_counted(now);
        (f64::from(messages) / seconds, bytes as f64 / seconds)
    }

    fn faded(self, now: Moment) -> Self {
        let period = period(now);
        let halvings = period - self.period;
        Self {
            bytes: self.bytes.checked_shr(halvings).unwrap_or(0),
            messages: self.messages.checked_shr(halvings).unwrap_or(0),
            period,
        }
    }
}

/// For how many seconds of steady traffic a faded count stands: those of this period, half of those of the period
/// before, and so on. At least one, so that the first message of all is no torrent.
fn seconds_counted(now: Moment) -> f64 {
    let period_seconds = f64::from(1 << PERIOD_BITS) / 1e6;
    let in_this_one = (now.as_micros() % (1 << PERIOD_BITS)) as f64 / 1e6;
    let before = period_seconds * (1.0 - (-f64::from(period(now))).exp2());
    (in_this_one + before).max(1.0)
}

fn period(now: Moment) -> u32 {
    u32::try_from(now.as_micros() >> PERIOD_BITS).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: f64) -> Moment {
        Moment::at(Duration::from_secs_f64(seconds))
    }

    #[test]
    fn steady_traffic_has_its_rate_whenever_it_is_looked_at() {
        let mut traffic = Traffic::default();
        for tenth in 0..6000 {
            let now = at(f64::from(tenth) / 10.0);
            traffic.count(50, 8, now);
            let (messages, bytes) = traffic.per_second(now);
            assert!(tenth < 10 || (messages / 500.0 - 1.0).abs() < 0.11, "{messages} at {now:?}");
            assert!((bytes / messages - 8.0).abs() < 0.1);
        }
    }

    #[test]
    fn a_burst_is_forgotten_within_minutes() {
        let mut traffic = Traffic::default();
        traffic.count(1000, 100, at(100.0));
        let rate = |seconds| traffic.per_second(at(seconds)).0;
        assert!(rate(100.0) > 15.0);
        assert!(rate(170.0) < 0.4 * rate(100.0));
        assert_eq!(rate(500.0), 0.0);
        assert_eq!(rate(1e6), 0.0);
    }
}
