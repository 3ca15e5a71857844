//! Compressed messages: who gets them, and what that costs.

use causeway_hub::HubLimits;
use causeway_protocol::Publication;
use serde_json::Value;

use crate::support::{Client, Stage, message, topic};

const OFFER: &str = "permessage-deflate; client_max_window_bits";

fn stage() -> Stage {
    Stage::new(HubLimits { deflate_bytes_min: 100, ..HubLimits::default() })
}

/// What waits for a client: the first byte of each frame, and where it lies.
fn waiting(stage: &Stage, client: Client) -> Vec<(u8, *const u8)> {
    let outbox = stage.hub.outbox(stage.key(client)).unwrap();
    outbox.frames().map(|frame| (frame[0], frame.as_ptr())).collect()
}

/// Whether each frame that waits is compressed.
fn compressed(stage: &Stage, client: Client) -> Vec<bool> {
    waiting(stage, client).into_iter().map(|(first, _)| first == 0xc1).collect()
}

/// Text that is worth compressing.
fn text(len: usize) -> Value {
    Value::String("all work and no play ".chars().cycle().take(len).collect())
}

#[test]
fn a_message_is_compressed_once_for_everybody_who_takes_it_so() {
    let mut stage = stage();
    let alice = stage.deflating_subscriber(OFFER, "a");
    let bob = stage.subscriber("bob", &["a"]);
    let carol = stage.deflating_subscriber(OFFER, "a");
    let publication = Publication::new(topic("a"), text(5000).to_string());
    stage.hub.publish(&publication, stage.now(), stage.now());
    assert_eq!(compressed(&stage, alice), [true]);
    assert_eq!(waiting(&stage, alice), waiting(&stage, carol));
    assert_eq!(waiting(&stage, bob), [(0x81, publication.frame().as_ptr())]);

    // Each frame is counted as memory once, and what was saved for each who had it compressed.
    let plain = publication.frame().len();
    let deflated = stage.hub.outbox(stage.key(alice)).unwrap().bytes();
    assert!(deflated < plain / 10, "{deflated} bytes of {plain}");
    assert_eq!(stage.hub.gauges().frame_bytes, plain + deflated);
    let counts = stage.hub.counters().deflate;
    assert_eq!((counts.plain_bytes, counts.deflated_bytes), (2 * plain as u64, 2 * deflated as u64));

    for client in [alice, bob, carol] {
        assert_eq!(stage.hears(client), [message("a", text(5000))]);
    }
    assert_eq!(stage.hub.gauges().frame_bytes, 0);
}

#[test]
fn what_is_short_or_would_not_become_shorter_is_sent_as_it_is() {
    let mut stage = stage();
    let alice = stage.deflating_subscriber(OFFER, "a");
    stage.publish("a", text(50));
    stage.publish("a", text(100));
    assert_eq!(compressed(&stage, alice), [false, true]);
    stage.hears(alice);
    // Nothing in it repeats.
    let alphabet: String = (b'!'..=b'~').map(char::from).filter(|c| !"\\\"".contains(*c)).collect();
    stage.publish("a", alphabet);
    assert_eq!(compressed(&stage, alice), [false]);
}

#[test]
fn a_client_with_a_small_window_gets_long_messages_as_they_are() {
    let mut stage = stage();
    let alice = stage.deflating_subscriber("permessage-deflate; server_max_window_bits=9", "a");
    let bob = stage.deflating_subscriber("permessage-deflate; server_max_window_bits=12", "a");
    for (len, is_short) in [(450, true), (600, false), (6000, false)] {
        stage.publish("a", text(len));
        assert_eq!((compressed(&stage, alice), compressed(&stage, bob)), (vec![is_short], vec![true]));
        assert_eq!(stage.hears(alice), [message("a", text(len))]);
        assert_eq!(stage.hears(bob), [message("a", text(len))]);
    }
}

#[test]
fn sessions_that_compress_are_counted_while_they_last() {
    let mut stage = stage();
    let alice = stage.deflating_subscriber(OFFER, "a");
    let bob = stage.connect("bob");
    assert_eq!(stage.hub.gauges().deflating_sessions, 1);
    stage.hub.disconnect(stage.key(bob));
    assert_eq!(stage.hub.gauges().deflating_sessions, 1);
    stage.hub.disconnect(stage.key(alice));
    assert_eq!(stage.hub.gauges().deflating_sessions, 0);
}
