//! Does a quiet topic suffer from a hot one?
//!
//! While a hot topic keeps the gateway busy, a few listen to a quiet one, somebody pings, and new people come. Each of
//! them has a thread of its own: what they wait for is the gateway, not the thread that counts the hot topic.

use std::error::Error;
use std::io;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::thread::{self, ScopedJoinHandle};
use std::time::Duration;

use clap::Args;
use mio::event::Event;

use super::{Play, measure, one_topic, run, warm_up};
use crate::clock::Moment;
use crate::conductor::{Conductor, Shard};
use crate::connection::Ended;
use crate::crowd::{Crowd, Listener, News, State};
use crate::histogram::Recorder;
use crate::observer::{Sighting, TICK};
use crate::options::{GatewayArgs, PublishArgs, duration, positive};
use crate::outcome::Outcome;
use crate::pace::{Due, Pace};
use crate::report::{Figure, Report, section};

const QUIET_TOPIC: &str = "load.quiet";
/// As many messages of the hot topic on their way as keep a gateway from waiting for the next.
const HOT_PACE: Pace = Pace::Closed(32);
/// Pings and newcomers a second.
const PROBES_PER_SECOND: f64 = 10.0;
const PING: &str = r#"{"id":2,"op":"ping"}"#;
/// The one who pings; the others come and go.
const PINGER: usize = 0;
/// More newcomers than this do not wait at once.
const NEWCOMERS: usize = 100;

/// The arguments of `fairness`.
#[derive(Debug, Args)]
pub(crate) struct FairnessArgs {
    #[command(flatten)]
    gateway: GatewayArgs,
    #[command(flatten)]
    publish: PublishArgs,
    /// How many subscribers the hot topic has.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(2..))]
    subscribers: u32,
    /// How many subscribers the quiet topic has.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(2..))]
    quiet_subscribers: u32,
    /// How many messages the quiet topic has in a second.
    #[arg(long, default_value_t = 20.0, value_parser = positive)]
    quiet_rate: f64,
    /// How long to publish, after a second of warming up: 10s, 5m, 2h; a bare number is seconds.
    #[arg(long = "for", alias = "seconds", value_name = "DURATION", default_value = "10s", value_parser = duration)]
    duration: Duration,
}

/// Why something beside the hot topic went wrong.
type Failure = Box<dyn Error + Send + Sync>;

impl Play for FairnessArgs {
    fn name(&self) -> &'static str {
        "fairness"
    }

    fn gateway(&self) -> &GatewayArgs {
        &self.gateway
    }

    fn figures(&self) -> Vec<&'static Figure> {
        section::figures(&[&section::DELIVERING[..], &[section::FAIRNESS]].concat())
    }

    fn play(&self, number: u64, conductor: &mut Conductor) -> Result<Outcome, Box<dyn Error>> {
        let args = (&self.gateway, &self.publish);
        let setup =
            one_topic("load.hot", self.subscribers as usize, (number, args.0.shard()), args, HOT_PACE);
        let mut hot = run(setup, args, conductor)?;
        if self.gateway.shard().index > 0 {
            warm_up(&mut hot)?;
            return measure(hot, self.duration);
        }
        thread::scope(|scope| {
            let ((begin_quiet, quiet_begins), (begin_probe, probe_begins)) = (channel(), channel());
            let quiet = scope.spawn(move || self.listen_quietly(number, &quiet_begins));
            let probe = scope.spawn(move || self.probe(&probe_begins));
            warm_up(&mut hot)?;
            // One that has failed tells why when it is joined.
            let _ = (begin_quiet.send(()), begin_probe.send(()));
            let mut outcome = measure(hot, self.duration)?;
            let quiet = joined(quiet)?;
            let probe = joined(probe)?;
            outcome.quiet = quiet.timeline.latency();
            outcome.tally += quiet.tally;
            outcome.gaps += quiet.gaps;
            outcome.faults.extend(quiet.faults.iter().map(|fault| format!("the quiet topic: {fault}")));
            (outcome.opening, outcome.pings) = (probe.opening, probe.pings);
            outcome.faults.extend(probe.faults);
            Ok(outcome)
        })
    }

    fn report(&self, outcome: &Outcome, seen: &Sighting, report: &mut Report) {
        section::pace(report, self.publish.pace(Shard::WHOLE, HOT_PACE));
        section::fairness(report, outcome);
        section::delivering(report, outcome, seen);
    }
}

