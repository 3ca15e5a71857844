//! What the hub knows of one client.

use causeway_protocol::frame::DeflateAgreement;

use crate::outbox::Outbox;
use crate::pending::PendingKey;
use crate::rate::CommandRate;
use crate::topics::TopicKey;
use crate::{HubLimits, Moment, Policy};

/// Names a session; never names another one later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionKey {
    index: u32,
    serial: u32,
}

impl SessionKey {
    pub(crate) fn new(index: usize, serial: u32) -> Self {
        Self { index: u32::try_from(index).expect("fewer than 2^32 sessions"), serial }
    }

    /// A small number that no other session of the hub has at the same time.
    pub fn index(self) -> usize {
        self.index as usize
    }

    /// How many sessions the hub had before this one, modulo 2^32.
    pub fn serial(self) -> u32 {
        self.serial
    }
}

/// One topic of a session, and the session's place among its subscribers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subscription {
    pub(crate) topic: TopicKey,
    pub(crate) place: u32,
}

/// How far a session has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Open,
    /// The last frame of the outbox is a close frame.
    Closing {
        code: u16,
        /// When the connection is dropped, whatever the client does.
        until: Moment,
        /// Whether the client's own close frame has come, so that nothing more is to be waited for.
        by_client: bool,
    },
}

#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) key: SessionKey,
    pub(crate) policy: Policy,
    pub(crate) phase: Phase,
    pub(crate) outbox: Outbox,
    pub(crate) subscriptions: Vec<Subscription>,
    /// Its subscribe commands that wait for the broker.
    pub(crate) pending: Vec<PendingKey>,
    pub(crate) token_expires: Moment,
    pub(crate) is_warned: bool,
    pub(crate) next_ping: Moment,
    /// When the ping that is under way must have been answered.
    pub(crate) pong_due: Moment,
    /// When the socket will have taken nothing for too long.
    pub(crate) stalled_at: Moment,
    /// When the drain closes it.
    pub(crate) drained_at: Moment,
    /// The moment for which the session is entered among the deadlines.
    pub(crate) due: Moment,
    pub(crate) rate: CommandRate,
    /// Commands refused as too fast, less those carried out since.
    pub(crate) too_fast: u32,
    /// Whether the session is listed as wanting attention.
    pub(crate) is_listed: bool,
    /// How messages may be compressed, if the client takes that.
    pub(crate) deflate: Option<DeflateAgreement>,
    pub(crate) messages_sent: u64,
    pub(crate) bytes_sent: u64,
}

impl Session {
    pub(crate) fn new(key: SessionKey, policy: Policy, token_expires: Moment, next_ping: Moment) -> Self {
        Self {
            key,
            policy,
            phase: Phase::Open,
            outbox: Outbox::default(),
            subscriptions: Vec::new(),
            pending: Vec::new(),
            token_expires,
            is_warned: false,
            next_ping,
            pong_due: Moment::NEVER,
            stalled_at: Moment::NEVER,
            drained_at: Moment::NEVER,
            due: Moment::NEVER,
            rate: CommandRate::default(),
            too_fast: 0,
            is_listed: false,
            deflate: None,
            messages_sent: 0,
            bytes_sent: 0,
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// Whether it has been told to go.
    pub(crate) fn is_leaving(&self) -> bool {
        self.drained_at != Moment::NEVER
    }

    pub(crate) fn is_subscribed(&self, topic: TopicKey) -> bool {
        self.subscriptions.iter().any(|subscription| subscription.topic == topic)
    }

    /// When something will have to be done about this session, if nothing happens before.
    pub(crate) fn next_due(&self, limits: &HubLimits) -> Moment {
        let token = match self.is_warned {
            true => self.token_expires,
            false => self.token_expires.before(limits.token_warning),
        };
        match self.phase {
            Phase::Open => [token, self.next_ping, self.pong_due, self.stalled_at, self.drained_at]
                .into_iter()
                .fold(Moment::NEVER, Moment::min),
            Phase::Closing { until, .. } => until,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topics::TopicEntry;

    #[test]
    fn nothing_is_larger_than_the_documents_say() {
        let document = include_str!("../../../docs/performance.md");
        for (what, bytes) in [
            ("the hub's session", size_of::<Session>()),
            ("a subscription, in the session", size_of::<Subscription>()),
            ("a subscription, in the topic", size_of::<SessionKey>()),
            ("a topic, in the hub's table", size_of::<TopicEntry>()),
        ] {
            let row = format!("| {what} | {bytes} B |");
            assert!(document.contains(&row), "docs/performance.md should say: {row}");
        }
    }
}
