//! Every connection of a run, in one epoll loop on one thread.

use std::io;
use std::ops::Range;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};

use crate::address::GatewayAddress;
use crate::connection::{Connection, Ended};
use crate::push::Push;
use crate::token::Tokens;

/// How many connections may be on their way in at once: fewer than a listener's backlog, enough to keep a core
/// of gateway busy.
const ARRIVING_MAX: usize = 64;
/// A gateway that lets nobody in for so long will not.
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(10);
/// One read takes what a socket holds in all but the worst case.
const SCRATCH_BYTES: usize = 256 * 1024;
const EVENTS_MAX: usize = 1024;

/// The connections, numbered from 0 in the order they were opened.
pub(crate) struct Crowd {
    gateway: GatewayAddress,
    tokens: Tokens,
    poll: Poll,
    events: Events,
    scratch: Vec<u8>,
    /// `None` for a connection that has ended.
    connections: Vec<Option<Connection>>,
    ended: Vec<(usize, Ended)>,
}

/// Why a crowd could not be brought together.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CrowdError {
    /// A connection ended before the run began.
    #[error("connection {0}: {1}")]
    Ended(usize, Ended),
    /// The gateway refused a subscription.
    #[error("connection {0}: the subscription was refused: {1}")]
    Refused(usize, String),
    /// Nothing moved for [`ARRIVAL_TIMEOUT`].
    #[error("{0} of {1} connections were served, then none for {ARRIVAL_TIMEOUT:?}")]
    TimedOut(usize, usize),
    /// No token could be signed.
    #[error("no token could be signed: {0}")]
    Token(#[from] jsonwebtoken::errors::Error),
    /// The epoll loop failed, or no socket was left.
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl Crowd {
    /// Nobody yet.
    pub(crate) fn new(gateway: GatewayAddress, tokens: Tokens) -> io::Result<Self> {
        Ok(Self {
            gateway,
            tokens,
            poll: Poll::new()?,
            events: Events::with_capacity(EVENTS_MAX),
            scratch: vec![0; SCRATCH_BYTES],
            connections: Vec::new(),
            ended: Vec::new(),
        })
    }

    /// Opens connections until there are `count`, each welcomed.
    pub(crate) fn open(&mut self, count: usize) -> Result<(), CrowdError> {
        self.connections.reserve_exact(count.saturating_sub(self.connections.len()));
        self.arrive(self.connections.len()..count, Self::connect, &Push::Welcome)
    }

    /// Subscribes `connections`, each to the topic that `topic` names for it.
    pub(crate) fn subscribe(
        &mut self,
        connections: Range<usize>,
        topic: impl Fn(usize) -> String,
    ) -> Result<(), CrowdError> {
        let subscribe = |crowd: &mut Self, index: usize| {
            let command = format!(r#"{{"id":1,"op":"subscribe","topics":["{}"]}}"#, topic(index));
            match &mut crowd.connections[index] {
                Some(connection) => {
                    connection.send(&command).map_err(|ended| CrowdError::Ended(index, ended))
                }
                None => Ok(()), // it is in `ended`, which the next turn reports
            }
        };
        self.arrive(connections, subscribe, &Push::Subscribed)
    }

    /// Waits up to `timeout` for something to happen, and hands every text to `heard` with its connection's
    /// number.
    pub(crate) fn turn(&mut self, timeout: Duration, mut heard: impl FnMut(usize, &str)) -> io::Result<()> {
        match self.poll.poll(&mut self.events, Some(timeout)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        for event in &self.events {
            let index = event.token().0;
            let Some(connection) = &mut self.connections[index] else { continue };
            if let Err(ended) = connection.ready(event, &mut self.scratch, |text| heard(index, text)) {
                self.connections[index] = None;
                self.ended.push((index, ended));
            }
        }
        Ok(())
    }

    /// The connections that have ended, in that order, each with its reason.
    pub(crate) fn ended(&self) -> &[(usize, Ended)] {
        &self.ended
    }

    /// How many connections there are or were.
    pub(crate) fn len(&self) -> usize {
        self.connections.len()
    }

    /// Takes each of `connections` through one step: starts it with `start`, and `done` says that it is made.
    fn arrive(
        &mut self,
        mut connections: Range<usize>,
        mut start: impl FnMut(&mut Self, usize) -> Result<(), CrowdError>,
        done: &Push,
    ) -> Result<(), CrowdError> {
        let (total, mut arriving, mut refusal) = (connections.len(), 0, None);
        let mut last_arrival = Instant::now();
        while !connections.is_empty() || arriving > 0 {
            for index in connections.by_ref().take(ARRIVING_MAX - arriving) {
                start(self, index)?;
                arriving += 1;
            }
            self.turn(ARRIVAL_TIMEOUT, |index, text| match Push::parse(text) {
                push if push == *done => {
                    arriving -= 1;
                    last_arrival = Instant::now();
                }
                Push::Refused(text) => refusal = Some((index, text)),
                _ => {}
            })?;
            self.check_arrival(refusal.take())?;
            if last_arrival.elapsed() >= ARRIVAL_TIMEOUT {
                return Err(CrowdError::TimedOut(total - connections.len() - arriving, total));
            }
        }
        Ok(())
    }

    fn check_arrival(&mut self, refusal: Option<(usize, String)>) -> Result<(), CrowdError> {
        if let Some((index, ended)) = self.ended.pop() {
            return Err(CrowdError::Ended(index, ended));
        }
        refusal.map_or(Ok(()), |(index, text)| Err(CrowdError::Refused(index, text)))
    }

    fn connect(&mut self, index: usize) -> Result<(), CrowdError> {
        let token = self.tokens.token(index)?;
        let mut connection = Connection::open(index, &self.gateway, token.as_deref())?;
        connection.register(self.poll.registry(), Token(index))?;
        self.connections.push(Some(connection));
        Ok(())
    }
}
