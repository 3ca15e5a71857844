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

impl TokenError {
    /// Every cause, for metrics.
    pub(crate) const CAUSES: &[&str] = &[
        "missing",
        "too_long",
        "malformed",
        "unknown_key",
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

#[cfg(test)]
mod tests {
    use jsonwebtoken::{EncodingKey, encode};
    use serde_json::{Value, json};

    use super::*;

    const SECRET: &[u8] = b"a secret of at least thirty-two bytes";

    fn verifier(rules: &TokenRules) -> Verifier {
        let key = |kid: &str, secret: &[u8]| VerifyingKey {
            kid: kid.into(),
            algorithm: Algorithm::HS256,
            key: DecodingKey::from_secret(secret),
        };
        Verifier::new(vec![key("main", SECRET), key("next", b"another secret of thirty-two bytes")], rules)
    }

    fn rules() -> TokenRules {
        TokenRules { leeway: Duration::from_secs(5), ..TokenRules::default() }
    }

    fn in_seconds(seconds: i64) -> i64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        i64::try_from(now).unwrap() + seconds
    }

    /// A token whose header and claims are these, signed with HMAC SHA-256 whatever the header says.
    fn signed(header: &Value, claims: &Value, secret: &[u8]) -> String {
        let part = |value: &Value| BASE64URL.encode(value.to_string());
        let body = format!("{}.{}", part(header), part(claims));
        let signature =
            jsonwebtoken::crypto::sign(body.as_bytes(), &EncodingKey::from_secret(secret), Algorithm::HS256)
                .unwrap();
        format!("{body}.{signature}")
    }

    fn header() -> Value {
        json!({"alg": "HS256", "typ": "JWT", "kid": "main"})
    }

    fn claims() -> Value {
        json!({"sub": "alice", "exp": in_seconds(60), "causeway": {"subscribe": ["orders.*"], "publish": []}})
    }

    /// `base` with one member replaced, or removed where the value is null.
    fn with(mut base: Value, key: &str, value: Value) -> Value {
        let members = base.as_object_mut().unwrap();
        match value {
            Value::Null => members.remove(key),
            value => members.insert(key.to_owned(), value),
        };
        base
    }

    #[test]
    fn a_good_token_proves_its_subject_and_grants() {
        let verified = verifier(&rules()).verify(&signed(&header(), &claims(), SECRET)).unwrap();
        assert_eq!(verified.policy.subject(), "alice");
        assert!(
            verified.expires_in > Duration::from_secs(50) && verified.expires_in <= Duration::from_secs(60)
        );
        let topic = |name| causeway_protocol::Topic::parse(name).unwrap();
        assert!(verified.policy.permit_subscribe(topic("orders.1")).is_some());
        assert!(verified.policy.permit_publish(topic("orders.1")).is_none());
    }

    #[test]
    fn other_good_tokens_are_accepted() {
        for (header, claims) in [
            (with(header(), "typ", json!("jwt")), claims()),
            (with(header(), "typ", Value::Null), claims()),
            (header(), with(claims(), "causeway", Value::Null)),
            (header(), with(claims(), "nbf", json!(in_seconds(2)))),
            (header(), with(claims(), "exp", json!(in_seconds(60) as f64 + 0.5))),
            (header(), with(claims(), "exp", json!(in_seconds(-3)))),
        ] {
            let token = signed(&header, &claims, SECRET);
            assert!(verifier(&rules()).verify(&token).is_ok(), "{header} {claims}");
        }
    }

    #[test]
    fn every_other_token_is_refused_for_its_own_reason() {
        let malformed = |refusal: &TokenError| matches!(refusal, TokenError::Malformed(_));
        let bad_claims = |refusal: &TokenError| matches!(refusal, TokenError::BadClaims(_));
        type Expected<'a> = &'a dyn Fn(&TokenError) -> bool;
        let is = |expected: TokenError| move |refusal: &TokenError| *refusal == expected;
        let (unknown_key, bad_signature) = (is(TokenError::UnknownKey), is(TokenError::BadSignature));
        let (expired, early) = (is(TokenError::Expired), is(TokenError::NotYetValid));
        let (too_long, audience) = (is(TokenError::TooLong), is(TokenError::WrongAudience));
        let good = signed(&header(), &claims(), SECRET);
        let unsigned = format!("{}.", good.rsplit_once('.').unwrap().0);
        let cases: Vec<(String, Expected<'_>)> = vec![
            (String::new(), &malformed),
            ("a".repeat(TOKEN_BYTES_MAX + 1), &too_long),
            ("a.b.c".to_owned(), &malformed),
            (unsigned, &bad_signature),
            (signed(&header(), &claims(), b"somebody else's secret of 32 bytes"), &bad_signature),
            (signed(&with(header(), "alg", json!("none")), &claims(), SECRET), &malformed),
            (signed(&with(header(), "alg", json!("nOnE")), &claims(), SECRET), &malformed),
            (signed(&with(header(), "alg", json!("HS512")), &claims(), SECRET), &unknown_key),
            (signed(&with(header(), "alg", json!("RS256")), &claims(), SECRET), &unknown_key),
            (signed(&with(header(), "kid", json!("old")), &claims(), SECRET), &unknown_key),
            (signed(&with(header(), "kid", json!("next")), &claims(), SECRET), &bad_signature),
            (signed(&with(header(), "kid", json!("../../etc/passwd")), &claims(), SECRET), &unknown_key),
            (signed(&with(header(), "kid", Value::Null), &claims(), SECRET), &unknown_key),
            (signed(&with(header(), "crit", json!(["exp"])), &claims(), SECRET), &malformed),
            (signed(&with(header(), "typ", json!("JWE")), &claims(), SECRET), &malformed),
            (signed(&header(), &with(claims(), "exp", Value::Null), SECRET), &bad_claims),
            (signed(&header(), &with(claims(), "exp", json!("soon")), SECRET), &bad_claims),
            (signed(&header(), &with(claims(), "exp", json!(in_seconds(-10))), SECRET), &expired),
            (signed(&header(), &with(claims(), "nbf", json!(in_seconds(30))), SECRET), &early),
            (signed(&header(), &with(claims(), "sub", Value::Null), SECRET), &bad_claims),
            (signed(&header(), &with(claims(), "sub", json!("")), SECRET), &bad_claims),
            (signed(&header(), &with(claims(), "sub", json!(7)), SECRET), &bad_claims),
            (signed(&header(), &with(claims(), "aud", json!("others")), SECRET), &audience),
            (
                signed(&header(), &with(claims(), "causeway", json!({"subscribe": ["or*"]})), SECRET),
                &bad_claims,
            ),
            (
                signed(&header(), &with(claims(), "causeway", json!({"subscribe": "orders"})), SECRET),
                &bad_claims,
            ),
            (signed(&header(), &with(claims(), "causeway", json!({"admin": true})), SECRET), &bad_claims),
        ];
        for (at, (token, expected)) in cases.iter().enumerate() {
            let refusal = verifier(&rules()).verify(token).expect_err("a bad token");
            assert!(expected(&refusal), "case {at}: {refusal:?}");
        }
    }

    #[test]
    fn issuer_and_audience_are_required_once_configured() {
        let rules = TokenRules { issuer: Some("us".into()), audience: Some("causeway".into()), ..rules() };
        let verify = |claims: &Value| verifier(&rules).verify(&signed(&header(), claims, SECRET)).map(drop);
        let good = with(with(claims(), "iss", json!("us")), "aud", json!(["causeway", "other"]));
        assert_eq!(verify(&good), Ok(()));
        assert_eq!(verify(&with(good.clone(), "iss", json!("them"))), Err(TokenError::WrongIssuer));
        assert_eq!(verify(&with(good.clone(), "aud", json!("them"))), Err(TokenError::WrongAudience));
        assert!(matches!(verify(&with(good.clone(), "iss", Value::Null)), Err(TokenError::BadClaims(_))));
        assert!(matches!(verify(&with(good, "aud", Value::Null)), Err(TokenError::BadClaims(_))));
    }

    #[test]
    fn equal_grants_are_held_once() {
        let verifier = verifier(&rules());
        let verify = |subject: &str| {
            let header = jsonwebtoken::Header { kid: Some("main".into()), ..jsonwebtoken::Header::default() };
            let claims = with(claims(), "sub", json!(subject));
            verifier.verify(&encode(&header, &claims, &EncodingKey::from_secret(SECRET)).unwrap()).unwrap()
        };
        let held = [verify("alice"), verify("bob")];
        assert_eq!(verifier.shared_grants().len(), 1);
        drop(held);
        verifier.sweep();
        assert_eq!(verifier.shared_grants().len(), 0);
    }
}
