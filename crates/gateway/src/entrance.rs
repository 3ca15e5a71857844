//! Who is let in: the rules, in the one order in which they are applied, and what each has to say.
//!
//! An [`Attempt`] is one request's way through them. An upgrade ends at the first rule that refuses it; an
//! explanation (see `explain`) goes the same way through the same rules and looks at all of them.

use std::sync::Arc;
use std::time::Instant;

use actix_http::header::{self, HeaderMap};
use actix_http::{RequestHead, Uri};
use ipnet::IpNet;
use tracing::field::Empty;

use crate::admission::{Admission, Admitted};
use crate::budget::Budget;
use crate::client_addr::{ClientAddr, PeerAddr, TrustedProxies};
use crate::config::Auth;
use crate::handshake;
use crate::metrics::Metrics;
use crate::origin::AllowedOrigins;
use crate::rejection::Rejection;
use crate::revocation::Revocations;
use crate::token::{TokenError, Verified, Verifier};
use crate::traces;

/// What decides who is let in, but for how many.
#[derive(Debug)]
pub(crate) struct Entrance {
    pub(crate) verifier: Verifier,
    pub(crate) allowed_origins: AllowedOrigins,
    trusted_proxies: TrustedProxies,
    cookie: Option<String>,
    query_token: bool,
}

/// One rule at the entrance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// The node is not about to stop.
    NodeOpen,
    /// The node has room for another connection.
    NodeRoom,
    /// What waits for clients leaves room in memory for more of them.
    NodeMemory,
    /// The address does not upgrade too often.
    UpgradeRate,
    /// The address has room for another connection.
    AddressRoom,
    /// The page's origin may connect.
    Origin,
    /// The request is what it has to be: an upgrade after RFC 6455, or a plain request.
    Handshake,
    /// The token proves who is asking.
    Token,
}

/// All that an attempt meets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gate<'a> {
    pub(crate) entrance: &'a Entrance,
    pub(crate) admission: &'a Arc<Admission>,
    pub(crate) budget: &'a Budget,
    /// Where tokens are counted, if they are.
    pub(crate) metrics: Option<&'a Metrics>,
}

/// One request's way in.
pub(crate) struct Attempt<'a, H> {
    gate: Gate<'a>,
    head: &'a RequestHead,
    check_handshake: fn(&RequestHead) -> Result<H, Rejection>,
    client: ClientAddr,
    token: Option<(&'a str, TokenSource)>,
    admitted: Option<Admitted>,
    handshake: Option<H>,
    verified: Option<Verified>,
}

/// A client that passed every check.
#[derive(Debug)]
pub(crate) struct Guest {
    pub(crate) admitted: Admitted,
    pub(crate) verified: Verified,
}

impl Entrance {
    /// Lets in who has a token by `auth` that is not revoked, from pages of `allowed_origins`.
    pub(crate) fn new(
        auth: Auth,
        allowed_origins: AllowedOrigins,
        trusted_proxies: Vec<IpNet>,
        revocations: Arc<Revocations>,
    ) -> Self {
        let Auth { issuers, leeway, cookie, query_token } = auth;
        Self {
            verifier: Verifier::new(issuers, leeway, revocations),
            allowed_origins,
            trusted_proxies: TrustedProxies::new(trusted_proxies),
            cookie,
            query_token,
        }
    }

    /// The client behind a request.
    pub(crate) fn client_of(&self, peer: PeerAddr, headers: &HeaderMap) -> ClientAddr {
        self.trusted_proxies.client_of(peer, headers)
    }

    fn find_token<'h>(&self, uri: &'h Uri, headers: &'h HeaderMap) -> Option<(&'h str, TokenSource)> {
        let explicit = bearer(headers).or_else(|| handshake::bearer_subprotocol(headers));
        let in_query = || self.query_token.then(|| query_value(uri.query()?, "access_token")).flatten();
        explicit.or_else(in_query).map(|token| (token, TokenSource::Explicit)).or_else(|| {
            let cookie = cookie_value(headers, self.cookie.as_deref()?)?;
            Some((cookie, TokenSource::Cookie))
        })
    }
}

