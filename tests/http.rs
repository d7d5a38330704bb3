//! The HTTPS port's paths, without a socket: every way to ask wrongly, and the limits.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up is a failed test")]

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::http::{Request, StatusCode, header, response};
use devgrant::metrics::Metrics;
use devgrant::server::{Context, Limits, router};
use http_body_util::BodyExt as _;
use hyper::body::{Frame, SizeHint};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tower::ServiceExt as _;

mod support {
    pub(crate) mod server;
}
use support::server::{REVIEW, metrics, namespaces, policies};

struct Paths {
    router: Router,
    metrics: Arc<Metrics>,
}

impl Paths {
    fn new(limits: Limits) -> Self {
        let metrics = metrics();
        let context = Context::new(policies(&metrics), namespaces(), Arc::clone(&metrics), limits);
        Self { router: router(Arc::new(context)), metrics }
    }

    async fn ask(&self, request: Request<Body>) -> (response::Parts, String) {
        let answer = self.router.clone().oneshot(request).await.unwrap();
        let (head, body) = answer.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (head, String::from_utf8(body.to_vec()).unwrap())
    }

    fn counted(&self, line: &str) {
        let text = self.metrics.text();
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

fn review(path: &str, body: impl Into<Body>) -> Request<Body> {
    Request::post(path).header(header::CONTENT_TYPE, "application/json").body(body.into()).unwrap()
}

/// A body of which no more comes than this; it says when somebody begins to wait for the rest.
struct Stalled {
    sent: Option<Bytes>,
    announced: u64,
    waited_for: Arc<Notify>,
}

impl HttpBody for Stalled {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Task<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(sent) = self.sent.take() {
            return Poll::Ready(Some(Ok(Frame::data(sent))));
        }
        self.waited_for.notify_one();
        Poll::Pending
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.announced)
    }
}

fn stalled(sent: usize, announced: u64) -> (Arc<Notify>, Body) {
    let waited_for = Arc::new(Notify::new());
    let sent = Some(Bytes::from(vec![b' '; sent]));
    (Arc::clone(&waited_for), Body::new(Stalled { sent, announced, waited_for }))
}

fn padded(length: usize) -> String {
    format!("{REVIEW}{}", " ".repeat(length - REVIEW.len()))
}

#[tokio::test]
async fn a_review_is_answered_as_json_with_its_uid() {
    let paths = Paths::new(Limits::default());
    let (head, body) = paths.ask(review("/mutate?timeout=10s", REVIEW)).await;
    assert_eq!(head.status, StatusCode::OK, "{body}");
    assert_eq!(head.headers[header::CONTENT_TYPE], "application/json");
    let answer: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(answer["response"]["uid"], "705ab4f5");
    paths.counted(r#"endpoint="mutate",mode="","#);
    paths.counted("devgrant_admission_duration_seconds_count 1");
    paths.counted("devgrant_requests_in_flight 0");
}

#[tokio::test]
async fn every_captured_review_is_answered_with_its_uid() {
    let paths = Paths::new(Limits::default());
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/admission-reviews");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let bytes = std::fs::read(&path).unwrap();
        let asked: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        let (head, body) = paths.ask(review("/mutate", bytes)).await;
        assert_eq!(head.status, StatusCode::OK, "{path:?}: {body}");
        let answer: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(answer["response"]["uid"], asked["request"]["uid"], "{path:?}");
        seen += 1;
    }
    assert!(seen >= 17, "only {seen} captured reviews in {folder}");
}

