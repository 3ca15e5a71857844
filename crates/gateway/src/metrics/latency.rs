//! Histograms that workers count for themselves, added up here.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use causeway_hub::LatencyCounts;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{Bucket, Histogram, Metric, MetricFamily, MetricType};

/// A histogram that is fed with what has been counted elsewhere. The buckets are those of [`LatencyCounts`].
#[derive(Clone, Debug)]
pub(super) struct LatencyHistogram(Arc<Totals>);

#[derive(Debug)]
struct Totals {
    desc: Desc,
    buckets: [AtomicU64; 1 + LatencyCounts::BOUNDS.len()],
    sum_us: AtomicU64,
}

impl LatencyHistogram {
    /// An empty histogram.
    pub(super) fn new(name: &str, help: &str) -> prometheus::Result<Self> {
        let desc = Desc::new(name.to_owned(), help.to_owned(), Vec::new(), Default::default())?;
        Ok(Self(Arc::new(Totals { desc, buckets: Default::default(), sum_us: AtomicU64::new(0) })))
    }

    /// Adds what was counted between `before` and `now`.
    pub(super) fn add(&self, before: &LatencyCounts, now: &LatencyCounts) {
        for (total, (before, now)) in self.0.buckets.iter().zip(before.buckets.iter().zip(now.buckets)) {
            total.fetch_add(now - before, Relaxed);
        }
        self.0.sum_us.fetch_add(now.sum_us - before.sum_us, Relaxed);
    }

    /// How many were in each bucket of [`LatencyCounts`].
    pub(super) fn buckets(&self) -> Vec<u64> {
        self.0.buckets.iter().map(|bucket| bucket.load(Relaxed)).collect()
    }
}

impl Collector for LatencyHistogram {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.0.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut count = 0;
        let mut cumulative = self.0.buckets.iter().map(|bucket| {
            count += bucket.load(Relaxed);
            count
        });
        let buckets = LatencyCounts::BOUNDS.iter().zip(&mut cumulative).map(|(&bound_us, count)| {
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(bound_us as f64 / 1e6);
            bucket.set_cumulative_count(count);
            bucket
        });
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets.collect());
        histogram.set_sample_count(cumulative.next().unwrap_or_default());
        histogram.set_sample_sum(self.0.sum_us.load(Relaxed) as f64 / 1e6);
        let mut metric = Metric::default();
        metric.set_histogram(histogram);
        let mut family = MetricFamily::default();
        family.set_name(self.0.desc.fq_name.clone());
        family.set_help(self.0.desc.help.clone());
        family.set_field_type(MetricType::HISTOGRAM);
        family.set_metric(vec![metric]);
        vec![family]
    }
}
