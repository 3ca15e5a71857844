//! Plots as SVG, in colours that the page's style sheet gives them, so that they suit the light and the dark.
//!
//! plotters writes a colour into every element. The colours used here are only names: the style sheet finds elements by
//! them (`page.css`).

use std::error::Error;
use std::ops::Range;

use plotters::coord::Shift;
use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};
use plotters::prelude::*;

/// Twice as large as it is shown: plotters counts whole units, and lines are to be smooth.
const SIZE: (u32, u32) = (1120, 460);
/// The names of the colours of text and of grid lines.
const INK: RGBColor = RGBColor(1, 0, 0);
const GRID: RGBColor = RGBColor(2, 0, 0);
const TICKS: f64 = 5.0;

/// One line in a plot.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    /// What it shows.
    pub(crate) name: &'static str,
    /// In order of x.
    pub(crate) points: Vec<(f64, f64)>,
}

impl Line {
    /// Whether there is anything but zeros to be seen.
    pub(crate) fn says_something(&self) -> bool {
        self.points.iter().any(|(_, value)| *value > 0.0)
    }
}

/// How an axis runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    /// Evenly.
    Linear,
    /// By powers of ten; everything is above zero.
    Logarithmic,
}

/// What is drawn where.
struct Axis {
    scale: Scale,
    range: Range<f64>,
}

/// The name of the colour of line number `index`.
fn colour(index: usize) -> RGBColor {
    RGBColor(3 + index as u8, 0, 0)
}

/// Lines over time: `seconds` is the range of x.
pub(crate) fn lines(lines: &[Line], seconds: Range<f64>, scale: Scale) -> Result<String, Box<dyn Error>> {
    let values = || lines.iter().flat_map(|line| &line.points).map(|(_, y)| *y);
    let (x, y) = (Axis { scale: Scale::Linear, range: seconds }, Axis::around(values(), scale));
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let mut chart = chart(&area, x, y)?;
        for (index, line) in lines.iter().enumerate() {
            chart.draw_series(LineSeries::new(line.points.iter().copied(), colour(index).stroke_width(4)))?;
        }
        area.present()?;
    }
    Ok(scalable(&svg))
}

/// How often values occurred: bars from `from` to `to` (on a logarithmic axis), with their share in percent.
pub(crate) fn bars(bars: &[(Range<f64>, f64)]) -> Result<String, Box<dyn Error>> {
    let edges = bars.iter().flat_map(|(range, _)| [range.start, range.end]);
    let x = Axis { range: edge_range(edges), scale: Scale::Logarithmic };
    let y = Axis::around(bars.iter().map(|(_, share)| *share), Scale::Linear);
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let mut chart = chart(&area, x, y)?;
        chart.draw_series(bars.iter().map(|(range, share)| {
            Rectangle::new([(range.start, 0.0), (range.end, *share)], colour(0).filled())
        }))?;
        area.present()?;
    }
    Ok(scalable(&svg))
}

type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<Axis, Axis>>;

fn chart<'a, 'b>(
    area: &'a DrawingArea<SVGBackend<'b>, Shift>,
    x: Axis,
    y: Axis,
) -> Result<Chart<'a, 'b>, Box<dyn Error>>
where
    'b: 'a,
{
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .margin_right(28)
        .x_label_area_size(52)
        .y_label_area_size(104)
        .build_cartesian_2d(x, y)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .axis_style(GRID)
        .label_style(("sans-serif", 26, &INK))
        .draw()?;
    Ok(chart)
}

impl Axis {
    /// An axis with room for `values`.
    fn around(values: impl Iterator<Item = f64> + Clone, scale: Scale) -> Self {
        let most = values.clone().fold(0.0, f64::max);
        let range = match scale {
            Scale::Linear => 0.0..if most > 0.0 { most * 1.08 } else { 1.0 },
            Scale::Logarithmic => edge_range(values),
        };
        Self { scale, range }
    }

    /// Where a value is between the ends, from 0 to 1.
    fn place(&self, value: f64) -> f64 {
        let Range { start, end } = self.range;
        match self.scale {
            Scale::Linear => (value - start) / (end - start),
            Scale::Logarithmic => (value.max(start) / start).log10() / (end / start).log10(),
        }
    }

