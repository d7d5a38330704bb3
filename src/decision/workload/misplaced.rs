//! Asks in places where nobody looks for them: on the workload instead of its pods, as labels, or as fields
//! of something else; and asks whose prefix is not quite ours.
//!
//! A decision sees the annotations of the pod and nothing else, so such an ask would change nothing, and
//! nobody would say a word.

use std::collections::{BTreeMap, BTreeSet};

use json_patch::jsonptr::Pointer;
use serde_json::Value;

use super::argo::unforetold;
use super::{BUILT_IN, Object, Owner, is_built_in};
use crate::decision::path::token;
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
    asks.extend(of_other_fields(object, settings));
    let asking = |key: &str| is_ours(key, settings);
    asks.extend(unforetold(&object.value, asking).into_iter().map(|(at, body)| {
        let sentence = format!(
            "`{at}` asks, and what becomes of the pod of a `{body}` template is not foretold"
        );
        Misplaced { at, sentence }
    }));
    asks
}

/// The annotations whose prefix is nearly ours, or begins with it, before the name of a device.
pub fn near(
    object: &Object,
    settings: &Settings,
    is_device: impl Fn(&str) -> bool,
) -> Vec<Misplaced> {
    let ours = settings.prefix.as_str();
    let mut asks = Vec::new();
    let places = std::iter::once("").chain(templates(object)).collect::<BTreeSet<_>>();
    for place in places {
        let place = format!("{place}/metadata/annotations");
        let annotations = object.value.pointer(&place).and_then(Value::as_object);
        for key in annotations.into_iter().flat_map(|annotations| annotations.keys()) {
            let Some((prefix, name)) = key.split_once('/') else { continue };
            let device = name.strip_suffix(".containers").unwrap_or(name);
            let is_near = prefix.starts_with(ours) || spelling::nearest(prefix, [ours]).is_some();
            if prefix != ours && is_near && is_device(device) {
                let shown = spelling::excerpt(key);
                let sentence = format!("`{shown}` asks for nothing; did you mean `{ours}/{name}`?");
                asks.push(Misplaced { at: entry(&place, key), sentence });
            }
        }
    }
    asks
}

/// Fields that are no annotations: of a template, a spec, a container, or below `metadata.annotation`. Of
/// a custom kind only what is inside its templates, since its own fields may well become annotations.
fn of_other_fields(object: &Object, settings: &Settings) -> Vec<Misplaced> {
    let owner = Owner::of(&object.value);
    let is_built_in =
        is_built_in(&owner.api_version) && BUILT_IN.iter().any(|(kind, _)| *kind == owner.kind);
    let homes: Vec<String> =
        templates(object).map(|template| format!("{template}/metadata/annotations")).collect();
    let mut asks = Vec::new();
    if homes.is_empty() {
        return asks;
    }
    if is_built_in {
        let homes = spelling::list(homes.iter().map(String::as_str));
        fields(&object.value, &mut String::new(), settings, &homes, &mut asks);
        return asks;
    }
    for ((found, template), home) in object.pods.iter().zip(templates(object)).zip(&homes) {
        // What Argo makes a pod of is no template of one.
        if let (Some(value), 1) = (object.value.pointer(template), found.places.len()) {
            let home = spelling::list([home.as_str()]);
            fields(value, &mut template.to_owned(), settings, &home, &mut asks);
        }
    }
    asks
}

/// Adds the fields of ours that are below a value at this place. The place is one text for all of them: a key
/// may be long, and have thousands of items below it.
fn fields(
    value: &Value,
    at: &mut String,
    settings: &Settings,
    homes: &str,
    asks: &mut Vec<Misplaced>,
) {
    // Of those others speak, or they are names of resources and nodes.
    let is_other = OTHER_FIELDS.iter().any(|end| at.ends_with(end));
    let here = at.len();
    match value {
        Value::Object(entries) if !is_other => {
            for (key, field) in entries {
                if is_ours(key, settings) {
                    let shown = spelling::excerpt(key);
                    let place = if at.is_empty() {
                        "the object itself".to_owned()
                    } else {
                        format!("`{at}`")
                    };
                    let sentence = format!(
                        "`{shown}` in {place} asks for nothing, since only annotations of a pod \
                         do; write it in {homes}"
                    );
                    asks.push(Misplaced { at: entry(at, key), sentence });
                } else {
                    at.push('/');
                    at.push_str(&token(key));
                    fields(field, at, settings, homes, asks);
                    at.truncate(here);
                }
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                at.push('/');
                at.push_str(&index.to_string());
                fields(item, at, settings, homes, asks);
                at.truncate(here);
            }
        }
        _ => {}
    }
}

/// Mappings whose keys are looked at elsewhere, or may be ours and no asks.
const OTHER_FIELDS: &[&str] = &[
    "/metadata/annotations",
    "/metadata/labels",
    "/metadata/managedFields",
    "/limits",
    "/matchLabels",
    "/nodeSelector",
    "/overhead",
    "/requests",
    "/selector",
    "/status",
];

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
    format!("{mapping}/{}", token(key))
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
