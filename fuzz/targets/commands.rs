//! Commands: what is read is what JSON says, and what is refused is told in a short reply of good JSON.
#![cfg_attr(fuzzing, no_main)]

use causeway_protocol::{COMMAND_ID_BYTES_MAX, Command, CommandId, ErrorCode, Reply};
use serde_json::Value;
use serde_json::value::RawValue;

/// What the client wrote is not sent back at any length.
const ADVICE_BYTES_MAX: usize = 256;

/// The input is the text of a message.
pub(crate) fn check(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else { return };
    match Command::parse(text) {
        Ok((id, command)) => {
            check_id(&id);
            check_command(text, &id, &command);
        }
        Err(error) => {
            if let Some(id) = &error.id {
                check_id(id);
            }
            assert!(matches!(error.code, ErrorCode::Malformed | ErrorCode::UnknownOp | ErrorCode::BadTopic));
            assert!((1..=ADVICE_BYTES_MAX).contains(&error.message.len()), "{} bytes", error.message.len());
            let reply = Reply::Error {
                id: error.id.as_ref(),
                code: error.code,
                message: &error.message,
                retryable: false,
            };
            let reply = serde_json::to_string(&reply).expect("a reply is JSON");
            let told: Value = serde_json::from_str(&reply).expect("a reply is good JSON");
            assert_eq!(told["message"], error.message);
            assert!(!reply.contains(['\r', '\n', '\u{1b}']), "it stays on its line");
        }
    }
}

fn check_id(id: &CommandId) {
    assert!(!matches!(id, CommandId::Text(text) if text.len() > COMMAND_ID_BYTES_MAX));
}

/// Against another reading of the same text, where that one can read it: it takes no lone surrogates, and no
/// more than 128 levels.
fn check_command(text: &str, id: &CommandId, command: &Command<'_>) {
    if let Command::Publish { data, .. } = command {
        let again = serde_json::from_str::<&RawValue>(data).expect("data is a JSON value");
        assert_eq!(again.get(), *data, "and nothing besides");
        assert!(text.contains(data), "byte for byte");
    }
    let Ok(value) = serde_json::from_str::<Value>(text) else { return };
    assert_eq!(value["id"], serde_json::to_value(id).expect("an id is JSON"));
    let (op, members) = match command {
        Command::Subscribe { topics } => {
            assert!(!topics.is_empty());
            assert_eq!(value["topics"], serde_json::json!(topics));
            ("subscribe", 3)
        }
        Command::Unsubscribe { topics } => {
            assert!(!topics.is_empty());
            assert_eq!(value["topics"], serde_json::json!(topics));
            ("unsubscribe", 3)
        }
        Command::Publish { topic, .. } => {
            assert_eq!(value["topic"], topic.as_str());
            ("publish", 4)
        }
        Command::Authenticate { token } => {
            assert_eq!(value["token"], **token);
            ("authenticate", 3)
        }
        Command::Ping => ("ping", 2),
    };
    assert_eq!(value["op"], op);
    // A field that the command does not have may be there as `null`.
    let given = value.as_object().expect("a command is an object").values().filter(|value| !value.is_null());
    assert!(given.count() <= members, "nothing that was given is passed over");
}

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|input: &[u8]| check(input));
