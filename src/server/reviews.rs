//! `POST /mutate`, `/validate` and `/advise`: the one asynchronous handler. It carries bytes to the line
//! and back, then counts and logs; it decides nothing.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use tokio::time::{Instant, timeout};

use super::body::{self, Allowance, ORDINARY, Whole};
use super::context::Context;
use super::deadline;
use super::failure::{Facts, Failure, Scarce};
use crate::decision::{self, Admission, Review, Undecided};
use crate::metrics::{Count, Endpoint};
use crate::telemetry::shown;
use crate::traces::Answered;

/// `POST /mutate`: pods on their way in.
pub(super) async fn mutate(State(context): State<Arc<Context>>, request: Request) -> Response {
    respond(context, request, Endpoint::Mutate).await
}

/// `POST /validate`: pods as everybody has left them.
pub(super) async fn validate(State(context): State<Arc<Context>>, request: Request) -> Response {
    respond(context, request, Endpoint::Validate).await
}

/// `POST /advise`: workloads, which make pods later.
pub(super) async fn advise(State(context): State<Arc<Context>>, request: Request) -> Response {
    respond(context, request, Endpoint::Advise).await
}

async fn respond(context: Arc<Context>, request: Request, endpoint: Endpoint) -> Response {
    answer(context, request, endpoint, by(endpoint)).await
}

async fn answer(
    context: Arc<Context>,
    request: Request,
    endpoint: Endpoint,
    decide: impl Decide,
) -> Response {
    let allowance = Allowance {
        bytes: context.limits.body_bytes,
        time: context.limits.body,
        start: Instant::now(),
        timeout: deadline::of(request.uri().query()),
    };
    let span = context.traces.as_ref().map(|traces| traces.begin(endpoint, request.headers()));
    let outcome = admit(&context, request, &allowance, endpoint, decide).await;
    let took = allowance.start.elapsed();
    let response = told(&context, endpoint, &outcome, took);
    if let Some(span) = span {
        span.end(&answered(&outcome, response.status()));
    }
    response
}

/// The answer, which is counted and logged.
fn told(
    context: &Context,
    endpoint: Endpoint,
    outcome: &Result<Admission, Failure>,
    took: Duration,
) -> Response {
    match outcome {
        Ok(admission) => {
            log_verdict(endpoint, admission, took);
            context.metrics.admitted(endpoint, admission, took);
            json(admission.to_bytes())
        }
        Err(failure @ Failure::Busy(scarce)) => {
            context.metrics.shed();
            tracing::warn!(reason = %scarce, "review turned away");
            failure.into_response()
        }
        Err(failure) => {
            log_failure(endpoint, failure, took);
            let (verdict, reason) = (failure.verdict(), failure.reason());
            context.metrics.failed(endpoint, verdict, reason, took);
            match (endpoint, failure) {
                // Advice that cannot be given keeps nobody from anything, whatever `failurePolicy` is.
                (Endpoint::Advise, Failure::Undecided { facts, .. }) => {
                    json(Admission::without_a_word(&facts.uid))
                }
                _ => failure.into_response(),
            }
        }
    }
}

/// What a span says of it.
fn answered(outcome: &Result<Admission, Failure>, status: StatusCode) -> Answered<'_> {
    let (of, verdict, reason) = match outcome {
        Ok(admission) => {
            let Admission { uid, namespace, name, .. } = admission;
            (Some([uid, namespace, name]), verdict(admission), admission.reason.as_str())
        }
        Err(failure) => {
            let of = match failure {
                Failure::Undecided { facts, .. } => {
                    Some([&facts.uid, &facts.namespace, &facts.name])
                }
                _ => None,
            };
            (of, failure.verdict(), failure.reason())
        }
    };
    let of = of.map(|of| of.map(String::as_str));
    Answered { of, verdict, reason, status: status.as_u16() }
}

fn verdict(admission: &Admission) -> &'static str {
    if admission.allowed { "admit" } else { "refuse" }
}

