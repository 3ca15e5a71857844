//! What Prometheus reads: names, help texts, and where each figure comes from.
//!
//! Labels are closed sets: no topic, user or address ever becomes one. Workers count for themselves and add
//! up here a few times a second, so that counting costs a delivery nothing.

use std::time::Duration;

use causeway_broker::LinkReport;
use causeway_hub::{ClassCounts, HubCounters, HubGauges, PublishOutcome};
use causeway_protocol::frame::DeflateCounts;
use causeway_protocol::{CloseCode, CommandOp, ErrorCode, GapReason};
use prometheus::process_collector::ProcessCollector;
use prometheus::{
    Encoder, GaugeVec, Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry, TextEncoder,
};

use self::latency::LatencyHistogram;
use self::series::Series;
use crate::rejection::Rejection;
use crate::token::TokenError;

pub(crate) mod figures;
mod latency;
mod series;

/// Every series of this node.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    accepted: IntCounter,
    refused: IntCounterVec,
    /// `causeway_upgrade_seconds`
    pub(crate) upgrade_seconds: Histogram,
    token_failures: IntCounterVec,
    /// `causeway_token_verify_seconds`
    pub(crate) token_verify_seconds: Histogram,
    closed: IntCounterVec,
    publishes: IntCounterVec,
    /// `causeway_publish_seconds`
    pub(crate) publish_seconds: Histogram,
    workers: WorkerMetrics,
    classes: Vec<ClassMetrics>,
    link: LinkMetrics,
    node: NodeMetrics,
    canary_seconds: Histogram,
    canary_misses: IntGauge,
}

/// What a worker has counted and what it has, as it reports it a few times a second.
#[derive(Clone, Debug, Default)]
pub(crate) struct WorkerReport {
    pub(crate) counters: HubCounters,
    pub(crate) classes: Vec<ClassCounts>,
    pub(crate) gauges: HubGauges,
    /// What its clients sent compressed.
    pub(crate) inflated: DeflateCounts,
    pub(crate) inbox_bytes: usize,
    /// The most that has waited in its outboxes.
    pub(crate) outbox_bytes_highest: usize,
    /// How late it came to its work at worst, lately.
    pub(crate) lag: Duration,
}

/// What the node as a whole is at the moment of a scrape.
#[derive(Clone, Copy, Debug, Default)]
pub struct NodeReport {
    /// Whether it wants new clients.
    pub is_ready: bool,
    /// How many connections it may have.
    pub connections_max: usize,
    /// What may wait on the node, in bytes.
    pub budget_bytes: usize,
    /// What does.
    pub budget_used_bytes: usize,
    /// Connections that a draining node still has.
    pub draining: usize,
    /// Revocations in force.
    pub revocations: usize,
    /// Tasks of the process.
    pub tasks: usize,
    /// Log lines that nobody will read.
    pub log_lines_lost: u64,
    /// What the broker says.
    pub link: LinkReport,
}

/// What workers report.
#[derive(Debug)]
struct WorkerMetrics {
    connections: IntGaugeVec,
    subscriptions: IntGaugeVec,
    topics: IntGaugeVec,
    outbox_bytes: IntGaugeVec,
    outbox_bytes_highest: IntGaugeVec,
    inbox_bytes: IntGaugeVec,
    lag_seconds: GaugeVec,
    messages_sent: IntCounter,
    bytes_sent: IntCounter,
    delivery_seconds: LatencyHistogram,
    commands: IntCounterVec,
    gaps: IntCounterVec,
    drains: IntCounter,
    compression: CompressionMetrics,
}

/// What compression is used for, and what comes of it.
#[derive(Debug)]
struct CompressionMetrics {
    connections: IntGaugeVec,
    plain_bytes: IntCounterVec,
    deflated_bytes: IntCounterVec,
}

/// Of one topic class.
#[derive(Debug)]
struct ClassMetrics {
    messages_sent: IntCounter,
    subscriptions: IntGauge,
}

