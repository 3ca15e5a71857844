//! `causeway revoke`: ends tokens before their time, through a node or straight through the Redis of a configuration.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use awc::http::header;
use causeway_broker::RedisBroker;
use causeway_gateway::admin::REVOKE_PATH;
use causeway_gateway::config::{Config, Given, Overrides, Sources};
use causeway_gateway::control;
use causeway_gateway::revocation::{self, RevokeRequest, Revoked};

use super::{CliError, block_on, print};

#[derive(clap::Args)]
pub(crate) struct RevokeArgs {
    /// The token of this name
    #[arg(long, required_unless_present_any = ["subject", "issued_before"], conflicts_with_all = ["subject", "issued_before"])]
    jti: Option<String>,
    /// All tokens of this subject
    #[arg(long)]
    subject: Option<String>,
    /// Only tokens issued before this time: `now`, or such as 2026-05-04T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    issued_before: Option<u64>,
    /// Only tokens of this issuer
    #[arg(long)]
    issuer: Option<String>,
    /// For how long; not less than such tokens live
    #[arg(long, default_value = "1day", value_parser = humantime::parse_duration)]
    ttl: Duration,
    /// Revoke straight through the Redis that this configuration names
    #[arg(long, value_name = "FILE", conflicts_with = "url")]
    config: Option<PathBuf>,
    /// Revoke through the admin listener of this node
    #[arg(long, default_value = "http://127.0.0.1:9090")]
    url: String,
    /// The token of the admin listener, where it asks for one
    #[arg(long, env = "CAUSEWAY_ADMIN_TOKEN", hide_env_values = true)]
    admin_token: Option<String>,
}

pub(crate) fn run(args: RevokeArgs) -> Result<(), CliError> {
    let request = RevokeRequest {
        jti: args.jti,
        subject: args.subject,
        issued_before: args.issued_before,
        issuer: args.issuer,
        ttl: args.ttl,
    };
    match &args.config {
        Some(file) => through_redis(&Sources::new(Some(file), &Overrides::default()).read()?.given, request),
        None => block_on(through_node(&args.url, args.admin_token.as_deref(), &request)),
    }
}

fn through_redis(given: &Given, request: RevokeRequest) -> Result<(), CliError> {
    let config = Config::try_from(given)?;
    if let Some(issuer) = &request.issuer
        && !config.auth.issuers.iter().any(|known| known.name.as_deref() == Some(issuer))
    {
        return Err(format!("the configuration has no issuer called `{issuer}`").into());
    }
    let redis = config.redis.ok_or("the configuration has no redis.url: revoke through the node instead")?;
    let revocation = request.meant_at(revocation::now())?;
    let broker = RedisBroker::start(redis)?;
    block_on(control::revoke(&*broker, &revocation))?;
    Ok(print(told(revocation.until()))?)
}

async fn through_node(url: &str, token: Option<&str>, request: &RevokeRequest) -> Result<(), CliError> {
    let client = awc::Client::builder().timeout(Duration::from_secs(10)).finish();
    let mut post = client.post(format!("{}{REVOKE_PATH}", url.trim_end_matches('/')));
    if let Some(token) = token {
        post = post.insert_header((header::AUTHORIZATION, format!("Bearer {token}")));
    }
    let mut answer = post.send_json(request).await.map_err(|error| format!("{url}: {error}"))?;
    let body = answer.body().await.unwrap_or_default();
    if !answer.status().is_success() {
        return Err(format!("{}: {}", answer.status(), String::from_utf8_lossy(&body)).into());
    }
    let Revoked { until } = serde_json::from_slice(&body)?;
    Ok(print(told(until))?)
}

fn told(until: u64) -> String {
    let until = UNIX_EPOCH + Duration::from_secs(until);
    format!("revoked until {}", humantime::format_rfc3339_seconds(until))
}

/// Seconds since 1970. A token of the same second as `now` is issued before the next.
fn seconds(text: &str) -> Result<u64, String> {
    let time = match text {
        "now" => SystemTime::now() + Duration::from_secs(1),
        time => humantime::parse_rfc3339_weak(time).map_err(|error| error.to_string())?,
    };
    Ok(time.duration_since(UNIX_EPOCH).map_err(|_| "a time before 1970")?.as_secs())
}
