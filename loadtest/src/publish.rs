//! Publishes as services and clients do: to Redis, over HTTP, or over WebSocket.
//!
//! The sockets are driven by the same epoll loop as the subscribers. Messages of one topic always take the same link,
//! so that their order is kept.

mod http;
mod redis;
mod websocket;

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use clap::ValueEnum;
use mio::event::Event;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use crate::address::GatewayAddress;
use crate::clock::Moment;
use crate::crowd::FOREIGN_TOKENS;
use crate::histogram::{Counts, Recorder};

pub(crate) use self::redis::RedisAddress;

/// How long a link may take to be ready.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A link with so much to send, or with so many messages unanswered, takes no more.
const UNSENT_BYTES_MAX: usize = 256 * 1024;
const UNANSWERED_MAX: usize = 8192;
const SCRATCH_BYTES: usize = 16 * 1024;

/// The road that messages take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Via {
    /// Plain `PUBLISH`, pipelined.
    Redis,
    /// `POST /v1/topics/{topic}`, one at a time on each link.
    Http,
    /// The command `publish`, a few at a time on each link; `limits.commands_per_second` bounds each link.
    Websocket,
}

/// How a road is spoken.
trait Dialect {
    /// How many messages may be unanswered on one link.
    fn window(&self) -> usize;
    /// Appends the request that publishes `payload` to `topic`.
    fn request(&mut self, topic: &str, payload: &str, out: &mut Vec<u8>);
    /// Takes the whole answers out of `input` and says how many they were; `out` is for what must be said in between.
    ///
    /// # Errors
    /// A message was refused: the answer.
    fn answers(&mut self, input: &mut Vec<u8>, out: &mut Vec<u8>) -> Result<usize, String>;
    /// Whether a connection may end when everything is answered; the next request then makes another.
    fn may_end(&self) -> bool {
        false
    }
}

/// Where publishers connect to, and as whom.
pub(crate) struct Destination<'a> {
    /// The road.
    pub(crate) via: Via,
    /// The Redis, for that road.
    pub(crate) redis: Option<&'a RedisAddress>,
    /// The gateways, for the other two.
    pub(crate) gateways: &'a [GatewayAddress],
    /// What allows publishing there.
    pub(crate) token: Option<String>,
    /// Whether messages go there compressed, over WebSocket.
    pub(crate) compress: bool,
}

/// All links of a process.
pub(crate) struct Publishers {
    links: Vec<Link>,
    /// Where connections that take the place of others are registered.
    registry: Option<Registry>,
    /// From the moment a message was due to its acknowledgement.
    acknowledged: Recorder,
}

struct Link {
    stream: TcpStream,
    token: Token,
    peer: SocketAddr,
    /// The next request needs another connection.
    is_spent: bool,
    dialect: Box<dyn Dialect>,
    /// What the kernel had no room for yet, from `sent` on.
    out: Vec<u8>,
    sent: usize,
    input: Vec<u8>,
    /// When the messages without an answer were due.
    unanswered: VecDeque<Moment>,
    /// Requests that wait until fewer are unanswered.
    waiting: VecDeque<(Moment, Vec<u8>)>,
}

impl Publishers {
    /// Nobody publishes.
    pub(crate) fn none() -> Self {
        Self { links: Vec::new(), registry: None, acknowledged: Recorder::default() }
    }

    /// Connects `count` links.
    pub(crate) fn connect(to: &Destination<'_>, count: usize, registry: &Registry) -> io::Result<Self> {
        let mut publishers = Self { registry: Some(registry.try_clone()?), ..Self::none() };
        for index in 0..count {
            let (stream, dialect) = to.connect(index)?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            let peer = stream.peer_addr()?;
            let mut link =
                Link::new(TcpStream::from_std(stream), Token(FOREIGN_TOKENS + index), peer, dialect);
            link.register(registry)?;
            publishers.links.push(link);
        }
        Ok(publishers)
    }

    /// Whether a message to topic number `topic` would be taken now.
    pub(crate) fn accepts(&self, topic: usize) -> bool {
        self.links[topic % self.links.len()].accepts()
    }

    /// Takes a message, to be sent at the next [`Publishers::flush`].
    pub(crate) fn publish(&mut self, topic: usize, name: &str, payload: &str, due: Moment) {
        let link = topic % self.links.len();
        self.links[link].publish(name, payload, due);
    }

