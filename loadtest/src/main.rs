//! `causeway-loadtest`: measures a Causeway address from outside, as its clients and its services see it.
//!
//! One thread and one epoll loop drive every connection, so that one core of load saturates one core of
//! gateway. Of ours it knows the protocol and nothing else: what it finds is what anyone would find.

mod address;
mod connection;
mod crowd;
mod flight;
mod ledger;
mod process;
mod publisher;
mod push;
mod report;
mod scenario;
mod source;
mod stamp;
mod token;

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::report::Report;
use crate::scenario::{FanoutArgs, FloorArgs, IdleArgs};

/// Measures a Causeway address from outside.
///
/// The exit status is 0 when the run was clean, 1 when something was lost, duplicated, reordered or closed, and
/// 2 when there was nothing to measure.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    scenario: Scenario,
    /// Print the report as JSON.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Scenario {
    /// What does a quiet connection cost?
    Idle(IdleArgs),
    /// What does it cost to tell one thing to everybody?
    Fanout(FanoutArgs),
    /// What would it cost with no gateway at all, only the kernel's write(2)?
    Floor(FloorArgs),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(report) if report.is_clean() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(1),
        Err(error) => {
            // Nowhere is left to report a failure to report.
            let _ = writeln!(io::stderr(), "causeway-loadtest: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(cli: &Cli) -> Result<Report, Box<dyn Error>> {
    let report = match &cli.scenario {
        Scenario::Idle(args) => scenario::idle(args)?,
        Scenario::Fanout(args) => scenario::fanout(args)?,
        Scenario::Floor(args) => scenario::floor(args)?,
    };
    let mut stdout = io::stdout().lock();
    match cli.json {
        true => writeln!(stdout, "{}", report.json())?,
        false => write!(stdout, "{report}")?,
    }
    Ok(report)
}
