//! Configuration: from what was given (a TOML file, the environment, flags) to what is meant, in one place and
//! once, before anything starts.
//!
//! Later sources override earlier ones key by key. A bad value names its key, what it was and what was
//! expected. Zero never means unlimited.

use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use actix_http::Uri;
use bytesize::ByteSize;
use causeway_broker::RedisConfig;
use causeway_hub::HubLimits;
use causeway_protocol::Pattern;
use causeway_protocol::frame::FrameLimits;
use ipnet::IpNet;

pub use auth::{Auth, IssuerTable};
pub use given::{
    AdminGiven, AuthGiven, CompressionGiven, DrainGiven, ENV_PREFIX, Given, HeartbeatGiven, IssuerGiven,
    KeyGiven, LimitsGiven, LogFormat, LogGiven, MetricsGiven, Overrides, RedisGiven, Secret, TopicClassGiven,
    TracesGiven,
};

pub use sources::{Origin, Reading, Sources};

use crate::admission::AdmissionLimits;
use crate::log;
use crate::origin::AllowedOrigins;
use crate::traces::TracesConfig;

mod auth;
mod given;
mod sources;

/// What one message in an inbox costs besides its payload, generously.
const INBOX_ITEM_BYTES: usize = 1024;
/// The most topic classes: each is a few series, and every new topic is compared with each.
const TOPIC_CLASSES_MAX: usize = 50;
/// The shortest secret of an HMAC key, in bytes (RFC 7518 §3.2), and the shortest token of the admin listener.
const SECRET_BYTES_MIN: usize = 32;

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

impl ConfigError {
    pub(crate) fn log_level(given: &Given, error: &impl fmt::Display) -> Self {
        let found = format!("{} ({error})", given.log.level);
        bad("log.level", found, "error, warn, info, debug, or filters such as info,causeway_broker=debug")
    }
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
    /// What whoever acts on the admin listener must present, if anything.
    pub admin_token: Option<Secret>,
    /// Where Redis is; without it the node stands alone.
    pub redis: Option<RedisConfig>,
    /// Whose tokens are accepted, and where they may be.
    pub auth: Auth,
    /// Who is let in.
    pub admission: AdmissionLimits,
    /// What one session may cost.
    pub hub: HubLimits,
    /// What one message may cost.
    pub frames: FrameLimits,
    /// Whether compression is agreed on with clients that offer it.
    pub may_deflate: bool,
    /// Bytes that may wait in front of one worker.
    pub inbox_bytes: usize,
    /// Bytes that may wait on the node, in inboxes and outboxes together.
    pub budget_bytes: usize,
    /// Names and patterns of the topic classes that are counted apart.
    pub topic_classes: Vec<(String, Pattern)>,
    /// How the node stops.
    pub drain: DrainGiven,
    /// Where spans go, if they go anywhere.
    pub traces: Option<TracesConfig>,
}

impl Config {
    /// Whether `/admin/…` acts for anybody: on loopback, or for whoever has the token.
    pub fn has_admin_actions(&self) -> bool {
        self.admin_token.is_some() || self.admin_listen.ip().is_loopback()
    }
}

impl TryFrom<&Given> for Config {
    type Error = ConfigError;

    fn try_from(given: &Given) -> Result<Self, ConfigError> {
        let limits = &given.limits;
        let message_bytes = size("limits.message_bytes", limits.message_bytes, "1B to 16MiB", 1..=16 << 20)?;
        let outbox_bytes =
            size("limits.outbox_bytes", limits.outbox_bytes, "1KiB to 1GiB", 1 << 10..=1 << 30)?;
        let deflate_bytes_min =
            size("compression.min_bytes", given.compression.min_bytes, "1B to 16MiB", 1..=16 << 20)?;
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
        log::filter(&given.log.level).map_err(|error| ConfigError::log_level(given, &error))?;
        let ping_interval = second_or_more("heartbeat.ping_interval", given.heartbeat.ping_interval)?;
        Ok(Self {
            listen: given.listen,
            admin_listen: given.admin_listen,
            workers: given.workers,
            node: given.node.as_str().into(),
            trusted_proxies: given.trusted_proxies.clone(),
            allowed_origins: origins(given)?,
            admin_token: given.admin.meant()?,
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
                deflate_bytes_min,
                publish_bytes: message_bytes,
                commands_per_second: limits.commands_per_second.get(),
                commands_burst: limits.commands_burst.get(),
                ping_interval,
                pong_timeout: second_or_more("heartbeat.pong_timeout", given.heartbeat.pong_timeout)?,
                ..HubLimits::default()
            },
            frames: FrameLimits { message_bytes_max: message_bytes, fragments_max: limits.message_fragments },
            may_deflate: given.compression.enabled,
            inbox_bytes,
            budget_bytes: total,
            topic_classes: topic_classes(&given.metrics.topic_classes)?,
            drain: DrainGiven {
                lead_time: at_most_a_day("drain.lead_time", given.drain.lead_time)?,
                window: at_most_a_day("drain.window", given.drain.window)?,
            },
            traces: given.traces.meant()?,
        })
    }
}

