//! The report as a table, for a terminal.

use std::fmt;

use super::Report;
use super::unit::number;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.scenario)?;
        let width = self.figures.iter().map(|(figure, _)| figure.label.chars().count()).max().unwrap_or(0);
        for (figure, value) in &self.figures {
            let line = format!("  {:<width$}  {:>12} {}", figure.label, number(*value), figure.unit.sign());
            writeln!(f, "{}", line.trim_end())?;
        }
        self.notes.iter().try_for_each(|note| writeln!(f, "  {note}"))?;
        self.wall.iter().try_for_each(|wall| writeln!(f, "  {wall}"))?;
        self.checked().iter().try_for_each(|checked| writeln!(f, "  {checked}"))?;
        self.faults.iter().try_for_each(|fault| writeln!(f, "  FAULT: {fault}"))
    }
}
