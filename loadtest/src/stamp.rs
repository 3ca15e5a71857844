//! What a message of a run carries: who sent it, its number, and when it was due.
//!
//! Every field has a fixed width and a fixed place before the end of the text, whatever the topic is called. So a
//! subscriber recognises a message by comparing a few bytes and reads the numbers where they must be: a few
//! nanoseconds, where parsing JSON would take half a microsecond.

use crate::clock::Moment;

/// Bytes of a payload without filling.
pub(crate) const PAYLOAD_BYTES_MIN: usize = 88;
/// What every delivery starts with.
const HEAD: &str = r#"{"op":"message","topic":""#;
const SENDER: &str = r#"{"sender":""#;
const SEQ: &str = r#"","seq":""#;
const AT: &str = r#"","at":""#;
/// A 64-bit number in hexadecimal.
const DIGITS: usize = 16;
/// How much of a sender's number is the topic; the rest is the run.
const TOPIC_BITS: u32 = 24;

/// The messages of one run, all equally long.
#[derive(Clone, Debug)]
pub(crate) struct Stamp {
    run: u64,
    fill: String,
}

/// What a message says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamped {
    /// The topic's number. Each topic has one sender.
    pub(crate) topic: u32,
    /// The message's number among those of its topic.
    pub(crate) seq: u64,
    /// When it was due.
    pub(crate) at: Moment,
}

impl Stamp {
    /// The messages of `run`, with payloads of `payload_bytes` (or [`PAYLOAD_BYTES_MIN`], if that is more).
    pub(crate) fn new(run: u64, payload_bytes: usize) -> Self {
        Self { run: run << TOPIC_BITS, fill: filling(payload_bytes.saturating_sub(PAYLOAD_BYTES_MIN)) }
    }

    /// A number that no other run has, as far as the clock can tell.
    pub(crate) fn new_run() -> u64 {
        (Moment::now().0 ^ u64::from(std::process::id()) << 20) & (u64::MAX >> TOPIC_BITS)
    }

    /// The payload of a message.
    pub(crate) fn payload(&self, Stamped { topic, seq, at: Moment(at) }: Stamped) -> String {
        let sender = self.run | u64::from(topic);
        format!("{SENDER}{sender:016x}{SEQ}{seq:016x}{AT}{at:016x}\",\"fill\":\"{}\"}}", self.fill)
    }

    /// What `text` says, if it delivers a whole message of this run.
    pub(crate) fn read(&self, text: &str) -> Option<Stamped> {
        let text = text.as_bytes();
        let payload = text.len().checked_sub(PAYLOAD_BYTES_MIN + self.fill.len() + "}".len())?;
        if payload < HEAD.len() || !text.starts_with(HEAD.as_bytes()) {
            return None;
        }
        let (sender, rest) = number(&text[payload..], SENDER)?;
        if sender >> TOPIC_BITS != self.run >> TOPIC_BITS {
            return None;
        }
        let (seq, rest) = number(rest, SEQ)?;
        let (at, _) = number(rest, AT)?;
        Some(Stamped { topic: (sender & ((1 << TOPIC_BITS) - 1)) as u32, seq, at: Moment(at) })
    }
}

/// Text of so many bytes in which words repeat and numbers do not, as in what services publish: compressing it saves
/// something, but not nearly everything.
fn filling(bytes: usize) -> String {
    let mut text = String::with_capacity(bytes + 64);
    for item in 1_u32.. {
        if text.len() >= bytes {
            break;
        }
        // Its high bits look like chance (Knuth, TAOCP volume 3, section 6.4).
        let number = item.wrapping_mul(2_654_435_761);
        text.push_str(&format!(
            "order {} is shipped, total {}.{:02} EUR; ",
            number >> 8,
            number >> 20,
            item % 100
        ));
    }
    text.truncate(bytes);
    text
}

/// The number behind `name` at the front of `bytes`, and what follows it.
fn number<'a>(bytes: &'a [u8], name: &str) -> Option<(u64, &'a [u8])> {
    let (digits, rest) = bytes.strip_prefix(name.as_bytes())?.split_first_chunk::<DIGITS>()?;
    let (high, low) = digits.split_at(DIGITS / 2);
    Some((nibbles(high) << 32 | nibbles(low), rest))
}

/// Eight hexadecimal digits in lower case, all at once. What else stands there becomes some number.
fn nibbles(digits: &[u8]) -> u64 {
    let ascii = u64::from_be_bytes(digits.try_into().expect("there are eight digits"));
    // `0` to `9` end in their value; `a` to `f` are the letters with bit 6, and end in their value less nine.
    let nibbles = (ascii & 0x0f0f_0f0f_0f0f_0f0f) + 9 * (ascii >> 6 & 0x0101_0101_0101_0101);
    let bytes = (nibbles | nibbles >> 4) & 0x00ff_00ff_00ff_00ff;
    let pairs = (bytes | bytes >> 8) & 0x0000_ffff_0000_ffff;
    (pairs | pairs >> 16) & 0xffff_ffff
}

#[cfg(test)]
mod tests {
    use causeway_protocol::frame::{FrameLimits, FrameReader, Message, Received, Role};
    use causeway_protocol::{Publication, Topic};

    use super::*;

    const STAMPED: Stamped = Stamped { topic: 7, seq: 0x0123_4567_89ab_cdef, at: Moment(0xfedc_ba98) };

    fn delivery(payload: String) -> String {
        let publication = Publication::new(Topic::parse("load.fanout").unwrap(), payload);
        let mut frame = publication.frame().to_vec();
        let mut reader = FrameReader::new(Role::Client);
        match reader.next(&mut &mut frame[..], &FrameLimits::default()) {
            Ok(Some(Received::Plain(Message::Text(text)))) => text.into_owned(),
            other => panic!("not a text frame: {other:?}"),
        }
    }

    #[test]
    fn a_payload_is_as_long_as_asked_and_recognised_when_delivered() {
        for (asked, bytes) in [(128, 128), (88, 88), (1, PAYLOAD_BYTES_MIN)] {
            let stamp = Stamp::new(0xabc, asked);
            let payload = stamp.payload(STAMPED);
            assert_eq!(payload.len(), bytes);
            assert_eq!(stamp.read(&delivery(payload)), Some(STAMPED));
        }
    }

    #[test]
    fn a_payload_that_was_cut_or_is_another_runs_is_not_ours() {
        let stamp = Stamp::new(1, 128);
        assert_eq!(stamp.read(&delivery(Stamp::new(1, 127).payload(STAMPED))), None);
        assert_eq!(stamp.read(&delivery(Stamp::new(2, 128).payload(STAMPED))), None);
        assert_eq!(stamp.read(r#"{"op":"gap"}"#), None);
        assert_eq!(stamp.read(&"ä".repeat(200)), None);
    }
}
