//! What all workers of a node share: who is let in, the broker, the books, and whether the node is stopping.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use actix_http::header::{self, HeaderMap};
use actix_http::{RequestHead, Uri};
use bytes::Bytes;
use causeway_broker::{Broker, EmbeddedBroker, PublishError, Pulse, RedisBroker};
use causeway_hub::{HubLimits, PublishOutcome, PublishPermit};
use causeway_protocol::Pattern;
use causeway_protocol::frame::FrameLimits;
use tokio::sync::watch;

use crate::admission::{Admission, Admitted};
use crate::budget::Budget;
use crate::canary::CanaryState;
use crate::client_addr::{ClientAddr, PeerAddr, TrustedProxies};
use crate::config::{Auth, Config};
use crate::handshake;
use crate::metrics::{Metrics, NodeReport};
use crate::origin::AllowedOrigins;
use crate::rejection::Rejection;
use crate::token::{TokenError, Verified, Verifier};

/// A thread that shows no sign of life for so long is stuck: none of its steps takes more than milliseconds.
const STUCK_AFTER: Duration = Duration::from_secs(5);

/// How far the node has come towards its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Open.
    Serving,
    /// Nobody is let in any more; those who are in notice nothing yet.
    Leading,
    /// Connections are being closed, evenly over this time.
    Draining(Duration),
}

/// One node.
#[derive(Debug)]
pub struct Node {
    pub(crate) name: Box<str>,
    pub(crate) hub_limits: HubLimits,
    pub(crate) frame_limits: FrameLimits,
    pub(crate) inbox_bytes: usize,
    pub(crate) admission: Arc<Admission>,
    pub(crate) verifier: Verifier,
    pub(crate) broker: Arc<dyn Broker>,
    pub(crate) metrics: Metrics,
    pub(crate) budget: Budget,
    pub(crate) canary: CanaryState,
    pub(crate) topic_classes: Arc<[Pattern]>,
    /// Of the workers, in the order of their start.
    pulses: Mutex<Vec<Arc<Pulse>>>,
    trusted_proxies: TrustedProxies,
    pub(crate) allowed_origins: AllowedOrigins,
    cookie: Option<String>,
    query_token: bool,
    phase: watch::Sender<Phase>,
}

/// A client that passed every check.
#[derive(Debug)]
pub(crate) struct Guest {
    pub(crate) admitted: Admitted,
    pub(crate) verified: Verified,
}

impl Node {
    /// Puts a node together and connects it to its broker, which may take its time.
    ///
    /// # Errors
    /// Where the broker cannot even be tried.
    pub fn start(config: Config) -> Result<Arc<Self>, causeway_broker::RedisConfigError> {
        let Auth { keys, rules, cookie, query_token } = config.auth;
        let broker: Arc<dyn Broker> = match config.redis {
            Some(redis) => RedisBroker::start(redis)?,
            None => Arc::new(EmbeddedBroker::new(config.hub.publish_bytes)),
        };
        let (class_names, topic_classes): (Vec<_>, Vec<_>) = config.topic_classes.into_iter().unzip();
        Ok(Arc::new(Self {
            name: config.node,
            hub_limits: config.hub,
            frame_limits: config.frames,
            inbox_bytes: config.inbox_bytes,
            admission: Arc::new(Admission::new(config.admission)),
            verifier: Verifier::new(keys, &rules),
            broker,
            metrics: Metrics::new(&class_names),
            budget: Budget::new(config.budget_bytes),
            canary: CanaryState::default(),
            topic_classes: topic_classes.into(),
            pulses: Mutex::default(),
            trusted_proxies: TrustedProxies::new(config.trusted_proxies),
            allowed_origins: config.allowed_origins,
            cookie,
            query_token,
            phase: watch::Sender::new(Phase::Serving),
        }))
    }

    /// Every check before an upgrade, cheapest first; `handshake` is the one between origin and token.
    pub(crate) fn admit<H>(
        &self,
        peer: PeerAddr,
        head: &RequestHead,
        handshake: impl FnOnce(&RequestHead) -> Result<H, Rejection>,
    ) -> Result<(Guest, H), Rejection> {
        let headers = head.headers();
        if self.budget.is_tight() {
            return Err(Rejection::NodeFull);
        }
        let admitted = self.admission.admit(self.client_of(peer, headers))?;
        let (token, must_have_origin) = match self.find_token(&head.uri, headers) {
            Some((token, source)) => (Some(token), source == TokenSource::Cookie),
            None => (None, false),
        };
        // A page's plain request to its own origin carries no `Origin`; this header no page can forge.
        let is_own_page = headers.get("sec-fetch-site").is_some_and(|site| site == "same-origin");
        self.allowed_origins.check(headers, must_have_origin && !is_own_page)?;
        let handshake = handshake(head)?;
        let verified = self.verify(token.as_deref())?;
        Ok((Guest { admitted, verified }, handshake))
    }

