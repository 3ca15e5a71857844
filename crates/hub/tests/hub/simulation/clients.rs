//! What clients send, and what comes of it.

use super::*;

impl History {
    pub(super) fn connect(&mut self) {
        if self.clients.len() == CLIENTS_MAX {
            return;
        }
        let (subject, grant, token_expires) = self.a_token();
        let key = self.hub.connect(policy(subject, grant), at(token_expires), at(self.model.now));
        assert!(!self.gone.contains(&key), "a key names one session for ever");
        let client = self.clients_ever;
        self.clients_ever += 1;
        let is_polite = self.chance(90);
        let new = Client { key, wire: Wire::new(), socket: Socket::Fast, is_blocked: false, is_polite };
        self.clients.insert(client, new);
        let name = self.hub.session_name(key);
        let owed = self.model.connect(client, (subject, grant), token_expires, name);
        self.settle(owed);
    }

    /// Sends one text message and gives back the request that came of it.
    pub(super) fn send(&mut self, client: usize, text: &str) -> Option<Request> {
        let key = self.clients[&client].key;
        self.hub.heard(key);
        self.model.heard(client);
        self.hub.command(key, text, at(self.model.now))
    }

    pub(super) fn command_id(&mut self) -> i64 {
        self.commands_ever += 1;
        self.commands_ever
    }

    pub(super) fn subscribe(&mut self) {
        let Some(client) = self.someone() else { return };
        let (id, names) = (self.command_id(), self.names());
        let text = json!({"id": id, "op": "subscribe", "topics": names}).to_string();
        assert!(self.send(client, &text).is_none());
        let owed = self.model.command(client, Some(id), |model| model.subscribe(client, id, &names));
        self.settle(owed);
    }

    pub(super) fn unsubscribe(&mut self) {
        let Some(client) = self.someone() else { return };
        let (id, names) = (self.command_id(), self.names());
        let text = json!({"id": id, "op": "unsubscribe", "topics": names}).to_string();
        assert!(self.send(client, &text).is_none());
        let owed = self.model.command(client, Some(id), |model| model.unsubscribe(client, id, &names));
        self.settle(owed);
    }

    pub(super) fn command_publish(&mut self) {
        let Some(client) = self.someone() else { return };
        let (id, topic) = (self.command_id(), self.names().remove(0));
        let data = "x".repeat(self.random.random_range(0..40));
        let text = json!({"id": id, "op": "publish", "topic": topic, "data": data}).to_string();
        let request = self.send(client, &text);
        let mut is_allowed = false;
        let owed = self.model.command(client, Some(id), |model| {
            let refusal = model.refuse_publish(client, id, &topic, data.len() + 2);
            is_allowed = refusal.is_empty();
            refusal
        });
        assert_eq!(request.is_some(), is_allowed);
        if let Some(request) = request {
            let Request::Publish { id: asked, permit, data: bytes } = &request else { panic!("{request:?}") };
            assert_eq!((asked, permit.topic().as_str()), (&CommandId::Number(id), &topic[..]));
            assert_eq!(bytes[..], *json!(data).to_string().as_bytes());
            self.requests.push((client, self.clients[&client].key, request));
        }
        self.settle(owed);
    }

    pub(super) fn odd_command(&mut self) {
        let Some(client) = self.someone() else { return };
        let id = self.command_id();
        let (text, id, reply) = match self.random.random_range(0..4) {
            0 => ("}{".to_owned(), None, error(None, "malformed")),
            1 => (json!({"id": id, "op": "subscribe"}).to_string(), Some(id), error(id, "malformed")),
            2 => (json!({"id": id, "op": "dance"}).to_string(), Some(id), error(id, "unknown_op")),
            _ => {
                let pong = Said::Pong { id: CommandId::Number(id) };
                (json!({"id": id, "op": "ping"}).to_string(), Some(id), pong)
            }
        };
        assert!(self.send(client, &text).is_none());
        let owed = self.model.command(client, id, |_| vec![reply]);
        self.settle(owed);
    }

    pub(super) fn authenticate(&mut self) {
        let Some(client) = self.someone() else { return };
        let id = self.command_id();
        let request =
            self.send(client, &json!({"id": id, "op": "authenticate", "token": "a.b.c"}).to_string());
        let mut is_allowed = false;
        let owed = self.model.command(client, Some(id), |_| {
            is_allowed = true;
            Vec::new()
        });
        assert_eq!(request.is_some(), is_allowed);
        self.requests.extend(request.map(|request| (client, self.clients[&client].key, request)));
        self.settle(owed);
    }

    /// More commands than are allowed.
    pub(super) fn chatter(&mut self) {
        let Some(client) = self.someone() else { return };
        for _ in 0..self.random.random_range(4..16) {
            if self.clients.contains_key(&client) {
                let id = self.command_id();
                assert!(self.send(client, &json!({"id": id, "op": "ping"}).to_string()).is_none());
                let pong = Said::Pong { id: CommandId::Number(id) };
                let owed = self.model.command(client, Some(id), |_| vec![pong]);
                self.settle(owed);
            }
        }
    }

