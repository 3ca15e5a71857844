//! What the simulation takes for Redis: as much of its protocol (RESP3) as a subscriber needs, over wires that can
//! fail. Written after Redis's documentation of SUBSCRIBE and RESP, and not after our code.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};
use std::future;
use std::hash::{DefaultHasher, Hash};
use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ProtocolVersion, RedisConnectionInfo, RedisError, RedisResult};
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::DELAY_MAX;
use super::wire::{Socket, Wire};
use crate::redis_broker::link::Dial;

/// The server, and the network in front of it.
pub(super) struct Redis {
    pub(super) door: Door,
    /// Whether commands are answered with an error instead of being carried out.
    pub(super) is_sour: bool,
    forbidden: BTreeSet<String>,
    /// When a channel was refused for the last time.
    refused: BTreeMap<String, Instant>,
    /// Who is connected, as far as Redis knows; the last is the node's link, if it has one.
    clients: Vec<Client>,
    latency: Duration,
    random: SmallRng,
    pub(super) met: BTreeSet<&'static str>,
    /// The commands that were carried out, and when.
    pub(super) commands: DefaultHasher,
    began: Instant,
    pub(super) has_panicked: bool,
}

/// What meets who connects.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Door {
    Open,
    /// Nobody listens.
    Refused,
    /// Nobody says anything.
    Hung,
    /// The system accepts, and Redis does nothing.
    Mute,
}

struct Client {
    wire: Arc<Mutex<Wire>>,
    /// The beginning of a command that has not arrived whole.
    incomplete: Vec<u8>,
    channels: BTreeSet<String>,
    /// Where in all that is sent to the node the latest confirmation of a channel ends.
    confirmed: BTreeMap<String, u64>,
    /// Channels whose UNSUBSCRIBE was answered with an error.
    kept: BTreeSet<String>,
    /// Whether anything was done to this connection that may cost it its life.
    is_harmed: bool,
    /// Since when nothing that is sent to the node arrives any more.
    deaf_since: Option<Instant>,
}

/// Where the server is reached.
#[derive(Clone)]
pub(super) struct Address {
    redis: Arc<Mutex<Redis>>,
    /// Told whenever a node has sent something.
    pub(super) stirred: Arc<Notify>,
}

impl Redis {
    /// Lets arrive what is due and carries out what has arrived. Returns when more will arrive.
    pub(super) fn carry(&mut self) -> Option<Instant> {
        let mut next = None;
        for index in 0..self.clients.len() {
            let wire = Arc::clone(&self.clients[index].wire);
            let up = wire.lock().unwrap().up.arrive();
            let arrived = wire.lock().unwrap().up.take();
            self.clients[index].incomplete.extend(arrived);
            while let Some(command) = take_command(&mut self.clients[index].incomplete) {
                self.carry_out(index, &command);
            }
            let down = wire.lock().unwrap().down.arrive();
            next = [next, up, down].into_iter().flatten().min();
        }
        next
    }

    /// Publishes as any client of Redis may.
    pub(super) fn publish(&mut self, channel: &str, payload: &str) {
        for index in 0..self.clients.len() {
            if self.clients[index].channels.contains(channel) {
                self.send(index, &push("message", channel, &bulk(payload)));
            }
        }
    }

    fn carry_out(&mut self, client: usize, command: &[String]) {
        (self.began.elapsed(), command).hash(&mut self.commands);
        let (name, arguments) = command.split_first().expect("a command has a name");
        match name.as_str() {
            "HELLO" if self.is_sour => self.send(client, "-LOADING Redis is loading the dataset\r\n"),
            "HELLO" => self.send(client, "%1\r\n$5\r\nproto\r\n:3\r\n"),
            _ if self.is_sour => {
                if name == "UNSUBSCRIBE" {
                    self.clients[client].kept.extend(arguments.iter().cloned());
                }
                self.met.insert(if name == "PING" { "sour to PING" } else { "sour to a subscription" });
                self.clients[client].is_harmed = true;
                self.send(client, "-BUSY Redis is busy running a script\r\n");
            }
            "PING" => {
                self.met.insert("PING");
                self.send(client, "+PONG\r\n");
            }
            "SUBSCRIBE" if arguments.iter().any(|channel| self.forbidden.contains(channel)) => {
                self.met.insert(if arguments.len() > 1 { "a batch refused" } else { "a topic refused" });
                self.refused.extend(arguments.iter().map(|channel| (channel.clone(), Instant::now())));
                self.send(client, "-NOPERM No permissions to access a channel\r\n");
            }
            "SUBSCRIBE" => {
                let mut channels: Vec<&String> = arguments.iter().collect();
                // Redis does it in their order, and nobody promises that.
                channels.shuffle(&mut self.random);
                channels.into_iter().for_each(|channel| self.subscribe(client, channel));
            }
            "UNSUBSCRIBE" => arguments.iter().for_each(|channel| self.unsubscribe(client, channel)),
            other => panic!("Redis does not know {other}"),
        }
    }

