//! Which tokens are let in, and the one reason for which each other is not.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use causeway_protocol::{Pattern, Topic};
use serde_json::{Value, json};

use self::signers::{HMAC_NEXT, HMAC_SECRET, Signer};
use super::*;
use crate::revocation::Revocation;

mod issuers;
mod key_sets;
mod mutations;
mod signers;

/// What the clock of the stories says, in seconds since 1970.
const NOW: i64 = 1_800_000_000;
const LEEWAY: i64 = 5;

fn verifier(issuer: Option<&str>, audience: Option<&str>) -> Verifier {
    only(Issuer {
        name: issuer.map(Into::into),
        audience: audience.map(Into::into),
        keys: Signer::all().iter().map(|signer| Arc::new(signer.verifying_key())).collect(),
        ..Issuer::default()
    })
}

fn only(issuer: Issuer) -> Verifier {
    Verifier::new(vec![issuer], Duration::from_secs(LEEWAY as u64), Arc::default())
}

/// An issuer with one HMAC key.
fn issuer_with(signer: &Signer) -> Issuer {
    Issuer { keys: vec![Arc::new(signer.verifying_key())], ..Issuer::default() }
}

/// A verifier that asks for no issuer and no audience.
fn plain() -> Verifier {
    verifier(None, None)
}

fn judge(verifier: &Verifier, token: &str, now: f64) -> Result<Verified, TokenError> {
    verifier.verify_at(token, Duration::from_secs_f64(now))
}

fn header() -> Value {
    json!({"alg": "HS256", "typ": "JWT", "kid": "main"})
}

fn claims() -> Value {
    json!({"sub": "alice", "exp": NOW + 60, "causeway": {"subscribe": ["orders.*"], "publish": []}})
}

/// The claims of a token for [`parties`].
fn party_claims() -> Value {
    with(with(claims(), "iss", json!("us")), "aud", json!("causeway"))
}

