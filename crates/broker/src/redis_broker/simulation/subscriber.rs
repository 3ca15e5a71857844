//! What one worker's subscriber of one topic is promised, as the documents put it: from the moment it is told that
//! the topic is live it hears every message, each once and in order, or is told of a gap between the message before
//! and the message behind what it misses, and that gap reaches back as far as what it misses.

use tokio::time::Instant;

use crate::Ticket;

/// The messages of a topic are numbered in the order in which Redis carried them out. They are passed in as `due`:
/// when each has arrived at the latest, if it does.
#[derive(Debug)]
pub(super) struct Subscriber {
    pub(super) ticket: Ticket,
    pub(super) is_live: bool,
    /// Of a gap behind the last message: the number of the first message that may be missing, and how far back the gap
    /// reaches by what was told.
    gap: Option<(usize, Instant)>,
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
            gap: None,
            is_untold: false,
            owed: 0,
            may_begin_earlier: false,
            unheard: 0,
        }
    }

    /// It is told that the topic is live. That ends a gap.
    pub(super) fn live(&mut self, due: &[Instant]) -> &'static str {
        if self.is_live {
            return "live all the time";
        }
        self.is_live = true;
        self.begin(due);
        if self.gap.is_some() { "live again" } else { "live" }
    }

    /// It is told of a loss: nothing is owed until the topic is live again.
    pub(super) fn lost(&mut self, since: Instant) {
        if self.is_live {
            self.misses(since);
            self.is_untold = true;
            self.is_live = false;
        }
    }

    /// It is told that messages were dropped.
    pub(super) fn dropped(&mut self, since: Instant, due: &[Instant]) -> &'static str {
        if !self.is_live && !self.is_untold {
            // It was never live, and what another missed is not its concern.
            return "dropped for others";
        }
        self.misses(since);
        self.begin(due);
        if self.is_live { "dropped" } else { "dropped while lost" }
    }

    fn misses(&mut self, since: Instant) {
        let (first, earlier) = self.gap.unwrap_or((self.owed, since));
        self.gap = Some((first, since.min(earlier)));
    }

    fn begin(&mut self, due: &[Instant]) {
        self.is_untold = false;
        self.owed = due.len();
        self.may_begin_earlier = true;
    }

    /// It hears a message. Returns whether it listens.
    pub(super) fn message(&mut self, number: usize, due: &[Instant]) -> bool {
        if !self.is_live {
            return false;
        }
        assert!(number >= self.unheard, "message {number} came twice or too late");
        if !(self.may_begin_earlier && number < self.owed) {
            assert_eq!(number, self.owed, "a message was lost and nobody was told");
        }
        if let Some((first, since)) = self.gap.take() {
            assert!(first >= number || since <= due[first], "message {first} was lost before the gap began");
        }
        self.may_begin_earlier = false;
        self.unheard = number + 1;
        self.owed = number + 1;
        true
    }

    /// When all is quiet: that it has everything it is owed.
    pub(super) fn assert_settled(&self, due: &[Instant]) {
        assert!(self.is_live, "not live");
        assert_eq!(self.owed, due.len(), "a message was lost and nobody was told");
    }
}
