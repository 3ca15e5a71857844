//! The subscriber link and its supervisor.
//!
//! One connection carries SUBSCRIBE, UNSUBSCRIBE, PING, their answers and all messages. What comes in is handled
//! where it is read, inside the connection's own task, so nothing is queued in front of the workers' inboxes
//! and a confirmation stays in its place among the messages.
//!
//! The supervisor keeps that connection in being: it connects, asks for everything that is wanted, follows the
//! workers' wishes, listens for silence, and starts again, for ever. redis-rs's own reconnecting is not used: it
//! gives up after some time, and its queue of messages has no bound.

use std::fmt::Display;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use causeway_protocol::Topic;
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ConnectionInfo, PushInfo, PushKind, RedisError, RedisResult,
    ServerErrorKind, Value,
};
use tokio::sync::Notify;
use tokio::time;
use tracing::{debug, info, warn};

use super::{RedisConfig, RedisConfigError, Shared};

/// Names in one SUBSCRIBE or UNSUBSCRIBE: enough to make round trips rare, few enough not to keep Redis from
/// its other clients.
const NAMES_MAX: usize = 512;

/// Changes of interest carried out before others get their turn at the exchange.
const CHANGES_AT_ONCE: usize = 512;

/// After this long without a byte the link is asked for a sign of life.
const PING_AFTER: Duration = Duration::from_secs(2);

/// A link that owes an answer is lost after this long without a byte. Any byte counts: behind a burst of
/// messages an answer may be late, and the link is all the same alive.
const SILENCE_MAX: Duration = Duration::from_secs(2);

/// A link that held this long was a good one: the next is tried for without a long pause.
const STEADY_AFTER: Duration = Duration::from_secs(5);

pub(super) struct Supervisor {
    client: Client,
    topic_prefix: String,
    connect_deadline: Duration,
    shared: Arc<Shared>,
}

/// One connection to Redis, while it lasts.
struct Link {
    connection: MultiplexedConnection,
    closed: Arc<Notify>,
}

/// Why a link was given up.
#[derive(Debug, thiserror::Error)]
enum Loss {
    #[error("Redis closed the connection")]
    Closed,
    #[error("Redis did not answer")]
    Silent,
    #[error(transparent)]
    Failed(#[from] RedisError),
}

impl Supervisor {
    pub(super) fn new(
        redis: ConnectionInfo,
        config: &RedisConfig,
        shared: Arc<Shared>,
    ) -> Result<Self, RedisConfigError> {
        let client = Client::open(redis).map_err(|error| RedisConfigError::Url(error.to_string()))?;
        Ok(Self {
            client,
            topic_prefix: config.topic_prefix.clone(),
            connect_deadline: config.command_deadline,
            shared,
        })
    }

    /// Keeps a link up for as long as it is polled.
    pub(super) async fn run(self) {
        let mut backoff = Backoff::default();
        let mut trouble = Trouble::default();
        loop {
            match self.connect().await {
                Ok(link) => {
                    trouble.is_over();
                    let since = Instant::now();
                    let loss = self.serve(&link).await;
                    // No more is read from it before the loss is told.
                    drop(link);
                    let silent_for = self.shared.lock().link_lost();
                    warn!(error = %loss, ?silent_for, "the link to Redis is lost");
                    if since.elapsed() >= STEADY_AFTER {
                        backoff = Backoff::default();
                    }
                }
                Err(error) => trouble.continues(&error),
            }
            self.pause(backoff.next()).await;
        }
    }

    /// Follows the workers' wishes without a link, so that what is given up meanwhile is not kept.
    async fn pause(&self, length: Duration) {
        let mut over = pin!(time::sleep(length));
        loop {
            tokio::select! {
                () = &mut over => return,
                () = self.shared.changes.made() => self.apply_changes().await,
            }
        }
    }

    async fn connect(&self) -> RedisResult<Link> {
        let closed = Arc::new(Notify::new());
        let reader = Reader {
            number: self.shared.lock().link_begins(),
            topic_prefix: self.topic_prefix.clone(),
            closed: Arc::clone(&closed),
            shared: Arc::clone(&self.shared),
        };
        let config = AsyncConnectionConfig::new()
            // Finding the address, connecting and introducing ourselves, all of it.
            .set_connection_timeout(Some(self.connect_deadline))
            .set_response_timeout(None)
            .set_push_sender(move |push| reader.read(push));
        let connection = self.client.get_multiplexed_async_connection_with_config(&config).await?;
        self.shared.lock().link_up();
        info!("the link to Redis is up");
        Ok(Link { connection, closed })
    }

