//! `causeway check`: says whether the configuration is usable, what is in effect, and where each value came from.

use std::path::PathBuf;

use causeway_gateway::admin::READY_PATH;
use causeway_gateway::config::{Config, Overrides, Sources};

use super::admin_client::AdminClient;
use super::{CliError, block_on, note, print};

#[derive(clap::Args)]
pub(crate) struct CheckArgs {
    /// Configuration (TOML); the environment and the flags override it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Also ask the node that runs with it whether it is ready
    #[arg(long)]
    live: bool,
    #[command(flatten)]
    overrides: Overrides,
}

pub(crate) fn run(args: &CheckArgs) -> Result<(), CliError> {
    let reading = Sources::new(args.config.as_deref(), &args.overrides).read()?;
    let config = Config::try_from(&reading.given)?;
    if args.live {
        let (is_ready, cause) = block_on(AdminClient::new(&config).get(READY_PATH))?;
        return if is_ready { Ok(print(cause)?) } else { Err(cause.into()) };
    }
    print(reading.annotated()?)?;
    if !config.has_admin_actions() {
        note("admin_listen is not a loopback address and there is no admin.token: /admin/… answers 403")?;
    }
    Ok(())
}
