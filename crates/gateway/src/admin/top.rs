//! What costs the cluster most: the topics and connections that lead by each measure.
//!
//! Every node says who leads there; what several say of one topic is added up, and the leaders of that are told.

use std::collections::BTreeSet;

use actix_web::web;
use futures_util::{StreamExt, stream};
use serde::{Deserialize, Serialize};

use super::limit;
use super::sessions::Session;
use crate::leaders::{LEADERS_MAX, Leaders, Leading, Rank, TopicLeaders, TopicRow, most_drops};
use crate::node::Node;
use crate::order::Name;
use crate::peers::{self, Member, Members};
use crate::rejection::Rejection;
use crate::search::Row;

/// How many leaders may be asked for, and how many are told where nothing is said.
const LIMIT: (usize, usize) = (LEADERS_MAX, 10);
/// How many nodes are asked at a time: their answers wait side by side.
const ASKED_AT_ONCE: usize = 8;

/// What is asked.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Question {
    node: Option<Name>,
    limit: Option<String>,
}

/// What is answered.
#[derive(Debug, Serialize)]
pub(super) struct Top {
    /// Those that have answered, by name.
    nodes: Vec<Box<str>>,
    /// Those that should have.
    missing: BTreeSet<Box<str>>,
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
    by_messages: Vec<Session>,
    by_bytes: Vec<Session>,
    by_drops: Vec<SubjectDrops>,
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
    let Question { node: name, limit: most } = question.into_inner();
    let most = limit(most.as_deref(), LIMIT)?;
    let Members { present, mut missing } = peers::members(&node, name.as_ref().map(|name| &*name.0)).await;
    let ask = async |member: Member| {
        let leading = peers::ask(&node, &member, &Rank { most }).await;
        (member.node, leading)
    };
    let answers: Vec<_> = stream::iter(present).map(ask).buffered(ASKED_AT_ONCE).collect().await;
    let mut sum = Sum::default();
    for (node, leading) in answers {
        match leading {
            Some(leading) => sum.add(node, leading),
            None => drop(missing.insert(node)),
        }
    }
    Ok(web::Json(sum.into_top(missing, most)))
}

/// What the nodes say, before it is added up.
#[derive(Debug, Default)]
struct Sum {
    nodes: Vec<Box<str>>,
    topics: Vec<TopicRow>,
    topic_drops: Vec<(String, u64)>,
    by_messages: Vec<Session>,
    by_bytes: Vec<Session>,
    subject_drops: Vec<(String, u64)>,
}

impl Sum {
    fn add(&mut self, node: Box<str>, leading: Leading) {
        let on_node = |rows: Vec<Row>| {
            let node = node.clone();
            rows.into_iter().map(move |row| Session { node: node.clone(), row })
        };
        self.by_messages.extend(on_node(leading.by_messages));
        self.by_bytes.extend(on_node(leading.by_bytes));
        self.topics.extend(leading.topics);
        self.topic_drops.extend(leading.topic_drops);
        self.subject_drops.extend(leading.subject_drops);
        self.nodes.push(node);
    }

    fn into_top(self, missing: BTreeSet<Box<str>>, most: usize) -> Top {
        let topics = TopicLeaders::of_sums(self.topics, most);
        let dropped = |(topic, messages)| TopicDrops { topic, messages };
        let cut = |(subject, messages)| SubjectDrops { subject, messages };
        Top {
            nodes: self.nodes,
            missing,
            topics: TopTopics {
                by_messages: topics.by_messages.into_items(),
                by_bytes: topics.by_bytes.into_items(),
                by_subscribers: topics.by_subscribers.into_items(),
                by_drops: most_drops(self.topic_drops, most).into_iter().map(dropped).collect(),
            },
            connections: TopConnections {
                by_messages: leaders(self.by_messages, most, |row| row.messages),
                by_bytes: leaders(self.by_bytes, most, |row| row.bytes),
                by_drops: most_drops(self.subject_drops, most).into_iter().map(cut).collect(),
            },
        }
    }
}

fn leaders(sessions: Vec<Session>, most: usize, measure: fn(&Row) -> u64) -> Vec<Session> {
    let mut leaders = Leaders::new(most);
    for session in sessions {
        leaders.offer(measure(&session.row) as f64, || session);
    }
    leaders.into_items()
}
