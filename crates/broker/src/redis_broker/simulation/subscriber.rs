//! What one worker's subscriber of one topic is promised, as the documents put it: from the moment it is told that
//! the topic is live it hears every message, each once and in order, or is told of a gap between the message before
//! and the message behind what it misses.

use crate::Ticket;

/// The messages of a topic are numbered in the order in which Redis carried them out.
#[derive(Debug)]
pub(super) struct Subscriber {
    pub(super) ticket: Ticket,
    pub(super) is_live: bool,
    was_lost: bool,
    /// It was live and is lost, and was not told of the gap yet: that comes with the end of the gap, or when there
    /// will be none for a while.
    pub(super) is_untold: bool,
    /// The number of the message that must come next at the latest.
    owed: usize,
    /// Behind a beginning or a gap: messages before the owed one may come, because they are under way, or not.
    may_begin_earlier: bool,
    /// No message before this number may come: they were heard.
    unheard: usize,
}

impl Subscriber {
    pub(super) fn new(ticket: Ticket) -> Self {
        Self {
            ticket,
            is_live: false,
            was_lost: false,
            is_untold: false,
            owed: 0,
            may_begin_earlier: false,
            unheard: 0,
        }
    }

    /// It is told that the topic is live, when Redis had carried out so many messages. That ends a gap.
    pub(super) fn live(&mut self, published: usize) -> &'static str {
        if self.is_live {
            return "live all the time";
        }
        self.is_live = true;
        self.begin(published);
        if self.was_lost { "live again" } else { "live" }
    }

    /// It is told of a loss: nothing is owed until the topic is live again.
    pub(super) fn lost(&mut self) {
        self.was_lost |= self.is_live;
        self.is_untold |= self.is_live;
        self.is_live = false;
    }

    /// It is told that messages were dropped.
    pub(super) fn dropped(&mut self, published: usize) -> &'static str {
        self.begin(published);
        if self.is_live { "dropped" } else { "dropped while lost" }
    }

    fn begin(&mut self, published: usize) {
        self.is_untold = false;
        self.owed = published;
        self.may_begin_earlier = true;
    }

    /// It hears a message. Returns whether it listens.
    pub(super) fn message(&mut self, number: usize) -> bool {
        if !self.is_live {
            return false;
        }
        assert!(number >= self.unheard, "message {number} came twice or too late");
        if !(self.may_begin_earlier && number < self.owed) {
            assert_eq!(number, self.owed, "a message was lost and nobody was told");
        }
        self.may_begin_earlier = false;
        self.unheard = number + 1;
        self.owed = number + 1;
        true
    }

    /// When all is quiet: that it has everything it is owed.
    pub(super) fn assert_settled(&self, published: usize) {
        assert!(self.is_live, "not live");
        assert_eq!(self.owed, published, "a message was lost and nobody was told");
    }
}
