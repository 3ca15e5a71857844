//! The broker of a node that is alone: topics live in this process and nowhere else.
//!
//! The road is the same as through Redis, so that nothing behind it can tell the difference: a publish goes
//! into the inboxes of the workers that want the topic. There is no link that could be lost.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use causeway_protocol::Topic;
use futures_util::FutureExt;
use futures_util::future::{self, BoxFuture};

use crate::totals::Totals;
use crate::workers::{Wanting, Workers};
use crate::{
    Broker, Inbox, Interest, LOG_ENTRIES_MAX, LOG_PAGE, LinkReport, LogPlace, PublishError, WorkerId,
};

/// A broker without Redis. Everything is carried out within the call: a topic is live at once, and a publish
/// is in the inboxes when [`publish`](Broker::publish) returns.
#[derive(Debug)]
pub struct EmbeddedBroker {
    /// Held for a look-up and the pushes into a few inboxes, whose locks come after this one.
    exchange: Mutex<Exchange>,
    totals: Arc<Totals>,
    /// Locked alone, for a push or the copy of one page.
    logs: Mutex<HashMap<Topic, Log>>,
}

/// The entries of a log, and how many were before the first.
#[derive(Debug, Default)]
struct Log {
    entries: VecDeque<Bytes>,
    forgotten: usize,
}

#[derive(Debug)]
struct Exchange {
    workers: Workers,
    topics: HashMap<Topic, Wanting>,
}

