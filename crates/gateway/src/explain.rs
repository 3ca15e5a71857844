//! Why a client is let in or not, and may have a topic or not: every rule in the order in which it is applied, what
//! it says, and which one decided.
//!
//! The rules are those that decide for real (see `entrance`, and the hub's policy); here they are only asked one by
//! one and put into words. Asking a node that runs counts as one upgrade of the address asked about, and as one
//! connection for that moment. A configuration alone knows neither, so those rules stay out of its answer; nor does
//! it know what is revoked.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use actix_http::RequestHead;
use actix_http::header::{self, HeaderName, HeaderValue, InvalidHeaderValue};
use bytesize::ByteSize;
use causeway_hub::Policy;
use causeway_protocol::{ErrorCode, Topic};
use serde::{Deserialize, Serialize};

use crate::admission::Admission;
use crate::budget::Budget;
use crate::client_addr::PeerAddr;
use crate::config::Config;
use crate::entrance::{Attempt, Entrance, Gate, Rule};
use crate::node::Node;
use crate::rejection::Rejection;
use crate::revocation::Revocations;
use crate::token::{FetchError, Place, TokenError, Verifier};

/// What is asked. The keys of its JSON are its fields, all of them optional.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Question {
    /// The token, if the client has one.
    pub token: Option<String>,
    /// The page's `Origin`, if it is a page.
    pub origin: Option<String>,
    /// Who holds the socket; 127.0.0.1 where nobody is named.
    pub peer: Option<IpAddr>,
    /// The `X-Forwarded-For` headers, in their order.
    pub forwarded_for: Vec<String>,
    /// The topic that it asks for once it is in, if any.
    pub topic: Option<String>,
    /// What it wants with the topic.
    pub action: Action,
}

/// What a client may want with a topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// To hear it.
    #[default]
    Subscribe,
    /// To publish to it.
    Publish,
}

/// The answer. Of the token it holds the subject and the pattern that grants the topic, and nothing else.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Explanation {
    /// Whether all that was asked for is allowed.
    pub allowed: bool,
    /// The first rule that refused, if one did.
    pub decided_by: Option<String>,
    /// Whom limits apply to.
    pub client: String,
    /// Every rule, in the order in which they are applied.
    pub rules: Vec<Ruling>,
}

/// What one rule says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ruling {
    /// The rule's name.
    pub rule: String,
    /// What became of it.
    pub verdict: Verdict,
    /// Why, in words.
    pub words: String,
    /// What the client is told where the rule refuses: the `code` of the answer over HTTP, or that of the reply.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
}

/// What became of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It lets pass.
    Passed,
    /// It refuses. Rules behind the first that does were applied only to tell what they say.
    Refused,
    /// It was not applied.
    NotAsked,
}

/// Why a configuration alone cannot tell.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// A part of the question cannot stand in a request.
    #[error(transparent)]
    BadQuestion(#[from] InvalidHeaderValue),
    /// The token's key is not known, and not all published keys could be fetched.
    #[error(
        "it cannot be told: the token's key is not known, and {place} cannot be fetched from here: {error}; \
         a node that runs may know (--live)"
    )]
    KeysUnknown {
        /// Where the keys are published.
        place: Place,
        /// Why they were not to be had.
        error: FetchError,
    },
}

/// Who explains.
struct Explainer<'a> {
    gate: Gate<'a>,
    /// Whether connections and rates are known.
    is_running: bool,
}

impl Explanation {
    /// What a configuration alone answers. Published keys are fetched for it, once. Within an actix system.
    ///
    /// # Errors
    /// [`ExplainError`]
    pub async fn by_configuration(config: Config, question: &Question) -> Result<Self, ExplainError> {
        // What is revoked, only nodes know.
        let revocations = Arc::new(Revocations::default());
        let entrance =
            Entrance::new(config.auth, config.allowed_origins, config.trusted_proxies, revocations);
        let (admission, budget) = (Admission::new(config.admission), Budget::new(config.budget_bytes));
        let gate =
            Gate { entrance: &entrance, admission: &Arc::new(admission), budget: &budget, metrics: None };
        if let Some(token) = &question.token {
            fetch_keys(&entrance.verifier, token).await?;
        }
        Ok(Explainer { gate, is_running: false }.explain(question)?)
    }

    /// What a node that runs answers.
    pub(crate) fn by_node(node: &Node, question: &Question) -> Result<Self, InvalidHeaderValue> {
        let settings = node.settings();
        let gate = node.gate(&settings.entrance, None);
        Explainer { gate, is_running: true }.explain(question)
    }

