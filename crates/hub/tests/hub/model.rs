//! What clients are promised, in maps and lists and without a thought for speed.
//!
//! Each event says what every session is owed for it. What only time brings may come a little late, so after
//! a tick the model judges what came instead of foretelling it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use causeway_hub::{Fate, HubLimits};
use causeway_protocol::{CloseCode, CommandId, Publication, Topic};

use crate::support::{Refused, Said, Words, close, error, gap};

/// Pings of one second leave together, at its beginning.
const UP_TO_A_SECOND: Duration = Duration::from_secs(1);
/// How late a tick may bring what is due (`deadlines.rs`: one slot of 2^18 µs).
pub(crate) const LATE: Duration = Duration::from_micros(1 << 18);

/// What each session is owed for one event, by the number of its client.
pub(crate) type Owed = BTreeMap<usize, Vec<Said>>;

/// What a token allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Grant {
    /// `**`
    All,
    /// `t.*`
    OnlyT,
}

impl Grant {
    pub(crate) fn allows(self, topic: &str) -> bool {
        match self {
            Self::All => !topic.starts_with('_'),
            Self::OnlyT => topic.starts_with("t."),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum TopicState {
    Joining,
    Live,
    Lost { since: Duration },
}

/// A subscribe command without an answer yet.
#[derive(Clone, Debug)]
struct Waiting {
    id: i64,
    topics: Vec<String>,
    refused: Vec<Refused>,
    since: Duration,
}

#[derive(Clone, Debug)]
pub(crate) struct End {
    pub(crate) code: u16,
    pub(crate) until: Duration,
    pub(crate) by_client: bool,
}

#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) subject: &'static str,
    grant: Grant,
    subscribed: BTreeSet<String>,
    waiting: Vec<Waiting>,
    /// Millionths of a command that may be sent at once, as of the second field; less than none after many topics.
    allowance: (i128, Duration),
    too_fast: u32,
    token_expires: Duration,
    /// When the token was given.
    token_since: Duration,
    is_warned: bool,
    /// The earliest and the latest moment of the next ping.
    ping: (Duration, Duration),
    pong_due: Option<Duration>,
    stalled: Option<Duration>,
    /// The earliest and the latest moment at which a drain may close it, once it was told.
    pub(crate) drained: Option<(Duration, Duration)>,
    pub(crate) end: Option<End>,
}

#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) now: Duration,
    pub(crate) limits: HubLimits,
    pub(crate) sessions: BTreeMap<usize, Session>,
    /// Every topic that somebody is subscribed to or waiting for.
    pub(crate) topics: BTreeMap<String, TopicState>,
    pub(crate) is_draining: bool,
    pub(crate) commands: u64,
    pub(crate) gaps: u64,
    pub(crate) drains: u64,
}

/// Rounded up.
pub(crate) fn millis(duration: Duration) -> u64 {
    duration.as_micros().div_ceil(1000) as u64
}

// What is owed at once.
impl Model {
    pub(crate) fn new(limits: HubLimits) -> Self {
        Self {
            now: Duration::ZERO,
            limits,
            sessions: BTreeMap::new(),
            topics: BTreeMap::new(),
            is_draining: false,
            commands: 0,
            gaps: 0,
            drains: 0,
        }
    }

