//! running: what is said of a change of a pod that exists already.
//!
//! Its devices were given when it was created, and the API server lets nobody change what they come by.
//! So whoever annotates, debugs or resizes it is told that this gives no device and takes none away.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::annotation::GRANTED;
use super::finding::{Code, Effect, Finding};
use super::foresee;
use super::line::Undecided;
use super::namespace::Namespace;
use super::path::token;
use super::policy::{Policy, PolicySet};
use super::quantity::{Quantity, is_extended};
use super::request::{PodPart, Request};
use super::settings::Settings;
use super::spelling::excerpt;
use super::warning::Warning;

/// What is said of a change of a part of a pod, whose object, as text, is `now`.
pub(super) fn said(
    request: &Request<'_>,
    part: PodPart,
    now: &str,
    policies: &PolicySet,
    namespace: Option<&Namespace>,
) -> Result<Vec<Warning>, Undecided> {
    let settings = policies.settings();
    let value = |text: &str| serde_json::from_str::<Value>(text).ok();
    let before = request.old_object.and_then(|old| value(old.get()));
    let Some((now, before)) = value(now).zip(before) else {
        return Ok(Vec::new());
    };
    let change = Change { now: &now, before: &before, settings };
    let findings = change.findings(part);
    if findings.is_empty() || settings.never_touches(request.namespace.as_str()) {
        return Ok(Vec::new());
    }
    let unknown = || Undecided::UnknownNamespace(request.namespace.to_string());
    if !settings.opted_in(namespace.ok_or_else(unknown)?) {
        return Ok(Vec::new());
    }
    let devices = change.devices();
    let all: Vec<&Policy> = devices.iter().filter_map(|device| policies.find(device)).collect();
    let mut of_all: BTreeMap<Code, Effect> = BTreeMap::new();
    let mut remedies = BTreeSet::new();
    let mut warnings = Vec::new();
    for (finding, device) in findings {
        let effect = match device {
            Some(device) => foresee::effect(&finding, policies.find(device).as_slice()),
            None => *of_all.entry(finding.code).or_insert_with(|| foresee::effect(&finding, &all)),
        };
        // `Deny` is a word here like any other: the pod exists.
        if effect == Effect::Ignore {
            continue;
        }
        let text = if remedies.insert(finding.remedy()) {
            finding.to_string()
        } else {
            format!("{}: {}", finding.code, finding.sentence())
        };
        warnings.extend(Warning::lines(text));
    }
    Ok(warnings)
}

/// A pod, as it is to be and as it was.
struct Change<'a> {
    now: &'a Value,
    before: &'a Value,
    settings: &'a Settings,
}

impl<'a> Change<'a> {
    /// What is to be said, each with the device whose policy has a say in it, or `None` for all of the pod's.
    fn findings(&self, part: PodPart) -> Vec<(Finding, Option<&'a str>)> {
        let Some(instead) = instead(self.before) else { return Vec::new() };
        match part {
            PodPart::EphemeralContainers => self.debugged(),
            PodPart::Resources => {
                let mut findings = self.annotated(&instead);
                findings.extend(self.resized(&instead));
                findings
            }
            PodPart::Whole => self.annotated(&instead),
        }
    }

    fn annotated(&self, instead: &str) -> Vec<(Finding, Option<&'a str>)> {
        let (now, before) = (self.ours(self.now), self.ours(self.before));
        let names: BTreeSet<&str> = now.keys().chain(before.keys()).copied().collect();
        let differing = names.into_iter().filter_map(|name| {
            // Nobody asks by the stamp.
            let change = match (before.get(name), now.get(name)) {
                _ if name == GRANTED => return None,
                (None, _) => "added",
                (_, None) => "removed",
                (one, other) if one == other => return None,
                _ => "changed",
            };
            let key = format!("{}/{name}", self.settings.prefix);
            let path = format!("/metadata/annotations/{}", token(&key));
            let places = [("annotation", key.as_str()), ("change", change), ("instead", instead)];
            Some((Finding::new(Code::DG026, path, places), Some(device(name))))
        });
        differing.collect()
    }

    fn debugged(&self) -> Vec<(Finding, Option<&'a str>)> {
        if !self.has_asked() {
            return Vec::new();
        }
        let old = by_name(self.before, "ephemeralContainers");
        let added = containers(self.now, "ephemeralContainers").enumerate();
        let added = added.filter(|(_, (name, _))| !old.contains_key(name));
        added
            .map(|(index, (name, _))| {
                let path = format!("/spec/ephemeralContainers/{index}");
                (Finding::new(Code::DG014, path, [("container", name)]), None)
            })
            .collect()
    }

    fn resized(&self, instead: &str) -> Vec<(Finding, Option<&'a str>)> {
        let mut findings = Vec::new();
        if !self.has_asked() {
            return findings;
        }
        for list in ["initContainers", "containers"] {
            let mut old = by_name(self.before, list);
            for (index, (name, now)) in containers(self.now, list).enumerate() {
                // The API server refuses a second one of the name.
                let Some(before) = old.remove(name) else { continue };
                let path = format!("/spec/{list}/{index}/resources");
                for found in differing(before, now) {
                    let path = format!("{path}/{}/{}", found.list, token(found.resource));
                    let places = [
                        ("container", name),
                        ("resource", found.resource),
                        ("before", &found.before),
                        ("now", &found.now),
                        ("instead", instead),
                    ];
                    findings.push((Finding::new(Code::DG027, path, places), None));
                }
            }
        }
        findings
    }

