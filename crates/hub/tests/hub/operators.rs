//! What operators see and order.

use causeway_hub::{Fate, HubLimits, Policy, SessionFacts};
use causeway_protocol::{CloseCode, Publication};

use crate::support::{Client, SECOND, Said, Stage, close, message, stage, subscribed, topic};

#[test]
fn an_operator_ends_a_subscription_and_the_client_is_told() {
    let mut stage = stage();
    let [alice, bob] = ["alice", "bob"].map(|subject| stage.subscriber(subject, &["a", "b"]));
    let is_alice = |_, policy: &Policy| policy.subject() == "alice";
    assert_eq!(stage.hub.end_subscriptions(is_alice, &topic("a"), stage.now()), 1);
    stage.publish("a", 1);
    stage.publish("b", 2);
    let told = Said::Unsubscribed { id: None, topics: vec!["a".to_owned()] };
    assert_eq!(stage.hears(alice), [told, message("b", 2)]);
    assert_eq!(stage.hears(bob), [message("a", 1), message("b", 2)]);
    assert_eq!(stage.hub.end_subscriptions(is_alice, &topic("a"), stage.now()), 0, "she has it no more");
    assert_eq!(stage.hub.end_subscriptions(|_, _| true, &topic("nobody.s"), stage.now()), 0);
    stage.subscribe(alice, 1, &["a"]);
    assert_eq!(stage.hears(alice), [subscribed(1, &["a"], &[])], "it was not forbidden");
}

#[test]
fn an_operator_ends_a_wait_for_a_topic_too() {
    let mut stage = stage();
    let alice = stage.subscriber("alice", &["b"]);
    stage.subscribe(alice, 1, &["a", "b"]);
    assert_eq!(stage.hub.end_subscriptions(|_, _| true, &topic("a"), stage.now()), 1);
    let told = Said::Unsubscribed { id: None, topics: vec!["a".to_owned()] };
    assert_eq!(stage.hears(alice), [subscribed(1, &["b"], &[]), told]);
    stage.pass(SECOND);
    assert!(!stage.wanted.contains_key("a"));
}

#[test]
fn every_open_session_is_seen_once_however_the_places_are_cut() {
    let mut stage = stage();
    let clients: Vec<Client> =
        (0..50).map(|i| stage.subscriber(&format!("s{i}"), &["a", "b"][..1 + i % 2])).collect();
    stage.hub.disconnect(stage.key(clients[7]));
    stage.hub.close(stage.key(clients[8]), CloseCode::NoLongerAllowed, stage.now());
    stage.publish("a", "12345");
    stage.hears(clients[9]);
    for step in [1, 7, 1000] {
        let places = stage.hub.session_places();
        let seen: Vec<SessionFacts<'_>> =
            (0..places).step_by(step).flat_map(|from| stage.hub.sessions_at(from..from + step)).collect();
        let mut subjects: Vec<&str> = seen.iter().map(|facts| facts.subject).collect();
        subjects.sort_unstable();
        subjects.dedup();
        assert_eq!((subjects.len(), seen.len()), (48, 48));
        let of = |client| *seen.iter().find(|facts| facts.key == stage.key(client)).unwrap();
        let (ninth, tenth) = (of(clients[9]), of(clients[10]));
        assert_eq!((ninth.subscriptions, ninth.messages_sent, ninth.queued_bytes), (2, 1, 0));
        assert_eq!((tenth.subscriptions, tenth.messages_sent), (1, 0));
        let waiting = Publication::new(topic("a"), r#""12345""#).frame().len();
        assert_eq!(tenth.queued_bytes, waiting);
        assert_eq!(ninth.bytes_sent - tenth.bytes_sent, (waiting + r#","b""#.len()) as u64);
        assert!(stage.hub.is_subscribed(ninth.key, "b") && !stage.hub.is_subscribed(tenth.key, "b"));
    }
}

#[test]
fn topics_are_weighed_by_what_they_cost_their_subscribers() {
    let mut stage = stage();
    for (subject, topics) in [("alice", &["a", "b"][..]), ("bob", &["a"]), ("carol", &["a"])] {
        stage.subscriber(subject, topics);
    }
    stage.pass(10 * SECOND);
    (0..20).for_each(|i| stage.publish("a", i % 10));
    (0..10).for_each(|_| stage.publish("b", "x".repeat(98)));
    stage.publish("nobody.s", 1);
    let now = stage.now();
    let places = stage.hub.topic_places();
    let mut seen: Vec<(&str, [i64; 3])> = (0..places)
        .flat_map(|place| stage.hub.topics_at(place..place + 1, now))
        .map(|facts| {
            let [messages, bytes] =
                [facts.messages_per_second, facts.bytes_per_second].map(|rate| (rate * 10.0) as i64);
            (facts.name.as_str(), [messages, bytes, facts.subscribers as i64])
        })
        .collect();
    seen.sort_unstable();
    assert_eq!(seen, [("a", [60, 60, 3]), ("b", [10, 1000, 1])]);
}

#[test]
fn what_is_dropped_is_remembered_by_topic_and_by_subject() {
    let mut stage = Stage::new(HubLimits { outbox_bytes: 1000, ..HubLimits::default() });
    let [alice, bob] = ["alice", "bob"].map(|subject| stage.subscriber(subject, &["a"]));
    stage.hub.topic_dropped(&topic("a"), 3, SECOND, stage.now());
    stage.hub.topic_dropped(&topic("nobody.s"), 9, SECOND, stage.now());
    assert_eq!(stage.hub.topic_drops().collect::<Vec<_>>(), [("a", 6)], "one for each subscriber");
    stage.hears(bob);
    let mut offered = 0;
    while stage.fate(alice) == Fate::Open && !stage.hears(alice).contains(&close(CloseCode::SlowConsumer)) {
        for _ in 0..20 {
            stage.publish("a", "x".repeat(80));
            stage.hears(bob);
            offered += 1;
        }
    }
    let drops: Vec<(&str, u64)> = stage.hub.subject_drops().collect();
    let [("alice", dropped)] = drops[..] else { panic!("{drops:?}") };
    assert!((5..offered).contains(&dropped), "{dropped} of {offered}");
    stage.hub.end(|_, _| true, CloseCode::NoLongerAllowed, stage.now());
    assert_eq!(stage.hub.subject_drops().count(), 1, "whoever is sent away has lost nothing");
}
