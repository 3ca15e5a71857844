//! `causeway check`: says whether the configuration is usable, and what is in effect.

use std::path::PathBuf;
use std::time::Duration;

use causeway_gateway::admin::READY_PATH;
use causeway_gateway::config::{Config, Given, Overrides};

use super::{CliError, block_on, print};

/// How long a node may take to say whether it is ready.
const LIVE_TIMEOUT: Duration = Duration::from_secs(3);

#[derive(clap::Args)]
pub(crate) struct CheckArgs {
    /// Configuration (TOML); the environment overrides it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Also ask the node that runs with it whether it is ready
    #[arg(long)]
    live: bool,
}

pub(crate) fn run(args: &CheckArgs) -> Result<(), CliError> {
    let given = Given::read(args.config.as_deref(), &Overrides::default())?;
    Config::try_from(&given)?;
    if args.live {
        return block_on(ask(&given));
    }
    Ok(print(toml::to_string(&given)?.trim_end())?)
}

/// Asks the node at `admin_listen`; a wildcard address is asked on loopback.
async fn ask(given: &Given) -> Result<(), CliError> {
    let mut addr = given.admin_listen;
    if addr.ip().is_unspecified() {
        addr.set_ip(match addr {
            std::net::SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            std::net::SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    let client = awc::Client::builder().timeout(LIVE_TIMEOUT).finish();
    let url = format!("http://{addr}{READY_PATH}");
    let mut answer = client.get(&url).send().await.map_err(|error| format!("{url}: {error}"))?;
    let cause = String::from_utf8_lossy(&answer.body().await?).trim().to_owned();
    if answer.status().is_success() { Ok(print(cause)?) } else { Err(cause.into()) }
}
