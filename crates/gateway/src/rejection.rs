//! Every refusal over HTTP: its status, its code for programs, its words for people.
//!
//! What a client hears here is stable and short. Why exactly, with causes, is for the log.

use std::time::Duration;

use actix_http::StatusCode;
use causeway_broker::PublishError;
use causeway_protocol::TopicError;
use serde::Serialize;

use crate::revocation::RevokeError;
use crate::token::TokenError;

/// Why a request was refused.
#[derive(Debug, thiserror::Error)]
pub enum Rejection {
    /// The node is about to stop.
    #[error("the node is being drained")]
    Draining,
    /// The node has as many connections as it may have.
    #[error("the node is full")]
    NodeFull,
    /// This client address upgrades too often.
    #[error("too many upgrades from this address")]
    TooManyUpgrades {
        /// When the next one would be let in.
        retry_after: Duration,
    },
    /// This client address has as many connections as it may have.
    #[error("too many connections from this address")]
    TooManyConnections,
    /// The page's origin is not on the list.
    #[error("this origin is not allowed")]
    OriginNotAllowed,
    /// The upgrade breaks RFC 6455 §4.2.1.
    #[error("bad WebSocket handshake: {0}")]
    BadHandshake(&'static str),
    /// The client speaks another version of the protocol (RFC 6455 §4.4).
    #[error("only WebSocket version 13 is spoken here")]
    UnsupportedVersion,
    /// The client offers only subprotocols that are not spoken here.
    #[error("none of the offered subprotocols is spoken here: expected causeway.v1")]
    UnknownSubprotocol,
    /// No token, or one that proves nothing.
    #[error("{0}")]
    Unauthenticated(#[from] TokenError),
    /// The token does not grant the topic.
    #[error("the token does not grant this topic")]
    Forbidden,
    /// The path does not end in a topic.
    #[error("{0}")]
    BadTopic(#[from] TopicError),
    /// The topic in the path is not text.
    #[error("the topic is not UTF-8")]
    UnreadableTopic,
    /// More payload than a message may have.
    #[error("the payload is longer than {0} bytes")]
    TooLarge(usize),
    /// The payload did not arrive whole.
    #[error("the payload could not be read")]
    UnreadablePayload,
    /// The broker did not confirm.
    #[error("the broker did not confirm in time")]
    BrokerUnavailable,
    /// The broker refused.
    #[error("the broker refused")]
    BrokerRefused,
    /// There is nothing here.
    #[error("there is nothing at this path")]
    NotFound,
    /// Whoever acts on the admin listener must present its token.
    #[error("acting here needs the token of the configuration: Authorization: Bearer")]
    AdminTokenNeeded,
    /// Nobody may act on the admin listener like this.
    #[error("{0}")]
    AdminForbidden(&'static str),
    /// What the admin listener is asked makes no sense.
    #[error("{0}")]
    BadQuestion(String),
    /// As many tokens are revoked as can be.
    #[error("{0}")]
    TooManyRevocations(RevokeError),
    /// As many operators look at the node as can.
    #[error("{0} live feeds are open, and there can be no more")]
    TooManyFeeds(usize),
    /// The configuration cannot be reloaded.
    #[error("nothing has changed: {0}")]
    BadConfiguration(String),
    /// There is something here, but not for this method.
    #[error("this path does not take that method")]
    MethodNotAllowed,
}

/// The body of every refusal.
#[derive(Serialize)]
struct Body<'a> {
    code: &'a str,
    message: &'a str,
}

impl Rejection {
    /// The codes with which an upgrade can be refused.
    pub const UPGRADE_CODES: &[&str] = &[
        "draining",
        "node_full",
        "too_many_upgrades",
        "too_many_connections",
        "origin_not_allowed",
        "bad_handshake",
        "unsupported_version",
        "unknown_subprotocol",
        "unauthenticated",
        "not_found",
    ];

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Draining | Self::NodeFull | Self::BrokerUnavailable | Self::TooManyFeeds(_) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::TooManyUpgrades { .. } | Self::TooManyConnections => StatusCode::TOO_MANY_REQUESTS,
            Self::OriginNotAllowed | Self::Forbidden | Self::AdminForbidden(_) => StatusCode::FORBIDDEN,
            Self::BadHandshake(_)
            | Self::UnknownSubprotocol
            | Self::BadTopic(_)
            | Self::UnreadableTopic
            | Self::BadQuestion(_)
            | Self::UnreadablePayload => StatusCode::BAD_REQUEST,
            Self::UnsupportedVersion => StatusCode::UPGRADE_REQUIRED,
            Self::Unauthenticated(_) | Self::AdminTokenNeeded => StatusCode::UNAUTHORIZED,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BrokerRefused => StatusCode::BAD_GATEWAY,
            Self::BadConfiguration(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::TooManyRevocations(_) => StatusCode::CONFLICT,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        }
    }

    /// The code for programs; also the `reason` label of the metric.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Draining => "draining",
            Self::NodeFull => "node_full",
            Self::TooManyUpgrades { .. } => "too_many_upgrades",
            Self::TooManyConnections => "too_many_connections",
            Self::OriginNotAllowed => "origin_not_allowed",
            Self::BadHandshake(_) => "bad_handshake",
            Self::UnsupportedVersion => "unsupported_version",
            Self::UnknownSubprotocol => "unknown_subprotocol",
            Self::Unauthenticated(_) | Self::AdminTokenNeeded => "unauthenticated",
            Self::Forbidden | Self::AdminForbidden(_) => "forbidden",
            Self::BadTopic(_) | Self::UnreadableTopic => "bad_topic",
            Self::TooLarge(_) => "too_large",
            Self::UnreadablePayload | Self::BadQuestion(_) => "malformed",
            Self::BrokerUnavailable => "broker_unavailable",
            Self::BrokerRefused => "broker_refused",
            Self::TooManyRevocations(_) | Self::TooManyFeeds(_) => "limit_exceeded",
            Self::BadConfiguration(_) => "bad_configuration",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
        }
    }

