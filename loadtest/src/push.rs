//! What the gateway says, as far as the load tester has to understand it.
//!
//! Read with a JSON parser and therefore slow; the messages of a run are recognised by `stamp.rs` before it
//! comes to this.

use std::time::Duration;

use serde::Deserialize;
use serde::de::IgnoredAny;

/// One text from the gateway.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Push {
    /// The connection is ready for commands.
    Welcome,
    /// A subscribe was answered and every topic granted.
    Subscribed,
    /// Something may have been missed, and the gateway admits it.
    Gap,
    /// A ping command was answered.
    Pong,
    /// The gateway will close the connection and asks to come back after this pause.
    Drain(Duration),
    /// A command was refused in whole or in part: the text itself, for people.
    Refused(String),
    /// Anything else.
    Other,
}

#[derive(Deserialize)]
struct Fields<'a> {
    op: &'a str,
    #[serde(default)]
    refused: Vec<IgnoredAny>,
    #[serde(default)]
    reconnect_in_ms: u64,
}

impl Push {
    /// Reads `text`. What is no push at all is [`Push::Other`].
    pub(crate) fn parse(text: &str) -> Self {
        let Ok(fields) = serde_json::from_str::<Fields<'_>>(text) else { return Self::Other };
        match fields.op {
            "welcome" => Self::Welcome,
            "subscribed" if fields.refused.is_empty() => Self::Subscribed,
            "subscribed" | "error" => Self::Refused(text.to_owned()),
            "gap" => Self::Gap,
            "pong" => Self::Pong,
            "drain" => Self::Drain(Duration::from_millis(fields.reconnect_in_ms)),
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use causeway_protocol::frame::{FrameLimits, FrameReader, Message, Received, Role};
    use causeway_protocol::{GapReason, Push as Sent};

    use super::*;

    #[test]
    fn what_the_protocol_sends_is_understood() {
        let welcome = Sent::Welcome { session: "s", node: "n", ping_interval_ms: 1, expires_in_ms: 2 };
        let gap = Sent::Gap { topic: "t", reason: GapReason::Overload, lasted_ms: 3 };
        let drain = Sent::Drain { reconnect_in_ms: 4 };
        for (sent, understood) in
            [(welcome, Push::Welcome), (gap, Push::Gap), (drain, Push::Drain(Duration::from_millis(4)))]
        {
            let mut frame = sent.frame().to_vec();
            let mut reader = FrameReader::new(Role::Client);
            let Ok(Some(Received::Plain(Message::Text(text)))) =
                reader.next(&mut &mut frame[..], &FrameLimits::default())
            else {
                panic!("not a text frame");
            };
            assert_eq!(Push::parse(&text), understood);
        }
    }

    #[test]
    fn a_subscription_granted_in_part_is_refused() {
        let granted = r#"{"op":"subscribed","id":1,"topics":["a"]}"#;
        assert_eq!(Push::parse(granted), Push::Subscribed);
        let refused =
            r#"{"op":"subscribed","id":1,"topics":[],"refused":[{"topic":"a","code":"forbidden"}]}"#;
        assert_eq!(Push::parse(refused), Push::Refused(refused.to_owned()));
    }
}
