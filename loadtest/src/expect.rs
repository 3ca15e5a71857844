//! What the operator expects of a figure: `lost=0`, `p99<50ms`, `server_rss_mib<=512MiB`.

use std::fmt;

use crate::report::{Figure, Unit};

/// One expectation, in the unit of its figure.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Expectation {
    /// As it was given.
    text: String,
    figure: &'static Figure,
    operator: Operator,
    bound: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Less,
    LessOrEqual,
    Equal,
    GreaterOrEqual,
    Greater,
}

/// Longest first: `<=` starts with `<`.
const OPERATORS: [(&str, Operator); 5] = [
    ("<=", Operator::LessOrEqual),
    (">=", Operator::GreaterOrEqual),
    ("<", Operator::Less),
    (">", Operator::Greater),
    ("=", Operator::Equal),
];

/// Why an expectation cannot be checked.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ExpectError {
    /// Not of the form NAME OPERATOR NUMBER.
    #[error("{0:?} is no expectation such as 'lost=0' or 'p99<50ms'")]
    Form(String),
    /// The scenario has no such figure.
    #[error("{scenario} has no figure {name:?}; it has {known}")]
    UnknownFigure {
        /// The scenario.
        scenario: &'static str,
        /// What was asked for.
        name: String,
        /// What could be asked for.
        known: String,
    },
    /// Milliseconds of memory.
    #[error("in {text:?}, {unit:?} is no unit of {figure}")]
    Unit {
        /// The expectation.
        text: String,
        /// What stands behind its number.
        unit: String,
        /// The figure's name.
        figure: &'static str,
    },
}

/// An expectation and what was found.
#[derive(Debug)]
pub(crate) struct Checked<'a> {
    expectation: &'a Expectation,
    found: Option<f64>,
}

