//! Every connection of a process, in one epoll loop on one thread.
//!
//! A member connects, is welcomed, subscribes to its topic and is up; it may end, and come back. The crowd takes each
//! through that, and tells a [`Listener`] what happens. What members that are up hear goes to the listener unread.

use std::time::Duration;
use std::{io, thread};

use mio::event::Event;
use mio::{Events, Poll, Registry, Token};

use crate::address::GatewayAddress;
use crate::alarm::Alarm;
use crate::clock::{Moment, thread_cpu};
use crate::connection::{Connection, Ended};
use crate::histogram::Recorder;
use crate::push::Push;
use crate::scratch::{Scratch, Traffic};
use crate::source::Sources;
use crate::token::Tokens;

/// A gateway that does not answer for so long will not.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
const EVENTS_MAX: usize = 1024;
/// A poll that took less than this did not sleep: what it found may have been waiting since the one before.
const SLEEPLESS: Duration = Duration::from_micros(20);
/// Above this, a timeout in whole milliseconds will do.
const PRECISE: Duration = Duration::from_millis(20);
const ALARM: Token = Token(FOREIGN_TOKENS - 1);
/// Tokens from here on belong to sockets that are not members'.
pub(crate) const FOREIGN_TOKENS: usize = 1 << 32;

/// The connections, numbered from 0 in the order they were opened.
pub(crate) struct Crowd {
    entrance: Entrance,
    poll: Poll,
    alarm: Alarm,
    events: Events,
    scratch: Scratch,
    members: Vec<Member>,
    up: usize,
    idleness: Idleness,
}

/// Where a crowd goes in, and with what.
pub(crate) struct Entrance {
    /// Where the gateways are; members are spread over them in turn.
    pub(crate) gateways: Vec<GatewayAddress>,
    /// What members prove themselves with.
    pub(crate) tokens: Tokens,
    /// Where they come from.
    pub(crate) sources: Sources,
    /// The number of member 0 among the members of all processes.
    pub(crate) first: usize,
    /// By how much a member's number grows whenever it comes again: 0 if it is the same person, otherwise another one with
    /// an address and a subject of their own.
    pub(crate) stride: usize,
    /// What each member subscribes to, by its number in this process; `None` for nothing at all.
    pub(crate) topic: Box<dyn Fn(usize) -> Option<String>>,
    /// Whether the crowd asks the kernel again and again instead of sleeping.
    pub(crate) busy_poll: bool,
    /// Whether members have their messages compressed.
    pub(crate) compress: bool,
}

struct Member {
    connection: Option<Connection>,
    state: State,
    /// When it got into this state.
    since: Moment,
    /// How often it has been sent to another gateway.
    moves: u32,
}

/// How far a member has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// It has no connection.
    Away,
    /// It waits for its welcome.
    Opening,
    /// It is welcome, and has not been told to subscribe.
    Welcome,
    /// It waits for the answer to its subscribe.
    Subscribing,
    /// It hears its topic.
    Up,
}

/// What happened to a member.
#[derive(Debug)]
pub(crate) enum News {
    /// The upgrade went through, so long after it began.
    Welcomed(Duration),
    /// It is subscribed.
    Subscribed,
    /// Its ping command was answered.
    Ponged,
    /// The gateway refused a subscribe: its answer.
    Refused(String),
    /// Its connection is over; it had come as far as this.
    Ended(Ended, State),
}

/// Whom a crowd tells.
pub(crate) trait Listener {
    /// A member that is up heard `text`.
    fn heard(&mut self, member: usize, text: &str, now: Moment);
    /// Something happened to a member.
    fn news(&mut self, member: usize, news: News, now: Moment);
    /// A socket that is no member's is ready.
    fn foreign(&mut self, event: &Event) -> io::Result<()>;
}

/// How much time the thread had to spare, and how long what happened had to wait for it.
#[derive(Debug)]
pub(crate) struct Idleness {
    /// From an event to its handling, at most.
    pub(crate) lag: Recorder,
    /// Time spent waiting for something to happen.
    slept: Duration,
    since: Moment,
    cpu_before: Duration,
}