async fn admit(
    context: &Arc<Context>,
    request: Request,
    allowance: &Allowance,
    endpoint: Endpoint,
    decide: impl Decide,
) -> Result<Admission, Failure> {
    let counted = context.metrics.in_flight();
    let (head, body) = request.into_parts();
    if !is_json(&head.headers) {
        body::discard(body, allowance).await?;
        return Err(Failure::WrongType);
    }
    let whole = body::read(&head.headers, body, allowance, &context.memory).await?;
    let whole = Arc::new((whole, counted));
    let first = attempt(context, &whole, allowance, endpoint, decide).await;
    let Err(Failure::Undecided { error: Undecided::UnknownNamespace(name), .. }) = &first else {
        return first;
    };
    // A pod that is faster than the watch. No permit is held while the API server is asked.
    if allowance.answered(context.namespaces.look(name)).await? {
        return attempt(context, &whole, allowance, endpoint, by(endpoint)).await;
    }
    first
}

/// Decides a whole body, once.
async fn attempt(
    context: &Arc<Context>,
    whole: &Arc<(Whole, Count)>,
    allowance: &Allowance,
    endpoint: Endpoint,
    decide: impl Decide,
) -> Result<Admission, Failure> {
    let permits = match endpoint {
        // Nobody depends on advice: however much is asked for, pods get in.
        Endpoint::Advise => &context.advising,
        Endpoint::Mutate | Endpoint::Validate => &context.deciding,
    };
    let large = whole.0.bytes.len() > ORDINARY;
    // Only now: a permit for a body that is arriving would be the sender's for as long as it likes.
    let permit = timeout(PATIENCE, permits.acquire(large));
    let Ok(Ok(permit)) = allowance.answered(permit).await? else {
        return Err(Failure::Busy(Scarce::Permits));
    };
    let (context, whole) = (Arc::clone(context), Arc::clone(whole));
    let work = move || {
        // Until the work is done, even when nobody waits for it any more.
        let _permit = permit;
        let whole = whole;
        caught(&context, || decide(&context, &whole.0.bytes))
    };
    if !large {
        // An ordinary review has 2 to 15 KB and is decided in tens of microseconds; to hand it to
        // another thread and back would cost more than that.
        let admission = work()?;
        allowance.check()?;
        return Ok(admission);
    }
    // One of some MiB takes so long that the connections which share our thread would stand still.
    let deciding = tokio::task::spawn_blocking(work);
    // Panics are caught inside; what is left is a runtime that stops, and nobody to read the answer.
    allowance.answered(deciding).await?.unwrap_or(Err(Failure::Bug))
}

/// A bug in deciding is an answer and a number. It is caught where the decision runs and not only
/// around the handler (`routes`), which may be gone by then.
fn caught(
    context: &Context,
    decide: impl FnOnce() -> Result<Admission, Failure>,
) -> Result<Admission, Failure> {
    catch_unwind(AssertUnwindSafe(decide)).unwrap_or_else(|_| {
        context.metrics.panicked();
        Err(Failure::Bug)
    })
}

/// What decides: the line [`by`] a path, and in tests what stands still or breaks.
trait Decide: FnOnce(&Context, &Bytes) -> Result<Admission, Failure> + Send + 'static {}

impl<F: FnOnce(&Context, &Bytes) -> Result<Admission, Failure> + Send + 'static> Decide for F {}

/// Decides by the line, with the one namespace and the one policy set that it takes.
fn by(endpoint: Endpoint) -> impl Decide {
    move |context: &Context, bytes: &Bytes| {
        let policies = context.policies.current();
        if endpoint != Endpoint::Advise
            && let Some(admission) = decision::glance(bytes, &policies)
        {
            return Ok(admission);
        }
        let review = Review::decode(bytes)?;
        let namespace = context.namespaces.find(&review.namespace());
        let namespace = namespace.as_deref();
        let decided = match endpoint {
            Endpoint::Advise => {
                let offered = context.nodes.as_ref().and_then(|nodes| nodes.offered());
                decision::advise(&review, &policies, namespace, offered.as_deref())
            }
            Endpoint::Mutate => decision::admit(&review, &policies, namespace),
            Endpoint::Validate => decision::validate(&review, &policies, namespace),
        };
        decided.map_err(|error| Failure::Undecided { facts: Facts::of(&review), error })
    }
}

fn json(bytes: Vec<u8>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], bytes).into_response()
}

fn is_json(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|media_type| media_type.trim().eq_ignore_ascii_case("application/json"))
}

fn log_verdict(endpoint: Endpoint, admission: &Admission, took: Duration) {
    tracing::info!(
        endpoint = endpoint.as_str(),
        uid = shown(&admission.uid).as_ref(),
        namespace = shown(&admission.namespace).as_ref(),
        name = shown(&admission.name).as_ref(),
        verdict = verdict(admission),
        reason = admission.reason.as_str(),
        duration_us = microseconds(took),
        "review"
    );
}

