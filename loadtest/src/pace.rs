//! When the next message is to be published.
//!
//! An open loop publishes at a fixed rate whatever becomes of the messages, and each is stamped with the moment at
//! which it was due. If the publisher falls behind, the wait is part of every latency it causes (no coordinated
//! omission), and is recorded by itself besides.

use std::time::Duration;

use crate::clock::Moment;

/// How messages follow one another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Pace {
    /// So many a second, evenly spaced.
    Open {
        /// Messages a second.
        rate: f64,
        /// When the first is due; `None` before it begins.
        start: Option<Moment>,
        /// How many have been due.
        taken: u64,
    },
    /// Another one whenever fewer than so many are on their way.
    Closed(usize),
    /// As fast as the publishers take them.
    FlatOut,
    /// None at all.
    Silent,
}

/// What a pace says of this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// One message is due, and has been since this moment.
    Since(Moment),
    /// One will be at this moment, or when something has been heard.
    At(Option<Moment>),
}

impl Pace {
    /// An open loop that has not begun.
    pub(crate) fn open(rate: f64) -> Self {
        Self::Open { rate, start: None, taken: 0 }
    }

    /// Whether a message is due at `now`, with `in_flight` on their way. Counts it as taken.
    pub(crate) fn take(&mut self, now: Moment, in_flight: usize) -> Due {
        match self {
            Self::Open { rate, start, taken } => {
                let offset = Duration::from_secs_f64(*taken as f64 / *rate);
                let due = *start.get_or_insert(now) + offset;
                if due > now {
                    return Due::At(Some(due));
                }
                *taken += 1;
                Due::Since(due)
            }
            Self::Closed(window) if in_flight < *window => Due::Since(now),
            Self::FlatOut => Due::Since(now),
            Self::Closed(_) | Self::Silent => Due::At(None),
        }
    }

    /// What is left for one of `count` processes that go at this pace together.
    pub(crate) fn share(self, count: usize) -> Self {
        match self {
            Self::Open { rate, .. } => Self::open(rate / count as f64),
            Self::Closed(window) => Self::Closed(window.div_ceil(count)),
            Self::FlatOut | Self::Silent => self,
        }
    }

    /// Forgets what was due: an open loop begins anew with its next message.
    pub(crate) fn restart(&mut self) {
        if let Self::Open { rate, .. } = *self {
            *self = Self::open(rate);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at_millis(millis: u64) -> Moment {
        Moment(1_000_000_000 + millis * 1_000_000)
    }

    #[test]
    fn a_message_that_goes_out_late_was_due_when_it_was_due() {
        let mut pace = Pace::open(100.0);
        assert_eq!(pace.take(at_millis(0), 0), Due::Since(at_millis(0)));
        assert_eq!(pace.take(at_millis(3), 0), Due::At(Some(at_millis(10))));
        // The publisher was held up for 25 ms: two are overdue, and say since when.
        assert_eq!(pace.take(at_millis(28), 0), Due::Since(at_millis(10)));
        assert_eq!(pace.take(at_millis(28), 0), Due::Since(at_millis(20)));
        assert_eq!(pace.take(at_millis(28), 0), Due::At(Some(at_millis(30))));
    }

    #[test]
    fn an_open_loop_keeps_its_rate_for_hours() {
        let mut pace = Pace::open(3.0);
        pace.take(at_millis(0), 0);
        for _ in 1..36_000 {
            pace.take(at_millis(20_000_000), 0);
        }
        assert_eq!(pace.take(at_millis(20_000_000), 0), Due::Since(at_millis(12_000_000)));
    }

    #[test]
    fn a_closed_loop_waits_for_what_is_on_its_way() {
        let mut pace = Pace::Closed(2);
        assert_eq!(pace.take(at_millis(5), 1), Due::Since(at_millis(5)));
        assert_eq!(pace.take(at_millis(5), 2), Due::At(None));
    }
}
