//! What does it cost to tell one thing to everybody?

use std::error::Error;
use std::time::Duration;

use clap::Args;

use super::{Play, deliver, one_topic};
use crate::conductor::{Conductor, Shard};
use crate::observer::Sighting;
use crate::options::{GatewayArgs, PublishArgs, duration};
use crate::outcome::Outcome;
use crate::pace::Pace;
use crate::report::{Figure, Report, section};

/// The arguments of `fanout`.
#[derive(Debug, Args)]
pub(crate) struct FanoutArgs {
    #[command(flatten)]
    gateway: GatewayArgs,
    #[command(flatten)]
    publish: PublishArgs,
    /// The topic that everybody subscribes to.
    #[arg(long, default_value = "load.fanout")]
    topic: String,
    /// How many subscribers.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(2..))]
    subscribers: u32,
    /// How long to publish, after a second of warming up: 10s, 5m, 2h; a bare number is seconds.
    #[arg(long = "for", alias = "seconds", value_name = "DURATION", default_value = "8s", value_parser = duration)]
    duration: Duration,
}

impl Play for FanoutArgs {
    fn name(&self) -> &'static str {
        "fanout"
    }

    fn gateway(&self) -> &GatewayArgs {
        &self.gateway
    }

    fn figures(&self) -> Vec<&'static Figure> {
        section::figures(&section::DELIVERING)
    }

    fn play(&self, run: u64, conductor: &mut Conductor) -> Result<Outcome, Box<dyn Error>> {
        let args = (&self.gateway, &self.publish);
        let setup =
            one_topic(&self.topic, self.subscribers as usize, (run, args.0.shard()), args, Pace::Closed(1));
        deliver(setup, args, self.duration, conductor)
    }

    fn report(&self, outcome: &Outcome, seen: &Sighting, report: &mut Report) {
        section::pace(report, self.publish.pace(Shard::WHOLE, Pace::Closed(1)));
        section::delivering(report, outcome, seen);
    }
}
