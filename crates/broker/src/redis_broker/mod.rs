//! The broker that links nodes through Redis.
//!
//! [`RedisBroker`] is a handle; the work is done on one thread of its own with two lanes that share nothing but
//! the thread: the subscriber link (`link`, kept in being by `supervisor`) brings messages in, the publisher
//! (`publisher`) takes publishes out.
//! A topic is the Redis channel of the same name behind the configured prefix, and a payload is what was
//! published, byte for byte. A log is the Redis Stream of that name, and its entries have one field.
//!
//! Locks: `Shared::exchange` first, an inbox under it. `Changes` has its own, under which nothing is locked.

use std::fmt;
use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{process, thread};

use bytes::Bytes;
use causeway_protocol::Topic;
use futures_util::future::BoxFuture;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use redis::{Client, ConnectionInfo, IntoConnectionInfo, ProtocolVersion};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

use self::changes::{Change, Changes};
pub use self::checkup::{Asked, RedisCheckup, RedisCheckupError, Right};
#[doc(hidden)]
pub use self::link::deliveries_of;
use self::publisher::{Publisher, Publishes};
use self::supervisor::Supervisor;
use crate::interest::InterestTable;
use crate::totals::Totals;
use crate::workers::Workers;
use crate::{Broker, Inbox, Interest, LinkReport, LogPlace, PublishError, Pulse, WorkerId};

mod changes;
mod checkup;
mod link;
mod publisher;
#[cfg(test)]
mod simulation;
mod supervisor;

/// How often the thread shows that it comes round to its work: each time wakes it, and nobody looks more often than
/// once in seconds.
const BEAT_INTERVAL: Duration = Duration::from_secs(1);

/// How to reach Redis and how much to take.
#[derive(Clone)]
pub struct RedisConfig {
    /// `redis://[[user]:password@]host[:port][/db]`, `rediss://` for TLS, or `unix:///path`. Redis 6 or later.
    pub url: String,
    /// Stands before every topic to make the name of its Redis channel. May be empty.
    pub topic_prefix: String,
    /// Messages with a larger payload are not delivered but announced as dropped, except on reserved topics.
    pub payload_bytes_max: usize,
    /// How many publishes may wait for Redis; more are refused as [`PublishError::Busy`]. At least 1.
    pub publishes_waiting_max: usize,
    /// How long a publish may wait for its confirmation, and how long connecting may take. More than zero.
    pub command_deadline: Duration,
}

/// Why a [`RedisBroker`] could not be started. Always a matter of its configuration or of this machine; whether
/// Redis can be reached shows later, in [`Broker::link`].
#[derive(Debug, thiserror::Error)]
pub enum RedisConfigError {
    /// The url is none that names a Redis server. Holds what is wrong with it, not the url: it may contain a
    /// password.
    #[error("not a Redis url: {0}")]
    Url(String),
    /// The named bound is zero, which would let nothing through.
    #[error("{0} must be more than zero")]
    Zero(&'static str),
    /// The system did not give the broker its thread.
    #[error("cannot start the broker's thread: {0}")]
    Thread(#[from] io::Error),
}

/// The broker that links nodes through Redis.
///
/// It connects in the background and keeps trying for ever; a node starts and serves while Redis is down. The
/// background thread ends when the handle is dropped, and publishes that still wait fail as
/// [`PublishError::Unavailable`].
///
/// A link on which nothing arrives any more is noticed within 5 seconds. Where Redis can be reached, everything that is
/// wanted is live within 2 seconds and some round trips, or 4 after an attempt to connect that nobody answered.
///
/// A topic that Redis's access rules refuse does not become live; it is asked for again every 10 seconds, and the
/// refusal is logged. The other topics are not held up by it. If it was live before the link was lost, its
/// workers get a [`Delivery::Dropped`](crate::Delivery::Dropped) for what they missed.
pub struct RedisBroker {
    shared: Arc<Shared>,
    publishes: Publishes,
    /// Dropping it ends the thread.
    _running: oneshot::Sender<()>,
}

/// What the handle and the thread both reach.
struct Shared {
    exchange: Mutex<Exchange>,
    changes: Changes,
    totals: Arc<Totals>,
}

/// Where messages, topics and workers meet. Locked once for each message by the broker's thread, and by
/// others only to attach a worker.
struct Exchange {
    workers: Workers,
    table: InterestTable,
    link: LinkState,
    totals: Arc<Totals>,
}

struct LinkState {
    losses: u64,
    last_heard: Instant,
    /// Everything that was published before has arrived, where it was subscribed: when the latest command was
    /// sent that has been answered, because answers and messages keep their order.
    complete_to: Instant,
}

impl RedisConfig {
    /// The defaults for the server at `url`: no prefix, payloads of up to 1 MiB, 10,000 publishes waiting, two
    /// seconds for each.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            topic_prefix: String::new(),
            payload_bytes_max: 1 << 20,
            publishes_waiting_max: 10_000,
            command_deadline: Duration::from_secs(2),
        }
    }

