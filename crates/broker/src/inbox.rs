//! One worker's inbox: what the broker has for it and it has not taken yet.
//!
//! The broker's thread puts in, the worker takes everything at once; neither ever waits for the other. The
//! bound is in bytes. Beyond it publications are dropped and remembered by topic, and nothing more is let in
//! until the worker has taken what there is: so a gap stands behind all messages before it and in front of all
//! after it, and the worker can tell its clients the truth.
//!
//! The lock is held for a push or a swap and never across an await; nothing else is locked while it is held.

use std::collections::HashMap;
use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};

use causeway_protocol::Topic;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::Delivery;

/// What a delivery costs besides its payload: its place in the queue, the shared publication's own fields and
/// the frame's head, rounded up.
const DELIVERY_BYTES: usize = 128;

/// A bounded queue from the broker to one worker.
#[derive(Debug)]
pub struct Inbox {
    bytes_max: usize,
    waiting: Mutex<Waiting>,
    filled: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    deliveries: Vec<Delivery>,
    /// The cost of what is in `deliveries`, control deliveries left out.
    bytes: usize,
    /// Topics that lost messages since the last take. While there are any, no publication is let in.
    overflowed: HashMap<Topic, Loss>,
}

/// What a topic has lost.
#[derive(Clone, Copy, Debug)]
struct Loss {
    first: Instant,
    messages: u64,
}

impl Inbox {
    /// An empty inbox for at most `bytes_max` bytes of publications, each counted as its payload and 128 bytes.
    /// A publication that is too large for an empty inbox never gets in.
    pub fn new(bytes_max: usize) -> Self {
        Self { bytes_max, waiting: Mutex::default(), filled: Notify::new() }
    }

    /// Puts `delivery` behind those that wait, and wakes the worker if there were none. Does not block.
    ///
    /// Returns `false` when it was a publication and the inbox had no room: it is dropped, and the next
    /// [`take`](Self::take) ends with a [`Delivery::Dropped`] for its topic. [`Delivery::Live`] and
    /// [`Delivery::LinkLost`] always get in: there are only so many topics.
    pub fn push(&self, delivery: Delivery) -> bool {
        let mut waiting = self.lock();
        let was_empty = waiting.is_empty();
        let taken_in = waiting.push(delivery, self.bytes_max);
        drop(waiting);
        if was_empty {
            self.filled.notify_one();
        }
        taken_in
    }

    /// Takes out everything that waits, oldest first. Does not block.
    pub fn take(&self) -> Vec<Delivery> {
        let Waiting { mut deliveries, overflowed, .. } = mem::take(&mut *self.lock());
        let dropped = overflowed.into_iter().map(|(topic, Loss { first, messages })| Delivery::Dropped {
            topic,
            messages,
            since: first.elapsed(),
        });
        deliveries.extend(dropped);
        deliveries
    }

    /// What waits now, in bytes as they are counted against the bound.
    pub fn bytes(&self) -> usize {
        self.lock().bytes
    }

