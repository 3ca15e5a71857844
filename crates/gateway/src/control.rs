//! What nodes tell each other: one reserved topic, which no client can reach, and an ear of this node on it.
//!
//! Revocations have to reach nodes that come later, too, so these are kept in a log besides (see `revocation`). Orders
//! are for what is there now: a node that does not hear one is not told later, because its clients may have come back
//! meanwhile. So are calls of the roll, and the answers to them (see `roll_call`). What concerns two nodes alone goes another
//! way (see `peers`).

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use causeway_broker::{Broker, Delivery, PublishError};
use causeway_protocol::Topic;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use crate::node::{Life, Node};
use crate::order::Order;
use crate::revocation::{self, Revocation};
use crate::roll_call::Answer;

/// The reserved topic.
const TOPIC: &str = "_causeway.control";
/// What may wait to be heard. Beyond it the log of revocations is read again, and orders are lost.
const INBOX_BYTES: usize = 1 << 20;
/// Between two attempts to read the log.
const RETRY_PAUSE: Duration = Duration::from_secs(2);
/// How often what is over is forgotten.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

/// What one node tells all.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Told {
    Revoke(Revocation),
    Order {
        /// The node that was asked, which does its own part itself.
        from: Box<str>,
        life: Life,
        order: Order,
    },
    /// Every node is to tell its figures.
    Call,
    /// One does.
    Here(Answer),
}

/// Revokes on all nodes, those that come later included.
///
/// # Errors
/// What the broker says. Done again, it changes nothing.
pub async fn revoke(broker: &dyn Broker, revocation: &Revocation) -> Result<(), PublishError> {
    // Kept before it is told: who begins to listen in between finds it in the log.
    revocation.keep(broker).await?;
    tell(broker, &Told::Revoke(revocation.clone())).await
}

/// Has an order carried out by all nodes that are connected, and says to how many sessions of this one it applied.
///
/// # Errors
/// What the broker says; nothing has happened here then. Done again, it does no harm.
pub(crate) async fn order(node: &Node, order: &Order) -> Result<usize, PublishError> {
    let told = Told::Order { from: node.name.clone(), life: node.life, order: order.clone() };
    tell(&*node.broker, &told).await?;
    Ok(order.carry_out(node).await)
}

/// Asks all nodes for their figures. What they answer is in the roll call a moment later.
pub(crate) fn call_roll(node: &Node) {
    if node.roll_call.is_call_due(Instant::now()) {
        // What becomes of it is seen by the answers.
        drop(tell(&*node.broker, &Told::Call));
    }
}

/// Tells all nodes how this one is, unasked: when it is about to leave, so that it is not looked for.
pub(crate) fn take_leave(node: &Node) {
    drop(tell(&*node.broker, &Told::Here(Answer::of(node))));
}

/// Like [`Broker::publish`], the call enqueues at once and the future only waits.
fn tell(broker: &dyn Broker, told: &Told) -> impl Future<Output = Result<(), PublishError>> + use<> {
    let told = Bytes::from(serde_json::to_vec(told).expect("texts and numbers are JSON"));
    broker.publish(topic(), told)
}

/// Follows what is told, for as long as it is polled.
pub(crate) async fn follow(node: Arc<Node>) {
    let inbox = node.broker.listen(&topic(), INBOX_BYTES);
    // Also where the topic is never live, because Redis's access rules refuse it, the log is read.
    let mut is_behind = true;
    let mut next_sweep = Instant::now();
    loop {
        let pause = if is_behind { RETRY_PAUSE } else { SWEEP_INTERVAL };
        // Ends early when something has come in.
        let _ = timeout(pause, inbox.ready()).await;
        for delivery in inbox.take() {
            match delivery {
                Delivery::Publication(told, _) => hear(&node, told.payload()).await,
                Delivery::Live(..) => is_behind = true,
                Delivery::Dropped { messages, .. } => {
                    tracing::warn!(messages, "too much was told at once: orders of other nodes may be lost");
                    is_behind = true;
                }
                // The topic will be live again.
                Delivery::LinkLost { .. } => {}
            }
        }
        // Not whenever something was told: there may be many revocations to look through.
        if Instant::now() >= next_sweep {
            node.revocations.sweep(revocation::seconds_now());
            next_sweep = Instant::now() + SWEEP_INTERVAL;
        }
        if is_behind {
            is_behind = !revocation::catch_up(&*node.broker, &node.revocations).await;
        }
    }
}

/// Does as another node, or this one, has told. Whoever can publish in Redis can tell something, so what is not
/// understood is passed over.
async fn hear(node: &Node, told: &[u8]) {
    match serde_json::from_slice(told) {
        Ok(Told::Revoke(revocation)) => node.revocations.add(&revocation, revocation::seconds_now()),
        Ok(Told::Order { life, .. }) if life == node.life => {}
        Ok(Told::Order { from, order, .. }) => {
            let sessions = order.carry_out(node).await;
            tracing::info!(%from, %order, sessions, "carried out another node's order");
        }
        Ok(Told::Call) => {
            if node.roll_call.is_answer_due(Instant::now()) {
                drop(tell(&*node.broker, &Told::Here(Answer::of(node))));
            }
        }
        Ok(Told::Here(answer)) => node.roll_call.note(answer, Instant::now()),
        Err(error) => tracing::warn!(%error, "what was told is not understood, and not followed"),
    }
}

fn topic() -> Topic {
    Topic::parse(TOPIC).expect("the name is a legal one")
}
