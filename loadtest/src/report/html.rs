//! The report as one page that needs nothing else: no script, no font, no picture from elsewhere.

use std::error::Error;
use std::fmt::Write;

use super::Report;
use super::figure::{self, Figure};
use super::gallery::{Picture, gallery};
use super::unit::number;
use crate::observer::Sighting;
use crate::outcome::Outcome;
use crate::setting::Setting;

const STYLE: &str = include_str!("page.css");
const CARDS_MAX: usize = 8;
/// What a reader looks for first, as far as a report has it.
static HEADLINES: &[&Figure] = &[
    &figure::UPGRADES_PER_SECOND,
    &figure::INTAKE_PER_SECOND,
    &figure::ALL_BACK,
    &figure::RETURN_P99,
    &figure::QUIET_P99,
    &figure::PING_P99,
    &figure::OPEN_P99,
    &figure::DELIVERIES_PER_SECOND,
    &figure::P50,
    &figure::P99,
    &figure::LOST,
    &figure::CPU_PER_DELIVERY,
    &figure::CPU_PER_UPGRADE,
    &figure::CPU_PER_IDLE_CONNECTION_SECOND,
    &figure::CONNECTIONS,
    &figure::KIB_PER_CONNECTION,
    &figure::CPU_PER_ACCEPT,
    &figure::CPU_PER_SUBSCRIBE,
    &figure::SERVER_BUSY,
    &figure::SERVER_RESIDENT,
    &figure::CPU_PER_FRAME,
    &figure::CPU_PER_WRITE,
    &figure::SOCKETS,
];