    /// Waits until there is something to take. Cancel safe. Only one task may wait: the worker's.
    pub async fn ready(&self) {
        // A wake-up may be left over from something that was taken already, hence the loop.
        while self.lock().is_empty() {
            self.filled.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing in here can be left half done by a panic.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.deliveries.is_empty() && self.overflowed.is_empty()
    }

    fn push(&mut self, delivery: Delivery, bytes_max: usize) -> bool {
        let (topic, cost) = match &delivery {
            Delivery::Live(..) | Delivery::LinkLost { .. } => {
                self.deliveries.push(delivery);
                return true;
            }
            Delivery::Publication(publication, _) => {
                (publication.topic(), DELIVERY_BYTES + publication.payload().len())
            }
            Delivery::Dropped { topic, .. } => (topic, DELIVERY_BYTES),
        };
        if self.overflowed.is_empty() && self.bytes + cost <= bytes_max {
            self.bytes += cost;
            self.deliveries.push(delivery);
            return true;
        }
        let (messages, is_announced) = match delivery {
            // A drop that is announced a little later is announced all the same.
            Delivery::Dropped { messages, .. } => (messages, true),
            _ => (1, false),
        };
        match self.overflowed.get_mut(topic) {
            Some(loss) => loss.messages += messages,
            None => drop(self.overflowed.insert(topic.clone(), Loss { first: Instant::now(), messages })),
        }
        is_announced
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use causeway_protocol::Publication;

    use super::*;
    use crate::Ticket;

    fn topic(name: &str) -> Topic {
        Topic::parse(name).unwrap()
    }

    fn message(name: &str, payload: &'static str) -> Delivery {
        let publication = Arc::new(Publication::new(topic(name), payload));
        Delivery::Publication(publication, Instant::now().into_std())
    }

    fn taken(inbox: &Inbox) -> Vec<String> {
        inbox.take().iter().map(in_words).collect()
    }

    fn in_words(delivery: &Delivery) -> String {
        match delivery {
            Delivery::Publication(p, _) => format!("{} {}", p.topic(), str::from_utf8(p.payload()).unwrap()),
            Delivery::Live(topic, ticket) => format!("{topic} live {}", ticket.0),
            Delivery::LinkLost { .. } => "link lost".to_owned(),
            Delivery::Dropped { topic, messages, .. } => format!("{topic} dropped {messages}"),
        }
    }

    #[test]
    fn what_was_put_in_comes_out_in_order_and_once() {
        let inbox = Inbox::new(1000);
        inbox.push(Delivery::Live(topic("a"), Ticket(7)));
        inbox.push(message("a", "1"));
        inbox.push(Delivery::LinkLost { missing_for: Duration::ZERO });
        inbox.push(message("b", "2"));
        assert_eq!(taken(&inbox), ["a live 7", "a 1", "link lost", "b 2"]);
        assert!(taken(&inbox).is_empty());
    }

    #[test]
    fn a_gap_stands_behind_everything_before_it_and_before_everything_after_it() {
        let inbox = Inbox::new(2 * DELIVERY_BYTES + 2);
        assert!(inbox.push(message("a", "1")));
        assert!(!inbox.push(message("a", "too long")));
        // There would be room for this one, but topic `a` has a gap before it.
        assert!(!inbox.push(message("a", "3")));
        assert!(inbox.push(Delivery::Live(topic("b"), Ticket(1))));
        assert_eq!(taken(&inbox), ["a 1", "b live 1", "a dropped 2"]);

        assert!(inbox.push(message("a", "4")));
        assert!(inbox.push(message("a", "5")));
        assert!(!inbox.push(message("a", "6")));
        assert!(!inbox.push(message("a", "7")));
        assert_eq!(taken(&inbox), ["a 4", "a 5", "a dropped 2"]);
    }

    #[test]
    fn each_topic_that_lost_messages_is_named_once() {
        let inbox = Inbox::new(0);
        for name in ["a", "b", "a", "c", "b"] {
            assert!(!inbox.push(message(name, "")));
        }
        let mut names = taken(&inbox);
        names.sort();
        assert_eq!(names, ["a dropped 2", "b dropped 2", "c dropped 1"]);
    }

    #[test]
    fn announced_drops_are_bounded_too_and_never_lost() {
        let inbox = Inbox::new(DELIVERY_BYTES);
        let dropped = || Delivery::Dropped { topic: topic("a"), messages: 2, since: Duration::ZERO };
        for _ in 0..5 {
            assert!(inbox.push(dropped()));
        }
        assert_eq!(taken(&inbox), ["a dropped 2", "a dropped 8"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_sleeps_until_there_is_something() {
        let inbox = Arc::new(Inbox::new(1000));
        // Woken by something that is gone already: it goes on sleeping.
        inbox.push(message("a", "1"));
        taken(&inbox);
        let asleep = tokio::time::timeout(Duration::from_secs(60), inbox.ready()).await;
        assert!(asleep.is_err());

        let worker = tokio::spawn({
            let inbox = Arc::clone(&inbox);
            async move { inbox.ready().await }
        });
        tokio::task::yield_now().await;
        inbox.push(message("a", "2"));
        worker.await.unwrap();
        // What waits is waited for again without a second wake-up.
        inbox.ready().await;
        assert_eq!(taken(&inbox), ["a 2"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_drop_alone_wakes_the_worker() {
        let inbox = Inbox::new(0);
        inbox.push(message("a", "1"));
        tokio::time::timeout(Duration::from_secs(60), inbox.ready()).await.unwrap();
        assert_eq!(taken(&inbox), ["a dropped 1"]);
    }
}
