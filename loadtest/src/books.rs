//! What has been published and what every subscriber has heard of it.

use std::time::Duration;

use crate::clock::Moment;
use crate::flight::Flight;
use crate::ledger::{Excuse, Ledger, Tally};
use crate::stamp::{Stamp, Stamped};
use crate::timeline::{Chronicle, Timeline, Totals};

/// The books of a process.
pub(crate) struct Books {
    stamp: Stamp,
    /// The number of topic 0 among the topics of all processes.
    first_topic: u32,
    topics: Vec<Flight>,
    /// Each member's topic.
    topic_of: Vec<u32>,
    ledgers: Vec<Ledger>,
    sender: Sender,
    /// How many messages another process has published, as far as it has said.
    heard_of: u64,
    late_after: Duration,
    in_flight: usize,
    published: u64,
    delivered: u64,
    misrouted: u64,
    last_heard: Moment,
    /// Latencies while it counts.
    chronicle: Option<Chronicle>,
}

/// Who listens to what.
pub(crate) struct Subscribers {
    /// The number of topic 0 among the topics of all processes.
    pub(crate) first_topic: usize,
    /// How many topics this process has to do with.
    pub(crate) topics: usize,
    /// Each member's topic, counted from `first_topic`.
    pub(crate) topic_of: Vec<u32>,
    /// Who publishes to them.
    pub(crate) sender: Sender,
}

/// Who publishes to a process's topics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sender {
    /// This process, and no other knows the topics.
    Own,
    /// This process, for subscribers in others too. There is one topic.
    ForAll,
    /// Another process. There is one topic.
    Another,
}

impl Books {
    /// Nothing has been published yet.
    pub(crate) fn new(stamp: Stamp, subscribers: Subscribers, late_after: Duration) -> Self {
        let Subscribers { first_topic, topics, topic_of, sender } = subscribers;
        let mut counts = vec![0; topics];
        topic_of.iter().for_each(|&topic| counts[topic as usize] += 1);
        Self {
            stamp,
            first_topic: first_topic as u32,
            topics: counts.into_iter().map(Flight::new).collect(),
            ledgers: topic_of.iter().map(|_| Ledger::default()).collect(),
            topic_of,
            sender,
            heard_of: 0,
            late_after,
            in_flight: 0,
            published: 0,
            delivered: 0,
            misrouted: 0,
            last_heard: Moment::now(),
            chronicle: None,
        }
    }

    /// From here on latencies count.
    pub(crate) fn count_from(&mut self, start: Moment, expected: Duration, up: usize) {
        let timeline = Timeline::new(start, expected);
        self.chronicle = Some(Chronicle::new(timeline, self.totals(up)));
    }

    /// Goes over to the interval that `now` is in.
    pub(crate) fn roll(&mut self, now: Moment, up: usize) {
        let totals = self.totals(up);
        if let Some(chronicle) = &mut self.chronicle {
            chronicle.roll(now, totals);
        }
    }

    /// How it went since it counted.
    pub(crate) fn finish(&mut self, up: usize) -> Timeline {
        let totals = self.totals(up);
        self.chronicle.take().map(|chronicle| chronicle.finish(totals)).unwrap_or_default()
    }

    /// The payload of the next message to `topic`, which was due at `due`.
    pub(crate) fn launch(&mut self, topic: usize, due: Moment) -> String {
        let flight = &mut self.topics[topic];
        let in_flight = flight.in_flight();
        let seq = flight.launch();
        self.in_flight = self.in_flight + flight.in_flight() - in_flight;
        self.published += 1;
        self.stamp.payload(Stamped { topic: self.first_topic + topic as u32, seq, at: due })
    }

    /// Enters what `member` heard at `now`; `false` if it is no message of this run.
    pub(crate) fn hear(&mut self, member: usize, text: &str, now: Moment) -> bool {
        let Some(Stamped { topic, seq, at }) = self.stamp.read(text) else { return false };
        let own = self.topic_of[member];
        if topic != self.first_topic + own {
            self.misrouted += 1;
            return true;
        }
        if !self.ledgers[member].hear(seq) {
            return true;
        }
        let latency = now.since(at);
        if latency > self.late_after {
            self.ledgers[member].note_late();
        }
        if let Some(chronicle) = &mut self.chronicle {
            chronicle.heard(latency);
        }
        self.delivered += 1;
        self.last_heard = now;
        let flight = &mut self.topics[own as usize];
        let in_flight = flight.in_flight();
        flight.hear(seq);
        self.in_flight -= in_flight - flight.in_flight();
        true
    }

    /// `member` was told that it may have missed something.
    pub(crate) fn excuse(&mut self, member: usize, excuse: Excuse) {
        // Where another process publishes, how far it had come is not known: up to the next that is heard.
        let published = match self.sender {
            Sender::Own | Sender::ForAll => self.topics[self.topic_of[member] as usize].published(),
            Sender::Another => u64::MAX,
        };
        self.ledgers[member].excuse(excuse, published);
    }

    /// `member` hears what is published from now on.
    pub(crate) fn join(&mut self, member: usize) {
        self.topics[self.topic_of[member] as usize].join();
    }

    /// `member` does not hear what is published from now on.
    pub(crate) fn leave(&mut self, member: usize) {
        self.topics[self.topic_of[member] as usize].leave();
    }

    /// Whether every member that `is_up` has heard the last message of its topic.
    pub(crate) fn is_up_to_date(&self, is_up: impl Fn(usize) -> bool) -> bool {
        let mut members = self.ledgers.iter().zip(&self.topic_of).enumerate();
        members.all(|(member, (ledger, &topic))| !is_up(member) || ledger.is_up_to(self.published_to(topic)))
    }

