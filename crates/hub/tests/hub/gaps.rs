//! Gaps: what a client may have missed, and that it hears of it.

use std::time::Duration;

use causeway_protocol::GapReason;

use crate::support::{SECOND, gap, message, stage, subscribed, topic};

#[test]
fn after_a_lost_link_exactly_those_concerned_hear_of_the_gap_when_delivery_works_again() {
    let mut stage = stage();
    let alice = stage.subscriber("alice", &["a", "b"]);
    let bob = stage.subscriber("bob", &["b"]);
    let carol = stage.connect("carol");
    stage.pass(SECOND);
    stage.hub.link_lost(Duration::from_millis(140), stage.now());
    stage.subscribe(carol, 1, &["b"]);
    stage.pass(2 * SECOND);
    for client in [alice, bob, carol] {
        assert_eq!(stage.hears(client), [], "nothing works yet");
    }
    stage.confirm("b");
    stage.publish("b", 1);
    let gap_of_b = gap("b", "broker_lost", 2140);
    assert_eq!(stage.hears(alice), [gap_of_b.clone(), message("b", 1)]);
    assert_eq!(stage.hears(bob), [gap_of_b, message("b", 1)]);
    assert_eq!(stage.hears(carol), [subscribed(1, &["b"], &[]), message("b", 1)]);
    stage.pass(SECOND);
    stage.confirm("a");
    assert_eq!(stage.hears(alice), [gap("a", "broker_lost", 3140)]);
    stage.confirm("a");
    assert_eq!(stage.hears(alice), [], "one gap for one loss");
    let gaps: Vec<_> = stage.hub.counters().gaps.iter().filter(|(_, told)| *told > 0).collect();
    assert_eq!(gaps, [(GapReason::BrokerLost, 3)]);
}

#[test]
fn a_link_lost_again_before_it_worked_is_one_gap_from_the_first_loss() {
    let mut stage = stage();
    let alice = stage.subscriber("alice", &["a"]);
    stage.hub.link_lost(Duration::ZERO, stage.now());
    stage.pass(SECOND);
    stage.hub.link_lost(Duration::ZERO, stage.now());
    stage.pass(SECOND);
    stage.confirm("a");
    assert_eq!(stage.hears(alice), [gap("a", "broker_lost", 2000)]);
}

#[test]
fn a_subscribe_is_not_confirmed_while_a_topic_that_was_live_is_lost() {
    let mut stage = stage();
    stage.subscriber("alice", &["a"]);
    let bob = stage.connect("bob");
    stage.subscribe(bob, 1, &["a", "b"]);
    stage.hub.link_lost(Duration::ZERO, stage.now());
    stage.confirm("b");
    assert_eq!(stage.hears(bob), []);
    stage.confirm("a");
    assert_eq!(stage.hears(bob), [subscribed(1, &["a", "b"], &[])]);
}

#[test]
fn messages_dropped_on_the_way_are_a_gap_to_the_subscribers_of_their_topic() {
    let mut stage = stage();
    let alice = stage.subscriber("alice", &["a"]);
    let bob = stage.subscriber("bob", &["b"]);
    stage.hub.topic_dropped(&topic("a"), 3, Duration::from_micros(1500), stage.now());
    assert_eq!(stage.hears(alice), [gap("a", "overload", 2)]);
    assert_eq!(stage.hears(bob), []);
}
