//! What waits to be written to one connection: whole frames, in order, bounded in bytes.
//!
//! A frame that many sessions are owed is one allocation that their outboxes point to. The count of owners is
//! not atomic, because a hub never leaves its thread. An outbox that has nothing waiting holds no memory
//! worth naming.

use std::cell::Cell;
use std::collections::VecDeque;
use std::mem;
use std::rc::Rc;

use bytes::Bytes;

use crate::Moment;

/// A frame in this worker, with the number of its owners.
#[derive(Clone, Debug)]
pub(crate) struct SharedFrame(Rc<FrameData>);

#[derive(Debug)]
struct FrameData {
    bytes: Bytes,
    /// When the node received it, if it is a message.
    received: Option<Moment>,
    alive: FrameBytes,
}

/// How many bytes the frames of one hub take that somebody still owns.
#[derive(Clone, Debug, Default)]
pub(crate) struct FrameBytes(Rc<Cell<usize>>);

impl FrameBytes {
    pub(crate) fn get(&self) -> usize {
        self.0.get()
    }
}

impl Drop for FrameData {
    fn drop(&mut self) {
        self.alive.0.set(self.alive.0.get() - self.bytes.len());
    }
}

impl SharedFrame {
    /// A reply, a push or a control frame, counted in `alive`.
    pub(crate) fn new(bytes: Bytes, alive: &FrameBytes) -> Self {
        Self::counted(bytes, None, alive)
    }

    /// A publication, received by the node at `received`: what the counters call a message.
    pub(crate) fn message(bytes: Bytes, received: Moment, alive: &FrameBytes) -> Self {
        Self::counted(bytes, Some(received), alive)
    }

    fn counted(bytes: Bytes, received: Option<Moment>, alive: &FrameBytes) -> Self {
        alive.0.set(alive.0.get() + bytes.len());
        Self(Rc::new(FrameData { bytes, received, alive: alive.clone() }))
    }

    /// Its bytes.
    pub(crate) fn len(&self) -> usize {
        self.0.bytes.len()
    }
}

/// More waits than may: the connection does not keep up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Overflow;

/// A queue that has grown beyond this many frames (256 bytes) is given back when it runs empty. Up to here it is
/// kept, because a client that was owed a burst once is likely to be owed another.
const KEPT_CAPACITY: usize = 32;

/// The frames owed to one connection.
#[derive(Debug, Default)]
pub struct Outbox {
    frames: VecDeque<SharedFrame>,
    /// Bytes of `frames`, without those of the first that are written already.
    bytes: usize,
    /// How many bytes of the first frame are written.
    head_written: usize,
}

impl Outbox {
    /// Appends `frame` if no more than `bytes_max` would wait then. An empty outbox takes any frame.
    pub(crate) fn push(&mut self, frame: SharedFrame, bytes_max: usize) -> Result<(), Overflow> {
        if self.bytes + frame.len() > bytes_max && !self.frames.is_empty() {
            return Err(Overflow);
        }
        self.append(frame);
        Ok(())
    }

    /// Appends a last frame, whatever waits.
    pub(crate) fn append(&mut self, frame: SharedFrame) {
        self.bytes += frame.len();
        self.frames.push_back(frame);
    }

    /// Drops what waits, except the rest of a frame that is partly written: cut there, the stream would end
    /// inside a frame and nothing after it could be understood. Says how many frames are dropped.
    pub(crate) fn discard(&mut self) -> usize {
        let waited = self.frames.len();
        self.frames.truncate(usize::from(self.head_written > 0));
        self.bytes = self.frames.front().map_or(0, SharedFrame::len) - self.head_written;
        waited - self.frames.len()
    }

    /// Bytes that wait.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Gives back the room of an empty queue.
    pub(crate) fn release(&mut self) {
        if self.frames.is_empty() {
            self.frames = VecDeque::new();
        }
    }

    /// Frames that wait.
    pub(crate) fn len(&self) -> usize {
        self.frames.len()
    }

