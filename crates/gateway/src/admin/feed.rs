//! The live feed of the operator page: a WebSocket that tells a [`Snapshot`] every second, as JSON.
//!
//! One snapshot is on its way at a time: a ping follows it, and the next one waits for the pong. So a reader that does
//! not read has at most one snapshot waiting for it, and is dropped after a while. Where nobody looks nothing is
//! computed, and how many can look is bounded. What a reader sends besides is ignored and not judged: whoever may open a
//! feed may also stop the node.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::http::header;
use actix_web::{Error, HttpRequest, HttpResponse, web};
use actix_ws::{CloseCode, CloseReason, Message, MessageStream, Session};
use futures_util::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::MissedTickBehavior;

use super::snapshot::Snapshot;
use crate::control;
use crate::node::Node;
use crate::rejection::Rejection;
use crate::tasks;

/// What a reader that offers subprotocols must have among them; its token may be another ([`super::access`]).
const SUBPROTOCOL: &str = "causeway.feed.v1";
/// How many can look at a node at once.
const FEEDS_MAX: usize = 16;
/// How often a feed tells.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long a reader may leave a snapshot unread.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pongs and closes are all that a reader has to send.
const FRAME_BYTES_MAX: usize = 1024;

/// The close codes of a feed besides those of RFC 6455; they are those of client sockets.
const TOKEN_REFUSED: u16 = 4401;
const NOT_READ: u16 = 4408;

/// The places for those who look.
#[derive(Clone, Debug)]
pub(crate) struct Feeds(Arc<Semaphore>);

impl Default for Feeds {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(FEEDS_MAX)))
    }
}

impl Feeds {
    fn place(&self) -> Result<OwnedSemaphorePermit, Rejection> {
        Arc::clone(&self.0).try_acquire_owned().map_err(|_| Rejection::TooManyFeeds(FEEDS_MAX))
    }
}

/// Opens a feed; without an upgrade, tells whether it would: a browser cannot see why its WebSocket was refused.
pub(crate) async fn open(
    request: HttpRequest,
    body: web::Payload,
    node: web::Data<Node>,
    feeds: web::Data<Feeds>,
) -> Result<HttpResponse, Error> {
    let place = feeds.place()?;
    if !request.headers().contains_key(header::UPGRADE) {
        return Ok(HttpResponse::NoContent().finish());
    }
    let (response, session, messages) = actix_ws::handle_with_protocols(&request, body, &[SUBPROTOCOL])?;
    let feed = Feed { request, node: node.into_inner(), session, unread_since: None, _place: place };
    tasks::spawn(feed.run(messages.max_frame_size(FRAME_BYTES_MAX)));
    Ok(response)
}

struct Feed {
    /// Kept because it may lose its right: a reload can replace the token.
    request: HttpRequest,
    node: Arc<Node>,
    session: Session,
    /// When the snapshot that is on its way was sent.
    unread_since: Option<Instant>,
    _place: OwnedSemaphorePermit,
}

impl Feed {
    /// Tells until the reader leaves, or has to.
    async fn run(mut self, mut messages: MessageStream) {
        let mut interval = tokio::time::interval(INTERVAL);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let reason = loop {
            tokio::select! {
                _ = interval.tick() => {
                    if let Some(code) = self.ending() {
                        break Some(CloseCode::Other(code).into());
                    }
                    if self.tell().await.is_err() {
                        return;
                    }
                }
                message = messages.next() => match message {
                    Some(Ok(Message::Pong(_))) => self.unread_since = None,
                    Some(Ok(Message::Ping(payload))) if self.session.pong(&payload).await.is_err() => return,
                    Some(Ok(Message::Close(reason))) => break reason,
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => break None::<CloseReason>,
                }
            }
        };
        // A reader who has gone needs no farewell.
        let _ = self.session.close(reason).await;
    }

    /// Why the feed has to end, if so.
    fn ending(&self) -> Option<u16> {
        if self.node.settings().admin_access.check(self.request.headers()).is_err() {
            return Some(TOKEN_REFUSED);
        }
        self.unread_since.is_some_and(|since| since.elapsed() >= PATIENCE).then_some(NOT_READ)
    }

    /// Tells how things stand, unless what was told before has not been read yet.
    async fn tell(&mut self) -> Result<(), actix_ws::Closed> {
        if self.unread_since.is_some() {
            return Ok(());
        }
        control::call_roll(&self.node);
        let snapshot = serde_json::to_string(&Snapshot::of(&self.node)).expect("texts and numbers are JSON");
        self.unread_since = Some(Instant::now());
        self.session.text(snapshot).await?;
        self.session.ping(b"").await
    }
}
