//! What the cluster's own plugins say of a granted pod: limits, quotas, runtime classes.

use std::fs;

use libtest_mimic::Trial;
use serde_json::json;

use crate::control_plane::{ControlPlane, Plane};
use crate::process::soon;
use crate::requests::{FUSE, asking, is_granted};
use crate::trial;
use crate::webhook::Options;

pub(crate) fn trials(plane: &Plane) -> Vec<Trial> {
    vec![
        trial("limits::limit_range", plane, |plane| limit_range(plane)),
        trial("limits::limit_range_default_of_a_device", plane, |plane| limit_range_default(plane)),
        trial("limits::resource_quota", plane, |plane| resource_quota(plane)),
        trial("limits::runtime_class", plane, |plane| runtime_class(plane)),
    ]
}

fn room(plane: &ControlPlane) -> (String, String) {
    let namespace = plane.webhook(&Options::default()).namespace(plane);
    let path = format!("/api/v1/namespaces/{namespace}");
    let pods = format!("{path}/pods");
    (path, pods)
}

/// A limit range judges the pod with its device, and gives the other resources as ever.
fn limit_range(plane: &ControlPlane) {
    let (namespace, pods) = room(plane);
    let limits = json!([{
        "type": "Container",
        "default": { "cpu": "1" },
        "defaultRequest": { "cpu": "100m" },
        "max": { FUSE: "1", "nvidia.com/gpu": "1" },
    }]);
    let range = json!({ "metadata": { "name": "l" }, "spec": { "limits": limits } });
    plane.create(&format!("{namespace}/limitranges"), &range);
    let created = plane.create(&pods, &asking());
    is_granted(&created);
    let resources = &created["spec"]["containers"][0]["resources"];
    assert_eq!(resources["limits"]["cpu"], "1");
    assert_eq!(resources["requests"]["cpu"], "100m");
    let mut two = asking();
    two["metadata"] = json!({ "name": "two", "annotations": { "devices.example/gpu": "2" } });
    let answer = plane.call("POST", &pods, Some(&two));
    assert_eq!(answer.status, 403);
    let says = "pods \"two\" is forbidden: maximum nvidia.com/gpu usage per Container is 1, but limit is 2";
    assert!(answer.message().starts_with(says), "{}", answer.message());
}

/// A limit range that gives every container a device: what is there already is not given twice.
fn limit_range_default(plane: &ControlPlane) {
    let (namespace, pods) = room(plane);
    let limits =
        json!([{ "type": "Container", "default": { FUSE: "1" }, "defaultRequest": { FUSE: "1" } }]);
    let range = json!({ "metadata": { "name": "l" }, "spec": { "limits": limits } });
    plane.create(&format!("{namespace}/limitranges"), &range);
    is_granted(&plane.create(&pods, &asking()));
}

fn resource_quota(plane: &ControlPlane) {
    plane.with_controllers();
    let (namespace, pods) = room(plane);
    let resource = format!("requests.{FUSE}");
    let quota = json!({ "metadata": { "name": "q" }, "spec": { "hard": { &resource: "1" } } });
    plane.create(&format!("{namespace}/resourcequotas"), &quota);
    soon("the quota to be in force", || {
        let quota = plane.call("GET", &format!("{namespace}/resourcequotas/q"), None).body;
        (quota["status"]["hard"][&resource] == "1").then_some(())
    });
    is_granted(&plane.create(&pods, &asking()));
    let mut second = asking();
    second["metadata"]["name"] = json!("second");
    let answer = plane.call("POST", &pods, Some(&second));
    assert_eq!(answer.status, 403);
    assert_eq!(
        answer.message(),
        format!(
            "pods \"second\" is forbidden: exceeded quota: q, requested: {resource}=1, used: {resource}=1, limited: {resource}=1"
        )
    );
    // Who asks for none is not counted.
    second["metadata"]["annotations"].take();
    plane.create(&pods, &second);
}

/// The API server fills in what belongs to a runtime class that a grant sets.
fn runtime_class(plane: &ControlPlane) {
    let class = json!({
        "metadata": { "name": "heavy" },
        "handler": "heavy",
        "overhead": { "podFixed": { "memory": "64Mi" } },
        "scheduling": {
            "nodeSelector": { "sandbox": "heavy" },
            "tolerations": [{ "key": "sandbox", "operator": "Exists", "effect": "NoSchedule" }],
        },
    });
    plane.create("/apis/node.k8s.io/v1/runtimeclasses", &class);
    let policies = plane.folder().join("runtime-class");
    fs::create_dir(&policies).unwrap();
    fs::write(policies.join("sandbox.yaml"), SANDBOX).unwrap();
    let options = Options { policies: Some(policies), ..Options::default() };
    let namespace = plane.webhook(&options).namespace(plane);
    let pods = format!("/api/v1/namespaces/{namespace}/pods");
    let mut pod = asking();
    pod["metadata"]["annotations"] = json!({ "devices.example/sandbox": "true" });
    let created = plane.create(&pods, &pod);
    let spec = &created["spec"];
    assert_eq!(spec["runtimeClassName"], "heavy");
    assert_eq!(spec["overhead"], json!({ "memory": "64Mi" }));
    assert_eq!(spec["nodeSelector"], json!({ "sandbox": "heavy" }));
    let tolerations = spec["tolerations"].as_array().unwrap();
    assert!(tolerations.iter().any(|toleration| toleration["key"] == "sandbox"), "{tolerations:?}");
}

/// A device whose mode sets a runtime class.
const SANDBOX: &str = "\
apiVersion: devgrant/v1alpha1
kind: DevicePolicy
metadata: { name: sandbox }
spec:
  device: sandbox
  description: A device in a sandbox
  count: { default: 1, max: 1 }
  defaultMode: heavy
  modes:
    heavy:
      description: In the sandbox
      resources: [{ name: vendor.example/sandbox, count: 1 }]
      runtimeClassName: heavy
";
