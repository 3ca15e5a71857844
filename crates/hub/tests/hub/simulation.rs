//! Random histories of clients, sockets, a broker and a clock, played against the hub and the model at once.
//!
//! After every event: what each session was told is what the model says it was owed, in the bytes that were
//! owed before and nothing else; the interest told to the broker is what sessions want; the books are right.
//! In the end every client has read everything it was owed, and nothing is left when all have gone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use causeway_hub::{
    Ended, Fate, Hub, HubCounters, HubGauges, HubLimits, InterestChange, Policy, PublishOutcome, Request,
    SessionKey,
};
use causeway_protocol::{CloseCode, CommandId, Publication, Topic};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::json;

use crate::model::{Grant, LATE, Model, Owed, TopicState};
use crate::support::{self, Said, Wire, at, close, error, message};

const HISTORIES: u64 = 2000;
const STEPS: usize = 100;
const CLIENTS_MAX: usize = 6;
const TOPICS: [&str; 6] = ["t.0", "t.1", "t.2", "t.3", "u.0", "u.1"];
const NAMES: [&str; 10] = ["t.0", "t.1", "t.2", "t.3", "u.0", "u.1", "_causeway", "not a topic", "", "t..1"];

/// What every run must have met, or it has proved less than it seems.
const MUST_BE_MET: &str = "welcome, subscribed, given up, unsubscribed, published, authenticated, pong, message, \
    refused bad_topic, refused forbidden, refused limit_exceeded, refused broker_unavailable, \
    error malformed, error unknown_op, error bad_topic, error forbidden, error too_fast, error too_large, \
    error limit_exceeded, \
    error unauthenticated, error broker_unavailable, error internal, gap broker_lost, gap overload, \
    token expiring, drain, ping, pong frame, cut inside a frame, close, close 1000, close 1002, close 1012, \
    close 4401, close 4403, close 4408, close 4413, close 4429";

fn limits() -> HubLimits {
    HubLimits {
        topics_per_session: 4,
        outbox_bytes: 700,
        publish_bytes: 30,
        commands_per_second: 10,
        commands_burst: 5,
        ping_interval: Duration::from_secs(4),
        pong_timeout: Duration::from_secs(2),
        subscribe_timeout: Duration::from_secs(3),
        write_stall: Duration::from_secs(3),
        close_timeout: Duration::from_secs(1),
        token_warning: Duration::from_secs(5),
    }
}

/// What a socket takes in one write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Socket {
    Fast,
    Slow,
    Stuck,
}

#[derive(Debug)]
struct Client {
    key: SessionKey,
    wire: Wire,
    socket: Socket,
    /// Whether the socket was reported as blocked and has not become writable since.
    is_blocked: bool,
    /// Whether pings and close frames are answered.
    is_polite: bool,
}

/// The broker's side.
#[derive(Debug)]
struct Broker {
    is_linked: bool,
    /// What the hub wants, with its tickets.
    wanted: BTreeMap<String, u64>,
    /// Tickets of wishes that were withdrawn.
    stale: Vec<(String, u64)>,
    latest_ticket: u64,
}

struct History {
    random: StdRng,
    hub: Hub,
    model: Model,
    broker: Broker,
    clients: BTreeMap<usize, Client>,
    gone: Vec<SessionKey>,
    requests: Vec<(usize, SessionKey, Request)>,
    /// Sessions that the hub listed and that were not attended to since.
    listed: BTreeSet<usize>,
    clients_ever: usize,
    commands_ever: i64,
    messages_ever: u64,
    /// Messages and bytes written to the clients that are gone.
    sent: (u64, u64),
    met: BTreeSet<String>,
}

#[test]
fn whatever_happens_everyone_is_told_exactly_what_they_are_owed() {
    let number = |name: &str| std::env::var(name).ok().map(|value| value.parse().expect("a number"));
    if let Some(seed) = number("CAUSEWAY_SEED") {
        play(seed);
        return;
    }
    let met: BTreeSet<String> =
        (0..number("CAUSEWAY_HISTORIES").unwrap_or(HISTORIES)).flat_map(play).collect();
    let missing: Vec<&str> = MUST_BE_MET.split(", ").filter(|label| !met.contains(*label)).collect();
    assert!(missing.is_empty(), "never met: {missing:?}");
}