    pub(crate) fn connect(
        &mut self,
        client: usize,
        (subject, grant): (&'static str, Grant),
        token_expires: Duration,
        session: String,
    ) -> Owed {
        let interval = self.limits.ping_interval;
        let new = Session {
            subject,
            grant,
            subscribed: BTreeSet::new(),
            waiting: Vec::new(),
            allowance: (i128::from(self.limits.commands_burst) * 1_000_000, self.now),
            too_fast: 0,
            token_expires,
            token_since: self.now,
            is_warned: false,
            ping: (self.now + interval / 2 - UP_TO_A_SECOND, self.now + interval),
            pong_due: None,
            stalled: None,
            drained: None,
            end: None,
        };
        self.sessions.insert(client, new);
        let mut owed = vec![Said::Welcome {
            session,
            node: "a".to_owned(),
            ping_interval_ms: millis(interval),
            expires_in_ms: millis(token_expires.saturating_sub(self.now)),
        }];
        if self.is_draining {
            self.drains += 1;
            owed.push(Said::Drain { reconnect_in_ms: 0 });
        }
        Owed::from([(client, owed)])
    }

    fn open(&mut self) -> impl Iterator<Item = (usize, &mut Session)> {
        self.sessions
            .iter_mut()
            .filter(|(_, session)| session.end.is_none())
            .map(|(&n, session)| (n, session))
    }

    pub(crate) fn is_open(&self, client: usize) -> bool {
        self.sessions[&client].end.is_none()
    }

    fn session(&mut self, client: usize) -> &mut Session {
        self.sessions.get_mut(&client).expect("a client that is connected")
    }

    fn is_live(&self, topic: &str) -> bool {
        self.topics.get(topic) == Some(&TopicState::Live)
    }

    /// What any command is owed: `carry_out` says what this one is, if it may be carried out at all.
    pub(crate) fn command(
        &mut self,
        client: usize,
        id: Option<i64>,
        carry_out: impl FnOnce(&mut Self) -> Vec<Said>,
    ) -> Owed {
        if !self.is_open(client) {
            return Owed::new();
        }
        self.commands += 1;
        let owed = match self.admit(client) {
            Ok(()) => carry_out(self),
            Err(closed) if closed.is_empty() => vec![error(id, "too_fast")],
            Err(closed) => closed,
        };
        Owed::from([(client, owed)])
    }

    pub(crate) fn ping_frame(&mut self, client: usize, payload: &[u8]) -> Owed {
        if !self.is_open(client) {
            return Owed::new();
        }
        let pong = vec![Said::PongFrame(payload.to_vec())];
        let owed = self.admit(client).map_or_else(|closed| closed, |()| pong);
        Owed::from([(client, owed)])
    }

    /// A bucket that holds `commands_burst` and is filled with `commands_per_second`. Whoever goes on after a
    /// whole burst was refused is closed.
    fn admit(&mut self, client: usize) -> Result<(), Vec<Said>> {
        let (now, rate, burst) = (self.now, self.limits.commands_per_second, self.limits.commands_burst);
        let session = self.session(client);
        let (left, since) = session.allowance;
        let filled = left + (now - since).as_micros() as i128 * i128::from(rate);
        let filled = filled.min(i128::from(burst) * 1_000_000);
        session.allowance = (filled, now);
        if filled >= 1_000_000 {
            session.allowance.0 -= 1_000_000;
            session.too_fast = session.too_fast.saturating_sub(1);
            return Ok(());
        }
        session.too_fast += 1;
        if session.too_fast > burst {
            Err(self.close(client, CloseCode::TooManyCommands))
        } else {
            Err(vec![])
        }
    }

    /// Each sixteen topics that a command names count as one command more.
    fn count_topics(&mut self, client: usize, names: &[String]) {
        self.session(client).allowance.0 -= names.len() as i128 / 16 * 1_000_000;
    }

    pub(crate) fn subscribe(&mut self, client: usize, id: i64, names: &[String]) -> Vec<Said> {
        self.count_topics(client, names);
        let (mut topics, mut refused) = (Vec::new(), Vec::new());
        let session = &self.sessions[&client];
        let waiting = session.waiting.iter().map(|waiting| waiting.topics.len() + waiting.refused.len());
        if waiting.sum::<usize>() + names.len() > 2 * self.limits.topics_per_session {
            return vec![error(id, "limit_exceeded")];
        }
        let mut has: BTreeSet<&String> = session.subscribed.iter().collect();
        has.extend(session.waiting.iter().flat_map(|waiting| &waiting.topics));
        for name in names {
            let code = match () {
                () if Topic::parse(name).is_err() => "bad_topic",
                () if !session.grant.allows(name) => "forbidden",
                () if !has.contains(name) && has.len() >= self.limits.topics_per_session => "limit_exceeded",
                () => {
                    has.insert(name);
                    if !topics.contains(name) {
                        topics.push(name.clone());
                    }
                    continue;
                }
            };
            refused.push(Refused { topic: name.clone(), code: code.to_owned(), message: Words });
        }
        let since = self.now;
        self.session(client).waiting.push(Waiting { id, topics, refused, since });
        self.answer_what_is_live(client)
    }

    /// A subscribe is answered as soon as all of its topics are live.
    fn answer_what_is_live(&mut self, client: usize) -> Vec<Said> {
        let waiting = std::mem::take(&mut self.session(client).waiting);
        let (live, waiting): (Vec<_>, Vec<_>) = waiting
            .into_iter()
            .partition(|waiting: &Waiting| waiting.topics.iter().all(|topic| self.is_live(topic)));
        self.session(client).waiting = waiting;
        live.into_iter().map(|live| self.answer(client, live)).collect()
    }

    fn answer(&mut self, client: usize, Waiting { id, topics, refused, .. }: Waiting) -> Said {
        assert!(topics.iter().all(|topic| self.is_live(topic)));
        self.session(client).subscribed.extend(topics.iter().cloned());
        Said::Subscribed { id: CommandId::Number(id), topics, refused }
    }

    pub(crate) fn unsubscribe(&mut self, client: usize, id: i64, names: &[String]) -> Vec<Said> {
        self.count_topics(client, names);
        if names.len() > 2 * self.limits.topics_per_session {
            return vec![error(id, "limit_exceeded")];
        }
        let mut owed: Vec<Said> = names.iter().flat_map(|name| self.leave(client, name)).collect();
        owed.push(Said::Unsubscribed { id: Some(CommandId::Number(id)), topics: names.to_vec() });
        owed
    }

    fn leave(&mut self, client: usize, name: &str) -> Vec<Said> {
        for waiting in &mut self.session(client).waiting {
            waiting.topics.retain(|topic| topic != name);
        }
        self.session(client).subscribed.remove(name);
        self.answer_what_is_live(client)
    }

    /// An operator ends what the open sessions of this subject have of a topic.
    pub(crate) fn end_subscriptions(&mut self, subject: &str, name: &str) -> Owed {
        let is_meant = |session: &Session| {
            let mut waiting = session.waiting.iter().flat_map(|waiting| &waiting.topics);
            session.subject == subject
                && (session.subscribed.contains(name) || waiting.any(|other| other == name))
        };
        let meant: Vec<usize> =
            self.open().filter(|(_, session)| is_meant(session)).map(|(client, _)| client).collect();
        let told = Said::Unsubscribed { id: None, topics: vec![name.to_owned()] };
        meant
            .into_iter()
            .map(|client| (client, [self.leave(client, name), vec![told.clone()]].concat()))
            .collect()
    }

    /// What a publish command is owed if it goes no further.
    pub(crate) fn refuse_publish(&self, client: usize, id: i64, topic: &str, data_bytes: usize) -> Vec<Said> {
        let code = match () {
            () if Topic::parse(topic).is_err() => "bad_topic",
            () if data_bytes > self.limits.publish_bytes => "too_large",
            () if !self.sessions[&client].grant.allows(topic) => "forbidden",
            () => return Vec::new(),
        };
        vec![error(id, code)]
    }

    pub(crate) fn reply(&self, client: usize, reply: Said) -> Owed {
        match self.sessions.get(&client) {
            Some(session) if session.end.is_none() => Owed::from([(client, vec![reply])]),
            _ => Owed::new(),
        }
    }

    pub(crate) fn reauthenticated(
        &mut self,
        client: usize,
        id: i64,
        fresh: Option<(&str, Grant, Duration)>,
    ) -> Owed {
        if self.sessions.get(&client).is_none_or(|session| session.end.is_some()) {
            return Owed::new();
        }
        let now = self.now;
        let session = self.session(client);
        let Some((_, grant, token_expires)) = fresh.filter(|(subject, ..)| *subject == session.subject)
        else {
            return self.reply(client, error(id, "unauthenticated"));
        };
        (session.grant, session.token_expires) = (grant, token_expires);
        (session.token_since, session.is_warned) = (now, false);
        let expires_in_ms = millis(token_expires.saturating_sub(now));
        let mut owed = vec![Said::Authenticated { id: CommandId::Number(id), expires_in_ms }];
        let waiting = session.waiting.iter().flat_map(|waiting| &waiting.topics);
        if !session.subscribed.iter().chain(waiting).all(|topic| grant.allows(topic)) {
            owed.extend(self.close(client, CloseCode::NoLongerAllowed));
        }
        Owed::from([(client, owed)])
    }

    /// The session ends with `code`: it leaves everything and is owed a close frame.
    pub(crate) fn close(&mut self, client: usize, code: CloseCode) -> Vec<Said> {
        if !self.is_open(client) {
            return Vec::new();
        }
        self.end(client, code.code(), false);
        vec![close(code)]
    }

    pub(crate) fn closed_by_client(&mut self, client: usize, code: Option<u16>) -> Owed {
        if let Some(end) = &mut self.session(client).end {
            end.by_client = true;
            return Owed::new();
        }
        self.end(client, code.unwrap_or(1000), true);
        Owed::from([(client, vec![Said::Close(code)])])
    }

    fn end(&mut self, client: usize, code: u16, by_client: bool) {
        let until = self.now + self.limits.close_timeout;
        let session = self.session(client);
        session.end = Some(End { code, until, by_client });
        session.subscribed.clear();
        session.waiting.clear();
    }

    pub(crate) fn to_subscribers(&self, topic: &str, said: &Said) -> Owed {
        let subscribers = self.sessions.iter().filter(|(_, session)| session.subscribed.contains(topic));
        subscribers.map(|(&client, _)| (client, vec![said.clone()])).collect()
    }

    pub(crate) fn gap(&mut self, topic: &str, reason: &str, lasted: Duration) -> Owed {
        let owed = self.to_subscribers(topic, &gap(topic, reason, millis(lasted)));
        self.gaps += owed.len() as u64;
        owed
    }

    pub(crate) fn topic_live(&mut self, topic: &str) -> Owed {
        let mut owed = Owed::new();
        if let Some(TopicState::Lost { since }) = self.topics.insert(topic.to_owned(), TopicState::Live) {
            owed = self.gap(topic, "broker_lost", self.now - since);
        }
        for client in self.sessions.keys().copied().collect::<Vec<_>>() {
            owed.entry(client).or_default().extend(self.answer_what_is_live(client));
        }
        owed
    }

    pub(crate) fn link_lost(&mut self, missing_for: Duration) {
        let since = self.now.saturating_sub(missing_for);
        for state in self.topics.values_mut().filter(|state| **state == TopicState::Live) {
            *state = TopicState::Lost { since };
        }
    }

    /// Whoever may be told to go.
    pub(crate) fn staying(&mut self) -> Vec<usize> {
        let staying = self.open().filter(|(_, session)| session.drained.is_none());
        staying.map(|(client, _)| client).collect()
    }

    /// These are told to go.
    pub(crate) fn drain(&mut self, leaving: &[usize]) -> Owed {
        self.drains += leaving.len() as u64;
        leaving.iter().map(|&client| (client, vec![Said::Drain { reconnect_in_ms: 0 }])).collect()
    }

    pub(crate) fn heard(&mut self, client: usize) {
        self.session(client).pong_due = None;
    }

    pub(crate) fn wrote(&mut self, client: usize) {
        self.session(client).stalled = None;
    }

    pub(crate) fn blocked(&mut self, client: usize) {
        let stalled = self.now + self.limits.write_stall;
        self.session(client).stalled.get_or_insert(stalled);
    }

    pub(crate) fn fate(&self, client: usize, nothing_waits: bool) -> Fate {
        match &self.sessions[&client].end {
            None => Fate::Open,
            Some(end) if self.now >= end.until => Fate::Drop,
            Some(_) if !nothing_waits => Fate::Open,
            Some(end) if end.by_client => Fate::Drop,
            Some(_) => Fate::HalfClose,
        }
    }

    pub(crate) fn subscriptions(&self) -> usize {
        self.sessions.values().map(|session| session.subscribed.len()).sum()
    }

    /// Topics nobody wants are forgotten; those newly wanted have to be confirmed.
    pub(crate) fn refresh_topics(&mut self) {
        let wanted: BTreeSet<&String> = (self.sessions.values())
            .flat_map(|s| s.subscribed.iter().chain(s.waiting.iter().flat_map(|waiting| &waiting.topics)))
            .collect();
        self.topics.retain(|topic, _| wanted.contains(topic));
        for topic in wanted {
            if !self.topics.contains_key(topic) {
                self.topics.insert(topic.clone(), TopicState::Joining);
            }
        }
    }
}

// Judging what was owed.
impl Model {
    /// Compares what a session was told with what it was owed.
    pub(crate) fn told(&mut self, client: usize, waited: usize, told: &[Said], owed: Vec<Said>) {
        if told.last() == Some(&close(CloseCode::SlowConsumer)) {
            return self.overflowed(client, waited, told, &owed);
        }
        let mut told = told.to_vec();
        for said in &mut told {
            if let Said::Drain { reconnect_in_ms } = said {
                self.told_to_drain(client, std::mem::take(reconnect_in_ms));
            }
        }
        assert_eq!(
            told.iter().position(|said| matches!(said, Said::Close(_))).map(|at| at + 1),
            owed.iter().any(|said| matches!(said, Said::Close(_))).then_some(told.len()),
            "a close frame is the last: {told:?}, owed {owed:?}"
        );
        // In which order the answers to several commands come is not promised.
        let sorted = |mut said: Vec<Said>| {
            said.sort_by_key(|said| format!("{said:?}"));
            said
        };
        assert_eq!(sorted(told), sorted(owed), "told and owed to client {client}");
    }

