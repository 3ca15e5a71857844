//! The publish lane: from a bounded queue to Redis, in the order of the calls. What is appended to a log or read
//! from it goes the same way.
//!
//! Whatever has gathered while the last batch was on its way goes as one pipeline, so the slower Redis answers
//! the larger the batches get. There is one batch on its way at a time: that is what keeps the order.
//!
//! A publish is answered at its deadline at the latest, by its own future. One that has waited in the queue for
//! that long is not sent any more; one that was sent may be carried out though its caller was told otherwise,
//! which nobody can prevent.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use causeway_protocol::Topic;
use deadpool_redis::{Connection, Manager, Pool};
use futures_util::future::{self, BoxFuture};
use futures_util::{FutureExt, TryFutureExt};
use redis::aio::ConnectionLike;
use redis::{AsyncConnectionConfig, ConnectionInfo, Pipeline, ServerError, ServerErrorKind, Value};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{self, Instant};

use super::{RedisConfig, RedisConfigError, Shared};
use crate::{LOG_ENTRIES_MAX, LOG_PAGE, LogPlace, PublishError};

/// Publishes in one pipeline.
const BATCH_MAX: usize = 512;

/// A batch that holds this many payload bytes takes no more, so that a slow link can carry it within the
/// deadline. With its last publish it may hold more.
const BATCH_BYTES: usize = 1 << 20;

/// Payload bytes that may wait or be on their way, whatever their number.
const BYTES_WAITING_MAX: usize = 64 << 20;

/// A connection that was idle for this long is tried out by the pool before it is used again.
const IDLE_MAX: Duration = Duration::from_secs(1);

/// After a failure to connect, publishes fail at once for this long: trying for each would cost more and win
/// nothing.
const CONNECT_PAUSE: Duration = Duration::from_millis(100);

/// The one field of a log's entries.
const ENTRY_FIELD: &str = "entry";

/// Where publishes are handed in.
pub(super) struct Publishes {
    queue: mpsc::Sender<Publish>,
    bytes: Arc<Semaphore>,
    topic_prefix: String,
    deadline: Duration,
}

/// Where they are carried out.
pub(super) struct Publisher {
    queue: mpsc::Receiver<Publish>,
    pool: Pool,
    /// The connection in use. Whenever something goes wrong with it, it goes back to no pool.
    connection: Option<Connection>,
    used_at: Instant,
    /// How often the subscriber link had been lost when the connection was taken into use. What cost that link
    /// its life may have cost this connection the same.
    losses: u64,
    connect_not_before: Instant,
    deadline: Duration,
    shared: Arc<Shared>,
}

struct Publish {
    errand: Errand,
    not_after: Instant,
    outcome: oneshot::Sender<Result<Value, PublishError>>,
    /// Its share of `BYTES_WAITING_MAX`.
    _bytes: OwnedSemaphorePermit,
}

/// What Redis is asked to do.
enum Errand {
    Publish { channel: String, payload: Bytes },
    Append { key: String, entry: Bytes },
    ReadLog { key: String, from: String },
}

/// Both ends of a new lane.
pub(super) fn lane(
    redis: ConnectionInfo,
    config: RedisConfig,
    shared: Arc<Shared>,
) -> Result<(Publishes, Publisher), RedisConfigError> {
    let connecting = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(config.command_deadline))
        // A batch as a whole has a deadline.
        .set_response_timeout(None);
    let manager = Manager::new_with_config(redis, connecting)
        .map_err(|error| RedisConfigError::Url(error.to_string()))?;
    let pool = Pool::builder(manager).max_size(1).build().expect("no timeouts, so no runtime to be named");
    let (sender, receiver) = mpsc::channel(config.publishes_waiting_max);
    let publishes = Publishes {
        queue: sender,
        bytes: Arc::new(Semaphore::new(BYTES_WAITING_MAX)),
        topic_prefix: config.topic_prefix,
        deadline: config.command_deadline,
    };
    let now = Instant::now();
    let publisher = Publisher {
        queue: receiver,
        pool,
        connection: None,
        used_at: now,
        losses: 0,
        connect_not_before: now,
        deadline: config.command_deadline,
        shared,
    };
    Ok((publishes, publisher))
}

