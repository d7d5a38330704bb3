//! Whose pod a pod is, as far as it tells.

use serde::Serialize;
use serde_json::Value;

use super::text::plain;

/// The label by which a Deployment tells the pods of its replica sets apart
/// (`kubernetes/api apps/v1/types.go`, `DefaultDeploymentUniqueLabelKey`).
const TEMPLATE_HASH: &str = "/metadata/labels/pod-template-hash";

/// The object that a person would change: the topmost one that is known.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct Owner {
    /// Its kind.
    pub(super) kind: String,
    /// Its name; of one that is not named yet, the start of the name.
    pub(super) name: String,
}

impl Owner {
    /// The controller of an object, or else the object itself. The name of a Deployment is that of its
    /// ReplicaSet without the hash, which the label tells; nothing tells the `CronJob` of a Job.
    pub(super) fn of(object: &Value) -> Self {
        let text = |value: &Value, at: &str| {
            value.pointer(at).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let Some(controller) = controller(object) else {
            let named = text(object, "/metadata/name");
            let name =
                if named.is_empty() { text(object, "/metadata/generateName") } else { named };
            return Self { kind: plain(&text(object, "/kind")), name: plain(&name) };
        };
        let (kind, name) = (text(controller, "/kind"), text(controller, "/name"));
        let hash = text(object, TEMPLATE_HASH);
        let deployment = name.strip_suffix(&hash).and_then(|start| start.strip_suffix('-'));
        match deployment {
            Some(deployment) if kind == "ReplicaSet" && !hash.is_empty() => {
                Self { kind: "Deployment".to_owned(), name: plain(deployment) }
            }
            _ => Self { kind: plain(&kind), name: plain(&name) },
        }
    }
}

/// The reference to the controller of an object, if it has one.
pub(super) fn controller(object: &Value) -> Option<&Value> {
    let references = object.pointer("/metadata/ownerReferences")?.as_array()?;
    references.iter().find(|reference| reference.get("controller") == Some(&Value::Bool(true)))
}

impl std::fmt::Display for Owner {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = if self.name.is_empty() { "(no name)" } else { &self.name };
        write!(formatter, "{}/{name}", self.kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_topmost_owner_that_is_known() {
        let owned = |kind: &str, name: &str, labels: Value| {
            json!({ "kind": "Pod", "metadata": {
                "name": "p",
                "labels": labels,
                "ownerReferences": [
                    { "kind": "ConfigMap", "name": "other" },
                    { "kind": kind, "name": name, "controller": true },
                ],
            }})
        };
        let hash = json!({ "pod-template-hash": "5d9c7" });
        for (object, expected) in [
            (json!({ "kind": "Pod", "metadata": { "name": "p" } }), "Pod/p"),
            (json!({ "kind": "Pod", "metadata": { "generateName": "p-" } }), "Pod/p-"),
            (json!({ "kind": "Pod" }), "Pod/(no name)"),
            (owned("ReplicaSet", "web-5d9c7", hash.clone()), "Deployment/web"),
            (owned("ReplicaSet", "web-other", hash.clone()), "ReplicaSet/web-other"),
            (owned("ReplicaSet", "web-5d9c7", json!({})), "ReplicaSet/web-5d9c7"),
            (owned("DaemonSet", "web-5d9c7", hash), "DaemonSet/web-5d9c7"),
            (owned("Job", "night-29000001", json!({})), "Job/night-29000001"),
        ] {
            assert_eq!(Owner::of(&object).to_string(), expected);
        }
    }
}