    /// It is closed half a second to a second before it comes back.
    fn told_to_drain(&mut self, client: usize, reconnect_in_ms: u64) {
        let back = self.now + Duration::from_millis(reconnect_in_ms);
        let earliest = back.saturating_sub(Duration::from_millis(1001)).max(self.now);
        let latest = back.checked_sub(Duration::from_millis(500)).expect("a pause");
        assert!(latest >= self.now, "{reconnect_in_ms} ms are too short a pause");
        assert_eq!(self.session(client).drained.replace((earliest, latest)), None, "told once");
    }

    /// The session was cut while it was owed something: that must have been too much.
    fn overflowed(&mut self, client: usize, waited: usize, told: &[Said], owed: &[Said]) {
        assert_eq!(told.len(), 1, "a cut drops what was just owed: {told:?}");
        let most = waited + owed.iter().map(bytes_at_most).sum::<usize>();
        assert!(most > self.limits.outbox_bytes, "cut with {most} bytes at most: {owed:?}");
        assert!(waited > 0 || owed.len() > 1, "an empty outbox takes any frame");
        self.end(client, CloseCode::SlowConsumer.code(), false);
    }

    /// Judges what a tick brought one session.
    pub(crate) fn tick_brought(&mut self, client: usize, waited: usize, told: &[Said]) {
        for (at, said) in told.iter().enumerate() {
            match said {
                Said::Close(code) => {
                    assert_eq!(at + 1, told.len(), "a close frame is the last: {told:?}");
                    self.tick_closed(client, waited, code.expect("ours have codes"));
                }
                said => self.tick_said(client, said),
            }
        }
        self.assert_nothing_is_overdue(client);
    }

