//! How fast one session sends: a leaky bucket in eight bytes (the generic cell rate algorithm).

use std::time::Duration;

use crate::{HubLimits, Moment};

/// When the bucket will have run dry.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CommandRate(Moment);

impl CommandRate {
    /// Counts one command, unless it comes too soon after the ones before it.
    pub(crate) fn allow(&mut self, now: Moment, limits: &HubLimits) -> bool {
        let each = Duration::from_secs(1) / limits.commands_per_second;
        let dry_at = self.0.max(now);
        let is_allowed = dry_at.since(now) <= each * (limits.commands_burst - 1);
        if is_allowed {
            self.0 = dry_at + each;
        }
        is_allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_allowed_and_then_the_rate() {
        let limits = HubLimits { commands_per_second: 10, commands_burst: 3, ..HubLimits::default() };
        let mut rate = CommandRate::default();
        let at = |ms| Moment::at(Duration::from_millis(ms));
        let allowed: Vec<u64> = (0..=1000).step_by(50).filter(|&ms| rate.allow(at(ms), &limits)).collect();
        // Three at once would be spent by 100 ms; from there on one every 100 ms.
        assert_eq!(allowed[..4], [0, 50, 100, 150]);
        assert_eq!(allowed.len(), 3 + 10);
    }
}
