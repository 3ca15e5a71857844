//! A JWK set (RFC 7517): from a document that an issuer publishes to keys that each are for one algorithm.
//!
//! A key that is not understood, or not for checking signatures, is passed over (§5). What a key is for is said
//! by its type, its curve and its `alg`, and by the operator's list of algorithms; never by a token.

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;

use super::{VerifyingKey, is_kid};

/// The shortest RSA key that its algorithms let us use, in bytes (RFC 7518 §3.3).
const RSA_BYTES_MIN: usize = 2048 / 8;

/// Every algorithm that a published key may be for. HMAC is not among them: its keys are secrets.
pub const PUBLIC_ALGORITHMS: &[Algorithm] = &[
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// Keys by their names.
pub(super) type Keys = HashMap<Box<str>, Arc<VerifyingKey>>;

#[derive(Deserialize)]
struct Document {
    keys: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
    d: Option<serde::de::IgnoredAny>,
}

/// Reads a JWK set, as far as its keys can be used with one of `algorithms`.
///
/// # Errors
/// When the document is no JWK set. That none of its keys can be used is no error: an issuer may have withdrawn
/// them all.
pub(super) fn parse(document: &[u8], algorithms: &[Algorithm]) -> Result<Keys, serde_json::Error> {
    let document: Document = serde_json::from_slice(document)?;
    let mut keys = Keys::new();
    for jwk in document.keys {
        let meant = serde_json::from_value::<Jwk>(jwk).map_err(|_| "it is no key");
        match meant.and_then(|jwk| jwk.meant(algorithms)) {
            Ok(key) if keys.contains_key(&key.kid) => {
                tracing::warn!(kid = %key.kid, "two published keys have one name: the first counts");
            }
            Ok(key) => drop(keys.insert(key.kid.clone(), Arc::new(key))),
            Err(cause) => tracing::debug!(cause, "a published key is passed over"),
        }
    }
    Ok(keys)
}

impl Jwk {
    /// The key that is meant, or why there is none.
    fn meant(&self, algorithms: &[Algorithm]) -> Result<VerifyingKey, &'static str> {
        if self.usage.as_deref().is_some_and(|usage| usage != "sig") {
            return Err("it is not for signatures");
        }
        if self.key_ops.as_ref().is_some_and(|ops| !ops.iter().any(|op| op == "verify")) {
            return Err("it is not for verifying");
        }
        if self.d.is_some() {
            // Whoever can read the document could sign with it.
            tracing::warn!(kid = self.kid, "a JWK set holds a private key, which is not trusted");
            return Err("it is a private key");
        }
        // One without a name can only be meant where it is the only one.
        let kid = self.kid.as_deref().unwrap_or_default();
        if !kid.is_empty() && !is_kid(kid) {
            return Err("its name is no legal kid");
        }
        let algorithm = self.algorithm(algorithms)?;
        let key = self.key().ok_or("a part of it is missing or has the wrong length")?;
        Ok(VerifyingKey { kid: kid.into(), algorithm, key })
    }

    /// The one algorithm the key is for: what its `alg` says, otherwise the first that suits its kind.
    fn algorithm(&self, allowed: &[Algorithm]) -> Result<Algorithm, &'static str> {
        let suits = |algorithm: &&Algorithm| self.suits(**algorithm);
        let mut suitable = allowed.iter().filter(suits).copied();
        match self.alg.as_deref() {
            Some(alg) => suitable.find(|algorithm| alg.parse() == Ok(*algorithm)),
            None => suitable.next(),
        }
        .ok_or("its algorithm is not allowed, or not for its kind of key")
    }

    fn suits(&self, algorithm: Algorithm) -> bool {
        use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
        match (self.kty.as_str(), self.crv.as_deref()) {
            ("RSA", None) => matches!(algorithm, RS256 | RS384 | RS512 | PS256 | PS384 | PS512),
            ("EC", Some("P-256")) => algorithm == ES256,
            ("EC", Some("P-384")) => algorithm == ES384,
            ("OKP", Some("Ed25519")) => algorithm == EdDSA,
            // `oct` among them: a secret that is published is none.
            _ => false,
        }
    }

    fn key(&self) -> Option<DecodingKey> {
        let part = |text: &Option<String>| BASE64URL.decode(text.as_ref()?).ok();
        let coordinate =
            |text: &Option<String>| part(text).filter(|bytes| Some(bytes.len()) == self.coordinate_bytes());
        match self.kty.as_str() {
            "RSA" => {
                let (n, e) = (part(&self.n)?, part(&self.e)?);
                let is_long = n.iter().skip_while(|byte| **byte == 0).count() >= RSA_BYTES_MIN;
                is_long.then(|| DecodingKey::from_rsa_raw_components(&n, &e))
            }
            "EC" => {
                let point = [vec![4], coordinate(&self.x)?, coordinate(&self.y)?].concat();
                Some(DecodingKey::from_ec_der(&point))
            }
            _ => Some(DecodingKey::from_ed_der(&coordinate(&self.x)?)),
        }
    }

    fn coordinate_bytes(&self) -> Option<usize> {
        match self.crv.as_deref()? {
            "P-256" | "Ed25519" => Some(32),
            "P-384" => Some(48),
            _ => None,
        }
    }
}