    /// Round values along it.
    fn ticks(&self) -> Vec<f64> {
        let Range { start, end } = self.range;
        match self.scale {
            Scale::Linear => {
                let step = round_up((end - start) / TICKS);
                let first = (start / step).ceil() as i64;
                (first..).map(|count| count as f64 * step).take_while(|tick| *tick <= end).collect()
            }
            Scale::Logarithmic => {
                let decades = (end / start).log10();
                let among: &[f64] = if decades > 3.0 { &[1.0] } else { &[1.0, 2.0, 5.0] };
                let exponents = start.log10().floor() as i32..=end.log10().ceil() as i32;
                let ticks = exponents
                    .flat_map(|exponent| among.iter().map(move |digit| digit * 10_f64.powi(exponent)));
                ticks.filter(|tick| (start..=end).contains(tick)).collect()
            }
        }
    }
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (from, to): (i32, i32)) -> i32 {
        from + (self.place(*value) * f64::from(to - from)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        self.ticks()
    }

    fn range(&self) -> Range<f64> {
        self.range.clone()
    }
}

impl ValueFormatter<f64> for Axis {
    fn format(value: &f64) -> String {
        short(*value)
    }
}

/// From somewhat below the least to somewhat above the most of some values above zero.
fn edge_range(values: impl Iterator<Item = f64> + Clone) -> Range<f64> {
    let positive = values.filter(|value| *value > 0.0);
    let least = positive.clone().fold(f64::INFINITY, f64::min);
    let most = positive.fold(0.0, f64::max);
    if least > most { 0.1..10.0 } else { least / 1.3..most * 1.3 }
}

/// The next of 1, 2, 5, 10, 20, 50 and so on.
fn round_up(step: f64) -> f64 {
    let power = 10_f64.powf(step.log10().floor());
    let digit = [1.0, 2.0, 5.0].into_iter().find(|digit| digit * power >= step * 0.999);
    digit.unwrap_or(10.0) * power
}

/// A number as short as a tick needs it.
fn short(value: f64) -> String {
    let (scaled, letter) = match value.abs() {
        size if size >= 999_500_000.0 => (value / 1e9, "G"),
        size if size >= 999_500.0 => (value / 1e6, "M"),
        size if size >= 9_999.5 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    // To three digits, without zeros at the end.
    let decimals = (2 - scaled.abs().max(1e-9).log10().floor() as i32).clamp(0, 6) as usize;
    let text = format!("{scaled:.decimals$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{}{letter}", if text == "-0" { "0" } else { text })
}

/// The page says how wide it is.
fn scalable(svg: &str) -> String {
    let (width, height) = SIZE;
    svg.replacen(&format!(r#"width="{width}" height="{height}" "#), "", 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_within() {
        let linear = |range| Axis { scale: Scale::Linear, range }.ticks();
        assert_eq!(linear(0.0..10.0), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        assert_eq!(linear(-3.0..61.0), [0.0, 20.0, 40.0, 60.0]);
        let logarithmic = |range| Axis { scale: Scale::Logarithmic, range }.ticks();
        assert_eq!(logarithmic(0.4..30.0), [0.5, 1.0, 2.0, 5.0, 10.0, 20.0]);
        assert_eq!(logarithmic(0.5..9_000.0), [1.0, 10.0, 100.0, 1000.0]);
    }

    #[test]
    fn tick_labels_are_short() {
        let labels = [0.0, 0.05, 2.5, 100.0, 2000.0, 15_000.0, 1_200_000.0, 3e9].map(short);
        assert_eq!(labels, ["0", "0.05", "2.5", "100", "2000", "15k", "1.2M", "3G"]);
    }

    #[test]
    fn a_plot_can_be_drawn_of_anything() {
        let line = |points: &[(f64, f64)]| Line { name: "a", points: points.to_vec() };
        for points in [&[][..], &[(0.0, 0.0)], &[(0.0, 1.0), (1.0, 1e9)]] {
            for scale in [Scale::Linear, Scale::Logarithmic] {
                let svg = lines(&[line(points)], 0.0..1.0, scale).unwrap();
                assert!(svg.starts_with("<svg viewBox=") && svg.trim_end().ends_with("</svg>"), "{svg}");
            }
        }
        assert!(bars(&[(0.5..1.0, 30.0), (1.0..2.0, 70.0)]).unwrap().matches("#030000").count() == 2);
        assert!(bars(&[]).is_ok());
    }
}
