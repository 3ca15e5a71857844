//! One worker's topics, sessions and outboxes: what is owed to whom.
//!
//! A [`Hub`] belongs to one thread and is plain data: it knows no socket, no Redis, no task, no lock and no
//! clock. Time comes in as a [`Moment`]; what must happen outside comes out as values ([`InterestChange`],
//! [`Request`], the sessions that want attention). So everything hard is decided here, and can be tested
//! without waiting for anything.
//!
//! A session lives from [`Hub::connect`] to [`Hub::disconnect`]. In between its connection reports what it
//! heard ([`Hub::heard`], [`Hub::command`]) and what it could write ([`Hub::wrote`], [`Hub::blocked`]), the
//! broker's side reports what came in ([`Hub::publish`], [`Hub::topic_live`], [`Hub::link_lost`],
//! [`Hub::topic_dropped`]), and [`Hub::tick`] lets time pass.

mod counters;
mod deadlines;
mod heavy_hitters;
mod hub;
mod limits;
mod listed;
mod moment;
mod outbox;
mod pending;
mod policy;
mod rate;
mod session;
mod topics;
mod traffic;

pub use counters::{ClassCounts, CommandCounts, GapCounts, HubCounters, HubGauges, LatencyCounts};
pub use hub::{Ended, Fate, Hub, InterestChange, PublishOutcome, Request, SessionFacts, TopicFacts};
pub use limits::HubLimits;
pub use moment::Moment;
pub use outbox::Outbox;
pub use policy::{Grants, Policy, PublishPermit, SubscribePermit, TokenMark};
pub use session::SessionKey;
