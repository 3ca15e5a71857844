//! `causeway explain`: why a client is let in or not, and may have a topic or not.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use causeway_gateway::admin::EXPLAIN_PATH;
use causeway_gateway::config::{Config, Overrides, Sources};
use causeway_gateway::explain::{Action, Explanation, Question};

use super::admin_client::AdminClient;
use super::{CliError, block_on, print};

/// The exit status where something was refused.
const REFUSED: u8 = 1;

#[derive(clap::Args)]
pub(crate) struct ExplainArgs {
    /// Configuration (TOML); the environment and the flags override it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Ask the node that runs with it, which also knows its connections and rates; counts as an upgrade
    #[arg(long)]
    live: bool,
    /// The client's token
    #[arg(long, env = "CAUSEWAY_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// The page's origin
    #[arg(long)]
    origin: Option<String>,
    /// Who holds the socket: the client, or the proxy in front of the node
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1")]
    peer: IpAddr,
    /// The X-Forwarded-For header; may be repeated
    #[arg(long, value_name = "ADDRS")]
    forwarded_for: Vec<String>,
    /// A topic that it asks for
    #[arg(long)]
    topic: Option<String>,
    /// It wants to publish to the topic, not to subscribe to it
    #[arg(long, requires = "topic")]
    publish: bool,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    overrides: Overrides,
}

pub(crate) fn run(args: ExplainArgs) -> Result<ExitCode, CliError> {
    let reading = Sources::new(args.config.as_deref(), &args.overrides).read()?;
    let config = Config::try_from(&reading.given)?;
    let question = Question {
        token: args.token,
        origin: args.origin,
        peer: Some(args.peer),
        forwarded_for: args.forwarded_for,
        topic: args.topic,
        action: if args.publish { Action::Publish } else { Action::Subscribe },
    };
    let explanation = match args.live {
        true => block_on(ask(&config, &question))?,
        false => block_on(Explanation::by_configuration(config, &question))?,
    };
    match args.json {
        true => print(serde_json::to_string_pretty(&explanation)?)?,
        false => print(&explanation)?,
    }
    Ok(if explanation.allowed { ExitCode::SUCCESS } else { ExitCode::from(REFUSED) })
}

async fn ask(config: &Config, question: &Question) -> Result<Explanation, CliError> {
    let question = serde_json::to_string(question)?;
    match AdminClient::new(config).post(EXPLAIN_PATH, question).await? {
        (true, answer) => Ok(serde_json::from_str(&answer)?),
        (false, refusal) => Err(refusal.into()),
    }
}
