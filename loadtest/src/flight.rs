//! The messages that are published and not yet heard by every subscriber.

use std::collections::VecDeque;

/// A closed loop's window over a numbered series.
#[derive(Debug)]
pub(crate) struct Flight {
    subscribers: usize,
    /// How many subscribers have yet to hear each message from number `first` on.
    unheard: VecDeque<usize>,
    first: u64,
    in_flight: usize,
}

impl Flight {
    /// Nothing is published to `subscribers` yet.
    pub(crate) fn new(subscribers: usize) -> Self {
        Self { subscribers, unheard: VecDeque::new(), first: 0, in_flight: 0 }
    }

    /// The number of the next message, which is in the air from now on.
    pub(crate) fn launch(&mut self) -> u64 {
        self.unheard.push_back(self.subscribers);
        self.in_flight += 1;
        self.published() - 1
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
}
