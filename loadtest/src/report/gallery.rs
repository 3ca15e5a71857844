//! What the plots of a run show.

use std::error::Error;
use std::ops::Range;
use std::time::Duration;

use super::plot::{Line, Scale, bars, lines};
use crate::clock::Moment;
use crate::histogram::Counts;
use crate::observer::{Sample, Sighting};
use crate::outcome::Outcome;
use crate::process::Reading;
use crate::timeline::{Interval, Timeline};

/// Bars of the distribution for each power of ten.
const BARS_PER_DECADE: f64 = 12.0;

/// A drawn plot.
pub(crate) struct Picture {
    /// What it is of.
    pub(crate) title: &'static str,
    /// What each line is, in the order of their colours.
    pub(crate) lines: Vec<&'static str>,
    /// The drawing.
    pub(crate) svg: String,
}

/// What a scenario's intervals count.
struct Words {
    latency: &'static str,
    distribution: &'static str,
    rates: &'static str,
    delivered: &'static str,
    published: &'static str,
}

const MESSAGES: Words = Words {
    latency: "Latency in ms",
    distribution: "Latency in ms: share of all deliveries in %",
    rates: "Messages per second",
    delivered: "delivered",
    published: "published",
};
const UPGRADES: Words = Words {
    latency: "Connect to welcome in ms",
    distribution: "Connect to welcome in ms: share of all upgrades in %",
    rates: "Upgrades per second",
    delivered: "let in",
    published: "begun",
};

/// All plots of a run. What never happened is not drawn.
pub(crate) fn gallery(outcome: &Outcome, seen: &Sighting) -> Result<Vec<Picture>, Box<dyn Error>> {
    let words = if outcome.upgrades > 0 { UPGRADES } else { MESSAGES };
    let (timeline, seconds) = (&outcome.timeline, seconds(&outcome.timeline, seen));
    let mut pictures = Vec::new();
    let mut draw = |title, of: Vec<Line>, scale| -> Result<(), Box<dyn Error>> {
        let of: Vec<_> = of.into_iter().filter(Line::says_something).collect();
        if !of.is_empty() {
            let svg = lines(&of, seconds.clone(), scale)?;
            pictures.push(Picture { title, lines: of.iter().map(|line| line.name).collect(), svg });
        }
        Ok(())
    };
    draw(words.latency, latencies(timeline), Scale::Logarithmic)?;
    draw(words.rates, rates(timeline, &words), Scale::Linear)?;
    draw("Connections", vec![over_time(timeline, "up", |interval| Some(interval.up as f64))], Scale::Linear)?;
    draw("CPU in % of one", processes(timeline, seen, busy), Scale::Linear)?;
    draw("Memory in MiB", processes(timeline, seen, resident), Scale::Linear)?;
    let distribution = distribution(&timeline.latency());
    if !distribution.is_empty() {
        let svg = bars(&distribution)?;
        pictures.insert(1, Picture { title: words.distribution, lines: Vec::new(), svg });
    }
    Ok(pictures)
}

/// Where `at` is on the time axis: counting begins at 0.
fn second(timeline: &Timeline, at: Moment) -> f64 {
    (at.0 as f64 - timeline.start.0 as f64) / 1e9
}

fn seconds(timeline: &Timeline, seen: &Sighting) -> Range<f64> {
    let end = timeline.width.as_secs_f64() * timeline.intervals.len() as f64;
    let seen_at = seen.samples.iter().map(|sample| second(timeline, sample.load.at));
    seen_at.clone().fold(0.0, f64::min)..seen_at.fold(end, f64::max)
}

fn over_time(timeline: &Timeline, name: &'static str, value: impl Fn(&Interval) -> Option<f64>) -> Line {
    let middle = |index: usize| (index as f64 + 0.5) * timeline.width.as_secs_f64();
    let points = timeline.intervals.iter().enumerate();
    Line {
        name,
        points: points.filter_map(|(index, interval)| Some((middle(index), value(interval)?))).collect(),
    }
}

