//! Some topics are busier than others: the one in place k is chosen in proportion to 1/k^skew (Zipf's law).

use rand::Rng;

/// A weighted choice among numbered things.
#[derive(Debug)]
pub(crate) struct Zipf {
    /// The sum of the weights up to and including each.
    cumulated: Vec<f64>,
}

impl Zipf {
    /// A choice among `count` things; a `skew` of 0 makes all equal, 1 is Zipf's own.
    pub(crate) fn new(count: usize, skew: f64) -> Self {
        let weights = (1..=count).map(|place| (place as f64).powf(-skew));
        let cumulated = weights.scan(0.0, |sum, weight| {
            *sum += weight;
            Some(*sum)
        });
        Self { cumulated: cumulated.collect() }
    }

    /// One of the things.
    pub(crate) fn sample(&self, random: &mut impl Rng) -> usize {
        self.at(random.random())
    }

    /// The thing at `share` (from 0 up to 1) of all the weight.
    fn at(&self, share: f64) -> usize {
        let sought = share * self.cumulated.last().expect("there is something to choose");
        self.cumulated.partition_point(|&sum| sum <= sought).min(self.cumulated.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often each of three is chosen in 11,000 evenly spread draws.
    fn chosen(skew: f64) -> [u32; 3] {
        let (zipf, mut chosen) = (Zipf::new(3, skew), [0; 3]);
        (0..11_000).for_each(|draw| chosen[zipf.at((f64::from(draw) + 0.5) / 11_000.0)] += 1);
        chosen
    }

    #[test]
    fn the_second_is_half_as_busy_as_the_first_and_the_third_a_third() {
        assert_eq!(chosen(1.0), [6_000, 3_000, 2_000]);
    }

    #[test]
    fn without_skew_all_are_equal() {
        let [least, most] = [chosen(0.0).into_iter().min(), chosen(0.0).into_iter().max()];
        assert!(most.unwrap() - least.unwrap() <= 1);
    }

    #[test]
    fn the_ends_of_the_range_are_in_it() {
        assert_eq!((Zipf::new(5, 1.0).at(0.0), Zipf::new(5, 1.0).at(1.0)), (0, 4));
    }
}
