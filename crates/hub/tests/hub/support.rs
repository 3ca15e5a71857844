//! The words of the tests: what was said to a client, the wire it reads that from, and a stage for stories.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use causeway_hub::{
    Fate, Grants, Hub, HubLimits, InterestChange, Moment, Outbox, Policy, Request, SessionKey,
};
use causeway_protocol::frame::{DeflateAgreement, FrameLimits, FrameReader, Inflater, Message, Role};
use causeway_protocol::{CloseCode, CommandId, Pattern, Publication, Topic};
use serde::Deserialize;
use serde_json::{Value, json};

/// Everything that a hub can say to a client.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Said {
    Welcome {
        session: String,
        node: String,
        ping_interval_ms: u64,
        expires_in_ms: u64,
    },
    Subscribed {
        id: CommandId,
        topics: Vec<String>,
        #[serde(default)]
        refused: Vec<Refused>,
    },
    Unsubscribed {
        id: Option<CommandId>,
        topics: Vec<String>,
    },
    Published {
        id: CommandId,
    },
    Authenticated {
        id: CommandId,
        expires_in_ms: u64,
    },
    Pong {
        id: CommandId,
    },
    Error {
        id: Option<CommandId>,
        code: String,
        message: Words,
        retryable: bool,
    },
    Message {
        topic: String,
        data: Value,
    },
    Gap {
        topic: String,
        reason: String,
        lasted_ms: u64,
    },
    TokenExpiring {
        in_ms: u64,
    },
    Drain {
        reconnect_in_ms: u64,
    },
    #[serde(skip)]
    PingFrame,
    #[serde(skip)]
    PongFrame(Vec<u8>),
    #[serde(skip)]
    Close(Option<u16>),
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Refused {
    pub(crate) topic: String,
    pub(crate) code: String,
    pub(crate) message: Words,
}

/// Words for people. There must be some; which is not promised, so any are equal.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Words;

impl TryFrom<String> for Words {
    type Error = &'static str;

    fn try_from(words: String) -> Result<Self, Self::Error> {
        (!words.is_empty()).then_some(Self).ok_or("a code comes with a word to people")
    }
}

impl From<Message<'_>> for Said {
    fn from(message: Message<'_>) -> Self {
        match message {
            Message::Text(text) => serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}")),
            Message::Binary(bytes) => panic!("the hub sends text only: {bytes:?}"),
            Message::Ping(payload) => {
                assert!(payload.is_empty());
                Self::PingFrame
            }
            Message::Pong(payload) => Self::PongFrame(payload.into_owned()),
            Message::Close(code) => Self::Close(code),
        }
    }
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

pub(crate) fn subscribed(id: i64, topics: &[&str], refused: &[(&str, &str)]) -> Said {
    let refused = refused
        .iter()
        .map(|(topic, code)| Refused { topic: topic.to_string(), code: code.to_string(), message: Words })
        .collect();
    Said::Subscribed { id: CommandId::Number(id), topics: owned(topics), refused }
}

pub(crate) fn unsubscribed(id: i64, topics: &[&str]) -> Said {
    Said::Unsubscribed { id: Some(CommandId::Number(id)), topics: owned(topics) }
}

pub(crate) fn error(id: impl Into<Option<i64>>, code: &str) -> Said {
    let retryable = ["too_fast", "broker_unavailable", "internal"].contains(&code);
    Said::Error { id: id.into().map(CommandId::Number), code: code.to_owned(), message: Words, retryable }
}

pub(crate) fn message(topic: &str, data: impl Into<Value>) -> Said {
    Said::Message { topic: topic.to_owned(), data: data.into() }
}

pub(crate) fn gap(topic: &str, reason: &str, lasted_ms: u64) -> Said {
    Said::Gap { topic: topic.to_owned(), reason: reason.to_owned(), lasted_ms }
}

pub(crate) fn close(code: CloseCode) -> Said {
    Said::Close(Some(code.code()))
}

