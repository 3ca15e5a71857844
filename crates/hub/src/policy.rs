//! Who may do what: the only place where a permit can come from.

use std::sync::Arc;

use causeway_protocol::{Pattern, Topic};

/// The topics that a token grants. Tokens of one kind grant the same, so this is shared between them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Grants {
    /// Topics that may be subscribed to.
    pub subscribe: Box<[Pattern]>,
    /// Topics that may be published to.
    pub publish: Box<[Pattern]>,
}

/// By what one token is told from others when it has to end before its time. Sixteen bytes of every session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokenMark {
    /// Made of the token's own name; zero where it has none.
    pub id: u64,
    /// When it was issued, in seconds since 1970; zero where it does not say.
    pub issued: u32,
    /// Made of its issuer's name.
    pub issuer: u32,
}

/// What a proved token allows its subject. Whatever is not granted is refused, and reserved topics always are.
#[derive(Clone, Debug)]
pub struct Policy {
    subject: Box<str>,
    grants: Arc<Grants>,
    mark: TokenMark,
}

/// Proof that a policy allows subscribing to a topic.
#[derive(Debug)]
pub struct SubscribePermit(Topic);

/// Proof that a policy allows publishing to a topic.
#[derive(Debug)]
pub struct PublishPermit(Topic);

impl Policy {
    /// The policy of a token that was proved to be `subject`'s and to grant `grants`.
    pub fn new(subject: impl Into<Box<str>>, grants: Arc<Grants>) -> Self {
        Self { subject: subject.into(), grants, mark: TokenMark::default() }
    }

    /// The same, of a token with this mark.
    #[must_use]
    pub fn marked(self, mark: TokenMark) -> Self {
        Self { mark, ..self }
    }

    /// The token's mark.
    pub fn mark(&self) -> TokenMark {
        self.mark
    }

    /// Whether both are the same client's: one issuer's subject of this name is not another issuer's.
    pub(crate) fn is_same_subject(&self, other: &Self) -> bool {
        self.subject == other.subject && self.mark.issuer == other.mark.issuer
    }

    /// Whose token it is.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// The permit to subscribe to `topic`, if it is granted.
    pub fn permit_subscribe(&self, topic: Topic) -> Option<SubscribePermit> {
        self.subscribe_pattern(&topic).is_some().then_some(SubscribePermit(topic))
    }

    /// The permit to publish to `topic`, if it is granted.
    pub fn permit_publish(&self, topic: Topic) -> Option<PublishPermit> {
        self.publish_pattern(&topic).is_some().then_some(PublishPermit(topic))
    }

    /// The pattern by which subscribing to `topic` is granted, if it is.
    pub fn subscribe_pattern(&self, topic: &Topic) -> Option<&Pattern> {
        self.granting(&self.grants.subscribe, topic)
    }

    /// The pattern by which publishing to `topic` is granted, if it is.
    pub fn publish_pattern(&self, topic: &Topic) -> Option<&Pattern> {
        self.granting(&self.grants.publish, topic)
    }

    /// Whether a subscription made under an earlier token would be permitted under this one.
    pub(crate) fn still_allows(&self, subscribed: &Topic) -> bool {
        self.subscribe_pattern(subscribed).is_some()
    }

    fn granting<'a>(&self, granted: &'a [Pattern], topic: &Topic) -> Option<&'a Pattern> {
        let mut granted = granted.iter().filter(|_| !topic.is_reserved());
        granted.find(|pattern| pattern.matches(topic, &self.subject))
    }
}

impl SubscribePermit {
    /// The topic it permits.
    pub fn topic(&self) -> &Topic {
        &self.0
    }
}

impl PublishPermit {
    /// The topic it permits.
    pub fn topic(&self) -> &Topic {
        &self.0
    }

    /// Spends the permit.
    pub fn into_topic(self) -> Topic {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_granted_is_refused() {
        let patterns = |texts: &[&str]| texts.iter().map(|text| Pattern::parse(text).unwrap()).collect();
        let grants = Grants { subscribe: patterns(&["**"]), publish: patterns(&["chat.{sub}"]) };
        let alice = Policy::new("alice", Arc::new(grants));
        let topic = |name| Topic::parse(name).unwrap();
        assert!(alice.permit_subscribe(topic("orders.42")).is_some());
        assert!(alice.permit_subscribe(topic("_causeway.control")).is_none(), "reserved, even under **");
        assert!(alice.permit_publish(topic("chat.alice")).is_some());
        assert!(alice.permit_publish(topic("chat.bob")).is_none());
        assert!(Policy::new("bob", Arc::default()).permit_subscribe(topic("orders.42")).is_none());
    }

    /// Claims by topics: bytes are compared, and nothing is normalised.
    #[test]
    fn t25_claims_grant_exactly_what_they_say() {
        let topics = [
            "orders",
            "orders.42",
            "Orders.42",
            "ORDERS.42",
            "orders.43",
            "orders.42.x",
            "orders:42",
            "orders/42",
            "orders%2E42",
            "orders.%34%32",
            "orders.4",
            "orders.420",
            "xorders.42",
            "orders-42",
            "_orders.42",
            "_causeway.revoked",
            "alice",
            "alice.orders",
            "bob.orders",
            "alice:orders",
            "Alice.orders",
        ];
        for (pattern, granted) in [
            ("orders.42", &["orders.42"][..]),
            ("orders.*", &["orders.42", "orders.43", "orders.%34%32", "orders.4", "orders.420"]),
            (
                "orders.**",
                &["orders.42", "orders.43", "orders.42.x", "orders.%34%32", "orders.4", "orders.420"],
            ),
            ("orders:*", &["orders:42"]),
            ("orders", &["orders"]),
            ("{sub}.*", &["alice.orders"]),
            ("{sub}", &["alice"]),
            ("_causeway.*", &[]),
            ("_orders.42", &[]),
        ] {
            let patterns: Box<[Pattern]> = [Pattern::parse(pattern).unwrap()].into();
            let subscriber = Grants { subscribe: patterns.clone(), publish: Box::default() };
            let publisher = Grants { subscribe: Box::default(), publish: patterns };
            for name in topics {
                let topic = || Topic::parse(name).unwrap();
                let permits = |grants: &Grants| {
                    let alice = Policy::new("alice", Arc::new(grants.clone()));
                    (alice.permit_subscribe(topic()).is_some(), alice.permit_publish(topic()).is_some())
                };
                let is_granted = granted.contains(&name);
                assert_eq!(permits(&subscriber), (is_granted, false), "{pattern} for {name}");
                assert_eq!(permits(&publisher), (false, is_granted), "{pattern} for {name}");
            }
        }
    }
}
