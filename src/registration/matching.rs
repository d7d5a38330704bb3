//! Which pods the API server shows to us: those of opted-in namespaces that ask, and no others. A pod
//! that does not ask is created whether we answer or not.
//!
//! The expressions are evaluated by the API server on whatever it was sent: a field that may be absent
//! is asked for with `has()` or `.?`, or the pod would be refused under `failurePolicy: Fail`.

use serde_json::{Value, json};

use super::expression::{literal, text};
use crate::decision::annotation::GRANTED;
use crate::decision::line::SYSTEM_NAMESPACE;
use crate::decision::path::parts;
use crate::decision::{PolicySet, Settings};

/// The CEL expression of the one match condition of the webhooks for pods: annotations under the
/// prefix, or a volume of an old shape that a policy looks for in every pod (`legacy.when: Always`).
pub fn match_expression(policies: &PolicySet) -> String {
    let asks = asks(policies.settings());
    match old_shapes(policies) {
        Some(paths) => format!(
            "({asks}) || (has(object.spec.volumes) && object.spec.volumes.exists(volume, \
             has(volume.hostPath) && volume.hostPath.path.matches({})))",
            text(&paths)
        ),
        None => asks,
    }
}

/// Whether a pod has annotations under the prefix.
pub(super) fn asks(settings: &Settings) -> String {
    let prefix = text(&format!("{}/", settings.prefix));
    format!(
        "has(object.metadata.annotations) && \
         object.metadata.annotations.exists(key, key.startsWith({prefix}))"
    )
}

/// Whether an ask of a pod that exists is changed, or whether one that has a device is debugged, which
/// gives the container for it none.
pub(super) fn changes_too_late(settings: &Settings) -> String {
    format!(
        "request.?subResource.orValue('') == 'ephemeralcontainers' ? {} : ({})",
        has_asked(settings),
        changes_asks(settings)
    )
}

/// Whether a resize changes more than cpu and memory of a pod that has a device.
pub(super) fn resizes_devices(settings: &Settings) -> String {
    let differ = "[[object, oldObject], [oldObject, object]].exists(pair, \
        ['containers', 'initContainers'].exists(field, \
        pair[0].spec[?field].orValue([]).exists(container, \
        ['limits', 'requests'].exists(amounts, \
        container.?resources[?amounts].orValue({}).exists(name, \
        name.contains('/') && !name.contains('kubernetes.io/') && \
        !pair[1].spec[?field].orValue([]).exists(other, other.name == container.name && \
        other.?resources[?amounts][?name] == container.?resources[?amounts][?name]))))))";
    format!("({}) || ({} && {differ})", changes_asks(settings), has_asked(settings))
}

/// Whether annotations of ours differ that a person writes.
fn changes_asks(settings: &Settings) -> String {
    let prefix = text(&format!("{}/", settings.prefix));
    let stamp = text(&format!("{}/{GRANTED}", settings.prefix));
    let differ = |one: &str, other: &str| {
        format!(
            "{one}.metadata.?annotations.orValue({{}}).exists(key, key.startsWith({prefix}) && \
             key != {stamp} && \
             {one}.metadata.?annotations[?key] != {other}.metadata.?annotations[?key])"
        )
    };
    format!("{} || {}", differ("object", "oldObject"), differ("oldObject", "object"))
}

/// Whether a pod that exists has, or asked for, any device.
fn has_asked(settings: &Settings) -> String {
    let prefix = text(&format!("{}/", settings.prefix));
    format!(
        "oldObject.metadata.?annotations.orValue({{}}).exists(key, key.startsWith({prefix}) && \
         oldObject.metadata.annotations[key] != 'false')"
    )
}

/// Namespaces that have opted in. `kube-system` and our own are left out by name, whatever labels they
/// get: a webhook that its own pods wait for never starts.
pub(super) fn namespace_selector(settings: &Settings) -> Value {
    json!({
        "matchLabels": { settings.opt_in_label(): Settings::OPTED_IN },
        "matchExpressions": [{
            "key": "kubernetes.io/metadata.name",
            "operator": "NotIn",
            "values": [SYSTEM_NAMESPACE, settings.own_namespace],
        }],
    })
}

/// A regular expression for the hostPaths that are, lie below, or cover a device that is looked for in
/// every pod; `None` if there is none. It lets more through than the line looks at, and never less:
/// `//`, `/./` and a `/` at the end are all one path.
fn old_shapes(policies: &PolicySet) -> Option<String> {
    let legacy = policies.looking_unasked().filter_map(|policy| policy.spec().legacy.as_ref());
    let paths: Vec<String> = legacy
        .flat_map(|legacy| &legacy.host_paths)
        .map(|path| is_or_covers(&parts(path)))
        .collect();
    (!paths.is_empty()).then(|| format!("(?s)^[./]*({})$", paths.join("|")))
}

/// `dev`, `fuse` becomes `(dev(/[./]*(fuse(/.*)?)?)?)?`: each part may be the last one.
fn is_or_covers(parts: &[&str]) -> String {
    match parts {
        [] => String::new(),
        [last] => match last.strip_suffix('*') {
            Some(start) => format!("({}.*)?", literal(start)),
            None => format!("({}(/.*)?)?", literal(last)),
        },
        [first, rest @ ..] => format!("({}(/[./]*{})?)?", literal(first), is_or_covers(rest)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::PolicySource;

    fn compiled(when: &str, action: &str) -> PolicySet {
        let text = format!(
            "apiVersion: devgrant/v1alpha1\nkind: DevicePolicy\nmetadata: {{ name: gpu }}\nspec:\n  \
             device: gpu\n  defaultMode: a\n  modes: {{ a: {{ resources: [{{ name: v.example/gpu }}] }} }}\n  \
             legacy: {{ hostPaths: [\"/dev/nvidia*\", /dev/fuse.x], when: {when}, action: {action} }}\n"
        );
        let source = PolicySource { file: "gpu.yaml".to_owned(), text };
        PolicySet::compile(&[source], Settings::default()).unwrap()
    }

    const ASKS: &str = "has(object.metadata.annotations) && \
        object.metadata.annotations.exists(key, key.startsWith('devices.example/'))";

    #[test]
    fn without_always_only_annotations_count() {
        for (when, action) in [("Asked", "Rewrite"), ("Always", "Ignore")] {
            assert_eq!(match_expression(&compiled(when, action)), ASKS);
        }
    }

    #[test]
    fn always_looks_at_volumes_too() {
        let paths = r"(?s)^[./]*((dev(/[./]*(nvidia.*)?)?)?|(dev(/[./]*(fuse\\.x(/.*)?)?)?)?)$";
        assert_eq!(
            match_expression(&compiled("Always", "Warn")),
            format!(
                "({ASKS}) || (has(object.spec.volumes) && object.spec.volumes.exists(volume, \
                 has(volume.hostPath) && volume.hostPath.path.matches('{paths}')))"
            )
        );
    }
}
