//! What must be so after every event, and in the end.

use super::*;

impl History {
    /// Checks that every session was told what it was owed, and the books.
    pub(super) fn settle(&mut self, mut owed: Owed) {
        for (&number, client) in &mut self.clients {
            let waited = client.wire.bytes_waiting();
            let told = client.wire.look(self.hub.outbox(client.key).expect("connected"));
            let owed = owed.remove(&number).unwrap_or_default();
            if !told.is_empty() || !owed.is_empty() {
                self.met.extend(told.iter().flat_map(labels));
                let is_cut = told.last() == Some(&close(CloseCode::SlowConsumer));
                let is_inside = is_cut && client.wire.frames_waiting() == 2;
                self.met.extend(is_inside.then(|| "cut inside a frame".to_owned()));
                self.model.told(number, waited, &told, owed);
            }
        }
        assert!(owed.values().all(Vec::is_empty), "owed to nobody: {owed:?}");
        self.model.refresh_topics();
        self.check_interest();
        self.check_books();
        self.pass(20);
        if self.chance(30) {
            self.collect_listed();
        }
    }

    pub(super) fn check_interest(&mut self) {
        for change in self.hub.take_interest() {
            match change {
                InterestChange::Want(topic, ticket) => {
                    assert!(ticket > self.broker.latest_ticket, "tickets are never used again");
                    self.broker.latest_ticket = ticket;
                    let before = self.broker.wanted.insert(topic.to_string(), ticket);
                    assert_eq!(before, None, "{topic} is asked for once");
                }
                InterestChange::Leave(topic) => {
                    let ticket = self.broker.wanted.remove(topic.as_str());
                    let ticket = ticket.expect("only what was asked for is left");
                    self.broker.stale.push((topic.to_string(), ticket));
                }
            }
        }
        assert!(self.broker.wanted.keys().eq(self.model.topics.keys()), "{:?}", self.broker.wanted);
    }

    pub(super) fn check_books(&self) {
        let gauges = HubGauges {
            sessions: self.clients.len(),
            subscriptions: self.model.subscriptions(),
            topics: self.model.topics.len(),
            frames_waiting: self.clients.values().map(|client| client.wire.frames_waiting()).sum(),
            ..self.hub.gauges()
        };
        assert_eq!(self.hub.gauges(), gauges);
        assert_eq!(gauges.frame_bytes == 0, gauges.frames_waiting == 0);
        assert_eq!(self.hub.counters().commands.total(), self.model.commands);
        assert_eq!(self.hub.counters().gaps.total(), self.model.gaps);
        assert_eq!(self.hub.counters().drains, self.model.drains);
        for (&number, Client { key, wire, .. }) in &self.clients {
            let is_within =
                wire.bytes_waiting() <= self.model.limits.outbox_bytes || wire.frames_waiting() == 1;
            assert!(is_within || !self.model.is_open(number), "an outbox has a bound");
            let fate = self.model.fate(number, wire.bytes_waiting() == 0);
            assert_eq!(self.hub.fate(*key, at(self.model.now)), fate);
        }
    }

    /// Everything calms down: what is owed is read, and everybody leaves.
    pub(super) fn end(mut self) -> BTreeSet<String> {
        for number in self.clients.keys().copied().collect::<Vec<_>>() {
            self.clients.get_mut(&number).expect("nobody left yet").socket = Socket::Fast;
            self.write(number);
        }
        for (number, client) in &self.clients {
            assert_eq!(client.wire.frames_waiting(), 0, "client {number} has read everything");
        }
        while let Some((&number, _)) = self.clients.first_key_value() {
            self.disconnect_client(number);
        }
        assert_eq!(self.hub.gauges(), HubGauges::default());
        assert_eq!(self.broker.wanted, BTreeMap::new());
        let HubCounters { messages_sent, bytes_sent, delivery, .. } = self.hub.counters();
        assert_eq!((messages_sent, bytes_sent), self.sent);
        assert_eq!(delivery.buckets.iter().sum::<u64>(), messages_sent, "each message's time is counted");
        self.met
    }
}

/// What of [`MUST_BE_MET`] this is.
pub(super) fn labels(said: &Said) -> Vec<String> {
    let label = match said {
        Said::Welcome { .. } => "welcome",
        Said::Subscribed { refused, .. } => {
            let refused = refused.iter().map(|refused| format!("refused {}", refused.code));
            return refused.chain(["subscribed".to_owned()]).collect();
        }
        Said::Unsubscribed { .. } => "unsubscribed",
        Said::Published { .. } => "published",
        Said::Authenticated { .. } => "authenticated",
        Said::Pong { .. } => "pong",
        Said::Error { code, .. } => &format!("error {code}"),
        Said::Message { .. } => "message",
        Said::Gap { reason, .. } => &format!("gap {reason}"),
        Said::TokenExpiring { .. } => "token expiring",
        Said::Drain { .. } => "drain",
        Said::PingFrame => "ping",
        Said::PongFrame(_) => "pong frame",
        Said::Close(None) => "close",
        Said::Close(Some(code)) => &format!("close {code}"),
    };
    vec![label.to_owned()]
}
