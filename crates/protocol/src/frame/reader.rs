//! Takes bytes as they arrive from a peer and gives back whole messages.
//!
//! The caller owns the read buffer, which may be shared by all connections of a thread: a [`FrameReader`]
//! keeps bytes only while a frame or a fragmented message is incomplete, and is 16 bytes otherwise. A whole
//! frame is unmasked where it lies and borrowed, not copied.
//!
//! Lengths are judged when the header is read, before anything is kept; memory grows with the bytes that
//! arrived, never with the bytes that were announced. Text is judged as it arrives, so that a bad byte ends
//! the connection before the rest of a long message has been sent.
//!
//! A compressed message (RFC 7692) is given back as it came, when it is whole: [`Received`] becomes [`Message`] by
//! [`FrameReader::inflate`]. Whether that is worth it is the caller's decision, because it is what costs.

use std::borrow::Cow;
use std::mem;

use super::deflate::{Inflater, Uninflatable, deflated_bytes_max};
use super::header::{HEADER_BYTES_MAX, Header, Opcode};
use super::mask;
use crate::CloseCode;

/// Which side of the connection reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Reads what a client sent: every frame must be masked (RFC 6455 §5.1).
    Server,
    /// Reads what a server sent: no frame may be masked.
    Client,
}

impl Role {
    pub(super) fn check_mask(self, is_masked: bool) -> Result<(), Violation> {
        match (self, is_masked) {
            (Self::Server, true) | (Self::Client, false) => Ok(()),
            (Self::Server, false) => Err(Violation::Protocol("client frame without a mask")),
            (Self::Client, true) => Err(Violation::Protocol("server frame with a mask")),
        }
    }
}

/// How much one message may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameLimits {
    /// The longest message, in bytes of payload over all its fragments.
    pub message_bytes_max: usize,
    /// The most frames one message may come in.
    pub fragments_max: u32,
}

impl Default for FrameLimits {
    /// 64 KiB in at most 1,024 fragments.
    fn default() -> Self {
        Self { message_bytes_max: 64 * 1024, fragments_max: 1024 }
    }
}

impl FrameLimits {
    /// The longest compressed message: what cannot be compressed grows in the attempt.
    fn deflated_bytes_max(&self) -> usize {
        deflated_bytes_max(self.message_bytes_max)
    }
}

