//! Configuration: from what was given (a TOML file, the environment, flags) to what is meant, in one place and
//! once, before anything starts.
//!
//! Later sources override earlier ones key by key. A bad value names its key, what it was and what was
//! expected. Zero never means unlimited.

use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;
use causeway_broker::RedisConfig;
use causeway_hub::HubLimits;
use causeway_protocol::frame::FrameLimits;
use figment::Figment;
use figment::error::Kind;
use figment::providers::{Env, Format, Serialized, Toml};
use ipnet::IpNet;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};
use serde::{Deserialize, Serialize};

use crate::admission::AdmissionLimits;
use crate::origin::AllowedOrigins;
use crate::token::{TokenRules, VerifyingKey};

/// Prefix of environment variables that configure; `__` goes one table down.
pub const ENV_PREFIX: &str = "CAUSEWAY_";
/// What one message in an inbox costs besides its payload, generously.
const INBOX_ITEM_BYTES: usize = 1024;
/// The shortest secret of an HMAC key, in bytes (RFC 7518 §3.2).
const SECRET_BYTES_MIN: usize = 32;

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
    /// The broker between nodes.
    pub redis: RedisGiven,
    /// Who is let in.
    pub auth: AuthGiven,
    /// What one client, and all together, may cost.
    pub limits: LimitsGiven,
    /// How silent clients are noticed.
    pub heartbeat: HeartbeatGiven,
    /// How the node stops.
    pub drain: DrainGiven,
    /// What is logged.
    pub log: LogGiven,
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
    /// How far clocks may be apart.
    #[serde(with = "humantime_serde")]
    pub leeway: Duration,
    /// Also take the token from this cookie; an allowed `Origin` is then compulsory.
    pub cookie: Option<String>,
    /// Also take the token from `?access_token=`.
    pub query_token: bool,
    /// The keys tokens may be signed with.
    pub keys: Vec<KeyGiven>,
}

/// `[[auth.keys]]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyGiven {
    /// Matched with a token's `kid`.
    pub kid: String,
    /// The one algorithm the key is for.
    pub algorithm: Algorithm,
    /// The secret of an HMAC key.
    pub secret: Option<Secret>,
    /// A file with that secret; a line break at its end does not count.
    pub secret_file: Option<PathBuf>,
    /// The public key of any other algorithm, in PEM.
    pub public_key_file: Option<PathBuf>,
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
    /// Bytes that may wait on the node; a quarter of it bounds what waits in front of the workers.
    pub outbox_bytes_total: ByteSize,
    /// Commands of one connection, a second.
    pub commands_per_second: NonZeroU32,
    /// Commands of one connection at once.
    pub commands_burst: NonZeroU32,
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
            redis: RedisGiven::default(),
            auth: AuthGiven::default(),
            limits: LimitsGiven::default(),
            heartbeat: HeartbeatGiven::default(),
            drain: DrainGiven::default(),
            log: LogGiven::default(),
        }
    }
}

