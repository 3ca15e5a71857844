//! A payload published to a topic, and the frame that carries it to clients.
//!
//! The frame is encoded at most once for the whole node, by whichever worker needs it first; every
//! subscriber is then sent the same bytes. So is the compressed frame, for the subscribers that take it.

use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::de::IgnoredAny;

use crate::Topic;
use crate::frame::{Deflater, FrameBuilder, Opcode};

/// What a service published: the topic and the payload, byte for byte.
#[derive(Debug)]
pub struct Publication {
    topic: Topic,
    payload: Bytes,
    frame: OnceLock<Bytes>,
    deflated: OnceLock<Option<Bytes>>,
}

impl Publication {
    /// A publication of `payload` to `topic`. Nothing is encoded yet.
    pub fn new(topic: Topic, payload: impl Into<Bytes>) -> Self {
        Self { topic, payload: payload.into(), frame: OnceLock::new(), deflated: OnceLock::new() }
    }

    /// The topic it was published to.
    pub fn topic(&self) -> &Topic {
        &self.topic
    }

    /// The payload as it was published.
    pub fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// The `message` push as one RFC 6455 text frame, encoded by the first caller.
    ///
    /// A second thread that asks meanwhile waits for the first, for as long as encoding one payload takes.
    pub fn frame(&self) -> &Bytes {
        self.frame.get_or_init(|| message_push(&self.topic, &self.payload).finish(Opcode::Text))
    }

    /// The same push as one compressed frame (RFC 7692), made by the first caller with its deflater; `None` where
    /// that is no shorter.
    ///
    /// A second thread that asks meanwhile waits for the first, for as long as compressing takes.
    pub fn deflated_frame(&self, deflater: &mut Deflater) -> Option<&Bytes> {
        self.deflated.get_or_init(|| deflater.compress(self.frame())).as_ref()
    }
}

/// `{"op":"message","topic":…,"data":…}`. Valid JSON is embedded as it is; other valid UTF-8 becomes a JSON
/// string; anything else is base64 and says so.
fn message_push(topic: &Topic, payload: &[u8]) -> FrameBuilder {
    let mut json = FrameBuilder::new(48 + topic.as_str().len() + payload.len());
    // A topic's characters need no escaping in JSON (`topic.rs`).
    json.put(br#"{"op":"message","topic":""#);
    json.put(topic.as_str().as_bytes());
    json.put(br#"","data":"#);
    match simdutf8::basic::from_utf8(payload) {
        Ok(text) if is_json(text) => json.put(payload),
        Ok(text) => serde_json::to_writer(&mut json, text).expect("writing to memory cannot fail"),
        Err(_) => {
            json.put(b"\"");
            json.put(BASE64.encode(payload).as_bytes());
            json.put(br#"","encoding":"base64""#);
        }
    }
    json.put(b"}");
    json
}

/// Whether `text` is one JSON value (RFC 8259), at any depth: skipping a value does not recurse.
fn is_json(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{FrameLimits, FrameReader, Message, Received, Role};

    /// The text of the frame that carries `payload`.
    fn pushed(payload: &[u8]) -> String {
        let publication = Publication::new(Topic::parse("orders.42").unwrap(), payload.to_vec());
        let mut frame = publication.frame().to_vec();
        let limits = FrameLimits { message_bytes_max: 1 << 20, ..FrameLimits::default() };
        match FrameReader::new(Role::Client).next(&mut &mut frame[..], &limits) {
            Ok(Some(Received::Plain(Message::Text(text)))) => text.into_owned(),
            other => panic!("expected a text frame, found {other:?}"),
        }
    }

    #[test]
    fn json_is_embedded_byte_for_byte() {
        for payload in ["{\"total\":9}", " [1, 2 ]\n", "\"text\"", "-0.10e+5", "null", r#""\ud800""#] {
            assert_eq!(
                pushed(payload.as_bytes()),
                format!(r#"{{"op":"message","topic":"orders.42","data":{payload}}}"#)
            );
        }
    }

    #[test]
    fn other_text_becomes_a_json_string() {
        for payload in ["", "hello", "{\"total\":", "1 2", "say \"hi\"\u{7}\n", "NaN", "\u{feff}1"] {
            let push: serde_json::Value = serde_json::from_str(&pushed(payload.as_bytes())).unwrap();
            assert_eq!(push["data"], payload);
            assert!(push.get("encoding").is_none());
        }
    }

    #[test]
    fn other_bytes_become_base64_and_say_so() {
        assert!(pushed(&[0xff, 0x00]).ends_with(r#""data":"/wA=","encoding":"base64"}"#));
        // Broken UTF-8 inside a JSON string is not JSON.
        assert!(pushed(b"\"\xff\"").contains(r#""encoding":"base64""#));
    }

    #[test]
    fn a_deep_payload_is_no_danger() {
        let deep = "[".repeat(50_000) + &"]".repeat(50_000);
        assert!(pushed(deep.as_bytes()).contains("[[[["));
    }

    #[test]
    fn everyone_is_given_the_same_compressed_frame() {
        let publication =
            Publication::new(Topic::parse("a").unwrap(), "[0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0]");
        let (mut one, mut other) = (Deflater::default(), Deflater::default());
        let frame = publication.deflated_frame(&mut one).unwrap();
        assert_eq!(frame.as_ptr(), publication.deflated_frame(&mut other).unwrap().as_ptr());
        assert!(frame.len() < publication.frame().len());
        let short = Publication::new(Topic::parse("a").unwrap(), "1");
        assert_eq!(short.deflated_frame(&mut one), None);
    }

    #[test]
    fn everyone_is_given_the_same_frame() {
        let publication = Publication::new(Topic::parse("a").unwrap(), "1");
        assert_eq!(publication.frame().as_ptr(), publication.frame().as_ptr());
        assert_eq!(&publication.frame()[..], b"\x81\x25{\"op\":\"message\",\"topic\":\"a\",\"data\":1}");
    }
}
