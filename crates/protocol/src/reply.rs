//! What a client is told: replies to its commands, and pushes that it did not ask for.

use bytes::Bytes;
use serde::Serialize;

use crate::frame::{FrameBuilder, Opcode};
use crate::{CommandId, ErrorCode};

/// The answer to one command.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Reply<'a> {
    /// Answers `subscribe`, once every topic is confirmed by the broker or refused. Everything published to
    /// `topics` from here on will be delivered, or announced as a gap.
    Subscribed {
        /// The command's id.
        id: &'a CommandId,
        /// Subscribed now.
        topics: &'a [&'a str],
        /// Not subscribed, each with its reason. Left out where there are none.
        #[serde(skip_serializing_if = "<[_]>::is_empty")]
        refused: &'a [Refusal],
    },
    /// Answers `unsubscribe`: nothing more is delivered of these topics.
    Unsubscribed {
        /// The command's id.
        id: &'a CommandId,
        /// As named by the command.
        topics: &'a [&'a str],
    },
    /// Answers `publish`: the broker took it.
    Published {
        /// The command's id.
        id: &'a CommandId,
    },
    /// Answers `authenticate`.
    Authenticated {
        /// The command's id.
        id: &'a CommandId,
        /// How long the fresh token lasts, in milliseconds.
        expires_in_ms: u64,
    },
    /// Answers `ping`.
    Pong {
        /// The command's id.
        id: &'a CommandId,
    },
    /// The command was not carried out.
    Error {
        /// The command's id, where it could be read.
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a CommandId>,
        /// Why, for programs.
        code: ErrorCode,
        /// Why, for people.
        message: &'a str,
        /// Whether the same command can succeed later.
        retryable: bool,
    },
}

/// One topic that was not subscribed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// As the client named it; cut short where it is longer than any topic.
    pub topic: Box<str>,
    /// Why, for programs.
    pub code: ErrorCode,
    /// Why, for people.
    pub message: Box<str>,
}

/// What a client is told unasked, apart from messages ([`Publication`](crate::Publication)).
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Push<'a> {
    /// The first push of every connection.
    Welcome {
        /// Names the connection in logs.
        session: &'a str,
        /// Names the node in logs.
        node: &'a str,
        /// How often the node pings, in milliseconds.
        ping_interval_ms: u64,
        /// How long the token lasts, in milliseconds.
        expires_in_ms: u64,
    },
    /// Messages of this topic may have been missed; delivery works again.
    Gap {
        /// The topic concerned.
        topic: &'a str,
        /// Why.
        reason: GapReason,
        /// For how long, in milliseconds.
        lasted_ms: u64,
    },
    /// The token will expire and the connection be closed, unless a fresh one is given by `authenticate`.
    TokenExpiring {
        /// In how many milliseconds.
        in_ms: u64,
    },
    /// An operator ended these subscriptions: nothing more is delivered of these topics.
    Unsubscribed {
        /// The topics concerned.
        topics: &'a [&'a str],
    },
    /// The node will close this connection; the client should come back after this pause.
    Drain {
        /// The pause, in milliseconds from now.
        reconnect_in_ms: u64,
    },
}

/// Why messages may have been missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GapReason {
    /// The node's link to Redis was lost.
    BrokerLost,
    /// This client read too slowly. Said when a subscription is resumed; a live connection is closed with
    /// 4413 instead.
    SlowConsumer,
    /// The node took in more than it could pass on, or a payload larger than it accepts.
    Overload,
}

impl GapReason {
    /// Every reason, in the order of the documentation.
    pub const ALL: &[Self] = &[Self::BrokerLost, Self::SlowConsumer, Self::Overload];

    /// The reason on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::BrokerLost => "broker_lost",
            Self::SlowConsumer => "slow_consumer",
            Self::Overload => "overload",
        }
    }
}

impl Reply<'_> {
    /// An error reply; whether it can be tried again is a property of the code.
    pub fn error<'a>(id: Option<&'a CommandId>, code: ErrorCode, message: &'a str) -> Reply<'a> {
        Reply::Error { id, code, message, retryable: code.is_retryable() }
    }

    /// The reply as one text frame.
    pub fn frame(&self) -> Bytes {
        text_frame(self)
    }
}

impl Push<'_> {
    /// The push as one text frame.
    pub fn frame(&self) -> Bytes {
        text_frame(self)
    }
}

fn text_frame(message: &impl Serialize) -> Bytes {
    let mut frame = FrameBuilder::new(118);
    serde_json::to_writer(&mut frame, message).expect("replies and pushes have string keys and go to memory");
    frame.finish(Opcode::Text)
}