/// What came from a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received<'a> {
    /// What it said.
    Plain(Message<'a>),
    /// The same compressed, on a connection that agreed on that: to be inflated by [`FrameReader::inflate`], or
    /// ignored. In a box, so that plain messages take no more room for it.
    Deflated(Box<Deflated<'a>>),
}

/// What a peer said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// A whole text message.
    Text(Cow<'a, str>),
    /// A whole binary message.
    Binary(Cow<'a, [u8]>),
    /// To be answered with a pong of the same payload (at most 125 bytes).
    Ping(Cow<'a, [u8]>),
    /// The answer to a ping, or unasked.
    Pong(Cow<'a, [u8]>),
    /// The peer closes: its status code (RFC 6455 §7.4), or `None` where it gave none. To be answered with a
    /// close of the same code, after which the connection is over.
    Close(Option<u16>),
}

/// A compressed message as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deflated<'a> {
    is_text: bool,
    payload: Cow<'a, [u8]>,
}

/// How a peer broke the rules. Nothing it sends afterwards means anything: the connection must be closed with
/// [`Violation::close_code`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// Against the framing rules of RFC 6455 §5.
    #[error("{0}")]
    Protocol(&'static str),
    /// Text, or a close reason, that is not UTF-8 (RFC 6455 §8.1).
    #[error("text is not valid UTF-8")]
    InvalidUtf8,
    /// A compressed payload that is no DEFLATE stream. RFC 7692 names no code for it; 1007 is for data that is not
    /// what its message says it is (RFC 6455 §7.4.1), and what npm's `ws` answers.
    #[error("compressed payload is not valid DEFLATE")]
    InvalidDeflate,
    /// More payload announced, or inflated, than [`FrameLimits::message_bytes_max`] allows.
    #[error("message is longer than {0} bytes")]
    TooBig(usize),
    /// More fragments than [`FrameLimits::fragments_max`] allows.
    #[error("message has more than {0} fragments")]
    TooManyFragments(u32),
}

impl Violation {
    /// The code to close the connection with.
    pub fn close_code(self) -> CloseCode {
        match self {
            Self::Protocol(_) => CloseCode::ProtocolError,
            Self::InvalidUtf8 | Self::InvalidDeflate => CloseCode::InvalidPayload,
            Self::TooBig(_) => CloseCode::MessageTooBig,
            Self::TooManyFragments(_) => CloseCode::PolicyViolation,
        }
    }
}

/// One connection's reading state.
#[derive(Debug)]
pub struct FrameReader {
    role: Role,
    may_deflate: bool,
    is_ended: bool,
    incomplete: Option<Box<Incomplete>>,
}

/// What is kept between two reads, while there is something to keep.
#[derive(Debug, Default)]
struct Incomplete {
    /// The bytes of a header that is not whole yet.
    header: Vec<u8>,
    /// The frame whose payload is arriving, and how many bytes of it have.
    frame: Option<(Header, usize)>,
    /// The payload so far where that frame is a control frame.
    control: Vec<u8>,
    /// The message whose fragments are arriving.
    message: Option<Assembly>,
}

/// A data message between its first byte and its last.
#[derive(Debug)]
struct Assembly {
    is_text: bool,
    is_deflated: bool,
    bytes: Vec<u8>,
    /// How many of `bytes` are known to be whole UTF-8 characters, unless they are compressed.
    utf8_len: usize,
    fragments: u32,
}

impl FrameReader {
    /// A reader at the beginning of a connection.
    pub fn new(role: Role) -> Self {
        Self { role, may_deflate: false, is_ended: false, incomplete: None }
    }

    /// Takes compressed messages too: the connection agreed on permessage-deflate.
    #[must_use]
    pub fn with_deflate(mut self) -> Self {
        self.may_deflate = true;
        self
    }

    /// Takes the next message from the front of `input` and moves `input` past it; `None` when all of `input`
    /// is used up and more bytes are needed.
    ///
    /// After a [`Message::Close`] or an error the reader has ended: it swallows whatever follows.
    ///
    /// # Errors
    /// A [`Violation`], once. Messages that lay before the bad bytes have been returned by then.
    pub fn next<'a>(
        &mut self,
        input: &mut &'a mut [u8],
        limits: &FrameLimits,
    ) -> Result<Option<Received<'a>>, Violation> {
        if self.is_ended {
            *input = &mut [];
        }
        let outcome = self.advance(input, limits);
        self.is_ended |= outcome.is_err();
        if self.is_ended || self.incomplete.as_ref().is_some_and(|incomplete| incomplete.is_empty()) {
            self.incomplete = None;
        }
        outcome
    }

    /// What the peer said; a compressed message is inflated for that.
    ///
    /// # Errors
    /// A [`Violation`] by a compressed message, with which the reader has ended. Of one that is too big no more is
    /// inflated than may be, and 16 KiB.
    #[inline]
    pub fn inflate<'a>(
        &mut self,
        received: Received<'a>,
        inflater: &mut Inflater,
        limits: &FrameLimits,
    ) -> Result<Message<'a>, Violation> {
        match received {
            Received::Plain(message) => Ok(message),
            Received::Deflated(message) => self.inflate_deflated(&message, inflater, limits),
        }
    }

    fn inflate_deflated(
        &mut self,
        message: &Deflated<'_>,
        inflater: &mut Inflater,
        limits: &FrameLimits,
    ) -> Result<Message<'static>, Violation> {
        let bytes_max = limits.message_bytes_max;
        let inflated = inflater.inflate(&message.payload, bytes_max).map_err(|fault| match fault {
            Uninflatable::Corrupt => Violation::InvalidDeflate,
            Uninflatable::TooBig => Violation::TooBig(bytes_max),
        });
        let outcome = inflated.and_then(|bytes| match message.is_text {
            true => text(Cow::Owned(bytes)).map(Message::Text),
            false => Ok(Message::Binary(Cow::Owned(bytes))),
        });
        self.is_ended |= outcome.is_err();
        outcome
    }

    fn advance<'a>(
        &mut self,
        input: &mut &'a mut [u8],
        limits: &FrameLimits,
    ) -> Result<Option<Received<'a>>, Violation> {
        loop {
            if self.frame_in_progress().is_none() {
                let Some(header) = self.read_header(input)? else { return Ok(None) };
                self.admit(&header, limits)?;
                if let Some(payload) = self.take_whole_message(&header, input) {
                    return self.received(&header, Cow::Borrowed(payload)).map(Some);
                }
                self.open(header);
            }
            match self.read_payload(input)? {
                Progress::Starved => return Ok(None),
                Progress::Fragment => {}
                Progress::Control(header, payload) => {
                    return self.received(&header, Cow::Owned(payload)).map(Some);
                }
                Progress::Message(assembly) => return assembly.finish().map(Some),
            }
        }
    }

    fn frame_in_progress(&self) -> Option<&(Header, usize)> {
        self.incomplete.as_ref()?.frame.as_ref()
    }

    /// The next header, from `input` alone where it lies there whole.
    fn read_header(&mut self, input: &mut &mut [u8]) -> Result<Option<Header>, Violation> {
        let (role, may_deflate) = (self.role, self.may_deflate);
        let kept = self.incomplete.as_ref().map_or(0, |incomplete| incomplete.header.len());
        if kept == 0
            && let Some((header, len)) = Header::parse(input, role, may_deflate)?
        {
            split_front(input, len);
            return Ok(Some(header));
        }
        while !input.is_empty() {
            let byte = split_front(input, 1)[0];
            let bytes = &mut self.incomplete.get_or_insert_default().header;
            bytes.push(byte);
            debug_assert!(bytes.len() <= HEADER_BYTES_MAX, "a header is whole at 14 bytes");
            if let Some((header, _)) = Header::parse(bytes, role, may_deflate)? {
                bytes.clear();
                return Ok(Some(header));
            }
        }
        Ok(None)
    }

    /// Judges a header against the message it would belong to, before any of its payload is kept.
    fn admit(&self, header: &Header, limits: &FrameLimits) -> Result<(), Violation> {
        if header.opcode.is_control() {
            return Ok(());
        }
        let message = self.incomplete.as_ref().and_then(|incomplete| incomplete.message.as_ref());
        let (so_far, fragments, is_deflated) = match (header.opcode, message) {
            (Opcode::Continuation, Some(message)) => {
                (message.bytes.len(), message.fragments, message.is_deflated)
            }
            (Opcode::Continuation, None) => return Err(Violation::Protocol("continuation of no message")),
            (_, Some(_)) => return Err(Violation::Protocol("new message inside a fragmented one")),
            (_, None) => (0, 0, header.is_deflated),
        };
        let bytes_max = match is_deflated {
            true => limits.deflated_bytes_max(),
            false => limits.message_bytes_max,
        };
        if header.payload_len > bytes_max.saturating_sub(so_far) as u64 {
            return Err(Violation::TooBig(limits.message_bytes_max));
        }
        if fragments >= limits.fragments_max {
            return Err(Violation::TooManyFragments(limits.fragments_max));
        }
        Ok(())
    }

    /// The payload, unmasked where it lies, if the frame is a message of its own and all of it has arrived.
    fn take_whole_message<'a>(&self, header: &Header, input: &mut &'a mut [u8]) -> Option<&'a mut [u8]> {
        let is_whole = header.fin && header.opcode != Opcode::Continuation;
        let len = usize::try_from(header.payload_len).ok().filter(|&len| is_whole && len <= input.len())?;
        let payload = split_front(input, len);
        mask::apply(payload, header.mask, 0);
        Some(payload)
    }

    /// What a whole frame that is not a fragment says. With a close it is the last.
    #[inline]
    fn received<'a>(&mut self, header: &Header, payload: Cow<'a, [u8]>) -> Result<Received<'a>, Violation> {
        if header.is_deflated {
            let is_text = header.opcode == Opcode::Text;
            return Ok(Received::Deflated(Box::new(Deflated { is_text, payload })));
        }
        Ok(Received::Plain(match header.opcode {
            Opcode::Text => Message::Text(text(payload)?),
            Opcode::Binary | Opcode::Continuation => Message::Binary(payload),
            Opcode::Ping => Message::Ping(payload),
            Opcode::Pong => Message::Pong(payload),
            Opcode::Close => {
                self.is_ended = true;
                Message::Close(close_code(&payload)?)
            }
        }))
    }

    fn open(&mut self, header: Header) {
        let incomplete = self.incomplete.get_or_insert_default();
        match header.opcode {
            Opcode::Text | Opcode::Binary => {
                incomplete.message = Some(Assembly {
                    is_text: header.opcode == Opcode::Text,
                    is_deflated: header.is_deflated,
                    bytes: Vec::new(),
                    utf8_len: 0,
                    fragments: 1,
                });
            }
            Opcode::Continuation => {
                if let Some(message) = &mut incomplete.message {
                    message.fragments += 1;
                }
            }
            Opcode::Close | Opcode::Ping | Opcode::Pong => {}
        }
        incomplete.frame = Some((header, 0));
    }

    /// Moves what `input` has of the payload in progress to where it is kept.
    fn read_payload(&mut self, input: &mut &mut [u8]) -> Result<Progress, Violation> {
        let incomplete = self.incomplete.as_mut().expect("a payload is read while its frame is in progress");
        let (header, received) = incomplete.frame.as_mut().expect("see above");
        let missing = header.payload_len - *received as u64;
        let len = usize::try_from(missing).unwrap_or(usize::MAX).min(input.len());
        let bytes = split_front(input, len);
        mask::apply(bytes, header.mask, *received);
        *received += len;

        let header = *header;
        let is_frame_whole = len as u64 == missing;
        if is_frame_whole {
            incomplete.frame = None;
        }
        if header.opcode.is_control() {
            incomplete.control.extend_from_slice(bytes);
            return Ok(match is_frame_whole {
                true => Progress::Control(header, mem::take(&mut incomplete.control)),
                false => Progress::Starved,
            });
        }
        let message = incomplete.message.as_mut().expect("a data frame was admitted to a message");
        message.append(bytes)?;
        Ok(match (is_frame_whole, header.fin) {
            (false, _) => Progress::Starved,
            (true, false) => Progress::Fragment,
            (true, true) => Progress::Message(incomplete.message.take().expect("see above")),
        })
    }
}

