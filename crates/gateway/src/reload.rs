//! Reading the configuration again while the node runs (SIGHUP, `POST /admin/reload`).
//!
//! All or nothing: first everything is read and understood, the keys that need a restart too, and only then
//! anything changes. Sockets stay, and so does what their tokens have proved, until those expire.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use crate::config::{
    Config, ConfigError, Given, IssuerGiven, KeyGiven, LimitsGiven, LogGiven, Secret, Sources,
};
use crate::log;
use crate::log::LogLevel;
use crate::node::Node;

/// Reads the configuration again.
#[derive(Debug)]
pub struct Reloader {
    sources: Sources,
    log_level: LogLevel,
    /// Held for as long as a reload takes: two do not mix.
    running: Mutex<Running>,
}

/// What is in effect.
#[derive(Debug)]
struct Running {
    given: Given,
    /// Kept besides, because files may have changed since.
    values: Values,
}

/// What came of a reload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Reloaded {
    /// In effect now.
    pub changed: Vec<Change>,
    /// Not in effect before a restart.
    pub needs_restart: Vec<Change>,
}

/// A key whose value is another now. Secrets are masked on both sides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// The key, as in the file.
    pub key: String,
    /// What was in effect.
    pub from: String,
    /// What is given now.
    pub to: String,
}

/// Every value by its key: how it is shown, and what tells it from another that is shown alike.
type Values = BTreeMap<String, (String, u64)>;

impl Reloader {
    /// For a node that runs with `given`, which was read from `sources`.
    ///
    /// # Errors
    /// When a value cannot be shown, and so no change of it told.
    pub fn new(sources: Sources, given: Given, log_level: LogLevel) -> Result<Self, ConfigError> {
        let values = values(&given)?;
        Ok(Self { sources, log_level, running: Mutex::new(Running { given, values }) })
    }

    /// Reads the configuration again and puts into effect what can be; `by` is who wanted it, for the log.
    ///
    /// # Errors
    /// [`ConfigError`], and then nothing has changed.
    pub(crate) fn reload(&self, node: &Node, by: &str) -> Result<Reloaded, ConfigError> {
        let outcome = self.try_reload(node);
        match &outcome {
            Ok(reloaded) => tracing::info!(by, "the configuration is reloaded: {reloaded}"),
            Err(error) => tracing::error!(by, "the configuration is not reloaded: {error}"),
        }
        outcome
    }

    fn try_reload(&self, node: &Node) -> Result<Reloaded, ConfigError> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = self.sources.read()?.given;
        // What a node would not start with is not taken in part either.
        Config::try_from(&wanted)?;
        let given = reloadable(&running.given, &wanted);
        let config = Config::try_from(&given)?;
        let filter = log::filter(&given.log.level).map_err(|error| ConfigError::log_level(&given, &error))?;
        let values = values(&given)?;
        let reloaded = Reloaded {
            changed: changes(&running.values, &values),
            needs_restart: changes(&values, &self::values(&wanted)?),
        };
        // From here on nothing can fail.
        node.apply(config);
        self.log_level.set(filter);
        *running = Running { given, values };
        Ok(reloaded)
    }
}

/// `wanted`, as far as it can be had without a restart; the rest is as it runs.
fn reloadable(running: &Given, wanted: &Given) -> Given {
    let wanted = wanted.clone();
    Given {
        trusted_proxies: wanted.trusted_proxies,
        allowed_origins: wanted.allowed_origins,
        admin: wanted.admin,
        auth: wanted.auth,
        limits: LimitsGiven {
            // The broker and the workers' inboxes were made with these.
            message_bytes: running.limits.message_bytes,
            outbox_bytes_total: running.limits.outbox_bytes_total,
            ..wanted.limits
        },
        compression: wanted.compression,
        log: LogGiven { format: running.log.format, level: wanted.log.level },
        ..running.clone()
    }
}

