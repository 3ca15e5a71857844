//! What a run found: figures, and faults that make it fail. A table for people, JSON for programs.

use std::fmt;

use serde_json::{Map, Value};

use crate::process::Reading;

/// The result of one scenario.
#[derive(Debug)]
pub(crate) struct Report {
    scenario: &'static str,
    figures: Vec<Figure>,
    faults: Vec<String>,
}

#[derive(Debug)]
struct Figure {
    /// The JSON name, which ends in the unit.
    key: &'static str,
    label: &'static str,
    value: f64,
    unit: &'static str,
}

impl Report {
    /// An empty report.
    pub(crate) fn new(scenario: &'static str) -> Self {
        Self { scenario, figures: Vec::new(), faults: Vec::new() }
    }

    /// Adds a figure. `key` is its name for programs and ends in the unit.
    pub(crate) fn figure(&mut self, key: &'static str, label: &'static str, value: f64, unit: &'static str) {
        self.figures.push(Figure { key, label, value, unit });
    }

    /// Adds how busy a process was between two readings, where there are any.
    pub(crate) fn busy(
        &mut self,
        key: &'static str,
        label: &'static str,
        readings: Option<(Reading, Reading)>,
    ) {
        if let Some((before, after)) = readings {
            let (cpu, wall) = after.since(&before);
            self.figure(key, label, 100.0 * cpu.div_duration_f64(wall), "%");
        }
    }

    /// Adds the CPU time between two readings for each of `count`, where there are any, in microseconds.
    pub(crate) fn cpu_per(
        &mut self,
        key: &'static str,
        label: &'static str,
        readings: Option<(Reading, Reading)>,
        count: f64,
    ) {
        if let Some((before, after)) = readings {
            self.figure(key, label, after.since(&before).0.as_secs_f64() * 1e6 / count, "µs");
        }
    }

    /// Adds the growth of resident memory between two readings for each of `count`, where there are any.
    pub(crate) fn resident_per(
        &mut self,
        key: &'static str,
        label: &'static str,
        readings: Option<(Reading, Reading)>,
        count: f64,
    ) {
        if let Some((before, after)) = readings {
            let grown = after.resident_bytes as f64 - before.resident_bytes as f64;
            self.figure(key, label, grown / 1024.0 / count, "KiB");
        }
    }

    /// Adds something that must not happen.
    pub(crate) fn fault(&mut self, fault: String) {
        self.faults.push(fault);
    }

    /// Whether nothing happened that must not.
    pub(crate) fn is_clean(&self) -> bool {
        self.faults.is_empty()
    }

    /// `{"scenario":…,"figures":{key:value},"faults":[…]}`.
    pub(crate) fn json(&self) -> Value {
        let figures: Map<_, _> =
            self.figures.iter().map(|figure| (figure.key.to_owned(), figure.value.into())).collect();
        serde_json::json!({"scenario": self.scenario, "figures": figures, "faults": self.faults})
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.scenario)?;
        let width = self.figures.iter().map(|figure| figure.label.chars().count()).max().unwrap_or(0);
        for Figure { label, value, unit, .. } in &self.figures {
            let decimals = if value.fract() == 0.0 || *value >= 1000.0 { 0 } else { 2 };
            writeln!(f, "  {label:<width$}  {value:>12.decimals$} {unit}")?;
        }
        for fault in &self.faults {
            writeln!(f, "  FAULT: {fault}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_reads_well_for_people_and_for_programs() {
        let mut report = Report::new("floor");
        report.figure("sockets", "sockets", 1000.0, "");
        report.figure("cpu_per_frame_us", "CPU per frame", 4.125, "µs");
        assert!(report.is_clean());
        report.fault("one message was lost".to_owned());
        assert!(!report.is_clean());
        let table = "floor\n\
                     \x20 sockets                1000 \n\
                     \x20 CPU per frame          4.12 µs\n\
                     \x20 FAULT: one message was lost\n";
        assert_eq!(report.to_string(), table);
        let json = r#"{"faults":["one message was lost"],"figures":{"cpu_per_frame_us":4.125,"sockets":1000.0},"scenario":"floor"}"#;
        assert_eq!(report.json().to_string(), json);
    }
}
