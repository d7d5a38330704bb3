//! What a server is made of, for tests.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up is a failed test")]

use std::sync::Arc;

use devgrant::decision::{PolicySet, Settings};
use devgrant::metrics::Metrics;
use devgrant::server::{LivePolicies, Namespaces};

/// A review that asks for nothing, as small as one can be.
pub(crate) const REVIEW: &str = r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"705ab4f5","kind":{"group":"","version":"v1","kind":"Pod"},"resource":{"group":"","version":"v1","resource":"pods"},"namespace":"default","name":"web","operation":"CREATE","userInfo":{"username":"ann"},"object":{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web","namespace":"default"},"spec":{"containers":[{"name":"web","image":"web"}]}},"dryRun":false}}"#;

pub(crate) fn metrics() -> Arc<Metrics> {
    Arc::new(Metrics::new().unwrap())
}

/// No policies at all: what is tested is the server.
pub(crate) fn policies(metrics: &Arc<Metrics>) -> Arc<LivePolicies> {
    let none = PolicySet::compile(&[], Settings::default()).unwrap();
    Arc::new(LivePolicies::new(none, Arc::clone(metrics)))
}

/// Every namespace has opted in.
pub(crate) fn namespaces() -> Namespaces {
    let label = (Settings::default().opt_in_label(), Settings::OPTED_IN.to_owned());
    Namespaces::Fixed { labels: [label].into() }
}
