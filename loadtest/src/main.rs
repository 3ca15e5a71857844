//! `causeway-loadtest`: measures a Causeway address from outside, as its clients and its services see it.
//!
//! One thread and one epoll loop drive every connection of a process, so that one core of load saturates one core of
//! gateway. Of ours it knows the protocol and nothing else: what it finds is what anyone would find.
//!
//! A command line becomes a [`scenario`], which is played as a [`mod@run`] in one process or in several ([`family`]); what
//! they found ([`outcome`]) and what was seen of them ([`observer`]) becomes a [`report`].

mod address;
mod alarm;
mod books;
mod clock;
mod conductor;
mod connection;
mod crowd;
mod expect;
mod family;
mod flight;
mod histogram;
mod ledger;
mod metrics;
mod observer;
mod options;
mod outcome;
mod pace;
mod process;
mod progress;
mod publish;
mod push;
mod report;
mod returns;
mod run;
mod scenario;
mod scratch;
mod setting;
mod source;
mod stamp;
mod timeline;
mod token;
mod wall;
mod zipf;

use std::error::Error;
use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::conductor::{Conductor, Line, Said};
use crate::expect::{ExpectError, Expectation};
use crate::observer::{Observer, Sighting};
use crate::outcome::Outcome;
use crate::report::Report;
use crate::scenario::{Play, Scenario};
use crate::setting::Setting;
use crate::stamp::Stamp;

/// Measures a Causeway address from outside.
///
/// The exit status is 0 when the run was clean, 1 when something was lost, duplicated, reordered or closed, or an
/// expectation was not met, and 2 when there was nothing to measure.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    scenario: Scenario,
    /// Print the report as JSON.
    #[arg(long, global = true)]
    json: bool,
    /// Write the report as one HTML page.
    #[arg(long, global = true, value_name = "FILE")]
    report: Option<PathBuf>,
    /// What must be true of a figure, by its name: 'lost=0', 'p99<50ms'. May be given several times.
    #[arg(long, global = true, value_name = "EXPECTATION")]
    expect: Vec<String>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(is_clean) if is_clean => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(1),
        Err(error) => {
            // Nowhere is left to report a failure to report.
            let _ = writeln!(io::stderr(), "causeway-loadtest: {error}");
            ExitCode::from(2)
        }
    }
}

/// Says whether the run was clean.
fn run(cli: &Cli) -> Result<bool, Box<dyn Error>> {
    let expectations = expectations(cli)?;
    raise_descriptor_limit();
    let (report, played) = match (&cli.scenario, cli.scenario.play()) {
        (Scenario::Floor(args), _) => (scenario::floor(args, expectations)?, None),
        (_, Some(play)) if play.gateway().shard.is_some() => return work_for_another(play).map(|()| true),
        (_, Some(play)) => {
            let (outcome, seen) = measure(play)?;
            let mut report = Report::new(play.name(), expectations);
            play.report(&outcome, &seen, &mut report);
            outcome.faults.iter().for_each(|fault| report.fault(fault.clone()));
            (report, Some((outcome, seen)))
        }
        (_, None) => unreachable!("only the floor is played without a gateway"),
    };
    if let Some(file) = &cli.report {
        let played = played.as_ref().map(|(outcome, seen)| (outcome, seen));
        fs::write(file, report::page(&report, &question(cli), &Setting::here(), played)?)?;
    }
    let mut stdout = io::stdout().lock();
    match cli.json {
        true => writeln!(stdout, "{}", report.json())?,
        false => write!(stdout, "{report}")?,
    }
    Ok(report.is_clean())
}

fn expectations(cli: &Cli) -> Result<Vec<Expectation>, ExpectError> {
    let (name, figures) = cli.scenario.figures();
    cli.expect.iter().map(|text| Expectation::parse(text, name, &figures)).collect()
}

/// What the scenario answers, as its help says.
fn question(cli: &Cli) -> String {
    let (name, _) = cli.scenario.figures();
    let command = Cli::command();
    let about = command.find_subcommand(name).and_then(clap::Command::get_about);
    about.map(ToString::to_string).unwrap_or_default()
}

fn measure(play: &dyn Play) -> Result<(Outcome, Sighting), Box<dyn Error>> {
    let (gateway, run) = (play.gateway(), Stamp::new_run());
    if gateway.processes > 1 {
        return Ok(family::run(gateway, run)?);
    }
    let observer = Observer::new(&gateway.server_pids, &[std::process::id()], &gateway.admin);
    let mut conductor = Conductor::Alone(Box::new(observer));
    let outcome = play.play(run, &mut conductor)?;
    Ok((outcome, conductor.finish().expect("nobody else has looked")))
}

/// This process is one of several.
fn work_for_another(play: &dyn Play) -> Result<(), Box<dyn Error>> {
    let run = play.gateway().run.ok_or("--shard comes with --run")?;
    let done = Line::new().map_err(Into::into).and_then(|line| play.play(run, &mut Conductor::Apart(line)));
    let said = match done {
        Ok(outcome) => Said::Done(Box::new(outcome)),
        Err(error) => Said::Failed(error.to_string()),
    };
    Ok(Line::say(&said)?)
}

/// Each connection is a file descriptor.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    // Where that is not allowed, the run says how far it came.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}
