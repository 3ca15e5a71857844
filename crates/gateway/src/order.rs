//! What operators order of all nodes: connections that end, and subscriptions that end.
//!
//! An order is read strictly, from an operator as from another node: what it names is checked where it enters, and a
//! fault names what was wrong.

use std::fmt;
use std::sync::Arc;

use causeway_hub::{Policy, SessionKey};
use causeway_protocol::{CloseCode, Topic};
use serde::{Deserialize, Serialize};

use crate::node::Node;

/// The longest subject or node name, in bytes.
const NAME_BYTES_MAX: usize = 256;

/// One order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Order {
    whom: Whom,
    what: What,
}

/// Which sessions are meant: those that are all that is said here, and something is said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Whom {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    subject: Option<Name>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    session: Option<SessionOf>,
}

/// A session of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SessionOf {
    node: Name,
    name: SessionName,
}

/// What happens to them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum What {
    Disconnect(Farewell),
    Unsubscribe(TopicName),
}

/// What `POST /admin/disconnect` takes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DisconnectRequest {
    subject: Option<Name>,
    session: Option<SessionName>,
    node: Option<Name>,
    #[serde(default)]
    code: Farewell,
}

/// What `POST /admin/unsubscribe` takes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UnsubscribeRequest {
    subject: Option<Name>,
    session: Option<SessionName>,
    node: Option<Name>,
    topic: TopicName,
}

/// The request names nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UnclearOrder {
    #[error("whom? expected `subject`, or `session` and the `node` that it is on")]
    Whom,
    #[error("`node` says where a `session` is: expected `session` besides")]
    NodeAlone,
}

impl DisconnectRequest {
    /// What it means on the node of this name, where it was asked.
    ///
    /// # Errors
    /// [`UnclearOrder`].
    pub(crate) fn meant_on(self, here: &str) -> Result<Order, UnclearOrder> {
        let Self { subject, session, node, code } = self;
        Ok(Order { whom: Whom::meant_on(here, subject, session, node)?, what: What::Disconnect(code) })
    }
}

impl UnsubscribeRequest {
    /// What it means on the node of this name, where it was asked.
    ///
    /// # Errors
    /// [`UnclearOrder`].
    pub(crate) fn meant_on(self, here: &str) -> Result<Order, UnclearOrder> {
        let Self { subject, session, node, topic } = self;
        Ok(Order { whom: Whom::meant_on(here, subject, session, node)?, what: What::Unsubscribe(topic) })
    }
}

impl Order {
    /// Carries it out on the sessions of this node that are meant. Says how many they were.
    pub(crate) async fn carry_out(&self, node: &Node) -> usize {
        if !self.whom.may_be_on(&node.name) {
            return 0;
        }
        let order = Arc::new(self.clone());
        let counts = node.crew.ask_all(move |worker| {
            let (mut hub, now) = (worker.hub.borrow_mut(), worker.now());
            let is_meant = |key, policy: &Policy| order.whom.is(worker.number, key, policy);
            match &order.what {
                What::Disconnect(Farewell(code)) => hub.end(is_meant, *code, now),
                What::Unsubscribe(TopicName(topic)) => hub.end_subscriptions(is_meant, topic, now),
            }
        });
        counts.await.into_iter().sum()
    }
}

/// For the log.
impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).expect("texts and numbers are JSON"))
    }
}

impl Whom {
    fn meant_on(
        here: &str,
        subject: Option<Name>,
        session: Option<SessionName>,
        node: Option<Name>,
    ) -> Result<Self, UnclearOrder> {
        match (&subject, session, node) {
            (_, None, Some(_)) => Err(UnclearOrder::NodeAlone),
            (None, None, None) => Err(UnclearOrder::Whom),
            (_, session, node) => {
                let node = node.unwrap_or_else(|| Name(here.into()));
                Ok(Self { subject, session: session.map(|name| SessionOf { node, name }) })
            }
        }
    }

    fn may_be_on(&self, node: &str) -> bool {
        self.session.as_ref().is_none_or(|session| *session.node.0 == *node)
    }

    /// Whether this session of a worker of this node is meant.
    fn is(&self, worker: u16, key: SessionKey, policy: &Policy) -> bool {
        let is_session = |session: &SessionOf| session.name.is(worker, key);
        let is_subject = |subject: &Name| *subject.0 == *policy.subject();
        (self.session.is_some() || self.subject.is_some())
            && self.session.as_ref().is_none_or(is_session)
            && self.subject.as_ref().is_none_or(is_subject)
    }
}

/// A subject's or a node's name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Name(pub(crate) Box<str>);

impl TryFrom<String> for Name {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        match name.len() {
            1..=NAME_BYTES_MAX => Ok(Self(name.into())),
            bytes => Err(format!("a name has 1 to {NAME_BYTES_MAX} bytes, this one has {bytes}")),
        }
    }
}

/// What a welcome calls a session: the number of its worker, and its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct SessionName {
    worker: u16,
    serial: u32,
}

impl SessionName {
    pub(crate) fn of(worker: u16, key: SessionKey) -> Self {
        Self { worker, serial: key.serial() }
    }

