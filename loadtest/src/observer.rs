//! Watches the run from outside: what the server's processes cost, what its nodes count, and how far the run is.

use std::io;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::address::GatewayAddress;
use crate::clock::Moment;
use crate::metrics::Scrape;
use crate::process::{Process, Reading};
use crate::progress::Progress;

/// How often a run is looked at.
pub(crate) const TICK: Duration = Duration::from_millis(250);
/// More looks than this are thinned out, so that a run of hours fits into a page.
const SAMPLES_MAX: usize = 1000;

/// A point that every process of a run passes, and none goes beyond before all are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Mark {
    /// Nobody has connected.
    Begin,
    /// One connection has gone through everything: what a gateway sets up once is not the price of a connection.
    First,
    /// Everyone is welcome.
    Opened,
    /// Everyone is subscribed.
    Subscribed,
    /// From here on it counts.
    Start,
    /// It does not count any more.
    End,
}

/// What a process tells of itself while it runs.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Live {
    /// What it is doing.
    pub(crate) phase: String,
    /// How far it is with that, from 0 to 1.
    pub(crate) progress: f64,
    /// Connections that are up.
    pub(crate) up: u64,
    /// Messages published so far.
    pub(crate) published: u64,
    /// Messages heard so far.
    pub(crate) delivered: u64,
}

/// The processes at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// All processes of the server; `None` if none is known.
    pub(crate) server: Option<Reading>,
    /// All processes of the load tester.
    pub(crate) load: Reading,
}

/// The eyes of a run.
pub(crate) struct Observer {
    servers: Vec<Watched>,
    load: Vec<Watched>,
    admin: Vec<GatewayAddress>,
    /// What each node had counted at the beginning.
    scrapes: Vec<Scrape>,
    progress: Progress,
    last_tick: Moment,
    ticks: u64,
    /// Every how many ticks a sample is kept.
    stride: u64,
    sighting: Sighting,
}

/// What was seen.
#[derive(Debug, Default)]
pub(crate) struct Sighting {
    marks: Vec<(Mark, Sample)>,
    /// Regularly, over the whole run.
    pub(crate) samples: Vec<Sample>,
    /// What each node counted over the whole run.
    pub(crate) scrapes: Vec<(Scrape, Scrape)>,
    /// How many processes the load tester has.
    pub(crate) processes: usize,
    /// What could not be seen, for people.
    pub(crate) blind: Vec<String>,
}

/// A process that may end before the run does.
struct Watched {
    process: Process,
    last: Option<Reading>,
}

impl Observer {
    /// Watches the given processes, and the load tester's own.
    pub(crate) fn new(servers: &[u32], load: &[u32], admin: &[GatewayAddress]) -> Self {
        let watched = |pids: &[u32]| pids.iter().map(|&pid| Watched::new(pid)).collect();
        Self {
            servers: watched(servers),
            load: watched(load),
            admin: admin.to_vec(),
            scrapes: Vec::new(),
            progress: Progress::new(),
            last_tick: Moment(0),
            ticks: 0,
            stride: 1,
            sighting: Sighting { processes: load.len(), ..Sighting::default() },
        }
    }

    /// Looks closely, for every process has reached `mark`.
    pub(crate) fn mark(&mut self, mark: Mark) -> io::Result<()> {
        if mark == Mark::Begin {
            self.scrapes = self.admin.iter().map(Scrape::take).collect::<io::Result<_>>()?;
        }
        let sample = self.sample(Process::read)?;
        self.sighting.marks.push((mark, sample));
        if mark == Mark::End {
            self.compare_scrapes();
        }
        Ok(())
    }

    /// Looks up now and then, and shows how far the run is.
    pub(crate) fn tick(&mut self, live: impl FnOnce() -> Live) -> io::Result<()> {
        let now = Moment::now();
        if now.since(self.last_tick) < TICK {
            return Ok(());
        }
        self.last_tick = now;
        self.progress.show(&live(), now);
        self.ticks += 1;
        if !self.ticks.is_multiple_of(self.stride) {
            return Ok(());
        }
        if self.sighting.samples.len() == SAMPLES_MAX {
            self.thin_out();
        }
        let sample = self.sample(Process::glance)?;
        self.sighting.samples.push(sample);
        Ok(())
    }

    /// What was seen, now that the run is over.
    pub(crate) fn finish(self) -> Sighting {
        self.progress.finish();
        self.sighting
    }

    /// While the connections are still there: that they leave is no part of the run.
    fn compare_scrapes(&mut self) {
        for (address, before) in self.admin.iter().zip(self.scrapes.drain(..)) {
            match Scrape::take_settled(address) {
                Ok(after) => self.sighting.scrapes.push((before, after)),
                Err(error) => {
                    let blind = format!("The counters of {} are missing: {error}.", address.host);
                    self.sighting.blind.push(blind);
                }
            }
        }
    }

    fn thin_out(&mut self) {
        let mut is_kept = false;
        self.sighting.samples.retain(|_| {
            is_kept = !is_kept;
            is_kept
        });
        self.stride *= 2;
    }

    fn sample(&mut self, look: fn(&mut Process) -> io::Result<Reading>) -> io::Result<Sample> {
        let look_at = |watched: &mut Vec<Watched>| {
            let readings = watched.iter_mut().map(|watched| watched.look(look));
            readings.collect::<io::Result<Vec<_>>>().map(Reading::sum)
        };
        let server = look_at(&mut self.servers)?;
        let load = look_at(&mut self.load)?.ok_or(io::ErrorKind::NotFound)?;
        Ok(Sample { server, load })
    }
}

impl Sighting {
    /// The server between two marks, if it was watched.
    pub(crate) fn server(&self, from: Mark, to: Mark) -> Option<(Reading, Reading)> {
        self.at(from)?.server.zip(self.at(to)?.server)
    }

    /// The load tester between two marks.
    pub(crate) fn load(&self, from: Mark, to: Mark) -> Option<(Reading, Reading)> {
        Some((self.at(from)?.load, self.at(to)?.load))
    }

    fn at(&self, mark: Mark) -> Option<&Sample> {
        self.marks.iter().find(|(reached, _)| *reached == mark).map(|(_, sample)| sample)
    }
}

impl Watched {
    fn new(pid: u32) -> Self {
        Self { process: Process::new(pid), last: None }
    }

    /// A process that has ended has used what it was last seen with, and no memory any more.
    fn look(&mut self, look: fn(&mut Process) -> io::Result<Reading>) -> io::Result<Reading> {
        let reading = match (look(&mut self.process), self.last) {
            (Err(_), Some(last)) => Reading { at: Moment::now(), resident_bytes: 0, ..last },
            (read, _) => read?,
        };
        self.last = Some(reading);
        Ok(reading)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_ends_keeps_what_it_has_cost() {
        let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let mut observer = Observer::new(&[child.id()], &[std::process::id()], &[]);
        observer.mark(Mark::Begin).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        observer.mark(Mark::End).unwrap();
        let (before, after) = observer.finish().server(Mark::Begin, Mark::End).unwrap();
        assert!(before.resident_bytes > 0);
        assert_eq!((after.cpu, after.resident_bytes), (before.cpu, 0));
    }

    #[test]
    fn a_process_that_never_was_cannot_be_watched() {
        assert!(Observer::new(&[1 << 23], &[std::process::id()], &[]).mark(Mark::Begin).is_err());
    }
}
