//! Topic names and the patterns that claims grant them by.
//!
//! A topic is 1–200 bytes: segments of `A–Z a–z 0–9 _ - @ = + ~ % ,` separated by `.`, `:` or `/`, no
//! segment empty. Nothing is normalised: two topics are equal when their bytes are.
//!
//! A name is checked once, where it enters; from then on a [`Topic`] is proof that it is legal. Cloning one
//! copies a pointer, because the same name is held by a session, a topic table and the broker at once.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// The longest topic, in bytes.
pub const TOPIC_BYTES_MAX: usize = 200;

/// A legal topic name.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Topic(Arc<str>);

/// Why a name is not a topic. Always the sender's fault; sending it again cannot help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// The name has no bytes at all.
    #[error("a topic needs at least one character")]
    Empty,
    /// The name has more than [`TOPIC_BYTES_MAX`] bytes.
    #[error("a topic has at most {TOPIC_BYTES_MAX} bytes, this one has {0}")]
    TooLong(usize),
    /// The byte at this offset is neither a letter, digit, one of `_-@=+~%,` nor a separator.
    #[error("byte {0} of the topic is not one of A-Z a-z 0-9 _ - @ = + ~ % , or a separator . : /")]
    BadByte(usize),
    /// A separator stands first, last or beside another one; the offset is where a segment should begin.
    #[error("the topic has an empty segment at byte {0}")]
    EmptySegment(usize),
}

impl Topic {
    /// Checks `name` against the grammar and copies it.
    ///
    /// Reserved names (see [`Topic::is_reserved`]) are legal topics; who may use them is a matter of policy.
    ///
    /// # Errors
    /// The first [`TopicError`] met, reading from the left.
    pub fn parse(name: &str) -> Result<Self, TopicError> {
        check(name.as_bytes())?;
        Ok(Self(name.into()))
    }

    /// The name as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the name starts with `_` and so belongs to Causeway itself.
    pub fn is_reserved(&self) -> bool {
        self.0.starts_with('_')
    }
}

impl Borrow<str> for Topic {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Topic({})", self.0)
    }
}

fn check(name: &[u8]) -> Result<(), TopicError> {
    if name.is_empty() {
        return Err(TopicError::Empty);
    }
    if name.len() > TOPIC_BYTES_MAX {
        return Err(TopicError::TooLong(name.len()));
    }
    let mut segment_start = 0;
    for (at, &byte) in name.iter().enumerate() {
        if is_separator(byte) {
            if at == segment_start {
                return Err(TopicError::EmptySegment(at));
            }
            segment_start = at + 1;
        } else if !is_segment_byte(byte) {
            return Err(TopicError::BadByte(at));
        }
    }
    if segment_start == name.len() {
        return Err(TopicError::EmptySegment(segment_start));
    }
    Ok(())
}

/// Whether `byte` may stand inside a segment.
pub(crate) fn is_segment_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_-@=+~%,".contains(&byte)
}

/// Whether `byte` separates two segments.
pub(crate) fn is_separator(byte: u8) -> bool {
    matches!(byte, b'.' | b':' | b'/')
}

/// Whether all of `name` is one segment.
pub(crate) fn is_segment(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(is_segment_byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_services_already_use_are_topics() {
        for name in ["a", "orders.42", "room:7/typing", "user@example,1", "%7E~+=", "_causeway.control"] {
            assert_eq!(Topic::parse(name).map(|t| t.to_string()), Ok(name.to_owned()));
        }
        assert!(Topic::parse(&"x".repeat(TOPIC_BYTES_MAX)).is_ok());
    }

    #[test]
    fn each_fault_is_named_with_its_place() {
        let long = "x".repeat(TOPIC_BYTES_MAX + 1);
        for (name, fault) in [
            ("", TopicError::Empty),
            (long.as_str(), TopicError::TooLong(201)),
            ("a b", TopicError::BadByte(1)),
            ("news*", TopicError::BadByte(4)),
            ("a\r\nb", TopicError::BadByte(1)),
            ("\0", TopicError::BadByte(0)),
            ("café", TopicError::BadByte(3)),
            (".a", TopicError::EmptySegment(0)),
            ("a..b", TopicError::EmptySegment(2)),
            ("a.:b", TopicError::EmptySegment(2)),
            ("a/", TopicError::EmptySegment(2)),
        ] {
            assert_eq!(Topic::parse(name), Err(fault), "{name:?}");
        }
    }

    /// No name that is let through can be anything to Redis but the name of one channel: no pattern, no second argument,
    /// no way out of a prefix.
    #[test]
    fn t24_of_a_million_names_only_the_legal_ones_are_topics() {
        let alphabet = b"ab09_-@=+~%,.:/ *?[]{}\\\"'|\r\n\0\x7f\x80\xc3\xff";
        let mut state = 24_u64;
        let mut random = move |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below
        };
        let mut legal = 0;
        for _ in 0..1_000_000 {
            let len = random(12);
            // Half of the names have no byte that is forbidden everywhere, so that many are legal.
            let known = [15, alphabet.len()][random(2)];
            let bytes: Vec<u8> = (0..len).map(|_| alphabet[random(known)]).collect();
            let name = String::from_utf8_lossy(&bytes);
            let segments = || name.split(['.', ':', '/']);
            let is_legal = segments().all(|segment| {
                !segment.is_empty()
                    && segment.chars().all(|one| one.is_ascii_alphanumeric() || "_-@=+~%,".contains(one))
            });
            let topic = Topic::parse(&name);
            assert_eq!(topic.is_ok(), is_legal, "{name:?}");
            if let Ok(topic) = topic {
                assert_eq!(topic.as_str(), name);
                legal += 1;
            }
        }
        assert!(legal > 100_000, "{legal}");
    }

    #[test]
    fn a_leading_underscore_reserves_a_name() {
        assert!(Topic::parse("_x").unwrap().is_reserved());
        assert!(!Topic::parse("x._y").unwrap().is_reserved());
    }
}
