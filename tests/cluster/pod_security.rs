//! Pod Security foretold (DG005) and as the API server judges it: the same over the whole grid of
//! level, mode and pod. What a pod fails for its own sake is not ours to foretell.

use std::collections::BTreeMap;

use devgrant::decision::{PolicySet, Settings};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::control_plane::{ControlPlane, Plane};
use crate::trial;
use crate::webhook::Options;

const LEVELS: &[&str] = &["privileged", "baseline", "restricted"];
/// The least number of points of each outcome at a level: a grid that tells nothing is noticed.
const AT_LEAST: usize = 20;
const ALL: [Outcome; 3] = [Outcome::Passes, Outcome::Foretold, Outcome::FailsAlone];

/// What both sides call a check. `privileged` is left out: it is a word of other sentences as well.
const CHECKS: &[&str] = &[
    "allowPrivilegeEscalation != false",
    "forbidden AppArmor profile",
    "hostPath volumes",
    "non-default capabilities",
    "seccompProfile",
    "unrestricted capabilities",
];

pub(crate) fn trials(plane: &Plane) -> Vec<Trial> {
    let of_level = |level: &'static str| {
        trial(format!("pod_security::{level}"), plane, move |plane| {
            let shipped =
                PolicySet::compile(&devgrant::policies::shipped(), Settings::default()).unwrap();
            let namespace = plane.webhook(&options(level)).namespace(plane);
            let mut points = BTreeMap::new();
            for policy in shipped.policies() {
                let device = policy.device();
                for (mode, is) in &policy.spec().modes {
                    if let Some(class) = &is.runtime_class_name {
                        plane.runtime_class(class);
                    }
                    for (shape, pod) in shapes() {
                        let point = format!("{device}: {mode}, {shape}");
                        let asking = asking(&pod, device, mode);
                        let outcome = agree(plane, &namespace, &point, &asking, &pod);
                        *points.entry(outcome).or_insert(0) += 1;
                    }
                }
            }
            let least = if level == "privileged" { &[Outcome::Passes][..] } else { &ALL };
            for outcome in least {
                let points = points.get(outcome).copied().unwrap_or(0);
                assert!(points >= AT_LEAST, "{outcome:?}: {points} points");
            }
        })
    };
    LEVELS.iter().copied().map(of_level).collect()
}

/// What becomes of a pod at a point of the grid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    /// It is created.
    Passes,
    /// The grant is refused, as was foretold.
    Foretold,
    /// It is refused without the grant as well.
    FailsAlone,
    /// Devgrant refuses the ask before.
    NotAllowed,
}

fn agree(
    plane: &ControlPlane,
    namespace: &str,
    point: &str,
    asking: &Value,
    plain: &Value,
) -> Outcome {
    let path = format!("/api/v1/namespaces/{namespace}/pods?dryRun=All");
    let alone = plane.call("POST", &path, Some(plain));
    let granted = plane.call("POST", &path, Some(asking));
    let judged = granted.message();
    if judged.contains("denied the request") {
        // Ours, and not what this is about.
        assert!(judged.contains("may not use the mode"), "{point}: {judged}");
        return Outcome::NotAllowed;
    }
    let foretold = granted.warnings.concat();
    let is_foretold = foretold.contains("enforces Pod Security");
    match (alone.status, granted.status) {
        (201, 201) => {
            assert!(!is_foretold, "{point}: foretold and not so: {foretold}");
            Outcome::Passes
        }
        (201, 403) => {
            assert!(judged.contains("violates PodSecurity"), "{point}: {judged}");
            assert!(is_foretold, "{point}: not foretold: {judged}");
            for check in CHECKS {
                assert_eq!(
                    foretold.contains(check),
                    judged.contains(check),
                    "{point}: {check}\nforetold {foretold}\njudged {judged}"
                );
            }
            Outcome::Foretold
        }
        // Its own spec fails already. A grant that cures it would have to be said, and none is.
        (403, 403) => {
            assert!(judged.contains("violates PodSecurity"), "{point}: {judged}");
            Outcome::FailsAlone
        }
        (before, after) => panic!("{point}: {before} alone, {after} granted: {judged}"),
    }
}

fn options(level: &str) -> Options {
    let mut options = Options::default();
    options.labels.insert("pod-security.kubernetes.io/enforce".to_owned(), level.to_owned());
    options
}

fn asking(pod: &Value, device: &str, mode: &str) -> Value {
    let mut pod = pod.clone();
    pod["metadata"]["annotations"] =
        json!({ format!("devices.example/{device}"): mode, "devices.example/containers": "c" });
    pod
}

/// Pods by what they say of their own security.
fn shapes() -> BTreeMap<&'static str, Value> {
    let pod = |pod: Value, container: Value| {
        let mut spec = json!({ "containers": [{ "name": "c", "image": "x" }] });
        json_patch::merge(&mut spec, &pod);
        json_patch::merge(&mut spec["containers"][0], &container);
        json!({ "metadata": { "name": "p" }, "spec": spec })
    };
    let restricted = json!({ "securityContext": {
        "runAsNonRoot": true,
        "seccompProfile": { "type": "RuntimeDefault" },
    } });
    let bare = json!({ "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } });
    BTreeMap::from([
        ("bare", pod(json!({}), json!({}))),
        ("restricted", pod(restricted.clone(), json!({ "securityContext": bare.clone() }))),
        ("restricted in its own user namespace", {
            let mut own = pod(restricted.clone(), json!({ "securityContext": bare.clone() }));
            own["spec"]["hostUsers"] = json!(false);
            own
        }),
        ("restricted with a sidecar", {
            let mut two = pod(restricted, json!({ "securityContext": bare.clone() }));
            two["spec"]["initContainers"] = json!([
                { "name": "s", "image": "x", "restartPolicy": "Always", "securityContext": bare },
            ]);
            two
        }),
        ("a hostPath of its own", {
            let mut host = pod(json!({}), json!({}));
            host["spec"]["volumes"] = json!([{ "name": "h", "hostPath": { "path": "/srv" } }]);
            host
        }),
    ])
}
