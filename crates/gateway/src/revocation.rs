//! Tokens that end before their time.
//!
//! A revocation is appended to a log that Redis keeps and then told to all nodes (see `control`). Nodes that are
//! connected hear it and end the sessions concerned at their workers' next tick; a node that starts, or had lost its
//! link, reads the log once it hears what is told again. So whatever was accepted is known
//! to every node that is connected, and a node that is not says so in its readiness.
//!
//! What is known is held in memory, bounded in number, until it ends. One lock is held for a look-up.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use causeway_broker::{Broker, PublishError};
use causeway_hub::{Policy, TokenMark};
use causeway_protocol::Topic;
use serde::{Deserialize, Serialize};

/// The log that keeps them.
const LOG: &str = "_causeway.revoked";
/// How many revocations may be in force. One of a subject, or of all tokens issued before a time, replaces many.
pub const REVOCATIONS_MAX: usize = 10_000;
/// The longest that one may be in force. No token should live for so long.
pub const TTL_MAX: Duration = Duration::from_secs(366 * 86_400);
/// The longest `jti`, subject or issuer, in bytes.
const NAME_BYTES_MAX: usize = 256;

/// What an operator asks for.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RevokeRequest {
    /// The token of this name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jti: Option<String>,
    /// All tokens of this subject.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Of these, or of all tokens, only those issued before this time in seconds since 1970. A token that does not
    /// say when it was issued counts as issued before any time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issued_before: Option<u64>,
    /// Only tokens of this issuer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// For how long; not less than such tokens live.
    #[serde(with = "humantime_serde")]
    pub ttl: Duration,
}

/// That it was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revoked {
    /// When it is over, in seconds since 1970.
    pub until: u64,
}

/// Which tokens are over, as nodes tell each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revocation {
    whose: Whose,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    issued_before: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    issuer: Option<String>,
    /// When it may be forgotten, in seconds since 1970.
    until: u64,
}

/// Whose tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Whose {
    Jti(String),
    Subject(String),
    Everybody,
}

/// Why a revocation was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum RevokeError {
    /// It does not say which tokens, or for how long.
    #[error("{0}")]
    Unclear(&'static str),
    /// As many are in force as can be.
    #[error(
        "{REVOCATIONS_MAX} revocations are in force already: revoke by subject or by time of issue instead"
    )]
    Full,
    /// The broker did not take it. Some nodes may know it; trying again does no harm.
    #[error("{0}")]
    Broker(#[from] PublishError),
}

/// The revocations in force on this node.
#[derive(Debug, Default)]
pub struct Revocations {
    /// Names are hashed with a seed of this process, so nobody can make two of one hash on purpose.
    hasher: RandomState,
    rules: RwLock<Rules>,
    /// Goes up with each change of `rules`.
    version: AtomicU64,
    is_read: AtomicBool,
}

#[derive(Debug, Default)]
struct Rules {
    tokens: HashMap<u64, Vec<Rule>>,
    subjects: HashMap<Box<str>, Vec<Rule>>,
    everybody: Vec<Rule>,
    count: usize,
}

#[derive(Clone, Copy, Debug)]
struct Rule {
    /// Without one, all.
    issuer: Option<u32>,
    issued_before: u64,
    until: u64,
}

impl RevokeRequest {
    /// What it means at this time since 1970.
    ///
    /// # Errors
    /// [`RevokeError::Unclear`].
    pub fn meant_at(self, now: Duration) -> Result<Revocation, RevokeError> {
        let is_name = |name: &Option<String>| {
            name.as_ref().is_none_or(|name| (1..=NAME_BYTES_MAX).contains(&name.len()))
        };
        if ![&self.jti, &self.subject, &self.issuer].into_iter().all(is_name) {
            return Err(RevokeError::Unclear("jti, subject and issuer have 1 to 256 bytes"));
        }
        if self.ttl < Duration::from_secs(1) || self.ttl > TTL_MAX {
            return Err(RevokeError::Unclear("ttl is 1s to 366days"));
        }
        let whose = match (self.jti, self.subject, self.issued_before) {
            (Some(jti), None, None) => Whose::Jti(jti),
            (None, Some(subject), _) => Whose::Subject(subject),
            (None, None, Some(_)) => Whose::Everybody,
            _ => {
                return Err(RevokeError::Unclear(
                    "name a jti alone, a subject, or a time before which tokens were issued",
                ));
            }
        };
        let until = (now + self.ttl).as_secs();
        Ok(Revocation { whose, issued_before: self.issued_before, issuer: self.issuer, until })
    }
}

