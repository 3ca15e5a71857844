//! A node dies: how long until all are back?

use std::error::Error;
use std::io;
use std::time::Duration;

use clap::Args;
use rustix::process::{Pid, Signal, kill_process};

use super::{Play, Rooms, warm_up};
use crate::clock::Moment;
use crate::conductor::{Conductor, Shard};
use crate::observer::Sighting;
use crate::options::{GatewayArgs, PublishArgs, duration};
use crate::outcome::Outcome;
use crate::pace::Pace;
use crate::report::{Figure, Report, section};
use crate::returns::Backoff;

/// When all have been back for so long, no other end is to be expected.
const CALM: Duration = Duration::from_secs(3);

fn pace() -> Pace {
    Pace::open(100.0)
}

/// The arguments of `reconnect`.
#[derive(Debug, Args)]
pub(crate) struct ReconnectArgs {
    #[command(flatten)]
    gateway: GatewayArgs,
    #[command(flatten)]
    publish: PublishArgs,
    /// How many topics.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    topics: u32,
    /// How many subscribers each has.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    subscribers: u32,
    /// The process to kill (SIGKILL); without it, end a node yourself.
    #[arg(long, value_name = "PID")]
    kill_pid: Option<i32>,
    /// When to kill it.
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration)]
    after: Duration,
    /// A connection that is lost pauses for a random part of this before it tries another gateway; the span doubles
    /// with every attempt.
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = duration)]
    backoff: Duration,
    /// The longest such span.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    backoff_max: Duration,
    /// How long to wait for all to be back.
    #[arg(long = "for", alias = "seconds", value_name = "DURATION", default_value = "60s", value_parser = duration)]
    duration: Duration,
}

impl Play for ReconnectArgs {
    fn name(&self) -> &'static str {
        "reconnect"
    }

    fn gateway(&self) -> &GatewayArgs {
        &self.gateway
    }

    fn figures(&self) -> Vec<&'static Figure> {
        section::figures(&[&section::DELIVERING[..], &[section::RETURNING]].concat())
    }

    fn play(&self, run: u64, conductor: &mut Conductor) -> Result<Outcome, Box<dyn Error>> {
        let (topics, subscribers) = (self.topics as usize, self.subscribers as usize);
        let args = (&self.gateway, &self.publish);
        let mut setup =
            Rooms { name: "load.reconnect", topics, subscribers }.setup(run, args.0, args.1, pace());
        setup.backoff = Some(Backoff { first: self.backoff, longest: self.backoff_max });
        let mut run = super::run(setup, args, conductor)?;
        warm_up(&mut run)?;
        run.enter("reconnecting", self.duration);
        let start = run.count(self.duration)?;
        let mut victim = self.kill_pid.filter(|_| self.gateway.shard().index == 0);
        let is_calm = run.publish_until(self.duration, |run| {
            let now = Moment::now();
            if now.since(start) >= self.after {
                victim.take().map_or(Ok(()), kill)?;
            }
            let returns = &run.returns;
            Ok(returns.all_back().is_some() && returns.last_return.is_some_and(|last| now.since(last) > CALM))
        })?;
        run.land()?;
        let nobody_ended = run.returns.first_end.is_none();
        let mut outcome = run.finish()?;
        if !is_calm {
            let (away, duration) = (outcome.away, self.duration);
            outcome.faults.push(match nobody_ended {
                true => format!("no connection ended within {duration:?}"),
                false => format!("{away} connections were not back after {duration:?}"),
            });
        }
        Ok(outcome)
    }

    fn report(&self, outcome: &Outcome, seen: &Sighting, report: &mut Report) {
        section::pace(report, self.publish.pace(Shard::WHOLE, pace()));
        section::delivering(report, outcome, seen);
        section::returning(report, outcome);
    }
}

fn kill(pid: i32) -> io::Result<()> {
    let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(kill_process(pid, Signal::KILL)?)
}
