//! Random histories of workers, publishers, a network and a pretend Redis, played against the supervisor, the
//! interest table and the inboxes, with redis-rs between them, in pretend time.
//!
//! Whatever happens to the link: a worker is told "live" only when Redis has confirmed on the present link; what a
//! subscriber misses lies in a gap that it is told of (`subscriber`); no link is given up without a reason; and
//! when the network is well again, everything that is wanted is live in time.
//!
//! A history is its seed. `CAUSEWAY_SEED` plays one and tells it, `CAUSEWAY_HISTORIES` plays another number of them.
//!
//! That these checks can fail was tried: each of the following was found by one of the first 200 seeds, most by one of
//! the first ten. A topic taken for confirmed when its SUBSCRIBE is sent, or kept live over a loss; no word of a loss,
//! a refusal behind it, an overflow or a payload too large, or a loss said to be of now; messages let in behind an
//! overflow, or given to the first worker only; a topic forgotten when it is asked for again, when its SUBSCRIBE is on
//! its way at the loss, or when its batch is refused; an UNSUBSCRIBE of what is wanted again; a ticket not replaced;
//! channels without the prefix; no PING, no end to waiting for an answer or a connection, pauses of a minute, a link
//! given up too early or read on after its loss; wishes that wait for an answer.

mod checks;
mod redis;
mod subscriber;
mod wire;
mod worker;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::Hasher;
use std::io::ErrorKind;
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use causeway_protocol::Topic;
use futures_util::FutureExt;
use futures_util::future::select_all;
use rand::rngs::SmallRng;
use rand::seq::{IndexedMutRandom, IndexedRandom};
use rand::{Rng, SeedableRng};
use tokio::task::JoinHandle;
use tokio::time::{self, Instant};

use self::redis::{Address, Door, Redis};
use self::subscriber::Subscriber;
use self::worker::Worker;
use super::supervisor::Supervisor;
use super::{RedisConfig, Shared};
use crate::interest::REFUSED_PAUSE;
use crate::{Interest, Ticket, seeds};

const HISTORIES: u64 = 10_000;
const STEPS: usize = 25;
const TOPICS: [&str; 5] = ["a", "b", "c", "d", "e"];
const PAYLOAD_BYTES_MAX: usize = 40;

/// How long anything takes from one end to the other at the most, unless something holds it up, and how much longer
/// the rest of what was sent in two pieces.
const LATENCY_MAX: Duration = Duration::from_millis(30);
const DELAY_MAX: Duration = Duration::from_millis(5);

/// How long a link may be taken for good on which nothing arrives: 2 s until it is asked for a sign of life, 2 s of
/// silence, and 1 s because silence is counted in halves; and what was under way arrives still.
const NOTICED_WITHIN: Duration = Duration::from_millis(5100);

/// How long it takes until everything is live when Redis can be reached: a pause of 1.5 s at most and some round trips.
const BACK_WITHIN: Duration = Duration::from_secs(2);

/// How long an attempt to connect is waited for.
const CONNECT_DEADLINE: Duration = Duration::from_secs(2);

/// How long after its refusal a topic that is allowed now is live.
const ALLOWED_WITHIN: Duration = REFUSED_PAUSE.saturating_add(Duration::from_secs(1));

/// What every run must have met, or it has proved less than it seems.
const MUST_BE_MET: &str = "live, live again, message, link lost, dropped, dropped while lost, overflow, too large, \
    PING, UNSUBSCRIBE, a batch refused, a topic refused, sour to PING, sour to a subscription, \
    connection refused, connection never made, connection without a greeting, \
    commands held up, answers held up, vanished, \
    cut before a confirmation, cut among commands, cut among answers";

#[test]
fn whatever_happens_to_the_link_nothing_is_lost_in_silence() {
    let mut met = BTreeSet::new();
    seeds::play("whatever_happens_to_the_link", HISTORIES, |seed| met.extend(play(seed).met));
    let missing: Vec<&str> = MUST_BE_MET.split(", ").filter(|label| !met.contains(label)).collect();
    assert!(missing.is_empty() || seeds::is_one(), "never met: {missing:?}");
}