impl Default for AuthGiven {
    fn default() -> Self {
        Self {
            issuer: None,
            audience: None,
            leeway: Duration::from_secs(5),
            cookie: None,
            query_token: false,
            keys: Vec::new(),
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

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file or the environment cannot be read as keys and values of their kind.
    #[error("{0}")]
    Unreadable(String),
    /// A value that can be read makes no sense.
    #[error("{key}: {found}; expected {expected}")]
    BadValue {
        /// The key, as in the file.
        key: String,
        /// What was found.
        found: String,
        /// What was expected.
        expected: &'static str,
    },
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
    pub fn read(file: Option<&Path>, overrides: &Overrides) -> Result<Self, ConfigError> {
        let mut figment = Figment::new();
        if let Some(file) = file {
            figment = figment.merge(Toml::file_exact(file));
        }
        figment = figment.merge(environment()).merge(Serialized::defaults(overrides));
        if let Some(url) = &overrides.redis_url {
            figment = figment.merge(Serialized::default("redis.url", url));
        }
        Self::extract(&figment)
    }

    fn extract(figment: &Figment) -> Result<Self, ConfigError> {
        figment.extract().map_err(|error: figment::Error| ConfigError::Unreadable(describe(figment, &error)))
    }
}

/// The key, what it was (unless it is a secret), and what is wrong with it.
fn describe(figment: &Figment, error: &figment::Error) -> String {
    let key = error.path.join(".");
    let is_secret = error.path.first().is_some_and(|table| ["auth", "redis"].contains(&table.as_str()));
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

/// The environment variables that are ours: an orchestrator adds others with the same prefix, such as
/// `CAUSEWAY_SERVICE_HOST` for a Kubernetes service of that name.
fn environment() -> Env {
    const TOP: &[&str] = &[
        "listen",
        "admin_listen",
        "workers",
        "node",
        "trusted_proxies",
        "allowed_origins",
        "redis",
        "auth",
        "limits",
        "heartbeat",
        "drain",
        "log",
    ];
    let top_of = |key: &str| key.split("__").next().unwrap_or_default().to_ascii_lowercase();
    Env::prefixed(ENV_PREFIX).filter(move |key| TOP.contains(&top_of(key.as_str()).as_str())).split("__")
}

/// What is meant.
#[derive(Debug)]
pub struct Config {
    /// The public listener.
    pub listen: SocketAddr,
    /// The listener for operators.
    pub admin_listen: SocketAddr,
    /// Worker threads, at least one.
    pub workers: usize,
    /// How the node calls itself.
    pub node: Box<str>,
    /// Networks whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Pages that may connect.
    pub allowed_origins: AllowedOrigins,
    /// Where Redis is; without it the node stands alone.
    pub redis: Option<RedisConfig>,
    /// The keys and what tokens must look like.
    pub auth: Auth,
    /// Who is let in.
    pub admission: AdmissionLimits,
    /// What one session may cost.
    pub hub: HubLimits,
    /// What one message may cost.
    pub frames: FrameLimits,
    /// Bytes that may wait in front of one worker.
    pub inbox_bytes: usize,
    /// How the node stops.
    pub drain: DrainGiven,
}

/// Tokens, as meant.
pub struct Auth {
    /// The keys tokens may be signed with; at least one.
    pub keys: Vec<VerifyingKey>,
    /// What tokens must look like.
    pub rules: TokenRules,
    /// The cookie that may carry a token.
    pub cookie: Option<String>,
    /// Whether the query may carry one.
    pub query_token: bool,
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Auth")
            .field("rules", &self.rules)
            .field("keys", &self.keys.len())
            .finish_non_exhaustive()
    }
}

impl TryFrom<&Given> for Config {
    type Error = ConfigError;

    fn try_from(given: &Given) -> Result<Self, ConfigError> {
        let limits = &given.limits;
        let message_bytes = size("limits.message_bytes", limits.message_bytes, "1B to 16MiB", 1..=16 << 20)?;
        let outbox_bytes =
            size("limits.outbox_bytes", limits.outbox_bytes, "1KiB to 1GiB", 1 << 10..=1 << 30)?;
        let total =
            size("limits.outbox_bytes_total", limits.outbox_bytes_total, "at least 1MiB", 1 << 20..=1 << 50)?;
        // What waits in front of the workers is a quarter of all that may wait.
        let inbox_bytes = total / 4 / given.workers.max(1);
        if inbox_bytes < message_bytes + INBOX_ITEM_BYTES {
            let expected =
                "room for a message of limits.message_bytes in a quarter of it, for each of the workers";
            return Err(bad("limits.outbox_bytes_total", limits.outbox_bytes_total, expected));
        }
        if outbox_bytes < message_bytes {
            return Err(bad("limits.outbox_bytes", limits.outbox_bytes, "at least limits.message_bytes"));
        }
        check_positive("workers", given.workers)?;
        check_positive("limits.connections", limits.connections)?;
        check_positive("limits.connections_per_ip", limits.connections_per_ip)?;
        check_positive("limits.topics_per_connection", limits.topics_per_connection)?;
        check_positive("limits.message_fragments", limits.message_fragments as usize)?;
        let ping_interval = second_or_more("heartbeat.ping_interval", given.heartbeat.ping_interval)?;
        Ok(Self {
            listen: given.listen,
            admin_listen: given.admin_listen,
            workers: given.workers,
            node: given.node.as_str().into(),
            trusted_proxies: given.trusted_proxies.clone(),
            allowed_origins: origins(given)?,
            redis: redis(&given.redis, message_bytes)?,
            auth: given.auth.meant()?,
            admission: AdmissionLimits {
                connections: limits.connections,
                connections_per_ip: limits.connections_per_ip,
                upgrades_per_ip_per_second: limits.upgrades_per_ip_per_second,
                upgrades_per_ip_burst: limits.upgrades_per_ip_burst,
            },
            hub: HubLimits {
                topics_per_session: limits.topics_per_connection,
                outbox_bytes,
                publish_bytes: message_bytes,
                commands_per_second: limits.commands_per_second.get(),
                commands_burst: limits.commands_burst.get(),
                ping_interval,
                pong_timeout: second_or_more("heartbeat.pong_timeout", given.heartbeat.pong_timeout)?,
                ..HubLimits::default()
            },
            frames: FrameLimits { message_bytes_max: message_bytes, fragments_max: limits.message_fragments },
            inbox_bytes,
            drain: DrainGiven {
                lead_time: at_most_a_day("drain.lead_time", given.drain.lead_time)?,
                window: at_most_a_day("drain.window", given.drain.window)?,
            },
        })
    }
}

impl AuthGiven {
    fn meant(&self) -> Result<Auth, ConfigError> {
        if self.keys.is_empty() {
            return Err(bad("auth.keys", "none", "at least one [[auth.keys]] table"));
        }
        let mut keys: Vec<VerifyingKey> = Vec::new();
        for (at, key) in self.keys.iter().enumerate() {
            if keys.iter().any(|other| *other.kid == *key.kid) {
                return Err(bad(&format!("auth.keys[{at}].kid"), &key.kid, "a name that no other key has"));
            }
            keys.push(key.verifying(at)?);
        }
        Ok(Auth {
            keys,
            rules: TokenRules {
                issuer: self.issuer.clone(),
                audience: self.audience.clone(),
                leeway: self.leeway,
            },
            cookie: self.cookie.clone(),
            query_token: self.query_token,
        })
    }
}

impl KeyGiven {
    fn verifying(&self, at: usize) -> Result<VerifyingKey, ConfigError> {
        let table = format!("auth.keys[{at}]");
        let is_kid = |kid: &str| {
            (1..=64).contains(&kid.len())
                && kid.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
        };
        if !is_kid(&self.kid) {
            return Err(bad(&format!("{table}.kid"), &self.kid, "1 to 64 of A-Z a-z 0-9 _ - ."));
        }
        let key = match self.is_hmac() {
            true => DecodingKey::from_secret(self.hmac_secret(&table)?.as_bytes()),
            false => self.public_key(&table)?,
        };
        Ok(VerifyingKey { kid: self.kid.as_str().into(), algorithm: self.algorithm, key })
    }

    /// The key to sign with, for a key that can.
    ///
    /// # Errors
    /// [`ConfigError::BadValue`] where the key is a public one.
    pub fn signing(&self, at: usize) -> Result<EncodingKey, ConfigError> {
        let table = format!("auth.keys[{at}]");
        if !self.is_hmac() {
            return Err(bad(
                &format!("{table}.algorithm"),
                format!("{:?}", self.algorithm),
                "an HMAC key, which can sign",
            ));
        }
        Ok(EncodingKey::from_secret(self.hmac_secret(&table)?.as_bytes()))
    }

    fn is_hmac(&self) -> bool {
        matches!(self.algorithm, Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512)
    }

    fn hmac_secret(&self, table: &str) -> Result<String, ConfigError> {
        let secret = match (&self.secret, &self.secret_file, &self.public_key_file) {
            (Some(Secret(secret)), None, None) => secret.clone(),
            (None, Some(file), None) => {
                read(&format!("{table}.secret_file"), file)?.trim_end_matches(['\r', '\n']).to_owned()
            }
            _ => return Err(bad(table, "an HMAC key", "either secret or secret_file, and nothing else")),
        };
        if secret.len() < SECRET_BYTES_MIN {
            let found = format!("a secret of {} bytes", secret.len());
            return Err(bad(&format!("{table}.secret"), found, "at least 32 bytes"));
        }
        Ok(secret)
    }

    fn public_key(&self, table: &str) -> Result<DecodingKey, ConfigError> {
        let (None, None, Some(file)) = (&self.secret, &self.secret_file, &self.public_key_file) else {
            return Err(bad(
                table,
                format!("a key for {:?}", self.algorithm),
                "public_key_file, and nothing else",
            ));
        };
        let key = format!("{table}.public_key_file");
        let pem = read(&key, file)?;
        let decoded = match self.algorithm {
            Algorithm::ES256 | Algorithm::ES384 => DecodingKey::from_ec_pem(pem.as_bytes()),
            Algorithm::EdDSA => DecodingKey::from_ed_pem(pem.as_bytes()),
            _ => DecodingKey::from_rsa_pem(pem.as_bytes()),
        };
        decoded.map_err(|_| bad(&key, file.display(), "a public key in PEM for this algorithm"))
    }
}

fn redis(given: &RedisGiven, message_bytes: usize) -> Result<Option<RedisConfig>, ConfigError> {
    let Some(Secret(url)) = &given.url else { return Ok(None) };
    let config = RedisConfig {
        topic_prefix: given.topic_prefix.clone(),
        payload_bytes_max: message_bytes,
        ..RedisConfig::new(url)
    };
    config.check().map_err(|error| bad("redis.url", error, "redis://[user:password@]host[:port][/db]"))?;
    Ok(Some(config))
}

fn origins(given: &Given) -> Result<AllowedOrigins, ConfigError> {
    let (given, cookie) = (&given.allowed_origins, &given.auth.cookie);
    if given.iter().any(|origin| origin == "*") {
        return match cookie {
            // Any page could use its visitors' cookies.
            Some(cookie) => Err(bad("auth.cookie", cookie, "allowed_origins that name the pages, not *")),
            None => Ok(AllowedOrigins::Any),
        };
    }
    let is_origin = |origin: &str| match origin.split_once("://") {
        Some((scheme, host)) => !scheme.is_empty() && !host.is_empty() && !host.contains('/'),
        None => false,
    };
    if let Some(origin) = given.iter().find(|origin| !is_origin(origin)) {
        return Err(bad("allowed_origins", origin, "scheme://host[:port] without a path, or *"));
    }
    Ok(AllowedOrigins::Only(given.iter().map(|origin| origin.as_str().into()).collect()))
}

fn size(
    key: &str,
    given: ByteSize,
    expected: &'static str,
    allowed: std::ops::RangeInclusive<u64>,
) -> Result<usize, ConfigError> {
    let bytes = given.as_u64();
    let fits = usize::try_from(bytes).ok().filter(|_| allowed.contains(&bytes));
    fits.ok_or_else(|| bad(key, given, expected))
}

fn second_or_more(key: &str, given: Duration) -> Result<Duration, ConfigError> {
    let is_meant = (1..=86_400).contains(&given.as_secs());
    is_meant.then_some(given).ok_or_else(|| bad(key, format!("{given:?}"), "1s to 1day"))
}

fn at_most_a_day(key: &str, given: Duration) -> Result<Duration, ConfigError> {
    (given.as_secs() <= 86_400).then_some(given).ok_or_else(|| bad(key, format!("{given:?}"), "0s to 1day"))
}

fn check_positive(key: &str, given: usize) -> Result<(), ConfigError> {
    (given > 0).then_some(()).ok_or_else(|| bad(key, given, "at least 1"))
}

fn read(key: &str, file: &Path) -> Result<String, ConfigError> {
    fs::read_to_string(file)
        .map_err(|error| bad(key, format!("{}: {error}", file.display()), "a file that can be read"))
}

fn bad(key: &str, found: impl fmt::Display, expected: &'static str) -> ConfigError {
    ConfigError::BadValue { key: key.to_owned(), found: found.to_string(), expected }
}

fn host_name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "causeway".to_owned() } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "[[auth.keys]]\nkid = 'main'\nalgorithm = 'HS256'\nsecret = 'a secret of at least thirty-two bytes'\n";