impl Publishes {
    pub(super) fn publish(
        &self,
        topic: &Topic,
        payload: Bytes,
    ) -> BoxFuture<'static, Result<(), PublishError>> {
        self.ask(Errand::Publish { channel: self.name(topic), payload }).map_ok(drop).boxed()
    }

    pub(super) fn append(&self, log: &Topic, entry: Bytes) -> BoxFuture<'static, Result<(), PublishError>> {
        self.ask(Errand::Append { key: self.name(log), entry }).map_ok(drop).boxed()
    }

    pub(super) fn read_log(
        &self,
        log: &Topic,
        after: Option<&LogPlace>,
    ) -> BoxFuture<'static, Result<Vec<(LogPlace, Bytes)>, PublishError>> {
        let from = after.map_or_else(|| "-".to_owned(), LogPlace::next);
        let reply = self.ask(Errand::ReadLog { key: self.name(log), from });
        reply.map(|reply| entries(&reply?)).boxed()
    }

    /// The channel of a topic, or the key of a log.
    fn name(&self, topic: &Topic) -> String {
        format!("{}{topic}", self.topic_prefix)
    }

    fn ask(&self, errand: Errand) -> BoxFuture<'static, Result<Value, PublishError>> {
        let not_after = Instant::now() + self.deadline;
        match self.enqueue(errand, not_after) {
            Ok(outcome) => in_time(outcome, not_after).boxed(),
            Err(error) => future::ready(Err(error)).boxed(),
        }
    }

    fn enqueue(
        &self,
        errand: Errand,
        not_after: Instant,
    ) -> Result<oneshot::Receiver<Result<Value, PublishError>>, PublishError> {
        let size = u32::try_from(errand.bytes()).map_err(|_| PublishError::Busy)?;
        let bytes = Arc::clone(&self.bytes).try_acquire_many_owned(size).map_err(|_| PublishError::Busy)?;
        let (outcome, answer) = oneshot::channel();
        let publish = Publish { errand, not_after, outcome, _bytes: bytes };
        self.queue.try_send(publish).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => PublishError::Busy,
            mpsc::error::TrySendError::Closed(_) => PublishError::Unavailable,
        })?;
        Ok(answer)
    }
}

impl Errand {
    /// What it costs while it waits.
    fn bytes(&self) -> usize {
        match self {
            Self::Publish { payload: bytes, .. } | Self::Append { entry: bytes, .. } => bytes.len(),
            Self::ReadLog { .. } => 0,
        }
    }

    fn add_to(&self, pipeline: &mut Pipeline) {
        match self {
            Self::Publish { channel, payload } => pipeline.cmd("PUBLISH").arg(channel).arg(&payload[..]),
            Self::Append { key, entry } => {
                let command = pipeline.cmd("XADD").arg(key).arg("MAXLEN").arg("~").arg(LOG_ENTRIES_MAX);
                command.arg("*").arg(ENTRY_FIELD).arg(&entry[..])
            }
            Self::ReadLog { key, from } => {
                pipeline.cmd("XRANGE").arg(key).arg(from).arg("+").arg("COUNT").arg(LOG_PAGE)
            }
        };
    }
}

impl LogPlace {
    /// What Redis calls this place (`milliseconds-number`).
    fn parse(id: &str) -> Option<Self> {
        let (major, minor) = id.split_once('-')?;
        Some(Self { major: major.parse().ok()?, minor: minor.parse().ok()? })
    }

    /// The first place behind this one.
    fn next(&self) -> String {
        match self.minor.checked_add(1) {
            Some(minor) => format!("{}-{minor}", self.major),
            None => format!("{}-0", self.major.saturating_add(1)),
        }
    }
}

/// The entries that Redis answered with. One that nobody here has made is passed over.
fn entries(reply: &Value) -> Result<Vec<(LogPlace, Bytes)>, PublishError> {
    let Value::Array(entries) = reply else {
        return Err(PublishError::Refused("the answer is no list of entries".to_owned()));
    };
    Ok(entries.iter().filter_map(entry).collect())
}

fn entry(entry: &Value) -> Option<(LogPlace, Bytes)> {
    let Value::Array(parts) = entry else { return None };
    let [Value::BulkString(id), Value::Array(fields)] = &parts[..] else { return None };
    let place = LogPlace::parse(str::from_utf8(id).ok()?)?;
    let entry = match &fields[..] {
        [Value::BulkString(field), Value::BulkString(entry)] if field == ENTRY_FIELD.as_bytes() => {
            entry.clone()
        }
        // Still a place to go on from.
        _ => Vec::new(),
    };
    Some((place, entry.into()))
}

async fn in_time(
    outcome: oneshot::Receiver<Result<Value, PublishError>>,
    not_after: Instant,
) -> Result<Value, PublishError> {
    match time::timeout_at(not_after, outcome).await {
        Ok(Ok(outcome)) => outcome,
        // Too late, or the broker has ended.
        Err(_) | Ok(Err(_)) => Err(PublishError::Unavailable),
    }
}

impl Publisher {
    /// Carries out publishes until the last [`Publishes`] is gone.
    pub(super) async fn run(mut self) {
        while let Some(first) = self.queue.recv().await {
            let mut batch = self.gather(first);
            let now = Instant::now();
            // Their futures have answered already.
            batch.retain(|publish| now < publish.not_after);
            if !batch.is_empty() {
                self.carry_out(batch).await;
            }
        }
    }

