//! Does it stay as it is for hours, with people coming and going?

use std::error::Error;
use std::time::Duration;

use clap::Args;

use super::{Play, Rooms, deliver};
use crate::conductor::{Conductor, Shard};
use crate::observer::Sighting;
use crate::options::{GatewayArgs, PublishArgs, duration, positive};
use crate::outcome::Outcome;
use crate::pace::Pace;
use crate::report::{Figure, Report, section};
use crate::returns::Backoff;

/// Who leaves is back within a second or so.
const BACKOFF: Backoff = Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(10) };

fn pace() -> Pace {
    Pace::open(100.0)
}

/// The arguments of `soak`.
#[derive(Debug, Args)]
pub(crate) struct SoakArgs {
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
    /// How many percent of the connections leave in a second, and come back.
    #[arg(long, value_name = "PERCENT", default_value_t = 1.0, value_parser = positive)]
    churn: f64,
    /// How long to publish, after a second of warming up: 30m, 8h; a bare number is seconds.
    #[arg(long = "for", alias = "seconds", value_name = "DURATION", default_value = "1h", value_parser = duration)]
    duration: Duration,
}

impl Play for SoakArgs {
    fn name(&self) -> &'static str {
        "soak"
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
        let mut setup = Rooms { name: "load.soak", topics, subscribers }.setup(run, args.0, args.1, pace());
        setup.backoff = Some(BACKOFF);
        setup.churn = Some(setup.members as f64 * self.churn / 100.0);
        deliver(setup, args, self.duration, conductor)
    }

    fn report(&self, outcome: &Outcome, seen: &Sighting, report: &mut Report) {
        section::pace(report, self.publish.pace(Shard::WHOLE, pace()));
        section::delivering(report, outcome, seen);
        section::returning(report, outcome);
    }
}
