//! What does it cost to tell everybody something else?

use std::error::Error;

use clap::Args;

use super::{OneEachArgs, Play};
use crate::conductor::{Conductor, Shard};
use crate::observer::Sighting;
use crate::options::GatewayArgs;
use crate::outcome::Outcome;
use crate::pace::Pace;
use crate::report::{Figure, Report, section};

/// As many messages on their way as keep a gateway from waiting for the next.
const PACE: Pace = Pace::Closed(32);

/// The arguments of `unicast`.
#[derive(Debug, Args)]
pub(crate) struct UnicastArgs {
    #[command(flatten)]
    load: OneEachArgs,
}

impl Play for UnicastArgs {
    fn name(&self) -> &'static str {
        "unicast"
    }

    fn gateway(&self) -> &GatewayArgs {
        &self.load.gateway
    }

    fn figures(&self) -> Vec<&'static Figure> {
        section::figures(&section::DELIVERING)
    }

    fn play(&self, run: u64, conductor: &mut Conductor) -> Result<Outcome, Box<dyn Error>> {
        self.load.deliver("load.unicast", PACE, run, conductor)
    }

    fn report(&self, outcome: &Outcome, seen: &Sighting, report: &mut Report) {
        section::pace(report, self.load.publish.pace(Shard::WHOLE, PACE));
        section::delivering(report, outcome, seen);
    }
}
