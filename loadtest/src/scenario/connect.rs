//! How many upgrades a second?
//!
//! New clients come without a pause, each with a token, a subject and (towards loopback) as far as possible an address
//! of its own. When as many are there as may be, the one that came first leaves.

use std::collections::VecDeque;
use std::error::Error;
use std::io;
use std::time::Duration;

use clap::Args;
use mio::event::Event;

use super::Play;
use crate::clock::Moment;
use crate::conductor::Conductor;
use crate::connection::Ended;
use crate::crowd::{Crowd, Listener, News, State};
use crate::histogram::Recorder;
use crate::observer::{Live, Mark, Sighting, TICK};
use crate::options::{GatewayArgs, duration, positive};
use crate::outcome::Outcome;
use crate::pace::{Due, Pace};
use crate::report::{Figure, Report, section};
use crate::timeline::{Chronicle, Timeline, Totals};

/// The arguments of `connect`.
#[derive(Debug, Args)]
pub(crate) struct ConnectArgs {
    #[command(flatten)]
    gateway: GatewayArgs,
    /// How many connections stay open at most.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,
    /// Open loop: so many new clients a second, whether they are let in or not [default: a closed loop].
    #[arg(long, value_name = "PER_SECOND", conflicts_with = "at_once", value_parser = positive)]
    rate: Option<f64>,
    /// Closed loop: so many are on their way in at once.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    at_once: u32,
    /// How long: 10s, 5m; a bare number is seconds.
    #[arg(long = "for", alias = "seconds", value_name = "DURATION", default_value = "10s", value_parser = duration)]
    duration: Duration,
}

impl Play for ConnectArgs {
    fn name(&self) -> &'static str {
        "connect"
    }

    fn gateway(&self) -> &GatewayArgs {
        &self.gateway
    }

    fn figures(&self) -> Vec<&'static Figure> {
        section::figures(&[section::CONNECTING, section::SERVER, section::LOAD, section::NODES])
    }

    fn play(&self, _: u64, conductor: &mut Conductor) -> Result<Outcome, Box<dyn Error>> {
        let mut arrivals = Arrivals::new(self)?;
        arrivals.reach(Mark::Begin, conductor)?;
        let start = arrivals.reach(Mark::Start, conductor)?;
        arrivals.run(start, self.duration, conductor)?;
        arrivals.reach(Mark::End, conductor)?;
        Ok(arrivals.finish())
    }

    fn report(&self, outcome: &Outcome, seen: &Sighting, report: &mut Report) {
        section::connecting(report, outcome, seen);
        section::server(report, seen);
        section::load(report, outcome, seen);
        section::nodes(report, seen);
    }
}

/// The stream of new clients of one process.
struct Arrivals {
    crowd: Crowd,
    door: Door,
    pace: Pace,
    chronicle: Option<Chronicle>,
    overdue: Recorder,
    start: Moment,
    stopped: Moment,
    lag: Recorder,
    busy_and_starved: (f64, f64),
    begun: u64,
    seats: usize,
}

/// Who is where.
#[derive(Default)]
struct Door {
    /// Members that nobody uses.
    free: Vec<usize>,
    /// When each was due.
    due: Vec<Moment>,
    /// Who is in, the first first.
    inside: VecDeque<usize>,
    arriving: usize,
    welcomed: u64,
    refused: u64,
    ended: u64,
    first_refusal: Option<String>,
    opening: Recorder,
    /// Since the timeline last took them.
    fresh: Vec<Duration>,
}

impl Arrivals {
    fn new(args: &ConnectArgs) -> io::Result<Self> {
        let shard = args.gateway.shard();
        let seats = shard.share(args.connections as usize).len().max(1);
        let pace = args.rate.map_or(Pace::Closed(args.at_once as usize), Pace::open).share(shard.count);
        // In an open loop a slow gateway has many at its door.
        let room = seats + args.at_once.max(4096) as usize;
        let mut entrance = args.gateway.entrance(shard.index * room, shard.count * room, |_| None);
        entrance.stride = shard.count * room;
        let mut crowd = Crowd::new(entrance)?;
        crowd.reserve(room);
        let door = Door { free: (0..room).rev().collect(), due: vec![Moment(0); room], ..Door::default() };
        let start = Moment::now();
        Ok(Self {
            crowd,
            door,
            pace,
            chronicle: None,
            overdue: Recorder::default(),
            start,
            stopped: start,
            lag: Recorder::default(),
            busy_and_starved: (0.0, 0.0),
            begun: 0,
            seats,
        })
    }