fn latencies(timeline: &Timeline) -> Vec<Line> {
    let line = |name, share| {
        over_time(timeline, name, |interval| Some(1e3 * interval.latency.quantile(share)?.as_secs_f64()))
    };
    vec![line("half", 0.5), line("90 %", 0.9), line("99 %", 0.99), line("longest", 1.0)]
}

/// The last interval is cut short, and would look like an end of the flow.
fn rates(timeline: &Timeline, words: &Words) -> Vec<Line> {
    let whole = timeline.intervals.len().saturating_sub(1).max(1);
    let line = |name, count: fn(&Interval) -> u64| {
        let rate = |interval: &Interval| Some(count(interval) as f64 / timeline.width.as_secs_f64());
        let mut line = over_time(timeline, name, rate);
        line.points.truncate(whole);
        line
    };
    vec![
        line(words.delivered, |interval| interval.delivered),
        line(words.published, |interval| interval.published),
    ]
}

/// What the readings of a process amount to over time.
type Amount = fn(&[Reading]) -> Vec<(Moment, f64)>;

fn processes(timeline: &Timeline, seen: &Sighting, amount: Amount) -> Vec<Line> {
    let line = |name, of: fn(&Sample) -> Option<Reading>| {
        let readings: Vec<_> = seen.samples.iter().filter_map(of).collect();
        let points = amount(&readings).into_iter().map(|(at, value)| (second(timeline, at), value));
        Line { name, points: points.collect() }
    };
    vec![line("load tester", |sample| Some(sample.load)), line("server", |sample| sample.server)]
}

fn busy(readings: &[Reading]) -> Vec<(Moment, f64)> {
    let pairs = readings.windows(2).map(|pair| {
        let (cpu, wall) = pair[1].since(&pair[0]);
        (pair[1].at, 100.0 * cpu.div_duration_f64(wall.max(Duration::from_millis(1))))
    });
    pairs.collect()
}

fn resident(readings: &[Reading]) -> Vec<(Moment, f64)> {
    readings.iter().map(|reading| (reading.at, reading.resident_bytes as f64 / 1_048_576.0)).collect()
}

/// The share of each span of latencies in percent; spans are equally long on a logarithmic scale.
fn distribution(latency: &Counts) -> Vec<(Range<f64>, f64)> {
    let edge = |bar: i32| 10_f64.powf(f64::from(bar) / BARS_PER_DECADE);
    let mut spans: Vec<(i32, u64)> = Vec::new();
    for (duration, count) in latency.iter() {
        let bar = ((duration.as_secs_f64() * 1e3).max(1e-6).log10() * BARS_PER_DECADE).floor() as i32;
        match spans.last_mut() {
            Some((last, total)) if *last == bar => *total += count,
            _ => spans.push((bar, count)),
        }
    }
    let total = latency.total() as f64;
    spans.into_iter().map(|(bar, count)| (edge(bar)..edge(bar + 1), 100.0 * count as f64 / total)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::histogram::Recorder;

    #[test]
    fn a_distribution_adds_up() {
        let mut recorder = Recorder::default();
        (1..=1000).for_each(|millis| recorder.record(Duration::from_millis(millis)));
        let bars = distribution(&recorder.take());
        let sum: f64 = bars.iter().map(|(_, share)| share).sum();
        assert!((sum - 100.0).abs() < 1e-6, "{sum}");
        assert!(bars.windows(2).all(|pair| pair[0].0.end <= pair[1].0.start * 1.000_001));
    }

    #[test]
    fn what_never_happened_is_not_drawn() {
        let quiet = Interval { up: 3, ..Interval::default() };
        let timeline =
            Timeline { width: Duration::from_secs(1), intervals: vec![quiet; 3], ..Timeline::default() };
        let outcome = Outcome { timeline, ..Outcome::default() };
        let titles = gallery(&outcome, &Sighting::default()).unwrap();
        assert_eq!(titles.iter().map(|picture| picture.title).collect::<Vec<_>>(), ["Connections"]);
    }
}
