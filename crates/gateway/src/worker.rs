//! One worker thread: its hub, its sockets, and the loop that brings messages from the broker to them.
//!
//! The loop takes what the broker has put into the inbox, lets the hub offer it to outboxes, and writes out
//! the outboxes that have something, a bounded piece at a time: between two pieces every other task of the
//! thread has its turn. Messages that come in meanwhile join the outboxes that wait, so that under load several
//! leave in one write by themselves, and when there is nothing to wait for a message leaves at once.
//!
//! Nothing here is locked or shared with another thread, except the inbox. No borrow of the hub is held
//! across an await.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use causeway_broker::{Delivery, Inbox, Interest, Pulse, Ticket, WorkerId};
use causeway_hub::{Fate, Hub, InterestChange, Moment, Policy, Request, SessionKey};
use causeway_protocol::frame::{DeflateAgreement, FrameLimits, FrameReader, Inflater, Role};
use causeway_protocol::{CloseCode, CommandId};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout_at;

use crate::connection::Connection;
use crate::crew::{Enrolled, Errand};
use crate::line::Line;
use crate::log;
use crate::metrics::WorkerReport;
use crate::node::{Node, Phase};
use crate::settings::Settings;
use crate::socket::{Socket, Written};
use crate::tasks;
use crate::token::Verified;

/// How often time passes for the hub.
const TICK: Duration = Duration::from_millis(250);
/// How long the worst lag is remembered at least, and at most twice.
const LAG_WINDOW: Duration = Duration::from_secs(10);
/// How many outboxes are offered something before others have their turn: about a millisecond.
const OFFERS_PER_TURN: usize = 32 * 1024;
/// How many offers are made in the time that a delivery takes besides: to find its topic, and to encode it or answer who
/// waited for it.
const OFFERS_PER_DELIVERY: usize = 16;
/// How much payload is encoded in the time of one offer.
const BYTES_PER_OFFER: usize = 64;
/// How many sockets are written to before others have their turn: about a millisecond.
const WRITES_PER_TURN: usize = 192;
/// How many bytes the kernel copies in the time that a small write takes.
const BYTES_PER_WRITE: usize = 16 * 1024;
/// What one read can take. Little, because there is no stopping within it, and so much of the dearest commands is a good
/// part of a millisecond's work. One buffer serves all connections of the thread.
const READ_BUFFER_BYTES: usize = 2 * 1024;
/// What one write can gather.
const WRITE_BUFFER_BYTES: usize = 32 * 1024;

/// One worker thread's part of the node.
pub(crate) struct Worker {
    pub(crate) node: Arc<Node>,
    pub(crate) hub: RefCell<Hub>,
    /// Read by one connection at a time, within one poll.
    pub(crate) read_buffer: RefCell<Box<[u8]>>,
    /// Who has sent more than one turn reads.
    pub(crate) line: Line,
    /// Where the frames of one write are gathered.
    write_buffer: RefCell<Box<[u8]>>,
    /// For the compressed messages of all connections, one at a time.
    pub(crate) inflater: RefCell<Inflater>,
    /// What the messages of clients may cost.
    pub(crate) frame_limits: Cell<FrameLimits>,
    settings: RefCell<watch::Receiver<Arc<Settings>>>,
    /// What the broker calls it.
    id: WorkerId,
    /// What people call it, in names of sessions and in metrics.
    pub(crate) number: u16,
    inbox: Arc<Inbox>,
    /// By the session's index.
    sockets: RefCell<Vec<Option<Rc<Socket>>>>,
    started: Instant,
    pulse: Arc<Pulse>,
    reported: RefCell<WorkerReport>,
    /// Of the budget: what was last reported.
    budgeted: Cell<usize>,
    lag: Cell<Lag>,
    outbox_bytes_highest: Cell<usize>,
    is_draining: Cell<bool>,
    /// The version of the revocations that the sessions were last compared with.
    revocations: Cell<u64>,
}

