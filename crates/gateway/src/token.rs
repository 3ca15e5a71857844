//! Tokens: from a text that anybody could have written to a proved policy.
//!
//! The key decides the algorithm, never the token. Whatever is not understood is refused: a critical header,
//! another type, a claim of the wrong shape. Tokens and their parts are never logged.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use causeway_hub::{Grants, Policy};
use causeway_protocol::{Pattern, PatternError};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;

/// The longest token, in bytes.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// The longest subject, in bytes.
const SUBJECT_BYTES_MAX: usize = 256;
/// The longest `kid`, in bytes.
const KID_BYTES_MAX: usize = 64;

/// Why a token proves nothing. The words are for the client and name no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// The request carries none.
    #[error("a token is needed: Authorization: Bearer, or a subprotocol causeway.bearer.<token>")]
    Missing,
    /// Longer than [`TOKEN_BYTES_MAX`].
    #[error("the token is longer than {TOKEN_BYTES_MAX} bytes")]
    TooLong,
    /// Not three parts of base64url with JSON inside, or a header that is not understood.
    #[error("the token is malformed: {0}")]
    Malformed(&'static str),
    /// No key by that name, or the key is for another algorithm.
    #[error("the token's key or algorithm is not accepted here")]
    UnknownKey,
    /// Signed by somebody else.
    #[error("the token's signature is wrong")]
    BadSignature,
    /// Its time is over.
    #[error("the token has expired")]
    Expired,
    /// Its time has not come.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// Issued by somebody else.
    #[error("the token's issuer is not accepted here")]
    WrongIssuer,
    /// Issued for somebody else.
    #[error("the token's audience is not this service")]
    WrongAudience,
    /// A claim is missing or has the wrong shape.
    #[error("the token's claims are unusable: {0}")]
    BadClaims(Cow<'static, str>),
}

/// A key that tokens may be signed with, and the one algorithm it is for.
pub struct VerifyingKey {
    /// Its name, matched with the token's `kid`.
    pub kid: Box<str>,
    /// The algorithm.
    pub algorithm: Algorithm,
    /// The key.
    pub key: DecodingKey,
}

/// What tokens must look like.
#[derive(Clone, Debug, Default)]
pub struct TokenRules {
    /// The required `iss`, if any is.
    pub issuer: Option<String>,
    /// The required `aud`, if any is. Where none is, a token that has one is refused (RFC 7519 §4.1.3).
    pub audience: Option<String>,
    /// How far clocks may be apart.
    pub leeway: Duration,
}

/// What a token proves.
#[derive(Clone, Debug)]
pub struct Verified {
    /// Who it is and what it may do.
    pub policy: Policy,
    /// For how long from now.
    pub expires_in: Duration,
}

/// Verifies tokens.
pub struct Verifier {
    keys: HashMap<Box<str>, (Validation, DecodingKey)>,
    leeway: Duration,
    /// Tokens of one kind grant the same, and thousands of connections hold the result: equal grants are one.
    grants: Mutex<HashMap<Grants, Weak<Grants>>>,
}

#[derive(Deserialize)]
struct Header {
    alg: Algorithm,
    typ: Option<String>,
    kid: Option<String>,
    crit: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    exp: f64,
    causeway: Option<GrantClaims>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GrantClaims {
    #[serde(default)]
    subscribe: Vec<String>,
    #[serde(default)]
    publish: Vec<String>,
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verifier").field("kids", &self.keys.keys()).finish_non_exhaustive()
    }
}

impl Verifier {
    /// Accepts tokens signed with one of `keys` that keep to `rules`.
    pub fn new(keys: Vec<VerifyingKey>, rules: &TokenRules) -> Self {
        let keys =
            keys.into_iter().map(|key| (key.kid, (validation(key.algorithm, rules), key.key))).collect();
        Self { keys, leeway: rules.leeway, grants: Mutex::default() }
    }

    /// Verifies `token`. Takes some microseconds (HMAC) to some tens (RSA, ECDSA) and does not block.
    ///
    /// # Errors
    /// The first [`TokenError`] met.
    pub fn verify(&self, token: &str) -> Result<Verified, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::TooLong);
        }
        let (validation, key) = self.key_for(&header_of(token)?)?;
        let claims =
            jsonwebtoken::decode::<Claims>(token, key, validation).map_err(|error| fault(&error))?.claims;
        if claims.sub.is_empty() || claims.sub.len() > SUBJECT_BYTES_MAX {
            return Err(TokenError::BadClaims(format!("`sub` has 1 to {SUBJECT_BYTES_MAX} bytes").into()));
        }
        let grants = self.share(claims.causeway.map_or(Ok(Grants::default()), GrantClaims::grants)?);
        Ok(Verified { policy: Policy::new(claims.sub, grants), expires_in: self.time_left(claims.exp)? })
    }

    /// Forgets grants that nobody holds any more. To be called about once a minute.
    pub fn sweep(&self) {
        self.shared_grants().retain(|_, shared| shared.strong_count() > 0);
    }

    fn key_for(&self, header: &Header) -> Result<(&Validation, &DecodingKey), TokenError> {
        let key = match &header.kid {
            Some(kid) if kid.len() <= KID_BYTES_MAX => self.keys.get(kid.as_str()),
            Some(_) => None,
            None if self.keys.len() == 1 => self.keys.values().next(),
            None => None,
        };
        let (validation, key) = key.ok_or(TokenError::UnknownKey)?;
        if !validation.algorithms.contains(&header.alg) {
            return Err(TokenError::UnknownKey);
        }
        Ok((validation, key))
    }

    /// A token is good until it expires. One let in by the leeway alone is good until that ends.
    fn time_left(&self, exp: f64) -> Result<Duration, TokenError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let exp = Duration::try_from_secs_f64(exp).unwrap_or(Duration::MAX);
        let end = if exp > now { exp } else { exp.saturating_add(self.leeway) };
        end.checked_sub(now).ok_or(TokenError::Expired)
    }

    fn share(&self, grants: Grants) -> Arc<Grants> {
        let mut shared = self.shared_grants();
        if let Some(grants) = shared.get(&grants).and_then(Weak::upgrade) {
            return grants;
        }
        let fresh = Arc::new(grants.clone());
        shared.insert(grants, Arc::downgrade(&fresh));
        fresh
    }

    fn shared_grants(&self) -> std::sync::MutexGuard<'_, HashMap<Grants, Weak<Grants>>> {
        self.grants.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl GrantClaims {
    fn grants(self) -> Result<Grants, TokenError> {
        Ok(Grants { subscribe: patterns(&self.subscribe)?, publish: patterns(&self.publish)? })
    }
}

