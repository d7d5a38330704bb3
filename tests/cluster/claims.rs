//! What Devgrant claims that the API server refuses or accepts, row by row, without Devgrant: each row
//! of `claims.yaml` is a pod that goes straight to the API server.

use std::path::Path;

use libtest_mimic::Trial;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::control_plane::{ControlPlane, Plane};
use crate::trial;

/// The least number of rows: a file that got lost is noticed.
const AT_LEAST: usize = 30;

/// One claim.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Claim {
    /// What is claimed, and where Devgrant does.
    #[serde(rename = "claim")]
    what: String,
    /// A JSON merge patch for a pod of one container.
    pod: Value,
    /// A JSON merge patch for that container.
    #[serde(default)]
    container: Value,
    /// What the API server answers.
    status: u16,
    /// Part of its words; of a pod that is accepted, of its warnings.
    says: Option<String>,
}

pub(crate) fn trials(plane: &Plane) -> Vec<Trial> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cluster/claims.yaml");
    let claims: Vec<Claim> =
        serde_saphyr::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert!(claims.len() >= AT_LEAST, "{} claims, at least {AT_LEAST} were there", claims.len());
    let of = |claim: Claim| {
        trial(format!("claims::{}", claim.what), plane, move |plane| hold(plane, &claim))
    };
    claims.into_iter().map(of).collect()
}

fn hold(plane: &ControlPlane, claim: &Claim) {
    let mut pod = json!({ "metadata": { "name": "p" }, "spec": { "containers": [] } });
    let mut container = json!({ "name": "c", "image": "registry.example/c:1" });
    if !claim.container.is_null() {
        json_patch::merge(&mut container, &claim.container);
    }
    pod["spec"]["containers"] = json!([container]);
    json_patch::merge(&mut pod, &claim.pod);
    let path = format!("/api/v1/namespaces/{}/pods", plane.namespace(&json!({})));
    let answer = plane.call("POST", &path, Some(&pod));
    let words = format!("{}\n{}", answer.message(), answer.warnings.join("\n"));
    assert_eq!(answer.status, claim.status, "{words}");
    let says = claim.says.as_deref().unwrap_or_default();
    assert!(words.contains(says), "should say: {says}\nsays: {words}");
    // What is accepted without a word must be said to be so.
    assert!(claim.says.is_some() || answer.warnings.is_empty(), "{words}");
}
