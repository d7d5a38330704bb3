//! advice: what would be said of the pods of a workload, while its author reads the answer.
//!
//! A controller makes the pods, so that what is said of them reaches its log and the events of a
//! ReplicaSet, and not the person at `kubectl apply`.

use std::collections::BTreeSet;

use serde_json::Value;
use serde_json::value::RawValue;

use super::answer::Admission;
use super::line::{Undecided, admit};
use super::namespace::Namespace;
use super::plan::Reason;
use super::policy::PolicySet;
use super::request::Request;
use super::review::Review;
use super::running;
use super::settings::Settings;
use super::warning::Warning;
use super::workload::{self, Object, Owner, misplaced};

/// Judges the pods that a workload would make as if each were created now. Always allowed, never with a
/// patch: all there is are warnings.
///
/// Nothing is said of what a controller made, which nobody applied; of an update that leaves the pods as
/// they were, such as one that scales; and of new pods, which [`admit`] speaks of. Of a pod that exists
/// already, that a change comes too late to give it a device or to take one away.
///
/// `offered` are the extended resources that any node offers; without it nothing is said of nodes.
pub fn advise(
    review: &Review<'_>,
    policies: &PolicySet,
    namespace: Option<&Namespace>,
    offered: Option<&BTreeSet<String>>,
) -> Result<Admission, Undecided> {
    let request = Request::of(review)?;
    let mut advice = Advice::default();
    let mut name = request.name().to_owned();
    let settings = policies.settings();
    let updated = request.updated_pod.and_then(|part| Some((part, object(&request, settings)?)));
    if let Some((part, object)) = updated {
        advice.warnings = running::said(&request, part, &object, policies, namespace)?;
    } else if let Some(object) = written(&request, settings) {
        if name.is_empty() {
            name = Owner::of(&object.value).name;
        }
        advice.add(&object, &request, policies, namespace, offered)?;
    }
    Ok(Admission {
        uid: review.uid.clone().into_owned(),
        namespace: request.namespace.to_string(),
        name,
        allowed: true,
        reason: advice.reason.unwrap_or(Reason::NotPodCreation),
        devices: Vec::new(),
        message: None,
        warnings: Warning::bounded(advice.warnings),
        operations: Vec::new(),
        policy_digest: policies.digest().to_owned(),
    })
}

/// The object of a request as text, if it may be a person's.
fn object(request: &Request<'_>, settings: &Settings) -> Option<String> {
    let object = request.object?.to_json();
    let old = request.old_object.map_or("", RawValue::get);
    (is_of_a_person(&object, settings) && is_of_a_person(old, settings)).then_some(object)
}

/// The workload of a request, if somebody wrote it who would want to know.
fn written(request: &Request<'_>, settings: &Settings) -> Option<Object> {
    let object = object(request, settings).filter(|_| request.writes_object)?;
    let object = workload_of(&object).filter(is_small)?;
    if is_controlled(&object.value) || object.pods.iter().any(|pod| pod.owner.kind == "Pod") {
        return None;
    }
    let old = request.old_object.and_then(|old| workload_of(old.get()));
    let Some(old) = old.filter(is_small) else {
        return Some(object);
    };
    let said = |object: &Object| {
        let pods = object.pods.iter().map(|found| (found.template.clone(), found.pod.clone()));
        (pods.collect::<Vec<_>>(), misplaced::asks(object, settings))
    };
    (said(&object) != said(&old)).then_some(object)
}

/// Whether an object is of a size that a person writes. Advice is worth no more than a moment, and anybody
/// who reaches the port may send anything; what is larger is let through without a word.
fn is_of_a_person(object: &str, settings: &Settings) -> bool {
    object.len() <= MOST_BYTES && object.matches(&settings.prefix).count() <= MOST_KEYS
}

/// What the API server refuses by itself, since its pods are none, is no workload.
fn workload_of(text: &str) -> Option<Object> {
    let value: Value = serde_json::from_str(text).ok()?;
    workload::object(value, MOST_TEMPLATES)
}

/// Whether there are few templates, at places that can be repeated in a sentence for each.
fn is_small(object: &Object) -> bool {
    let longest = object.pods.iter().map(|pod| pod.template.len()).max();
    object.pods.len() <= MOST_TEMPLATES && longest.is_none_or(|longest| longest <= MOST_PLACE)
}

/// Whether a controller made the object: a Deployment its ReplicaSet, a `CronJob` its Job.
fn is_controlled(object: &Value) -> bool {
    let owners = object.pointer("/metadata/ownerReferences").and_then(Value::as_array);
    owners
        .into_iter()
        .flatten()
        .any(|owner| owner.get("controller").and_then(Value::as_bool) == Some(true))
}

#[derive(Default)]
struct Advice {
    /// That of the first pod that would be refused, else of the first one.
    reason: Option<Reason>,
    refused: bool,
    warnings: Vec<Warning>,
}

impl Advice {
    fn add(
        &mut self,
        object: &Object,
        request: &Request<'_>,
        policies: &PolicySet,
        namespace: Option<&Namespace>,
        offered: Option<&BTreeSet<String>>,
    ) -> Result<(), Undecided> {
        for found in &object.pods {
            let review = workload::review(&found.pod, request.namespace.as_str(), None);
            let bytes = review.to_string();
            // It is one: it was just made.
            let Ok(review) = Review::decode(bytes.as_bytes()) else { continue };
            let pod = admit(&review, policies, namespace)?;
            if self.reason.is_none() || (!pod.allowed && !self.refused) {
                self.reason = Some(pod.reason);
            }
            self.refused |= !pod.allowed;
            let missing = offered.map(|offered| unoffered(&pod, policies, offered));
            let refused = pod.message.map(|message| format!("would be refused: {message}"));
            let mut said = refused.map(Warning::lines).unwrap_or_default();
            said.extend(pod.warnings);
            said.extend(missing.into_iter().flatten());
            said.retain(|line| !self.warnings.contains(line));
            // Which of its pods a line is about, where the object makes several kinds of them.
            if object.pods.len() > 1 && !said.is_empty() {
                self.warnings.push(Warning::new(format!("of `{}`:", found.template)));
            }
            self.warnings.append(&mut said);
        }
        for ask in misplaced::asks(object, policies.settings()) {
            self.warnings.extend(Warning::lines(ask.sentence));
        }
        Ok(())
    }
}

/// The largest object that is advised on: the one of many templates that is known has some 100 KB.
const MOST_BYTES: usize = 256 * 1024;
/// The most of our keys in it, wherever they are.
const MOST_KEYS: usize = 256;
/// The most templates in it. The warnings of so many are cut short anyway.
const MOST_TEMPLATES: usize = 64;
/// The longest place of one, in bytes.
const MOST_PLACE: usize = 1024;

/// What is granted and no node offers: the scheduler finds no node for such a pod, and says so in an Event
/// that nobody reads.
fn unoffered(pod: &Admission, policies: &PolicySet, offered: &BTreeSet<String>) -> Vec<Warning> {
    // In shadow nothing is granted, although devices are named.
    let granted = pod.devices.iter().filter(|_| pod.reason == Reason::Granted);
    let modes = granted.filter_map(|granted| policies.find(&granted.device)?.mode(&granted.mode));
    let resources = modes.flat_map(|(_, mode)| &mode.resources);
    let missing = resources.filter(|resource| !offered.contains(&resource.name));
    missing
        .flat_map(|resource| {
            Warning::lines(format!(
                "no node offers `{}` now: pods will stay Pending until one does",
                resource.name
            ))
        })
        .collect()
}
