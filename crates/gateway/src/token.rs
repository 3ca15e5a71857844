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
pub use self::issuer::Issuer;
pub(crate) use self::issuer::is_kid;
pub use self::jwks::PUBLIC_ALGORITHMS;
pub use self::key_set::{FetchError, KeySet, Place};
use crate::revocation::Revocations;

mod claims;
mod issuer;
mod jwks;
mod key_set;
#[cfg(test)]
mod tests;

/// The longest token, in bytes.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;

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
    /// Ended before its time.
    #[error("the token was revoked")]
    Revoked,
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
        "revoked",
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
            Self::Revoked => "revoked",
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

/// What a token proves.
#[derive(Clone, Debug)]
pub struct Verified {
    /// Who it is and what it may do.
    pub policy: Policy,
    /// For how long from now.
    pub expires_in: Duration,
}

/// Verifies tokens.
#[derive(Debug)]
pub struct Verifier {
    issuers: Vec<Issuer>,
    /// How far clocks may be apart.
    leeway: Duration,
    revocations: Arc<Revocations>,
    /// Tokens of one kind grant the same, and thousands of connections hold the result: equal grants are one.
    grants: Mutex<HashMap<Grants, Weak<Grants>>>,
}

impl Verifier {
    /// Accepts the tokens of `issuers`: each token is judged by the one that its `iss` names, and by no other's
    /// keys and rules. Where there is one issuer only, it judges all. What `revocations` name is refused.
    ///
    /// # Panics
    /// In a build without cryptography: at once, and not when the first client comes.
    pub fn new(issuers: Vec<Issuer>, leeway: Duration, revocations: Arc<Revocations>) -> Self {
        issuers.iter().flat_map(|issuer| &issuer.keys).for_each(|key| drop(key.check("", "")));
        Self { issuers, leeway, revocations, grants: Mutex::default() }
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
        let (header, issuer) = (Header::parse(header)?, self.issuer_of(payload)?);
        issuer.key_for(&header)?.check(signed, signature)?;
        let claims = Claims::parse(payload)?;
        issuer.check(&claims, payload)?;
        let expires_in = self.time_left(&claims, now)?;
        let mark = self.revocations.mark(issuer.name.as_deref(), claims.id.as_deref(), claims.issued);
        let policy = Policy::new(claims.subject, self.share(claims.grants)).marked(mark);
        if self.revocations.revokes(&policy) {
            return Err(TokenError::Revoked);
        }
        Ok(Verified { policy, expires_in })
    }

    /// Forgets grants that nobody holds any more. To be called about once a minute.
    pub fn sweep(&self) {
        self.shared_grants().retain(|_, shared| shared.strong_count() > 0);
    }

    /// Whether one of the issuers is called so.
    pub(crate) fn knows_issuer(&self, name: &str) -> bool {
        self.issuers.iter().any(|issuer| issuer.name.as_deref() == Some(name))
    }

    /// The key sets of all issuers, to be kept fresh.
    pub(crate) fn key_sets(&self) -> impl Iterator<Item = &Arc<KeySet>> {
        self.issuers.iter().flat_map(|issuer| &issuer.key_sets)
    }

    /// Who is to judge a token. Nothing of it is proved yet, and the issuer is compared again when it is.
    fn issuer_of(&self, payload: &str) -> Result<&Issuer, TokenError> {
        if let [only] = &self.issuers[..] {
            return Ok(only);
        }
        let named = claims::issuer_of(payload)?;
        let is_it = |issuer: &&Issuer| issuer.name.as_deref() == Some(&*named);
        self.issuers.iter().find(is_it).ok_or(TokenError::WrongIssuer)
    }

    /// A token is good until it expires. One let in by the leeway alone is good until that ends.
    fn time_left(&self, claims: &Claims, now: Duration) -> Result<Duration, TokenError> {
        let leeway = self.leeway;
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

impl std::fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VerifyingKey").field("kid", &self.kid).finish_non_exhaustive()
    }
}

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
