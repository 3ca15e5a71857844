//! `causeway token`: signs a token, for trying things and for scripts. Services sign their own.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use causeway_gateway::config::{AuthGiven, Given, Overrides};
use causeway_protocol::Pattern;
use jsonwebtoken::Header;
use serde::Serialize;

use super::{CliError, print};

#[derive(clap::Args)]
pub(crate) struct TokenArgs {
    /// Configuration that names the key
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Which key, where there are several
    #[arg(long)]
    kid: Option<String>,
    /// Whose token it is
    #[arg(long)]
    sub: String,
    /// A pattern of topics that may be subscribed to; may be repeated
    #[arg(long, value_name = "PATTERN")]
    subscribe: Vec<String>,
    /// A pattern of topics that may be published to; may be repeated
    #[arg(long, value_name = "PATTERN")]
    publish: Vec<String>,
    /// How long it lasts
    #[arg(long, default_value = "1h", value_parser = humantime::parse_duration)]
    ttl: Duration,
}

/// What a token will say.
pub(crate) struct Grant<'a> {
    pub(crate) subject: &'a str,
    pub(crate) subscribe: &'a [String],
    pub(crate) publish: &'a [String],
    pub(crate) ttl: Duration,
}

#[derive(Serialize)]
struct Claims<'a> {
    sub: &'a str,
    exp: u64,
    iat: u64,
    /// So that this one can be revoked.
    jti: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<&'a str>,
    causeway: GrantClaims<'a>,
}

#[derive(Serialize)]
struct GrantClaims<'a> {
    subscribe: &'a [String],
    publish: &'a [String],
}

pub(crate) fn run(args: &TokenArgs) -> Result<(), CliError> {
    let given = Given::read(args.config.as_deref(), &Overrides::default())?;
    for pattern in args.subscribe.iter().chain(&args.publish) {
        Pattern::parse(pattern).map_err(|error| format!("pattern `{pattern}`: {error}"))?;
    }
    let grant =
        Grant { subject: &args.sub, subscribe: &args.subscribe, publish: &args.publish, ttl: args.ttl };
    Ok(print(sign(&given.auth, args.kid.as_deref(), &grant)?)?)
}

/// Signs a token with the key named `kid`, or with the first key.
pub(crate) fn sign(auth: &AuthGiven, kid: Option<&str>, grant: &Grant<'_>) -> Result<String, CliError> {
    let mut signing = auth.tables().filter_map(|table| Some((table, table.signing(kid)?)));
    let (table, key) = signing.next().ok_or_else(|| match kid {
        Some(kid) => format!("no key is called `{kid}`"),
        None => "the configuration has no HMAC key to sign with".to_owned(),
    })?;
    let (given, key) = key?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let claims = Claims {
        sub: grant.subject,
        exp: (now + grant.ttl).as_secs(),
        iat: now.as_secs(),
        jti: format!("{:032x}", rand::random::<u128>()),
        iss: table.issuer,
        aud: table.audience,
        causeway: GrantClaims { subscribe: grant.subscribe, publish: grant.publish },
    };
    let header = Header { kid: given.kid.clone(), ..Header::new(given.algorithm.unwrap_or_default()) };
    Ok(jsonwebtoken::encode(&header, &claims, &key)?)
}
