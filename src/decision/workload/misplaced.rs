//! Asks in places where nobody looks for them: on the workload instead of its pods, or as labels.
//!
//! A decision sees the annotations of the pod and nothing else, so such an ask would change nothing, and
//! nobody would say a word.

use std::collections::BTreeMap;

use json_patch::jsonptr::Pointer;
use serde_json::Value;

use super::argo::unforetold;
use super::{Object, Owner};
use crate::decision::{Settings, spelling};

/// An ask where nobody looks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misplaced {
    /// Where in the object, a JSON Pointer.
    pub at: String,
    /// What a person must be told.
    pub sentence: String,
}

/// The misplaced asks of an object.
pub fn asks(object: &Object, settings: &Settings) -> Vec<Misplaced> {
    let mut asks = of_the_owner(object, settings);
    asks.extend(labels_of_pods(object, settings));
    let asking = |key: &str| is_ours(key, settings);
    asks.extend(unforetold(&object.value, asking).into_iter().map(|(at, body)| {
        let sentence = format!(
            "`{at}` asks, and what becomes of the pod of a `{body}` template is not foretold"
        );
        Misplaced { at, sentence }
    }));
    asks
}

/// The metadata on the way from the object to its templates.
fn of_the_owner(object: &Object, settings: &Settings) -> Vec<Misplaced> {
    let kind = Owner::of(&object.value).kind;
    // By place and key, the templates that the ask may be meant for.
    let mut found: BTreeMap<(String, &str), Vec<String>> = BTreeMap::new();
    for template in templates(object) {
        let mut above = Pointer::parse(template).ok().and_then(Pointer::split_back);
        while let Some((place, _)) = above {
            let metadata = format!("{place}/metadata");
            for field in ["annotations", "labels"] {
                let field = format!("{metadata}/{field}");
                let keys = object.value.pointer(&field).and_then(Value::as_object);
                let keys = keys.into_iter().flat_map(|entries| entries.keys());
                for key in keys.filter(|key| is_ours(key, settings)) {
                    let home = format!("{template}/metadata/annotations");
                    found.entry((field.clone(), key)).or_default().push(home);
                }
            }
            above = place.split_back();
        }
    }
    let asks = found.into_iter().map(|((place, key), homes)| {
        let homes = spelling::list(homes.iter().map(String::as_str));
        let sentence = if key == settings.opt_in_label() {
            opt_in(key)
        } else {
            format!("`{key}` in `{place}` is of the {kind} and not of its pods, so it asks for nothing; write it in {homes}")
        };
        Misplaced { at: entry(&place, key), sentence }
    });
    asks.collect()
}

fn labels_of_pods(object: &Object, settings: &Settings) -> Vec<Misplaced> {
    let mut asks = Vec::new();
    for (found, template) in object.pods.iter().zip(templates(object)) {
        let labels = found.pod.pointer("/metadata/labels").and_then(Value::as_object);
        let keys = labels.into_iter().flat_map(|labels| labels.keys());
        asks.extend(keys.filter(|key| is_ours(key, settings)).map(|key| {
            let sentence = if *key == settings.opt_in_label() {
                opt_in(key)
            } else {
                format!("`{key}` is a label, and only annotations ask; write it in `{template}/metadata/annotations`")
            };
            Misplaced { at: entry(&format!("{template}/metadata/labels"), key), sentence }
        }));
    }
    asks
}

/// The place of one key of a mapping.
fn entry(mapping: &str, key: &str) -> String {
    format!("{mapping}/{}", key.replace('~', "~0").replace('/', "~1"))
}

fn opt_in(key: &str) -> String {
    format!("`{key}` is a label of namespaces and does nothing here; write it on the namespace")
}

/// Where the templates are inside the object.
fn templates(object: &Object) -> impl Iterator<Item = &str> {
    let at = object.at.as_str();
    object.pods.iter().map(move |pod| pod.template.as_str().strip_prefix(at).unwrap_or_default())
}

fn is_ours(key: &str, settings: &Settings) -> bool {
    key.strip_prefix(settings.prefix.as_str()).is_some_and(|rest| rest.starts_with('/'))
}
