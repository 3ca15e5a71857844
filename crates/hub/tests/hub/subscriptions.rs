//! Subscribing, and what it takes to be told so.

use std::time::Duration;

use causeway_hub::{HubGauges, HubLimits};
use serde_json::json;

use crate::support::{SECOND, Said, Stage, error, message, policy, stage, subscribed, topic, unsubscribed};

#[test]
fn the_welcome_comes_first_and_says_what_to_expect() {
    let mut stage = stage();
    let alice = stage.connect_with(policy("alice", &["**"]), 3600);
    let name = stage.hub.session_name(stage.key(alice));
    let welcome = Said::Welcome {
        session: name,
        node: "a".to_owned(),
        ping_interval_ms: 25_000,
        expires_in_ms: 3_600_000,
    };
    assert_eq!(stage.hears(alice), [welcome]);
}

#[test]
fn subscribed_is_said_once_the_broker_confirmed_and_every_later_message_arrives() {
    let mut stage = stage();
    let alice = stage.connect("alice");
    stage.subscribe(alice, 1, &["orders.42"]);
    stage.publish("orders.42", "too early");
    assert_eq!(stage.hears(alice), []);
    stage.confirm("orders.42");
    stage.publish("orders.42", json!({"total": 9}));
    stage.publish("news", "not hers");
    stage.publish("orders.42", json!({"total": 10}));
    let expected = [
        subscribed(1, &["orders.42"], &[]),
        message("orders.42", json!({"total": 9})),
        message("orders.42", json!({"total": 10})),
    ];
    assert_eq!(stage.hears(alice), expected);
}

#[test]
fn a_topic_that_is_live_already_is_confirmed_at_once() {
    let mut stage = stage();
    stage.subscriber("alice", &["news"]);
    let bob = stage.connect("bob");
    stage.subscribe(bob, 1, &["news"]);
    assert_eq!(stage.hears(bob), [subscribed(1, &["news"], &[])]);
}

#[test]
fn a_command_with_several_topics_has_one_reply_when_all_are_live() {
    let mut stage = stage();
    let alice = stage.connect("alice");
    stage.subscribe(alice, 1, &["a", "b", "c"]);
    stage.confirm("b");
    stage.confirm("a");
    stage.publish("a", "before the reply");
    assert_eq!(stage.hears(alice), []);
    stage.confirm("c");
    stage.publish("a", "after it");
    assert_eq!(stage.hears(alice), [subscribed(1, &["a", "b", "c"], &[]), message("a", "after it")]);
}

#[test]
fn refused_topics_are_listed_each_with_its_code_and_do_not_hold_up_the_others() {
    let mut stage = Stage::new(HubLimits { topics_per_session: 3, ..HubLimits::default() });
    let alice = stage.connect_with(policy("alice", &["orders.*", "_causeway"]), 3600);
    stage.subscribe(alice, 0, &["orders.0"]);
    stage.confirm("orders.0");
    stage.hears(alice);
    stage.subscribe(alice, 1, &["no topic", "news", "_causeway", "orders.1", "orders.2", "orders.3"]);
    stage.confirm("orders.1");
    stage.confirm("orders.2");
    let refused = [
        ("no topic", "bad_topic"),
        ("news", "forbidden"),
        ("_causeway", "forbidden"),
        ("orders.3", "limit_exceeded"),
    ];
    assert_eq!(stage.hears(alice), [subscribed(1, &["orders.1", "orders.2"], &refused)]);
    assert_eq!(stage.wanted.len(), 3, "what is refused is not asked for");
}

#[test]
fn when_every_topic_is_refused_the_reply_comes_at_once_and_names_no_more_than_a_topic_can_be_long() {
    let mut stage = stage();
    let alice = stage.connect("alice");
    stage.subscribe(alice, 1, &[&"é".repeat(1000)]);
    assert_eq!(stage.hears(alice), [subscribed(1, &[], &[(&"é".repeat(100), "bad_topic")])]);
}

#[test]
fn a_topic_named_twice_is_one_topic() {
    let mut stage = Stage::new(HubLimits { topics_per_session: 2, ..HubLimits::default() });
    let alice = stage.connect("alice");
    stage.subscribe(alice, 1, &["a", "a", "b"]);
    stage.subscribe(alice, 2, &["b", "a"]);
    stage.confirm("a");
    stage.confirm("b");
    assert_eq!(stage.hears(alice), [subscribed(1, &["a", "b"], &[]), subscribed(2, &["b", "a"], &[])]);
    stage.publish("a", 1);
    assert_eq!(stage.hears(alice), [message("a", 1)]);
    stage.unsubscribe(alice, 3, &["a"]);
    stage.publish("a", 2);
    assert_eq!(stage.hears(alice), [unsubscribed(3, &["a"])]);
}

