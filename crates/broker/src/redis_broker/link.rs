//! The subscriber link and its supervisor.
//!
//! One connection carries SUBSCRIBE, UNSUBSCRIBE, PING, their answers and all messages. What comes in is handled
//! where it is read, inside the connection's own task, so nothing is queued in front of the workers' inboxes
//! and a confirmation stays in its place among the messages.
//!
//! The supervisor keeps that connection in being: it connects, asks for everything that is wanted, follows the
//! workers' wishes whatever else it waits for, listens for silence, and starts again, for ever. redis-rs's own
//! reconnecting is not used: it gives up after some time, and its queue of messages has no bound.

use std::fmt::Display;
use std::iter;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use causeway_protocol::Topic;
use futures_util::future::{try_join, try_join_all};
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ConnectionInfo, PushInfo, PushKind, RedisError, RedisResult,
    ServerErrorKind, Value,
};
use tokio::sync::Notify;
use tokio::time;
use tracing::{debug, info, warn};

use super::{RedisConfig, RedisConfigError, Shared};
use crate::{Delivery, Inbox, Ticket};

/// Names in one SUBSCRIBE or UNSUBSCRIBE: enough to make round trips rare, few enough not to keep Redis from
/// its other clients.
const NAMES_MAX: usize = 512;

/// Commands of each kind that are on their way together. redis-rs writes when there is nothing to read just
/// then; where Redis sends faster than it is read, such moments are rare and have to serve for much.
const BATCHES_MAX: usize = 32;

/// Changes of interest carried out before others get their turn at the exchange.
const CHANGES_AT_ONCE: usize = 512;

/// After this long without a message or an answer the link is asked for a sign of life.
const PING_AFTER: Duration = Duration::from_secs(2);

/// A link that owes an answer is lost after this long without hearing anything. Every message and answer counts
/// once it is complete: behind a burst of messages an answer may be late, and the link is all the same alive.
const SILENCE_MAX: Duration = Duration::from_secs(2);

