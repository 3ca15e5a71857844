//! What a client asks for: one JSON object in one text message.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use crate::{ErrorCode, Topic};

/// The longest text a client may choose as a command's `id`, in bytes.
pub const COMMAND_ID_BYTES_MAX: usize = 64;

/// The longest advice in an error reply, in bytes. The JSON library repeats what it found, at any length.
const ADVICE_BYTES_MAX: usize = 256;

/// The client's own mark on a command, given back with its reply: an integer or a short text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum CommandId {
    /// An integer.
    Number(i64),
    /// A text of at most [`COMMAND_ID_BYTES_MAX`] bytes.
    Text(Box<str>),
}

/// A command, well formed but not yet allowed.
#[derive(Clone, Debug, PartialEq)]
pub enum Command<'a> {
    /// Deliver what is published to these topics. The names are checked one by one, later, so that one bad
    /// name does not spoil the others.
    Subscribe {
        /// Topic names as the client wrote them.
        topics: Vec<Cow<'a, str>>,
    },
    /// Deliver no more of these topics.
    Unsubscribe {
        /// Topic names as the client wrote them.
        topics: Vec<Cow<'a, str>>,
    },
    /// Publish to a topic.
    Publish {
        /// Where to.
        topic: Topic,
        /// The JSON text of `data`, byte for byte.
        data: &'a str,
    },
    /// A fresh token for this connection.
    Authenticate {
        /// The token.
        token: Cow<'a, str>,
    },
    /// Answer with a `pong`.
    Ping,
}

/// What a command asks for, without its particulars.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CommandOp {
    /// [`Command::Subscribe`]
    Subscribe,
    /// [`Command::Unsubscribe`]
    Unsubscribe,
    /// [`Command::Publish`]
    Publish,
    /// [`Command::Authenticate`]
    Authenticate,
    /// [`Command::Ping`]
    Ping,
}

impl CommandOp {
    /// Every op, in the order of the documentation.
    pub const ALL: &[Self] =
        &[Self::Subscribe, Self::Unsubscribe, Self::Publish, Self::Authenticate, Self::Ping];

    /// The op on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Subscribe => "subscribe",
            Self::Unsubscribe => "unsubscribe",
            Self::Publish => "publish",
            Self::Authenticate => "authenticate",
            Self::Ping => "ping",
        }
    }
}

/// Why a text is not a command: what the client is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandError {
    /// The command's `id`, where it could be read.
    pub id: Option<CommandId>,
    /// The code of the error reply.
    pub code: ErrorCode,
    /// What was wrong and what was expected.
    pub message: String,
}

/// Every field that any command has.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields<'a> {
    id: CommandId,
    #[serde(borrow)]
    op: Cow<'a, str>,
    #[serde(borrow)]
    topics: Option<Names<'a>>,
    #[serde(borrow)]
    topic: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "even_null")]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    token: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
#[serde(transparent)]
struct Names<'a>(#[serde(borrow)] Vec<Name<'a>>);

/// A `Cow` inside a `Vec` would be copied; inside a struct it is borrowed where the text has no escapes.
#[derive(Deserialize)]
#[serde(transparent)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'a> Command<'a> {
    /// Reads a command and its `id` from the text of one message.
    ///
    /// # Errors
    /// [`CommandError`] with `malformed`, `unknown_op` or (for a publish) `bad_topic`.
    pub fn parse(text: &'a str) -> Result<(CommandId, Self), CommandError> {
        // The library would take an array for an object, field by field.
        if !text.trim_start().starts_with('{') {
            return Err(malformed(None, &"a command is a JSON object"));
        }
        let fields: Fields<'a> =
            serde_json::from_str(text).map_err(|error| malformed(id_of(text), &error))?;
        let id = fields.id.clone();
        if matches!(&id, CommandId::Text(text) if text.len() > COMMAND_ID_BYTES_MAX) {
            return Err(malformed(None, &format!("`id` is longer than {COMMAND_ID_BYTES_MAX} bytes")));
        }
        let command = fields.command().map_err(|(code, message)| CommandError {
            id: Some(id.clone()),
            code,
            message,
        })?;
        Ok((id, command))
    }

    /// What it asks for.
    pub fn op(&self) -> CommandOp {
        match self {
            Self::Subscribe { .. } => CommandOp::Subscribe,
            Self::Unsubscribe { .. } => CommandOp::Unsubscribe,
            Self::Publish { .. } => CommandOp::Publish,
            Self::Authenticate { .. } => CommandOp::Authenticate,
            Self::Ping => CommandOp::Ping,
        }
    }
}

