//! Sending clients away: all of them before the node stops, or some because other nodes have more room.
//!
//! Whoever is to go is told when to come back, is served until its turn comes, and is then closed with 1012 behind
//! whatever waits for it. Turns are spread evenly over a window, and so are the returns.

use std::time::Duration;

use causeway_protocol::Push;

use super::{Hub, millis};
use crate::{Moment, SessionKey};

/// Nobody comes back sooner after its turn: a close may be as late as the deadlines' slot and the tick behind it, and
/// whoever is closed only when its pause is over comes back together with all the others of that tick.
const PAUSE_MIN: Duration = Duration::from_millis(500);
/// What a pause is longer by at most, so that workers and nodes that drain at the same time do not keep step.
const PAUSE_JITTER: Duration = Duration::from_millis(500);

impl Hub {
    /// Sends everybody away over `window`, and at once whoever comes from now on. Says how many were told.
    pub fn drain(&mut self, window: Duration, now: Moment) -> usize {
        self.is_draining = true;
        let staying = self.staying();
        self.send_away(&staying, window, now)
    }

    /// Sends some away over `window`, chosen at random; newcomers stay. `share` says how many of the given number,
    /// which does not include those who are on their way already. Says how many were told.
    pub fn drain_some(&mut self, share: impl FnOnce(usize) -> usize, window: Duration, now: Moment) -> usize {
        let mut chosen = self.staying();
        let (mut left, mut wanted) = (chosen.len(), share(chosen.len()));
        // Each with the chance that makes the number come out exactly.
        chosen.retain(|_| {
            let is_chosen = self.jitter.is_one_of(wanted, left);
            wanted -= usize::from(is_chosen);
            left -= 1;
            is_chosen
        });
        self.send_away(&chosen, window, now)
    }

    /// Everybody who has not been told to go.
    fn staying(&self) -> Vec<SessionKey> {
        let sessions = self.sessions.iter().map(|(_, session)| session);
        sessions.filter(|session| session.is_open() && !session.is_leaving()).map(|s| s.key).collect()
    }

    fn send_away(&mut self, leaving: &[SessionKey], window: Duration, now: Moment) -> usize {
        let count = u32::try_from(leaving.len().max(1)).unwrap_or(u32::MAX);
        for (place, &key) in (0_u32..).zip(leaving) {
            self.announce_drain(key, window * place / count, now);
        }
        leaving.len()
    }

    /// Tells a session when to come back, and closes it when its turn has come.
    pub(super) fn announce_drain(&mut self, key: SessionKey, closes_in: Duration, now: Moment) {
        let pause = closes_in + PAUSE_MIN + self.jitter.up_to(PAUSE_JITTER);
        self.counters.drains += 1;
        self.owe(key, &Push::Drain { reconnect_in_ms: millis(pause) }.frame(), now);
        if let Some(session) = self.session_mut(key) {
            session.drained_at = now + closes_in;
            self.hasten_deadline(key);
        }
    }
}
