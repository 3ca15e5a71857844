//! Configuration as given: the keys of the file, the environment and the flags, defaults filled in.
//!
//! Nothing later sees these values; [`Config`](super::Config) is made of them.

use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;
use causeway_hub::HubLimits;
use causeway_protocol::frame::FrameLimits;
use figment::Figment;
use figment::error::Kind;
use ipnet::IpNet;
use jsonwebtoken::Algorithm;
use serde::{Deserialize, Serialize};

use super::{ConfigError, Sources};

/// Prefix of environment variables that configure; `__` goes one table down.
pub const ENV_PREFIX: &str = "CAUSEWAY_";

/// Everything that was given, defaults filled in. Its field names are the keys of the file; serialized, it is
/// the effective configuration with secrets masked.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Given {
    /// The public listener.
    pub listen: SocketAddr,
    /// The listener for operators: health and metrics.
    pub admin_listen: SocketAddr,
    /// Worker threads; by default one per core.
    pub workers: usize,
    /// How the node calls itself in welcomes and logs; by default the host's name.
    pub node: String,
    /// Networks whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Origins of pages that may connect; `*` allows any.
    pub allowed_origins: Vec<String>,
    /// Who may act on the admin listener.
    pub admin: AdminGiven,
    /// The broker between nodes.
    pub redis: RedisGiven,
    /// Who is let in.
    pub auth: AuthGiven,
    /// What one client, and all together, may cost.
    pub limits: LimitsGiven,
    /// What is sent in fewer bytes.
    pub compression: CompressionGiven,
    /// How silent clients are noticed.
    pub heartbeat: HeartbeatGiven,
    /// How the node stops.
    pub drain: DrainGiven,
    /// What is logged.
    pub log: LogGiven,
    /// What is counted.
    pub metrics: MetricsGiven,
    /// What is traced.
    pub traces: TracesGiven,
}

/// `[admin]`
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdminGiven {
    /// What whoever acts must present as `Authorization: Bearer`. Without one, only loopback may act.
    pub token: Option<Secret>,
    /// A file with that token; a line break at its end does not count.
    pub token_file: Option<PathBuf>,
}

/// `[redis]`
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RedisGiven {
    /// Without one, the embedded in-process broker serves this node alone.
    pub url: Option<Secret>,
    /// Put before every topic to name its Redis channel.
    pub topic_prefix: String,
}

/// `[auth]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuthGiven {
    /// The required `iss`.
    pub issuer: Option<String>,
    /// The required `aud`.
    pub audience: Option<String>,
    /// Claims that tokens must have besides `sub` and `exp`.
    pub required_claims: Vec<String>,
    /// How far clocks may be apart.
    #[serde(with = "humantime_serde")]
    pub leeway: Duration,
    /// Also take the token from this cookie; an allowed `Origin` is then compulsory.
    pub cookie: Option<String>,
    /// Also take the token from `?access_token=`.
    pub query_token: bool,
    /// The keys tokens may be signed with.
    pub keys: Vec<KeyGiven>,
    /// More issuers, each with its own keys.
    pub issuers: Vec<IssuerGiven>,
}

/// `[[auth.issuers]]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssuerGiven {
    /// The `iss` of its tokens.
    pub issuer: String,
    /// The required `aud` of its tokens.
    pub audience: Option<String>,
    /// Claims its tokens must have besides.
    #[serde(default)]
    pub required_claims: Vec<String>,
    /// The keys its tokens may be signed with.
    pub keys: Vec<KeyGiven>,
}

/// `[[auth.keys]]` and `[[auth.issuers.keys]]`: one key, or a JWK set.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyGiven {
    /// Matched with a token's `kid`.
    pub kid: Option<String>,
    /// The one algorithm the key is for.
    pub algorithm: Option<Algorithm>,
    /// The secret of an HMAC key.
    pub secret: Option<Secret>,
    /// A file with that secret; a line break at its end does not count.
    pub secret_file: Option<PathBuf>,
    /// The public key of any other algorithm, in PEM.
    pub public_key_file: Option<PathBuf>,
    /// Where the issuer publishes its keys.
    pub jwks_url: Option<String>,
    /// A file with published keys.
    pub jwks_file: Option<PathBuf>,
    /// The algorithms that published keys may be for.
    pub algorithms: Option<Vec<Algorithm>>,
    /// How often published keys are fetched without anybody asking.
    #[serde(default, with = "humantime_serde::option")]
    pub refresh: Option<Duration>,
}

