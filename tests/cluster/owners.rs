//! Pods that controllers make: the user creates the owner, and its pods come to us.

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::control_plane::{ControlPlane, Plane};
use crate::process::soon;
use crate::requests::{asking, is_granted};
use crate::trial;
use crate::webhook::Options;

pub(crate) fn trials(plane: &Plane) -> Vec<Trial> {
    let mut trials: Vec<Trial> = KINDS
        .iter()
        .map(|kind| trial(format!("owners::{}", kind.name), plane, move |plane| owner(plane, kind)))
        .collect();
    trials.push(trial("owners::cronjobs", plane, |plane| cron_job(plane)));
    trials.push(trial("owners::refused_pods_of_a_deployment", plane, |plane| refused(plane)));
    trials
}

/// A kind whose controller makes pods.
struct Kind {
    name: &'static str,
    group: &'static str,
    /// Whether its pods restart, as the API server demands of the kind.
    restarts: bool,
    /// Whether it names its pods by labels.
    selects: bool,
}

const KINDS: &[Kind] = &[
    Kind { name: "daemonsets", group: "apps", restarts: true, selects: true },
    Kind { name: "deployments", group: "apps", restarts: true, selects: true },
    Kind { name: "jobs", group: "batch", restarts: false, selects: false },
    Kind { name: "replicasets", group: "apps", restarts: true, selects: true },
    Kind { name: "statefulsets", group: "apps", restarts: true, selects: true },
];

fn owner(plane: &ControlPlane, kind: &Kind) {
    let namespace = room(plane);
    if kind.name == "daemonsets" {
        ready_node(plane);
    }
    let mut spec = json!({ "template": template(&asking(), kind.restarts) });
    if kind.selects {
        spec["selector"] = json!({ "matchLabels": { "app": "o" } });
    }
    let path = format!("/apis/{}/v1/namespaces/{namespace}/{}", kind.group, kind.name);
    let created = plane.create(&path, &json!({ "metadata": { "name": "o" }, "spec": spec }));
    // The template is the user's; only the pod is changed.
    assert_eq!(created["spec"]["template"]["spec"]["containers"][0]["resources"], json!({}));
    is_granted(&pod(plane, &namespace));
}

/// A DaemonSet makes a pod for each node that is ready, also where no kubelet runs it.
fn ready_node(plane: &ControlPlane) {
    let node =
        plane.call("POST", "/api/v1/nodes", Some(&json!({ "metadata": { "name": "node" } })));
    assert_eq!(node.status, 201, "{}", node.message());
    // Every new node is tainted until its kubelet says that it is ready.
    let untainted = json!({ "spec": { "taints": null } });
    let headers = [("content-type", "application/merge-patch+json")];
    let node = plane.call_with("PATCH", "/api/v1/nodes/node", Some(&untainted), &headers);
    assert_eq!(node.status, 200, "{}", node.message());
}

/// The controller of cron jobs waits for a time; a job made from one by hand has the same template.
fn cron_job(plane: &ControlPlane) {
    let namespace = room(plane);
    let job = json!({ "spec": { "template": template(&asking(), false) } });
    let cron_job = json!({
        "metadata": { "name": "o" },
        "spec": { "schedule": "0 0 1 1 *", "jobTemplate": job },
    });
    plane.create(&format!("/apis/batch/v1/namespaces/{namespace}/cronjobs"), &cron_job);
    let made = plane
        .kubectl()
        .args(["--namespace", &namespace, "create", "job", "once", "--from=cronjob/o"])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    is_granted(&pod(plane, &namespace));
}

/// The user sees nothing at `kubectl apply`; the refusal is in an event and in a condition.
fn refused(plane: &ControlPlane) {
    let namespace = room(plane);
    let mut pod = asking();
    pod["metadata"]["annotations"]["devices.example/fuse"] = json!("mout");
    let deployment = json!({
        "metadata": { "name": "o" },
        "spec": { "selector": { "matchLabels": { "app": "o" } }, "template": template(&pod, true) },
    });
    let path = format!("/apis/apps/v1/namespaces/{namespace}/deployments");
    plane.create(&path, &deployment);
    let condition = soon("the condition of the Deployment", || {
        let deployment = plane.call("GET", &format!("{path}/o"), None).body;
        let conditions = deployment["status"]["conditions"].as_array()?.clone();
        conditions.into_iter().find(|condition| condition["type"] == "ReplicaFailure")
    });
    assert_eq!(condition["reason"], "FailedCreate");
    let sentence = "admission webhook \"mutate.pods.devgrant\" denied the request: devgrant: UnknownMode: annotation `devices.example/fuse`:";
    let message = condition["message"].as_str().unwrap();
    assert!(message.starts_with(sentence), "{message}");
    assert!(message.contains("`mount`"), "{message}");
    let event = soon("the event of the ReplicaSet", || {
        let path = format!("/api/v1/namespaces/{namespace}/events");
        let events = plane.call("GET", &path, None).body["items"].as_array()?.clone();
        events.into_iter().find(|event| event["reason"] == "FailedCreate")
    });
    assert_eq!(event["involvedObject"]["kind"], "ReplicaSet");
    assert_eq!(event["message"], format!("Error creating: {message}"));
}

fn room(plane: &ControlPlane) -> String {
    plane.with_controllers();
    plane.webhook(&Options::default()).namespace(plane)
}

/// A pod template of a pod.
fn template(pod: &Value, restarts: bool) -> Value {
    let mut spec = pod["spec"].clone();
    spec["restartPolicy"] = json!(if restarts { "Always" } else { "Never" });
    let annotations = &pod["metadata"]["annotations"];
    json!({ "metadata": { "labels": { "app": "o" }, "annotations": annotations }, "spec": spec })
}

/// The one pod of a namespace, as soon as a controller has made it.
fn pod(plane: &ControlPlane, namespace: &str) -> Value {
    let path = format!("/api/v1/namespaces/{namespace}/pods");
    soon("a controller to make a pod", || {
        plane.call("GET", &path, None).body["items"].as_array()?.first().cloned()
    })
}
