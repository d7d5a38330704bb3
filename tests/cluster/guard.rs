//! The guard: the API server itself refuses pods that ask and were not granted, and none that were.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::control_plane::{ControlPlane, Plane};
use crate::golden_case::{Case, read_case, review, sorted};
use crate::manifests::{Applied, pod};
use crate::trial;

/// The least number of golden cases that the guard is tried with.
const AT_LEAST: usize = 500;
/// What the API server says when the guard refuses.
const REFUSED: &str = "ValidatingAdmissionPolicy";

pub(crate) fn trials(plane: &Plane) -> Vec<Trial> {
    let by_flags = admitted();
    let count: usize = by_flags.values().map(Vec::len).sum();
    assert!(count >= AT_LEAST, "{count} cases, at least {AT_LEAST} were there");
    let mut trials: Vec<Trial> = by_flags
        .into_iter()
        .map(|(flags, folders)| {
            let name = format!("guard::lets_through_what_is_admitted {}", flags.join(" "));
            trial(name, plane, move |plane| lets_through(plane, &flags, &folders))
        })
        .collect();
    trials.push(trial("guard::refuses_what_was_not_granted", plane, |plane| refuses(plane)));
    trials.push(trial("guard::can_be_afforded", plane, |plane| can_be_afforded(plane)));
    trials
}

/// The golden cases whose pods the webhook admits, by the flags of `devgrant manifests` for the guard.
pub(crate) fn admitted() -> BTreeMap<Vec<String>, Vec<PathBuf>> {
    let mut by_flags: BTreeMap<Vec<String>, Vec<PathBuf>> = BTreeMap::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/cases");
    for folder in sorted(&root) {
        let case = read_case(&folder);
        if is_admitted(&case, &folder) {
            by_flags.entry(flags(&case)).or_default().push(folder);
        }
    }
    by_flags
}

/// Whether the webhook admits the pod of a case, in a namespace where the guard is in force.
fn is_admitted(case: &Case, folder: &Path) -> bool {
    let prefix = case.prefix.as_deref().unwrap_or("devices.example");
    let label = format!("{prefix}/grant");
    let verdict = fs::read_to_string(folder.join("verdict.yaml")).unwrap();
    let verdict: Value = serde_saphyr::from_str(&verdict).unwrap();
    // Only the creation of a pod is anybody's business; a fixture may be of something else.
    let review = review(case, folder);
    let request = &review["request"];
    let is_creation = request["operation"] == "CREATE"
        && request["kind"]["kind"] == "Pod"
        && request["subResource"].as_str().is_none_or(str::is_empty);
    let opted_in = case.namespace.as_ref().and_then(|namespace| namespace.labels.get(&label));
    is_creation
        && verdict["allowed"] == true
        && case.request.is_none()
        && case.own_namespace.is_none()
        && opted_in.is_some_and(|value| value == "enabled")
}

fn flags(case: &Case) -> Vec<String> {
    let mut flags = Vec::new();
    if let Some(set) = &case.policies {
        flags.push(format!("--policies=tests/golden/policies/{set}"));
    }
    flags.extend(case.prefix.as_ref().map(|prefix| format!("--prefix={prefix}")));
    flags.extend(case.on_invalid.map(|on_invalid| format!("--on-invalid={on_invalid:?}")));
    flags
}

/// The guard for some flags, in force.
fn guard(plane: &ControlPlane, flags: &[String]) -> Applied {
    let prefix = flags.iter().find_map(|flag| flag.strip_prefix("--prefix="));
    let prefix = prefix.unwrap_or("devices.example");
    // Whatever the policies: a stamp and nothing asked for.
    let probe = pod(&json!({ format!("{prefix}/granted"): "x" }), &json!({}));
    let only = ["--only=guard".to_owned()];
    Applied::new(plane, &[&only, flags].concat(), &probe, REFUSED)
}

/// Every golden pod as the webhook leaves it: what is invalid anyway is none of the guard's business.
fn lets_through(plane: &ControlPlane, flags: &[String], folders: &[PathBuf]) {
    let guard = guard(plane, flags);
    let digest = digest(&guard);
    let mut created = 0;
    for folder in folders {
        let review = review(&read_case(folder), folder);
        let object = match fs::read_to_string(folder.join("after.yaml")) {
            Ok(text) => serde_saphyr::from_str(&text.replace("sha256:<digest>", &digest)).unwrap(),
            Err(_) => review["request"]["object"].clone(),
        };
        let pod = creatable(object);
        if let Some(class) =
            pod["spec"]["runtimeClassName"].as_str().filter(|name| !name.is_empty())
        {
            plane.runtime_class(class);
        }
        let answer = guard.create(plane, &pod, &as_user(&review));
        let words = answer.message();
        assert!(!words.contains(REFUSED), "{}: {words}", folder.display());
        created += usize::from(answer.status == 201);
    }
    assert!(created > 0, "not one of {} could be created", folders.len());
}

