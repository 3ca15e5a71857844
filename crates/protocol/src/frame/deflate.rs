//! permessage-deflate's payloads (RFC 7692 §7.2): one message at a time, and nothing remembered from one to the next.
//!
//! A message that is compressed refers to no other, so one compression serves every client, and one [`Deflater`] and
//! one [`Inflater`] serve all connections of a thread. What they need they take at their first use: a node that
//! never compresses has none of it.

use std::fmt;

use bytes::Bytes;
use zlib_rs::{Deflate, DeflateFlush, Inflate, InflateFlush, Status};

use super::header::{RSV1, unmasked_header_len};
use super::writer::FrameBuilder;

/// The window that messages are compressed with, as a power of two: 4 KiB. What repeats in JSON repeats nearby; some
/// clients ask for no more than this (Python's `websockets` does where it is told to save memory), and what was
/// compressed for them is good for all others.
pub(super) const WINDOW_BITS: u8 = 12;
/// How hard to search, of 9. Higher levels find next to nothing more within a window this small.
const LEVEL: i32 = 6;
/// What ends every flushed DEFLATE stream and is not sent (RFC 7692 §7.2.1).
const FLUSH_END: [u8; 4] = [0x00, 0x00, 0xff, 0xff];
/// What a received payload is followed by: the end that was not sent, and an empty block that says it is the last. Only
/// what ends with a whole block makes sense of that, so a payload that was cut short is noticed.
const RECEIVED_END: [u8; 9] = [0x00, 0x00, 0xff, 0xff, 0x01, 0x00, 0x00, 0xff, 0xff];
/// How far back a reference may reach (RFC 1951 §3.2.5).
const REACH_MAX: usize = 32 * 1024;
/// The most blocks of one message that say they are the last (RFC 7692 §7.2.3.4 allows them). Compressors write one or
/// none; each costs the time of a small message.
const LAST_BLOCKS_MAX: usize = 64;
/// How much is inflated before it is counted.
const CHUNK_BYTES: usize = 16 * 1024;
/// The largest scratch buffer that is kept from one message to the next.
const SCRATCH_KEPT_BYTES: usize = 64 * 1024;

/// Compresses whole messages, one independent of the other. From its first use on it keeps 260 KiB, which
/// the hub's tests of allocations count.
#[derive(Default)]
pub struct Deflater {
    deflate: Option<Deflate>,
    scratch: Vec<u8>,
}

impl Deflater {
    /// The message of an unmasked, unfragmented data frame as a compressed one; `None` where that would save nothing.
    ///
    /// The bytes it gives back take no more memory than they are long. What it costs is in `docs/performance.md`.
    pub fn compress(&mut self, frame: &[u8]) -> Option<Bytes> {
        let payload = &frame[unmasked_header_len(frame)..];
        let room = deflated_bytes_max(payload.len());
        if self.scratch.len() < room {
            self.scratch.resize(room, 0);
        }
        let deflate = self.deflate.get_or_insert_with(|| Deflate::new(LEVEL, false, WINDOW_BITS));
        deflate.reset();
        let outcome = deflate.compress(payload, &mut self.scratch[..room], DeflateFlush::SyncFlush);
        let len = deflate.total_out() as usize;
        if outcome.is_err() || len == room {
            // What zlib-rs has not handed out when it is reset takes room from the next streams, until there is none
            // left and it panics (zlib-rs 0.6.8, `Pending::reset_keep`). It is never cut short.
            self.deflate = None;
        }
        let compressed = (self.deflate.is_some() && len < payload.len()).then(|| {
            let sent = self.scratch[..len].strip_suffix(&FLUSH_END).expect("a flushed stream ends so");
            let mut builder = FrameBuilder::new(sent.len());
            builder.put(sent);
            builder.finish_with(frame[0] | RSV1)
        });
        if self.scratch.len() > SCRATCH_KEPT_BYTES {
            self.scratch = Vec::new();
        }
        compressed
    }
}

/// More than compressing can make of `len` bytes: fixed codes take 9 bits for some (RFC 1951 §3.2.6), each block has its
/// header, and the stream its end.
pub(super) fn deflated_bytes_max(len: usize) -> usize {
    len + len / 8 + 64
}