impl Revocation {
    /// When it may be forgotten, in seconds since 1970.
    pub fn until(&self) -> u64 {
        self.until
    }

    /// The issuer whose tokens alone are meant.
    pub(crate) fn issuer(&self) -> Option<&str> {
        self.issuer.as_deref()
    }

    #[cfg(test)]
    pub(crate) fn of_jti(jti: &str, until: u64) -> Self {
        Self { whose: Whose::Jti(jti.to_owned()), issued_before: None, issuer: None, until }
    }

    /// Puts it into the log, for nodes that come later or were away.
    ///
    /// # Errors
    /// What the broker says. Done again, it changes nothing.
    pub(crate) async fn keep(&self, broker: &dyn Broker) -> Result<(), PublishError> {
        let entry = Bytes::from(serde_json::to_vec(self).expect("texts and numbers are JSON"));
        broker.append(&log(), entry).await
    }
}

impl Revocations {
    /// The mark of a token, which tells its sessions from others.
    pub(crate) fn mark(
        &self,
        issuer: Option<&str>,
        jti: Option<&str>,
        issued: Option<Duration>,
    ) -> TokenMark {
        TokenMark {
            id: jti.map_or(0, |jti| self.id(jti)),
            issued: issued.map_or(0, |issued| u32::try_from(issued.as_secs()).unwrap_or(u32::MAX)),
            issuer: self.issuer(issuer.unwrap_or_default()),
        }
    }

    /// Whether a token of this policy is revoked.
    pub(crate) fn revokes(&self, policy: &Policy) -> bool {
        self.rules.read().unwrap_or_else(PoisonError::into_inner).revokes(policy)
    }

    /// Goes up when sessions may be concerned that were not before.
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// How many are in force.
    pub(crate) fn len(&self) -> usize {
        self.rules.read().unwrap_or_else(PoisonError::into_inner).count
    }

    /// Whether those were read that other nodes knew before this one came.
    pub(crate) fn is_read(&self) -> bool {
        self.is_read.load(Ordering::Relaxed)
    }

    /// Forgets what is over.
    pub(crate) fn sweep(&self, now: u64) {
        self.rules.write().unwrap_or_else(PoisonError::into_inner).sweep(now);
    }

    /// Takes note of an entry of the log. Whoever can append to it in Redis can put something there, so what is not
    /// understood is passed over.
    fn take_note(&self, entry: &[u8], now: u64) {
        match serde_json::from_slice::<Revocation>(entry) {
            Ok(revocation) => self.add(&revocation, now),
            Err(error) => tracing::warn!(%error, "a revocation is not understood, and not followed"),
        }
    }

    pub(crate) fn add(&self, revocation: &Revocation, now: u64) {
        if revocation.until <= now || revocation.until > now + TTL_MAX.as_secs() {
            return;
        }
        let rule = Rule {
            issuer: revocation.issuer.as_deref().map(|issuer| self.issuer(issuer)),
            issued_before: revocation.issued_before.unwrap_or(u64::MAX),
            until: revocation.until,
        };
        let mut rules = self.rules.write().unwrap_or_else(PoisonError::into_inner);
        let place = match &revocation.whose {
            Whose::Jti(jti) => Place::Token(self.id(jti)),
            Whose::Subject(subject) => Place::Subject(subject),
            Whose::Everybody => Place::Everybody,
        };
        match rules.add(place, rule) {
            Added::New => drop(self.version.fetch_add(1, Ordering::Release)),
            Added::Known => {}
            Added::Full => tracing::error!("too many revocations: one is not followed on this node"),
        }
    }

    fn id(&self, jti: &str) -> u64 {
        // Zero is the mark of a token without a name.
        self.hasher.hash_one(jti).max(1)
    }

    fn issuer(&self, name: &str) -> u32 {
        self.hasher.hash_one(name) as u32
    }
}

#[derive(Clone, Copy)]
enum Place<'a> {
    Token(u64),
    Subject(&'a str),
    Everybody,
}

#[derive(Debug, PartialEq, Eq)]
enum Added {
    New,
    Known,
    Full,
}

