//! `causeway dev`: everything in one process on loopback, to try it.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use causeway_gateway::app::{Gateway, StartError};
use causeway_gateway::config::{Config, Given, KeyGiven, Overrides, Secret};
use causeway_gateway::dev::DemoPage;
use causeway_gateway::log;
use causeway_gateway::traces::Traces;
use jsonwebtoken::Algorithm;
use rand::Rng as _;
use rand::distr::Alphanumeric;

use super::token::{Grant, sign};
use super::{CliError, block_on, exit_code, print};

/// Long enough to forget that the token ends.
const TOKEN_TTL: Duration = Duration::from_secs(24 * 3600);

pub(crate) fn run(overrides: &Overrides) -> Result<ExitCode, CliError> {
    let mut given = Given::read(None, overrides)?;
    for addr in [given.listen, given.admin_listen] {
        check_loopback(addr)?;
    }
    given.auth.keys = vec![throw_away_key()];
    given.allowed_origins = vec!["*".to_owned()];
    // Nobody waits for a load balancer to notice.
    given.drain.lead_time = Duration::ZERO;
    given.drain.window = Duration::from_secs(1);
    let everything = ["**".to_owned()];
    let grant = Grant { subject: "dev", subscribe: &everything, publish: &everything, ttl: TOKEN_TTL };
    let token = sign(&given.auth, None, &grant)?;
    let config = Config::try_from(&given)?;
    let traces = config.traces.as_ref().map(|traces| Traces::begin(traces, &config.node));
    let _log = log::begin(&given.log, traces)?;
    let redis_url = given.redis.url.clone();
    block_on(async {
        let gateway = Gateway::start(config, Some(DemoPage::new(&token)), None).map_err(with_hint)?;
        gateway.announce()?;
        explain(gateway.public_addr, &token, redis_url)?;
        Ok(exit_code(gateway.run().await?))
    })
}

fn explain(public: SocketAddr, token: &str, redis_url: Option<Secret>) -> std::io::Result<()> {
    let publish = match redis_url {
        Some(Secret(url)) => {
            // A terminal is no place for a password.
            let url = if url.contains('@') { "\"$REDIS_URL\"" } else { &url };
            format!(r#"redis-cli -u {url} PUBLISH chat.1 '{{"text":"hello"}}'"#)
        }
        None => format!(
            r#"curl -X POST http://{public}/v1/topics/chat.1 -H "Authorization: Bearer $TOKEN" -d '{{"text":"hello"}}'"#
        ),
    };
    print(format_args!(
        "\nOpen http://{public}/ and subscribe to chat.1, then publish to it:\n\n  TOKEN={token}\n  {publish}\n\n\
         The token lets its holder subscribe and publish everywhere and is worth nothing once this process ends.\n"
    ))
}

/// The port in use is the first thing that goes wrong.
fn with_hint(error: StartError) -> CliError {
    match error {
        StartError::Listen { key, .. } => {
            let flag = key.replace('_', "-");
            format!("{error}; choose another with --{flag} 127.0.0.1:0").into()
        }
        other => other.into(),
    }
}

fn check_loopback(addr: SocketAddr) -> Result<(), CliError> {
    match addr.ip().is_loopback() {
        true => Ok(()),
        false => {
            Err(format!("{addr} is not a loopback address: `causeway dev` lets everybody do everything")
                .into())
        }
    }
}

fn throw_away_key() -> KeyGiven {
    let secret = rand::rng().sample_iter(Alphanumeric).take(48).map(char::from).collect();
    KeyGiven {
        kid: Some("dev".to_owned()),
        algorithm: Some(Algorithm::HS256),
        secret: Some(Secret(secret)),
        ..KeyGiven::default()
    }
}
