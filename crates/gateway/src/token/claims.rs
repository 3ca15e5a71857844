//! What a token says, read strictly: a part that is not understood, or a claim of another type, is a fault.
//!
//! The library that checks signatures is not asked about claims: it accepts more than RFC 7519 lets us (an `iss`
//! that is a list, for instance) and calls a claim of the wrong type a missing one.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use causeway_hub::Grants;
use causeway_protocol::{Pattern, PatternError};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::TokenError;

/// The longest subject and the longest `jti`, in bytes.
const NAME_BYTES_MAX: usize = 256;
/// The last second of the year 9999. A later time is no time; it may be one in milliseconds.
const SECONDS_MAX: f64 = 253_402_300_799.0;

/// The header, as far as it concerns us. `jku`, `x5u` and their like are not looked at, and nothing is fetched
/// because a token says so.
#[derive(Debug, Deserialize)]
pub(super) struct Header {
    /// Compared with the key's algorithm, and never used to choose one.
    pub(super) alg: String,
    pub(super) kid: Option<String>,
    typ: Option<String>,
    #[serde(default, deserialize_with = "present")]
    crit: Option<serde::de::IgnoredAny>,
}

/// The claims, each of its type. `null` is the same as absent.
#[derive(Debug)]
pub(super) struct Claims {
    pub(super) subject: String,
    pub(super) issuer: Option<String>,
    pub(super) audience: Option<Audience>,
    /// Since 1970, as all times here.
    pub(super) expires: Duration,
    pub(super) not_before: Option<Duration>,
    pub(super) issued: Option<Duration>,
    /// The token's own name (`jti`).
    pub(super) id: Option<String>,
    pub(super) grants: Grants,
}

/// One service or several (RFC 7519 §4.1.3).
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Audience {
    One(String),
    Several(Vec<String>),
}

/// Claims whose types are not known yet. A claim that is there twice is a fault already.
#[derive(Deserialize)]
struct RawClaims<'a> {
    #[serde(borrow)]
    sub: Option<&'a RawValue>,
    #[serde(borrow)]
    iss: Option<&'a RawValue>,
    #[serde(borrow)]
    aud: Option<&'a RawValue>,
    #[serde(borrow)]
    exp: Option<&'a RawValue>,
    #[serde(borrow)]
    nbf: Option<&'a RawValue>,
    #[serde(borrow)]
    iat: Option<&'a RawValue>,
    #[serde(borrow)]
    jti: Option<&'a RawValue>,
    #[serde(borrow)]
    causeway: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GrantClaims {
    #[serde(default)]
    subscribe: Vec<String>,
    #[serde(default)]
    publish: Vec<String>,
}

impl Header {
    /// Reads the first part of a token.
    pub(super) fn parse(part: &str) -> Result<Self, TokenError> {
        let json = BASE64URL.decode(part).map_err(|_| TokenError::Malformed("header is not base64url"))?;
        let header: Self = object(&json).ok_or(TokenError::Malformed("header is not JSON with an alg"))?;
        if header.crit.is_some() {
            return Err(TokenError::Malformed("crit is not supported"));
        }
        match header.typ.as_deref() {
            None => Ok(header),
            Some(typ) if ["JWT", "at+jwt"].iter().any(|known| typ.eq_ignore_ascii_case(known)) => Ok(header),
            Some(_) => Err(TokenError::Malformed("typ is not JWT")),
        }
    }
}

impl Claims {
    /// Reads the second part of a token, whose signature was found to be right.
    pub(super) fn parse(part: &str) -> Result<Self, TokenError> {
        let json = payload(part)?;
        let raw: RawClaims<'_> = raw_claims(&json)?;
        let subject: String = required("sub", raw.sub)?;
        check_name("sub", &subject)?;
        let id: Option<String> = claim("jti", raw.jti)?;
        id.iter().try_for_each(|id| check_name("jti", id))?;
        Ok(Self {
            subject,
            issuer: claim("iss", raw.iss)?,
            audience: claim("aud", raw.aud)?,
            expires: time("exp", required("exp", raw.exp)?)?,
            not_before: claim("nbf", raw.nbf)?.map(|seconds| time("nbf", seconds)).transpose()?,
            issued: claim("iat", raw.iat)?.map(|seconds| time("iat", seconds)).transpose()?,
            id,
            grants: raw.causeway.map_or(Ok(Grants::default()), grants)?,
        })
    }
}