impl EmbeddedBroker {
    /// A broker that delivers payloads of up to `payload_bytes_max` bytes; a larger one is dropped and
    /// announced with [`Delivery::Dropped`](crate::Delivery::Dropped), as it would be on its way from Redis. Those of
    /// reserved topics may be as large as the inboxes of who listens to them.
    pub fn new(payload_bytes_max: usize) -> Self {
        let totals = Arc::new(Totals { up: true.into(), ..Totals::default() });
        let workers = Workers::new(payload_bytes_max, Arc::clone(&totals));
        let exchange = Mutex::new(Exchange { workers, topics: HashMap::new() });
        Self { exchange, totals, logs: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Exchange> {
        self.exchange.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Broker for EmbeddedBroker {
    fn attach(&self, inbox: Arc<Inbox>) -> WorkerId {
        self.lock().workers.attach(inbox)
    }

    fn change_interest(&self, worker: WorkerId, change: Interest) {
        let Exchange { workers, topics } = &mut *self.lock();
        match change {
            Interest::Want(topic, ticket) => {
                topics.entry(topic.clone()).or_default().add(worker, ticket);
                workers.live_for(worker, topic, ticket);
            }
            Interest::Leave(topic) => {
                if let Some(wanting) = topics.get_mut(&topic) {
                    wanting.remove(worker);
                    if wanting.is_empty() {
                        topics.remove(&topic);
                    }
                }
            }
        }
        self.totals.topics.store(topics.len() as u64, Relaxed);
    }

    fn publish(&self, topic: Topic, payload: Bytes) -> BoxFuture<'static, Result<(), PublishError>> {
        let Exchange { workers, topics } = &mut *self.lock();
        if let Some(wanting) = topics.get(&topic) {
            workers.publication(&topic, wanting, payload, Instant::now());
        }
        future::ready(Ok(())).boxed()
    }

    fn append(&self, log: &Topic, entry: Bytes) -> BoxFuture<'static, Result<(), PublishError>> {
        let mut logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        let log = logs.entry(log.clone()).or_default();
        log.entries.push_back(entry);
        if log.entries.len() > LOG_ENTRIES_MAX {
            log.entries.pop_front();
            log.forgotten += 1;
        }
        future::ready(Ok(())).boxed()
    }

    fn read_log(
        &self,
        log: &Topic,
        after: Option<&LogPlace>,
    ) -> BoxFuture<'static, Result<Vec<(LogPlace, Bytes)>, PublishError>> {
        let logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        let page = logs.get(log).map(|log| log.page(after)).unwrap_or_default();
        future::ready(Ok(page)).boxed()
    }

    fn link(&self) -> LinkReport {
        self.totals.report()
    }
}

impl Log {
    fn page(&self, after: Option<&LogPlace>) -> Vec<(LogPlace, Bytes)> {
        let numbers = self.forgotten as u64..;
        let entries =
            numbers.zip(&self.entries).filter(|(number, _)| after.is_none_or(|after| *number > after.major));
        entries.take(LOG_PAGE).map(|(major, entry)| (LogPlace { major, minor: 0 }, entry.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Delivery, Ticket};

    fn topic(name: &str) -> Topic {
        Topic::parse(name).unwrap()
    }

    fn attached(broker: &EmbeddedBroker) -> (WorkerId, Arc<Inbox>) {
        let inbox = Arc::new(Inbox::new(1 << 20));
        (broker.attach(Arc::clone(&inbox)), inbox)
    }

    fn taken(inbox: &Inbox) -> Vec<Delivery> {
        inbox.take()
    }

    fn publish(broker: &EmbeddedBroker, name: &str, payload: &'static str) {
        let outcome = broker.publish(topic(name), payload.into()).now_or_never();
        assert_eq!(outcome, Some(Ok(())), "an embedded publish is done when it returns");
    }

    #[test]
    fn a_topic_is_live_at_once_and_its_messages_arrive() {
        let broker = EmbeddedBroker::new(100);
        let (worker, inbox) = attached(&broker);
        publish(&broker, "news", "too early");
        broker.change_interest(worker, Interest::Want(topic("news"), Ticket(3)));
        publish(&broker, "news", "hello");
        publish(&broker, "other", "not for us");
        assert!(matches!(&taken(&inbox)[..],
            [Delivery::Live(t, Ticket(3)), Delivery::Publication(p, _)]
            if t.as_str() == "news" && &p.payload()[..] == b"hello"));
        let report = broker.link();
        assert!(report.up);
        assert_eq!((report.topics, report.messages_received, report.bytes_received), (1, 1, 5));
    }

    #[test]
    fn each_worker_gets_the_same_publication_until_it_leaves() {
        let broker = EmbeddedBroker::new(100);
        let (ann, inbox_of_ann) = attached(&broker);
        let (bob, inbox_of_bob) = attached(&broker);
        for worker in [ann, bob] {
            broker.change_interest(worker, Interest::Want(topic("news"), Ticket(1)));
        }
        publish(&broker, "news", "1");
        let (for_ann, for_bob) = (taken(&inbox_of_ann), taken(&inbox_of_bob));
        let (Delivery::Publication(a, _), Delivery::Publication(b, _)) = (&for_ann[1], &for_bob[1]) else {
            panic!("expected a message behind Live");
        };
        assert!(Arc::ptr_eq(a, b), "encoded once for the node");

        broker.change_interest(ann, Interest::Leave(topic("news")));
        publish(&broker, "news", "2");
        assert!(taken(&inbox_of_ann).is_empty());
        assert_eq!(taken(&inbox_of_bob).len(), 1);
        broker.change_interest(bob, Interest::Leave(topic("news")));
        assert_eq!(broker.link().topics, 0);
    }

    #[test]
    fn a_log_is_read_page_by_page_and_forgets_its_oldest_entries() {
        let broker = EmbeddedBroker::new(100);
        let log = topic("_log");
        let page = |after: Option<&LogPlace>| broker.read_log(&log, after).now_or_never().unwrap().unwrap();
        assert_eq!(page(None), []);
        for number in 0..LOG_ENTRIES_MAX + 3 {
            broker.append(&log, number.to_string().into()).now_or_never().unwrap().unwrap();
        }
        let mut read = page(None);
        assert_eq!((&read[0].1[..], read.len()), (&b"3"[..], LOG_PAGE));
        loop {
            let more = page(read.last().map(|(place, _)| place));
            if more.is_empty() {
                break;
            }
            read.extend(more);
        }
        assert_eq!(read.len(), LOG_ENTRIES_MAX);
        assert_eq!(page(Some(&read[read.len() - 2].0)).len(), 1);
    }

    #[test]
    fn too_large_a_payload_is_announced_and_counted() {
        let broker = EmbeddedBroker::new(4);
        let (worker, inbox) = attached(&broker);
        broker.change_interest(worker, Interest::Want(topic("news"), Ticket(1)));
        publish(&broker, "news", "four");
        publish(&broker, "news", "fives");
        assert!(matches!(
            &taken(&inbox)[..],
            [Delivery::Live(..), Delivery::Publication(..), Delivery::Dropped { topic: t, .. }] if t.as_str() == "news"
        ));
        assert_eq!(broker.link().dropped_too_large, 1);
    }

    #[test]
    fn what_nodes_say_among_themselves_may_be_larger_than_what_clients_hear() {
        let broker = EmbeddedBroker::new(4);
        let inbox = (&broker as &dyn Broker).listen(&topic("_reserved"), 200);
        publish(&broker, "_reserved", "fives");
        assert!(matches!(&taken(&inbox)[..], [Delivery::Live(..), Delivery::Publication(..)]));
        publish(&broker, "_reserved", "x".repeat(200).leak());
        assert!(matches!(&taken(&inbox)[..], [Delivery::Dropped { messages: 1, .. }]));
        assert_eq!((broker.link().dropped_too_large, broker.link().dropped_overload), (0, 1));
    }
}
