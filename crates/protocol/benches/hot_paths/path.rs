//! A hot path: work that is done for every frame, command or message, defined once and weighed in two ways.
//!
//! `cargo bench` times it with Criterion, for whoever is making it faster. `scripts/instructions` has callgrind count
//! the instructions of one run, which do not depend on the machine's mood, and compares them with what they were.

use std::env;
use std::hint::black_box;

use criterion::{Criterion, Throughput};

/// One piece of work, done many times in each run so that the costs of the run itself are lost among them.
pub struct HotPath {
    /// Its name in reports and in the baseline.
    pub name: &'static str,
    /// What one operation is, for people.
    pub operation: &'static str,
    /// How many operations a run consists of.
    pub operations: u64,
    /// Sets the stage and gives back the run. Runs follow one another and all cost the same but for the first,
    /// which finds nothing warm.
    pub prepare: fn() -> Box<dyn FnMut()>,
}

/// What a bench's `main` does: `list` and `count NAME` are for `scripts/instructions`, everything else is for
/// Criterion.
pub fn weigh(paths: &[HotPath]) {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match &arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["list"] => list(paths),
        ["count", name] => count(paths, name),
        _ => time(paths),
    }
}

#[expect(clippy::print_stdout, reason = "what the script reads")]
fn list(paths: &[HotPath]) {
    for HotPath { name, operation, operations, .. } in paths {
        println!("{name}\t{operations}\t{operation}");
    }
}

fn count(paths: &[HotPath], name: &str) {
    let path = paths.iter().find(|path| path.name == name).expect("a name that `list` gave");
    let mut run = (path.prepare)();
    run();
    counted_run(&mut *run);
}

/// What callgrind counts: it is told this name, so the call must stay a call.
#[inline(never)]
fn counted_run(run: &mut dyn FnMut()) {
    run();
    black_box(());
}

fn time(paths: &[HotPath]) {
    let mut criterion = Criterion::default().configure_from_args();
    for path in paths {
        let mut group = criterion.benchmark_group(path.name);
        group.throughput(Throughput::Elements(path.operations));
        let mut run = (path.prepare)();
        group.bench_function("run", |bencher| bencher.iter(&mut run));
        group.finish();
    }
    criterion.final_summary();
}