    /// Waits for nothing any more of what is in the air.
    pub(crate) fn give_up(&mut self) {
        self.topics.iter_mut().for_each(Flight::give_up);
        self.in_flight = 0;
    }

    /// Whether everybody heard everything, once and in order.
    pub(crate) fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        for (ledger, &topic) in self.ledgers.iter().zip(&self.topic_of) {
            tally += ledger.tally(self.published_to(topic));
        }
        tally
    }

    /// Another process has published so many messages to the topic that all share.
    pub(crate) fn learn(&mut self, published: u64) {
        self.heard_of = published;
    }

    fn published_to(&self, topic: u32) -> u64 {
        match self.sender {
            Sender::Own | Sender::ForAll => self.topics[topic as usize].published(),
            Sender::Another => self.heard_of,
        }
    }

    /// How many messages there were so far to a topic that processes share, where there is one: `Some(None)` where
    /// another process would know.
    pub(crate) fn shared(&self) -> Option<Option<u64>> {
        match self.sender {
            Sender::Own => None,
            Sender::ForAll => Some(Some(self.published)),
            Sender::Another => Some(None),
        }
    }

    /// Gives those who have heard nothing a new chance, from `now` on.
    pub(crate) fn wait_anew(&mut self, now: Moment) {
        self.last_heard = now;
    }

    /// How many messages somebody has yet to hear.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// How many have been published, to all topics.
    pub(crate) fn published(&self) -> u64 {
        self.published
    }

    /// How many were heard for the first time, over all subscribers.
    pub(crate) fn delivered(&self) -> u64 {
        self.delivered
    }

    /// How many reached a subscriber of another topic.
    pub(crate) fn misrouted(&self) -> u64 {
        self.misrouted
    }

    /// When something was last heard.
    pub(crate) fn last_heard(&self) -> Moment {
        self.last_heard
    }

    fn totals(&self, up: usize) -> Totals {
        Totals { published: self.published, delivered: self.delivered, up: up as u64 }
    }
}

#[cfg(test)]
mod tests {
    use causeway_protocol::frame::{FrameLimits, FrameReader, Message, Received, Role};
    use causeway_protocol::{Publication, Topic};

    use super::*;

    const LATE_AFTER: Duration = Duration::from_millis(100);

    /// Two topics with one subscriber each.
    fn books() -> Books {
        let subscribers =
            Subscribers { first_topic: 40, topics: 2, topic_of: vec![0, 1], sender: Sender::Own };
        Books::new(Stamp::new(1, 100), subscribers, LATE_AFTER)
    }

    fn delivered(payload: String) -> String {
        let mut frame = Publication::new(Topic::parse("t").unwrap(), payload).frame().to_vec();
        match FrameReader::new(Role::Client).next(&mut &mut frame[..], &FrameLimits::default()) {
            Ok(Some(Received::Plain(Message::Text(text)))) => text.into_owned(),
            other => panic!("not a text frame: {other:?}"),
        }
    }

    #[test]
    fn latency_is_counted_from_when_a_message_was_due() {
        let (mut books, due) = (books(), Moment(5_000_000_000));
        books.count_from(due, Duration::from_secs(1), 2);
        let text = delivered(books.launch(1, due));
        assert_eq!(books.in_flight(), 1);
        assert!(!books.is_up_to_date(|_| true) && books.is_up_to_date(|member| member == 0));
        // However late it was published.
        assert!(books.hear(1, &text, due + Duration::from_millis(150)));
        let latency = books.finish(2).latency().quantile(1.0).unwrap();
        assert!(latency.abs_diff(Duration::from_millis(150)) < Duration::from_millis(1), "{latency:?}");
        assert_eq!((books.in_flight(), books.delivered()), (0, 1));
        assert!(books.is_up_to_date(|_| true));
        assert_eq!(books.tally(), Tally { late: 1, subscribers: 1, ..Tally::default() });
    }

    #[test]
    fn a_message_to_another_topic_is_misrouted_and_lost_where_it_belongs() {
        let mut books = books();
        let text = delivered(books.launch(0, Moment(0)));
        assert!(books.hear(1, &text, Moment(1)));
        assert_eq!((books.misrouted(), books.delivered(), books.tally().lost), (1, 0, 1));
        books.excuse(0, Excuse::Gap);
        assert_eq!((books.tally().lost, books.tally().missed_in_gap), (0, 1));
        assert!(!books.hear(1, r#"{"op":"pong"}"#, Moment(1)));
    }

    #[test]
    fn a_process_that_does_not_publish_learns_afterwards_how_much_there_was() {
        let subscribers =
            Subscribers { first_topic: 0, topics: 1, topic_of: vec![0], sender: Sender::Another };
        let mut listener = Books::new(Stamp::new(1, 100), subscribers, LATE_AFTER);
        let subscribers = Subscribers { first_topic: 0, topics: 1, topic_of: vec![], sender: Sender::ForAll };
        let mut publisher = Books::new(Stamp::new(1, 100), subscribers, LATE_AFTER);
        assert!(publisher.is_up_to_date(|_| true), "nobody listens here");
        let texts = [(); 3].map(|()| delivered(publisher.launch(0, Moment(0))));
        assert!(listener.hear(0, &texts[0], Moment(1)) && listener.hear(0, &texts[1], Moment(1)));
        listener.learn(publisher.published());
        assert!(!listener.is_up_to_date(|_| true));
        assert_eq!(listener.tally().lost, 1);
        listener.excuse(0, Excuse::Gap);
        assert_eq!(listener.tally().missed_in_gap, 1);
    }
}
