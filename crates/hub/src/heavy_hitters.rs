//! The largest counts of a stream of names, in a memory of fixed size: for what has no entry of its own to be counted
//! in, because it is over when it is counted, or a stranger.
//!
//! This is Space-Saving: A. Metwally, D. Agrawal, A. El Abbadi, *Efficient Computation of Frequent and Top-k Elements
//! in Data Streams*, ICDT 2005. A name that finds no room takes the place of the smallest count and goes on from it. So
//! no count is too low, none is too high by more than a [`ENTRIES`]th of all that was counted, and whatever has a larger
//! share than that is there.

/// How many names are remembered.
pub(crate) const ENTRIES: usize = 128;

/// Counts by name.
#[derive(Debug, Default)]
pub(crate) struct HeavyHitters {
    entries: Vec<(Box<str>, u64)>,
}

impl HeavyHitters {
    /// Counts `count` more for `name`. Looks at every entry.
    pub(crate) fn add(&mut self, name: &str, count: u64) {
        if count == 0 {
            return;
        }
        if let Some((_, known)) = self.entries.iter_mut().find(|(known, _)| **known == *name) {
            *known += count;
        } else if self.entries.len() < ENTRIES {
            self.entries.push((name.into(), count));
        } else if let Some(smallest) = self.entries.iter_mut().min_by_key(|(_, count)| *count) {
            *smallest = (name.into(), smallest.1 + count);
        }
    }

    /// All that is remembered, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.entries.iter().map(|(name, count)| (&**name, *count))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    #[test]
    fn few_names_are_counted_exactly() {
        let mut hitters = HeavyHitters::default();
        for (name, count) in [("a", 1), ("b", 7), ("a", 2), ("c", 0)] {
            hitters.add(name, count);
        }
        let mut counts: Vec<(&str, u64)> = hitters.iter().collect();
        counts.sort_unstable();
        assert_eq!(counts, [("a", 3), ("b", 7)]);
    }

    #[test]
    fn of_many_names_those_with_a_share_are_there_and_no_count_is_far_off() {
        let seed = rand::random();
        let mut random = StdRng::seed_from_u64(seed);
        let (mut hitters, mut counts, mut total) = (HeavyHitters::default(), HashMap::new(), 0);
        for _ in 0..100_000 {
            // A few names come often, most hardly ever.
            let name = random.random_range(1e-5..1.0_f64).powi(-2) as u64;
            let count = random.random_range(1..5);
            hitters.add(&name.to_string(), count);
            *counts.entry(name.to_string()).or_insert(0) += count;
            total += count;
        }
        assert!(counts.len() > 10 * ENTRIES, "seed {seed}");
        let error_max = total / ENTRIES as u64;
        let told: HashMap<&str, u64> = hitters.iter().collect();
        assert_eq!(told.len(), ENTRIES, "seed {seed}");
        for (name, count) in &told {
            assert!(
                (counts[*name]..=counts[*name] + error_max).contains(count),
                "seed {seed}: {name} {count}"
            );
        }
        let mut large = counts.iter().filter(|(_, count)| **count > error_max).peekable();
        assert!(large.peek().is_some(), "seed {seed}");
        assert!(large.all(|(name, _)| told.contains_key(&**name)), "seed {seed}");
    }
}
