//! Whose child a span is, and what the queue holds.

use axum::http::HeaderMap;
use opentelemetry::trace::{SpanId, TraceState};

use super::*;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const UNSAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

/// Traces that nobody takes.
fn traces(sample: f64) -> (Arc<Traces>, Export, Arc<Metrics>) {
    let metrics = Arc::new(Metrics::new().unwrap());
    let settings = Settings { collector: "http://127.0.0.1:1".parse().unwrap(), sample };
    let (traces, export) = Traces::start(&settings, "test", Arc::clone(&metrics)).unwrap();
    (traces, export, metrics)
}

fn head(lines: &[(&'static str, &str)]) -> HeaderMap {
    let mut head = HeaderMap::new();
    for (name, value) in lines {
        head.append(*name, value.parse().unwrap());
    }
    head
}

#[tokio::test]
async fn the_caller_decides_and_without_its_word_the_share() {
    for (sample, traceparent, recorded) in [
        (0.0, Some(SAMPLED), true),
        (1.0, Some(SAMPLED), true),
        (0.0, Some(UNSAMPLED), false),
        (1.0, Some(UNSAMPLED), false),
        (0.0, None, false),
        (1.0, None, true),
    ] {
        let (traces, _export, _) = traces(sample);
        let lines: Vec<_> = traceparent.iter().map(|value| ("traceparent", *value)).collect();
        let Review(span) = traces.begin(Endpoint::Mutate, &head(&lines));
        assert_eq!(span.is_recording(), recorded, "{sample} {traceparent:?}");
        let child = span.span_context().trace_id().to_string() == TRACE;
        assert_eq!(child, traceparent.is_some(), "{sample} {traceparent:?}");
    }
}

#[tokio::test]
async fn what_is_no_parent_is_none() {
    let (traces, _export, _) = traces(1.0);
    for lines in [
        &[("traceparent", "")][..],
        &[("traceparent", "00")],
        &[("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331")],
        &[("traceparent", "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")],
        &[("traceparent", "00-00000000000000000000000000000000-b7ad6b7169203331-01")],
        &[("traceparent", "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01")],
        &[("traceparent", "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01")],
        &[("traceparent", "00-größe-b7ad6b7169203331-01")],
        &[("traceparent", SAMPLED), ("traceparent", SAMPLED)],
    ] {
        let Review(span) = traces.begin(Endpoint::Mutate, &head(lines));
        assert_ne!(span.span_context().trace_id().to_string(), TRACE, "{lines:?}");
        assert_ne!(span.span_context().span_id(), SpanId::INVALID, "{lines:?}");
        assert!(span.is_recording(), "{lines:?}");
    }
}

#[tokio::test]
async fn a_tracestate_goes_along_unless_it_is_long() {
    let (traces, _export, _) = traces(1.0);
    let long = format!("a={}", "x".repeat(600));
    for (tracestate, kept) in [("vendor=opaque", "vendor=opaque"), (&long, "")] {
        let head = head(&[("traceparent", SAMPLED), ("tracestate", tracestate)]);
        let Review(span) = traces.begin(Endpoint::Mutate, &head);
        assert_eq!(span.span_context().trace_id().to_string(), TRACE);
        assert_eq!(span.span_context().trace_state().header(), kept);
    }
    assert_eq!(TraceState::default().header(), "");
}

/// On one thread, and without a moment for the task that sends.
#[tokio::test]
async fn spans_without_a_place_are_dropped_and_counted() {
    let (traces, export, metrics) = traces(1.0);
    let answered =
        Answered { of: Some(["u", "n", "p"]), verdict: "admit", reason: "Granted", status: 200 };
    for _ in 0..3000 {
        traces.begin(Endpoint::Mutate, &HeaderMap::new()).end(&answered);
    }
    let dropped = |count| format!("devgrant_trace_spans_dropped_total {count}\n");
    assert!(metrics.text().contains(&dropped(3000 - 2048)), "{}", metrics.text());
    // At the end nobody is there to take the others either.
    export.finish().await;
    assert!(metrics.text().contains(&dropped(3000)), "{}", metrics.text());
    traces.begin(Endpoint::Mutate, &HeaderMap::new()).end(&answered);
    assert!(metrics.text().contains(&dropped(3001)), "{}", metrics.text());
}
