//! What is allocated for a message, and kept for a session and a worker: counted, because no other test would notice more.

use allocation_counter::{AllocationInfo, measure};
use causeway_hub::{HubLimits, Outbox, SessionKey};
use causeway_protocol::Publication;
use causeway_protocol::frame::{Deflater, FrameLimits, FrameReader, Inflater, Role};

use crate::support::{Client, Stage, policy, topic};

const SUBSCRIBERS: usize = 10_000;

/// A stage with this many subscribers of `orders.42`, who have all been written a message.
fn crowd(subscribers: usize) -> Stage {
    let mut stage = Stage::new(HubLimits::default());
    for number in 0..subscribers {
        stage.subscriber(&format!("subscriber-{number}"), &["orders.42"]);
    }
    // They are listed still, from being told that they are subscribed, and would not be listed as a crowd.
    assert_eq!(write_all(&mut stage), 0, "they have read everything");
    assert_eq!(publish(&mut stage, &message()), subscribers);
    assert_eq!(write_all(&mut stage), subscribers);
    stage
}

fn message() -> Publication {
    Publication::new(topic("orders.42"), &b"{\"total\":9}"[..])
}

/// Says to how many outboxes the message was offered.
fn publish(stage: &mut Stage, message: &Publication) -> usize {
    let now = stage.now();
    stage.hub.publish(message, now, now)
}

/// Sockets take everything that waits; says how many there were.
fn write_all(stage: &mut Stage) -> usize {
    let now = stage.now();
    let mut written = 0;
    while let Some(key) = stage.hub.next_listed() {
        let bytes = bytes_waiting(stage, key);
        stage.hub.wrote(key, bytes, now);
        written += usize::from(bytes > 0);
    }
    written
}

fn bytes_waiting(stage: &Stage, key: SessionKey) -> usize {
    stage.hub.outbox(key).map_or(0, Outbox::bytes)
}

/// What `action` allocates, and that it did something.
fn cost(expected: usize, mut action: impl FnMut() -> usize) -> AllocationInfo {
    measure(|| assert_eq!(action(), expected))
}

/// How many bytes of the heap are a session's own: what its end gives back.
fn bytes_held(stage: &mut Stage, client: Client) -> i64 {
    let key = stage.key(client);
    -measure(|| drop(stage.hub.disconnect(key).expect("connected"))).bytes_current
}

#[test]
fn a_message_to_ten_thousand_warm_outboxes_is_one_allocation() {
    let mut stage = crowd(SUBSCRIBERS);
    let message = message();
    message.frame();
    // The frame as this worker's outboxes share it.
    assert_eq!(cost(SUBSCRIBERS, || publish(&mut stage, &message)).count_total, 1);
    assert_eq!(cost(SUBSCRIBERS, || write_all(&mut stage)).count_total, 0);
}

#[test]
fn encoding_a_message_is_two_allocations_for_the_whole_node() {
    let mut stage = crowd(10);
    let message = message();
    // The bytes, and the count of who has them.
    assert_eq!(cost(10, || publish(&mut stage, &message)).count_total, 1 + 2);
}

#[test]
fn what_a_message_allocated_is_given_back_when_all_have_it() {
    let mut stage = crowd(SUBSCRIBERS);
    let all = measure(|| {
        publish(&mut stage, &message());
        write_all(&mut stage);
    });
    assert!(all.count_total > 0);
    assert_eq!((all.count_current, all.bytes_current), (0, 0));
}

/// What an outbox keeps once it has been used: room for four frames.
const OUTBOX_BYTES_KEPT: i64 = 32;

#[test]
fn a_session_that_has_read_its_welcome_holds_its_subject_and_room_for_four_frames() {
    let mut stage = Stage::new(HubLimits::default());
    // What a token grants is shared between sessions.
    let policy = policy("alice", &["**"]);
    let alice = stage.connect_with(policy.clone(), 86_400);
    stage.hears(alice);
    assert_eq!(bytes_held(&mut stage, alice), "alice".len() as i64 + OUTBOX_BYTES_KEPT);
}

#[test]
fn an_outbox_holds_no_heap_after_a_burst() {
    let mut stage = crowd(1);
    let all = measure(|| {
        (0..100).for_each(|_| assert_eq!(publish(&mut stage, &message()), 1));
        write_all(&mut stage);
    });
    assert_eq!(all.bytes_current, -OUTBOX_BYTES_KEPT, "even what it had kept before");
}

const KIB: i64 = 1024;

#[test]
fn what_compresses_keeps_260_kib_and_what_inflates_63() {
    let message = Publication::new(topic("orders.42"), "all work and no play ".repeat(50));
    let (mut deflater, mut inflater) = (Deflater::default(), Inflater::default());
    let mut deflated = Vec::new();
    let frame = message.frame();
    let compressing = measure(|| drop(deflater.compress(frame).expect("it is worth it"))).bytes_current;
    deflated.extend_from_slice(&deflater.compress(frame).expect("it is worth it"));

    let mut reader = FrameReader::new(Role::Client).with_deflate();
    let received = reader.next(&mut &mut deflated[..], &FrameLimits::default()).unwrap().unwrap();
    let inflating = measure(|| {
        drop(
            reader.inflate(received, &mut inflater, &FrameLimits::default()).expect("it was compressed well"),
        );
    });
    // Their documentation says so.
    for (found, expected) in [(compressing, 260 * KIB), (inflating.bytes_current, 63 * KIB)] {
        assert!((found - expected).abs() < 2 * KIB, "{found} bytes, not {expected}");
    }
}
