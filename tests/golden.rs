#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on says where and stops"
)]
//! What is decided: one folder a case, a closed set.
//!
//! A case is `case.yaml` (and `pod.yaml`, unless it starts from a captured review); `verdict.yaml`,
//! `patch.json` and `after.yaml` are what comes out. `DEVGRANT_REFRESH_GOLDEN=1 cargo test --test
//! golden` writes them again; the difference is for review.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use devgrant::decision::{
    Admission, Namespace, PolicySet, PolicySource, Review, Settings, admit, validate,
};
use kube::core::DynamicObject;
use kube::core::admission::{AdmissionRequest, AdmissionResponse, AdmissionReview};
use serde_json::{Value, json};

#[path = "support/golden_case.rs"]
mod golden_case;

use golden_case::{Case, read_case, review, sorted};

/// The least number of cases: a folder that got lost is noticed.
const AT_LEAST: usize = 779;

#[test]
fn every_case_gives_what_its_folder_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/cases");
    let refresh = std::env::var_os("DEVGRANT_REFRESH_GOLDEN").is_some();
    let mut failures = Vec::new();
    let mut count = 0;
    let mut compiled = Compiled::new();
    for folder in sorted(&root) {
        count += 1;
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let expected = outputs(&folder, &mut compiled);
        let known = ["case.yaml", "pod.yaml", "verdict.yaml", "patch.json", "after.yaml"];
        for file in sorted(&folder) {
            let file_name = file.file_name().unwrap().to_string_lossy().into_owned();
            let is_output = !["case.yaml", "pod.yaml"].contains(&file_name.as_str());
            if !known.contains(&file_name.as_str())
                || (is_output && !refresh && !expected.contains_key(&file_name))
            {
                failures.push(format!("{name}: stray file {file_name}"));
            }
            if refresh && is_output {
                fs::remove_file(&file).unwrap();
            }
        }
        for (file_name, content) in expected {
            let path = folder.join(&file_name);
            if refresh {
                fs::write(&path, content).unwrap();
            } else if fs::read_to_string(&path).unwrap_or_default() != content {
                failures.push(format!("{name}: {file_name} differs; now:\n{content}"));
            }
        }
    }
    assert!(failures.is_empty(), "{} failures\n{}", failures.len(), failures.join("\n"));
    assert!(count >= AT_LEAST, "{count} cases, at least {AT_LEAST} were there once");
}

/// Every captured review has a case, and every policy set is used.
#[test]
fn captured_reviews_and_policy_sets_are_covered() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let cases: Vec<Case> =
        sorted(&tests.join("golden/cases")).iter().map(|folder| read_case(folder)).collect();
    let names = |folder: &str, ending: &str| -> BTreeSet<String> {
        let files = sorted(&tests.join(folder)).into_iter();
        let names = files.map(|path| path.file_name().unwrap().to_string_lossy().into_owned());
        names.filter(|name| name.ends_with(ending)).collect()
    };
    let used: BTreeSet<String> = cases.iter().filter_map(|case| case.fixture.clone()).collect();
    assert_eq!(used, names("fixtures/admission-reviews", ".json"));
    let used: BTreeSet<String> = cases.iter().filter_map(|case| case.policies.clone()).collect();
    assert_eq!(used, names("golden/policies", ""));
}

/// Policy sets by what they were compiled from: few sets, many cases.
type Compiled = BTreeMap<String, PolicySet>;

/// The files that a case should have beside its inputs.
fn outputs(folder: &Path, compiled: &mut Compiled) -> BTreeMap<String, String> {
    let case = read_case(folder);
    assert!(!case.description.is_empty(), "{}: say what the case shows", folder.display());
    let settings = (&case.prefix, &case.on_invalid, &case.kubernetes_version, &case.own_namespace);
    let key = format!("{:?} {settings:?}", case.policies);
    let policies = &*compiled.entry(key).or_insert_with(|| policies(&case));
    let review = review(&case, folder);
    let namespace = case.namespace.as_ref().map(|namespace| Namespace {
        name: review["request"]["namespace"].as_str().unwrap_or_default().to_owned(),
        labels: namespace.labels.clone(),
    });
    let normal = |text: String| text.replace(policies.digest(), "sha256:<digest>");
    let bytes = serde_json::to_vec(&review).unwrap();
    let decoded = Review::decode(&bytes).unwrap();
    let admission = match admit(&decoded, policies, namespace.as_ref()) {
        Ok(admission) => admission,
        Err(undecided) => {
            let verdict = json!({ "undecided": undecided.to_string() });
            return BTreeMap::from([("verdict.yaml".to_owned(), yaml(&verdict))]);
        }
    };
    let answer: Value = serde_json::from_slice(&admission.to_bytes()).unwrap();
    let mut files =
        BTreeMap::from([("verdict.yaml".to_owned(), normal(yaml(&verdict(&review, &answer))))]);
    let before = review["request"]["object"].clone();
    let after = patched(&before, &admission, folder);
    if !admission.operations.is_empty() {
        let patch = serde_json::to_string_pretty(&admission.operations).unwrap() + "\n";
        files.insert("patch.json".to_owned(), normal(patch));
        let mut shown = after.clone();
        if let Some(metadata) = shown["metadata"].as_object_mut() {
            metadata.remove("managedFields");
        }
        files.insert("after.yaml".to_owned(), normal(yaml(&shown)));
    }

    guard(&review, &after, &admission, policies, namespace.as_ref(), folder);

    // The second call: the API server may ask again with the patched pod.
    let mut again = review.clone();
    again["request"]["object"] = after;
    let bytes = serde_json::to_vec(&again).unwrap();
    let second = admit(&Review::decode(&bytes).unwrap(), policies, namespace.as_ref()).unwrap();
    assert_eq!(second.operations, [], "{}: the second call patches again", folder.display());
    assert_eq!(
        second.allowed,
        admission.allowed,
        "{}: the second call decides otherwise",
        folder.display()
    );
    if !stamp_was_removed(&admission) {
        assert_eq!(
            second.reason,
            admission.reason,
            "{}: the second call has another reason",
            folder.display()
        );
    }
    files
}

