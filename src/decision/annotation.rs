//! annotation: what a pod asks for, in the grammar of its annotations.
//!
//! | key | value |
//! | --- | --- |
//! | `<prefix>/<device>` | `"true"`, `"false"`, `<mode>`, `<count>`, `<mode>:<count>` |
//! | `<prefix>/<device>.containers` | container names with commas, or `*` for every regular container |
//! | `<prefix>/containers` | the same, for all devices of the pod |
//! | `<prefix>/granted` | written by devgrant only |

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::plan::{Objection, Reason};
use super::policy::PolicySet;
use super::request::Request;
use super::spelling;

/// The value that asks for the default mode.
pub(super) const ASK: &str = "true";
/// The key of the stamp, behind the prefix.
pub const GRANTED: &str = "granted";
/// The key that names containers, behind the prefix or behind a device and a dot.
pub(super) const CONTAINERS: &str = "containers";
/// The most that keys and values under the prefix may take together
/// (`kubernetes/apimachinery pkg/api/validation/objectmeta.go`, `TotalAnnotationSizeLimitB`).
const MAX_BYTES: usize = 256 * 1024;
/// The most unknown keys that are told one by one.
const MOST_KEYS: usize = 20;

/// What the annotations of one pod say, before any policy is asked.
#[derive(Debug, Default)]
pub struct Asked<'a> {
    /// Devices that the pod asks for, in name order. Those with `"false"` are not among them.
    pub devices: Vec<Entry<'a>>,
    /// The value of `<prefix>/containers`.
    pub containers: Option<&'a str>,
    /// The stamp as it came, true or forged.
    pub stamp: Option<&'a str>,
    /// Keys that mean nothing.
    pub objections: Vec<Objection>,
}

/// One device that the pod asks for.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// The device, which has a policy.
    pub device: &'a str,
    /// The value of its key.
    pub value: &'a str,
    /// The value of `<prefix>/<device>.containers`.
    pub containers: Option<&'a str>,
}

/// Reads the annotations under the prefix; `None` if there are none, and nothing to decide.
pub fn read<'a>(request: &'a Request<'_>, policies: &'a PolicySet) -> Option<Asked<'a>> {
    let prefix = policies.settings().prefix.as_str();
    let mut asked = Asked::default();
    let mut values = BTreeMap::new();
    let mut overrides = BTreeMap::new();
    let mut unknown = 0;
    let mut bytes = 0;
    for (key, value) in request.annotations(prefix) {
        // The API server refuses such a pod too, though only after us: until then its annotations are
        // bounded by nothing but the size of a request.
        bytes += key.len() + value.len();
        if bytes > MAX_BYTES {
            let sentence = format!(
                "the annotations under `{prefix}` are longer than {MAX_BYTES} bytes, which Kubernetes allows all annotations of a pod together"
            );
            let objections = vec![Objection::new(Reason::TooLarge, sentence)];
            return Some(Asked { objections, ..Asked::default() });
        }
        match key.split_once('.') {
            _ if key == GRANTED => asked.stamp = Some(value),
            _ if key == CONTAINERS => asked.containers = Some(value),
            _ if policies.find(key).is_some() => {
                values.insert(key, value);
            }
            Some((device, CONTAINERS)) if policies.find(device).is_some() => {
                overrides.insert(device, value);
            }
            _ => {
                unknown += 1;
                if unknown <= MOST_KEYS {
                    asked.objections.push(unknown_key(key, policies));
                }
            }
        }
    }
    if bytes == 0 {
        return None;
    }
    if unknown > MOST_KEYS {
        let sentence = format!("{} more keys under `{prefix}` mean nothing", unknown - MOST_KEYS);
        asked.objections.push(Objection::new(Reason::UnknownKey, sentence));
    }
    for &device in overrides.keys().filter(|device| !values.contains_key(*device)) {
        asked.objections.push(Objection::new(
            Reason::UnknownKey,
            format!(
                "annotation `{prefix}/{device}.{CONTAINERS}` names containers for a device that is not asked for; add `{prefix}/{device}: \"true\"`, or remove it"
            ),
        ));
    }
    if asked.containers.is_some() && values.is_empty() {
        let devices =
            policies.devices().map(|device| format!("{prefix}/{device}")).collect::<Vec<_>>();
        asked.objections.push(Objection::new(
            Reason::UnknownKey,
            format!(
                "annotation `{prefix}/{CONTAINERS}` names containers, and no device is asked for; ask by one of {}, or remove it",
                spelling::list(devices.iter().map(String::as_str))
            ),
        ));
    }
    asked.devices = values
        .into_iter()
        .filter(|(_, value)| *value != "false")
        .map(|(device, value)| Entry { device, value, containers: overrides.get(device).copied() })
        .collect();
    Some(asked)
}

