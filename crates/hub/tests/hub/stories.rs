//! What clients are promised, one short story each.

use std::sync::Arc;
use std::time::Duration;

use causeway_hub::{
    Ended, Fate, Hub, HubGauges, HubLimits, LatencyCounts, Policy, PublishOutcome, Request, SessionFacts,
    TokenMark,
};
use causeway_protocol::{CloseCode, CommandId, GapReason, Pattern, Publication};
use serde_json::json;

use crate::support::{
    Client, Said, Stage, close, error, gap, message, policy, subscribed, topic, unsubscribed,
};

const SECOND: Duration = Duration::from_secs(1);
/// A tick may be late by one slot of the deadlines, and comes four times a second.
const LATE: Duration = Duration::from_millis(550);

fn stage() -> Stage {
    Stage::new(HubLimits::default())
}

// Subscribing.

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

// Gaps.

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

// Publishing.

#[test]
fn a_publish_goes_to_the_broker_byte_for_byte_and_is_answered_by_its_outcome() {
    let mut stage = stage();
    let alice = stage.connect("alice");
    let text = r#"{"id":"x","op":"publish","topic":"chat.7","data": {"text" : "hi"} }"#;
    let request = stage.hub.command(stage.key(alice), text, stage.now());
    let Some(Request::Publish { id, permit, data }) = request else { panic!("{request:?}") };
    assert_eq!((permit.topic().as_str(), &data[..]), ("chat.7", &br#"{"text" : "hi"}"#[..]));
    assert_eq!(stage.hears(alice), [], "not before the broker has it");
    for outcome in [PublishOutcome::Published, PublishOutcome::Unavailable, PublishOutcome::Refused] {
        stage.hub.published(stage.key(alice), &id, outcome, stage.now());
    }
    let failed = |code: &str| match error(None, code) {
        Said::Error { code, message, retryable, .. } => {
            Said::Error { id: Some(id.clone()), code, message, retryable }
        }
        other => panic!("{other:?}"),
    };
    let published = Said::Published { id: id.clone() };
    assert_eq!(stage.hears(alice), [published, failed("broker_unavailable"), failed("internal")]);
}

#[test]
fn a_publish_that_is_not_granted_or_too_long_goes_nowhere() {
    let mut stage = Stage::new(HubLimits { publish_bytes: 5, ..HubLimits::default() });
    let alice = stage.connect_with(policy("alice", &["chat.{sub}"]), 3600);
    stage.hears(alice);
    let publish = |topic: &str, data: &str| json!({"id": 1, "op": "publish", "topic": topic, "data": data});
    assert!(stage.says(alice, &publish("chat.alice", "123")).is_some());
    for (command, code) in [
        (publish("chat.bob", "123"), "forbidden"),
        (publish("chat.alice", "1234"), "too_large"),
        (publish("chat..alice", "123"), "bad_topic"),
    ] {
        assert!(stage.says(alice, &command).is_none());
        assert_eq!(stage.hears(alice), [error(1, code)]);
    }
}

// What one client costs the others.

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

// What time brings.

#[test]
fn a_client_is_pinged_and_closed_when_no_pong_comes_in_time() {
    let mut stage = stage();
    let alice = stage.connect("alice");
    let (heard, pinged_at) = stage.next_heard(alice);
    assert_eq!(heard, [Said::PingFrame]);
    assert!(pinged_at > 12 * SECOND && pinged_at <= 25 * SECOND + LATE, "{pinged_at:?}");
    let (heard, closed_at) = stage.next_heard(alice);
    assert_eq!(heard, [close(CloseCode::PongTimeout)]);
    assert!(closed_at >= pinged_at + 10 * SECOND && closed_at <= pinged_at + 10 * SECOND + LATE);
}

#[test]
fn whoever_is_heard_stays() {
    let mut stage = stage();
    let alice = stage.connect("alice");
    let (_, mut pinged_at) = stage.next_heard(alice);
    for _ in 0..10 {
        stage.pass(9 * SECOND);
        stage.hub.heard(stage.key(alice));
        let (heard, again_at) = stage.next_heard(alice);
        assert_eq!(heard, [Said::PingFrame]);
        assert!(again_at >= pinged_at + 25 * SECOND && again_at <= pinged_at + 25 * SECOND + LATE);
        pinged_at = again_at;
    }
}

#[test]
fn t3_a_session_that_does_not_stop_is_closed_and_not_listened_to() {
    let limits = HubLimits { commands_per_second: 1, commands_burst: 10, ..HubLimits::default() };
    let mut stage = Stage::new(limits);
    let alice = stage.connect("alice");
    stage.hears(alice);
    let key = stage.key(alice);
    for _ in 0..20 {
        stage.hub.pinged(key, b"", stage.now());
        assert!(!stage.hub.is_flooded_by(key));
    }
    stage.hub.pinged(key, b"", stage.now());
    assert!(stage.hub.is_flooded_by(key));
    assert_eq!(stage.hears(alice).last(), Some(&close(CloseCode::TooManyCommands)));
}

#[test]
fn a_ping_frame_is_answered_with_its_payload() {
    let mut stage = stage();
    let alice = stage.connect("alice");
    stage.hub.pinged(stage.key(alice), b"there?", stage.now());
    assert_eq!(stage.hears(alice), [Said::PongFrame(b"there?".to_vec())]);
}

/// No pings, so that nothing but the token's end is heard.
fn quiet_stage() -> Stage {
    Stage::new(HubLimits { ping_interval: Duration::from_secs(86_400), ..HubLimits::default() })
}

#[test]
fn a_token_that_expires_is_announced_and_then_ends_the_connection() {
    let mut stage = quiet_stage();
    let alice = stage.connect_with(policy("alice", &["**"]), 300);
    stage.hears(alice);
    let (heard, warned_at) = stage.next_heard(alice);
    let [Said::TokenExpiring { in_ms }] = heard[..] else { panic!("{heard:?}") };
    assert_eq!(warned_at + Duration::from_millis(in_ms), 300 * SECOND);
    assert!(warned_at >= 240 * SECOND && warned_at <= 240 * SECOND + LATE);
    let (heard, closed_at) = stage.next_heard(alice);
    assert_eq!(heard, [close(CloseCode::TokenExpired)]);
    assert!(closed_at >= 300 * SECOND && closed_at <= 300 * SECOND + LATE);
}

#[test]
fn t22_sessions_of_revoked_tokens_end_and_nothing_more_is_written_to_them() {
    let mut stage = quiet_stage();
    let marked =
        |subject: &str, id| policy(subject, &["**"]).marked(TokenMark { id, ..TokenMark::default() });
    let [alice, also_alice, bob] = [("alice", 1), ("alice", 2), ("bob", 3)].map(|(subject, id)| {
        let client = stage.connect_with(marked(subject, id), 300);
        stage.subscribe(client, 0, &["a"]);
        client
    });
    stage.confirm("a");
    for client in [alice, also_alice, bob] {
        stage.hears(client);
    }
    stage.publish("a", "waits");
    let now = stage.now();
    assert_eq!(stage.hub.end(|_, policy| policy.mark().id == 2, CloseCode::TokenExpired, now), 1);
    assert_eq!(stage.hears(also_alice), [close(CloseCode::TokenExpired)], "what waited is dropped");
    assert_eq!(stage.hears(alice), [message("a", "waits")]);
    assert_eq!(
        stage.hub.end(|_, policy| policy.subject() == "alice", CloseCode::TokenExpired, now),
        1,
        "one of them has ended already"
    );
    assert_eq!(stage.hears(alice), [close(CloseCode::TokenExpired)]);
    stage.publish("a", "later");
    assert_eq!(stage.hears(bob), [message("a", "waits"), message("a", "later")]);
    assert_eq!(stage.hub.gauges().subscriptions, 1);
}

#[test]
fn a_subject_of_another_issuer_is_another_subject() {
    let mut stage = quiet_stage();
    let of_issuer = |issuer| policy("alice", &["**"]).marked(TokenMark { issuer, ..TokenMark::default() });
    let alice = stage.connect_with(of_issuer(1), 300);
    stage.hears(alice);
    let (key, id, now) = (stage.key(alice), CommandId::Number(7), stage.now());
    stage.hub.reauthenticated(key, &id, Ok((of_issuer(2), stage.in_seconds(600))), now);
    assert_eq!(stage.hears(alice), [error(7, "unauthenticated")]);
    stage.hub.reauthenticated(key, &id, Ok((of_issuer(1), stage.in_seconds(600))), now);
    assert_eq!(stage.hears(alice), [Said::Authenticated { id, expires_in_ms: 600_000 }]);
}

/// Alice, subscribed to `a` and waiting for `b`, has sent a token that was judged like this.
fn alice_authenticates(verdict: Result<(&str, &[&str], u64), &str>) -> (Stage, Client) {
    let mut stage = quiet_stage();
    let alice = stage.subscriber("alice", &["a"]);
    stage.subscribe(alice, 6, &["b"]);
    let request = stage.says(alice, &json!({"id": 7, "op": "authenticate", "token": "x.y.z"}));
    let Some(Request::Authenticate { id, token }) = request else { panic!("{request:?}") };
    assert_eq!(token, "x.y.z");
    assert_eq!(stage.hears(alice), []);
    let verdict = verdict
        .map(|(subject, patterns, lasts)| (policy(subject, patterns), stage.in_seconds(lasts)))
        .map_err(str::to_owned);
    stage.hub.reauthenticated(stage.key(alice), &id, verdict, stage.now());
    (stage, alice)
}

#[test]
fn a_fresh_token_replaces_the_old_one() {
    let (mut stage, alice) = alice_authenticates(Ok(("alice", &["a", "b"], 100)));
    let id = CommandId::Number(7);
    assert_eq!(stage.hears(alice), [Said::Authenticated { id, expires_in_ms: 100_000 }]);
    stage.confirm("b");
    stage.subscribe(alice, 8, &["c"]);
    let expected = [subscribed(6, &["b"], &[]), subscribed(8, &[], &[("c", "forbidden")])];
    assert_eq!(stage.hears(alice), expected);
    assert!(matches!(stage.next_heard(alice).0[..], [Said::TokenExpiring { .. }]));
    assert_eq!(stage.next_heard(alice).0, [close(CloseCode::TokenExpired)]);
}

#[test]
fn a_refused_token_or_another_subjects_is_an_error_and_the_old_one_holds() {
    for verdict in [Err("the signature is wrong"), Ok(("bob", &["**"][..], 1))] {
        let (mut stage, alice) = alice_authenticates(verdict);
        assert_eq!(stage.hears(alice), [error(7, "unauthenticated")]);
        stage.pass(4 * SECOND);
        stage.publish("a", 1);
        assert_eq!(stage.hears(alice), [message("a", 1)]);
    }
}

#[test]
fn a_fresh_token_that_grants_less_than_is_subscribed_or_waited_for_ends_the_connection() {
    for patterns in [&["a"], &["b"]] {
        let (mut stage, alice) = alice_authenticates(Ok(("alice", patterns, 100)));
        let authenticated = Said::Authenticated { id: CommandId::Number(7), expires_in_ms: 100_000 };
        assert_eq!(stage.hears(alice), [authenticated, close(CloseCode::NoLongerAllowed)]);
    }
}

/// What a client that has heard nothing else was told, if it was told to go.
fn told_to_go(stage: &mut Stage, client: Client) -> Option<Duration> {
    match stage.hears(client)[..] {
        [] => None,
        [Said::Drain { reconnect_in_ms }] => Some(Duration::from_millis(reconnect_in_ms)),
        ref other => panic!("{other:?}"),
    }
}

#[test]
fn a_drain_is_announced_to_all_and_closes_them_evenly_over_its_window() {
    let mut stage = quiet_stage();
    let clients: Vec<Client> = (0..20).map(|_| stage.subscriber("alice", &["a"])).collect();
    assert_eq!(stage.hub.drain(10 * SECOND, stage.now()), 20);
    let told: Vec<Duration> =
        clients.iter().map(|&client| told_to_go(&mut stage, client).expect("all are to go")).collect();
    for (place, (client, told)) in (0..).zip(clients.into_iter().zip(told)) {
        let (heard, closed_at) = stage.next_heard(client);
        assert_eq!(heard, [close(CloseCode::ServiceRestart)]);
        let due = 10 * SECOND * place / 20;
        assert!(closed_at >= due && closed_at <= due + LATE, "{place} is closed at {closed_at:?}");
        assert!(told > closed_at && told <= due + SECOND, "{place} was told {told:?}");
    }
}

#[test]
fn some_are_sent_away_evenly_over_the_window_and_the_others_and_newcomers_stay() {
    let mut stage = quiet_stage();
    let clients: Vec<Client> = (0..40).map(|_| stage.subscriber("alice", &["a"])).collect();
    let a_quarter = |staying| {
        assert_eq!(staying, 40);
        staying / 4
    };
    assert_eq!(stage.hub.drain_some(a_quarter, 10 * SECOND, stage.now()), 10);
    let newcomer = stage.subscriber("bob", &["a"]);
    let (mut leaving, mut staying) = (Vec::new(), vec![newcomer]);
    for (number, client) in clients.into_iter().enumerate() {
        match told_to_go(&mut stage, client) {
            Some(told) => leaving.push((number, client, told)),
            None => staying.push(client),
        }
    }
    assert_eq!(leaving.len(), 10);
    assert!(leaving.iter().enumerate().any(|(place, (number, ..))| place != *number), "chosen among all");
    for (place, (_, client, told)) in (0..).zip(leaving) {
        let (heard, closed_at) = stage.next_heard(client);
        assert_eq!(heard, [close(CloseCode::ServiceRestart)]);
        assert!(closed_at >= SECOND * place && closed_at <= SECOND * place + LATE && told > closed_at);
    }
    stage.publish("a", 1);
    for client in staying {
        assert_eq!(stage.hears(client), [message("a", 1)]);
    }
    assert_eq!(stage.hub.counters().drains, 10);
}

#[test]
fn whoever_is_on_its_way_is_not_told_again() {
    let mut stage = quiet_stage();
    let clients: Vec<Client> = (0..10).map(|_| stage.connect("alice")).collect();
    assert_eq!(stage.hub.drain_some(|_| 4, 10 * SECOND, stage.now()), 4);
    let of_the_others = |staying| {
        assert_eq!(staying, 6);
        1
    };
    assert_eq!(stage.hub.drain_some(of_the_others, 10 * SECOND, stage.now()), 1);
    assert_eq!(stage.hub.drain(10 * SECOND, stage.now()), 5);
    for client in clients {
        assert!(told_to_go(&mut stage, client).is_some());
    }
}

#[test]
fn what_waits_for_a_slow_client_goes_before_its_close_for_as_long_as_a_close_may_take() {
    let mut stage = quiet_stage();
    let [alice, bob] = ["alice", "bob"].map(|subject| stage.subscriber(subject, &["a"]));
    stage.hub.drain(Duration::ZERO, stage.now());
    stage.publish("a", 1);
    stage.pass(LATE);
    for client in [alice, bob] {
        assert_eq!(stage.fate(client), Fate::Open, "nothing of it is written yet");
    }
    let heard = stage.hears(alice);
    assert!(matches!(heard[0], Said::Drain { .. }));
    assert_eq!(heard[1..], [message("a", 1), close(CloseCode::ServiceRestart)]);
    assert_eq!(stage.fate(alice), Fate::HalfClose);
    stage.pass(stage.hub.limits().close_timeout);
    assert_eq!(stage.fate(bob), Fate::Drop, "it has had its time");
}

#[test]
fn a_client_that_is_to_be_drained_is_served_until_the_end() {
    let mut stage = quiet_stage();
    let [alice, bob] = ["alice", "bob"].map(|subject| stage.subscriber(subject, &["a"]));
    stage.hub.drain(2 * SECOND, stage.now());
    stage.pass(LATE);
    stage.publish("a", 1);
    assert_eq!(stage.hears(alice)[1..], [close(CloseCode::ServiceRestart)]);
    assert_eq!(stage.hears(bob)[1..], [message("a", 1)]);
}

#[test]
fn whoever_comes_during_a_drain_is_told_and_closed_at_once() {
    let mut stage = quiet_stage();
    stage.hub.drain(10 * SECOND, stage.now());
    let alice = stage.connect_with(policy("alice", &["**"]), 3600);
    let heard = stage.hears(alice);
    let [Said::Welcome { .. }, Said::Drain { reconnect_in_ms }] = heard[..] else { panic!("{heard:?}") };
    assert!((500..=1000).contains(&reconnect_in_ms));
    stage.pass(LATE);
    assert_eq!(stage.hears(alice), [close(CloseCode::ServiceRestart)]);
}

// Endings.

#[test]
fn a_client_that_closes_is_answered_with_its_own_code_and_is_gone() {
    for (code, recorded) in [(Some(1001), 1001), (Some(4000), 4000), (None, 1000)] {
        let mut stage = stage();
        let alice = stage.subscriber("alice", &["a"]);
        stage.publish("a", 1);
        stage.hub.closed_by_client(stage.key(alice), code, stage.now());
        assert_eq!(stage.fate(alice), Fate::Open, "its answer is to be written");
        stage.publish("a", 2);
        assert_eq!(stage.hears(alice), [message("a", 1), Said::Close(code)]);
        assert_eq!(stage.fate(alice), Fate::Drop);
        let ended = stage.hub.disconnect(stage.key(alice)).unwrap();
        assert_eq!((ended.code, ended.messages_sent), (recorded, 1));
    }
}

#[test]
fn after_our_close_the_client_may_answer_and_has_no_more_than_a_while() {
    let mut stage = stage();
    let [alice, bob] = ["alice", "bob"].map(|subject| stage.subscriber(subject, &[subject]));
    for (client, subject) in [(alice, "alice"), (bob, "bob")] {
        stage.hub.close(stage.key(client), CloseCode::ProtocolError, stage.now());
        stage.hub.close(stage.key(client), CloseCode::InternalError, stage.now());
        stage.publish(subject, 1);
        stage.subscribe(client, 1, &["b"]);
        assert_eq!(stage.hears(client), [close(CloseCode::ProtocolError)], "nothing after the close");
        assert_eq!(stage.fate(client), Fate::HalfClose);
    }
    stage.hub.closed_by_client(stage.key(alice), Some(1002), stage.now());
    assert_eq!((stage.fate(alice), stage.fate(bob)), (Fate::Drop, Fate::HalfClose));
    while stage.hub.next_listed().is_some() {}
    stage.pass(2 * SECOND + LATE);
    assert_eq!(stage.fate(bob), Fate::Drop);
    let listed: Vec<_> = std::iter::from_fn(|| stage.hub.next_listed()).collect();
    assert!(listed.contains(&stage.key(bob)), "so that its connection looks");
}

#[test]
fn a_connection_that_breaks_leaves_everything_behind_and_its_totals() {
    let mut stage = stage();
    let alice = stage.subscriber("alice", &["a"]);
    stage.publish("a", 1);
    stage.hears(alice);
    stage.publish("a", 2);
    stage.subscribe(alice, 1, &["b"]);
    let bytes_sent = stage.hub.counters().bytes_sent;
    let ended = Ended { code: 1006, subject: "alice".into(), messages_sent: 1, bytes_sent };
    assert_eq!(stage.hub.disconnect(stage.key(alice)), Some(ended));
    stage.pass(Duration::ZERO);
    assert!(stage.wanted.is_empty());
    assert_eq!(stage.hub.gauges(), HubGauges::default());
}

#[test]
fn whoever_comes_late_with_the_key_of_a_session_gone_harms_nobody() {
    let mut stage = stage();
    let alice = stage.subscriber("alice", &["a"]);
    let gone = stage.key(alice);
    stage.hub.disconnect(gone);
    stage.pass(Duration::ZERO);
    let bob = stage.subscriber("bob", &["a"]);
    assert_eq!(stage.key(bob).index(), gone.index(), "bob has alice's place");
    stage.publish("a", 1);

    let (now, id) = (stage.now(), CommandId::Number(1));
    let hub = &mut stage.hub;
    assert!(hub.command(gone, r#"{"id":1,"op":"unsubscribe","topics":["a"]}"#, now).is_none());
    hub.wrote(gone, 10, now);
    hub.blocked(gone, now);
    hub.pinged(gone, b"", now);
    hub.close(gone, CloseCode::InternalError, now);
    hub.closed_by_client(gone, None, now);
    hub.published(gone, &id, PublishOutcome::Published, now);
    hub.reauthenticated(gone, &id, Err("no".to_owned()), now);
    assert_eq!((hub.fate(gone, now), hub.disconnect(gone)), (Fate::Drop, None));
    assert!(hub.outbox(gone).is_none());
    stage.pass(6 * SECOND);
    assert_eq!(stage.hears(bob), [message("a", 1)]);
    assert_eq!(
        stage.hub.gauges(),
        HubGauges { sessions: 1, subscriptions: 1, topics: 1, ..HubGauges::default() }
    );
}

#[test]
fn where_too_much_waits_the_largest_backlogs_are_cut_and_no_more_of_them_than_needed() {
    let mut stage = stage();
    let clients: Vec<Client> =
        (0..4).map(|n| stage.subscriber("reader", &[&format!("backlog.{n}")])).collect();
    for (n, &messages) in [1, 30, 20, 0].iter().enumerate() {
        (0..messages).for_each(|_| stage.publish(&format!("backlog.{n}"), "x".repeat(1000)));
    }
    let waits = stage.hub.gauges().outbox_bytes();
    let now = stage.now();
    assert_eq!(stage.hub.cut_backlogs(waits / 2, now), 1, "one is enough");
    assert!(stage.hub.gauges().outbox_bytes() <= waits / 2);
    assert_eq!(stage.hears(clients[1]), [close(CloseCode::SlowConsumer)]);
    assert_eq!(stage.hub.cut_backlogs(usize::MAX, now), 2, "all that have a backlog, and nobody else");
    assert_eq!(stage.hears(clients[0]), [close(CloseCode::SlowConsumer)]);
    stage.publish("backlog.3", 1);
    assert_eq!(stage.hears(clients[3]), [message("backlog.3", 1)]);
}

// Fairness.

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

// Counting.

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

// What operators see and order.

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
