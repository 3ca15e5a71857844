//! Who issues tokens and with which keys: from the tables that were given to issuers that can be asked.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use actix_http::Uri;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};

use super::given::{AuthGiven, KeyGiven, Secret};
use super::{ConfigError, SECRET_BYTES_MIN, bad, read, read_secret};
use crate::token::{Issuer, KeySet, PUBLIC_ALGORITHMS, Place, Verifier, VerifyingKey, is_kid};

/// The most that clocks may be apart: a token is good for so much longer than its issuer meant.
const LEEWAY_MAX: Duration = Duration::from_secs(300);
/// How often a JWK set is fetched without anybody asking.
const REFRESH: Duration = Duration::from_secs(300);

/// Tokens, as meant.
pub struct Auth {
    /// Those whose tokens are accepted; at least one, and none without keys.
    pub issuers: Vec<Issuer>,
    /// How far clocks may be apart.
    pub leeway: Duration,
    /// The cookie that may carry a token.
    pub cookie: Option<String>,
    /// Whether the query may carry one.
    pub query_token: bool,
}

/// One issuer as given, whichever way: `[auth]` itself, or a table of `[[auth.issuers]]`.
#[derive(Clone, Copy)]
pub struct IssuerTable<'a> {
    /// Its place among `[[auth.issuers]]`; `[auth]` itself has none.
    at: Option<usize>,
    /// The `iss` of its tokens.
    pub issuer: Option<&'a str>,
    /// The `aud` of its tokens.
    pub audience: Option<&'a str>,
    required_claims: &'a [String],
    /// Its keys.
    pub keys: &'a [KeyGiven],
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Auth").field("issuers", &self.issuers).finish_non_exhaustive()
    }
}

impl Auth {
    /// Takes over what a node that runs knows of the same published keys.
    pub(crate) fn take_over(&mut self, running: &Verifier) {
        for set in self.issuers.iter_mut().flat_map(|issuer| &mut issuer.key_sets) {
            if let Some(known) = running.key_sets().find(|known| known.place() == set.place()) {
                *set = set.successor_of(known);
            }
        }
    }
}

impl AuthGiven {
    pub(super) fn meant(&self) -> Result<Auth, ConfigError> {
        if self.tables().next().is_none() {
            return Err(bad("auth.keys", "none", "at least one [[auth.keys]] table"));
        }
        if !self.issuers.is_empty() && !self.keys.is_empty() && self.issuer.is_none() {
            return Err(bad(
                "auth.issuer",
                "none",
                "a name for the issuer of [[auth.keys]], as there are [[auth.issuers]]",
            ));
        }
        let mut issuers: Vec<Issuer> = Vec::new();
        for table in self.tables() {
            let issuer = table.meant()?;
            if issuers.iter().any(|other| other.name == issuer.name) {
                return Err(bad(
                    &table.key("issuer"),
                    table.issuer.unwrap_or_default(),
                    "a name that no other issuer has",
                ));
            }
            issuers.push(issuer);
        }
        let leeway = Some(self.leeway).filter(|leeway| *leeway <= LEEWAY_MAX);
        Ok(Auth {
            issuers,
            leeway: leeway.ok_or_else(|| bad("auth.leeway", format!("{:?}", self.leeway), "0s to 5m"))?,
            cookie: self.cookie.clone(),
            query_token: self.query_token,
        })
    }

    /// All issuers that were given.
    pub fn tables(&self) -> impl Iterator<Item = IssuerTable<'_>> {
        let own = IssuerTable {
            at: None,
            issuer: self.issuer.as_deref(),
            audience: self.audience.as_deref(),
            required_claims: &self.required_claims,
            keys: &self.keys,
        };
        let others = self.issuers.iter().enumerate().map(|(at, given)| IssuerTable {
            at: Some(at),
            issuer: Some(&given.issuer),
            audience: given.audience.as_deref(),
            required_claims: &given.required_claims,
            keys: &given.keys,
        });
        Some(own).filter(|own| !own.keys.is_empty()).into_iter().chain(others)
    }
}

