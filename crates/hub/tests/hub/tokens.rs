//! Tokens that expire, are revoked, or are replaced by fresh ones.

use std::time::Duration;

use causeway_hub::{Request, TokenMark};
use causeway_protocol::{CloseCode, CommandId};
use serde_json::json;

use crate::support::{
    Client, LATE, SECOND, Said, Stage, close, error, message, policy, quiet_stage, subscribed,
};

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