/// `[limits]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsGiven {
    /// Connections of the node.
    pub connections: usize,
    /// Connections of one client address.
    pub connections_per_ip: usize,
    /// Upgrades of one client address, a second.
    pub upgrades_per_ip_per_second: NonZeroU32,
    /// Upgrades of one client address at once.
    pub upgrades_per_ip_burst: NonZeroU32,
    /// Topics of one connection.
    pub topics_per_connection: usize,
    /// The longest message, from a client or from Redis.
    pub message_bytes: ByteSize,
    /// The most fragments of one message.
    pub message_fragments: u32,
    /// Bytes that may wait for one connection.
    pub outbox_bytes: ByteSize,
    /// Memory of what may wait on the node; a quarter of it bounds what waits in front of the workers.
    pub outbox_bytes_total: ByteSize,
    /// Commands of one connection, a second.
    pub commands_per_second: NonZeroU32,
    /// Commands of one connection at once.
    pub commands_burst: NonZeroU32,
}

/// `[compression]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CompressionGiven {
    /// Whether permessage-deflate (RFC 7692) is agreed on with clients that offer it.
    pub enabled: bool,
    /// The shortest message that is sent compressed.
    pub min_bytes: ByteSize,
}

/// `[heartbeat]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HeartbeatGiven {
    /// How often each connection is pinged.
    #[serde(with = "humantime_serde")]
    pub ping_interval: Duration,
    /// How long a ping may go unanswered.
    #[serde(with = "humantime_serde")]
    pub pong_timeout: Duration,
}

/// `[drain]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DrainGiven {
    /// Between being told to stop and the first close, so that load balancers notice.
    #[serde(with = "humantime_serde")]
    pub lead_time: Duration,
    /// Over how long the closes are spread.
    #[serde(with = "humantime_serde")]
    pub window: Duration,
}

/// `[log]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogGiven {
    /// For people or for machines.
    pub format: LogFormat,
    /// `error`, `warn`, `info`, `debug`, or filters such as `info,causeway_broker=debug`.
    pub level: String,
}

/// `[metrics]`
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MetricsGiven {
    /// Topics to be counted apart. A topic is of the first class whose pattern it matches.
    pub topic_classes: Vec<TopicClassGiven>,
}

/// `[[metrics.topic_classes]]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TopicClassGiven {
    /// The value of the `class` label.
    pub name: String,
    /// Which topics, as in a token's claims.
    pub pattern: String,
}

/// `[traces]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TracesGiven {
    /// Where an OpenTelemetry collector takes traces. Without one, there are none.
    pub endpoint: Option<String>,
    /// The share of the traces that begin here to be sent there.
    pub sample_ratio: f64,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// A value that is never shown.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Serialize for Secret {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("***")
    }
}

impl Default for Given {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            admin_listen: SocketAddr::from(([127, 0, 0, 1], 9090)),
            workers: std::thread::available_parallelism().map_or(1, usize::from),
            node: host_name(),
            trusted_proxies: Vec::new(),
            allowed_origins: Vec::new(),
            admin: AdminGiven::default(),
            redis: RedisGiven::default(),
            auth: AuthGiven::default(),
            limits: LimitsGiven::default(),
            compression: CompressionGiven::default(),
            heartbeat: HeartbeatGiven::default(),
            drain: DrainGiven::default(),
            log: LogGiven::default(),
            metrics: MetricsGiven::default(),
            traces: TracesGiven::default(),
        }
    }
}

impl Default for AuthGiven {
    fn default() -> Self {
        Self {
            issuer: None,
            audience: None,
            required_claims: Vec::new(),
            leeway: Duration::from_secs(5),
            cookie: None,
            query_token: false,
            keys: Vec::new(),
            issuers: Vec::new(),
        }
    }
}

