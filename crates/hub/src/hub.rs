//! The hub: sessions, the topics they are subscribed to, and what is owed to them.
//!
//! Everything a session costs others is bounded here: its outbox in bytes, its topics in number, its commands
//! in rate, its silence and its slowness in time. What goes beyond a bound ends that session and no other.

use std::borrow::Cow;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use causeway_protocol::{
    CloseCode, Command, CommandId, ErrorCode, GapReason, Pattern, Publication, Push, Reply, Topic, frame,
    frame::Deflater,
};
use slab::Slab;

use crate::counters::{ClassCounts, HubCounters, HubGauges};
use crate::deadlines::Deadlines;
use crate::heavy_hitters::HeavyHitters;
use crate::listed::Listed;
use crate::outbox::{FrameBytes, Outbox, SharedFrame};
use crate::pending::Pendings;
use crate::session::{Phase, Session};
use crate::topics::{TopicState, Topics};
use crate::{HubLimits, Moment, Policy, PublishPermit, SessionKey};

pub use census::{SessionFacts, TopicFacts};

mod census;
mod commands;
mod deflate;
mod drain;
mod orders;
mod owing;
mod time;

/// The code of a connection that ended without a close frame (RFC 6455 §7.1.5).
const CLOSED_ABNORMALLY: u16 = 1006;

/// What the broker should know: which topics somebody here wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InterestChange {
    /// Somebody wants the topic; the ticket must come back with [`Hub::topic_live`].
    Want(Topic, u64),
    /// Nobody wants it any more.
    Leave(Topic),
}

/// A command that the hub has allowed but cannot carry out alone.
#[derive(Debug)]
pub enum Request {
    /// Publish through the broker, then tell [`Hub::published`].
    Publish {
        /// The client's mark.
        id: CommandId,
        /// Where to, proved to be allowed.
        permit: PublishPermit,
        /// The payload.
        data: Bytes,
    },
    /// Verify the token, then tell [`Hub::reauthenticated`].
    Authenticate {
        /// The client's mark.
        id: CommandId,
        /// The token as the client sent it.
        token: String,
    },
}

/// How a publish went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublishOutcome {
    /// The broker took it.
    Published,
    /// The broker did not confirm in time, or could not take more.
    Unavailable,
    /// The broker refused it for good.
    Refused,
}

/// What should happen to a connection next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It goes on.
    Open,
    /// Everything owed is written, the close frame last: nothing more will be written, so the socket's
    /// sending side should be shut down. The client may still answer.
    HalfClose,
    /// It is over.
    Drop,
}

/// How a session ended, for counters and logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The close code that was sent or received first, or 1006 where there was none.
    pub code: u16,
    /// Whose token it was.
    pub subject: Box<str>,
    /// Messages written to the socket.
    pub messages_sent: u64,
    /// Bytes written to the socket.
    pub bytes_sent: u64,
}

