//! The nodes of a cluster, and how to ask one of them something, as `crew` asks workers.
//!
//! Each node has a reserved topic of its own, which no client can reach. A question is published to that of the node that
//! is asked, the answer to that of the node that asks: they cost the other nodes nothing. Who is there is known from the
//! roll call; this node is asked like any other, but not by way of the broker.
//!
//! Whoever may publish in Redis may ask and answer. So a question is read strictly, only so many are answered at a time,
//! and an answer is heard by who waits for it and by nobody else.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use causeway_broker::{Delivery, PublishError};
use causeway_protocol::Topic;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{sleep_until, timeout};

use crate::control;
use crate::crew::NoAnswer;
use crate::leaders::Rank;
use crate::node::{Life, Node};
use crate::search::Search;
use crate::tasks;

/// How long another node may take to answer, or to say that it is there.
const PATIENCE: Duration = Duration::from_secs(1);
/// What may wait to be heard. Beyond it questions and answers are lost: who asked is not answered.
const INBOX_BYTES: usize = 4 << 20;
/// The longest answer that is heard, in bytes.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// How many answers are waited for at a time. Who asks more is not answered.
const ASKING_MAX: usize = 64;
/// How many questions are answered at a time. Beyond it they are passed over.
const ANSWERING_MAX: usize = 8;

/// A node of the cluster; sorted by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Member {
    pub(crate) node: Box<str>,
    pub(crate) life: Life,
}

/// The nodes of the cluster, as far as they are known.
#[derive(Debug)]
pub(crate) struct Members {
    /// Those that have answered the roll lately, and this node, in their order.
    pub(crate) present: Vec<Member>,
    /// The names of those that have been there and do not answer, or of the one that was looked for in vain.
    pub(crate) missing: BTreeSet<Box<str>>,
}

/// What can be asked of any node, this one included.
pub(crate) trait Ask: Clone + Into<Question> {
    /// What is answered.
    type Answer: Serialize + DeserializeOwned;

    /// What this node answers.
    ///
    /// # Errors
    /// [`NoAnswer`] of one of its workers.
    async fn here(&self, node: &Node) -> Result<Self::Answer, NoAnswer>;
}

/// Everything that nodes ask each other.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Question {
    Sessions(Search),
    Leaders(Rank),
}

/// What is said on a node's own topic.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Said {
    Ask { by: Life, number: u64, question: Question },
    Answer { number: u64, answer: Box<RawValue> },
}

/// The answers that this node waits for, by the numbers of their questions, which nobody can guess.
#[derive(Debug, Default)]
pub(crate) struct Asking(Mutex<HashMap<u64, oneshot::Sender<Box<RawValue>>>>);

impl From<Search> for Question {
    fn from(search: Search) -> Self {
        Self::Sessions(search)
    }
}

impl From<Rank> for Question {
    fn from(rank: Rank) -> Self {
        Self::Leaders(rank)
    }
}

impl Question {
    async fn answer(&self, node: &Node) -> Result<Box<RawValue>, NoAnswer> {
        match self {
            Self::Sessions(search) => search.here(node).await.map(|found| raw(&found)),
            Self::Leaders(rank) => rank.here(node).await.map(|leading| raw(&leading)),
        }
    }
}

/// The nodes of the cluster, or those of one name. The first look after a while takes a second: the others are given the
/// time to say that they are there. Where there can be none, or only this node is meant, it takes none.
pub(crate) async fn members(node: &Node, name: Option<&str>) -> Members {
    let is_meant = |other: &str| name.is_none_or(|name| name == other);
    if !node.is_alone && name.is_none_or(|name| name != &*node.name) {
        call_roll(node).await;
    }
    let own = Member { node: node.name.clone(), life: node.life };
    let now = Instant::now();
    let others = node.roll_call.others(node.life, now).into_iter().map(|answer| answer.member());
    let mut present: Vec<_> =
        std::iter::once(own).chain(others).filter(|member| is_meant(&member.node)).collect();
    present.sort();
    let mut missing = node.roll_call.silent(now);
    missing.retain(|other| is_meant(other) && **other != *node.name);
    if present.is_empty() {
        missing.extend(name.map(Box::from));
    }
    Members { present, missing }
}

