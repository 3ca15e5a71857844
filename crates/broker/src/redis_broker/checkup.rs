//! A look at Redis from outside the running broker: whether it lets us do what the broker needs, and how it is set.
//!
//! Everything is tried for real, on a reserved channel that no broker listens to and a log that none keeps: what Redis's access rules say is
//! known best by who keeps to them. Nothing here judges what is found.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use causeway_protocol::Topic;
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, Cmd, FromRedisValue, RedisError, RedisResult, ServerErrorKind, Value, cmd,
};
use tokio::time;

use super::{RedisConfig, RedisConfigError};

/// The topic whose channel is tried where no other is named, and the log that is.
const TRIED_TOPIC: &str = "_causeway.doctor";

/// What was found.
#[derive(Clone, Debug)]
pub struct RedisCheckup {
    /// How long a PING took.
    pub round_trip: Duration,
    /// What the server calls its version, in its greeting.
    pub version: Option<String>,
    /// The user we are (`ACL WHOAMI`).
    pub user: Asked<String>,
    /// What happens to slow readers (`CONFIG GET client-output-buffer-limit`).
    pub output_buffer_limit: Asked<String>,
    /// How far Redis's clock is ahead of ours, in milliseconds, give or take half a round trip (`TIME`).
    pub clock_ahead_ms: Asked<i64>,
    /// Of each command that the broker needs, whether we may.
    pub rights: Vec<Right>,
}

/// One command, tried.
#[derive(Clone, Debug)]
pub struct Right {
    /// The command.
    pub command: &'static str,
    /// The channel or key that it was tried on; commands without one stand with the channel.
    pub place: String,
    /// Redis's refusal, if it refused.
    pub refusal: Option<String>,
}

/// The answer to a question that Redis may refuse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked<T> {
    /// It answered.
    Told(T),
    /// Our user may not ask this.
    NotAllowed,
    /// Something else came, as described.
    Unclear(String),
}

/// Why nothing could be found.
#[derive(Debug, thiserror::Error)]
pub enum RedisCheckupError {
    /// The configuration cannot work.
    #[error(transparent)]
    Config(#[from] RedisConfigError),
    /// Redis could not be reached, or refused us, or went away meanwhile.
    #[error("{0}")]
    Unreachable(String),
    /// It accepted, and then did not answer in time.
    #[error("no answer within {0:?}")]
    Silent(Duration),
}

impl RedisCheckup {
    /// Looks at the Redis of `config`, trying the channel of `topic` (of a reserved one, where none is named: what
    /// is published there goes to nobody). Takes a few of its command deadlines at the most, and is to be polled
    /// within a tokio runtime.
    ///
    /// # Errors
    /// When Redis cannot be talked to at all.
    pub async fn of(config: &RedisConfig, topic: Option<&Topic>) -> Result<Self, RedisCheckupError> {
        config.check()?;
        let deadline = config.command_deadline;
        let name = |topic: &str| format!("{}{topic}", config.topic_prefix);
        let (channel, log) = (name(topic.map_or(TRIED_TOPIC, Topic::as_str)), name(TRIED_TOPIC));
        let connection = connect(config).await?;
        let whole = Self::ask(connection, &channel, &log, deadline);
        time::timeout(deadline, whole).await.unwrap_or(Err(RedisCheckupError::Silent(deadline)))
    }

