//! The way of the kube-rs examples (`admission_controller.rs`), doing what devgrant does for a pod that
//! asks for fuse: `AdmissionReview<DynamicObject>`, axum, axum-server. Used as
//! `devgrant-bench-kube-rs ADDRESS:PORT CERTIFICATE KEY`.

use std::net::SocketAddr;

use anyhow::Context as _;
use axum::extract::DefaultBodyLimit;
use axum::routing::post;
use axum::{Json, Router};
use axum_server::tls_rustls::RustlsConfig;
use json_patch::{AddOperation, Patch, PatchOperation, jsonptr::PointerBuf};
use kube::ResourceExt as _;
use kube::core::DynamicObject;
use kube::core::admission::{AdmissionRequest, AdmissionResponse, AdmissionReview};
use serde_json::{Value, json};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut arguments = std::env::args().skip(1);
    let mut next = move |what: &'static str| arguments.next().context(what);
    let address: SocketAddr = next("no address")?.parse()?;
    let tls = RustlsConfig::from_pem_file(next("no certificate")?, next("no key")?).await?;
    let routes = Router::new()
        .route("/mutate", post(mutate))
        .layer(DefaultBodyLimit::max(7 * 1024 * 1024));
    axum_server::bind_rustls(address, tls).serve(routes.into_make_service()).await?;
    Ok(())
}

async fn mutate(Json(review): Json<AdmissionReview<DynamicObject>>) -> Json<Value> {
    let request: AdmissionRequest<DynamicObject> = match review.try_into() {
        Ok(request) => request,
        Err(error) => {
            let refused = AdmissionResponse::invalid(format!("{error}")).into_review();
            return Json(json!(refused));
        }
    };
    let mut response = AdmissionResponse::from(&request);
    if let Some(object) = &request.object
        && let Some(patch) = grant(object)
    {
        response = match response.with_patch(patch) {
            Ok(response) => response,
            Err(error) => AdmissionResponse::invalid(format!("{error}")),
        };
    }
    Json(json!(response.into_review()))
}

fn grant(pod: &DynamicObject) -> Option<Patch> {
    if pod.annotations().get("devices.example/fuse").map(String::as_str) != Some("true") {
        return None;
    }
    let container = pod.data.pointer("/spec/containers/0")?;
    let name = container.get("name")?.as_str()?;
    let add = |path: &str, value: Value| {
        let path = PointerBuf::parse(path).ok()?;
        Some(PatchOperation::Add(AddOperation { path, value }))
    };
    let resource = json!("1");
    let stamp = format!(
        r#"{{"grants":[{{"device":"fuse","mode":"mount","count":1,"containers":["{name}"],"policy":"fuse"}}]}}"#
    );
    Some(Patch(vec![
        add("/spec/containers/0/resources/limits/smarter-devices~1fuse", resource.clone())?,
        add("/spec/containers/0/resources/requests/smarter-devices~1fuse", resource)?,
        add(
            "/spec/containers/0/securityContext",
            json!({"capabilities": {"add": ["SYS_ADMIN"]}, "appArmorProfile": {"type": "Unconfined"}}),
        )?,
        add(
            "/spec/containers/0/env/-",
            json!({"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"}),
        )?,
        add("/metadata/annotations/devices.example~1granted", json!(stamp))?,
    ]))
}
