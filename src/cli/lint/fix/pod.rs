//! What is to become of one pod: which asks it gets, and which parts of it go.
//!
//! No rule of the rewrite is here. The asks are put into the pod, the line decides it, and its plan says
//! what goes; a pod of which it says anything else stays as it is.

mod shapes;

use std::collections::BTreeMap;

use json_patch::jsonptr::PointerBuf;
use serde_json::Value;

use super::super::inspect::placed;
use crate::cli::placement::place;
use crate::cli::question::{Question, annotate, review};
use crate::config::Assumed;
use crate::decision::finding::{Code, Finding, Severity};
use crate::decision::foresee::other_use;
use crate::decision::line::pod_of;
use crate::decision::plan::{ContainerGrant, PodGrant};
use crate::decision::pod::{Container, ContainerIndex, Spec};
use crate::decision::review::KIND;
use crate::decision::spelling::excerpt;
use crate::decision::workload::Place;
use crate::decision::{Decision, Plan, PolicySet, Request, Review, Verdict, decide};
use shapes::{Shapes, old_shapes};

/// What is to become of a pod.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Nothing: no container of it has the old shape.
    Fine,
    /// It has the old shape, and nobody can be sure.
    Left(Left),
    /// It is written anew.
    Change(Change),
}

/// Why a pod stays as it is.
#[derive(Debug)]
pub(super) struct Left {
    /// Where, a JSON Pointer in the document.
    pub(super) at: String,
    pub(super) why: String,
}

/// What changes in a manifest.
#[derive(Debug)]
pub(super) struct Change {
    /// What goes, JSON Pointers in the pod: none inside of another, of a list the first item first.
    pub(super) removed: Vec<String>,
    /// The annotations that come.
    pub(super) annotations: BTreeMap<String, String>,
}

/// What is to become of a pod, by these policies.
pub(super) fn outcome(
    question: &Question,
    policies: &PolicySet,
    assumed: &Assumed,
) -> anyhow::Result<Outcome> {
    let shapes = match old_shapes(question, policies) {
        Ok(shapes) if shapes.concerned.is_empty() => return Ok(Outcome::Fine),
        Ok(shapes) => shapes,
        Err(stays) => return Ok(Outcome::Left(stays.left(question))),
    };
    if let Some(why) = no_manifest(question) {
        return Ok(Outcome::Left(Stays::at("", why).left(question)));
    }
    let annotations = &shapes.annotations;
    let own = question.pod.pod.pointer("/metadata/annotations").and_then(Value::as_object);
    if let Some(key) = annotations.keys().find(|key| own.is_some_and(|own| own.contains_key(*key)))
    {
        let why = format!("`{key}` is there and names other containers; change it by hand");
        return Ok(Outcome::Left(Stays::at("/metadata/annotations", why).left(question)));
    }
    let asking = question.with_annotations(annotations, assumed)?;
    let removed = decided(&asking, policies, |decision, spec| {
        removed(decision, spec, &shapes, &question.pod.pod)
    });
    Ok(match removed {
        None => Outcome::Fine,
        Some(Err(stays)) => Outcome::Left(stays.left(question)),
        Some(Ok(removed)) if removed.is_empty() => Outcome::Fine,
        Some(Ok(removed)) => {
            Outcome::Change(Change { removed, annotations: shapes.annotations.clone() })
        }
    })
}

/// Why the pod is not what the file says of it, or not alone; `None` if it is.
fn no_manifest(question: &Question) -> Option<String> {
    if question.pod.owner.kind == KIND {
        return Some("it is in a review of the API server's, which is no manifest".to_owned());
    }
    if question.pod.places.len() != 1 {
        return Some("its pod is put together from several places of the file".to_owned());
    }
    let volumes = question.pod.pod.pointer("/spec/volumes").and_then(Value::as_array);
    let mut paths = volumes
        .into_iter()
        .flatten()
        .filter_map(|volume| volume.pointer("/hostPath/path").and_then(Value::as_str));
    let unknown = paths.find(|path| !path.starts_with('/') || path.contains('$'))?;
    let shown = excerpt(unknown);
    Some(format!("the hostPath `{shown}` is filled in later, and may be another device"))
}

/// The pod as it leaves admission; `None` if it is refused, or is no pod.
pub(super) fn admitted(question: &Question, policies: &PolicySet) -> Option<Value> {
    let operations = decided(question, policies, |decision, _| match &decision.verdict {
        Verdict::Admit(_) => Some(decision.operations.clone()),
        Verdict::Refuse(_) => None,
    })??;
    let mut pod = question.pod.pod.clone();
    let root = PointerBuf::root;
    let whole = [Place { pod: root(), document: root() }];
    let placed = place(&mut pod, &whole, &operations).ok()?;
    placed.homeless.is_empty().then(|| without_empty(pod))
}

