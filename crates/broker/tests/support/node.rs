//! One worker of one node, as far as the broker can tell.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use causeway_broker::{
    Broker, Delivery, Inbox, Interest, LinkReport, PublishError, RedisBroker, RedisConfig, Ticket, WorkerId,
};
use causeway_protocol::Topic;

use super::{PATIENCE, RedisServer, eventually};

/// A broker, its only worker, and what that worker has taken and not looked at yet.
pub(crate) struct Node {
    pub(crate) broker: Arc<RedisBroker>,
    pub(crate) inbox: Arc<Inbox>,
    worker: WorkerId,
    taken: VecDeque<Delivery>,
    tickets: u64,
}

impl Node {
    /// A node with a roomy inbox at `server`.
    pub(crate) fn start(server: &RedisServer) -> Self {
        Self::start_with(RedisConfig::new(server.url()))
    }

    pub(crate) fn start_with(config: RedisConfig) -> Self {
        Self::start_with_inbox(config, 64 << 20)
    }

    pub(crate) fn start_with_inbox(config: RedisConfig, bytes_max: usize) -> Self {
        let broker = RedisBroker::start(config).unwrap();
        let inbox = Arc::new(Inbox::new(bytes_max));
        let worker = broker.attach(Arc::clone(&inbox));
        Self { broker, inbox, worker, taken: VecDeque::new(), tickets: 0 }
    }

    /// Says that the worker wants the topic. Returns its ticket.
    pub(crate) fn want(&mut self, name: &str) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.broker.change_interest(self.worker, Interest::Want(topic(name), ticket));
        ticket
    }

    pub(crate) fn leave(&self, name: &str) {
        self.broker.change_interest(self.worker, Interest::Leave(topic(name)));
    }

    /// Wants the topic and waits until it is live; nothing else may come before.
    pub(crate) async fn join(&mut self, name: &str) {
        let ticket = self.want(name);
        self.expect_live(name, ticket).await;
    }

    pub(crate) async fn publish(&self, name: &str, payload: &str) -> Result<(), PublishError> {
        self.broker.publish(topic(name), payload.to_owned().into()).await
    }

    pub(crate) fn link(&self) -> LinkReport {
        self.broker.link()
    }

    pub(crate) async fn is_up(&self) {
        eventually("the link is up", || self.link().up).await;
    }

    pub(crate) async fn is_down(&self) {
        eventually("the link is down", || !self.link().up).await;
    }

    /// The next delivery.
    pub(crate) async fn next(&mut self) -> Delivery {
        while self.taken.is_empty() {
            tokio::time::timeout(PATIENCE, self.inbox.ready()).await.expect("something is delivered");
            self.taken.extend(self.inbox.take());
        }
        self.taken.pop_front().unwrap()
    }

    pub(crate) async fn expect_live(&mut self, name: &str, ticket: Ticket) {
        let next = self.next().await;
        assert!(
            matches!(&next, Delivery::Live(t, its) if t.as_str() == name && *its == ticket),
            "{name} live with {ticket:?}, not {next:?}"
        );
    }

    pub(crate) async fn expect_message(&mut self, name: &str, payload: &str) {
        let next = self.next().await;
        assert!(
            matches!(&next, Delivery::Publication(p, _) if p.topic().as_str() == name && p.payload() == payload.as_bytes()),
            "{payload:?} on {name}, not {next:?}"
        );
    }

    /// Expects the loss of the link, and returns for how long nothing had been heard.
    pub(crate) async fn expect_link_lost(&mut self) -> Duration {
        match self.next().await {
            Delivery::LinkLost { missing_for } => missing_for,
            other => panic!("the link lost, not {other:?}"),
        }
    }

    pub(crate) async fn expect_dropped(&mut self, name: &str) {
        let next = self.next().await;
        assert!(
            matches!(&next, Delivery::Dropped { topic: t, .. } if t.as_str() == name),
            "a drop on {name}, not {next:?}"
        );
    }
}

fn topic(name: &str) -> Topic {
    Topic::parse(name).unwrap()
}