/// Tells how to see a failure again.
struct Replay(u64);

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let seed = self.0;
            eprintln!(
                "to see this again: CAUSEWAY_SEED={seed} cargo nextest run -p causeway-hub whatever_happens"
            );
        }
    }
}

fn play(seed: u64) -> BTreeSet<String> {
    let _replay = Replay(seed);
    let mut history = History::new(seed);
    for _ in 0..STEPS {
        history.step();
    }
    history.end()
}

impl History {
    fn new(seed: u64) -> Self {
        let broker = Broker { is_linked: true, wanted: BTreeMap::new(), stale: Vec::new(), latest_ticket: 0 };
        Self {
            random: StdRng::seed_from_u64(seed),
            hub: Hub::new("a", 3, limits(), seed),
            model: Model::new(limits()),
            broker,
            clients: BTreeMap::new(),
            gone: Vec::new(),
            requests: Vec::new(),
            listed: BTreeSet::new(),
            clients_ever: 0,
            commands_ever: 0,
            messages_ever: 0,
            sent: (0, 0),
            met: BTreeSet::new(),
        }
    }

    fn step(&mut self) {
        match self.random.random_range(0..1000) {
            0..60 => self.connect(),
            60..210 => self.subscribe(),
            210..260 => self.unsubscribe(),
            260..290 => self.command_publish(),
            290..320 => self.odd_command(),
            320..340 => self.authenticate(),
            340..350 => self.chatter(),
            350..370 => self.ping_frame(),
            370..440 => self.answer_request(),
            440..590 => self.topic_live(),
            590..740 => self.publish(),
            740..755 => self.topic_dropped(),
            755..775 => self.lose_link(),
            775..795 => self.broker.is_linked = true,
            795..875 => self.flush(),
            875..890 => self.change_socket(),
            890..920 => self.writable(),
            920..925 => self.close(),
            925..930 => self.client_closes(),
            930..935 => self.disconnect(),
            935..940 => self.use_a_stale_key(),
            940..942 => self.drain(),
            _ => self.tick(),
        }
    }

    /// One of the clients, if there are any.
    fn someone(&mut self) -> Option<usize> {
        let clients: Vec<usize> = self.clients.keys().copied().collect();
        clients.choose(&mut self.random).copied()
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.random.random_ratio(percent, 100)
    }

    fn pass(&mut self, milliseconds_max: u64) {
        self.model.now += Duration::from_micros(self.random.random_range(0..=milliseconds_max * 1000));
    }

    fn names(&mut self) -> Vec<String> {
        let most = if self.chance(5) { 12 } else { 4 };
        let count = self.random.random_range(1..=most);
        (0..count).map(|_| NAMES.choose(&mut self.random).expect("some").to_string()).collect()
    }

    fn a_topic(&mut self) -> String {
        TOPICS.choose(&mut self.random).expect("some").to_string()
    }

    fn a_token(&mut self) -> (&'static str, Grant, Duration) {
        let subject = if self.chance(85) { "alice" } else { "bob" };
        let grant = if self.chance(75) { Grant::All } else { Grant::OnlyT };
        (subject, grant, self.model.now + Duration::from_millis(self.random.random_range(1..40_000)))
    }
}

fn policy(subject: &str, grant: Grant) -> Policy {
    let pattern = match grant {
        Grant::All => "**",
        Grant::OnlyT => "t.*",
    };
    support::policy(subject, &[pattern])
}

// What connections do.
impl History {
    fn connect(&mut self) {
        if self.clients.len() == CLIENTS_MAX {
            return;
        }
        let (subject, grant, token_expires) = self.a_token();
        let key = self.hub.connect(policy(subject, grant), at(token_expires), at(self.model.now));
        assert!(!self.gone.contains(&key), "a key names one session for ever");
        let client = self.clients_ever;
        self.clients_ever += 1;
        let is_polite = self.chance(90);
        let new = Client { key, wire: Wire::new(), socket: Socket::Fast, is_blocked: false, is_polite };
        self.clients.insert(client, new);
        let name = self.hub.session_name(key);
        let owed = self.model.connect(client, (subject, grant), token_expires, name);
        self.settle(owed);
    }

