//! The plain port: whether we live, whether we are ready, and what we counted.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::SystemTime;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::sync::watch;

use super::Stage;
use super::context::Context;
use crate::cluster;
use crate::metrics::Metrics;
use crate::tls::Certificates;

/// What the plain port tells of.
#[derive(Debug)]
pub(super) struct Health {
    pub(super) context: Arc<Context>,
    pub(super) certificates: Arc<Certificates>,
    pub(super) stage: watch::Receiver<Stage>,
    /// What is told of the cluster, where there is one.
    pub(super) cluster: Option<Arc<cluster::Status>>,
}

/// The paths of the plain port.
pub(super) fn router(health: Arc<Health>) -> Router {
    Router::new()
        // Nothing is looked at: a process whose certificate has expired is not mended by a restart.
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .fallback(unknown_path)
        .with_state(health)
}

async fn ready(State(health): State<Arc<Health>>, request: Request) -> impl IntoResponse {
    let checks = health.checks(SystemTime::now());
    let ready = checks.iter().all(|check| check.failed.is_none());
    let verbose = request
        .uri()
        .query()
        .is_some_and(|query| query.split('&').any(|pair| pair.starts_with("verbose")));
    match (ready, verbose) {
        (true, false) => (StatusCode::OK, "ok\n".to_owned()),
        (true, true) => (StatusCode::OK, describe(&checks) + "readyz check passed\n"),
        // Whoever looks at a check that failed wants to know which, asked or not.
        (false, _) => {
            (StatusCode::SERVICE_UNAVAILABLE, describe(&checks) + "readyz check failed\n")
        }
    }
}

async fn metrics(State(health): State<Arc<Health>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, Metrics::CONTENT_TYPE)], health.context.metrics.text())
}

async fn unknown_path() -> impl IntoResponse {
    (StatusCode::NOT_FOUND, "this port has /livez, /readyz and /metrics\n")
}

struct Check {
    name: &'static str,
    failed: Option<&'static str>,
    note: Option<String>,
}

impl Health {
    fn checks(&self, now: SystemTime) -> Vec<Check> {
        let refused = self.context.policies.refused();
        let leaving = *self.stage.borrow() != Stage::Serving;
        let mut checks = vec![
            Check {
                name: "policies",
                failed: None,
                note: refused.map(|problem| format!("the last reload was refused: {problem}")),
            },
            Check { name: "namespaces", failed: self.context.namespaces.problem(), note: None },
            Check { name: "certificate", failed: self.certificates.problem(now), note: None },
            Check {
                name: "shutdown",
                failed: leaving.then_some("the server was asked to stop"),
                note: None,
            },
        ];
        let notes = self.cluster.iter().flat_map(|cluster| cluster.notes());
        checks.extend(notes.map(|(topic, note)| Check {
            name: topic.as_str(),
            failed: None,
            note: note.map(|note| note.to_string()),
        }));
        checks
    }
}

/// One line a check, as Kubernetes' own components write them.
fn describe(checks: &[Check]) -> String {
    checks.iter().fold(String::new(), |mut text, check| {
        // Writing into a string does not fail.
        let _ = match (check.failed, &check.note) {
            (Some(problem), _) => writeln!(text, "[-]{} failed: {problem}", check.name),
            (None, Some(note)) => writeln!(text, "[+]{} ok ({note})", check.name),
            (None, None) => writeln!(text, "[+]{} ok", check.name),
        };
        text
    })
}
