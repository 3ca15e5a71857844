//! The end of a run: what was found, and what of it must not be.

use std::error::Error;

use super::Run;
use crate::crowd::State;
use crate::ledger::Excuse;
use crate::observer::Mark;
use crate::outcome::Outcome;
use crate::pace::Pace;

impl Run<'_> {
    /// Stops counting, and says what was found.
    pub(crate) fn finish(mut self) -> Result<Outcome, Box<dyn Error>> {
        let mut idleness = self.crowd.take_idleness();
        let lag = idleness.lag.take();
        let (busy, starved) = idleness.busy_and_starved();
        self.reach(Mark::End)?;
        for member in 0..self.crowd.len() {
            if self.crowd.state(member) != State::Up {
                self.books.excuse(member, Excuse::Away);
            }
        }
        let mut outcome = Outcome {
            lag,
            connections: self.crowd.len() as u64,
            published: self.books.published() - self.counted.published,
            asked: self.counted.asked,
            delivered: self.books.delivered() - self.counted.delivered,
            traffic: self.crowd.take_traffic(),
            tally: self.books.tally(),
            gaps: self.gaps,
            misrouted: self.books.misrouted(),
            stalls: self.stalls,
            ended: self.returns.ended,
            returned: self.returns.returned,
            refused: self.returns.refused,
            away: self.returns.away as u64,
            opening: self.returns.opening.take(),
            returning: self.returns.returning.take(),
            all_back: self.returns.all_back(),
            acknowledged: self.publishers.take_acknowledged(),
            overdue: self.overdue.take(),
            busy,
            starved,
            measured: self.counted.stopped.max(self.books.last_heard()).since(self.counted.start),
            timeline: self.books.finish(self.crowd.up()),
            ..Outcome::default()
        };
        self.find_faults(&mut outcome);
        Ok(outcome)
    }

    fn find_faults(&mut self, outcome: &mut Outcome) {
        let tally = outcome.tally;
        let (lost, duplicated, reordered) = (tally.lost, tally.duplicated, tally.reordered);
        if lost + duplicated + reordered > 0 {
            let subscribers = tally.subscribers;
            outcome.faults.push(format!(
                "{lost} lost, {duplicated} duplicated, {reordered} reordered at {subscribers} subscribers"
            ));
        }
        if outcome.misrouted > 0 {
            outcome.faults.push(format!("{} messages reached the wrong topic", outcome.misrouted));
        }
        if self.books.delivered() == 0 && self.pace != Pace::Silent && self.crowd.len() > 0 {
            outcome.faults.push("nothing was delivered".to_owned());
        }
        if !self.returns.comes_back()
            && let Some((index, ended)) = &self.returns.first_ended
        {
            let others = self.returns.away - 1;
            outcome.faults.push(format!("connection {index}: {ended} ({others} others ended too)"));
        }
        if let Some((index, answer)) = &self.returns.first_refusal {
            outcome.faults.push(format!("connection {index}: the gateway answered {answer}"));
        }
    }
}