impl AdminGiven {
    fn meant(&self) -> Result<Option<Secret>, ConfigError> {
        let token = match (&self.token, &self.token_file) {
            (None, None) => return Ok(None),
            (Some(Secret(token)), None) => token.clone(),
            (None, Some(file)) => read_secret("admin.token_file", file)?,
            (Some(_), Some(_)) => return Err(bad("admin", "both", "either token or token_file")),
        };
        if token.len() < SECRET_BYTES_MIN {
            let found = format!("a token of {} bytes", token.len());
            return Err(bad("admin.token", found, "at least 32 bytes"));
        }
        Ok(Some(Secret(token)))
    }
}

impl TracesGiven {
    fn meant(&self) -> Result<Option<TracesConfig>, ConfigError> {
        let sample_ratio = self.sample_ratio;
        if !(0.0..=1.0).contains(&sample_ratio) {
            return Err(bad(
                "traces.sample_ratio",
                sample_ratio,
                "0 (none but those that others began) to 1 (all)",
            ));
        }
        let Some(endpoint) = &self.endpoint else { return Ok(None) };
        let url: Option<Uri> = endpoint.parse().ok();
        let is_place = |url: &Uri| {
            matches!(url.scheme_str(), Some("http" | "https")) && url.host().is_some() && url.path() != "/"
        };
        let has_password = endpoint.contains('@');
        if has_password || !url.as_ref().is_some_and(is_place) {
            let shown = if has_password { "a url with a password" } else { endpoint };
            return Err(bad("traces.endpoint", shown, "http[s]://host[:port]/v1/traces, without a password"));
        }
        Ok(Some(TracesConfig { endpoint: endpoint.clone(), sample_ratio }))
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

fn topic_classes(given: &[TopicClassGiven]) -> Result<Vec<(String, Pattern)>, ConfigError> {
    let mut classes: Vec<(String, Pattern)> = Vec::new();
    for (at, TopicClassGiven { name, pattern }) in given.iter().enumerate() {
        let key = |field| format!("metrics.topic_classes[{at}].{field}");
        let is_name = |name: &str| {
            (1..=32).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        };
        if !is_name(name) || classes.iter().any(|(other, _)| other == name) {
            return Err(bad(&key("name"), name, "1 to 32 of A-Z a-z 0-9 _, and another name for each class"));
        }
        let parsed = Pattern::parse(pattern)
            .map_err(|_| bad(&key("pattern"), pattern, "a topic pattern such as orders.**"))?;
        classes.push((name.clone(), parsed));
    }
    if classes.len() > TOPIC_CLASSES_MAX {
        return Err(bad("metrics.topic_classes", classes.len(), "at most 50 classes"));
    }
    Ok(classes)
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

/// What a file holds, without the line break at its end.
fn read_secret(key: &str, file: &Path) -> Result<String, ConfigError> {
    Ok(read(key, file)?.trim_end_matches(['\r', '\n']).to_owned())
}

fn bad(key: &str, found: impl fmt::Display, expected: &'static str) -> ConfigError {
    ConfigError::BadValue { key: key.to_owned(), found: found.to_string(), expected }
}

#[cfg(test)]
mod tests {
    use figment::Figment;
    use figment::providers::{Format, Toml};

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
        assert!(!config.may_deflate);
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
            ("[compression]\nmin_bytes = '0B'", &["compression.min_bytes", "0", "1B to 16MiB"]),
            ("[compression]\nenabled = 'yes'", &["compression.enabled", "yes", "bool"]),
            ("[log]\nlevel = 'loud=very'", &["log.level", "loud=very", "debug"]),
            ("[traces]\nsample_ratio = 2", &["traces.sample_ratio", "2", "0 ("]),
            ("[traces]\nendpoint = 'collector:4318'", &["traces.endpoint", "collector:4318", "/v1/traces"]),
            ("[traces]\nendpoint = 'http://collector:4318'", &["traces.endpoint", "/v1/traces"]),
            ("[traces]\nendpoint = 'http://a:b@c/v1/traces'", &["traces.endpoint", "a url with a password"]),
            ("[admin]\ntoken = 'short'", &["admin.token", "5 bytes", "32 bytes"]),
            ("[admin]\ntoken = 'a'\ntoken_file = 'b'", &["admin: both", "token_file"]),
            ("[admin]\ntoken_file = '/nowhere'", &["admin.token_file", "/nowhere"]),
            ("[auth]\nleeway = '1h'", &["auth.leeway", "3600s", "5m"]),
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
        assert!(keys("[[auth.keys]]\nalgorithm = 'HS256'").contains("auth.keys[0].kid: ; expected 1 to 64"));
        assert!(keys("[[auth.keys]]\nkid = 'a'").contains("auth.keys[0].algorithm: none"));
        assert!(keys(&format!("{hmac}secret = '{}'\nrefresh = '1m'", "s".repeat(32))).contains("jwks_url"));
        assert!(keys(&format!("{KEY}{KEY}")).contains("a name that no other key has"));
    }

    #[test]
    fn published_keys_come_over_a_line_that_can_be_trusted() {
        let set = |table: &str| {
            let toml = format!("[[auth.keys]]\n{table}");
            Config::try_from(&Figment::from(Toml::string(&toml)).extract::<Given>().unwrap())
        };
        for good in [
            "jwks_url = 'https://login.example.com/keys'",
            "jwks_url = 'http://127.0.0.1:9000/keys'",
            "jwks_url = 'http://[::1]/keys'\nalgorithms = ['ES256', 'RS256']\nrefresh = '1m'",
        ] {
            let config = set(good).unwrap();
            assert_eq!(config.auth.issuers[0].key_sets.len(), 1, "{good}");
        }
        for (bad, words) in [
            ("jwks_url = 'http://login.example.com/keys'", ["auth.keys[0].jwks_url", "https"]),
            ("jwks_url = 'ftp://127.0.0.1/keys'", ["auth.keys[0].jwks_url", "https"]),
            ("jwks_url = 'http://127.0.0.1@evil.example.com/'", ["auth.keys[0].jwks_url", "https"]),
            ("jwks_url = 'https://user:hunter2@example.com/'", ["a url with a password", "https"]),
            ("jwks_file = '/nowhere'", ["auth.keys[0].jwks_file", "/nowhere"]),
            ("jwks_url = 'https://a/'\njwks_file = '/nowhere'", ["auth.keys[0]", "one of them"]),
            ("jwks_url = 'https://a/'\nkid = 'main'", ["auth.keys[0]", "nothing else"]),
            ("jwks_url = 'https://a/'\nsecret = 'hunter2'", ["auth.keys[0]", "nothing else"]),
            ("jwks_url = 'https://a/'\nalgorithms = ['HS256']", ["auth.keys[0].algorithms", "HS256"]),
            ("jwks_url = 'https://a/'\nalgorithms = []", ["auth.keys[0].algorithms", "[]"]),
            ("jwks_url = 'https://a/'\nrefresh = '1s'", ["auth.keys[0].refresh", "30s"]),
        ] {
            let error = set(bad).expect_err(bad).to_string();
            assert!(words.iter().all(|word| error.contains(word)), "{bad}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn issuers_have_names_and_keys_of_their_own() {
        let issuer = |name: &str| {
            format!("[[auth.issuers]]\nissuer = '{name}'\n{}", KEY.replace("auth", "auth.issuers"))
        };
        let (us, them) = (issuer("us"), issuer("them"));
        let meant = |toml: &str| {
            let given: Given = Figment::from(Toml::string(toml)).extract().unwrap();
            Config::try_from(&given)
                .map(|config| config.auth.issuers.len())
                .map_err(|error| error.to_string())
        };
        assert_eq!(meant(&format!("{us}{them}")), Ok(2));
        assert_eq!(meant(&format!("[auth]\nissuer = 'me'\n{KEY}{us}")), Ok(2));
        let refused = |toml: &str, words: &str| {
            let error = meant(toml).expect_err(toml);
            assert!(error.contains(words), "{toml}: {error}");
        };
        refused(&format!("{KEY}{us}"), "auth.issuer: none; expected a name");
        refused(&format!("{us}{us}"), "auth.issuers[1].issuer: us; expected a name that no other");
        refused("[[auth.issuers]]\nissuer = 'us'\nkeys = []", "auth.issuers[0].keys: none");
        refused(&us.replace("'HS256'", "'RS256'"), "auth.issuers[0].keys[0]: a key for RS256");
    }

    #[test]
    fn secrets_are_never_shown() {
        let url = "[redis]\nurl = 'redis://user:hunter2@host'\n";
        let given: Given = Figment::from(Toml::string(&format!("{url}{KEY}"))).extract().unwrap();
        for shown in [format!("{given:?}"), toml::to_string(&given).unwrap()] {
            assert!(!shown.contains("hunter2") && !shown.contains("thirty-two"), "{shown}");
        }
        let admin: Given = Figment::from(Toml::string("[admin]\ntoken = 'hunter2'")).extract().unwrap();
        assert!(!toml::to_string(&admin).unwrap().contains("hunter2"));
        let error = Config::try_from(&admin).unwrap_err().to_string();
        assert!(!error.contains("hunter2"), "{error}");
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
