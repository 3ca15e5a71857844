//! What operators order.

use super::*;

impl History {
    pub(super) fn order_end(&mut self) {
        let Some(client) = self.someone() else { return };
        let (key, now) = (self.clients[&client].key, at(self.model.now));
        let code =
            *[CloseCode::NoLongerAllowed, CloseCode::ServiceRestart].choose(&mut self.random).expect("some");
        let ended = self.hub.end(|other, _| other == key, code, now);
        assert_eq!(ended, usize::from(self.model.is_open(client)));
        let owed = self.model.close(client, code);
        self.settle(Owed::from([(client, owed)]));
    }

    pub(super) fn order_end_of_subscriptions(&mut self) {
        let ((subject, ..), topic) = (self.a_token(), self.a_topic());
        let (is_meant, name) =
            (|_, policy: &Policy| policy.subject() == subject, Topic::parse(&topic).unwrap());
        let told = self.hub.end_subscriptions(is_meant, &name, at(self.model.now));
        let owed = self.model.end_subscriptions(subject, &topic);
        assert_eq!(told, owed.len());
        self.met.extend((told > 0).then(|| "unsubscribed by order".to_owned()));
        self.settle(owed);
    }
}
