//! The subscriber link: one connection to Redis, for as long as it lasts.
//!
//! It carries SUBSCRIBE, UNSUBSCRIBE, PING, their answers and all messages. What comes in is handled where it is
//! read, inside the connection's own task, so nothing is queued in front of the workers' inboxes and a
//! confirmation stays in its place among the messages.
//!
//! Dropping the link ends that task: nothing more is read from it.

use std::borrow::Borrow;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use causeway_protocol::Topic;
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, PushInfo, PushKind, RedisError, RedisResult, ServerErrorKind, Value,
};
use tokio::sync::Notify;
use tokio::time;

use super::{Shared, now};
use crate::{Delivery, Inbox, Ticket};

/// A link that owes an answer is lost after this long without hearing anything. Every message and answer counts
/// once it is complete: behind a burst of messages an answer may be late, and the link is all the same alive.
const SILENCE_MAX: Duration = Duration::from_secs(2);

/// A link that owes an answer for this long is lost, however much else it brings: commands do not get through.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// Makes connections: to Redis, or to what a simulation takes for it.
pub(super) trait Dial {
    /// A connection that is read by a task of its own, until the last clone is dropped.
    type Connection: Borrow<MultiplexedConnection>;

    /// Connects and introduces us. May take for ever.
    fn dial(&self, config: &AsyncConnectionConfig) -> impl Future<Output = RedisResult<Self::Connection>>;
}

impl Dial for Client {
    type Connection = MultiplexedConnection;

    async fn dial(&self, config: &AsyncConnectionConfig) -> RedisResult<MultiplexedConnection> {
        self.get_multiplexed_async_connection_with_config(config).await
    }
}

pub(super) struct Link<C> {
    connection: C,
    reader: Arc<Reader>,
}

/// Why a link was given up, or did not come about.
#[derive(Debug, thiserror::Error)]
pub(super) enum Loss {
    #[error("Redis closed the connection")]
    Closed,
    #[error("Redis did not answer")]
    Silent,
    #[error(transparent)]
    Failed(#[from] RedisError),
}

impl<C: Borrow<MultiplexedConnection>> Link<C> {
    /// Finds the address, connects and introduces us, all of it before `deadline` is over.
    pub(super) async fn establish(
        redis: &impl Dial<Connection = C>,
        deadline: Duration,
        topic_prefix: &str,
        shared: &Arc<Shared>,
    ) -> Result<Self, Loss> {
        let reader = Arc::new(Reader {
            topic_prefix: topic_prefix.to_owned(),
            closed: Notify::new(),
            shared: Arc::clone(shared),
        });
        let config = AsyncConnectionConfig::new()
            // Both are kept here.
            .set_connection_timeout(None)
            .set_response_timeout(None)
            .set_push_sender({
                let reader = Arc::clone(&reader);
                move |push| {
                    reader.read(push);
                    Ok::<_, redis::aio::SendError>(())
                }
            });
        let connection = time::timeout(deadline, redis.dial(&config)).await.map_err(|_| Loss::Silent)??;
        Ok(Self { connection, reader })
    }

    /// Sends one SUBSCRIBE and waits until it is carried out. Returns Redis's refusal if its access rules forbid
    /// one of the names: then it has subscribed to none.
    pub(super) async fn subscribe(&self, topics: &[Topic]) -> Result<Option<RedisError>, Loss> {
        let mut connection = self.connection();
        match self.reader.answer(connection.subscribe(self.reader.channels(topics))).await? {
            Ok(()) => Ok(None),
            Err(refusal) if refusal.kind() == ServerErrorKind::NoPerm.into() => Ok(Some(refusal)),
            Err(refusal) => Err(refusal.into()),
        }
    }

    /// Sends one UNSUBSCRIBE and waits until it is carried out. Returns Redis's refusal.
    pub(super) async fn unsubscribe(&self, topics: &[Topic]) -> Result<Option<RedisError>, Loss> {
        let mut connection = self.connection();
        Ok(self.reader.answer(connection.unsubscribe(self.reader.channels(topics))).await?.err())
    }

    /// Waits for a sign of life.
    pub(super) async fn ping(&self) -> Result<(), Loss> {
        let mut connection = self.connection();
        // Even a refusal is one.
        self.reader.answer(redis::cmd("PING").exec_async(&mut connection)).await.map(|_| ())
    }

    /// Waits until Redis has closed the connection. Only once.
    pub(super) async fn closed(&self) {
        self.reader.closed.notified().await;
    }

    fn connection(&self) -> MultiplexedConnection {
        self.connection.borrow().clone()
    }
}

/// Takes what Redis sends unasked, or among the answers, where the connection reads it.
struct Reader {
    topic_prefix: String,
    closed: Notify,
    shared: Arc<Shared>,
}

impl Reader {
    fn read(&self, push: PushInfo) {
        match push.kind {
            PushKind::Message => self.message(push.data),
            PushKind::Subscribe => self.confirmed(&push.data),
            PushKind::Disconnection => self.closed.notify_one(),
            // The end of a subscription needs no answer, and nothing else was asked for.
            _ => {}
        }
    }