/// How far a payload has come.
enum Progress {
    /// The input is used up and the frame is not whole.
    Starved,
    /// The frame is whole; its message goes on.
    Fragment,
    Control(Header, Vec<u8>),
    Message(Assembly),
}

impl Incomplete {
    fn is_empty(&self) -> bool {
        self.header.is_empty() && self.frame.is_none() && self.message.is_none()
    }
}

impl Assembly {
    fn append(&mut self, bytes: &[u8]) -> Result<(), Violation> {
        self.bytes.extend_from_slice(bytes);
        if !self.is_text || self.is_deflated {
            return Ok(());
        }
        match std::str::from_utf8(&self.bytes[self.utf8_len..]) {
            Ok(text) => self.utf8_len += text.len(),
            // A character may be cut in two by the end of what arrived.
            Err(error) if error.error_len().is_none() => self.utf8_len += error.valid_up_to(),
            Err(_) => return Err(Violation::InvalidUtf8),
        }
        Ok(())
    }

    fn finish(self) -> Result<Received<'static>, Violation> {
        if self.is_deflated {
            let (is_text, payload) = (self.is_text, Cow::Owned(self.bytes));
            return Ok(Received::Deflated(Box::new(Deflated { is_text, payload })));
        }
        if !self.is_text {
            return Ok(Received::Plain(Message::Binary(Cow::Owned(self.bytes))));
        }
        if self.utf8_len != self.bytes.len() {
            return Err(Violation::InvalidUtf8);
        }
        let text = String::from_utf8(self.bytes).map_err(|_| Violation::InvalidUtf8)?;
        Ok(Received::Plain(Message::Text(Cow::Owned(text))))
    }
}

