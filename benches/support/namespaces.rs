//! The namespaces of a cluster of any size, as its watch tells of them.

use std::sync::Arc;

use anyhow::ensure;
use devgrant::cluster::Namespaces;
use devgrant::metrics::Metrics;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tower::service_fn;

type Request = axum::http::Request<Body>;
type Response = axum::http::Response<axum::body::Body>;

/// Namespaces `team-0` and up, each opted in and with some labels of its own.
pub(crate) fn namespaces(count: usize) -> anyhow::Result<Arc<Namespaces>> {
    let items: Value = (0..count).map(namespace).collect();
    let list = json!({
        "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadataList",
        "metadata": {"resourceVersion": "1"}, "items": items
    });
    let service = service_fn(move |request: Request| {
        let list = list.to_string();
        async move {
            if request.uri().query().is_some_and(|query| query.contains("watch=")) {
                // Nothing changes.
                return std::future::pending().await;
            }
            Ok::<_, anyhow::Error>(Response::new(axum::body::Body::from(list)))
        }
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let entered = runtime.enter();
    let client = Client::new(service, "default");
    let namespaces = Arc::new(Namespaces::new(client.clone(), Arc::new(Metrics::new()?)));
    drop(entered);
    runtime.block_on(async {
        let listed = async {
            while !namespaces.listed() {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            () = namespaces.follow(client) => {}
            () = listed => {}
        }
    });
    ensure!(namespaces.listed(), "the namespaces are not listed");
    Ok(namespaces)
}

fn namespace(at: usize) -> Value {
    let name = name(at);
    json!({
        "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
        "metadata": {"name": name, "labels": {
            "kubernetes.io/metadata.name": name, "devices.example/grant": "enabled",
            "team": format!("{at}"), "pod-security.kubernetes.io/enforce": "privileged"
        }}
    })
}

/// The name of one of them.
pub(crate) fn name(at: usize) -> String {
    format!("team-{at}")
}