impl Gate<'_> {
    /// Verifies a token.
    ///
    /// # Errors
    /// Why there is none, or what is wrong with it.
    pub(crate) fn verify(&self, token: Option<&str>) -> Result<Verified, TokenError> {
        let span = tracing::info_span!(
            target: traces::TARGET, "verify token", error.type = Empty, otel.status_code = Empty
        )
        .entered();
        let began = Instant::now();
        let verdict = token.ok_or(TokenError::Missing).and_then(|token| self.entrance.verifier.verify(token));
        let _ = verdict.as_ref().inspect_err(|error| traces::failed(&span, error.cause()));
        if let Some(metrics) = self.metrics {
            metrics.token_verify_seconds.observe(began.elapsed().as_secs_f64());
            let _ = verdict.as_ref().inspect_err(|error| metrics.count_token_failure(error));
        }
        verdict
    }
}

impl Rule {
    /// All of them, in the order in which they are applied: cheapest first.
    pub(crate) const ORDER: [Self; 8] = [
        Self::NodeOpen,
        Self::NodeRoom,
        Self::NodeMemory,
        Self::UpgradeRate,
        Self::AddressRoom,
        Self::Origin,
        Self::Handshake,
        Self::Token,
    ];
}

impl<'a, H> Attempt<'a, H> {
    /// The attempt of a request from `peer`; `check_handshake` is the rule of that name.
    pub(crate) fn new(
        gate: Gate<'a>,
        peer: PeerAddr,
        head: &'a RequestHead,
        check_handshake: fn(&RequestHead) -> Result<H, Rejection>,
    ) -> Self {
        Self {
            gate,
            head,
            check_handshake,
            client: gate.entrance.client_of(peer, head.headers()),
            token: gate.entrance.find_token(&head.uri, head.headers()),
            admitted: None,
            handshake: None,
            verified: None,
        }
    }

    /// Goes through all rules, up to the first that refuses.
    ///
    /// # Errors
    /// That rule's refusal.
    pub(crate) fn enter(mut self) -> Result<(Guest, H), Rejection> {
        for rule in Rule::ORDER {
            self.check(rule)?;
        }
        let Self { admitted: Some(admitted), handshake: Some(handshake), verified: Some(verified), .. } =
            self
        else {
            unreachable!("every rule was applied, and each that proves something has kept it")
        };
        Ok((Guest { admitted, verified }, handshake))
    }

    /// Applies one rule. What it proves is kept; an admitted attempt counts as a connection while it lasts.
    ///
    /// # Errors
    /// The rule's refusal.
    pub(crate) fn check(&mut self, rule: Rule) -> Result<(), Rejection> {
        let Gate { admission, budget, .. } = self.gate;
        match rule {
            Rule::NodeOpen => admission.check_open()?,
            Rule::NodeRoom => admission.check_room()?,
            Rule::NodeMemory if budget.is_tight() => return Err(Rejection::NodeFull),
            Rule::NodeMemory => {}
            Rule::UpgradeRate => admission.check_rate(self.client)?,
            Rule::AddressRoom => self.admitted = Some(admission.enter(self.client)?),
            Rule::Origin => self.check_origin()?,
            Rule::Handshake => {
                let _span = tracing::info_span!(target: traces::TARGET, "handshake").entered();
                self.handshake = Some((self.check_handshake)(self.head)?);
            }
            Rule::Token => self.verified = Some(self.gate.verify(self.token.map(|(token, _)| token))?),
        }
        Ok(())
    }

    /// Whom the limits apply to.
    pub(crate) fn client(&self) -> ClientAddr {
        self.client
    }

    /// Whether the request names an origin.
    pub(crate) fn has_origin(&self) -> bool {
        self.head.headers().contains_key(header::ORIGIN)
    }

    /// What the token proved, once its rule was applied.
    pub(crate) fn verified(&self) -> Option<&Verified> {
        self.verified.as_ref()
    }

    fn check_origin(&self) -> Result<(), Rejection> {
        let headers = self.head.headers();
        let must_have_origin = matches!(self.token, Some((_, TokenSource::Cookie)));
        // A page's plain request to its own origin carries no `Origin`; this header no page can forge.
        let is_own_page = headers.get("sec-fetch-site").is_some_and(|site| site == "same-origin");
        self.gate.entrance.allowed_origins.check(headers, must_have_origin && !is_own_page)
    }
}

/// Where a token came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TokenSource {
    /// The client put it there on purpose.
    Explicit,
    /// The browser added it by itself, for whatever page asked.
    Cookie,
}

/// The token of `Authorization: Bearer` (RFC 6750 §2.1).
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn cookie_value<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let values = headers.get_all(header::COOKIE).filter_map(|value| value.to_str().ok());
    let mut pairs = values.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(found, _)| *found == name).map(|(_, value)| value)
}

/// A value of a query string. A token has no characters that would be escaped.
fn query_value<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.find(|(found, _)| *found == name).map(|(_, value)| value)
}
