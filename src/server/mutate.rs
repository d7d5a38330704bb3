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
use super::failure::{Facts, Failure};
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
        Err(Failure::Busy) => {
            context.metrics.shed();
            tracing::warn!("review turned away: too many are in flight");
            Failure::Busy.into_response()
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
    let (head, body) = request.into_parts();
    let Ok(_permit) = context.in_flight.try_acquire() else {
        body::discard(body, allowance).await?;
        return Err(Failure::Busy);
    };
    let _counted = context.metrics.in_flight();
    if !is_json(&head.headers) {
        body::discard(body, allowance).await?;
        return Err(Failure::WrongType);
    }
    let bytes = body::read(&head.headers, body, allowance).await?;
    let admission = decide(context, &bytes)?;
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
