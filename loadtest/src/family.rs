//! Several processes as one run: starts them, keeps them in step, and joins what they found.

use std::collections::VecDeque;
use std::env;
use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;

use crate::clock::Moment;
use crate::conductor::{Said, Told};
use crate::observer::{Live, Mark, Observer, Sighting, TICK};
use crate::options::GatewayArgs;
use crate::outcome::Outcome;

/// The processes of a run. They end with it.
struct Family {
    children: Vec<Child>,
    heard: Receiver<(usize, io::Result<Said>)>,
    live: Vec<Live>,
    /// What each has said that is not answered yet.
    unanswered: Vec<VecDeque<Said>>,
    outcomes: Vec<Option<Outcome>>,
}

/// Runs the present command in as many processes as it asks for.
pub(crate) fn run(args: &GatewayArgs, run: u64) -> io::Result<(Outcome, Sighting)> {
    let mut family = Family::start(args.processes as usize, run)?;
    let pids: Vec<_> = family.children.iter().map(Child::id).collect();
    let mut observer = Observer::new(&args.server_pids, &pids, &args.admin);
    while !family.outcomes.iter().all(Option::is_some) {
        family.listen()?;
        family.answer(&mut observer)?;
        observer.tick(|| family.live_together())?;
    }
    let outcomes = std::mem::take(&mut family.outcomes).into_iter().flatten();
    let joined = outcomes.reduce(|mut joined, outcome| {
        joined.join(outcome);
        joined
    });
    Ok((joined.unwrap_or_default(), observer.finish()))
}

impl Family {
    fn start(count: usize, run: u64) -> io::Result<Self> {
        let (tell, heard) = channel();
        let mut family = Self {
            children: Vec::new(),
            heard,
            live: vec![Live::default(); count],
            unanswered: (0..count).map(|_| VecDeque::new()).collect(),
            outcomes: (0..count).map(|_| None).collect(),
        };
        for index in 0..count {
            let mut child = Command::new(env::current_exe()?)
                .args(env::args_os().skip(1))
                .args(["--shard", &format!("{index}/{count}"), "--run", &run.to_string()])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()?;
            let stdout = child.stdout.take().expect("it is piped");
            family.children.push(child);
            let tell = tell.clone();
            thread::Builder::new()
                .name(format!("shard {index}"))
                .spawn(move || relay(index, stdout, &tell))?;
        }
        Ok(family)
    }

    /// Waits for somebody to say something, but not for long.
    fn listen(&mut self) -> io::Result<()> {
        let (index, said) = match self.heard.recv_timeout(TICK) {
            Ok(heard) => heard,
            Err(RecvTimeoutError::Timeout) => return Ok(()),
            Err(RecvTimeoutError::Disconnected) => return Err(io::Error::other("every process has ended")),
        };
        match said? {
            Said::Live(live) => self.live[index] = live,
            Said::Done(outcome) => self.outcomes[index] = Some(*outcome),
            Said::Failed(reason) => return Err(io::Error::other(reason)),
            said @ (Said::Reached(_) | Said::Published(_)) => self.unanswered[index].push_back(said),
        }
        Ok(())
    }

    /// Answers what all have said.
    fn answer(&mut self, observer: &mut Observer) -> io::Result<()> {
        if self.unanswered.iter().any(VecDeque::is_empty) {
            return Ok(());
        }
        let said: Vec<_> = self.unanswered.iter_mut().filter_map(VecDeque::pop_front).collect();
        if let Some(marks) = said.iter().map(reached).collect::<Option<Vec<_>>>() {
            if marks.windows(2).any(|pair| pair[0] != pair[1]) {
                return Err(io::Error::other(format!("the processes are out of step: {marks:?}")));
            }
            observer.mark(marks[0])?;
            return self.tell(&Told::Go(Moment::now()));
        }
        let published = said.iter().filter_map(|said| match said {
            Said::Published(published) => *published,
            _ => None,
        });
        self.tell(&Told::Published(published.sum()))
    }

    fn tell(&mut self, told: &Told) -> io::Result<()> {
        let text = serde_json::to_string(told)?;
        self.children.iter_mut().try_for_each(|child| {
            let stdin = child.stdin.as_mut().expect("it is piped");
            writeln!(stdin, "{text}")
        })
    }

    fn live_together(&self) -> Live {
        let mut together = self.live[0].clone();
        for live in &self.live[1..] {
            together.up += live.up;
            together.published += live.published;
            together.delivered += live.delivered;
            together.progress = together.progress.min(live.progress);
        }
        together
    }
}

fn reached(said: &Said) -> Option<Mark> {
    match said {
        Said::Reached(mark) => Some(*mark),
        _ => None,
    }
}

/// Hands over every line of a process, and that it has ended.
fn relay(index: usize, stdout: impl io::Read, tell: &Sender<(usize, io::Result<Said>)>) {
    for line in BufReader::new(stdout).lines() {
        let said = line.and_then(|line| Ok(serde_json::from_str(&line)?));
        let is_last = matches!(said, Ok(Said::Done(_) | Said::Failed(_)) | Err(_));
        if tell.send((index, said)).is_err() || is_last {
            return;
        }
    }
    let _ = tell.send((index, Err(io::Error::other(format!("process {index} ended early")))));
}

impl Drop for Family {
    fn drop(&mut self) {
        for child in &mut self.children {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
