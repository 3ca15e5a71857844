//! Several issuers: each token is judged by the one it names, by that one's keys and by that one's rules.

use super::*;

/// Two issuers whose keys have the same name, for two services.
fn two() -> Verifier {
    let issuer = |name: &str, audience: &str, secret| Issuer {
        name: Some(name.into()),
        audience: Some(audience.into()),
        ..issuer_with(&Signer::Hmac("main", secret))
    };
    let (us, them) = (issuer("us", "causeway", HMAC_SECRET), issuer("them", "their-gateway", HMAC_NEXT));
    Verifier::new(vec![us, them], Duration::from_secs(LEEWAY as u64), Arc::default())
}

fn token(issuer: Value, audience: &str, secret: &'static [u8]) -> String {
    let claims = with(with(claims(), "iss", issuer), "aud", json!(audience));
    token_of(&header().to_string(), &claims.to_string(), &Signer::Hmac("main", secret))
}

fn refusal(token: &str) -> Option<TokenError> {
    judge(&two(), token, NOW as f64).err()
}

#[test]
fn each_issuer_has_its_own_keys_and_its_own_service() {
    assert_eq!(refusal(&token(json!("us"), "causeway", HMAC_SECRET)), None);
    assert_eq!(refusal(&token(json!("them"), "their-gateway", HMAC_NEXT)), None);
    for (what, token, expected) in [
        ("theirs by our key", token(json!("them"), "their-gateway", HMAC_SECRET), TokenError::BadSignature),
        ("ours by their key", token(json!("us"), "causeway", HMAC_NEXT), TokenError::BadSignature),
        ("theirs for our service", token(json!("them"), "causeway", HMAC_NEXT), TokenError::WrongAudience),
        ("nobody's", token(json!("nobody"), "causeway", HMAC_SECRET), TokenError::WrongIssuer),
        ("without a name", token(Value::Null, "causeway", HMAC_SECRET), bad_claims("`iss` is missing")),
        (
            "of both",
            token(json!(["us", "them"]), "causeway", HMAC_SECRET),
            bad_claims("`iss` has the wrong type"),
        ),
    ] {
        assert_eq!(refusal(&token), Some(expected), "{what}");
    }
}

#[test]
fn claims_that_are_required_must_be_there() {
    let required = ["jti", "tenant"].map(Into::into).into();
    let verifier =
        only(Issuer { required_claims: required, ..issuer_with(&Signer::Hmac("main", HMAC_SECRET)) });
    let refusal = |claims: Value| judge(&verifier, &signed(&header(), &claims), NOW as f64).err();
    let complete = with(with(claims(), "jti", json!("1")), "tenant", json!({"id": 7}));
    assert_eq!(refusal(complete.clone()), None);
    assert_eq!(refusal(with(complete.clone(), "jti", Value::Null)), Some(bad_claims("`jti` is missing")));
    assert_eq!(refusal(with(complete, "tenant", Value::Null)), Some(bad_claims("`tenant` is missing")));
}
