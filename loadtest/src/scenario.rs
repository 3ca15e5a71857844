//! The scenarios, each named after the question it answers.

mod connect;
mod fairness;
mod fanout;
mod floor;
mod idle;
mod intake;
mod reconnect;
mod rooms;
mod soak;
mod unicast;

use std::error::Error;
use std::time::Duration;

use clap::{Args, Subcommand};

pub(crate) use self::connect::ConnectArgs;
pub(crate) use self::fairness::FairnessArgs;
pub(crate) use self::fanout::FanoutArgs;
pub(crate) use self::floor::{FloorArgs, floor};
pub(crate) use self::idle::IdleArgs;
pub(crate) use self::intake::IntakeArgs;
pub(crate) use self::reconnect::ReconnectArgs;
pub(crate) use self::rooms::RoomsArgs;
pub(crate) use self::soak::SoakArgs;
pub(crate) use self::unicast::UnicastArgs;
use crate::books::{Sender, Subscribers};
use crate::conductor::{Conductor, Shard};
use crate::observer::Sighting;
use crate::options::{GatewayArgs, PublishArgs, duration};
use crate::outcome::Outcome;
use crate::pace::Pace;
use crate::publish::Publishers;
use crate::report::{Figure, Report, section};
use crate::run::{Choice, Run, Setup, WARM_UP};
use crate::stamp::Stamp;

/// What is measured.
#[derive(Debug, Subcommand)]
pub(crate) enum Scenario {
    /// What does it cost to tell one thing to everybody?
    Fanout(FanoutArgs),
    /// What does it cost to tell everybody something else?
    Unicast(UnicastArgs),
    /// How do rooms of unequal liveliness get on together?
    Rooms(RoomsArgs),
    /// How many upgrades a second?
    Connect(ConnectArgs),
    /// What does a quiet connection cost?
    Idle(IdleArgs),
    /// A node dies: how long until all are back?
    Reconnect(ReconnectArgs),
    /// Does it stay as it is for hours, with people coming and going?
    Soak(SoakArgs),
    /// Does a quiet topic suffer from a hot one?
    Fairness(FairnessArgs),
    /// How many messages a second does a node take from Redis?
    Intake(IntakeArgs),
    /// What would it cost with no gateway at all, only the kernel's write(2)?
    Floor(FloorArgs),
}

/// A scenario that is played against a gateway.
pub(crate) trait Play {
    /// Its name.
    fn name(&self) -> &'static str;
    /// The gateway.
    fn gateway(&self) -> &GatewayArgs;
    /// The figures that its report may have.
    fn figures(&self) -> Vec<&'static Figure>;
    /// This process's part. The messages carry the number `run`.
    fn play(&self, run: u64, conductor: &mut Conductor) -> Result<Outcome, Box<dyn Error>>;
    /// What the outcome of all processes, and what was seen of them, means.
    fn report(&self, outcome: &Outcome, seen: &Sighting, report: &mut Report);
}

impl Scenario {
    /// Its name, and the figures that its report may have.
    pub(crate) fn figures(&self) -> (&'static str, Vec<&'static Figure>) {
        match self.play() {
            Some(play) => (play.name(), play.figures()),
            None => (floor::NAME, section::figures(&[section::FLOOR])),
        }
    }

    /// The scenario as one that is played against a gateway, if it is one.
    pub(crate) fn play(&self) -> Option<&dyn Play> {
        Some(match self {
            Self::Fanout(args) => args,
            Self::Unicast(args) => args,
            Self::Rooms(args) => args,
            Self::Connect(args) => args,
            Self::Idle(args) => args,
            Self::Reconnect(args) => args,
            Self::Soak(args) => args,
            Self::Fairness(args) => args,
            Self::Intake(args) => args,
            Self::Floor(_) => return None,
        })
    }
}

/// Topics that each have as many subscribers, divided among the processes.
struct Rooms {
    /// What every topic's name begins with.
    name: &'static str,
    topics: usize,
    subscribers: usize,
}

