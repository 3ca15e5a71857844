//! Those who issue tokens: what the tokens of each must say, and the keys that they sign with.

use std::sync::Arc;

use super::claims::{self, Claims, Header};
use super::key_set::KeySet;
use super::{TokenError, VerifyingKey};

/// The longest `kid`, in bytes.
const KID_BYTES_MAX: usize = 64;

/// One who issues tokens.
#[derive(Debug, Default)]
pub struct Issuer {
    /// The required `iss`. Without one, any will do, and none; that makes sense for a sole issuer only.
    pub name: Option<Box<str>>,
    /// The required `aud`. Where there is none, a token that has one is refused (RFC 7519 §4.1.3).
    pub audience: Option<Box<str>>,
    /// Claims that its tokens must have, besides `sub` and `exp`.
    pub required_claims: Box<[Box<str>]>,
    /// Keys that are known from the start, each by a name of its own.
    pub keys: Vec<Arc<VerifyingKey>>,
    /// Keys that it publishes.
    pub key_sets: Vec<Arc<KeySet>>,
}

/// Whether `kid` may name a key: a short text of the alphabets of base64, never to be mistaken for anything else
/// by whoever reads it in a log.
pub(crate) fn is_kid(kid: &str) -> bool {
    let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.+/=".contains(&byte);
    (1..=KID_BYTES_MAX).contains(&kid.len()) && kid.bytes().all(is_legal)
}

impl Issuer {
    /// The key that a token says it is signed with, if that is the key's algorithm.
    pub(super) fn key_for(&self, header: &Header) -> Result<Arc<VerifyingKey>, TokenError> {
        let key = match header.kid.as_deref() {
            Some(kid) => self.key_named(kid),
            None => self.only_key(),
        };
        let key = key.ok_or(TokenError::UnknownKey)?;
        let is_its_algorithm = header.alg.parse() == Ok(key.algorithm);
        is_its_algorithm.then_some(key).ok_or(TokenError::WrongAlgorithm)
    }

    fn key_named(&self, kid: &str) -> Option<Arc<VerifyingKey>> {
        if !is_kid(kid) {
            return None;
        }
        let known = self.keys.iter().find(|key| *key.kid == *kid).cloned();
        let key = known.or_else(|| self.key_sets.iter().find_map(|set| set.find(kid)));
        if key.is_none() {
            self.key_sets.iter().for_each(|set| set.ask_for(kid));
        }
        key
    }

    fn only_key(&self) -> Option<Arc<VerifyingKey>> {
        let count = self.keys.len() + self.key_sets.iter().map(|set| set.len()).sum::<usize>();
        let only = || self.keys.first().cloned().or_else(|| self.key_sets.iter().find_map(|set| set.any()));
        if count == 1 { only() } else { None }
    }

    /// Whether a token with these claims, which `payload` encodes, is from here and for us.
    pub(super) fn check(&self, claims: &Claims, payload: &str) -> Result<(), TokenError> {
        if let Some(name) = &self.name {
            let named = claims.issuer.as_ref().ok_or(TokenError::BadClaims("`iss` is missing".into()))?;
            if **named != **name {
                return Err(TokenError::WrongIssuer);
            }
        }
        self.check_audience(claims)?;
        if self.required_claims.is_empty() {
            return Ok(());
        }
        match claims::missing(payload, &self.required_claims) {
            Some(claim) => Err(TokenError::BadClaims(format!("`{claim}` is missing").into())),
            None => Ok(()),
        }
    }

    fn check_audience(&self, claims: &Claims) -> Result<(), TokenError> {
        match (&self.audience, &claims.audience) {
            (None, None) => Ok(()),
            (Some(_), None) => Err(TokenError::BadClaims("`aud` is missing".into())),
            (Some(service), Some(audience)) if audience.names(service) => Ok(()),
            (_, Some(_)) => Err(TokenError::WrongAudience),
        }
    }
}
