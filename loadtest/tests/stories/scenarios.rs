//! Each scenario once, against a gateway that is as it should be.

use std::process::Command;
use std::sync::Arc;
use std::thread;

use serde_json::Value;

use super::support::{Fault, Node, Stub, figure, report};

/// The report of `scenario`, in which nothing is wrong.
#[track_caller]
fn clean(stub: &Stub, scenario: &str, options: &str) -> Value {
    let report = report(&stub.run(scenario, options), 0);
    assert_eq!(report["scenario"], scenario);
    for key in ["lost", "duplicated", "reordered", "misrouted", "gaps"] {
        assert_eq!(report["figures"].get(key).map_or(0.0, |value| value.as_f64().unwrap()), 0.0, "{key}");
    }
    report
}

#[test]
fn fanout_reaches_everybody() {
    let stub = Stub::start(Fault::None);
    let report = clean(&stub, "fanout", &(stub.redis() + "--subscribers 3 --in-flight 4 --for 300ms"));
    assert_eq!(figure(&report, "connections"), 3.0);
    assert_eq!(figure(&report, "delivered"), 3.0 * figure(&report, "published"));
    assert!(figure(&report, "p50_ms") <= figure(&report, "max_ms"));
}

#[test]
fn fanout_of_several_processes_is_one_report() {
    let stub = Stub::start(Fault::None);
    let options = stub.redis() + "--subscribers 5 --processes 3 --rate 100 --for 1s";
    let report = clean(&stub, "fanout", &options);
    assert_eq!(figure(&report, "connections"), 5.0);
    assert!(figure(&report, "published") > 0.0);
    assert_eq!(figure(&report, "delivered"), 5.0 * figure(&report, "published"));
}

#[test]
fn a_message_lost_in_another_process_is_noticed() {
    let stub = Stub::start(Fault::Lose);
    let output = stub
        .run("fanout", &(stub.redis() + "--subscribers 4 --processes 2 --rate 100 --patience 2s --for 1s"));
    assert_eq!(figure(&report(&output, 1), "lost"), 1.0);
}

#[test]
fn an_open_loop_publishes_what_was_asked_for() {
    let stub = Stub::start(Fault::None);
    let report = clean(&stub, "unicast", &(stub.redis() + "--topics 4 --rate 200 --for 1s"));
    // On a machine that holds it up at the end it may be less, but never more.
    let published = figure(&report, "published");
    assert!((1.0..=201.0).contains(&published), "{published}");
    assert_eq!(figure(&report, "delivered"), published);
    assert_eq!(figure(&report, "rate_per_second"), 200.0);
}

#[test]
fn who_never_sleeps_publishes_at_the_same_rate_and_hears_everything() {
    let stub = Stub::start(Fault::None);
    let report = clean(&stub, "unicast", &(stub.redis() + "--topics 4 --rate 200 --for 1s --busy-poll"));
    let published = figure(&report, "published");
    assert!((1.0..=201.0).contains(&published), "{published}");
    assert_eq!(figure(&report, "delivered"), published);
}

#[test]
fn messages_travel_over_http() {
    let report =
        clean(&Stub::start(Fault::None), "unicast", "--via http --topics 4 --in-flight 4 --for 300ms");
    assert!(figure(&report, "delivered") > 0.0);
}

#[test]
fn messages_travel_over_websocket() {
    let report =
        clean(&Stub::start(Fault::None), "unicast", "--via websocket --topics 4 --in-flight 4 --for 300ms");
    assert!(figure(&report, "delivered") > 0.0);
}

#[test]
fn messages_travel_compressed_both_ways() {
    let options = "--via websocket --payload-bytes 1024 --subscribers 3 --in-flight 4 --for 300ms";
    let plain = clean(&Stub::start(Fault::None), "fanout", options);
    let compressed = clean(&Stub::start(Fault::None), "fanout", &format!("{options} --compress"));
    let bytes = |report| figure(report, "bytes_per_delivery");
    assert!(bytes(&plain) > 1024.0, "{plain}");
    assert!(bytes(&compressed) < bytes(&plain) / 1.5, "{compressed}");
    // It was counted where it was inflated, and is the same but for the frames' headers and the messages' numbers.
    let saved = 1.0 - bytes(&compressed) / bytes(&plain);
    assert!((figure(&compressed, "saved_percent") / 100.0 - saved).abs() < 0.05, "{compressed}");
    assert!(plain["figures"].get("saved_percent").is_none(), "{plain}");
}