/// Calls the roll, and waits until there was time to answer a call. Where the link is down nobody will.
async fn call_roll(node: &Node) {
    control::call_roll(node);
    if let Some(since) = node.roll_call.called_since()
        && node.broker.link().up
    {
        sleep_until((since + PATIENCE).into()).await;
    }
}

/// Asks a node. `None` where it does not answer within a second, or answers what is not understood.
pub(crate) async fn ask<Q: Ask>(node: &Node, member: &Member, question: &Q) -> Option<Q::Answer> {
    if member.life == node.life {
        return question.here(node).await.inspect_err(|silent| tracing::error!("{silent}")).ok();
    }
    let (number, answered) = node.asking.expect_one()?;
    let said = Said::Ask { by: node.life, number, question: question.clone().into() };
    let asked = say(node, member.life, &said);
    let answer = async {
        asked.await.ok()?;
        answered.await.ok()
    };
    let answer = timeout(PATIENCE, answer).await.ok().flatten()?;
    let understood = serde_json::from_str(answer.get());
    let tell = |error: &_| tracing::warn!(node = %member.node, %error, "an answer is not understood");
    understood.inspect_err(tell).ok()
}

/// Hears what is said to this node, for as long as it is polled.
pub(crate) async fn follow(node: Arc<Node>) {
    let inbox = node.broker.listen(&topic(node.life), INBOX_BYTES);
    let places = Arc::new(Semaphore::new(ANSWERING_MAX));
    loop {
        inbox.ready().await;
        for delivery in inbox.take() {
            match delivery {
                Delivery::Publication(said, _) => hear(&node, &places, said.payload()),
                Delivery::Dropped { messages, .. } => {
                    tracing::warn!(messages, "too much was said at once: questions or answers are lost");
                }
                // Who asked meanwhile was not answered, and knows it.
                Delivery::Live(..) | Delivery::LinkLost { .. } => {}
            }
        }
    }
}

fn hear(node: &Arc<Node>, places: &Arc<Semaphore>, said: &[u8]) {
    match serde_json::from_slice(said) {
        Ok(Said::Ask { by, number, question }) => {
            let Ok(place) = Arc::clone(places).try_acquire_owned() else {
                return not_followed(node, "too many questions at once", &"it is not answered");
            };
            let node = Arc::clone(node);
            tasks::spawn(async move {
                answer(&node, by, number, &question).await;
                drop(place);
            });
        }
        Ok(Said::Answer { number, answer }) => node.asking.answered(number, answer),
        Err(error) => not_followed(node, "not understood", &error),
    }
}

async fn answer(node: &Node, by: Life, number: u64, question: &Question) {
    match question.answer(node).await {
        // Who asked sees what becomes of it.
        Ok(answer) => drop(say(node, by, &Said::Answer { number, answer }).await),
        Err(silent) => tracing::error!("{silent}"),
    }
}

fn not_followed(node: &Node, cause: &'static str, why: &dyn std::fmt::Display) {
    if node.repeats.may_tell("what another node says", cause) {
        tracing::warn!(cause, %why, "what was said to this node is not followed");
    }
}

/// Like [`Broker::publish`](causeway_broker::Broker::publish), the call enqueues at once and the future only waits.
fn say(node: &Node, to: Life, said: &Said) -> impl Future<Output = Result<(), PublishError>> + use<> {
    let said = Bytes::from(serde_json::to_vec(said).expect("texts and numbers are JSON"));
    node.broker.publish(topic(to), said)
}

fn raw(answer: &impl Serialize) -> Box<RawValue> {
    serde_json::value::to_raw_value(answer).expect("texts and numbers are JSON")
}

