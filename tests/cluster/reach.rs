//! Which pods the API server asks about, and what becomes of them when nobody answers.

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::control_plane::{ControlPlane, Plane};
use crate::process::soon;
use crate::requests::{STAMP, asking, is_granted};
use crate::trial;
use crate::webhook::{GUARD, Options, Webhook};

pub(crate) fn trials(plane: &Plane) -> Vec<Trial> {
    vec![
        trial("reach::only_pods_that_ask_where_the_namespace_takes_part", plane, |plane| {
            reach(plane);
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
    what_comes_after(plane, &format!("{pods}/p"));
    assert_eq!(webhook.answered(), before + 1, "only a creation is asked about");
}

/// What may happen to a pod that is there.
fn what_comes_after(plane: &ControlPlane, pod: &str) {
    let debug = json!({ "name": "debugger", "image": "registry.example/debug:1" });
    let patches = [
        ("", json!({ "metadata": { "annotations": { "devices.example/fuse": "no-such-mode" } } })),
        ("", json!({ "metadata": { "labels": { "a": "b" } } })),
        ("/ephemeralcontainers", json!({ "spec": { "ephemeralContainers": [debug] } })),
        ("/status", json!({ "status": { "phase": "Running" } })),
    ];
    let headers = [("content-type", "application/strategic-merge-patch+json")];
    for (subresource, patch) in patches {
        let path = format!("{pod}{subresource}");
        let answer = plane.call_with("PATCH", &path, Some(&patch), &headers);
        assert_eq!(answer.status, 200, "{path}: {}", answer.message());
    }
    let grace = json!({ "gracePeriodSeconds": 0 });
    let answer = plane.call("DELETE", pod, Some(&grace));
    assert_eq!(answer.status, 200, "{}", answer.message());
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
