//! Random histories of workers, publishers, a network and a pretend Redis, played against the supervisor, the
//! interest table and the inboxes, with redis-rs between them, in pretend time.
//!
//! Whatever happens to the link: a worker is told "live" only when Redis has confirmed on the present link; what a
//! subscriber misses lies in a gap that it is told of (`subscriber`); no link is given up without a reason; and
//! when the network is well again, everything that is wanted is live in time.
//!
//! A history is its seed. `CAUSEWAY_SEED` plays one, `CAUSEWAY_HISTORIES` another number of them.

mod redis;
mod subscriber;
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
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
use self::wire::Wire;
use super::supervisor::Supervisor;
use super::{RedisConfig, Shared};
use crate::interest::{LINGER, REFUSED_PAUSE};
use crate::{Delivery, Inbox, Interest, Ticket, WorkerId};

const HISTORIES: u64 = 10_000;
const STEPS: usize = 25;
const TOPICS: [&str; 5] = ["a", "b", "c", "d", "e"];
const PAYLOAD_BYTES_MAX: usize = 40;

/// How long after the network is well again everything is live: a link that vanished is noticed within 5 s, or an
/// attempt to connect that hangs is given up within 2 s; the pause before the next takes 1.5 s at most; and the
/// rest is some round trips.
const HEALED_WITHIN: Duration = Duration::from_secs(7);

/// How long after its refusal a topic that is allowed now is live.
const ALLOWED_WITHIN: Duration = REFUSED_PAUSE.saturating_add(Duration::from_secs(1));

/// What every run must have met, or it has proved less than it seems.
const MUST_BE_MET: &str = "live, live again, message, link lost, dropped, dropped while lost, \
    PING, UNSUBSCRIBE, a batch refused, a topic refused, sour to PING, sour to a subscription, \
    cut before a confirmation, cut among commands, cut among answers";

#[test]
fn whatever_happens_to_the_link_nothing_is_lost_in_silence() {
    let number = |name: &str| std::env::var(name).ok().map(|value| value.parse().expect("a number"));
    if let Some(seed) = number("CAUSEWAY_SEED") {
        play(seed, true);
        return;
    }
    let mut met = BTreeSet::new();
    for seed in 0..number("CAUSEWAY_HISTORIES").unwrap_or(HISTORIES) {
        met.extend(play(seed, false));
    }
    let missing: Vec<&str> = MUST_BE_MET.split(", ").filter(|label| !met.contains(label)).collect();
    assert!(missing.is_empty(), "never met: {missing:?}");
}

/// Tells how to see a failure again.
struct Replay(u64);

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let seed = self.0;
            eprintln!(
                "to see this again: CAUSEWAY_SEED={seed} cargo nextest run -p causeway-broker whatever_happens_to_the_link"
            );
        }
    }
}

fn play(seed: u64, is_told: bool) -> BTreeSet<&'static str> {
    let _replay = Replay(seed);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let mut world = World::new(seed, is_told);
        for _ in 0..STEPS {
            world.step();
            world.pass_some_time().await;
        }
        world.heal().await;
        world.settle().await;
        world.met
    })
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
    /// How many messages of each topic Redis has carried out.
    published: BTreeMap<&'static str, usize>,
    tickets: u64,
    met: BTreeSet<&'static str>,
}

struct Worker {
    id: WorkerId,
    inbox: Arc<Inbox>,
    /// Takes what waits at its leisure, not at once.
    is_slow: bool,
    subscribers: BTreeMap<Topic, Subscriber>,
}

