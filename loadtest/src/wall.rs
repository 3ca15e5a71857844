//! What was in the way of more: the gateway, the load tester, or nothing.
//!
//! A figure says something about the gateway only where the load tester was not the limit. It knows how much of the time
//! its busiest thread was not waiting for something to happen (that includes waiting for a CPU that others use), how long
//! what happened had to wait for it, and how late it published.

use std::fmt;
use std::time::Duration;

/// A thread or a process above this share has no time to spare.
const BUSY: f64 = 0.9;
/// Fewer messages than this share of those asked for is not what was asked for.
const ENOUGH: f64 = 0.98;
/// What the load tester may add to a latency without a word: this, or a third of it.
const LAG: Duration = Duration::from_millis(1);

/// What was seen of both sides.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Signs {
    /// How much of the time the load tester's busiest thread was not waiting, from 0 to 1.
    pub(crate) load_busy: f64,
    /// How much of one CPU the busiest process of the server may have used, from 0; `None` if it was not watched.
    pub(crate) server_busy: Option<f64>,
    /// What happened waited so long for the load tester at most, in 99 of 100 cases.
    pub(crate) lag: Duration,
    /// The latency of 99 of 100 deliveries.
    pub(crate) latency: Option<Duration>,
    /// Messages asked for, and published.
    pub(crate) asked: u64,
    /// See `asked`.
    pub(crate) published: u64,
    /// So late did messages go out, in 99 of 100 cases.
    pub(crate) overdue: Duration,
}

/// Who was the limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wall {
    /// The figures are the load tester's own: why.
    LoadTester(String),
    /// The rates are the gateway's, the latencies partly the load tester's own: why.
    Blurred(String),
    /// The figures are the gateway's.
    Gateway(String),
    /// Both had time to spare.
    Nobody,
}

impl Signs {
    /// What they mean.
    pub(crate) fn judge(&self) -> Wall {
        let percent = |share: f64| (100.0 * share).round();
        let server = self.server_busy.filter(|&busy| busy >= BUSY).map(percent);
        let load = Some(self.load_busy).filter(|&busy| busy >= BUSY).map(percent);
        match (load, server) {
            (Some(load), None) => Wall::LoadTester(format!(
                "its busiest thread was busy {load} % of the time: use more --processes or another machine"
            )),
            (Some(load), Some(server)) => Wall::LoadTester(format!(
                "it was busy {load} % of the time and the server {server} %: with more --processes the server might do more"
            )),
            (None, _) if (self.published as f64) < self.asked as f64 * ENOUGH => Wall::LoadTester(format!(
                "{} messages were asked for and {} published: more --publishers, or what takes the messages is the wall",
                self.asked, self.published
            )),
            (None, _) if self.is_late(self.overdue) => Wall::Blurred(format!(
                "1 of 100 messages or connections went out more than {:.1?} after it was due",
                self.overdue
            )),
            (None, None) if self.is_late(self.lag) => {
                Wall::Blurred(format!("1 of 100 deliveries may have waited {:.1?} for it", self.lag))
            }
            (None, Some(server)) => Wall::Gateway(format!("{server} % of a CPU were used by it")),
            (None, None) => Wall::Nobody,
        }
    }

    /// Whether `wait` is a large part of what was measured.
    fn is_late(&self, wait: Duration) -> bool {
        wait > LAG && self.latency.is_none_or(|latency| wait * 3 > latency)
    }
}

impl fmt::Display for Wall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LoadTester(why) => write!(f, "The load tester was the wall: {why}."),
            Self::Blurred(why) => write!(f, "Part of the latency is the load tester's own: {why}."),
            Self::Gateway(why) => write!(f, "The gateway was the wall: {why}."),
            Self::Nobody => write!(f, "Neither the gateway nor the load tester was at its limit."),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALM: Signs = Signs {
        load_busy: 0.3,
        server_busy: Some(0.5),
        lag: Duration::from_micros(50),
        latency: Some(Duration::from_millis(2)),
        asked: 1000,
        published: 1000,
        overdue: Duration::from_micros(60),
    };

    fn is_ours(signs: Signs) -> bool {
        matches!(signs.judge(), Wall::LoadTester(_))
    }

    fn is_blurred(signs: Signs) -> bool {
        matches!(signs.judge(), Wall::Blurred(_))
    }

    #[test]
    fn whoever_had_no_time_to_spare_was_the_wall() {
        assert_eq!(CALM.judge(), Wall::Nobody);
        assert!(matches!(Signs { server_busy: Some(0.99), ..CALM }.judge(), Wall::Gateway(_)));
        assert!(is_ours(Signs { load_busy: 0.95, ..CALM }));
        let both = Signs { load_busy: 0.95, server_busy: Some(0.99), ..CALM }.judge();
        assert!(matches!(both, Wall::LoadTester(_)) && both.to_string().contains("99 %"), "{both}");
    }

    #[test]
    fn a_load_tester_that_was_late_says_so() {
        let late = Duration::from_millis(5);
        assert!(is_blurred(Signs { overdue: late, ..CALM }));
        assert!(is_blurred(Signs { lag: late, ..CALM }));
        assert!(is_ours(Signs { published: 900, ..CALM }));
        // What is little beside the latency is no matter.
        let slow = Signs { lag: late, overdue: late, latency: Some(Duration::from_secs(1)), ..CALM };
        assert_eq!(slow.judge(), Wall::Nobody);
    }
}