impl Worker {
    /// Starts this thread's worker. Must be called on an actix worker, whose end ends it.
    pub(crate) fn start(node: &Arc<Node>) -> Rc<Self> {
        let inbox = Arc::new(Inbox::new(node.inbox_bytes));
        let id = node.broker.attach(Arc::clone(&inbox));
        let mut watched = node.watch_settings();
        let settings = Arc::clone(&watched.borrow_and_update());
        let Enrolled { number, pulse, errands } = node.crew.enrol();
        let hub = Hub::new(&*node.name, number, settings.hub.clone(), rand::random());
        let hub = hub.with_classes(Arc::clone(&node.topic_classes));
        let worker = Rc::new(Self {
            number,
            node: Arc::clone(node),
            hub: RefCell::new(hub),
            read_buffer: RefCell::new(vec![0; READ_BUFFER_BYTES].into_boxed_slice()),
            line: Line::default(),
            write_buffer: RefCell::new(vec![0; WRITE_BUFFER_BYTES].into_boxed_slice()),
            inflater: RefCell::default(),
            frame_limits: Cell::new(settings.frames),
            settings: RefCell::new(watched),
            id,
            inbox,
            sockets: RefCell::default(),
            started: Instant::now(),
            pulse,
            reported: RefCell::default(),
            budgeted: Cell::default(),
            lag: Cell::default(),
            outbox_bytes_highest: Cell::default(),
            is_draining: Cell::new(false),
            revocations: Cell::new(0),
        });
        spawn_vital(Rc::clone(&worker).run());
        spawn_vital(Rc::clone(&worker).run_errands(errands));
        let served = Rc::clone(&worker);
        spawn_vital(async move { served.line.serve().await });
        worker
    }

    /// The moment now, as the hub counts.
    pub(crate) fn now(&self) -> Moment {
        Moment::at(self.started.elapsed())
    }

    /// Begins a session on a socket whose upgrade has been answered, and agreed on compression or not. `early` are
    /// bytes that came behind the request.
    pub(crate) fn connect(
        self: &Rc<Self>,
        verified: Verified,
        deflate: Option<DeflateAgreement>,
        socket: Socket,
        early: &mut [u8],
    ) {
        let now = self.now();
        let key = self.hub.borrow_mut().connect(verified.policy, now + verified.expires_in, now);
        let socket = Rc::new(socket);
        let mut sockets = self.sockets.borrow_mut();
        if sockets.len() <= key.index() {
            sockets.resize_with(key.index() + 1, || None);
        }
        sockets[key.index()] = Some(Rc::clone(&socket));
        drop(sockets);
        let mut reader = FrameReader::new(Role::Server);
        if let Some(agreement) = deflate {
            self.hub.borrow_mut().agree_on_deflate(key, agreement);
            reader = reader.with_deflate();
        }
        let mut connection = Connection::new(Rc::clone(self), socket, key, reader);
        self.flush(key);
        connection.receive(early);
        tasks::spawn(connection);
    }

    /// Ends a session: its connection is being dropped.
    pub(crate) fn disconnect(&self, key: SessionKey) -> Option<causeway_hub::Ended> {
        let ended = self.hub.borrow_mut().disconnect(key)?;
        self.sockets.borrow_mut()[key.index()] = None;
        self.node.metrics.count_closed(ended.code);
        self.pass_interest_on();
        Some(ended)
    }

    /// The socket of a session, as long as it has one.
    pub(crate) fn socket_of(&self, key: SessionKey) -> Option<Rc<Socket>> {
        self.sockets.borrow().get(key.index()).and_then(Clone::clone)
    }

    /// Carries out what the hub cannot do alone, and tells it the outcome.
    pub(crate) fn carry_out(self: &Rc<Self>, key: SessionKey, request: Request) {
        match request {
            Request::Publish { id, permit, data } => {
                // Called here, not in the task: publishes keep the order of their commands.
                let publish = self.node.publish(permit, data);
                let worker = Rc::clone(self);
                tasks::spawn(async move {
                    let outcome = publish.await;
                    worker.hub.borrow_mut().published(key, &id, outcome, worker.now());
                    worker.flush(key);
                });
            }
            Request::Authenticate { id, token } => self.reauthenticate(key, &id, &token),
        }
    }

    fn reauthenticate(&self, key: SessionKey, id: &CommandId, token: &str) {
        let now = self.now();
        let verdict: Result<(Policy, Moment), String> = match self.node.verify(Some(token)) {
            Ok(verified) => Ok((verified.policy, now + verified.expires_in)),
            Err(error) => {
                if self.node.repeats.may_tell("authenticate", error.cause()) {
                    let session = self.hub.borrow().session_name(key);
                    tracing::info!(session, cause = error.cause(), "refused a fresh token");
                }
                Err(error.to_string())
            }
        };
        self.hub.borrow_mut().reauthenticated(key, id, verdict, now);
    }

