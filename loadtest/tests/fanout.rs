//! The load tester against a gateway that does something wrong: it must notice, and its exit status must say so.

#![expect(clippy::unwrap_used, reason = "clippy.toml's exception for tests does not reach their helpers")]

mod support;

use std::process::{Command, Output};

use serde_json::Value;
use support::{Fault, Stub};

/// Runs `fanout` against a gateway with `fault`.
fn fanout(fault: Fault, in_flight: u32) -> Output {
    let stub = Stub::start(fault);
    Command::new(env!("CARGO_BIN_EXE_causeway-loadtest"))
        .args(["fanout", "--json", "--subscribers", "3", "--seconds", "0"])
        .args(["--in-flight", &in_flight.to_string()])
        .args(["--gateway", &format!("http://{}", stub.gateway)])
        .args(["--redis", &stub.redis.to_string()])
        .args(["--server-pid", &std::process::id().to_string()])
        .output()
        .unwrap()
}

/// What was lost, duplicated and reordered in a run that must have failed.
fn faults(output: &Output) -> [u64; 3] {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_ne!(report["faults"].as_array().unwrap().len(), 0);
    ["lost", "duplicated", "reordered"].map(|key| report["figures"][key].as_f64().unwrap() as u64)
}

#[test]
fn a_faultless_gateway_passes_and_is_measured() {
    let output = fanout(Fault::None, 4);
    assert!(output.status.success(), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["faults"], Value::Array(Vec::new()));
    let figures = &report["figures"];
    assert_eq!(figures["connections"], 3.0);
    for key in ["lost", "duplicated", "reordered", "gaps"] {
        assert_eq!(figures[key], 0.0, "{key}");
    }
    assert!(figures["cpu_per_accept_us"].is_number() && figures["kib_per_connection"].is_number());
}

#[test]
fn a_lost_message_is_noticed() {
    let [lost, duplicated, reordered] = faults(&fanout(Fault::Lose, 4));
    assert_eq!((lost, duplicated, reordered), (1, 0, 0));
}

#[test]
fn a_repeated_message_is_noticed() {
    assert_eq!(faults(&fanout(Fault::Repeat, 4)), [0, 1, 0]);
}

#[test]
fn a_message_out_of_turn_is_noticed() {
    assert_eq!(faults(&fanout(Fault::Swap, 4)), [0, 0, 1]);
}

#[test]
fn a_connection_that_is_closed_is_named_with_its_code() {
    let output = fanout(Fault::Close, 4);
    let [lost, _, _] = faults(&output);
    assert!(lost >= 1);
    let report = String::from_utf8(output.stdout).unwrap();
    assert!(report.contains("connection 0: the gateway closed it with Some(4413)"), "{report}");
}

#[test]
fn a_gateway_that_lets_nobody_in_cannot_be_measured() {
    for (fault, reason) in
        [(Fault::RefuseUpgrade, "401 Unauthorized {\"code\""), (Fault::RefuseSubscribe, "\"forbidden\"")]
    {
        let output = fanout(fault, 1);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(error.contains(reason), "{error}");
    }
}