#[test]
fn every_message_of_a_room_reaches_all_in_it() {
    let stub = Stub::start(Fault::None);
    let options = "--topics 5 --subscribers 3 --rate 200 --skew 1.2 --processes 2 --for 1s";
    let report = clean(&stub, "rooms", &(stub.redis() + options));
    assert_eq!(figure(&report, "connections"), 15.0);
    assert_eq!(figure(&report, "delivered"), 3.0 * figure(&report, "published"));
}

#[test]
fn connections_come_and_the_first_leave() {
    let report = clean(&Stub::start(Fault::None), "connect", "--connections 2 --at-once 2 --for 500ms");
    assert!(figure(&report, "upgrades") >= 1.0);
    assert_eq!(figure(&report, "refused"), 0.0);
    assert!(figure(&report, "open_p50_ms") > 0.0);
}

#[test]
fn connections_come_at_the_rate_asked_for() {
    let report = clean(&Stub::start(Fault::None), "connect", "--connections 2 --rate 20 --for 1s");
    assert!((1.0..=21.0).contains(&figure(&report, "upgrades")));
}

#[test]
fn quiet_connections_are_watched() {
    let options =
        format!("--connections 4 --topics 2 --ramp 100 --for 200ms --server-pid {}", std::process::id());
    let report = clean(&Stub::start(Fault::None), "idle", &options);
    assert_eq!(figure(&report, "connections"), 4.0);
    assert!(figure(&report, "cpu_per_idle_connection_second_us") >= 0.0);
}

#[test]
fn when_a_node_dies_all_come_back_by_way_of_another() {
    let stub = Arc::new(Stub::start(Fault::None));
    // The node's process: when it is killed, so is the node.
    let mut process = Command::new("sleep").arg("600").spawn().unwrap();
    let options = format!(
        "{} --gateway {} --topics 2 --subscribers 4 --rate 200 --kill-pid {} --after 200ms --backoff 100ms --patience 2s --for 60s",
        stub.redis(),
        stub.sibling,
        process.id()
    );
    let node = stub.clone();
    let death = thread::spawn(move || {
        process.wait().unwrap();
        node.kill(Node::Gateway);
    });
    let report = clean(&stub, "reconnect", &options);
    death.join().unwrap();
    assert_eq!(["ended", "returned", "away"].map(|key| figure(&report, key)), [4.0, 4.0, 0.0]);
    assert!(figure(&report, "all_back_s") > 0.0);
    assert!(figure(&report, "reconnect_p50_ms") <= figure(&report, "reconnect_max_ms"));
}

#[test]
fn a_node_that_does_not_die_is_nothing_to_come_back_from() {
    let stub = Stub::start(Fault::None);
    let output = stub.run("reconnect", &(stub.redis() + "--topics 1 --subscribers 2 --for 500ms"));
    let report = report(&output, 1);
    assert_eq!(report["faults"][0], "no connection ended within 500ms");
}

#[test]
fn people_come_and_go_and_nothing_is_lost() {
    let stub = Stub::start(Fault::None);
    let options = "--topics 2 --subscribers 5 --rate 100 --churn 50 --patience 2s --for 4s";
    let report = clean(&stub, "soak", &(stub.redis() + options));
    assert!(figure(&report, "returned") >= 1.0);
    assert!(figure(&report, "delivered") > 0.0);
    assert_eq!(figure(&report, "ended"), 0.0);
}

#[test]
fn a_quiet_topic_pings_and_newcomers_are_measured_beside_a_hot_topic() {
    let stub = Stub::start(Fault::None);
    let options = "--subscribers 4 --quiet-subscribers 2 --quiet-rate 50 --for 1s";
    let report = clean(&stub, "fairness", &(stub.redis() + options));
    for key in ["quiet_p99_ms", "ping_p99_ms", "open_p99_ms", "p99_ms"] {
        assert!(figure(&report, key) > 0.0, "{key}");
    }
}

#[test]
fn intake_is_counted_and_a_gap_accounts_for_what_is_missing() {
    let stub = Stub::start(Fault::Gap);
    let report = report(
        &stub.run("intake", &(stub.redis() + "--topics 1 --publishers 2 --patience 2s --for 300ms")),
        0,
    );
    assert!(figure(&report, "intake_per_second") > 0.0);
    assert_eq!(["lost", "missed_in_gap", "gaps"].map(|key| figure(&report, key)), [0.0, 1.0, 1.0]);
}

#[test]
fn the_floor_needs_no_gateway() {
    let output = Command::new(env!("CARGO_BIN_EXE_causeway-loadtest"))
        .args(["floor", "--json", "--sockets", "3", "--seconds", "0", "--expect", "sockets=3"])
        .output()
        .unwrap();
    // No time, no frames: there is nothing to divide by, and no figure.
    assert_eq!(figure(&report(&output, 0), "sockets"), 3.0);
}
