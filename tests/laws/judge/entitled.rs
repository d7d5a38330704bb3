//! Who may have what, as a person would read the policies.

use devgrant::decision::PolicySet;
use devgrant::decision::policy::schema::{
    AllowRule, Enforcement, LabelOperator, LabelSelector, Mode, Spec,
};
use serde_json::{Map, Value};

use super::containers;

/// One ask that the policies let this subject make, and whom it is for.
pub(crate) struct Entitlement<'p> {
    pub(crate) device: String,
    pub(crate) spec: &'p Spec,
    pub(crate) mode: &'p Mode,
    /// The most of a counted resource.
    pub(crate) count: u32,
    /// `(list, index)` of each container.
    pub(crate) containers: Vec<(&'static str, usize)>,
}

/// Everything that a pod may have by its own annotations, as a person would read the policies.
pub(crate) fn entitlements<'p>(
    pod: &Value,
    labels: &Map<String, Value>,
    set: &'p PolicySet,
) -> Vec<Entitlement<'p>> {
    let none = Map::new();
    let annotations = pod["metadata"]["annotations"].as_object().unwrap_or(&none);
    let text = |key: &str| annotations.get(key).map(|value| value.as_str().unwrap_or_default());
    let account = match pod["spec"]["serviceAccountName"].as_str() {
        None | Some("") => "default",
        Some(account) => account,
    };
    let mut found = Vec::new();
    for policy in set.policies() {
        let spec = policy.spec();
        let key = format!("devices.example/{}", spec.device);
        let Some(value) = text(&key) else { continue };
        if value == "false" || spec.enforcement == Enforcement::Shadow {
            continue;
        }
        let (mode_name, count) = match value.split_once(':') {
            Some((mode, count)) => (mode, Some(count)),
            None if value == "true" => (spec.default_mode.as_str(), None),
            None if value.parse::<u64>().is_ok() => (spec.default_mode.as_str(), Some(value)),
            None => (value, None),
        };
        let Some(mode) = spec.modes.get(mode_name) else { continue };
        let named_by_rule = |rule: &AllowRule| match &rule.modes {
            Some(modes) => modes.iter().any(|name| name == mode_name),
            None => !is_hatch(mode),
        };
        let allowed = match &spec.allow {
            None => !is_hatch(mode),
            Some(rules) => {
                rules.iter().any(|rule| covers(rule, labels, account) && named_by_rule(rule))
            }
        };
        let count = count.map_or(Some(spec.count.default), |count| count.parse().ok());
        let Some(count) = count.filter(|count| *count <= spec.count.max && *count > 0) else {
            continue;
        };
        if !allowed {
            continue;
        }
        let names =
            text(&format!("{key}.containers")).or_else(|| text("devices.example/containers"));
        let containers = match names {
            Some(names) => named(pod, names),
            None => vec![primary(pod, &spec.device, &text)],
        };
        let device = spec.device.clone();
        found.push(Entitlement { device, spec, mode, count, containers });
    }
    found
}

/// Whether only a rule that names the mode opens it. Of the capabilities that are the node itself, the
/// generator makes one.
fn is_hatch(mode: &Mode) -> bool {
    let on_node = mode.host_users != Some(false);
    mode.privileged || (on_node && mode.capabilities.iter().any(|name| name == "SYS_PTRACE"))
}

fn covers(rule: &AllowRule, labels: &Map<String, Value>, account: &str) -> bool {
    rule.namespace_selector.as_ref().is_none_or(|selector| selects(selector, labels))
        && rule.service_accounts.as_ref().is_none_or(|accounts| {
            // The patterns of these tests have one star at most, at the end.
            accounts.iter().any(|pattern| match pattern.strip_suffix('*') {
                Some(start) => account.starts_with(start),
                None => account == pattern,
            })
        })
}

fn selects(selector: &LabelSelector, labels: &Map<String, Value>) -> bool {
    let value = |key: &str| labels.get(key).and_then(Value::as_str);
    selector.match_labels.iter().all(|(key, wanted)| value(key) == Some(wanted))
        && selector.match_expressions.iter().all(|wanted| {
            let value = value(&wanted.key);
            let listed = wanted.values.iter().any(|one| Some(one.as_str()) == value);
            match wanted.operator {
                LabelOperator::DoesNotExist => value.is_none(),
                LabelOperator::Exists => value.is_some(),
                LabelOperator::In => listed,
                LabelOperator::NotIn => !listed,
            }
        })
}

fn named(pod: &Value, names: &str) -> Vec<(&'static str, usize)> {
    let names: Vec<&str> = names.split(',').map(str::trim).collect();
    let all = containers(pod).into_iter();
    all.filter(|((list, _), container)| {
        let name = container["name"].as_str().unwrap_or_default();
        names.contains(&name) || (names.contains(&"*") && *list == "containers")
    })
    .map(|(at, _)| at)
    .collect()
}

fn primary<'t>(
    pod: &Value,
    device: &str,
    text: &impl Fn(&str) -> Option<&'t str>,
) -> (&'static str, usize) {
    let by_name = |name: &str| {
        let all = containers(pod);
        all.into_iter().find(|(_, container)| container["name"] == name).map(|(at, _)| at)
    };
    let stamp: Option<Value> =
        text("devices.example/granted").and_then(|stamp| serde_json::from_str(stamp).ok());
    let stamped = stamp.and_then(|stamp| {
        let grants = stamp["grants"].as_array()?.clone();
        let grant = grants.into_iter().find(|grant| grant["device"] == device)?;
        match grant["containers"].as_array()?.as_slice() {
            [only] => Some(only.as_str()?.to_owned()),
            _ => None,
        }
    });
    let stamped = stamped.and_then(|name| by_name(&name));
    let default = text("kubectl.kubernetes.io/default-container").and_then(by_name);
    stamped.or(default).unwrap_or(("containers", 0))
}