    /// Sends one text message and gives back the request that came of it.
    fn send(&mut self, client: usize, text: &str) -> Option<Request> {
        let key = self.clients[&client].key;
        self.hub.heard(key);
        self.model.heard(client);
        self.hub.command(key, text, at(self.model.now))
    }

    fn command_id(&mut self) -> i64 {
        self.commands_ever += 1;
        self.commands_ever
    }

    fn subscribe(&mut self) {
        let Some(client) = self.someone() else { return };
        let (id, names) = (self.command_id(), self.names());
        let text = json!({"id": id, "op": "subscribe", "topics": names}).to_string();
        assert!(self.send(client, &text).is_none());
        let owed = self.model.command(client, Some(id), |model| model.subscribe(client, id, &names));
        self.settle(owed);
    }

    fn unsubscribe(&mut self) {
        let Some(client) = self.someone() else { return };
        let (id, names) = (self.command_id(), self.names());
        let text = json!({"id": id, "op": "unsubscribe", "topics": names}).to_string();
        assert!(self.send(client, &text).is_none());
        let owed = self.model.command(client, Some(id), |model| model.unsubscribe(client, id, &names));
        self.settle(owed);
    }

    fn command_publish(&mut self) {
        let Some(client) = self.someone() else { return };
        let (id, topic) = (self.command_id(), self.names().remove(0));
        let data = "x".repeat(self.random.random_range(0..40));
        let text = json!({"id": id, "op": "publish", "topic": topic, "data": data}).to_string();
        let request = self.send(client, &text);
        let mut is_allowed = false;
        let owed = self.model.command(client, Some(id), |model| {
            let refusal = model.refuse_publish(client, id, &topic, data.len() + 2);
            is_allowed = refusal.is_empty();
            refusal
        });
        assert_eq!(request.is_some(), is_allowed);
        if let Some(request) = request {
            let Request::Publish { id: asked, permit, data: bytes } = &request else { panic!("{request:?}") };
            assert_eq!((asked, permit.topic().as_str()), (&CommandId::Number(id), &topic[..]));
            assert_eq!(bytes[..], *json!(data).to_string().as_bytes());
            self.requests.push((client, self.clients[&client].key, request));
        }
        self.settle(owed);
    }

    fn odd_command(&mut self) {
        let Some(client) = self.someone() else { return };
        let id = self.command_id();
        let (text, id, reply) = match self.random.random_range(0..4) {
            0 => ("}{".to_owned(), None, error(None, "malformed")),
            1 => (json!({"id": id, "op": "subscribe"}).to_string(), Some(id), error(id, "malformed")),
            2 => (json!({"id": id, "op": "dance"}).to_string(), Some(id), error(id, "unknown_op")),
            _ => {
                let pong = Said::Pong { id: CommandId::Number(id) };
                (json!({"id": id, "op": "ping"}).to_string(), Some(id), pong)
            }
        };
        assert!(self.send(client, &text).is_none());
        let owed = self.model.command(client, id, |_| vec![reply]);
        self.settle(owed);
    }

    fn authenticate(&mut self) {
        let Some(client) = self.someone() else { return };
        let id = self.command_id();
        let request =
            self.send(client, &json!({"id": id, "op": "authenticate", "token": "a.b.c"}).to_string());
        let mut is_allowed = false;
        let owed = self.model.command(client, Some(id), |_| {
            is_allowed = true;
            Vec::new()
        });
        assert_eq!(request.is_some(), is_allowed);
        self.requests.extend(request.map(|request| (client, self.clients[&client].key, request)));
        self.settle(owed);
    }

    /// More commands than are allowed.
    fn chatter(&mut self) {
        let Some(client) = self.someone() else { return };
        for _ in 0..self.random.random_range(4..16) {
            if self.clients.contains_key(&client) {
                let id = self.command_id();
                assert!(self.send(client, &json!({"id": id, "op": "ping"}).to_string()).is_none());
                let pong = Said::Pong { id: CommandId::Number(id) };
                let owed = self.model.command(client, Some(id), |_| vec![pong]);
                self.settle(owed);
            }
        }
    }

