//! How connections end: one table of close codes.
//!
//! The reconnect column is what a client should do; a client that knows a code's range only may go by it:
//! 4400–4499 is the client's doing, 4500–4599 the node's.

/// What a client should do after its connection was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reconnect {
    /// At the time a `drain` push named, otherwise at once; then with growing, jittered pauses.
    Soon,
    /// After a pause of at least a second, growing and jittered.
    Later,
    /// With a fresh token only.
    WithFreshToken,
    /// Not at all: the same would happen again.
    No,
}

impl Reconnect {
    /// The advice in words, as the documentation prints it.
    pub fn advice(self) -> &'static str {
        match self {
            Self::Soon => "yes: when `drain` said, otherwise at once, then with growing jittered pauses",
            Self::Later => "yes: after at least a second, with growing jittered pauses",
            Self::WithFreshToken => "yes: with a fresh token",
            Self::No => "no: the same would happen again",
        }
    }
}

macro_rules! close_codes {
    ($($variant:ident = $code:literal, $name:literal, $reconnect:ident, $when:literal;)+) => {
        /// Why a connection was closed, as its close frame says (RFC 6455 §7.4).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u16)]
        pub enum CloseCode {
            $(#[doc = $when] $variant = $code,)+
        }

        impl CloseCode {
            /// Every code of the protocol, in ascending order.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The short name that a close frame carries as its reason.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// When it is sent.
            pub fn when(self) -> &'static str {
                match self { $(Self::$variant => $when,)+ }
            }

            /// What the client should do next.
            pub fn reconnect(self) -> Reconnect {
                match self { $(Self::$variant => Reconnect::$reconnect,)+ }
            }
        }
    };
}

close_codes! {
    Normal = 1000, "normal closure", No, "The client closed, with this code or with none.";
    GoingAway = 1001, "going away", No, "The client closed because its page is going away.";
    ProtocolError = 1002, "protocol error", No, "The client broke the framing rules of RFC 6455.";
    UnsupportedData = 1003, "text frames only", No, "The client sent a binary message.";
    InvalidPayload = 1007, "invalid payload", No, "The client sent text that is not UTF-8, or a compressed message that cannot be inflated.";
    PolicyViolation = 1008, "policy violation", No, "The client sent a message in too many fragments.";
    MessageTooBig = 1009, "message too big", No, "The client sent a message longer than `limits.message_bytes`.";
    InternalError = 1011, "internal error", Later, "Not sent yet: kept for a failure of the node.";
    ServiceRestart = 1012, "service restart", Soon, "The node stops, other nodes have more room, or an operator ended the connection.";
    TokenExpired = 4401, "token expired or revoked", WithFreshToken, "The token expired before a fresh one was given, was revoked, or an operator asks for a fresh one.";
    NoLongerAllowed = 4403, "no longer allowed", No, "A fresh token does not grant a topic that the connection has, or an operator ended the connection.";
    PongTimeout = 4408, "no pong in time", Soon, "The client did not answer a ping within `heartbeat.pong_timeout`.";
    SlowConsumer = 4413, "slow consumer", Later, "The client read too slowly: more than `limits.outbox_bytes` waited for it, or nothing could be written for 5 s.";
    TooManyCommands = 4429, "too many commands", Later, "The client went on sending after its commands were refused as `too_fast`.";
    Overloaded = 4503, "node overloaded", Later, "Not sent yet: kept for a node that must shed load.";
}

impl CloseCode {
    /// The number on the wire.
    pub fn code(self) -> u16 {
        self as u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_fits_a_control_frame_and_a_code_may_be_sent() {
        for code in CloseCode::ALL {
            assert!(code.name().len() <= 123);
            assert!(matches!(code.code(), 1000..=1003 | 1007..=1014 | 4000..=4999));
        }
        assert!(CloseCode::ALL.is_sorted_by_key(|code| code.code()));
    }
}
