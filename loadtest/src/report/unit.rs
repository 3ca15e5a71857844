//! Units: their signs, their sizes, and how a value with one is written.

/// The unit of a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// None.
    Count,
    /// Microseconds.
    Micros,
    /// Milliseconds.
    Millis,
    /// Seconds.
    Seconds,
    /// 1024 bytes.
    KiB,
    /// 1024 KiB.
    MiB,
    /// Hundredths.
    Percent,
    /// A rate.
    PerSecond,
}

/// What a unit measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dimension {
    /// In seconds.
    Time,
    /// In bytes.
    Memory,
}

impl Unit {
    /// The signs that an expectation may use, and what they mean.
    pub(crate) const SCALES: [(&str, (Dimension, f64)); 11] = [
        ("ns", (Dimension::Time, 1e-9)),
        ("us", (Dimension::Time, 1e-6)),
        ("µs", (Dimension::Time, 1e-6)),
        ("ms", (Dimension::Time, 1e-3)),
        ("s", (Dimension::Time, 1.0)),
        ("min", (Dimension::Time, 60.0)),
        ("h", (Dimension::Time, 3600.0)),
        ("B", (Dimension::Memory, 1.0)),
        ("KiB", (Dimension::Memory, 1024.0)),
        ("MiB", (Dimension::Memory, 1_048_576.0)),
        ("GiB", (Dimension::Memory, 1_073_741_824.0)),
    ];

    /// For people.
    pub(crate) fn sign(self) -> &'static str {
        match self {
            Self::Count => "",
            Self::Micros => "µs",
            Self::Millis => "ms",
            Self::Seconds => "s",
            Self::KiB => "KiB",
            Self::MiB => "MiB",
            Self::Percent => "%",
            Self::PerSecond => "/s",
        }
    }

    /// What keys of figures with this unit end in.
    pub(crate) fn suffix(self) -> Option<&'static str> {
        match self {
            Self::Count | Self::PerSecond => None,
            Self::Micros => Some("_us"),
            Self::Millis => Some("_ms"),
            Self::Seconds => Some("_s"),
            Self::KiB => Some("_kib"),
            Self::MiB => Some("_mib"),
            Self::Percent => Some("_percent"),
        }
    }

    /// What it measures and how large it is, where it can be converted.
    pub(crate) fn scale(self) -> Option<(Dimension, f64)> {
        Self::SCALES.iter().find(|(sign, _)| *sign == self.sign()).map(|(_, scale)| *scale)
    }

    /// `value` with this unit.
    pub(crate) fn display(self, value: f64) -> String {
        format!("{} {}", number(value), self.sign()).trim_end().to_owned()
    }
}

/// `value` to three or four digits where it is small, and with its thousands apart where it is large.
pub(crate) fn number(value: f64) -> String {
    let decimals = match value.abs() {
        size if size >= 1000.0 || value.fract() == 0.0 => return with_thousands(value),
        size if size >= 100.0 => 1,
        size if size >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.decimals$}")
}

fn with_thousands(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    let sign = if value < 0.0 { "-" } else { "" };
    format!("{sign}{}", groups.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_as_long_as_they_need_be() {
        let written = [0.0, 12.0, 0.1234, 4.125, 123.45, 999.0, 1234.5, 1_234_567.0, -1234.0].map(number);
        assert_eq!(written, ["0", "12", "0.123", "4.12", "123.5", "999", "1,234", "1,234,567", "-1,234"]);
        assert_eq!(Unit::Millis.display(4.5), "4.50 ms");
        assert_eq!(Unit::Count.display(4.0), "4");
    }
}
