//! Who is connected to the cluster, a page at a time.
//!
//! Nodes are asked one after the other, in the order of their names, each for no more than the page still lacks: a page costs
//! no node more than it would cost that node alone. The cursor is where the next page begins.

use std::collections::BTreeSet;
use std::fmt;
use std::time::{Duration, Instant};

use actix_web::web;
use serde::{Deserialize, Serialize};

use super::limit;
use crate::client_addr::ClientAddr;
use crate::node::{Life, Node};
use crate::order::{Name, TopicName};
use crate::peers::{self, Member, Members};
use crate::rejection::Rejection;
use crate::search::{Place, Row, Search, Wanted};

/// How many sessions a page may have, and how many it has where nothing is said.
const LIMIT: (usize, usize) = (1000, 100);
/// After so long a page ends, full or not: what fits may be rare, and the nodes many.
const TIME_MAX: Duration = Duration::from_secs(5);

/// What is asked.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Question {
    node: Option<Name>,
    subject: Option<Name>,
    address: Option<ClientAddr>,
    topic: Option<TopicName>,
    limit: Option<String>,
    cursor: Option<Cursor>,
}

/// What is answered.
#[derive(Debug, Serialize)]
pub(super) struct Page {
    /// Those that are listed, in this order.
    nodes: Vec<Box<str>>,
    /// Those that should be, and did not answer.
    missing: BTreeSet<Box<str>>,
    sessions: Vec<Session>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<Cursor>,
}

/// A session, and the node that it is on.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Session {
    pub(super) node: Box<str>,
    #[serde(flatten)]
    pub(super) row: Row,
}

/// Where a page begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct Cursor {
    member: Member,
    place: Place,
}

/// `GET /admin/sessions`
pub(super) async fn list(
    node: web::Data<Node>,
    question: web::Query<Question>,
) -> Result<web::Json<Page>, Rejection> {
    let Question { node: name, subject, address, topic, limit: most, cursor } = question.into_inner();
    let most = limit(most.as_deref(), LIMIT)?;
    let Members { present, missing } = peers::members(&node, name.as_ref().map(|name| &*name.0)).await;
    let wanted = Wanted { subject, address, topic };
    let mut list = List { node: &node, wanted, most, began: Instant::now(), sessions: Vec::new(), missing };
    let next = list.fill(&present, cursor).await;
    let List { sessions, missing, .. } = list;
    let nodes =
        present.into_iter().map(|member| member.node).filter(|name| !missing.contains(name)).collect();
    Ok(web::Json(Page { nodes, missing, sessions, next }))
}

/// A page in the making.
struct List<'a> {
    node: &'a Node,
    wanted: Wanted,
    most: usize,
    began: Instant,
    sessions: Vec<Session>,
    missing: BTreeSet<Box<str>>,
}

impl List<'_> {
    /// Takes what there is from the cursor on, and says where to go on if there may be more.
    async fn fill(&mut self, members: &[Member], cursor: Option<Cursor>) -> Option<Cursor> {
        let is_behind = |member: &&Member| cursor.as_ref().is_none_or(|cursor| **member >= cursor.member);
        for member in members.iter().filter(is_behind) {
            let begun = cursor.as_ref().filter(|cursor| cursor.member == *member);
            let from = begun.map_or_else(Place::default, |cursor| cursor.place);
            if let Some(place) = self.take(member, from).await {
                return Some(Cursor { member: member.clone(), place });
            }
        }
        None
    }

    /// Takes what one node has from a place on, and says where to go on if the page is over before.
    async fn take(&mut self, member: &Member, mut from: Place) -> Option<Place> {
        while !self.is_over() {
            let most = self.most - self.sessions.len();
            let found =
                peers::ask(self.node, member, &Search { wanted: self.wanted.clone(), from, most }).await;
            // Who does not go on has not answered either.
            let Some(found) = found.filter(|found| found.next.is_none_or(|next| next > from)) else {
                self.missing.insert(member.node.clone());
                return None;
            };
            let rows = found.sessions.into_iter().take(most);
            self.sessions.extend(rows.map(|row| Session { node: member.node.clone(), row }));
            from = found.next?;
        }
        Some(from)
    }

    fn is_over(&self) -> bool {
        self.sessions.len() >= self.most || self.began.elapsed() >= TIME_MAX
    }
}

/// The name stands last: it may have any characters.
impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { member: Member { node, life }, place: Place { worker, place } } = self;
        write!(f, "{worker}-{place}-{life}-{node}")
    }
}

impl From<Cursor> for String {
    fn from(cursor: Cursor) -> Self {
        cursor.to_string()
    }
}

impl TryFrom<String> for Cursor {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let mut parts = text.splitn(4, '-');
        let mut parse = || {
            let place = Place { worker: parts.next()?.parse().ok()?, place: parts.next()?.parse().ok()? };
            let life = Life::try_from(parts.next()?.to_owned()).ok()?;
            Some(Self { member: Member { node: parts.next()?.into(), life }, place })
        };
        parse().ok_or_else(|| format!("cursor is `{text}`: expected `next` of the page before"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_was_written() {
        for node in ["a", "node-b", "ein Knoten, ü", ""] {
            let member = Member { node: node.into(), life: Life(0xff) };
            let cursor = Cursor { member, place: Place { worker: 3, place: 70_000 } };
            assert_eq!(cursor.to_string(), format!("3-70000-00000000000000ff-{node}"));
            assert_eq!(Cursor::try_from(cursor.to_string()), Ok(cursor));
        }
        for text in [
            "",
            "3-1",
            "3-1-ff-a",
            "3-1-00000000000000ff",
            "3-1-00000000000000FF-a",
            "70000-1-00000000000000ff-a",
        ] {
            let error = Cursor::try_from(text.to_owned()).unwrap_err();
            assert!(error.starts_with(&format!("cursor is `{text}`: expected")), "{error}");
        }
    }
}