/// The moment this long after the beginning of a test.
pub(crate) fn at(since_beginning: Duration) -> Moment {
    Moment::at(since_beginning)
}

/// One connection's bytes, from the hub's outbox to the client's ears.
#[derive(Debug)]
pub(crate) struct Wire {
    /// What was owed and not dropped again, each with the place in the stream where its frame ends.
    told: Vec<(Said, usize)>,
    /// How many of these the client has read whole.
    heard: usize,
    /// How many bytes the socket took.
    taken: usize,
    /// What waited when the outbox was last looked at.
    waiting: Vec<u8>,
    may_deflate: bool,
    reader: FrameReader,
}

impl Wire {
    pub(crate) fn new() -> Self {
        Self {
            told: Vec::new(),
            heard: 0,
            taken: 0,
            waiting: Vec::new(),
            may_deflate: false,
            reader: reader(false),
        }
    }

    /// Agrees on compression, before anything was said.
    fn agree_on_deflate(&mut self) {
        self.may_deflate = true;
        self.reader = reader(true);
    }

    /// What the client has read so far.
    pub(crate) fn heard(&self) -> impl Iterator<Item = &Said> {
        self.told[..self.heard].iter().map(|(said, _)| said)
    }

    pub(crate) fn bytes_taken(&self) -> usize {
        self.taken
    }

    pub(crate) fn bytes_waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn frames_waiting(&self) -> usize {
        self.told.len() - self.heard
    }

    /// What was owed since the last look. Nothing that waited may have changed, except that all of it may have
    /// been dropped save the rest of a frame begun.
    pub(crate) fn look(&mut self, outbox: &Outbox) -> Vec<Said> {
        let waiting = contents(outbox);
        if !waiting.starts_with(&self.waiting) {
            self.forget_what_was_not_begun();
        }
        let mut fresh = waiting.strip_prefix(&self.waiting[..]).expect("what waits does not change").to_vec();
        let mut unread = &mut fresh[..];
        let mut said = Vec::new();
        while !unread.is_empty() {
            let message = next(&mut reader(self.may_deflate), &mut unread).expect("frames are owed whole");
            self.told.push((message.clone(), self.taken + waiting.len() - unread.len()));
            said.push(message);
        }
        self.waiting = waiting;
        said
    }

    fn forget_what_was_not_begun(&mut self) {
        let mut starts_at = 0;
        self.told.retain(|&(_, ends_at)| std::mem::replace(&mut starts_at, ends_at) < self.taken);
        let ends_at = self.told.last().map_or(0, |&(_, ends_at)| ends_at);
        self.waiting.truncate(ends_at - self.taken);
    }

    /// Takes up to `most` bytes from the front of the outbox, as a socket would in one write, and lets the
    /// client read them. Says how many they were.
    pub(crate) fn take(&mut self, outbox: &Outbox, most: usize) -> usize {
        let mut bytes = front(outbox, 4);
        bytes.truncate(most);
        assert!(self.waiting.starts_with(&bytes), "looked at after every change");
        self.waiting.drain(..bytes.len());
        self.taken += bytes.len();
        let mut unread = &mut bytes[..];
        while let Some(said) = next(&mut self.reader, &mut unread) {
            assert_eq!(said, self.told[self.heard].0, "read as it was owed");
            self.heard += 1;
            let is_close = matches!(said, Said::Close(_));
            assert!(!is_close || unread.is_empty() && self.waiting.is_empty(), "a close frame is the last");
        }
        bytes.len()
    }
}

/// A client's.
fn reader(may_deflate: bool) -> FrameReader {
    let reader = FrameReader::new(Role::Client);
    if may_deflate { reader.with_deflate() } else { reader }
}

