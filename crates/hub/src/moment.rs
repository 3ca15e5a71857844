//! A point in time, as the caller of the hub tells it.

use std::ops::Add;
use std::time::Duration;

/// Microseconds since an instant of the caller's choosing, the same for all calls to one hub. Must not run
/// backwards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(u64);

impl Moment {
    /// A moment that never comes.
    pub const NEVER: Self = Self(u64::MAX);

    /// The moment this long after the beginning.
    pub fn at(since_beginning: Duration) -> Self {
        Self(micros(since_beginning))
    }

    /// How long ago `earlier` was; zero if it is yet to come.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// The moment `ago` before this one, but not before the beginning.
    pub(crate) fn before(self, ago: Duration) -> Self {
        Self(self.0.saturating_sub(micros(ago)))
    }

    /// The last whole second up to this moment.
    pub(crate) fn whole_second(self) -> Self {
        Self(self.0 - self.0 % 1_000_000)
    }

    pub(crate) fn as_micros(self) -> u64 {
        self.0
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    /// Saturates at [`Moment::NEVER`].
    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(micros(duration)))
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
