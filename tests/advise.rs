#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on says where and stops"
)]
//! What `/advise` says of workloads: one file a case in `tests/golden/advice`, a closed set. What comes
//! out is in the file of the same name ending in `.txt`; `DEVGRANT_REFRESH_GOLDEN=1 cargo test --test
//! advise` writes it again, and the difference is for review.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use devgrant::decision::{Namespace, PolicySet, Review, Settings, advise};
use devgrant::policies::{self, Location};
use serde::Deserialize;
use serde_json::{Value, json};

/// The least number of cases: a file that got lost is noticed.
const AT_LEAST: usize = 55;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Case {
    /// What the case shows. Required, so that each case has a reason to be.
    description: String,
    #[serde(default = "create")]
    operation: String,
    #[serde(default)]
    sub_resource: String,
    /// The labels of the namespace beside the one that opts it in; `null`: it is not known.
    #[serde(default = "no_labels")]
    labels: Option<BTreeMap<String, String>>,
    /// Whether the namespace has not opted in.
    #[serde(default)]
    opted_out: bool,
    /// A folder of `tests/golden/policies`; without it, the shipped policies.
    policies: Option<String>,
    /// The extended resources that nodes offer; without it, they are not watched.
    offered: Option<BTreeSet<String>>,
    /// What is created, or what the object is now.
    object: Value,
    /// A JSON merge patch that makes `object` what it was before.
    before: Option<Value>,
}

fn create() -> String {
    "CREATE".to_owned()
}

#[expect(clippy::unnecessary_wraps, reason = "serde wants the type of the field")]
fn no_labels() -> Option<BTreeMap<String, String>> {
    Some(BTreeMap::new())
}

#[test]
fn every_case_says_what_its_file_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/advice");
    let refresh = std::env::var_os("DEVGRANT_REFRESH_GOLDEN").is_some();
    let mut names: Vec<_> =
        fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    let mut failures = Vec::new();
    let mut count = 0;
    for path in &names {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        match name.rsplit_once('.').unwrap() {
            (_, "yaml") => count += 1,
            (stem, "txt") if folder.join(format!("{stem}.yaml")).exists() => continue,
            _ => panic!("stray file {name}"),
        }
        let said = said(&fs::read_to_string(path).unwrap(), &name);
        let file = path.with_extension("txt");
        if refresh {
            fs::write(&file, said).unwrap();
        } else if fs::read_to_string(&file).unwrap_or_default() != said {
            failures.push(format!("{name} differs; now:\n{said}"));
        }
    }
    assert!(failures.is_empty(), "{} failures\n{}", failures.len(), failures.join("\n"));
    assert!(count >= AT_LEAST, "{count} cases, at least {AT_LEAST} were there once");
}

/// The reason, and what the person at `kubectl apply` reads.
fn said(text: &str, name: &str) -> String {
    let case: Case = serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert!(!case.description.is_empty(), "{name}: say what the case shows");
    let location = match &case.policies {
        Some(set) => {
            let root = Path::new(env!("CARGO_MANIFEST_DIR"));
            let paths = vec![root.join("tests/golden/policies").join(set)];
            Location::Folders { paths, allow_empty: false }
        }
        None => Location::Shipped,
    };
    let sources = policies::read(&location).unwrap();
    let policies = PolicySet::compile(&sources, Settings::default()).unwrap();
    let namespace = case.labels.as_ref().map(|labels| {
        let mut labels = labels.clone();
        if !case.opted_out {
            labels.insert("devices.example/grant".to_owned(), "enabled".to_owned());
        }
        Namespace { name: "team".to_owned(), labels }
    });
    let review = review(&case);
    let bytes = serde_json::to_vec(&review).unwrap();
    let review_read = Review::decode(&bytes).unwrap();
    let advice = match advise(&review_read, &policies, namespace.as_ref(), case.offered.as_ref()) {
        Ok(advice) => advice,
        Err(undecided) => return format!("undecided: {undecided}\n"),
    };
    let answer: Value = serde_json::from_slice(&advice.to_bytes()).unwrap();
    let response = answer["response"].as_object().unwrap();
    assert_eq!(response["allowed"], true, "{name}");
    assert_eq!(response["uid"], review["request"]["uid"], "{name}");
    let known = ["allowed", "auditAnnotations", "uid", "warnings"];
    assert!(response.keys().all(|key| known.contains(&key.as_str())), "{name}: {response:?}");
    let mut said = format!("{}\n", response["auditAnnotations"]["reason"].as_str().unwrap());
    let mut total = 0;
    for warning in response.get("warnings").and_then(Value::as_array).into_iter().flatten() {
        let warning = warning.as_str().unwrap();
        let length = warning.chars().count();
        assert!(length <= 120 && !warning.contains(char::is_control), "{name}: {warning}");
        total += length;
        said.push_str(warning);
        said.push('\n');
    }
    assert!(total <= 4096, "{name}: {total} characters of warnings");
    said
}

fn review(case: &Case) -> Value {
    let before = case.before.as_ref().map(|patch| {
        let mut before = case.object.clone();
        json_patch::merge(&mut before, patch);
        before
    });
    let (group, version) =
        case.object["apiVersion"].as_str().unwrap().rsplit_once('/').unwrap_or(("", "v1"));
    json!({
        "kind": "AdmissionReview",
        "apiVersion": "admission.k8s.io/v1",
        "request": {
            "uid": "00000000-0000-0000-0000-000000000001",
            "kind": { "group": group, "version": version, "kind": case.object["kind"] },
            "subResource": case.sub_resource,
            "name": case.object["metadata"]["name"],
            "namespace": "team",
            "operation": case.operation,
            "userInfo": { "username": "kubernetes-admin" },
            "object": case.object,
            "oldObject": before,
            "dryRun": false,
        },
    })
}

/// Whoever reaches the port may send anything: what nobody writes by hand is let through without a word,
/// before much is made of it.
#[test]
fn what_is_too_much_is_let_through_without_a_word() {
    let advised = |keys: usize, templates: usize, place: usize, padding: usize| {
        let annotations: BTreeMap<String, &str> =
            (0..keys).map(|index| (format!("devices.example/a{index}"), "")).collect();
        let template = json!({ "spec": { "containers": [{ "name": "c" }] } });
        let object = json!({
            "apiVersion": "example.com/v1",
            "kind": "Many",
            "metadata": { "name": "many", "annotations": annotations },
            "spec": { "t".repeat(place): vec![template; templates], "padding": " ".repeat(padding) },
        });
        let review = json!({
            "apiVersion": "admission.k8s.io/v1",
            "kind": "AdmissionReview",
            "request": { "uid": "u", "operation": "CREATE", "namespace": "team", "object": object },
        });
        let bytes = serde_json::to_vec(&review).unwrap();
        let labels = BTreeMap::from([("devices.example/grant".into(), "enabled".into())]);
        let namespace = Namespace { name: "team".to_owned(), labels };
        let set = PolicySet::compile(&policies::shipped(), Settings::default()).unwrap();
        let review = Review::decode(&bytes).unwrap();
        let admission = advise(&review, &set, Some(&namespace), None).unwrap();
        assert!(admission.allowed);
        !admission.warnings.is_empty()
    };
    assert!(advised(256, 64, 1000, 0));
    assert!(!advised(257, 1, 1, 0));
    assert!(!advised(1, 65, 1, 0));
    assert!(!advised(1, 1, 1024, 0));
    assert!(!advised(1, 1, 1, 256 * 1024));
}
