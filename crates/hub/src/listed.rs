//! Sessions that have something to write, or have ended, in the order in which they are attended to.
//!
//! Those that were listed by a message to a crowd stand in a queue of their own, and the two queues take turns:
//! a message to one reader does not wait until ten thousand others have been written to, and the crowd loses no
//! more than half of its pace.

use std::collections::VecDeque;

use crate::SessionKey;

/// So many at once are a crowd: writing to them takes about a millisecond.
const CROWD_MIN: usize = 256;

/// The two queues. Entries of sessions that are gone stay until their turn.
#[derive(Debug, Default)]
pub(crate) struct Listed {
    few: VecDeque<SessionKey>,
    crowd: VecDeque<SessionKey>,
    is_turn_of_crowd: bool,
}

impl Listed {
    /// Lists one of `together` sessions that are listed by the same event.
    pub(crate) fn push(&mut self, session: SessionKey, together: usize) {
        let queue = if together < CROWD_MIN { &mut self.few } else { &mut self.crowd };
        queue.push_back(session);
    }

    /// Takes the next one.
    pub(crate) fn pop(&mut self) -> Option<SessionKey> {
        self.is_turn_of_crowd = !self.is_turn_of_crowd;
        match self.is_turn_of_crowd {
            true => self.crowd.pop_front().or_else(|| self.few.pop_front()),
            false => self.few.pop_front().or_else(|| self.crowd.pop_front()),
        }
    }
}