impl Default for LimitsGiven {
    fn default() -> Self {
        let hub = HubLimits::default();
        let count = |n| NonZeroU32::new(n).expect("the defaults are not zero");
        Self {
            connections: 100_000,
            connections_per_ip: 200,
            upgrades_per_ip_per_second: count(20),
            upgrades_per_ip_burst: count(100),
            topics_per_connection: hub.topics_per_session,
            message_bytes: ByteSize(hub.publish_bytes as u64),
            message_fragments: FrameLimits::default().fragments_max,
            outbox_bytes: ByteSize(hub.outbox_bytes as u64),
            outbox_bytes_total: ByteSize::gib(1),
            commands_per_second: count(hub.commands_per_second),
            commands_burst: count(hub.commands_burst),
        }
    }
}

impl Default for CompressionGiven {
    fn default() -> Self {
        Self { enabled: false, min_bytes: ByteSize(HubLimits::default().deflate_bytes_min as u64) }
    }
}

impl Default for HeartbeatGiven {
    fn default() -> Self {
        let hub = HubLimits::default();
        Self { ping_interval: hub.ping_interval, pong_timeout: hub.pong_timeout }
    }
}

impl Default for DrainGiven {
    fn default() -> Self {
        Self { lead_time: Duration::from_secs(2), window: Duration::from_secs(10) }
    }
}

impl Default for LogGiven {
    fn default() -> Self {
        Self { format: LogFormat::Text, level: "info".to_owned() }
    }
}

impl Default for TracesGiven {
    fn default() -> Self {
        Self { endpoint: None, sample_ratio: 1.0 }
    }
}

/// Flags of the command line that override everything else.
#[derive(Clone, Debug, Default, clap::Args, Serialize)]
pub struct Overrides {
    /// Public address
    #[arg(long, value_name = "ADDR:PORT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,
    /// Address for health and metrics
    #[arg(long, value_name = "ADDR:PORT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin_listen: Option<SocketAddr>,
    /// Redis to bridge to
    #[arg(long, value_name = "URL")]
    #[serde(skip)]
    pub redis_url: Option<String>,
}

impl Given {
    /// Reads `file` (if one is named), the environment, and the flags.
    ///
    /// # Errors
    /// [`ConfigError::Unreadable`] with the key, the value and what was expected.
    pub fn read(file: Option<&Path>, flags: &Overrides) -> Result<Self, ConfigError> {
        Ok(Sources::new(file, flags).read()?.given)
    }

    pub(super) fn extract(figment: &Figment) -> Result<Self, ConfigError> {
        figment.extract().map_err(|error: figment::Error| ConfigError::Unreadable(describe(figment, &error)))
    }
}

/// The key, what it was (unless it is a secret), and what is wrong with it.
fn describe(figment: &Figment, error: &figment::Error) -> String {
    let key = error.path.join(".");
    let is_secret =
        error.path.first().is_some_and(|table| ["admin", "auth", "redis"].contains(&table.as_str()));
    let fault = match &error.kind {
        // These repeat what was found.
        Kind::InvalidType(_, expected) | Kind::InvalidValue(_, expected) if is_secret => {
            format!("expected {expected}")
        }
        kind => kind.to_string(),
    };
    // An entry of a list has a path of its own but cannot be looked up by it: the list is shown.
    let mut paths = (1..=error.path.len()).rev().map(|len| error.path[..len].join("."));
    let found = paths.find_map(|path| figment.find_value(&path).ok()).filter(|_| !is_secret);
    let found = found.and_then(|value| toml::Value::try_from(&value).ok()).map(|value| format!(" = {value}"));
    let place = error.metadata.as_ref().map(|metadata| format!(" ({})", metadata.name)).unwrap_or_default();
    let separator = if key.is_empty() { "" } else { ": " };
    format!("{key}{}{separator}{fault}{place}", found.unwrap_or_default())
}

fn host_name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "causeway".to_owned() } else { name.to_owned() }
}
