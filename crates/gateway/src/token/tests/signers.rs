//! Those who sign tokens in the stories: one key of each family, made when it is first needed.

use std::sync::LazyLock;

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use jsonwebtoken::{Algorithm, DecodingKey};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use serde_json::{Value, json};

use super::VerifyingKey;

pub(super) const HMAC_SECRET: &[u8] = b"a secret of at least thirty-two bytes";
pub(super) const HMAC_NEXT: &[u8] = b"another secret of thirty-two bytes";

static EC: LazyLock<EcdsaKeyPair> =
    LazyLock::new(|| EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap());
static ED: LazyLock<Ed25519KeyPair> = LazyLock::new(|| Ed25519KeyPair::generate().unwrap());
static RSA: LazyLock<RsaKeyPair> = LazyLock::new(|| RsaKeyPair::generate(KeySize::Rsa2048).unwrap());

pub(super) enum Signer {
    /// By its name and its secret.
    Hmac(&'static str, &'static [u8]),
    /// An attacker's, with a secret that is somebody's public key.
    HmacOf(Vec<u8>),
    Rsa,
    Ec,
    Ed,
}

impl Signer {
    /// Those whose keys the verifiers of the stories know.
    pub(super) fn all() -> [Self; 5] {
        [Self::Hmac("main", HMAC_SECRET), Self::Hmac("next", HMAC_NEXT), Self::Rsa, Self::Ec, Self::Ed]
    }

    pub(super) fn kid(&self) -> &'static str {
        match self {
            Self::Hmac(kid, _) => kid,
            Self::HmacOf(_) => "forged",
            Self::Rsa => "rsa",
            Self::Ec => "ec",
            Self::Ed => "ed",
        }
    }

    pub(super) fn algorithm(&self) -> Algorithm {
        match self {
            Self::Hmac(..) | Self::HmacOf(_) => Algorithm::HS256,
            Self::Rsa => Algorithm::RS256,
            Self::Ec => Algorithm::ES256,
            Self::Ed => Algorithm::EdDSA,
        }
    }

    pub(super) fn algorithm_name(&self) -> String {
        format!("{:?}", self.algorithm())
    }

    pub(super) fn sign(&self, message: &[u8]) -> Vec<u8> {
        let by_hmac = |secret: &[u8]| {
            let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
            hmac::sign(&key, message).as_ref().to_vec()
        };
        match self {
            Self::Hmac(_, secret) => by_hmac(secret),
            Self::HmacOf(secret) => by_hmac(secret),
            Self::Ec => EC.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec(),
            Self::Ed => ED.sign(message).as_ref().to_vec(),
            Self::Rsa => {
                let mut signature = vec![0; RSA.public_modulus_len()];
                RSA.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature).unwrap();
                signature
            }
        }
    }

    /// The public key: a point, or for RSA its PKCS #1 form.
    pub(super) fn public_key_bytes(&self) -> Vec<u8> {
        match self {
            Self::Hmac(..) | Self::HmacOf(_) => unreachable!("it has no public key"),
            Self::Ec => EC.public_key().as_ref().to_vec(),
            Self::Ed => ED.public_key().as_ref().to_vec(),
            Self::Rsa => RSA.public_key().as_ref().to_vec(),
        }
    }

    /// The public key as an issuer publishes it.
    pub(super) fn jwk(&self) -> Value {
        let (kid, alg, key) = (self.kid(), self.algorithm_name(), self.public_key_bytes());
        let text = |bytes: &[u8]| BASE64URL.encode(bytes);
        match self {
            Self::Hmac(..) | Self::HmacOf(_) => unreachable!("it has no public key"),
            Self::Ec => {
                json!({"kty": "EC", "crv": "P-256", "kid": kid, "alg": alg, "x": text(&key[1..33]), "y": text(&key[33..])})
            }
            Self::Ed => json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "alg": alg, "x": text(&key)}),
            // A sequence of two numbers, 2,048 bits behind a zero byte and 65,537.
            Self::Rsa => {
                json!({"kty": "RSA", "kid": kid, "alg": alg, "n": text(&key[9..265]), "e": text(&key[267..])})
            }
        }
    }

    pub(super) fn verifying_key(&self) -> VerifyingKey {
        let key = match self {
            Self::Hmac(_, secret) => DecodingKey::from_secret(secret),
            Self::HmacOf(_) => unreachable!("nobody trusts it"),
            Self::Ec => DecodingKey::from_ec_der(&self.public_key_bytes()),
            Self::Ed => DecodingKey::from_ed_der(&self.public_key_bytes()),
            Self::Rsa => DecodingKey::from_rsa_der(&self.public_key_bytes()),
        };
        VerifyingKey { kid: self.kid().into(), algorithm: self.algorithm(), key }
    }
}
