//! What all workers of a node share: who is let in, the broker, the books, and whether the node is stopping.

use std::borrow::Cow;
use std::fmt;
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use actix_http::RequestHead;
use bytes::Bytes;
use causeway_broker::{Broker, EmbeddedBroker, PublishError, RedisBroker};
use causeway_hub::{PublishOutcome, PublishPermit};
use causeway_protocol::Pattern;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tracing::field::Empty;

use crate::admission::Admission;
use crate::budget::Budget;
use crate::canary::CanaryState;
use crate::client_addr::PeerAddr;
use crate::config::{Config, DrainGiven};
use crate::control;
use crate::crew::Crew;
use crate::descriptors;
use crate::entrance::{Attempt, Entrance, Gate, Guest};
use crate::log;
use crate::log::repeats::Repeats;
use crate::metrics::{Metrics, NodeReport};
use crate::peers::Asking;
use crate::rejection::Rejection;
use crate::revocation::{self, REVOCATIONS_MAX, Revocation, Revocations, RevokeError, RevokeRequest};
use crate::roll_call::RollCall;
use crate::settings::Settings;
use crate::tasks;
use crate::token::{TokenError, Verified};
use crate::traces;

/// A thread that shows no sign of life for so long is stuck: none of its steps takes more than milliseconds.
const STUCK_AFTER: Duration = Duration::from_secs(5);

/// How far the node has come towards its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Open.
    Serving,
    /// Nobody is let in any more; those who are in notice nothing yet.
    Leading,
    /// Connections are being closed, evenly over `drain.window`.
    Draining,
}

/// When a node was told to stop, and how many clients it had then.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopping {
    pub(crate) since: Instant,
    pub(crate) connections: usize,
}

/// Tells a process from all others, those of the same name included. As text it has 16 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Life(pub(crate) u64);

impl fmt::Display for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl TryFrom<String> for Life {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let life = u64::from_str_radix(&text, 16).map(Self).ok();
        life.filter(|life| life.to_string() == text).ok_or("a life has 16 hexadecimal digits")
    }
}

impl From<Life> for String {
    fn from(life: Life) -> Self {
        life.to_string()
    }
}

/// One node.
#[derive(Debug)]
pub struct Node {
    pub(crate) name: Box<str>,
    pub(crate) life: Life,
    /// Without Redis there are no others.
    pub(crate) is_alone: bool,
    pub(crate) started: Instant,
    pub(crate) inbox_bytes: usize,
    pub(crate) admission: Arc<Admission>,
    pub(crate) revocations: Arc<Revocations>,
    pub(crate) broker: Arc<dyn Broker>,
    pub(crate) metrics: Metrics,
    pub(crate) budget: Budget,
    pub(crate) canary: CanaryState,
    pub(crate) repeats: Repeats,
    pub(crate) roll_call: RollCall,
    pub(crate) asking: Asking,
    pub(crate) topic_classes: Arc<[Pattern]>,
    pub(crate) drain: DrainGiven,
    pub(crate) descriptors: descriptors::Share,
    pub(crate) crew: Crew,
    settings: watch::Sender<Arc<Settings>>,
    /// Whether there was a time when every key set was known.
    had_key_sets: AtomicBool,
    phase: watch::Sender<Phase>,
    stopping: OnceLock<Stopping>,
}

impl Node {
    /// Puts a node together and connects it to its broker, which may take its time.
    ///
    /// # Errors
    /// Where the broker cannot even be tried.
    pub fn start(mut config: Config) -> Result<Arc<Self>, causeway_broker::RedisConfigError> {
        let revocations = Arc::new(Revocations::default());
        let descriptors = descriptors::share_out(config.admission.connections, config.workers);
        config.admission.connections = descriptors.connections(config.admission.connections);
        let is_alone = config.redis.is_none();
        let broker: Arc<dyn Broker> = match config.redis.take() {
            Some(redis) => RedisBroker::start(redis)?,
            None => Arc::new(EmbeddedBroker::new(config.hub.publish_bytes)),
        };
        let (class_names, topic_classes): (Vec<_>, Vec<_>) =
            mem::take(&mut config.topic_classes).into_iter().unzip();
        Ok(Arc::new(Self {
            name: mem::take(&mut config.node),
            life: Life(rand::random()),
            is_alone,
            started: Instant::now(),
            inbox_bytes: config.inbox_bytes,
            admission: Arc::new(Admission::new(config.admission)),
            revocations: Arc::clone(&revocations),
            broker,
            metrics: Metrics::new(&class_names),
            budget: Budget::new(config.budget_bytes),
            canary: CanaryState::default(),
            repeats: Repeats::default(),
            roll_call: RollCall::default(),
            asking: Asking::default(),
            topic_classes: topic_classes.into(),
            drain: config.drain.clone(),
            descriptors,
            crew: Crew::default(),
            settings: watch::Sender::new(Arc::new(Settings::new(config, revocations))),
            had_key_sets: AtomicBool::new(false),
            phase: watch::Sender::new(Phase::Serving),
            stopping: OnceLock::new(),
        }))
    }