    /// Sends what was taken.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        let Self { links, registry: Some(registry), .. } = self else { return Ok(()) };
        links.iter_mut().try_for_each(|link| link.flush(registry))
    }

    /// Reads answers, and sends what they make room for.
    pub(crate) fn ready(&mut self, event: &Event) -> io::Result<()> {
        let Self { links, registry: Some(registry), acknowledged } = self else { return Ok(()) };
        let link = &mut links[event.token().0 - FOREIGN_TOKENS];
        if event.is_readable() {
            link.read(acknowledged)?;
        }
        link.flush(registry)
    }

    /// How many messages are not acknowledged yet.
    pub(crate) fn unacknowledged(&self) -> usize {
        self.links.iter().map(|link| link.unanswered.len() + link.waiting.len()).sum()
    }

    /// How long acknowledgements took since the last time.
    pub(crate) fn take_acknowledged(&mut self) -> Counts {
        self.acknowledged.take()
    }
}

impl Destination<'_> {
    fn connect(&self, index: usize) -> io::Result<(std::net::TcpStream, Box<dyn Dialect>)> {
        let gateway = &self.gateways[index % self.gateways.len()];
        let token = self.token.as_deref();
        Ok(match self.via {
            Via::Redis => {
                let redis = self.redis.ok_or_else(|| io::Error::other("--redis says where to publish"))?;
                (redis::connect(redis)?, Box::new(redis::Redis))
            }
            Via::Http => (dial(gateway.socket)?, Box::new(http::Http::new(&gateway.host, token))),
            Via::Websocket => {
                let (stream, websocket) = websocket::connect(gateway, token, self.compress)?;
                (stream, Box::new(websocket))
            }
        })
    }
}

/// A blocking socket that gives up after [`CONNECT_TIMEOUT`].
fn dial(address: SocketAddr) -> io::Result<std::net::TcpStream> {
    let stream = std::net::TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)?;
    stream.set_read_timeout(Some(CONNECT_TIMEOUT))?;
    Ok(stream)
}

impl Link {
    fn new(stream: TcpStream, token: Token, peer: SocketAddr, dialect: Box<dyn Dialect>) -> Self {
        let (out, input) = (Vec::new(), Vec::new());
        let (unanswered, waiting) = (VecDeque::new(), VecDeque::new());
        Self { stream, token, peer, is_spent: false, dialect, out, sent: 0, input, unanswered, waiting }
    }

    fn register(&mut self, registry: &Registry) -> io::Result<()> {
        registry.register(&mut self.stream, self.token, Interest::READABLE | Interest::WRITABLE)
    }

    /// Puts a new connection in the place of one that has served its time.
    fn reconnect(&mut self, registry: &Registry) -> io::Result<()> {
        self.stream = TcpStream::connect(self.peer)?;
        self.stream.set_nodelay(true)?;
        self.is_spent = false;
        self.register(registry)
    }

    fn accepts(&self) -> bool {
        let unanswered = self.unanswered.len() + self.waiting.len();
        unanswered < UNANSWERED_MAX && self.out.len() - self.sent < UNSENT_BYTES_MAX
    }

    fn publish(&mut self, topic: &str, payload: &str, due: Moment) {
        if self.unanswered.len() < self.dialect.window() {
            self.unanswered.push_back(due);
            return self.dialect.request(topic, payload, &mut self.out);
        }
        let mut request = Vec::new();
        self.dialect.request(topic, payload, &mut request);
        self.waiting.push_back((due, request));
    }

    fn read(&mut self, acknowledged: &mut Recorder) -> io::Result<()> {
        let mut scratch = [0; SCRATCH_BYTES];
        loop {
            match self.stream.read(&mut scratch) {
                Ok(0) => {
                    self.is_spent = true;
                    break;
                }
                Ok(len) => self.input.extend_from_slice(&scratch[..len]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let answers = self.dialect.answers(&mut self.input, &mut self.out).map_err(io::Error::other)?;
        let is_answered = answers >= self.unanswered.len();
        if self.is_spent && !(is_answered && self.dialect.may_end()) {
            return Err(io::Error::other("a publisher's connection was closed"));
        }
        self.is_spent |= answers > 0 && self.dialect.may_end();
        let now = Moment::now();
        for due in self.unanswered.drain(..answers.min(self.unanswered.len())) {
            acknowledged.record(now.since(due));
        }
        self.go_on();
        Ok(())
    }

    /// Sends what waited for the answers that have come.
    fn go_on(&mut self) {
        while self.unanswered.len() < self.dialect.window() {
            let Some((due, request)) = self.waiting.pop_front() else { return };
            self.unanswered.push_back(due);
            self.out.extend_from_slice(&request);
        }
    }

    fn flush(&mut self, registry: &Registry) -> io::Result<()> {
        if self.is_spent && self.sent < self.out.len() {
            self.reconnect(registry)?;
        }
        while self.sent < self.out.len() {
            match self.stream.write(&self.out[self.sent..]) {
                Ok(written) => self.sent += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.out.clear();
        self.sent = 0;
        Ok(())
    }
}
