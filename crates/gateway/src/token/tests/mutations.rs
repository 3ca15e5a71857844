//! Good tokens with something changed: none may be accepted.

use base64::Engine as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::*;

/// Set to play one run again.
const SEED_VARIABLE: &str = "CAUSEWAY_TEST_SEED";

const BYTES: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.=+/ {}\"\0\x7f";

fn seed() -> u64 {
    let given = std::env::var(SEED_VARIABLE).ok();
    given.map_or_else(rand::random, |seed| seed.parse().expect("a seed is a number"))
}

/// Changes a token in one of the ways that somebody would try.
fn mutated(token: &str, other: &str, random: &mut StdRng) -> String {
    let mut bytes = token.as_bytes().to_vec();
    let at = random.random_range(0..bytes.len());
    match random.random_range(0..8) {
        0 => bytes[at] = *BYTES.choose(random).unwrap(),
        1 => bytes.insert(at, *BYTES.choose(random).unwrap()),
        2 => drop(bytes.remove(at)),
        3 => bytes.truncate(at),
        4 => bytes.swap(at, random.random_range(0..token.len())),
        // The last characters of a part, where base64 has bits to spare.
        5 => {
            let ends: Vec<usize> =
                (0..bytes.len()).filter(|&at| bytes.get(at + 1).is_none_or(|next| *next == b'.')).collect();
            bytes[*ends.choose(random).unwrap()] = *BYTES[..64].choose(random).unwrap();
        }
        // A part of another good token.
        6 => {
            let part = random.random_range(0..3);
            return replace_part(token, part, other.split('.').nth(part).unwrap());
        }
        // One byte of the JSON, or of the signature, below the encoding.
        _ => {
            let part = random.random_range(0..3);
            let mut decoded = BASE64URL.decode(token.split('.').nth(part).unwrap()).unwrap();
            let at = random.random_range(0..decoded.len());
            decoded[at] ^= 1 << random.random_range(0..8);
            return replace_part(token, part, &BASE64URL.encode(decoded));
        }
    }
    String::from_utf8(bytes).expect("every byte is ASCII")
}

/// Changes tokens of `signer` until so many have been refused, and says how many reasons there were.
fn none_is_accepted(signer: &Signer, count: usize) {
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    let verifier = plain();
    let header = json!({"alg": signer.algorithm_name(), "kid": signer.kid()}).to_string();
    let tokens: Vec<String> = ["alice", "bob", "carol"]
        .map(|subject| token_of(&header, &with(claims(), "sub", json!(subject)).to_string(), signer))
        .into();
    let mut reasons = std::collections::HashSet::new();
    let mut refused = 0;
    while refused < count {
        let (token, other) = (tokens.choose(&mut random).unwrap(), tokens.choose(&mut random).unwrap());
        let mutant = mutated(token, other, &mut random);
        if tokens.contains(&mutant) {
            continue;
        }
        match judge(&verifier, &mutant, NOW as f64) {
            Ok(_) => panic!("accepted ({SEED_VARIABLE}={seed}): {mutant}\nmade of: {token}"),
            Err(reason) => reasons.insert(reason.to_string()),
        };
        refused += 1;
    }
    // Otherwise something in front refused them all, and the signature was never looked at.
    assert!(reasons.contains(&TokenError::BadSignature.to_string()), "{reasons:?}");
    assert!(reasons.len() >= 4, "{reasons:?}");
    for token in &tokens {
        assert!(judge(&verifier, token, NOW as f64).is_ok(), "the unchanged one is good");
    }
}

#[test]
fn of_100_000_mutated_tokens_none_is_accepted() {
    none_is_accepted(&Signer::Hmac("main", HMAC_SECRET), 100_000);
}

#[test]
fn of_mutated_tokens_of_public_keys_none_is_accepted() {
    for signer in [Signer::Rsa, Signer::Ec, Signer::Ed] {
        none_is_accepted(&signer, 1_000);
    }
}
