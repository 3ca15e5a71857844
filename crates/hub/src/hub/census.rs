//! What operators are told of sessions and topics: a piece at a time, because a hub may have very many and its thread
//! has other work.
//!
//! A piece is a range of places. Whoever stays from the first look to the last is seen once; a place that becomes free
//! is given to another.

use std::ops::Range;

use causeway_protocol::Topic;

use super::Hub;
use crate::{Moment, SessionKey};

/// What is known of an open session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionFacts<'a> {
    /// Names it.
    pub key: SessionKey,
    /// Whose token it has.
    pub subject: &'a str,
    /// How many topics it is subscribed to.
    pub subscriptions: usize,
    /// Messages written to its socket.
    pub messages_sent: u64,
    /// Bytes written to its socket, frames of all kinds.
    pub bytes_sent: u64,
    /// Bytes that wait to be.
    pub queued_bytes: usize,
}

/// What is known of a topic that somebody here is subscribed to or waiting for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TopicFacts<'a> {
    /// Its name.
    pub name: &'a Topic,
    /// Messages owed to subscribers, one for each, over about the last minute.
    pub messages_per_second: f64,
    /// Their payload.
    pub bytes_per_second: f64,
    /// How many sessions are subscribed.
    pub subscribers: usize,
}

impl Hub {
    /// All sessions have places below this number.
    pub fn session_places(&self) -> usize {
        self.sessions.capacity()
    }

    /// The open sessions at these places.
    pub fn sessions_at(&self, places: Range<usize>) -> impl Iterator<Item = SessionFacts<'_>> {
        let sessions =
            places.filter_map(|place| self.sessions.get(place)).filter(|session| session.is_open());
        sessions.map(|session| SessionFacts {
            key: session.key,
            subject: session.policy.subject(),
            subscriptions: session.subscriptions.len(),
            messages_sent: session.messages_sent,
            bytes_sent: session.bytes_sent,
            queued_bytes: session.outbox.bytes(),
        })
    }

    /// Whether the session is subscribed to the topic of this name.
    pub fn is_subscribed(&self, key: SessionKey, name: &str) -> bool {
        let topic = self.topics.find(name);
        topic.is_some_and(|topic| self.session(key).is_some_and(|session| session.is_subscribed(topic)))
    }

    /// All topics have places below this number.
    pub fn topic_places(&self) -> usize {
        self.topics.places()
    }

    /// The topics at these places.
    pub fn topics_at(&self, places: Range<usize>, now: Moment) -> impl Iterator<Item = TopicFacts<'_>> {
        self.topics.at(places).map(move |entry| {
            let (messages_per_second, bytes_per_second) = entry.traffic.per_second(now);
            let subscribers = entry.subscribers.len();
            TopicFacts { name: &entry.name, messages_per_second, bytes_per_second, subscribers }
        })
    }

    /// Messages that were dropped on their way here, one for each subscriber, by topic: the largest counts, in no
    /// order. One may be too high by at most a 128th of all.
    pub fn topic_drops(&self) -> impl Iterator<Item = (&str, u64)> {
        self.topic_drops.iter()
    }

    /// What waited for slow consumers when they were cut, in messages, by subject: the largest counts, in no order.
    /// One may be too high by at most a 128th of all.
    pub fn subject_drops(&self) -> impl Iterator<Item = (&str, u64)> {
        self.subject_drops.iter()
    }
}