impl FairnessArgs {
    fn listen_quietly(&self, number: u64, begins: &Receiver<()>) -> Result<Outcome, Failure> {
        let args = (&self.gateway, &self.publish);
        let mut setup = one_topic(
            QUIET_TOPIC,
            self.quiet_subscribers as usize,
            (!number, Shard::WHOLE),
            args,
            Pace::Silent,
        );
        setup.pace = Pace::open(self.quiet_rate);
        setup.entrance.first = self.subscribers as usize;
        let mut conductor = Conductor::Aside;
        let told = |error: Box<dyn Error>| Failure::from(format!("the quiet topic: {error}"));
        let mut quiet = run(setup, args, &mut conductor).map_err(told)?;
        quiet.arrive()?;
        while !has_begun(begins)? {
            quiet.turn(Moment::now() + TICK)?;
        }
        measure(quiet, self.duration).map_err(told)
    }

    fn probe(&self, begins: &Receiver<()>) -> Result<Outcome, Failure> {
        let first = (self.subscribers + self.quiet_subscribers) as usize;
        let mut entrance = self.gateway.entrance(first, first + NEWCOMERS, |_| None);
        entrance.stride = NEWCOMERS;
        let mut crowd = Crowd::new(entrance)?;
        crowd.reserve(NEWCOMERS);
        let mut probe = Probe { due: vec![Moment(0); NEWCOMERS], ..Probe::default() };
        crowd.open(PINGER)?;
        while !has_begun(begins)? {
            crowd.turn(TICK, &mut probe)?;
        }
        probe.run(&mut crowd, self.duration)?;
        Ok(probe.finish())
    }
}

/// What a thread found.
fn joined(thread: ScopedJoinHandle<'_, Result<Outcome, Failure>>) -> Result<Outcome, Box<dyn Error>> {
    let outcome = thread.join().map_err(|_| "a thread beside the hot topic panicked")?;
    outcome.map_err(|failure| failure as Box<dyn Error>)
}

/// Whether the run that is accompanied has begun to count.
fn has_begun(begins: &Receiver<()>) -> Result<bool, Failure> {
    match begins.try_recv() {
        Ok(()) => Ok(true),
        Err(TryRecvError::Empty) => Ok(false),
        Err(TryRecvError::Disconnected) => Err("the hot topic did not begin".into()),
    }
}

/// Somebody who pings, and people who come and go.
#[derive(Default)]
struct Probe {
    /// When each newcomer was due.
    due: Vec<Moment>,
    arrived: Vec<usize>,
    pinged: Option<Moment>,
    opening: Recorder,
    pings: Recorder,
    first_trouble: Option<String>,
}

impl Probe {
    fn run(&mut self, crowd: &mut Crowd, duration: Duration) -> Result<(), Failure> {
        let mut pace = Pace::open(PROBES_PER_SECOND);
        let (end, mut newcomer) = (Moment::now() + duration, PINGER);
        while Moment::now() < end {
            match pace.take(Moment::now(), 0) {
                Due::Since(due) => {
                    if crowd.state(PINGER) == State::Welcome && self.pinged.is_none() {
                        self.pinged = Some(due);
                        crowd.send(PINGER, PING)?;
                    }
                    newcomer = PINGER + 1 + newcomer % (NEWCOMERS - 1);
                    if crowd.state(newcomer) == State::Away {
                        self.due[newcomer] = due;
                        crowd.open_elsewhere(newcomer)?;
                    }
                }
                Due::At(at) => {
                    let wake = at.unwrap_or(end).min(end);
                    crowd.turn(wake.since(Moment::now()), self)?;
                }
            }
            for member in std::mem::take(&mut self.arrived) {
                crowd.leave(member, self);
            }
            crowd.sweep(self);
        }
        Ok(())
    }

    fn finish(mut self) -> Outcome {
        let trouble = self.first_trouble.map(|trouble| format!("a connection during the load: {trouble}"));
        Outcome {
            opening: self.opening.take(),
            pings: self.pings.take(),
            faults: trouble.into_iter().collect(),
            ..Outcome::default()
        }
    }
}

impl Listener for Probe {
    fn heard(&mut self, _: usize, _: &str, _: Moment) {}

    fn news(&mut self, member: usize, news: News, now: Moment) {
        match news {
            News::Welcomed(_) if member != PINGER => {
                self.opening.record(now.since(self.due[member]));
                self.arrived.push(member);
            }
            News::Ended(Ended::Left, _) | News::Welcomed(_) | News::Subscribed => {}
            News::Ponged => {
                if let Some(pinged) = self.pinged.take() {
                    self.pings.record(now.since(pinged));
                }
            }
            News::Ended(ended, _) => {
                self.first_trouble.get_or_insert_with(|| ended.to_string());
            }
            News::Refused(answer) => {
                self.first_trouble.get_or_insert(answer);
            }
        }
    }

    fn foreign(&mut self, _: &Event) -> io::Result<()> {
        Ok(())
    }
}