impl fmt::Debug for Deflater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deflater").field("is_used", &self.deflate.is_some()).finish_non_exhaustive()
    }
}

/// Why a payload cannot be inflated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Uninflatable {
    /// It is no whole DEFLATE stream.
    Corrupt,
    /// There is more in it than may be.
    TooBig,
}

/// Inflates whole messages, one independent of the other. From its first use on it keeps 63 KiB, which
/// the hub's tests of allocations count.
#[derive(Default)]
pub struct Inflater {
    engine: Option<Box<Engine>>,
    counts: DeflateCounts,
}

/// How many bytes compressed messages had, both ways.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeflateCounts {
    /// What they said.
    pub plain_bytes: u64,
    /// What they were on the wire.
    pub deflated_bytes: u64,
}

struct Engine {
    inflate: Inflate,
    chunk: [u8; CHUNK_BYTES],
}

impl Inflater {
    /// What a compressed payload says, if that is at most `bytes_max` bytes. No more than that and a chunk of 16 KiB is
    /// ever inflated.
    pub(super) fn inflate(&mut self, payload: &[u8], bytes_max: usize) -> Result<Vec<u8>, Uninflatable> {
        let engine = self.engine.get_or_insert_with(|| {
            Box::new(Engine { inflate: Inflate::new(false, 15), chunk: [0; CHUNK_BYTES] })
        });
        let inflated = engine.inflate(payload, bytes_max)?;
        self.counts.deflated_bytes += payload.len() as u64;
        self.counts.plain_bytes += inflated.len() as u64;
        Ok(inflated)
    }

    /// What it has inflated since it was made: bytes of payload.
    pub fn counts(&self) -> DeflateCounts {
        self.counts
    }
}

impl fmt::Debug for Inflater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inflater").field("counts", &self.counts).finish_non_exhaustive()
    }
}

impl Engine {
    fn inflate(&mut self, payload: &[u8], bytes_max: usize) -> Result<Vec<u8>, Uninflatable> {
        let mut inflated = Vec::new();
        let mut last_blocks = 0;
        let mut is_ended = false;
        self.inflate.reset(false);
        for mut piece in [payload, &RECEIVED_END] {
            while !piece.is_empty() {
                if is_ended {
                    self.resume(&inflated);
                }
                let (taken, status) = self.step(piece, &mut inflated, bytes_max)?;
                piece = &piece[taken..];
                is_ended = status == Status::StreamEnd;
                last_blocks += usize::from(is_ended);
                if last_blocks > LAST_BLOCKS_MAX {
                    return Err(Uninflatable::Corrupt);
                }
            }
        }
        if is_ended { Ok(inflated) } else { Err(Uninflatable::Corrupt) }
    }

    /// Goes on behind a block that said it was the last: what follows may refer to what went before.
    fn resume(&mut self, inflated: &[u8]) {
        self.inflate.reset(false);
        let reach = &inflated[inflated.len().saturating_sub(REACH_MAX)..];
        self.inflate.set_dictionary(reach).expect("a raw stream may be given a dictionary at any time");
    }