    fn connection_info(&self) -> Result<ConnectionInfo, RedisConfigError> {
        let info = self
            .url
            .as_str()
            .into_connection_info()
            .map_err(|error| RedisConfigError::Url(error.to_string()))?;
        let settings = info
            .redis_settings()
            .clone()
            // Lets messages, confirmations and the answer to a PING share one connection.
            .set_protocol(ProtocolVersion::RESP3)
            // Would be one more command for access rules to allow, and one that Redis 7.0 does not know.
            .set_skip_set_lib_name();
        let tcp_settings = TcpSettings::default()
            .set_nodelay(true)
            .set_keepalive(TcpKeepalive::new().with_time(Duration::from_secs(10)))
            .set_user_timeout(Duration::from_secs(5));
        Ok(info.set_redis_settings(settings).set_tcp_settings(tcp_settings))
    }

    /// Says whether a broker could be started with this, without starting one.
    ///
    /// # Errors
    /// [`RedisConfigError::Url`] or [`RedisConfigError::Zero`].
    pub fn check(&self) -> Result<(), RedisConfigError> {
        self.check_bounds()?;
        self.connection_info().map(drop)
    }

    fn check_bounds(&self) -> Result<(), RedisConfigError> {
        if self.publishes_waiting_max == 0 {
            return Err(RedisConfigError::Zero("publishes_waiting_max"));
        }
        if self.command_deadline.is_zero() {
            return Err(RedisConfigError::Zero("command_deadline"));
        }
        Ok(())
    }
}

impl fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisConfig")
            // The url may contain a password.
            .field("topic_prefix", &self.topic_prefix)
            .field("payload_bytes_max", &self.payload_bytes_max)
            .field("publishes_waiting_max", &self.publishes_waiting_max)
            .field("command_deadline", &self.command_deadline)
            .finish_non_exhaustive()
    }
}

impl RedisBroker {
    /// Starts the broker's thread and returns without waiting for Redis.
    ///
    /// # Errors
    /// When the configuration cannot work, or the system gives no thread.
    pub fn start(config: RedisConfig) -> Result<Arc<Self>, RedisConfigError> {
        config.check_bounds()?;
        let redis = config.connection_info()?;
        // Fails when the process has chosen already, which is as well.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let shared = Arc::new(Shared::new(config.payload_bytes_max));
        let client = Client::open(redis.clone()).map_err(|error| RedisConfigError::Url(error.to_string()))?;
        let supervisor = Supervisor::new(client, &config, Arc::clone(&shared), SmallRng::from_os_rng());
        let (publishes, publisher) = publisher::lane(redis, config, Arc::clone(&shared))?;
        let (running, dropped) = oneshot::channel();
        thread::Builder::new().name("causeway-broker".to_owned()).spawn({
            let down_at_end = DownAtEnd(Arc::clone(&shared));
            move || {
                let pulse = beat(&down_at_end.0.totals);
                run(runtime, supervisor, publisher, pulse, dropped);
            }
        })?;
        Ok(Arc::new(Self { shared, publishes, _running: running }))
    }
}

/// Whatever ends the broker's thread: from then on the link is not called up. A panic ends the whole process, for
/// nobody would tell the workers that their topics are not live any more: a dead node is noticed, a deaf one is not.
struct DownAtEnd(Arc<Shared>);

impl Drop for DownAtEnd {
    fn drop(&mut self) {
        self.0.totals.up.store(false, Relaxed);
        if thread::panicking() {
            tracing::error!("the broker's thread panicked: the node cannot go on");
            process::abort();
        }
    }
}

/// Now, by the runtime's clock: a test can stop it.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Shows for as long as it is polled that the thread comes round to its work.
async fn beat(totals: &Totals) {
    let mut interval = tokio::time::interval(BEAT_INTERVAL);
    loop {
        interval.tick().await;
        totals.pulse.iter().for_each(Pulse::beat);
    }
}

/// The broker's thread, from its first to its last moment.
fn run(
    runtime: Runtime,
    supervisor: Supervisor<Client>,
    publisher: Publisher,
    pulse: impl Future<Output = ()>,
    dropped: oneshot::Receiver<()>,
) {
    runtime.block_on(async {
        tokio::select! {
            _ = dropped => {}
            () = pulse => {}
            () = supervisor.run() => {}
            () = publisher.run() => {}
        }
    });
    // A name that is being looked up on a thread of the runtime's own is not waited for.
    runtime.shutdown_background();
}

