//! The pods that an object would make, and the review of each.
//!
//! For the command line, which reads manifests, and for [`advise`](super::advise), which reads the
//! workloads that somebody applies.

mod argo;
pub mod misplaced;

use json_patch::jsonptr::{Pointer, PointerBuf};
use serde_json::{Map, Value, json};

use super::review::{API_VERSION, KIND};

/// The uid of every review that is made here: fixed, so that the same files give the same bytes.
const UID: &str = "00000000-0000-0000-0000-000000000000";

/// An object of a document: the document itself, or one of the list that it is.
#[derive(Debug, Clone)]
pub struct Object {
    /// Where the object is inside the document.
    pub at: PointerBuf,
    /// The object, with its kind.
    pub value: Value,
    /// The pods that it would make.
    pub pods: Vec<FoundPod>,
}

/// A pod as it would be made, and where it came from.
#[derive(Debug, Clone)]
pub struct FoundPod {
    /// The object that makes the pod; the pod itself, if it is one.
    pub owner: Owner,
    /// Where the pod, or its template, is inside the document.
    pub template: PointerBuf,
    /// The pod, with `apiVersion` and `kind`.
    pub pod: Value,
    /// Where the parts of the pod are inside the document.
    pub places: Vec<Place>,
}

/// What names an object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Owner {
    /// `apiVersion`, or nothing.
    pub api_version: String,
    /// `kind`.
    pub kind: String,
    /// `metadata.namespace`, if there is one.
    pub namespace: Option<String>,
    /// `metadata.name`, or else `metadata.generateName`, or nothing; of a review, those of its pod.
    pub name: String,
}

/// A part of the pod, and where it is inside the document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The part of the pod; everything below it is in the same place.
    pub pod: PointerBuf,
    /// The place in the document.
    pub document: PointerBuf,
}

/// An object that should hold a pod and does not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoPod {
    /// The document is a scalar or a list.
    #[error("is {0}, and no Kubernetes object; write apiVersion, kind, metadata and spec")]
    NotObject(&'static str),
    /// The document has no `kind`.
    #[error("has no `kind`, so it is no Kubernetes object")]
    NoKind,
    /// A part that the kind must have is missing.
    #[error("is no {kind}: `{pointer}` is missing")]
    Missing {
        /// The kind.
        kind: String,
        /// Where the part should be.
        pointer: String,
    },
    /// A part that the kind must have is something else.
    #[error("is no {kind}: `{pointer}` is {found} where {expected} belongs")]
    Wrong {
        /// The kind.
        kind: String,
        /// Where the part is.
        pointer: String,
        /// What it is.
        found: &'static str,
        /// What it should be.
        expected: &'static str,
    },
}

impl Owner {
    /// What names this object.
    pub fn of(object: &Value) -> Self {
        let text = |pointer| {
            object.pointer(pointer).and_then(Value::as_str).filter(|text| !text.is_empty())
        };
        // The pod of a review belongs to the review: its namespace is there.
        if text("/kind") == Some(KIND) {
            let pod = object.pointer("/request/object").map(Self::of).unwrap_or_default();
            return Self {
                api_version: text("/apiVersion").unwrap_or_default().to_owned(),
                kind: KIND.to_owned(),
                namespace: text("/request/namespace").map(str::to_owned),
                name: pod.name,
            };
        }
        let name = text("/metadata/name").or_else(|| text("/metadata/generateName"));
        Self {
            api_version: text("/apiVersion").unwrap_or_default().to_owned(),
            kind: text("/kind").unwrap_or_default().to_owned(),
            namespace: text("/metadata/namespace").map(str::to_owned),
            name: name.unwrap_or_default().to_owned(),
        }
    }
}

impl std::fmt::Display for Owner {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = if self.name.is_empty() { "(no name)" } else { &self.name };
        // A manifest from somewhere may hold escapes that a terminal would obey.
        write!(formatter, "{}/{}", self.kind.escape_debug(), name.escape_debug())
    }
}

/// What is no object with pods, and where in the document it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unread {
    /// Where in the document: the root, or an item of a list.
    pub at: PointerBuf,
    /// What names it, if it has a kind.
    pub owner: Option<Owner>,
    /// What is wrong with it.
    pub problem: NoPod,
}

impl Unread {
    /// Whether it is a document of its own and no item of a list.
    pub fn is_document(&self) -> bool {
        self.at.is_root()
    }

    /// Whether it is a document of something else: values of a chart, a kustomization.
    pub fn is_foreign(&self) -> bool {
        self.is_document() && matches!(self.problem, NoPod::NoKind | NoPod::NotObject(_))
    }
}

/// What follows the name of a document in a sentence.
impl std::fmt::Display for Unread {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { at, owner, problem } = self;
        if self.is_document() {
            return write!(formatter, "{problem}");
        }
        let item = at.as_str().trim_start_matches('/');
        match owner {
            Some(owner) => write!(formatter, "holds `{item}` ({owner}), which {problem}"),
            None => write!(formatter, "holds `{item}`, which {problem}"),
        }
    }
}

impl std::error::Error for Unread {}