impl<'a> IssuerTable<'a> {
    fn key(&self, name: &str) -> String {
        match self.at {
            None => format!("auth.{name}"),
            Some(at) => format!("auth.issuers[{at}].{name}"),
        }
    }

    fn meant(&self) -> Result<Issuer, ConfigError> {
        if self.keys.is_empty() {
            return Err(bad(&self.key("keys"), "none", "at least one [[auth.issuers.keys]] table"));
        }
        let mut issuer = Issuer {
            name: self.issuer.map(Into::into),
            audience: self.audience.map(Into::into),
            required_claims: self.required_claims.iter().map(|claim| claim.as_str().into()).collect(),
            ..Issuer::default()
        };
        for (at, key) in self.keys.iter().enumerate() {
            let table = self.key(&format!("keys[{at}]"));
            if let Some(place) = key.place(&table)? {
                issuer.key_sets.push(Arc::new(key.key_set(&table, place)?));
                continue;
            }
            let key = key.verifying(&table)?;
            if issuer.keys.iter().any(|other| other.kid == key.kid) {
                return Err(bad(&format!("{table}.kid"), key.kid, "a name that no other key has"));
            }
            issuer.keys.push(Arc::new(key));
        }
        Ok(issuer)
    }

    /// The key to sign with, of those that can: the one named `kid`, or the first.
    ///
    /// # Errors
    /// [`ConfigError::BadValue`] where the key of that name cannot sign.
    pub fn signing(&self, kid: Option<&str>) -> Option<Result<(&'a KeyGiven, EncodingKey), ConfigError>> {
        let is_it = |key: &KeyGiven| match kid {
            Some(kid) => key.kid.as_deref() == Some(kid),
            None => key.is_hmac(),
        };
        let (at, key) = self.keys.iter().enumerate().find(|(_, key)| is_it(key))?;
        Some(key.signing(&self.key(&format!("keys[{at}]"))).map(|signing| (key, signing)))
    }
}

impl KeyGiven {
    fn verifying(&self, table: &str) -> Result<VerifyingKey, ConfigError> {
        let kid = self.kid.as_deref().unwrap_or_default();
        if !is_kid(kid) {
            return Err(bad(&format!("{table}.kid"), kid, "1 to 64 of A-Z a-z 0-9 _ - . + / ="));
        }
        let algorithm =
            self.algorithm.ok_or_else(|| bad(&format!("{table}.algorithm"), "none", "an algorithm"))?;
        if self.algorithms.is_some() || self.refresh.is_some() {
            return Err(bad(table, "algorithms or refresh", "these beside jwks_url or jwks_file only"));
        }
        let key = match self.is_hmac() {
            true => DecodingKey::from_secret(self.hmac_secret(table)?.as_bytes()),
            false => self.public_key(table, algorithm)?,
        };
        Ok(VerifyingKey { kid: kid.into(), algorithm, key })
    }

    fn signing(&self, table: &str) -> Result<EncodingKey, ConfigError> {
        if !self.is_hmac() {
            let algorithm = self.algorithm.map_or("none".to_owned(), |algorithm| format!("{algorithm:?}"));
            return Err(bad(&format!("{table}.algorithm"), algorithm, "an HMAC key, which can sign"));
        }
        Ok(EncodingKey::from_secret(self.hmac_secret(table)?.as_bytes()))
    }

    fn is_hmac(&self) -> bool {
        matches!(self.algorithm, Some(Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512))
    }

    pub(crate) fn hmac_secret(&self, table: &str) -> Result<String, ConfigError> {
        let secret = match (&self.secret, &self.secret_file, &self.public_key_file) {
            (Some(Secret(secret)), None, None) => secret.clone(),
            (None, Some(file), None) => read_secret(&format!("{table}.secret_file"), file)?,
            _ => return Err(bad(table, "an HMAC key", "either secret or secret_file, and nothing else")),
        };
        if secret.len() < SECRET_BYTES_MIN {
            let found = format!("a secret of {} bytes", secret.len());
            return Err(bad(&format!("{table}.secret"), found, "at least 32 bytes"));
        }
        Ok(secret)
    }

