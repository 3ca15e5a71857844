//! What Prometheus reads: names, help texts, and where each figure comes from.
//!
//! Labels are closed sets: no topic, user or address ever becomes one. Workers count for themselves and add
//! up here a few times a second, so that counting costs a delivery nothing.

use causeway_broker::LinkReport;
use causeway_hub::{HubCounters, HubGauges, PublishOutcome};
use causeway_protocol::CloseCode;
use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{Encoder, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};
use serde::Serialize;

use crate::rejection::Rejection;

/// Every series of this node.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// `causeway_upgrades_accepted_total`
    pub accepted: IntCounter,
    refused: IntCounterVec,
    publishes: IntCounterVec,
    closed: IntCounterVec,
    connections: IntGaugeVec,
    subscriptions: IntGaugeVec,
    topics: IntGaugeVec,
    messages_sent: IntCounter,
    bytes_sent: IntCounter,
    commands: IntCounter,
    gaps: IntCounter,
    link: LinkMetrics,
}

/// What the live feed tells: totals since the start, and what there is now.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Figures {
    connections: u64,
    subscriptions: u64,
    topics: u64,
    messages_received: u64,
    messages_sent: u64,
    bytes_sent: u64,
    gaps: u64,
    redis_link_up: bool,
}

/// What the broker reports, copied at each scrape.
#[derive(Debug)]
struct LinkMetrics {
    up: IntGauge,
    reconnects: IntCounter,
    topics: IntGauge,
    messages_received: IntCounter,
    bytes_received: IntCounter,
    dropped: IntCounterVec,
}

impl Metrics {
    /// All series, at zero.
    pub fn new() -> Self {
        let registry = Registry::new();
        let series = Series(&registry);
        let metrics = Self {
            accepted: series.counter("causeway_upgrades_accepted_total", "Upgrades answered with 101."),
            refused: series.counters(
                "causeway_upgrades_refused_total",
                "Upgrades refused over HTTP, by reason.",
                "reason",
            ),
            publishes: series.counters(
                "causeway_publishes_total",
                "Publishes by clients and over HTTP, by outcome.",
                "outcome",
            ),
            closed: series.counters(
                "causeway_connections_closed_total",
                "Connections ended, by close code; 1006 is no close frame at all.",
                "code",
            ),
            connections: series.gauges("causeway_connections", "Open connections, by worker.", "worker"),
            subscriptions: series.gauges(
                "causeway_subscriptions",
                "Subscriptions, one per topic and connection, by worker.",
                "worker",
            ),
            topics: series.gauges(
                "causeway_topics",
                "Topics that connections are subscribed to or waiting for, by worker.",
                "worker",
            ),
            messages_sent: series
                .counter("causeway_messages_sent_total", "Messages written to sockets, one per subscriber."),
            bytes_sent: series.counter("causeway_bytes_sent_total", "Bytes written to sockets."),
            commands: series.counter("causeway_commands_total", "Commands received from clients."),
            gaps: series.counter("causeway_gaps_total", "Gaps announced, one per topic and subscriber."),
            link: LinkMetrics {
                up: series
                    .gauge("causeway_redis_link_up", "Whether the broker is connected and was heard lately."),
                reconnects: series.counter(
                    "causeway_redis_reconnects_total",
                    "How often the lost link was established again.",
                ),
                topics: series.gauge(
                    "causeway_redis_topics",
                    "Topics this node is subscribed to at the broker, or trying to be.",
                ),
                messages_received: series
                    .counter("causeway_messages_received_total", "Messages that arrived from the broker."),
                bytes_received: series
                    .counter("causeway_bytes_received_total", "Payload bytes that arrived from the broker."),
                dropped: series.counters(
                    "causeway_messages_dropped_total",
                    "Messages dropped on this node and announced as gaps, by reason.",
                    "reason",
                ),
            },
            registry,
        };
        metrics.begin_at_zero();
        metrics
    }

    /// A series that is there before its first event can be alerted on, and its first event be seen as a rise.
    fn begin_at_zero(&self) {
        for code in CloseCode::ALL {
            self.closed.with_label_values(&[&code.code().to_string()]);
        }
        for code in ["1006", "other"] {
            self.closed.with_label_values(&[code]);
        }
        for reason in Rejection::UPGRADE_CODES {
            self.refused.with_label_values(&[reason]);
        }
        for outcome in [PublishOutcome::Published, PublishOutcome::Unavailable, PublishOutcome::Refused] {
            self.publishes_ending(outcome);
        }
        self.add(0, HubCounters::default(), HubCounters::default(), HubGauges::default());
    }