/// A field that is there with the value `null` is there.
fn even_null<'de, D: Deserializer<'de>>(value: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(value).map(Some)
}

type Fault = (ErrorCode, String);

impl<'a> Fields<'a> {
    fn command(mut self) -> Result<Command<'a>, Fault> {
        let op = std::mem::take(&mut self.op);
        let command = match &*op {
            "subscribe" => Command::Subscribe { topics: self.take_topics()? },
            "unsubscribe" => Command::Unsubscribe { topics: self.take_topics()? },
            "publish" => {
                let topic = self.topic.take().ok_or_else(|| missing("topic"))?;
                let data = self.data.take().ok_or_else(|| missing("data"))?;
                let topic = Topic::parse(&topic).map_err(|fault| (ErrorCode::BadTopic, fault.to_string()))?;
                Command::Publish { topic, data: data.get() }
            }
            "authenticate" => {
                Command::Authenticate { token: self.token.take().ok_or_else(|| missing("token"))? }
            }
            "ping" => Command::Ping,
            unknown => return Err((ErrorCode::UnknownOp, unknown_op(unknown))),
        };
        self.expect_nothing_left(&op)?;
        Ok(command)
    }

    fn take_topics(&mut self) -> Result<Vec<Cow<'a, str>>, Fault> {
        let Names(names) = self.topics.take().ok_or_else(|| missing("topics"))?;
        if names.is_empty() {
            return Err((ErrorCode::Malformed, "`topics` is empty".to_owned()));
        }
        Ok(names.into_iter().map(|Name(name)| name).collect())
    }

    /// A field that the command does not have is a mistake worth telling, not something to pass over.
    fn expect_nothing_left(&self, op: &str) -> Result<(), Fault> {
        let left = [
            ("topics", self.topics.is_some()),
            ("topic", self.topic.is_some()),
            ("data", self.data.is_some()),
            ("token", self.token.is_some()),
        ];
        match left.iter().find(|(_, is_left)| *is_left) {
            Some((field, _)) => Err((ErrorCode::Malformed, format!("`{op}` has no field `{field}`"))),
            None => Ok(()),
        }
    }
}

fn missing(field: &str) -> Fault {
    (ErrorCode::Malformed, format!("field `{field}` is missing"))
}

fn unknown_op(op: &str) -> String {
    let shown: String = op.chars().take(32).collect();
    format!("unknown op `{shown}`: expected subscribe, unsubscribe, publish, authenticate or ping")
}

fn malformed(id: Option<CommandId>, cause: &impl ToString) -> CommandError {
    let mut message = cause.to_string();
    message.truncate(message.floor_char_boundary(ADVICE_BYTES_MAX));
    CommandError { id, code: ErrorCode::Malformed, message }
}