fn log_failure(endpoint: Endpoint, failure: &Failure, took: Duration) {
    let endpoint = endpoint.as_str();
    let (verdict, reason) = (failure.verdict(), failure.reason());
    let duration_us = microseconds(took);
    let error = shown(&failure.to_string()).into_owned();
    if let Failure::Undecided { facts, .. } = failure {
        tracing::error!(
            endpoint,
            uid = shown(&facts.uid).as_ref(),
            namespace = shown(&facts.namespace).as_ref(),
            name = shown(&facts.name).as_ref(),
            verdict,
            reason,
            duration_us,
            error,
            "review"
        );
    } else {
        tracing::warn!(endpoint, verdict, reason, duration_us, error, "review");
    }
}

fn microseconds(took: Duration) -> u64 {
    u64::try_from(took.as_micros()).unwrap_or(u64::MAX)
}

/// How long a review waits for a permit. The API server comes again just a second after a 429, as all those do
/// that were turned away in the same moment: to turn a wave away at once is to meet it again whole. Well
/// below the second, so that those who wait are gone before the others come back.
const PATIENCE: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use axum::body::Body;

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

    /// An ordinary review, and one that is decided aside.
    fn both() -> [String; 2] {
        [REVIEW.to_owned(), format!("{REVIEW}{}", " ".repeat(ORDINARY))]
    }

    #[tokio::test]
    async fn a_large_review_is_decided_aside_and_a_small_one_here() {
        let here = std::thread::current().id();
        for (body, aside) in both().into_iter().zip([false, true]) {
            let length = body.len();
            let decided = answer(
                context(Limits::default()),
                request("/mutate?timeout=10s", body),
                Endpoint::Mutate,
                move |context: &Context, bytes: &Bytes| {
                    assert_eq!(std::thread::current().id() != here, aside, "{length} bytes");
                    by(Endpoint::Mutate)(context, bytes)
                },
            );
            assert_eq!(decided.await.status(), StatusCode::OK, "{length} bytes");
        }
    }

    #[tokio::test]
    async fn a_bug_in_deciding_is_answered_and_counted_once() {
        for body in both() {
            let context = context(Limits { in_flight: 1, ..Limits::default() });
            let broken = |_: &Context, _: &Bytes| panic!("a bug");
            let answer =
                answer(Arc::clone(&context), request("/mutate", body), Endpoint::Mutate, broken)
                    .await;
            assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
            let text = context.metrics.text();
            assert!(text.contains("devgrant_panics_total 1"), "{text}");
            assert!(text.contains(r#"reason="Bug",verdict="undecided"} 1"#), "{text}");
            assert!(text.contains("devgrant_requests_in_flight 0"), "{text}");
            assert_eq!(context.deciding.all.available_permits(), 1);
        }
    }

    /// The decision stands still until it is told to break, which is after the answer.
    #[tokio::test]
    async fn the_deadline_is_kept_while_deciding_goes_on_and_what_goes_on_is_counted() {
        let [_, large] = both();
        let context = context(Limits { in_flight: 1, ..Limits::default() });
        let (go_on, told) = std::sync::mpsc::channel::<()>();
        let stuck = move |_: &Context, _: &Bytes| {
            told.recv_timeout(Duration::from_mins(1)).unwrap();
            panic!("a bug")
        };
        let late = request("/mutate?timeout=50ms", large);
        let answer = answer(Arc::clone(&context), late, Endpoint::Mutate, stuck).await;
        assert_eq!(answer.status(), StatusCode::GATEWAY_TIMEOUT);
        assert!(context.metrics.text().contains("devgrant_requests_in_flight 1"));
        assert_eq!(context.deciding.all.available_permits(), 0);

        go_on.send(()).unwrap();
        drop(context.deciding.all.acquire().await.unwrap());
        let text = context.metrics.text();
        assert!(text.contains("devgrant_panics_total 1"), "{text}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_a_moment_for_a_permit_gets_in() {
        let context = context(Limits { in_flight: 1, ..Limits::default() });
        let deciding = context.deciding.all.try_acquire().unwrap();
        let waiting = mutate(State(Arc::clone(&context)), request("/mutate", REVIEW));
        let freed = async {
            tokio::time::sleep(PATIENCE / 2).await;
            drop(deciding);
        };
        let (answer, ()) = tokio::join!(waiting, freed);
        assert_eq!(answer.status(), StatusCode::OK);
    }

    #[tokio::test(start_paused = true)]
    async fn more_reviews_than_may_be_decided_at_once_are_turned_away_for_a_second() {
        let context = context(Limits { in_flight: 1, ..Limits::default() });
        let deciding = context.deciding.all.try_acquire().unwrap();
        let answer = mutate(State(Arc::clone(&context)), request("/mutate", REVIEW)).await;
        assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(answer.headers()[header::RETRY_AFTER], "1");
        assert!(context.metrics.text().contains("devgrant_requests_shed_total 1"));
        drop(deciding);
        let answer = mutate(State(Arc::clone(&context)), request("/mutate", REVIEW)).await;
        assert_eq!(answer.status(), StatusCode::OK);
    }

    #[tokio::test(start_paused = true)]
    async fn advice_has_permits_of_its_own_and_keeps_no_pod_waiting() {
        let context = context(Limits { in_flight: 4, ..Limits::default() });
        assert_eq!(context.advising.all.available_permits(), 1);
        let advising = context.advising.all.try_acquire().unwrap();
        let turned_away = advise(State(Arc::clone(&context)), request("/advise", REVIEW)).await;
        assert_eq!(turned_away.status(), StatusCode::TOO_MANY_REQUESTS);
        for _ in 0..4 {
            let admitted = mutate(State(Arc::clone(&context)), request("/mutate", REVIEW)).await;
            assert_eq!(admitted.status(), StatusCode::OK);
        }
        drop(advising);

        let deciding = context.deciding.all.try_acquire_many(4).unwrap();
        let advised = advise(State(Arc::clone(&context)), request("/advise", REVIEW)).await;
        assert_eq!(advised.status(), StatusCode::OK);
        drop(deciding);
    }

    /// A cluster whose watch has told of nothing, and whose API server answers with `answer`.
    fn in_cluster<A>(answer: impl Fn() -> A + Clone + Send + 'static) -> Arc<Context>
    where
        A: Future<Output = std::io::Result<Response>> + Send + 'static,
    {
        let service = tower::service_fn(move |_| answer());
        let client = kube::Client::new(service, "default");
        let metrics = Arc::new(Metrics::new().unwrap());
        let policies =
            PolicySet::compile(&crate::policies::shipped(), Settings::default()).unwrap();
        let policies = Arc::new(LivePolicies::new(policies, Arc::clone(&metrics)));
        let namespaces = crate::cluster::Namespaces::new(client, Arc::clone(&metrics));
        let namespaces = Namespaces::Watched(Arc::new(namespaces));
        Arc::new(Context::new(policies, namespaces, metrics, Limits::default()))
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_that_is_faster_than_the_watch_is_worth_one_live_read() {
        let found = || async {
            let namespace = r#"{"apiVersion":"meta.k8s.io/v1","kind":"PartialObjectMetadata",
                "metadata":{"name":"team-data","labels":{"devices.example/grant":"enabled"}}}"#;
            Ok(namespace.into_response())
        };
        for body in both() {
            let context = in_cluster(found);
            for _ in 0..2 {
                let request = request("/mutate?timeout=10s", body.clone());
                let answer = mutate(State(Arc::clone(&context)), request).await;
                assert_eq!(answer.status(), StatusCode::OK);
            }
            let text = context.metrics.text();
            assert!(text.contains(r#"reason="Granted",verdict="admit"} 2"#), "{text}");
            assert!(text.contains(r#"devgrant_namespace_reads_total{result="found"} 1"#), "{text}");
            assert!(text.contains("devgrant_requests_in_flight 0"), "{text}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_live_read_takes_no_longer_than_the_caller_waits() {
        let context = in_cluster(std::future::pending);
        let begun = Instant::now();
        let waiting = mutate(State(Arc::clone(&context)), request("/mutate?timeout=1s", REVIEW));
        assert_eq!(waiting.await.status(), StatusCode::GATEWAY_TIMEOUT);
        assert_eq!(begun.elapsed(), Duration::from_secs(1));
        assert_eq!(context.deciding.all.available_permits(), context.limits.in_flight);
        // Without a deadline the read has its own; the namespace is as unknown as before.
        let answer = mutate(State(Arc::clone(&context)), request("/mutate", REVIEW)).await;
        assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    }
}
