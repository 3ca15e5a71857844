//! What connections prove themselves with: one token for all, or one of its own for each.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

/// Longer than any run.
const LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// How to come by tokens.
#[derive(Clone, Debug, Args)]
pub(crate) struct TokenArgs {
    /// The token that every connection presents.
    #[arg(long, conflicts_with_all = ["secret", "kid"])]
    token: Option<String>,
    /// Sign a token for each connection with this HS256 secret.
    #[arg(long)]
    secret: Option<String>,
    /// The id of that secret's key.
    #[arg(long, requires = "secret")]
    kid: Option<String>,
}

/// Gives every connection its token.
pub(crate) enum Tokens {
    /// No token at all: the gateway will refuse, and the report will say so.
    None,
    /// The same for all.
    Same(String),
    /// Signed when asked for.
    Signed(Box<Signing>),
}

/// A key and what it signs.
pub(crate) struct Signing {
    key: EncodingKey,
    header: Header,
    expires_at: Duration,
}

impl Tokens {
    /// As the command line says.
    pub(crate) fn new(args: &TokenArgs) -> Self {
        match (&args.token, &args.secret) {
            (Some(token), _) => Self::Same(token.clone()),
            (None, Some(secret)) => Self::Signed(Box::new(Signing::new(secret, args.kid.clone()))),
            (None, None) => Self::None,
        }
    }

    /// The token of connection number `index`, which may subscribe to anything.
    pub(crate) fn token(&self, index: usize) -> Result<Option<String>, jsonwebtoken::errors::Error> {
        self.issue(|| format!("load-{index}"), &json!({"subscribe": ["**"], "publish": []}))
    }

    /// The token of a publisher, which may publish anything.
    pub(crate) fn publisher(&self) -> Result<Option<String>, jsonwebtoken::errors::Error> {
        self.issue(|| "load-publisher".to_owned(), &json!({"subscribe": [], "publish": ["**"]}))
    }

    fn issue(
        &self,
        subject: impl FnOnce() -> String,
        allowed: &Value,
    ) -> Result<Option<String>, jsonwebtoken::errors::Error> {
        match self {
            Self::None => Ok(None),
            Self::Same(token) => Ok(Some(token.clone())),
            Self::Signed(signing) => signing.sign(&subject(), allowed).map(Some),
        }
    }
}

impl Signing {
    fn new(secret: &str, kid: Option<String>) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970");
        Self {
            key: EncodingKey::from_secret(secret.as_bytes()),
            header: Header { kid, ..Header::new(Algorithm::HS256) },
            expires_at: now + LIFETIME,
        }
    }

    fn sign(&self, subject: &str, allowed: &Value) -> Result<String, jsonwebtoken::errors::Error> {
        let claims = json!({"sub": subject, "exp": self.expires_at.as_secs(), "causeway": allowed});
        jsonwebtoken::encode(&self.header, &claims, &self.key)
    }
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{DecodingKey, Validation};

    use super::*;

    #[test]
    fn each_connection_has_a_subject_of_its_own() {
        let secret = "a secret of at least thirty-two bytes";
        let tokens = Tokens::Signed(Box::new(Signing::new(secret, Some("main".to_owned()))));
        let token = tokens.token(7).unwrap().unwrap();
        let key = DecodingKey::from_secret(secret.as_bytes());
        let proved = jsonwebtoken::decode::<Value>(&token, &key, &Validation::new(Algorithm::HS256)).unwrap();
        assert_eq!(proved.claims["sub"], "load-7");
        assert_eq!(proved.header.kid.as_deref(), Some("main"));
        assert_eq!(proved.claims["causeway"]["publish"], json!([]));
        assert_ne!(tokens.publisher().unwrap().unwrap(), token);
    }
}
