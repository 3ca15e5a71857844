//! Subscribe commands that wait for the broker.
//!
//! A command is answered once, when every one of its topics is live or refused, and its subscriptions begin
//! with the answer: so a client hears nothing of a topic before it is told that it is subscribed.

use std::collections::VecDeque;

use causeway_protocol::{CommandId, Refusal};
use slab::Slab;

use crate::topics::TopicKey;
use crate::{Moment, SessionKey};

/// Names a waiting command; never names another one later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PendingKey {
    index: u32,
    serial: u64,
}

#[derive(Debug)]
pub(crate) struct PendingSubscribe {
    pub(crate) session: SessionKey,
    pub(crate) id: CommandId,
    /// Every topic to be subscribed, each held in the table.
    pub(crate) topics: Vec<TopicKey>,
    /// How many of them are not live.
    pub(crate) missing: usize,
    pub(crate) refused: Vec<Refusal>,
}

#[derive(Debug, Default)]
pub(crate) struct Pendings {
    entries: Slab<(u64, PendingSubscribe)>,
    /// In order, because every command waits equally long.
    deadlines: VecDeque<(Moment, PendingKey)>,
    serials: u64,
}

impl Pendings {
    pub(crate) fn insert(&mut self, pending: PendingSubscribe, deadline: Moment) -> PendingKey {
        self.serials += 1;
        let serial = self.serials;
        let index = u32::try_from(self.entries.insert((serial, pending))).expect("fewer than 2^32 commands");
        let key = PendingKey { index, serial };
        self.deadlines.push_back((deadline, key));
        key
    }

    pub(crate) fn get_mut(&mut self, key: PendingKey) -> Option<&mut PendingSubscribe> {
        let (serial, pending) = self.entries.get_mut(key.index as usize)?;
        (*serial == key.serial).then_some(pending)
    }

    pub(crate) fn remove(&mut self, key: PendingKey) -> Option<PendingSubscribe> {
        self.get_mut(key)?;
        Some(self.entries.remove(key.index as usize).1)
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (PendingKey, &mut PendingSubscribe)> {
        self.entries.iter_mut().map(|(index, (serial, pending))| {
            let index = u32::try_from(index).expect("inserted with a u32 index");
            (PendingKey { index, serial: *serial }, pending)
        })
    }

    pub(crate) fn get(&self, key: PendingKey) -> Option<&PendingSubscribe> {
        let (serial, pending) = self.entries.get(key.index as usize)?;
        (*serial == key.serial).then_some(pending)
    }

    /// A command whose time is up at `now`, if there is one.
    pub(crate) fn pop_overdue(&mut self, now: Moment) -> Option<PendingKey> {
        while let Some(&(deadline, key)) = self.deadlines.front()
            && deadline <= now
        {
            self.deadlines.pop_front();
            if self.get_mut(key).is_some() {
                return Some(key);
            }
        }
        None
    }
}
