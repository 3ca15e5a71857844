//! Traces: spans of upgrades and publishes for an OpenTelemetry collector, over OTLP/HTTP, where one is configured.
//!
//! A span is one of `tracing`'s under a target of its own, which the log leaves out. Where no collector is configured nobody
//! wants it, and making one comes to looking at a flag. No way of a message leads through here: a span that has ended
//! waits in a bounded queue (the SDK's, 2,048 spans; one that finds no room is dropped) for a thread of its own, which
//! is the only one to wait for the collector.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix_http::header::HeaderMap;
use awc::http::StatusCode;
use opentelemetry::KeyValue;
use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider, SpanData, SpanExporter, SpanLimits,
};
use prost::Message as _;
use tracing::Span;
use tracing::level_filters::LevelFilter;
use tracing_opentelemetry::{OpenTelemetryLayer, OpenTelemetrySpanExt as _};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::{Layer, Registry};

/// What spans are told by from everything else that is traced in this process.
pub(crate) const TARGET: &str = "traces";

/// Spans that may wait for the collector, and how many go to it at once.
const SPANS_WAITING_MAX: usize = 2048;
const SPANS_AT_ONCE_MAX: usize = 512;
/// How often spans go to the collector, if they are not that many before.
const EXPORT_INTERVAL: Duration = Duration::from_secs(1);
/// How long the collector may take to answer.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the end of the process waits for the last spans to be taken.
const LAST_EXPORT_PATIENCE: Duration = Duration::from_secs(2);

/// Which spans go where.
#[derive(Clone, Debug, PartialEq)]
pub struct TracesConfig {
    /// The collector's address for traces, all of it.
    pub endpoint: String,
    /// The share of traces to keep of those that begin here, 0 to 1. Whoever began a trace elsewhere has decided on it.
    pub sample_ratio: f64,
}

/// Traces that have begun. Dropped at the end of the process, it waits up to two seconds for the last spans to be taken.
#[derive(Debug)]
pub struct Traces {
    provider: SdkTracerProvider,
}

/// Where spans go.
#[derive(Debug)]
struct Collector {
    endpoint: String,
    resource: ResourceAttributesWithSchema,
    /// Whether the latest spans were not taken.
    is_failing: AtomicBool,
}

/// A request's headers, as a carrier of a trace's context.
struct Carrier<'a>(&'a HeaderMap);

impl Traces {
    /// Begins to send spans to the collector, as those of `node`. Nothing is said about whether it is there.
    pub fn begin(config: &TracesConfig, node: &str) -> Self {
        let collector = Collector {
            endpoint: config.endpoint.clone(),
            resource: ResourceAttributesWithSchema::default(),
            is_failing: AtomicBool::new(false),
        };
        let batches = BatchConfigBuilder::default()
            .with_max_queue_size(SPANS_WAITING_MAX)
            .with_max_export_batch_size(SPANS_AT_ONCE_MAX)
            .with_scheduled_delay(EXPORT_INTERVAL)
            .build();
        let origin = Resource::builder_empty().with_service_name("causeway").with_attributes([
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", node.to_owned()),
        ]);
        let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(config.sample_ratio)));
        let provider = SdkTracerProvider::builder()
            .with_span_processor(BatchSpanProcessor::builder(collector).with_batch_config(batches).build())
            .with_resource(origin.build())
            .with_sampler(sampler)
            // Which otherwise comes from the environment, past the configuration.
            .with_span_limits(SpanLimits::default())
            .build();
        Self { provider }
    }

    /// What takes spans in.
    pub(crate) fn layer(&self) -> Box<dyn Layer<Registry> + Send + Sync> {
        OpenTelemetryLayer::new(self.provider.tracer("causeway"))
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false)
            .with_filter(Targets::new().with_target(TARGET, LevelFilter::INFO))
            .boxed()
    }
}

impl Drop for Traces {
    fn drop(&mut self) {
        // What the collector has not taken by then is lost, and said to be.
        let _ = self.provider.shutdown_with_timeout(LAST_EXPORT_PATIENCE);
    }
}

/// Makes `span` part of the trace that a request belongs to, where the request says so (W3C Trace Context).
pub(crate) fn continue_trace(span: &Span, headers: &HeaderMap) {
    if !span.is_disabled() {
        let context = TraceContextPropagator::new().extract(&Carrier(headers));
        // Fails only where nobody wants the span.
        let _ = span.set_parent(context);
    }
}

/// Notes in `span` that what it is about failed, by a word of a closed set.
pub(crate) fn failed(span: &Span, cause: &'static str) {
    span.record("error.type", cause);
    span.record("otel.status_code", "ERROR");
}

impl SpanExporter for Collector {
    /// Waits for the collector, on the SDK's thread, which has nothing else to do.
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let resource_spans = group_spans_by_resource_and_scope(batch, &self.resource);
        let request = ExportTraceServiceRequest { resource_spans };
        let outcome = post(&self.endpoint, request.encode_to_vec());
        let was_failing = self.is_failing.swap(outcome.is_err(), Ordering::Relaxed);
        match &outcome {
            Err(error) if !was_failing => {
                tracing::warn!(
                    endpoint = self.endpoint,
                    spans,
                    error,
                    "spans are lost: the collector does not take them"
                );
            }
            Ok(()) if was_failing => {
                tracing::info!(endpoint = self.endpoint, "the collector takes spans again");
            }
            Ok(()) | Err(_) => {}
        }
        outcome.map_err(OTelSdkError::InternalFailure)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.resource = resource.into();
    }
}

/// One request of OTLP/HTTP, and why it was in vain. Waits for up to [`EXPORT_TIMEOUT`].
fn post(endpoint: &str, spans: Vec<u8>) -> Result<(), String> {
    thread_local! {
        // awc's clients belong to the thread of their runtime.
        static CLIENT: Option<(actix_rt::Runtime, awc::Client)> = actix_rt::Runtime::new().ok().map(|runtime| {
            let client = || awc::Client::builder().disable_redirects().timeout(EXPORT_TIMEOUT).finish();
            let client = runtime.block_on(async { client() });
            (runtime, client)
        });
    }
    CLIENT.with(|client| {
        let (runtime, client) = client.as_ref().ok_or("there is no runtime for it")?;
        let request =
            async || client.post(endpoint).content_type("application/x-protobuf").send_body(spans).await;
        match runtime.block_on(request()).map(|answer| answer.status()) {
            Ok(StatusCode::OK) => Ok(()),
            Ok(status) => Err(format!("the answer is {}", status.as_u16())),
            Err(error) => Err(error.to_string()),
        }
    })
}

impl Extractor for Carrier<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(actix_http::header::HeaderName::as_str).collect()
    }
}