#[test]
fn asking_again_for_topics_that_were_lost_takes_no_more_room() {
    let mut stage = Stage::new(HubLimits { topics_per_session: 3, ..HubLimits::default() });
    let alice = stage.subscriber("alice", &["a", "b"]);
    stage.hub.link_lost(Duration::ZERO, stage.now());
    stage.subscribe(alice, 1, &["a", "b"]);
    stage.subscribe(alice, 2, &["c"]);
    stage.confirm("c");
    assert_eq!(stage.hears(alice), [subscribed(2, &["c"], &[])]);
}

#[test]
fn a_command_that_names_more_than_anybody_can_use_is_refused_whole() {
    let mut stage = Stage::new(HubLimits { topics_per_session: 2, ..HubLimits::default() });
    let alice = stage.connect("alice");
    stage.subscribe(alice, 1, &["a", "no topic", "nor this"]);
    stage.subscribe(alice, 2, &["a", "b"]);
    stage.unsubscribe(alice, 3, &["a", "b", "c", "d", "e"]);
    assert_eq!(stage.hears(alice), [error(2, "limit_exceeded"), error(3, "limit_exceeded")]);
    stage.confirm("a");
    stage.hears(alice);
    stage.subscribe(alice, 4, &["a", "b"]);
    stage.confirm("b");
    assert_eq!(stage.hears(alice), [subscribed(4, &["a", "b"], &[])]);
}

#[test]
fn unsubscribing_while_waiting_answers_both_commands_and_nothing_is_delivered() {
    let mut stage = stage();
    let alice = stage.connect("alice");
    stage.subscribe(alice, 1, &["a", "b"]);
    stage.confirm("b");
    stage.unsubscribe(alice, 2, &["a"]);
    assert_eq!(stage.hears(alice), [subscribed(1, &["b"], &[]), unsubscribed(2, &["a"])]);
    assert!(!stage.wanted.contains_key("a"));
    stage.subscribe(alice, 3, &["c"]);
    stage.unsubscribe(alice, 4, &["c", "never.had", "no topic"]);
    let both = [subscribed(3, &[], &[]), unsubscribed(4, &["c", "never.had", "no topic"])];
    assert_eq!(stage.hears(alice), both);
    stage.publish("a", 1);
    stage.publish("c", 1);
    assert_eq!(stage.hears(alice), []);
}

#[test]
fn what_the_broker_does_not_confirm_in_time_is_refused_as_unavailable() {
    let mut stage = stage();
    let alice = stage.connect("alice");
    stage.subscribe(alice, 1, &["a", "b"]);
    stage.confirm("b");
    stage.pass(4 * SECOND);
    assert_eq!(stage.hears(alice), []);
    stage.pass(SECOND);
    assert_eq!(stage.hears(alice), [subscribed(1, &["b"], &[("a", "broker_unavailable")])]);
    assert!(!stage.wanted.contains_key("a"), "given up is given up");
    stage.publish("b", 1);
    assert_eq!(stage.hears(alice), [message("b", 1)]);
}

#[test]
fn a_late_answer_to_an_earlier_wish_confirms_nothing() {
    let mut stage = stage();
    let alice = stage.connect("alice");
    stage.subscribe(alice, 1, &["a"]);
    let earlier = stage.wanted["a"];
    stage.unsubscribe(alice, 2, &["a"]);
    stage.subscribe(alice, 3, &["a"]);
    stage.hears(alice);
    stage.hub.topic_live(&topic("a"), earlier, stage.now());
    assert_eq!(stage.hears(alice), []);
    stage.confirm("a");
    assert_eq!(stage.hears(alice), [subscribed(3, &["a"], &[])]);
}

#[test]
fn the_broker_is_asked_once_for_a_topic_and_told_when_the_last_has_left() {
    let mut stage = stage();
    let alice = stage.subscriber("alice", &["a"]);
    let bob = stage.connect("bob");
    stage.subscribe(bob, 1, &["a"]);
    stage.unsubscribe(alice, 2, &["a"]);
    assert!(stage.wanted.contains_key("a"), "bob is there still");
    stage.hub.disconnect(stage.key(bob));
    stage.pass(Duration::ZERO);
    assert!(stage.wanted.is_empty());
    stage.hears(alice);
    assert_eq!(stage.hub.gauges(), HubGauges { sessions: 1, ..HubGauges::default() });
}
