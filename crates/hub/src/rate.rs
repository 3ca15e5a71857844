//! How fast one session sends: a leaky bucket in eight bytes (the generic cell rate algorithm).

use std::time::Duration;

use crate::{HubLimits, Moment};

/// So many topics in one command count as one command more: each costs every part of the road, Redis included.
const TOPICS_PER_COMMAND: u32 = 16;

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

    /// Counts the topics that an allowed command names. Those that follow pay for them.
    pub(crate) fn count_topics(&mut self, topics: usize, limits: &HubLimits) {
        let more = u32::try_from(topics).unwrap_or(u32::MAX) / TOPICS_PER_COMMAND;
        self.0 = self.0 + Duration::from_secs(1) / limits.commands_per_second * more;
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

    #[test]
    fn many_topics_count_as_more_commands() {
        let limits = HubLimits { commands_per_second: 10, commands_burst: 10, ..HubLimits::default() };
        let now = Moment::at(Duration::from_secs(1));
        for (topics, left) in [(0, 9), (15, 9), (16, 8), (128, 1), (144, 0), (10_000, 0)] {
            let mut rate = CommandRate::default();
            assert!(rate.allow(now, &limits));
            rate.count_topics(topics, &limits);
            let allowed = (0..20).filter(|_| rate.allow(now, &limits)).count();
            assert_eq!(allowed, left, "after {topics} topics");
        }
    }
}