impl Audience {
    pub(super) fn names(&self, service: &str) -> bool {
        match self {
            Self::One(name) => name == service,
            Self::Several(names) => names.iter().any(|name| name == service),
        }
    }
}

/// The issuer that a token names, before anything of it is proved.
pub(super) fn issuer_of(part: &str) -> Result<String, TokenError> {
    required("iss", raw_claims(&payload(part)?)?.iss)
}

/// The first of these claims that a token does not have.
pub(super) fn missing<'a>(part: &str, names: &'a [Box<str>]) -> Option<&'a str> {
    let claims: serde_json::Map<_, _> = payload(part).ok().and_then(|json| object(&json)).unwrap_or_default();
    let is_missing = |name: &&str| claims.get(*name).is_none_or(serde_json::Value::is_null);
    names.iter().map(|name| &**name).find(is_missing)
}

fn payload(part: &str) -> Result<Vec<u8>, TokenError> {
    BASE64URL.decode(part).map_err(|_| TokenError::Malformed("claims are not base64url"))
}

fn raw_claims(json: &[u8]) -> Result<RawClaims<'_>, TokenError> {
    object(json).ok_or(TokenError::Malformed("claims are not a JSON object that names each once"))
}

/// A JSON object, UTF-8 throughout (RFC 8259 §8.1): serde_json does not look at the bytes of values that nobody
/// reads. An array would do as well, read in the order of the fields, if it were not for the brace.
fn object<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Option<T> {
    let text = std::str::from_utf8(json).ok()?;
    text.trim_ascii_start().starts_with('{').then(|| serde_json::from_str(text).ok()).flatten()
}

fn claim<T: DeserializeOwned>(name: &str, raw: Option<&RawValue>) -> Result<Option<T>, TokenError> {
    let wrong = |_| TokenError::BadClaims(format!("`{name}` has the wrong type").into());
    raw.map(|raw| serde_json::from_str(raw.get()).map_err(wrong)).transpose()
}

fn required<T: DeserializeOwned>(name: &str, raw: Option<&RawValue>) -> Result<T, TokenError> {
    claim(name, raw)?.ok_or_else(|| TokenError::BadClaims(format!("`{name}` is missing").into()))
}

fn check_name(claim: &str, value: &str) -> Result<(), TokenError> {
    let is_good = (1..=NAME_BYTES_MAX).contains(&value.len()) && !value.contains(char::is_control);
    is_good.then_some(()).ok_or_else(|| {
        let rule = format!("`{claim}` has 1 to {NAME_BYTES_MAX} bytes and no control characters");
        TokenError::BadClaims(rule.into())
    })
}

fn time(claim: &str, seconds: f64) -> Result<Duration, TokenError> {
    let is_time = (0.0..=SECONDS_MAX).contains(&seconds);
    is_time
        .then(|| Duration::from_secs_f64(seconds))
        .ok_or_else(|| TokenError::BadClaims(format!("`{claim}` is no time in seconds since 1970").into()))
}

fn grants(raw: &RawValue) -> Result<Grants, TokenError> {
    let wrong =
        || TokenError::BadClaims("`causeway` is not {subscribe: [patterns], publish: [patterns]}".into());
    let GrantClaims { subscribe, publish } = object(raw.get().as_bytes()).ok_or_else(wrong)?;
    Ok(Grants { subscribe: patterns(&subscribe)?, publish: patterns(&publish)? })
}

fn patterns(texts: &[String]) -> Result<Box<[Pattern]>, TokenError> {
    let unusable =
        |fault: PatternError| TokenError::BadClaims(format!("a topic pattern is illegal: {fault}").into());
    texts.iter().map(|text| Pattern::parse(text).map_err(unusable)).collect()
}

/// There, even where it is `null`.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(value: D) -> Result<Option<T>, D::Error> {
    T::deserialize(value).map(Some)
}
