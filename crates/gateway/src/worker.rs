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

use causeway_broker::{Delivery, Inbox, Interest, Ticket, WorkerId};
use causeway_hub::{Fate, Hub, HubCounters, InterestChange, Moment, Policy, Request, SessionKey};
use causeway_protocol::CommandId;
use tokio::time::timeout_at;

use crate::connection::Connection;
use crate::node::{Guest, Node, Phase};
use crate::socket::{Socket, Written};

/// How often time passes for the hub.
const TICK: Duration = Duration::from_millis(250);
/// How many outboxes are offered something before others have their turn: about a millisecond.
const OFFERS_PER_TURN: usize = 32 * 1024;
/// How much payload is encoded in the time of one offer.
const BYTES_PER_OFFER: usize = 64;
/// How many sockets are written to before others have their turn: about a millisecond.
const WRITES_PER_TURN: usize = 192;
/// What one read can take. One buffer serves all connections of the thread.
const READ_BUFFER_BYTES: usize = 64 * 1024;
/// What one write can gather.
const WRITE_BUFFER_BYTES: usize = 32 * 1024;

/// One worker thread's part of the node.
pub(crate) struct Worker {
    pub(crate) node: Arc<Node>,
    pub(crate) hub: RefCell<Hub>,
    /// Read by one connection at a time, within one poll.
    pub(crate) read_buffer: RefCell<Box<[u8]>>,
    /// Where the frames of one write are gathered.
    write_buffer: RefCell<Box<[u8]>>,
    id: WorkerId,
    inbox: Arc<Inbox>,
    /// By the session's index.
    sockets: RefCell<Vec<Option<Rc<Socket>>>>,
    started: Instant,
    reported: Cell<HubCounters>,
    is_draining: Cell<bool>,
}

impl Worker {
    /// Starts this thread's worker. Must be called on an actix worker, whose end ends it.
    pub(crate) fn start(node: &Arc<Node>) -> Rc<Self> {
        let inbox = Arc::new(Inbox::new(node.inbox_bytes));
        let id = node.broker.attach(Arc::clone(&inbox));
        let worker = Rc::new(Self {
            node: Arc::clone(node),
            hub: RefCell::new(Hub::new(&*node.name, id.0, node.hub_limits.clone(), rand::random())),
            read_buffer: RefCell::new(vec![0; READ_BUFFER_BYTES].into_boxed_slice()),
            write_buffer: RefCell::new(vec![0; WRITE_BUFFER_BYTES].into_boxed_slice()),
            id,
            inbox,
            sockets: RefCell::default(),
            started: Instant::now(),
            reported: Cell::default(),
            is_draining: Cell::new(false),
        });
        let running = actix_rt::spawn(Rc::clone(&worker).run());
        actix_rt::spawn(async move {
            if running.await.is_err_and(|ended| ended.is_panic()) {
                // Its sockets would stay open and hear nothing: better none than silent ones.
                tracing::error!("a worker panicked: the node cannot go on");
                std::process::abort();
            }
        });
        worker
    }

    /// The moment now, as the hub counts.
    pub(crate) fn now(&self) -> Moment {
        Moment::at(self.started.elapsed())
    }

    /// Begins a session on a socket whose upgrade has been answered. `early` are bytes that came behind the
    /// request.
    pub(crate) fn connect(self: &Rc<Self>, guest: Guest, socket: Socket, early: &mut [u8]) {
        let now = self.now();
        let Guest { admitted, verified } = guest;
        let key = self.hub.borrow_mut().connect(verified.policy, now + verified.expires_in, now);
        let socket = Rc::new(socket);
        let mut sockets = self.sockets.borrow_mut();
        if sockets.len() <= key.index() {
            sockets.resize_with(key.index() + 1, || None);
        }
        sockets[key.index()] = Some(Rc::clone(&socket));
        drop(sockets);
        self.node.metrics.accepted.inc();
        let mut connection = Connection::new(Rc::clone(self), socket, key, admitted);
        self.flush(key);
        connection.receive(early);
        actix_rt::spawn(connection);
    }

    /// Ends a session: its connection is being dropped.
    pub(crate) fn disconnect(&self, key: SessionKey) -> Option<causeway_hub::Ended> {
        let ended = self.hub.borrow_mut().disconnect(key)?;
        self.sockets.borrow_mut()[key.index()] = None;
        self.node.metrics.count_closed(ended.code);
        self.pass_interest_on();
        Some(ended)
    }

