//! Hears what the crowd is told, and enters it in the books.

use std::io;

use mio::event::Event;

use crate::books::Books;
use crate::clock::Moment;
use crate::crowd::{Listener, News};
use crate::ledger::Excuse;
use crate::publish::Publishers;
use crate::push::Push;
use crate::returns::{Change, Returns};

/// Hears for the books.
pub(super) struct Ear<'a> {
    pub(super) books: &'a mut Books,
    pub(super) returns: &'a mut Returns,
    pub(super) publishers: &'a mut Publishers,
    pub(super) gaps: &'a mut u64,
}

impl Listener for Ear<'_> {
    fn heard(&mut self, member: usize, text: &str, now: Moment) {
        if self.books.hear(member, text, now) {
            return;
        }
        match Push::parse(text) {
            Push::Gap => {
                *self.gaps += 1;
                self.books.excuse(member, Excuse::Gap);
            }
            Push::Drain(pause) => self.returns.invite(member, now + pause),
            Push::Refused(answer) => drop(self.returns.note(member, News::Refused(answer), now)),
            _ => {}
        }
    }

    fn news(&mut self, member: usize, news: News, now: Moment) {
        match self.returns.note(member, news, now) {
            Some(Change::Came) => {
                self.books.excuse(member, Excuse::Away);
                self.books.join(member);
            }
            Some(Change::Went) => self.books.leave(member),
            None => {}
        }
    }

    fn foreign(&mut self, event: &Event) -> io::Result<()> {
        self.publishers.ready(event)
    }
}