    /// Inflates up to a chunk of `piece`; says how much of it was taken.
    fn step(
        &mut self,
        piece: &[u8],
        inflated: &mut Vec<u8>,
        bytes_max: usize,
    ) -> Result<(usize, Status), Uninflatable> {
        let (taken, given) = (self.inflate.total_in(), self.inflate.total_out());
        let status = self.inflate.decompress(piece, &mut self.chunk, InflateFlush::NoFlush);
        let status = status.map_err(|_| Uninflatable::Corrupt)?;
        let (taken, given) = (self.inflate.total_in() - taken, self.inflate.total_out() - given);
        if inflated.len() + given as usize > bytes_max {
            return Err(Uninflatable::TooBig);
        }
        inflated.extend_from_slice(&self.chunk[..given as usize]);
        if taken == 0 && given == 0 && status != Status::StreamEnd {
            // Neither the input nor the room for output is used up: no call would ever get further.
            return Err(Uninflatable::Corrupt);
        }
        Ok((taken as usize, status))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::frame::Opcode;

    fn inflate(payload: &[u8], bytes_max: usize) -> Result<Vec<u8>, Uninflatable> {
        Inflater::default().inflate(payload, bytes_max)
    }

    /// The payload of the compressed frame that carries `text`, if it is worth it.
    fn compressed(deflater: &mut Deflater, text: &[u8]) -> Option<Bytes> {
        let mut plain = FrameBuilder::new(text.len());
        plain.put(text);
        let frame = deflater.compress(&plain.finish(Opcode::Text))?;
        assert_eq!(frame[0], 0xc1, "a whole text message that is compressed");
        Some(frame.slice(unmasked_header_len(&frame)..))
    }

    /// What a client with a window of this size reads, a few bytes at a time so that it needs the window.
    fn client_reads(payload: &[u8], window_bits: u8) -> Vec<u8> {
        let mut inflate = Inflate::new(false, window_bits);
        let (mut text, mut room) = (Vec::new(), [0; 64]);
        let stream = [payload, &FLUSH_END].concat();
        loop {
            let (taken, given) = (inflate.total_in() as usize, inflate.total_out());
            inflate.decompress(&stream[taken..], &mut room, InflateFlush::NoFlush).unwrap();
            let given = (inflate.total_out() - given) as usize;
            text.extend_from_slice(&room[..given]);
            if given == 0 && inflate.total_in() as usize == stream.len() {
                return text;
            }
        }
    }

    #[test]
    fn the_examples_of_the_rfc_are_read() {
        for (example, text) in [
            // RFC 7692 §7.2.3.1, .3, .4, .5 and .6.
            (&b"\xf2\x48\xcd\xc9\xc9\x07\x00"[..], &b"Hello"[..]),
            (b"\x00\x05\x00\xfa\xffHello\x00", b"Hello"),
            (b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00", b"Hello"),
            (b"\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00", b"Hello"),
            (b"\x00", b""),
        ] {
            assert_eq!(inflate(example, 5).as_deref(), Ok(text), "{example:02x?}");
        }
        // §7.2.3.2 refers to the message before, which we do not remember.
        assert_eq!(inflate(b"\xf2\x00\x11\x00\x00", 5), Err(Uninflatable::Corrupt));
    }

    #[test]
    fn what_is_no_whole_stream_is_corrupt() {
        for payload in [
            &b""[..],
            b"\xff",
            b"Hello",
            // The example cut short; a block that says it has more than there is; a last block and nothing after it.
            b"\xf2\x48\xcd\xc9",
            b"\x00\x05\x00\xfa\xffHell",
            b"\xf3\x48\xcd\xc9\xc9\x07\x00",
        ] {
            assert_eq!(inflate(payload, 100), Err(Uninflatable::Corrupt), "{payload:02x?}");
        }
    }

    #[test]
    fn what_follows_a_last_block_may_refer_to_what_went_before() {
        let text = b"what was said once is not said twice; ".repeat(3);
        let mut first = vec![0; 200];
        let mut deflate = Deflate::new(9, false, 15);
        deflate.compress(&text, &mut first, DeflateFlush::Finish).unwrap();
        first.truncate(deflate.total_out() as usize);
        let mut second = vec![0; 200];
        let mut deflate = Deflate::new(9, false, 15);
        deflate.set_dictionary(&text).unwrap();
        deflate.compress(&text, &mut second, DeflateFlush::SyncFlush).unwrap();
        second.truncate(deflate.total_out() as usize - FLUSH_END.len());
        assert!(second.len() < 15, "it refers to what went before");
        assert_eq!(inflate(&[first, second].concat(), 1000), Ok(text.repeat(2)));
    }

    #[test]
    fn last_blocks_are_counted() {
        // An empty block of fixed codes that says it is the last, padded to a byte.
        let blocks = |count| [b"\x03\x00".repeat(count), vec![0]].concat();
        assert_eq!(inflate(&blocks(LAST_BLOCKS_MAX - 1), 0), Ok(Vec::new()));
        assert_eq!(inflate(&blocks(LAST_BLOCKS_MAX), 0), Err(Uninflatable::Corrupt));
    }

    #[test]
    fn no_more_is_inflated_than_may_be() {
        let bomb = compressed(&mut Deflater::default(), &[b'0'; 1 << 20]).unwrap();
        assert!(bomb.len() < 3000);
        let mut inflater = Inflater::default();
        assert_eq!(inflater.inflate(&bomb, (1 << 20) - 1), Err(Uninflatable::TooBig));
        assert_eq!(inflater.inflate(&bomb, 0), Err(Uninflatable::TooBig));
        assert_eq!(inflater.counts(), DeflateCounts::default());
        // What went wrong before does not matter.
        assert_eq!(inflater.inflate(&bomb, 1 << 20), Ok(vec![b'0'; 1 << 20]));
        assert_eq!(inflater.counts().plain_bytes, 1 << 20);
    }

    #[test]
    fn what_cannot_be_made_shorter_is_not_compressed() {
        let mut deflater = Deflater::default();
        assert_eq!(compressed(&mut deflater, b""), None);
        assert_eq!(compressed(&mut deflater, b"Hello"), None);
        let noise: Vec<u8> = (0..1000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        assert_eq!(compressed(&mut deflater, &noise[..256]), None);
    }

    #[test]
    fn what_is_given_up_leaves_nothing_behind() {
        // Of each, a compressor may keep what it has not handed out.
        let mut state = 1_u32;
        let mut noise = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        let (mut deflater, text) = (Deflater::default(), b"what was said ".repeat(20));
        let expected = compressed(&mut deflater, &text).unwrap();
        for _ in 0..1000 {
            let noise: Vec<u8> = (0..256).map(|_| noise()).collect();
            assert_eq!(compressed(&mut deflater, &noise), None);
            assert_eq!(compressed(&mut deflater, &text).as_ref(), Some(&expected));
        }
    }

    #[test]
    fn a_large_message_leaves_no_large_buffer_behind() {
        let mut deflater = Deflater::default();
        compressed(&mut deflater, &[b'0'; 1 << 20]).unwrap();
        assert_eq!(deflater.scratch.capacity(), 0);
        compressed(&mut deflater, &[b'0'; 1000]).unwrap();
        assert_ne!(deflater.scratch.capacity(), 0);
    }

    /// Text in which things repeat, near and far.
    fn texts() -> impl Strategy<Value = Vec<u8>> {
        let words = prop::collection::vec("[a-e]{1,12}", 1..40);
        (words, 1..200_usize).prop_map(|(words, times)| words.concat().repeat(times).into_bytes())
    }

    /// Bytes that can be compressed a little, or not at all.
    fn noises() -> impl Strategy<Value = Vec<u8>> {
        (100_u8..=255).prop_flat_map(|most| prop::collection::vec(0..most, 20..600))
    }

    proptest! {
        #[test]
        fn what_was_compressed_is_read_back_whatever_came_before(texts in prop::collection::vec(texts(), 1..4)) {
            let (mut deflater, mut inflater) = (Deflater::default(), Inflater::default());
            for text in &texts {
                if let Some(payload) = compressed(&mut deflater, text) {
                    prop_assert!(payload.len() < text.len());
                    prop_assert_eq!(&inflater.inflate(&payload, text.len()), &Ok(text.clone()));
                    prop_assert_eq!(inflater.inflate(&payload, text.len() - 1), Err(Uninflatable::TooBig));
                }
            }
        }

        #[test]
        fn what_becomes_hardly_shorter_leaves_nothing_behind(texts in prop::collection::vec(noises(), 2..20)) {
            let (mut deflater, mut inflater) = (Deflater::default(), Inflater::default());
            for text in texts {
                if let Some(payload) = compressed(&mut deflater, &text) {
                    prop_assert_eq!(inflater.inflate(&payload, text.len()), Ok(text));
                }
            }
        }

        #[test]
        fn no_larger_window_is_needed_than_was_agreed(text in texts()) {
            if let Some(payload) = compressed(&mut Deflater::default(), &text) {
                prop_assert_eq!(&client_reads(&payload, WINDOW_BITS), &text);
            }
            let short = &text[..text.len().min(256)];
            if let Some(payload) = compressed(&mut Deflater::default(), short) {
                prop_assert_eq!(client_reads(&payload, 8), short);
            }
        }

        #[test]
        fn any_bytes_at_all_are_survived(payload: Vec<u8>, bytes_max in 0_usize..2000) {
            if let Ok(inflated) = inflate(&payload, bytes_max) {
                prop_assert!(inflated.len() <= bytes_max);
            }
        }
    }
}