/// The built-in kinds, and where each has the template of its pods.
const BUILT_IN: &[(&str, &str)] = &[
    ("CronJob", "/spec/jobTemplate/spec/template"),
    ("DaemonSet", "/spec/template"),
    ("Deployment", "/spec/template"),
    ("Job", "/spec/template"),
    ("Pod", ""),
    ("PodTemplate", "/template"),
    ("ReplicaSet", "/spec/template"),
    ("ReplicationController", "/spec/template"),
    ("StatefulSet", "/spec/template"),
];

/// The objects of a document, each with the pods that it would make; the error is the first that cannot
/// be read. Only an empty list has none.
pub fn objects(document: &Value) -> Result<Vec<Object>, Box<Unread>> {
    let (objects, unread) = readable(document);
    unread.into_iter().next().map_or(Ok(objects), |first| Err(Box::new(first)))
}

/// The objects of a document that can be read, and the others.
pub fn readable(document: &Value) -> (Vec<Object>, Vec<Unread>) {
    let (mut objects, mut unread) = (Vec::new(), Vec::new());
    objects_of(document, PointerBuf::root(), &mut objects, &mut unread);
    (objects, unread)
}

/// A document as one object, with no more of its pods than one above `most`: what is above it is for the
/// caller to see, and not to be made, since every pod has a copy of what its owner says for all.
pub(super) fn object(document: Value, most: usize) -> Option<Object> {
    let owner = Owner::of(&document);
    let is_list =
        owner.kind.ends_with("List") && document.get("items").is_some_and(Value::is_array);
    if owner.kind.is_empty() || is_list {
        return None;
    }
    let at = PointerBuf::root();
    let pods = pods_of(&document, owner, &at, most).ok()?;
    Some(Object { at, value: document, pods })
}

/// The review that the API server would send when the pod is created, by `user` if that is known.
///
/// The pod stays as the person wrote it. The API server would fill in defaults first, and copy limits to
/// requests; a patch of a pod so filled in would not fit the file, and would show the person lines that
/// nobody wrote. The decision takes what is missing for its default, so the answer is the same.
pub fn review(pod: &Value, namespace: &str, user: Option<&str>) -> Value {
    let kind = json!({ "group": "", "version": "v1", "kind": "Pod" });
    let resource = json!({ "group": "", "version": "v1", "resource": "pods" });
    let mut creator = Map::new();
    if let Some(name) = user {
        creator.insert("username".to_owned(), json!(name));
    }
    json!({
        "apiVersion": API_VERSION,
        "kind": KIND,
        "request": {
            "uid": UID,
            "kind": kind,
            "resource": resource,
            "requestKind": kind,
            "requestResource": resource,
            "name": pod.pointer("/metadata/name").cloned().unwrap_or_else(|| json!("")),
            "namespace": namespace,
            "operation": "CREATE",
            "userInfo": creator,
            "object": pod,
            "oldObject": null,
            "dryRun": false,
            "options": { "apiVersion": "meta.k8s.io/v1", "kind": "CreateOptions" },
        },
    })
}

fn objects_of(value: &Value, at: PointerBuf, objects: &mut Vec<Object>, unread: &mut Vec<Unread>) {
    let Value::Object(fields) = value else {
        unread.push(Unread { at, owner: None, problem: NoPod::NotObject(type_of(value)) });
        return;
    };
    let owner = Owner::of(value);
    if owner.kind.is_empty() {
        unread.push(Unread { at, owner: None, problem: NoPod::NoKind });
        return;
    }
    if let (true, Some(Value::Array(items))) = (owner.kind.ends_with("List"), fields.get("items")) {
        for (index, item) in items.iter().enumerate() {
            let at = at.with_trailing_token("items").with_trailing_token(index.to_string());
            // The items of a typed list need not repeat their kind.
            let item = with_kind(item, &owner);
            objects_of(&item, at, objects, unread);
        }
        return;
    }
    match pods_of(value, owner.clone(), &at, usize::MAX) {
        Ok(pods) => objects.push(Object { at, value: value.clone(), pods }),
        Err(problem) => unread.push(Unread { at, owner: Some(owner), problem }),
    }
}

/// The pods of an object; of those, no more than one above `most`.
fn pods_of(
    object: &Value,
    owner: Owner,
    at: &Pointer,
    most: usize,
) -> Result<Vec<FoundPod>, NoPod> {
    if owner.kind == KIND {
        let pod = object.pointer("/request/object").cloned().unwrap_or_default();
        let template = at.concat(Pointer::from_static("/request/object"));
        return Ok(vec![FoundPod { owner, places: vec![Place::all(&template)], template, pod }]);
    }
    let built_in = BUILT_IN.iter().find(|(kind, _)| *kind == owner.kind);
    if let Some((_, pointer)) = built_in.filter(|_| is_built_in(&owner.api_version)) {
        check_template(object, &owner.kind, pointer)?;
    }
    let mut pods = Vec::new();
    argo::pods(object, &owner, at, most, &mut pods);
    let templates = Templates { owner: &owner, most };
    templates.add(object, &mut at.to_buf(), 0, &mut pods);
    Ok(pods)
}