    /// Whether the pod has, or asked for, any device.
    fn has_asked(&self) -> bool {
        [self.now, self.before]
            .into_iter()
            .any(|pod| self.ours(pod).values().any(|value| *value != "false"))
    }

    fn devices(&self) -> BTreeSet<&'a str> {
        let names = [self.now, self.before].into_iter().flat_map(|pod| self.ours(pod).into_keys());
        names.map(device).collect()
    }

    /// The annotations under the prefix, without it.
    fn ours(&self, pod: &'a Value) -> BTreeMap<&'a str, &'a str> {
        let all = pod.pointer("/metadata/annotations").and_then(Value::as_object);
        let ours = all.into_iter().flatten().filter_map(|(key, value)| {
            let name = key.strip_prefix(self.settings.prefix.as_str())?.strip_prefix('/')?;
            Some((name, value.as_str().unwrap_or_default()))
        });
        ours.collect()
    }
}

/// The device of a key, which may name containers for it.
fn device(name: &str) -> &str {
    name.split_once('.').map_or(name, |(device, _)| device)
}

/// What gives there a pod with other devices; `None` of a static pod, which devgrant never touches.
fn instead(pod: &Value) -> Option<String> {
    let owners = pod.pointer("/metadata/ownerReferences").and_then(Value::as_array);
    let mut owners = owners.into_iter().flatten();
    let controller = owners.find(|owner| owner.get("controller") == Some(&Value::Bool(true)));
    let Some(controller) = controller else {
        return Some("delete the pod and create it again".to_owned());
    };
    let text = |field| controller.get(field).and_then(Value::as_str).unwrap_or_default();
    let (kind, name) = (text("kind"), text("name"));
    let hash = pod.pointer("/metadata/labels/pod-template-hash").and_then(Value::as_str);
    // A Deployment names its ReplicaSets after itself and the hash of their template (`kubernetes
    // pkg/controller/deployment/sync.go`, `getNewReplicaSet`), and takes back what else is changed in one.
    let deployment = hash.and_then(|hash| name.strip_suffix(hash)?.strip_suffix('-'));
    Some(match (kind, deployment) {
        ("Node", _) => return None,
        ("ReplicaSet", Some(deployment)) => {
            format!("change the template of the Deployment `{}`", excerpt(deployment))
        }
        ("Job", _) => format!(
            "its Job `{}` must be created again, since the template of a Job cannot change",
            excerpt(name)
        ),
        _ => format!("change the template of the {} `{}`", excerpt(kind), excerpt(name)),
    })
}

/// The containers of a list, each with its name.
fn containers<'a>(pod: &'a Value, list: &str) -> impl Iterator<Item = (&'a str, &'a Value)> {
    let containers = pod.pointer(&format!("/spec/{list}")).and_then(Value::as_array);
    containers.into_iter().flatten().map(|container| {
        (container.get("name").and_then(Value::as_str).unwrap_or_default(), container)
    })
}

fn by_name<'a>(pod: &'a Value, list: &str) -> BTreeMap<&'a str, &'a Value> {
    containers(pod, list).collect()
}

/// An extended resource of which a container is to have another amount.
struct Differing<'a> {
    resource: &'a str,
    list: &'static str,
    before: String,
    now: String,
}

fn differing<'a>(before: &'a Value, now: &'a Value) -> Vec<Differing<'a>> {
    let mut differing: BTreeMap<&str, Differing<'_>> = BTreeMap::new();
    for list in ["limits", "requests"] {
        let (before, now) = (amounts(before, list), amounts(now, list));
        let names: BTreeSet<&str> = before.keys().chain(now.keys()).copied().collect();
        for resource in names {
            let (before, now) = (before.get(resource), now.get(resource));
            let quantity = |amount: Option<&String>| amount.and_then(|text| Quantity::parse(text));
            if before != now && (quantity(before) != quantity(now) || quantity(now).is_none()) {
                let plain =
                    |amount: Option<&String>| amount.map_or_else(|| "0".to_owned(), String::clone);
                let (before, now) = (plain(before), plain(now));
                // Limits and requests of it are the same number, said once.
                let found = Differing { resource, list, before, now };
                differing.entry(resource).or_insert(found);
            }
        }
    }
    differing.into_values().collect()
}

/// The amounts of extended resources in a list of a container, as they are written.
fn amounts<'a>(container: &'a Value, list: &str) -> BTreeMap<&'a str, String> {
    let amounts = container.pointer(&format!("/resources/{list}")).and_then(Value::as_object);
    let amounts = amounts.into_iter().flatten().filter(|(name, _)| is_extended(name));
    let text = |amount: &Value| amount.as_str().map_or_else(|| amount.to_string(), str::to_owned);
    amounts.map(|(name, amount)| (name.as_str(), text(amount))).collect()
}
