//! What does a quiet connection cost?

use std::error::Error;
use std::time::Duration;

use clap::Args;

use super::Play;
use crate::books::{Sender, Subscribers};
use crate::conductor::Conductor;
use crate::observer::{Mark, Sighting};
use crate::options::{GatewayArgs, duration};
use crate::outcome::Outcome;
use crate::pace::Pace;
use crate::report::{Figure, Report, figure, section};
use crate::run::{Choice, Run, Setup};
use crate::stamp::Stamp;

/// The arguments of `idle`.
#[derive(Debug, Args)]
pub(crate) struct IdleArgs {
    #[command(flatten)]
    gateway: GatewayArgs,
    /// How many connections, each with one subscription.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(2..))]
    connections: u32,
    /// How many topics they are spread over [default: one for each connection].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    topics: Option<u32>,
    /// How long to watch them: a multiple of the gateway's ping interval, so that each is pinged equally often.
    #[arg(long = "for", alias = "seconds", value_name = "DURATION", default_value = "25s", value_parser = duration)]
    duration: Duration,
}

impl Play for IdleArgs {
    fn name(&self) -> &'static str {
        "idle"
    }

    fn gateway(&self) -> &GatewayArgs {
        &self.gateway
    }

    fn figures(&self) -> Vec<&'static Figure> {
        section::figures(&[section::ARRIVAL, section::IDLE, section::SERVER, section::LOAD, section::NODES])
    }

    /// Opens the connections, then watches the server while nothing happens.
    fn play(&self, _: u64, conductor: &mut Conductor) -> Result<Outcome, Box<dyn Error>> {
        let mut run = Run::new(self.setup(), conductor)?;
        run.arrive()?;
        run.enter("watching", self.duration);
        run.count(self.duration)?;
        run.publish_for(self.duration)?;
        run.finish()
    }

    fn report(&self, outcome: &Outcome, seen: &Sighting, report: &mut Report) {
        section::arrival(report, outcome, seen);
        let connection_seconds = outcome.connections as f64 * outcome.measured.as_secs_f64();
        let server = seen.server(Mark::Start, Mark::End);
        report.cpu_per(&figure::CPU_PER_IDLE_CONNECTION_SECOND, server, connection_seconds);
        // After the pings rather than after the arrival: this is what stays.
        let others = section::others(outcome, seen);
        report.resident_per(&figure::KIB_PER_CONNECTION, seen.server(Mark::First, Mark::End), others);
        section::server(report, seen);
        section::load(report, outcome, seen);
        section::nodes(report, seen);
    }
}

impl IdleArgs {
    fn setup(&self) -> Setup {
        let shard = self.gateway.shard();
        let members = shard.share(self.connections as usize);
        let topics = self.topics.unwrap_or(self.connections) as usize;
        let first = members.start;
        let topic = move |member: usize| Some(format!("load.idle.{}", (first + member) % topics));
        Setup {
            entrance: self.gateway.entrance(first, self.connections as usize, topic),
            members: members.len(),
            ramp: self.gateway.ramp.map(|ramp| ramp / shard.count as f64),
            // Nothing is published, so one topic is as good as many.
            subscribers: Subscribers {
                first_topic: 0,
                topics: 1,
                topic_of: vec![0; members.len()],
                sender: Sender::Own,
            },
            stamp: Stamp::new(0, 0),
            names: Vec::new(),
            late_after: Duration::MAX,
            patience: Duration::ZERO,
            pace: Pace::Silent,
            choice: Choice::in_turn(1),
            backoff: None,
            churn: None,
        }
    }
}
