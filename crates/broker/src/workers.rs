//! The workers of this node as the broker sees them: their inboxes.
//!
//! Which worker wants what is not known here; whoever calls says whom it is for. No lock is taken but an
//! inbox's own, as the last one.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use bytes::Bytes;
use causeway_protocol::{Publication, Topic};

use crate::totals::Totals;
use crate::{Delivery, Inbox, Ticket, WorkerId};

/// The attached workers, in the order they came.
#[derive(Debug)]
pub(crate) struct Workers {
    inboxes: Vec<Arc<Inbox>>,
    payload_bytes_max: usize,
    totals: Arc<Totals>,
}

/// The workers that want one topic, each with the ticket of its latest wish. Rarely more than one per core,
/// hence a list.
#[derive(Debug, Default)]
pub(crate) struct Wanting(Vec<(WorkerId, Ticket)>);

impl Workers {
    /// No workers yet. What goes through their inboxes will be counted in `totals`.
    pub(crate) fn new(payload_bytes_max: usize, totals: Arc<Totals>) -> Self {
        Self { inboxes: Vec::new(), payload_bytes_max, totals }
    }

    pub(crate) fn attach(&mut self, inbox: Arc<Inbox>) -> WorkerId {
        let id = u16::try_from(self.inboxes.len()).expect("a node has far fewer than 65,536 workers");
        self.inboxes.push(inbox);
        WorkerId(id)
    }

    /// Hands one message, received just now, to all workers that want its topic; one that is too large is
    /// announced as dropped. What a reserved topic carries is for no client, so only its listeners' inboxes bound it.
    pub(crate) fn publication(&self, topic: &Topic, wanting: &Wanting, payload: Bytes, now: Instant) {
        if !topic.is_reserved() {
            self.totals.messages_received.fetch_add(1, Relaxed);
            self.totals.bytes_received.fetch_add(payload.len() as u64, Relaxed);
        }
        if payload.len() > self.payload_bytes_max && !topic.is_reserved() {
            self.totals.dropped_too_large.fetch_add(1, Relaxed);
            self.dropped(topic, wanting, 1, Duration::ZERO);
            return;
        }
        let publication = Arc::new(Publication::new(topic.clone(), payload));
        for &(worker, _) in &wanting.0 {
            if !self.tell(worker, Delivery::Publication(Arc::clone(&publication), now)) {
                self.totals.dropped_overload.fetch_add(1, Relaxed);
            }
        }
    }

    /// Tells all workers that want the topic that so many messages are missing, as far as that is known, the first of
    /// them since `since` ago.
    pub(crate) fn dropped(&self, topic: &Topic, wanting: &Wanting, messages: u64, since: Duration) {
        for &(worker, _) in &wanting.0 {
            self.tell(worker, Delivery::Dropped { topic: topic.clone(), messages, since });
        }
    }

    /// Tells all workers that want the topic that it is live now.
    pub(crate) fn live(&self, topic: &Topic, wanting: &Wanting) {
        for &(worker, ticket) in &wanting.0 {
            self.tell(worker, Delivery::Live(topic.clone(), ticket));
        }
    }

    /// Answers one worker.
    pub(crate) fn live_for(&self, worker: WorkerId, topic: Topic, ticket: Ticket) {
        self.tell(worker, Delivery::Live(topic, ticket));
    }

    /// Tells every worker that the link is lost.
    pub(crate) fn link_lost(&self, missing_for: Duration) {
        for inbox in &self.inboxes {
            inbox.push(Delivery::LinkLost { missing_for });
        }
    }

    fn tell(&self, worker: WorkerId, delivery: Delivery) -> bool {
        // Numbers are only given out by `attach`; one of another broker's reaches nobody.
        self.inboxes.get(usize::from(worker.0)).is_none_or(|inbox| inbox.push(delivery))
    }
}

impl Wanting {
    pub(crate) fn add(&mut self, worker: WorkerId, ticket: Ticket) {
        match self.0.iter_mut().find(|(id, _)| *id == worker) {
            Some(wish) => wish.1 = ticket,
            None => self.0.push((worker, ticket)),
        }
    }

    pub(crate) fn remove(&mut self, worker: WorkerId) {
        self.0.retain(|(id, _)| *id != worker);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    #[cfg(test)]
    pub(crate) fn iter(&self) -> impl Iterator<Item = (WorkerId, Ticket)> {
        self.0.iter().copied()
    }
}