    fn reach(&mut self, mark: Mark, conductor: &mut Conductor) -> io::Result<Moment> {
        conductor.reach(mark, &mut |time| self.crowd.turn(time, &mut self.door))
    }

    fn run(
        &mut self,
        start: Moment,
        duration: Duration,
        conductor: &mut Conductor,
    ) -> Result<(), Box<dyn Error>> {
        self.chronicle = Some(Chronicle::new(Timeline::new(start, duration), Totals::default()));
        (self.start, self.stopped) = (start, start + duration);
        self.crowd.take_idleness();
        let mut swept = start;
        while Moment::now() < self.stopped {
            let wake = self.let_come()?;
            self.crowd.turn(wake.since(Moment::now()), &mut self.door)?;
            while self.door.inside.len() > self.seats
                && let Some(member) = self.door.inside.pop_front()
            {
                self.crowd.leave(member, &mut self.door);
            }
            let now = Moment::now();
            if now.since(swept) > TICK {
                swept = now;
                self.crowd.sweep(&mut self.door);
            }
            self.roll(now);
            let progress = now.since(start).div_duration_f64(duration);
            let (up, published, delivered) = (self.door.inside.len() as u64, self.begun, self.door.welcomed);
            conductor.tick(|| Live { phase: "connecting".to_owned(), progress, up, published, delivered })?;
        }
        let idleness = self.crowd.take_idleness();
        self.busy_and_starved = idleness.busy_and_starved();
        self.lag = idleness.lag;
        Ok(())
    }

    /// Begins the connections that are due; says when to look again.
    fn let_come(&mut self) -> Result<Moment, Box<dyn Error>> {
        let now = Moment::now();
        while !self.door.free.is_empty() {
            match self.pace.take(now, self.door.arriving) {
                Due::At(at) => return Ok(at.unwrap_or(now + TICK).min(now + TICK)),
                Due::Since(due) => {
                    let member = self.door.free.pop().expect("one is free");
                    self.overdue.record(now.since(due));
                    self.door.due[member] = due;
                    self.door.arriving += 1;
                    self.begun += 1;
                    self.crowd.open_elsewhere(member)?;
                }
            }
        }
        Ok(now + TICK)
    }

    fn roll(&mut self, now: Moment) {
        let (published, delivered, up) = (self.begun, self.door.welcomed, self.door.inside.len() as u64);
        let Some(chronicle) = &mut self.chronicle else { return };
        self.door.fresh.drain(..).for_each(|waited| chronicle.heard(waited));
        chronicle.roll(now, Totals { published, delivered, up });
    }

    fn finish(mut self) -> Outcome {
        let (published, delivered, up) = (self.begun, self.door.welcomed, self.door.inside.len() as u64);
        let timeline =
            self.chronicle.take().map(|chronicle| chronicle.finish(Totals { published, delivered, up }));
        let measured = self.stopped.since(self.start);
        let mut outcome = Outcome {
            connections: self.seats as u64,
            upgrades: self.door.welcomed,
            refused: self.door.refused,
            ended: self.door.ended,
            opening: self.door.opening.take(),
            overdue: self.overdue.take(),
            lag: self.lag.take(),
            busy: self.busy_and_starved.0,
            starved: self.busy_and_starved.1,
            measured,
            timeline: timeline.unwrap_or_default(),
            ..Outcome::default()
        };
        if let Some(reason) = self.door.first_refusal {
            outcome.faults.push(format!("{} were not let in; the first: {reason}", self.door.refused));
        }
        if self.door.ended > 0 {
            outcome.faults.push(format!("{} ended after they had been let in", self.door.ended));
        }
        outcome
    }
}

impl Listener for Door {
    fn heard(&mut self, _: usize, _: &str, _: Moment) {}

    fn news(&mut self, member: usize, news: News, now: Moment) {
        match news {
            News::Welcomed(_) => {
                let waited = now.since(self.due[member]);
                self.arriving -= 1;
                self.welcomed += 1;
                self.opening.record(waited);
                self.fresh.push(waited);
                self.inside.push_back(member);
            }
            News::Ended(Ended::Left, _) => self.free.push(member),
            News::Ended(ended, State::Opening) => {
                self.arriving -= 1;
                self.refused += 1;
                self.first_refusal.get_or_insert_with(|| ended.to_string());
                self.free.push(member);
            }
            News::Ended(..) => {
                self.ended += 1;
                self.inside.retain(|&inside| inside != member);
                self.free.push(member);
            }
            News::Subscribed | News::Ponged | News::Refused(_) => {}
        }
    }

    fn foreign(&mut self, _: &Event) -> io::Result<()> {
        Ok(())
    }
}