#[tokio::test]
async fn who_asks_wrongly_is_told_what_is_wrong() {
    let limits = Limits { body_bytes: 1000, ..Limits::default() };
    let paths = Paths::new(limits);
    let typed = |content_type: &str| {
        Request::post("/mutate")
            .header(header::CONTENT_TYPE, content_type)
            .body(Body::from(REVIEW))
            .unwrap()
    };
    let unknown_length = Body::new(Body::from("x".repeat(1001)).map_frame(|frame| frame));
    let cases = [
        (
            "wrong method",
            Request::get("/mutate").body(Body::empty()).unwrap(),
            (405, "reviews are sent by POST"),
        ),
        ("wrong path", review("/mutated", REVIEW), (404, "POST /mutate, /validate or /advise")),
        ("wrong type", typed("application/yaml"), (415, "not application/json")),
        (
            "no type",
            Request::post("/mutate").body(Body::from(REVIEW)).unwrap(),
            (415, "not application/json"),
        ),
        ("empty", review("/mutate", ""), (400, "the body is empty")),
        ("no JSON", review("/mutate", "{]"), (400, "not one JSON document")),
        (
            "an old version",
            review("/mutate", REVIEW.replace("k8s.io/v1", "k8s.io/v1beta1")),
            (400, "admissionReviewVersions"),
        ),
        (
            "no uid",
            review("/mutate", REVIEW.replace("705ab4f5", "")),
            (400, "`request.uid` is missing"),
        ),
        ("too large", review("/mutate", "x".repeat(1001)), (413, "longer than 1000 bytes")),
        (
            "too large, of unknown length",
            review("/mutate", unknown_length),
            (413, "longer than 1000 bytes"),
        ),
    ];
    for (case, request, (status, sentence)) in cases {
        let (head, body) = paths.ask(request).await;
        assert_eq!(head.status.as_u16(), status, "{case}: {body}");
        assert!(body.contains(sentence), "{case}: {body}");
        assert!(body.ends_with('\n') && body.lines().count() == 1, "{case}: {body:?}");
    }
    paths.counted(
        r#"{device="",endpoint="mutate",mode="",reason="TooLarge",verdict="unanswerable"} 2"#,
    );

    for content_type in ["application/json; charset=utf-8", "Application/JSON"] {
        let (head, body) = paths.ask(typed(content_type)).await;
        assert_eq!(head.status, StatusCode::OK, "{content_type}: {body}");
    }
}

