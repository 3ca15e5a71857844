//! Signs of life: whom the hub asks for one, and what becomes of whoever gives none or too many.

use causeway_hub::HubLimits;
use causeway_protocol::CloseCode;

use crate::support::{LATE, SECOND, Said, Stage, close, stage};

#[test]
fn a_client_is_pinged_and_closed_when_no_pong_comes_in_time() {
    let mut stage = stage();
    let alice = stage.connect("alice");
    let (heard, pinged_at) = stage.next_heard(alice);
    assert_eq!(heard, [Said::PingFrame]);
    assert!(pinged_at > 12 * SECOND && pinged_at <= 25 * SECOND + LATE, "{pinged_at:?}");
    let (heard, closed_at) = stage.next_heard(alice);
    assert_eq!(heard, [close(CloseCode::PongTimeout)]);
    assert!(closed_at >= pinged_at + 10 * SECOND && closed_at <= pinged_at + 10 * SECOND + LATE);
}

#[test]
fn whoever_is_heard_stays() {
    let mut stage = stage();
    let alice = stage.connect("alice");
    let (_, mut pinged_at) = stage.next_heard(alice);
    for _ in 0..10 {
        stage.pass(9 * SECOND);
        stage.hub.heard(stage.key(alice));
        let (heard, again_at) = stage.next_heard(alice);
        assert_eq!(heard, [Said::PingFrame]);
        assert!(again_at >= pinged_at + 25 * SECOND && again_at <= pinged_at + 25 * SECOND + LATE);
        pinged_at = again_at;
    }
}

#[test]
fn t3_a_session_that_does_not_stop_is_closed_and_not_listened_to() {
    let limits = HubLimits { commands_per_second: 1, commands_burst: 10, ..HubLimits::default() };
    let mut stage = Stage::new(limits);
    let alice = stage.connect("alice");
    stage.hears(alice);
    let key = stage.key(alice);
    for _ in 0..20 {
        stage.hub.pinged(key, b"", stage.now());
        assert!(!stage.hub.is_flooded_by(key));
    }
    stage.hub.pinged(key, b"", stage.now());
    assert!(stage.hub.is_flooded_by(key));
    assert_eq!(stage.hears(alice).last(), Some(&close(CloseCode::TooManyCommands)));
}

#[test]
fn a_ping_frame_is_answered_with_its_payload() {
    let mut stage = stage();
    let alice = stage.connect("alice");
    stage.hub.pinged(stage.key(alice), b"there?", stage.now());
    assert_eq!(stage.hears(alice), [Said::PongFrame(b"there?".to_vec())]);
}