impl Rules {
    fn revokes(&self, policy: &Policy) -> bool {
        if self.count == 0 {
            return false;
        }
        let mark = policy.mark();
        let by_token = self.tokens.get(&mark.id).filter(|_| mark.id != 0);
        let by_subject = self.subjects.get(policy.subject());
        let rules = by_token.into_iter().chain(by_subject).flatten().chain(&self.everybody);
        rules.into_iter().any(|rule| rule.is_for(mark))
    }

    fn add(&mut self, place: Place<'_>, rule: Rule) -> Added {
        let rules = match place {
            Place::Token(id) => self.tokens.entry(id).or_default(),
            Place::Subject(subject) => self.subjects.entry(subject.into()).or_default(),
            Place::Everybody => &mut self.everybody,
        };
        let same =
            |known: &&mut Rule| known.issuer == rule.issuer && known.issued_before == rule.issued_before;
        if let Some(known) = rules.iter_mut().find(same) {
            known.until = known.until.max(rule.until);
            return Added::Known;
        }
        if self.count >= REVOCATIONS_MAX {
            self.forget_empty();
            return Added::Full;
        }
        rules.push(rule);
        self.count += 1;
        Added::New
    }

    fn sweep(&mut self, now: u64) {
        let lists = self.tokens.values_mut().chain(self.subjects.values_mut()).chain([&mut self.everybody]);
        self.count = lists
            .map(|rules| {
                rules.retain(|rule| rule.until > now);
                rules.len()
            })
            .sum();
        self.forget_empty();
    }

    fn forget_empty(&mut self) {
        self.tokens.retain(|_, rules| !rules.is_empty());
        self.subjects.retain(|_, rules| !rules.is_empty());
    }
}

impl Rule {
    fn is_for(self, mark: TokenMark) -> bool {
        self.issuer.is_none_or(|issuer| issuer == mark.issuer) && u64::from(mark.issued) < self.issued_before
    }
}

/// Reads the log; says whether there is nothing more to be tried.
pub(crate) async fn catch_up(broker: &dyn Broker, revocations: &Revocations) -> bool {
    match read(broker, revocations).await {
        Ok(()) => {}
        Err(PublishError::Refused(error)) => {
            tracing::error!(error, "Redis does not let this node read what was revoked before it came");
        }
        // The broker says so in its own words, once.
        Err(PublishError::Unavailable | PublishError::Busy) => return false,
    }
    revocations.is_read.store(true, Ordering::Relaxed);
    true
}

/// Reads the whole log: what Redis has may be another's than before.
async fn read(broker: &dyn Broker, revocations: &Revocations) -> Result<(), PublishError> {
    let mut after = None;
    loop {
        let page = broker.read_log(&log(), after.as_ref()).await?;
        let Some((last, _)) = page.last() else { return Ok(()) };
        after = Some(last.clone());
        let now = seconds_now();
        page.iter().for_each(|(_, entry)| revocations.take_note(entry, now));
    }
}

fn log() -> Topic {
    Topic::parse(LOG).expect("the name is a legal one")
}

/// The time since 1970.
pub fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