    fn new(client: String, rules: Vec<Ruling>) -> Self {
        let decided_by = rules.iter().find(|ruling| ruling.verdict == Verdict::Refused);
        let decided_by = decided_by.map(|ruling| ruling.rule.clone());
        Self { allowed: decided_by.is_none(), decided_by, client, rules }
    }
}

/// Fetches what is published. Whatever could not be had does not matter to a token whose key is known.
async fn fetch_keys(verifier: &Verifier, token: &str) -> Result<(), ExplainError> {
    let mut outcome = Ok(());
    for set in verifier.key_sets() {
        if let Err(error) = set.fetch_once().await {
            outcome = Err(ExplainError::KeysUnknown { place: set.place().clone(), error });
        }
    }
    match verifier.verify(token) {
        Err(TokenError::UnknownKey) => outcome,
        _ => Ok(()),
    }
}

impl Explainer<'_> {
    fn explain(&self, question: &Question) -> Result<Explanation, InvalidHeaderValue> {
        let head = question.head()?;
        let peer = PeerAddr(question.peer.unwrap_or(Ipv4Addr::LOCALHOST.into()).to_canonical());
        let mut attempt = Attempt::new(self.gate, peer, &head, |_| Ok(()));
        let mut rules: Vec<_> = Rule::ORDER.map(|rule| self.ruling(rule, &mut attempt)).into();
        if let Some(topic) = &question.topic {
            let policy = attempt.verified().map(|verified| &verified.policy);
            rules.extend(about_topic(topic, question.action, policy));
        }
        Ok(Explanation::new(attempt.client().to_string(), rules))
    }

    fn ruling(&self, rule: Rule, attempt: &mut Attempt<'_, ()>) -> Ruling {
        let name = rule.name();
        if rule == Rule::Handshake {
            return Ruling::not_asked(name, "a question has no handshake");
        }
        if rule.needs_a_node() && !self.is_running {
            return Ruling::not_asked(name, "only a node that runs knows");
        }
        match attempt.check(rule) {
            Ok(()) => Ruling::passed(name, self.words(rule, attempt)),
            Err(refusal) => {
                Ruling::refused(name, self.refusal_words(rule, &refusal, attempt), refusal.code())
            }
        }
    }

    /// Why a rule let pass.
    fn words(&self, rule: Rule, attempt: &Attempt<'_, ()>) -> String {
        let (limits, client) = (self.gate.admission.limits(), attempt.client());
        match rule {
            Rule::NodeOpen => "the node is open".to_owned(),
            Rule::NodeRoom => {
                format!("{} of {} connections", self.gate.admission.connections(), limits.connections)
            }
            Rule::NodeMemory => self.memory(),
            Rule::UpgradeRate => format!(
                "{client} keeps to {} upgrades a second, {} at once",
                limits.upgrades_per_ip_per_second, limits.upgrades_per_ip_burst
            ),
            Rule::AddressRoom => {
                // This attempt is among them.
                let others = self.gate.admission.connections_of(client).saturating_sub(1);
                format!("{others} of {} connections of {client}", limits.connections_per_ip)
            }
            Rule::Origin if attempt.has_origin() => "the origin is allowed".to_owned(),
            Rule::Origin => "no Origin: the client is no page".to_owned(),
            Rule::Handshake => String::new(),
            Rule::Token => attempt.verified().map_or_else(String::new, |verified| {
                let left =
                    humantime::format_duration(std::time::Duration::from_secs(verified.expires_in.as_secs()));
                format!("it is a token of `{}`, good for {left}", verified.policy.subject().escape_debug())
            }),
        }
    }

    fn memory(&self) -> String {
        let budget = self.gate.budget;
        format!(
            "{} of limits.outbox_bytes_total, {}, wait for clients",
            ByteSize(budget.used() as u64),
            ByteSize(budget.bytes() as u64)
        )
    }

    /// Why a rule refused, with what the client is not told.
    fn refusal_words(&self, rule: Rule, refusal: &Rejection, attempt: &Attempt<'_, ()>) -> String {
        let (limits, client) = (self.gate.admission.limits(), attempt.client());
        match refusal {
            Rejection::NodeFull if rule == Rule::NodeMemory => format!("{refusal}: {}", self.memory()),
            Rejection::NodeFull => format!("{refusal}: limits.connections is {}", limits.connections),
            Rejection::TooManyUpgrades { retry_after } => format!(
                "{refusal}: {client} may have {} a second, {} at once; again in {} ms",
                limits.upgrades_per_ip_per_second,
                limits.upgrades_per_ip_burst,
                retry_after.as_millis()
            ),
            Rejection::TooManyConnections => {
                format!("{refusal}: {client} has {}, limits.connections_per_ip", limits.connections_per_ip)
            }
            Rejection::OriginNotAllowed if !attempt.has_origin() => {
                format!("{refusal}: a token in a cookie needs one")
            }
            Rejection::OriginNotAllowed => format!("{refusal}: allowed_origins does not name it"),
            other => other.to_string(),
        }
    }
}

