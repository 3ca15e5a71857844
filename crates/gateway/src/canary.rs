//! Whether delivery works: what the node publishes to itself, by the road that every message takes.
//!
//! Once a second a number is published to a reserved topic of this node's own, through the broker, and waited for
//! in an inbox like a worker's. A link can be up and carry nothing: a partition of one direction, a Redis that
//! answers pings and is too busy to publish. Only what comes back shows that messages do.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use causeway_broker::{Broker, Delivery};
use causeway_protocol::Topic;
use tokio::time::MissedTickBehavior;

use crate::metrics::Metrics;

/// How often one is sent.
const INTERVAL: Duration = Duration::from_secs(1);
/// How many in a row may stay away before the node says that it is not ready.
const MISSES_MAX: u32 = 3;
/// Room for the few canaries that can be in front of us.
const INBOX_BYTES: usize = 16 * 1024;
/// How many are remembered while none comes back.
const REMEMBERED_MAX: usize = 64;

/// What is known from the canaries so far.
#[derive(Debug, Default)]
pub(crate) struct CanaryState {
    has_returned: AtomicBool,
    misses: AtomicU32,
    /// Of the last that came back.
    round_trip_us: AtomicU64,
}

impl CanaryState {
    /// How long the last that came back was away.
    pub(crate) fn round_trip(&self) -> Option<Duration> {
        let round_trip = || Duration::from_micros(self.round_trip_us.load(Relaxed));
        self.has_returned.load(Relaxed).then(round_trip)
    }

    /// How many in a row have not come back.
    pub(crate) fn misses(&self) -> u32 {
        self.misses.load(Relaxed)
    }

    fn returned(&self, after: Duration) {
        self.round_trip_us.store(u64::try_from(after.as_micros()).unwrap_or(u64::MAX), Relaxed);
        self.has_returned.store(true, Relaxed);
        self.misses.store(0, Relaxed);
    }

    /// Why delivery cannot be believed to work, if so.
    pub(crate) fn trouble(&self) -> Option<&'static str> {
        if !self.has_returned.load(Relaxed) {
            return Some("no canary has come back yet: nothing shows that messages are delivered");
        }
        let is_silent = self.misses.load(Relaxed) >= MISSES_MAX;
        is_silent.then_some("three canaries in a row did not come back: messages are not delivered")
    }
}

/// Sends canaries for as long as it is polled.
pub(crate) async fn run(broker: &dyn Broker, state: &CanaryState, metrics: &Metrics) {
    let topic = Topic::parse(&format!("_canary.{:016x}", rand::random::<u64>())).expect("a legal name");
    let inbox = broker.listen(&topic, INBOX_BYTES);
    let mut interval = tokio::time::interval(INTERVAL);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut canaries = Canaries::default();
    loop {
        tokio::select! {
            _ = interval.tick() => {
                let misses = canaries.away();
                state.misses.store(misses, Relaxed);
                metrics.canary_missed(misses);
                // What becomes of it is seen by its return.
                drop(broker.publish(topic.clone(), canaries.send(Instant::now()).to_string().into()));
            }
            () = inbox.ready() => {
                for delivery in inbox.take() {
                    match delivery {
                        Delivery::Publication(publication, received) => {
                            if let Some(took) = canaries.returned(publication.payload(), received) {
                                state.returned(took);
                                metrics.canary_returned(took);
                            }
                        }
                        // From now on they come back: the first should not wait for its second.
                        Delivery::Live(..) => interval.reset_immediately(),
                        Delivery::LinkLost { .. } | Delivery::Dropped { .. } => {}
                    }
                }
            }
        }
    }
}

/// Those that were sent and have not come back.
#[derive(Debug, Default)]
struct Canaries {
    sent: u64,
    /// Numbers and times, oldest first.
    away: VecDeque<(u64, Instant)>,
}

impl Canaries {
    /// How many have been sent since the last one that came back.
    fn away(&self) -> u32 {
        u32::try_from(self.away.len()).unwrap_or(u32::MAX)
    }

    /// Sends another; says its number.
    fn send(&mut self, now: Instant) -> u64 {
        if self.away.len() == REMEMBERED_MAX {
            self.away.pop_front();
        }
        self.sent += 1;
        self.away.push_back((self.sent, now));
        self.sent
    }

    /// One has come back; says how long it took. Those before it will not come any more: the broker keeps order.
    fn returned(&mut self, payload: &[u8], now: Instant) -> Option<Duration> {
        let number: u64 = std::str::from_utf8(payload).ok()?.parse().ok()?;
        let place = self.away.iter().position(|&(sent, _)| sent == number)?;
        let (_, sent_at) = self.away.drain(..=place).next_back()?;
        Some(now.saturating_duration_since(sent_at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_canary_that_returns_makes_up_for_those_before_it() {
        let mut canaries = Canaries::default();
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        for second in 0..4 {
            assert_eq!(canaries.send(at(second)), second + 1);
        }
        assert_eq!(canaries.away(), 4);
        assert_eq!(canaries.returned(b"3", at(5)), Some(Duration::from_secs(3)));
        assert_eq!(canaries.away(), 1, "the fourth may come still");
        for nonsense in [&b"3"[..], b"99", b"\xff", b""] {
            assert_eq!(canaries.returned(nonsense, at(5)), None);
        }
        assert_eq!(canaries.away(), 1);
    }

    #[test]
    fn a_long_outage_is_not_remembered_canary_by_canary() {
        let mut canaries = Canaries::default();
        let now = Instant::now();
        for number in 1..=1000 {
            assert_eq!(canaries.send(now), number);
        }
        assert_eq!(canaries.away(), REMEMBERED_MAX as u32);
        assert!(canaries.returned(b"1000", now).is_some());
        assert_eq!(canaries.away(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn trouble_is_over_when_the_first_has_come_back() {
        let broker = causeway_broker::EmbeddedBroker::new(1024);
        let (state, metrics) = (CanaryState::default(), Metrics::new(&[]));
        assert!(state.trouble().is_some_and(|trouble| trouble.starts_with("no canary has come back yet")));
        let second = tokio::time::timeout(Duration::from_millis(100), run(&broker, &state, &metrics)).await;
        assert!(second.is_err(), "it goes on");
        assert_eq!(state.trouble(), None);
        assert!(state.round_trip().is_some());
        state.misses.store(MISSES_MAX, Relaxed);
        assert!(state.trouble().is_some_and(|trouble| trouble.starts_with("three canaries")));
    }
}