    /// Messages that wait, one partly written included.
    pub(crate) fn messages(&self) -> usize {
        self.frames.iter().filter(|frame| frame.0.received.is_some()).count()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// What waits, frame by frame; the first one without what of it is written already.
    pub fn frames(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        let mut written = self.head_written;
        self.frames.iter().map(move |frame| &frame.0.bytes[mem::take(&mut written)..])
    }

    /// Takes `written` bytes from the front, and tells of each message completed by them when the node received
    /// it.
    pub(crate) fn advance(&mut self, written: usize, mut completed: impl FnMut(Moment)) {
        debug_assert!(written <= self.bytes, "no more can be written than waited");
        self.bytes -= written;
        self.head_written += written;
        while let Some(frame) = self.frames.front()
            && self.head_written >= frame.len()
        {
            self.head_written -= frame.len();
            if let Some(received) = frame.0.received {
                completed(received);
            }
            self.frames.pop_front();
        }
        if self.frames.is_empty() && self.frames.capacity() > KEPT_CAPACITY {
            self.frames = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(text: &'static str) -> SharedFrame {
        SharedFrame::message(Bytes::from_static(text.as_bytes()), Moment::default(), &FrameBytes::default())
    }

    /// How many messages `written` bytes complete.
    fn advance(outbox: &mut Outbox, written: usize) -> u64 {
        let mut messages = 0;
        outbox.advance(written, |_| messages += 1);
        messages
    }

    fn waiting(outbox: &Outbox) -> String {
        outbox.frames().map(|frame| std::str::from_utf8(frame).unwrap()).collect::<Vec<_>>().join("|")
    }

    #[test]
    fn frames_leave_in_order_however_they_are_cut() {
        let mut outbox = Outbox::default();
        for text in ["one", "two", "three"] {
            outbox.push(frame(text), 100).unwrap();
        }
        assert_eq!((advance(&mut outbox, 4), waiting(&outbox).as_str(), outbox.bytes()), (1, "wo|three", 7));
        assert_eq!((advance(&mut outbox, 2), waiting(&outbox).as_str(), outbox.bytes()), (1, "three", 5));
        assert_eq!((advance(&mut outbox, 5), waiting(&outbox).as_str(), outbox.bytes()), (1, "", 0));
        assert!(outbox.is_empty());
    }

    #[test]
    fn the_bound_counts_bytes_and_lets_one_large_frame_through() {
        let mut outbox = Outbox::default();
        outbox.push(frame("twelve bytes"), 10).unwrap();
        assert_eq!(outbox.push(frame("x"), 10), Err(Overflow));
        advance(&mut outbox, 5);
        outbox.push(frame("abc"), 10).unwrap();
        assert_eq!(outbox.push(frame("x"), 10), Err(Overflow));
    }

    #[test]
    fn discarding_keeps_the_rest_of_a_frame_begun() {
        let mut outbox = Outbox::default();
        for text in ["one", "two"] {
            outbox.push(frame(text), 100).unwrap();
        }
        advance(&mut outbox, 1);
        assert_eq!(outbox.discard(), 1);
        outbox.append(frame("close"));
        assert_eq!((waiting(&outbox).as_str(), outbox.bytes()), ("ne|close", 7));

        let mut whole = Outbox::default();
        whole.push(frame("one"), 100).unwrap();
        whole.discard();
        assert_eq!((waiting(&whole).as_str(), whole.bytes()), ("", 0));
    }

    #[test]
    fn a_long_queue_is_given_back_when_it_runs_empty() {
        let mut outbox = Outbox::default();
        for _ in 0..1000 {
            outbox.push(frame("x"), 10_000).unwrap();
        }
        advance(&mut outbox, 1000);
        assert_eq!(outbox.frames.capacity(), 0);
    }

    #[test]
    fn a_short_queue_is_kept_until_it_is_released() {
        let mut outbox = Outbox::default();
        outbox.push(frame("x"), 10).unwrap();
        outbox.release();
        assert_eq!(waiting(&outbox), "x");
        advance(&mut outbox, 1);
        assert_ne!(outbox.frames.capacity(), 0);
        outbox.release();
        assert_eq!(outbox.frames.capacity(), 0);
    }
}