    fn tick_said(&mut self, client: usize, said: &Said) {
        let (now, limits) = (self.now, self.limits.clone());
        let session = self.session(client);
        match said {
            Said::PingFrame => {
                assert!(now >= session.ping.0, "a ping comes too early");
                session.ping = (now + limits.ping_interval - UP_TO_A_SECOND, now + limits.ping_interval);
                session.pong_due.get_or_insert(now + limits.pong_timeout);
            }
            Said::TokenExpiring { in_ms } => {
                assert!(!session.is_warned, "warned once");
                assert_eq!(*in_ms, millis(session.token_expires - now));
                assert!(*in_ms <= millis(limits.token_warning), "warned too early");
                session.is_warned = true;
            }
            Said::Subscribed { id, .. } => assert_eq!(self.give_up(client, id), *said),
            said => panic!("time does not bring {said:?}"),
        }
    }

    fn give_up(&mut self, client: usize, id: &CommandId) -> Said {
        let (now, timeout) = (self.now, self.limits.subscribe_timeout);
        let session = self.session(client);
        let at = session.waiting.iter().position(|waiting| CommandId::Number(waiting.id) == *id);
        let mut waiting = session.waiting.remove(at.expect("a subscribe is answered once"));
        assert!(now >= waiting.since + timeout, "given up too early");
        let (live, lost) = waiting.topics.into_iter().partition(|topic| self.is_live(topic));
        waiting.topics = live;
        let lost: Vec<String> = lost;
        let code = || "broker_unavailable".to_owned();
        waiting.refused.extend(lost.into_iter().map(|topic| Refused { topic, code: code(), message: Words }));
        self.answer(client, waiting)
    }

