//! Clients that are told to come back elsewhere, and when.

use std::time::Duration;

use causeway_hub::Fate;
use causeway_protocol::CloseCode;

use crate::support::{Client, LATE, SECOND, Said, Stage, close, message, policy, quiet_stage};

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
