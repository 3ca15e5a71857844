//! The patterns by which claims grant topics.
//!
//! `*` is one segment, `**` at the end is one or more, `{sub}` is the token's subject; everything else,
//! separators included, must be equal byte for byte.

use std::borrow::Cow;
use std::fmt;

use crate::Topic;
use crate::topic::{TOPIC_BYTES_MAX, is_segment, is_segment_byte, is_separator};

/// Where the subject stands in a pattern.
const SUBJECT: &str = "{sub}";

/// A legal pattern.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Pattern(Box<str>);

/// Why a text is not a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// No bytes, or more than a topic may have.
    #[error("a pattern has 1 to {TOPIC_BYTES_MAX} bytes")]
    Length,
    /// A segment that is neither `*`, `**`, nor topic characters and `{{sub}}`.
    #[error("a segment is `*`, or `**` at the end, or topic characters with or without `{{sub}}`")]
    BadSegment,
    /// `**` stands before the end.
    #[error("`**` may only be the last segment")]
    DeepNotLast,
}

impl Pattern {
    /// Checks `text` against the grammar and copies it.
    ///
    /// # Errors
    /// The first [`PatternError`] met, reading from the left.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        if text.is_empty() || text.len() > TOPIC_BYTES_MAX {
            return Err(PatternError::Length);
        }
        let mut rest = Some(text);
        while let Some(text) = rest {
            let (segment, _, next) = split_segment(text);
            match segment {
                "**" if next.is_some() => return Err(PatternError::DeepNotLast),
                "*" | "**" => {}
                // Taking the subject out must leave nothing that could not stand in a topic.
                _ if segment.is_empty() || !segment.replace(SUBJECT, "").bytes().all(is_segment_byte) => {
                    return Err(PatternError::BadSegment);
                }
                _ => {}
            }
            rest = next;
        }
        Ok(Self(text.into()))
    }

    /// The pattern as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `topic` is one of the pattern's topics for a token of this `subject`. A subject that is not one
    /// legal segment makes a pattern with `{sub}` match nothing.
    pub fn matches(&self, topic: &Topic, subject: &str) -> bool {
        self.for_subject(subject).is_some_and(|pattern| segments_match(&pattern, topic.as_str()))
    }

    fn for_subject(&self, subject: &str) -> Option<Cow<'_, str>> {
        match self.0.contains(SUBJECT) {
            false => Some(Cow::Borrowed(&self.0)),
            true if is_segment(subject) => Some(Cow::Owned(self.0.replace(SUBJECT, subject))),
            true => None,
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pattern({})", self.0)
    }
}

fn segments_match(pattern: &str, topic: &str) -> bool {
    let (mut pattern, mut topic) = (pattern, topic);
    loop {
        let (expected, expected_separator, pattern_rest) = split_segment(pattern);
        let (found, found_separator, topic_rest) = split_segment(topic);
        match expected {
            "**" => return true,
            "*" => {}
            literal if literal != found => return false,
            _ => {}
        }
        match (pattern_rest, topic_rest) {
            (None, None) => return true,
            (Some(p), Some(t)) if expected_separator == found_separator => (pattern, topic) = (p, t),
            _ => return false,
        }
    }
}

/// The first segment of `text`, the separator after it and what follows that.
fn split_segment(text: &str) -> (&str, Option<u8>, Option<&str>) {
    match text.bytes().position(is_separator) {
        Some(at) => (&text[..at], Some(text.as_bytes()[at]), Some(&text[at + 1..])),
        None => (text, None, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, topic: &str) -> bool {
        Pattern::parse(pattern).unwrap().matches(&Topic::parse(topic).unwrap(), "alice")
    }

    #[test]
    fn patterns_grant_what_they_say_and_nothing_beside_it() {
        for (pattern, granted, refused) in [
            ("news", &["news"][..], &["News", "news.a", "newsx", "new"][..]),
            ("orders.*", &["orders.42"], &["orders", "orders.42.items", "orders:42", "order.42"]),
            ("*.status", &["a.status", "b.status"], &["a.b.status", "status", "a:status"]),
            ("chat.**", &["chat.1", "chat.1.typing", "chat.1:a/b"], &["chat", "chat:1", "chats.1"]),
            ("**", &["a", "a.b", "a:b/c"], &[]),
            ("user:{sub}:*", &["user:alice:inbox"], &["user:bob:inbox", "user:alice", "user:alice2:x"]),
            ("u-{sub}", &["u-alice"], &["u-bob", "u-alice.a"]),
        ] {
            for topic in granted {
                assert!(matches(pattern, topic), "{pattern} grants {topic}");
            }
            for topic in refused {
                assert!(!matches(pattern, topic), "{pattern} does not grant {topic}");
            }
        }
    }

    #[test]
    fn a_subject_that_is_no_segment_matches_nothing() {
        let pattern = Pattern::parse("user.{sub}.**").unwrap();
        let topic = Topic::parse("user.a.b.c").unwrap();
        for subject in ["", "a.b", "*", "**", "a b", "a/b", "é"] {
            assert!(!pattern.matches(&topic, subject), "{subject:?}");
        }
        assert!(pattern.matches(&topic, "a"));
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for (text, fault) in [
            ("", PatternError::Length),
            ("**.a", PatternError::DeepNotLast),
            ("a.", PatternError::BadSegment),
            ("a..b", PatternError::BadSegment),
            ("or*", PatternError::BadSegment),
            ("a.b c", PatternError::BadSegment),
            ("{user}", PatternError::BadSegment),
        ] {
            assert_eq!(Pattern::parse(text), Err(fault), "{text:?}");
        }
    }
}