    /// Verifies a token, and counts how that went.
    pub(crate) fn verify(&self, token: Option<&str>) -> Result<Verified, TokenError> {
        let began = Instant::now();
        let verdict = token.ok_or(TokenError::Missing).and_then(|token| self.verifier.verify(token));
        self.metrics.token_verify_seconds.observe(began.elapsed().as_secs_f64());
        verdict.inspect_err(|error| self.metrics.count_token_failure(error))
    }

    /// Publishes for a client, and counts how that went. Like [`Broker::publish`], the call enqueues at once and
    /// the future only waits.
    pub(crate) fn publish(
        self: &Arc<Self>,
        permit: PublishPermit,
        payload: Bytes,
    ) -> impl Future<Output = PublishOutcome> + use<> {
        let began = Instant::now();
        let confirmed = self.broker.publish(permit.into_topic(), payload);
        let node = Arc::clone(self);
        async move {
            let outcome = match confirmed.await {
                Ok(()) => PublishOutcome::Published,
                Err(PublishError::Unavailable | PublishError::Busy) => PublishOutcome::Unavailable,
                Err(PublishError::Refused(cause)) => {
                    tracing::debug!(%cause, "the broker refused a publish");
                    PublishOutcome::Refused
                }
            };
            node.metrics.count_publish(outcome, began.elapsed());
            outcome
        }
    }

    /// The client behind a request.
    pub(crate) fn client_of(&self, peer: PeerAddr, headers: &HeaderMap) -> ClientAddr {
        self.trusted_proxies.client_of(peer, headers)
    }

    /// The phase now.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Goes on to a later phase; workers notice within a tick.
    pub fn enter(&self, phase: Phase) {
        if phase != Phase::Serving {
            self.admission.close();
        }
        self.phase.send_replace(phase);
    }

    /// Why the node should get no new clients, if so.
    pub(crate) fn unready_cause(&self) -> Option<&'static str> {
        if self.phase() != Phase::Serving {
            return Some("draining");
        }
        if !self.broker.link().up {
            return Some("the link to Redis is down");
        }
        self.canary.trouble()
    }

    /// A worker has started: it will beat.
    pub(crate) fn new_pulse(&self) -> Arc<Pulse> {
        let pulse = Arc::new(Pulse::default());
        self.pulses.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&pulse));
        pulse
    }

    /// Which thread does not come round to its work any more, if one does not.
    pub(crate) fn stuck_cause(&self) -> Option<Cow<'static, str>> {
        let silent_for = self.broker.link().stuck_for;
        if silent_for >= STUCK_AFTER {
            return Some(format!("the broker's thread has been stuck for {silent_for:.0?}").into());
        }
        let pulses = self.pulses.lock().unwrap_or_else(PoisonError::into_inner);
        let stuck = pulses.iter().enumerate().find(|(_, pulse)| pulse.silent_for() >= STUCK_AFTER);
        stuck.map(|(worker, pulse)| {
            format!("worker {worker} has been stuck for {:.0?}", pulse.silent_for()).into()
        })
    }

    /// What a scrape should show besides what has been counted.
    pub(crate) fn report(&self) -> NodeReport {
        let is_draining = self.phase() != Phase::Serving;
        NodeReport {
            is_ready: self.unready_cause().is_none(),
            budget_bytes: self.budget.bytes(),
            budget_used_bytes: self.budget.used(),
            draining: if is_draining { self.admission.connections() } else { 0 },
            link: self.broker.link(),
        }
    }

    fn find_token(&self, uri: &Uri, headers: &HeaderMap) -> Option<(String, TokenSource)> {
        let explicit = bearer(headers).or_else(|| handshake::bearer_subprotocol(headers)).map(str::to_owned);
        let in_query = || self.query_token.then(|| query_value(uri.query()?, "access_token")).flatten();
        explicit.or_else(in_query).map(|token| (token, TokenSource::Explicit)).or_else(|| {
            let cookie = cookie_value(headers, self.cookie.as_deref()?)?;
            Some((cookie.to_owned(), TokenSource::Cookie))
        })
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
fn query_value(query: &str, name: &str) -> Option<String> {
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.find(|(found, _)| *found == name).map(|(_, value)| value.to_owned())
}
