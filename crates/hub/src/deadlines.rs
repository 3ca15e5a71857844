//! When to look at which session again: a wheel of coarse slots instead of a timer per connection.
//!
//! A session is in the wheel once with the moment it is due. A moment that has since moved leaves its entry
//! behind, which the hub recognises and passes over. Entries beyond the wheel's reach come up early and are
//! put back; so a session may be looked at too early, and at most one slot plus one tick too late.

use crate::{Moment, SessionKey};

/// One slot is 2^18 µs, about a quarter of a second.
const SLOT_BITS: u32 = 18;
/// The wheel reaches a little over a minute ahead.
const SLOTS: u64 = 256;

#[derive(Debug)]
pub(crate) struct Deadlines {
    slots: Vec<Vec<(SessionKey, Moment)>>,
    /// The slot up to which everything has been taken.
    taken: u64,
}

impl Deadlines {
    pub(crate) fn new() -> Self {
        Self { slots: vec![Vec::new(); SLOTS as usize], taken: 0 }
    }

    pub(crate) fn insert(&mut self, session: SessionKey, due: Moment) {
        let slot = slot_of(due).clamp(self.taken + 1, self.taken + SLOTS - 1);
        self.slots[(slot % SLOTS) as usize].push((session, due));
    }

    /// Takes the entries of all slots that have begun by `now`.
    pub(crate) fn take(&mut self, now: Moment) -> Vec<(SessionKey, Moment)> {
        let until = slot_of(now);
        let mut taken = Vec::new();
        for slot in (self.taken + 1)..=until.min(self.taken + SLOTS) {
            taken.append(&mut self.slots[(slot % SLOTS) as usize]);
        }
        self.taken = self.taken.max(until);
        taken
    }
}

fn slot_of(moment: Moment) -> u64 {
    moment.as_micros() >> SLOT_BITS
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_entry_comes_up_by_the_slot_after_it_is_due() {
        let mut deadlines = Deadlines::new();
        let second = |s: u64| Moment::at(Duration::from_secs(s));
        for (n, due) in [1, 1, 30, 59, 3600].into_iter().enumerate() {
            deadlines.insert(SessionKey::new(n, 0), second(due));
        }
        assert!(deadlines.take(second(0)).is_empty());
        let found = |entries: Vec<(SessionKey, Moment)>| entries.len();
        assert_eq!(found(deadlines.take(second(2))), 2);
        assert_eq!(found(deadlines.take(second(29))), 0);
        assert_eq!(found(deadlines.take(second(60))), 2);
        // The last is an hour ahead and comes up early, at the end of the wheel.
        assert_eq!(found(deadlines.take(second(120))), 1);
        assert_eq!(found(deadlines.take(second(7200))), 0);
    }
}
