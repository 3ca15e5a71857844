//! What costs a node most: the topics and connections that lead by each measure.
//!
//! Nothing is counted for this that is not counted anyway (see the hub's census); workers look through what they have a
//! piece at a time and keep no more than the leaders, and the node adds up what its workers say of one topic. What nodes
//! say of one is added up in the same way.

use std::collections::HashMap;
use std::mem;

use causeway_hub::TopicFacts;
use serde::{Deserialize, Serialize};

use crate::crew::NoAnswer;
use crate::node::Node;
use crate::peers::Ask;
use crate::search::{PLACES_PER_TURN, Row};
use crate::worker::Worker;

/// How many connections, and names that lost messages, may be asked for by each measure.
pub(crate) const LEADERS_MAX: usize = 100;
/// How many topics each worker, and each node, names by each measure. A topic that is on none of its lists is not
/// counted there, so this is more than anybody asks for.
const TOPICS_MAX: usize = 250;

/// The question who leads, as a node also asks it of another.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rank {
    pub(crate) most: usize,
}

/// Who leads on a node. Unknown fields are those of a later version.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Leading {
    /// Those that lead by any measure, each once.
    pub(crate) topics: Vec<TopicRow>,
    pub(crate) topic_drops: Vec<(String, u64)>,
    pub(crate) by_messages: Vec<Row>,
    pub(crate) by_bytes: Vec<Row>,
    pub(crate) subject_drops: Vec<(String, u64)>,
}

/// A topic. Unknown fields are those of a later version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct TopicRow {
    topic: String,
    messages_per_second: f64,
    bytes_per_second: f64,
    subscribers: usize,
}

impl Ask for Rank {
    type Answer = Leading;

    async fn here(&self, node: &Node) -> Result<Leading, NoAnswer> {
        let most = self.most.min(LEADERS_MAX);
        let mut topics = Vec::new();
        let mut connections =
            ConnectionLeaders { by_messages: Leaders::new(most), by_bytes: Leaders::new(most) };
        for number in 0..node.crew.len() {
            let leading = look_through(node, number, TopicLeaders::new(TOPICS_MAX)).await?;
            topics.extend(leading.into_rows());
            connections = look_through(node, number, connections).await?;
        }
        let topic_drops = |worker: &Worker| owned(worker.hub.borrow().topic_drops());
        let subject_drops = |worker: &Worker| owned(worker.hub.borrow().subject_drops());
        Ok(Leading {
            topics: TopicLeaders::of_sums(topics, TOPICS_MAX).into_rows(),
            topic_drops: most_drops(node.crew.ask_all(topic_drops).await.into_iter().flatten(), most),
            by_messages: connections.by_messages.into_items(),
            by_bytes: connections.by_bytes.into_items(),
            subject_drops: most_drops(node.crew.ask_all(subject_drops).await.into_iter().flatten(), most),
        })
    }
}

fn owned<'a>(counts: impl Iterator<Item = (&'a str, u64)>) -> Vec<(String, u64)> {
    counts.map(|(name, count)| (name.to_owned(), count)).collect()
}

/// The largest of what was counted by name in several places, added up.
pub(crate) fn most_drops(counts: impl IntoIterator<Item = (String, u64)>, most: usize) -> Vec<(String, u64)> {
    let mut sums: HashMap<String, u64> = HashMap::new();
    for (name, count) in counts {
        let sum = sums.entry(name).or_default();
        *sum = sum.saturating_add(count);
    }
    let mut leaders = Leaders::new(most);
    for (name, count) in sums {
        leaders.offer(count as f64, || (name, count));
    }
    leaders.into_items()
}

/// Who leads, as far as one has looked.
trait Looks: Send + Sized + 'static {
    /// Looks at what has a place among `PLACES_PER_TURN` from here on; says where to go on, if there is more.
    fn look(&mut self, worker: &Worker, from: usize) -> Option<usize>;
}

/// Looks through all that a worker has, a piece at a time.
async fn look_through<L: Looks>(node: &Node, number: u16, mut leaders: L) -> Result<L, NoAnswer> {
    let mut from = Some(0);
    while let Some(place) = from {
        let question = move |worker: &Worker| {
            let next = leaders.look(worker, place);
            (leaders, next)
        };
        (leaders, from) = node.crew.ask(number, question).await?;
    }
    Ok(leaders)
}

/// The topics that lead by each measure.
pub(crate) struct TopicLeaders {
    pub(crate) by_messages: Leaders<TopicRow>,
    pub(crate) by_bytes: Leaders<TopicRow>,
    pub(crate) by_subscribers: Leaders<TopicRow>,
}

impl TopicLeaders {
    fn new(most: usize) -> Self {
        Self {
            by_messages: Leaders::new(most),
            by_bytes: Leaders::new(most),
            by_subscribers: Leaders::new(most),
        }
    }

    /// Of what several places say of their topics, added up.
    pub(crate) fn of_sums(rows: impl IntoIterator<Item = TopicRow>, most: usize) -> Self {
        let mut sums: HashMap<String, TopicRow> = HashMap::new();
        for row in rows {
            match sums.get_mut(&row.topic) {
                Some(sum) => sum.add(&row),
                None => drop(sums.insert(row.topic.clone(), row)),
            }
        }
        let mut leaders = Self::new(most);
        sums.into_values().for_each(|row| leaders.offer(&row));
        leaders
    }

    fn offer(&mut self, row: &TopicRow) {
        self.by_messages.offer(row.messages_per_second, || row.clone());
        self.by_bytes.offer(row.bytes_per_second, || row.clone());
        self.by_subscribers.offer(row.subscribers as f64, || row.clone());
    }

