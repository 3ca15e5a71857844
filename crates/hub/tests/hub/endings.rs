//! How a connection ends, and what it leaves behind.

use std::time::Duration;

use causeway_hub::{Ended, Fate, HubGauges, PublishOutcome};
use causeway_protocol::{CloseCode, CommandId};

use crate::support::{Client, LATE, SECOND, Said, close, message, stage};

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
