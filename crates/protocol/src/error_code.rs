//! Why a command was refused: one table of error codes.

macro_rules! error_codes {
    ($($variant:ident = $name:literal, $retryable:literal, $when:literal;)+) => {
        /// Why a command, or one topic of it, was refused. The connection goes on.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
        pub enum ErrorCode {
            $(#[doc = $when] #[serde(rename = $name)] $variant,)+
        }

        impl ErrorCode {
            /// Every code, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The code on the wire.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// Whether the same command can succeed later.
            pub fn is_retryable(self) -> bool {
                match self { $(Self::$variant => $retryable,)+ }
            }

            /// When it is sent.
            pub fn when(self) -> &'static str {
                match self { $(Self::$variant => $when,)+ }
            }
        }
    };
}

error_codes! {
    Malformed = "malformed", false, "The message is not a JSON object with the fields its `op` needs and no others.";
    UnknownOp = "unknown_op", false, "There is no such `op`.";
    BadTopic = "bad_topic", false, "The name is not a legal topic.";
    Forbidden = "forbidden", false, "The token does not grant this topic.";
    Unauthenticated = "unauthenticated", false, "The token given to `authenticate` was refused, or is another subject's.";
    LimitExceeded = "limit_exceeded", false, "The connection would have more topics than `limits.topics_per_connection`, or name more than twice as many in one go.";
    TooFast = "too_fast", true, "More commands than `limits.commands_per_second` allows. The command was not carried out.";
    TooLarge = "too_large", false, "The data is longer than `limits.message_bytes`.";
    BrokerUnavailable = "broker_unavailable", true, "The broker did not confirm in time. A publish may have been carried out all the same.";
    Internal = "internal", true, "The node failed.";
}
