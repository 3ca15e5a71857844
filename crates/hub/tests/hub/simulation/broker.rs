//! What the broker and the clock do.

use super::checks::labels;
use super::*;

impl History {
    pub(super) fn topic_live(&mut self) {
        let now = at(self.model.now);
        if self.chance(15) {
            let Some((topic, ticket)) = self.broker.stale.choose(&mut self.random).cloned() else { return };
            self.hub.topic_live(&Topic::parse(&topic).unwrap(), ticket, now);
            return self.settle(Owed::new());
        }
        let wanted: Vec<(String, u64)> = self.broker.wanted.clone().into_iter().collect();
        if let Some((topic, ticket)) = wanted.choose(&mut self.random)
            && self.broker.is_linked
        {
            self.hub.topic_live(&Topic::parse(topic).unwrap(), *ticket, now);
            let owed = self.model.topic_live(topic);
            self.settle(owed);
        }
    }

    pub(super) fn publish(&mut self) {
        let topic = self.a_topic();
        // Another worker may want a topic that is joining here; of one that was lost nothing can come.
        if !self.broker.is_linked || matches!(self.model.topics.get(&topic), Some(TopicState::Lost { .. })) {
            return;
        }
        self.messages_ever += 1;
        let long = if self.chance(5) { "x".repeat(800) } else { String::new() };
        let data = json!([self.messages_ever, long]);
        let publication = Publication::new(Topic::parse(&topic).unwrap(), data.to_string());
        let offered = self.hub.publish(&publication, at(self.model.now), at(self.model.now));
        let owed = self.model.to_subscribers(&topic, &message(&topic, data));
        assert_eq!(offered, owed.len());
        self.settle(owed);
    }

    pub(super) fn topic_dropped(&mut self) {
        let (topic, since) = (self.a_topic(), Duration::from_micros(self.random.random_range(0..900_000)));
        self.hub.topic_dropped(&Topic::parse(&topic).unwrap(), 1, since, at(self.model.now));
        let owed = self.model.gap(&topic, "overload", since);
        self.settle(owed);
    }

    pub(super) fn lose_link(&mut self) {
        self.broker.is_linked = false;
        let missing_for = Duration::from_micros(self.random.random_range(0..2_000_000));
        self.hub.link_lost(missing_for, at(self.model.now));
        self.model.link_lost(missing_for);
        self.settle(Owed::new());
    }

    pub(super) fn drain(&mut self) {
        if self.model.is_draining {
            return;
        }
        let (window, staying) = (self.a_window(), self.model.staying());
        assert_eq!(self.hub.drain(window, at(self.model.now)), staying.len());
        self.model.is_draining = true;
        self.sent_away(&staying, window);
    }

    pub(super) fn drain_some(&mut self) {
        let (window, staying) = (self.a_window(), self.model.staying());
        let count = self.random.random_range(0..=staying.len());
        let share = |all| {
            assert_eq!(all, staying.len());
            count
        };
        assert_eq!(self.hub.drain_some(share, window, at(self.model.now)), count);
        // Who they are is the hub's choice: those that were owed something.
        let mut leaving = staying;
        leaving.retain(|number| {
            let client = &self.clients[number];
            self.hub.outbox(client.key).expect("connected").bytes() != client.wire.bytes_waiting()
        });
        self.met.extend((count > 0 && self.model.staying().len() > count).then(|| "some drained".to_owned()));
        self.sent_away(&leaving, window);
    }

    fn a_window(&mut self) -> Duration {
        Duration::from_secs(self.random.random_range(1..8))
    }

    fn sent_away(&mut self, leaving: &[usize], window: Duration) {
        let (now, owed) = (self.model.now, self.model.drain(leaving));
        self.settle(owed);
        let told = leaving.iter().filter_map(|number| self.model.sessions[number].drained);
        let mut turns: Vec<Duration> = told.map(|(_, latest)| latest - now).collect();
        turns.sort();
        // A session that was cut instead leaves a hole, so a place may be one further on for each of them.
        let (count, cut) = (leaving.len() as u32, (leaving.len() - turns.len()) as u32);
        for (place, turn) in (0..).zip(turns) {
            let jitter = Duration::from_millis(501);
            assert!(turn >= window * place / count, "spread evenly");
            assert!(turn <= window * (place + cut) / count + jitter, "spread evenly");
        }
    }

    pub(super) fn tick(&mut self) {
        let most = if self.chance(10) { 6000 } else { 500 };
        self.pass(most);
        let now = self.model.now;
        self.hub.tick(at(now));
        for (&number, client) in &mut self.clients {
            let waited = client.wire.bytes_waiting();
            let told = client.wire.look(self.hub.outbox(client.key).expect("connected"));
            let is_given_up = told.iter().any(|said| matches!(said, Said::Subscribed { .. }));
            self.met.extend(is_given_up.then(|| "given up".to_owned()));
            self.met.extend(told.iter().flat_map(labels));
            self.model.tick_brought(number, waited, &told);
        }
        self.settle(Owed::new());
        self.collect_listed();
        for (number, client) in &self.clients {
            let end = self.model.sessions[number].end.as_ref();
            let is_overdue = end.is_some_and(|end| end.until + LATE <= now);
            assert!(!is_overdue || self.listed.contains(number), "{client:?} is to be dropped");
        }
    }
}
