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
    /// Run a node
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
    /// Validate the configuration and print what is in effect
    Check(cli::check::CheckArgs),
}

fn main() -> ExitCode {
    let outcome = match Args::parse().command {
        Command::Serve { config, overrides } => cli::serve::run(config.as_deref(), &overrides),
        Command::Dev { overrides } => cli::dev::run(&overrides),
        Command::Token(args) => cli::token::run(&args),
        Command::Publish(args) => cli::publish::run(args),
        Command::Check(args) => cli::check::run(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Where stderr cannot be written to, the exit status has to do.
            let _ = writeln!(std::io::stderr(), "causeway: {error}");
            ExitCode::FAILURE
        }
    }
}
