//! How many messages a second does a node take from Redis?

use std::error::Error;
use std::time::Duration;

use clap::Args;

use super::{Play, Rooms, deliver};
use crate::conductor::{Conductor, Shard};
use crate::observer::Sighting;
use crate::options::{GatewayArgs, PublishArgs, duration};
use crate::outcome::Outcome;
use crate::pace::Pace;
use crate::report::{Figure, Report, section};

/// Without a rate, as fast as Redis takes them: what the node cannot take must be announced.
const PACE: Pace = Pace::FlatOut;

/// The arguments of `intake`.
#[derive(Debug, Args)]
pub(crate) struct IntakeArgs {
    #[command(flatten)]
    gateway: GatewayArgs,
    #[command(flatten)]
    publish: PublishArgs,
    /// How many topics, each with one subscriber.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    topics: u32,
    /// How long to publish, after a second of warming up: 10s, 5m, 2h; a bare number is seconds.
    #[arg(long = "for", alias = "seconds", value_name = "DURATION", default_value = "8s", value_parser = duration)]
    duration: Duration,
}

impl Play for IntakeArgs {
    fn name(&self) -> &'static str {
        "intake"
    }

    fn gateway(&self) -> &GatewayArgs {
        &self.gateway
    }

    fn figures(&self) -> Vec<&'static Figure> {
        section::figures(&[&section::DELIVERING[..], &[section::INTAKE]].concat())
    }

    fn play(&self, run: u64, conductor: &mut Conductor) -> Result<Outcome, Box<dyn Error>> {
        let rooms = Rooms { name: "load.intake", topics: self.topics as usize, subscribers: 1 };
        let args = (&self.gateway, &self.publish);
        deliver(rooms.setup(run, args.0, args.1, PACE), args, self.duration, conductor)
    }

    fn report(&self, outcome: &Outcome, seen: &Sighting, report: &mut Report) {
        section::pace(report, self.publish.pace(Shard::WHOLE, PACE));
        section::delivering(report, outcome, seen);
        section::intake(report, outcome, seen);
    }
}
