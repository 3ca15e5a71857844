//! What a run is doing, for those who watch.

use std::time::Duration;

use crate::books::Books;
use crate::clock::Moment;
use crate::crowd::Crowd;
use crate::observer::Live;
use crate::returns::Returns;

/// One stretch of a run.
#[derive(Debug)]
pub(super) struct Phase {
    name: &'static str,
    start: Moment,
    /// How long it takes, about; zero if it takes until everybody has made a step.
    expected: Duration,
}

impl Phase {
    /// It begins now.
    pub(super) fn new(name: &'static str, expected: Duration) -> Self {
        Self { name, start: Moment::now(), expected }
    }

    /// How things are at `now`.
    pub(super) fn live(&self, now: Moment, crowd: &Crowd, books: &Books, returns: &Returns) -> Live {
        // Until everybody is subscribed, those who are not yet have arrived, too.
        let arrived = returns.welcomed.min(crowd.len() as u64);
        let up = if books.published() == 0 { arrived } else { crowd.up() as u64 };
        let progress = match self.expected {
            Duration::ZERO if arrived < crowd.len() as u64 => arrived as f64 / crowd.len() as f64,
            Duration::ZERO => crowd.up() as f64 / crowd.len().max(1) as f64,
            expected => now.since(self.start).div_duration_f64(expected).min(1.0),
        };
        let (published, delivered) = (books.published(), books.delivered());
        Live { phase: self.name.to_owned(), progress, up, published, delivered }
    }
}