    fn subscribe(&mut self, client: usize, channel: &str) {
        self.clients[client].channels.insert(channel.to_owned());
        let count = self.clients[client].channels.len();
        self.send(client, &push("subscribe", channel, &format!(":{count}\r\n")));
        let ends_at = self.clients[client].wire.lock().unwrap().down.sent;
        self.clients[client].confirmed.insert(channel.to_owned(), ends_at);
    }

    fn unsubscribe(&mut self, client: usize, channel: &str) {
        self.met.insert("UNSUBSCRIBE");
        self.clients[client].channels.remove(channel);
        self.clients[client].confirmed.remove(channel);
        let count = self.clients[client].channels.len();
        self.send(client, &push("unsubscribe", channel, &format!(":{count}\r\n")));
    }

    /// Sends in one piece or in two.
    fn send(&mut self, client: usize, reply: &str) {
        let (head, rest) = reply.as_bytes().split_at(self.random.random_range(0..reply.len()));
        let pause = self.random.random_range(Duration::ZERO..DELAY_MAX);
        let wire = &mut *self.clients[client].wire.lock().unwrap();
        wire.down.send(head, Duration::ZERO);
        wire.down.send(rest, pause);
    }

    /// Whether the node has read a confirmation of the channel on its latest connection.
    pub(super) fn has_confirmed(&self, channel: &str) -> bool {
        self.clients.last().is_some_and(|client| {
            let read = client.wire.lock().unwrap().down.read;
            client.confirmed.get(channel).is_some_and(|ends_at| *ends_at <= read)
        })
    }

    /// The channels that the node's link is subscribed to, and that Redis has not refused to give up.
    pub(super) fn channels(&self) -> BTreeSet<String> {
        self.clients.last().map(|client| &client.channels - &client.kept).unwrap_or_default()
    }

    /// Whether the node's link had reason to be given up. Without one it had.
    pub(super) fn is_harmed(&self) -> bool {
        self.clients.last().is_none_or(|client| client.is_harmed)
    }

    /// For how long nothing has arrived at the node that was sent to it, if nothing does.
    pub(super) fn deaf_for(&self) -> Option<Duration> {
        self.clients.last()?.deaf_since.map(|since| since.elapsed())
    }

    /// What the node's link sends does not arrive for now.
    pub(super) fn stall_up(&mut self) {
        if let Some(client) = self.clients.last_mut() {
            self.met.insert("commands held up");
            client.is_harmed = true;
            client.wire.lock().unwrap().up.stall();
        }
    }

    /// What is sent to the node does not arrive for now.
    pub(super) fn stall_down(&mut self) {
        if let Some(client) = self.clients.last_mut() {
            client.is_harmed = true;
            self.met.insert("answers held up");
            client.deaf_since.get_or_insert_with(Instant::now);
            client.wire.lock().unwrap().down.stall();
        }
    }

    /// Nothing arrives on the node's link from here on, and nobody says so.
    pub(super) fn vanish(&mut self) {
        if let Some(client) = self.clients.last_mut() {
            self.met.insert("vanished");
            client.is_harmed = true;
            client.deaf_since.get_or_insert_with(Instant::now);
            client.wire.lock().unwrap().vanish();
        }
    }

    /// Ends all connections somewhere among the bytes that are under way.
    pub(super) fn cut(&mut self, how: ErrorKind) {
        let is_pending = |client: &Client| {
            let read = client.wire.lock().unwrap().down.read;
            client.confirmed.values().any(|ends_at| *ends_at > read)
        };
        if self.clients.iter().any(is_pending) {
            self.met.insert("cut before a confirmation");
        }
        for client in &mut self.clients {
            let wire = &mut *client.wire.lock().unwrap();
            let (up, down) = (wire.up.bytes_under_way(), wire.down.bytes_under_way());
            let up_bytes = self.random.random_range(0..=up);
            let down_bytes = self.random.random_range(0..=down);
            if up_bytes < up {
                self.met.insert("cut among commands");
            }
            if down_bytes < down {
                self.met.insert("cut among answers");
            }
            wire.cut(up_bytes, down_bytes, how);
            client.is_harmed = true;
            client.deaf_since.get_or_insert_with(Instant::now);
        }
    }

    /// Nobody listens any more, and nothing is remembered.
    pub(super) fn end(&mut self) {
        self.cut(ErrorKind::ConnectionReset);
        self.clients.iter_mut().for_each(|client| client.channels.clear());
        self.door = Door::Refused;
    }

    /// Forbids a channel, which costs those who have it their connection (as ACL SETUSER does).
    pub(super) fn forbid(&mut self, channel: &str) {
        self.forbidden.insert(channel.to_owned());
        if self.clients.iter().any(|client| client.channels.contains(channel)) {
            self.cut(ErrorKind::UnexpectedEof);
        }
    }

