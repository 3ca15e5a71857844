//! Keeps a link to Redis in being: connects, asks for everything that is wanted, follows the workers' wishes
//! whatever else it waits for, listens for silence, and starts again, for ever.
//!
//! redis-rs's own reconnecting is not used: it gives up after some time, and its queue of messages has no bound.
//!
//! Whatever it waits for, it waits for by the runtime's clock, and what it leaves to chance comes from the generator
//! that it was given.

use std::fmt::Display;
use std::iter;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use causeway_protocol::Topic;
use futures_util::future::{OptionFuture, try_join, try_join_all};
use rand::Rng;
use rand::rngs::SmallRng;
use tokio::time;
use tracing::{debug, info, warn};

use super::link::{Dial, Link, Loss};
use super::{RedisConfig, Shared, now};

/// Names in one SUBSCRIBE or UNSUBSCRIBE: enough to make round trips rare, few enough not to keep Redis from
/// its other clients. The simulation has few topics, and is to see several batches.
const NAMES_MAX: usize = if cfg!(test) { 3 } else { 512 };

/// Commands of each kind that are on their way together. redis-rs writes when there is nothing to read just
/// then; where Redis sends faster than it is read, such moments are rare and have to serve for much.
const BATCHES_MAX: usize = 32;

/// Changes of interest carried out before others get their turn at the exchange.
const CHANGES_AT_ONCE: usize = 512;

/// So often the link is asked for a sign of life, however much it brings: what a message says of the link may be
/// old, an answer says that everything published before the question has arrived.
const PING_INTERVAL: Duration = Duration::from_secs(2);

/// A link that held this long was a good one: the next is tried for without a long pause.
const STEADY_AFTER: Duration = Duration::from_secs(5);

pub(super) struct Supervisor<D> {
    redis: D,
    topic_prefix: String,
    connect_deadline: Duration,
    shared: Arc<Shared>,
    backoff: Backoff,
}

impl<D: Dial> Supervisor<D> {
    /// A supervisor whose pauses are drawn from `random`.
    pub(super) fn new(redis: D, config: &RedisConfig, shared: Arc<Shared>, random: SmallRng) -> Self {
        Self {
            redis,
            topic_prefix: config.topic_prefix.clone(),
            connect_deadline: config.command_deadline,
            shared,
            backoff: Backoff { attempts: 0, random },
        }
    }

    /// Keeps a link up for as long as it is polled.
    pub(super) async fn run(mut self) {
        let mut trouble = Trouble::default();
        loop {
            match self.following(self.connect()).await {
                Ok(link) => {
                    trouble.is_over();
                    let since = now();
                    let loss = self.serve(&link).await;
                    // No more is read from it, neither before the loss is told nor after.
                    drop(link);
                    let silent_for = self.shared.lock().link_lost();
                    warn!(error = %loss, ?silent_for, "the link to Redis is lost");
                    if now() - since >= STEADY_AFTER {
                        self.backoff.attempts = 0;
                    }
                }
                Err(error) => trouble.continues(&error),
            }
            let pause = self.backoff.next();
            self.following(time::sleep(pause)).await;
        }
    }