    fn ping_frame(&mut self) {
        let Some(client) = self.someone() else { return };
        let key = self.clients[&client].key;
        self.hub.heard(key);
        self.model.heard(client);
        self.hub.pinged(key, b"there?", at(self.model.now));
        let owed = self.model.ping_frame(client, b"there?");
        self.settle(owed);
    }

    fn answer_request(&mut self) {
        if self.requests.is_empty() {
            return;
        }
        let at_random = self.random.random_range(0..self.requests.len());
        let (client, key, request) = self.requests.swap_remove(at_random);
        match request {
            Request::Publish { id, .. } => self.publish_outcome(client, key, &id),
            Request::Authenticate { id, .. } => self.verdict(client, key, &id),
        }
    }

    fn publish_outcome(&mut self, client: usize, key: SessionKey, id: &CommandId) {
        let CommandId::Number(number) = *id else { panic!("ours are numbers") };
        let (outcome, reply) = match self.random.random_range(0..3) {
            0 => (PublishOutcome::Published, Said::Published { id: id.clone() }),
            1 => (PublishOutcome::Unavailable, error(number, "broker_unavailable")),
            _ => (PublishOutcome::Refused, error(number, "internal")),
        };
        self.hub.published(key, id, &outcome, at(self.model.now));
        let owed = self.model.reply(client, reply);
        self.settle(owed);
    }

    fn verdict(&mut self, client: usize, key: SessionKey, id: &CommandId) {
        let CommandId::Number(number) = *id else { panic!("ours are numbers") };
        let fresh = self.a_token();
        let fresh = self.chance(80).then_some(fresh);
        let verdict = fresh
            .map(|(subject, grant, expires)| (policy(subject, grant), at(expires)))
            .ok_or_else(|| "the signature is wrong".to_owned());
        self.hub.reauthenticated(key, id, verdict, at(self.model.now));
        let owed = self.model.reauthenticated(client, number, fresh);
        self.settle(owed);
    }

    /// The connection found a fault in what the client sent.
    fn close(&mut self) {
        let Some(client) = self.someone() else { return };
        self.hub.close(self.clients[&client].key, CloseCode::ProtocolError, at(self.model.now));
        let owed = self.model.close(client, CloseCode::ProtocolError);
        self.settle(Owed::from([(client, owed)]));
    }

    fn client_closes(&mut self) {
        let Some(client) = self.someone() else { return };
        let code = *[None, Some(1000), Some(1001), Some(3999)].choose(&mut self.random).expect("some");
        self.client_sends_close(client, code);
    }

    fn client_sends_close(&mut self, client: usize, code: Option<u16>) {
        self.hub.closed_by_client(self.clients[&client].key, code, at(self.model.now));
        let owed = self.model.closed_by_client(client, code);
        self.settle(owed);
    }

    fn disconnect(&mut self) {
        let Some(client) = self.someone() else { return };
        self.disconnect_client(client);
    }

    fn disconnect_client(&mut self, client: usize) {
        let Client { key, wire, .. } = self.clients.remove(&client).expect("someone connected");
        let session = self.model.sessions.remove(&client).expect("someone connected");
        let messages = wire.heard().filter(|said| matches!(said, Said::Message { .. })).count();
        let ended = Ended {
            code: session.end.map_or(1006, |end| end.code),
            subject: session.subject.into(),
            messages_sent: messages as u64,
            bytes_sent: wire.bytes_taken() as u64,
        };
        self.sent.0 += ended.messages_sent;
        self.sent.1 += ended.bytes_sent;
        assert_eq!(self.hub.disconnect(key), Some(ended));
        self.gone.push(key);
        self.settle(Owed::new());
    }