fn values(given: &Given) -> Result<Values, ConfigError> {
    let mut values = Values::new();
    let table = toml::Table::try_from(given).map_err(|error| ConfigError::Unreadable(error.to_string()))?;
    collect(&mut values, "", &table);
    let secrets = [("redis.url", &given.redis.url), ("admin.token", &given.admin.token)];
    for (key, secret) in secrets {
        mark(&mut values, key, secret.as_ref().map(|Secret(secret)| secret.as_str()));
    }
    mark(&mut values, "admin.token_file", given.admin.token_file.as_deref().map(content));
    let auth = &given.auth;
    values.insert("auth.keys".to_owned(), (listed(&auth.keys, name), digest(&materials(&auth.keys))));
    let issuer = |given: &IssuerGiven| format!("{} ({})", given.issuer, listed(&given.keys, name));
    let meant: Vec<_> = auth
        .issuers
        .iter()
        .map(|IssuerGiven { issuer, audience, required_claims, keys }| {
            (issuer, audience, required_claims, materials(keys))
        })
        .collect();
    values.insert("auth.issuers".to_owned(), (listed(&auth.issuers, issuer), digest(&meant)));
    Ok(values)
}

fn listed<T>(things: &[T], name: impl Fn(&T) -> String) -> String {
    if things.is_empty() {
        return "none".to_owned();
    }
    things.iter().map(name).collect::<Vec<_>>().join(", ")
}

/// What a key is called; published ones by their place.
fn name(key: &KeyGiven) -> String {
    let file = || Some(key.jwks_file.as_ref()?.display().to_string());
    key.kid.clone().or_else(|| key.jwks_url.clone()).or_else(file).unwrap_or_default()
}

/// What keys are, beyond their names. What a URL publishes is not: it changes without a reload.
fn materials(keys: &[KeyGiven]) -> Vec<impl Hash> {
    let material = |key: &KeyGiven| {
        let secret = key.secret.as_ref().map(|Secret(secret)| secret.clone());
        let files = [&key.secret_file, &key.public_key_file, &key.jwks_file];
        // Masked in this, but for the secret that stands beside it.
        (format!("{key:?}"), secret, files.map(|file| file.as_deref().map(content)))
    };
    keys.iter().map(material).collect()
}

fn collect(values: &mut Values, path: &str, table: &toml::Table) {
    for (key, value) in table {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        match value {
            toml::Value::Table(table) => collect(values, &path, table),
            value => drop(values.insert(path, (value.to_string(), 0))),
        }
    }
}

/// Tells a value from others that are shown alike.
fn mark(values: &mut Values, key: &str, distinction: Option<impl Hash>) {
    if let (Some((_, mark)), Some(distinction)) = (values.get_mut(key), distinction) {
        *mark = digest(&distinction);
    }
}

/// What a file holds, if it can be read.
fn content(file: &Path) -> Option<Vec<u8>> {
    std::fs::read(file).ok()
}