fn topic(life: Life) -> Topic {
    Topic::parse(&format!("_causeway.node.{life}")).expect("the name is a legal one")
}

impl Asking {
    /// Makes room for one answer; `None` where too many are waited for.
    fn expect_one(&self) -> Option<(u64, oneshot::Receiver<Box<RawValue>>)> {
        let mut asking = self.lock();
        asking.retain(|_, waiting| !waiting.is_closed());
        if asking.len() >= ASKING_MAX {
            return None;
        }
        let (number, (waiting, answered)) = (rand::random(), oneshot::channel());
        asking.insert(number, waiting);
        Some((number, answered))
    }

    /// Hands an answer to who waits for it, if somebody does and it is not too long.
    fn answered(&self, number: u64, answer: Box<RawValue>) {
        if answer.get().len() <= ANSWER_BYTES_MAX
            && let Some(waiting) = self.lock().remove(&number)
        {
            // Fails where nobody waits any more.
            let _ = waiting.send(answer);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<Box<RawValue>>>> {
        // Nothing in here can be left half done by a panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).unwrap()
    }

    #[test]
    fn an_answer_is_heard_once_and_by_who_waits_for_it() {
        let asking = Asking::default();
        let (number, mut answered) = asking.expect_one().unwrap();
        asking.answered(number.wrapping_add(1), answer("1"));
        assert!(answered.try_recv().is_err(), "it is another's");
        asking.answered(number, answer("2"));
        asking.answered(number, answer("3"));
        assert_eq!(answered.try_recv().unwrap().get(), "2");
    }

    #[test]
    fn what_is_waited_for_is_bounded() {
        let asking = Asking::default();
        let waiting: Vec<_> = (0..ASKING_MAX).map(|_| asking.expect_one().unwrap()).collect();
        assert!(asking.expect_one().is_none());
        drop(waiting);
        let (number, mut answered) = asking.expect_one().expect("nobody waits for the others any more");
        assert_eq!(asking.lock().len(), 1);
        asking.answered(number, answer(&format!("\"{}\"", "x".repeat(ANSWER_BYTES_MAX))));
        assert!(answered.try_recv().is_err(), "it is too long");
        asking.answered(number, answer("1"));
        assert!(answered.try_recv().is_ok());
    }

    #[test]
    fn nodes_read_what_nodes_write_and_nothing_else() {
        let read = |text: &str| serde_json::from_str::<Said>(text).map_err(|error| error.to_string());
        let ask = |question: &str| {
            read(&format!(r#"{{"ask":{{"by":"00000000000000ff","number":7,"question":{question}}}}}"#))
        };
        let searched = r#"{"sessions":{"wanted":{"subject":"alice","address":"2001:db8::/64","topic":"a"},"from":{"worker":1,"place":2},"most":3}}"#;
        let said = ask(searched).unwrap();
        assert!(serde_json::to_string(&said).unwrap().contains(searched), "{said:?}");
        assert!(ask(r#"{"leaders":{"most":10}}"#).is_ok());
        assert!(read(r#"{"answer":{"number":7,"answer":{"sessions":[]}}}"#).is_ok());
        for (question, named) in [
            (
                r#"{"sessions":{"wanted":{"role":"admin"},"from":{"worker":0,"place":0},"most":3}}"#,
                "unknown field `role`",
            ),
            (r#"{"sessions":{"wanted":{},"from":{"worker":70000,"place":0},"most":3}}"#, "70000"),
            (r#"{"sessions":{"wanted":{},"most":3}}"#, "missing field `from`"),
            (r#"{"leaders":{"most":-1}}"#, "-1"),
            (r#"{"secrets":{}}"#, "unknown variant"),
        ] {
            let error = ask(question).unwrap_err();
            assert!(error.contains(named), "{question}: {error}");
        }
        assert!(read(r#"{"ask":{"by":"ff","number":7,"question":{"leaders":{"most":1}}}}"#).is_err());
        assert!(read(r#"{"answer":{"number":7,"answer":{"#).is_err());
    }
}