/// A link that owes an answer for this long is lost, however much else it brings: commands do not get through.
const ANSWER_MAX: Duration = Duration::from_secs(10);

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
            match self.following(self.connect()).await {
                Ok(link) => {
                    trouble.is_over();
                    let since = Instant::now();
                    let loss = self.serve(&link).await;
                    // Ends its task: no more is read from it, neither before the loss is told nor after.
                    drop(link);
                    let silent_for = self.shared.lock().link_lost();
                    warn!(error = %loss, ?silent_for, "the link to Redis is lost");
                    if since.elapsed() >= STEADY_AFTER {
                        backoff = Backoff::default();
                    }
                }
                Err(error) => trouble.continues(&error),
            }
            self.following(time::sleep(backoff.next())).await;
        }
    }

    /// Does `work` and follows the workers' wishes meanwhile: whoever wants what is live already is told at
    /// once, and what is given up is not kept.
    async fn following<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                biased;
                outcome = &mut work => return outcome,
                () = self.shared.changes.made() => self.apply_changes().await,
            }
        }
    }

    async fn connect(&self) -> RedisResult<Link> {
        let closed = Arc::new(Notify::new());
        let reader = Reader {
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
            if let Err(loss) = self.following(self.catch_up(link)).await {
                return loss;
            }
            let ping_at = self.last_heard() + PING_AFTER;
            let due = self.shared.lock().table.next_due();
            let wake_at = due.map_or(ping_at, |due| due.min(ping_at));
            tokio::select! {
                () = link.closed.notified() => return Loss::Closed,
                () = self.shared.changes.made() => self.apply_changes().await,
                () = time::sleep_until(wake_at.into()) => {}
            }
            if self.last_heard().elapsed() >= PING_AFTER
                && let Err(loss) = self.following(self.ping(link)).await
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

    /// Tells Redis everything that the interest table has for it, also what comes up meanwhile.
    async fn catch_up(&self, link: &Link) -> Result<(), Loss> {
        loop {
            let (given_up, asked) = self.next_batches();
            if given_up.is_empty() && asked.is_empty() {
                return Ok(());
            }
            try_join(
                try_join_all(given_up.iter().map(|batch| self.unsubscribe(link, batch))),
                try_join_all(asked.iter().map(|batch| self.subscribe(link, batch))),
            )
            .await?;
        }
    }

    /// What is to be given up and what is to be asked for now. No topic is in both, so the order of the commands
    /// does not matter.
    fn next_batches(&self) -> (Vec<Vec<Topic>>, Vec<Vec<Topic>>) {
        let now = Instant::now();
        let exchange = &mut *self.shared.lock();
        exchange.table.requeue_due(now);
        let given_up = batches(|| exchange.table.next_unsubscribes(NAMES_MAX, now));
        let asked = batches(|| exchange.table.next_subscribes(NAMES_MAX));
        exchange.count_topics();
        (given_up, asked)
    }

    /// Subscribes to a batch. Redis refuses a SUBSCRIBE as a whole when its access rules forbid one of the
    /// names; then each is asked for alone, all at the same time, so that the rest wait for one more answer and
    /// not for each forbidden name.
    async fn subscribe(&self, link: &Link, batch: &[Topic]) -> Result<(), Loss> {
        let Some(refusal) = self.ask(link, batch).await? else { return Ok(()) };
        let refusals = try_join_all(batch.chunks(1).map(|topic| self.ask(link, topic))).await?;
        let outcomes = batch.iter().zip(refusals);
        let refused: Vec<_> = outcomes.filter_map(|(topic, refusal)| refusal.map(|_| topic)).collect();
        for topic in &refused {
            debug!(%topic, "Redis refuses the topic");
            self.shared.lock().refused(topic, Instant::now());
        }
        // None, if the rules have changed just now.
        if !refused.is_empty() {
            warn!(topics = refused.len(), error = %refusal, "Redis refuses topics");
        }
        Ok(())
    }

    /// Sends one SUBSCRIBE. Returns Redis's refusal if its access rules forbid one of the names.
    async fn ask(&self, link: &Link, topics: &[Topic]) -> Result<Option<RedisError>, Loss> {
        let mut connection = link.connection.clone();
        match self.answer(&link.closed, connection.subscribe(self.channels(topics))).await? {
            Ok(()) => Ok(None),
            Err(refusal) if refusal.kind() == ServerErrorKind::NoPerm.into() => Ok(Some(refusal)),
            Err(refusal) => Err(refusal.into()),
        }
    }

    async fn unsubscribe(&self, link: &Link, batch: &[Topic]) -> Result<(), Loss> {
        let mut connection = link.connection.clone();
        let reply = connection.unsubscribe(self.channels(batch));
        if let Err(refusal) = self.answer(&link.closed, reply).await? {
            // Then its messages go on coming, and find nobody here who wants them.
            debug!(error = %refusal, "Redis refuses to unsubscribe");
        }
        Ok(())
    }

    async fn ping(&self, link: &Link) -> Result<(), Loss> {
        let mut connection = link.connection.clone();
        // Even a refusal is a sign of life.
        self.answer(&link.closed, redis::cmd("PING").exec_async(&mut connection)).await.map(|_| ())
    }

    /// Waits for an answer, but no longer than `ANSWER_MAX`, and no longer than `SILENCE_MAX` while nothing else
    /// is heard. The outer result is the link's, the inner one Redis's.
    ///
    /// Time is counted in halves of `SILENCE_MAX`, and the silence has to show twice: when this process itself
    /// was stopped for a while, the clock is ahead of what is still to be read.
    async fn answer(
        &self,
        closed: &Notify,
        reply: impl Future<Output = RedisResult<()>>,
    ) -> Result<RedisResult<()>, Loss> {
        let mut reply = pin!(reply);
        let (mut halves, mut silent_halves) = (0, 0);
        let mut heard_at = self.last_heard();
        while silent_halves < 2 && halves * SILENCE_MAX / 2 < ANSWER_MAX {
            tokio::select! {
                biased;
                outcome = &mut reply => return self.heard_answer(outcome),
                () = closed.notified() => return Err(Loss::Closed),
                () = time::sleep(SILENCE_MAX / 2) => halves += 1,
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

/// Calls `next` until there are enough batches or no more.
fn batches(next: impl FnMut() -> Vec<Topic>) -> Vec<Vec<Topic>> {
    iter::repeat_with(next).take_while(|batch| !batch.is_empty()).take(BATCHES_MAX).collect()
}

/// Takes what Redis sends unasked, or among the answers, where the connection reads it.
struct Reader {
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
            let now = Instant::now();
            exchange.link.last_heard = now;
            exchange.message(name, payload, now);
        }
    }

    fn confirmed(&self, data: &[Value]) {
        if let [Value::BulkString(channel), ..] = data
            && let Some(name) = self.name(channel)
        {
            let now = Instant::now();
            let mut exchange = self.shared.lock();
            exchange.link.last_heard = now;
            exchange.confirmed(name, now);
        }
    }

    /// The topic's name in a channel's, unless it is no channel of ours. Whether it is a legal name needs no
    /// check: only topics are in the table.
    fn name<'a>(&self, channel: &'a [u8]) -> Option<&'a str> {
        str::from_utf8(channel.strip_prefix(self.topic_prefix.as_bytes())?).ok()
    }
}

/// What a worker that wants `topics` is told when Redis sends `bytes`: for the fuzz targets, which know no Redis.
#[doc(hidden)]
pub fn deliveries_of(topic_prefix: &str, topics: &[Topic], bytes: &[u8]) -> Vec<Delivery> {
    let shared = Arc::new(Shared::new(usize::MAX));
    let inbox = Arc::new(Inbox::new(usize::MAX));
    let mut exchange = shared.lock();
    let worker = exchange.workers.attach(Arc::clone(&inbox));
    for topic in topics {
        exchange.table.want(worker, topic.clone(), Ticket(0));
    }
    exchange.table.next_subscribes(topics.len());
    drop(exchange);

    let reader = Reader { topic_prefix: topic_prefix.to_owned(), closed: Arc::default(), shared };
    let (mut parser, mut bytes) = (redis::Parser::new(), bytes);
    while let Ok(value) = parser.parse_value(&mut bytes) {
        if let Value::Push { kind, data } = value {
            // It never fails.
            let _ = reader.read(PushInfo { kind, data });
        }
    }
    inbox.take()
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
    use std::future;

    use super::*;

    fn supervisor() -> Supervisor {
        let config = RedisConfig::new("redis://127.0.0.1");
        let redis = config.connection_info().unwrap();
        Supervisor::new(redis, &config, Arc::new(Shared::new(config.payload_bytes_max))).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_not_waited_for_in_silence() {
        let since = time::Instant::now();
        let outcome = supervisor().answer(&Notify::new(), future::pending()).await;
        assert!(matches!(outcome, Err(Loss::Silent)));
        assert!(since.elapsed() < SILENCE_MAX + Duration::from_millis(10), "{:?}", since.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_waited_for_among_messages_but_not_for_ever() {
        let (supervisor, closed) = (supervisor(), Notify::new());
        let messages = async {
            loop {
                time::sleep(SILENCE_MAX / 4).await;
                supervisor.shared.lock().link.last_heard = Instant::now();
            }
        };
        let since = time::Instant::now();
        let outcome = tokio::select! {
            outcome = supervisor.answer(&closed, future::pending()) => outcome,
            () = messages => unreachable!("they go on for ever"),
        };
        assert!(matches!(outcome, Err(Loss::Silent)));
        assert!(since.elapsed() >= ANSWER_MAX, "{:?}", since.elapsed());
        assert!(since.elapsed() < ANSWER_MAX + Duration::from_millis(50), "{:?}", since.elapsed());
    }

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
