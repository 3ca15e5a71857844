//! What costs this node most: the topics and connections that lead by each measure.
//!
//! Nothing is counted for this that is not counted anyway (see the hub's census); workers look through what they have a
//! piece at a time and keep no more than the leaders, and the node adds up what its workers say of one topic.

use std::collections::HashMap;
use std::mem;

use actix_web::web;
use causeway_hub::TopicFacts;
use serde::{Deserialize, Serialize};

use super::limit;
use super::sessions::{PLACES_PER_TURN, Row};
use crate::crew::NoAnswer;
use crate::node::Node;
use crate::rejection::Rejection;
use crate::worker::Worker;

/// How many leaders may be asked for, and how many are told where nothing is said.
const LIMIT: (usize, usize) = (100, 10);
/// How many topics each worker names by each measure. A topic that is on none of these lists of one worker is not
/// counted there, so this is more than anybody asks for.
const TOPICS_OF_WORKER: usize = 250;

/// What is asked.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Question {
    limit: Option<String>,
}

/// What is answered.
#[derive(Debug, Serialize)]
pub(super) struct Top {
    node: Box<str>,
    topics: TopTopics,
    connections: TopConnections,
}

#[derive(Debug, Serialize)]
struct TopTopics {
    by_messages: Vec<TopicRow>,
    by_bytes: Vec<TopicRow>,
    by_subscribers: Vec<TopicRow>,
    by_drops: Vec<TopicDrops>,
}

#[derive(Debug, Serialize)]
struct TopConnections {
    by_messages: Vec<Row>,
    by_bytes: Vec<Row>,
    by_drops: Vec<SubjectDrops>,
}

#[derive(Clone, Debug, Serialize)]
struct TopicRow {
    topic: String,
    messages_per_second: f64,
    bytes_per_second: f64,
    subscribers: usize,
}

#[derive(Debug, Serialize)]
struct TopicDrops {
    topic: String,
    messages: u64,
}

#[derive(Debug, Serialize)]
struct SubjectDrops {
    subject: String,
    messages: u64,
}

/// `GET /admin/top`
pub(super) async fn tell(
    node: web::Data<Node>,
    question: web::Query<Question>,
) -> Result<web::Json<Top>, Rejection> {
    let most = limit(question.limit.as_deref(), LIMIT)?;
    let topics = top_topics(&node, most).await?;
    let connections = top_connections(&node, most).await?;
    Ok(web::Json(Top { node: node.name.clone(), topics, connections }))
}

async fn top_topics(node: &Node, most: usize) -> Result<TopTopics, NoAnswer> {
    let mut sums = HashMap::new();
    for number in 0..node.crew.len() {
        let leading = look_through(node, number, TopicLeaders::new(TOPICS_OF_WORKER)).await?;
        for (topic, row) in leading.into_rows() {
            sums.entry(topic).and_modify(|sum: &mut TopicRow| sum.add(&row)).or_insert(row);
        }
    }
    let mut leaders = TopicLeaders::new(most);
    sums.into_values().for_each(|row| leaders.offer(&row));
    let TopicLeaders { by_messages, by_bytes, by_subscribers } = leaders;
    let drops = |worker: &Worker| owned(worker.hub.borrow().topic_drops());
    Ok(TopTopics {
        by_messages: by_messages.into_items(),
        by_bytes: by_bytes.into_items(),
        by_subscribers: by_subscribers.into_items(),
        by_drops: top_drops(node, most, drops, |topic, messages| TopicDrops { topic, messages }).await,
    })
}

async fn top_connections(node: &Node, most: usize) -> Result<TopConnections, NoAnswer> {
    let mut leaders = ConnectionLeaders { by_messages: Leaders::new(most), by_bytes: Leaders::new(most) };
    for number in 0..node.crew.len() {
        leaders = look_through(node, number, leaders).await?;
    }
    let drops = |worker: &Worker| owned(worker.hub.borrow().subject_drops());
    Ok(TopConnections {
        by_messages: leaders.by_messages.into_items(),
        by_bytes: leaders.by_bytes.into_items(),
        by_drops: top_drops(node, most, drops, |subject, messages| SubjectDrops { subject, messages }).await,
    })
}

fn owned<'a>(counts: impl Iterator<Item = (&'a str, u64)>) -> Vec<(String, u64)> {
    counts.map(|(name, count)| (name.to_owned(), count)).collect()
}

/// The leaders of what all workers have counted by name.
async fn top_drops<T>(
    node: &Node,
    most: usize,
    counted: impl Fn(&Worker) -> Vec<(String, u64)> + Clone + Send + 'static,
    row: impl Fn(String, u64) -> T,
) -> Vec<T> {
    let mut sums: HashMap<String, u64> = HashMap::new();
    for (name, count) in node.crew.ask_all(counted).await.into_iter().flatten() {
        *sums.entry(name).or_default() += count;
    }
    let mut leaders = Leaders::new(most);
    for (name, count) in sums {
        leaders.offer(count as f64, || row(name, count));
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

struct TopicLeaders {
    by_messages: Leaders<TopicRow>,
    by_bytes: Leaders<TopicRow>,
    by_subscribers: Leaders<TopicRow>,
}

impl TopicLeaders {
    fn new(most: usize) -> Self {
        Self {
            by_messages: Leaders::new(most),
            by_bytes: Leaders::new(most),
            by_subscribers: Leaders::new(most),
        }
    }

    fn offer(&mut self, row: &TopicRow) {
        self.by_messages.offer(row.messages_per_second, || row.clone());
        self.by_bytes.offer(row.bytes_per_second, || row.clone());
        self.by_subscribers.offer(row.subscribers as f64, || row.clone());
    }

    /// Each topic once.
    fn into_rows(self) -> HashMap<String, TopicRow> {
        let all = [self.by_messages, self.by_bytes, self.by_subscribers].into_iter();
        all.flat_map(Leaders::into_items).map(|row| (row.topic.clone(), row)).collect()
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
            self.by_messages.offer_some(facts.messages_sent as f64, || Row::of(&hub, worker, &facts));
            self.by_bytes.offer_some(facts.bytes_sent as f64, || Row::of(&hub, worker, &facts));
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
        self.subscribers += other.subscribers;
    }
}

/// More digits are noise.
fn thousandths(rate: f64) -> f64 {
    (rate * 1000.0).round() / 1000.0
}

/// The largest of what is offered, and not much more. What measures nothing is not among them.
#[derive(Debug)]
struct Leaders<T> {
    most: usize,
    /// At most twice as many as are wanted.
    kept: Vec<(f64, T)>,
    /// No larger than the least of the leaders, once there are as many as are wanted.
    floor: f64,
}

impl<T> Leaders<T> {
    fn new(most: usize) -> Self {
        Self { most, kept: Vec::new(), floor: 0.0 }
    }

    fn offer(&mut self, measure: f64, item: impl FnOnce() -> T) {
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
    fn into_items(mut self) -> Vec<T> {
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
    fn few_are_all_told_and_nothing_is_no_leader() {
        let mut leaders = Leaders::new(100);
        for number in [0_u32, 1, 0, 2] {
            leaders.offer(f64::from(number), || number);
        }
        assert_eq!(leaders.into_items(), [2, 1]);
        assert!(Leaders::<u32>::new(1).into_items().is_empty());
    }
}
