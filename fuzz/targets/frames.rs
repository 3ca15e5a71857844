//! Frames: however the bytes are cut, the same messages come of them, and an error comes once and last.
#![cfg_attr(fuzzing, no_main)]

use std::borrow::Cow;

use causeway_protocol::frame::{
    FrameLimits, FrameReader, Message, Opcode, Received, Role, Violation, masked,
};

const LIMITS: FrameLimits = FrameLimits { message_bytes_max: 1000, fragments_max: 8 };

/// The first byte chooses who reads, and the size of the pieces in which the rest arrives.
pub(crate) fn check(input: &[u8]) {
    let Some((&choice, bytes)) = input.split_first() else { return };
    let role = if choice & 1 == 0 { Role::Server } else { Role::Client };
    let whole = read(role, bytes, usize::MAX);
    assert_eq!(read(role, bytes, usize::from(choice >> 1) + 1), whole, "the pieces make a difference");
    for message in &whole.0 {
        assert_eq!(read(Role::Server, &written(message), usize::MAX), (vec![message.clone()], None));
    }
}

/// The messages, and the violation behind them if there is one.
fn read(role: Role, bytes: &[u8], piece: usize) -> (Vec<Message<'static>>, Option<Violation>) {
    let mut reader = FrameReader::new(role);
    let (mut messages, mut violation) = (Vec::new(), None);
    let mut is_over = false;
    for piece in bytes.to_vec().chunks_mut(piece) {
        let mut input = &mut *piece;
        loop {
            match reader.next(&mut input, &LIMITS) {
                Ok(None) => break,
                Ok(Some(Received::Deflated(message))) => panic!("nobody agreed on that: {message:?}"),
                Ok(Some(Received::Plain(message))) => {
                    assert!(!is_over, "nothing is said after the end");
                    is_over = matches!(message, Message::Close(_));
                    messages.push(kept(message));
                }
                Err(found) => {
                    assert!(!is_over, "the end comes once");
                    (is_over, violation) = (true, Some(found));
                }
            }
        }
        assert!(input.is_empty(), "all that arrived is used up");
    }
    (messages, violation)
}

fn kept(message: Message<'_>) -> Message<'static> {
    let within = |len: usize, max: usize| assert!(len <= max, "{len} bytes");
    match message {
        Message::Text(text) => {
            within(text.len(), LIMITS.message_bytes_max);
            Message::Text(Cow::Owned(text.into_owned()))
        }
        Message::Binary(bytes) => {
            within(bytes.len(), LIMITS.message_bytes_max);
            Message::Binary(Cow::Owned(bytes.into_owned()))
        }
        Message::Ping(payload) => {
            within(payload.len(), 125);
            Message::Ping(Cow::Owned(payload.into_owned()))
        }
        Message::Pong(payload) => {
            within(payload.len(), 125);
            Message::Pong(Cow::Owned(payload.into_owned()))
        }
        Message::Close(code) => Message::Close(code),
    }
}

/// The message in one frame of a client's.
fn written(message: &Message<'_>) -> Vec<u8> {
    let (opcode, payload) = match message {
        Message::Text(text) => (Opcode::Text, text.as_bytes().to_vec()),
        Message::Binary(bytes) => (Opcode::Binary, bytes.to_vec()),
        Message::Ping(payload) => (Opcode::Ping, payload.to_vec()),
        Message::Pong(payload) => (Opcode::Pong, payload.to_vec()),
        Message::Close(code) => {
            (Opcode::Close, code.map_or_else(Vec::new, |code| code.to_be_bytes().to_vec()))
        }
    };
    masked(opcode, &payload, [0x37, 0xfa, 0x21, 0x3d])
}

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|input: &[u8]| check(input));
