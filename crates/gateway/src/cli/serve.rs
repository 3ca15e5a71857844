//! `causeway serve`: a node, until it is told to stop.

use std::path::Path;
use std::process::ExitCode;

use causeway_gateway::app::Gateway;
use causeway_gateway::config::{Config, Overrides, Sources};
use causeway_gateway::log;
use causeway_gateway::reload::Reloader;
use causeway_gateway::traces::Traces;

use super::{CliError, block_on, exit_code};

pub(crate) fn run(file: Option<&Path>, overrides: &Overrides) -> Result<ExitCode, CliError> {
    let sources = Sources::new(file, overrides);
    let given = sources.read()?.given;
    let config = Config::try_from(&given)?;
    let traces = config.traces.as_ref().map(|traces| Traces::begin(traces, &config.node));
    let log = log::begin(&given.log, traces)?;
    let reloader = Reloader::new(sources, given, log.level())?;
    block_on(async {
        let gateway = Gateway::start(config, None, Some(reloader))?;
        tracing::info!(public = %gateway.public_addr, admin = %gateway.admin_addr, "listening");
        gateway.announce()?;
        Ok(exit_code(gateway.run().await?))
    })
}
