//! What clients, gateways and nodes say to each other: topics and patterns, commands and replies, pushes and
//! publications, close codes, and the frames that carry them.
//!
//! Pure functions and limits: nothing here waits, reads a clock, opens a socket, or knows of Redis or tokens.
//!
//! # A conversation
//!
//! The server's side of one short connection, from the welcome to the drain:
//!
//! ```
//! use causeway_protocol::frame::{self, FrameLimits, FrameReader, Message, Opcode, Received, Role};
//! use causeway_protocol::{CloseCode, Command, GapReason, Publication, Push, Reply, Topic};
//!
//! /// What a client reads from a frame that the server wrote.
//! fn client_reads(frame: &[u8]) -> String {
//!     let mut bytes = frame.to_vec();
//!     match FrameReader::new(Role::Client).next(&mut &mut bytes[..], &FrameLimits::default()) {
//!         Ok(Some(Received::Plain(Message::Text(text)))) => text.into_owned(),
//!         other => panic!("expected a text frame, found {other:?}"),
//!     }
//! }
//!
//! // The connection opens.
//! let welcome = Push::Welcome { session: "s1", node: "a", ping_interval_ms: 25_000, expires_in_ms: 60_000 };
//! assert_eq!(
//!     client_reads(&welcome.frame()),
//!     r#"{"op":"welcome","session":"s1","node":"a","ping_interval_ms":25000,"expires_in_ms":60000}"#,
//! );
//!
//! // The client subscribes. Its frames are masked; two pieces of one frame make one message.
//! let mut sent = frame::masked(
//!     Opcode::Text,
//!     br#"{"id":1,"op":"subscribe","topics":["orders.42"]}"#,
//!     [1, 2, 3, 4],
//! );
//! let (first, second) = sent.split_at_mut(9);
//! let mut reader = FrameReader::new(Role::Server);
//! let limits = FrameLimits::default();
//! assert_eq!(reader.next(&mut &mut *first, &limits), Ok(None));
//! let Ok(Some(Received::Plain(Message::Text(text)))) = reader.next(&mut &mut *second, &limits) else { panic!() };
//! let (id, command) = Command::parse(&text).unwrap();
//! let Command::Subscribe { topics } = command else { panic!() };
//! assert_eq!(topics, ["orders.42"]);
//! let reply = Reply::Subscribed { id: &id, topics: &["orders.42"], refused: &[] };
//! assert_eq!(client_reads(&reply.frame()), r#"{"op":"subscribed","id":1,"topics":["orders.42"]}"#);
//!
//! // A service runs PUBLISH orders.42 '{"total":9}'. Every subscriber is sent these same bytes.
//! let publication = Publication::new(Topic::parse("orders.42").unwrap(), r#"{"total":9}"#);
//! assert_eq!(
//!     client_reads(publication.frame()),
//!     r#"{"op":"message","topic":"orders.42","data":{"total":9}}"#,
//! );
//!
//! // Redis was away for a while.
//! let gap = Push::Gap { topic: "orders.42", reason: GapReason::BrokerLost, lasted_ms: 2140 };
//! assert_eq!(
//!     client_reads(&gap.frame()),
//!     r#"{"op":"gap","topic":"orders.42","reason":"broker_lost","lasted_ms":2140}"#,
//! );
//!
//! // A bad command harms nobody.
//! let error = Command::parse(r#"{"id":2,"op":"dance"}"#).unwrap_err();
//! assert_eq!(error.code.name(), "unknown_op");
//!
//! // The node is drained: the client is told when to come back, then closed with 1012.
//! assert_eq!(client_reads(&Push::Drain { reconnect_in_ms: 1830 }.frame()), r#"{"op":"drain","reconnect_in_ms":1830}"#);
//! let mut close = frame::close(CloseCode::ServiceRestart).to_vec();
//! let mut reader = FrameReader::new(Role::Client);
//! assert_eq!(reader.next(&mut &mut close[..], &limits), Ok(Some(Received::Plain(Message::Close(Some(1012))))));
//! ```

pub mod frame;

mod close;
mod command;
mod error_code;
mod pattern;
mod publication;
mod reply;
mod topic;

pub use close::{CloseCode, Reconnect};
pub use command::{COMMAND_ID_BYTES_MAX, Command, CommandError, CommandId, CommandOp};
pub use error_code::ErrorCode;
pub use pattern::{Pattern, PatternError};
pub use publication::Publication;
pub use reply::{GapReason, Push, Refusal, Reply};
pub use topic::{TOPIC_BYTES_MAX, Topic, TopicError};

/// The WebSocket subprotocol this crate speaks (RFC 6455 §1.9).
pub const SUBPROTOCOL: &str = "causeway.v1";
