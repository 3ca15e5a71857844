//! Random histories of clients, sockets, a broker and a clock, played against the hub and the model at once.
//!
//! After every event: what each session was told is what the model says it was owed, in the bytes that were
//! owed before and nothing else; the interest told to the broker is what sessions want; the books are right.
//! In the end every client has read everything it was owed, and nothing is left when all have gone.

mod broker;
mod checks;
mod clients;
mod operators;
mod sockets;

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
const MUST_BE_MET: &str = "welcome, subscribed, given up, unsubscribed, unsubscribed by order, published, authenticated, pong, message, \
    refused bad_topic, refused forbidden, refused limit_exceeded, refused broker_unavailable, \
    error malformed, error unknown_op, error bad_topic, error forbidden, error too_fast, error too_large, \
    error limit_exceeded, \
    error unauthenticated, error broker_unavailable, error internal, gap broker_lost, gap overload, \
    token expiring, drain, some drained, ping, pong frame, cut inside a frame, close, close 1000, close 1002, close 1012, \
    close 4401, close 4403, close 4408, close 4413, close 4429";

fn limits() -> HubLimits {
    HubLimits {
        topics_per_session: 4,
        outbox_bytes: 700,
        deflate_bytes_min: HubLimits::default().deflate_bytes_min,
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
            925..928 => self.client_closes(),
            928..930 => self.order_end(),
            930..935 => self.disconnect(),
            935..940 => self.use_a_stale_key(),
            940..942 => self.drain(),
            942..947 => self.drain_some(),
            947..955 => self.order_end_of_subscriptions(),
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
        let most = if self.chance(5) { 40 } else { 4 };
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
