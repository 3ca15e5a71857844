//! What a message of a run carries: who sent it, its number, and when it was sent.
//!
//! Every field has a fixed width, so a subscriber recognises a message by comparing its first bytes and reads
//! the number from a known place: a few nanoseconds, where parsing JSON would take half a microsecond.

use std::process;
use std::time::{SystemTime, UNIX_EPOCH};

/// Bytes of a payload without filling.
pub(crate) const PAYLOAD_BYTES_MIN: usize = 88;
/// A 64-bit number in hexadecimal.
const DIGITS: usize = 16;

/// The messages of one sender to one topic.
#[derive(Debug)]
pub(crate) struct Stamp {
    sender: String,
    fill: String,
    /// What every delivery starts with, up to the number.
    prefix: String,
    /// How long every delivery is.
    delivery_bytes: usize,
}

impl Stamp {
    /// A sender nobody else is, whose messages to `topic` are `payload_bytes` long (or
    /// [`PAYLOAD_BYTES_MIN`], if that is more).
    pub(crate) fn new(topic: &str, payload_bytes: usize) -> Self {
        let sender = format!("{:016x}", now_nanos() ^ u64::from(process::id()) << 40);
        let fill = "x".repeat(payload_bytes.saturating_sub(PAYLOAD_BYTES_MIN));
        let prefix = format!(r#"{{"op":"message","topic":"{topic}","data":{{"sender":"{sender}","seq":""#);
        let head_bytes = r#"{"op":"message","topic":"","data":"#.len() + topic.len();
        let delivery_bytes = head_bytes + PAYLOAD_BYTES_MIN + fill.len() + "}".len();
        Self { sender, fill, prefix, delivery_bytes }
    }

    /// The payload of message number `seq`, sent now.
    pub(crate) fn payload(&self, seq: u64) -> String {
        let (Self { sender, fill, .. }, at) = (self, now_nanos());
        format!(r#"{{"sender":"{sender}","seq":"{seq:016x}","at":"{at:016x}","fill":"{fill}"}}"#)
    }

    /// The number of the message that `text` delivers; `None` if it is not a whole message of ours.
    pub(crate) fn delivered(&self, text: &str) -> Option<u64> {
        let digits = text.strip_prefix(&self.prefix)?.get(..DIGITS)?;
        if text.len() != self.delivery_bytes {
            return None;
        }
        u64::from_str_radix(digits, 16).ok()
    }
}

fn now_nanos() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970");
    now.as_nanos() as u64
}

#[cfg(test)]
mod tests {
    use causeway_protocol::frame::{FrameLimits, FrameReader, Message, Role};
    use causeway_protocol::{Publication, Topic};

    use super::*;

    fn delivery(payload: String) -> String {
        let publication = Publication::new(Topic::parse("load.fanout").unwrap(), payload);
        let mut frame = publication.frame().to_vec();
        let mut reader = FrameReader::new(Role::Client);
        match reader.next(&mut &mut frame[..], &FrameLimits::default()) {
            Ok(Some(Message::Text(text))) => text.into_owned(),
            other => panic!("not a text frame: {other:?}"),
        }
    }

    #[test]
    fn a_payload_is_as_long_as_asked_and_recognised_when_delivered() {
        for (asked, bytes) in [(128, 128), (88, 88), (1, PAYLOAD_BYTES_MIN)] {
            let stamp = Stamp::new("load.fanout", asked);
            let payload = stamp.payload(0xabc);
            assert_eq!(payload.len(), bytes);
            assert_eq!(stamp.delivered(&delivery(payload)), Some(0xabc));
        }
    }

    #[test]
    fn a_payload_that_was_cut_or_is_another_senders_is_not_ours() {
        let stamp = Stamp::new("load.fanout", 128);
        let short = Stamp { sender: stamp.sender.clone(), ..Stamp::new("load.fanout", 127) };
        assert_eq!(stamp.delivered(&delivery(short.payload(1))), None);
        assert_eq!(stamp.delivered(&delivery(Stamp::new("load.fanout", 128).payload(1))), None);
        assert_eq!(stamp.delivered(r#"{"op":"gap"}"#), None);
    }
}
