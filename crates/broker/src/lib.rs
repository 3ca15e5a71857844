//! The link between nodes: Redis, or in-process for one node alone.
//!
//! Workers say which topics they want ([`Broker::change_interest`]); the broker puts what happens to those
//! topics into the worker's [`Inbox`], in order. Publishing goes the same way for everybody: through the
//! broker and back.
//!
//! This crate knows nothing of HTTP, clients or claims, and is the only one that names Redis.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use causeway_protocol::{Publication, Topic};
use futures_util::future::BoxFuture;

pub use embedded::EmbeddedBroker;
pub use inbox::Inbox;
pub use pulse::Pulse;
#[doc(hidden)]
pub use redis_broker::deliveries_of;
pub use redis_broker::{
    Asked, RedisBroker, RedisCheckup, RedisCheckupError, RedisConfig, RedisConfigError, Right,
};

mod embedded;
mod inbox;
mod interest;
mod pulse;
mod redis_broker;
#[cfg(test)]
mod seeds;
mod totals;
mod workers;

/// One worker of this node, as the broker numbers them: 0, 1, 2, … in the order of [`Broker::attach`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerId(pub u16);

/// A worker's change of mind about one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Interest {
    /// The worker wants the topic. Answered by [`Delivery::Live`] with the same ticket once the broker has
    /// the subscription confirmed, at once if it had it already. Asking again replaces the ticket.
    Want(Topic, Ticket),
    /// The worker wants it no more.
    Leave(Topic),
}

/// Tells the answer to a worker's latest [`Interest::Want`] from the answer to an earlier one that it has
/// since withdrawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket(pub u64);

/// What the broker tells a worker, in the order it came about.
#[derive(Clone, Debug)]
pub enum Delivery {
    /// A message on a topic the worker wants (or wanted until just now), and when the node received it.
    Publication(Arc<Publication>, Instant),
    /// The subscription is confirmed: everything published to the topic from here on will be delivered. After
    /// [`Delivery::LinkLost`] it also says that the topic works again.
    Live(Topic, Ticket),
    /// The link was lost, and what was published in the last `missing_for` may be missing. No topic is live
    /// until its next [`Delivery::Live`]. All workers are told, once for each loss, unless no topic was live on
    /// the whole node: then there is nothing to tell.
    LinkLost {
        /// How long before now everything had surely arrived for the last time. What was heard later says less:
        /// it may have waited on its way, and what came behind it is lost.
        missing_for: Duration,
    },
    /// Messages of this topic were dropped on this node, the first of them `since` ago, because the worker's
    /// inbox was full or a payload was larger than the node accepts; or they went unheard because the topic was
    /// live before the link was lost and is refused by the broker now.
    Dropped {
        /// The topic that lost messages.
        topic: Topic,
        /// How many, as far as that is known: those that went unheard are not counted.
        messages: u64,
        /// How long before now the first message was dropped.
        since: Duration,
    },
}

/// The link to the other nodes.
///
/// No method waits: what takes time happens on the broker's own thread. A lock may be taken, for as long as it
/// takes to put one message into a few inboxes.
pub trait Broker: Send + Sync + fmt::Debug + 'static {
    /// Makes a worker known. Whatever concerns its topics is put into `inbox` from now on.
    fn attach(&self, inbox: Arc<Inbox>) -> WorkerId;

    /// Takes note of a worker's change of interest. Changes to one topic that follow each other quickly may
    /// be merged; the last one holds.
    fn change_interest(&self, worker: WorkerId, change: Interest);

    /// Publishes `payload` to `topic`. Publishes are carried out in the order of the calls, except around one that
    /// failed as [`PublishError::Unavailable`]: it may be on its way still, and be carried out behind later ones.
    ///
    /// Calling enqueues at once; the future only waits for the outcome and may be dropped. It is to be polled
    /// within a tokio runtime that has its timer, because it keeps its own deadline.
    ///
    /// # Errors
    /// The future yields a [`PublishError`] when the broker did not confirm in time, or could not take more.
    fn publish(&self, topic: Topic, payload: Bytes) -> BoxFuture<'static, Result<(), PublishError>>;

    /// Appends `entry` to the log of this name, for nodes that come later or were away: topics forget, a log keeps
    /// its last [`LOG_ENTRIES_MAX`] entries for as long as the broker has a memory. In order with publishes.
    ///
    /// # Errors
    /// As [`publish`](Self::publish), and like it the call enqueues at once.
    fn append(&self, log: &Topic, entry: Bytes) -> BoxFuture<'static, Result<(), PublishError>>;

    /// Reads entries of a log, oldest first: those behind `after`, or from the beginning, but only so many at once.
    /// Where there are none, there are no more.
    ///
    /// # Errors
    /// As [`publish`](Self::publish).
    fn read_log(
        &self,
        log: &Topic,
        after: Option<&LogPlace>,
    ) -> BoxFuture<'static, Result<Vec<(LogPlace, Bytes)>, PublishError>>;

    /// What is known of the link right now.
    fn link(&self) -> LinkReport;
}

/// How many entries a log keeps.
pub const LOG_ENTRIES_MAX: usize = 50_000;

/// How many entries of a log are read at once.
const LOG_PAGE: usize = 500;

/// The place of an entry in its log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogPlace {
    major: u64,
    minor: u64,
}

impl dyn Broker {
    /// Listens to one topic, apart from all workers: what concerns it is put into the inbox, which takes at most
    /// `bytes_max` bytes (see [`Inbox::new`]). For what a node says to itself and to other nodes.
    pub fn listen(&self, topic: &Topic, bytes_max: usize) -> Arc<Inbox> {
        let inbox = Arc::new(Inbox::new(bytes_max));
        let ear = self.attach(Arc::clone(&inbox));
        self.change_interest(ear, Interest::Want(topic.clone(), Ticket(0)));
        inbox
    }
}

/// Why a publish was not confirmed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// No link, or no answer before the deadline. The message may have been published all the same; trying
    /// again can help and can duplicate.
    #[error("the broker did not confirm the publish in time")]
    Unavailable,
    /// Too many publishes wait already; this one was not attempted. Trying again later can help.
    #[error("too many publishes are waiting for the broker")]
    Busy,
    /// The broker answered with a refusal (for instance its access rules). Trying again cannot help.
    #[error("the broker refused the publish: {0}")]
    Refused(String),
}

/// The state of the link and its running totals since the process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkReport {
    /// Whether the link is up: connected, and heard from within the last few seconds.
    pub up: bool,
    /// How often the link was established again after it had been lost.
    pub reconnects: u64,
    /// For how long the broker's own thread has not come round to its work; the embedded broker has none.
    pub stuck_for: Duration,
    /// Topics this node is subscribed to, or trying to be; reserved ones are among them.
    pub topics: u64,
    /// Messages that arrived for this node's topics, reserved ones left out.
    pub messages_received: u64,
    /// Their payload bytes.
    pub bytes_received: u64,
    /// Messages dropped because an inbox was full, once per worker concerned.
    pub dropped_overload: u64,
    /// Messages dropped because their payload was larger than the node accepts.
    pub dropped_too_large: u64,
}
