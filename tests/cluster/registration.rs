//! Which pods the API server shows to the webhook: nobody answers here, so that a pod that is shown is
//! refused, and one that is not is created.

use std::fs;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::control_plane::{ControlPlane, Plane};
use crate::manifests::{Applied, pod};
use crate::process::soon;
use crate::trial;

/// What the API server says of a webhook that does not answer.
const SHOWN: &str = "failed calling webhook \"mutate.pods.devgrant\"";

pub(crate) fn trials(plane: &Plane) -> Vec<Trial> {
    vec![
        trial("registration::shows_pods_that_ask", plane, |plane| by_annotation(plane)),
        trial("registration::shows_old_shapes_to_always", plane, |plane| by_volume(plane)),
        trial("registration::leaves_namespaces_out_by_name", plane, |plane| by_name(plane)),
    ]
}

fn registered(plane: &ControlPlane, flags: &[String]) -> Applied {
    let probe = pod(&json!({ "devices.example/probe": "false" }), &json!({}));
    let own = ["--only=registration".to_owned(), "--url=https://127.0.0.1:1".to_owned()];
    Applied::new(plane, &[&own, flags].concat(), &probe, SHOWN)
}

#[track_caller]
fn check(plane: &ControlPlane, applied: &Applied, pod: &Value, shown: bool) {
    let answer = applied.create(plane, pod, &[]);
    if shown {
        assert!(answer.message().contains(SHOWN), "{pod}: {} {}", answer.status, answer.message());
    } else {
        assert_eq!(answer.status, 201, "{pod}: {}", answer.message());
    }
}

fn by_annotation(plane: &ControlPlane) {
    let applied = registered(plane, &[]);
    let device = json!({ "volumes": [{ "name": "v", "hostPath": { "path": "/dev/fuse" } }] });
    for (annotations, spec, shown) in [
        (json!({}), json!({}), false),
        (Value::Null, json!({ "volumes": null, "initContainers": null }), false),
        (json!({ "example/fuse": "true" }), json!({ "volumes": [] }), false),
        (json!({ "devices.example.org/fuse": "true" }), json!({}), false),
        (json!({}), device, false),
        (json!({ "devices.example/fuse": "true" }), json!({}), true),
        (json!({ "devices.example/fues": "true" }), json!({}), true),
        (json!({ "devices.example/granted": "x" }), json!({}), true),
    ] {
        check(plane, &applied, &pod(&annotations, &spec), shown);
    }
}

fn by_volume(plane: &ControlPlane) {
    let folder = tempfile::tempdir().unwrap();
    for device in ["fuse", "gpu", "kvm"] {
        let text = fs::read_to_string(format!("policies/{device}.yaml")).unwrap();
        let always = match device {
            "kvm" => text,
            _ => text.replace("    action: Rewrite", "    action: Rewrite\n    when: Always"),
        };
        fs::write(folder.path().join(format!("{device}.yaml")), always).unwrap();
    }
    let applied = registered(plane, &[format!("--policies={}", folder.path().display())]);
    let volume = |source: Value| json!({ "volumes": [{ "name": "v" }, source] });
    for (spec, shown) in [
        (json!({}), false),
        (json!({ "volumes": null }), false),
        (json!({ "volumes": [{ "name": "v", "emptyDir": {} }] }), false),
        (json!({ "volumes": [{ "name": "v", "configMap": { "name": "x" } }] }), false),
    ] {
        check(plane, &applied, &pod(&json!({}), &spec), shown);
    }
    for (path, shown) in [
        ("/dev/fuse", true),
        ("//dev/./fuse/", true),
        ("/dev/fuse/.", true),
        ("/dev", true),
        ("/dev/", true),
        ("/", true),
        ("/.", true),
        ("/dev/nvidia0", true),
        ("/dev/nvidia-caps/nvidia-cap1", true),
        ("/dev/fuse2", false),
        ("/dev/kvm", false),
        ("/devices", false),
        ("/var/dev/fuse", false),
        ("/data", false),
    ] {
        let mut spec = volume(json!({ "name": "w", "hostPath": { "path": path } }));
        spec["volumes"][0] = json!({ "name": "v", "emptyDir": {} });
        check(plane, &applied, &pod(&Value::Null, &spec), shown);
    }
}

/// Whatever labels they have, by the webhooks and by the guard.
fn by_name(plane: &ControlPlane) {
    let own = plane.namespace(&json!({}));
    let flag = format!("--own-namespace={own}");
    let probe = pod(&json!({ "devices.example/granted": "x" }), &json!({}));
    let guard = ["--only=guard".to_owned(), flag.clone()];
    for (applied, words) in [
        (registered(plane, &[flag]), SHOWN),
        (Applied::new(plane, &guard, &probe, "ValidatingAdmissionPolicy"), "was not granted fuse"),
    ] {
        let path = |namespace: &str| format!("/api/v1/namespaces/{namespace}");
        let opted_in = plane.call("GET", &path(&applied.namespace), None).body;
        let mut labels = opted_in["metadata"]["labels"].clone();
        labels["kubernetes.io/metadata.name"].take();
        labels.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        // The API server learns of labels in their order, so that with the last one it knows all.
        let last = plane.namespace(&json!({}));
        for namespace in ["kube-system", &own, &last] {
            let labelled = json!({ "metadata": { "labels": labels } });
            let headers = [("content-type", "application/merge-patch+json")];
            let answer = plane.call_with("PATCH", &path(namespace), Some(&labelled), &headers);
            assert_eq!(answer.status, 200, "{}", answer.message());
        }
        let asking = pod(&json!({ "devices.example/fuse": "true" }), &json!({}));
        let create = |namespace: &str| {
            plane.call("POST", &format!("{}/pods?dryRun=All", path(namespace)), Some(&asking))
        };
        soon("the labels to count", || create(&last).message().contains(words).then_some(()));
        for namespace in ["kube-system", &own] {
            let answer = create(namespace);
            assert_eq!(answer.status, 201, "{namespace}: {}", answer.message());
        }
    }
}
