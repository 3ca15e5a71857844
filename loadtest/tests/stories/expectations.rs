//! What an operator may expect, and what he is told.

use std::fs;

use super::support::{Fault, REFUSED, Stub, figure, report};

const SMALL: &str = "--subscribers 3 --seconds 0 ";

#[test]
fn an_expectation_that_is_met_changes_nothing() {
    let stub = Stub::start(Fault::None);
    let output = stub.run("fanout", &(stub.redis() + SMALL + "--expect lost=0 --expect connections>=3"));
    let report = report(&output, 0);
    assert_eq!(report["expectations"][0]["met"], true, "{report}");
    assert_eq!(report["expectations"][0]["expected"], "lost=0");
}

#[test]
fn an_expectation_that_is_not_met_makes_the_run_fail() {
    let stub = Stub::start(Fault::None);
    let output = stub.run("fanout", &(stub.redis() + SMALL + "--expect connections>3"));
    let report = report(&output, 1);
    assert_eq!(report["faults"].as_array().unwrap().len(), 0);
    assert_eq!(report["expectations"][0]["found"], "3");
    assert_eq!(report["expectations"][0]["met"], false);
}

#[test]
fn a_figure_that_does_not_exist_is_named_before_anything_is_run() {
    // Nobody listens there.
    let stub = Stub::start(Fault::RefuseUpgrade);
    let output = stub.run("connect", "--expect p98<1ms");
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("connect has no figure \"p98\"; it has connections, upgrades,"), "{error}");
}

#[test]
fn what_the_server_costs_and_counts_is_in_the_report() {
    let stub = Stub::start(Fault::None);
    let options =
        format!("--subscribers 3 --seconds 0 --admin {} --server-pid {}", stub.gateway, std::process::id());
    let report = report(&stub.run("fanout", &(stub.redis() + &options)), 0);
    for key in ["cpu_per_accept_us", "kib_per_connection", "server_resident_mib", "node_messages_received"] {
        assert!(figure(&report, key).is_finite(), "{key}");
    }
    assert_eq!(figure(&report, "node_upgrades_refused"), REFUSED as f64);
}

#[test]
fn a_page_is_written_that_needs_nothing_else() {
    let stub = Stub::start(Fault::None);
    let file = format!("{}/page.html", env!("CARGO_TARGET_TMPDIR"));
    let options = format!("--topics 2 --rate 100 --for 1s --secret none --expect lost=0 --report {file}");
    report(&stub.run("unicast", &(stub.redis() + &options)), 0);
    let page = fs::read_to_string(&file).unwrap();
    for part in ["<title>Causeway load test: unicast</title>", "Passed", "lost=0", "</html>"] {
        assert!(page.contains(part), "{part}");
    }
    assert!(page.matches("<svg").count() >= 5);
    assert!(
        page.contains("--secret …") && !page.contains("http://www.w3.org/1999/xlink"),
        "secret or outside"
    );
}