    /// Serves the link until it is lost.
    async fn serve(&self, link: &Link) -> Loss {
        loop {
            self.apply_changes().await;
            if let Err(loss) = self.catch_up(link).await {
                return loss;
            }
            let ping_at = self.last_heard() + PING_AFTER;
            let due = self.shared.lock().table.next_due();
            let wake_at = due.map_or(ping_at, |due| due.min(ping_at));
            tokio::select! {
                () = link.closed.notified() => return Loss::Closed,
                () = self.shared.changes.made() => {}
                () = time::sleep_until(wake_at.into()) => {}
            }
            if self.last_heard().elapsed() >= PING_AFTER
                && let Err(loss) = self.ping(link).await
            {
                return loss;
            }
        }
    }

    async fn apply_changes(&self) {
        let mut changes = self.shared.changes.take().peekable();
        while changes.peek().is_some() {
            self.shared.lock().apply(changes.by_ref().take(CHANGES_AT_ONCE), Instant::now());
            tokio::task::yield_now().await;
        }
    }

    /// Tells Redis everything that the interest table has for it.
    async fn catch_up(&self, link: &Link) -> Result<(), Loss> {
        loop {
            let batch = self.shared.lock().next_unsubscribes(NAMES_MAX, Instant::now());
            if batch.is_empty() {
                break;
            }
            self.unsubscribe(link, &batch).await?;
        }
        loop {
            let batch = self.shared.lock().table.next_subscribes(NAMES_MAX);
            if batch.is_empty() {
                return Ok(());
            }
            self.subscribe(link, batch).await?;
        }
    }

    /// Subscribes to a batch. Redis refuses a SUBSCRIBE as a whole when its access rules forbid one of the
    /// names, so a refused batch is halved until the forbidden ones stand alone; the rest must not suffer.
    async fn subscribe(&self, link: &Link, batch: Vec<Topic>) -> Result<(), Loss> {
        let mut parts = vec![batch];
        while let Some(mut part) = parts.pop() {
            let mut connection = link.connection.clone();
            let Err(refusal) = self.answer(link, connection.subscribe(self.channels(&part))).await? else {
                continue;
            };
            if refusal.kind() != ServerErrorKind::NoPerm.into() {
                return Err(refusal.into());
            }
            if let [topic] = &part[..] {
                self.refused(topic, &refusal);
            } else {
                parts.push(part.split_off(part.len() / 2));
                parts.push(part);
            }
        }
        Ok(())
    }

    fn refused(&self, topic: &Topic, refusal: &RedisError) {
        if self.shared.lock().refused(topic, Instant::now()) {
            warn!(%topic, error = %refusal, "Redis refuses the topic");
        }
    }

    async fn unsubscribe(&self, link: &Link, batch: &[Topic]) -> Result<(), Loss> {
        let mut connection = link.connection.clone();
        if let Err(refusal) = self.answer(link, connection.unsubscribe(self.channels(batch))).await? {
            // Then its messages go on coming, and find nobody here who wants them.
            debug!(error = %refusal, "Redis refuses to unsubscribe");
        }
        Ok(())
    }

    async fn ping(&self, link: &Link) -> Result<(), Loss> {
        let mut connection = link.connection.clone();
        // Even a refusal is a sign of life.
        self.answer(link, redis::cmd("PING").exec_async(&mut connection)).await.map(|_| ())
    }

    /// Waits for an answer for as long as anything at all is heard. The outer result is the link's, the inner
    /// one Redis's.
    ///
    /// The silence has to show twice, in two halves: when this process itself was stopped for a while, the clock
    /// is ahead of what is still to be read.
    async fn answer(
        &self,
        link: &Link,
        reply: impl Future<Output = RedisResult<()>>,
    ) -> Result<RedisResult<()>, Loss> {
        let mut reply = pin!(reply);
        let mut heard_at = self.last_heard();
        let mut silent_halves = 0;
        while silent_halves < 2 {
            tokio::select! {
                biased;
                outcome = &mut reply => return self.heard_answer(outcome),
                () = link.closed.notified() => return Err(Loss::Closed),
                () = time::sleep(SILENCE_MAX / 2) => {}
            }
            let last_heard = self.last_heard();
            silent_halves = if last_heard == heard_at { silent_halves + 1 } else { 0 };
            heard_at = last_heard;
        }
        Err(Loss::Silent)
    }