/// `validate` over the pod as it came, as it was patched, and as the API server then fills it in.
fn guard(
    review: &Value,
    after: &Value,
    mutated: &Admission,
    policies: &PolicySet,
    namespace: Option<&Namespace>,
    folder: &Path,
) {
    let mut filled = after.clone();
    fill_in_defaults(&mut filled);
    let before = &review["request"]["object"];
    let prefix = format!("{}/", policies.settings().prefix);
    let annotations = before["metadata"]["annotations"].as_object().into_iter().flatten();
    // Of a pod that asks for nothing, nothing is missing.
    let asks = annotations.into_iter().any(|(key, _)| key.starts_with(&prefix));
    let is_whole = without_digest(before, policies) == without_digest(after, policies);
    let as_it_came = mutated.allowed && (is_whole || !asks);
    for (pod, state, allowed) in [
        (before, "as it came", as_it_came),
        (after, "patched", mutated.allowed),
        (&filled, "patched and filled in", mutated.allowed),
    ] {
        let mut review = review.clone();
        review["request"]["object"] = pod.clone();
        let bytes = serde_json::to_vec(&review).unwrap();
        let validated = validate(&Review::decode(&bytes).unwrap(), policies, namespace).unwrap();
        let at = format!("{}: {state}: {:?}", folder.display(), validated.message);
        assert_eq!(validated.allowed, allowed, "{at}");
        assert_eq!(validated.operations, [], "{at}");
        assert!(!validated.allowed || validated.warnings.is_empty(), "{at}");
        let bypassed = mutated.allowed && !allowed;
        assert_eq!(validated.reason == devgrant::decision::Reason::Bypassed, bypassed, "{at}");
    }
}

/// The pod with no digest in its stamp: by that alone nobody can say that a pod came around.
fn without_digest(pod: &Value, policies: &PolicySet) -> Value {
    let mut pod = pod.clone();
    let key = format!("{}/granted", policies.settings().prefix);
    let stamp = pod.pointer_mut("/metadata/annotations").and_then(|all| all.get_mut(&key));
    if let Some(stamp) = stamp
        && let Ok(Value::Object(mut read)) =
            serde_json::from_str(stamp.as_str().unwrap_or_default())
    {
        read.shift_remove("policyDigest");
        *stamp = Value::Object(read);
    }
    pod
}

