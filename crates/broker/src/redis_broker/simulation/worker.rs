//! A worker of the node, and whom it serves.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use causeway_protocol::Topic;
use rand::Rng;
use rand::rngs::SmallRng;
use tokio::time::Instant;

use super::subscriber::Subscriber;
use crate::redis_broker::Shared;
use crate::{Delivery, Inbox, WorkerId};

pub(super) struct Worker {
    pub(super) id: WorkerId,
    pub(super) inbox: Arc<Inbox>,
    /// Takes what waits at its leisure, not at once.
    pub(super) is_slow: bool,
    pub(super) subscribers: BTreeMap<Topic, Subscriber>,
}

impl Worker {
    pub(super) fn new(shared: &Shared, random: &mut SmallRng) -> Self {
        let is_slow = random.random_ratio(1, 4);
        let inbox = Arc::new(Inbox::new(if is_slow { random.random_range(0..1000) } else { 1 << 20 }));
        let id = shared.lock().workers.attach(Arc::clone(&inbox));
        Self { id, inbox, is_slow, subscribers: BTreeMap::new() }
    }

    /// Passes on what concerns its subscribers. Returns what that was, if it was something.
    pub(super) fn tell(
        &mut self,
        delivery: &Delivery,
        due: &BTreeMap<&str, Vec<Instant>>,
    ) -> Option<&'static str> {
        // Counted from when it was put in, and a slow worker does not know when that was.
        let ago = |time| {
            if self.is_slow { Instant::now() - Duration::from_secs(3600) } else { Instant::now() - time }
        };
        let topic = match delivery {
            Delivery::LinkLost { missing_for } => {
                let since = ago(*missing_for);
                self.subscribers.values_mut().for_each(|subscriber| subscriber.lost(since));
                return Some("link lost");
            }
            Delivery::Live(topic, _) | Delivery::Dropped { topic, .. } => topic,
            Delivery::Publication(publication, _) => publication.topic(),
        };
        let subscriber = self.subscribers.get_mut(topic)?;
        let due = &due[topic.as_str()];
        match delivery {
            Delivery::Live(_, ticket) if *ticket == subscriber.ticket => Some(subscriber.live(due)),
            Delivery::Publication(publication, _) => {
                let number = str::from_utf8(publication.payload()).unwrap().parse().unwrap();
                subscriber.message(number, due).then_some("message")
            }
            Delivery::Dropped { since, .. } => Some(subscriber.dropped(ago(*since), due)),
            Delivery::Live(..) | Delivery::LinkLost { .. } => None,
        }
    }
}
