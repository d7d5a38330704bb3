//! A golden case: what its `case.yaml` may say, and the review that it stands for.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on says where and stops"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Case {
    /// What the case shows. Required, so that each case has a reason to be.
    pub(crate) description: String,
    /// A captured review to start from; without it, the pod is `pod.yaml`.
    pub(crate) fixture: Option<String>,
    /// Annotations to add to the pod.
    #[serde(default)]
    pub(crate) annotations: BTreeMap<String, String>,
    /// A JSON merge patch for the pod.
    pub(crate) pod: Option<Value>,
    /// A JSON merge patch for the request.
    pub(crate) request: Option<Value>,
    /// A folder of `tests/golden/policies`; without it, the shipped policies.
    pub(crate) policies: Option<String>,
    /// The namespace; without it, an opted-in one of the request's name. `null`: not known.
    #[serde(default = "opted_in")]
    pub(crate) namespace: Option<Labels>,
    pub(crate) prefix: Option<String>,
    pub(crate) on_invalid: Option<devgrant::decision::OnInvalid>,
    pub(crate) kubernetes_version: Option<String>,
    pub(crate) own_namespace: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Labels {
    pub(crate) labels: BTreeMap<String, String>,
}

#[expect(clippy::unnecessary_wraps, reason = "serde wants the type of the field")]
fn opted_in() -> Option<Labels> {
    let labels = BTreeMap::from([("devices.example/grant".to_owned(), "enabled".to_owned())]);
    Some(Labels { labels })
}

/// Reads the `case.yaml` of a folder.
pub(crate) fn read_case(folder: &Path) -> Case {
    let text = fs::read_to_string(folder.join("case.yaml"))
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
}

/// The review that a case stands for.
pub(crate) fn review(case: &Case, folder: &Path) -> Value {
    let mut review = if let Some(fixture) = &case.fixture {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/fixtures/admission-reviews")
            .join(fixture);
        serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
    } else {
        let pod: Value =
            serde_saphyr::from_str(&fs::read_to_string(folder.join("pod.yaml")).unwrap()).unwrap();
        json!({
            "kind": "AdmissionReview",
            "apiVersion": "admission.k8s.io/v1",
            "request": {
                "uid": "00000000-0000-0000-0000-000000000000",
                "kind": { "group": "", "version": "v1", "kind": "Pod" },
                "resource": { "group": "", "version": "v1", "resource": "pods" },
                "name": pod["metadata"]["name"],
                "namespace": "team",
                "operation": "CREATE",
                "userInfo": { "username": "kubernetes-admin" },
                "object": pod,
                "oldObject": null,
                "dryRun": false,
            },
        })
    };
    if let Some(patch) = &case.request {
        json_patch::merge(&mut review["request"], patch);
    }
    if let Some(patch) = &case.pod {
        json_patch::merge(&mut review["request"]["object"], patch);
    }
    for (key, value) in &case.annotations {
        review["request"]["object"]["metadata"]["annotations"][key] = json!(value);
    }
    review
}

/// What is in a folder, in the order of the names.
pub(crate) fn sorted(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    paths
}
