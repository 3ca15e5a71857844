//! Wakes the epoll loop to the microsecond.
//!
//! An epoll timeout counts milliseconds, which is longer than a message may take.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

use crate::clock::Moment;

/// A timer in the kernel.
#[derive(Debug)]
pub(crate) struct Alarm {
    timer: OwnedFd,
}

impl Alarm {
    /// A timer that makes `registry` report `token`.
    pub(crate) fn new(registry: &Registry, token: Token) -> io::Result<Self> {
        let timer =
            timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        registry.register(&mut SourceFd(&timer.as_raw_fd()), token, Interest::READABLE)?;
        Ok(Self { timer })
    }

    /// Goes off once, at `at` or, if that has passed, now.
    pub(crate) fn set(&self, Moment(at): Moment) -> io::Result<()> {
        let at = Timespec { tv_sec: (at / 1_000_000_000) as i64, tv_nsec: (at % 1_000_000_000) as i64 };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: at };
        // Being set again makes it ready again; that it was never read does not matter.
        timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &once)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mio::{Events, Poll};

    use super::*;

    #[test]
    fn it_goes_off_whenever_it_is_set() {
        let (mut poll, mut events) = (Poll::new().unwrap(), Events::with_capacity(8));
        let alarm = Alarm::new(poll.registry(), Token(7)).unwrap();
        for _ in 0..3 {
            let at = Moment::now() + Duration::from_micros(300);
            alarm.set(at).unwrap();
            poll.poll(&mut events, Some(Duration::from_secs(60))).unwrap();
            assert!(Moment::now() >= at);
            assert_eq!(events.iter().map(mio::event::Event::token).collect::<Vec<_>>(), [Token(7)]);
        }
    }
}
