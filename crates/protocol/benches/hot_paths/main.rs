//! What the protocol costs for every frame, command and message.
#![expect(unreachable_pub, reason = "a command, not a library")]

use std::hint::black_box;

use bytes::Bytes;
use causeway_protocol::frame::{
    self, Deflater, FrameBuilder, FrameLimits, FrameReader, Inflater, Message, Opcode, Received, Role,
};
use causeway_protocol::{Command, Pattern, Publication, Topic};
use path::HotPath;

mod path;

const SUBSCRIBE: &str = r#"{"id":17,"op":"subscribe","topics":["orders.42","orders.43","user:alice:inbox"]}"#;
const PUBLISH: &str =
    r#"{"id":18,"op":"publish","topic":"chat.1","data":{"text":"good morning","at":1700000000}}"#;
/// 128 bytes, as in the figures of `docs/performance.md`.
const JSON: &str = r#"{"order":42,"total":9.75,"currency":"EUR","items":[{"sku":"A-1","count":3},{"sku":"B-22","count":1}],"note":"leave at the door"}"#;
const TEXT: &str = "Not JSON, so that every byte must be looked at for \"what JSON escapes\", line ends\nand the like, at the same length as the JSON.\n";

fn main() {
    path::weigh(&[
        HotPath {
            name: "frame_read",
            operation: "read a client's frame that came whole, 80 bytes of text",
            operations: 1000,
            prepare: || read(&masked(SUBSCRIBE), usize::MAX),
        },
        HotPath {
            name: "frame_read_in_pieces",
            operation: "read the same frame in pieces of 20 bytes",
            operations: 1000,
            prepare: || read(&masked(SUBSCRIBE), 20),
        },
        HotPath {
            name: "frame_read_long",
            operation: "read a client's frame that came whole, 16 KiB of text",
            operations: 1000,
            prepare: || read(&masked(&"0123456789abcdef".repeat(1024)), usize::MAX),
        },
        HotPath {
            name: "frame_write",
            operation: "write a frame, 128 bytes of payload",
            operations: 1000,
            prepare: || repeat(|| write(black_box(JSON.as_bytes()))),
        },
        HotPath {
            name: "publication_json",
            operation: "make a published payload a message, 128 bytes of JSON",
            operations: 1000,
            prepare: || encode(JSON),
        },
        HotPath {
            name: "publication_text",
            operation: "make a published payload a message, 128 bytes of other text",
            operations: 1000,
            prepare: || encode(TEXT),
        },
        HotPath {
            name: "deflate",
            operation: "compress a message of 1 KiB of JSON, to less than a quarter",
            operations: 100,
            prepare: deflate,
        },
        HotPath {
            name: "inflate",
            operation: "read such a compressed message",
            operations: 1000,
            prepare: inflate,
        },
        HotPath {
            name: "command_subscribe",
            operation: "parse a subscribe to three topics",
            operations: 1000,
            prepare: || repeat(|| parse(SUBSCRIBE)),
        },
        HotPath {
            name: "command_publish",
            operation: "parse a publish",
            operations: 1000,
            prepare: || repeat(|| parse(PUBLISH)),
        },
        HotPath {
            name: "topic_parse",
            operation: "check a topic's name",
            operations: 1000,
            prepare: || repeat(|| drop(black_box(Topic::parse(black_box("user:alice:inbox"))))),
        },
        HotPath {
            name: "pattern_match",
            operation: "ask one pattern for one topic, averaged over five patterns and four topics",
            operations: 20_000,
            prepare: match_all,
        },
    ]);
}

fn repeat(operation: impl Fn() + 'static) -> Box<dyn FnMut()> {
    Box::new(move || (0..1000).for_each(|_| operation()))
}

fn masked(text: &str) -> Vec<u8> {
    frame::masked(Opcode::Text, text.as_bytes(), [0x37, 0xfa, 0x21, 0x3d])
}

/// Reads `frame` a thousand times, at most `piece_bytes` at once. Reading unmasks the bytes where they lie, so each
/// time begins with a copy.
fn read(frame: &[u8], piece_bytes: usize) -> Box<dyn FnMut()> {
    let frame = frame.to_vec();
    let mut buffer = frame.clone();
    let limits = FrameLimits::default();
    let mut reader = FrameReader::new(Role::Server);
    Box::new(move || {
        for _ in 0..1000 {
            buffer.copy_from_slice(&frame);
            let mut texts = 0;
            for piece in buffer.chunks_mut(piece_bytes) {
                let received = reader.next(&mut &mut *piece, &limits).expect("a good frame");
                texts += u32::from(matches!(black_box(received), Some(Received::Plain(Message::Text(_)))));
            }
            assert_eq!(texts, 1, "the whole frame is one message");
        }
    })
}

fn write(payload: &[u8]) {
    let mut frame = FrameBuilder::new(payload.len());
    frame.put(payload);
    black_box(frame.finish(Opcode::Text));
}

/// Eight orders that differ in their numbers, 1 KiB in all.
fn orders() -> Bytes {
    let mut frame = FrameBuilder::new(1032);
    for number in 42..50 {
        frame.put(JSON.replace("42", &number.to_string()).as_bytes());
    }
    let frame = frame.finish(Opcode::Text);
    assert_eq!(frame.len(), 4 + 1024);
    frame
}

fn deflate() -> Box<dyn FnMut()> {
    let (mut deflater, orders) = (Deflater::default(), orders());
    Box::new(move || {
        for _ in 0..100 {
            let deflated = deflater.compress(black_box(&orders)).expect("it is worth it");
            assert!(black_box(deflated).len() * 4 < orders.len());
        }
    })
}

fn inflate() -> Box<dyn FnMut()> {
    let deflated = Deflater::default().compress(&orders()).expect("it is worth it");
    let mut buffer = deflated.to_vec();
    let (mut reader, mut inflater) = (FrameReader::new(Role::Client).with_deflate(), Inflater::default());
    let limits = FrameLimits::default();
    Box::new(move || {
        for _ in 0..1000 {
            let received = reader.next(&mut &mut buffer[..], &limits);
            let received = received.expect("a good frame").expect("a whole one");
            let text = reader.inflate(received, &mut inflater, &limits);
            assert!(matches!(black_box(text), Ok(Message::Text(text)) if text.len() == 1024));
        }
    })
}

fn encode(payload: &'static str) -> Box<dyn FnMut()> {
    assert_eq!(payload.len(), 128);
    let topic = Topic::parse("orders.42").expect("a topic");
    repeat(move || {
        black_box(Publication::new(topic.clone(), payload.as_bytes()).frame());
    })
}

fn parse(command: &str) {
    black_box(Command::parse(black_box(command)).expect("a good command"));
}

fn match_all() -> Box<dyn FnMut()> {
    let patterns = ["news", "orders.*", "chat.**", "user:{sub}:*", "**"];
    let patterns = patterns.map(|text| Pattern::parse(text).expect("a pattern"));
    let topics = ["news", "orders.42", "chat.1.typing", "user:alice:inbox"];
    let topics = topics.map(|name| Topic::parse(name).expect("a topic"));
    repeat(move || {
        let pairs = patterns.iter().flat_map(|pattern| topics.iter().map(move |topic| (pattern, topic)));
        let granted = pairs.filter(|(pattern, topic)| black_box(pattern).matches(black_box(topic), "alice"));
        assert_eq!(granted.count(), 8, "one each, and all by the last");
    })
}
