//! What does a quiet connection cost?

use std::error::Error;
use std::time::{Duration, Instant};

use clap::Args;

use super::{Arrival, GatewayArgs, Watch, arrive, report_ended};
use crate::report::Report;

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
    #[arg(long, default_value_t = 25)]
    seconds: u64,
}

/// Opens the connections, then watches the server while nothing happens.
pub(crate) fn idle(args: &IdleArgs) -> Result<Report, Box<dyn Error>> {
    let mut report = Report::new("idle");
    let mut watch = Watch::new(&args.gateway);
    let count = args.connections as usize;
    let topics = args.topics.unwrap_or(args.connections) as usize;
    let topic = |index| format!("load.idle.{}", index % topics);
    let Arrival { mut crowd, first } = arrive(&args.gateway, count, topic, &mut watch, &mut report)?;

    let before = watch.server()?;
    let end = Instant::now() + Duration::from_secs(args.seconds);
    while let Some(rest) = end.checked_duration_since(Instant::now()) {
        crowd.turn(rest, |_, _| {})?;
    }
    let after = watch.server()?;

    let others = (count - 1) as f64;
    report.resident_per("kib_per_connection", "server memory per connection", first.zip(after), others);
    let connection_seconds = (count as u64 * args.seconds) as f64;
    let label = "server CPU per connection and second";
    report.cpu_per("cpu_per_idle_connection_second_us", label, before.zip(after), connection_seconds);
    report_ended(&crowd, &mut report);
    Ok(report)
}