    async fn ask(
        mut redis: MultiplexedConnection,
        channel: &str,
        log: &str,
        deadline: Duration,
    ) -> Result<Self, RedisCheckupError> {
        let since = Instant::now();
        let ping = refusal(&mut redis, &cmd("PING")).await?;
        let round_trip = since.elapsed().min(deadline);
        let right = |place: &str, command, refusal| Right { command, place: place.to_owned(), refusal };
        let rights = vec![
            right(channel, "PING", ping),
            right(channel, "SUBSCRIBE", refusal(&mut redis, cmd("SUBSCRIBE").arg(channel)).await?),
            right(channel, "UNSUBSCRIBE", refusal(&mut redis, cmd("UNSUBSCRIBE").arg(channel)).await?),
            right(channel, "PUBLISH", refusal(&mut redis, cmd("PUBLISH").arg(channel).arg("")).await?),
            // What the pool of the publishing side tries a connection out with.
            right(channel, "UNWATCH", refusal(&mut redis, &cmd("UNWATCH")).await?),
            right(log, "XADD", append_refusal(&mut redis, log).await?),
            right(log, "XRANGE", refusal(&mut redis, cmd("XRANGE").arg(log).arg("-").arg("+")).await?),
        ];
        Ok(Self {
            round_trip,
            version: version(&mut redis).await,
            user: asked(&mut redis, cmd("ACL").arg("WHOAMI"), |user: String| user).await,
            output_buffer_limit: asked(
                &mut redis,
                cmd("CONFIG").arg("GET").arg("client-output-buffer-limit"),
                |found: HashMap<String, String>| found.into_values().collect(),
            )
            .await,
            clock_ahead_ms: clock_ahead(&mut redis).await,
            rights,
        })
    }
}

async fn connect(config: &RedisConfig) -> Result<MultiplexedConnection, RedisCheckupError> {
    // Fails when the process has chosen already, which is as well.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let client = Client::open(config.connection_info()?).map_err(|error| unreachable(&error))?;
    let connecting = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(config.command_deadline))
        .set_response_timeout(None)
        // The confirmations of SUBSCRIBE come unasked and are passed over.
        .set_push_sender(|_| Ok::<_, redis::aio::SendError>(()));
    client
        .get_multiplexed_async_connection_with_config(&connecting)
        .await
        .map_err(|error| unreachable(&error))
}

/// What Redis says against a command, if anything. A broken link is no refusal.
async fn refusal(
    redis: &mut MultiplexedConnection,
    command: &Cmd,
) -> Result<Option<String>, RedisCheckupError> {
    match command.query_async::<Value>(redis).await {
        Ok(_) => Ok(None),
        Err(error) if error.code().is_some() => Ok(Some(error.to_string())),
        Err(error) => Err(unreachable(&error)),
    }
}

/// What Redis says against appending to this log. No entry may stand at 0-0, so nothing is left behind.
async fn append_refusal(
    redis: &mut MultiplexedConnection,
    log: &str,
) -> Result<Option<String>, RedisCheckupError> {
    match cmd("XADD").arg(log).arg("0-0").arg("entry").arg("").query_async::<Value>(redis).await {
        Err(error) if is_forbidden(&error) => Ok(Some(error.to_string())),
        Err(error) if error.code().is_none() => Err(unreachable(&error)),
        _ => Ok(None),
    }
}

/// What a question is answered, as far as it is.
async fn asked<A: FromRedisValue, T>(
    redis: &mut MultiplexedConnection,
    question: &Cmd,
    understand: impl FnOnce(A) -> T,
) -> Asked<T> {
    match question.query_async(redis).await {
        Ok(answer) => Asked::Told(understand(answer)),
        Err(error) if is_forbidden(&error) => Asked::NotAllowed,
        Err(error) => Asked::Unclear(error.to_string()),
    }
}

/// The greeting, which every user may ask for and which names the version.
async fn version(redis: &mut MultiplexedConnection) -> Option<String> {
    let greeting: RedisResult<HashMap<String, Value>> = cmd("HELLO").query_async(redis).await;
    let version = greeting.ok()?.remove("version")?;
    String::from_redis_value(version).ok()
}

/// Redis answered between sending and receiving: its time is compared with the middle.
async fn clock_ahead(redis: &mut MultiplexedConnection) -> Asked<i64> {
    let before = now_ms();
    let time =
        asked(redis, &cmd("TIME"), |(seconds, micros): (i64, i64)| seconds * 1000 + micros / 1000).await;
    let middle = before + (now_ms() - before) / 2;
    match time {
        Asked::Told(theirs) => Asked::Told(theirs - middle),
        other => other,
    }
}

fn now_ms() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)
}

fn is_forbidden(error: &RedisError) -> bool {
    matches!(error.kind(), redis::ErrorKind::Server(ServerErrorKind::NoPerm))
}

fn unreachable(error: &RedisError) -> RedisCheckupError {
    RedisCheckupError::Unreachable(error.to_string())
}
