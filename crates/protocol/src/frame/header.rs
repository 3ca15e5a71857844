//! The 2 to 14 bytes before a frame's payload (RFC 6455 §5.2).

use super::reader::{Role, Violation};

/// What a frame is for (RFC 6455 §11.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    /// The next fragment of a message.
    Continuation = 0x0,
    /// A text message, or its first fragment.
    Text = 0x1,
    /// A binary message, or its first fragment.
    Binary = 0x2,
    /// The connection is being closed.
    Close = 0x8,
    /// Asks for a pong with the same payload.
    Ping = 0x9,
    /// Answers a ping.
    Pong = 0xA,
}

impl Opcode {
    /// Whether frames of this kind may stand between the fragments of a message, and so are short and whole.
    pub(super) fn is_control(self) -> bool {
        self as u8 >= 0x8
    }

    fn from_bits(bits: u8) -> Result<Self, Violation> {
        Ok(match bits {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xA => Self::Pong,
            _ => return Err(Violation::Protocol("reserved opcode")),
        })
    }
}

/// The longest header: two bytes, a 64-bit length and a mask.
pub(super) const HEADER_BYTES_MAX: usize = 14;
/// The longest payload of a control frame (RFC 6455 §5.5).
pub(super) const CONTROL_BYTES_MAX: u64 = 125;
/// Set on the first frame of a compressed message (RFC 7692 §6).
pub(super) const RSV1: u8 = 0x40;

#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    pub(super) opcode: Opcode,
    pub(super) fin: bool,
    /// Whether a compressed message begins with this frame.
    pub(super) is_deflated: bool,
    pub(super) payload_len: u64,
    /// All zero where the frame is not masked.
    pub(super) mask: [u8; 4],
}

impl Header {
    /// Reads a header from the front of `bytes` and says how many bytes it took; `None` until it is whole.
    /// `may_deflate` says whether compressed messages were agreed on.
    #[inline]
    pub(super) fn parse(
        bytes: &[u8],
        role: Role,
        may_deflate: bool,
    ) -> Result<Option<(Self, usize)>, Violation> {
        let &[first, second, ref rest @ ..] = bytes else { return Ok(None) };
        let opcode = Opcode::from_bits(first & 0x0f)?;
        let reserved = first & 0x70;
        if reserved != 0 {
            check_reserved(reserved, opcode, may_deflate)?;
        }
        let fin = first & 0x80 != 0;
        let is_masked = second & 0x80 != 0;
        role.check_mask(is_masked)?;

        let Some((payload_len, length_bytes)) = extended_length(second & 0x7f, rest)? else {
            return Ok(None);
        };
        if opcode.is_control() && (!fin || payload_len > CONTROL_BYTES_MAX) {
            return Err(Violation::Protocol("control frame fragmented or longer than 125 bytes"));
        }
        let mut header_len = 2 + length_bytes;
        let mut mask = [0; 4];
        if is_masked {
            let Some(key) = bytes.get(header_len..header_len + 4) else { return Ok(None) };
            mask.copy_from_slice(key);
            header_len += 4;
        }
        let is_deflated = reserved != 0;
        Ok(Some((Self { opcode, fin, is_deflated, payload_len, mask }, header_len)))
    }
}

/// How many bytes of a frame that is not masked are its header.
pub(super) fn unmasked_header_len(frame: &[u8]) -> usize {
    match frame[1] {
        126 => 4,
        127 => 10,
        _ => 2,
    }
}

/// Only the first frame of a data message says that it is compressed (RFC 7692 §6.1).
#[cold]
fn check_reserved(reserved: u8, opcode: Opcode, may_deflate: bool) -> Result<(), Violation> {
    let may_deflate = may_deflate && matches!(opcode, Opcode::Text | Opcode::Binary);
    match reserved {
        RSV1 if may_deflate => Ok(()),
        _ => Err(Violation::Protocol("reserved bits set without an extension")),
    }
}

/// The payload length and the number of extra bytes it took; `None` until they are there. A length that fits
/// a shorter form must use it.
fn extended_length(short: u8, rest: &[u8]) -> Result<Option<(u64, usize)>, Violation> {
    match short {
        126 => Ok(match rest.first_chunk::<2>().map(|b| u16::from_be_bytes(*b)) {
            Some(len) if len < 126 => {
                return Err(Violation::Protocol("payload length not in its shortest form"));
            }
            len => len.map(|len| (len.into(), 2)),
        }),
        127 => Ok(match rest.first_chunk::<8>().map(|b| u64::from_be_bytes(*b)) {
            Some(len) if len >> 63 != 0 => return Err(Violation::Protocol("payload length above 2^63")),
            Some(len) if len <= 0xffff => {
                return Err(Violation::Protocol("payload length not in its shortest form"));
            }
            len => len.map(|len| (len, 8)),
        }),
        len => Ok(Some((len.into(), 0))),
    }
}
