//! Events on our own pod, for who looks at the cluster and not at our log.

use std::sync::Arc;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};

use super::client::call;
use crate::server::LivePolicies;

/// Our own pod, as the downward API names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnPod {
    /// Its namespace (`POD_NAMESPACE`).
    pub namespace: String,
    /// Its name (`POD_NAME`).
    pub name: String,
    /// Its uid (`POD_UID`). Without it, `kubectl get events` shows what `kubectl describe pod` does not.
    pub uid: Option<String>,
}

/// Makes an Event whenever a policy set is refused, and one when the next set is in force. Ends with
/// the policies.
///
/// What cannot be written is logged and forgotten: `/readyz?verbose` and the metrics say it too.
pub(super) async fn tell(client: Client, pod: OwnPod, policies: Arc<LivePolicies>) {
    let mut refusals = policies.refusals();
    drop(policies);
    let reporter = Reporter { controller: "devgrant".to_owned(), instance: Some(pod.name.clone()) };
    let regarding = pod.reference();
    while refusals.changed().await.is_ok() {
        let event = of_reload(refusals.borrow_and_update().as_deref());
        // One for each event: within six minutes, a recorder only counts up what it wrote first, and the
        // second set may be wrong in another way.
        let recorder = Recorder::new(client.clone(), reporter.clone());
        if let Err(error) = call(recorder.publish(&event, &regarding)).await {
            tracing::warn!(%error, reason = event.reason, "an Event could not be written");
        }
    }
}

fn of_reload(problem: Option<&String>) -> Event {
    let (type_, reason, note) = match problem {
        Some(problem) => {
            let note = format!("the policies were not replaced: {problem}");
            (EventType::Warning, "PoliciesRefused", note)
        }
        None => (EventType::Normal, "PoliciesReplaced", "the policies were replaced".to_owned()),
    };
    Event {
        type_,
        reason: reason.to_owned(),
        note: Some(shortened(note)),
        action: "Reload".to_owned(),
        secondary: None,
    }
}

impl OwnPod {
    fn reference(&self) -> ObjectReference {
        ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: Some(self.namespace.clone()),
            name: Some(self.name.clone()),
            uid: self.uid.clone(),
            ..ObjectReference::default()
        }
    }
}

/// The longest note, in bytes (`kubernetes pkg/apis/core/validation/events.go`, `noteLengthLimit`).
const LONGEST_NOTE: usize = 1024;

fn shortened(mut note: String) -> String {
    if note.len() > LONGEST_NOTE {
        note.truncate(note.floor_char_boundary(LONGEST_NOTE - '…'.len_utf8()));
        note.push('…');
    }
    note
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use kube::client::Body;
    use serde_json::{Value, json};
    use tokio::sync::mpsc;

    use super::*;
    use crate::decision::{PolicySet, Settings};
    use crate::metrics::Metrics;

    /// An API server that takes every Event and shows what it was sent.
    fn api_server() -> (Client, mpsc::UnboundedReceiver<(String, Value)>) {
        let (sent, seen) = mpsc::unbounded_channel();
        let service = tower::service_fn(move |request: axum::http::Request<Body>| {
            let sent = sent.clone();
            async move {
                let (head, body) = request.into_parts();
                let bytes = body.collect().await?.to_bytes();
                let event = serde_json::from_slice(&bytes).unwrap();
                sent.send((format!("{} {}", head.method, head.uri), event)).unwrap();
                Ok::<_, kube::Error>(axum::http::Response::new(Body::from(bytes)))
            }
        });
        (Client::new(service, "default"), seen)
    }

    #[tokio::test]
    async fn a_refused_set_and_the_next_good_one_are_told() {
        let none = || PolicySet::compile(&[], Settings::default()).unwrap();
        let policies = LivePolicies::new(none(), Arc::new(Metrics::new().unwrap()));
        let policies = Arc::new(policies);
        let (client, mut seen) = api_server();
        let pod = OwnPod {
            namespace: "devgrant-system".to_owned(),
            name: "devgrant-0".to_owned(),
            uid: Some("u".to_owned()),
        };
        let telling = tokio::spawn(tell(client, pod, Arc::clone(&policies)));
        // It has to listen before anything happens.
        tokio::task::yield_now().await;
        let long = "ä".repeat(1000);
        for (problem, kind, reason, note) in [
            (
                Some("fuse.yaml:1: bad"),
                "Warning",
                "PoliciesRefused",
                "not replaced: fuse.yaml:1: bad",
            ),
            (Some(long.as_str()), "Warning", "PoliciesRefused", "ä…"),
            (None, "Normal", "PoliciesReplaced", "the policies were replaced"),
        ] {
            match problem {
                Some(problem) => policies.refuse(problem.to_owned()),
                None => policies.replace(none()),
            }
            let (call, event) = seen.recv().await.unwrap();
            assert!(
                call.starts_with("POST /apis/events.k8s.io/v1/namespaces/devgrant-system/events"),
                "{call}"
            );
            assert_eq!((&event["type"], &event["reason"]), (&json!(kind), &json!(reason)));
            let said = event["note"].as_str().unwrap();
            assert!(said.ends_with(note) && said.len() <= LONGEST_NOTE, "{said}");
            assert_eq!(event["regarding"]["name"], "devgrant-0");
            assert_eq!(event["regarding"]["uid"], "u");
            assert_eq!(event["reportingInstance"], "devgrant-0");
        }
        drop(policies);
        telling.await.unwrap();
    }
}
