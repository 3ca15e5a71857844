//! The fuzz targets on the inputs kept in `fuzz/corpora`, so that whatever was found once stays found.

use std::fs;
use std::path::Path;

#[path = "../../../fuzz/targets/commands.rs"]
mod commands;
#[path = "../../../fuzz/targets/deflated.rs"]
mod deflated;
#[path = "../../../fuzz/targets/forwarded_for.rs"]
mod forwarded_for;
#[path = "../../../fuzz/targets/frames.rs"]
mod frames;
#[path = "../../../fuzz/targets/publications.rs"]
mod publications;
#[path = "../../../fuzz/targets/redis_messages.rs"]
mod redis_messages;
#[path = "../../../fuzz/targets/tokens.rs"]
mod tokens;
#[path = "../../../fuzz/targets/topics.rs"]
mod topics;

/// Calls a target on each input kept for it, and on each of their beginnings: a cut is the commonest mutation.
fn replay(target: &str, check: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpora").join(target);
    let mut inputs = 0;
    for entry in fs::read_dir(&corpus).expect("every target has a corpus") {
        let path = entry.expect("the corpus can be listed").path();
        let input = fs::read(&path).expect("an input can be read");
        let cuts = input.len().saturating_sub(CUTS_MAX)..=input.len();
        for cut in cuts {
            let outcome = std::panic::catch_unwind(|| check(&input[..cut]));
            assert!(outcome.is_ok(), "the first {cut} bytes of {}", path.display());
        }
        inputs += 1;
    }
    assert!(inputs >= 5, "{} has {inputs} inputs", corpus.display());
}

/// How many bytes are cut off at most.
const CUTS_MAX: usize = 64;

#[test]
fn commands() {
    replay("commands", commands::check);
}

#[test]
fn deflated() {
    replay("deflated", deflated::check);
}

#[test]
fn forwarded_for() {
    replay("forwarded_for", forwarded_for::check);
}

#[test]
fn frames() {
    replay("frames", frames::check);
}

#[test]
fn publications() {
    replay("publications", publications::check);
}

#[test]
fn redis_messages() {
    replay("redis_messages", redis_messages::check);
}

#[test]
fn tokens() {
    replay("tokens", tokens::check);
}

#[test]
fn topics() {
    replay("topics", topics::check);
}
