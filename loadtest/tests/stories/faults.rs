//! What a gateway may do wrong.

use std::process::Output;

use super::support::{Fault, Stub, figure, report};

fn fanout(fault: Fault) -> Output {
    let stub = Stub::start(fault);
    stub.run("fanout", &(stub.redis() + "--subscribers 3 --seconds 0 --in-flight 4 --patience 2s"))
}

/// What was lost, duplicated and reordered in a run that must have failed.
fn faults(fault: Fault) -> [f64; 3] {
    let report = report(&fanout(fault), 1);
    assert_ne!(report["faults"].as_array().unwrap().len(), 0);
    ["lost", "duplicated", "reordered"].map(|key| figure(&report, key))
}

#[test]
fn a_lost_message_is_noticed() {
    assert_eq!(faults(Fault::Lose), [1.0, 0.0, 0.0]);
}

#[test]
fn a_repeated_message_is_noticed() {
    assert_eq!(faults(Fault::Repeat), [0.0, 1.0, 0.0]);
}

#[test]
fn a_message_out_of_turn_is_noticed() {
    assert_eq!(faults(Fault::Swap), [0.0, 0.0, 1.0]);
}

#[test]
fn a_message_that_is_missed_in_an_announced_gap_is_not_lost() {
    let report = report(&fanout(Fault::Gap), 0);
    assert_eq!(["lost", "missed_in_gap", "gaps"].map(|key| figure(&report, key)), [0.0, 1.0, 1.0]);
}

#[test]
fn a_connection_that_is_closed_is_named_with_its_code() {
    let output = fanout(Fault::Close);
    let report = report(&output, 1);
    // It was told, by the end of its connection: what it missed then is not lost in silence.
    assert_eq!(figure(&report, "lost"), 0.0);
    assert!(figure(&report, "missed_away") >= 1.0);
    let fault = report["faults"][0].as_str().unwrap();
    assert!(fault.contains("connection 0: the gateway closed it with Some(4413)"), "{fault}");
}

#[test]
fn a_gateway_that_lets_nobody_in_cannot_be_measured() {
    for (fault, reason) in
        [(Fault::RefuseUpgrade, "401 Unauthorized {\"code\""), (Fault::RefuseSubscribe, "\"forbidden\"")]
    {
        let output = fanout(fault);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(error.contains(reason), "{error}");
    }
}

#[test]
fn a_gateway_that_does_not_compress_is_not_measured_as_if_it_did() {
    let stub = Stub::start(Fault::StayPlain);
    let output = stub.run("fanout", &(stub.redis() + "--subscribers 2 --for 300ms --compress"));
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("does not compress"), "{error}");
}

#[test]
fn upgrades_that_are_refused_are_counted() {
    let report = report(&Stub::start(Fault::RefuseUpgrade).run("connect", "--at-once 2 --for 300ms"), 1);
    assert_eq!(figure(&report, "upgrades"), 0.0);
    assert!(figure(&report, "refused") >= 1.0);
    assert!(report["faults"][0].as_str().unwrap().contains("401 Unauthorized"), "{report}");
}