fn text(payload: Cow<'_, [u8]>) -> Result<Cow<'_, str>, Violation> {
    match payload {
        Cow::Borrowed(bytes) => {
            simdutf8::basic::from_utf8(bytes).map(Cow::Borrowed).map_err(|_| Violation::InvalidUtf8)
        }
        Cow::Owned(bytes) => String::from_utf8(bytes).map(Cow::Owned).map_err(|_| Violation::InvalidUtf8),
    }
}

/// Reads a close payload: empty, or a code that may be sent (RFC 6455 §7.4) and a reason in UTF-8.
fn close_code(payload: &[u8]) -> Result<Option<u16>, Violation> {
    let (code, reason) = match payload {
        [] => return Ok(None),
        [_] => return Err(Violation::Protocol("close payload of one byte")),
        [high, low, reason @ ..] => (u16::from_be_bytes([*high, *low]), reason),
    };
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(Violation::Protocol("close code that must not be sent"));
    }
    match std::str::from_utf8(reason) {
        Ok(_) => Ok(Some(code)),
        Err(_) => Err(Violation::InvalidUtf8),
    }
}

/// Cuts the first `len` bytes off `input`.
fn split_front<'a>(input: &mut &'a mut [u8], len: usize) -> &'a mut [u8] {
    let (front, rest) = mem::take(input).split_at_mut(len);
    *input = rest;
    front
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::frame::header::unmasked_header_len;
    use crate::frame::{Deflater, FrameBuilder, Opcode, masked};

    const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    const LIMITS: FrameLimits = FrameLimits { message_bytes_max: 1000, fragments_max: 8 };

    /// Everything a server reads from `bytes` when they arrive in pieces of `piece` bytes.
    fn read(bytes: &[u8], piece: usize) -> (Vec<Message<'static>>, Option<Violation>) {
        read_by(FrameReader::new(Role::Server), bytes, piece)
    }

    /// The same on a connection that agreed on permessage-deflate.
    fn read_deflated(bytes: &[u8], piece: usize) -> (Vec<Message<'static>>, Option<Violation>) {
        read_by(FrameReader::new(Role::Server).with_deflate(), bytes, piece)
    }

    fn read_by(
        mut reader: FrameReader,
        bytes: &[u8],
        piece: usize,
    ) -> (Vec<Message<'static>>, Option<Violation>) {
        let mut messages = Vec::new();
        let mut inflater = Inflater::default();
        for piece in bytes.to_vec().chunks_mut(piece) {
            let mut input = piece;
            loop {
                let outcome = match reader.next(&mut input, &LIMITS) {
                    Ok(Some(received)) => reader.inflate(received, &mut inflater, &LIMITS),
                    Ok(None) => break,
                    Err(violation) => Err(violation),
                };
                match outcome {
                    Ok(message) => messages.push(owned(message)),
                    Err(violation) => return (messages, Some(violation)),
                }
            }
        }
        (messages, None)
    }

    /// A compressed payload that is as it was, in one block (RFC 7692 §7.2.3.3).
    fn stored(text: &[u8]) -> Vec<u8> {
        let len = u16::try_from(text.len()).unwrap();
        [&[0][..], &len.to_le_bytes(), &(!len).to_le_bytes(), text, &[0]].concat()
    }

    /// A compressed payload, as short as we can make it.
    fn deflated(text: &[u8]) -> Vec<u8> {
        let mut plain = FrameBuilder::new(text.len());
        plain.put(text);
        match Deflater::default().compress(&plain.finish(Opcode::Text)) {
            Some(frame) => frame[unmasked_header_len(&frame)..].to_vec(),
            None => stored(text),
        }
    }

    fn owned(message: Message<'_>) -> Message<'static> {
        match message {
            Message::Text(text) => Message::Text(Cow::Owned(text.into_owned())),
            Message::Binary(bytes) => Message::Binary(Cow::Owned(bytes.into_owned())),
            Message::Ping(bytes) => Message::Ping(Cow::Owned(bytes.into_owned())),
            Message::Pong(bytes) => Message::Pong(Cow::Owned(bytes.into_owned())),
            Message::Close(code) => Message::Close(code),
        }
    }

    fn text(text: &str) -> Message<'static> {
        Message::Text(Cow::Owned(text.to_owned()))
    }

    fn frame(first_byte: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = masked(Opcode::Text, payload, KEY);
        frame[0] = first_byte;
        frame
    }

    #[test]
    fn the_example_of_the_rfc_is_read() {
        // RFC 6455 §5.7: a single-frame masked text message.
        let hello = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
        assert_eq!(read(&hello, 100), (vec![text("Hello")], None));
    }

    #[test]
    fn a_ping_between_two_fragments_is_read_between_them() {
        let bytes = [frame(0x01, b"Hel"), frame(0x89, b"?"), frame(0x80, b"lo")].concat();
        for piece in 1..bytes.len() {
            let expected = vec![Message::Ping(Cow::Owned(b"?".to_vec())), text("Hello")];
            assert_eq!(read(&bytes, piece), (expected, None), "in pieces of {piece}");
        }
    }

    #[test]
    fn nothing_is_kept_once_a_message_is_whole() {
        let mut bytes = [frame(0x01, b"Hel"), frame(0x80, b"lo")].concat();
        let mut reader = FrameReader::new(Role::Server);
        let mut input = &mut bytes[..];
        assert_eq!(reader.next(&mut input, &LIMITS), Ok(Some(Received::Plain(text("Hello")))));
        assert!(reader.incomplete.is_none());
        assert_eq!(size_of::<FrameReader>(), 16);
    }

    #[test]
    fn good_messages_before_a_bad_frame_are_read_first_and_nothing_after_it() {
        let bytes = [frame(0x81, b"good"), frame(0x83, b"bad"), frame(0x81, b"late")].concat();
        let (messages, violation) = read(&bytes, 1000);
        assert_eq!(messages, vec![text("good")]);
        assert_eq!(violation, Some(Violation::Protocol("reserved opcode")));

        let mut reader = FrameReader::new(Role::Server);
        let (mut bad, mut late) = (frame(0x83, b"bad"), frame(0x81, b"late"));
        assert!(reader.next(&mut &mut bad[..], &LIMITS).is_err());
        assert_eq!(reader.next(&mut &mut late[..], &LIMITS), Ok(None), "the error comes once");
    }

    #[test]
    fn each_violation_has_its_close_code() {
        let mut unmasked = frame(0x81, b"");
        unmasked[1] = 0;
        let announced = |len: u64| [&[0x82, 0xff][..], &len.to_be_bytes(), &KEY].concat();
        let close = |payload: &[u8]| frame(0x88, payload);
        let many = [vec![frame(0x01, b"")], vec![frame(0x00, b""); 8]].concat().concat();
        let reserved_bits = [0xc1, 0xa1, 0x91].map(|first| (frame(first, b""), 1002));
        let reserved_opcodes = [0x3, 0x4, 0x5, 0x6, 0x7, 0xb, 0xc, 0xd, 0xe, 0xf]
            .map(|opcode| (frame(0x80 | opcode, b""), 1002));
        // RFC 6455 §7.4.1 and §7.4.2: they stand for what no frame says, or nobody has defined them.
        let unsendable = [0_u16, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2999, 5000, 65535]
            .map(|code| (close(&code.to_be_bytes()), 1002));
        // A byte that never occurs, a continuation of nothing, an overlong form, a surrogate, beyond the last.
        let not_text = [&b"\xff"[..], b"\x80", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80"]
            .map(|bytes| (frame(0x81, bytes), 1007));
        let others = [
            (unmasked, 1002),
            (frame(0x80, b"continues nothing"), 1002),
            ([frame(0x01, b"a"), frame(0x81, b"b")].concat(), 1002),
            (frame(0x09, b"fragmented ping"), 1002),
            (frame(0x89, &[0; 126]), 1002),
            (announced(1 << 63), 1002),
            (announced(5), 1002),
            (close(&[3]), 1002),
            (close(b"\x03\xe8\xff"), 1007),
            (frame(0x81, b"half of \xc3"), 1007),
            (announced(1 << 62), 1009),
            (frame(0x81, &[b'a'; 1001]), 1009),
            ([frame(0x01, &[b'a'; 600]), frame(0x80, &[b'a'; 401])].concat(), 1009),
            (many, 1008),
        ];
        let all =
            reserved_bits.into_iter().chain(reserved_opcodes).chain(unsendable).chain(not_text).chain(others);
        for (bytes, code) in all {
            for piece in [1, 3, bytes.len()] {
                let (_, violation) = read(&bytes, piece);
                let found = violation.map(|violation| violation.close_code().code());
                assert_eq!(found, Some(code), "{bytes:02x?} in pieces of {piece}");
            }
        }
    }

    #[test]
    fn a_huge_announcement_is_refused_before_a_byte_of_it_is_kept() {
        let mut header = [&[0x81, 0xff][..], &(1_u64 << 62).to_be_bytes(), &KEY].concat();
        let mut reader = FrameReader::new(Role::Server);
        assert_eq!(reader.next(&mut &mut header[..], &LIMITS), Err(Violation::TooBig(1000)));
        assert!(reader.incomplete.is_none());
    }

    #[test]
    fn bad_text_is_refused_before_the_message_is_whole() {
        let mut start = frame(0x01, b"good \xed\xa0");
        let mut reader = FrameReader::new(Role::Server);
        assert_eq!(reader.next(&mut &mut start[..], &LIMITS), Err(Violation::InvalidUtf8));
    }

    #[test]
    fn a_compressed_message_is_read_however_it_comes() {
        // RFC 7692 §7.2.3.1, whole and in two fragments with a ping between them.
        let hello = b"\xf2\x48\xcd\xc9\xc9\x07\x00";
        let halves = [frame(0x41, &hello[..3]), frame(0x89, b"?"), frame(0x80, &hello[3..])];
        let bytes =
            [frame(0xc1, hello), halves.concat(), frame(0x81, b"plain"), frame(0xc2, b"\x00")].concat();
        let expected = vec![
            text("Hello"),
            Message::Ping(Cow::Borrowed(b"?")),
            text("Hello"),
            text("plain"),
            Message::Binary(Cow::Borrowed(b"")),
        ];
        for piece in [1, 2, 3, 7, bytes.len()] {
            assert_eq!(read_deflated(&bytes, piece), (expected.clone(), None), "in pieces of {piece}");
        }
    }

    #[test]
    fn each_violation_by_a_compressed_message_has_its_close_code() {
        let half_a_character = stored("é".as_bytes());
        let (first, second) = half_a_character.split_at(6);
        let bomb = deflated(&[b'0'; 5000]);
        let many = [vec![frame(0x41, b"")], vec![frame(0x00, b""); 8]].concat().concat();
        let announced = |len: u16| [&[0xc1, 0xfe][..], &len.to_be_bytes(), &KEY].concat();
        for (bytes, code) in [
            // Only the first frame of a data message may say so, and nobody may say more.
            (frame(0xc9, b""), Some(1002)),
            (frame(0xca, b""), Some(1002)),
            (frame(0xc8, b""), Some(1002)),
            ([frame(0x41, b"\x00"), frame(0xc0, b"")].concat(), Some(1002)),
            ([frame(0x01, b"plain"), frame(0xc0, b"\x00")].concat(), Some(1002)),
            (frame(0xe1, b"\x00"), Some(1002)),
            (frame(0xd1, b"\x00"), Some(1002)),
            (frame(0xa1, b"plain"), Some(1002)),
            // What is inside is judged when it is out.
            (frame(0xc1, &stored(b"\xff")), Some(1007)),
            (frame(0xc2, &stored(b"\xff")), None),
            ([frame(0x41, first), frame(0x80, second)].concat(), None),
            (frame(0xc1, &stored(b"half of \xc3")), Some(1007)),
            (frame(0xc1, b"not DEFLATE"), Some(1007)),
            (frame(0xc1, b""), Some(1007)),
            // However short it is, and however many frames it comes in.
            (frame(0xc1, &stored(&[b'a'; 1000])), None),
            (frame(0xc1, &stored(&[b'a'; 1001])), Some(1009)),
            (frame(0xc1, &bomb), Some(1009)),
            (
                [frame(0x41, &bomb[..5]), frame(0x00, &bomb[5..9]), frame(0x80, &bomb[9..])].concat(),
                Some(1009),
            ),
            (announced(1189), None),
            (announced(1190), Some(1009)),
            ([frame(0x41, &[0; 1000]), frame(0x80, &[0; 190])].concat(), Some(1009)),
            (many, Some(1008)),
        ] {
            for piece in [1, 3, bytes.len()] {
                let (_, violation) = read_deflated(&bytes, piece);
                let found = violation.map(|violation| violation.close_code().code());
                assert_eq!(found, code, "{bytes:02x?} in pieces of {piece}");
            }
        }
    }

    #[test]
    fn nothing_is_read_after_a_message_that_cannot_be_inflated() {
        let mut bytes = [frame(0xc1, b"not DEFLATE"), frame(0x81, b"late")].concat();
        let mut input = &mut bytes[..];
        let mut reader = FrameReader::new(Role::Server).with_deflate();
        let received = reader.next(&mut input, &LIMITS).unwrap().unwrap();
        let outcome = reader.inflate(received, &mut Inflater::default(), &LIMITS);
        assert_eq!(outcome, Err(Violation::InvalidDeflate));
        assert_eq!(reader.next(&mut input, &LIMITS), Ok(None));
    }

    proptest! {
        #[test]
        fn compressed_messages_are_read_however_they_are_cut(
            texts in prop::collection::vec("[a-d]{20,400}", 1..4),
            fragment in 1_usize..100,
            piece in 1_usize..64,
        ) {
            let mut bytes = Vec::new();
            for text in &texts {
                let payload = deflated(text.as_bytes());
                let fragments: Vec<_> = payload.chunks(fragment.max(payload.len() / 8 + 1)).collect();
                for (i, payload) in fragments.iter().enumerate() {
                    let fin = if i + 1 == fragments.len() { 0x80 } else { 0 };
                    let first = if i == 0 { 0x41 } else { 0 };
                    bytes.extend(frame(fin | first, payload));
                }
            }
            let expected = texts.iter().map(|sent| text(sent)).collect::<Vec<_>>();
            prop_assert_eq!(read_deflated(&bytes, piece), (expected, None));
        }

        #[test]
        fn what_was_sent_is_read_however_it_is_cut(
            texts in prop::collection::vec(".{0,80}", 1..6),
            fragment in 1_usize..200,
            piece in 1_usize..64,
        ) {
            let mut bytes = Vec::new();
            for text in &texts {
                let fragments: Vec<_> = match text.is_empty() {
                    true => vec![&b""[..]],
                    false => text.as_bytes().chunks(fragment.max(text.len() / 8 + 1)).collect(),
                };
                for (i, payload) in fragments.iter().enumerate() {
                    let fin = if i + 1 == fragments.len() { 0x80 } else { 0 };
                    let opcode = if i == 0 { 1 } else { 0 };
                    bytes.extend(frame(fin | opcode, payload));
                }
            }
            let expected = texts.iter().map(|sent| text(sent)).collect::<Vec<_>>();
            prop_assert_eq!(read(&bytes, piece), (expected, None));
        }

        #[test]
        fn any_bytes_at_all_are_survived(bytes: Vec<u8>, piece in 1_usize..32) {
            let whole = read(&bytes, bytes.len().max(1));
            prop_assert_eq!(read(&bytes, piece), whole);
            let whole = read_deflated(&bytes, bytes.len().max(1));
            prop_assert_eq!(read_deflated(&bytes, piece), whole);
        }
    }
}
