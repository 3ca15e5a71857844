//! The beginning of a run: everybody connects, then everybody subscribes.

use std::io;
use std::ops::Range;
use std::time::Duration;

use super::Run;
use crate::clock::Moment;
use crate::connection::Ended;
use crate::crowd::CrowdError;
use crate::observer::{Mark, TICK};
use crate::pace::{Due, Pace};

/// How many connections may be on their way in at once: fewer than a listener's backlog, enough to keep a core
/// of gateway busy.
const ARRIVING_MAX: usize = 64;

/// Why a crowd could not be brought together.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArrivalError {
    /// A connection ended before the run began.
    #[error("connection {0}: {1}")]
    Ended(usize, Ended),
    /// The gateway refused a subscription.
    #[error("connection {0}: the subscription was refused: {1}")]
    Refused(usize, String),
    /// No connection could be begun.
    #[error("{0}")]
    Crowd(#[from] CrowdError),
    /// The loop failed.
    #[error("{0}")]
    Io(#[from] io::Error),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Open,
    Subscribe,
}

impl Run<'_> {
    /// Brings everybody together, subscribed.
    pub(crate) fn arrive(&mut self) -> Result<(), ArrivalError> {
        let (first, all) = (0..self.crowd.len().min(1), 0..self.crowd.len());
        self.reach(Mark::Begin)?;
        // Its own process only: of the others, none is the gateway's first.
        self.bring(first.clone(), Step::Open)?;
        self.bring(first.clone(), Step::Subscribe)?;
        self.reach(Mark::First)?;
        self.bring(first.end..all.end, Step::Open)?;
        self.reach(Mark::Opened)?;
        self.bring(first.end..all.end, Step::Subscribe)?;
        self.reach(Mark::Subscribed)?;
        Ok(())
    }

    fn bring(&mut self, mut members: Range<usize>, step: Step) -> Result<(), ArrivalError> {
        self.enter(if step == Step::Open { "connecting" } else { "subscribing" }, Duration::ZERO);
        let (total, before) = (members.len(), self.arrived(step));
        let mut ramp = if step == Step::Open { self.ramp.map(Pace::open) } else { None };
        while self.arrived(step) - before < total as u64 {
            let started = total - members.len();
            let mut room = ARRIVING_MAX.saturating_sub(started - (self.arrived(step) - before) as usize);
            let mut until = Moment::now() + TICK;
            while room > 0 && !members.is_empty() {
                match ramp.as_mut().map(|ramp| ramp.take(Moment::now(), 0)) {
                    Some(Due::At(at)) => {
                        until = at.unwrap_or(until).min(until);
                        break;
                    }
                    Some(Due::Since(_)) | None => {}
                }
                self.begin(members.next().expect("there is one left"), step)?;
                room -= 1;
            }
            self.turn(until)?;
            self.check_arrival()?;
        }
        Ok(())
    }

    fn begin(&mut self, member: usize, step: Step) -> Result<(), ArrivalError> {
        match step {
            Step::Open => Ok(self.crowd.open(member)?),
            Step::Subscribe => {
                self.crowd.subscribe(member).map_err(|ended| ArrivalError::Ended(member, ended))
            }
        }
    }

    fn arrived(&self, step: Step) -> u64 {
        if step == Step::Open { self.returns.welcomed } else { self.returns.subscribed }
    }

    fn check_arrival(&mut self) -> Result<(), ArrivalError> {
        if let Some((member, ended)) = self.returns.first_ended.take() {
            return Err(ArrivalError::Ended(member, ended));
        }
        match self.returns.first_refusal.take() {
            Some((member, answer)) => Err(ArrivalError::Refused(member, answer)),
            None => Ok(()),
        }
    }
}
