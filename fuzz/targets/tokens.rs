//! Tokens: none is accepted that we did not sign, and of those we signed none that breaks a rule.
#![cfg_attr(fuzzing, no_main)]

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use causeway_gateway::token::{Issuer, TOKEN_BYTES_MAX, Verified, Verifier, VerifyingKey};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};
use serde_json::Value;

const SECRET: &[u8] = b"a secret of at least thirty-two bytes";

/// The input is a token as a stranger would make it; and, line by line, the header and the claims of one that
/// we have signed.
pub(crate) fn check(input: &[u8]) {
    let verifier = verifier();
    if let Ok(token) = str::from_utf8(input) {
        assert!(verifier.verify(token).is_err(), "a stranger's token was accepted");
    }
    let at = input.iter().position(|&byte| byte == b'\n').unwrap_or(input.len());
    let (header, claims) = (&input[..at], input.get(at + 1..).unwrap_or_default());
    let token = signed(header, claims);
    if let Ok(verified) = verifier.verify(&token) {
        assert!(token.len() <= TOKEN_BYTES_MAX);
        if let Some(header) = object(header) {
            check_header(&header);
        }
        if let Some(claims) = object(claims) {
            check_claims(&claims, &verified);
        }
    }
}

fn verifier() -> Verifier {
    let key = VerifyingKey {
        kid: "main".into(),
        algorithm: Algorithm::HS256,
        key: DecodingKey::from_secret(SECRET),
    };
    let issuer = Issuer { keys: vec![Arc::new(key)], ..Issuer::default() };
    Verifier::new(vec![issuer], Duration::from_secs(5), Arc::default())
}

fn signed(header: &[u8], claims: &[u8]) -> String {
    let body = format!("{}.{}", BASE64URL.encode(header), BASE64URL.encode(claims));
    let signature =
        jsonwebtoken::crypto::sign(body.as_bytes(), &EncodingKey::from_secret(SECRET), Algorithm::HS256)
            .expect("HMAC signs anything");
    format!("{body}.{signature}")
}

/// `None` where a member that nobody reads holds bytes that are not text: such a token of ours is good all the same.
fn object(json: &[u8]) -> Option<Value> {
    let Ok(text) = str::from_utf8(json) else { return None };
    let value: Value = serde_json::from_str(text).expect("what was accepted is JSON");
    assert!(value.is_object());
    Some(value)
}

fn check_header(header: &Value) {
    assert_eq!(header["alg"], "HS256", "the key decides the algorithm");
    assert!(header["kid"].is_null() || header["kid"] == "main");
    assert!(header.get("crit").is_none_or(Value::is_null), "what is critical is not understood");
    let typ = header["typ"].as_str().unwrap_or("JWT").to_ascii_lowercase();
    assert!(["jwt", "at+jwt"].contains(&&*typ), "{typ}");
}

fn check_claims(claims: &Value, verified: &Verified) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64();
    let subject = claims["sub"].as_str().expect("a subject is text");
    assert!((1..=256).contains(&subject.len()) && verified.policy.subject() == subject);
    assert!(claims["exp"].as_f64().expect("an expiry is a number") >= now - 1.0, "it has not expired");
    assert!(verified.expires_in > Duration::ZERO);
    assert!(claims["nbf"].as_f64().is_none_or(|nbf| nbf <= now + 1.0), "its time has come");
    assert!(claims["aud"].is_null(), "it is for nobody else");
}

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|input: &[u8]| check(input));
