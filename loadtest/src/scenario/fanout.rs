//! What does it cost to tell one thing to everybody?
//!
//! A closed loop: a fixed number of messages is on its way, and the next one is published when every subscriber
//! has heard one of them. Every message is numbered and every subscriber keeps a ledger.

use std::error::Error;
use std::io;
use std::time::{Duration, Instant};

use clap::Args;

use super::{Arrival, GatewayArgs, Watch, arrive, report_ended};
use crate::crowd::Crowd;
use crate::flight::Flight;
use crate::ledger::{Ledger, Tally};
use crate::publisher::Publisher;
use crate::push::Push;
use crate::report::Report;
use crate::stamp::{PAYLOAD_BYTES_MIN, Stamp};

/// Before anything is measured, caches are filled and buffers have grown.
const WARM_UP: Duration = Duration::from_secs(1);
/// When nobody has heard anything for so long, what is still in the air is lost.
const LANDING_TIMEOUT: Duration = Duration::from_secs(5);

/// The arguments of `fanout`.
#[derive(Debug, Args)]
pub(crate) struct FanoutArgs {
    #[command(flatten)]
    gateway: GatewayArgs,
    /// The Redis that the gateway listens to.
    #[arg(long, value_name = "HOST:PORT")]
    redis: String,
    /// The gateway's `redis.topic_prefix`.
    #[arg(long, default_value = "")]
    topic_prefix: String,
    /// The topic that everybody subscribes to.
    #[arg(long, default_value = "load.fanout")]
    topic: String,
    /// How many subscribers.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(2..))]
    subscribers: u32,
    /// How many messages are on their way at once.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    in_flight: u32,
    /// Payload of a message, at least 88 bytes.
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(PAYLOAD_BYTES_MIN as i64..))]
    payload_bytes: u32,
    /// How long to publish, after a second of warming up.
    #[arg(long, default_value_t = 8)]
    seconds: u64,
}

/// Brings the subscribers together and publishes to them.
pub(crate) fn fanout(args: &FanoutArgs) -> Result<Report, Box<dyn Error>> {
    let mut report = Report::new("fanout");
    let mut watch = Watch::new(&args.gateway);
    let count = args.subscribers as usize;
    let arrival = arrive(&args.gateway, count, |_| args.topic.clone(), &mut watch, &mut report)?;
    let Arrival { crowd, first } = arrival;
    let arrived = watch.server()?;
    report.resident_per(
        "kib_per_connection",
        "server memory per connection",
        first.zip(arrived),
        count as f64 - 1.0,
    );

    let mut round = Round::new(args, crowd)?;
    round.publish_for(WARM_UP)?;
    let (server_before, own_before, delivered_before) = (watch.server()?, watch.own()?, round.delivered);
    round.publish_for(Duration::from_secs(args.seconds))?;
    let (server_after, own_after) = (watch.server()?, watch.own()?);

    let delivered = (round.delivered - delivered_before) as f64;
    let wall = own_after.since(&own_before).1;
    let server = server_before.zip(server_after);
    report.figure("in_flight", "messages in flight", args.in_flight.into(), "");
    report.figure("delivered", "deliveries", delivered, "");
    report.figure("deliveries_per_second", "deliveries per second", delivered / wall.as_secs_f64(), "/s");
    report.cpu_per("cpu_per_delivery_us", "server CPU per delivery", server, delivered);
    report.busy("server_busy_percent", "server busy", server);
    report.busy("load_busy_percent", "load tester busy", Some((own_before, own_after)));
    round.report_truth(&mut report);
    Ok(report)
}

/// The closed loop and its books.
struct Round<'a> {
    args: &'a FanoutArgs,
    crowd: Crowd,
    publisher: Publisher,
    channel: String,
    stamp: Stamp,
    flight: Flight,
    ledgers: Vec<Ledger>,
    /// Messages heard for the first time, over all subscribers.
    delivered: u64,
    gaps: u64,
}

impl<'a> Round<'a> {
    fn new(args: &'a FanoutArgs, crowd: Crowd) -> io::Result<Self> {
        Ok(Self {
            args,
            publisher: Publisher::connect(&args.redis)?,
            channel: format!("{}{}", args.topic_prefix, args.topic),
            stamp: Stamp::new(&args.topic, args.payload_bytes as usize),
            flight: Flight::new(crowd.len()),
            ledgers: (0..crowd.len()).map(|_| Ledger::default()).collect(),
            crowd,
            delivered: 0,
            gaps: 0,
        })
    }

    /// Publishes for `duration`, then waits for what is still in the air. Ends early when a connection does: the
    /// rest would only measure the others.
    fn publish_for(&mut self, duration: Duration) -> io::Result<()> {
        let end = Instant::now() + duration;
        while Instant::now() < end && self.crowd.ended().is_empty() {
            self.fill_the_air()?;
            self.listen(end)?;
        }
        self.land()
    }

    fn land(&mut self) -> io::Result<()> {
        let mut give_up_at = Instant::now() + LANDING_TIMEOUT;
        while self.flight.in_flight() > 0 && Instant::now() < give_up_at {
            let delivered = self.delivered;
            self.listen(give_up_at)?;
            if self.delivered > delivered {
                give_up_at = Instant::now() + LANDING_TIMEOUT;
            }
        }
        Ok(())
    }

    fn fill_the_air(&mut self) -> io::Result<()> {
        while self.flight.in_flight() < self.args.in_flight as usize {
            let payload = self.stamp.payload(self.flight.launch());
            self.publisher.add(&self.channel, &payload);
        }
        self.publisher.publish()
    }

    fn listen(&mut self, end: Instant) -> io::Result<()> {
        let Self { crowd, stamp, flight, ledgers, delivered, gaps, .. } = self;
        crowd.turn(end.saturating_duration_since(Instant::now()), |index, text| match stamp.delivered(text) {
            Some(seq) if ledgers[index].hear(seq) => {
                flight.hear(seq);
                *delivered += 1;
            }
            Some(_) => {}
            None => *gaps += u64::from(Push::parse(text) == Push::Gap),
        })
    }

    /// Whether everybody heard everything, once and in order.
    fn report_truth(&self, report: &mut Report) {
        let mut tally = Tally::default();
        for ledger in &self.ledgers {
            tally += ledger.tally(self.flight.published());
        }
        let Tally { lost, duplicated, reordered, subscribers } = tally;
        report.figure("lost", "lost", lost as f64, "");
        report.figure("duplicated", "duplicated", duplicated as f64, "");
        report.figure("reordered", "reordered", reordered as f64, "");
        report.figure("gaps", "gaps announced", self.gaps as f64, "");
        if tally != Tally::default() {
            report.fault(format!(
                "{lost} lost, {duplicated} duplicated, {reordered} reordered at {subscribers} subscribers"
            ));
        }
        if self.delivered == 0 {
            report.fault("nothing was delivered".to_owned());
        }
        report_ended(&self.crowd, report);
    }
}