    fn public_key(&self, table: &str, algorithm: Algorithm) -> Result<DecodingKey, ConfigError> {
        let (None, None, Some(file)) = (&self.secret, &self.secret_file, &self.public_key_file) else {
            return Err(bad(table, format!("a key for {algorithm:?}"), "public_key_file, and nothing else"));
        };
        let key = format!("{table}.public_key_file");
        let pem = read(&key, file)?;
        let decoded = match algorithm {
            Algorithm::ES256 | Algorithm::ES384 => DecodingKey::from_ec_pem(pem.as_bytes()),
            Algorithm::EdDSA => DecodingKey::from_ed_pem(pem.as_bytes()),
            _ => DecodingKey::from_rsa_pem(pem.as_bytes()),
        };
        decoded.map_err(|_| bad(&key, file.display(), "a public key in PEM for this algorithm"))
    }

    /// Where the JWK set is, if that is what the table names.
    fn place(&self, table: &str) -> Result<Option<Place>, ConfigError> {
        let place = match (&self.jwks_url, &self.jwks_file) {
            (None, None) => return Ok(None),
            (Some(url), None) => Place::Url(checked_url(&format!("{table}.jwks_url"), url)?),
            (None, Some(file)) => Place::File(file.clone()),
            (Some(_), Some(_)) => return Err(bad(table, "jwks_url and jwks_file", "one of them")),
        };
        let is_alone = self.kid.is_none()
            && self.algorithm.is_none()
            && self.secret.is_none()
            && self.secret_file.is_none()
            && self.public_key_file.is_none();
        let expected = "algorithms and refresh beside it, and nothing else: the set names its keys";
        is_alone.then_some(Some(place)).ok_or_else(|| bad(table, "a JWK set", expected))
    }

    fn key_set(&self, table: &str, place: Place) -> Result<KeySet, ConfigError> {
        let algorithms = self.algorithms.as_deref().unwrap_or(PUBLIC_ALGORITHMS);
        if algorithms.is_empty() || algorithms.iter().any(|algorithm| !PUBLIC_ALGORITHMS.contains(algorithm))
        {
            let key = format!("{table}.algorithms");
            return Err(bad(
                &key,
                format!("{algorithms:?}"),
                "some of RS, PS, ES and EdDSA: an HMAC key is not published",
            ));
        }
        let refresh = self.refresh.unwrap_or(REFRESH);
        if !(30..=86_400).contains(&refresh.as_secs()) {
            return Err(bad(&format!("{table}.refresh"), format!("{refresh:?}"), "30s to 1day"));
        }
        let set = KeySet::new(place, algorithms, refresh);
        set.read_file().map_err(|error| {
            bad(&format!("{table}.jwks_file"), format!("{}: {error}", set.place()), "a JWK set")
        })?;
        Ok(set)
    }
}

/// Keys that come over an open line are anybody's, except on this machine.
fn checked_url(key: &str, url: &str) -> Result<String, ConfigError> {
    let uri: Option<Uri> = url.parse().ok();
    let has_password = uri.as_ref().and_then(Uri::authority).is_some_and(|host| host.as_str().contains('@'));
    let is_safe = uri.as_ref().is_some_and(|uri| match (uri.scheme_str(), uri.host()) {
        (Some("https"), Some(_)) => true,
        (Some("http"), Some(host)) => is_loopback(host),
        _ => false,
    });
    let shown = if has_password { "a url with a password" } else { url };
    let expected = "https://… without a password, or http:// to a loopback address";
    (is_safe && !has_password).then(|| url.to_owned()).ok_or_else(|| bad(key, shown, expected))
}

fn is_loopback(host: &str) -> bool {
    let address: Option<IpAddr> = host.trim_start_matches('[').trim_end_matches(']').parse().ok();
    host == "localhost" || address.is_some_and(|address| address.is_loopback())
}
