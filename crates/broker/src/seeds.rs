//! Random histories for the simulations: a history is its seed, and one that fails says how to play it again.

use std::{env, thread};

/// Plays the histories of the seeds from 0 on: so many, or as many as `CAUSEWAY_HISTORIES` says, or only that of
/// `CAUSEWAY_SEED`. `test` is enough of the test's name to run it alone.
pub(crate) fn play(test: &'static str, histories: u64, mut history: impl FnMut(u64)) {
    let seeds = match number("CAUSEWAY_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("CAUSEWAY_HISTORIES").unwrap_or(histories),
    };
    for seed in seeds {
        let _replay = Replay { test, seed };
        history(seed);
    }
}

/// Whether only one history is played, to be looked at.
pub(crate) fn is_one() -> bool {
    number("CAUSEWAY_SEED").is_some()
}

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok().map(|value| value.parse().expect("a number"))
}

/// Tells how to see a failure again.
struct Replay {
    test: &'static str,
    seed: u64,
}

impl Drop for Replay {
    fn drop(&mut self) {
        if thread::panicking() {
            let Self { test, seed } = self;
            eprintln!("to see this again: CAUSEWAY_SEED={seed} cargo nextest run -p causeway-broker {test}");
        }
    }
}