fn next(reader: &mut FrameReader, unread: &mut &mut [u8]) -> Option<Said> {
    let limits = FrameLimits { message_bytes_max: 1 << 20, ..FrameLimits::default() };
    let received = reader.next(unread, &limits).expect("the hub writes good frames")?;
    let message = reader.inflate(received, &mut Inflater::default(), &limits);
    Some(message.expect("the hub compresses well").into())
}

/// The bytes of the first `frames` that wait.
fn front(outbox: &Outbox, frames: usize) -> Vec<u8> {
    outbox.frames().take(frames).flatten().copied().collect()
}

/// Everything that waits.
fn contents(outbox: &Outbox) -> Vec<u8> {
    // No frame is shorter than two bytes, save the rest of one.
    let bytes = front(outbox, outbox.bytes() / 2 + 1);
    assert_eq!(bytes.len(), outbox.bytes(), "the outbox counts its bytes");
    assert_eq!(bytes.is_empty(), outbox.is_empty());
    bytes
}

/// The policy of a token that lets `subject` subscribe and publish to topics of these patterns.
pub(crate) fn policy(subject: &str, patterns: &[&str]) -> Policy {
    let patterns: Box<[Pattern]> = patterns.iter().map(|text| Pattern::parse(text).unwrap()).collect();
    Policy::new(subject, Arc::new(Grants { subscribe: patterns.clone(), publish: patterns }))
}

pub(crate) fn topic(name: &str) -> Topic {
    Topic::parse(name).unwrap()
}

pub(crate) const SECOND: Duration = Duration::from_secs(1);
/// A tick may be late by one slot of the deadlines, and comes four times a second.
pub(crate) const LATE: Duration = Duration::from_millis(550);

/// A stage with the usual limits.
pub(crate) fn stage() -> Stage {
    Stage::new(HubLimits::default())
}

/// No pings, so that nothing is heard but what the story is about.
pub(crate) fn quiet_stage() -> Stage {
    Stage::new(HubLimits { ping_interval: Duration::from_secs(86_400), ..HubLimits::default() })
}

/// A hub, its clients, a broker that confirms when told to, and a clock that moves when told to.
pub(crate) struct Stage {
    pub(crate) hub: Hub,
    now: Duration,
    clients: Vec<(SessionKey, Wire)>,
    /// What the hub wants, with its tickets.
    pub(crate) wanted: BTreeMap<String, u64>,
}

/// Somebody on the stage.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Client(usize);

impl Stage {
    pub(crate) fn new(limits: HubLimits) -> Self {
        let hub = Hub::new("a", 0, limits, 7);
        Self { hub, now: Duration::ZERO, clients: Vec::new(), wanted: BTreeMap::new() }
    }

    pub(crate) fn now(&self) -> Moment {
        Moment::at(self.now)
    }

    /// The moment in so many seconds.
    pub(crate) fn in_seconds(&self, seconds: u64) -> Moment {
        Moment::at(self.now + Duration::from_secs(seconds))
    }

    /// Connects a client that may do everything for a day, and has read its welcome.
    pub(crate) fn connect(&mut self, subject: &str) -> Client {
        let client = self.connect_with(policy(subject, &["**"]), 86_400);
        self.hears(client);
        client
    }

    pub(crate) fn connect_with(&mut self, policy: Policy, lasts_seconds: u64) -> Client {
        let key = self.hub.connect(policy, self.in_seconds(lasts_seconds), self.now());
        self.clients.push((key, Wire::new()));
        Client(self.clients.len() - 1)
    }

    /// Connects a client that offers `extensions` and is subscribed to a topic, which nobody had or all had confirmed.
    pub(crate) fn deflating_subscriber(&mut self, extensions: &str, topic: &str) -> Client {
        let agreement = DeflateAgreement::reach([extensions]).expect("a list").expect("a good offer");
        let client = self.connect_with(policy("alice", &["**"]), 86_400);
        self.hub.agree_on_deflate(self.key(client), agreement);
        self.clients[client.0].1.agree_on_deflate();
        self.subscribe(client, 0, &[topic]);
        self.confirm(topic);
        assert_eq!(self.hears(client).last(), Some(&subscribed(0, &[topic], &[])));
        client
    }

