//! Topics and patterns: what is legal, and what a pattern grants, by a second, plainer reading of the rules.
#![cfg_attr(fuzzing, no_main)]

use causeway_protocol::{Pattern, TOPIC_BYTES_MAX, Topic};

/// The first line is a topic, the second a pattern, the third a subject.
pub(crate) fn check(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else { return };
    let mut lines = text.splitn(3, '\n');
    let mut next = || lines.next().unwrap_or_default();
    let (name, pattern_text, subject) = (next(), next(), next());

    let topic = Topic::parse(name);
    assert_eq!(topic.is_ok(), is_legal(name), "{name:?}");
    let pattern = Pattern::parse(pattern_text);
    let (Ok(topic), Ok(pattern)) = (topic, pattern) else { return };
    assert_eq!((topic.as_str(), pattern.as_str()), (name, pattern_text), "nothing is normalised");
    let expected = grants(pattern_text, name, subject);
    assert_eq!(pattern.matches(&topic, subject), expected, "{pattern_text:?} and {name:?} for {subject:?}");
}

fn is_legal(name: &str) -> bool {
    let is_segment = |segment: &str| !segment.is_empty() && segment.chars().all(is_segment_char);
    name.len() <= TOPIC_BYTES_MAX && name.split(is_separator).all(is_segment)
}

fn is_separator(c: char) -> bool {
    ".:/".contains(c)
}

fn is_segment_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || "_-@=+~%,".contains(c)
}

/// Both are taken apart into segments and separators and compared one by one.
fn grants(pattern: &str, topic: &str, subject: &str) -> bool {
    if pattern.contains("{sub}") && (subject.is_empty() || !subject.chars().all(is_segment_char)) {
        return false;
    }
    let pattern = pattern.replace("{sub}", subject);
    let (pattern, topic) = (pieces(&pattern), pieces(topic));
    let is_same = |(expected, found): (&&str, &&str)| {
        expected == found || (*expected == "*" && !found.starts_with(is_separator))
    };
    match pattern.split_last() {
        Some((&"**", before)) => topic.len() > before.len() && before.iter().zip(&topic).all(is_same),
        _ => topic.len() == pattern.len() && pattern.iter().zip(&topic).all(is_same),
    }
}

/// `a.b/c` is `a`, `.`, `b`, `/`, `c`.
fn pieces(text: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    for piece in text.split_inclusive(is_separator) {
        let segment = piece.trim_end_matches(is_separator);
        pieces.extend([segment, &piece[segment.len()..]].into_iter().filter(|piece| !piece.is_empty()));
    }
    pieces
}

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|input: &[u8]| check(input));
