//! How do rooms of unequal liveliness get on together?

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
use crate::run::Choice;
use crate::zipf::Zipf;

fn pace() -> Pace {
    Pace::open(1000.0)
}

/// The arguments of `rooms`.
#[derive(Debug, Args)]
pub(crate) struct RoomsArgs {
    #[command(flatten)]
    gateway: GatewayArgs,
    #[command(flatten)]
    publish: PublishArgs,
    /// How many topics.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    topics: u32,
    /// How many subscribers each has.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    subscribers: u32,
    /// How unequal the topics are: the one in place k gets a share of the messages in proportion to 1/k^SKEW.
    #[arg(long, default_value_t = 1.0)]
    skew: f64,
    /// How long to publish, after a second of warming up: 10s, 5m, 2h; a bare number is seconds.
    #[arg(long = "for", alias = "seconds", value_name = "DURATION", default_value = "8s", value_parser = duration)]
    duration: Duration,
}

impl Play for RoomsArgs {
    fn name(&self) -> &'static str {
        "rooms"
    }

    fn gateway(&self) -> &GatewayArgs {
        &self.gateway
    }

    fn figures(&self) -> Vec<&'static Figure> {
        section::figures(&section::DELIVERING)
    }

    fn play(&self, run: u64, conductor: &mut Conductor) -> Result<Outcome, Box<dyn Error>> {
        let (topics, subscribers) = (self.topics as usize, self.subscribers as usize);
        let args = (&self.gateway, &self.publish);
        let mut setup = Rooms { name: "load.rooms", topics, subscribers }.setup(run, args.0, args.1, pace());
        setup.choice = Choice::Zipf(Zipf::new(setup.names.len(), self.skew));
        deliver(setup, args, self.duration, conductor)
    }

    fn report(&self, outcome: &Outcome, seen: &Sighting, report: &mut Report) {
        section::pace(report, self.publish.pace(Shard::WHOLE, pace()));
        section::delivering(report, outcome, seen);
    }
}