/// Why a command was refused: for programs, and for people.
type Refused = (ErrorCode, Cow<'static, str>);

/// One worker's sessions and topics.
#[derive(Debug)]
pub struct Hub {
    node: Box<str>,
    worker: u16,
    limits: HubLimits,
    sessions: Slab<Session>,
    serials: u32,
    subscriptions: usize,
    topics: Topics,
    pendings: Pendings,
    deadlines: Deadlines,
    listed: Listed,
    interest: Vec<InterestChange>,
    is_draining: bool,
    classes: Arc<[Pattern]>,
    counters: HubCounters,
    class_counts: Vec<ClassCounts>,
    topic_drops: HeavyHitters,
    subject_drops: HeavyHitters,
    frames_waiting: usize,
    frame_bytes: FrameBytes,
    /// How many sessions agreed on compression.
    deflating_sessions: usize,
    deflater: Deflater,
    jitter: Jitter,
}

impl Hub {
    /// An empty hub. `node` and `worker` name it in its sessions' names; `seed` sets the jitter of pings and
    /// drains, which need not be unpredictable.
    pub fn new(node: impl Into<Box<str>>, worker: u16, limits: HubLimits, seed: u64) -> Self {
        Self {
            node: node.into(),
            worker,
            limits,
            sessions: Slab::new(),
            serials: 0,
            subscriptions: 0,
            topics: Topics::default(),
            pendings: Pendings::default(),
            deadlines: Deadlines::new(),
            listed: Listed::default(),
            interest: Vec::new(),
            is_draining: false,
            classes: Arc::default(),
            counters: HubCounters::default(),
            class_counts: Vec::new(),
            topic_drops: HeavyHitters::default(),
            subject_drops: HeavyHitters::default(),
            frames_waiting: 0,
            frame_bytes: FrameBytes::default(),
            deflating_sessions: 0,
            deflater: Deflater::default(),
            jitter: Jitter(seed | 1),
        }
    }

    /// Counts topics by class too: a topic is of the first class whose pattern it matches. To be called before
    /// the first session. A `{sub}` in a pattern matches nothing.
    #[must_use]
    pub fn with_classes(mut self, classes: Arc<[Pattern]>) -> Self {
        self.class_counts = vec![ClassCounts::default(); classes.len()];
        self.classes = classes;
        self
    }

    /// The limits it keeps.
    pub fn limits(&self) -> &HubLimits {
        &self.limits
    }

    /// Keeps other limits from here on. What a session has already it keeps: topics beyond the new number stay,
    /// and an outbox beyond the new size ends its session with the next frame that is owed to it.
    pub fn set_limits(&mut self, limits: HubLimits) {
        self.limits = limits;
    }

    // What connections report.

    /// A client with a proved token has connected: it is owed a welcome.
    pub fn connect(&mut self, policy: Policy, token_expires: Moment, now: Moment) -> SessionKey {
        self.serials = self.serials.wrapping_add(1);
        let entry = self.sessions.vacant_entry();
        let key = SessionKey::new(entry.key(), self.serials);
        // The first ping comes early by up to half an interval: connections that came together are spread.
        let early = self.jitter.up_to(self.limits.ping_interval / 2);
        let next_ping = time::next_ping(now, self.limits.ping_interval - early);
        entry.insert(Session::new(key, policy, token_expires, next_ping));
        let welcome = Push::Welcome {
            session: &self.session_name(key),
            node: &self.node,
            ping_interval_ms: millis(self.limits.ping_interval),
            expires_in_ms: millis(token_expires.since(now)),
        };
        self.owe(key, &welcome.frame(), now);
        if self.is_draining {
            self.announce_drain(key, Duration::ZERO, now);
        }
        self.enter_deadline(key);
        key
    }

    /// How logs and the welcome call this session.
    pub fn session_name(&self, key: SessionKey) -> String {
        format!("{}-{}", self.worker, key.serial())
    }

    /// The connection is gone: its socket is closed or about to be. `None` if the session had ended before.
    pub fn disconnect(&mut self, key: SessionKey) -> Option<Ended> {
        self.session(key)?;
        self.leave_all(key);
        let session = self.sessions.remove(key.index());
        self.frames_waiting -= session.outbox.len();
        self.deflating_sessions -= usize::from(session.deflate.is_some());
        let code = match session.phase {
            Phase::Open => CLOSED_ABNORMALLY,
            Phase::Closing { code, .. } => code,
        };
        Some(Ended {
            code,
            subject: session.policy.subject().into(),
            messages_sent: session.messages_sent,
            bytes_sent: session.bytes_sent,
        })
    }

    /// Whether what the client says still matters: it has not closed, nor been closed.
    pub fn is_open(&self, key: SessionKey) -> bool {
        self.session(key).is_some_and(Session::is_open)
    }

    /// Something came from the client, so it is alive.
    pub fn heard(&mut self, key: SessionKey) {
        if let Some(session) = self.session_mut(key) {
            session.pong_due = Moment::NEVER;
        }
    }

    /// Whether the session was closed because it does not stop sending: nothing that it still says is worth reading.
    pub fn is_flooded_by(&self, key: SessionKey) -> bool {
        self.session(key).is_some_and(|session| session.too_fast > self.limits.commands_burst)
    }

    /// The client sent a ping frame.
    pub fn pinged(&mut self, key: SessionKey, payload: &[u8], now: Moment) {
        if self.session(key).is_some_and(Session::is_open) && self.admit_command(key, now) {
            self.owe(key, &frame::pong(payload), now);
        }
    }

    /// The client sent a pong frame. One for each of our pings is far below its rate; a flood is not.
    pub fn ponged(&mut self, key: SessionKey, now: Moment) {
        if !self.session(key).is_some_and(Session::is_open) {
            return;
        }
        self.admit_command(key, now);
        if let Some(session) = self.session_mut(key) {
            // Who is pinged may be quiet for long: an idle connection's outbox holds no memory.
            session.outbox.release();
        }
    }

    /// The client sent a text message. What the hub cannot do alone is given back.
    pub fn command(&mut self, key: SessionKey, text: &str, now: Moment) -> Option<Request> {
        if !self.session(key)?.is_open() {
            return None;
        }
        let is_too_fast = !self.admit_command(key, now);
        let (id, op, outcome) = match Command::parse(text) {
            Ok((id, command)) if is_too_fast => (Some(id), Some(command.op()), Err(too_fast())),
            Err(error) if is_too_fast => (error.id, None, Err(too_fast())),
            Ok((id, command)) => {
                let op = command.op();
                (Some(id.clone()), Some(op), self.carry_out(key, id, command, now))
            }
            Err(error) => (error.id, None, Err((error.code, error.message.into()))),
        };
        self.counters.commands.count(op, outcome.as_ref().err().map(|(code, _)| *code));
        outcome.unwrap_or_else(|(code, message)| {
            self.refuse(key, id.as_ref(), code, &message, now);
            None
        })
    }

    /// The client sent a close frame with this code.
    pub fn closed_by_client(&mut self, key: SessionKey, client_code: Option<u16>, now: Moment) {
        let Some(session) = self.session_mut(key) else { return };
        match &mut session.phase {
            Phase::Closing { by_client, .. } => {
                *by_client = true;
                self.list(key);
            }
            Phase::Open => {
                // RFC 6455 §5.5.1: answered with the same code; none means a normal closure.
                let code = client_code.unwrap_or(CloseCode::Normal.code());
                self.begin_closing(key, code, &frame::close_echo(client_code), true, now);
            }
        }
    }

    /// Closes a session in good order: what waits is written first, then the close frame.
    pub fn close(&mut self, key: SessionKey, code: CloseCode, now: Moment) {
        if self.session(key).is_some_and(Session::is_open) {
            self.begin_closing(key, code.code(), &frame::close(code), false, now);
        }
    }

    /// Closes a session and drops what waits for it.
    fn cut(&mut self, key: SessionKey, code: CloseCode, now: Moment) {
        let Some(session) = self.sessions.get_mut(key.index()).filter(|session| session.key == key) else {
            return;
        };
        let messages = session.outbox.messages();
        self.frames_waiting -= session.outbox.discard();
        if code == CloseCode::SlowConsumer {
            let dropped = messages - session.outbox.messages();
            self.subject_drops.add(session.policy.subject(), dropped as u64);
        }
        self.close(key, code, now);
    }

    // What sockets report.

    /// The next session that has something to write or whose [`Fate`] has changed.
    pub fn next_listed(&mut self) -> Option<SessionKey> {
        while let Some(key) = self.listed.pop() {
            if let Some(session) = self.session_mut(key)
                && mem::take(&mut session.is_listed)
            {
                return Some(key);
            }
        }
        None
    }

    /// What waits to be written to this session.
    pub fn outbox(&self, key: SessionKey) -> Option<&Outbox> {
        self.session(key).map(|session| &session.outbox)
    }

    /// The socket took `bytes` from the front of the outbox.
    pub fn wrote(&mut self, key: SessionKey, bytes: usize, now: Moment) {
        let Some(session) = self.sessions.get_mut(key.index()).filter(|session| session.key == key) else {
            return;
        };
        let waited = session.outbox.len();
        let mut messages = 0;
        session.outbox.advance(bytes, |received| {
            messages += 1;
            self.counters.delivery.record(now.since(received));
        });
        self.frames_waiting -= waited - session.outbox.len();
        session.stalled_at = Moment::NEVER;
        session.messages_sent += messages;
        session.bytes_sent += bytes as u64;
        self.counters.messages_sent += messages;
        self.counters.bytes_sent += bytes as u64;
    }

    /// The socket takes nothing now, with something still waiting.
    pub fn blocked(&mut self, key: SessionKey, now: Moment) {
        let stall = self.limits.write_stall;
        if let Some(session) = self.session_mut(key) {
            session.stalled_at = session.stalled_at.min(now + stall);
            self.hasten_deadline(key);
        }
    }

    /// What should happen to the connection, as far as can be said at `now`.
    pub fn fate(&self, key: SessionKey, now: Moment) -> Fate {
        match self.session(key) {
            None => Fate::Drop,
            Some(session) => match session.phase {
                Phase::Open => Fate::Open,
                Phase::Closing { until, .. } if now >= until => Fate::Drop,
                Phase::Closing { .. } if !session.outbox.is_empty() => Fate::Open,
                Phase::Closing { by_client: true, .. } => Fate::Drop,
                Phase::Closing { by_client: false, .. } => Fate::HalfClose,
            },
        }
    }

    // What comes of requests.

    /// A publish that this session asked for has an outcome.
    pub fn published(&mut self, key: SessionKey, id: &CommandId, outcome: PublishOutcome, now: Moment) {
        match outcome {
            PublishOutcome::Published => self.owe(key, &Reply::Published { id }.frame(), now),
            PublishOutcome::Unavailable => {
                let message = "the broker did not confirm in time";
                self.refuse(key, Some(id), ErrorCode::BrokerUnavailable, message, now);
            }
            PublishOutcome::Refused => {
                self.refuse(key, Some(id), ErrorCode::Internal, "the broker refused the publish", now);
            }
        }
    }

    /// The token this session sent was judged: a policy and an end, or the reason for the refusal.
    ///
    /// A fresh token must be the same subject's. If it does not grant a topic that the session is subscribed
    /// to, the session is closed as no longer allowed.
    pub fn reauthenticated(
        &mut self,
        key: SessionKey,
        id: &CommandId,
        verdict: Result<(Policy, Moment), String>,
        now: Moment,
    ) {
        let Some(session) = self.session_mut(key) else { return };
        let (policy, token_expires) = match verdict {
            Ok((policy, _)) if !policy.is_same_subject(&session.policy) => {
                let message = "the token is another subject's";
                return self.refuse(key, Some(id), ErrorCode::Unauthenticated, message, now);
            }
            Ok(fresh) => fresh,
            Err(message) => return self.refuse(key, Some(id), ErrorCode::Unauthenticated, &message, now),
        };
        session.policy = policy;
        session.token_expires = token_expires;
        session.is_warned = false;
        self.hasten_deadline(key);
        let expires_in_ms = millis(token_expires.since(now));
        self.owe(key, &Reply::Authenticated { id, expires_in_ms }.frame(), now);
        if !self.is_still_allowed(key) {
            self.close(key, CloseCode::NoLongerAllowed, now);
        }
    }

    // What the broker reports.

    /// The changes of interest since the last call.
    pub fn take_interest(&mut self) -> Vec<InterestChange> {
        mem::take(&mut self.interest)
    }

    /// A message came in, which the node had received at `received`. Says to how many outboxes it was offered, and
    /// counts compressing it as so many more as would have taken the same time.
    pub fn publish(&mut self, publication: &Publication, received: Moment, now: Moment) -> usize {
        let Some(topic) = self.topics.find(publication.topic().as_str()) else { return 0 };
        let entry = self.topics.get_mut(topic);
        if entry.subscribers.is_empty() {
            return 0;
        }
        entry.traffic.count(entry.subscribers.len(), publication.payload().len(), now);
        if let Some(class) = entry.class {
            self.class_counts[usize::from(class)].messages_offered += entry.subscribers.len() as u64;
        }
        let frame = SharedFrame::message(publication.frame().clone(), received, &self.frame_bytes);
        if self.deflating_sessions > 0 && frame.len() >= self.limits.deflate_bytes_min {
            return self.fan_out_deflated(topic, publication, &frame, received, now);
        }
        self.fan_out(topic, &frame, now)
    }

    /// The broker confirmed a topic. Sessions that may have missed something are told so, and subscribe
    /// commands that waited for it are answered. Says to how many outboxes something was offered.
    pub fn topic_live(&mut self, name: &Topic, ticket: u64, now: Moment) -> usize {
        let Some(topic) = self.topics.find(name.as_str()) else { return 0 };
        let entry = self.topics.get_mut(topic);
        if entry.ticket != ticket {
            return 0;
        }
        let waiters = mem::take(&mut entry.waiters);
        let mut offers = waiters.len();
        if let TopicState::Lost { since } = mem::replace(&mut entry.state, TopicState::Live) {
            offers += self.announce_gap(topic, GapReason::BrokerLost, now.since(since), now);
        }
        for waiter in waiters {
            self.one_topic_less(waiter, now);
        }
        offers
    }

    /// The link to the broker was lost, and what was published in the last `missing_for` may be missing. No topic is live
    /// until the broker confirms it again.
    pub fn link_lost(&mut self, missing_for: Duration, now: Moment) {
        for (key, pending) in self.pendings.iter_mut() {
            for &topic in &pending.topics {
                let entry = self.topics.get_mut(topic);
                if entry.state == TopicState::Live {
                    entry.waiters.push(key);
                    pending.missing += 1;
                }
            }
        }
        let since = now.before(missing_for);
        for entry in self.topics.iter_mut().filter(|entry| entry.state == TopicState::Live) {
            entry.state = TopicState::Lost { since };
        }
    }

    /// So many messages of this topic were dropped on the way here, the first of them `since` ago. Says to how many
    /// outboxes the gap was offered.
    pub fn topic_dropped(&mut self, name: &Topic, messages: u64, since: Duration, now: Moment) -> usize {
        let Some(topic) = self.topics.find(name.as_str()) else { return 0 };
        let told = self.announce_gap(topic, GapReason::Overload, since, now);
        self.topic_drops.add(name.as_str(), messages * told as u64);
        told
    }

    // What time brings.

    /// Lets time pass: pings, pongs overdue, tokens expiring, sockets stalled, subscribes unanswered. To be
    /// called about four times a second.
    pub fn tick(&mut self, now: Moment) {
        for (key, due) in self.deadlines.take(now) {
            if self.session(key).is_some_and(|session| session.due == due) {
                self.attend(key, now);
                self.enter_deadline(key);
            }
        }
        while let Some(overdue) = self.pendings.pop_overdue(now) {
            self.give_up(overdue, now);
        }
    }

    /// Ends the sessions with the largest backlogs as slow consumers, until about `bytes` of memory have been
    /// given back or nothing waits. Says how many sessions that were.
    pub fn cut_backlogs(&mut self, bytes: usize, now: Moment) -> usize {
        let enough = self.gauges().outbox_bytes().saturating_sub(bytes);
        let sessions = self.sessions.iter().map(|(_, session)| session).filter(|session| session.is_open());
        let mut backlogs: Vec<(usize, SessionKey)> = sessions
            .map(|session| (session.outbox.bytes(), session.key))
            .filter(|(bytes, _)| *bytes > 0)
            .collect();
        backlogs.sort_unstable_by_key(|&(bytes, _)| std::cmp::Reverse(bytes));
        let mut ended = 0;
        for (_, key) in backlogs {
            if self.gauges().outbox_bytes() <= enough {
                break;
            }
            self.cut(key, CloseCode::SlowConsumer, now);
            ended += 1;
        }
        ended
    }

    /// Totals since the hub was made.
    pub fn counters(&self) -> HubCounters {
        self.counters
    }

    /// What there is right now.
    pub fn gauges(&self) -> HubGauges {
        HubGauges {
            sessions: self.sessions.len(),
            deflating_sessions: self.deflating_sessions,
            subscriptions: self.subscriptions,
            topics: self.topics.len(),
            frames_waiting: self.frames_waiting,
            frame_bytes: self.frame_bytes.get(),
        }
    }

    /// The counts of each class, in the order of the classes.
    pub fn class_counts(&self) -> &[ClassCounts] {
        &self.class_counts
    }
}

impl Hub {
    fn session(&self, key: SessionKey) -> Option<&Session> {
        self.sessions.get(key.index()).filter(|session| session.key == key)
    }

    fn session_mut(&mut self, key: SessionKey) -> Option<&mut Session> {
        self.sessions.get_mut(key.index()).filter(|session| session.key == key)
    }
}

fn too_fast() -> Refused {
    (ErrorCode::TooFast, "too many commands: slow down".into())
}

/// Rounded up, so that a duration that is not zero does not look like it.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros().div_ceil(1000)).unwrap_or(u64::MAX)
}

/// Spreads what would otherwise happen at the same time (xorshift64).
#[derive(Debug)]
struct Jitter(u64);

impl Jitter {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A duration between zero and `most`.
    fn up_to(&mut self, most: Duration) -> Duration {
        most * (self.next() % 1024) as u32 / 1024
    }

    /// True in `some` of `all` cases.
    fn is_one_of(&mut self, some: usize, all: usize) -> bool {
        self.next() % (all as u64) < some as u64
    }
}
