//! The paths of the HTTPS port, and what holds for all of them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::post;

use super::context::Context;
use super::failure::Failure;
use super::reviews::{advise, mutate, validate};

/// The paths of the HTTPS port. They need no socket: a test calls them with `oneshot`.
pub fn router(context: Arc<Context>) -> Router {
    guarded(routes(), context)
}

fn routes() -> Router<Arc<Context>> {
    Router::new()
        .route("/advise", post(advise))
        .route("/mutate", post(mutate))
        .route("/validate", post(validate))
        .method_not_allowed_fallback(wrong_method)
        .fallback(unknown_path)
}

fn guarded(routes: Router<Arc<Context>>, context: Arc<Context>) -> Router {
    let catching = from_fn_with_state(Arc::clone(&context), catch_panics);
    routes.layer(catching).with_state(context)
}

async fn wrong_method() -> impl IntoResponse {
    (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, "POST")], "reviews are sent by POST\n")
}

async fn unknown_path() -> impl IntoResponse {
    (
        StatusCode::NOT_FOUND,
        "there is nothing at this path; reviews go to POST /mutate, /validate or /advise\n",
    )
}

/// A panic is an answer and a number, not a connection that breaks off: the API server would call it
/// a failed connection, and nobody would look for a bug in us.
///
/// Nothing is left half done: what a review shares with others is an immutable policy set and
/// counters. This rests on unwinding, so no profile may set `panic = "abort"`.
async fn catch_panics(
    State(context): State<Arc<Context>>,
    request: Request,
    next: Next,
) -> Response {
    let mut answer = pin!(next.run(request));
    let caught = std::future::poll_fn(|task| {
        match catch_unwind(AssertUnwindSafe(|| answer.as_mut().poll(task))) {
            Ok(poll) => poll.map(Some),
            Err(_) => Poll::Ready(None),
        }
    });
    if let Some(response) = caught.await {
        return response;
    }
    context.metrics.panicked();
    Failure::Bug.into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::routing::get;
    use tower::ServiceExt as _;

    use super::*;
    use crate::decision::{PolicySet, Settings};
    use crate::metrics::Metrics;
    use crate::server::{Limits, LivePolicies, Namespaces};

    #[tokio::test]
    async fn a_panic_is_answered_and_counted() {
        async fn breaks() -> &'static str {
            tokio::task::yield_now().await;
            panic!("a bug")
        }

        let metrics = Arc::new(Metrics::new().unwrap());
        let policies = PolicySet::compile(&[], Settings::default()).unwrap();
        let context = Arc::new(Context::new(
            Arc::new(LivePolicies::new(policies, Arc::clone(&metrics))),
            Namespaces::Fixed { labels: [].into() },
            Arc::clone(&metrics),
            Limits::default(),
        ));
        let routes = routes().route("/breaks", get(breaks));
        let request = Request::get("/breaks").body(Body::empty()).unwrap();
        let response = guarded(routes, context).oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert!(metrics.text().contains("devgrant_panics_total 1"));
    }
}