fn patterns(texts: &[String]) -> Result<Box<[Pattern]>, TokenError> {
    let unusable =
        |fault: PatternError| TokenError::BadClaims(format!("a topic pattern is illegal: {fault}").into());
    texts.iter().map(|text| Pattern::parse(text).map_err(unusable)).collect()
}

fn validation(algorithm: Algorithm, rules: &TokenRules) -> Validation {
    let mut validation = Validation::new(algorithm);
    let mut required = vec!["exp", "sub"];
    validation.leeway = rules.leeway.as_secs();
    validation.validate_nbf = true;
    if let Some(issuer) = &rules.issuer {
        validation.set_issuer(&[issuer]);
        required.push("iss");
    }
    if let Some(audience) = &rules.audience {
        validation.set_audience(&[audience]);
        required.push("aud");
    }
    validation.set_required_spec_claims(&required);
    validation
}

/// Reads the header apart from the library, which passes over what it does not know.
fn header_of(token: &str) -> Result<Header, TokenError> {
    let (header, _) = token.split_once('.').ok_or(TokenError::Malformed("not three parts"))?;
    let header = BASE64URL.decode(header).map_err(|_| TokenError::Malformed("header is not base64url"))?;
    let header: Header = serde_json::from_slice(&header)
        .map_err(|_| TokenError::Malformed("header is not a JSON object with a known alg"))?;
    if header.crit.is_some() {
        return Err(TokenError::Malformed("crit is not supported"));
    }
    match header.typ.as_deref() {
        None => Ok(header),
        Some(typ) if ["JWT", "at+jwt"].iter().any(|known| typ.eq_ignore_ascii_case(known)) => Ok(header),
        Some(_) => Err(TokenError::Malformed("typ is not JWT")),
    }
}

fn fault(error: &jsonwebtoken::errors::Error) -> TokenError {
    match error.kind() {
        ErrorKind::ExpiredSignature => TokenError::Expired,
        ErrorKind::ImmatureSignature => TokenError::NotYetValid,
        ErrorKind::InvalidSignature => TokenError::BadSignature,
        ErrorKind::InvalidAlgorithm => TokenError::UnknownKey,
        ErrorKind::InvalidIssuer => TokenError::WrongIssuer,
        ErrorKind::InvalidAudience => TokenError::WrongAudience,
        ErrorKind::MissingRequiredClaim(claim) => {
            TokenError::BadClaims(format!("`{claim}` is missing").into())
        }
        ErrorKind::InvalidClaimFormat(claim) => {
            TokenError::BadClaims(format!("`{claim}` has the wrong type").into())
        }
        ErrorKind::Json(_) => TokenError::BadClaims("sub, exp or causeway has the wrong type".into()),
        _ => TokenError::Malformed("not a signed token"),
    }
}
