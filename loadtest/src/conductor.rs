//! Keeps the processes of a run in step, or is the only one there is.
//!
//! A process that works for another says over its stdout what it has reached, one JSON text a line, and waits on its
//! stdin until it may go on. It keeps serving its connections meanwhile.

use std::io::{self, BufRead, Write};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Moment;
use crate::observer::{Live, Mark, Observer, Sighting, TICK};
use crate::outcome::Outcome;

/// How long a process waits at a time before it looks whether it may go on.
const PATIENCE: Duration = Duration::from_millis(5);

/// What a process says to the one it works for.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Said {
    /// It has reached this mark.
    Reached(Mark),
    /// How it is getting on.
    Live(Live),
    /// How many messages it has published to the topic that all share, or `None` if that is not its job.
    Published(Option<u64>),
    /// It is done.
    Done(Box<Outcome>),
    /// It cannot go on.
    Failed(String),
}

/// What it is told.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Told {
    /// All have reached the mark; this is the moment they share.
    Go(Moment),
    /// How many messages were published to the topic that all share.
    Published(u64),
}

/// A process's place among the processes of its run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shard {
    /// Its number, from 0.
    pub(crate) index: usize,
    /// How many there are.
    pub(crate) count: usize,
}

/// Who says when to go on.
pub(crate) enum Conductor {
    /// Nobody else is there.
    Alone(Box<Observer>),
    /// Another process.
    Apart(Line),
    /// Another thread, which this one only accompanies.
    Aside,
}

/// The line to the other process.
pub(crate) struct Line {
    told: Receiver<Told>,
    last_live: Moment,
}

/// What a process does while it waits: it is given the time it may take.
pub(crate) type Meanwhile<'a> = &'a mut dyn FnMut(Duration) -> io::Result<()>;

impl Shard {
    /// All there is.
    pub(crate) const WHOLE: Self = Self { index: 0, count: 1 };

    /// Which of `total` things are this process's.
    pub(crate) fn share(self, total: usize) -> std::ops::Range<usize> {
        let up_to = |index: usize| total * index / self.count;
        up_to(self.index)..up_to(self.index + 1)
    }
}

impl std::str::FromStr for Shard {
    type Err = String;

    fn from_str(given: &str) -> Result<Self, String> {
        let parts =
            given.split_once('/').and_then(|(index, count)| Some((index.parse().ok()?, count.parse().ok()?)));
        match parts {
            Some((index, count)) if index < count => Ok(Self { index, count }),
            _ => Err(format!("{given:?} is not of the form 0/2")),
        }
    }
}

impl Line {
    /// Listens on stdin.
    pub(crate) fn new() -> io::Result<Self> {
        let (tell, told) = channel();
        thread::Builder::new().name("line".to_owned()).spawn(move || {
            for line in io::stdin().lock().lines().map_while(Result::ok) {
                let Ok(said) = serde_json::from_str(&line) else { return };
                let Ok(()) = tell.send(said) else { return };
            }
        })?;
        Ok(Self { told, last_live: Moment(0) })
    }

    /// Says one thing.
    pub(crate) fn say(said: &Said) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        serde_json::to_writer(&mut stdout, said)?;
        stdout.write_all(b"\n")?;
        stdout.flush()
    }

    fn wait(&self, meanwhile: Meanwhile<'_>) -> io::Result<Told> {
        loop {
            match self.told.try_recv() {
                Ok(told) => return Ok(told),
                Err(TryRecvError::Disconnected) => return Err(io::Error::other("the run was given up")),
                Err(TryRecvError::Empty) => meanwhile(PATIENCE)?,
            }
        }
    }
}

impl Conductor {
    /// Waits until all processes have reached `mark`, and gives the moment that they share.
    pub(crate) fn reach(&mut self, mark: Mark, meanwhile: Meanwhile<'_>) -> io::Result<Moment> {
        match self {
            Self::Alone(observer) => observer.mark(mark).map(|()| Moment::now()),
            Self::Aside => Ok(Moment::now()),
            Self::Apart(line) => {
                Line::say(&Said::Reached(mark))?;
                match line.wait(meanwhile)? {
                    Told::Go(moment) => Ok(moment),
                    Told::Published(_) => Err(io::ErrorKind::InvalidData.into()),
                }
            }
        }
    }

    /// Makes known how many messages were published to the topic that all share, by whoever does that.
    pub(crate) fn agree(&mut self, published: Option<u64>, meanwhile: Meanwhile<'_>) -> io::Result<u64> {
        match self {
            Self::Alone(_) | Self::Aside => Ok(published.unwrap_or(0)),
            Self::Apart(line) => {
                Line::say(&Said::Published(published))?;
                match line.wait(meanwhile)? {
                    Told::Published(published) => Ok(published),
                    Told::Go(_) => Err(io::ErrorKind::InvalidData.into()),
                }
            }
        }
    }

    /// Shows how things are, now and then.
    pub(crate) fn tick(&mut self, live: impl FnOnce() -> Live) -> io::Result<()> {
        match self {
            Self::Alone(observer) => observer.tick(live),
            Self::Aside => Ok(()),
            Self::Apart(line) if Moment::now().since(line.last_live) < TICK => Ok(()),
            Self::Apart(line) => {
                line.last_live = Moment::now();
                Line::say(&Said::Live(live()))
            }
        }
    }

    /// What was seen, if this is the one who looks.
    pub(crate) fn finish(self) -> Option<Sighting> {
        match self {
            Self::Alone(observer) => Some(observer.finish()),
            Self::Apart(_) | Self::Aside => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_even_and_leave_nobody_out() {
        for (total, count) in [(10, 3), (2, 3), (19_000, 7), (0, 2)] {
            let shares = (0..count).map(|index| Shard { index, count }.share(total));
            let lens: Vec<_> = shares.clone().map(|share| share.len()).collect();
            assert!(lens.iter().max().unwrap() - lens.iter().min().unwrap() <= 1, "{lens:?}");
            assert!(shares.flatten().eq(0..total));
        }
    }

    #[test]
    fn a_place_is_within_the_number_of_processes() {
        assert_eq!("1/3".parse(), Ok(Shard { index: 1, count: 3 }));
        for wrong in ["3/3", "1", "a/b", ""] {
            assert!(wrong.parse::<Shard>().is_err(), "{wrong}");
        }
    }
}