    /// Does `work` and follows the workers' wishes meanwhile: whoever wants what is live already is told at
    /// once, and what is given up is not kept.
    async fn following<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                biased;
                outcome = &mut work => return outcome,
                () = self.shared.changes.made() => self.apply_changes().await,
            }
        }
    }

    async fn connect(&self) -> Result<Link<D::Connection>, Loss> {
        let link =
            Link::establish(&self.redis, self.connect_deadline, &self.topic_prefix, &self.shared).await?;
        self.shared.lock().link_up();
        info!("the link to Redis is up");
        Ok(link)
    }

    /// Serves the link until it is lost.
    async fn serve(&self, link: &Link<D::Connection>) -> Loss {
        tokio::select! {
            biased;
            loss = self.keep_up(link) => loss,
            loss = self.keep_asking(link) => loss,
        }
    }

    /// Follows the workers' wishes.
    async fn keep_up(&self, link: &Link<D::Connection>) -> Loss {
        loop {
            if let Err(loss) = self.following(self.catch_up(link)).await {
                return loss;
            }
            let next_due = self.shared.lock().table.next_due();
            let due = OptionFuture::from(next_due.map(|due| time::sleep_until(due.into())));
            tokio::select! {
                biased;
                () = link.closed() => return Loss::Closed,
                () = self.shared.changes.made() => self.apply_changes().await,
                Some(()) = due => {}
            }
        }
    }

    async fn keep_asking(&self, link: &Link<D::Connection>) -> Loss {
        loop {
            time::sleep(PING_INTERVAL).await;
            if let Err(loss) = link.ping().await {
                return loss;
            }
        }
    }

    async fn apply_changes(&self) {
        let mut changes = self.shared.changes.take().peekable();
        while changes.peek().is_some() {
            self.shared.lock().apply(changes.by_ref().take(CHANGES_AT_ONCE), now());
            tokio::task::yield_now().await;
        }
    }

    /// Tells Redis everything that the interest table has for it, also what comes up meanwhile.
    async fn catch_up(&self, link: &Link<D::Connection>) -> Result<(), Loss> {
        loop {
            let (given_up, asked) = self.next_batches();
            if given_up.is_empty() && asked.is_empty() {
                return Ok(());
            }
            try_join(
                try_join_all(given_up.iter().map(|batch| self.unsubscribe(link, batch))),
                try_join_all(asked.iter().map(|batch| self.subscribe(link, batch))),
            )
            .await?;
        }
    }

    /// What is to be given up and what is to be asked for now. No topic is in both, so the order of the commands
    /// does not matter.
    fn next_batches(&self) -> (Vec<Vec<Topic>>, Vec<Vec<Topic>>) {
        let now = now();
        let exchange = &mut *self.shared.lock();
        exchange.table.requeue_due(now);
        let given_up = batches(|| exchange.table.next_unsubscribes(NAMES_MAX, now));
        let asked = batches(|| exchange.table.next_subscribes(NAMES_MAX));
        exchange.count_topics();
        (given_up, asked)
    }

    /// Subscribes to a batch. Redis refuses a SUBSCRIBE as a whole when its access rules forbid one of the
    /// names; then each is asked for alone, all at the same time, so that the rest wait for one more answer and
    /// not for each forbidden name.
    async fn subscribe(&self, link: &Link<D::Connection>, batch: &[Topic]) -> Result<(), Loss> {
        let Some(refusal) = link.subscribe(batch).await? else { return Ok(()) };
        let refusals = try_join_all(batch.chunks(1).map(|topic| link.subscribe(topic))).await?;
        let outcomes = batch.iter().zip(refusals);
        let refused: Vec<_> = outcomes.filter_map(|(topic, refusal)| refusal.map(|_| topic)).collect();
        for topic in &refused {
            debug!(%topic, "Redis refuses the topic");
            self.shared.lock().refused(topic, now());
        }
        // None, if the rules have changed just now.
        if !refused.is_empty() {
            warn!(topics = refused.len(), error = %refusal, "Redis refuses topics");
        }
        Ok(())
    }

    async fn unsubscribe(&self, link: &Link<D::Connection>, batch: &[Topic]) -> Result<(), Loss> {
        if let Some(refusal) = link.unsubscribe(batch).await? {
            // Then its messages go on coming, and find nobody here who wants them.
            debug!(error = %refusal, "Redis refuses to unsubscribe");
        }
        Ok(())
    }
}

/// Calls `next` until there are enough batches or no more.
fn batches(next: impl FnMut() -> Vec<Topic>) -> Vec<Vec<Topic>> {
    iter::repeat_with(next).take_while(|batch| !batch.is_empty()).take(BATCHES_MAX).collect()
}

/// How long to wait before the next attempt: anything up to a bound that doubles from attempt to attempt, so
/// that nodes which lost Redis together do not come back together.
struct Backoff {
    attempts: u32,
    random: SmallRng,
}

impl Backoff {
    const FIRST_MAX: Duration = Duration::from_millis(50);
    /// Low enough that a node is back within two seconds of Redis, however long the outage.
    const MAX: Duration = Duration::from_millis(1500);

    fn next(&mut self) -> Duration {
        let bound = Self::FIRST_MAX.saturating_mul(1 << self.attempts.min(10)).min(Self::MAX);
        self.attempts = self.attempts.saturating_add(1);
        self.random.random_range(Duration::ZERO..=bound)
    }
}

/// Logs an outage's reasons as they change, not attempt by attempt.
#[derive(Default)]
struct Trouble {
    logged: String,
}

impl Trouble {
    fn continues(&mut self, error: &dyn Display) {
        let error = error.to_string();
        if error != self.logged {
            warn!(error, "cannot connect to Redis, trying on");
            self.logged = error;
        }
    }

    fn is_over(&mut self) {
        self.logged.clear();
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn pauses_grow_to_their_bound_and_stay_there() {
        let mut backoff = Backoff { attempts: 0, random: SmallRng::seed_from_u64(1) };
        let pauses: Vec<Duration> = (0..200).map(|_| backoff.next()).collect();
        assert!(pauses[0] <= Backoff::FIRST_MAX);
        assert!(pauses[1] <= 2 * Backoff::FIRST_MAX);
        assert!(pauses.iter().all(|pause| *pause <= Backoff::MAX));
        assert!(pauses[10..].iter().any(|pause| *pause > Backoff::MAX / 3));
    }
}
