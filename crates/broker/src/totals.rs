//! The state of the link and its running totals, kept beside the locks: whoever asks, asks without waiting for
//! a broker that is at work.
//!
//! Each number is right by itself; two of them may be a message apart.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::{LinkReport, Pulse};

#[derive(Debug, Default)]
pub(crate) struct Totals {
    pub(crate) up: AtomicBool,
    /// Of the broker's thread, where it has one.
    pub(crate) pulse: Option<Pulse>,
    pub(crate) reconnects: AtomicU64,
    pub(crate) topics: AtomicU64,
    pub(crate) messages_received: AtomicU64,
    pub(crate) bytes_received: AtomicU64,
    pub(crate) dropped_overload: AtomicU64,
    pub(crate) dropped_too_large: AtomicU64,
}

impl Totals {
    pub(crate) fn report(&self) -> LinkReport {
        LinkReport {
            up: self.up.load(Relaxed),
            stuck_for: self.pulse.as_ref().map_or(Duration::ZERO, Pulse::silent_for),
            reconnects: self.reconnects.load(Relaxed),
            topics: self.topics.load(Relaxed),
            messages_received: self.messages_received.load(Relaxed),
            bytes_received: self.bytes_received.load(Relaxed),
            dropped_overload: self.dropped_overload.load(Relaxed),
            dropped_too_large: self.dropped_too_large.load(Relaxed),
        }
    }
}
