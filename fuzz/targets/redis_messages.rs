//! What Redis sends: only messages of wanted topics reach a worker, unchanged, whatever comes before them.
#![cfg_attr(fuzzing, no_main)]

use causeway_broker::{Delivery, deliveries_of};
use causeway_protocol::Topic;

/// The input is what Redis sends, in RESP.
pub(crate) fn check(input: &[u8]) {
    let wanted = ["orders.42", "news"].map(|name| Topic::parse(name).expect("a legal topic"));
    let deliveries = deliveries_of("p.", &wanted, input);
    for delivery in &deliveries {
        match delivery {
            Delivery::Publication(publication, _) => {
                assert!(wanted.contains(publication.topic()));
                assert!(contains(input, publication.payload()), "the payload is what Redis sent");
                assert!(contains(publication.frame(), publication.topic().as_str().as_bytes()));
            }
            Delivery::Live(topic, _) | Delivery::Dropped { topic, .. } => assert!(wanted.contains(topic)),
            Delivery::LinkLost { .. } => panic!("nothing here loses the link"),
        }
    }
    for topic in &wanted {
        let live =
            deliveries.iter().filter(|delivery| matches!(delivery, Delivery::Live(live, _) if live == topic));
        assert!(live.count() <= 1, "{topic} was asked for once");
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    part.is_empty() || bytes.windows(part.len()).any(|window| window == part)
}

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|input: &[u8]| check(input));