fn parties() -> Verifier {
    verifier(Some("us"), Some("causeway"))
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

/// A token of exactly these two JSON texts.
fn token_of(header: &str, claims: &str, signer: &Signer) -> String {
    let body = format!("{}.{}", BASE64URL.encode(header), BASE64URL.encode(claims));
    format!("{body}.{}", BASE64URL.encode(signer.sign(body.as_bytes())))
}

/// A token whose header and claims are these, signed with HMAC SHA-256 whatever the header says.
fn signed(header: &Value, claims: &Value) -> String {
    token_of(&header.to_string(), &claims.to_string(), &Signer::Hmac("main", HMAC_SECRET))
}

fn with_header(key: &str, value: Value) -> String {
    signed(&with(header(), key, value), &claims())
}

fn with_claim(key: &str, value: Value) -> String {
    signed(&header(), &with(claims(), key, value))
}

/// A good token whose claims are this text.
fn with_claims_text(claims: &str) -> String {
    token_of(&header().to_string(), claims, &Signer::Hmac("main", HMAC_SECRET))
}

fn with_header_text(header: &str) -> String {
    token_of(header, &claims().to_string(), &Signer::Hmac("main", HMAC_SECRET))
}

/// A good token of this signer.
fn good_token_of(signer: &Signer) -> String {
    let header = json!({"alg": signer.algorithm_name(), "typ": "JWT", "kid": signer.kid()});
    token_of(&header.to_string(), &claims().to_string(), signer)
}

fn malformed(words: &'static str) -> TokenError {
    TokenError::Malformed(words)
}

fn bad_claims(words: &str) -> TokenError {
    TokenError::BadClaims(words.to_owned().into())
}

#[test]
fn a_good_token_proves_its_subject_and_grants() {
    let verified = judge(&plain(), &signed(&header(), &claims()), NOW as f64).unwrap();
    assert_eq!(verified.policy.subject(), "alice");
    assert_eq!(verified.expires_in, Duration::from_secs(60));
    let topic = |name| Topic::parse(name).unwrap();
    assert!(verified.policy.permit_subscribe(topic("orders.1")).is_some());
    assert!(verified.policy.permit_publish(topic("orders.1")).is_none());
}

#[test]
fn good_tokens_of_every_kind_are_accepted() {
    let mut good = vec![
        ("typ in small letters", with_header("typ", json!("jwt"))),
        ("typ of an access token", with_header("typ", json!("at+jwt"))),
        ("no typ", with_header("typ", Value::Null)),
        ("a header that concerns others", with_header("jku", json!("https://evil.example.com/jwks"))),
        ("no grants", with_claim("causeway", Value::Null)),
        ("empty grants", with_claim("causeway", json!({}))),
        ("nbf within the leeway", with_claim("nbf", json!(NOW + LEEWAY))),
        ("iat within the leeway", with_claim("iat", json!(NOW + LEEWAY))),
        ("iat long ago", with_claim("iat", json!(NOW - 1_000_000))),
        ("a fraction of a second", with_claim("exp", json!(NOW as f64 + 0.5))),
        ("expired within the leeway", with_claim("exp", json!(NOW - LEEWAY + 1))),
        ("a jti", with_claim("jti", json!("0f8b"))),
        ("an issuer where none is asked for", with_claim("iss", json!("anybody"))),
        ("claims of other services", with_claim("scope", json!("openid profile"))),
        ("a subject of 256 bytes", with_claim("sub", json!("é".repeat(128)))),
        ("a space around the claims", with_claims_text(&format!(" {} ", claims()))),
    ];
    good.extend(Signer::all().iter().map(|signer| (signer.kid(), good_token_of(signer))));
    assert!(good.len() >= 10);
    for (what, token) in good {
        assert!(judge(&plain(), &token, NOW as f64).is_ok(), "{what}");
    }
    for audience in [json!("causeway"), json!(["causeway"]), json!(["others", "causeway"])] {
        let token = signed(&header(), &with(party_claims(), "aud", audience.clone()));
        assert!(judge(&parties(), &token, NOW as f64).is_ok(), "{audience}");
    }
}

fn assert_refused(verifier: &Verifier, cases: Vec<Case>, count_min: usize) {
    assert!(cases.len() >= count_min, "{} cases", cases.len());
    for (what, token, expected) in cases {
        assert_eq!(judge(verifier, &token, NOW as f64).err(), Some(expected), "{what}");
    }
}

#[test]
fn t17_a_forged_token_is_refused_whatever_its_algorithm() {
    assert_refused(&plain(), forgeries(), 20);
}

#[test]
fn t18_what_a_lax_reader_accepts_is_refused() {
    let lax = [bad_shapes(), bad_headers(), bad_times(), bad_grants()].concat();
    assert_refused(&plain(), lax, 50);
    assert_refused(&parties(), strangers(), 10);
}

#[test]
fn t19_a_claim_of_another_type_is_refused_and_not_taken_for_a_missing_one() {
    assert_refused(&plain(), bad_names(), 10);
    let of_wrong_type =
        bad_times().into_iter().filter(|(_, _, why)| why.to_string().ends_with("the wrong type"));
    assert_refused(&plain(), of_wrong_type.collect(), 5);
}

#[test]
fn t20_a_kid_is_a_name_in_memory_and_nothing_else() {
    assert_refused(&plain(), kids(), 10);
}

type Case = (&'static str, String, TokenError);

/// Signatures and keys.
fn forgeries() -> Vec<Case> {
    use TokenError::{BadSignature, WrongAlgorithm};
    let good = signed(&header(), &claims());
    let (body, signature) = good.rsplit_once('.').unwrap();
    let other_claims = BASE64URL.encode(with(claims(), "sub", json!("admin")).to_string());
    let own = |signer: &Signer, header: Value| token_of(&header.to_string(), &claims().to_string(), signer);
    let hmac = |secret: &'static [u8]| Signer::Hmac("main", secret);
    let rsa_public_key = Signer::Rsa.public_key_bytes();
    let by_public_key = Signer::HmacOf(rsa_public_key);
    vec![
        ("no signature", format!("{body}."), BadSignature),
        ("half a signature", format!("{body}.{}", &signature[..24]), BadSignature),
        ("another claim under the signature", replace_part(&good, 1, &other_claims), BadSignature),
        (
            "another header under the signature",
            replace_part(&good, 0, &BASE64URL.encode(r#"{"alg":"HS256","kid":"main"}"#)),
            BadSignature,
        ),
        ("somebody else's secret", own(&hmac(b"somebody else's secret of 32 bytes"), header()), BadSignature),
        ("an empty secret", own(&hmac(b""), header()), BadSignature),
        ("another key's name", with_header("kid", json!("next")), BadSignature),
        ("another key's signature", own(&Signer::Hmac("next", HMAC_NEXT), header()), BadSignature),
        ("alg none", with_header("alg", json!("none")), WrongAlgorithm),
        (
            "alg none, unsigned",
            format!("{}.", with_header("alg", json!("none")).rsplit_once('.').unwrap().0),
            WrongAlgorithm,
        ),
        ("alg nOnE", with_header("alg", json!("nOnE")), WrongAlgorithm),
        ("alg empty", with_header("alg", json!("")), WrongAlgorithm),
        ("alg in small letters", with_header("alg", json!("hs256")), WrongAlgorithm),
        ("alg with a space", with_header("alg", json!("HS256 ")), WrongAlgorithm),
        ("alg of the same family", with_header("alg", json!("HS512")), WrongAlgorithm),
        ("alg of another family", with_header("alg", json!("RS256")), WrongAlgorithm),
        ("alg that nobody knows", with_header("alg", json!("HS257")), WrongAlgorithm),
        ("alg that is for encryption", with_header("alg", json!("RSA-OAEP")), WrongAlgorithm),
        (
            "the RSA key as an HMAC secret",
            own(&by_public_key, json!({"alg": "HS256", "kid": "rsa"})),
            WrongAlgorithm,
        ),
        (
            "the RSA key as an HMAC secret, alg kept",
            own(&by_public_key, json!({"alg": "RS256", "kid": "rsa"})),
            BadSignature,
        ),
        (
            "RS256 where the key is for PS256",
            own(&Signer::Rsa, json!({"alg": "PS256", "kid": "rsa"})),
            WrongAlgorithm,
        ),
        (
            "ES384 where the key is for ES256",
            own(&Signer::Ec, json!({"alg": "ES384", "kid": "ec"})),
            WrongAlgorithm,
        ),
        ("ECDSA's zero signature", zero_signature(), BadSignature),
    ]
}

/// Names of keys.
fn kids() -> Vec<Case> {
    use TokenError::UnknownKey;
    vec![
        ("an unknown kid", with_header("kid", json!("old")), UnknownKey),
        ("no kid among several keys", with_header("kid", Value::Null), UnknownKey),
        ("an empty kid", with_header("kid", json!("")), UnknownKey),
        ("a kid that is a path", with_header("kid", json!("../../etc/passwd")), UnknownKey),
        ("a kid that is a URL", with_header("kid", json!("https://evil.example.com/key")), UnknownKey),
        ("a kid with a NUL", with_header("kid", json!("main\0")), UnknownKey),
        ("a kid that is a query", with_header("kid", json!("' OR 1=1 --")), UnknownKey),
        ("a kid that is a key in Redis", with_header("kid", json!("_causeway.revoked")), UnknownKey),
        ("a kid of another case", with_header("kid", json!("Main")), UnknownKey),
        ("a kid of 4 KiB", with_header("kid", json!("k".repeat(4 * 1024))), UnknownKey),
    ]
}

/// CVE-2022-21449: r = s = 0 was every message's signature once.
fn zero_signature() -> String {
    let good = good_token_of(&Signer::Ec);
    replace_part(&good, 2, &BASE64URL.encode([0; 64]))
}

fn replace_part(token: &str, at: usize, part: &str) -> String {
    let mut parts: Vec<&str> = token.split('.').collect();
    parts[at] = part;
    parts.join(".")
}

/// What is no token at all.
fn bad_shapes() -> Vec<Case> {
    let good = signed(&header(), &claims());
    let parts: Vec<&str> = good.split('.').collect();
    let json = claims().to_string();
    let twice = json.replacen('{', r#"{"sub":"admin","#, 1);
    let no_object = "claims are not a JSON object that names each once";
    vec![
        ("nothing", String::new(), malformed("not three parts")),
        ("two parts", format!("{}.{}", parts[0], parts[1]), malformed("not three parts")),
        ("four parts", format!("{good}.{}", parts[2]), malformed("not three parts")),
        ("an encrypted token's five parts", format!("{good}.a.b"), malformed("not three parts")),
        ("dots", "..".to_owned(), malformed("header is not JSON with an alg")),
        ("letters", "a.b.c".to_owned(), malformed("header is not base64url")),
        ("longer than 8 KiB", "a".repeat(TOKEN_BYTES_MAX + 1), TokenError::TooLong),
        (
            "a good one grown beyond 8 KiB",
            with_claim("pad", json!("x".repeat(8 * 1024))),
            TokenError::TooLong,
        ),
        ("a mebibyte", "a.".repeat(1 << 19), TokenError::TooLong),
        (
            "padded header",
            replace_part(&good, 0, &format!("{}=", parts[0])),
            malformed("header is not base64url"),
        ),
        (
            "plain base64 in the signature",
            replace_part(&good, 2, "+/+/"),
            malformed("signature is not base64url"),
        ),
        ("a padded signature", format!("{good}="), malformed("signature is not base64url")),
        ("a line break behind", format!("{good}\n"), malformed("signature is not base64url")),
        ("a space in front", format!(" {good}"), malformed("header is not base64url")),
        ("claims that are no JSON", with_claims_text("sub=alice"), malformed(no_object)),
        ("claims that are cut off", with_claims_text(&json[..json.len() - 1]), malformed(no_object)),
        ("claims with something behind", with_claims_text(&format!("{json}{{}}")), malformed(no_object)),
        (
            "claims in a list",
            with_claims_text(&format!(r#"["alice",null,null,{}]"#, NOW + 60)),
            malformed(no_object),
        ),
        ("a claim twice", with_claims_text(&twice), malformed(no_object)),
        ("claims that are no UTF-8", token_with_raw_claims(b"{\"sub\":\"\xff\"}"), malformed(no_object)),
        (
            "a claim that nobody reads and that is no UTF-8",
            token_with_raw_claims(
                &[b"{\"name\":\"\xff\",".as_slice(), &claims().to_string().as_bytes()[1..]].concat(),
            ),
            malformed(no_object),
        ),
    ]
}

fn token_with_raw_claims(claims: &[u8]) -> String {
    let body = format!("{}.{}", BASE64URL.encode(header().to_string()), BASE64URL.encode(claims));
    format!("{body}.{}", BASE64URL.encode(Signer::Hmac("main", HMAC_SECRET).sign(body.as_bytes())))
}

fn bad_headers() -> Vec<Case> {
    let no_alg = malformed("header is not JSON with an alg");
    vec![
        ("no alg", with_header("alg", Value::Null), no_alg.clone()),
        ("alg that is a number", with_header("alg", json!(256)), no_alg.clone()),
        ("several algs", with_header("alg", json!(["HS256", "none"])), no_alg.clone()),
        ("alg twice", with_header_text(r#"{"alg":"HS256","kid":"main","alg":"none"}"#), no_alg.clone()),
        ("kid that is a number", with_header("kid", json!(1)), no_alg.clone()),
        ("a header in a list", with_header_text(r#"["HS256","main","JWT",null]"#), no_alg.clone()),
        ("a header that is a text", with_header_text(r#""HS256""#), no_alg.clone()),
        ("a header that is cut off", with_header_text(r#"{"alg":"HS256","kid":"main""#), no_alg),
        ("crit", with_header("crit", json!(["exp"])), malformed("crit is not supported")),
        (
            "crit of an unencoded payload",
            with_header("crit", json!(["b64"])),
            malformed("crit is not supported"),
        ),
        ("an empty crit", with_header("crit", json!([])), malformed("crit is not supported")),
        (
            "crit null",
            with_header_text(r#"{"alg":"HS256","kid":"main","crit":null}"#),
            malformed("crit is not supported"),
        ),
        ("typ of an encrypted token", with_header("typ", json!("JWE")), malformed("typ is not JWT")),
        (
            "typ of an ID of something else",
            with_header("typ", json!("secevent+jwt")),
            malformed("typ is not JWT"),
        ),
        ("an empty typ", with_header("typ", json!("")), malformed("typ is not JWT")),
    ]
}

fn bad_times() -> Vec<Case> {
    let no_time = |claim: &str| bad_claims(&format!("`{claim}` is no time in seconds since 1970"));
    let wrong_type = |claim: &str| bad_claims(&format!("`{claim}` has the wrong type"));
    vec![
        ("no exp", with_claim("exp", Value::Null), bad_claims("`exp` is missing")),
        ("exp null", with_claims_text(r#"{"sub":"alice","exp":null}"#), bad_claims("`exp` is missing")),
        ("exp in words", with_claim("exp", json!("tomorrow")), wrong_type("exp")),
        ("exp as a text", with_claim("exp", json!((NOW + 60).to_string())), wrong_type("exp")),
        ("exp in a list", with_claim("exp", json!([NOW + 60])), wrong_type("exp")),
        ("exp true", with_claim("exp", json!(true)), wrong_type("exp")),
        ("exp below zero", with_claim("exp", json!(-1)), no_time("exp")),
        ("exp in milliseconds", with_claim("exp", json!((NOW + 60) * 1000)), no_time("exp")),
        ("exp beyond all numbers", with_claims_text(r#"{"sub":"alice","exp":1e999}"#), wrong_type("exp")),
        ("exp of 2^64", with_claims_text(r#"{"sub":"alice","exp":18446744073709551616}"#), no_time("exp")),
        ("expired", with_claim("exp", json!(NOW - LEEWAY)), TokenError::Expired),
        ("expired in 1970", with_claim("exp", json!(0)), TokenError::Expired),
        ("not yet valid", with_claim("nbf", json!(NOW + LEEWAY + 1)), TokenError::NotYetValid),
        ("nbf as a text", with_claim("nbf", json!("0")), wrong_type("nbf")),
        ("nbf below zero", with_claim("nbf", json!(-5)), no_time("nbf")),
        ("issued in the future", with_claim("iat", json!(NOW + LEEWAY + 1)), TokenError::NotYetValid),
        ("iat as a text", with_claim("iat", json!("yesterday")), wrong_type("iat")),
        ("iat in milliseconds", with_claim("iat", json!(NOW * 1000)), no_time("iat")),
    ]
}

fn bad_names() -> Vec<Case> {
    let rule = |claim: &str| bad_claims(&format!("`{claim}` has 1 to 256 bytes and no control characters"));
    let wrong_type = |claim: &str| bad_claims(&format!("`{claim}` has the wrong type"));
    vec![
        ("no sub", with_claim("sub", Value::Null), bad_claims("`sub` is missing")),
        ("an empty sub", with_claim("sub", json!("")), rule("sub")),
        ("a sub of 257 bytes", with_claim("sub", json!("s".repeat(257))), rule("sub")),
        (
            "a sub that breaks a log line",
            with_claim("sub", json!("alice\r\n{\"level\":\"info\"}")),
            rule("sub"),
        ),
        ("a sub that is a number", with_claim("sub", json!(7)), wrong_type("sub")),
        ("a sub that is a list", with_claim("sub", json!(["alice"])), wrong_type("sub")),
        ("an empty jti", with_claim("jti", json!("")), rule("jti")),
        ("a jti that is a number", with_claim("jti", json!(7)), wrong_type("jti")),
        ("an aud where none is expected", with_claim("aud", json!("others")), TokenError::WrongAudience),
        ("an empty aud", with_claim("aud", json!([])), TokenError::WrongAudience),
        ("an aud that is a number", with_claim("aud", json!(1)), wrong_type("aud")),
        ("an aud of texts and numbers", with_claim("aud", json!(["causeway", 1])), wrong_type("aud")),
        ("an iss that is a list", with_claim("iss", json!(["us"])), wrong_type("iss")),
    ]
}

fn bad_grants() -> Vec<Case> {
    let shape = bad_claims("`causeway` is not {subscribe: [patterns], publish: [patterns]}");
    let grants = |value: Value| with_claim("causeway", value);
    let illegal = |pattern: &str| {
        bad_claims(&format!("a topic pattern is illegal: {}", Pattern::parse(pattern).unwrap_err()))
    };
    vec![
        ("a right that is not known", grants(json!({"admin": true})), shape.clone()),
        ("a pattern that is no list", grants(json!({"subscribe": "orders"})), shape.clone()),
        ("a pattern that is a number", grants(json!({"publish": [1]})), shape.clone()),
        ("grants in a list", grants(json!([["**"], ["**"]])), shape.clone()),
        ("grants that are a text", grants(json!("**")), shape.clone()),
        (
            "a right twice",
            with_claims_text(&format!(
                r#"{{"sub":"alice","exp":{},"causeway":{{"publish":[],"publish":["**"]}}}}"#,
                NOW + 60
            )),
            shape,
        ),
        ("half a segment", grants(json!({"subscribe": ["or*"]})), illegal("or*")),
        ("everything, and then something", grants(json!({"publish": ["**.a"]})), illegal("**.a")),
        ("an empty pattern", grants(json!({"subscribe": [""]})), illegal("")),
    ]
}

/// Tokens that are good but for somebody else's issuer or service.
fn strangers() -> Vec<Case> {
    let with_claim = |key, value| signed(&header(), &with(party_claims(), key, value));
    let wrong_type = |claim: &str| bad_claims(&format!("`{claim}` has the wrong type"));
    vec![
        ("no iss", with_claim("iss", Value::Null), bad_claims("`iss` is missing")),
        ("another iss", with_claim("iss", json!("them")), TokenError::WrongIssuer),
        (
            "an iss that begins like ours",
            with_claim("iss", json!("us.evil.example.com")),
            TokenError::WrongIssuer,
        ),
        ("an iss of another case", with_claim("iss", json!("US")), TokenError::WrongIssuer),
        ("ours among several iss", with_claim("iss", json!(["them", "us"])), wrong_type("iss")),
        ("no aud", with_claim("aud", Value::Null), bad_claims("`aud` is missing")),
        ("another aud", with_claim("aud", json!("them")), TokenError::WrongAudience),
        ("several others", with_claim("aud", json!(["them", "others"])), TokenError::WrongAudience),
        ("an empty aud", with_claim("aud", json!([])), TokenError::WrongAudience),
        ("an aud that begins like ours", with_claim("aud", json!("causeway2")), TokenError::WrongAudience),
    ]
}

/// To the second, and what the leeway adds is over with it.
#[test]
fn t22_a_token_ends_when_it_says() {
    let verifier = plain();
    let token = with_claim("exp", json!(NOW + 10));
    let left = |now: f64| judge(&verifier, &token, now).map(|verified| verified.expires_in.as_secs_f64());
    let end = (NOW + 10) as f64;
    assert_eq!(left(end - 10.0), Ok(10.0));
    assert_eq!(left(end - 0.25), Ok(0.25));
    assert_eq!(left(end), Ok(LEEWAY as f64));
    assert_eq!(left(end + 4.75), Ok(0.25));
    assert_eq!(left(end + LEEWAY as f64), Err(TokenError::Expired));
}

#[test]
fn without_leeway_a_token_is_over_at_the_second_it_names() {
    let verifier =
        Verifier::new(vec![issuer_with(&Signer::Hmac("main", HMAC_SECRET))], Duration::ZERO, Arc::default());
    let token = with_claim("exp", json!(NOW + 10));
    assert!(judge(&verifier, &token, (NOW + 10) as f64 - 0.001).is_ok());
    assert_eq!(judge(&verifier, &token, (NOW + 10) as f64).err(), Some(TokenError::Expired));
}

#[test]
fn a_token_without_a_kid_is_the_only_keys() {
    let token = with_header("kid", Value::Null);
    let only = only(issuer_with(&Signer::Hmac("main", HMAC_SECRET)));
    assert!(judge(&only, &token, NOW as f64).is_ok());
    assert_eq!(judge(&plain(), &token, NOW as f64).err(), Some(TokenError::UnknownKey));
}

#[test]
fn a_revoked_token_is_refused_and_only_that() {
    let revocations = Arc::new(Revocations::default());
    let issuers = vec![issuer_with(&Signer::Hmac("main", HMAC_SECRET))];
    let verifier = Verifier::new(issuers, Duration::ZERO, Arc::clone(&revocations));
    let (one, other) = (with_claim("jti", json!("one")), with_claim("jti", json!("other")));
    let refusal = |token: &str| judge(&verifier, token, NOW as f64).err();
    assert_eq!(refusal(&one), None);
    revocations.add(&Revocation::of_jti("one", NOW as u64 + 60), NOW as u64);
    assert_eq!(refusal(&one), Some(TokenError::Revoked));
    assert_eq!(refusal(&other), None);
    let forged = replace_part(&one, 2, &BASE64URL.encode([0; 32]));
    assert_eq!(refusal(&forged), Some(TokenError::BadSignature), "a stranger is not told what is revoked");
}

#[test]
fn the_clock_of_the_system_is_asked() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let verify = |exp: u64| plain().verify(&with_claim("exp", json!(exp))).map(drop);
    assert_eq!(verify(now + 60), Ok(()));
    assert_eq!(verify(now - 60), Err(TokenError::Expired));
}

#[test]
fn equal_grants_are_held_once() {
    let verifier = plain();
    let verify = |subject: &str| judge(&verifier, &with_claim("sub", json!(subject)), NOW as f64).unwrap();
    let held = [verify("alice"), verify("bob")];
    assert_eq!(verifier.shared_grants().len(), 1);
    drop(held);
    verifier.sweep();
    assert_eq!(verifier.shared_grants().len(), 0);
}