    pub(super) fn ping_frame(&mut self) {
        let Some(client) = self.someone() else { return };
        let key = self.clients[&client].key;
        self.hub.heard(key);
        self.model.heard(client);
        self.hub.pinged(key, b"there?", at(self.model.now));
        let owed = self.model.ping_frame(client, b"there?");
        self.settle(owed);
    }

    pub(super) fn answer_request(&mut self) {
        if self.requests.is_empty() {
            return;
        }
        let at_random = self.random.random_range(0..self.requests.len());
        let (client, key, request) = self.requests.swap_remove(at_random);
        match request {
            Request::Publish { id, .. } => self.publish_outcome(client, key, &id),
            Request::Authenticate { id, .. } => self.verdict(client, key, &id),
        }
    }

    pub(super) fn publish_outcome(&mut self, client: usize, key: SessionKey, id: &CommandId) {
        let CommandId::Number(number) = *id else { panic!("ours are numbers") };
        let (outcome, reply) = match self.random.random_range(0..3) {
            0 => (PublishOutcome::Published, Said::Published { id: id.clone() }),
            1 => (PublishOutcome::Unavailable, error(number, "broker_unavailable")),
            _ => (PublishOutcome::Refused, error(number, "internal")),
        };
        self.hub.published(key, id, outcome, at(self.model.now));
        let owed = self.model.reply(client, reply);
        self.settle(owed);
    }

    pub(super) fn verdict(&mut self, client: usize, key: SessionKey, id: &CommandId) {
        let CommandId::Number(number) = *id else { panic!("ours are numbers") };
        let fresh = self.a_token();
        let fresh = self.chance(80).then_some(fresh);
        let verdict = fresh
            .map(|(subject, grant, expires)| (policy(subject, grant), at(expires)))
            .ok_or_else(|| "the signature is wrong".to_owned());
        self.hub.reauthenticated(key, id, verdict, at(self.model.now));
        let owed = self.model.reauthenticated(client, number, fresh);
        self.settle(owed);
    }

    /// The connection found a fault in what the client sent.
    pub(super) fn close(&mut self) {
        let Some(client) = self.someone() else { return };
        self.hub.close(self.clients[&client].key, CloseCode::ProtocolError, at(self.model.now));
        let owed = self.model.close(client, CloseCode::ProtocolError);
        self.settle(Owed::from([(client, owed)]));
    }

    pub(super) fn client_closes(&mut self) {
        let Some(client) = self.someone() else { return };
        let code = *[None, Some(1000), Some(1001), Some(3999)].choose(&mut self.random).expect("some");
        self.client_sends_close(client, code);
    }

    pub(super) fn client_sends_close(&mut self, client: usize, code: Option<u16>) {
        self.hub.closed_by_client(self.clients[&client].key, code, at(self.model.now));
        let owed = self.model.closed_by_client(client, code);
        self.settle(owed);
    }

    pub(super) fn disconnect(&mut self) {
        let Some(client) = self.someone() else { return };
        self.disconnect_client(client);
    }

    pub(super) fn disconnect_client(&mut self, client: usize) {
        let Client { key, wire, .. } = self.clients.remove(&client).expect("someone connected");
        let session = self.model.sessions.remove(&client).expect("someone connected");
        let messages = wire.heard().filter(|said| matches!(said, Said::Message { .. })).count();
        let ended = Ended {
            code: session.end.map_or(1006, |end| end.code),
            subject: session.subject.into(),
            messages_sent: messages as u64,
            bytes_sent: wire.bytes_taken() as u64,
        };
        self.sent.0 += ended.messages_sent;
        self.sent.1 += ended.bytes_sent;
        assert_eq!(self.hub.disconnect(key), Some(ended));
        self.gone.push(key);
        self.settle(Owed::new());
    }

    /// A connection may report late; the place of its session may be another's by then.
    pub(super) fn use_a_stale_key(&mut self) {
        let Some(&key) = self.gone.choose(&mut self.random) else { return };
        let (hub, now, id) = (&mut self.hub, at(self.model.now), CommandId::Number(0));
        assert!(hub.command(key, r#"{"id":1,"op":"subscribe","topics":["t.0"]}"#, now).is_none());
        assert!(hub.outbox(key).is_none());
        assert_eq!(hub.fate(key, now), Fate::Drop);
        assert_eq!(hub.disconnect(key), None);
        hub.heard(key);
        hub.pinged(key, b"", now);
        hub.wrote(key, 1, now);
        hub.blocked(key, now);
        hub.close(key, CloseCode::InternalError, now);
        hub.closed_by_client(key, None, now);
        hub.published(key, &id, PublishOutcome::Published, now);
        hub.reauthenticated(key, &id, Ok((policy("alice", Grant::OnlyT), now)), now);
        self.settle(Owed::new());
    }
}
