//! The tasks of this process: spawned here, so that they are counted, and what forgets to end is noticed.
//!
//! Workers run tasks of their own threads, which tokio's metrics do not count. Counting costs a task two atomic
//! additions and no memory: what it takes away at its end has no size. A lint (clippy.toml) leads whoever spawns here.

use std::sync::atomic::{AtomicUsize, Ordering};

use actix_rt::task::JoinHandle;
use futures_util::FutureExt;

static RUNNING: AtomicUsize = AtomicUsize::new(0);

/// Runs `task` on this thread, whatever becomes of the handle.
#[expect(clippy::disallowed_methods, reason = "the one place")]
pub(crate) fn spawn<T: Future<Output: 'static> + 'static>(task: T) -> JoinHandle<T::Output> {
    actix_rt::spawn(counted(task))
}

/// How many tasks there are, of all threads.
pub(crate) fn running() -> usize {
    RUNNING.load(Ordering::Relaxed)
}

/// The same task, counted from now until it has ended, was aborted or has panicked.
pub(crate) fn counted<T: Future>(task: T) -> impl Future<Output = T::Output> {
    let count = Count::one();
    task.map(|output| {
        drop(count);
        output
    })
}

/// Stands for one task.
struct Count(());

impl Count {
    fn one() -> Self {
        RUNNING.fetch_add(1, Ordering::Relaxed);
        Self(())
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        RUNNING.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    #[actix_rt::test]
    async fn a_task_counts_until_it_ends_in_whatever_way() {
        // No other test of this binary has any.
        let before = running();
        spawn(ready(())).await.unwrap();
        assert_eq!(running(), before, "it has ended");

        let panics = spawn(async { panic!("as was to be shown") });
        assert!(panics.await.unwrap_err().is_panic());
        assert_eq!(running(), before, "it has panicked");

        let task = spawn(pending::<()>());
        assert_eq!(running(), before + 1, "it does not end");
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
        assert_eq!(running(), before, "it was aborted");
    }
}
