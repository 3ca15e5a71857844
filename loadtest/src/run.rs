//! A run of one process: brings its crowd together, publishes, listens, and keeps the books.

mod arrival;
mod ear;
mod finding;
mod landing;
mod phase;

use std::io;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::books::{Books, Subscribers};
use crate::clock::Moment;
use crate::conductor::Conductor;
use crate::crowd::{Crowd, Entrance};
use crate::histogram::Recorder;
use crate::observer::{Mark, TICK};
use crate::pace::{Due, Pace};
use crate::publish::Publishers;
use crate::returns::{Backoff, Returns};
use crate::stamp::Stamp;
use crate::zipf::Zipf;

use self::ear::Ear;
use self::phase::Phase;

/// Before anything is measured, caches are filled and buffers have grown.
pub(crate) const WARM_UP: Duration = Duration::from_secs(1);
/// After so many messages in a row, subscribers are listened to.
const BURST_MAX: usize = 512;
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// What a run is made of.
pub(crate) struct Setup {
    /// The way in.
    pub(crate) entrance: Entrance,
    /// How many members this process has.
    pub(crate) members: usize,
    /// How many may begin to connect in a second.
    pub(crate) ramp: Option<f64>,
    /// Who listens to what.
    pub(crate) subscribers: Subscribers,
    /// The messages.
    pub(crate) stamp: Stamp,
    /// What the topics are called where they are published.
    pub(crate) names: Vec<String>,
    /// See [`Books`].
    pub(crate) late_after: Duration,
    /// When nobody has heard anything for so long, what is still in the air is given up.
    pub(crate) patience: Duration,
    /// When messages follow one another.
    pub(crate) pace: Pace,
    /// Which topic each is for.
    pub(crate) choice: Choice,
    /// Whether those that end come back.
    pub(crate) backoff: Option<Backoff>,
    /// How many members leave (and come back) in a second.
    pub(crate) churn: Option<f64>,
}

/// How a message's topic is chosen.
#[derive(Debug)]
pub(crate) enum Choice {
    /// One after the other, of so many.
    InTurn {
        /// How many there are.
        topics: usize,
        /// Whose turn it is.
        next: usize,
    },
    /// Some more often than others.
    Zipf(Zipf),
}

/// A run.
pub(crate) struct Run<'a> {
    pub(crate) crowd: Crowd,
    pub(crate) books: Books,
    pub(crate) returns: Returns,
    pub(crate) publishers: Publishers,
    conductor: &'a mut Conductor,
    names: Vec<String>,
    pace: Pace,
    /// Whether messages are published now, and members leave.
    is_lively: bool,
    choice: Choice,
    /// The topic that a message waits for.
    chosen: Option<usize>,
    ramp: Option<f64>,
    patience: Duration,
    churn: Pace,
    churned: usize,
    random: StdRng,
    gaps: u64,
    stalls: u64,
    overdue: Recorder,
    swept: Moment,
    phase: Phase,
    counted: Counted,
}

/// Where the books stood when counting began.
#[derive(Debug, Default)]
struct Counted {
    start: Moment,
    /// When publishing ended; what was heard afterwards counts too.
    stopped: Moment,
    delivered: u64,
    published: u64,
    asked: u64,
}

impl<'a> Run<'a> {
    /// Nobody has connected yet.
    pub(crate) fn new(setup: Setup, conductor: &'a mut Conductor) -> io::Result<Self> {
        let mut crowd = Crowd::new(setup.entrance)?;
        crowd.reserve(setup.members);
        let now = Moment::now();
        Ok(Self {
            crowd,
            books: Books::new(setup.stamp, setup.subscribers, setup.late_after),
            returns: Returns::new(setup.members, setup.backoff, StdRng::from_os_rng()),
            publishers: Publishers::none(),
            conductor,
            names: setup.names,
            pace: setup.pace,
            is_lively: false,
            choice: setup.choice,
            chosen: None,
            ramp: setup.ramp,
            patience: setup.patience,
            churn: setup.churn.map_or(Pace::Silent, Pace::open),
            churned: 0,
            random: StdRng::from_os_rng(),
            gaps: 0,
            stalls: 0,
            overdue: Recorder::default(),
            swept: now,
            phase: Phase::new("connecting", Duration::ZERO),
            counted: Counted::default(),
        })
    }

    /// Waits for the other processes at `mark`, if there are any, and gives the moment that all share.
    pub(crate) fn reach(&mut self, mark: Mark) -> io::Result<Moment> {
        let Self { crowd, books, returns, publishers, gaps, conductor, .. } = self;
        let mut ear = Ear { books, returns, publishers, gaps };
        conductor.reach(mark, &mut |time| crowd.turn(time, &mut ear))
    }

    /// What is shown to those who watch, for about `expected`.
    pub(crate) fn enter(&mut self, phase: &'static str, expected: Duration) {
        self.phase = Phase::new(phase, expected);
    }

    /// From here on it counts; it will for about `expected`.
    pub(crate) fn count(&mut self, expected: Duration) -> io::Result<Moment> {
        let start = self.reach(Mark::Start)?;
        self.books.count_from(start, expected, self.crowd.up());
        self.crowd.take_idleness();
        self.crowd.take_traffic();
        self.publishers.take_acknowledged();
        self.overdue.take();
        self.returns.opening.take();
        let (delivered, published) = (self.books.delivered(), self.books.published());
        self.counted = Counted { start, stopped: start, delivered, published, asked: 0 };
        // Nobody publishes before all count.
        self.agree(None)?;
        Ok(start)
    }

