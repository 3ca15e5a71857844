//! What one client costs the others: nothing.

use causeway_hub::{Fate, HubLimits};
use causeway_protocol::{CloseCode, CommandId, Publication};
use serde_json::json;

use crate::support::{Client, LATE, SECOND, Said, Stage, close, error, message, stage, topic};

#[test]
fn commands_that_come_too_fast_are_refused_and_going_on_regardless_is_closed() {
    let limits = HubLimits { commands_per_second: 10, commands_burst: 3, ..HubLimits::default() };
    let mut stage = Stage::new(limits);
    let alice = stage.connect("alice");
    let pong = Said::Pong { id: CommandId::Number(1) };
    let ping = json!({"id": 1, "op": "ping"});
    let send = |stage: &mut Stage, count| {
        (0..count).for_each(|_| assert!(stage.says(alice, &ping).is_none()));
        stage.hears(alice)
    };
    let too_fast = error(1, "too_fast");
    assert_eq!(send(&mut stage, 4), [pong.clone(), pong.clone(), pong.clone(), too_fast.clone()]);
    stage.pass(SECOND);
    assert_eq!(send(&mut stage, 1), [pong], "who slows down goes on");
    let refused = [too_fast.clone(), too_fast.clone(), too_fast, close(CloseCode::TooManyCommands)];
    assert_eq!(send(&mut stage, 12)[2..], refused);
}

/// Alice reads nothing, with room for 200 bytes; Bob reads everything.
fn alice_is_slow() -> (Stage, Client, Client) {
    let mut stage = Stage::new(HubLimits { outbox_bytes: 200, ..HubLimits::default() });
    let alice = stage.subscriber("alice", &["a"]);
    let bob = stage.subscriber("bob", &["a"]);
    (stage, alice, bob)
}

#[test]
fn a_slow_consumer_is_cut_after_the_frame_begun_and_nobody_else_notices() {
    let (mut stage, alice, bob) = alice_is_slow();
    stage.publish("a", 1);
    assert_eq!(stage.writes(alice, 5), 5);
    for number in 2..=10 {
        stage.publish("a", number);
        assert_eq!(
            stage.hears(bob),
            if number == 2 { vec![message("a", 1), message("a", 2)] } else { vec![message("a", number)] }
        );
    }
    assert_eq!(stage.hears(alice), [message("a", 1), close(CloseCode::SlowConsumer)]);
    assert_eq!(stage.hub.gauges().subscriptions, 1);
    let ended = stage.hub.disconnect(stage.key(alice)).unwrap();
    assert_eq!((ended.code, ended.messages_sent), (4413, 1));
}

#[test]
fn one_message_longer_than_the_outbox_passes_if_nothing_else_waits() {
    let (mut stage, alice, _) = alice_is_slow();
    let long = "x".repeat(1000);
    stage.publish("a", &long[..]);
    assert_eq!(stage.hears(alice), [message("a", &long[..])]);
}

#[test]
fn a_socket_that_takes_nothing_is_cut_and_one_that_takes_a_little_is_not() {
    let mut stage = stage();
    let alice = stage.subscriber("alice", &["a"]);
    stage.publish("a", 1);
    stage.publish("a", 2);
    for _ in 0..3 {
        assert_eq!(stage.writes(alice, 1), 1);
        stage.hub.blocked(stage.key(alice), stage.now());
        stage.pass(4 * SECOND);
        stage.hub.heard(stage.key(alice));
    }
    assert_eq!(stage.hub.gauges().subscriptions, 1, "it makes progress");
    stage.hub.blocked(stage.key(alice), stage.now());
    stage.pass(SECOND + LATE);
    assert_eq!(stage.hub.gauges().subscriptions, 0);
    assert_eq!(stage.fate(alice), Fate::Open, "it may still take the rest of a frame and the close");
    assert_eq!(stage.hears(alice), [message("a", 1), close(CloseCode::SlowConsumer)]);
    assert_eq!(stage.fate(alice), Fate::HalfClose);
}

#[test]
fn frames_are_given_back_when_they_are_written_dropped_or_owed_to_nobody() {
    let (mut stage, alice, bob) = alice_is_slow();
    let publication = Publication::new(topic("a"), "1");
    let publish = |stage: &mut Stage| stage.hub.publish(&publication, stage.now(), stage.now());
    assert_eq!(publish(&mut stage), 2);
    assert!(!publication.frame().is_unique());
    stage.hears(alice);
    stage.hears(bob);
    assert!(publication.frame().is_unique(), "written to both");
    for _ in 0..10 {
        publish(&mut stage);
        stage.hears(bob);
    }
    assert_eq!(publish(&mut stage), 1, "alice was cut");
    stage.hears(bob);
    assert!(publication.frame().is_unique(), "and what waited for her was dropped");
    publish(&mut stage);
    stage.hub.disconnect(stage.key(bob));
    assert!(publication.frame().is_unique(), "bob went");
    assert_eq!(publish(&mut stage), 0);
    assert!(publication.frame().is_unique());
}

#[test]
fn a_message_to_one_reader_does_not_wait_behind_a_crowd_nor_the_crowd_behind_single_readers() {
    let mut stage = stage();
    let crowd: Vec<Client> = (0..1000).map(|n| stage.subscriber(&format!("fan-{n}"), &["hot"])).collect();
    let readers: Vec<Client> =
        (0..10).map(|n| stage.subscriber("reader", &[&format!("quiet.{n}")])).collect();
    while stage.hub.next_listed().is_some() {}
    stage.publish("hot", 1);
    for n in 0..readers.len() {
        stage.publish(&format!("quiet.{n}"), 1);
    }
    let listed: Vec<_> = std::iter::from_fn(|| stage.hub.next_listed()).collect();
    assert_eq!(listed.len(), crowd.len() + readers.len());
    let first: Vec<_> = listed[..2 * readers.len()].to_vec();
    assert!(readers.iter().all(|&reader| first.contains(&stage.key(reader))), "in turns with the crowd");
    assert!(first.contains(&stage.key(crowd[9])), "which goes on too");
}