    /// Adds what a worker has counted since it last did, and notes what it has.
    pub(crate) fn add(&self, worker: u16, before: HubCounters, now: HubCounters, gauges: HubGauges) {
        self.messages_sent.inc_by(now.messages_sent - before.messages_sent);
        self.bytes_sent.inc_by(now.bytes_sent - before.bytes_sent);
        self.commands.inc_by(now.commands - before.commands);
        self.gaps.inc_by(now.gaps - before.gaps);
        let worker = worker.to_string();
        let set = |series: &IntGaugeVec, value: usize| {
            series.with_label_values(&[&worker]).set(i64::try_from(value).unwrap_or(i64::MAX));
        };
        set(&self.connections, gauges.sessions);
        set(&self.subscriptions, gauges.subscriptions);
        set(&self.topics, gauges.topics);
    }

    /// Counts an ended connection. A code that a client made up is counted as `other`.
    pub(crate) fn count_closed(&self, code: u16) {
        let is_known = code == 1006 || CloseCode::ALL.iter().any(|known| known.code() == code);
        let label = if is_known { code.to_string() } else { "other".to_owned() };
        self.closed.with_label_values(&[&label]).inc();
    }

    /// Counts a refused upgrade, or a verdict that says it would be.
    pub(crate) fn count_refused(&self, rejection: &Rejection) {
        let reason = rejection.code();
        debug_assert!(Rejection::UPGRADE_CODES.contains(&reason), "{reason} is no code of a refused upgrade");
        self.refused.with_label_values(&[reason]).inc();
    }

    /// Counts a publish by a client or over HTTP.
    pub(crate) fn count_publish(&self, outcome: PublishOutcome) {
        self.publishes_ending(outcome).inc();
    }

    fn publishes_ending(&self, outcome: PublishOutcome) -> IntCounter {
        self.publishes.with_label_values(&[match outcome {
            PublishOutcome::Published => "published",
            PublishOutcome::Unavailable => "unavailable",
            PublishOutcome::Refused => "refused",
        }])
    }

    /// The main figures, for the live feed.
    pub(crate) fn figures(&self, link: LinkReport) -> Figures {
        let worker_sum = |series: &IntGaugeVec| {
            let families = series.collect();
            let workers = families.iter().flat_map(MetricFamily::get_metric);
            workers.map(|worker| worker.get_gauge().get_value() as u64).sum()
        };
        Figures {
            connections: worker_sum(&self.connections),
            subscriptions: worker_sum(&self.subscriptions),
            topics: link.topics,
            messages_received: link.messages_received,
            messages_sent: self.messages_sent.get(),
            bytes_sent: self.bytes_sent.get(),
            gaps: self.gaps.get(),
            redis_link_up: link.up,
        }
    }

    /// The exposition, in Prometheus' text format.
    pub fn render(&self, link: LinkReport) -> Vec<u8> {
        self.link.copy(link);
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text).expect("writing to memory cannot fail");
        text
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl LinkMetrics {
    fn copy(&self, link: LinkReport) {
        self.up.set(link.up.into());
        self.topics.set(i64::try_from(link.topics).unwrap_or(i64::MAX));
        raise(&self.reconnects, link.reconnects);
        raise(&self.messages_received, link.messages_received);
        raise(&self.bytes_received, link.bytes_received);
        raise(&self.dropped.with_label_values(&["overload"]), link.dropped_overload);
        raise(&self.dropped.with_label_values(&["too_large"]), link.dropped_too_large);
    }
}

/// Brings a counter up to a total that is counted elsewhere.
fn raise(counter: &IntCounter, total: u64) {
    counter.inc_by(total.saturating_sub(counter.get()));
}

/// Makes series and registers them.
struct Series<'a>(&'a Registry);

impl Series<'_> {
    fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.register(IntCounter::new(name, help))
    }

    fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.register(IntGauge::new(name, help))
    }

    fn counters(&self, name: &str, help: &str, label: &str) -> IntCounterVec {
        self.register(IntCounterVec::new(Opts::new(name, help), &[label]))
    }

    fn gauges(&self, name: &str, help: &str, label: &str) -> IntGaugeVec {
        self.register(IntGaugeVec::new(Opts::new(name, help), &[label]))
    }

    fn register<C: Collector + Clone + 'static>(&self, made: prometheus::Result<C>) -> C {
        let collector = made.expect("names and labels are constants in Prometheus' grammar");
        self.0.register(Box::new(collector.clone())).expect("every name is registered once");
        collector
    }
}
