//! What the live feed tells once a second: this node's figures, and those of the others.

use std::time::Instant;

use serde::Serialize;

use crate::metrics::figures::Figures;
use crate::node::{Node, Phase};
use crate::roll_call::Answer;

/// A node as it is now. A few kilobytes of JSON, and about 200 bytes more for each node of the cluster.
#[derive(Debug, Serialize)]
pub(crate) struct Snapshot {
    #[serde(flatten)]
    figures: Figures,
    /// Why the node should get no new clients, if so.
    unready: Option<&'static str>,
    /// Of the last canary that came back.
    canary_ms: Option<f64>,
    canary_misses: u32,
    drain: Option<Drain>,
    /// All nodes that answer, this one first.
    nodes: Vec<Answer>,
}

/// How far a drain has come.
#[derive(Debug, Serialize)]
struct Drain {
    /// What there is to be sent away, and what still has to be.
    connections: usize,
    remaining: usize,
    since_ms: u128,
    lead_time_ms: u128,
    window_ms: u128,
    /// Whether they are being sent away already.
    is_closing: bool,
}

impl Snapshot {
    /// Of a node.
    pub(crate) fn of(node: &Node) -> Self {
        let own = Answer::of(node);
        let others = node.roll_call.others(node.life, Instant::now());
        Self {
            figures: node.metrics.figures(&node.report()),
            unready: node.unready_cause(),
            canary_ms: node.canary.round_trip().map(|round_trip| round_trip.as_secs_f64() * 1e3),
            canary_misses: node.canary.misses(),
            drain: Drain::of(node),
            nodes: std::iter::once(own).chain(others).collect(),
        }
    }
}

impl Drain {
    fn of(node: &Node) -> Option<Self> {
        let stopping = node.stopping()?;
        Some(Self {
            connections: stopping.connections,
            remaining: node.admission.connections(),
            since_ms: stopping.since.elapsed().as_millis(),
            lead_time_ms: node.drain.lead_time.as_millis(),
            window_ms: node.drain.window.as_millis(),
            is_closing: node.phase() == Phase::Draining,
        })
    }
}