#[tokio::test]
async fn a_body_may_be_as_long_as_the_limit() {
    let limit = Limits::default().body_bytes;
    let paths = Paths::new(Limits::default());
    let longest = padded(limit);
    let (head, body) = paths.ask(review("/mutate", longest.clone())).await;
    assert_eq!(head.status, StatusCode::OK, "{body}");
    let (head, body) = paths.ask(review("/mutate", longest + " ")).await;
    assert_eq!(head.status, StatusCode::PAYLOAD_TOO_LARGE, "{body}");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_is_given_up() {
    let paths = Paths::new(Limits::default());
    let begun = tokio::time::Instant::now();
    let (head, body) = paths.ask(review("/mutate", stalled(1, 1000).1)).await;
    assert_eq!(head.status, StatusCode::REQUEST_TIMEOUT, "{body}");
    assert_eq!(begun.elapsed().as_secs(), Limits::default().body.as_secs());

    for (timeout, status, after) in [
        ("3s", StatusCode::GATEWAY_TIMEOUT, 3),
        // The caller may wait longer than a body may take, and nonsense is no deadline.
        ("30s", StatusCode::REQUEST_TIMEOUT, 10),
        ("soon", StatusCode::REQUEST_TIMEOUT, 10),
    ] {
        let begun = tokio::time::Instant::now();
        let path = format!("/mutate?timeout={timeout}");
        let (head, body) = paths.ask(review(&path, stalled(1, 1000).1)).await;
        assert_eq!(head.status, status, "{timeout}: {body}");
        assert_eq!(begun.elapsed().as_secs(), after, "{timeout}");
    }
    paths.counted(r#"reason="Deadline",verdict="undecided"} 1"#);
    paths.counted("devgrant_requests_in_flight 0");
}

#[tokio::test]
async fn reviews_that_are_still_arriving_keep_nobody_out() {
    let limits = Limits { in_flight: 1, body: Duration::from_mins(1), ..Limits::default() };
    let announced = limits.body_bytes as u64;
    let paths = Arc::new(Paths::new(limits));
    let mut slow = JoinSet::new();
    for _ in 0..64 {
        let (waited_for, body) = stalled(1, announced);
        let paths = Arc::clone(&paths);
        slow.spawn(async move { paths.ask(review("/mutate", body)).await });
        waited_for.notified().await;
    }
    paths.counted("devgrant_requests_in_flight 64");
    let (head, body) = paths.ask(review("/mutate", REVIEW)).await;
    assert_eq!(head.status, StatusCode::OK, "{body}");
    let (head, body) = paths.ask(review("/mutate", padded(1024 * 1024))).await;
    assert_eq!(head.status, StatusCode::OK, "{body}");
    paths.counted("devgrant_requests_shed_total 0");
}

#[tokio::test]
async fn bodies_take_no_more_memory_together_than_there_is_for_them() {
    const MIB: usize = 1024 * 1024;

    let limits =
        Limits { in_flight: 1, body_bytes: MIB, body: Duration::from_mins(1), ..Limits::default() };
    let paths = Arc::new(Paths::new(limits));
    let (waited_for, body) = stalled(MIB - 1, MIB as u64);
    let first = tokio::spawn({
        let paths = Arc::clone(&paths);
        async move { paths.ask(review("/mutate", body)).await }
    });
    waited_for.notified().await;

    let large = padded(MIB / 2);
    let (head, body) = paths.ask(review("/mutate", large.clone())).await;
    assert_eq!(head.status, StatusCode::TOO_MANY_REQUESTS, "{body}");
    assert_eq!(head.headers[header::RETRY_AFTER], "1");
    assert_eq!(body, "too many large reviews are arriving; try again\n");
    paths.counted("devgrant_requests_shed_total 1");
    let (head, body) = paths.ask(review("/mutate", REVIEW)).await;
    assert_eq!(head.status, StatusCode::OK, "an ordinary one: {body}");

    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    // Twice, since the memory is given back after an answer too.
    for _ in 0..2 {
        let (head, body) = paths.ask(review("/mutate", padded(MIB))).await;
        assert_eq!(head.status, StatusCode::OK, "{body}");
    }
    let (head, body) = paths.ask(review("/mutate", large)).await;
    assert_eq!(head.status, StatusCode::OK, "{body}");
}

#[tokio::test]
async fn each_path_has_its_answer_its_number_and_the_same_limits() {
    let limits = Limits { body_bytes: 4096, ..Limits::default() };
    let paths = Paths::new(limits);
    let asking = REVIEW.replace(
        r#""metadata":{"name""#,
        r#""metadata":{"annotations":{"devices.example/fuse":"true"},"name""#,
    );
    let workload = asking
        .replace(r#""kind":"Pod"},"resource""#, r#""kind":"Deployment"},"resource""#)
        .replace(r#""object":{"apiVersion":"v1","kind":"Pod","#, r#""object":{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web"},"spec":{"template":{"#)
        .replace(r#"},"dryRun""#, r#"}}},"dryRun""#);
    for (path, body, allowed, verdict, part) in [
        ("mutate", &asking, false, "refuse", r#""message":"devgrant: UnknownKey: annotation"#),
        ("validate", &asking, false, "refuse", r#""message":"devgrant: UnknownKey: annotation"#),
        (
            "advise",
            &workload,
            true,
            "admit",
            r#""warnings":["would be refused: devgrant: UnknownKey: annotation"#,
        ),
    ] {
        let (head, answer) = paths.ask(review(&format!("/{path}?timeout=5s"), body.clone())).await;
        assert_eq!(head.status, StatusCode::OK, "{path}: {answer}");
        assert_eq!(head.headers[header::CONTENT_TYPE], "application/json", "{path}");
        let allowed = format!(r#""uid":"705ab4f5","allowed":{allowed}"#);
        assert!(answer.contains(&allowed) && answer.contains(part), "{path}: {answer}");
        paths.counted(&format!(
            r#"{{device="",endpoint="{path}",mode="",reason="UnknownKey",verdict="{verdict}"}} 1"#
        ));
        let (head, answer) = paths.ask(review(&format!("/{path}"), padded(4097))).await;
        assert_eq!(head.status, StatusCode::PAYLOAD_TOO_LARGE, "{path}: {answer}");
        paths.counted(&format!(r#"endpoint="{path}",mode="",reason="TooLarge""#));
    }
    // A workload is nothing to the two that look at pods, and a pod nothing to the one that advises.
    for (path, body) in [("mutate", &workload), ("validate", &workload), ("advise", &asking)] {
        let (_, answer) = paths.ask(review(&format!("/{path}"), body.clone())).await;
        assert!(answer.contains(r#""reason":"NotPodCreation""#), "{path}: {answer}");
        assert!(!answer.contains("warnings"), "{path}: {answer}");
    }
}

/// Advice that cannot be given is none: it is counted and logged, and keeps nobody from anything.
#[tokio::test]
async fn what_cannot_be_decided_is_500_and_for_advice_nothing() {
    let paths = Paths::new(Limits::default());
    let metadata = r#""metadata":{"annotations":{"devices.example/fuse":"true"}}"#;
    let pod = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web","namespace":"default"},"spec":{"containers":[{"name":"web","image":"web"}]}}"#;
    let spec = r#""spec":{"containers":[{"name":"web","env":"hunter2"}]}"#;
    let broken = REVIEW.replace(pod, &format!("{{{metadata},{spec}}}"));
    let template = format!(
        r#"{{"kind":"Deployment","apiVersion":"apps/v1","spec":{{"template":{{{metadata},{spec}}}}}}}"#
    );
    let workload = REVIEW.replace(pod, &template);
    for (path, body, status) in [
        ("mutate", &broken, StatusCode::INTERNAL_SERVER_ERROR),
        ("validate", &broken, StatusCode::INTERNAL_SERVER_ERROR),
        ("advise", &workload, StatusCode::OK),
    ] {
        let (head, answer) = paths.ask(review(&format!("/{path}"), body.clone())).await;
        assert_eq!(head.status, status, "{path}: {answer}");
        assert!(!answer.contains("hunter2"), "{answer}");
        paths.counted(&format!(
            r#"endpoint="{path}",mode="",reason="Undecided",verdict="undecided"}} 1"#
        ));
        if status.is_success() {
            let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
            let response = serde_json::json!({ "uid": "705ab4f5", "allowed": true });
            assert_eq!(answer["response"], response);
        }
    }
}

/// Who must act is in the status: a pod that is no pod is for `failurePolicy`, which a refusal is not.
#[tokio::test]
async fn what_cannot_be_decided_is_500_and_a_refusal_is_200() {
    let paths = Paths::new(Limits::default());
    let asking = |object: &str| {
        let pod = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web","namespace":"default"},"spec":{"containers":[{"name":"web","image":"web"}]}}"#;
        let review = REVIEW.replace(pod, object);
        assert_ne!(review, REVIEW, "the pod of the review is another one");
        review
    };
    let annotations = r#""annotations":{"devices.example/fuse":"true"}"#;

    let no_pod =
        asking(&format!(r#"{{"metadata":{{{annotations}}},"spec":{{"containers":"hunter2"}}}}"#));
    let (head, body) = paths.ask(review("/mutate", no_pod)).await;
    assert_eq!(head.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(body.contains("`spec.containers`: expected a sequence"), "{body}");
    assert!(!body.contains("hunter2") && !body.contains("allowed"), "{body}");
    paths.counted(r#"reason="Undecided",verdict="undecided"} 1"#);

    // There are no policies here, so that nobody has a device of this name.
    let refused = asking(&format!(
        r#"{{"metadata":{{{annotations}}},"spec":{{"containers":[{{"name":"web"}}]}}}}"#
    ));
    let (head, body) = paths.ask(review("/mutate", refused)).await;
    assert_eq!(head.status, StatusCode::OK);
    for part in [r#""allowed":false"#, r#""code":403"#, r#""uid":"705ab4f5""#, "means nothing"] {
        assert!(body.contains(part), "{part}: {body}");
    }
    paths.counted(r#"reason="UnknownKey",verdict="refuse"} 1"#);
}
