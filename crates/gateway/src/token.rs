//! Tokens: from a text that anybody could have written to a proved policy.
//!
//! The key decides the algorithm, never the token. Whatever is not understood is refused: a critical header,
//! another type, a claim of the wrong shape. Tokens and their parts are never logged.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use causeway_hub::{Grants, Policy};
use jsonwebtoken::{Algorithm, DecodingKey};

use self::claims::{Claims, Header};

mod claims;
#[cfg(test)]
mod tests;

/// The longest token, in bytes.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;
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
    /// No key by that name.
    #[error("the token's key is not known here")]
    UnknownKey,
    /// The key is for another algorithm.
    #[error("the token's algorithm is not its key's")]
    WrongAlgorithm,
    /// Signed by somebody else.
    #[error("the token's signature is wrong")]
    BadSignature,
    /// Its time is over.
    #[error("the token has expired")]
    Expired,
    /// Its time has not come, or it was issued in the future.
    #[error("the token is not valid yet: the clocks may differ")]
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

impl TokenError {
    /// Every cause, for metrics.
    pub(crate) const CAUSES: &[&str] = &[
        "missing",
        "too_long",
        "malformed",
        "unknown_key",
        "wrong_algorithm",
        "bad_signature",
        "expired",
        "not_yet_valid",
        "wrong_issuer",
        "wrong_audience",
        "bad_claims",
    ];

    /// The cause, for metrics.
    pub(crate) fn cause(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::TooLong => "too_long",
            Self::Malformed(_) => "malformed",
            Self::UnknownKey => "unknown_key",
            Self::WrongAlgorithm => "wrong_algorithm",
            Self::BadSignature => "bad_signature",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::WrongIssuer => "wrong_issuer",
            Self::WrongAudience => "wrong_audience",
            Self::BadClaims(_) => "bad_claims",
        }
    }
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
    keys: HashMap<Box<str>, VerifyingKey>,
    rules: TokenRules,
    /// Tokens of one kind grant the same, and thousands of connections hold the result: equal grants are one.
    grants: Mutex<HashMap<Grants, Weak<Grants>>>,
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verifier").field("kids", &self.keys.keys()).finish_non_exhaustive()
    }
}

impl Verifier {
    /// Accepts tokens signed with one of `keys` that keep to `rules`.
    pub fn new(keys: Vec<VerifyingKey>, rules: &TokenRules) -> Self {
        // A build without cryptography panics here and not when the first client comes.
        keys.iter().for_each(|key| drop(key.check("", "")));
        let keys = keys.into_iter().map(|key| (key.kid.clone(), key)).collect();
        Self { keys, rules: rules.clone(), grants: Mutex::default() }
    }

    /// Verifies `token`. Takes some microseconds (HMAC) to some tens (RSA, ECDSA) and does not block.
    ///
    /// # Errors
    /// The first [`TokenError`] met.
    pub fn verify(&self, token: &str) -> Result<Verified, TokenError> {
        self.verify_at(token, SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
    }

    /// Verifies `token` at a time since 1970.
    fn verify_at(&self, token: &str, now: Duration) -> Result<Verified, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::TooLong);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(NOT_THREE_PARTS)?;
        let (header, payload) = signed.split_once('.').ok_or(NOT_THREE_PARTS)?;
        if payload.contains('.') {
            return Err(NOT_THREE_PARTS);
        }
        self.key_for(&Header::parse(header)?)?.check(signed, signature)?;
        let claims = Claims::parse(payload)?;
        self.check_parties(&claims)?;
        let expires_in = self.time_left(&claims, now)?;
        Ok(Verified { policy: Policy::new(claims.subject, self.share(claims.grants)), expires_in })
    }

    /// Forgets grants that nobody holds any more. To be called about once a minute.
    pub fn sweep(&self) {
        self.shared_grants().retain(|_, shared| shared.strong_count() > 0);
    }

    fn key_for(&self, header: &Header) -> Result<&VerifyingKey, TokenError> {
        let key = match header.kid.as_deref() {
            Some(kid) if kid.len() <= KID_BYTES_MAX => self.keys.get(kid),
            Some(_) => None,
            None if self.keys.len() == 1 => self.keys.values().next(),
            None => None,
        };
        let key = key.ok_or(TokenError::UnknownKey)?;
        let is_its_algorithm = header.alg.parse() == Ok(key.algorithm);
        is_its_algorithm.then_some(key).ok_or(TokenError::WrongAlgorithm)
    }

    fn check_parties(&self, claims: &Claims) -> Result<(), TokenError> {
        if let Some(issuer) = &self.rules.issuer {
            let named = claims.issuer.as_ref().ok_or(TokenError::BadClaims("`iss` is missing".into()))?;
            if named != issuer {
                return Err(TokenError::WrongIssuer);
            }
        }
        match (&self.rules.audience, &claims.audience) {
            (None, None) => Ok(()),
            (Some(_), None) => Err(TokenError::BadClaims("`aud` is missing".into())),
            (Some(service), Some(audience)) if audience.names(service) => Ok(()),
            (_, Some(_)) => Err(TokenError::WrongAudience),
        }
    }

    /// A token is good until it expires. One let in by the leeway alone is good until that ends.
    fn time_left(&self, claims: &Claims, now: Duration) -> Result<Duration, TokenError> {
        let leeway = self.rules.leeway;
        if [claims.not_before, claims.issued].into_iter().flatten().any(|begin| begin > now + leeway) {
            return Err(TokenError::NotYetValid);
        }
        let end = if claims.expires > now { claims.expires } else { claims.expires + leeway };
        end.checked_sub(now).filter(|left| !left.is_zero()).ok_or(TokenError::Expired)
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

const NOT_THREE_PARTS: TokenError = TokenError::Malformed("not three parts");

impl VerifyingKey {
    /// Checks that `signature` is this key's, of `signed`.
    fn check(&self, signed: &str, signature: &str) -> Result<(), TokenError> {
        match jsonwebtoken::crypto::verify(signature, signed.as_bytes(), &self.key, self.algorithm) {
            Ok(true) => Ok(()),
            Ok(false) => Err(TokenError::BadSignature),
            Err(_) => Err(TokenError::Malformed("signature is not base64url")),
        }
    }
}
