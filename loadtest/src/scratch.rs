//! What the connections of a process share while they read: a buffer, what inflates, and the count of what came.

use std::ops::AddAssign;

use causeway_protocol::frame::{DeflateCounts, Inflater};
use serde::{Deserialize, Serialize};

/// One read takes what a socket holds in all but the worst case.
const BUFFER_BYTES: usize = 256 * 1024;

/// Of all connections together.
#[derive(Debug)]
pub(crate) struct Scratch {
    pub(crate) buffer: Vec<u8>,
    /// Whether messages come compressed: upgrades are no good without.
    pub(crate) compress: bool,
    pub(crate) inflater: Inflater,
    /// What sockets gave since [`Scratch::take_traffic`].
    pub(crate) wire_bytes: u64,
    inflated_before: DeflateCounts,
}

/// How many bytes came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Traffic {
    /// Over the sockets, upgrades and frames and all.
    pub(crate) wire_bytes: u64,
    /// As payloads of compressed messages.
    pub(crate) deflated_bytes: u64,
    /// When those were inflated.
    pub(crate) plain_bytes: u64,
}

impl Scratch {
    /// Nothing has come yet.
    pub(crate) fn new(compress: bool) -> Self {
        Self {
            buffer: vec![0; BUFFER_BYTES],
            compress,
            inflater: Inflater::default(),
            wire_bytes: 0,
            inflated_before: DeflateCounts::default(),
        }
    }

    /// What came since the last time.
    pub(crate) fn take_traffic(&mut self) -> Traffic {
        let (now, before) = (self.inflater.counts(), self.inflated_before);
        self.inflated_before = now;
        Traffic {
            wire_bytes: std::mem::take(&mut self.wire_bytes),
            deflated_bytes: now.deflated_bytes - before.deflated_bytes,
            plain_bytes: now.plain_bytes - before.plain_bytes,
        }
    }
}

impl AddAssign for Traffic {
    fn add_assign(&mut self, other: Self) {
        self.wire_bytes += other.wire_bytes;
        self.deflated_bytes += other.deflated_bytes;
        self.plain_bytes += other.plain_bytes;
    }
}