fn unknown_key(key: &str, policies: &PolicySet) -> Objection {
    let prefix = &policies.settings().prefix;
    let valid = policies.devices();
    let device = key.strip_suffix(".containers").unwrap_or(key);
    // `fuse.container`: the device is known, and what stands behind it is not.
    let known = key.split_once('.').map(|(device, _)| device);
    let known = known.filter(|device| policies.find(device).is_some());
    let nearest = || spelling::nearest(device, valid.clone().chain([CONTAINERS]));
    let suggestion = match known.or_else(nearest) {
        _ if key == "grant" => {
            let label = policies.settings().opt_in_label();
            format!("`{label}` is a label of namespaces, not an annotation of pods")
        }
        Some(near) if known.is_some() => format!("did you mean `{prefix}/{near}.{CONTAINERS}`?"),
        Some(near) => format!(
            "did you mean `{prefix}/{near}{}`?",
            key.strip_prefix(device).unwrap_or_default()
        ),
        None => format!("devices: {}", spelling::list(valid)),
    };
    Objection::new(
        Reason::UnknownKey,
        format!("annotation `{prefix}/{}` means nothing; {suggestion}", spelling::excerpt(key)),
    )
}

/// The value of a device's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Value<'a> {
    /// The mode, if one is named.
    pub mode: Option<&'a str>,
    /// The count as it is written, if one is.
    pub count: Option<&'a str>,
}

impl<'a> Value<'a> {
    /// Takes `"true"`, `<mode>`, `<count>` and `<mode>:<count>` apart. A mode's name is never all
    /// digits, so that the forms cannot be mistaken for each other.
    pub fn parse(text: &'a str) -> Self {
        let is_count =
            |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        match text.split_once(':') {
            Some((mode, count)) => Self { mode: Some(mode), count: Some(count) },
            None if text == ASK => Self { mode: None, count: None },
            None if is_count(text) => Self { mode: None, count: Some(text) },
            None => Self { mode: Some(text), count: None },
        }
    }
}

/// The stamp: what was granted, for people and for the second call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stamp {
    /// The digest of the policy set that decided.
    pub policy_digest: String,
    /// The grants, in the order of the devices' names.
    pub grants: Vec<StampedGrant>,
}

/// One grant of a stamp.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StampedGrant {
    /// The device.
    pub device: String,
    /// The mode.
    pub mode: String,
    /// How many, for each container.
    pub count: u32,
    /// The containers that got it.
    pub containers: Vec<String>,
    /// The policy that granted it.
    pub policy: String,
}

impl Stamp {
    /// Reads a stamp; `None` if it is not one of ours.
    pub fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// The containers that were chosen for a device before.
    pub fn containers_of(&self, device: &str) -> Option<&[String]> {
        let grant = self.grants.iter().find(|grant| grant.device == device)?;
        Some(&grant.containers)
    }

    /// The annotation's value.
    pub fn to_text(&self) -> String {
        // Text and numbers only, so that there is always a JSON form.
        serde_json::to_string(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_taken_apart() {
        for (text, mode, count) in [
            ("true", None, None),
            ("2", None, Some("2")),
            ("h100", Some("h100"), None),
            ("h100:2", Some("h100"), Some("2")),
            ("mig-1g.10gb:1", Some("mig-1g.10gb"), Some("1")),
            ("", Some(""), None),
            (":2", Some(""), Some("2")),
            ("a:b:c", Some("a"), Some("b:c")),
            ("-1", Some("-1"), None),
            ("True", Some("True"), None),
        ] {
            assert_eq!(Value::parse(text), Value { mode, count }, "{text}");
        }
    }
}