    /// Carries out what the hub cannot do alone, and tells it the outcome.
    pub(crate) fn carry_out(self: &Rc<Self>, key: SessionKey, request: Request) {
        match request {
            Request::Publish { id, permit, data } => {
                // Called here, not in the task: publishes keep the order of their commands.
                let publish = self.node.publish(permit, data);
                let worker = Rc::clone(self);
                actix_rt::spawn(async move {
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
        let verdict: Result<(Policy, Moment), String> = match self.node.verifier.verify(token) {
            Ok(verified) => Ok((verified.policy, now + verified.expires_in)),
            Err(error) => Err(error.to_string()),
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
    /// its fate.
    pub(crate) fn flush(&self, key: SessionKey) {
        let Some(socket) = self.sockets.borrow().get(key.index()).and_then(Clone::clone) else { return };
        let mut hub = self.hub.borrow_mut();
        if hub.outbox(key).is_none() {
            // The session has ended, and the socket at its index is another's.
            return;
        }
        while !socket.is_blocked()
            && let Some(outbox) = hub.outbox(key).filter(|outbox| !outbox.is_empty())
        {
            match socket.write(outbox, &mut self.write_buffer.borrow_mut()) {
                Written::Bytes(bytes) => hub.wrote(key, bytes),
                Written::Blocked => hub.blocked(key, self.now()),
                Written::Broken => return socket.end(),
            }
        }
        match hub.fate(key, self.now()) {
            Fate::Open => {}
            Fate::HalfClose => socket.half_close(),
            Fate::Drop => socket.end(),
        }
    }

    async fn run(self: Rc<Self>) {
        let mut deliveries = Vec::new().into_iter();
        let mut next_tick = Instant::now();
        let mut ahead_bytes = 0;
        loop {
            // Time passes under load too: a worker that is busy still pings, and notices who is silent.
            let now = Instant::now();
            if now >= next_tick {
                self.tick();
                next_tick = now + TICK;
            }
            if deliveries.len() == 0 {
                deliveries = self.inbox.take().into_iter();
            }
            let is_all_delivered = self.deliver(&mut deliveries, &mut ahead_bytes);
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

    /// Hands some deliveries to the hub; says whether those were all.
    ///
    /// `ahead_bytes` is what has been handed over since every outbox was last written. It stays below a quarter
    /// of what one outbox may hold, so that no client is cut for bytes that nobody has tried to write to it.
    fn deliver(&self, deliveries: &mut impl Iterator<Item = Delivery>, ahead_bytes: &mut usize) -> bool {
        let ahead_bytes_max = self.node.hub_limits.outbox_bytes / 4;
        let mut hub = self.hub.borrow_mut();
        let now = self.now();
        let mut offers = 0;
        while offers < OFFERS_PER_TURN && *ahead_bytes <= ahead_bytes_max {
            let Some(delivery) = deliveries.next() else { return true };
            offers += 1;
            match delivery {
                Delivery::Publication(publication) => {
                    let bytes = publication.payload().len();
                    *ahead_bytes += bytes;
                    offers += hub.publish(&publication, now) + bytes / BYTES_PER_OFFER;
                }
                Delivery::Live(topic, ticket) => offers += hub.topic_live(&topic, ticket.0, now),
                Delivery::LinkLost { silent_for } => hub.link_lost(silent_for, now),
                Delivery::Dropped { topic, since } => offers += hub.topic_dropped(&topic, since, now),
            }
        }
        false
    }

    /// Writes to some of the sessions that want it; says whether those were all.
    fn flush_listed(&self) -> bool {
        for _ in 0..WRITES_PER_TURN {
            let Some(key) = self.hub.borrow_mut().next_listed() else { return true };
            self.flush(key);
        }
        false
    }

    fn tick(&self) {
        let now = self.now();
        let mut hub = self.hub.borrow_mut();
        if let Phase::Draining(window) = self.node.phase()
            && !self.is_draining.replace(true)
        {
            hub.drain(window, now);
        }
        hub.tick(now);
        let (counters, gauges) = (hub.counters(), hub.gauges());
        drop(hub);
        self.node.metrics.add(self.id.0, self.reported.replace(counters), counters, gauges);
        self.pass_interest_on();
    }
}
