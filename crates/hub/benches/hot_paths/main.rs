//! What a hub costs for every message and every subscriber.
#![expect(unreachable_pub, reason = "a command, not a library")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use causeway_hub::{Grants, Hub, HubLimits, InterestChange, Moment, Policy};
use causeway_protocol::{Pattern, Publication, Topic};
use path::HotPath;

#[path = "../../../protocol/benches/hot_paths/path.rs"]
mod path;

/// 128 bytes, as in the figures of `docs/performance.md`.
const PAYLOAD: &[u8; 128] = &[b'1'; 128];
const CROWD: u64 = 10_000;
const IN_FLIGHT: u64 = 32;

fn main() {
    path::weigh(&[
        HotPath {
            name: "fan_out",
            operation: "offer a message to one subscriber of 10,000 and write it",
            operations: CROWD,
            prepare: || fan_out(CROWD, 1),
        },
        HotPath {
            name: "fan_out_burst",
            operation: "the same where 32 messages are offered before each write",
            operations: 1000 * IN_FLIGHT,
            prepare: || fan_out(1000, IN_FLIGHT),
        },
        HotPath {
            name: "unicast",
            operation: "offer a message to the only subscriber of a topic of 1,000 and write it",
            operations: 1000,
            prepare: || unicast(1000),
        },
        HotPath {
            name: "subscribe",
            operation: "subscribe a session to a topic that is live, and unsubscribe it again",
            operations: 1000,
            prepare: || come_and_go(1000),
        },
    ]);
}

/// A moment at which every command so far is affordable again.
fn later(now: &mut Duration) -> Moment {
    *now += Duration::from_secs(10);
    Moment::at(*now)
}

/// A hub in which subscriber number `i` has the topic that `topic_of(i)` names, and has read all it was told.
fn hub(subscribers: u64, topic_of: impl Fn(u64) -> String) -> Hub {
    let now = Moment::default();
    let mut hub = Hub::new("a", 0, HubLimits::default(), 7);
    let grants = Arc::new(grants());
    for i in 0..subscribers {
        let policy = Policy::new(format!("subscriber-{i}"), Arc::clone(&grants));
        let key = hub.connect(policy, Moment::NEVER, now);
        hub.command(key, &command("subscribe", &topic_of(i)), now);
        for change in hub.take_interest() {
            if let InterestChange::Want(topic, ticket) = change {
                hub.topic_live(&topic, ticket, now);
            }
        }
    }
    write(&mut hub, now);
    assert_eq!(hub.gauges().subscriptions as u64, subscribers);
    hub
}

fn grants() -> Grants {
    Grants { subscribe: [Pattern::parse("**").expect("a pattern")].into(), ..Grants::default() }
}

fn command(op: &str, topic: &str) -> String {
    format!(r#"{{"id":1,"op":"{op}","topics":["{topic}"]}}"#)
}

fn message(topic: &str) -> Publication {
    Publication::new(Topic::parse(topic).expect("a topic"), &PAYLOAD[..])
}

/// Writes all that is owed, as a worker does, to sockets that take everything. Says how many writes that took.
fn write(hub: &mut Hub, now: Moment) -> u64 {
    let mut writes = 0;
    while let Some(key) = hub.next_listed() {
        while let Some(outbox) = hub.outbox(key).filter(|outbox| !outbox.is_empty()) {
            let bytes = outbox.frames().map(|frame| black_box(frame).len()).sum();
            hub.wrote(key, bytes, now);
            writes += 1;
        }
        black_box(hub.fate(key, now));
    }
    writes
}

fn fan_out(subscribers: u64, in_flight: u64) -> Box<dyn FnMut()> {
    let now = Moment::default();
    let mut hub = hub(subscribers, |_| "orders.42".to_owned());
    Box::new(move || {
        for _ in 0..in_flight {
            hub.publish(&message("orders.42"), now, now);
        }
        assert_eq!(write(&mut hub, now), subscribers, "one write each");
    })
}

fn unicast(topics: u64) -> Box<dyn FnMut()> {
    let now = Moment::default();
    let name = |i| format!("orders.{i}");
    let mut hub = hub(topics, name);
    let messages: Vec<Publication> = (0..topics).map(|i| message(&name(i))).collect();
    Box::new(move || {
        for message in &messages {
            hub.publish(message, now, now);
        }
        assert_eq!(write(&mut hub, now), topics, "one write each");
    })
}

fn come_and_go(sessions: u64) -> Box<dyn FnMut()> {
    let mut now = Duration::ZERO;
    let mut hub = hub(sessions, |_| "orders.42".to_owned());
    let policy = Policy::new("guest", Arc::new(grants()));
    let guest = hub.connect(policy, Moment::NEVER, later(&mut now));
    let [subscribe, unsubscribe] = ["subscribe", "unsubscribe"].map(|op| command(op, "orders.42"));
    Box::new(move || {
        for _ in 0..1000 {
            hub.command(guest, &subscribe, later(&mut now));
            hub.command(guest, &unsubscribe, later(&mut now));
        }
        assert_eq!(write(&mut hub, later(&mut now)), 1, "the guest's replies");
        assert_eq!(hub.gauges().subscriptions as u64, sessions, "the guest has gone");
    })
}