/// What the node says of itself at each scrape.
#[derive(Debug)]
struct NodeMetrics {
    ready: IntGauge,
    connections_max: IntGauge,
    budget_bytes: IntGauge,
    budget_used_bytes: IntGauge,
    drain_connections_remaining: IntGauge,
    revocations: IntGauge,
    tasks: IntGauge,
    log_lines_lost: IntCounter,
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
    /// All series, at zero; `classes` are the names of the topic classes, in their order.
    pub fn new(classes: &[String]) -> Self {
        let registry = Registry::new();
        // Refuses only a name that is taken.
        registry.register(Box::new(ProcessCollector::for_self())).expect("the first to register");
        let series = Series(&registry);
        series.info(
            "causeway_build_info",
            "1, for the version that runs.",
            "version",
            env!("CARGO_PKG_VERSION"),
        );
        let metrics = Self {
            accepted: series.counter("causeway_upgrades_accepted_total", "Upgrades answered with 101."),
            refused: series.counters(
                "causeway_upgrades_refused_total",
                "Upgrades refused over HTTP, by reason.",
                &["reason"],
            ),
            upgrade_seconds: series
                .seconds("causeway_upgrade_seconds", "From the head of an upgrade to its 101."),
            token_failures: series.counters(
                "causeway_token_failures_total",
                "Tokens that proved nothing, by cause.",
                &["cause"],
            ),
            token_verify_seconds: series.seconds("causeway_token_verify_seconds", "Verifying one token."),
            closed: series.counters(
                "causeway_connections_closed_total",
                "Connections ended, by close code; 1006 is no close frame at all.",
                &["code"],
            ),
            publishes: series.counters(
                "causeway_publishes_total",
                "Publishes by clients and over HTTP, by outcome.",
                &["outcome"],
            ),
            publish_seconds: series.seconds(
                "causeway_publish_seconds",
                "From a publish by a client or over HTTP to its outcome.",
            ),
            workers: WorkerMetrics::new(&series),
            classes: ClassMetrics::all(&series, classes),
            link: LinkMetrics::new(&series),
            node: NodeMetrics::new(&series),
            canary_seconds: series.seconds(
                "causeway_canary_round_trip_seconds",
                "From publishing a canary to its return by way of the broker.",
            ),
            canary_misses: series.gauge(
                "causeway_canary_misses",
                "Canaries in a row, one each second, that have not come back.",
            ),
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
        for cause in TokenError::CAUSES {
            self.token_failures.with_label_values(&[cause]);
        }
        for outcome in [PublishOutcome::Published, PublishOutcome::Unavailable, PublishOutcome::Refused] {
            self.publishes_ending(outcome);
        }
        for op in CommandOp::ALL {
            self.workers.commands_ending(Some(*op), None);
        }
        for reason in GapReason::ALL {
            self.workers.gaps.with_label_values(&[reason.name()]);
        }
        self.add(0, &WorkerReport::default(), &WorkerReport::default());
    }

    /// Adds what a worker has counted between two of its reports, and notes what it has.
    pub(crate) fn add(&self, worker: u16, before: &WorkerReport, now: &WorkerReport) {
        self.workers.add(worker, before, now);
        for (class, (before, now)) in self.classes.iter().zip(before.classes.iter().zip(&now.classes)) {
            class.messages_sent.inc_by(now.messages_offered - before.messages_offered);
            class.subscriptions.add(count(now.subscriptions) - count(before.subscriptions));
        }
    }

    /// Counts an upgrade that was answered with 101, `took` after its head had come.
    pub(crate) fn count_accepted(&self, took: Duration) {
        self.accepted.inc();
        self.upgrade_seconds.observe(took.as_secs_f64());
    }

    /// Counts a refused upgrade, or a verdict that says it would be.
    pub(crate) fn count_refused(&self, rejection: &Rejection) {
        let reason = rejection.code();
        debug_assert!(Rejection::UPGRADE_CODES.contains(&reason), "{reason} is no code of a refused upgrade");
        self.refused.with_label_values(&[reason]).inc();
    }

    /// Counts a token that proved nothing.
    pub(crate) fn count_token_failure(&self, error: &TokenError) {
        let cause = error.cause();
        debug_assert!(TokenError::CAUSES.contains(&cause), "{cause} is no cause of a token failure");
        self.token_failures.with_label_values(&[cause]).inc();
    }

    /// Counts an ended connection. A code that a client made up is counted as `other`.
    pub(crate) fn count_closed(&self, code: u16) {
        let is_known = code == 1006 || CloseCode::ALL.iter().any(|known| known.code() == code);
        let label = if is_known { code.to_string() } else { "other".to_owned() };
        self.closed.with_label_values(&[&label]).inc();
    }

    /// Counts a publish by a client or over HTTP.
    pub(crate) fn count_publish(&self, outcome: PublishOutcome, took: Duration) {
        self.publishes_ending(outcome).inc();
        self.publish_seconds.observe(took.as_secs_f64());
    }

    fn publishes_ending(&self, outcome: PublishOutcome) -> IntCounter {
        self.publishes.with_label_values(&[match outcome {
            PublishOutcome::Published => "published",
            PublishOutcome::Unavailable => "unavailable",
            PublishOutcome::Refused => "refused",
        }])
    }

    /// Notes that a canary has come back.
    pub(crate) fn canary_returned(&self, after: Duration) {
        self.canary_seconds.observe(after.as_secs_f64());
        self.canary_misses.set(0);
    }

    /// Notes how many canaries in a row have not come back.
    pub(crate) fn canary_missed(&self, misses: u32) {
        self.canary_misses.set(misses.into());
    }

    /// The exposition, in Prometheus' text format.
    pub fn render(&self, node: &NodeReport) -> Vec<u8> {
        self.link.copy(&node.link);
        self.node.copy(node);
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text).expect("writing to memory cannot fail");
        text
    }
}

