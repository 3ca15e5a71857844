//! Messages that clients publish.

use causeway_hub::{HubLimits, PublishOutcome, Request};
use serde_json::json;

use crate::support::{Said, Stage, error, policy, stage};

#[test]
fn a_publish_goes_to_the_broker_byte_for_byte_and_is_answered_by_its_outcome() {
    let mut stage = stage();
    let alice = stage.connect("alice");
    let text = r#"{"id":"x","op":"publish","topic":"chat.7","data": {"text" : "hi"} }"#;
    let request = stage.hub.command(stage.key(alice), text, stage.now());
    let Some(Request::Publish { id, permit, data }) = request else { panic!("{request:?}") };
    assert_eq!((permit.topic().as_str(), &data[..]), ("chat.7", &br#"{"text" : "hi"}"#[..]));
    assert_eq!(stage.hears(alice), [], "not before the broker has it");
    for outcome in [PublishOutcome::Published, PublishOutcome::Unavailable, PublishOutcome::Refused] {
        stage.hub.published(stage.key(alice), &id, outcome, stage.now());
    }
    let failed = |code: &str| match error(None, code) {
        Said::Error { code, message, retryable, .. } => {
            Said::Error { id: Some(id.clone()), code, message, retryable }
        }
        other => panic!("{other:?}"),
    };
    let published = Said::Published { id: id.clone() };
    assert_eq!(stage.hears(alice), [published, failed("broker_unavailable"), failed("internal")]);
}

#[test]
fn a_publish_that_is_not_granted_or_too_long_goes_nowhere() {
    let mut stage = Stage::new(HubLimits { publish_bytes: 5, ..HubLimits::default() });
    let alice = stage.connect_with(policy("alice", &["chat.{sub}"]), 3600);
    stage.hears(alice);
    let publish = |topic: &str, data: &str| json!({"id": 1, "op": "publish", "topic": topic, "data": data});
    assert!(stage.says(alice, &publish("chat.alice", "123")).is_some());
    for (command, code) in [
        (publish("chat.bob", "123"), "forbidden"),
        (publish("chat.alice", "1234"), "too_large"),
        (publish("chat..alice", "123"), "bad_topic"),
    ] {
        assert!(stage.says(alice, &command).is_none());
        assert_eq!(stage.hears(alice), [error(1, code)]);
    }
}