    /// Tells the broker which topics are wanted now and which no more.
    pub(crate) fn pass_interest_on(&self) {
        for change in self.hub.borrow_mut().take_interest() {
            let change = match change {
                InterestChange::Want(topic, ticket) => Interest::Want(topic, Ticket(ticket)),
                InterestChange::Leave(topic) => Interest::Leave(topic),
            };
            self.node.broker.change_interest(self.id, change);
        }
    }

    /// Writes what is owed to one session until there is nothing more or the socket takes no more, and acts on
    /// its fate. Says how many bytes left.
    pub(crate) fn flush(&self, key: SessionKey) -> usize {
        let mut written = 0;
        let Some(socket) = self.socket_of(key) else { return written };
        let mut hub = self.hub.borrow_mut();
        if hub.outbox(key).is_none() {
            // The session has ended, and the socket at its index is another's.
            return written;
        }
        let now = self.now();
        while !socket.is_blocked()
            && let Some(outbox) = hub.outbox(key).filter(|outbox| !outbox.is_empty())
        {
            match socket.write(outbox, &mut self.write_buffer.borrow_mut()) {
                Written::Bytes(bytes) => {
                    hub.wrote(key, bytes, now);
                    written += bytes;
                }
                Written::Blocked => hub.blocked(key, now),
                Written::Broken => {
                    socket.end();
                    return written;
                }
            }
        }
        match hub.fate(key, now) {
            Fate::Open => {}
            Fate::HalfClose => socket.half_close(),
            Fate::Drop => socket.end(),
        }
        written
    }

