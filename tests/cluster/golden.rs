//! Every golden case that an API server can be asked: the pod that is stored is the golden one.
//!
//! The API server fills in defaults and lets its own plugins change the pod, so that the pod of a case
//! is created twice: as the user wrote it, where the webhook is asked, and as the golden says it comes
//! out, where it is not. Both must come to the same: the same object, or the same refusal.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::api::Answer;
use crate::control_plane::{ControlPlane, Plane};
use crate::golden_case::{Case, read_case, review, sorted};
use crate::webhook::{Options, WEBHOOK};
use crate::{same_text, trial};

/// The least number of cases that are judged: a rule that leaves out too many is noticed.
const AT_LEAST: usize = 600;

/// Cases that no API server can be made to ask, and why.
const IMPOSSIBLE: &[(&str, &str)] = &[
    (
        "foresee-dg005-empty-value",
        "no such namespace: 422, must be one of privileged, baseline, restricted",
    ),
    ("foresee-dg005-unknown-value", "no such namespace: the same"),
    ("foresee-dg006-not-unknown-value", "no such namespace: the same"),
    ("skip-no-spec", "a pod without a spec is sent as `spec: {containers: null}`"),
];

/// Cases whose pod is refused before the webhook is asked, and in what words.
const REFUSED_BEFORE: &[(&str, &str)] = &[
    ("runtime-class-empty", "resource name may not be empty"),
    (
        "shape-amount-unreadable",
        "Pod in version \"v1\" cannot be handled as a Pod: quantities must match the regular expression",
    ),
];

pub(crate) fn trials(plane: &Plane) -> Vec<Trial> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/cases");
    let rooms = Rooms::default();
    let mut trials = Vec::new();
    for folder in sorted(&root) {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let case = read_case(&folder);
        let review = review(&case, &folder);
        if IMPOSSIBLE.iter().any(|(impossible, _)| *impossible == name)
            || !can_be_asked(&case, &review)
        {
            continue;
        }
        let rooms = Arc::clone(&rooms);
        trials.push(trial(format!("golden::{name}"), plane, move |plane| {
            judge(plane, &rooms, &case, &review, &folder);
        }));
    }
    assert!(trials.len() >= AT_LEAST, "{} cases, at least {AT_LEAST} were there", trials.len());
    trials
}

/// Whether the registration sends such a review: the creation of a pod, in a known namespace that takes
/// part and is nobody's own.
fn can_be_asked(case: &Case, review: &Value) -> bool {
    let request = &review["request"];
    let prefix = case.prefix.as_deref().unwrap_or("devices.example");
    let Some(namespace) = &case.namespace else { return false };
    case.request.is_none()
        && namespace.labels.get(&format!("{prefix}/grant")).is_some_and(|value| value == "enabled")
        && request["operation"] == "CREATE"
        && request["kind"]["kind"] == "Pod"
        && request["subResource"].as_str().unwrap_or_default().is_empty()
}

/// Namespaces by the webhook of a case, made by the first trial that needs them.
type Rooms = Arc<Mutex<BTreeMap<Options, Arc<OnceLock<Room>>>>>;

/// Two namespaces with the labels of a case: in one the webhook is asked, in the other it is not.
struct Room {
    asked: String,
    plain: String,
}

fn judge(plane: &ControlPlane, rooms: &Rooms, case: &Case, review: &Value, folder: &Path) {
    let room = Arc::clone(rooms.lock().unwrap().entry(options(case)).or_default());
    let room = room.get_or_init(|| {
        let options = options(case);
        Room {
            asked: plane.webhook(&options).namespace(plane),
            plain: plane.namespace(&without(&options.labels, &options.prefix)),
        }
    });
    let name = format!("p{}", plane.serial());
    let before = creatable(&review["request"]["object"], &name);
    let after = match fs::read_to_string(folder.join("after.yaml")) {
        Ok(text) => creatable(&serde_saphyr::from_str(&text).unwrap(), &name),
        Err(_) => before.clone(),
    };
    if let Some(class) = after["spec"]["runtimeClassName"].as_str() {
        plane.runtime_class(class);
    }
    let before_us = REFUSED_BEFORE.iter().find(|(name, _)| folder.ends_with(name));
    let verdict: Value =
        serde_saphyr::from_str(&fs::read_to_string(folder.join("verdict.yaml")).unwrap()).unwrap();
    let create = |namespace: &str, pod: &Value| {
        let path = format!("/api/v1/namespaces/{namespace}/pods");
        plane.call_with("POST", &path, Some(pod), &as_user(review))
    };
    let untouched = |pod: &Value| create(&room.plain, pod);
    let is = create(&room.asked, &before);
    if let Some((_, sentence)) = before_us {
        assert!(is.status >= 400 && is.message().starts_with(sentence), "{}", is.message());
        return;
    }
    if verdict["undecided"].is_string() {
        // No pod for us is no pod for the API server: it does not come to us at all.
        same(case, &is, &untouched(&before), &[]);
        assert_eq!(is.status, 400, "{}", is.message());
        return;
    }
    // As long as the name in the goldens, so that warnings are cut at the same place.
    let here =
        |value: &Value| value.as_str().unwrap().replace("`team`", &format!("`{}`", room.asked));
    let said: Vec<String> =
        verdict["warnings"].as_array().into_iter().flatten().map(here).collect();
    if verdict["allowed"] == false {
        let sentence = here(&verdict["status"]["message"]);
        assert_eq!(
            is.message(),
            format!("admission webhook \"{WEBHOOK}\" denied the request: {sentence}")
        );
        assert_eq!(json!(is.status), verdict["status"]["code"]);
        assert_eq!(is.warnings, said);
        return;
    }
    same(case, &is, &untouched(&after), &said);
    if is.status == 422 {
        // A grant makes no pod invalid: this one was so before.
        let alone = untouched(&before);
        assert_eq!(alone.status, 422, "{}\n{}", is.message(), alone.message());
    }
}