    /// Publishes for `duration`, then waits for what is still in the air. Ends early when a connection does that will
    /// not come back: the rest would only measure the others.
    pub(crate) fn publish_for(&mut self, duration: Duration) -> io::Result<()> {
        let start = Moment::now();
        let end = start + duration;
        self.pace.restart();
        let published = self.books.published();
        self.is_lively = true;
        while Moment::now() < end && !self.is_broken() {
            self.turn(end)?;
        }
        self.is_lively = false;
        self.counted.asked += match self.pace {
            Pace::Open { rate, .. } => (rate * Moment::now().since(start).as_secs_f64()) as u64,
            _ => self.books.published() - published,
        };
        self.counted.stopped = Moment::now();
        self.land()
    }

    /// Publishes until `is_done`, for `longest` at most; says whether it was.
    pub(crate) fn publish_until(
        &mut self,
        longest: Duration,
        mut is_done: impl FnMut(&mut Self) -> io::Result<bool>,
    ) -> io::Result<bool> {
        let end = Moment::now() + longest;
        let (published, mut done) = (self.books.published(), false);
        self.pace.restart();
        self.is_lively = true;
        while Moment::now() < end && !done {
            self.turn(end.min(Moment::now() + TICK))?;
            done = is_done(self)?;
        }
        self.is_lively = false;
        self.counted.asked += self.books.published() - published;
        self.counted.stopped = Moment::now();
        Ok(done)
    }

    fn is_broken(&self) -> bool {
        self.churn == Pace::Silent && self.returns.next().is_none() && self.returns.away > 0
    }

    /// Does what is due, then waits for something to happen, but not beyond `until`.
    pub(crate) fn turn(&mut self, until: Moment) -> io::Result<()> {
        let now = Moment::now();
        let mut wake = until.min(now + TICK);
        if self.is_lively {
            self.publish_due(now, &mut wake)?;
            self.leave_due(now, &mut wake);
        }
        self.return_due(now, &mut wake)?;
        let Self { crowd, books, returns, publishers, gaps, .. } = self;
        let mut ear = Ear { books, returns, publishers, gaps };
        crowd.turn(wake.since(Moment::now()), &mut ear)?;
        for member in std::mem::take(&mut ear.returns.welcomed_back) {
            if let Err(ended) = crowd.subscribe(member) {
                crowd.end(member, ended, &mut ear);
            }
        }
        let now = Moment::now();
        if now.since(self.swept) > SWEEP_INTERVAL {
            self.swept = now;
            crowd.sweep(&mut ear);
        }
        self.books.roll(now, self.crowd.up());
        self.watch_for_stall(now);
        let Self { phase, crowd, books, returns, conductor, .. } = self;
        conductor.tick(|| phase.live(now, crowd, books, returns))
    }

    fn publish_due(&mut self, now: Moment, wake: &mut Moment) -> io::Result<()> {
        if self.pace == Pace::Silent {
            return Ok(());
        }
        for _ in 0..BURST_MAX {
            let topic = self.chosen.take().unwrap_or_else(|| self.choice.next(&mut self.random));
            // What no link takes stays due, and is late when it goes.
            if !self.publishers.accepts(topic) {
                self.chosen = Some(topic);
                return self.publishers.flush();
            }
            match self.pace.take(now, self.books.in_flight()) {
                Due::Since(due) => {
                    self.overdue.record(now.since(due));
                    let payload = self.books.launch(topic, due);
                    self.publishers.publish(topic, &self.names[topic], &payload, due);
                }
                Due::At(at) => {
                    self.chosen = Some(topic);
                    *wake = at.unwrap_or(*wake).min(*wake);
                    return self.publishers.flush();
                }
            }
        }
        *wake = now;
        self.publishers.flush()
    }

    /// Lets go of whoever's turn it is; they come back as those do who lost their connection.
    fn leave_due(&mut self, now: Moment, wake: &mut Moment) {
        let Self { crowd, books, returns, publishers, gaps, churn, .. } = self;
        let mut ear = Ear { books, returns, publishers, gaps };
        while let Due::Since(_) = churn.take(now, 0) {
            let member = self.churned % crowd.len();
            self.churned += 1;
            crowd.leave(member, &mut ear);
        }
        if let Pace::Open { rate, .. } = churn {
            *wake = (now + Duration::from_secs_f64(1.0 / *rate)).min(*wake);
        }
    }

    fn return_due(&mut self, now: Moment, wake: &mut Moment) -> io::Result<()> {
        while let Some(member) = self.returns.take_due(now) {
            self.crowd.open_elsewhere(member).map_err(io::Error::other)?;
        }
        *wake = self.returns.next().unwrap_or(*wake).min(*wake);
        Ok(())
    }

    /// A closed loop that waits for what was lost would wait for ever.
    fn watch_for_stall(&mut self, now: Moment) {
        let is_closed = self.is_lively && matches!(self.pace, Pace::Closed(_)) && self.books.in_flight() > 0;
        if is_closed && now.since(self.books.last_heard()) > self.patience {
            self.books.give_up();
            self.books.wait_anew(now);
            self.stalls += 1;
        }
    }
}

impl Choice {
    /// One after the other, of `topics`.
    pub(crate) fn in_turn(topics: usize) -> Self {
        Self::InTurn { topics, next: 0 }
    }

    fn next(&mut self, random: &mut StdRng) -> usize {
        match self {
            Self::Zipf(zipf) => zipf.sample(random),
            Self::InTurn { topics, next } => {
                let topic = *next;
                *next = (topic + 1) % *topics;
                topic
            }
        }
    }
}