    async fn run(self: Rc<Self>) {
        let mut deliveries = Vec::new().into_iter();
        let mut next_tick = Instant::now();
        let mut ahead_bytes = 0;
        loop {
            // Time passes under load too: a worker that is busy still pings, and notices who is silent.
            let now = Instant::now();
            if now >= next_tick {
                self.lag.set(self.lag.get().noted(now - next_tick, self.now()));
                self.tick();
                next_tick = now + TICK;
            }
            if deliveries.len() == 0 {
                deliveries = self.inbox.take().into_iter();
            }
            let is_all_delivered = self.deliver(&mut deliveries, &mut ahead_bytes);
            self.keep_budget();
            let is_all_written = self.flush_listed();
            if is_all_written {
                ahead_bytes = 0;
            }
            if is_all_delivered && is_all_written {
                // Ends early when something has come in already.
                let _ = timeout_at(next_tick.into(), self.inbox.ready()).await;
            } else {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Runs errands as they come. What they owe to clients leaves at once.
    async fn run_errands(self: Rc<Self>, mut errands: mpsc::Receiver<Errand>) {
        while let Some(errand) = errands.recv().await {
            errand(&self);
            self.pass_interest_on();
            while !self.flush_listed() {
                tokio::task::yield_now().await;
            }
            tokio::task::yield_now().await;
        }
    }

    /// Hands some deliveries to the hub; says whether those were all.
    ///
    /// `ahead_bytes` is what has been handed over since every outbox was last written. It stays below a quarter
    /// of what one outbox may hold, so that no client is cut for bytes that nobody has tried to write to it.
    fn deliver(&self, deliveries: &mut impl Iterator<Item = Delivery>, ahead_bytes: &mut usize) -> bool {
        let mut hub = self.hub.borrow_mut();
        let ahead_bytes_max = hub.limits().outbox_bytes / 4;
        let now = self.now();
        let mut offers = 0;
        while offers < OFFERS_PER_TURN && *ahead_bytes <= ahead_bytes_max {
            let Some(delivery) = deliveries.next() else { return true };
            offers += OFFERS_PER_DELIVERY;
            match delivery {
                Delivery::Publication(publication, received) => {
                    let received = Moment::at(received.saturating_duration_since(self.started));
                    let bytes = publication.payload().len();
                    *ahead_bytes += bytes;
                    offers += hub.publish(&publication, received, now) + bytes / BYTES_PER_OFFER;
                }
                Delivery::Live(topic, ticket) => offers += hub.topic_live(&topic, ticket.0, now),
                Delivery::LinkLost { missing_for } => hub.link_lost(missing_for, now),
                Delivery::Dropped { topic, messages, since } => {
                    offers += hub.topic_dropped(&topic, messages, since, now);
                }
            }
        }
        false
    }

    /// Writes to some of the sessions that want it; says whether those were all.
    fn flush_listed(&self) -> bool {
        let mut writes = 0;
        while writes < WRITES_PER_TURN {
            let Some(key) = self.hub.borrow_mut().next_listed() else { return true };
            writes += 1 + self.flush(key) / BYTES_PER_WRITE;
        }
        false
    }

    /// Keeps to the limits of a reload from here on.
    fn follow_settings(&self, hub: &mut Hub) {
        let mut watched = self.settings.borrow_mut();
        // Fails only where the node is gone, and its workers with it.
        if watched.has_changed().unwrap_or(false) {
            let settings = Arc::clone(&watched.borrow_and_update());
            hub.set_limits(settings.hub.clone());
            self.frame_limits.set(settings.frames);
        }
    }

    /// Tells everybody to go once the node has come so far.
    fn send_away(&self, hub: &mut Hub, now: Moment) {
        if self.node.phase() == Phase::Draining && !self.is_draining.replace(true) {
            hub.drain(self.node.drain.window, now);
        }
    }

    fn tick(&self) {
        let now = self.now();
        let mut hub = self.hub.borrow_mut();
        self.follow_settings(&mut hub);
        self.send_away(&mut hub, now);
        hub.tick(now);
        // Looked at before the comparison: what is added meanwhile is for the next tick.
        let version = self.node.revocations.version();
        if self.revocations.replace(version) != version {
            let count =
                hub.end(|_, policy| self.node.revocations.revokes(policy), CloseCode::TokenExpired, now);
            tracing::info!(count, "sessions end because their tokens were revoked");
        }
        drop(hub);
        self.pulse.beat();
        self.report();
        self.pass_interest_on();
    }

    fn report(&self) {
        let hub = self.hub.borrow();
        let before = self.reported.take();
        let gauges = hub.gauges();
        let now = WorkerReport {
            counters: hub.counters(),
            classes: hub.class_counts().to_vec(),
            gauges,
            inflated: self.inflater.borrow().counts(),
            inbox_bytes: self.inbox.bytes(),
            outbox_bytes_highest: self.outbox_bytes_highest.get(),
            lag: self.lag.get().worst(),
        };
        self.node.metrics.add(self.number, &before, &now);
        self.reported.replace(now);
    }

    /// Reports this worker's part of the memory budget, and gives up its largest backlogs where the node has too
    /// much.
    fn keep_budget(&self) {
        let mut hub = self.hub.borrow_mut();
        let report = |hub: &Hub| {
            let outboxes = hub.gauges().outbox_bytes();
            self.outbox_bytes_highest.update(|highest| highest.max(outboxes));
            let part = outboxes + self.reported.borrow().inbox_bytes;
            self.node.budget.change(self.budgeted.replace(part), part);
        };
        report(&hub);
        let excess = self.node.budget.excess_of(self.budgeted.get());
        if excess > 0 {
            let ended = hub.cut_backlogs(excess, self.now());
            report(&hub);
            if ended > 0 {
                tracing::warn!(
                    ended,
                    "limits.outbox_bytes_total is nearly used up: ended the slowest clients"
                );
            }
        }
    }
}

/// Spawns what a worker cannot be without.
fn spawn_vital(task: impl Future<Output = ()> + 'static) {
    let running = tasks::spawn(task);
    tasks::spawn(async move {
        if running.await.is_err_and(|ended| ended.is_panic()) {
            // Its sockets would stay open and hear nothing: better none than silent ones.
            tracing::error!("a worker panicked: the node cannot go on");
            log::flush();
            std::process::abort();
        }
    });
}

/// How late the ticks came at worst, over the current window and the one before.
#[derive(Clone, Copy, Debug, Default)]
struct Lag {
    since: Moment,
    current: Duration,
    previous: Duration,
}

impl Lag {
    fn noted(mut self, late: Duration, now: Moment) -> Self {
        if now.since(self.since) >= LAG_WINDOW {
            self = Self { since: now, current: Duration::ZERO, previous: self.current };
        }
        self.current = self.current.max(late);
        self
    }

    fn worst(self) -> Duration {
        self.current.max(self.previous)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_lag_is_remembered_for_a_window_and_forgotten_after_two() {
        let at = |seconds| Moment::at(Duration::from_secs(seconds));
        let late = Duration::from_millis;
        let lag = Lag::default().noted(late(5), at(1)).noted(late(300), at(9)).noted(late(1), at(11));
        assert_eq!(lag.worst(), late(300));
        let lag = lag.noted(late(2), at(22));
        assert_eq!(lag.worst(), late(2));
    }
}
