//! The `causeway` command.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use causeway_gateway::config::Overrides;
use clap::{Parser, Subcommand};

mod cli;

/// Takes least memory for each connection and no more time: see docs/performance.md.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Carries what services publish in Redis to browsers that subscribe over WebSocket.
#[derive(Parser)]
#[command(name = "causeway", version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a node. Exits with 0 after a drain, 3 where a second signal ended it, 1 where it failed
    Serve {
        /// Configuration (TOML); the environment (CAUSEWAY_…) and the flags below override it
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        #[command(flatten)]
        overrides: Overrides,
    },
    /// Try it: a node on loopback with a throw-away key, a ready-made token and a demo page
    Dev {
        #[command(flatten)]
        overrides: Overrides,
    },
    /// Sign a token with an HMAC key of the configuration
    Token(cli::token::TokenArgs),
    /// Publish one message
    Publish(cli::publish::PublishArgs),
    /// End tokens before their time, on all nodes
    Revoke(cli::revoke::RevokeArgs),
    /// Validate the configuration and print what is in effect, and where each value came from
    Check(cli::check::CheckArgs),
    /// Hold the configuration against the machine, Redis and the proxy. Exits with 0 if all is well or only
    /// worth a note, 1 on warnings, 2 on errors
    Doctor(cli::doctor::DoctorArgs),
    /// Say why a client is let in or not: every rule, and which one decided. Exits with 0 if allowed, 1 if
    /// refused, 2 if it cannot be told
    Explain(cli::explain::ExplainArgs),
}

/// The exit status of a command that could not tell, where 1 is something that it tells.
const CANNOT_TELL: u8 = 2;

fn main() -> ExitCode {
    match Args::parse().command {
        Command::Serve { config, overrides } => ended(cli::serve::run(config.as_deref(), &overrides)),
        Command::Dev { overrides } => ended(cli::dev::run(&overrides)),
        Command::Token(args) => done(cli::token::run(&args)),
        Command::Publish(args) => done(cli::publish::run(args)),
        Command::Revoke(args) => done(cli::revoke::run(args)),
        Command::Check(args) => done(cli::check::run(&args)),
        Command::Doctor(args) => told(cli::doctor::run(args)),
        Command::Explain(args) => told(cli::explain::run(args)),
    }
}

fn ended(outcome: Result<ExitCode, cli::CliError>) -> ExitCode {
    outcome.unwrap_or_else(|error| failed(&error, ExitCode::FAILURE))
}

fn done(outcome: Result<(), cli::CliError>) -> ExitCode {
    ended(outcome.map(|()| ExitCode::SUCCESS))
}

fn told(outcome: Result<ExitCode, cli::CliError>) -> ExitCode {
    outcome.unwrap_or_else(|error| failed(&error, ExitCode::from(CANNOT_TELL)))
}

fn failed(error: &cli::CliError, status: ExitCode) -> ExitCode {
    // Where stderr cannot be written to, the exit status has to do.
    let _ = writeln!(std::io::stderr(), "causeway: {error}");
    status
}
