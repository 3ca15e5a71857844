//! Encodes whole frames. A server's frames are not masked (RFC 6455 §5.1), so one encoding serves every
//! subscriber; a client's are, with a key of the caller's choosing.

use std::io;

use bytes::Bytes;

use super::header::{Opcode, unmasked_header_len};
use super::mask;
use crate::CloseCode;

/// The longest header without a mask.
const HEADER_BYTES_MAX: usize = 10;
/// How much longer than the frame its memory may be: the room of a short reply, which is not worth moving.
const SPARE_BYTES_MAX: usize = 128;

/// Builds one unmasked frame in place: the payload is written behind room for the header, which is filled in
/// last, when the length is known. Nothing is moved or copied.
#[derive(Debug)]
pub struct FrameBuilder {
    bytes: Vec<u8>,
}

impl FrameBuilder {
    /// A frame whose payload is expected to be `payload_capacity` bytes.
    pub fn new(payload_capacity: usize) -> Self {
        let mut bytes = Vec::with_capacity(HEADER_BYTES_MAX + payload_capacity);
        bytes.resize(HEADER_BYTES_MAX, 0);
        Self { bytes }
    }

    /// Appends to the payload.
    pub fn put(&mut self, payload: &[u8]) {
        self.bytes.extend_from_slice(payload);
    }

    /// The whole frame.
    pub fn finish(self, opcode: Opcode) -> Bytes {
        self.finish_with(0x80 | opcode as u8)
    }

    /// The whole frame, beginning with this byte.
    pub(super) fn finish_with(mut self, first_byte: u8) -> Bytes {
        let (header, len) = unmasked_header(first_byte, self.bytes.len() - HEADER_BYTES_MAX);
        let start = HEADER_BYTES_MAX - len;
        self.bytes[start..HEADER_BYTES_MAX].copy_from_slice(&header[..len]);
        // It may wait in thousands of outboxes, whose memory is counted by its length. Room that was expected in vain
        // costs a few bytes; room from growing can be as much again.
        if self.bytes.capacity() > self.bytes.len() + SPARE_BYTES_MAX {
            self.bytes.shrink_to_fit();
        }
        Bytes::from(self.bytes).slice(start..)
    }
}

impl io::Write for FrameBuilder {
    fn write(&mut self, payload: &[u8]) -> io::Result<usize> {
        self.put(payload);
        Ok(payload.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A ping without a payload.
pub fn ping() -> Bytes {
    Bytes::from_static(&[0x80 | Opcode::Ping as u8, 0])
}

/// The answer to a ping, with its payload (at most 125 bytes).
pub fn pong(payload: &[u8]) -> Bytes {
    whole(Opcode::Pong, payload)
}

/// A close frame with `code` and its name as the reason.
pub fn close(code: CloseCode) -> Bytes {
    let mut frame = FrameBuilder::new(2 + code.name().len());
    frame.put(&code.code().to_be_bytes());
    frame.put(code.name().as_bytes());
    frame.finish(Opcode::Close)
}

/// The answer to a client's close frame: the code it sent, or none if it sent none (RFC 6455 §5.5.1).
pub fn close_echo(code: Option<u16>) -> Bytes {
    match code {
        Some(code) => whole(Opcode::Close, &code.to_be_bytes()),
        None => whole(Opcode::Close, &[]),
    }
}

/// A whole masked frame, as a client sends it.
pub fn masked(opcode: Opcode, payload: &[u8], key: [u8; 4]) -> Vec<u8> {
    let (header, len) = unmasked_header(0x80 | opcode as u8, payload.len());
    masked_behind(&header[..len], payload, key)
}

/// A whole unmasked frame, a compressed one for example, as a client sends it.
pub fn mask_whole(frame: &[u8], key: [u8; 4]) -> Vec<u8> {
    let (header, payload) = frame.split_at(unmasked_header_len(frame));
    masked_behind(header, payload, key)
}

/// The frame whose unmasked header would be `header`.
fn masked_behind(header: &[u8], payload: &[u8], key: [u8; 4]) -> Vec<u8> {
    let mut frame = [header, &key, payload].concat();
    frame[1] |= 0x80;
    mask::apply(&mut frame[header.len() + key.len()..], key, 0);
    frame
}

fn whole(opcode: Opcode, payload: &[u8]) -> Bytes {
    let mut frame = FrameBuilder::new(payload.len());
    frame.put(payload);
    frame.finish(opcode)
}

/// The header of an unmasked, unfragmented frame, and how many of its bytes count.
fn unmasked_header(first_byte: u8, payload_len: usize) -> ([u8; HEADER_BYTES_MAX], usize) {
    let mut header = [0; HEADER_BYTES_MAX];
    header[0] = first_byte;
    match payload_len {
        0..126 => {
            header[1] = payload_len as u8;
            (header, 2)
        }
        126..0x1_0000 => {
            header[1] = 126;
            header[2..4].copy_from_slice(&(payload_len as u16).to_be_bytes());
            (header, 4)
        }
        _ => {
            header[1] = 127;
            header[2..10].copy_from_slice(&(payload_len as u64).to_be_bytes());
            (header, 10)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;
    use crate::frame::{FrameLimits, FrameReader, Message, Received, Role};

    #[test]
    fn a_frame_takes_no_more_memory_than_its_length_says() {
        for (expected, len) in
            [(100, 100), (100, 90), (100, 1_000), (1_000, 10), (60_000, 60_100), (0, 5_000)]
        {
            let mut frame = FrameBuilder::new(expected);
            (0..len).for_each(|_| frame.put(b"x"));
            let frame = frame.finish(Opcode::Text);
            let len = frame.len();
            let memory = frame.try_into_mut().expect("nobody else has it").capacity();
            assert!(memory <= len + SPARE_BYTES_MAX, "{memory} bytes for a frame of {len}");
        }
    }

    #[test]
    fn every_length_form_is_read_back() {
        let limits = FrameLimits { message_bytes_max: 1 << 20, ..FrameLimits::default() };
        for len in [0, 1, 125, 126, 127, 0xffff, 0x1_0000, 0x1_0001] {
            let payload = vec![b'x'; len];
            let mut bytes = whole(Opcode::Binary, &payload).to_vec();
            let mut reader = FrameReader::new(Role::Client);
            let received = reader.next(&mut &mut bytes[..], &limits).unwrap();
            let message = Message::Binary(Cow::Borrowed(&payload[..]));
            assert_eq!(received, Some(Received::Plain(message)), "{len} bytes");
        }
    }

    #[test]
    fn a_frame_is_the_same_masked_at_once_or_afterwards() {
        for len in [0, 1, 125, 126, 0xffff, 0x1_0000] {
            let (payload, key) = (vec![b'x'; len], [1, 2, 3, 4]);
            let expected = masked(Opcode::Text, &payload, key);
            assert_eq!(mask_whole(&whole(Opcode::Text, &payload), key), expected, "{len} bytes");
        }
    }

    #[test]
    fn a_close_carries_its_code_and_name() {
        assert_eq!(&close(CloseCode::ServiceRestart)[..], b"\x88\x11\x03\xf4service restart");
    }
}
