//! WebSocket frames (RFC 6455 §5): bytes in, messages out, and the other way round.
//!
//! Pure functions over bytes: nothing here reads a socket or a clock. [`FrameReader`] judges what a peer
//! sends, [`FrameBuilder`] and the small functions beside it encode what is sent back. Where both sides agreed on
//! permessage-deflate (RFC 7692) in a [`DeflateAgreement`], an [`Inflater`] and a [`Deflater`] serve both ways.

mod deflate;
mod extension;
mod header;
mod mask;
mod reader;
mod writer;

pub use deflate::{DeflateCounts, Deflater, Inflater};
pub use extension::{DeflateAgreement, MalformedExtensions};
pub use header::Opcode;
pub use reader::{Deflated, FrameLimits, FrameReader, Message, Received, Role, Violation};
pub use writer::{FrameBuilder, close, close_echo, mask_whole, masked, ping, pong};
