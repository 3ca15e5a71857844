//! The topics somebody on this worker is subscribed to or waiting for, and who they are.
//!
//! Adding a subscriber and removing one are mirror images: each subscriber knows its place in the topic's
//! list, so that leaving a topic of ten thousand costs no more than leaving a topic of two.

use std::collections::HashMap;
use std::ops::Range;

use causeway_protocol::Topic;
use slab::Slab;

use crate::pending::PendingKey;
use crate::traffic::Traffic;
use crate::{Moment, SessionKey};

/// Names a topic of this table for as long as it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TopicKey(u32);

/// What the broker has confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TopicState {
    /// Asked for, never confirmed.
    Joining,
    /// Confirmed: what is published arrives.
    Live,
    /// Was live until the link was lost.
    Lost {
        /// When the broker was last heard.
        since: Moment,
    },
}

#[derive(Debug)]
pub(crate) struct TopicEntry {
    pub(crate) name: Topic,
    pub(crate) state: TopicState,
    /// Which of our requests for this topic the broker must answer.
    pub(crate) ticket: u64,
    /// The number of its class, if it has one.
    pub(crate) class: Option<u16>,
    pub(crate) traffic: Traffic,
    pub(crate) subscribers: Vec<SessionKey>,
    /// Subscribe commands to be told when the topic is live. Those that ended meanwhile are passed over.
    pub(crate) waiters: Vec<PendingKey>,
    /// How many subscribe commands name this topic and have not been answered.
    pending: u32,
}

impl TopicEntry {
    /// Adds a waiter. Where the list would have to grow, those that ended are first taken out: a topic that is
    /// not live for an hour must not keep every command that gave up on it meanwhile.
    pub(crate) fn add_waiter(&mut self, waiter: PendingKey, is_waiting: impl Fn(PendingKey) -> bool) {
        if self.waiters.len() == self.waiters.capacity() {
            self.waiters.retain(|&waiter| is_waiting(waiter));
            // Room for as many again, so that the next look at all of them is as far away.
            self.waiters.reserve(self.waiters.len().max(1));
        }
        self.waiters.push(waiter);
    }
}

#[derive(Debug, Default)]
pub(crate) struct Topics {
    entries: Slab<TopicEntry>,
    /// Clients choose the names, so the hash is keyed: nobody can make them collide.
    by_name: HashMap<Topic, TopicKey>,
    tickets: u64,
}

impl Topics {
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn find(&self, name: &str) -> Option<TopicKey> {
        self.by_name.get(name).copied()
    }

    pub(crate) fn get(&self, key: TopicKey) -> &TopicEntry {
        &self.entries[key.0 as usize]
    }

    pub(crate) fn get_mut(&mut self, key: TopicKey) -> &mut TopicEntry {
        &mut self.entries[key.0 as usize]
    }

    /// All topics have places below this number.
    pub(crate) fn places(&self) -> usize {
        self.entries.capacity()
    }

    pub(crate) fn at(&self, places: Range<usize>) -> impl Iterator<Item = &TopicEntry> {
        places.filter_map(|place| self.entries.get(place))
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut TopicEntry> {
        self.entries.iter_mut().map(|(_, entry)| entry)
    }

    /// Holds `name` for one more subscribe command; says whether the topic is new here and must be asked for.
    pub(crate) fn hold(&mut self, name: &Topic) -> (TopicKey, bool) {
        if let Some(key) = self.find(name.as_str()) {
            self.get_mut(key).pending += 1;
            return (key, false);
        }
        self.tickets += 1;
        let entry = TopicEntry {
            name: name.clone(),
            state: TopicState::Joining,
            ticket: self.tickets,
            class: None,
            traffic: Traffic::default(),
            subscribers: Vec::new(),
            waiters: Vec::new(),
            pending: 1,
        };
        let key = TopicKey(u32::try_from(self.entries.insert(entry)).expect("fewer than 2^32 topics"));
        self.by_name.insert(name.clone(), key);
        (key, true)
    }

    /// Ends one [`hold`](Self::hold); gives the name back if nobody is left.
    pub(crate) fn release(&mut self, key: TopicKey) -> Option<Topic> {
        self.get_mut(key).pending -= 1;
        self.remove_if_abandoned(key)
    }

    /// Adds a subscriber and says at which place.
    pub(crate) fn add(&mut self, key: TopicKey, session: SessionKey) -> u32 {
        let subscribers = &mut self.get_mut(key).subscribers;
        subscribers.push(session);
        u32::try_from(subscribers.len() - 1).expect("fewer than 2^32 sessions")
    }

    /// Takes the subscriber at `place` away. The last one moves there: it is returned to be told, unless it
    /// was the one taken.
    pub(crate) fn remove(&mut self, key: TopicKey, place: u32) -> Option<SessionKey> {
        let subscribers = &mut self.get_mut(key).subscribers;
        subscribers.swap_remove(place as usize);
        let moved = subscribers.get(place as usize).copied();
        if subscribers.len() < subscribers.capacity() / 4 {
            subscribers.shrink_to(subscribers.len() * 2);
        }
        moved
    }

    /// Removes the topic and gives its name back if nobody is left.
    pub(crate) fn remove_if_abandoned(&mut self, key: TopicKey) -> Option<Topic> {
        let entry = self.get(key);
        if entry.pending > 0 || !entry.subscribers.is_empty() {
            return None;
        }
        let entry = self.entries.remove(key.0 as usize);
        self.by_name.remove(&entry.name);
        Some(entry.name)
    }
}
