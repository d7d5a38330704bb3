//! Which pods the API server asks about, and what becomes of them when nobody answers.

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::control_plane::{ControlPlane, Plane};
use crate::process::soon;
use crate::requests::{FUSE, STAMP, asking, is_granted};
use crate::trial;
use crate::webhook::{GUARD, Options, Webhook};

pub(crate) fn trials(plane: &Plane) -> Vec<Trial> {
    vec![
        trial("reach::only_pods_that_ask_where_the_namespace_takes_part", plane, |plane| {
            reach(plane);
        }),
        trial("reach::of_a_pod_that_exists_only_what_comes_too_late", plane, |plane| {
            too_late(plane);
        }),
        trial("reach::who_comes_around_mutate_is_refused", plane, |plane| around(plane)),
        trial("reach::the_guard_passes_what_was_mutated", plane, |plane| guarded(plane)),
        trial("reach::dead_under_fail", plane, |plane| dead(plane, "Fail")),
        trial("reach::dead_under_ignore", plane, |plane| dead(plane, "Ignore")),
    ]
}

fn reach(plane: &ControlPlane) {
    // Its own, so that nobody else's pods are counted.
    let webhook = Webhook::start(plane, &Options::default());
    let before = webhook.answered();
    assert!(before > 0, "the probe was answered");
    let mut not_opted_in = webhook.labels().clone();
    for value in [json!("true"), json!("Enabled"), Value::Null] {
        not_opted_in["devices.example/grant"] = value;
        if not_opted_in["devices.example/grant"].is_null() {
            not_opted_in.as_object_mut().unwrap().remove("devices.example/grant");
        }
        let pods = format!("/api/v1/namespaces/{}/pods", plane.namespace(&not_opted_in));
        let created = plane.create(&pods, &asking());
        assert_eq!(created["spec"]["containers"][0]["resources"], json!({}));
    }
    let pods = format!("/api/v1/namespaces/{}/pods", webhook.namespace(plane));
    for pod in not_asking() {
        plane.create(&pods, &pod);
    }
    assert_eq!(webhook.answered(), before, "somebody came who should not have");
    is_granted(&plane.create(&pods, &asking()));
    assert_eq!(webhook.answered(), before + 1);
}

/// What may happen to a pod that exists: `/mutate` never sees it again, and `/advise` only what a person
/// might take for an ask.
fn too_late(plane: &ControlPlane) {
    let webhook = Webhook::start(plane, &Options::default());
    let pods = format!("/api/v1/namespaces/{}/pods", webhook.namespace(plane));
    let mut plain = asking();
    plain["metadata"] = json!({ "name": "plain" });
    let mut own = json!({ "cpu": "1", FUSE: "1" });
    plain["spec"]["containers"][0]["resources"] = json!({ "limits": own, "requests": own });
    plane.create(&pods, &plain);
    let mut granted = asking();
    own.as_object_mut().unwrap().remove(FUSE);
    granted["spec"]["containers"][0]["resources"] = json!({ "limits": own, "requests": own });
    is_granted(&plane.create(&pods, &granted));

    let metadata = |field: &str, key: &str, value: Value| {
        ("", json!({ "metadata": { field: { key: value } } }))
    };
    let resize = |resource: &str| {
        let amounts = json!({ resource: "2" });
        let resources = json!({ "limits": amounts, "requests": amounts });
        let container = json!({ "name": "c", "resources": resources });
        ("/resize", json!({ "spec": { "containers": [container] } }))
    };
    let debug = |name: &str| {
        let container = json!({ "name": name, "image": "registry.example/debug:1" });
        ("/ephemeralcontainers", json!({ "spec": { "ephemeralContainers": [container] } }))
    };
    let status = ("/status", json!({ "status": { "phase": "Running" } }));
    let image = (
        "",
        json!({ "spec": { "containers": [{ "name": "c", "image": "registry.example/c:2" }] } }),
    );
    let key = "devices.example/fuse";
    let (mutated, mut advised) = (webhook.answered(), webhook.advised());
    for (pod, (subresource, patch), status, code) in [
        // First without any annotation: every expression must be true or false of such a pod, too.
        ("plain", metadata("labels", key, json!("b")), 200, ""),
        ("plain", status.clone(), 200, ""),
        ("plain", resize("cpu"), 200, ""),
        ("plain", resize(FUSE), 422, ""),
        ("plain", debug("one"), 200, ""),
        ("plain", metadata("annotations", "example/fuse", json!("x")), 200, ""),
        ("plain", metadata("annotations", STAMP, json!("x")), 200, ""),
        ("plain", metadata("annotations", key, json!("false")), 200, "DG026"),
        ("p", metadata("labels", "a", json!("b")), 200, ""),
        ("p", status.clone(), 200, ""),
        ("p", image, 200, ""),
        ("p", metadata("annotations", "example/fuse", json!("x")), 200, ""),
        ("p", metadata("annotations", key, json!("rootless")), 200, ""),
        ("p", resize("cpu"), 200, ""),
        ("p", resize(FUSE), 422, "DG027"),
        ("p", debug("one"), 200, "DG014"),
        ("p", metadata("annotations", key, json!("no-such-mode")), 200, "DG026"),
        ("p", metadata("annotations", key, Value::Null), 200, "DG026"),
    ] {
        let path = format!("{pods}/{pod}{subresource}");
        let headers = [("content-type", "application/strategic-merge-patch+json")];
        let answer = plane.call_with("PATCH", &path, Some(&patch), &headers);
        assert_eq!(answer.status, status, "{path} {patch}: {}", answer.message());
        let now = webhook.advised();
        // The API server asks once more where the pod that it remembered was not the latest, and nobody else
        // writes this one (`kubernetes/apiserver pkg/storage/etcd3/store.go`, `GuaranteedUpdate`).
        let wanted = if code.is_empty() { 0..=0 } else { 1..=2 };
        let asked = now - advised;
        assert!(
            wanted.contains(&asked),
            "{path} {patch}: asked {asked} times: {:?}",
            answer.warnings
        );
        advised = now;
        let said = answer.warnings.join("\n");
        assert!(said.starts_with(code) && said.is_empty() == code.is_empty(), "{path}: {said}");
    }
    for pod in ["p", "plain"] {
        let grace = json!({ "gracePeriodSeconds": 0 });
        let answer = plane.call("DELETE", &format!("{pods}/{pod}"), Some(&grace));
        assert_eq!(answer.status, 200, "{}", answer.message());
    }
    assert_eq!((webhook.answered(), webhook.advised()), (mutated, advised));
}

