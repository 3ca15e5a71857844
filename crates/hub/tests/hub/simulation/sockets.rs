//! What sockets take.

use super::*;

impl History {
    pub(super) fn change_socket(&mut self) {
        let Some(client) = self.someone() else { return };
        let socket = *[Socket::Fast, Socket::Slow, Socket::Stuck].choose(&mut self.random).expect("some");
        self.clients.get_mut(&client).expect("someone connected").socket = socket;
        self.write(client);
    }

    /// A socket that took nothing takes something again.
    pub(super) fn writable(&mut self) {
        if let Some(client) = self.someone().filter(|client| self.clients[client].is_blocked) {
            self.write(client);
        }
    }

    /// Attends to every session that the hub listed.
    pub(super) fn flush(&mut self) {
        self.collect_listed();
        while let Some(client) = self.listed.pop_first() {
            if self.clients.contains_key(&client) {
                self.write(client);
            }
        }
    }

    pub(super) fn collect_listed(&mut self) {
        while let Some(key) = self.hub.next_listed() {
            let found = self.clients.iter().find(|(_, client)| client.key == key);
            let (&client, _) = found.expect("only sessions that are there are listed");
            self.listed.insert(client);
        }
        for (number, client) in &self.clients {
            let may_write = client.wire.bytes_waiting() > 0 && !client.is_blocked;
            assert!(!may_write || self.listed.contains(number), "client {number} has something to write");
        }
    }

    /// Writes what the socket takes and does what the session's fate then is.
    pub(super) fn write(&mut self, client: usize) {
        let now = at(self.model.now);
        let heard_before = self.clients[&client].wire.heard().count();
        while let Some(open) = self.clients.get_mut(&client) {
            let most = match open.socket {
                Socket::Fast => usize::MAX,
                Socket::Slow => self.random.random_range(1..80),
                Socket::Stuck => 0,
            };
            let taken = open.wire.take(self.hub.outbox(open.key).expect("connected"), most);
            if taken > 0 {
                self.hub.wrote(open.key, taken, now);
                self.model.wrote(client);
            }
            open.is_blocked = open.wire.bytes_waiting() > 0 && open.socket != Socket::Fast;
            if open.is_blocked {
                self.hub.blocked(open.key, now);
                self.model.blocked(client);
            }
            if open.is_blocked || open.wire.bytes_waiting() == 0 {
                break;
            }
        }
        self.settle(Owed::new());
        self.client_reads(client, heard_before);
        self.meet_fate(client);
    }

    pub(super) fn client_reads(&mut self, client: usize, heard_before: usize) {
        let open = &self.clients[&client];
        if !open.is_polite {
            return;
        }
        let fresh: Vec<&Said> = open.wire.heard().skip(heard_before).collect();
        if fresh.contains(&&Said::PingFrame) {
            self.hub.heard(open.key);
            self.model.heard(client);
        }
        if let Some(&&Said::Close(code)) = fresh.last() {
            self.client_sends_close(client, code);
        }
    }

    pub(super) fn meet_fate(&mut self, client: usize) {
        if self.hub.fate(self.clients[&client].key, at(self.model.now)) == Fate::Drop {
            self.disconnect_client(client);
        }
    }
}