/// The page. `question` is what the scenario answers; `played` is what its plots show, if it was played.
pub(crate) fn page(
    report: &Report,
    question: &str,
    setting: &Setting,
    played: Option<(&Outcome, &Sighting)>,
) -> Result<String, Box<dyn Error>> {
    let mut page = String::new();
    let title = format!("Causeway load test: {}", report.scenario);
    write!(page, "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n")?;
    writeln!(page, "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">")?;
    writeln!(page, "<title>{}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>", escaped(&title))?;
    writeln!(page, "<header>\n<p class=\"over\">{} · {}</p>", escaped(&title), escaped(&setting.at))?;
    writeln!(page, "<h1>{}</h1>\n</header>", escaped(question))?;
    verdict(&mut page, report)?;
    command(&mut page, &setting.command)?;
    cards(&mut page, report)?;
    expectations(&mut page, report)?;
    if let Some((outcome, seen)) = played {
        plots(&mut page, outcome, seen)?;
    }
    figures(&mut page, report)?;
    machine(&mut page, setting)?;
    writeln!(page, "</main>\n</body>\n</html>")?;
    Ok(page)
}

/// Lines break between options and not within them.
fn command(page: &mut String, command: &str) -> std::fmt::Result {
    let options: Vec<_> =
        command.split(" --").map(|option| format!("<span>{}</span>", escaped(option))).collect();
    writeln!(page, "<pre>{}</pre>", options.join(" <wbr>").replace("<wbr><span>", "<span>--"))
}

fn verdict(page: &mut String, report: &Report) -> std::fmt::Result {
    let missed = report.checked().iter().filter(|checked| !checked.is_met()).count();
    let (class, word) = if report.is_clean() { ("verdict", "Passed") } else { ("verdict failed", "Failed") };
    let reason = match (report.faults.len(), missed) {
        (0, 0) => "Nothing happened that must not.".to_owned(),
        (0, missed) => format!("{missed} of {} expectations were not met.", report.checked().len()),
        (_, 0) => "Something happened that must not.".to_owned(),
        (_, missed) => format!("Something happened that must not, and {missed} expectations were not met."),
    };
    writeln!(page, "<section class=\"{class}\">\n<strong>{word}</strong> {reason}")?;
    if !report.faults.is_empty() {
        let faults = report.faults.iter().map(|fault| format!("<li>{}</li>", escaped(fault)));
        writeln!(page, "<ul>{}</ul>", faults.collect::<String>())?;
    }
    for sentence in report.wall.iter().map(ToString::to_string).chain(report.notes.iter().cloned()) {
        writeln!(page, "<p>{}</p>", escaped(&sentence))?;
    }
    writeln!(page, "</section>")
}

fn cards(page: &mut String, report: &Report) -> std::fmt::Result {
    writeln!(page, "<h2>Key figures</h2>\n<dl class=\"cards\">")?;
    let found = HEADLINES.iter().filter_map(|figure| Some((figure, report.value(figure.key)?)));
    for (figure, value) in found.take(CARDS_MAX) {
        let (value, unit) = (number(value), figure.unit.sign());
        writeln!(
            page,
            "<div class=\"card\"><dt>{}</dt><dd>{value} <small>{unit}</small></dd></div>",
            figure.label
        )?;
    }
    writeln!(page, "</dl>")
}

fn expectations(page: &mut String, report: &Report) -> std::fmt::Result {
    let checked = report.checked();
    if checked.is_empty() {
        return Ok(());
    }
    writeln!(page, "<h2>Expectations</h2>\n<table>")?;
    for checked in checked {
        let (class, word) = if checked.is_met() { ("met", "met") } else { ("missed", "not met") };
        let (text, found) = (escaped(checked.text()), escaped(&checked.found()));
        writeln!(
            page,
            "<tr><td><code>{text}</code></td><td class=\"value\">{found}</td><td class=\"value {class}\">{word}</td></tr>"
        )?;
    }
    writeln!(page, "</table>")
}

fn plots(page: &mut String, outcome: &Outcome, seen: &Sighting) -> Result<(), Box<dyn Error>> {
    let pictures = gallery(outcome, seen)?;
    if pictures.is_empty() {
        return Ok(());
    }
    writeln!(page, "<h2>How it went</h2>\n<div class=\"plots\">")?;
    for Picture { title, lines, svg } in pictures {
        write!(page, "<figure><figcaption><b>{}</b>", escaped(title))?;
        for (index, line) in lines.iter().enumerate().filter(|_| lines.len() > 1) {
            write!(page, "<span><i class=\"line-{}\"></i>{}</span>", index + 1, escaped(line))?;
        }
        writeln!(page, "</figcaption>{svg}</figure>")?;
    }
    writeln!(
        page,
        "</div>\n<p class=\"over\">Seconds since counting began; what came before is connecting and warming up.</p>"
    )?;
    Ok(())
}

fn figures(page: &mut String, report: &Report) -> std::fmt::Result {
    writeln!(page, "<h2>All figures</h2>\n<table>")?;
    for (figure, value) in &report.figures {
        writeln!(
            page,
            "<tr><td>{}</td><td class=\"name\"><code>{}</code></td><td class=\"value\">{}</td></tr>",
            figure.label,
            figure.name(),
            figure.unit.display(*value)
        )?;
    }
    writeln!(page, "</table>")
}

fn machine(page: &mut String, setting: &Setting) -> std::fmt::Result {
    writeln!(page, "<h2>Where the load tester ran</h2>\n<table>")?;
    for (what, value) in &setting.machine {
        writeln!(page, "<tr><td>{what}</td><td class=\"value\">{}</td></tr>", escaped(value))?;
    }
    writeln!(page, "</table>")
}

/// `text` as it may stand in an element or an attribute.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::Moment;
    use crate::expect::Expectation;
    use crate::timeline::{Chronicle, Timeline, Totals};

    fn setting() -> Setting {
        let machine = vec![("processor", "a <fast> one".to_owned())];
        Setting { command: "causeway-loadtest fanout --json".to_owned(), at: "today".to_owned(), machine }
    }

    fn outcome() -> Outcome {
        let timeline = Timeline::new(Moment(0), Duration::from_secs(2));
        let mut chronicle = Chronicle::new(timeline, Totals::default());
        chronicle.heard(Duration::from_millis(3));
        let timeline = chronicle.finish(Totals { published: 1, delivered: 1, up: 1 });
        Outcome { timeline, ..Outcome::default() }
    }

    #[test]
    fn a_page_says_what_was_expected_and_found_and_needs_nothing_else() {
        let expectation = Expectation::parse("lost=0", "fanout", &[&figure::LOST]).unwrap();
        let mut report = Report::new("fanout", vec![expectation]);
        report.figure(&figure::LOST, 2.0);
        report.fault("2 lost & <unexplained>".to_owned());
        let played = (&outcome(), &Sighting::default());
        let page = page(&report, "What does it cost?", &setting(), Some(played)).unwrap();
        for part in [
            "Failed",
            "2 lost &amp; &lt;unexplained&gt;",
            "What does it cost?",
            "<span>causeway-loadtest fanout</span> <span>--json</span>",
            "<code>lost=0</code>",
            "not met",
            "a &lt;fast&gt; one",
            "prefers-color-scheme: dark",
        ] {
            assert!(page.contains(part), "{part} is not in {page}");
        }
        assert_eq!(page.matches("<svg ").count(), 4, "latency twice, messages, connections");
        for outside in ["src=", "href=", "url(", "@import", "<script"] {
            assert!(!page.contains(outside), "{outside}");
        }
    }
}
