//! What `devgrant manifests` prints, under names of one trial: several lie side by side here, and none
//! may see the pods of another.

use std::process::Command;

use serde_json::{Value, json};

use crate::control_plane::ControlPlane;
use crate::process::soon;

/// The label that says which objects of this run are for a namespace.
pub(crate) const BELONGS_TO: &str = "cluster-test/belongs-to";
/// Where the API server keeps these kinds.
const GROUP: &str = "/apis/admissionregistration.k8s.io/v1";

/// Objects in force, and a namespace that has opted in to them.
pub(crate) struct Applied {
    pub(crate) namespace: String,
    pub(crate) objects: Vec<Value>,
}

impl Applied {
    /// Creates what `devgrant manifests` prints with these flags, and waits until a pod like the probe
    /// is refused with these words.
    pub(crate) fn new(plane: &ControlPlane, flags: &[String], probe: &Value, words: &str) -> Self {
        let name = format!("manifests{:04}", plane.serial());
        let mut objects = printed(flags);
        let selector = objects.iter().find_map(|object| {
            let binding = object.pointer("/spec/matchResources/namespaceSelector");
            binding.or_else(|| object.pointer("/webhooks/0/namespaceSelector")).cloned()
        });
        let mut labels = selector.unwrap()["matchLabels"].clone();
        labels[BELONGS_TO] = json!(name);
        for object in &mut objects {
            rename(object, &name);
            confine(object, &name);
            let plural = match object["kind"].as_str().unwrap() {
                "MutatingWebhookConfiguration" => "mutatingwebhookconfigurations",
                "ValidatingWebhookConfiguration" => "validatingwebhookconfigurations",
                "ValidatingAdmissionPolicy" => "validatingadmissionpolicies",
                "ValidatingAdmissionPolicyBinding" => "validatingadmissionpolicybindings",
                other => panic!("{other} is not for a trial"),
            };
            plane.create(&format!("{GROUP}/{plural}"), object);
        }
        let applied = Self { namespace: plane.namespace(&labels), objects };
        soon("the objects to be in force", || {
            let answer = applied.create(plane, probe, &[]);
            (answer.status != 201 && answer.message().contains(words)).then_some(())
        });
        applied
    }

    /// Asks for a pod without creating it.
    pub(crate) fn create(
        &self,
        plane: &ControlPlane,
        pod: &Value,
        headers: &[(&str, &str)],
    ) -> crate::api::Answer {
        let path = format!("/api/v1/namespaces/{}/pods?dryRun=All", self.namespace);
        plane.call_with("POST", &path, Some(pod), headers)
    }
}

/// Gives an object a name of its own.
pub(crate) fn rename(object: &mut Value, name: &str) {
    object["metadata"]["name"] = json!(name);
    if object["spec"]["policyName"].is_string() {
        object["spec"]["policyName"] = json!(name);
    }
}

/// Makes an object be for the namespaces with this label only.
pub(crate) fn confine(object: &mut Value, name: &str) {
    let binding = object.pointer_mut("/spec/matchResources/namespaceSelector/matchLabels");
    if let Some(labels) = binding {
        labels[BELONGS_TO] = json!(name);
    }
    let webhooks = object.get_mut("webhooks").and_then(Value::as_array_mut);
    for webhook in webhooks.into_iter().flatten() {
        webhook["namespaceSelector"]["matchLabels"][BELONGS_TO] = json!(name);
    }
}

/// The objects that `devgrant manifests` prints.
pub(crate) fn printed(flags: &[String]) -> Vec<Value> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_devgrant"));
    command.env_clear().current_dir(env!("CARGO_MANIFEST_DIR"));
    let output = command.args(["manifests", "--output=json"]).args(flags).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut list: Value = serde_json::from_slice(&output.stdout).unwrap();
    match list["items"].take() {
        Value::Array(objects) => objects,
        other => panic!("no list of objects: {other}"),
    }
}

/// A pod with annotations and further fields of its spec.
pub(crate) fn pod(annotations: &Value, spec: &Value) -> Value {
    let mut pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": "p", "annotations": annotations },
        "spec": { "containers": [{ "name": "c", "image": "x" }] },
    });
    json_patch::merge(&mut pod["spec"], spec);
    pod
}