    /// The batch that begins with `first`.
    fn gather(&mut self, first: Publish) -> Vec<Publish> {
        let mut bytes = first.errand.bytes();
        let mut batch = vec![first];
        while batch.len() < BATCH_MAX
            && bytes < BATCH_BYTES
            && let Ok(next) = self.queue.try_recv()
        {
            bytes += next.errand.bytes();
            batch.push(next);
        }
        batch
    }

    /// Carries out a batch and answers each of it.
    async fn carry_out(&mut self, batch: Vec<Publish>) {
        let replies = time::timeout(self.deadline, self.send(&batch)).await.ok().flatten();
        self.used_at = Instant::now();
        let Some(replies) = replies else {
            self.discard_connection();
            batch.into_iter().for_each(|publish| publish.answer(Err(PublishError::Unavailable)));
            return;
        };
        for (publish, reply) in batch.into_iter().zip(replies) {
            let outcome = outcome(reply);
            if outcome == Err(PublishError::Unavailable) {
                // A replica or a server that is loading answers so; the next connection may lead to another.
                self.discard_connection();
            }
            publish.answer(outcome);
        }
    }

    /// Sends a batch as one pipeline. `None` when there is no connection or it broke.
    async fn send(&mut self, batch: &[Publish]) -> Option<Vec<Value>> {
        let mut pipeline = Pipeline::with_capacity(batch.len());
        for publish in batch {
            publish.errand.add_to(&mut pipeline);
        }
        let replies = self.connection().await?.req_packed_commands(&pipeline, 0, batch.len()).await.ok()?;
        (replies.len() == batch.len()).then_some(replies)
    }

    /// The connection in use, or another from the pool, which tries out one that comes back and makes a new one
    /// when it is dead.
    async fn connection(&mut self) -> Option<&mut Connection> {
        let losses = self.shared.lock().link.losses;
        if self.used_at.elapsed() >= IDLE_MAX || self.losses != losses {
            self.connection = None;
        }
        if self.connection.is_none() {
            if Instant::now() < self.connect_not_before {
                return None;
            }
            // In force unless this succeeds.
            self.connect_not_before = Instant::now() + CONNECT_PAUSE;
            self.connection = Some(self.pool.get().await.ok()?);
            self.connect_not_before = Instant::now();
            self.losses = losses;
        }
        self.connection.as_mut()
    }

    fn discard_connection(&mut self) {
        if let Some(connection) = self.connection.take() {
            drop(Connection::take(connection));
        }
    }
}

impl Publish {
    fn answer(self, outcome: Result<Value, PublishError>) {
        // Nobody may be waiting for it any more.
        let _ = self.outcome.send(outcome);
    }
}

fn outcome(reply: Value) -> Result<Value, PublishError> {
    match reply {
        Value::ServerError(error) => Err(refusal(&error)),
        // The number of a publish's receivers says nothing about who will get it: nobody looks at it.
        reply => Ok(reply),
    }
}

/// Access rules and malformed commands will be refused again; all other refusals speak of the server's present
/// state (LOADING, READONLY, OOM, MASTERDOWN, BUSY, …).
fn refusal(error: &ServerError) -> PublishError {
    match error.kind() {
        Some(ServerErrorKind::NoPerm | ServerErrorKind::ResponseError) => {
            let words = error.to_string();
            // Of a command that it does not know, Redis repeats what came with it: payloads are not for logs.
            let words = words.split(", with args").next().unwrap_or_default();
            PublishError::Refused(words.to_owned())
        }
        _ => PublishError::Unavailable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many publishes each batch gets when payloads of these lengths wait.
    async fn batches(lengths: impl IntoIterator<Item = usize>) -> Vec<usize> {
        let config = RedisConfig::new("redis://127.0.0.1");
        let redis = config.connection_info().unwrap();
        let shared = Arc::new(Shared::new(config.payload_bytes_max));
        let (publishes, mut publisher) = lane(redis, config, shared).unwrap();
        for length in lengths {
            drop(publishes.publish(&Topic::parse("a").unwrap(), vec![0; length].into()));
        }
        drop(publishes);
        let mut sizes = Vec::new();
        while let Some(first) = publisher.queue.recv().await {
            sizes.push(publisher.gather(first).len());
        }
        sizes
    }

    #[tokio::test]
    async fn a_batch_is_bounded_in_number() {
        assert_eq!(batches([1; BATCH_MAX + 3]).await, [BATCH_MAX, 3]);
    }

    #[tokio::test]
    async fn a_batch_is_bounded_in_bytes() {
        assert_eq!(batches([BATCH_BYTES / 4; 10]).await, [4, 4, 2]);
        assert_eq!(
            batches([2 * BATCH_BYTES, 1, 1]).await,
            [1, 2],
            "one that is larger than a batch goes alone"
        );
    }
}
