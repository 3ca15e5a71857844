//! Log lines on their way to stderr: they wait in memory, and a thread of their own writes them.
//!
//! Whoever logs never waits for what is behind stderr: a pipe that nobody reads, a full disk. Lines that find no
//! room, or cannot be written, are lost and counted; as soon as lines are written again, one says how many are
//! missing. A plain buffer instead of a queue of lines: what has gathered is written at once.

use std::io::{self, ErrorKind, Write};
use std::mem;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// How much may wait to be written; as much again may be on its way into a pipe that is stuck.
const WAITING_BYTES_MAX: usize = 4 << 20;
/// How long to leave alone what somebody else has made non-blocking and takes nothing now.
const RETRY_AFTER: Duration = Duration::from_millis(10);

/// Lines of one log.
#[derive(Debug)]
pub(super) struct Lines {
    state: Mutex<State>,
    has_come: Condvar,
    is_idle: Condvar,
}

#[derive(Debug)]
struct State {
    waiting: Vec<u8>,
    is_writing: bool,
    /// Lines, since the start.
    lost: u64,
    /// How many of them the log has told of.
    lost_told: u64,
}

/// Where one line is written to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line(&'static Lines);

/// What writes lines out.
#[derive(Debug)]
pub(super) struct Writer<W> {
    out: W,
    /// Whether the last line that was written is not whole.
    is_torn: bool,
}

impl Lines {
    pub(super) const fn new() -> Self {
        Self {
            state: Mutex::new(State { waiting: Vec::new(), is_writing: false, lost: 0, lost_told: 0 }),
            has_come: Condvar::new(),
            is_idle: Condvar::new(),
        }
    }

    /// Lines lost since the start.
    pub(super) fn lost(&self) -> u64 {
        self.state().lost
    }

    /// Waits until everything is written, or for so long.
    pub(super) fn flush(&self, patience: Duration) {
        let is_busy = |state: &mut State| state.is_writing || !state.waiting.is_empty();
        // What is not written by then is lost with the process.
        drop(self.is_idle.wait_timeout_while(self.state(), patience, is_busy));
    }

    /// Adds a line, its line break included.
    fn add(&self, line: &[u8]) {
        let mut state = self.state();
        if state.waiting.len() + line.len() > WAITING_BYTES_MAX {
            state.lost += 1;
            return;
        }
        // Otherwise the writer knows already.
        let is_first = state.waiting.is_empty();
        state.waiting.extend_from_slice(line);
        drop(state);
        if is_first {
            self.has_come.notify_one();
        }
    }

    /// Waits for lines and takes all of them.
    fn take(&self) -> Vec<u8> {
        let is_empty = |state: &mut State| state.waiting.is_empty();
        let waited = self.has_come.wait_while(self.state(), is_empty);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        state.is_writing = true;
        mem::take(&mut state.waiting)
    }

    /// What was taken is written but for so many lines. Says how many are lost that nobody was told of, if now is the
    /// time to tell.
    fn written(&self, lost: u64) -> Option<u64> {
        let mut state = self.state();
        state.is_writing = false;
        state.lost += lost;
        if state.waiting.is_empty() {
            self.is_idle.notify_all();
        }
        let untold = state.lost - state.lost_told;
        if lost > 0 || untold == 0 {
            return None;
        }
        state.lost_told = state.lost;
        Some(untold)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<W: Write> Writer<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out, is_torn: false }
    }

    /// Writes what `lines` has; waits for some if there are none. Says how many lines are missing before the next, if it
    /// was not said before and they can be told of.
    pub(super) fn pass_on(&mut self, lines: &Lines) -> Option<u64> {
        let taken = lines.take();
        if self.is_torn {
            self.write(b"\n");
        }
        let rest = self.write(&taken);
        let lost = rest.iter().filter(|byte| **byte == b'\n').count();
        lines.written(lost as u64)
    }

    /// Writes as much as it can, and says what is left.
    fn write<'b>(&mut self, mut bytes: &'b [u8]) -> &'b [u8] {
        while !bytes.is_empty() {
            match self.out.write(bytes) {
                Ok(0) => break,
                Ok(count) => {
                    self.is_torn = bytes[count - 1] != b'\n';
                    bytes = &bytes[count..];
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(RETRY_AFTER),
                Err(_) => break,
            }
        }
        bytes
    }
}

impl Line {
    /// Where the lines of `lines` are written to.
    pub(super) const fn of(lines: &'static Lines) -> Self {
        Self(lines)
    }
}

impl io::Write for Line {
    /// Takes a whole line, as the formatter hands it over.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.add(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Line {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        *self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk with room for so many bytes.
    struct Disk {
        written: Vec<u8>,
        room: usize,
    }

    impl Write for &mut Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.room == 0 {
                return Err(ErrorKind::StorageFull.into());
            }
            let count = bytes.len().min(self.room);
            self.room -= count;
            self.written.extend_from_slice(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_does_not_fit_is_lost_and_told_of_once() {
        let lines = Lines::new();
        let long = [vec![b'x'; WAITING_BYTES_MAX / 2 - 1], vec![b'\n']].concat();
        for _ in 0..5 {
            lines.add(&long);
        }
        assert_eq!(lines.lost(), 3);
        let mut disk = Disk { written: Vec::new(), room: usize::MAX };
        let mut writer = Writer::new(&mut disk);
        assert_eq!(writer.pass_on(&lines), Some(3));
        lines.add(b"there is room again\n");
        assert_eq!(writer.pass_on(&lines), None);
        assert_eq!(lines.lost(), 3);
        assert_eq!(disk.written.len(), WAITING_BYTES_MAX + 20);
    }

    #[test]
    fn a_full_disk_costs_lines_and_what_follows_begins_a_line_of_its_own() {
        let lines = Lines::new();
        let mut disk = Disk { written: Vec::new(), room: 8 };
        let said = |disk: &mut Disk, words: &[u8]| {
            lines.add(words);
            Writer { is_torn: !disk.written.is_empty() && !disk.written.ends_with(b"\n"), out: disk }
                .pass_on(&lines)
        };
        assert_eq!(said(&mut disk, b"whole\ntorn\n"), None, "nobody could read it now");
        assert_eq!(said(&mut disk, b"lost\n"), None);
        assert_eq!(lines.lost(), 2);
        disk.room = usize::MAX;
        assert_eq!(said(&mut disk, b"back\n"), Some(2));
        assert_eq!(disk.written, b"whole\nto\nback\n");
    }

    #[test]
    fn a_flush_waits_until_all_is_written_and_no_longer_than_its_patience() {
        static LINES: Lines = Lines::new();
        LINES.flush(Duration::MAX);
        LINES.add(b"nobody writes\n");
        LINES.flush(Duration::from_millis(1));
        assert!(!LINES.state().waiting.is_empty());
        let writing = thread::spawn(|| Writer::new(io::sink()).pass_on(&LINES));
        LINES.flush(Duration::MAX);
        assert!(LINES.state().waiting.is_empty() && !LINES.state().is_writing);
        assert_eq!(writing.join().unwrap(), None);
    }
}