/// Pods without a key of ours: every expression of the registration must be true or false of each.
fn not_asking() -> Vec<Value> {
    let patches = [
        json!({}),
        json!({ "metadata": { "annotations": {} } }),
        json!({ "metadata": { "annotations": null, "labels": null } }),
        json!({ "metadata": { "annotations": { "a": "b" }, "labels": { "devices.example/fuse": "x" } } }),
        json!({ "metadata": { "annotations": { "xdevices.example/fuse": "true" } } }),
        json!({ "metadata": { "annotations": { "devices.example": "true" } } }),
        json!({ "spec": { "volumes": null } }),
        json!({ "spec": { "volumes": [] } }),
        json!({ "spec": { "volumes": [{ "name": "v", "emptyDir": {} }] } }),
        json!({ "spec": { "volumes": [{ "name": "v", "hostPath": { "path": "/dev/fuse" } }] } }),
    ];
    let mut pods = Vec::new();
    for (number, patch) in patches.into_iter().enumerate() {
        let mut pod = asking();
        pod["metadata"] = json!({});
        json_patch::merge(&mut pod, &patch);
        pod["metadata"]["name"] = json!(format!("plain-{number}"));
        pods.push(pod);
    }
    pods
}

/// A pod that asks and was not mutated, as when the mutating registration is gone.
fn around(plane: &ControlPlane) {
    let webhook = Webhook::start(plane, &Options { mutates: false, ..Options::default() });
    let pods = format!("/api/v1/namespaces/{}/pods", webhook.namespace(plane));
    let answer = plane.call("POST", &pods, Some(&asking()));
    assert_eq!(answer.status, 403);
    let says = format!("admission webhook \"{GUARD}\" denied the request: devgrant: ");
    assert!(answer.message().starts_with(&says), "{}", answer.message());
    // With a stamp that somebody else wrote, too.
    let mut forged = asking();
    let grant = json!({ "device": "fuse", "mode": "rootless", "count": 1, "containers": ["c"], "policy": "fuse" });
    let stamp = json!({ "policyDigest": "sha256:0", "grants": [grant] });
    forged["metadata"]["annotations"][STAMP] = json!(stamp.to_string());
    let answer = plane.call("POST", &pods, Some(&forged));
    assert_eq!(answer.status, 403);
    assert!(answer.message().starts_with(&says), "{}", answer.message());
    assert_eq!(webhook.answered(), 0);
}

/// The guard may be in force a moment later than the webhook; then it is asked, and lets the pod pass.
fn guarded(plane: &ControlPlane) {
    let webhook = Webhook::start(plane, &Options::default());
    let pods = format!("/api/v1/namespaces/{}/pods?dryRun=All", webhook.namespace(plane));
    soon("the guard to be asked", || {
        is_granted(&plane.create(&pods, &asking()));
        let asked = webhook.counted("devgrant_admissions_total{", "endpoint=\"validate\"");
        (asked > 0).then_some(())
    });
}

fn dead(plane: &ControlPlane, failure_policy: &'static str) {
    let mut webhook = Webhook::start(plane, &Options { failure_policy, ..Options::default() });
    let pods = format!("/api/v1/namespaces/{}/pods", webhook.namespace(plane));
    webhook.server.process.kill();
    for pod in not_asking() {
        plane.create(&pods, &pod);
    }
    let answer = plane.call("POST", &pods, Some(&asking()));
    if failure_policy == "Ignore" {
        // The pod is created without its device: what a guard is for.
        assert_eq!(answer.status, 201);
        assert_eq!(answer.body["spec"]["containers"][0]["resources"], json!({}));
    } else {
        assert_eq!(answer.status, 500);
        let says = "Internal error occurred: failed calling webhook \"mutate.pods.devgrant\": failed to call webhook: Post \"https://127.0.0.1:";
        assert!(answer.message().starts_with(says), "{}", answer.message());
    }
}
