//! The workers' changes of interest on their way to the broker's thread.
//!
//! Only the latest change of each worker to each topic is kept, so this is bounded by the topics there are,
//! however fast clients come and go.

use std::collections::HashMap;
use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};

use causeway_protocol::Topic;
use tokio::sync::Notify;

use crate::{Interest, Ticket, WorkerId};

/// A worker and a topic, and what the worker now wants of it: the topic with this ticket, or (`None`) nothing.
pub(super) type Change = ((WorkerId, Topic), Option<Ticket>);

#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Held for an insert or a swap; no other lock is taken under it.
    latest: Mutex<HashMap<(WorkerId, Topic), Option<Ticket>>>,
    made: Notify,
}

impl Changes {
    pub(super) fn make(&self, worker: WorkerId, change: Interest) {
        let (topic, wish) = match change {
            Interest::Want(topic, ticket) => (topic, Some(ticket)),
            Interest::Leave(topic) => (topic, None),
        };
        let mut latest = self.lock();
        let was_empty = latest.is_empty();
        latest.insert((worker, topic), wish);
        drop(latest);
        if was_empty {
            self.made.notify_one();
        }
    }

    /// All changes made since the last call, in no order: they concern different workers or topics.
    pub(super) fn take(&self) -> impl Iterator<Item = Change> + use<> {
        mem::take(&mut *self.lock()).into_iter()
    }

    /// Waits until there is something to take. Cancel safe; for one task only.
    pub(super) async fn made(&self) {
        while self.lock().is_empty() {
            self.made.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(WorkerId, Topic), Option<Ticket>>> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
