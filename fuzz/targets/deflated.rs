//! Compressed messages: however the bytes are cut, the same comes of them and never more than may be; and what we compress
//! is read back.
#![cfg_attr(fuzzing, no_main)]

use std::borrow::Cow;

use causeway_protocol::frame::{
    Deflater, FrameBuilder, FrameLimits, FrameReader, Inflater, Message, Opcode, Role, Violation,
};

const LIMITS: FrameLimits = FrameLimits { message_bytes_max: 10_000, fragments_max: 8 };

/// The first byte is the size of the pieces in which the rest arrives.
pub(crate) fn check(input: &[u8]) {
    let Some((&choice, bytes)) = input.split_first() else { return };
    let whole = read(Role::Server, bytes, usize::MAX);
    assert_eq!(read(Role::Server, bytes, usize::from(choice) + 1), whole, "the pieces make a difference");

    let mut plain = FrameBuilder::new(bytes.len());
    plain.put(bytes);
    if let Some(frame) = Deflater::default().compress(&plain.finish(Opcode::Binary)) {
        let sent = Message::Binary(Cow::Owned(bytes.to_vec()));
        assert_eq!(read(Role::Client, &frame, usize::from(choice) + 1), (vec![sent], None));
    }
}

/// The messages, and the violation behind them if there is one.
fn read(role: Role, bytes: &[u8], piece: usize) -> (Vec<Message<'static>>, Option<Violation>) {
    let mut reader = FrameReader::new(role).with_deflate();
    let mut inflater = Inflater::default();
    let mut messages = Vec::new();
    for piece in bytes.to_vec().chunks_mut(piece) {
        let mut input = &mut *piece;
        loop {
            let outcome = match reader.next(&mut input, &LIMITS) {
                Ok(Some(received)) => reader.inflate(received, &mut inflater, &LIMITS),
                Ok(None) => break,
                Err(violation) => Err(violation),
            };
            match outcome {
                Ok(message) => messages.push(kept(message)),
                Err(violation) => return (messages, Some(violation)),
            }
        }
    }
    (messages, None)
}

fn kept(message: Message<'_>) -> Message<'static> {
    let within = |len: usize| assert!(len <= LIMITS.message_bytes_max, "{len} bytes");
    match message {
        Message::Text(text) => {
            within(text.len());
            Message::Text(Cow::Owned(text.into_owned()))
        }
        Message::Binary(bytes) => {
            within(bytes.len());
            Message::Binary(Cow::Owned(bytes.into_owned()))
        }
        Message::Ping(payload) => Message::Ping(Cow::Owned(payload.into_owned())),
        Message::Pong(payload) => Message::Pong(Cow::Owned(payload.into_owned())),
        Message::Close(code) => Message::Close(code),
    }
}

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|input: &[u8]| check(input));