impl WorkerMetrics {
    fn new(series: &Series<'_>) -> Self {
        Self {
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
            outbox_bytes: series.gauges(
                "causeway_outbox_bytes",
                "Memory of what waits to be written to sockets, by worker.",
                "worker",
            ),
            outbox_bytes_highest: series.gauges(
                "causeway_outbox_bytes_highest",
                "The highest that causeway_outbox_bytes was since the start, by worker.",
                "worker",
            ),
            inbox_bytes: series.gauges(
                "causeway_inbox_bytes",
                "Memory of what the broker has put in front of a worker, by worker.",
                "worker",
            ),
            lag_seconds: series.float_gauges(
                "causeway_worker_lag_seconds",
                "How late a worker came to its work at worst in the last 10 to 20 seconds, by worker.",
                "worker",
            ),
            messages_sent: series
                .counter("causeway_messages_sent_total", "Messages written to sockets, one per subscriber."),
            bytes_sent: series.counter("causeway_bytes_sent_total", "Bytes written to sockets."),
            delivery_seconds: series.latency(
                "causeway_delivery_seconds",
                "From a message's arrival on the node to its last byte written to a socket, one per subscriber.",
            ),
            commands: series.counters(
                "causeway_commands_total",
                "Commands received from clients, by op (`unreadable` where there was none) and by outcome: `ok`, or the code of the error reply.",
                &["op", "outcome"],
            ),
            gaps: series.counters(
                "causeway_gaps_total",
                "Gaps announced, one per topic and subscriber, by reason.",
                &["reason"],
            ),
            drains: series.counter(
                "causeway_drain_announcements_total",
                "Connections told to go, by a drain of all or of a share.",
            ),
            compression: CompressionMetrics::new(series),
        }
    }

    fn add(&self, worker: u16, before: &WorkerReport, now: &WorkerReport) {
        let (counted_before, counted) = (&before.counters, &now.counters);
        self.messages_sent.inc_by(counted.messages_sent - counted_before.messages_sent);
        self.bytes_sent.inc_by(counted.bytes_sent - counted_before.bytes_sent);
        self.delivery_seconds.add(&counted_before.delivery, &counted.delivery);
        for ((op, refused, now), (.., before)) in counted.commands.iter().zip(counted_before.commands.iter())
        {
            if now > before {
                self.commands_ending(op, refused).inc_by(now - before);
            }
        }
        for ((reason, now), (_, before)) in counted.gaps.iter().zip(counted_before.gaps.iter()) {
            self.gaps.with_label_values(&[reason.name()]).inc_by(now - before);
        }
        self.drains.inc_by(counted.drains - counted_before.drains);
        self.compression.add(before, now);
        let worker = worker.to_string();
        let set = |series: &IntGaugeVec, value| series.with_label_values(&[&worker]).set(count(value));
        set(&self.connections, now.gauges.sessions);
        set(&self.subscriptions, now.gauges.subscriptions);
        set(&self.compression.connections, now.gauges.deflating_sessions);
        set(&self.topics, now.gauges.topics);
        set(&self.outbox_bytes, now.gauges.outbox_bytes());
        set(&self.outbox_bytes_highest, now.outbox_bytes_highest);
        set(&self.inbox_bytes, now.inbox_bytes);
        self.lag_seconds.with_label_values(&[&worker]).set(now.lag.as_secs_f64());
    }

    fn commands_ending(&self, op: Option<CommandOp>, refused: Option<ErrorCode>) -> IntCounter {
        let op = op.map_or("unreadable", CommandOp::name);
        self.commands.with_label_values(&[op, refused.map_or("ok", ErrorCode::name)])
    }
}