/// Differs where the values differ, with all but certainty. It stays in this process.
fn digest(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

fn changes(before: &Values, after: &Values) -> Vec<Change> {
    let shown = |values: &Values, key: &str| {
        values.get(key).map_or_else(|| "not set".to_owned(), |(shown, _)| shown.clone())
    };
    let keys: std::collections::BTreeSet<_> = before.keys().chain(after.keys()).collect();
    let differing = keys.into_iter().filter(|key| before.get(*key) != after.get(*key));
    differing
        .map(|key| Change { key: key.clone(), from: shown(before, key), to: shown(after, key) })
        .collect()
}

impl fmt::Display for Reloaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |changes: &[Change]| {
            let changes: Vec<_> = changes.iter().map(ToString::to_string).collect();
            if changes.is_empty() { "nothing".to_owned() } else { changes.join("; ") }
        };
        write!(f, "changed: {}", list(&self.changed))?;
        if !self.needs_restart.is_empty() {
            write!(f, "; needs a restart: {}", list(&self.needs_restart))?;
        }
        Ok(())
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, from, to } = self;
        if from == to {
            write!(f, "{key} ({to}, with other content)")
        } else {
            write!(f, "{key} ({from} → {to})")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(kid: &str, secret: &str) -> KeyGiven {
        KeyGiven {
            kid: Some(kid.to_owned()),
            algorithm: Some(jsonwebtoken::Algorithm::HS256),
            secret: Some(Secret(secret.to_owned())),
            ..KeyGiven::default()
        }
    }

    fn given(keys: Vec<KeyGiven>) -> Given {
        let mut given = Given::default();
        given.auth.keys = keys;
        given
    }

    fn shown(before: &Given, after: &Given) -> Vec<String> {
        changes(&values(before).unwrap(), &values(after).unwrap()).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn changes_are_told_and_secrets_are_not() {
        let before = given(vec![key("main", "one secret")]);
        assert!(shown(&before, &before.clone()).is_empty());
        let mut after = given(vec![key("main", "another secret"), key("next", "a third secret")]);
        after.limits.connections = 7;
        after.redis.url = Some(Secret("redis://:hunter2@a".to_owned()));
        let told = shown(&before, &after);
        assert_eq!(
            told,
            [
                "auth.keys (main → main, next)",
                "limits.connections (100000 → 7)",
                "redis.url (not set → \"***\")"
            ]
        );
    }

    #[test]
    fn a_secret_that_changed_behind_its_name_is_noticed() {
        let before = given(vec![key("main", "one secret")]);
        let after = given(vec![key("main", "another secret")]);
        assert_eq!(shown(&before, &after), ["auth.keys (main, with other content)"]);
        let url = |url: &str| {
            let mut given = Given::default();
            given.redis.url = Some(Secret(url.to_owned()));
            given
        };
        assert_eq!(shown(&url("redis://a"), &url("redis://b")), ["redis.url (\"***\", with other content)"]);
    }

    #[test]
    fn issuers_and_published_keys_that_changed_are_told() {
        let published = |url: &str| KeyGiven { jwks_url: Some(url.to_owned()), ..KeyGiven::default() };
        let issuers = |issuer: &str, audience: &str, key: KeyGiven| {
            let audience = Some(audience.to_owned());
            let required_claims = Vec::new();
            let mut given = given(vec![published("https://a/")]);
            given.auth.issuers =
                vec![IssuerGiven { issuer: issuer.to_owned(), audience, required_claims, keys: vec![key] }];
            given
        };
        let before = issuers("us", "live", published("https://b/"));
        assert!(shown(&before, &before.clone()).is_empty());
        let told = |after: &Given| shown(&before, after);
        assert_eq!(
            told(&issuers("us", "live", published("https://c/"))),
            ["auth.issuers (us (https://b/) → us (https://c/))"]
        );
        assert_eq!(
            told(&issuers("them", "live", published("https://b/"))),
            ["auth.issuers (us (https://b/) → them (https://b/))"]
        );
        let other_content = ["auth.issuers (us (https://b/), with other content)"];
        assert_eq!(told(&issuers("us", "test", published("https://b/"))), other_content);
        let rarer = KeyGiven { refresh: Some(std::time::Duration::from_secs(60)), ..published("https://b/") };
        assert_eq!(told(&issuers("us", "live", rarer)), other_content);
        let mut after = before.clone();
        after.auth.keys[0].jwks_url = Some("https://d/".to_owned());
        assert_eq!(told(&after), ["auth.keys (https://a/ → https://d/)"]);
    }

    #[test]
    fn what_needs_a_restart_stays_as_it_runs() {
        let running = Given::default();
        let mut wanted = given(vec![key("main", "one secret")]);
        wanted.workers += 1;
        wanted.limits.message_bytes = bytesize::ByteSize::kib(1);
        wanted.limits.connections_per_ip = 3;
        let given = reloadable(&running, &wanted);
        assert_eq!(
            (given.workers, given.limits.message_bytes),
            (running.workers, running.limits.message_bytes)
        );
        assert_eq!((given.limits.connections_per_ip, given.auth.keys.len()), (3, 1));
        let rest = shown(&given, &wanted);
        assert_eq!(rest.len(), 2);
        assert!(rest[0].starts_with("limits.message_bytes") && rest[1].starts_with("workers"), "{rest:?}");
    }
}