impl Broker for RedisBroker {
    fn attach(&self, inbox: Arc<Inbox>) -> WorkerId {
        self.shared.lock().workers.attach(inbox)
    }

    fn change_interest(&self, worker: WorkerId, change: Interest) {
        self.shared.changes.make(worker, change);
    }

    fn publish(&self, topic: Topic, payload: Bytes) -> BoxFuture<'static, Result<(), PublishError>> {
        self.publishes.publish(&topic, payload)
    }

    fn append(&self, log: &Topic, entry: Bytes) -> BoxFuture<'static, Result<(), PublishError>> {
        self.publishes.append(log, entry)
    }

    fn read_log(
        &self,
        log: &Topic,
        after: Option<&LogPlace>,
    ) -> BoxFuture<'static, Result<Vec<(LogPlace, Bytes)>, PublishError>> {
        self.publishes.read_log(log, after)
    }

    fn link(&self) -> LinkReport {
        self.shared.totals.report()
    }
}

impl fmt::Debug for RedisBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisBroker").field("link", &self.link()).finish_non_exhaustive()
    }
}

impl Shared {
    fn new(payload_bytes_max: usize) -> Self {
        let totals = Arc::new(Totals { pulse: Some(Pulse::default()), ..Totals::default() });
        let exchange = Exchange {
            workers: Workers::new(payload_bytes_max, Arc::clone(&totals)),
            table: InterestTable::default(),
            link: LinkState { losses: 0, last_heard: now(), complete_to: now() },
            totals: Arc::clone(&totals),
        };
        Self { exchange: Mutex::new(exchange), changes: Changes::default(), totals }
    }

    fn lock(&self) -> MutexGuard<'_, Exchange> {
        // After a panic under the lock the link is lost like after any other fault, and rebuilt.
        self.exchange.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn last_heard(&self) -> Instant {
        self.lock().link.last_heard
    }
}

impl Exchange {
    fn apply(&mut self, changes: impl Iterator<Item = Change>, now: Instant) {
        for ((worker, topic), wish) in changes {
            match wish {
                None => self.table.leave(worker, topic, now),
                Some(ticket) => {
                    if self.table.want(worker, topic.clone(), ticket) {
                        self.workers.live_for(worker, topic, ticket);
                    }
                }
            }
        }
        self.count_topics();
    }

    fn refused(&mut self, topic: &Topic, now: Instant) {
        if let Some((wanting, since)) = self.table.refused(topic, now) {
            self.workers.dropped(topic, wanting, 0, now.saturating_duration_since(since));
        }
    }

    fn message(&mut self, name: &str, payload: Vec<u8>, now: Instant) {
        if let Some((topic, wanting)) = self.table.wanting(name) {
            self.workers.publication(topic, wanting, payload.into(), now);
        }
    }

    fn confirmed(&mut self, name: &str, now: Instant) {
        if let Some((topic, wanting)) = self.table.confirmed(name, now) {
            self.workers.live(topic, wanting);
        }
    }

    fn link_up(&mut self) {
        self.link.last_heard = now();
        self.link.complete_to = now();
        self.totals.reconnects.store(self.link.losses, Relaxed);
        self.totals.up.store(true, Relaxed);
    }

    /// Returns how long nothing had been heard.
    fn link_lost(&mut self) -> Duration {
        let silent_for = now() - self.link.last_heard;
        self.totals.up.store(false, Relaxed);
        self.link.losses += 1;
        if self.table.lost(self.link.complete_to) {
            self.workers.link_lost(now() - self.link.complete_to);
        }
        self.count_topics();
        silent_for
    }

    fn count_topics(&self) {
        self.totals.topics.store(self.table.len() as u64, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::env;
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, Stdio};

    use super::*;

    /// Set in the process that is to die.
    const IN_CHILD: &str = "CAUSEWAY_TEST_PANICS";

    #[test]
    fn a_panic_of_the_thread_ends_the_process() {
        if env::var_os(IN_CHILD).is_some() {
            let _end = DownAtEnd(Arc::new(Shared::new(0)));
            panic!("as the broker's thread might");
        }
        let status = Command::new(env::current_exe().unwrap())
            .args(["--exact", "redis_broker::tests::a_panic_of_the_thread_ends_the_process"])
            .env(IN_CHILD, "yes")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert_eq!(status.signal(), Some(6), "SIGABRT, not {status}");
    }

    #[test]
    fn an_end_without_panic_only_says_that_the_link_is_down() {
        let shared = Arc::new(Shared::new(0));
        shared.lock().link_up();
        drop(DownAtEnd(Arc::clone(&shared)));
        assert!(!shared.totals.report().up);
    }
}
