//! Sending clients away: all of them before the node stops, or a share of them because other nodes have more room.
//!
//! Here is how far a drain has come, and how large a worker's part of a share is. Who goes when is for each worker's
//! hub to decide.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::time::sleep;

use crate::node::{Node, Phase};
use crate::rejection::Rejection;

/// How long the last connections get to close in good order after the window: the two seconds that a close may take,
/// behind a turn that may come a second late.
const CLOSING_GRACE: Duration = Duration::from_secs(4);
/// How often the log tells how far it has come.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// Drains a node that does not serve any more. Returns when everybody has gone, or has had the time to.
pub(crate) async fn drain(node: &Node) {
    let began = Instant::now();
    tokio::select! {
        () = send_everybody_away(node) => {}
        never = tell_progress(node, began) => match never {},
    }
    let remaining = node.admission.connections();
    tracing::info!(remaining, since = ?began.elapsed(), "drained");
}

async fn send_everybody_away(node: &Node) {
    sleep(node.drain.lead_time).await;
    node.enter(Phase::Draining);
    let deadline = Instant::now() + node.drain.window + CLOSING_GRACE;
    while node.admission.connections() > 0 && Instant::now() < deadline {
        sleep(Duration::from_millis(20)).await;
    }
}

async fn tell_progress(node: &Node, began: Instant) -> Infallible {
    loop {
        sleep(PROGRESS_INTERVAL).await;
        let remaining = node.admission.connections();
        tracing::info!(remaining, since = ?began.elapsed(), "draining");
    }
}

/// What a drain that was asked for comes to.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Draining {
    connections: usize,
    lead_time_ms: u128,
    window_ms: u128,
}

impl Draining {
    /// Of this node now.
    pub(crate) fn of(node: &Node) -> Self {
        Self {
            connections: node.admission.connections(),
            lead_time_ms: node.drain.lead_time.as_millis(),
            window_ms: node.drain.window.as_millis(),
        }
    }
}

/// A share of the node's connections that is to leave. Each worker takes its part.
#[derive(Debug)]
pub(crate) struct Shed {
    percent: u8,
    /// The connections of the workers that have taken theirs.
    counted: AtomicUsize,
}

/// Of one worker.
#[derive(Debug)]
struct Part {
    told: usize,
    of: usize,
}

/// What a share that was asked for comes to.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Shedding {
    pub(crate) told: usize,
    pub(crate) of: usize,
    window_ms: u128,
}

impl Shed {
    /// How many of a worker's connections leave. It is the sum over all workers that is rounded: a hundred workers
    /// with four connections each have a tenth to give, too.
    pub(crate) fn part_of(&self, staying: usize) -> usize {
        let before = self.counted.fetch_add(staying, Ordering::Relaxed);
        self.share_of(before + staying) - self.share_of(before)
    }

    fn share_of(&self, connections: usize) -> usize {
        (connections * usize::from(self.percent) + 50) / 100
    }
}

/// Sends `percent` of the connections away, over the drain's window. The node goes on serving.
///
/// # Errors
/// [`Rejection::BadQuestion`]; [`Rejection::Draining`] where everybody is leaving already.
pub(crate) async fn shed(node: &Node, percent: u8) -> Result<Shedding, Rejection> {
    if !(1..=100).contains(&percent) {
        return Err(Rejection::BadQuestion(format!(
            "percent is {percent}: expected a whole number from 1 to 100"
        )));
    }
    if node.phase() != Phase::Serving {
        return Err(Rejection::Draining);
    }
    let (shed, window) = (Arc::new(Shed { percent, counted: AtomicUsize::new(0) }), node.drain.window);
    let parts = node.crew.ask_all(move |worker| {
        let mut of = 0;
        let share = |staying| {
            of = staying;
            shed.part_of(staying)
        };
        let told = worker.hub.borrow_mut().drain_some(share, window, worker.now());
        Part { told, of }
    });
    let none = Shedding { told: 0, of: 0, window_ms: window.as_millis() };
    Ok(parts.await.iter().fold(none, |sum, part| Shedding {
        told: sum.told + part.told,
        of: sum.of + part.of,
        ..sum
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_that_of_all_workers_together_however_few_connections_each_has() {
        for (percent, connections, expected) in [
            (10, &[4; 8][..], 3),
            (10, &[1; 30], 3),
            (1, &[10, 20, 10], 0),
            (50, &[3], 2),
            (33, &[700, 0, 301], 330),
            (100, &[5, 0, 7], 12),
        ] {
            let shed = Shed { percent, counted: AtomicUsize::new(0) };
            let leaving: usize = connections.iter().map(|&staying| shed.part_of(staying).min(staying)).sum();
            assert_eq!(leaving, expected, "{percent} % of {connections:?}");
        }
    }
}
