//! `causeway publish`: one message, over HTTP to a node or straight through the Redis of a configuration.

use std::path::PathBuf;
use std::time::Duration;

use awc::http::header;
use bytes::Bytes;
use causeway_broker::{Broker, RedisBroker};
use causeway_gateway::config::{Config, Given, Overrides};
use causeway_gateway::public::TOPICS_PATH;
use causeway_protocol::Topic;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::{CliError, block_on};

#[derive(clap::Args)]
pub(crate) struct PublishArgs {
    /// Where to
    topic: String,
    /// The payload, byte for byte
    data: String,
    /// Publish straight to the Redis that this configuration names
    #[arg(long, value_name = "FILE", conflicts_with_all = ["url", "token"])]
    config: Option<PathBuf>,
    /// Publish over HTTP to this node
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    url: String,
    /// A token that grants the topic, for HTTP
    #[arg(long, env = "CAUSEWAY_TOKEN", hide_env_values = true, required_unless_present = "config")]
    token: Option<String>,
}

pub(crate) fn run(args: PublishArgs) -> Result<(), CliError> {
    let topic = Topic::parse(&args.topic)?;
    match (&args.config, &args.token) {
        (Some(file), _) => {
            let given = Given::read(Some(file), &Overrides::default())?;
            through_redis(&given, topic, args.data.into())
        }
        (None, Some(token)) => block_on(over_http(&args.url, &topic, token, args.data.into())),
        (None, None) => Err("a token or a configuration is needed".into()),
    }
}

fn through_redis(given: &Given, topic: Topic, payload: Bytes) -> Result<(), CliError> {
    let redis = Config::try_from(given)?
        .redis
        .ok_or("the configuration has no redis.url: publish over HTTP instead")?;
    let broker = RedisBroker::start(redis)?;
    Ok(block_on(broker.publish(topic, payload))?)
}

async fn over_http(url: &str, topic: &Topic, token: &str, payload: Bytes) -> Result<(), CliError> {
    let topic = utf8_percent_encode(topic.as_str(), NON_ALPHANUMERIC);
    let client = awc::Client::builder().timeout(Duration::from_secs(10)).finish();
    let request = client
        .post(format!("{}{TOPICS_PATH}{topic}", url.trim_end_matches('/')))
        .insert_header((header::AUTHORIZATION, format!("Bearer {token}")));
    let mut answer = request.send_body(payload).await.map_err(|error| format!("{url}: {error}"))?;
    if answer.status().is_success() {
        return Ok(());
    }
    let body = answer.body().await.unwrap_or_default();
    Err(format!("{}: {}", answer.status(), String::from_utf8_lossy(&body)).into())
}