impl World {
    fn new(seed: u64, is_told: bool) -> Self {
        let mut random = SmallRng::seed_from_u64(seed);
        let latency = Duration::from_millis(random.random_range(1..30));
        let address = Address::new(random.random(), latency);
        let topic_prefix = ["", "app:"][random.random_range(0..2)];
        let shared = Arc::new(Shared::new(PAYLOAD_BYTES_MAX));
        let config =
            RedisConfig { topic_prefix: topic_prefix.to_owned(), ..RedisConfig::new("redis://simulated") };
        let pauses = SmallRng::seed_from_u64(random.random());
        let supervisor = Supervisor::new(address.clone(), &config, Arc::clone(&shared), pauses);
        let workers = (0..random.random_range(1..=3)).map(|_| Worker::new(&shared, &mut random)).collect();
        Self {
            is_told,
            began: Instant::now(),
            random,
            address,
            supervisor: tokio::spawn(supervisor.run()),
            shared,
            topic_prefix,
            workers,
            published: TOPICS.map(|name| (name, 0)).into(),
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
            75..77 => ("stall up", |w| w.redis().disturb(|wire| wire.up.stall())),
            77..79 => ("stall down", |w| w.redis().disturb(|wire| wire.down.stall())),
            79..81 => ("vanish", |w| w.redis().disturb(Wire::vanish)),
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
        let number = self.published.get_mut(name).unwrap();
        redis.publish(&channel, &format!("{number:0length$}"));
        *number += 1;
    }

    fn all_take(&mut self) {
        for index in 0..self.workers.len() {
            self.observe(index);
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
            self.assert_agreed();
        }
    }

    /// Waits until the node has sent something, or has something for a worker that takes at once.
    async fn stirred(&self) {
        let prompt = self.workers.iter().filter(|worker| !worker.is_slow);
        let filled = prompt.map(|worker| worker.inbox.ready().boxed_local());
        select_all(filled.chain([self.address.stirred.notified().boxed_local()])).await;
    }

    /// What is live for one is live at once for all who want it.
    fn assert_agreed(&self) {
        let mut live = BTreeMap::new();
        let prompt = self.workers.iter().filter(|worker| !worker.is_slow);
        for (topic, subscriber) in prompt.flat_map(|worker| &worker.subscribers) {
            let is_live = *live.entry(topic).or_insert(subscriber.is_live);
            assert_eq!(subscriber.is_live, is_live, "{topic} is live for some only");
        }
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
                self.assert_reasonable(&delivery);
            }
            self.met.extend(self.workers[index].tell(&delivery, &self.published));
        }
    }

    /// Checks a delivery of just now against what Redis knows.
    fn assert_reasonable(&self, delivery: &Delivery) {
        match delivery {
            Delivery::LinkLost { .. } => assert!(self.redis().is_harmed(), "a good link was given up"),
            Delivery::Live(topic, _) => {
                let is_confirmed = self.redis().has_confirmed(&self.channel(topic.as_str()));
                assert!(is_confirmed, "{topic} is live and not confirmed");
            }
            Delivery::Publication(..) | Delivery::Dropped { .. } => {}
        }
    }

    /// The network and Redis are well from here on: everything that is wanted is live in time, or refused and its
    /// subscribers are told what they missed. What is not refused any more is live after the pause.
    async fn heal(&mut self) {
        self.note(format_args!("well from here on"));
        self.redis().be_well();
        self.all_take();
        self.workers.iter_mut().for_each(|worker| worker.is_slow = false);
        self.pass(HEALED_WITHIN).await;
        for (topic, subscriber) in self.workers.iter().flat_map(|worker| &worker.subscribers) {
            let is_refused = self.redis().has_refused(&self.channel(topic.as_str()), ALLOWED_WITHIN);
            assert!(subscriber.is_live || is_refused, "{topic} is not live after {HEALED_WITHIN:?}");
            assert!(
                subscriber.is_live || !subscriber.is_untold,
                "{topic} is refused, and a gap was not told"
            );
        }
        self.note(format_args!("everything is allowed from here on"));
        self.redis().allow_all();
        self.pass(ALLOWED_WITHIN).await;
        for (topic, subscriber) in self.workers.iter().flat_map(|worker| &worker.subscribers) {
            assert!(subscriber.is_live, "{topic} is not live though it is allowed");
        }
    }

    /// Messages arrive everywhere, and nothing is left when nobody wants anything any more.
    async fn settle(&mut self) {
        TOPICS.iter().for_each(|name| self.publish_on(name, 0));
        self.pass(Duration::from_secs(1)).await;
        for worker in &self.workers {
            for (topic, subscriber) in &worker.subscribers {
                subscriber.assert_settled(self.published[topic.as_str()]);
            }
        }
        for worker in &mut self.workers {
            for topic in std::mem::take(&mut worker.subscribers).into_keys() {
                self.shared.changes.make(worker.id, Interest::Leave(topic));
            }
        }
        self.pass(LINGER + Duration::from_secs(1)).await;
        assert_eq!(self.shared.lock().table.len(), 0, "topics are left");
        assert_eq!(self.redis().channels(), BTreeSet::new(), "Redis has topics that nobody wants");
        self.met.extend(&self.address.redis().met);
    }
}

impl Worker {
    fn new(shared: &Shared, random: &mut SmallRng) -> Self {
        let is_slow = random.random_ratio(1, 4);
        let inbox = Arc::new(Inbox::new(if is_slow { random.random_range(0..1000) } else { 1 << 20 }));
        let id = shared.lock().workers.attach(Arc::clone(&inbox));
        Self { id, inbox, is_slow, subscribers: BTreeMap::new() }
    }

    /// Passes on what concerns its subscribers. Returns what that was, if it was something.
    fn tell(&mut self, delivery: &Delivery, published: &BTreeMap<&str, usize>) -> Option<&'static str> {
        let topic = match delivery {
            Delivery::LinkLost { .. } => {
                self.subscribers.values_mut().for_each(Subscriber::lost);
                return Some("link lost");
            }
            Delivery::Live(topic, _) | Delivery::Dropped { topic, .. } => topic,
            Delivery::Publication(publication, _) => publication.topic(),
        };
        let subscriber = self.subscribers.get_mut(topic)?;
        let published = published[topic.as_str()];
        match delivery {
            Delivery::Live(_, ticket) if *ticket == subscriber.ticket => Some(subscriber.live(published)),
            Delivery::Publication(publication, _) => {
                let number = str::from_utf8(publication.payload()).unwrap().parse().unwrap();
                subscriber.message(number).then_some("message")
            }
            Delivery::Dropped { .. } => Some(subscriber.dropped(published)),
            Delivery::Live(..) | Delivery::LinkLost { .. } => None,
        }
    }
}