    /// Each topic once.
    fn into_rows(self) -> Vec<TopicRow> {
        let all = [self.by_messages, self.by_bytes, self.by_subscribers].into_iter();
        let rows = all.flat_map(Leaders::into_items).map(|row| (row.topic.clone(), row));
        rows.collect::<HashMap<_, _>>().into_values().collect()
    }
}

impl Looks for TopicLeaders {
    fn look(&mut self, worker: &Worker, from: usize) -> Option<usize> {
        let hub = worker.hub.borrow();
        let end = (from + PLACES_PER_TURN).min(hub.topic_places());
        for facts in hub.topics_at(from..end, worker.now()) {
            self.by_messages.offer(facts.messages_per_second, || TopicRow::of(&facts));
            self.by_bytes.offer(facts.bytes_per_second, || TopicRow::of(&facts));
            self.by_subscribers.offer(facts.subscribers as f64, || TopicRow::of(&facts));
        }
        (end < hub.topic_places()).then_some(end)
    }
}

struct ConnectionLeaders {
    by_messages: Leaders<Row>,
    by_bytes: Leaders<Row>,
}

impl Looks for ConnectionLeaders {
    fn look(&mut self, worker: &Worker, from: usize) -> Option<usize> {
        let hub = worker.hub.borrow();
        let end = (from + PLACES_PER_TURN).min(hub.session_places());
        for facts in hub.sessions_at(from..end) {
            self.by_messages.offer_some(facts.messages_sent as f64, || Row::of(worker, &facts));
            self.by_bytes.offer_some(facts.bytes_sent as f64, || Row::of(worker, &facts));
        }
        (end < hub.session_places()).then_some(end)
    }
}

impl TopicRow {
    fn of(facts: &TopicFacts<'_>) -> Self {
        Self {
            topic: facts.name.to_string(),
            messages_per_second: thousandths(facts.messages_per_second),
            bytes_per_second: thousandths(facts.bytes_per_second),
            subscribers: facts.subscribers,
        }
    }

    fn add(&mut self, other: &Self) {
        self.messages_per_second = thousandths(self.messages_per_second + other.messages_per_second);
        self.bytes_per_second = thousandths(self.bytes_per_second + other.bytes_per_second);
        self.subscribers = self.subscribers.saturating_add(other.subscribers);
    }
}
/// More digits are noise.
fn thousandths(rate: f64) -> f64 {
    (rate * 1000.0).round() / 1000.0
}

/// The largest of what is offered, and not much more. What measures nothing is not among them.
#[derive(Debug)]
pub(crate) struct Leaders<T> {
    most: usize,
    /// At most twice as many as are wanted.
    kept: Vec<(f64, T)>,
    /// No larger than the least of the leaders, once there are as many as are wanted.
    floor: f64,
}

impl<T> Leaders<T> {
    pub(crate) fn new(most: usize) -> Self {
        Self { most, kept: Vec::new(), floor: 0.0 }
    }

    pub(crate) fn offer(&mut self, measure: f64, item: impl FnOnce() -> T) {
        self.offer_some(measure, || Some(item()));
    }

    fn offer_some(&mut self, measure: f64, item: impl FnOnce() -> Option<T>) {
        if measure > self.floor
            && let Some(item) = item()
        {
            self.kept.push((measure, item));
            if self.kept.len() >= 2 * self.most {
                self.keep_the_largest();
            }
        }
    }

    fn keep_the_largest(&mut self) {
        self.kept.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        self.kept.truncate(self.most);
        if let Some((least, _)) = self.kept.get(self.most - 1) {
            self.floor = *least;
        }
    }

    /// The largest first.
    pub(crate) fn into_items(mut self) -> Vec<T> {
        self.keep_the_largest();
        mem::take(&mut self.kept).into_iter().map(|(_, item)| item).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_of_all_that_was_offered_lead() {
        let mut leaders = Leaders::new(3);
        for number in [5_u32, 0, 9, 1, 7, 7, 2, 8, 3] {
            leaders.offer(f64::from(number), || number);
            assert!(leaders.kept.len() < 6);
        }
        assert_eq!(leaders.into_items(), [9, 8, 7]);
    }

    #[test]
    fn what_several_say_of_one_is_added_up_before_leaders_are_chosen() {
        let row = |topic: &str, rate: f64, subscribers| TopicRow {
            topic: topic.to_owned(),
            messages_per_second: rate,
            bytes_per_second: 10.0 * rate,
            subscribers,
        };
        let told =
            [row("one", 5.0, 9), row("two", 3.0, 1), row("two", 3.5, 2), row("three", 0.0, usize::MAX)];
        let leaders = TopicLeaders::of_sums(told.into_iter().chain([row("three", 0.0, 1)]), 1);
        assert_eq!(leaders.by_messages.into_items(), [row("two", 6.5, 3)]);
        assert_eq!(leaders.by_subscribers.into_items(), [row("three", 0.0, usize::MAX)], "nothing overflows");

        let counts = [("a", 5), ("b", 3), ("c", u64::MAX), ("b", 3), ("c", 1)];
        let counts = counts.map(|(name, count)| (name.to_owned(), count));
        assert_eq!(most_drops(counts, 2), [("c".to_owned(), u64::MAX), ("b".to_owned(), 6)]);
    }

    #[test]
    fn few_are_all_told_and_nothing_is_no_leader() {
        let mut leaders = Leaders::new(100);
        for number in [0_u32, 1, 0, 2] {
            leaders.offer(f64::from(number), || number);
        }
        assert_eq!(leaders.into_items(), [2, 1]);
        assert!(Leaders::<u32>::new(1).into_items().is_empty());
    }
}
