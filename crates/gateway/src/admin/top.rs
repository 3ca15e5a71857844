//! What costs this node most: the topics and connections that lead by each measure.

use actix_web::web;
use serde::{Deserialize, Serialize};

use super::limit;
use crate::leaders::{LEADERS_MAX, Rank, TopicLeaders, TopicRow};
use crate::node::Node;
use crate::rejection::Rejection;
use crate::search::Row;

/// How many leaders may be asked for, and how many are told where nothing is said.
const LIMIT: (usize, usize) = (LEADERS_MAX, 10);

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
    let leading = Rank { most }.look(&node).await?;
    let topics = TopicLeaders::of_sums(leading.topics, most);
    let dropped = |(topic, messages)| TopicDrops { topic, messages };
    let cut = |(subject, messages)| SubjectDrops { subject, messages };
    Ok(web::Json(Top {
        node: node.name.clone(),
        topics: TopTopics {
            by_messages: topics.by_messages.into_items(),
            by_bytes: topics.by_bytes.into_items(),
            by_subscribers: topics.by_subscribers.into_items(),
            by_drops: leading.topic_drops.into_iter().map(dropped).collect(),
        },
        connections: TopConnections {
            by_messages: leading.by_messages,
            by_bytes: leading.by_bytes,
            by_drops: leading.subject_drops.into_iter().map(cut).collect(),
        },
    }))
}
