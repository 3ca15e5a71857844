//! The workers of a node: whether each comes round to its work, and how to ask them something.
//!
//! A question runs on the worker's own thread, between two of its turns, with everything the worker has; so it must not
//! take longer than a turn, about a millisecond.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use causeway_broker::Pulse;
use futures_util::future::join_all;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::worker::Worker;

/// How long a worker may take to answer. It comes round to it within milliseconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How many questions may wait for one worker. Whoever asks more waits.
const QUESTIONS_MAX: usize = 64;

/// What a worker does when it is asked.
pub(crate) type Errand = Box<dyn FnOnce(&Worker) + Send>;

/// All workers, by their numbers: 0, 1, 2, … in the order in which they began.
#[derive(Debug, Default)]
pub(crate) struct Crew(Mutex<Vec<Member>>);

#[derive(Clone, Debug)]
struct Member {
    pulse: Arc<Pulse>,
    errands: mpsc::Sender<Errand>,
}

/// What a worker gets when it begins.
#[derive(Debug)]
pub(crate) struct Enrolled {
    pub(crate) number: u16,
    /// To beat.
    pub(crate) pulse: Arc<Pulse>,
    /// To be run as they come.
    pub(crate) errands: mpsc::Receiver<Errand>,
}

/// The worker of this number did not answer in time, or there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("worker {0} does not answer")]
pub(crate) struct NoAnswer(pub(crate) u16);

impl Crew {
    /// A worker begins.
    pub(crate) fn enrol(&self) -> Enrolled {
        let (sender, errands) = mpsc::channel(QUESTIONS_MAX);
        let pulse = Arc::new(Pulse::default());
        let mut members = self.members();
        let number = u16::try_from(members.len()).expect("a node has far fewer than 65,536 workers");
        members.push(Member { pulse: Arc::clone(&pulse), errands: sender });
        Enrolled { number, pulse, errands }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> u16 {
        u16::try_from(self.members().len()).expect("as many as were enrolled")
    }

    /// A worker that has not beaten for `silent_for`, and since when not.
    pub(crate) fn stuck(&self, silent_for: Duration) -> Option<(usize, Duration)> {
        let members = self.members();
        let mut silences = members.iter().map(|member| member.pulse.silent_for()).enumerate();
        silences.find(|(_, silence)| *silence >= silent_for)
    }

    /// Asks one worker.
    ///
    /// # Errors
    /// [`NoAnswer`] after five seconds. It may still answer to nobody then.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        number: u16,
        question: impl FnOnce(&Worker) -> T + Send + 'static,
    ) -> Result<T, NoAnswer> {
        let errands = self.members().get(usize::from(number)).map(|member| member.errands.clone());
        let (answer, answered) = oneshot::channel();
        // Fails only where nobody waits for the answer any more.
        let errand: Errand = Box::new(move |worker| drop(answer.send(question(worker))));
        let asked = async {
            errands?.send(errand).await.ok()?;
            answered.await.ok()
        };
        timeout(ANSWER_TIMEOUT, asked).await.ok().flatten().ok_or(NoAnswer(number))
    }

    /// Asks all of them at once; the answers of those that did. Who does not answer is told to the log.
    pub(crate) async fn ask_all<T: Send + 'static>(
        &self,
        question: impl Fn(&Worker) -> T + Clone + Send + 'static,
    ) -> Vec<T> {
        let answers = join_all((0..self.len()).map(|number| self.ask(number, question.clone()))).await;
        let log = |silent: &NoAnswer| tracing::error!("{silent}");
        answers.into_iter().filter_map(|answer| answer.inspect_err(log).ok()).collect()
    }

    fn members(&self) -> MutexGuard<'_, Vec<Member>> {
        // Nothing in here can be left half done by a panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_ever_for_a_worker_that_does_not_answer() {
        let crew = Crew::default();
        assert_eq!(crew.ask(0, |_| ()).await, Err(NoAnswer(0)), "there is none");
        let stuck = crew.enrol();
        assert_eq!((stuck.number, crew.len()), (0, 1));
        // The first wait in its queue, and then whoever asks waits for room.
        for _ in 0..QUESTIONS_MAX + 1 {
            assert_eq!(crew.ask(0, |_| ()).await, Err(NoAnswer(0)));
        }
        assert_eq!(stuck.errands.len(), QUESTIONS_MAX);
        drop(stuck);
        assert_eq!(crew.ask(0, |_| ()).await, Err(NoAnswer(0)), "it has ended");
        assert!(crew.ask_all(|_| ()).await.is_empty());
    }
}