    /// Whether the channel was refused within the last `time`.
    pub(super) fn has_refused(&self, channel: &str, time: Duration) -> bool {
        self.refused.get(channel).is_some_and(|at| at.elapsed() <= time)
    }

    pub(super) fn allow_all(&mut self) {
        self.forbidden.clear();
    }

    /// Whatever ails the server or the network in front of it is over. What has vanished stays so.
    pub(super) fn be_well(&mut self) {
        self.door = Door::Open;
        self.is_sour = false;
        for client in &mut self.clients {
            let wire = &mut *client.wire.lock().unwrap();
            wire.up.go_on();
            if wire.down.go_on() {
                client.deaf_since = None;
            }
        }
    }
}

impl Address {
    /// A server that can be reached, with so much time to it and back.
    pub(super) fn new(seed: u64, latency: Duration) -> Self {
        let redis = Redis {
            door: Door::Open,
            is_sour: false,
            forbidden: BTreeSet::new(),
            refused: BTreeMap::new(),
            clients: Vec::new(),
            latency,
            random: SmallRng::seed_from_u64(seed),
            met: BTreeSet::new(),
            commands: DefaultHasher::new(),
            began: Instant::now(),
            has_panicked: false,
        };
        Self { redis: Arc::new(Mutex::new(redis)), stirred: Arc::default() }
    }

    pub(super) fn redis(&self) -> MutexGuard<'_, Redis> {
        // After a failed check, for the alarm.
        self.redis.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connect(&self) -> Option<RedisResult<Socket>> {
        let redis = &mut *self.redis();
        let mut wire = Wire::new(redis.latency);
        match redis.door {
            Door::Open => {}
            Door::Refused => {
                redis.met.insert("connection refused");
                return Some(Err(RedisError::from(io::Error::from(ErrorKind::ConnectionRefused))));
            }
            Door::Hung => {
                redis.met.insert("connection never made");
                return None;
            }
            Door::Mute => {
                redis.met.insert("connection without a greeting");
                wire.down.stall();
            }
        }
        let wire = Arc::new(Mutex::new(wire));
        redis.clients.retain(|client| !client.wire.lock().unwrap().is_hung_up);
        redis.clients.push(Client {
            wire: Arc::clone(&wire),
            incomplete: Vec::new(),
            channels: BTreeSet::new(),
            confirmed: BTreeMap::new(),
            kept: BTreeSet::new(),
            is_harmed: redis.door == Door::Mute,
            deaf_since: None,
        });
        Some(Ok(Socket { wire, stirred: Arc::clone(&self.stirred) }))
    }
}

impl Dial for Address {
    type Connection = Connection;

    async fn dial(&self, config: &AsyncConnectionConfig) -> RedisResult<Connection> {
        let Some(socket) = self.connect() else { return future::pending().await };
        let introduction =
            RedisConnectionInfo::default().set_protocol(ProtocolVersion::RESP3).set_skip_set_lib_name();
        let (connection, driver) =
            MultiplexedConnection::new_with_config(&introduction, socket?, config.clone()).await?;
        let alarm = Alarm(self.clone());
        let driver = tokio::spawn(async move {
            let _alarm = alarm;
            driver.await;
        });
        Ok(Connection { connection, driver: driver.abort_handle() })
    }
}

/// A connection with its task, which ends with it as redis-rs's own do.
pub(super) struct Connection {
    connection: MultiplexedConnection,
    driver: AbortHandle,
}

impl Borrow<MultiplexedConnection> for Connection {
    fn borrow(&self) -> &MultiplexedConnection {
        &self.connection
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Tells that the task panicked: to the supervisor it looks like a lost connection.
struct Alarm(Address);

impl Drop for Alarm {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.redis().has_panicked = true;
        }
    }
}

fn push(kind: &str, channel: &str, last: &str) -> String {
    format!(">3\r\n{}{}{last}", bulk(kind), bulk(channel))
}

fn bulk(text: &str) -> String {
    format!("${}\r\n{text}\r\n", text.len())
}

/// Takes out the first command, if it is there whole: an array of bulk strings.
fn take_command(bytes: &mut Vec<u8>) -> Option<Vec<String>> {
    let mut rest = &bytes[..];
    let count = length(&mut rest, b'*')?;
    let mut words = Vec::new();
    for _ in 0..count {
        let length = length(&mut rest, b'$')?;
        let word = rest.get(..length)?;
        rest = rest.get(length + 2..)?;
        words.push(String::from_utf8(word.to_vec()).unwrap());
    }
    let taken = bytes.len() - rest.len();
    bytes.drain(..taken);
    Some(words)
}

fn length(rest: &mut &[u8], mark: u8) -> Option<usize> {
    let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
    let line = &rest[..end];
    assert_eq!(line[0], mark, "no command looks so");
    *rest = &rest[end + 2..];
    Some(str::from_utf8(&line[1..]).unwrap().parse().unwrap())
}
