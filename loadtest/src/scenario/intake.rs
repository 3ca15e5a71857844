//! How many messages a second does a node take from Redis?

use std::error::Error;

use clap::Args;

use super::{OneEachArgs, Play};
use crate::conductor::{Conductor, Shard};
use crate::observer::Sighting;
use crate::options::GatewayArgs;
use crate::outcome::Outcome;
use crate::pace::Pace;
use crate::report::{Figure, Report, section};

/// Without a rate, as fast as Redis takes them: what the node cannot take must be announced.
const PACE: Pace = Pace::FlatOut;

/// The arguments of `intake`.
#[derive(Debug, Args)]
pub(crate) struct IntakeArgs {
    #[command(flatten)]
    load: OneEachArgs,
}

impl Play for IntakeArgs {
    fn name(&self) -> &'static str {
        "intake"
    }

    fn gateway(&self) -> &GatewayArgs {
        &self.load.gateway
    }

    fn figures(&self) -> Vec<&'static Figure> {
        section::figures(&[&section::DELIVERING[..], &[section::INTAKE]].concat())
    }

    fn play(&self, run: u64, conductor: &mut Conductor) -> Result<Outcome, Box<dyn Error>> {
        self.load.deliver("load.intake", PACE, run, conductor)
    }

    fn report(&self, outcome: &Outcome, seen: &Sighting, report: &mut Report) {
        section::pace(report, self.load.publish.pace(Shard::WHOLE, PACE));
        section::delivering(report, outcome, seen);
        section::intake(report, outcome, seen);
    }
}
