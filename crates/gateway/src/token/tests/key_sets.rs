//! Published keys: which of them are trusted and for what, and when they are fetched.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use jsonwebtoken::Algorithm::{ES256, PS256, RS256, RS512};
use tokio::time::{Instant, sleep};

use super::super::jwks::{self, Keys};
use super::*;

const REFRESH: Duration = Duration::from_secs(300);

fn set_of(keys: &[Value]) -> Vec<u8> {
    json!({ "keys": keys }).to_string().into_bytes()
}

fn parsed(keys: &[Value]) -> Keys {
    jwks::parse(&set_of(keys), PUBLIC_ALGORITHMS).unwrap()
}

fn published(set: KeySet) -> Issuer {
    Issuer { key_sets: vec![Arc::new(set)], ..Issuer::default() }
}

/// A set in a file of the test's own, which goes with the test.
struct File(std::path::PathBuf);

impl File {
    fn holding(name: &str, content: &[u8]) -> Self {
        let file = Self(std::env::temp_dir().join(format!("causeway-{}-{name}.json", std::process::id())));
        file.write(content);
        file
    }

    fn write(&self, content: &[u8]) {
        std::fs::write(&self.0, content).unwrap();
    }

    fn set(&self) -> KeySet {
        KeySet::new(Place::File(self.0.clone()), PUBLIC_ALGORITHMS, REFRESH)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn published_keys_verify_what_their_owners_sign() {
    let signers = [Signer::Rsa, Signer::Ec, Signer::Ed];
    let file = File::holding("verify", &set_of(&signers.each_ref().map(Signer::jwk)));
    let set = file.set();
    set.read_file().unwrap();
    let verifier = only(published(set));
    for signer in &signers {
        assert!(judge(&verifier, &good_token_of(signer), NOW as f64).is_ok(), "{}", signer.kid());
    }
    let hmac = judge(&verifier, &signed(&header(), &claims()), NOW as f64);
    assert_eq!(hmac.err(), Some(TokenError::UnknownKey));
}

#[test]
fn a_published_key_is_for_one_algorithm() {
    let rsa = |alg: Value| with(Signer::Rsa.jwk(), "alg", alg);
    let algorithm = |key: Value, allowed: &[Algorithm]| {
        let keys = jwks::parse(&set_of(&[key]), allowed).unwrap();
        keys.values().next().map(|key| key.algorithm)
    };
    assert_eq!(algorithm(rsa(Value::Null), PUBLIC_ALGORITHMS), Some(RS256), "the first that suits");
    assert_eq!(algorithm(rsa(Value::Null), &[ES256, PS256, RS256]), Some(PS256), "the operator's first");
    assert_eq!(algorithm(rsa(json!("RS512")), PUBLIC_ALGORITHMS), Some(RS512));
    assert_eq!(algorithm(rsa(json!("RS512")), &[RS256]), None, "not allowed");
    assert_eq!(algorithm(rsa(json!("ES256")), PUBLIC_ALGORITHMS), None, "not for its kind of key");
    assert_eq!(algorithm(with(Signer::Ec.jwk(), "alg", json!("ES384")), PUBLIC_ALGORITHMS), None);
    let pinned = only(published_keys(&[rsa(json!("PS256"))]));
    assert_eq!(
        judge(&pinned, &good_token_of(&Signer::Rsa), NOW as f64).err(),
        Some(TokenError::WrongAlgorithm)
    );
}

/// An issuer of these published keys.
fn published_keys(keys: &[Value]) -> Issuer {
    let set = KeySet::new(Place::Url("https://login.example.com/keys".into()), PUBLIC_ALGORITHMS, REFRESH);
    set.replace(parsed(keys));
    published(set)
}

#[test]
fn keys_that_are_not_for_checking_signatures_are_passed_over() {
    let good = Signer::Ec.jwk();
    for (what, bad) in [
        ("a secret", json!({"kty": "oct", "kid": "ec", "alg": "HS256", "k": BASE64URL.encode(HMAC_SECRET)})),
        ("a secret that calls itself RSA", json!({"kty": "oct", "kid": "ec", "alg": "RS256", "k": "AAAA"})),
        ("for encryption", with(good.clone(), "use", json!("enc"))),
        ("for signing", with(good.clone(), "key_ops", json!(["sign"]))),
        ("a private key", with(good.clone(), "d", json!("AAAA"))),
        ("of a curve that is not known", with(good.clone(), "crv", json!("secp256k1"))),
        ("of no curve", with(good.clone(), "crv", Value::Null)),
        ("half a point", with(good.clone(), "y", Value::Null)),
        ("a short coordinate", with(good.clone(), "x", json!("AAAA"))),
        ("not base64url", with(good.clone(), "x", json!("+/=="))),
        ("an RSA key of 1,024 bits", with(Signer::Rsa.jwk(), "n", json!(BASE64URL.encode([0xff; 128])))),
        (
            "an RSA key padded to 2,048 bits",
            with(Signer::Rsa.jwk(), "n", json!(BASE64URL.encode([[0; 128], [0xff; 128]].concat()))),
        ),
        ("of a kind that is not known", json!({"kty": "PQC", "kid": "ec"})),
        ("a name that is no kid", with(good.clone(), "kid", json!("a b"))),
        ("a number for a name", with(good.clone(), "kid", json!(1))),
        ("no object", json!("key")),
    ] {
        assert!(parsed(std::slice::from_ref(&bad)).is_empty(), "{what}");
        let other = with(good.clone(), "kid", json!("other"));
        assert_eq!(parsed(&[bad, other]).len(), 1, "{what}: the rest counts");
    }
    assert_eq!(parsed(&[with(good.clone(), "use", json!("sig"))]).len(), 1);
    assert_eq!(parsed(&[with(good.clone(), "key_ops", json!(["verify"]))]).len(), 1);
    for no_set in ["", "{}", "[]", r#"{"keys":{}}"#, "<html>"] {
        assert!(jwks::parse(no_set.as_bytes(), PUBLIC_ALGORITHMS).is_err(), "{no_set}");
    }
    // The first of two keys of one name counts.
    let second = with(Signer::Rsa.jwk(), "kid", json!("ec"));
    assert_eq!(parsed(&[good, second])["ec"].algorithm, ES256);
}

#[test]
fn the_only_published_key_needs_no_name() {
    let nameless = only(published_keys(&[with(Signer::Ec.jwk(), "kid", Value::Null)]));
    let token = token_of(r#"{"alg":"ES256"}"#, &claims().to_string(), &Signer::Ec);
    assert!(judge(&nameless, &token, NOW as f64).is_ok());
    let two = only(published_keys(&[Signer::Ec.jwk(), Signer::Rsa.jwk()]));
    assert_eq!(judge(&two, &token, NOW as f64).err(), Some(TokenError::UnknownKey));
}

#[test]
fn a_file_that_is_too_long_or_no_set_is_refused() {
    let file = File::holding("bad", &vec![b' '; 256 * 1024 + 1]);
    assert!(matches!(file.set().read_file(), Err(FetchError::TooLong)));
    file.write(b"nothing");
    assert!(matches!(file.set().read_file(), Err(FetchError::Malformed(_))));
    drop(file);
    let gone = KeySet::new(Place::File("/nowhere".into()), PUBLIC_ALGORITHMS, REFRESH);
    assert!(matches!(gone.read_file(), Err(FetchError::Unreadable(_))));
}

/// A set that is fetched from the test's own hands, and when that was.
struct Published {
    issuer: Verifier,
    set: Arc<KeySet>,
    document: RefCell<Option<Vec<Value>>>,
    fetches: RefCell<Vec<Duration>>,
    began: Instant,
    fetching: Cell<u32>,
}

impl Published {
    /// Runs `story` while the set is kept fresh, on a clock that runs ahead whenever everybody waits.
    fn run(first: Option<Vec<Value>>, story: impl AsyncFnOnce(&Self)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.unwrap().block_on(async {
            let set = KeySet::new(Place::Url("https://login.example.com/keys".into()), PUBLIC_ALGORITHMS, REFRESH);
            let issuer = published(set);
            let published = Rc::new(Self {
                set: Arc::clone(&issuer.key_sets[0]),
                issuer: only(issuer),
                document: RefCell::new(first),
                fetches: RefCell::default(),
                began: Instant::now(),
                fetching: Cell::new(0),
            });
            tokio::select! {
                () = published.set.keep_fresh_by(async || published.fetch().await) => unreachable!("it goes on"),
                () = async { sleep(Duration::from_millis(500)).await; story(&published).await } => {}
            }
        });
    }

    async fn fetch(&self) -> Result<Keys, FetchError> {
        self.fetches.borrow_mut().push(self.began.elapsed());
        assert_eq!(self.fetching.replace(1), 0, "one fetch at a time");
        sleep(Duration::from_millis(100)).await;
        self.fetching.set(0);
        match &*self.document.borrow() {
            Some(keys) => Ok(parsed(keys)),
            None => Err(FetchError::Status(503)),
        }
    }

    fn refusal(&self, token: &str) -> Option<TokenError> {
        judge(&self.issuer, token, NOW as f64).err()
    }

    fn publish(&self, keys: &[Value]) {
        self.document.replace(Some(keys.to_vec()));
    }

    fn fetches(&self) -> usize {
        self.fetches.borrow().len()
    }
}

#[test]
fn an_unknown_key_is_refused_at_once_and_known_at_the_next_attempt() {
    Published::run(Some(vec![Signer::Rsa.jwk()]), async |published| {
        let token = good_token_of(&Signer::Ec);
        assert_eq!(published.refusal(&good_token_of(&Signer::Rsa)), None);
        published.publish(&[Signer::Rsa.jwk(), Signer::Ec.jwk()]);
        assert_eq!(published.refusal(&token), Some(TokenError::UnknownKey));
        sleep(Duration::from_millis(200)).await;
        assert_eq!(published.refusal(&token), None);
        assert_eq!(published.fetches(), 2);
        // Withdrawn, it is good for nothing after the next refresh.
        published.publish(&[Signer::Rsa.jwk()]);
        sleep(REFRESH + Duration::from_secs(1)).await;
        assert_eq!(published.refusal(&token), Some(TokenError::UnknownKey));
    });
}

#[test]
fn t21_ten_thousand_unknown_names_cause_one_fetch_in_30_s() {
    Published::run(Some(vec![Signer::Rsa.jwk()]), async |published| {
        for name in 0..10_000 {
            let header = json!({"alg": "ES256", "kid": format!("k{name}")}).to_string();
            let token = token_of(&header, &claims().to_string(), &Signer::Hmac("main", HMAC_SECRET));
            assert_eq!(published.refusal(&token), Some(TokenError::UnknownKey));
            sleep(Duration::from_millis(20)).await;
        }
        let fetches = published.fetches.borrow();
        assert!(fetches.len() >= 6, "200 s of asking are answered: {fetches:?}");
        // The first is the start's own.
        for pair in fetches[1..].windows(2) {
            assert!(pair[1] - pair[0] >= Duration::from_secs(30), "{fetches:?}");
        }
    });
}

#[test]
fn one_name_that_is_not_there_is_asked_for_once_a_minute() {
    Published::run(Some(vec![Signer::Rsa.jwk()]), async |published| {
        let token = good_token_of(&Signer::Ec);
        for _ in 0..110 {
            assert_eq!(published.refusal(&token), Some(TokenError::UnknownKey));
            sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(published.fetches(), 1 + 2);
        // What cannot name a key causes nothing.
        let path = token_of(r#"{"alg":"ES256","kid":"a b"}"#, &claims().to_string(), &Signer::Ec);
        sleep(Duration::from_secs(60)).await;
        assert_eq!(published.refusal(&path), Some(TokenError::UnknownKey));
        sleep(Duration::from_secs(60)).await;
        assert_eq!(published.fetches(), 1 + 2);
    });
}

#[test]
fn keys_stay_while_fetching_fails() {
    Published::run(Some(vec![Signer::Rsa.jwk()]), async |published| {
        published.document.replace(None);
        sleep(REFRESH * 3).await;
        assert_eq!(published.refusal(&good_token_of(&Signer::Rsa)), None, "stale on error");
        let failing = published.fetches();
        assert!((20..=22).contains(&failing), "every 30 s: {failing}");
        for _ in 0..60 {
            assert_eq!(published.refusal(&good_token_of(&Signer::Ec)), Some(TokenError::UnknownKey));
            sleep(Duration::from_secs(1)).await;
        }
        assert!(published.fetches() - failing <= 3, "asking makes it no more: {:?}", published.fetches);
        published.publish(&[Signer::Ec.jwk()]);
        sleep(Duration::from_secs(31)).await;
        assert_eq!(published.refusal(&good_token_of(&Signer::Ec)), None);
        assert_eq!(published.refusal(&good_token_of(&Signer::Rsa)), Some(TokenError::UnknownKey));
    });
}

#[test]
fn the_first_document_is_tried_for_more_often() {
    Published::run(None, async |published| {
        assert!(!published.set.is_known());
        sleep(Duration::from_secs(20)).await;
        assert_eq!(published.fetches(), 5, "after 1, 2, 4 and 8 s: {:?}", published.fetches);
        published.publish(&[Signer::Rsa.jwk()]);
        sleep(Duration::from_secs(30)).await;
        assert!(published.set.is_known());
        assert_eq!(published.refusal(&good_token_of(&Signer::Rsa)), None);
    });
}