/// Holds that the webhook made of a pod what the golden says, and told the user all that it says.
fn same(case: &Case, is: &Answer, should: &Answer, said: &[String]) {
    let words = [&case.description, is.message(), should.message()];
    assert_eq!(is.status, should.status, "{words:#?}");
    let ours = is.warnings.iter().filter(|warning| said.contains(warning));
    assert!(ours.eq(said), "said {said:#?}\nheard {:#?}", is.warnings);
    let mut heard = is.warnings.clone();
    let mut expected = [said, &should.warnings].concat();
    heard.sort();
    expected.sort();
    assert_eq!(heard, expected);
    same_text(&pretty(&is.body), &pretty(&should.body));
}

/// An object without what differs from creation to creation, for reading.
fn pretty(object: &Value) -> String {
    let mut object = object.clone();
    let namespace = object["metadata"]["namespace"].take();
    if let Some(metadata) = object["metadata"].as_object_mut() {
        let differ = ["namespace", "uid", "creationTimestamp", "resourceVersion", "managedFields"];
        metadata.retain(|key, _| !differ.contains(&key.as_str()));
    }
    let conditions = object.pointer_mut("/status/conditions").and_then(Value::as_array_mut);
    for condition in conditions.into_iter().flatten() {
        condition["lastTransitionTime"].take();
    }
    // A set: whether our own come before or after those that every pod gets is of no interest.
    let tolerations = object.pointer_mut("/spec/tolerations").and_then(Value::as_array_mut);
    if let Some(tolerations) = tolerations {
        tolerations.sort_by_key(Value::to_string);
    }
    let mut text = serde_json::to_string_pretty(&object).unwrap();
    if let Some(namespace) = namespace.as_str() {
        text = text.replace(namespace, "<namespace>");
    }
    without_digest(&text)
}

/// The digest of the policies is of no interest, and replaced in the goldens.
fn without_digest(text: &str) -> String {
    let mut parts = text.split("sha256:");
    let mut plain = parts.next().unwrap().to_owned();
    for part in parts {
        let rest = part.strip_prefix("<digest>");
        let rest =
            rest.unwrap_or_else(|| part.trim_start_matches(|char: char| char.is_ascii_hexdigit()));
        plain.push_str("sha256:<digest>");
        plain.push_str(rest);
    }
    plain
}

/// A pod as a user sends it: without what the API server gives, under a name of its own.
fn creatable(pod: &Value, name: &str) -> Value {
    let mut pod = pod.clone();
    if let Some(metadata) = pod["metadata"].as_object_mut() {
        let given = [
            "namespace",
            "uid",
            "creationTimestamp",
            "resourceVersion",
            "managedFields",
            "generateName",
        ];
        metadata.retain(|key, _| !given.contains(&key.as_str()));
        metadata.insert("name".to_owned(), json!(name));
    }
    pod
}

/// Headers that make the API server take us for the user of a captured review, who may do anything.
fn as_user(review: &Value) -> Vec<(&str, &str)> {
    let user = &review["request"]["userInfo"];
    let name = user["username"].as_str().unwrap();
    if name == "kubernetes-admin" {
        return Vec::new();
    }
    let groups = user["groups"].as_array().into_iter().flatten();
    let groups = groups.map(|group| ("impersonate-group", group.as_str().unwrap()));
    [("impersonate-user", name), ("impersonate-group", "system:masters")]
        .into_iter()
        .chain(groups)
        .collect()
}

/// How the webhook of a case is started.
fn options(case: &Case) -> Options {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/policies");
    let mut flags = Vec::new();
    let mut flag = |name: &str, value: Option<String>| {
        flags.extend(value.into_iter().flat_map(|value| [name.to_owned(), value]));
    };
    flag("--own-namespace", case.own_namespace.clone());
    flag("--on-invalid", case.on_invalid.map(|on_invalid| format!("{on_invalid:?}")));
    let default = Options::default();
    Options {
        policies: case.policies.as_ref().map(|set: &String| -> PathBuf { root.join(set) }),
        prefix: case.prefix.clone().unwrap_or(default.prefix),
        labels: case
            .namespace
            .as_ref()
            .map(|namespace| namespace.labels.clone())
            .unwrap_or_default(),
        flags,
        // A server is told of versions for which nothing can be registered.
        serving: case
            .kubernetes_version
            .iter()
            .map(|version| format!("--kubernetes-version={version}"))
            .collect(),
        mutates: default.mutates,
        failure_policy: default.failure_policy,
    }
}

/// The labels of a namespace that does not take part, otherwise the same.
fn without(labels: &BTreeMap<String, String>, prefix: &str) -> Value {
    let mut labels = labels.clone();
    labels.remove(&format!("{prefix}/grant"));
    json!(labels)
}