    fn message(&self, data: Vec<Value>) {
        if let Ok([Value::BulkString(channel), Value::BulkString(payload)]) = <[Value; 2]>::try_from(data)
            && let Some(name) = self.name(&channel)
        {
            let mut exchange = self.shared.lock();
            let now = now();
            exchange.link.last_heard = now;
            exchange.message(name, payload, now);
        }
    }

    fn confirmed(&self, data: &[Value]) {
        if let [Value::BulkString(channel), ..] = data
            && let Some(name) = self.name(channel)
        {
            let now = now();
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

    fn channels(&self, topics: &[Topic]) -> Vec<String> {
        topics.iter().map(|topic| format!("{}{topic}", self.topic_prefix)).collect()
    }

    /// Waits for an answer, but no longer than `ANSWER_MAX`, and no longer than `SILENCE_MAX` while nothing else
    /// is heard. The outer result is the link's, the inner one Redis's.
    ///
    /// Time is counted in halves of `SILENCE_MAX`, and the silence has to show twice: when this process itself
    /// was stopped for a while, the clock is ahead of what is still to be read.
    async fn answer(&self, reply: impl Future<Output = RedisResult<()>>) -> Result<RedisResult<()>, Loss> {
        let mut reply = pin!(reply);
        let asked_at = now();
        let (mut halves, mut silent_halves) = (0, 0);
        let mut heard_at = self.shared.last_heard();
        while silent_halves < 2 && halves * SILENCE_MAX / 2 < ANSWER_MAX {
            tokio::select! {
                biased;
                outcome = &mut reply => return self.heard(outcome, asked_at),
                () = self.closed.notified() => return Err(Loss::Closed),
                () = time::sleep(SILENCE_MAX / 2) => halves += 1,
            }
            let last_heard = self.shared.last_heard();
            silent_halves = if last_heard == heard_at { silent_halves + 1 } else { 0 };
            heard_at = last_heard;
        }
        Err(Loss::Silent)
    }

    fn heard(&self, outcome: RedisResult<()>, asked_at: Instant) -> Result<RedisResult<()>, Loss> {
        match outcome {
            Err(error) if error.code().is_none() => return Err(error.into()),
            _ => {
                let link = &mut self.shared.lock().link;
                link.last_heard = now();
                // Several are on their way at a time, and need not be looked at in their order.
                link.complete_to = link.complete_to.max(asked_at);
            }
        }
        Ok(outcome)
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

    let reader = Reader { topic_prefix: topic_prefix.to_owned(), closed: Notify::new(), shared };
    let (mut parser, mut bytes) = (redis::Parser::new(), bytes);
    while let Ok(value) = parser.parse_value(&mut bytes) {
        if let Value::Push { kind, data } = value {
            reader.read(PushInfo { kind, data });
        }
    }
    inbox.take()
}

#[cfg(test)]
mod tests {
    use std::future;

    use super::*;

    fn reader() -> Reader {
        Reader { topic_prefix: String::new(), closed: Notify::new(), shared: Arc::new(Shared::new(0)) }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_not_waited_for_in_silence() {
        let since = time::Instant::now();
        let outcome = reader().answer(future::pending()).await;
        assert!(matches!(outcome, Err(Loss::Silent)));
        assert!(since.elapsed() < SILENCE_MAX + Duration::from_millis(10), "{:?}", since.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_waited_for_among_messages_but_not_for_ever() {
        let reader = reader();
        let messages = async {
            loop {
                time::sleep(SILENCE_MAX / 4).await;
                reader.shared.lock().link.last_heard = now();
            }
        };
        let since = time::Instant::now();
        let outcome = tokio::select! {
            outcome = reader.answer(future::pending()) => outcome,
            () = messages => unreachable!("they go on for ever"),
        };
        assert!(matches!(outcome, Err(Loss::Silent)));
        assert!(since.elapsed() >= ANSWER_MAX, "{:?}", since.elapsed());
        assert!(since.elapsed() < ANSWER_MAX + Duration::from_millis(50), "{:?}", since.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_vouches_for_what_was_published_before_it_was_asked_for() {
        let reader = reader();
        time::sleep(Duration::from_secs(1)).await;
        let asked_at = now();
        let late = async {
            time::sleep(SILENCE_MAX / 4).await;
            Ok(())
        };
        reader.answer(late).await.unwrap().unwrap();
        assert_eq!(reader.shared.lock().link.complete_to, asked_at);
        time::sleep(Duration::from_secs(3)).await;
        reader.shared.lock().link.last_heard = now();
        reader.shared.lock().link_lost();
        assert_eq!(
            reader.shared.lock().link.complete_to,
            asked_at,
            "what was heard since vouches for nothing"
        );
    }
}