    fn config(toml: &str) -> Result<Config, ConfigError> {
        let given = Given::extract(&Figment::from(Toml::string(&format!("{toml}\n{KEY}"))))?;
        Config::try_from(&given)
    }

    #[test]
    fn the_defaults_are_enough_but_for_a_key() {
        let config = config("").unwrap();
        assert!(config.redis.is_none());
        assert_eq!(config.hub, HubLimits::default());
        assert_eq!(config.frames, FrameLimits::default());
        assert!(matches!(config.allowed_origins, AllowedOrigins::Only(origins) if origins.is_empty()));
        let error = Config::try_from(&Given::default()).unwrap_err();
        assert_eq!(error.to_string(), "auth.keys: none; expected at least one [[auth.keys]] table");
    }

    #[test]
    fn units_are_understood() {
        let config =
            config("[limits]\nmessage_bytes = '2KiB'\n[heartbeat]\nping_interval = '1m 30s'").unwrap();
        assert_eq!(config.frames.message_bytes_max, 2048);
        assert_eq!(config.hub.ping_interval, Duration::from_secs(90));
    }

    #[test]
    fn a_bad_value_names_its_key_what_it_was_and_what_was_expected() {
        for (toml, words) in [
            ("lisen = '127.0.0.1:1'", &["lisen", "expected", "`listen`"][..]),
            ("listen = 'here'", &["listen", "here"]),
            ("workers = 0", &["workers", "0", "at least 1"]),
            ("trusted_proxies = ['10.0.0.0/33']", &["trusted_proxies", "10.0.0.0/33"]),
            (
                "allowed_origins = ['app.example.com']",
                &["allowed_origins", "app.example.com", "scheme://host"],
            ),
            ("[redis]\nurl = 'http://x'", &["redis.url", "redis://"]),
            ("[limits]\nconnections = 0", &["limits.connections", "0", "at least 1"]),
            ("[limits]\ncommands_per_second = 0", &["limits.commands_per_second", "0", "nonzero"]),
            ("[limits]\nmessage_bytes = '64 parsecs'", &["limits.message_bytes", "64 parsecs"]),
            ("[limits]\nmessage_bytes = '1GiB'", &["limits.message_bytes", "1.0 GiB", "16MiB"]),
            ("[limits]\nmessage_bytes = '2MiB'", &["limits.outbox_bytes", "limits.message_bytes"]),
            (
                "workers = 64\n[limits]\noutbox_bytes_total = '1MiB'",
                &["limits.outbox_bytes_total", "1.0 MiB"],
            ),
            ("allowed_origins = ['*']\n[auth]\ncookie = 'session'", &["auth.cookie", "session"]),
            ("[heartbeat]\nping_interval = 25", &["heartbeat.ping_interval", "25"]),
            ("[heartbeat]\nping_interval = '0s'", &["heartbeat.ping_interval", "0ns", "1s"]),
        ] {
            let error = config(toml).expect_err(toml).to_string();
            for word in words {
                assert!(error.contains(word), "{toml}: `{word}` is not in: {error}");
            }
        }
    }

