//! The keys that tokens are signed with: strong enough, and seen by nobody else.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use jsonwebtoken::Algorithm;

use super::Finding;
use crate::config::{AuthGiven, KeyGiven};

const CHECK: &str = "keys";
/// A random secret of 32 bytes, in whatever alphabet, has more different characters than this.
const DIFFERENT_BYTES_MIN: usize = 9;
/// The shortest RSA key, in bits (RFC 7518 §3.3).
const RSA_BITS_MIN: usize = 2048;

/// Looks at every key of a usable configuration.
pub(super) fn examine(auth: &AuthGiven) -> Vec<Finding> {
    let keys = auth.tables().flat_map(|table| table.keys.iter().map(move |key| (table.issuer, key)));
    keys.flat_map(|(issuer, key)| [strength(issuer, key), exposure(key)]).flatten().collect()
}

/// Of a key that stands in the configuration. Published ones are judged where they are read.
fn strength(issuer: Option<&str>, key: &KeyGiven) -> Option<Finding> {
    let (kid, algorithm) = (key.kid.as_deref()?, key.algorithm?);
    let issuer = issuer.map_or_else(String::new, |issuer| format!(" of {issuer}"));
    let name = format!("`{kid}` ({algorithm:?}){issuer}");
    match algorithm {
        Algorithm::HS256 => secret_strength(key, &name, 32),
        Algorithm::HS384 => secret_strength(key, &name, 48),
        Algorithm::HS512 => secret_strength(key, &name, 64),
        Algorithm::ES256 | Algorithm::ES384 | Algorithm::EdDSA => {
            Some(Finding::ok(CHECK, format!("{name}: as strong as its curve")))
        }
        _ => rsa_strength(key, &name),
    }
}

fn secret_strength(key: &KeyGiven, name: &str, bytes_min: usize) -> Option<Finding> {
    // The configuration is usable, so there is a secret.
    let secret = key.hmac_secret("").ok()?;
    let expected = format!("at least {bytes_min} random bytes");
    let advice =
        "make one with `openssl rand -hex 64`, add it under a new kid, sign with it, then remove this one";
    let different = secret.bytes().collect::<HashSet<_>>().len();
    Some(if different < DIFFERENT_BYTES_MIN {
        let found = format!("{name}: a secret of {different} different characters, which is guessed quickly");
        Finding::error(CHECK, found, expected, advice)
    } else if secret.len() < bytes_min {
        let found =
            format!("{name}: a secret of {} bytes, shorter than the hash (RFC 7518 §3.2)", secret.len());
        Finding::warning(CHECK, found, expected, advice)
    } else {
        Finding::ok(CHECK, format!("{name}: a secret of {} bytes", secret.len()))
    })
}

fn rsa_strength(key: &KeyGiven, name: &str) -> Option<Finding> {
    let file = key.public_key_file.as_deref()?;
    let bits = rsa_bits(&fs::read_to_string(file).ok()?)?;
    Some(if bits < RSA_BITS_MIN {
        let found = format!("{name}: {bits} bits, so that no token signed with it is accepted");
        let advice = "make a longer one, add it under a new kid, sign with it, then remove this one";
        Finding::error(CHECK, found, format!("at least {RSA_BITS_MIN} bits"), advice)
    } else {
        Finding::ok(CHECK, format!("{name}: {bits} bits"))
    })
}

/// Whether others on this machine can read a secret's file.
fn exposure(key: &KeyGiven) -> Option<Finding> {
    let (kid, file) = (key.kid.as_deref()?, key.secret_file.as_deref()?);
    let mode = mode(file)?;
    (mode & 0o007 != 0).then(|| {
        let found =
            format!("`{kid}`: {} has mode {mode:03o}: everybody on this machine can open it", file.display());
        Finding::warning(
            CHECK,
            found,
            "a file for its owner and group",
            format!("chmod o= {}", file.display()),
        )
    })
}

fn mode(file: &Path) -> Option<u32> {
    Some(fs::metadata(file).ok()?.permissions().mode() & 0o777)
}

