//! The words the stories are told in: a Redis server of the test's own, and a node's worker beside it.

mod node;
mod redis_server;

use std::time::{Duration, Instant};

pub(crate) use node::Node;
pub(crate) use redis_server::{RedisServer, own_address};

/// How long a test waits for what must come. Far longer than it should take, so that only a fault reaches it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Asks until the answer is yes.
///
/// # Panics
/// When it is still no after [`PATIENCE`].
pub(crate) async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let since = Instant::now();
    while !is_so() {
        assert!(since.elapsed() < PATIENCE, "never came true: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
