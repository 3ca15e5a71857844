//! What does it cost to tell everybody something else?

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

/// As many messages on their way as keep a gateway from waiting for the next.
const PACE: Pace = Pace::Closed(32);

/// The arguments of `unicast`.
#[derive(Debug, Args)]
pub(crate) struct UnicastArgs {
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

impl Play for UnicastArgs {
    fn name(&self) -> &'static str {
        "unicast"
    }

    fn gateway(&self) -> &GatewayArgs {
        &self.gateway
    }

    fn figures(&self) -> Vec<&'static Figure> {
        section::figures(&section::DELIVERING)
    }

    fn play(&self, run: u64, conductor: &mut Conductor) -> Result<Outcome, Box<dyn Error>> {
        let rooms = Rooms { name: "load.unicast", topics: self.topics as usize, subscribers: 1 };
        let args = (&self.gateway, &self.publish);
        deliver(rooms.setup(run, args.0, args.1, PACE), args, self.duration, conductor)
    }

    fn report(&self, outcome: &Outcome, seen: &Sighting, report: &mut Report) {
        section::pace(report, self.publish.pace(Shard::WHOLE, PACE));
        section::delivering(report, outcome, seen);
    }
}
