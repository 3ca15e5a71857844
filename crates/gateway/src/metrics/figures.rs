//! The figures of the live feed, read from the same series as a scrape.

use std::collections::BTreeMap;

use causeway_hub::LatencyCounts;
use prometheus::core::Collector;
use prometheus::proto::{Metric, MetricFamily};
use serde::Serialize;

use super::{Metrics, NodeReport};

/// Totals since the start, and what there is now. Rates are for whoever reads two of them.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figures {
    pub(crate) connections: u64,
    pub(crate) connections_max: usize,
    pub(crate) subscriptions: u64,
    topics: u64,
    /// Upgrades answered with 101.
    accepted: u64,
    /// Upgrades refused, by reason. Here and below, reasons that never were are left out.
    refused: BTreeMap<String, u64>,
    /// Connections ended, by close code.
    closed: BTreeMap<String, u64>,
    pub(crate) messages_received: u64,
    bytes_received: u64,
    pub(crate) messages_sent: u64,
    bytes_sent: u64,
    delivery: Delivery,
    gaps: BTreeMap<String, u64>,
    dropped_overload: u64,
    dropped_too_large: u64,
    outbox_bytes: u64,
    /// Of each worker's highest, the sum.
    outbox_bytes_highest: u64,
    inbox_bytes: u64,
    budget_bytes: usize,
    budget_used_bytes: usize,
    worker_lag_seconds: f64,
    redis_link_up: bool,
    redis_reconnects: u64,
    /// Connections told to go, by a drain or a shed.
    sent_away: u64,
}

/// How long messages took from the broker to a socket.
#[derive(Clone, Debug, Serialize)]
struct Delivery {
    /// The upper bounds of the buckets but the last, which has none.
    bounds_us: [u64; LatencyCounts::BOUNDS.len()],
    /// How many were in each.
    counts: Vec<u64>,
}

impl Metrics {
    /// The figures of the live feed.
    pub(crate) fn figures(&self, node: &NodeReport) -> Figures {
        let (workers, link) = (&self.workers, &node.link);
        Figures {
            connections: gauge_sum(&workers.connections),
            connections_max: node.connections_max,
            subscriptions: gauge_sum(&workers.subscriptions),
            topics: link.topics,
            accepted: self.accepted.get(),
            refused: counts_by_label(&self.refused),
            closed: counts_by_label(&self.closed),
            messages_received: link.messages_received,
            bytes_received: link.bytes_received,
            messages_sent: workers.messages_sent.get(),
            bytes_sent: workers.bytes_sent.get(),
            delivery: Delivery {
                bounds_us: LatencyCounts::BOUNDS,
                counts: workers.delivery_seconds.buckets(),
            },
            gaps: counts_by_label(&workers.gaps),
            dropped_overload: link.dropped_overload,
            dropped_too_large: link.dropped_too_large,
            outbox_bytes: gauge_sum(&workers.outbox_bytes),
            outbox_bytes_highest: gauge_sum(&workers.outbox_bytes_highest),
            inbox_bytes: gauge_sum(&workers.inbox_bytes),
            budget_bytes: node.budget_bytes,
            budget_used_bytes: node.budget_used_bytes,
            worker_lag_seconds: gauges(&workers.lag_seconds).into_iter().fold(0.0, f64::max),
            redis_link_up: link.up,
            redis_reconnects: link.reconnects,
            sent_away: workers.drains.get(),
        }
    }
}

fn gauge_sum(series: &impl Collector) -> u64 {
    gauges(series).into_iter().sum::<f64>() as u64
}

fn gauges(series: &impl Collector) -> Vec<f64> {
    each(series, |gauge| gauge.get_gauge().get_value())
}

/// Of a series with one label.
fn counts_by_label(series: &impl Collector) -> BTreeMap<String, u64> {
    let count = |counter: &Metric| {
        let label = counter.get_label().first().map(|label| label.value().to_owned()).unwrap_or_default();
        (label, counter.get_counter().get_value() as u64)
    };
    each(series, count).into_iter().filter(|(_, count)| *count > 0).collect()
}

fn each<T>(series: &impl Collector, read: impl Fn(&Metric) -> T) -> Vec<T> {
    let families = series.collect();
    families.iter().flat_map(MetricFamily::get_metric).map(read).collect()
}