    fn is(self, worker: u16, key: SessionKey) -> bool {
        self == Self::of(worker, key)
    }
}

impl TryFrom<String> for SessionName {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        let parsed = name.split_once('-').and_then(|(worker, serial)| {
            Some(Self { worker: worker.parse().ok()?, serial: serial.parse().ok()? })
        });
        parsed.ok_or_else(|| {
            format!("`{name}` is no session: expected two numbers as in its welcome, such as 0-17")
        })
    }
}

impl From<SessionName> for String {
    fn from(SessionName { worker, serial }: SessionName) -> Self {
        format!("{worker}-{serial}")
    }
}

/// A topic that somebody may be subscribed to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct TopicName(pub(crate) Topic);

impl TryFrom<String> for TopicName {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        Topic::parse(&name).map(Self).map_err(|error| format!("`{name}` is no topic: {error}"))
    }
}

impl From<TopicName> for String {
    fn from(TopicName(topic): TopicName) -> Self {
        topic.to_string()
    }
}

/// The close code with which an operator ends a connection: it tells the client what to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
struct Farewell(CloseCode);

impl Farewell {
    const ALLOWED: [CloseCode; 3] =
        [CloseCode::NoLongerAllowed, CloseCode::TokenExpired, CloseCode::ServiceRestart];
}

impl Default for Farewell {
    fn default() -> Self {
        Self(CloseCode::NoLongerAllowed)
    }
}

impl TryFrom<u16> for Farewell {
    type Error = String;

    fn try_from(code: u16) -> Result<Self, String> {
        let found = Self::ALLOWED.into_iter().find(|allowed| allowed.code() == code);
        found.map(Self).ok_or_else(|| format!("code is {code}: expected 4403, 4401 or 1012"))
    }
}

impl From<Farewell> for u16 {
    fn from(Farewell(code): Farewell) -> Self {
        code.code()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn meant(request: Value) -> Result<Order, String> {
        let request: DisconnectRequest =
            serde_json::from_value(request).map_err(|error| error.to_string())?;
        request.meant_on("node-a").map_err(|error| error.to_string())
    }

    #[test]
    fn nodes_read_what_nodes_write() {
        for request in [
            json!({"subject": "alice"}),
            json!({"session": "0-17"}),
            json!({"session": "3-4294967295", "node": "node-b", "subject": "alice", "code": 1012}),
        ] {
            let order = meant(request).unwrap();
            assert_eq!(serde_json::from_str::<Order>(&order.to_string()).unwrap(), order);
        }
        let unsubscribe = json!({"subject": "alice", "topic": "orders.42"});
        let order = serde_json::from_value::<UnsubscribeRequest>(unsubscribe).unwrap().meant_on("a").unwrap();
        assert_eq!(order.to_string(), r#"{"whom":{"subject":"alice"},"what":{"unsubscribe":"orders.42"}}"#);
        assert_eq!(serde_json::from_str::<Order>(&order.to_string()).unwrap(), order);
    }

    #[test]
    fn what_is_not_clear_is_named() {
        for (request, named) in [
            (json!({}), "whom?"),
            (json!({"code": 1012}), "whom?"),
            (json!({"node": "node-b"}), "`node` says where"),
            (json!({"subject": "alice", "node": "node-b"}), "`node` says where"),
            (json!({"subject": ""}), "1 to 256 bytes"),
            (json!({"subject": "s".repeat(257)}), "this one has 257"),
            (json!({"session": "17"}), "`17` is no session"),
            (json!({"session": "0-17-1"}), "`0-17-1` is no session"),
            (json!({"session": "70000-1"}), "`70000-1` is no session"),
            (json!({"subject": "alice", "code": 1000}), "code is 1000"),
            (json!({"subject": "alice", "topic": "a"}), "unknown field `topic`"),
        ] {
            let error = meant(request.clone()).unwrap_err();
            assert!(error.contains(named), "{request}: {error}");
        }
    }

    #[test]
    fn an_order_of_another_node_that_names_nobody_is_for_nobody() {
        let nobody: Order =
            serde_json::from_value(json!({"whom": {}, "what": {"disconnect": 4403}})).unwrap();
        let mut hub = causeway_hub::Hub::new("a", 0, causeway_hub::HubLimits::default(), 1);
        let policy = || Policy::new("alice", Arc::default());
        let key = hub.connect(policy(), causeway_hub::Moment::NEVER, causeway_hub::Moment::default());
        assert!(!nobody.whom.is(0, key, &policy()));
        for (request, expected) in [
            (json!({"subject": "alice"}), true),
            (json!({"subject": "bob"}), false),
            (json!({"session": hub.session_name(key)}), true),
            (json!({"session": format!("1-{}", key.serial())}), false),
            (json!({"session": hub.session_name(key), "subject": "bob"}), false),
        ] {
            let order = meant(request.clone()).unwrap();
            assert_eq!(order.whom.is(0, key, &policy()), expected, "{request}");
            assert!(order.whom.may_be_on("node-a"));
            assert_eq!(order.whom.may_be_on("node-b"), request.get("session").is_none());
        }
    }
}