/// The search for templates in an object.
struct Templates<'a> {
    owner: &'a Owner,
    most: usize,
}

impl Templates<'_> {
    /// Adds every template below a value. Custom kinds keep them wherever they like: in one field, in a
    /// list, under the name of a role. The place is one text for all of them: a key may be long, and have
    /// thousands of items below it.
    fn add(&self, value: &Value, at: &mut PointerBuf, depth: usize, pods: &mut Vec<FoundPod>) {
        if pods.len() > self.most {
            return;
        }
        match value {
            Value::Object(_) if is_template(value) => {
                pods.push(found(value, self.owner, at.clone()));
            }
            Value::Object(fields) => {
                // What an object is now says nothing about what it makes.
                let is_foreign = |key: &str| depth == 0 && (key == "status" || key == "metadata");
                for (key, field) in fields.iter().filter(|(key, _)| !is_foreign(key)) {
                    at.push_back(key.as_str());
                    self.add(field, at, depth + 1, pods);
                    at.pop_back();
                }
            }
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    at.push_back(index);
                    self.add(item, at, depth + 1, pods);
                    at.pop_back();
                }
            }
            _ => {}
        }
    }
}

fn is_template(value: &Value) -> bool {
    let containers = value.pointer("/spec/containers").and_then(Value::as_array);
    containers
        .is_some_and(|containers| !containers.is_empty() && containers.iter().all(Value::is_object))
}

fn found(template: &Value, owner: &Owner, at: PointerBuf) -> FoundPod {
    let pod = if owner.kind == "Pod" { template.clone() } else { made(template, owner) };
    FoundPod { owner: owner.clone(), places: vec![Place::all(&at)], template: at, pod }
}

/// The pod that a controller makes of a template.
fn made(template: &Value, owner: &Owner) -> Value {
    let mut metadata =
        template.get("metadata").and_then(Value::as_object).cloned().unwrap_or_default();
    name_as_controllers_do(&mut metadata, owner);
    let spec = template.get("spec").cloned().unwrap_or_default();
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec })
}

/// Controllers name their pods after themselves and not after the template (`kubernetes
/// pkg/controller/controller_utils.go`, `GetPodFromTemplate`).
fn name_as_controllers_do(metadata: &mut Map<String, Value>, owner: &Owner) {
    metadata.shift_remove("name");
    if !owner.name.is_empty() {
        // A name that is generated itself already ends in the hyphen.
        let name = owner.name.trim_end_matches('-');
        metadata.insert("generateName".to_owned(), json!(format!("{name}-")));
    }
}

impl Place {
    /// The whole pod is at this place.
    fn all(at: &Pointer) -> Self {
        Self { pod: PointerBuf::root(), document: at.to_buf() }
    }
}

fn with_kind(item: &Value, list: &Owner) -> Value {
    let mut item = item.clone();
    let kind = list.kind.strip_suffix("List").filter(|kind| !kind.is_empty());
    if let (Some(fields), Some(kind)) = (item.as_object_mut(), kind)
        && !fields.contains_key("kind")
    {
        fields.insert("kind".to_owned(), json!(kind));
        fields.insert("apiVersion".to_owned(), json!(list.api_version));
    }
    item
}

/// Whether a kind of this name is the built-in one: `serving.knative.dev` and others have their own
/// `Service`, `Job`, and so on.
fn is_built_in(api_version: &str) -> bool {
    matches!(api_version, "" | "v1")
        || ["apps/", "batch/", "extensions/"].iter().any(|group| api_version.starts_with(group))
}

fn check_template(object: &Value, kind: &str, template: &str) -> Result<(), NoPod> {
    let spec = format!("{template}/spec");
    let containers = format!("{spec}/containers");
    let wrong = |pointer: &str, found: &Value, expected| {
        Err(NoPod::Wrong {
            kind: kind.to_owned(),
            pointer: pointer.to_owned(),
            found: type_of(found),
            expected,
        })
    };
    for pointer in [spec.as_str(), containers.as_str()] {
        match object.pointer(pointer) {
            None => {
                return Err(NoPod::Missing { kind: kind.to_owned(), pointer: pointer.to_owned() });
            }
            Some(found) if pointer == spec && !found.is_object() => {
                return wrong(pointer, found, "a mapping");
            }
            Some(_) if pointer == spec => {}
            Some(Value::Array(items)) if items.is_empty() => {
                return Err(NoPod::Wrong {
                    kind: kind.to_owned(),
                    pointer: pointer.to_owned(),
                    found: "an empty list",
                    expected: "at least one container",
                });
            }
            Some(Value::Array(items)) => {
                let other = items.iter().enumerate().find(|(_, item)| !item.is_object());
                if let Some((index, item)) = other {
                    let pointer = format!("{pointer}/{index}");
                    return wrong(&pointer, item, "a container, a mapping,");
                }
            }
            Some(found) => return wrong(pointer, found, "a list of containers"),
        }
    }
    Ok(())
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "a mapping",
    }
}

#[cfg(test)]
mod tests;
