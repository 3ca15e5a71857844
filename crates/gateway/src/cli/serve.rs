//! `causeway serve`: a node, until it is told to stop.

use std::path::Path;

use causeway_gateway::app::Gateway;
use causeway_gateway::config::{Config, Given, LogFormat, LogGiven, Overrides};
use causeway_gateway::doctor::DESCRIPTORS_RESERVED;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing_subscriber::EnvFilter;

use super::{CliError, block_on};

pub(crate) fn run(file: Option<&Path>, overrides: &Overrides) -> Result<(), CliError> {
    let given = Given::read(file, overrides)?;
    let config = Config::try_from(&given)?;
    log_to_stderr(&given.log)?;
    check_descriptors(config.admission.connections);
    block_on(async {
        let gateway = Gateway::start(config, None)?;
        tracing::info!(public = %gateway.public_addr, admin = %gateway.admin_addr, "listening");
        gateway.announce()?;
        Ok(gateway.run().await?)
    })
}

pub(crate) fn log_to_stderr(log: &LogGiven) -> Result<(), CliError> {
    // A malformed request is its sender's fault and would be an error line each; what matters is counted.
    let directives = format!("actix_http=off,actix_server=warn,{}", log.level);
    let filter = EnvFilter::try_new(directives).map_err(|error| format!("log.level: {error}"))?;
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match log.format {
        LogFormat::Text => subscriber.with_ansi(false).init(),
        LogFormat::Json => subscriber.json().init(),
    }
    Ok(())
}

/// Raises the limit on file descriptors as far as the system lets us, and says so if that is too low.
pub(crate) fn check_descriptors(connections: usize) {
    let needed = connections as u64 + DESCRIPTORS_RESERVED;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_some_and(|current| current < needed) {
        // Refused where the hard limit moved meanwhile; the warning below holds all the same.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    }
    if let Some(allowed) = getrlimit(Resource::Nofile).current.filter(|&allowed| allowed < needed) {
        tracing::warn!(
            allowed,
            needed,
            "limits.connections needs more file descriptors than the system allows"
        );
    }
}