    fn tick_closed(&mut self, client: usize, waited: usize, code: u16) {
        let now = self.now;
        let most_owed = self.time_brings_at_most(client);
        let is_full = waited + most_owed > self.limits.outbox_bytes;
        let session = self.session(client);
        let is_past = |due: Option<Duration>| due.is_some_and(|due| now >= due);
        let is_right = match code {
            1012 => is_past(session.drained.map(|(earliest, _)| earliest)),
            4401 => is_past(Some(session.token_expires)),
            4408 => is_past(session.pong_due),
            4413 => is_past(session.stalled) || is_full,
            _ => false,
        };
        assert!(is_right, "closed with {code}: {session:?}");
        self.end(client, code, false);
    }

    /// The most bytes that one tick can owe a session.
    fn time_brings_at_most(&self, client: usize) -> usize {
        let answers = self.sessions[&client].waiting.iter().map(|waiting| {
            let topics = waiting.topics.iter().map(|topic| topic.len() + 150).sum::<usize>();
            topics + waiting.refused.iter().map(refused_bytes_at_most).sum::<usize>() + 150
        });
        answers.sum::<usize>() + 150
    }

    fn assert_nothing_is_overdue(&mut self, client: usize) {
        let (now, limits) = (self.now, self.limits.clone());
        let session = self.session(client);
        if session.end.is_some() {
            return;
        }
        let overdue = |due: Option<Duration>| due.is_some_and(|due| due + LATE <= now);
        assert!(!overdue(Some(session.token_expires)), "not closed at the token's end");
        let warning = session.token_expires.saturating_sub(limits.token_warning).max(session.token_since);
        assert!(session.is_warned || !overdue(Some(warning)), "not warned of the token's end");
        assert!(!overdue(Some(session.ping.1)), "not pinged");
        assert!(!overdue(session.pong_due), "not closed without a pong");
        assert!(!overdue(session.stalled), "not cut when stalled");
        assert!(!overdue(session.drained.map(|(_, latest)| latest)), "not drained");
        for waiting in &session.waiting {
            assert!(now < waiting.since + limits.subscribe_timeout, "not given up: {waiting:?}");
        }
    }
}

fn refused_bytes_at_most(refused: &Refused) -> usize {
    refused.topic.len() + 200
}

/// No frame that says this is longer.
fn bytes_at_most(said: &Said) -> usize {
    match said {
        Said::Message { topic, data } => {
            Publication::new(Topic::parse(topic).expect("published"), data.to_string()).frame().len()
        }
        Said::Subscribed { topics, refused, .. } => {
            let topics = topics.iter().map(|topic| topic.len() + 3).sum::<usize>();
            topics + refused.iter().map(refused_bytes_at_most).sum::<usize>() + 60
        }
        Said::Unsubscribed { topics, .. } => topics.iter().map(|topic| topic.len() + 3).sum::<usize>() + 60,
        Said::Error { .. } => 250,
        Said::Close(_) => 0,
        _ => 110,
    }
}