pub(crate) fn seconds_now() -> u64 {
    now().as_secs()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn request() -> RevokeRequest {
        RevokeRequest { ttl: Duration::from_secs(3600), ..RevokeRequest::default() }
    }

    fn meant(request: RevokeRequest) -> Revocation {
        request.meant_at(Duration::from_secs(NOW)).unwrap()
    }

    fn by_subject(subject: &str) -> RevokeRequest {
        RevokeRequest { subject: Some(subject.to_owned()), ..request() }
    }

    /// The policy of a token of `subject`, named `jti`, issued when, by whom.
    fn token(revocations: &Revocations, subject: &str, jti: &str, issued: u64, issuer: &str) -> Policy {
        let jti = Some(jti).filter(|jti| !jti.is_empty());
        let mark = revocations.mark(Some(issuer), jti, Some(Duration::from_secs(issued)));
        Policy::new(subject, Arc::default()).marked(mark)
    }

    #[test]
    fn a_revocation_is_for_the_tokens_it_names_and_no_others() {
        let told = |request: RevokeRequest| {
            let revocations = Revocations::default();
            revocations.take_note(&serde_json::to_vec(&meant(request)).unwrap(), NOW);
            assert_eq!((revocations.len(), revocations.version()), (1, 1));
            revocations
        };
        let by_jti = told(RevokeRequest { jti: Some("a".into()), ..request() });
        assert!(by_jti.revokes(&token(&by_jti, "alice", "a", NOW, "us")));
        assert!(!by_jti.revokes(&token(&by_jti, "alice", "b", NOW, "us")));
        assert!(!by_jti.revokes(&token(&by_jti, "alice", "", NOW, "us")));

        let by_subject = told(by_subject("alice"));
        assert!(by_subject.revokes(&token(&by_subject, "alice", "b", NOW + 1_000, "us")));
        assert!(!by_subject.revokes(&token(&by_subject, "alicia", "b", NOW, "us")));

        let earlier =
            told(RevokeRequest { subject: Some("alice".into()), issued_before: Some(NOW), ..request() });
        assert!(earlier.revokes(&token(&earlier, "alice", "", NOW - 1, "us")));
        assert!(!earlier.revokes(&token(&earlier, "alice", "", NOW, "us")));
        assert!(!earlier.revokes(&token(&earlier, "bob", "", NOW - 1, "us")));

        let everybody =
            told(RevokeRequest { issued_before: Some(NOW), issuer: Some("us".into()), ..request() });
        assert!(everybody.revokes(&token(&everybody, "bob", "", NOW - 1, "us")));
        assert!(!everybody.revokes(&token(&everybody, "bob", "", NOW - 1, "them")));
        assert!(!everybody.revokes(&token(&everybody, "bob", "", NOW, "us")));
        let undated = Policy::new("bob", Arc::default()).marked(everybody.mark(Some("us"), None, None));
        assert!(everybody.revokes(&undated), "who knows when it was issued");
    }

    #[test]
    fn a_revocation_ends_and_may_be_prolonged() {
        let revocations = Revocations::default();
        let alice = token(&revocations, "alice", "", NOW, "us");
        revocations.add(&meant(by_subject("alice")), NOW);
        revocations.add(&meant(RevokeRequest { ttl: Duration::from_secs(7200), ..by_subject("alice") }), NOW);
        revocations.add(&meant(by_subject("alice")), NOW);
        assert_eq!((revocations.len(), revocations.version()), (1, 1));
        revocations.sweep(NOW + 7199);
        assert!(revocations.revokes(&alice));
        revocations.sweep(NOW + 7200);
        assert!(!revocations.revokes(&alice));
        assert_eq!(revocations.len(), 0);
        revocations.add(&meant(by_subject("alice")), NOW + 3600);
        assert_eq!(revocations.len(), 0, "what is over is not taken note of");
    }

    #[test]
    fn there_are_only_so_many() {
        let revocations = Revocations::default();
        for number in 0..REVOCATIONS_MAX + 10 {
            revocations.add(&meant(by_subject(&format!("s{number}"))), NOW);
        }
        assert_eq!(revocations.len(), REVOCATIONS_MAX);
        assert_eq!(revocations.rules.read().unwrap().subjects.len(), REVOCATIONS_MAX);
        revocations.sweep(NOW + 3600);
        assert_eq!(revocations.rules.read().unwrap().subjects.len(), 0);
    }

    #[test]
    fn what_is_not_clear_is_not_accepted() {
        let some = |text: &str| Some(text.to_owned());
        for unclear in [
            request(),
            RevokeRequest { jti: some("a"), subject: some("alice"), ..request() },
            RevokeRequest { jti: some("a"), issued_before: Some(1), ..request() },
            RevokeRequest { issuer: some("us"), ..request() },
            by_subject(""),
            by_subject(&"s".repeat(257)),
            RevokeRequest { ttl: Duration::ZERO, ..by_subject("alice") },
            RevokeRequest { ttl: TTL_MAX + Duration::from_secs(1), ..by_subject("alice") },
        ] {
            assert!(unclear.clone().meant_at(Duration::ZERO).is_err(), "{unclear:?}");
        }
    }

    #[test]
    fn what_is_not_understood_is_not_followed() {
        let revocations = Revocations::default();
        let until = NOW + 60;
        for told in [
            String::new(),
            "{}".to_owned(),
            format!(r#"{{"whose":"everybody","until":{until},"unless":"vip"}}"#),
            format!(r#"{{"whose":{{"role":"a"}},"until":{until}}}"#),
            r#"{"whose":"everybody","until":18446744073709551615}"#.to_owned(),
            r#"{"whose":"everybody","until":-1}"#.to_owned(),
        ] {
            revocations.take_note(told.as_bytes(), NOW);
        }
        assert_eq!((revocations.len(), revocations.version()), (0, 0));
    }
}