impl CompressionMetrics {
    fn new(series: &Series<'_>) -> Self {
        Self {
            connections: series.gauges(
                "causeway_compression_connections",
                "Open connections that agreed on permessage-deflate, by worker.",
                "worker",
            ),
            plain_bytes: series.counters(
                "causeway_compression_plain_bytes_total",
                "Bytes of compressed messages before they were compressed, by direction: `sent` (one per subscriber) or `received`.",
                &["direction"],
            ),
            deflated_bytes: series.counters(
                "causeway_compression_deflated_bytes_total",
                "Bytes of compressed messages on the wire, by direction: `sent` (one per subscriber) or `received`.",
                &["direction"],
            ),
        }
    }

    fn add(&self, before: &WorkerReport, now: &WorkerReport) {
        for (direction, before, now) in [
            ("sent", before.counters.deflate, now.counters.deflate),
            ("received", before.inflated, now.inflated),
        ] {
            let add = |series: &IntCounterVec, bytes| series.with_label_values(&[direction]).inc_by(bytes);
            add(&self.plain_bytes, now.plain_bytes - before.plain_bytes);
            add(&self.deflated_bytes, now.deflated_bytes - before.deflated_bytes);
        }
    }
}

impl ClassMetrics {
    /// One of each for every class; no series where there are no classes.
    fn all(series: &Series<'_>, classes: &[String]) -> Vec<Self> {
        if classes.is_empty() {
            return Vec::new();
        }
        let messages_sent = series.counters(
            "causeway_class_messages_sent_total",
            "Messages put into outboxes, one per subscriber, by topic class.",
            &["class"],
        );
        let subscriptions =
            series.gauges("causeway_class_subscriptions", "Subscriptions, by topic class.", "class");
        let of_class = |class: &String| Self {
            messages_sent: messages_sent.with_label_values(&[class]),
            subscriptions: subscriptions.with_label_values(&[class]),
        };
        classes.iter().map(of_class).collect()
    }
}

impl NodeMetrics {
    fn new(series: &Series<'_>) -> Self {
        Self {
            ready: series.gauge("causeway_ready", "Whether the node wants new clients: what /readyz says."),
            connections_max: series.gauge(
                "causeway_connections_max",
                "How many connections the node may have: limits.connections.",
            ),
            budget_bytes: series.gauge(
                "causeway_memory_budget_bytes",
                "What may wait on the node for clients: limits.outbox_bytes_total.",
            ),
            budget_used_bytes: series
                .gauge("causeway_memory_budget_used_bytes", "What waits on the node for clients."),
            drain_connections_remaining: series.gauge(
                "causeway_drain_connections_remaining",
                "Connections that a draining node has still to close; 0 on a node that is not draining.",
            ),
            revocations: series.gauge("causeway_revocations", "Revocations of tokens in force on the node."),
            tasks: series
                .gauge("causeway_tasks", "Tasks of the node: one for each connection, and some of its own."),
            log_lines_lost: series.counter(
                "causeway_log_lines_lost_total",
                "Lines that the log is missing, because stderr took no more.",
            ),
        }
    }

    fn copy(&self, node: &NodeReport) {
        self.ready.set(node.is_ready.into());
        self.connections_max.set(count(node.connections_max));
        self.budget_bytes.set(count(node.budget_bytes));
        self.budget_used_bytes.set(count(node.budget_used_bytes));
        self.drain_connections_remaining.set(count(node.draining));
        self.revocations.set(count(node.revocations));
        self.tasks.set(count(node.tasks));
        raise(&self.log_lines_lost, node.log_lines_lost);
    }
}

impl LinkMetrics {
    fn new(series: &Series<'_>) -> Self {
        Self {
            up: series
                .gauge("causeway_redis_link_up", "Whether the broker is connected and was heard lately."),
            reconnects: series
                .counter("causeway_redis_reconnects_total", "How often the lost link was established again."),
            topics: series.gauge(
                "causeway_redis_topics",
                "Topics this node is subscribed to at the broker, or trying to be; two are its own, for canaries and for what nodes tell each other.",
            ),
            messages_received: series
                .counter("causeway_messages_received_total", "Messages that arrived from the broker."),
            bytes_received: series
                .counter("causeway_bytes_received_total", "Payload bytes that arrived from the broker."),
            dropped: series.counters(
                "causeway_messages_dropped_total",
                "Messages dropped on this node and announced as gaps, by reason.",
                &["reason"],
            ),
        }
    }

    fn copy(&self, link: &LinkReport) {
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

fn count(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
