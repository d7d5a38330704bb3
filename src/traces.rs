//! Traces: one span a review, sent by OTLP over HTTP to the collector that an operator names.
//!
//! Without one there is no [`Traces`], and nothing is done on the way of a review. With one, a review
//! whose `traceparent` is sampled has a span, one whose `traceparent` is not has none, and of the others
//! a share has.
//!
//! - `collector`: where spans are sent, and what it answers
//! - `export`: the queue, batches, and who is told of trouble
//!
//! **Invariant**: no review waits for the collector, and spans that wait for it take a bounded memory.

mod collector;
mod export;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::http::HeaderMap;
use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
use opentelemetry::trace::{
    Span as _, SpanBuilder, SpanKind, Status, Tracer as _, TracerProvider as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider, Span};

pub use collector::{Collector, NoTraces};
pub use export::Export;

use crate::metrics::{Endpoint, Metrics};
use crate::telemetry::shown;

/// What an operator wants of traces.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Where spans are sent.
    pub collector: Collector,
    /// The share of reviews that have a span, of those without a `traceparent`.
    pub sample: f64,
}

/// What makes spans.
#[derive(Debug)]
pub struct Traces {
    tracer: SdkTracer,
    propagator: TraceContextPropagator,
}

impl Traces {
    /// Spans of this replica, and what sends them; call it inside a tokio runtime. Nothing is sent yet.
    pub fn start(
        settings: &Settings,
        replica: &str,
        metrics: Arc<Metrics>,
    ) -> Result<(Arc<Self>, Export), NoTraces> {
        let resource = Resource::builder_empty()
            .with_attributes([
                KeyValue::new("service.name", "devgrant"),
                KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
                KeyValue::new("service.instance.id", replica.to_owned()),
            ])
            .build();
        let (queue, export) = export::start(settings.collector.client()?, &resource, metrics);
        let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(settings.sample)));
        let provider = SdkTracerProvider::builder()
            .with_resource(resource)
            .with_sampler(sampler)
            .with_span_processor(queue)
            .build();
        let traces =
            Self { tracer: provider.tracer("devgrant"), propagator: TraceContextPropagator::new() };
        Ok((Arc::new(traces), export))
    }

    /// The span of a review with this head.
    pub(crate) fn begin(&self, endpoint: Endpoint, headers: &HeaderMap) -> Review {
        // None of ours, and none that some other part of the process has.
        let parent = self.propagator.extract_with_context(&Context::new(), &Headers(headers));
        let builder = SpanBuilder::from_name(name(endpoint)).with_kind(SpanKind::Server);
        let mut span = self.tracer.build_with_context(builder, &parent);
        if span.is_recording() {
            span.set_attribute(KeyValue::new("http.request.method", "POST"));
            span.set_attribute(KeyValue::new("http.route", route(endpoint)));
        }
        Review(span)
    }
}

/// The span of a review that is not answered yet. One that never is, since its caller went away, ends
/// without a verdict.
#[derive(Debug)]
pub(crate) struct Review(Span);

/// How a review was answered.
#[derive(Debug)]
pub(crate) struct Answered<'a> {
    /// The uid, namespace and name that the review has, if it could be read.
    pub(crate) of: Option<[&'a str; 3]>,
    pub(crate) verdict: &'static str,
    pub(crate) reason: &'static str,
    pub(crate) status: u16,
}

impl Review {
    /// Ends the span, and puts it into the queue.
    pub(crate) fn end(self, answered: &Answered<'_>) {
        let Self(mut span) = self;
        if !span.is_recording() {
            return;
        }
        if let Some(of) = answered.of {
            for (key, text) in OF.into_iter().zip(of) {
                // What waits in the queue is bounded, as what is logged is.
                span.set_attribute(KeyValue::new(key, shown(text).into_owned()));
            }
        }
        span.set_attribute(KeyValue::new("devgrant.verdict", answered.verdict));
        span.set_attribute(KeyValue::new("devgrant.reason", answered.reason));
        let status = i64::from(answered.status);
        span.set_attribute(KeyValue::new("http.response.status_code", status));
        if answered.status >= 500 {
            span.set_status(Status::error(""));
        }
        span.end();
    }
}

/// The keys of what a span says of its review.
const OF: [&str; 3] = ["devgrant.review.uid", "devgrant.review.namespace", "devgrant.review.name"];

fn name(endpoint: Endpoint) -> &'static str {
    match endpoint {
        Endpoint::Advise => "POST /advise",
        Endpoint::Mutate => "POST /mutate",
        Endpoint::Validate => "POST /validate",
    }
}

fn route(endpoint: Endpoint) -> &'static str {
    match endpoint {
        Endpoint::Advise => "/advise",
        Endpoint::Mutate => "/mutate",
        Endpoint::Validate => "/validate",
    }
}

/// The head of a review, as far as it says whose span ours is a child of.
struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    /// A header that is there once. `tracestate` goes into the span as it came, and a head may have 64 KiB
    /// of it, so a long one is left out; the standard wants 512 bytes to be passed on.
    fn get(&self, key: &str) -> Option<&str> {
        let mut values = self.0.get_all(key).iter();
        let (value, None) = (values.next()?, values.next()) else { return None };
        value.to_str().ok().filter(|text| text.len() <= 512)
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(axum::http::HeaderName::as_str).collect()
    }
}