    /// Why, more exactly where there is more to say; a closed set.
    pub(crate) fn cause(&self) -> &'static str {
        match self {
            Self::Unauthenticated(error) => error.cause(),
            other => other.code(),
        }
    }

    /// The header that the status calls for, if it calls for one.
    pub fn header(&self) -> Option<(&'static str, String)> {
        let retry_after =
            |pause: Duration| Some(("retry-after", pause.as_secs_f64().ceil().max(1.0).to_string()));
        match self {
            Self::Draining => retry_after(Duration::from_secs(1)),
            Self::NodeFull | Self::BrokerUnavailable | Self::TooManyConnections | Self::TooManyFeeds(_) => {
                retry_after(Duration::from_secs(5))
            }
            Self::TooManyUpgrades { retry_after: pause } => retry_after(*pause),
            Self::UnsupportedVersion => Some(("sec-websocket-version", "13".to_owned())),
            Self::Unauthenticated(_) | Self::AdminTokenNeeded => {
                Some(("www-authenticate", "Bearer".to_owned()))
            }
            _ => None,
        }
    }

    /// The body, `{"code","message"}`.
    pub fn json(&self) -> String {
        let message = self.to_string();
        serde_json::to_string(&Body { code: self.code(), message: &message }).expect("two strings are JSON")
    }

    /// The whole answer, for a socket that HTTP machinery no longer serves.
    pub(crate) fn http1(&self) -> Vec<u8> {
        let (status, body) = (self.status(), self.json());
        let header = self.header().map_or(String::new(), |(name, value)| format!("{name}: {value}\r\n"));
        format!(
            "HTTP/1.1 {} {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n{header}connection: close\r\n\r\n{body}",
            status.as_str(),
            status.canonical_reason().unwrap_or_default(),
            body.len(),
        )
        .into_bytes()
    }
}

impl From<RevokeError> for Rejection {
    fn from(error: RevokeError) -> Self {
        match error {
            RevokeError::Unclear(_) => Self::BadQuestion(error.to_string()),
            RevokeError::Full => Self::TooManyRevocations(error),
            RevokeError::Broker(error) => error.into(),
        }
    }
}

/// Of what operators want to be told to all nodes.
impl From<PublishError> for Rejection {
    fn from(error: PublishError) -> Self {
        match error {
            PublishError::Refused(cause) => {
                tracing::error!(cause, "Redis does not let this node tell the others");
                Self::BrokerRefused
            }
            PublishError::Unavailable | PublishError::Busy => Self::BrokerUnavailable,
        }
    }
}

impl actix_web::ResponseError for Rejection {
    fn status_code(&self) -> StatusCode {
        self.status()
    }

    fn error_response(&self) -> actix_web::HttpResponse {
        let mut response = actix_web::HttpResponse::build(self.status());
        if let Some(header) = self.header() {
            response.insert_header(header);
        }
        response.content_type("application/json").body(self.json())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_to_do_next() {
        let rejection = Rejection::TooManyUpgrades { retry_after: Duration::from_millis(1200) };
        let answer = String::from_utf8(rejection.http1()).unwrap();
        assert!(answer.starts_with("HTTP/1.1 429 Too Many Requests\r\n"), "{answer}");
        assert!(answer.contains("\r\nretry-after: 2\r\n"), "{answer}");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}", body.len())));
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["code"], "too_many_upgrades");
        assert_eq!(body["message"], "too many upgrades from this address");
    }
}