/// The `id` of a text that is no command otherwise.
fn id_of(text: &str) -> Option<CommandId> {
    #[derive(Deserialize)]
    struct OnlyId {
        id: CommandId,
    }
    let OnlyId { id } = serde_json::from_str(text).ok()?;
    Some(id).filter(|id| !matches!(id, CommandId::Text(text) if text.len() > COMMAND_ID_BYTES_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> (Option<CommandId>, ErrorCode) {
        let error = Command::parse(text).expect_err(text);
        assert!(!error.message.is_empty());
        (error.id, error.code)
    }

    #[test]
    fn the_commands_of_the_protocol_are_read() {
        let topics = |names: &[&'static str]| names.iter().map(|name| Cow::Borrowed(*name)).collect();
        let chat = Topic::parse("chat.7").unwrap();
        for (text, expected) in [
            (
                r#"{"id":1,"op":"subscribe","topics":["orders.42","news"]}"#,
                Command::Subscribe { topics: topics(&["orders.42", "news"]) },
            ),
            (
                r#"{"op":"unsubscribe","topics":["news"],"id":1}"#,
                Command::Unsubscribe { topics: topics(&["news"]) },
            ),
            (
                r#"{"id":1,"op":"publish","topic":"chat.7","data":{"text": "hi"}}"#,
                Command::Publish { topic: chat.clone(), data: r#"{"text": "hi"}"# },
            ),
            (
                r#"{"id":1,"op":"publish","topic":"chat.7","data":null}"#,
                Command::Publish { topic: chat, data: "null" },
            ),
            (
                r#"{"id":1,"op":"authenticate","token":"a.b.c"}"#,
                Command::Authenticate { token: Cow::Borrowed("a.b.c") },
            ),
            (r#"{"id":1,"op":"ping"}"#, Command::Ping),
        ] {
            assert_eq!(Command::parse(text), Ok((CommandId::Number(1), expected)), "{text}");
        }
    }

    #[test]
    fn names_without_escapes_are_not_copied() {
        let Ok((_, Command::Subscribe { topics })) =
            Command::parse(r#"{"id":"x","op":"subscribe","topics":["a","\u0062"]}"#)
        else {
            panic!("a subscribe was expected")
        };
        assert!(matches!(topics[..], [Cow::Borrowed("a"), Cow::Owned(_)]));
    }

    #[test]
    fn a_bad_command_is_told_apart_by_its_id() {
        let seven = Some(CommandId::Number(7));
        for (text, expected) in [
            ("", (None, ErrorCode::Malformed)),
            ("[]", (None, ErrorCode::Malformed)),
            (r#"[7,"ping",null,null,null,null]"#, (None, ErrorCode::Malformed)),
            (r#"{"op":"ping"}"#, (None, ErrorCode::Malformed)),
            (r#"{"id":1.5,"op":"ping"}"#, (None, ErrorCode::Malformed)),
            (r#"{"id":7}"#, (seven.clone(), ErrorCode::Malformed)),
            (r#"{"id":7,"op":"ping","op":"ping"}"#, (seven.clone(), ErrorCode::Malformed)),
            (r#"{"id":7,"op":"ping","extra":1}"#, (seven.clone(), ErrorCode::Malformed)),
            (r#"{"id":7,"op":"ping","topic":"a"}"#, (seven.clone(), ErrorCode::Malformed)),
            (r#"{"id":7,"op":"subscribe"}"#, (seven.clone(), ErrorCode::Malformed)),
            (r#"{"id":7,"op":"subscribe","topics":[]}"#, (seven.clone(), ErrorCode::Malformed)),
            (r#"{"id":7,"op":"subscribe","topics":[1]}"#, (seven.clone(), ErrorCode::Malformed)),
            (r#"{"id":7,"op":"publish","topic":"a"}"#, (seven.clone(), ErrorCode::Malformed)),
            (r#"{"id":7,"op":"publish","topic":"a b","data":1}"#, (seven.clone(), ErrorCode::BadTopic)),
            (r#"{"id":7,"op":"Subscribe","topics":["a"]}"#, (seven, ErrorCode::UnknownOp)),
        ] {
            assert_eq!(fault(text), expected, "{text}");
        }
        let long = format!(r#"{{"id":"{}","op":"ping"}}"#, "x".repeat(65));
        assert_eq!(fault(&long), (None, ErrorCode::Malformed));
        let deep = format!(r#"{{"id":7,"op":"subscribe","topics":{}"#, "[".repeat(60_000));
        assert_eq!(fault(&deep).1, ErrorCode::Malformed);
    }

    #[test]
    fn a_long_mistake_is_not_sent_back_whole() {
        let text = format!(r#"{{"id":7,"op":"ping","{}":1}}"#, "é".repeat(30_000));
        let error = Command::parse(&text).unwrap_err();
        assert!((100..=ADVICE_BYTES_MAX).contains(&error.message.len()), "{} bytes", error.message.len());
    }
}