/// What the API server and its plugins fill in between `/mutate` and `/validate`, where nothing is there
/// (`kubernetes pkg/apis/core/v1/defaults.go`; the plugins `ServiceAccount` and
/// `DefaultTolerationSeconds`).
fn fill_in_defaults(pod: &mut Value) {
    let absent = |object: &mut Value, key: &str, value: Value| {
        let fields = object.as_object_mut().unwrap();
        if fields.get(key).is_none_or(Value::is_null) {
            fields.insert(key.to_owned(), value);
        }
    };
    let Some(spec) = pod.get_mut("spec").filter(|spec| spec.is_object()) else {
        return;
    };
    for (key, value) in [
        ("dnsPolicy", json!("ClusterFirst")),
        ("enableServiceLinks", json!(true)),
        ("preemptionPolicy", json!("PreemptLowerPriority")),
        ("priority", json!(0)),
        ("restartPolicy", json!("Always")),
        ("schedulerName", json!("default-scheduler")),
        ("securityContext", json!({})),
        ("serviceAccountName", json!("default")),
        ("terminationGracePeriodSeconds", json!(30)),
        ("tolerations", json!([])),
        ("volumes", json!([])),
    ] {
        absent(spec, key, value);
    }
    let account = spec["serviceAccountName"].clone();
    absent(spec, "serviceAccount", account);
    let tokens =
        json!({ "name": "kube-api-access-x", "projected": { "sources": [], "defaultMode": 420 } });
    spec["volumes"].as_array_mut().unwrap().push(tokens);
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let toleration = json!({ "key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300 });
        spec["tolerations"].as_array_mut().unwrap().push(toleration);
    }
    for volume in spec["volumes"].as_array_mut().unwrap() {
        if let Some(host_path) = volume.get_mut("hostPath").filter(|value| value.is_object()) {
            absent(host_path, "type", json!(""));
        }
    }
    for kind in ["initContainers", "containers"] {
        for container in spec.get_mut(kind).and_then(Value::as_array_mut).into_iter().flatten() {
            for (key, value) in [
                ("imagePullPolicy", json!("Always")),
                ("resources", json!({})),
                ("terminationMessagePath", json!("/dev/termination-log")),
                ("terminationMessagePolicy", json!("File")),
                ("volumeMounts", json!([])),
            ] {
                absent(container, key, value);
            }
            let tokens = json!({ "name": "kube-api-access-x", "readOnly": true, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount" });
            container["volumeMounts"].as_array_mut().unwrap().push(tokens);
            let limits = container["resources"].get("limits").cloned().unwrap_or_default();
            for (name, amount) in limits.as_object().into_iter().flatten() {
                absent(&mut container["resources"], "requests", json!({}));
                absent(&mut container["resources"]["requests"], name, amount.clone());
            }
        }
    }
}

/// A forged stamp is gone in the second round, and with it the only annotation under the prefix.
fn stamp_was_removed(admission: &Admission) -> bool {
    admission
        .operations
        .iter()
        .any(|operation| matches!(operation, json_patch::PatchOperation::Remove(_)))
}

fn policies(case: &Case) -> PolicySet {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = match &case.policies {
        Some(set) => folder.join("tests/golden/policies").join(set),
        None => folder.join("policies"),
    };
    let files = sorted(&folder)
        .into_iter()
        .filter(|path| path.extension().is_some_and(|ending| ending == "yaml"))
        .filter(|path| !path.to_string_lossy().ends_with(".test.yaml"));
    let sources: Vec<PolicySource> = files
        .map(|path| PolicySource {
            file: path.file_name().unwrap().to_string_lossy().into_owned(),
            text: fs::read_to_string(&path).unwrap(),
        })
        .collect();
    let default = Settings::default();
    let settings = Settings {
        prefix: case.prefix.clone().unwrap_or(default.prefix),
        own_namespace: case.own_namespace.clone().unwrap_or(default.own_namespace),
        kubernetes_version: match &case.kubernetes_version {
            Some(version) => version.parse().unwrap(),
            None => default.kubernetes_version,
        },
        on_invalid: case.on_invalid.unwrap_or_default(),
    };
    PolicySet::compile(&sources, settings).unwrap()
}

/// The answer, without what the other files show. What every answer has is what kube answers.
fn verdict(review: &Value, answer: &Value) -> Value {
    let mut review = review.clone();
    // kube reads no pod with a `null` annotation, and needs none for an answer.
    review["request"]["object"] = Value::Null;
    let request: AdmissionReview<DynamicObject> = serde_json::from_value(review).unwrap();
    let request: AdmissionRequest<DynamicObject> = request.try_into().unwrap();
    let theirs = serde_json::to_value(AdmissionResponse::from(&request).into_review()).unwrap();
    for pointer in ["/apiVersion", "/kind", "/response/uid"] {
        assert_eq!(answer.pointer(pointer), theirs.pointer(pointer), "{pointer}");
    }
    let mut verdict = answer["response"].clone();
    assert_eq!(verdict.get("patch").is_some(), verdict.get("patchType").is_some());
    let mut said = 0;
    for warning in verdict["warnings"].as_array().into_iter().flatten() {
        let warning = warning.as_str().unwrap();
        let length = warning.chars().count();
        assert!(length <= 120 && !warning.contains(char::is_control), "{warning}");
        said += length;
    }
    assert!(said <= 4096, "{said} characters of warnings");
    let map = verdict.as_object_mut().unwrap();
    if let Some(patch) = map.remove("patch") {
        let bytes = STANDARD.decode(patch.as_str().unwrap()).unwrap();
        serde_json::from_slice::<json_patch::Patch>(&bytes).unwrap();
    }
    map.retain(|key, _| !["uid", "patchType"].contains(&key.as_str()));
    verdict
}

/// The pod with the patch applied by another library; it must still read as a pod, if it did before.
fn patched(before: &Value, admission: &Admission, folder: &Path) -> Value {
    let typed = serde_json::from_value::<k8s_openapi::api::core::v1::Pod>;
    let mut after = before.clone();
    json_patch::patch(&mut after, &admission.operations)
        .unwrap_or_else(|error| panic!("{}: the patch does not apply: {error}", folder.display()));
    if typed(before.clone()).is_ok() {
        typed(after.clone())
            .unwrap_or_else(|error| panic!("{}: no pod comes out: {error}", folder.display()));
    }
    after
}

fn yaml(value: &Value) -> String {
    serde_saphyr::to_string(value).unwrap()
}