/// Why a crowd could not go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CrowdError {
    /// No token could be signed.
    #[error("no token could be signed: {0}")]
    Token(#[from] jsonwebtoken::errors::Error),
    /// The epoll loop failed, or no socket was left.
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl Crowd {
    /// Nobody yet.
    pub(crate) fn new(entrance: Entrance) -> io::Result<Self> {
        let poll = Poll::new()?;
        Ok(Self {
            alarm: Alarm::new(poll.registry(), ALARM)?,
            poll,
            events: Events::with_capacity(EVENTS_MAX),
            scratch: Scratch::new(entrance.compress),
            members: Vec::new(),
            up: 0,
            idleness: Idleness::begin(),
            entrance,
        })
    }

    /// Makes room for `count` members, all of them away.
    pub(crate) fn reserve(&mut self, count: usize) {
        let away = || Member { connection: None, state: State::Away, since: Moment::now(), moves: 0 };
        self.members.resize_with(count.max(self.members.len()), away);
    }

    /// Has `member` connect, to the gateway that is its turn.
    pub(crate) fn open(&mut self, member: usize) -> Result<(), CrowdError> {
        self.reserve(member + 1);
        let Entrance { gateways, tokens, sources, first, stride, compress, .. } = &self.entrance;
        let moves = self.members[member].moves as usize;
        let index = first + member + stride * moves;
        let gateway = &gateways[(first + member + moves) % gateways.len()];
        let source = sources.address(index, gateway.socket.ip());
        let token = tokens.token(index)?;
        let mut connection = Connection::open(gateway, source, token.as_deref(), *compress)?;
        connection.register(self.poll.registry(), Token(member))?;
        self.members[member].connection = Some(connection);
        self.members[member].enter(State::Opening, Moment::now());
        Ok(())
    }

    /// Has `member` come back by way of the next gateway.
    pub(crate) fn open_elsewhere(&mut self, member: usize) -> Result<(), CrowdError> {
        self.members[member].moves += 1;
        self.open(member)
    }

    /// Has a welcome member subscribe.
    pub(crate) fn subscribe(&mut self, member: usize) -> Result<(), Ended> {
        let topic = (self.entrance.topic)(member);
        let Member { connection: Some(connection), .. } = &mut self.members[member] else { return Ok(()) };
        let topic = topic.map(|topic| format!(r#""{topic}""#)).unwrap_or_default();
        connection.send(&format!(r#"{{"id":1,"op":"subscribe","topics":[{topic}]}}"#))?;
        self.members[member].enter(State::Subscribing, Moment::now());
        Ok(())
    }

    /// Sends a command for `member`.
    pub(crate) fn send(&mut self, member: usize, command: &str) -> Result<(), Ended> {
        match &mut self.members[member].connection {
            Some(connection) => connection.send(command),
            None => Ok(()),
        }
    }

    /// Has `member` leave.
    pub(crate) fn leave(&mut self, member: usize, listener: &mut impl Listener) {
        if let Some(connection) = &mut self.members[member].connection {
            connection.close();
            self.end(member, Ended::Left, listener);
        }
    }

    /// Waits up to `timeout` for something to happen, and tells `listener`.
    pub(crate) fn turn(&mut self, timeout: Duration, listener: &mut impl Listener) -> io::Result<()> {
        let asked = Moment::now();
        let timeout = if self.entrance.busy_poll { Duration::ZERO } else { timeout };
        if (Duration::from_nanos(1)..PRECISE).contains(&timeout) {
            self.alarm.set(asked + timeout)?;
        }
        match self.poll.poll(&mut self.events, Some(timeout)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        if self.entrance.busy_poll && self.events.is_empty() {
            // Whoever shares this CPU goes first: what they do may be what is waited for.
            thread::yield_now();
        }
        let answered = Moment::now();
        let slept = answered.since(asked);
        self.idleness.slept += slept;
        let ready_since = if slept < SLEEPLESS { asked } else { answered };
        let events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        for event in &events {
            self.idleness.lag.record(Moment::now().since(ready_since));
            match event.token() {
                ALARM => {}
                Token(FOREIGN_TOKENS..) => listener.foreign(event)?,
                Token(member) => self.member_ready(member, event, listener),
            }
        }
        self.events = events;
        Ok(())
    }

    fn member_ready(&mut self, index: usize, event: &Event, listener: &mut impl Listener) {
        let member = &mut self.members[index];
        let Some(connection) = &mut member.connection else { return };
        let (state, since, up) = (&mut member.state, &mut member.since, &mut self.up);
        let done = connection.ready(event, &mut self.scratch, |text, now| {
            if *state == State::Up {
                return listener.heard(index, text, now);
            }
            if let Some((next, news)) = step(*state, now.since(*since), text) {
                *up += usize::from(next == State::Up);
                (*state, *since) = (next, now);
                listener.news(index, news, now);
            }
        });
        if let Err(ended) = done {
            self.end(index, ended, listener);
        }
    }

    /// Ends `member`'s connection.
    pub(crate) fn end(&mut self, index: usize, ended: Ended, listener: &mut impl Listener) {
        let member = &mut self.members[index];
        let (now, state) = (Moment::now(), member.state);
        member.connection = None;
        self.up -= usize::from(state == State::Up);
        member.enter(State::Away, now);
        listener.news(index, News::Ended(ended, state), now);
    }

    /// Ends the connections that have waited for an answer too long. To be called every second or so.
    pub(crate) fn sweep(&mut self, listener: &mut impl Listener) {
        let now = Moment::now();
        for member in 0..self.members.len() {
            let Member { state, since, .. } = self.members[member];
            let waits = matches!(state, State::Opening | State::Subscribing);
            if waits && now.since(since) > ANSWER_TIMEOUT {
                self.end(member, Ended::TimedOut, listener);
            }
        }
    }

    /// How far `member` has come.
    pub(crate) fn state(&self, member: usize) -> State {
        self.members[member].state
    }

    /// How many members are up.
    pub(crate) fn up(&self) -> usize {
        self.up
    }

    /// How many members there are, away or not.
    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    /// For sockets that are no member's, under tokens from [`FOREIGN_TOKENS`] on.
    pub(crate) fn registry(&self) -> &Registry {
        self.poll.registry()
    }

    /// What members were sent since the last time.
    pub(crate) fn take_traffic(&mut self) -> Traffic {
        self.scratch.take_traffic()
    }

    /// What the thread had to spare since the last time.
    pub(crate) fn take_idleness(&mut self) -> Idleness {
        std::mem::replace(&mut self.idleness, Idleness::begin())
    }
}

impl Idleness {
    /// From now on.
    fn begin() -> Self {
        let (lag, slept) = (Recorder::default(), Duration::ZERO);
        Self { lag, slept, since: Moment::now(), cpu_before: thread_cpu() }
    }

    /// How much of the time the thread did not wait for something to happen, and how much it waited for a CPU: both from 0
    /// to 1. To be asked on that thread.
    pub(crate) fn busy_and_starved(&self) -> (f64, f64) {
        let elapsed = Moment::now().since(self.since);
        let busy = (1.0 - self.slept.div_duration_f64(elapsed)).max(0.0);
        let worked = thread_cpu().saturating_sub(self.cpu_before).div_duration_f64(elapsed);
        (busy, (busy - worked).max(0.0))
    }
}

impl Member {
    fn enter(&mut self, state: State, now: Moment) {
        (self.state, self.since) = (state, now);
    }
}

/// Where `text` takes a member that is not up and has waited for it so long.
fn step(state: State, waited: Duration, text: &str) -> Option<(State, News)> {
    match (state, Push::parse(text)) {
        (State::Opening, Push::Welcome) => Some((State::Welcome, News::Welcomed(waited))),
        (State::Subscribing, Push::Subscribed) => Some((State::Up, News::Subscribed)),
        (_, Push::Pong) => Some((state, News::Ponged)),
        (_, Push::Refused(answer)) => Some((state, News::Refused(answer))),
        _ => None,
    }
}
