//! `/validate`: a pod that came through the line passes, and one that came around it does not. That it is
//! so for every golden case is held in `golden.rs`.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on says where and stops"
)]

use std::fs;
use std::path::Path;

use devgrant::decision::{
    Admission, Namespace, PolicySet, PolicySource, Reason, Review, Settings, admit, validate,
};
use devgrant::policies;
use serde_json::{Value, json};

fn namespace() -> Namespace {
    let label = ("devices.example/grant".to_owned(), "enabled".to_owned());
    Namespace { name: "team".to_owned(), labels: [label].into() }
}

/// The shipped policies, each text changed.
fn policies(change: impl Fn(&str) -> String) -> PolicySet {
    let sources: Vec<PolicySource> = policies::shipped()
        .into_iter()
        .map(|source| PolicySource { text: change(&source.text), ..source })
        .collect();
    PolicySet::compile(&sources, Settings::default()).unwrap()
}

fn shipped() -> PolicySet {
    policies(str::to_owned)
}

fn captured(name: &str) -> Value {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/admission-reviews");
    serde_json::from_str(&fs::read_to_string(folder.join(name)).unwrap()).unwrap()
}

/// A captured review of a pod that asks.
fn asking(name: &str, device: &str, value: &str) -> Value {
    let mut review = captured(name);
    let annotations = json!({ format!("devices.example/{device}"): value });
    json_patch::merge(
        &mut review["request"]["object"],
        &json!({ "metadata": { "annotations": annotations } }),
    );
    review
}

/// The same review with the pod as `/mutate` makes it.
fn mutated(mut review: Value, policies: &PolicySet) -> Value {
    let bytes = serde_json::to_vec(&review).unwrap();
    let admission = admit(&Review::decode(&bytes).unwrap(), policies, Some(&namespace())).unwrap();
    assert!(admission.allowed, "{:?}", admission.message);
    json_patch::patch(&mut review["request"]["object"], &admission.operations).unwrap();
    review
}

fn validated(review: &Value, policies: &PolicySet) -> Admission {
    let bytes = serde_json::to_vec(review).unwrap();
    validate(&Review::decode(&bytes).unwrap(), policies, Some(&namespace())).unwrap()
}

#[track_caller]
fn check(review: &Value, policies: &PolicySet, allowed: bool, reason: Reason) -> Admission {
    let admission = validated(review, policies);
    assert_eq!((admission.allowed, admission.reason), (allowed, reason), "{:?}", admission.message);
    assert_eq!(admission.operations, []);
    assert_eq!(admission.message.is_none(), allowed);
    assert!(!allowed || admission.warnings.is_empty(), "{:?}", admission.warnings);
    admission
}

#[test]
fn what_does_not_ask_or_is_no_new_pod_passes() {
    let policies = shipped();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/admission-reviews");
    let mut seen = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|ending| ending != "json") {
            continue;
        }
        let review = captured(path.file_name().unwrap().to_str().unwrap());
        let request = &review["request"];
        let creates = request["operation"] == "CREATE" && request["kind"]["kind"] == "Pod";
        let reason = if creates { Reason::NotAsked } else { Reason::NotPodCreation };
        check(&review, &policies, true, reason);
        seen += 1;
    }
    assert!(seen >= 17, "{seen}");
    let mut update = asking("create-bare-pod.json", "fuse", "true");
    update["request"]["operation"] = json!("UPDATE");
    check(&update, &policies, true, Reason::NotPodCreation);
}

#[test]
fn a_pod_that_came_around_is_refused_and_told_what_to_do() {
    let policies = shipped();
    for name in ["create-bare-pod.json", "create-bare-pod-dry-run.json"] {
        let review = asking(name, "fuse", "true");
        let refused = check(&review, &policies, false, Reason::Bypassed);
        assert!(refused.devices.is_empty());
        assert_eq!(
            refused.message.unwrap(),
            "devgrant: Bypassed: the pod is not what the grant of fuse makes of it: 6 changes are missing, the \
             first at `/spec/containers/0/resources/limits`; it came around the webhook that makes them, \
             or was changed behind it: create it again, and if it is refused again, ask whoever runs \
             devgrant"
        );
        check(&mutated(review, &policies), &policies, true, Reason::Granted);
    }
    let forged = asking("create-bare-pod.json", "granted", "{}");
    let refused = check(&forged, &policies, false, Reason::Bypassed).message.unwrap();
    assert!(
        refused.contains("no grant makes of it: 1 change is missing, at `/metadata/annotations"),
        "{refused}"
    );
}

#[test]
fn what_another_webhook_undid_is_missed() {
    let policies = shipped();
    let came = mutated(asking("create-bare-pod.json", "fuse", "true"), &policies);
    for (pointer, value) in [
        ("/spec/containers/0/resources/limits/smarter-devices~1fuse", json!("0")),
        ("/spec/containers/0/securityContext/capabilities/add", json!([])),
        ("/spec/containers/0/env", json!([])),
        ("/metadata/annotations/devices.example~1granted", json!("{}")),
    ] {
        let mut review = came.clone();
        *review["request"]["object"].pointer_mut(pointer).unwrap() = value;
        check(&review, &policies, false, Reason::Bypassed);
    }
    // A sidecar behind us gets nothing, and takes nothing away.
    let mut review = came;
    let containers = review["request"]["object"]["spec"]["containers"].as_array_mut().unwrap();
    containers.push(json!({ "name": "mesh", "image": "mesh", "resources": {} }));
    check(&review, &policies, true, Reason::Granted);
}

#[test]
fn what_is_refused_at_the_first_look_is_refused_in_the_same_words() {
    let policies = shipped();
    let review = asking("create-bare-pod.json", "fuze", "true");
    let refused = check(&review, &policies, false, Reason::UnknownKey);
    let bytes = serde_json::to_vec(&review).unwrap();
    let first = admit(&Review::decode(&bytes).unwrap(), &policies, Some(&namespace())).unwrap();
    assert_eq!(refused.to_bytes(), first.to_bytes());
}

/// While policies are replaced, one replica has the new ones before the other.
#[test]
fn other_policies_that_grant_the_same_refuse_nothing() {
    let old = shipped();
    let came = mutated(asking("create-bare-pod.json", "fuse", "true"), &old);
    let described = policies(|text| text.replace("Hardware virtualisation", "Virtualisation"));
    assert_ne!(described.digest(), old.digest());
    check(&came, &described, true, Reason::Granted);
    let other_resource =
        policies(|text| text.replace("smarter-devices/fuse", "other.example/fuse"));
    check(&came, &other_resource, false, Reason::Bypassed);
}

#[test]
fn a_policy_in_shadow_asks_for_no_patch() {
    let shadow = policies(|text| text.replace("\nspec:\n", "\nspec:\n  enforcement: Shadow\n"));
    let review = asking("create-bare-pod.json", "fuse", "true");
    check(&review, &shadow, true, Reason::Shadow);
}
