//! The end of publishing: what is still in the air is waited for, here and in the other processes.

use std::io;
use std::time::Duration;

use super::{Ear, Run};
use crate::clock::Moment;
use crate::crowd::State;
use crate::observer::TICK;

/// What comes out of turn comes within this time after the last message.
const STRAGGLERS: Duration = Duration::from_secs(1);

impl Run<'_> {
    /// Waits for what is in the air, until all who are there have heard the last message or nobody hears anything more.
    pub(crate) fn land(&mut self) -> io::Result<()> {
        let mut last = (Moment::now(), self.books.delivered());
        while (self.books.in_flight() > 0 || self.publishers.unacknowledged() > 0)
            && last.0 + self.patience > Moment::now()
        {
            self.turn(Moment::now() + TICK)?;
            if self.books.delivered() != last.1 {
                last = (Moment::now(), self.books.delivered());
            } else if Moment::now().since(last.0) > STRAGGLERS && self.is_up_to_date() {
                break;
            }
        }
        self.books.give_up();
        self.catch_up()
    }

    /// Waits for what another process has published to the topic that all share.
    fn catch_up(&mut self) -> io::Result<()> {
        let Some(own) = self.books.shared() else { return Ok(()) };
        let published = self.agree(own)?;
        self.books.learn(published);
        let mut last = (Moment::now(), self.books.delivered());
        while !self.is_up_to_date() && last.0 + self.patience > Moment::now() {
            self.turn(Moment::now() + TICK)?;
            if self.books.delivered() != last.1 {
                last = (Moment::now(), self.books.delivered());
            }
        }
        Ok(())
    }

    /// Tells the other processes how much was published to the topic that all share, or is told.
    pub(super) fn agree(&mut self, own: Option<u64>) -> io::Result<u64> {
        let Self { crowd, books, returns, publishers, gaps, conductor, .. } = self;
        let mut ear = Ear { books, returns, publishers, gaps };
        conductor.agree(own, &mut |time| crowd.turn(time, &mut ear))
    }

    fn is_up_to_date(&self) -> bool {
        let is_up = |member| self.crowd.state(member) == State::Up;
        self.publishers.unacknowledged() == 0 && self.books.is_up_to_date(is_up)
    }
}
