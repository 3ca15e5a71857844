//! Signs of life of a thread.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Tells whether a thread still comes round to its work: the thread beats, others look. Never blocks.
#[derive(Debug)]
pub struct Pulse {
    began: Instant,
    /// Milliseconds from `began` to the last beat.
    beat: AtomicU64,
}

impl Pulse {
    /// Beats now.
    pub fn beat(&self) {
        self.beat.store(self.milliseconds(), Relaxed);
    }

    /// How long ago the last beat was, to the millisecond; from the making where there was none.
    pub fn silent_for(&self) -> Duration {
        Duration::from_millis(self.milliseconds().saturating_sub(self.beat.load(Relaxed)))
    }

    fn milliseconds(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Default for Pulse {
    /// A thread that begins now.
    fn default() -> Self {
        Self { began: Instant::now(), beat: AtomicU64::new(0) }
    }
}
