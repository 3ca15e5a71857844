//! What time brings to each session: pings, pongs overdue, tokens that expire, sockets that stall, the drain.

use std::time::Duration;

use causeway_protocol::{CloseCode, Push, frame};

use super::{Hub, millis};
use crate::{Moment, SessionKey};

/// When to ping a session again that is pinged now. Pings leave on whole seconds, those of one second together: what
/// the first of them brings into the CPU's caches serves all others.
pub(super) fn next_ping(now: Moment, interval: Duration) -> Moment {
    (now + interval).whole_second()
}

impl Hub {
    /// Does whatever is due for one session.
    pub(super) fn attend(&mut self, key: SessionKey, now: Moment) {
        let limits = &self.limits;
        let (ping_interval, pong_timeout, warning) =
            (limits.ping_interval, limits.pong_timeout, limits.token_warning);
        let Some(session) = self.session_mut(key) else { return };
        if !session.is_open() {
            return self.list(key);
        }
        if now >= session.stalled_at {
            self.cut(key, CloseCode::SlowConsumer, now);
        } else if now >= session.token_expires {
            self.close(key, CloseCode::TokenExpired, now);
        } else if now >= session.pong_due {
            self.close(key, CloseCode::PongTimeout, now);
        } else if now >= session.drained_at {
            self.close(key, CloseCode::ServiceRestart, now);
        } else {
            let expires_in = session.token_expires.since(now);
            let is_expiring = !session.is_warned && expires_in <= warning;
            session.is_warned |= is_expiring;
            let is_ping_due = now >= session.next_ping;
            if is_ping_due {
                session.next_ping = next_ping(now, ping_interval);
                session.pong_due = session.pong_due.min(now + pong_timeout);
            }
            if is_expiring {
                self.owe(key, &Push::TokenExpiring { in_ms: millis(expires_in) }.frame(), now);
            }
            if is_ping_due {
                self.owe(key, &frame::ping(), now);
            }
        }
    }

    /// Enters the session among the deadlines anew.
    pub(super) fn enter_deadline(&mut self, key: SessionKey) {
        let Some(session) = self.sessions.get_mut(key.index()).filter(|session| session.key == key) else {
            return;
        };
        session.due = session.next_due(&self.limits);
        self.deadlines.insert(key, session.due);
    }

    /// Makes sure that the session is looked at no later than it now must be.
    pub(super) fn hasten_deadline(&mut self, key: SessionKey) {
        if self.session(key).is_some_and(|session| session.next_due(&self.limits) < session.due) {
            self.enter_deadline(key);
        }
    }
}