    /// Every rule of the entrance in its order; `check_handshake` is the one between origin and token.
    pub(crate) fn admit<H>(
        &self,
        peer: PeerAddr,
        head: &RequestHead,
        check_handshake: fn(&RequestHead) -> Result<H, Rejection>,
    ) -> Result<(Guest, H), Rejection> {
        let settings = self.settings();
        let gate = self.gate(&settings.entrance, Some(&self.metrics));
        Attempt::new(gate, peer, head, check_handshake).enter()
    }

    /// What an attempt to come in meets; whoever only asks is not counted in `metrics`.
    pub(crate) fn gate<'a>(&'a self, entrance: &'a Entrance, metrics: Option<&'a Metrics>) -> Gate<'a> {
        Gate { entrance, admission: &self.admission, budget: &self.budget, metrics }
    }

    /// Verifies a token, and counts how that went.
    pub(crate) fn verify(&self, token: Option<&str>) -> Result<Verified, TokenError> {
        self.gate(&self.settings().entrance, Some(&self.metrics)).verify(token)
    }

    /// Logs that a request was refused, unless enough like it were logged lately. `what` it asked for.
    pub(crate) fn tell_refused(&self, what: &'static str, head: &RequestHead, rejection: &Rejection) {
        let cause = rejection.cause();
        if self.repeats.may_tell(what, cause) {
            let entrance = &self.settings().entrance;
            let client = head.peer_addr.map(|peer| entrance.client_of(peer.into(), head.headers()));
            let client = client.map(tracing::field::display);
            tracing::info!(what, cause, client, why = rejection.to_string(), "refused a request");
        }
    }

    /// Puts a configuration into effect, as far as that goes without a restart. What is known of published keys
    /// stays known, and what is revoked stays revoked.
    pub(crate) fn apply(&self, mut config: Config) {
        config.admission.connections = self.descriptors.connections(config.admission.connections);
        self.admission.set_limits(config.admission);
        config.auth.take_over(&self.settings().entrance.verifier);
        self.settings.send_replace(Arc::new(Settings::new(config, Arc::clone(&self.revocations))));
    }

    /// The settings now. They may change between two looks.
    pub(crate) fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.borrow())
    }

    /// For whoever has to notice that they change.
    pub(crate) fn watch_settings(&self) -> watch::Receiver<Arc<Settings>> {
        self.settings.subscribe()
    }

    /// Publishes for a client, and counts how that went. Like [`Broker::publish`], the call enqueues at once and
    /// the future only waits.
    pub(crate) fn publish(
        self: &Arc<Self>,
        permit: PublishPermit,
        payload: Bytes,
    ) -> impl Future<Output = PublishOutcome> + use<> {
        let span = tracing::info_span!(
            target: traces::TARGET, "publish", otel.kind = "producer",
            messaging.destination.name = %permit.topic(), messaging.message.body.size = payload.len() as i64,
            error.type = Empty, otel.status_code = Empty
        );
        let began = Instant::now();
        let confirmed = self.broker.publish(permit.into_topic(), payload);
        let node = Arc::clone(self);
        async move {
            let confirmed = confirmed.await;
            if let Err(error) = &confirmed {
                traces::failed(&span, cause(error));
                if node.repeats.may_tell("publish to the broker", cause(error)) {
                    let why = error.to_string();
                    tracing::warn!(cause = cause(error), why, "the broker did not take a publish");
                }
            }
            let outcome = match confirmed {
                Ok(()) => PublishOutcome::Published,
                Err(PublishError::Unavailable | PublishError::Busy) => PublishOutcome::Unavailable,
                Err(PublishError::Refused(_)) => PublishOutcome::Refused,
            };
            node.metrics.count_publish(outcome, began.elapsed());
            outcome
        }
    }

    /// Ends tokens before their time, on all nodes.
    pub(crate) async fn revoke(&self, request: RevokeRequest) -> Result<Revocation, RevokeError> {
        let revocation = request.meant_at(revocation::now())?;
        let verifier = &self.settings().entrance.verifier;
        if revocation.issuer().is_some_and(|issuer| !verifier.knows_issuer(issuer)) {
            return Err(RevokeError::Unclear("no issuer of this name is configured here"));
        }
        if self.revocations.len() >= REVOCATIONS_MAX {
            return Err(RevokeError::Full);
        }
        control::revoke(&*self.broker, &revocation).await?;
        Ok(revocation)
    }

    /// The phase now.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Goes on to a later phase; workers notice within a tick.
    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.send_replace(phase);
    }

    /// Lets nobody in any more, so that the node is drained and stops. `by` is who wants that. Once is enough.
    pub(crate) fn stop_serving(&self, by: &str) {
        let first = |phase: &mut Phase| match phase {
            Phase::Serving => {
                *phase = Phase::Leading;
                true
            }
            Phase::Leading | Phase::Draining => false,
        };
        if self.phase.send_if_modified(first) {
            self.admission.close();
            let connections = self.admission.connections();
            self.stopping.get_or_init(|| Stopping { since: Instant::now(), connections });
            tracing::info!(by, connections, "stopping: draining connections");
        }
    }

    /// Since when nobody is let in any more, if so.
    pub(crate) fn stopping(&self) -> Option<Stopping> {
        self.stopping.get().copied()
    }

    /// Waits until nobody is let in any more.
    pub(crate) async fn serving_ends(&self) {
        // Fails only where the node is gone.
        let _ = self.phase.subscribe().wait_for(|phase| *phase != Phase::Serving).await;
    }

    /// Why the node should get no new clients, if so.
    pub(crate) fn unready_cause(&self) -> Option<&'static str> {
        if self.phase() != Phase::Serving {
            return Some("draining");
        }
        if !self.broker.link().up {
            return Some("the link to Redis is down");
        }
        if !self.has_had_key_sets() {
            return Some("published keys have not been fetched yet");
        }
        if !self.revocations.is_read() {
            return Some("revocations have not been read yet");
        }
        self.canary.trouble()
    }

    /// An issuer that is added later, and does not answer, is no reason to send away the clients of the others.
    fn has_had_key_sets(&self) -> bool {
        let are_known = || self.settings().entrance.verifier.key_sets().all(|set| set.is_known());
        if !self.had_key_sets.load(Ordering::Relaxed) && are_known() {
            self.had_key_sets.store(true, Ordering::Relaxed);
        }
        self.had_key_sets.load(Ordering::Relaxed)
    }

    /// Which thread does not come round to its work any more, if one does not.
    pub(crate) fn stuck_cause(&self) -> Option<Cow<'static, str>> {
        let silent_for = self.broker.link().stuck_for;
        if silent_for >= STUCK_AFTER {
            return Some(format!("the broker's thread has been stuck for {silent_for:.0?}").into());
        }
        let stuck = self.crew.stuck(STUCK_AFTER);
        stuck.map(|(worker, silence)| format!("worker {worker} has been stuck for {silence:.0?}").into())
    }

    /// What a scrape should show besides what has been counted.
    pub(crate) fn report(&self) -> NodeReport {
        let is_draining = self.phase() != Phase::Serving;
        NodeReport {
            is_ready: self.unready_cause().is_none(),
            connections_max: self.admission.limits().connections,
            budget_bytes: self.budget.bytes(),
            budget_used_bytes: self.budget.used(),
            draining: if is_draining { self.admission.connections() } else { 0 },
            revocations: self.revocations.len(),
            tasks: tasks::running(),
            log_lines_lost: log::lines_lost(),
            link: self.broker.link(),
        }
    }
}

/// What a publish failed of, as a closed set.
fn cause(error: &PublishError) -> &'static str {
    match error {
        PublishError::Unavailable => "unavailable",
        PublishError::Busy => "busy",
        PublishError::Refused(_) => "refused",
    }
}
