//! Reviews of pods as an API server sends them, in any size, and any number of policies.
//!
//! Each is grown from a review that a real API server sent (`tests/fixtures/admission-reviews`): containers
//! as people write them, with what the API server fills in, and `managedFields` that name each of
//! their fields.

#![expect(clippy::indexing_slicing, reason = "what the fixture has not is made")]

use serde_json::{Map, Value, json};

const SENT: &str =
    include_str!("../../tests/fixtures/admission-reviews/create-from-deployment.json");

/// What a pod's annotations say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Annotated {
    /// It has none.
    Never,
    /// It has some, and none of them is ours.
    Elsewhere,
    /// It asks for `fuse`.
    Asking,
}

/// How large a pod is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    /// Its containers.
    pub(crate) containers: usize,
    /// The environment variables of each.
    pub(crate) variables: usize,
}

/// One container and next to no variables: 3.6 KB, as small as controllers make pods.
pub(crate) const SMALL: Size = Size { containers: 1, variables: 1 };
/// An ordinary pod with two sidecars: 8.6 KB.
pub(crate) const ORDINARY: Size = Size { containers: 3, variables: 10 };
/// Six containers that are configured by environment: 50 KB.
pub(crate) const LARGE: Size = Size { containers: 6, variables: 54 };
/// Fifty containers.
pub(crate) const FIFTY: Size = Size { containers: 50, variables: 10 };
/// One of those fifty.
pub(crate) const ONE: Size = Size { containers: 1, variables: 10 };

/// The bytes of a review.
pub(crate) fn review(size: Size, annotated: Annotated) -> Vec<u8> {
    let mut review: Value = serde_json::from_str(SENT).unwrap_or_default();
    let pod = &mut review["request"]["object"];
    let annotations = match annotated {
        Annotated::Never => None,
        Annotated::Elsewhere => Some(json!({"kubectl.kubernetes.io/default-container": "main"})),
        Annotated::Asking => Some(json!({"devices.example/fuse": "true"})),
    };
    if let (Some(annotations), Some(metadata)) = (annotations, pod["metadata"].as_object_mut()) {
        metadata.insert("annotations".to_owned(), annotations);
    }
    let first = pod["spec"]["containers"][0].clone();
    let containers = (0..size.containers).map(|at| container(&first, at, size.variables));
    pod["spec"]["containers"] = containers.collect();
    let fields = (0..size.containers)
        .map(|at| (format!("k:{{\"name\":\"{}\"}}", name(at)), managed_fields(size.variables)));
    let managed = &mut pod["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"]["f:containers"];
    *managed = Value::Object(fields.collect());
    review.to_string().into_bytes()
}

/// The text of a policy for a device, as short as it can be written.
pub(crate) fn policy(device: &str) -> String {
    format!(
        "apiVersion: devgrant/v1alpha1\nkind: DevicePolicy\nmetadata:\n  name: {device}\nspec:\n  \
         device: {device}\n  description: A generated device\n  defaultMode: only\n  modes:\n    \
         only:\n      description: The device\n      resources:\n        - name: \
         devices.test/{device}\n      capabilities: [SYS_ADMIN]\n"
    )
}

fn name(at: usize) -> String {
    if at == 0 { "main".to_owned() } else { format!("sidecar-{at}") }
}

fn container(first: &Value, at: usize, variables: usize) -> Value {
    let mut container = first.clone();
    container["name"] = name(at).into();
    container["env"] = (0..variables)
        .map(|at| json!({"name": format!("SETTING_{at}"), "value": "what somebody set it to"}))
        .collect();
    container["ports"] = json!([{"name": "http", "containerPort": 8080 + at, "protocol": "TCP"}]);
    container["readinessProbe"] = json!({
        "httpGet": {"path": "/healthz", "port": "http", "scheme": "HTTP"},
        "timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3
    });
    container
}

fn managed_fields(variables: usize) -> Value {
    let mut env = Map::from_iter([(".".to_owned(), json!({}))]);
    env.extend((0..variables).map(|at| {
        let key = format!("k:{{\"name\":\"SETTING_{at}\"}}");
        (key, json!({".": {}, "f:name": {}, "f:value": {}}))
    }));
    json!({
        ".": {}, "f:env": env, "f:image": {}, "f:imagePullPolicy": {}, "f:name": {},
        "f:readinessProbe": {
            ".": {}, "f:failureThreshold": {}, "f:httpGet": {".": {}, "f:path": {}, "f:port": {}, "f:scheme": {}},
            "f:periodSeconds": {}, "f:successThreshold": {}, "f:timeoutSeconds": {}
        },
        "f:resources": {
            ".": {}, "f:limits": {".": {}, "f:memory": {}},
            "f:requests": {".": {}, "f:cpu": {}, "f:memory": {}}
        },
        "f:terminationMessagePath": {}, "f:terminationMessagePolicy": {}
    })
}