impl Change {
    /// The document as it should be, for a pod whose template is at this place.
    pub(super) fn apply(&self, document: &mut Value, template: &str) -> Option<()> {
        // The last one first, so that the places in front stay what they are.
        for path in self.removed.iter().rev() {
            let pointer = format!("{template}{path}");
            let (parent, token) = pointer.rsplit_once('/')?;
            match document.pointer_mut(parent)? {
                Value::Object(fields) => {
                    fields.shift_remove(token)?;
                }
                Value::Array(items) => {
                    items.remove(token.parse().ok()?);
                }
                _ => return None,
            }
        }
        annotate(document.pointer_mut(template)?, &self.annotations)
    }
}

/// Why a pod stays, and at which of its parts.
struct Stays {
    /// A JSON Pointer in the pod.
    path: String,
    why: String,
}

impl Stays {
    fn at(path: impl Into<String>, why: String) -> Self {
        Self { path: path.into(), why }
    }

    fn left(self, question: &Question) -> Left {
        Left { at: placed(&self.path, question), why: self.why }
    }
}

/// What the line takes away, as paths in the pod, or why the pod stays.
fn removed(
    decision: &Decision<'_>,
    spec: &Spec<'_>,
    shapes: &Shapes,
    pod: &Value,
) -> Result<Vec<String>, Stays> {
    let plan = match &decision.verdict {
        Verdict::Admit(plan) => plan,
        Verdict::Refuse(refusal) => {
            let why = refusal.objections().map(|objection| objection.sentence.as_str()).next();
            let why = format!("it would be refused: {}", why.unwrap_or_default());
            return Err(Stays::at("/metadata/annotations", why));
        }
    };
    if let Some(ignored) = decision.ignored.first() {
        let why = format!("an ask of it is ignored: {}", ignored.sentence);
        return Err(Stays::at("/metadata/annotations", why));
    }
    if plan.is_empty() {
        let said =
            decision.warnings.first().map_or("nothing is granted here", |said| said.as_str());
        return Err(Stays::at("/metadata/annotations", said.to_owned()));
    }
    let stands_against = |finding: &&Finding| is_against(finding, &shapes.concerned);
    if let Some(finding) = decision.findings.iter().find(stands_against) {
        return Err(Stays::at(finding.path.clone(), finding.sentence()));
    }
    for at in &shapes.concerned {
        let unmounted = grants_of(plan, *at).iter();
        let mut unmounted = unmounted.filter(|grant| matches!(grant, ContainerGrant::Unmount(_)));
        if unmounted.next().is_none() {
            let why = "its policies leave the old shape as it is".to_owned();
            return Err(Stays::at(path_of(*at), why));
        }
    }
    for at in &shapes.concerned {
        let container = spec.container(*at);
        let alone = container.map_or(Ok(()), |container| is_for_devices_alone(spec, container));
        alone.map_err(|why| Stays::at(path_of(*at), why))?;
    }
    for (device, containers) in &shapes.unasked {
        for (at, name) in containers {
            let numbered = numbered_devices(spec, plan, *at);
            let policy = decision.asks.iter().find(|ask| ask.policy.device() == device);
            let counts = policy.is_some_and(|ask| ask.policy.spec().count.max > 1);
            if counts && numbered > 1 {
                let why = format!(
                    "container `{name}` mounts {numbered} devices with a number, and only you know \
                     how many it needs; ask for `{device}` with a count"
                );
                return Err(Stays::at(path_of(*at), why));
            }
        }
    }
    Ok(paths(plan, pod))
}

/// That nothing says of a privileged container that it is privileged for more than its devices.
fn is_for_devices_alone(spec: &Spec<'_>, container: &Container<'_>) -> Result<(), String> {
    if container.security_context.privileged != Some(true) {
        return Ok(());
    }
    other_use::of_container(spec, container).map_or(Ok(()), |why| {
        Err(format!(
            "container `{}` may be privileged for more than its device: {why}; if it is not, change it \
             by hand",
            container.name
        ))
    })
}