/// The length of the modulus of an RSA public key in PEM: of its numbers, the longest.
fn rsa_bits(pem: &str) -> Option<usize> {
    let body: String = pem.lines().filter(|line| !line.starts_with("-----")).map(str::trim).collect();
    longest_integer(&BASE64.decode(body).ok()?)
}

/// The bits of the longest INTEGER in `der`, looking into SEQUENCEs and BIT STRINGs (X.690 §8).
fn longest_integer(mut der: &[u8]) -> Option<usize> {
    let mut longest = None;
    while let Some((tag, content, rest)) = element(der) {
        let bits = match (tag, content) {
            (0x02, [0, number @ ..] | number) => {
                number.first().map(|first| number.len() * 8 - first.leading_zeros() as usize)
            }
            (0x30, sequence) => longest_integer(sequence),
            // The first byte counts the unused bits at the end.
            (0x03, [0, key @ ..]) => longest_integer(key),
            _ => None,
        };
        longest = longest.max(bits);
        der = rest;
    }
    longest
}

/// Tag, content, and what follows.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let [tag, length, rest @ ..] = der else { return None };
    let (length, rest) = match length {
        length if *length < 0x80 => (usize::from(*length), rest),
        count => {
            let (bytes, rest) = rest.split_at_checked(usize::from(count & 0x7f))?;
            let length = bytes
                .iter()
                .try_fold(0_usize, |length, byte| Some(length.checked_mul(256)? + usize::from(*byte)))?;
            (length, rest)
        }
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((*tag, content, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;
    use crate::doctor::Severity;

    fn hmac(algorithm: Algorithm, secret: &str) -> Severity {
        let key = KeyGiven {
            kid: Some("main".to_owned()),
            algorithm: Some(algorithm),
            secret: Some(Secret(secret.to_owned())),
            ..KeyGiven::default()
        };
        strength(None, &key).unwrap().severity
    }

    #[test]
    fn a_secret_is_as_long_as_its_hash_and_not_of_few_characters() {
        let random = "4f1c9a7be02d5386f7a1c2e9d0b8436512fa7c9e8d3b06415ce7a2908b6d3f14";
        assert_eq!(hmac(Algorithm::HS256, &random[..32]), Severity::Ok);
        assert_eq!(hmac(Algorithm::HS512, &random[..32]), Severity::Warning);
        assert_eq!(hmac(Algorithm::HS384, &random[..48]), Severity::Ok);
        assert_eq!(hmac(Algorithm::HS512, random), Severity::Ok);
        assert_eq!(hmac(Algorithm::HS256, &"a".repeat(64)), Severity::Error);
        assert_eq!(hmac(Algorithm::HS256, &"changeme".repeat(8)), Severity::Error);
    }

    #[test]
    fn the_length_of_an_rsa_key_is_read_from_either_of_its_forms() {
        // SEQUENCE { INTEGER (1024 bits), INTEGER 65537 }, bare and within a SubjectPublicKeyInfo.
        let mut modulus = vec![0x02, 0x81, 0x81, 0x00];
        modulus.extend([0xc5; 128]);
        let sequence = |content: &[u8]| [&[0x30, 0x82, 0x00, content.len() as u8], content].concat();
        let bare = sequence(&[&modulus[..], &[0x02, 0x03, 0x01, 0x00, 0x01]].concat());
        let bits = [&[0x03, 0x81, bare.len() as u8 + 1, 0x00], &bare[..]].concat();
        let wrapped = sequence(&[&[0x30, 0x02, 0x05, 0x00], &bits[..]].concat());
        for der in [bare, wrapped] {
            let pem = format!("-----BEGIN KEY-----\n{}\n-----END KEY-----\n", BASE64.encode(der));
            assert_eq!(rsa_bits(&pem), Some(1024));
        }
        assert_eq!(rsa_bits("-----BEGIN KEY-----\nMII\n"), None);
        assert_eq!(rsa_bits(&BASE64.encode([0x30, 0x84, 0xff, 0xff, 0xff, 0xff])), None);
    }
}