    /// A connection may report late; the place of its session may be another's by then.
    fn use_a_stale_key(&mut self) {
        let Some(&key) = self.gone.choose(&mut self.random) else { return };
        let (hub, now, id) = (&mut self.hub, at(self.model.now), CommandId::Number(0));
        assert!(hub.command(key, r#"{"id":1,"op":"subscribe","topics":["t.0"]}"#, now).is_none());
        assert!(hub.outbox(key).is_none());
        assert_eq!(hub.fate(key, now), Fate::Drop);
        assert_eq!(hub.disconnect(key), None);
        hub.heard(key);
        hub.pinged(key, b"", now);
        hub.wrote(key, 1);
        hub.blocked(key, now);
        hub.close(key, CloseCode::InternalError, now);
        hub.closed_by_client(key, None, now);
        hub.published(key, &id, &PublishOutcome::Published, now);
        hub.reauthenticated(key, &id, Ok((policy("alice", Grant::OnlyT), now)), now);
        self.settle(Owed::new());
    }
}

// What sockets do.
impl History {
    fn change_socket(&mut self) {
        let Some(client) = self.someone() else { return };
        let socket = *[Socket::Fast, Socket::Slow, Socket::Stuck].choose(&mut self.random).expect("some");
        self.clients.get_mut(&client).expect("someone connected").socket = socket;
        self.write(client);
    }

    /// A socket that took nothing takes something again.
    fn writable(&mut self) {
        if let Some(client) = self.someone().filter(|client| self.clients[client].is_blocked) {
            self.write(client);
        }
    }

    /// Attends to every session that the hub listed.
    fn flush(&mut self) {
        self.collect_listed();
        while let Some(client) = self.listed.pop_first() {
            if self.clients.contains_key(&client) {
                self.write(client);
            }
        }
    }

    fn collect_listed(&mut self) {
        while let Some(key) = self.hub.next_listed() {
            let found = self.clients.iter().find(|(_, client)| client.key == key);
            let (&client, _) = found.expect("only sessions that are there are listed");
            self.listed.insert(client);
        }
        for (number, client) in &self.clients {
            let may_write = client.wire.bytes_waiting() > 0 && !client.is_blocked;
            assert!(!may_write || self.listed.contains(number), "client {number} has something to write");
        }
    }

    /// Writes what the socket takes and does what the session's fate then is.
    fn write(&mut self, client: usize) {
        let now = at(self.model.now);
        let heard_before = self.clients[&client].wire.heard().count();
        while let Some(open) = self.clients.get_mut(&client) {
            let most = match open.socket {
                Socket::Fast => usize::MAX,
                Socket::Slow => self.random.random_range(1..80),
                Socket::Stuck => 0,
            };
            let taken = open.wire.take(self.hub.outbox(open.key).expect("connected"), most);
            if taken > 0 {
                self.hub.wrote(open.key, taken);
                self.model.wrote(client);
            }
            open.is_blocked = open.wire.bytes_waiting() > 0 && open.socket != Socket::Fast;
            if open.is_blocked {
                self.hub.blocked(open.key, now);
                self.model.blocked(client);
            }
            if open.is_blocked || open.wire.bytes_waiting() == 0 {
                break;
            }
        }
        self.settle(Owed::new());
        self.client_reads(client, heard_before);
        self.meet_fate(client);
    }

    fn client_reads(&mut self, client: usize, heard_before: usize) {
        let open = &self.clients[&client];
        if !open.is_polite {
            return;
        }
        let fresh: Vec<&Said> = open.wire.heard().skip(heard_before).collect();
        if fresh.contains(&&Said::PingFrame) {
            self.hub.heard(open.key);
            self.model.heard(client);
        }
        if let Some(&&Said::Close(code)) = fresh.last() {
            self.client_sends_close(client, code);
        }
    }

    fn meet_fate(&mut self, client: usize) {
        if self.hub.fate(self.clients[&client].key, at(self.model.now)) == Fate::Drop {
            self.disconnect_client(client);
        }
    }
}

// What the broker and the clock do.
impl History {
    fn topic_live(&mut self) {
        let now = at(self.model.now);
        if self.chance(15) {
            let Some((topic, ticket)) = self.broker.stale.choose(&mut self.random).cloned() else { return };
            self.hub.topic_live(&Topic::parse(&topic).unwrap(), ticket, now);
            return self.settle(Owed::new());
        }
        let wanted: Vec<(String, u64)> = self.broker.wanted.clone().into_iter().collect();
        if let Some((topic, ticket)) = wanted.choose(&mut self.random)
            && self.broker.is_linked
        {
            self.hub.topic_live(&Topic::parse(topic).unwrap(), *ticket, now);
            let owed = self.model.topic_live(topic);
            self.settle(owed);
        }
    }

    fn publish(&mut self) {
        let topic = self.a_topic();
        // Another worker may want a topic that is joining here; of one that was lost nothing can come.
        if !self.broker.is_linked || matches!(self.model.topics.get(&topic), Some(TopicState::Lost { .. })) {
            return;
        }
        self.messages_ever += 1;
        let long = if self.chance(5) { "x".repeat(800) } else { String::new() };
        let data = json!([self.messages_ever, long]);
        let publication = Publication::new(Topic::parse(&topic).unwrap(), data.to_string());
        let offered = self.hub.publish(&publication, at(self.model.now));
        let owed = self.model.to_subscribers(&topic, &message(&topic, data));
        assert_eq!(offered, owed.len());
        self.settle(owed);
    }

    fn topic_dropped(&mut self) {
        let (topic, since) = (self.a_topic(), Duration::from_micros(self.random.random_range(0..900_000)));
        self.hub.topic_dropped(&Topic::parse(&topic).unwrap(), since, at(self.model.now));
        let owed = self.model.gap(&topic, "overload", since);
        self.settle(owed);
    }

    fn lose_link(&mut self) {
        self.broker.is_linked = false;
        let silent_for = Duration::from_micros(self.random.random_range(0..2_000_000));
        self.hub.link_lost(silent_for, at(self.model.now));
        self.model.link_lost(silent_for);
        self.settle(Owed::new());
    }

    fn drain(&mut self) {
        if self.model.is_draining {
            return;
        }
        let window = Duration::from_secs(self.random.random_range(1..8));
        self.hub.drain(window, at(self.model.now));
        let (now, owed) = (self.model.now, self.model.drain());
        let count = owed.len() as u32;
        self.settle(owed);
        let told = self.model.sessions.values().filter_map(|session| session.drained);
        let mut pauses: Vec<Duration> = told.map(|(_, latest)| latest - now).collect();
        pauses.sort();
        // A session that was cut instead leaves a hole, so a place may be one further on for each of them.
        let cut = count - pauses.len() as u32;
        for (place, pause) in (0..).zip(pauses) {
            let second = Duration::from_millis(1001);
            assert!(pause >= window * place / count, "spread evenly");
            assert!(pause <= window * (place + cut) / count + second, "spread evenly");
        }
    }

    fn tick(&mut self) {
        let most = if self.chance(10) { 6000 } else { 500 };
        self.pass(most);
        let now = self.model.now;
        self.hub.tick(at(now));
        for (&number, client) in &mut self.clients {
            let waited = client.wire.bytes_waiting();
            let told = client.wire.look(self.hub.outbox(client.key).expect("connected"));
            let is_given_up = told.iter().any(|said| matches!(said, Said::Subscribed { .. }));
            self.met.extend(is_given_up.then(|| "given up".to_owned()));
            self.met.extend(told.iter().flat_map(labels));
            self.model.tick_brought(number, waited, &told);
        }
        self.settle(Owed::new());
        self.collect_listed();
        for (number, client) in &self.clients {
            let end = self.model.sessions[number].end.as_ref();
            let is_overdue = end.is_some_and(|end| end.until + LATE <= now);
            assert!(!is_overdue || self.listed.contains(number), "{client:?} is to be dropped");
        }
    }
}

// What must be so after every event.
impl History {
    /// Checks that every session was told what it was owed, and the books.
    fn settle(&mut self, mut owed: Owed) {
        for (&number, client) in &mut self.clients {
            let waited = client.wire.bytes_waiting();
            let told = client.wire.look(self.hub.outbox(client.key).expect("connected"));
            let owed = owed.remove(&number).unwrap_or_default();
            if !told.is_empty() || !owed.is_empty() {
                self.met.extend(told.iter().flat_map(labels));
                let is_cut = told.last() == Some(&close(CloseCode::SlowConsumer));
                let is_inside = is_cut && client.wire.frames_waiting() == 2;
                self.met.extend(is_inside.then(|| "cut inside a frame".to_owned()));
                self.model.told(number, waited, &told, owed);
            }
        }
        assert!(owed.values().all(Vec::is_empty), "owed to nobody: {owed:?}");
        self.model.refresh_topics();
        self.check_interest();
        self.check_books();
        self.pass(20);
        if self.chance(30) {
            self.collect_listed();
        }
    }

    fn check_interest(&mut self) {
        for change in self.hub.take_interest() {
            match change {
                InterestChange::Want(topic, ticket) => {
                    assert!(ticket > self.broker.latest_ticket, "tickets are never used again");
                    self.broker.latest_ticket = ticket;
                    let before = self.broker.wanted.insert(topic.to_string(), ticket);
                    assert_eq!(before, None, "{topic} is asked for once");
                }
                InterestChange::Leave(topic) => {
                    let ticket = self.broker.wanted.remove(topic.as_str());
                    let ticket = ticket.expect("only what was asked for is left");
                    self.broker.stale.push((topic.to_string(), ticket));
                }
            }
        }
        assert!(self.broker.wanted.keys().eq(self.model.topics.keys()), "{:?}", self.broker.wanted);
    }

    fn check_books(&self) {
        let gauges = HubGauges {
            sessions: self.clients.len(),
            subscriptions: self.model.subscriptions(),
            topics: self.model.topics.len(),
        };
        assert_eq!(self.hub.gauges(), gauges);
        assert_eq!(self.hub.counters().commands, self.model.commands);
        assert_eq!(self.hub.counters().gaps, self.model.gaps);
        for (&number, Client { key, wire, .. }) in &self.clients {
            let is_within =
                wire.bytes_waiting() <= self.model.limits.outbox_bytes || wire.frames_waiting() == 1;
            assert!(is_within || !self.model.is_open(number), "an outbox has a bound");
            let fate = self.model.fate(number, wire.bytes_waiting() == 0);
            assert_eq!(self.hub.fate(*key, at(self.model.now)), fate);
        }
    }

    /// Everything calms down: what is owed is read, and everybody leaves.
    fn end(mut self) -> BTreeSet<String> {
        for number in self.clients.keys().copied().collect::<Vec<_>>() {
            self.clients.get_mut(&number).expect("nobody left yet").socket = Socket::Fast;
            self.write(number);
        }
        for (number, client) in &self.clients {
            assert_eq!(client.wire.frames_waiting(), 0, "client {number} has read everything");
        }
        while let Some((&number, _)) = self.clients.first_key_value() {
            self.disconnect_client(number);
        }
        assert_eq!(self.hub.gauges(), HubGauges::default());
        assert_eq!(self.broker.wanted, BTreeMap::new());
        let HubCounters { messages_sent, bytes_sent, .. } = self.hub.counters();
        assert_eq!((messages_sent, bytes_sent), self.sent);
        self.met
    }
}

/// What of [`MUST_BE_MET`] this is.
fn labels(said: &Said) -> Vec<String> {
    let label = match said {
        Said::Welcome { .. } => "welcome",
        Said::Subscribed { refused, .. } => {
            let refused = refused.iter().map(|refused| format!("refused {}", refused.code));
            return refused.chain(["subscribed".to_owned()]).collect();
        }
        Said::Unsubscribed { .. } => "unsubscribed",
        Said::Published { .. } => "published",
        Said::Authenticated { .. } => "authenticated",
        Said::Pong { .. } => "pong",
        Said::Error { code, .. } => &format!("error {code}"),
        Said::Message { .. } => "message",
        Said::Gap { reason, .. } => &format!("gap {reason}"),
        Said::TokenExpiring { .. } => "token expiring",
        Said::Drain { .. } => "drain",
        Said::PingFrame => "ping",
        Said::PongFrame(_) => "pong frame",
        Said::Close(None) => "close",
        Said::Close(Some(code)) => &format!("close {code}"),
    };
    vec![label.to_owned()]
}