impl Expectation {
    /// Reads `text`, for a scenario that has the figures `known`.
    pub(crate) fn parse(
        text: &str,
        scenario: &'static str,
        known: &[&'static Figure],
    ) -> Result<Self, ExpectError> {
        let form = || ExpectError::Form(text.to_owned());
        let found = OPERATORS.iter().find_map(|(sign, operator)| Some((text.split_once(sign)?, *operator)));
        let ((name, value), operator) = found.ok_or_else(form)?;
        let name = name.trim();
        let figure = known.iter().find(|figure| figure.is_called(name));
        let figure = figure.ok_or_else(|| ExpectError::UnknownFigure {
            scenario,
            name: name.to_owned(),
            known: known.iter().map(|figure| figure.name()).collect::<Vec<_>>().join(", "),
        })?;
        let value = value.trim();
        let unit_at =
            value.find(|char: char| !matches!(char, '0'..='9' | '.' | '-' | '_')).unwrap_or(value.len());
        let (number, unit) = value.split_at(unit_at);
        let number: f64 = number.replace('_', "").parse().map_err(|_| form())?;
        let factor = factor(unit.trim(), figure.unit).ok_or_else(|| ExpectError::Unit {
            text: text.to_owned(),
            unit: unit.trim().to_owned(),
            figure: figure.name(),
        })?;
        Ok(Self { text: text.to_owned(), figure, operator, bound: number * factor })
    }

    /// Compares with what `found` knows of the figure.
    pub(crate) fn check(&self, found: impl Fn(&'static str) -> Option<f64>) -> Checked<'_> {
        Checked { expectation: self, found: found(self.figure.key) }
    }
}

/// What `unit` has to be multiplied by to become `wanted`; a bare number is in that already.
fn factor(unit: &str, wanted: Unit) -> Option<f64> {
    let (Some(scale), false) = (wanted.scale(), unit.is_empty()) else {
        return (unit.is_empty() || unit == wanted.sign()).then_some(1.0);
    };
    let given = Unit::SCALES.iter().find(|(sign, _)| *sign == unit)?.1;
    (given.0 == scale.0).then_some(given.1 / scale.1)
}

impl Checked<'_> {
    /// Whether it is as expected. What was not measured is not.
    pub(crate) fn is_met(&self) -> bool {
        let (bound, operator) = (self.expectation.bound, self.expectation.operator);
        self.found.is_some_and(|found| match operator {
            Operator::Less => found < bound,
            Operator::LessOrEqual => found <= bound,
            Operator::Equal => found == bound,
            Operator::GreaterOrEqual => found >= bound,
            Operator::Greater => found > bound,
        })
    }

    /// As it was given.
    pub(crate) fn text(&self) -> &str {
        &self.expectation.text
    }

    /// The value, with its unit.
    pub(crate) fn found(&self) -> String {
        let figure = self.expectation.figure;
        self.found.map_or_else(|| "not measured".to_owned(), |found| figure.unit.display(found))
    }
}

impl fmt::Display for Checked<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outcome = if self.is_met() { "met" } else { "FAILED" };
        write!(f, "expected {}, found {}: {outcome}", self.text(), self.found())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static P99: Figure = Figure { key: "p99_ms", label: "99 %", unit: Unit::Millis };
    static LOST: Figure = Figure { key: "lost", label: "lost", unit: Unit::Count };
    static RATE: Figure = Figure { key: "deliveries_per_second", label: "rate", unit: Unit::PerSecond };
    static MEMORY: Figure = Figure { key: "server_rss_mib", label: "memory", unit: Unit::MiB };

    fn parse(text: &str) -> Result<Expectation, ExpectError> {
        Expectation::parse(text, "fanout", &[&P99, &LOST, &RATE, &MEMORY])
    }

    #[track_caller]
    fn is_met(text: &str, found: f64) -> bool {
        parse(text).unwrap().check(|_| Some(found)).is_met()
    }

    #[test]
    fn units_are_those_of_the_figure_or_are_converted() {
        assert!(is_met("p99<50ms", 49.9) && !is_met("p99<50ms", 50.0));
        assert!(is_met("p99_ms <= 50", 50.0) && !is_met("p99<=0.05s", 50.1));
        assert!(is_met("p99 > 900us", 1.0) && is_met("p99>900µs", 1.0) && is_met("p99>1ns", 1.0));
        assert!(is_met("server_rss<=1GiB", 1024.0) && !is_met("server_rss<512KiB", 1.0));
        assert!(is_met("lost=0", 0.0) && !is_met("lost = 0", 1.0));
        assert!(is_met("deliveries_per_second>=1_000_000", 1e6) && is_met("deliveries_per_second>9/s", 10.0));
    }

    #[test]
    fn what_was_not_measured_is_not_met() {
        let expectation = parse("p99<50ms").unwrap();
        let checked = expectation.check(|_| None);
        assert_eq!(checked.to_string(), "expected p99<50ms, found not measured: FAILED");
    }

    #[test]
    fn an_outcome_says_what_was_expected_and_found() {
        let expectation = parse("lost=0").unwrap();
        assert_eq!(expectation.check(|_| Some(3.0)).to_string(), "expected lost=0, found 3: FAILED");
        assert_eq!(expectation.check(|_| Some(0.0)).to_string(), "expected lost=0, found 0: met");
    }

    #[test]
    fn an_unknown_figure_is_answered_with_those_there_are() {
        let error = parse("loss=0").unwrap_err().to_string();
        assert_eq!(
            error,
            "fanout has no figure \"loss\"; it has p99, lost, deliveries_per_second, server_rss"
        );
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["lost", "lost=", "lost=none", "p99<", "p99<ms", "=3"] {
            assert!(parse(text).is_err(), "{text}");
        }
        for text in ["p99<50MiB", "lost=0ms", "server_rss<1s", "p99<50weeks"] {
            assert!(matches!(parse(text), Err(ExpectError::Unit { .. })), "{text}");
        }
    }
}