/// Whether a finding is a reason to leave the pod: the old shape stays somewhere, or a container that
/// changes would not work.
fn is_against(finding: &Finding, concerned: &[ContainerIndex]) -> bool {
    if matches!(finding.code, Code::DG022 | Code::DG023) {
        return true;
    }
    let lists = ["/spec/containers/", "/spec/initContainers/", "/spec/ephemeralContainers/"];
    let of_container = lists.iter().any(|list| finding.path.starts_with(list));
    let below = |at: &ContainerIndex| {
        let rest = finding.path.strip_prefix(&path_of(*at));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    finding.severity() == Severity::Error && (!of_container || concerned.iter().any(below))
}

/// How many devices like `/dev/nvidia0` a container loses.
fn numbered_devices(spec: &Spec<'_>, plan: &Plan<'_>, at: ContainerIndex) -> usize {
    let Some(container) = spec.container(at) else { return 0 };
    let unmounted = grants_of(plan, at).iter().filter_map(|grant| match grant {
        ContainerGrant::Unmount(index) => container.volume_mounts.get(*index),
        _ => None,
    });
    // The line takes only what is mounted at its own path.
    unmounted
        .filter(|mount| mount.mount_path.as_str().ends_with(|end: char| end.is_ascii_digit()))
        .count()
}

fn paths(plan: &Plan<'_>, pod: &Value) -> Vec<String> {
    let mut paths = Vec::new();
    for (at, grants) in &plan.containers {
        let container = path_of(*at);
        let mounts = grants.iter().filter_map(|grant| match grant {
            ContainerGrant::Unmount(index) => Some(*index),
            _ => None,
        });
        paths.extend(items(pod, &format!("{container}/volumeMounts"), mounts.collect()));
        if grants.contains(&ContainerGrant::Unprivileged) {
            let context = format!("{container}/securityContext");
            let fields = pod.pointer(&context).and_then(Value::as_object);
            let is_alone = fields.is_some_and(|fields| fields.len() == 1);
            paths.push(if is_alone { context } else { format!("{context}/privileged") });
        }
    }
    let volumes = plan.pod.iter().filter_map(|grant| match grant {
        PodGrant::RemoveVolume(index) => Some(*index),
        _ => None,
    });
    paths.extend(items(pod, "/spec/volumes", volumes.collect()));
    paths
}

/// Items of a list, or the list if these are all.
fn items(pod: &Value, list: &str, mut indices: Vec<usize>) -> Vec<String> {
    indices.sort_unstable();
    let count = pod.pointer(list).and_then(Value::as_array).map_or(0, Vec::len);
    if count > 0 && indices.len() == count {
        return vec![list.to_owned()];
    }
    indices.into_iter().map(|index| format!("{list}/{index}")).collect()
}

fn grants_of<'p, 'g>(plan: &'g Plan<'p>, at: ContainerIndex) -> &'g [ContainerGrant<'p>] {
    let mut containers = plan.containers.iter();
    containers.find(|(place, _)| *place == at).map_or(&[], |(_, grants)| grants)
}

fn path_of(at: ContainerIndex) -> String {
    at.to_string()
}

/// What is decided of a pod; `None` if it asks for nothing, or is no pod, which others say.
fn decided<T>(
    question: &Question,
    policies: &PolicySet,
    tell: impl FnOnce(&Decision<'_>, &Spec<'_>) -> T,
) -> Option<T> {
    let review = Review::decode(&question.review).ok()?;
    let request = Request::of(&review).ok()?;
    let pod = pod_of(&request, policies).ok()??;
    let spec = pod.spec()?;
    let decision = decide(&request, &pod, policies, Some(&question.namespace)).ok()?;
    Some(tell(&decision, spec))
}

impl Question {
    /// The question about the same pod, were these annotations in it.
    pub(super) fn with_annotations(
        &self,
        annotations: &BTreeMap<String, String>,
        assumed: &Assumed,
    ) -> anyhow::Result<Self> {
        let mut pod = self.pod.clone();
        // What is no mapping is for the line to refuse.
        let _ = annotate(&mut pod.pod, annotations);
        let review = review(&pod.pod, &self.namespace.name, assumed);
        Ok(Self {
            document: self.document,
            object: self.object.clone(),
            title: self.title.clone(),
            review: serde_json::to_vec(&review)?,
            namespace: self.namespace.clone(),
            pod,
        })
    }
}

/// A value without what is the same as nothing to the API server: `null`, and empty lists and mappings.
fn without_empty(value: Value) -> Value {
    let is_empty = |value: &Value| match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    };
    match value {
        Value::Array(items) => items.into_iter().map(without_empty).collect(),
        Value::Object(fields) => {
            let fields = fields.into_iter().map(|(key, value)| (key, without_empty(value)));
            fields.filter(|(_, value)| !is_empty(value)).collect()
        }
        other => other,
    }
}
