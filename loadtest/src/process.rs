//! What a process on this machine costs, as the kernel counts it.
//!
//! CPU time comes from the scheduler's own books (`/proc/PID/task/*/schedstat`): nanoseconds, where
//! `/proc/PID/stat` counts in hundredths of a second and an idle gateway uses less than that in a second.

use std::collections::BTreeMap;
use std::time::Duration;
use std::{fs, io};

use crate::clock::Moment;

/// A process that is being watched.
#[derive(Debug)]
pub(crate) struct Process {
    directory: String,
    /// Nanoseconds by thread. A thread that has ended keeps what it was last seen with.
    cpu_nanos: BTreeMap<String, u64>,
}

/// One look at a process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    /// When.
    pub(crate) at: Moment,
    /// CPU time of all threads since the process began.
    pub(crate) cpu: Duration,
    /// Memory in use, without what the kernel holds for its sockets.
    pub(crate) resident_bytes: u64,
}

impl Process {
    /// The process with this id.
    pub(crate) fn new(pid: u32) -> Self {
        Self { directory: format!("/proc/{pid}"), cpu_nanos: BTreeMap::new() }
    }

    /// Looks at it now.
    ///
    /// # Errors
    /// The process has ended, or belongs to somebody else.
    pub(crate) fn read(&mut self) -> io::Result<Reading> {
        let resident_bytes = self.resident_bytes()?;
        self.read_as(resident_bytes)
    }

    /// The same in a tenth of the time, and without holding the process up; memory is right to 64 pages per CPU.
    pub(crate) fn glance(&mut self) -> io::Result<Reading> {
        let statm = fs::read_to_string(format!("{}/statm", self.directory))?;
        let pages: u64 = statm.split(' ').nth(1).and_then(first_number).ok_or(io::ErrorKind::InvalidData)?;
        self.read_as(pages * rustix::param::page_size() as u64)
    }

    fn read_as(&mut self, resident_bytes: u64) -> io::Result<Reading> {
        self.read_cpu()?;
        let cpu = Duration::from_nanos(self.cpu_nanos.values().sum());
        Ok(Reading { at: Moment::now(), cpu, resident_bytes })
    }

    fn read_cpu(&mut self) -> io::Result<()> {
        for thread in fs::read_dir(format!("{}/task", self.directory))? {
            let thread = thread?;
            // A thread may end between being listed and being read.
            let Ok(schedstat) = fs::read_to_string(thread.path().join("schedstat")) else { continue };
            let nanos = first_number(&schedstat).ok_or(io::ErrorKind::InvalidData)?;
            self.cpu_nanos.insert(thread.file_name().to_string_lossy().into_owned(), nanos);
        }
        Ok(())
    }

    /// From the page tables: `/proc/PID/statm` is off by up to 64 pages per CPU.
    fn resident_bytes(&self) -> io::Result<u64> {
        let rollup = fs::read_to_string(format!("{}/smaps_rollup", self.directory))?;
        let kib = rollup.lines().find_map(|line| line.strip_prefix("Rss:")).and_then(first_number);
        Ok(kib.ok_or(io::ErrorKind::InvalidData)? * 1024)
    }
}

impl Reading {
    /// Several processes as one.
    pub(crate) fn sum(readings: impl IntoIterator<Item = Self>) -> Option<Self> {
        readings.into_iter().reduce(|sum, reading| Self {
            at: reading.at,
            cpu: sum.cpu + reading.cpu,
            resident_bytes: sum.resident_bytes + reading.resident_bytes,
        })
    }

    /// CPU time and wall time since `earlier`.
    pub(crate) fn since(&self, earlier: &Self) -> (Duration, Duration) {
        (self.cpu.saturating_sub(earlier.cpu), self.at.since(earlier.at))
    }
}

fn first_number(text: &str) -> Option<u64> {
    text.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn work_in_any_thread_is_counted_even_after_it_ended() {
        let mut process = Process::new(std::process::id());
        let before = process.read().unwrap();
        let (work_done, ask_to_end) = (std::sync::Barrier::new(2), std::sync::Barrier::new(2));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let start = Instant::now();
                while start.elapsed() < Duration::from_millis(50) {
                    std::hint::spin_loop();
                }
                work_done.wait();
                ask_to_end.wait();
            });
            work_done.wait();
            process.read().unwrap();
            ask_to_end.wait();
        });
        let (cpu, wall) = process.read().unwrap().since(&before);
        assert!(cpu >= Duration::from_millis(5), "{cpu:?} of {wall:?}");
    }

    #[test]
    fn memory_that_is_touched_is_resident() {
        let mut process = Process::new(std::process::id());
        let before = process.read().unwrap().resident_bytes;
        let touched = vec![1_u8; 64 << 20];
        let after = process.read().unwrap().resident_bytes;
        assert!(process.glance().unwrap().resident_bytes > before + (32 << 20));
        assert!(after > before + (32 << 20), "{before} then {after} with {} touched", touched.len());
    }

    #[test]
    fn a_process_that_does_not_exist_is_an_error() {
        // The kernel gives no process an id above 2^22.
        assert!(Process::new(1 << 23).read().is_err());
    }
}