    fn heard_answer(&self, outcome: RedisResult<()>) -> Result<RedisResult<()>, Loss> {
        match outcome {
            Err(error) if error.code().is_none() => return Err(error.into()),
            _ => self.shared.lock().link.last_heard = Instant::now(),
        }
        Ok(outcome)
    }

    fn last_heard(&self) -> Instant {
        self.shared.lock().link.last_heard
    }

    fn channels(&self, topics: &[Topic]) -> Vec<String> {
        topics.iter().map(|topic| format!("{}{topic}", self.topic_prefix)).collect()
    }
}

/// Takes what Redis sends unasked, or among the answers, where the connection reads it.
struct Reader {
    number: u64,
    topic_prefix: String,
    closed: Arc<Notify>,
    shared: Arc<Shared>,
}

impl Reader {
    fn read(&self, push: PushInfo) -> Result<(), redis::aio::SendError> {
        match push.kind {
            PushKind::Message => self.message(push.data),
            PushKind::Subscribe => self.confirmed(&push.data),
            PushKind::Disconnection => self.closed.notify_one(),
            // The end of a subscription needs no answer, and nothing else was asked for.
            _ => {}
        }
        Ok(())
    }

    fn message(&self, data: Vec<Value>) {
        if let Ok([Value::BulkString(channel), Value::BulkString(payload)]) = <[Value; 2]>::try_from(data)
            && let Some(name) = self.name(&channel)
        {
            let mut exchange = self.shared.lock();
            if exchange.link.number == self.number {
                exchange.link.last_heard = Instant::now();
                exchange.message(name, payload);
            }
        }
    }

    fn confirmed(&self, data: &[Value]) {
        if let [Value::BulkString(channel), ..] = data
            && let Some(name) = self.name(channel)
        {
            let mut exchange = self.shared.lock();
            if exchange.link.number == self.number {
                let now = Instant::now();
                exchange.link.last_heard = now;
                exchange.confirmed(name, now);
            }
        }
    }

    /// The topic's name in a channel's, unless it is no channel of ours. Whether it is a legal name needs no
    /// check: only topics are in the table.
    fn name<'a>(&self, channel: &'a [u8]) -> Option<&'a str> {
        str::from_utf8(channel.strip_prefix(self.topic_prefix.as_bytes())?).ok()
    }
}

/// How long to wait before the next attempt: anything up to a bound that doubles from attempt to attempt, so
/// that nodes which lost Redis together do not come back together.
#[derive(Default)]
struct Backoff {
    attempts: u32,
}

impl Backoff {
    const FIRST_MAX: Duration = Duration::from_millis(50);
    /// Low enough that a node is back within two seconds of Redis, however long the outage.
    const MAX: Duration = Duration::from_millis(1500);

    fn next(&mut self) -> Duration {
        let bound = Self::FIRST_MAX.saturating_mul(1 << self.attempts.min(10)).min(Self::MAX);
        self.attempts = self.attempts.saturating_add(1);
        rand::random_range(Duration::ZERO..=bound)
    }
}

/// Logs an outage's reasons as they change, not attempt by attempt.
#[derive(Default)]
struct Trouble {
    logged: String,
}

impl Trouble {
    fn continues(&mut self, error: &dyn Display) {
        let error = error.to_string();
        if error != self.logged {
            warn!(error, "cannot connect to Redis, trying on");
            self.logged = error;
        }
    }

    fn is_over(&mut self) {
        self.logged.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_bound_and_stay_there() {
        let mut backoff = Backoff::default();
        let pauses: Vec<Duration> = (0..200).map(|_| backoff.next()).collect();
        assert!(pauses[0] <= Backoff::FIRST_MAX);
        assert!(pauses[1] <= 2 * Backoff::FIRST_MAX);
        assert!(pauses.iter().all(|pause| *pause <= Backoff::MAX));
        // 190 evenly spread pauses all below a third of the bound: less likely than one in 10^90.
        assert!(pauses[10..].iter().any(|pause| *pause > Backoff::MAX / 3));
    }
}
