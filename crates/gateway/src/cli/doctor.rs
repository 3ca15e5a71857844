//! `causeway doctor`: what an operator should know before it hurts.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use causeway_gateway::admin::{ADDRESSES_PATH, READY_PATH};
use causeway_gateway::config::{Config, Given, Overrides, Sources};
use causeway_gateway::doctor::{LiveNode, Report, Severity, Surroundings};
use causeway_protocol::Topic;

use super::admin_client::AdminClient;
use super::{CliError, block_on, print};

#[derive(clap::Args)]
pub(crate) struct DoctorArgs {
    /// Configuration (TOML); the environment and the flags override it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// nginx's configuration, best the output of `nginx -T`; `-` reads it from stdin
    #[arg(long, value_name = "FILE")]
    nginx: Option<PathBuf>,
    /// Who would hold a client's socket: say what address the node takes for the client then
    #[arg(long, value_name = "ADDR")]
    peer: Option<IpAddr>,
    /// The X-Forwarded-For header that would come with it; may be repeated
    #[arg(long, value_name = "ADDRS", requires = "peer")]
    forwarded_for: Vec<String>,
    /// Try this topic's channel at Redis, not a reserved one; publishes an empty message to it
    #[arg(long)]
    topic: Option<String>,
    /// Also ask the node that runs with the configuration how it is and where its clients come from
    #[arg(long)]
    live: bool,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    overrides: Overrides,
}

pub(crate) fn run(args: DoctorArgs) -> Result<ExitCode, CliError> {
    let given = Sources::new(args.config.as_deref(), &args.overrides).read()?.given;
    let mut surroundings = Surroundings {
        peer: args.peer,
        forwarded_for: args.forwarded_for,
        nginx: args.nginx.as_deref().map(read).transpose()?,
        topic: args.topic.as_deref().map(Topic::parse).transpose()?,
        live: None,
    };
    let report = block_on(async {
        if args.live {
            surroundings.live = ask(&given).await;
        }
        Report::on(&given, &surroundings).await
    });
    match args.json {
        true => print(serde_json::to_string_pretty(&report)?)?,
        false => print(&report)?,
    }
    Ok(match report.severity {
        Severity::Ok | Severity::Note => ExitCode::SUCCESS,
        Severity::Warning => ExitCode::from(1),
        Severity::Error => ExitCode::from(2),
    })
}

fn read(file: &Path) -> Result<String, CliError> {
    let text = match file.to_str() {
        Some("-") => io::read_to_string(io::stdin()),
        _ => fs::read_to_string(file),
    };
    text.map_err(|error| format!("{}: {error}", file.display()).into())
}

/// What the node that runs says, unless the configuration is none to find it by: the report says so then.
async fn ask(given: &Given) -> Option<LiveNode> {
    let config = Config::try_from(given).ok()?;
    let node = AdminClient::new(&config);
    let asked = async {
        let (is_ready, cause) = node.get(READY_PATH).await?;
        let (may_ask, addresses) = node.get(ADDRESSES_PATH).await?;
        let addresses = if may_ask { Ok(serde_json::from_str(&addresses)?) } else { Err(addresses) };
        Ok::<_, CliError>(LiveNode::Answers { is_ready, cause, addresses })
    };
    Some(asked.await.unwrap_or_else(|error| LiveNode::Silent(error.to_string())))
}
