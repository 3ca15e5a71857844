//! What the hub counts.

use std::sync::Arc;
use std::time::Duration;

use causeway_hub::{Hub, HubGauges, HubLimits, LatencyCounts};
use causeway_protocol::{Pattern, Publication};

use crate::support::{Stage, stage, topic};

#[test]
fn how_long_a_message_took_is_counted_when_the_socket_has_taken_it_whole() {
    let mut stage = stage();
    let alice = stage.subscriber("alice", &["a"]);
    let publication = Publication::new(topic("a"), "1");
    let received = stage.now();
    stage.pass(Duration::from_millis(3));
    stage.hub.publish(&publication, received, stage.now());
    stage.writes(alice, 10);
    assert_eq!(stage.hub.counters().delivery, LatencyCounts::default(), "not yet");
    stage.pass(Duration::from_millis(4));
    stage.hears(alice);
    let delivery = stage.hub.counters().delivery;
    assert_eq!(delivery.sum_us, 7000);
    let bucket = LatencyCounts::BOUNDS.iter().position(|&bound| bound == 10_000).unwrap();
    assert_eq!(delivery.buckets[bucket], 1);
}

#[test]
fn what_waits_is_counted_once_however_many_wait_for_it() {
    let mut stage = stage();
    let (alice, bob) = (stage.subscriber("alice", &["a"]), stage.subscriber("bob", &["a"]));
    stage.publish("a", "x".repeat(100));
    let HubGauges { frames_waiting, frame_bytes, .. } = stage.hub.gauges();
    assert_eq!(frames_waiting, 2);
    assert!((100..200).contains(&frame_bytes), "{frame_bytes}");
    stage.hears(alice);
    assert_eq!(stage.hub.gauges().frame_bytes, frame_bytes, "bob waits for it still");
    stage.hub.disconnect(stage.key(bob));
    assert_eq!(stage.hub.gauges().outbox_bytes(), 0);
}

#[test]
fn topics_are_counted_by_the_first_class_they_belong_to() {
    let mut stage = stage();
    let classes = ["orders.**", "**"].map(|class| Pattern::parse(class).unwrap());
    stage.hub = Hub::new("a", 0, HubLimits::default(), 7).with_classes(Arc::new(classes));
    let alice = stage.subscriber("alice", &["orders.42", "news"]);
    stage.subscriber("bob", &["orders.42"]);
    for topic in ["orders.42", "orders.42", "news"] {
        stage.publish(topic, 1);
    }
    let counts = |stage: &Stage| {
        stage.hub.class_counts().iter().map(|c| (c.messages_offered, c.subscriptions)).collect::<Vec<_>>()
    };
    assert_eq!(counts(&stage), [(4, 2), (1, 1)]);
    stage.hub.disconnect(stage.key(alice));
    assert_eq!(counts(&stage), [(4, 1), (1, 0)]);
}
