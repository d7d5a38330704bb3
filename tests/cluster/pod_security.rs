//! Pod Security foretold (DG005) and as the API server judges it: the same over the whole grid of
//! level, mode and pod. What a pod fails for its own sake is not ours to foretell.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use devgrant::decision::{PolicySet, Settings};
use devgrant::policies::Location;
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::control_plane::{ControlPlane, Plane};
use crate::trial;
use crate::webhook::Options;

/// Levels, and the version of the standard that the namespace pins. Older standards judge otherwise:
/// baseline before v1.19 lets a seccomp field be Unconfined, restricted before v1.22 lets a container add
/// what baseline does.
const LEVELS: &[(&str, &str)] = &[
    ("privileged", "latest"),
    ("baseline", "latest"),
    ("baseline", "v1.18"),
    ("baseline", "v1.19"),
    ("restricted", "latest"),
    ("restricted", "v1.21"),
    ("restricted", "v1.22"),
];

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
    let mut trials = Vec::new();
    for (level, version) in LEVELS.iter().copied() {
        let shipped = (version == "latest").then_some(("shipped", None));
        for (name, policies) in [("every", Some(every()))].into_iter().chain(shipped) {
            trials.push(trial(
                format!("pod_security::{level}::{version}::{name}"),
                plane,
                move |plane| {
                    let points = grid(plane, &options(level, version, policies));
                    let outcomes =
                        if level == "privileged" { &[Outcome::Passes][..] } else { &ALL };
                    for outcome in outcomes {
                        let points = points.get(outcome).copied().unwrap_or(0);
                        assert!(points >= AT_LEAST, "{outcome:?}: {points} points");
                    }
                },
            ));
        }
    }
    trials
}

/// A policy with a mode for each thing that Pod Security may judge.
fn every() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cluster/pod-security")
}

/// How many points of the grid have which outcome.
fn grid(plane: &ControlPlane, options: &Options) -> BTreeMap<Outcome, usize> {
    let location = match &options.policies {
        Some(folder) => Location::Folders { paths: vec![folder.clone()], allow_empty: false },
        None => Location::Shipped,
    };
    let sources = devgrant::policies::read(&location).unwrap();
    let set = PolicySet::compile(&sources, Settings::default()).unwrap();
    let namespace = plane.webhook(options).namespace(plane);
    let mut points = BTreeMap::new();
    let mut differ = Vec::new();
    for policy in set.policies() {
        for (mode, is) in &policy.spec().modes {
            if let Some(class) = &is.runtime_class_name {
                plane.runtime_class(class);
            }
            for (shape, pod) in shapes() {
                let asking = asking(&pod, policy.device(), mode);
                match agree(plane, &namespace, &asking, &pod) {
                    Ok(outcome) => *points.entry(outcome).or_insert(0) += 1,
                    Err(how) => differ.push(format!("{}: {mode}, {shape}: {how}", policy.device())),
                }
            }
        }
    }
    assert!(differ.is_empty(), "{} differ, {points:?} agree\n{}", differ.len(), differ.join("\n"));
    points
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

/// What becomes of a pod with and without its ask, or how that is not what was foretold.
fn agree(
    plane: &ControlPlane,
    namespace: &str,
    asking: &Value,
    plain: &Value,
) -> Result<Outcome, String> {
    let path = format!("/api/v1/namespaces/{namespace}/pods?dryRun=All");
    let alone = plane.call("POST", &path, Some(plain));
    let granted = plane.call("POST", &path, Some(asking));
    let judged = granted.message();
    if judged.contains("denied the request") {
        // Ours, and not what this is about.
        assert!(NOT_OURS_TO_JUDGE.iter().any(|part| judged.contains(part)), "{judged}");
        return Ok(Outcome::NotAllowed);
    }
    let foretold = granted.warnings.concat();
    let is_foretold = foretold.contains("enforces Pod Security");
    match (alone.status, granted.status) {
        (201, 201) if is_foretold => Err(format!("foretold and not so: {foretold}")),
        (201, 201) => Ok(Outcome::Passes),
        (201, 403) if !is_foretold => Err(format!("not foretold: {judged}")),
        (201, 403) => {
            let is_of_one = |check: &&&str| foretold.contains(**check) != judged.contains(**check);
            match CHECKS.iter().find(is_of_one) {
                Some(check) => Err(format!("{check}\n  foretold {foretold}\n  judged {judged}")),
                None => Ok(Outcome::Foretold),
            }
        }
        // Its own spec fails already.
        (403, 403) => Ok(Outcome::FailsAlone),
        (before, after) => Err(format!("{before} alone, {after} granted: {judged}")),
    }
}

/// What Devgrant refuses at some points of the grid: a mode that no rule opens, and conflicts.
const NOT_OURS_TO_JUDGE: &[&str] =
    &["may not use the mode", "which the API server refuses beside", "cannot be beside"];

fn options(level: &str, version: &str, policies: Option<PathBuf>) -> Options {
    let mut options = Options { policies, ..Options::default() };
    let label = |suffix: &str| format!("pod-security.kubernetes.io/enforce{suffix}");
    options.labels.insert(label(""), level.to_owned());
    options.labels.insert(label("-version"), version.to_owned());
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