#[test]
fn a_history_is_its_seed() {
    for seed in 0..20 {
        assert_eq!(play(seed).commands, play(seed).commands);
    }
}

fn play(seed: u64) -> Played {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let mut world = World::new(seed);
        for _ in 0..STEPS {
            world.step();
            world.pass_some_time().await;
        }
        world.heal().await;
        world.settle().await;
        world.played()
    })
}

/// What came of a history.
struct Played {
    /// What was met in it.
    met: BTreeSet<&'static str>,
    /// Redis's commands and their moments, as a hash.
    commands: u64,
}

struct World {
    /// Whether the story is told as it goes.
    is_told: bool,
    began: Instant,
    random: SmallRng,
    address: Address,
    shared: Arc<Shared>,
    supervisor: JoinHandle<()>,
    topic_prefix: &'static str,
    workers: Vec<Worker>,
    /// When each message of a topic has arrived at the latest, unless something is in the way.
    due: BTreeMap<&'static str, Vec<Instant>>,
    /// How long a message is under way at the most; longer than a history where something may hold it up.
    transit_max: Duration,
    tickets: u64,
    met: BTreeSet<&'static str>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = SmallRng::seed_from_u64(seed);
        let latency = random.random_range(Duration::from_millis(1)..LATENCY_MAX);
        let address = Address::new(random.random(), latency);
        let transit_max = if random.random() { LATENCY_MAX + DELAY_MAX } else { Duration::from_secs(3600) };
        let topic_prefix = ["", "app:"][random.random_range(0..2)];
        let shared = Arc::new(Shared::new(PAYLOAD_BYTES_MAX));
        let config = RedisConfig {
            topic_prefix: topic_prefix.to_owned(),
            command_deadline: CONNECT_DEADLINE,
            ..RedisConfig::new("redis://simulated")
        };
        let pauses = SmallRng::seed_from_u64(random.random());
        let supervisor = Supervisor::new(address.clone(), &config, Arc::clone(&shared), pauses);
        let workers = (0..random.random_range(1..=3)).map(|_| Worker::new(&shared, &mut random)).collect();
        Self {
            is_told: seeds::is_one(),
            began: Instant::now(),
            random,
            address,
            supervisor: tokio::spawn(supervisor.run()),
            shared,
            topic_prefix,
            workers,
            due: TOPICS.map(|name| (name, Vec::new())).into(),
            transit_max,
            tickets: 0,
            met: BTreeSet::new(),
        }
    }

    fn step(&mut self) {
        let (what, event): (&str, fn(&mut Self)) = match self.random.random_range(0..100) {
            0..22 => ("want", Self::want),
            22..34 => ("leave", Self::leave),
            34..64 => ("publish", Self::publish),
            64..70 => ("slow workers take", Self::all_take),
            70..73 => ("Redis closes", |w| w.redis().cut(ErrorKind::UnexpectedEof)),
            73..75 => ("reset", |w| w.redis().cut(ErrorKind::ConnectionReset)),
            75..77 => ("stall up", |w| w.redis().stall_up()),
            77..79 => ("stall down", Self::stall_down),
            79..81 => ("vanish", |w| w.redis().vanish()),
            81..83 => ("Redis ends", |w| w.redis().end()),
            83..86 => ("door", Self::change_door),
            86..88 => ("sour", |w| w.redis().is_sour = true),
            88..90 => ("forbid", Self::forbid),
            90..92 => ("allow all", |w| w.redis().allow_all()),
            _ => ("well", |w| w.redis().be_well()),
        };
        self.note(format_args!("{what}"));
        event(self);
    }

    fn played(&self) -> Played {
        let (redis, report) = (self.redis(), self.shared.totals.report());
        let mut met = &self.met | &redis.met;
        met.extend((report.dropped_overload > 0).then_some("overflow"));
        met.extend((report.dropped_too_large > 0).then_some("too large"));
        Played { met, commands: redis.commands.finish() }
    }

    /// Part of the story, for who plays one history.
    fn note(&self, what: fmt::Arguments<'_>) {
        if self.is_told {
            println!("{:8.3} {what}", self.began.elapsed().as_secs_f64());
        }
    }

    fn redis(&self) -> MutexGuard<'_, Redis> {
        self.address.redis()
    }

    fn want(&mut self) {
        let topic = self.a_topic();
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        let worker = self.workers.choose_mut(&mut self.random).unwrap();
        worker.subscribers.insert(topic.clone(), Subscriber::new(ticket));
        self.shared.changes.make(worker.id, Interest::Want(topic, ticket));
    }

    fn leave(&mut self) {
        let topic = self.a_topic();
        let worker = self.workers.choose_mut(&mut self.random).unwrap();
        worker.subscribers.remove(&topic);
        self.shared.changes.make(worker.id, Interest::Leave(topic));
    }

    fn publish(&mut self) {
        let name = TOPICS.choose(&mut self.random).unwrap();
        for _ in 0..self.random.random_range(1..=4) {
            let length = self.random.random_range(0..PAYLOAD_BYTES_MAX + 3);
            self.publish_on(name, length);
        }
    }

    /// The payload is the message's number, with zeroes before it up to a length.
    fn publish_on(&mut self, name: &'static str, length: usize) {
        let channel = self.channel(name);
        let redis = &mut *self.address.redis();
        if redis.door == Door::Refused {
            return;
        }
        let due = self.due.get_mut(name).unwrap();
        redis.publish(&channel, &format!("{:0length$}", due.len()));
        due.push(Instant::now() + self.transit_max);
    }

    fn all_take(&mut self) {
        for index in 0..self.workers.len() {
            self.observe(index);
        }
    }

    fn stall_down(&mut self) {
        if self.transit_max > LATENCY_MAX + DELAY_MAX {
            self.redis().stall_down();
        }
    }

    fn change_door(&mut self) {
        let door = *[Door::Refused, Door::Hung, Door::Mute].choose(&mut self.random).unwrap();
        self.redis().door = door;
    }

    fn forbid(&mut self) {
        let name = TOPICS.choose(&mut self.random).unwrap();
        self.redis().forbid(&self.channel(name));
    }

    fn channel(&self, name: &str) -> String {
        format!("{}{name}", self.topic_prefix)
    }

    fn a_topic(&mut self) -> Topic {
        Topic::parse(TOPICS.choose(&mut self.random).unwrap()).unwrap()
    }

    async fn pass_some_time(&mut self) {
        let milliseconds = match self.random.random_range(0..10) {
            0..3 => 0,
            3..7 => self.random.random_range(0..50),
            7..9 => self.random.random_range(0..1000),
            _ => self.random.random_range(0..5000),
        };
        self.pass(Duration::from_millis(milliseconds)).await;
    }

    /// Lets time pass, the network carry and the workers take.
    async fn pass(&mut self, time: Duration) {
        let end = Instant::now() + time;
        loop {
            let next = self.redis().carry();
            self.watch();
            let wake_at = next.map_or(end, |next| next.min(end));
            if time::timeout_at(wake_at, self.stirred()).await.is_err() && wake_at == end {
                break;
            }
        }
        if !time.is_zero() {
            self.check_state();
        }
    }

    /// Waits until the node has sent something, or has something for a worker that takes at once.
    async fn stirred(&self) {
        let quick = self.workers.iter().filter(|worker| !worker.is_slow);
        let filled = quick.map(|worker| worker.inbox.ready().boxed_local());
        select_all(filled.chain([self.address.stirred.notified().boxed_local()])).await;
    }

    fn watch(&mut self) {
        assert!(!self.supervisor.is_finished() && !self.redis().has_panicked, "a panic");
        for index in 0..self.workers.len() {
            if !self.workers[index].is_slow {
                self.observe(index);
            }
        }
    }

    /// A worker takes what waits for it, and its subscribers are told.
    fn observe(&mut self, index: usize) {
        for delivery in self.workers[index].inbox.take() {
            self.note(format_args!("  {index}: {delivery:?}"));
            if !self.workers[index].is_slow {
                self.check_delivery(&delivery);
            }
            self.met.extend(self.workers[index].tell(&delivery, &self.due));
        }
    }
}
