//! Every figure that a report may have: its name for programs, its name for people, its unit.

use crate::report::Unit;

/// What can be found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Figure {
    /// The JSON name, which ends in the unit where there is one.
    pub(crate) key: &'static str,
    /// For people.
    pub(crate) label: &'static str,
    /// Of the value.
    pub(crate) unit: Unit,
}

impl Figure {
    /// The key without the unit at its end: `p99` for `p99_ms`.
    pub(crate) fn name(&self) -> &'static str {
        self.unit.suffix().and_then(|suffix| self.key.strip_suffix(suffix)).unwrap_or(self.key)
    }

    /// Whether `name` means this one.
    pub(crate) fn is_called(&self, name: &str) -> bool {
        name == self.key || name == self.name()
    }
}

macro_rules! figures {
    ($($name:ident = $key:literal, $label:literal, $unit:ident;)*) => {
        $(
            #[doc = $label]
            pub(crate) static $name: Figure = Figure { key: $key, label: $label, unit: Unit::$unit };
        )*
        #[cfg(test)]
        static ALL: &[&Figure] = &[$(&$name),*];
    };
}

figures! {
    CONNECTIONS = "connections", "connections", Count;
    CPU_PER_ACCEPT = "cpu_per_accept_us", "server CPU per accepted connection", Micros;
    CPU_PER_SUBSCRIBE = "cpu_per_subscribe_us", "server CPU per subscription", Micros;
    KIB_PER_CONNECTION = "kib_per_connection", "server memory per connection", KiB;
    CPU_PER_IDLE_CONNECTION_SECOND = "cpu_per_idle_connection_second_us", "server CPU per connection and second", Micros;

    IN_FLIGHT = "in_flight", "messages in flight", Count;
    RATE = "rate_per_second", "messages per second asked for", PerSecond;
    PUBLISHED = "published", "messages published", Count;
    PUBLISHED_PER_SECOND = "published_per_second", "messages published per second", PerSecond;
    DELIVERED = "delivered", "deliveries", Count;
    DELIVERIES_PER_SECOND = "deliveries_per_second", "deliveries per second", PerSecond;
    BYTES_PER_DELIVERY = "bytes_per_delivery", "bytes on the wire per delivery", Count;
    SAVED = "saved_percent", "saved by compression", Percent;
    CPU_PER_DELIVERY = "cpu_per_delivery_us", "server CPU per delivery", Micros;
    MEMORY_AFTER = "memory_per_connection_after_kib", "server memory per connection after the messages", KiB;
    P50 = "p50_ms", "latency, half within", Millis;
    P90 = "p90_ms", "latency, 90 % within", Millis;
    P99 = "p99_ms", "latency, 99 % within", Millis;
    P999 = "p999_ms", "latency, 99.9 % within", Millis;
    MAX = "max_ms", "latency, longest", Millis;
    ACKNOWLEDGED_P99 = "acknowledged_p99_ms", "publish acknowledged, 99 % within", Millis;

    LOST = "lost", "lost in silence", Count;
    MISSED_IN_GAP = "missed_in_gap", "missed, announced by a gap", Count;
    MISSED_AWAY = "missed_away", "missed while disconnected", Count;
    DUPLICATED = "duplicated", "duplicated", Count;
    REORDERED = "reordered", "reordered", Count;
    MISROUTED = "misrouted", "delivered to the wrong topic", Count;
    LATE = "late", "late", Count;
    GAPS = "gaps", "gaps announced", Count;
    STALLS = "stalls", "closed loop given up and begun anew", Count;
    ENDED = "ended", "connections that ended by themselves", Count;

    OPEN_P50 = "open_p50_ms", "connect to welcome, half within", Millis;
    OPEN_P99 = "open_p99_ms", "connect to welcome, 99 % within", Millis;
    OPEN_MAX = "open_max_ms", "connect to welcome, longest", Millis;
    UPGRADES = "upgrades", "upgrades", Count;
    UPGRADES_PER_SECOND = "upgrades_per_second", "upgrades per second", PerSecond;
    REFUSED = "refused", "attempts that were not let in", Count;
    CPU_PER_UPGRADE = "cpu_per_upgrade_us", "server CPU per upgrade", Micros;

    RETURNED = "returned", "connections that came back", Count;
    AWAY = "away", "connections still away at the end", Count;
    RETURN_P50 = "reconnect_p50_ms", "back and subscribed, half within", Millis;
    RETURN_P99 = "reconnect_p99_ms", "back and subscribed, 99 % within", Millis;
    RETURN_MAX = "reconnect_max_ms", "back and subscribed, longest", Millis;
    ALL_BACK = "all_back_s", "from the first end until all were back", Seconds;

    QUIET_P50 = "quiet_p50_ms", "quiet topic, half within", Millis;
    QUIET_P99 = "quiet_p99_ms", "quiet topic, 99 % within", Millis;
    QUIET_MAX = "quiet_max_ms", "quiet topic, longest", Millis;
    PING_P50 = "ping_p50_ms", "ping command, half within", Millis;
    PING_P99 = "ping_p99_ms", "ping command, 99 % within", Millis;
    PING_MAX = "ping_max_ms", "ping command, longest", Millis;

    INTAKE_PER_SECOND = "intake_per_second", "messages taken from Redis per second", PerSecond;
    CPU_PER_MESSAGE = "cpu_per_message_us", "server CPU per message taken", Micros;

    SERVER_BUSY = "server_busy_percent", "server busy", Percent;
    SERVER_RESIDENT = "server_resident_mib", "server memory at the end", MiB;
    LOAD_BUSY = "load_busy_percent", "load tester busy", Percent;
    LOOP_BUSY = "loop_busy_percent", "busiest thread of the load tester not waiting", Percent;
    LAG_P99 = "lag_p99_ms", "load tester's own lag, 99 % within", Millis;
    OVERDUE_P99 = "overdue_p99_ms", "published after it was due, 99 % within", Millis;

    NODE_RECEIVED = "node_messages_received", "nodes: messages received", Count;
    NODE_SENT = "node_messages_sent", "nodes: messages sent", Count;
    NODE_SENT_MIB = "node_sent_mib", "nodes: bytes sent", MiB;
    NODE_DROPPED = "node_messages_dropped", "nodes: messages dropped and announced", Count;
    NODE_GAPS = "node_gaps", "nodes: gaps announced", Count;
    NODE_ACCEPTED = "node_upgrades_accepted", "nodes: upgrades accepted", Count;
    NODE_REFUSED = "node_upgrades_refused", "nodes: upgrades refused", Count;
    NODE_CLOSED = "node_connections_closed", "nodes: connections closed", Count;
    NODE_REDIS_RECONNECTS = "node_redis_reconnects", "nodes: links to Redis made anew", Count;

    SOCKETS = "sockets", "sockets", Count;
    FRAMES_PER_WRITE = "frames_per_write", "frames in a write", Count;
    FRAME_BYTES = "frame_bytes", "bytes of a frame", Count;
    CPU_PER_WRITE = "cpu_per_write_us", "CPU per write", Micros;
    CPU_PER_FRAME = "cpu_per_frame_us", "CPU per frame", Micros;
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_two_figures_have_a_name_in_common() {
        let names: HashSet<_> = ALL.iter().map(|figure| figure.name()).collect();
        assert_eq!(names.len(), ALL.len());
    }

    #[test]
    fn a_key_ends_in_its_unit() {
        for figure in ALL.iter().filter(|figure| !matches!(figure.unit, Unit::Count | Unit::PerSecond)) {
            // This one was there before the rule.
            let is_old = figure.key == "kib_per_connection";
            assert!(is_old || figure.name() != figure.key, "{}", figure.key);
        }
    }
}