    #[test]
    fn keys_are_complete_and_strong() {
        let keys = |keys: &str| {
            let given: Given = Figment::from(Toml::string(keys)).extract().unwrap();
            Config::try_from(&given).expect_err(keys).to_string()
        };
        let hmac = "[[auth.keys]]\nkid = 'a'\nalgorithm = 'HS256'\n";
        assert!(keys(hmac).contains("either secret or secret_file"));
        assert!(
            keys(&format!("{hmac}secret = 'short'"))
                .contains("a secret of 5 bytes; expected at least 32 bytes")
        );
        assert!(
            keys(&format!("{hmac}secret_file = '/nowhere'")).contains("auth.keys[0].secret_file: /nowhere")
        );
        assert!(
            keys("[[auth.keys]]\nkid = 'a'\nalgorithm = 'RS256'\nsecret = 'x'").contains("public_key_file")
        );
        assert!(keys("[[auth.keys]]\nkid = 'a b'\nalgorithm = 'HS256'").contains("auth.keys[0].kid: a b"));
        assert!(keys(&format!("{KEY}{KEY}")).contains("a name that no other key has"));
    }

    #[test]
    fn secrets_are_never_shown() {
        let url = "[redis]\nurl = 'redis://user:hunter2@host'\n";
        let given: Given = Figment::from(Toml::string(&format!("{url}{KEY}"))).extract().unwrap();
        for shown in [format!("{given:?}"), toml::to_string(&given).unwrap()] {
            assert!(!shown.contains("hunter2") && !shown.contains("thirty-two"), "{shown}");
        }
        for table in
            ["algorithm = 'HS265'\nsecret = 'hunter2'", "secrett = 'hunter2'", "secret = ['hunter2']"]
        {
            let toml = format!("[[auth.keys]]\nkid = 'a'\n{table}");
            let error = Given::extract(&Figment::from(Toml::string(&toml))).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
        let error =
            Given::extract(&Figment::from(Toml::string("redis = 'redis://:hunter2@host'"))).unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
        let bad: Given = Figment::from(Toml::string(&url.replace("redis://", "http://"))).extract().unwrap();
        let error = redis(&bad.redis, 1).unwrap_err().to_string();
        assert!(!error.contains("hunter2"), "{error}");
    }
}
