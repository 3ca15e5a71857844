//! What one session may cost, and how long it may take.

use std::time::Duration;

/// The bounds a hub keeps for every session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubLimits {
    /// The most topics a session may be subscribed to or waiting for.
    pub topics_per_session: usize,
    /// The most bytes of frames that may wait for one session. More closes it as a slow consumer.
    pub outbox_bytes: usize,
    /// The shortest message that is worth compressing, in bytes of its frame, for sessions that agreed on it.
    pub deflate_bytes_min: usize,
    /// The longest `data` of a publish, in bytes.
    pub publish_bytes: usize,
    /// Commands and pings a session may send in the long run, a second; each 16 topics that a command names count as one
    /// more. At least 1.
    pub commands_per_second: u32,
    /// Commands and pings it may send at once. At least 1.
    pub commands_burst: u32,
    /// How often a session is pinged.
    pub ping_interval: Duration,
    /// How long a ping may go unanswered.
    pub pong_timeout: Duration,
    /// How long a subscribe may wait for the broker before its topics are refused.
    pub subscribe_timeout: Duration,
    /// How long the socket may take nothing while there is something to write.
    pub write_stall: Duration,
    /// How long after our close frame the connection may linger.
    pub close_timeout: Duration,
    /// How long before a token expires its holder is warned.
    pub token_warning: Duration,
}

impl Default for HubLimits {
    fn default() -> Self {
        Self {
            topics_per_session: 128,
            outbox_bytes: 1 << 20,
            deflate_bytes_min: 512,
            publish_bytes: 64 << 10,
            commands_per_second: 50,
            commands_burst: 100,
            ping_interval: Duration::from_secs(25),
            pong_timeout: Duration::from_secs(10),
            subscribe_timeout: Duration::from_secs(5),
            write_stall: Duration::from_secs(5),
            close_timeout: Duration::from_secs(2),
            token_warning: Duration::from_secs(60),
        }
    }
}