fn refuses(plane: &ControlPlane) {
    let guard = guard(plane, &[]);
    let digest = digest(&guard);
    let asks = |device: &str, value: &str| json!({ format!("devices.example/{device}"): value });
    let fuse = || asks("fuse", "true");
    let stamped = |asked: Value, stamp: &str| {
        let mut annotations = asked;
        annotations["devices.example/granted"] = json!(stamp.replace("<digest>", &digest));
        annotations
    };
    let ours = r#"{"policyDigest":"<digest>","grants":[{"device":"fuse"}]}"#;
    let theirs = r#"{"policyDigest":"sha256:0","grants":[{"device":"fuse"}]}"#;
    let silent = r#"{"policyDigest":"<digest>","grants":[{"device":"tun"}]}"#;
    let limited = |amount: &str| json!({ "limits": { "smarter-devices/fuse": amount } });
    let container = |amount| json!([{ "name": "d", "image": "x", "resources": limited(amount) }]);
    let nothing = json!({});
    let lacks =
        |device: &str| format!("devgrant: the pod was not granted {device}, which it asks for");
    let forged = "and this one names nothing that the pod asks for; take it out".to_owned();
    let fine = String::new();
    for (annotations, spec, words) in [
        (nothing.clone(), nothing.clone(), fine.clone()),
        (Value::Null, json!({ "initContainers": null, "os": null }), fine.clone()),
        (fuse(), nothing.clone(), lacks("fuse")),
        (
            json!({ "devices.example/fuse": "1", "devices.example/gpu": "h100:2" }),
            nothing.clone(),
            lacks("fuse, gpu"),
        ),
        (asks("fuse", "false"), nothing.clone(), fine.clone()),
        // By itself, in whichever container.
        (fuse(), json!({ "containers": container("1") }), fine.clone()),
        (fuse(), json!({ "initContainers": container("1") }), fine.clone()),
        (fuse(), json!({ "containers": container("0") }), lacks("fuse")),
        (
            fuse(),
            json!({ "containers": [{ "name": "c", "image": "x", "securityContext": { "privileged": true } }] }),
            fine.clone(),
        ),
        // Stamps.
        (stamped(json!({}), ours), nothing.clone(), forged.clone()),
        (stamped(fuse(), "yes"), nothing.clone(), lacks("fuse")),
        (stamped(fuse(), ours), nothing.clone(), lacks("fuse")),
        (stamped(fuse(), theirs), nothing.clone(), fine.clone()),
        (stamped(fuse(), silent), json!({ "containers": container("1") }), forged.clone()),
        // A mode that leaves nothing to be seen.
        (stamped(asks("tun", "mknod"), silent), nothing.clone(), fine.clone()),
        (asks("tun", "mknod"), nothing.clone(), lacks("tun")),
        // Who may be admitted without a grant.
        (fuse(), json!({ "os": { "name": "windows" } }), fine.clone()),
    ] {
        let answer = guard.create(plane, &pod(&annotations, &spec), &[]);
        let message = answer.message();
        if words.is_empty() {
            assert_eq!(answer.status, 201, "{annotations} {spec}: {message}");
        } else {
            assert_eq!(answer.status, 403, "{annotations} {spec}: {message}");
            assert!(
                message.contains(&words),
                "{annotations} {spec}: {message}\nshould say: {words}"
            );
        }
    }
}

/// The API server refuses what costs too much to evaluate, and then every pod that asks.
fn can_be_afforded(plane: &ControlPlane) {
    let guard = guard(plane, &[]);
    let devices: Vec<String> = devgrant::policies::shipped()
        .iter()
        .map(|policy| policy.file.trim_end_matches(".yaml").to_owned())
        .collect();
    let asked: Value = devices
        .iter()
        .map(|device| (format!("devices.example/{device}"), json!("true")))
        .collect::<serde_json::Map<_, _>>()
        .into();
    let limits: serde_json::Map<String, Value> =
        (0..20).map(|index| (format!("vendor.example/r{index}"), json!("1"))).collect();
    let containers: Vec<Value> = (0..50)
        .map(|index| {
            json!({ "name": format!("c{index}"), "image": "x", "resources": { "limits": limits } })
        })
        .collect();
    let answer = guard.create(plane, &pod(&asked, &json!({ "containers": containers })), &[]);
    let message = answer.message();
    assert!(message.contains(&devices.join(", ")), "{message}");
}

/// The digest of the policies that the guard was made from.
fn digest(guard: &Applied) -> String {
    let text = guard.objects[0].to_string();
    let from = text.find("sha256:").unwrap();
    text[from..from + "sha256:".len() + 64].to_owned()
}

/// A pod as a user sends it.
fn creatable(mut pod: Value) -> Value {
    if let Some(metadata) = pod["metadata"].as_object_mut() {
        let given = ["namespace", "uid", "creationTimestamp", "resourceVersion", "managedFields"];
        metadata.retain(|key, _| !given.contains(&key.as_str()) && key != "generateName");
        metadata.insert("name".to_owned(), json!("p"));
    }
    pod
}

/// Headers that make the API server take us for the user of a review, who may do anything.
fn as_user(review: &Value) -> Vec<(&str, &str)> {
    match review["request"]["userInfo"]["username"].as_str().unwrap() {
        "kubernetes-admin" => Vec::new(),
        name => vec![("impersonate-user", name), ("impersonate-group", "system:masters")],
    }
}
