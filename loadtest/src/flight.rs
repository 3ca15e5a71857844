//! The messages of one topic that are published and not yet heard by every subscriber.

use std::collections::VecDeque;

/// What is older than so many messages will not land any more.
const UNHEARD_MAX: usize = 1 << 16;

/// A window over a numbered series.
#[derive(Debug)]
pub(crate) struct Flight {
    subscribers: u32,
    /// How many subscribers have yet to hear each message from number `first` on.
    unheard: VecDeque<u32>,
    first: u64,
    in_flight: usize,
}

impl Flight {
    /// Nothing is published to `subscribers` yet.
    pub(crate) fn new(subscribers: u32) -> Self {
        Self { subscribers, unheard: VecDeque::new(), first: 0, in_flight: 0 }
    }

    /// The number of the next message, which is in the air from now on if anybody is to hear it.
    pub(crate) fn launch(&mut self) -> u64 {
        if self.unheard.len() == UNHEARD_MAX {
            self.give_up_the_oldest();
        }
        self.unheard.push_back(self.subscribers);
        self.in_flight += usize::from(self.subscribers > 0);
        let seq = self.published() - 1;
        self.forget_the_landed();
        seq
    }

    /// One more subscriber has heard `seq` for the first time.
    pub(crate) fn hear(&mut self, seq: u64) {
        let unheard = seq.checked_sub(self.first).and_then(|index| self.unheard.get_mut(index as usize));
        // The number of a message that we did not send, or that everyone has heard already: the ledgers count it.
        let Some(unheard) = unheard.filter(|unheard| **unheard > 0) else { return };
        *unheard -= 1;
        if *unheard == 0 {
            self.in_flight -= 1;
            self.forget_the_landed();
        }
    }

    /// From the next message on there is one subscriber more.
    pub(crate) fn join(&mut self) {
        self.subscribers += 1;
    }

    /// From the next message on there is one subscriber fewer.
    pub(crate) fn leave(&mut self) {
        self.subscribers = self.subscribers.saturating_sub(1);
    }

    /// Waits for nothing any more of what is in the air.
    pub(crate) fn give_up(&mut self) {
        self.first = self.published();
        self.unheard.clear();
        self.in_flight = 0;
    }

    fn give_up_the_oldest(&mut self) {
        self.in_flight -= usize::from(self.unheard.pop_front() > Some(0));
        self.first += 1;
    }

    fn forget_the_landed(&mut self) {
        while self.unheard.front() == Some(&0) {
            self.unheard.pop_front();
            self.first += 1;
        }
    }

    /// How many messages somebody has yet to hear.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// How many messages have been launched.
    pub(crate) fn published(&self) -> u64 {
        self.first + self.unheard.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_lands_when_everyone_has_heard_it() {
        let mut flight = Flight::new(2);
        assert_eq!([flight.launch(), flight.launch()], [0, 1]);
        flight.hear(1);
        flight.hear(1);
        assert_eq!(flight.in_flight(), 1, "the second may land before the first");
        flight.hear(0);
        assert_eq!(flight.in_flight(), 1);
        flight.hear(0);
        assert_eq!((flight.in_flight(), flight.published()), (0, 2));
        assert_eq!(flight.launch(), 2);
    }

    #[test]
    fn numbers_that_are_not_in_the_air_change_nothing() {
        let mut flight = Flight::new(1);
        flight.launch();
        flight.hear(7);
        flight.hear(0);
        flight.hear(0);
        assert_eq!((flight.in_flight(), flight.published()), (0, 1));
    }

    #[test]
    fn a_message_to_nobody_lands_at_once() {
        let mut flight = Flight::new(1);
        flight.leave();
        assert_eq!((flight.launch(), flight.in_flight()), (0, 0));
        flight.join();
        assert_eq!((flight.launch(), flight.in_flight()), (1, 1));
        flight.give_up();
        assert_eq!((flight.in_flight(), flight.published(), flight.launch()), (0, 2, 2));
    }

    #[test]
    fn what_never_lands_takes_bounded_memory() {
        let mut flight = Flight::new(1);
        for _ in 0..=UNHEARD_MAX {
            flight.launch();
        }
        assert_eq!((flight.in_flight(), flight.published()), (UNHEARD_MAX, UNHEARD_MAX as u64 + 1));
    }
}