/// What is asked of a topic: that it is one, and that the token grants it.
fn about_topic(name: &str, action: Action, policy: Option<&Policy>) -> [Ruling; 2] {
    let forbidden = ErrorCode::Forbidden.name();
    let topic = match Topic::parse(name) {
        Ok(topic) => topic,
        Err(fault) => {
            let code = ErrorCode::BadTopic.name();
            return [
                Ruling::refused("topic", fault.to_string(), code),
                Ruling::not_asked(action.name(), "it is no topic"),
            ];
        }
    };
    let is_topic = Ruling::passed("topic", format!("`{topic}` is a topic"));
    let Some(policy) = policy else {
        return [is_topic, Ruling::not_asked(action.name(), "without a token nothing is granted")];
    };
    let granting = match action {
        Action::Subscribe => policy.subscribe_pattern(&topic),
        Action::Publish => policy.publish_pattern(&topic),
    };
    let granted = match granting {
        Some(pattern) => Ruling::passed(action.name(), format!("the token grants `{pattern}`")),
        None if topic.is_reserved() => {
            Ruling::refused(action.name(), "a topic that begins with `_` is reserved", forbidden)
        }
        None => Ruling::refused(action.name(), "no pattern of the token matches the topic", forbidden),
    };
    [is_topic, granted]
}

impl Question {
    /// The head of a request that asks the same.
    fn head(&self) -> Result<RequestHead, InvalidHeaderValue> {
        let mut head = RequestHead::default();
        let mut add = |name: HeaderName, value: &str| {
            head.headers_mut().append(name, HeaderValue::from_str(value)?);
            Ok(())
        };
        if let Some(token) = &self.token {
            add(header::AUTHORIZATION, &format!("Bearer {token}"))?;
        }
        if let Some(origin) = &self.origin {
            add(header::ORIGIN, origin)?;
        }
        for hops in &self.forwarded_for {
            add(HeaderName::from_static("x-forwarded-for"), hops)?;
        }
        Ok(head)
    }
}

impl Action {
    fn name(self) -> &'static str {
        match self {
            Self::Subscribe => "subscribe",
            Self::Publish => "publish",
        }
    }
}

impl Rule {
    fn name(self) -> &'static str {
        match self {
            Self::NodeOpen => "node_open",
            Self::NodeRoom => "node_room",
            Self::NodeMemory => "node_memory",
            Self::UpgradeRate => "upgrade_rate",
            Self::AddressRoom => "address_room",
            Self::Origin => "origin",
            Self::Handshake => "handshake",
            Self::Token => "token",
        }
    }

    fn needs_a_node(self) -> bool {
        matches!(
            self,
            Self::NodeOpen | Self::NodeRoom | Self::NodeMemory | Self::UpgradeRate | Self::AddressRoom
        )
    }
}

impl Ruling {
    fn passed(rule: &str, words: impl Into<String>) -> Self {
        Self { rule: rule.to_owned(), verdict: Verdict::Passed, words: words.into(), code: None }
    }

    fn refused(rule: &str, words: impl Into<String>, code: &str) -> Self {
        let code = Some(code.to_owned());
        Self { rule: rule.to_owned(), verdict: Verdict::Refused, words: words.into(), code }
    }

    fn not_asked(rule: &str, words: impl Into<String>) -> Self {
        Self { rule: rule.to_owned(), verdict: Verdict::NotAsked, words: words.into(), code: None }
    }
}

/// For people: a line for each rule, and then what it comes to.
impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "client {}", self.client)?;
        for Ruling { rule, verdict, words, code } in &self.rules {
            let sign = match verdict {
                Verdict::Passed => "pass",
                Verdict::Refused => "FAIL",
                Verdict::NotAsked => "-",
            };
            let code = code.as_ref().map_or(String::new(), |code| format!(" ({code})"));
            writeln!(f, "{sign:<4}  {rule:<12}  {words}{code}")?;
        }
        match &self.decided_by {
            None => f.write_str("allowed"),
            Some(rule) => write!(f, "refused by {rule}"),
        }
    }
}
