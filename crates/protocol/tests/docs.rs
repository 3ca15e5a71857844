//! The tables of `docs/protocol.md` say what the tables of the code say.

use causeway_protocol::{CloseCode, ErrorCode};

const PROTOCOL: &str = include_str!("../../../docs/protocol.md");

/// The rows of the table whose header row is `header`, their cells joined by ` | `.
fn rows(header: &str) -> Vec<String> {
    let cells = |line: &str| {
        line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>().join(" | ")
    };
    let mut lines = PROTOCOL.lines().skip_while(|line| cells(line) != header).skip(2);
    let rows: Vec<String> =
        std::iter::from_fn(|| lines.next().filter(|line| line.starts_with('|'))).map(cells).collect();
    assert!(!rows.is_empty(), "docs/protocol.md has no table headed `{header}`");
    rows
}

#[test]
fn error_codes_are_documented_as_they_are() {
    let expected: Vec<String> = ErrorCode::ALL
        .iter()
        .map(|code| {
            let retryable = if code.is_retryable() { "yes" } else { "no" };
            format!("`{}` | {} | {retryable}", code.name(), code.when())
        })
        .collect();
    assert_eq!(rows("code | when | retryable"), expected);
}

#[test]
fn close_codes_are_documented_as_they_are() {
    let expected: Vec<String> = CloseCode::ALL
        .iter()
        .map(|code| {
            format!("`{}` | {} | {} | {}", code.code(), code.name(), code.when(), code.reconnect().advice())
        })
        .collect();
    assert_eq!(rows("code | name | when | should the client reconnect"), expected);
}
