//! What operators order: sessions that end, and subscriptions that end.
//!
//! Looks at every session: orders are rare.

use causeway_protocol::{CloseCode, Push, Topic};

use super::Hub;
use crate::session::Session;
use crate::{Moment, Policy, SessionKey};

impl Hub {
    /// Closes the open sessions that are meant, and says how many. What waits for them is dropped, for they are owed
    /// nothing any more.
    pub fn end(
        &mut self,
        is_meant: impl Fn(SessionKey, &Policy) -> bool,
        code: CloseCode,
        now: Moment,
    ) -> usize {
        let meant = self.open_sessions(|session| is_meant(session.key, &session.policy));
        for &key in &meant {
            self.cut(key, code, now);
        }
        meant.len()
    }

    /// Ends the subscriptions to `topic` of the sessions that are meant, and their waiting for it. Says how many
    /// sessions had either: they are told.
    pub fn end_subscriptions(
        &mut self,
        is_meant: impl Fn(SessionKey, &Policy) -> bool,
        topic: &Topic,
        now: Moment,
    ) -> usize {
        let Some(place) = self.topics.find(topic.as_str()) else { return 0 };
        let meant = self.open_sessions(|session| {
            is_meant(session.key, &session.policy) && self.topics_of(session).any(|other| other == place)
        });
        let told = Push::Unsubscribed { topics: &[topic.as_str()] }.frame();
        for &key in &meant {
            self.leave(key, topic.as_str(), now);
            self.owe(key, &told, now);
        }
        meant.len()
    }

    fn open_sessions(&self, is_wanted: impl Fn(&Session) -> bool) -> Vec<SessionKey> {
        let sessions = self.sessions.iter().map(|(_, session)| session);
        sessions
            .filter(|session| session.is_open() && is_wanted(session))
            .map(|session| session.key)
            .collect()
    }
}
