//! WebSocket frames (RFC 6455 §5): bytes in, messages out, and the other way round.
//!
//! Pure functions over bytes: nothing here reads a socket or a clock. [`FrameReader`] judges what a peer
//! sends, [`FrameBuilder`] and the small functions beside it encode what is sent back.

mod header;
mod mask;
mod reader;
mod writer;

pub use header::Opcode;
pub use reader::{FrameLimits, FrameReader, Message, Role, Violation};
pub use writer::{FrameBuilder, close, close_echo, masked, ping, pong};
