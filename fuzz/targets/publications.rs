//! Publications: whatever was published, the frame is good JSON that says it and nothing else.
#![cfg_attr(fuzzing, no_main)]

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use causeway_protocol::frame::{FrameLimits, FrameReader, Message, Received, Role};
use causeway_protocol::{Publication, Topic};
use serde_json::value::RawValue;

/// The input is a payload.
pub(crate) fn check(input: &[u8]) {
    let publication = Publication::new(Topic::parse("orders.42").expect("a legal topic"), input.to_vec());
    let push = text_of(publication.frame());
    let members: BTreeMap<&str, &RawValue> = serde_json::from_str(&push).expect("a push is a JSON object");
    let member = |name: &str| members.get(name).map_or("", |value| value.get());
    assert_eq!((member("op"), member("topic")), (r#""message""#, r#""orders.42""#));

    let data = member("data");
    let payload = str::from_utf8(input);
    match payload {
        Ok(text) if serde_json::from_str::<&RawValue>(text).is_ok() => {
            assert_eq!(data, text.trim_matches(SPACE));
        }
        Ok(text) => assert_eq!(serde_json::from_str::<String>(data).expect("a string"), text),
        Err(_) => assert_eq!(STANDARD.decode(data.trim_matches('"')).expect("base64"), input),
    }
    assert_eq!(member("encoding"), if payload.is_err() { r#""base64""# } else { "" });
    assert_eq!(members.len(), if payload.is_err() { 4 } else { 3 });
}

/// What JSON allows around a value (RFC 8259 §2).
const SPACE: [char; 4] = [' ', '\t', '\r', '\n'];

fn text_of(frame: &[u8]) -> String {
    let limits = FrameLimits { message_bytes_max: usize::MAX, ..FrameLimits::default() };
    match FrameReader::new(Role::Client).next(&mut &mut frame.to_vec()[..], &limits) {
        Ok(Some(Received::Plain(Message::Text(text)))) => text.into_owned(),
        other => panic!("expected one text frame, found {other:?}"),
    }
}

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|input: &[u8]| check(input));
