//! What a run found: figures, and faults that make it fail. A table and a page for people, JSON for programs.

pub(crate) mod figure;
mod gallery;
mod html;
mod plot;
pub(crate) mod section;
mod table;
mod unit;

use serde_json::{Map, Value, json};

pub(crate) use self::figure::Figure;
pub(crate) use self::html::page;
pub(crate) use self::unit::Unit;
use crate::expect::{Checked, Expectation};
use crate::process::Reading;
use crate::wall::Wall;

/// The result of one scenario.
#[derive(Debug)]
pub(crate) struct Report {
    scenario: &'static str,
    figures: Vec<(&'static Figure, f64)>,
    faults: Vec<String>,
    /// What was in the way of more, where that can be told.
    wall: Option<Wall>,
    /// What else must be said.
    notes: Vec<String>,
    expectations: Vec<Expectation>,
}

impl Report {
    /// An empty report.
    pub(crate) fn new(scenario: &'static str, expectations: Vec<Expectation>) -> Self {
        let (figures, faults, notes) = (Vec::new(), Vec::new(), Vec::new());
        Self { scenario, figures, faults, wall: None, notes, expectations }
    }

    /// Adds a figure, or says anew what it is. A share among none is left out.
    pub(crate) fn figure(&mut self, figure: &'static Figure, value: f64) {
        if !value.is_finite() {
            return;
        }
        match self.figures.iter_mut().find(|(known, _)| *known == figure) {
            Some((_, known)) => *known = value,
            None => self.figures.push((figure, value)),
        }
    }

    /// Adds how busy a process was between two readings, where there are any.
    pub(crate) fn busy(&mut self, figure: &'static Figure, readings: Option<(Reading, Reading)>) {
        self.measure(figure, readings, |before, after| {
            let (cpu, wall) = after.since(before);
            100.0 * cpu.div_duration_f64(wall)
        });
    }

    /// Adds the CPU time between two readings for each of `count`, where there are any, in microseconds.
    pub(crate) fn cpu_per(
        &mut self,
        figure: &'static Figure,
        readings: Option<(Reading, Reading)>,
        count: f64,
    ) {
        self.measure(figure, readings, |before, after| after.since(before).0.as_secs_f64() * 1e6 / count);
    }

    /// Adds the growth of resident memory between two readings for each of `count`, where there are any.
    pub(crate) fn resident_per(
        &mut self,
        figure: &'static Figure,
        readings: Option<(Reading, Reading)>,
        count: f64,
    ) {
        self.measure(figure, readings, |before, after| {
            (after.resident_bytes as f64 - before.resident_bytes as f64) / 1024.0 / count
        });
    }

    /// Adds what two readings amount to, where there are any.
    fn measure(
        &mut self,
        figure: &'static Figure,
        readings: Option<(Reading, Reading)>,
        amount: impl FnOnce(&Reading, &Reading) -> f64,
    ) {
        if let Some((before, after)) = readings {
            self.figure(figure, amount(&before, &after));
        }
    }

    /// Adds something that must not happen.
    pub(crate) fn fault(&mut self, fault: String) {
        self.faults.push(fault);
    }

    /// Adds something that people should know.
    pub(crate) fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    /// Says what was in the way of more.
    pub(crate) fn set_wall(&mut self, wall: Option<Wall>) {
        self.wall = wall;
    }

    /// What was found of `key`.
    pub(crate) fn value(&self, key: &str) -> Option<f64> {
        self.figures.iter().find(|(figure, _)| figure.key == key).map(|(_, value)| *value)
    }

    /// The expectations, with what was found.
    pub(crate) fn checked(&self) -> Vec<Checked<'_>> {
        self.expectations.iter().map(|expectation| expectation.check(|key| self.value(key))).collect()
    }

    /// Whether nothing happened that must not, and everything is as expected.
    pub(crate) fn is_clean(&self) -> bool {
        self.faults.is_empty() && self.checked().iter().all(Checked::is_met)
    }

    /// `{"scenario":…,"figures":{key:value},"faults":[…],"expectations":[…],"wall":…,"notes":[…]}`.
    pub(crate) fn json(&self) -> Value {
        let figures: Map<_, _> =
            self.figures.iter().map(|(figure, value)| (figure.key.to_owned(), (*value).into())).collect();
        let expectations: Vec<_> = self
            .checked()
            .iter()
            .map(|checked| json!({"expected": checked.text(), "found": checked.found(), "met": checked.is_met()}))
            .collect();
        json!({
            "scenario": self.scenario,
            "figures": figures,
            "faults": self.faults,
            "expectations": expectations,
            "wall": self.wall.as_ref().map(ToString::to_string),
            "notes": self.notes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(expectation: &str) -> Report {
        let known = [&figure::SOCKETS, &figure::CPU_PER_FRAME];
        let expectation = Expectation::parse(expectation, "floor", &known).unwrap();
        let mut report = Report::new("floor", vec![expectation]);
        report.figure(&figure::SOCKETS, 1000.0);
        report.figure(&figure::CPU_PER_FRAME, 4.125);
        report
    }

    #[test]
    fn a_report_reads_well_for_people_and_for_programs() {
        let mut report = report("cpu_per_frame<5us");
        assert!(report.is_clean());
        report.fault("one message was lost".to_owned());
        assert!(!report.is_clean());
        let table = "floor\n\
                     \x20 sockets               1,000\n\
                     \x20 CPU per frame          4.12 µs\n\
                     \x20 expected cpu_per_frame<5us, found 4.12 µs: met\n\
                     \x20 FAULT: one message was lost\n";
        assert_eq!(report.to_string(), table);
        let json = report.json();
        assert_eq!(json["scenario"], "floor");
        assert_eq!(json["figures"], json!({"cpu_per_frame_us": 4.125, "sockets": 1000.0}));
        assert_eq!(json["faults"], json!(["one message was lost"]));
        assert_eq!(json["expectations"][0]["met"], true);
    }

    #[test]
    fn an_expectation_that_is_not_met_makes_the_run_fail() {
        let report = report("sockets>1000");
        assert!(!report.is_clean());
        assert!(report.to_string().contains("expected sockets>1000, found 1,000: FAILED"));
    }

    #[test]
    fn a_share_among_none_is_no_figure() {
        let reading =
            Reading { at: crate::clock::Moment(1), cpu: std::time::Duration::ZERO, resident_bytes: 0 };
        let mut report = Report::new("idle", Vec::new());
        report.cpu_per(&figure::CPU_PER_ACCEPT, Some((reading, reading)), 0.0);
        assert_eq!(report.value("cpu_per_accept_us"), None);
    }
}
