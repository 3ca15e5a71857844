//! Who is connected to this node, a page at a time.

use actix_web::web;
use serde::{Deserialize, Serialize};

use super::{bad_question, limit};
use crate::client_addr::ClientAddr;
use crate::node::Node;
use crate::order::{Name, TopicName};
use crate::rejection::Rejection;
use crate::search::{Place, Row, Search, Wanted};

/// How many sessions a page may have, and how many it has where nothing is said.
const LIMIT: (usize, usize) = (1000, 100);

/// What is asked.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Question {
    subject: Option<Name>,
    address: Option<ClientAddr>,
    topic: Option<TopicName>,
    limit: Option<String>,
    cursor: Option<String>,
}

/// What is answered.
#[derive(Debug, Serialize)]
pub(super) struct Page {
    node: Box<str>,
    sessions: Vec<Row>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// `GET /admin/sessions`
pub(super) async fn list(
    node: web::Data<Node>,
    question: web::Query<Question>,
) -> Result<web::Json<Page>, Rejection> {
    let Question { subject, address, topic, limit: most, cursor } = question.into_inner();
    let mut at = cursor.map_or(Ok(Some(Place::default())), |text| parse(&text).map(Some))?;
    let most = limit(most.as_deref(), LIMIT)?;
    let wanted = Wanted { subject, address, topic };
    let mut sessions = Vec::new();
    while let Some(from) = at
        && sessions.len() < most
    {
        let search = Search { wanted: wanted.clone(), from, most: most - sessions.len() };
        let found = search.find(&node).await?;
        sessions.extend(found.sessions);
        at = found.next;
    }
    let next = at.map(|Place { worker, place }| format!("{worker}-{place}"));
    Ok(web::Json(Page { node: node.name.clone(), sessions, next }))
}

fn parse(text: &str) -> Result<Place, Rejection> {
    let parsed = text
        .split_once('-')
        .and_then(|(worker, place)| Some(Place { worker: worker.parse().ok()?, place: place.parse().ok()? }));
    parsed
        .ok_or_else(|| bad_question(&format_args!("cursor is `{text}`: expected `next` of the page before")))
}
