//! What must be so whenever time passes, whenever a worker is told something, and in the end.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::time::Duration;

use super::{ALLOWED_WITHIN, BACK_WITHIN, CONNECT_DEADLINE, NOTICED_WITHIN, TOPICS, World};
use crate::interest::LINGER;
use crate::{Delivery, Interest};

impl World {
    /// What is live for one is live at once for all who want it; and nothing is live for long on a dead link.
    pub(super) fn check_state(&self) {
        let mut live = BTreeMap::new();
        let quick = self.workers.iter().filter(|worker| !worker.is_slow);
        for (topic, subscriber) in quick.flat_map(|worker| &worker.subscribers) {
            let is_live = *live.entry(topic).or_insert(subscriber.is_live);
            assert_eq!(subscriber.is_live, is_live, "{topic} is live for some only");
        }
        if live.values().any(|is_live| *is_live) {
            assert!(self.shared.totals.report().up, "something is live, and the link is called down");
            let deaf_for = self.redis().deaf_for().unwrap_or_default();
            assert!(deaf_for <= NOTICED_WITHIN, "something is live on a link that is dead for {deaf_for:?}");
        }
    }

    /// Checks a delivery of just now against what Redis knows.
    pub(super) fn check_delivery(&self, delivery: &Delivery) {
        match delivery {
            Delivery::LinkLost { .. } => assert!(self.redis().is_harmed(), "a good link was given up"),
            Delivery::Live(topic, _) => {
                let is_confirmed = self.redis().has_confirmed(&self.channel(topic.as_str()));
                assert!(is_confirmed, "{topic} is live and not confirmed");
            }
            Delivery::Publication(..) | Delivery::Dropped { .. } => {}
        }
    }

    /// The network and Redis are well from here on: everything that is wanted is live in time, or refused and its
    /// subscribers are told what they missed. What is not refused any more is live after the pause.
    pub(super) async fn heal(&mut self) {
        self.note(format_args!("well from here on"));
        self.redis().be_well();
        self.all_take();
        self.workers.iter_mut().for_each(|worker| worker.is_slow = false);
        let within = self.healed_within();
        self.pass(within).await;
        let mut are_all_live = true;
        for (topic, subscriber) in self.workers.iter().flat_map(|worker| &worker.subscribers) {
            if !subscriber.is_live {
                let is_refused = self.redis().has_refused(&self.channel(topic.as_str()), ALLOWED_WITHIN);
                assert!(is_refused, "{topic} is not live after {within:?}");
                assert!(!subscriber.is_untold, "{topic} is refused, and a gap was not told");
                are_all_live = false;
            }
        }
        if !are_all_live {
            self.allow_all().await;
        }
    }

    async fn allow_all(&mut self) {
        self.note(format_args!("everything is allowed from here on"));
        self.redis().allow_all();
        self.pass(ALLOWED_WITHIN).await;
        for (topic, subscriber) in self.workers.iter().flat_map(|worker| &worker.subscribers) {
            assert!(subscriber.is_live, "{topic} is not live though it is allowed");
        }
    }

    /// How long it may take from now on until everything is live.
    fn healed_within(&self) -> Duration {
        if !self.shared.totals.report().up {
            CONNECT_DEADLINE + BACK_WITHIN
        } else if self.redis().deaf_for().is_none() {
            BACK_WITHIN
        } else {
            NOTICED_WITHIN + BACK_WITHIN
        }
    }

    /// Messages arrive everywhere, and nothing is left when nobody wants anything any more.
    pub(super) async fn settle(&mut self) {
        TOPICS.iter().for_each(|name| self.publish_on(name, 0));
        self.pass(Duration::from_secs(1)).await;
        for worker in &self.workers {
            for (topic, subscriber) in &worker.subscribers {
                subscriber.assert_settled(&self.due[topic.as_str()]);
            }
        }
        for worker in &mut self.workers {
            for topic in mem::take(&mut worker.subscribers).into_keys() {
                self.shared.changes.make(worker.id, Interest::Leave(topic));
            }
        }
        self.pass(LINGER + Duration::from_secs(1)).await;
        assert_eq!(self.shared.lock().table.len(), 0, "topics are left");
        assert_eq!(self.redis().channels(), BTreeSet::new(), "Redis has topics that nobody wants");
    }
}
