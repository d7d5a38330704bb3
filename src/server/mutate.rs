//! `POST /mutate`: the one asynchronous handler. It carries bytes to the line and back, then counts
//! and logs; it decides nothing.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use tokio::time::Instant;

use super::body::{self, Allowance};
use super::context::Context;
use super::deadline;
use super::failure::{Facts, Failure, Scarce};
use crate::decision::{self, Admission, Review};
use crate::metrics::Endpoint;
use crate::telemetry::shown;

pub(super) async fn mutate(State(context): State<Arc<Context>>, request: Request) -> Response {
    let allowance = Allowance {
        bytes: context.limits.body_bytes,
        time: context.limits.body,
        start: Instant::now(),
        timeout: deadline::of(request.uri().query()),
    };
    let outcome = admit(&context, request, &allowance).await;
    let took = allowance.start.elapsed();
    match outcome {
        Ok(admission) => {
            log_verdict(&admission, took);
            context.metrics.admitted(Endpoint::Mutate, &admission, took);
            let json = [(header::CONTENT_TYPE, "application/json")];
            (json, admission.to_bytes()).into_response()
        }
        Err(Failure::Busy(scarce)) => {
            context.metrics.shed();
            tracing::warn!(reason = %scarce, "review turned away");
            Failure::Busy(scarce).into_response()
        }
        Err(failure) => {
            log_failure(&failure, took);
            let (verdict, reason) = (failure.verdict(), failure.reason());
            context.metrics.failed(Endpoint::Mutate, verdict, reason, took);
            failure.into_response()
        }
    }
}

async fn admit(
    context: &Context,
    request: Request,
    allowance: &Allowance,
) -> Result<Admission, Failure> {
    let _counted = context.metrics.in_flight();
    let (head, body) = request.into_parts();
    if !is_json(&head.headers) {
        body::discard(body, allowance).await?;
        return Err(Failure::WrongType);
    }
    let whole = body::read(&head.headers, body, allowance, &context.memory).await?;
    // Only now: a permit for a body that is arriving would be the sender's for as long as it likes.
    let Ok(_permit) = context.in_flight.try_acquire() else {
        return Err(Failure::Busy(Scarce::Permits));
    };
    let admission = decide(context, &whole.bytes)?;
    allowance.check()?;
    Ok(admission)
}

/// The line, with the one namespace and the one policy set that it takes.
fn decide(context: &Context, bytes: &Bytes) -> Result<Admission, Failure> {
    let review = Review::decode(bytes)?;
    let namespace = context.namespaces.find(&review.namespace());
    let policies = context.policies.current();
    decision::admit(&review, &policies, namespace.as_ref())
        .map_err(|error| Failure::Undecided { facts: Facts::of(&review), error })
}

fn is_json(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|media_type| media_type.trim().eq_ignore_ascii_case("application/json"))
}

fn log_verdict(admission: &Admission, took: Duration) {
    tracing::info!(
        uid = shown(&admission.uid),
        namespace = shown(&admission.namespace),
        name = shown(&admission.name),
        verdict = if admission.allowed { "admit" } else { "refuse" },
        reason = admission.reason.as_str(),
        duration_us = microseconds(took),
        "review"
    );
}

fn log_failure(failure: &Failure, took: Duration) {
    let (verdict, reason) = (failure.verdict(), failure.reason());
    let duration_us = microseconds(took);
    let error = shown(&failure.to_string());
    if let Failure::Undecided { facts, .. } = failure {
        tracing::error!(
            uid = shown(&facts.uid),
            namespace = shown(&facts.namespace),
            name = shown(&facts.name),
            verdict,
            reason,
            duration_us,
            error,
            "review"
        );
    } else {
        tracing::warn!(verdict, reason, duration_us, error, "review");
    }
}

fn microseconds(took: Duration) -> u64 {
    u64::try_from(took.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::StatusCode;

    use super::*;
    use crate::decision::{PolicySet, Settings};
    use crate::metrics::Metrics;
    use crate::server::{Limits, LivePolicies, Namespaces};

    const REVIEW: &str = include_str!("../../examples/review.json");

    fn context(limits: Limits) -> Arc<Context> {
        let metrics = Arc::new(Metrics::new().unwrap());
        let policies = PolicySet::compile(&[], Settings::default()).unwrap();
        let policies = Arc::new(LivePolicies::new(policies, Arc::clone(&metrics)));
        let namespaces = Namespaces::Fixed { labels: [].into() };
        Arc::new(Context::new(policies, namespaces, metrics, limits))
    }

    fn request(path: &str, body: impl Into<Body>) -> Request {
        Request::post(path)
            .header(header::CONTENT_TYPE, "application/json")
            .body(body.into())
            .unwrap()
    }

    #[tokio::test]
    async fn more_reviews_than_may_be_decided_at_once_are_turned_away_for_a_second() {
        let context = context(Limits { in_flight: 1, ..Limits::default() });
        let deciding = context.in_flight.try_acquire().unwrap();
        let answer = mutate(State(Arc::clone(&context)), request("/mutate", REVIEW)).await;
        assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(answer.headers()[header::RETRY_AFTER], "1");
        assert!(context.metrics.text().contains("devgrant_requests_shed_total 1"));
        drop(deciding);
        let answer = mutate(State(Arc::clone(&context)), request("/mutate", REVIEW)).await;
        assert_eq!(answer.status(), StatusCode::OK);
    }
}