impl Rooms {
    /// This process's part of a run.
    fn setup(&self, run: u64, gateway: &GatewayArgs, publish: &PublishArgs, pace: Pace) -> Setup {
        let (name, subscribers) = (self.name, self.subscribers);
        let shard = gateway.shard();
        let topics = shard.share(self.topics);
        let (first, members) = (topics.start, topics.len() * subscribers);
        let topic = move |member: usize| Some(format!("{name}.{}", first + member / subscribers));
        Setup {
            entrance: gateway.entrance(first * subscribers, self.topics * subscribers, topic),
            members,
            ramp: gateway.ramp.map(|ramp| ramp / shard.count as f64),
            subscribers: Subscribers {
                first_topic: first,
                topics: topics.len(),
                topic_of: (0..members).map(|member| (member / subscribers) as u32).collect(),
                sender: Sender::Own,
            },
            stamp: Stamp::new(run, publish.payload_bytes as usize),
            names: topics.map(|topic| publish.name(&format!("{name}.{topic}"))).collect(),
            late_after: publish.late_after,
            patience: publish.patience,
            pace: publish.pace(shard, pace),
            choice: Choice::in_turn(shard.share(self.topics).len()),
            backoff: None,
            churn: None,
        }
    }
}

/// The arguments of a scenario whose topics have one subscriber each.
#[derive(Debug, Args)]
struct OneEachArgs {
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

impl OneEachArgs {
    /// This process's part, on topics whose names begin with `name`.
    fn deliver(
        &self,
        name: &'static str,
        pace: Pace,
        run: u64,
        conductor: &mut Conductor,
    ) -> Result<Outcome, Box<dyn Error>> {
        let rooms = Rooms { name, topics: self.topics as usize, subscribers: 1 };
        let setup = rooms.setup(run, &self.gateway, &self.publish, pace);
        deliver(setup, (&self.gateway, &self.publish), self.duration, conductor)
    }
}

/// One topic that all listen to, whatever process they are in.
fn one_topic(
    topic: &str,
    subscribers: usize,
    (run, shard): (u64, Shard),
    (gateway, publish): (&GatewayArgs, &PublishArgs),
    pace: Pace,
) -> Setup {
    let members = shard.share(subscribers);
    let name = topic.to_owned();
    let sender = match shard {
        Shard::WHOLE => Sender::Own,
        _ if shard.index == 0 => Sender::ForAll,
        _ => Sender::Another,
    };
    Setup {
        entrance: gateway.entrance(members.start, subscribers, move |_| Some(name.clone())),
        members: members.len(),
        ramp: gateway.ramp.map(|ramp| ramp / shard.count as f64),
        subscribers: Subscribers { first_topic: 0, topics: 1, topic_of: vec![0; members.len()], sender },
        stamp: Stamp::new(run, publish.payload_bytes as usize),
        names: vec![publish.name(topic)],
        late_after: publish.late_after,
        patience: publish.patience,
        // One process publishes for all.
        pace: match sender {
            Sender::Another => Pace::Silent,
            Sender::Own | Sender::ForAll => publish.pace(Shard::WHOLE, pace),
        },
        choice: Choice::in_turn(1),
        backoff: None,
        churn: None,
    }
}

/// A run with its publishers.
fn run<'a>(
    setup: Setup,
    (gateway, publish): (&GatewayArgs, &PublishArgs),
    conductor: &'a mut Conductor,
) -> Result<Run<'a>, Box<dyn Error>> {
    let is_silent = setup.pace == Pace::Silent;
    let mut run = Run::new(setup, conductor)?;
    if !is_silent {
        let destination = publish.destination(gateway)?;
        let links = publish.links();
        run.publishers = Publishers::connect(&destination, links, run.crowd.registry())?;
    }
    Ok(run)
}

/// Brings everybody together, warms up and publishes for as long as was asked for.
fn deliver(
    setup: Setup,
    args: (&GatewayArgs, &PublishArgs),
    duration: Duration,
    conductor: &mut Conductor,
) -> Result<Outcome, Box<dyn Error>> {
    let mut run = run(setup, args, conductor)?;
    warm_up(&mut run)?;
    measure(run, duration)
}

/// Publishes for `duration`, which counts.
fn measure(mut run: Run<'_>, duration: Duration) -> Result<Outcome, Box<dyn Error>> {
    run.enter("publishing", duration);
    run.count(duration)?;
    run.publish_for(duration)?;
    run.finish()
}

fn warm_up(run: &mut Run<'_>) -> Result<(), Box<dyn Error>> {
    run.arrive()?;
    run.enter("warming up", WARM_UP);
    run.publish_for(WARM_UP)?;
    Ok(())
}
