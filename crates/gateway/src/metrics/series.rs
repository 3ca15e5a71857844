//! Makes series and registers them, each under its name once.

use prometheus::core::Collector;
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};

use super::latency::LatencyHistogram;

/// From what a local answer takes to what nobody waits for, in seconds.
const SECONDS: [f64; 14] =
    [0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0];

pub(super) struct Series<'a>(pub(super) &'a Registry);

impl Series<'_> {
    pub(super) fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.register(IntCounter::new(name, help))
    }

    pub(super) fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.register(IntGauge::new(name, help))
    }

    pub(super) fn float_gauges(&self, name: &str, help: &str, label: &str) -> GaugeVec {
        self.register(GaugeVec::new(Opts::new(name, help), &[label]))
    }

    pub(super) fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.register(IntCounterVec::new(Opts::new(name, help), labels))
    }

    pub(super) fn gauges(&self, name: &str, help: &str, label: &str) -> IntGaugeVec {
        self.register(IntGaugeVec::new(Opts::new(name, help), &[label]))
    }

    pub(super) fn seconds(&self, name: &str, help: &str) -> Histogram {
        self.register(Histogram::with_opts(HistogramOpts::new(name, help).buckets(SECONDS.to_vec())))
    }

    pub(super) fn latency(&self, name: &str, help: &str) -> LatencyHistogram {
        self.register(LatencyHistogram::new(name, help))
    }

    /// A series that is always 1 and says something by its label.
    pub(super) fn info(&self, name: &str, help: &str, label: &str, value: &str) {
        let info: Gauge = self.register(Gauge::with_opts(Opts::new(name, help).const_label(label, value)));
        info.set(1.0);
    }

    fn register<C: Collector + Clone + 'static>(&self, made: prometheus::Result<C>) -> C {
        let collector = made.expect("names and labels are constants in Prometheus' grammar");
        self.0.register(Box::new(collector.clone())).expect("every name is registered once");
        collector
    }
}