    pub(crate) fn key(&self, client: Client) -> SessionKey {
        self.clients[client.0].0
    }

    /// The client sends a command.
    pub(crate) fn says(&mut self, client: Client, command: &Value) -> Option<Request> {
        let (key, now) = (self.key(client), self.now());
        self.hub.heard(key);
        let request = self.hub.command(key, &command.to_string(), now);
        self.learn_interest();
        request
    }

    pub(crate) fn subscribe(&mut self, client: Client, id: i64, topics: &[&str]) {
        assert!(self.says(client, &json!({"id": id, "op": "subscribe", "topics": topics})).is_none());
    }

    pub(crate) fn unsubscribe(&mut self, client: Client, id: i64, topics: &[&str]) {
        assert!(self.says(client, &json!({"id": id, "op": "unsubscribe", "topics": topics})).is_none());
    }

    /// Connects a client that is subscribed to `topics` and has read that it is.
    pub(crate) fn subscriber(&mut self, subject: &str, topics: &[&str]) -> Client {
        let client = self.connect(subject);
        self.subscribe(client, 0, topics);
        topics.iter().for_each(|topic| self.confirm(topic));
        assert_eq!(self.hears(client), [subscribed(0, topics, &[])]);
        client
    }

    fn learn_interest(&mut self) {
        for change in self.hub.take_interest() {
            match change {
                InterestChange::Want(topic, ticket) => {
                    assert_eq!(self.wanted.insert(topic.to_string(), ticket), None, "asked for once");
                }
                InterestChange::Leave(topic) => {
                    assert!(self.wanted.remove(topic.as_str()).is_some(), "left once");
                }
            }
        }
    }

    /// The broker confirms a topic that is wanted.
    pub(crate) fn confirm(&mut self, name: &str) {
        let now = self.now();
        self.hub.topic_live(&topic(name), self.wanted[name], now);
    }

    pub(crate) fn publish(&mut self, name: &str, data: impl Into<Value>) {
        let publication = Publication::new(topic(name), data.into().to_string());
        let now = self.now();
        self.hub.publish(&publication, now, now);
    }

    /// The socket takes up to `most` bytes.
    pub(crate) fn writes(&mut self, client: Client, most: usize) -> usize {
        let (key, wire) = &mut self.clients[client.0];
        wire.look(self.hub.outbox(*key).expect("connected"));
        let taken = wire.take(self.hub.outbox(*key).expect("connected"), most);
        self.hub.wrote(*key, taken, Moment::at(self.now));
        taken
    }

    /// The socket takes everything; what the client has read by it.
    pub(crate) fn hears(&mut self, client: Client) -> Vec<Said> {
        let before = self.clients[client.0].1.heard().count();
        while self.writes(client, usize::MAX) > 0 {}
        self.clients[client.0].1.heard().skip(before).cloned().collect()
    }

    pub(crate) fn fate(&self, client: Client) -> Fate {
        self.hub.fate(self.key(client), self.now())
    }

    /// Time passes, with a tick four times a second.
    pub(crate) fn pass(&mut self, duration: Duration) {
        let until = self.now + duration;
        while self.now < until {
            self.now = until.min(self.now + Duration::from_millis(250));
            self.hub.tick(Moment::at(self.now));
        }
        self.learn_interest();
    }

    /// Lets time pass until the client hears something; what it is, and when.
    pub(crate) fn next_heard(&mut self, client: Client) -> (Vec<Said>, Duration) {
        loop {
            let heard = self.hears(client);
            if !heard.is_empty() {
                return (heard, self.now);
            }
            assert!(self.now < Duration::from_secs(86_400), "nothing is heard all day");
            self.pass(Duration::from_millis(250));
        }
    }
}
