//! Fields that the API server does not know: it drops them, and a pod that says `priviledged: true` is
//! not privileged. Only the security contexts and what is around them are looked at.

use serde_json::Value;

use crate::decision::spelling::{excerpt, nearest};

/// A field that is not there for the API server.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unknown {
    /// Where in the pod, a JSON Pointer.
    pub(super) path: String,
    pub(super) message: String,
    pub(super) remedy: String,
    /// Whether it is surely a mistake, and not a field of a later version.
    pub(super) sure: bool,
}

/// A type of the API (`kubernetes/api core/v1/types.go`).
#[derive(Debug)]
struct Kind {
    /// What a person calls it.
    name: &'static str,
    /// Where a field of it belongs.
    home: &'static str,
    /// Whether it is small and settled enough that every other field is a mistake. Of others only what
    /// is nearly a field of theirs, or is one of another type, is said: they grow with each version.
    closed: bool,
    fields: &'static [&'static str],
}

const POD_SPEC: Kind = Kind {
    name: "a pod's `spec`",
    home: "the pod's `spec`",
    closed: false,
    fields: &[
        "activeDeadlineSeconds",
        "affinity",
        "automountServiceAccountToken",
        "containers",
        "dnsConfig",
        "dnsPolicy",
        "enableServiceLinks",
        "ephemeralContainers",
        "hostAliases",
        "hostIPC",
        "hostNetwork",
        "hostPID",
        "hostUsers",
        "hostname",
        "hostnameOverride",
        "imagePullSecrets",
        "initContainers",
        "nodeName",
        "nodeSelector",
        "os",
        "overhead",
        "preemptionPolicy",
        "priority",
        "priorityClassName",
        "readinessGates",
        "resourceClaims",
        "resources",
        "restartPolicy",
        "runtimeClassName",
        "schedulerName",
        "schedulingGates",
        "securityContext",
        "serviceAccount",
        "serviceAccountName",
        "setHostnameAsFQDN",
        "shareProcessNamespace",
        "subdomain",
        "terminationGracePeriodSeconds",
        "tolerations",
        "topologySpreadConstraints",
        "volumes",
        "workloadRef",
    ],
};

const POD_SECURITY: Kind = Kind {
    name: "a pod's `securityContext`",
    home: "the pod's `spec.securityContext`",
    closed: true,
    fields: &[
        "appArmorProfile",
        "fsGroup",
        "fsGroupChangePolicy",
        "runAsGroup",
        "runAsNonRoot",
        "runAsUser",
        "seLinuxChangePolicy",
        "seLinuxOptions",
        "seccompProfile",
        "supplementalGroups",
        "supplementalGroupsPolicy",
        "sysctls",
        "windowsOptions",
    ],
};

const CONTAINER: Kind = Kind {
    name: "a container",
    home: "the container itself",
    closed: false,
    fields: &[
        "args",
        "command",
        "env",
        "envFrom",
        "image",
        "imagePullPolicy",
        "lifecycle",
        "livenessProbe",
        "name",
        "ports",
        "readinessProbe",
        "resizePolicy",
        "resources",
        "restartPolicy",
        "restartPolicyRules",
        "securityContext",
        "startupProbe",
        "stdin",
        "stdinOnce",
        "targetContainerName",
        "terminationMessagePath",
        "terminationMessagePolicy",
        "tty",
        "volumeDevices",
        "volumeMounts",
        "workingDir",
    ],
};

const CONTAINER_SECURITY: Kind = Kind {
    name: "a container's `securityContext`",
    home: "the container's `securityContext`",
    closed: true,
    fields: &[
        "allowPrivilegeEscalation",
        "appArmorProfile",
        "capabilities",
        "privileged",
        "procMount",
        "readOnlyRootFilesystem",
        "runAsGroup",
        "runAsNonRoot",
        "runAsUser",
        "seLinuxOptions",
        "seccompProfile",
        "windowsOptions",
    ],
};

const CAPABILITIES: Kind = Kind {
    name: "`capabilities`",
    home: "`securityContext.capabilities` of the container",
    closed: true,
    fields: &["add", "drop"],
};

const PROFILE: Kind = Kind {
    name: "a profile",
    home: "the profile",
    closed: true,
    fields: &["localhostProfile", "type"],
};

const RESOURCES: Kind = Kind {
    name: "`resources`",
    home: "`resources`",
    closed: true,
    fields: &["claims", "limits", "requests"],
};

const VOLUME_MOUNT: Kind = Kind {
    name: "a volume mount",
    home: "the volume mount",
    closed: true,
    fields: &[
        "mountPath",
        "mountPropagation",
        "name",
        "readOnly",
        "recursiveReadOnly",
        "subPath",
        "subPathExpr",
    ],
};

const HOST_PATH: Kind =
    Kind { name: "`hostPath`", home: "`hostPath`", closed: true, fields: &["path", "type"] };

/// Where a field that is in the wrong place may belong, the likeliest first.
const HOMES: [&Kind; 4] = [&CONTAINER_SECURITY, &POD_SECURITY, &CONTAINER, &POD_SPEC];

/// A field that stands where another must.
#[derive(Debug)]
pub(super) struct Misspelt<'a> {
    /// Where in the object, a JSON Pointer.
    pub(super) path: String,
    /// What is there, as far as a sentence repeats it.
    pub(super) shown: String,
    /// What must be there.
    pub(super) meant: &'a str,
}

/// The field that a person wrote for the first part of this place that is not there.
pub(super) fn misspelt<'a>(object: &Value, pointer: &'a str) -> Option<Misspelt<'a>> {
    let (mut above, mut path) = (object, String::new());
    for meant in pointer.split('/').skip(1) {
        if let Some(next) = above.get(meant) {
            path = format!("{path}/{meant}");
            above = next;
            continue;
        }
        let near = nearest(meant, above.as_object()?.keys().map(String::as_str))?;
        return Some(Misspelt { path: below(&path, near), shown: excerpt(near), meant });
    }
    None
}

/// A value of an annotation or a label that is no text, as the API server wants all of them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NoText {
    /// Where in the pod, a JSON Pointer.
    pub(super) path: String,
    pub(super) message: String,
    pub(super) remedy: String,
}

/// The annotations and labels of a pod for which the API server refuses it: YAML takes `true` and `1`
/// for no texts.
pub(super) fn no_texts(pod: &Value) -> Vec<NoText> {
    let mut found = Vec::new();
    for field in ["annotations", "labels"] {
        let path = format!("/metadata/{field}");
        let Some(entries) = pod.pointer(&path).and_then(Value::as_object) else { continue };
        for (key, value) in entries {
            let kind = match value {
                Value::String(_) | Value::Null => continue,
                Value::Bool(_) => "a boolean",
                Value::Number(_) => "a number",
                Value::Array(_) => "a list",
                Value::Object(_) => "a mapping",
            };
            let remedy = match value {
                Value::Bool(_) | Value::Number(_) => format!("write `\"{value}\"`, in quotes"),
                _ => "write a text, in quotes".to_owned(),
            };
            let message = format!(
                "the value of `{}` is {kind} and no text: the API server refuses the object",
                excerpt(key)
            );
            found.push(NoText { path: below(&path, key), message, remedy });
        }
    }
    found
}

/// The fields of a pod that the API server drops.
pub(super) fn unknown(pod: &Value) -> Vec<Unknown> {
    let mut found = Vec::new();
    let Some(spec) = pod.get("spec") else { return found };
    check(&POD_SPEC, spec, "/spec", &mut found);
    if let Some(context) = spec.get("securityContext") {
        security(&POD_SECURITY, context, "/spec/securityContext", &mut found);
    }
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for (index, item) in items(spec, list) {
            container(item, &format!("/spec/{list}/{index}"), &mut found);
        }
    }
    for (index, volume) in items(spec, "volumes") {
        if let Some(host_path) = volume.get("hostPath") {
            check(&HOST_PATH, host_path, &format!("/spec/volumes/{index}/hostPath"), &mut found);
        }
    }
    found
}

fn container(item: &Value, path: &str, found: &mut Vec<Unknown>) {
    check(&CONTAINER, item, path, found);
    if let Some(context) = item.get("securityContext") {
        let path = format!("{path}/securityContext");
        security(&CONTAINER_SECURITY, context, &path, found);
        if let Some(capabilities) = context.get("capabilities") {
            check(&CAPABILITIES, capabilities, &format!("{path}/capabilities"), found);
        }
    }
    if let Some(resources) = item.get("resources") {
        check(&RESOURCES, resources, &format!("{path}/resources"), found);
    }
    for (index, mount) in items(item, "volumeMounts") {
        check(&VOLUME_MOUNT, mount, &format!("{path}/volumeMounts/{index}"), found);
    }
}

fn security(kind: &Kind, context: &Value, path: &str, found: &mut Vec<Unknown>) {
    check(kind, context, path, found);
    for profile in ["appArmorProfile", "seccompProfile"] {
        if let Some(value) = context.get(profile) {
            check(&PROFILE, value, &format!("{path}/{profile}"), found);
        }
    }
}

fn check(kind: &Kind, value: &Value, path: &str, found: &mut Vec<Unknown>) {
    let Some(fields) = value.as_object() else { return };
    for key in fields.keys().filter(|key| !kind.fields.contains(&key.as_str())) {
        // Directives of a strategic merge patch (`$patch: delete`) and places for YAML anchors.
        if key.starts_with('$') || key.starts_with("x-") {
            continue;
        }
        let home = HOMES.into_iter().find(|home| home.fields.contains(&key.as_str()));
        let near = nearest(key, kind.fields.iter().copied());
        let remedy = match (home, near) {
            (Some(home), _) => format!("it belongs in {}", home.home),
            (None, Some(near)) => format!("did you mean `{near}`?"),
            (None, None) if kind.closed => {
                format!("its fields are {}", kind.fields.join(", "))
            }
            (None, None) => continue,
        };
        let shown = excerpt(key);
        found.push(Unknown {
            path: below(path, key),
            message: format!(
                "`{shown}` is no field of {}: the API server drops it, or refuses the object where \
                 it validates strictly",
                kind.name
            ),
            remedy,
            sure: home.is_some() || near.is_some(),
        });
    }
}

/// The place of a field below another place.
fn below(path: &str, key: &str) -> String {
    format!("{path}/{}", key.replace('~', "~0").replace('/', "~1"))
}

fn items<'a>(value: &'a Value, list: &str) -> impl Iterator<Item = (usize, &'a Value)> {
    value.get(list).and_then(Value::as_array).into_iter().flatten().enumerate()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn says_the_nearest_name_or_the_right_place() {
        let pod = json!({"spec": {
            "privileged": true,
            "hostPid": true,
            "futureField": 1,
            "securityContext": {"runAsUser": 0, "privileged": true},
            "containers": [{
                "name": "c",
                "mirrorVolumeMounts": true,
                "volumeMount": [],
                "capabilities": {},
                "securityContext": {
                    "priviledged": true,
                    "Privileged": true,
                    "capabilities": {"allowPrivilegeEscalation": true, "add": [], "$patch": "replace"},
                    "seccompProfile": {"type": "Localhost", "localHostProfile": "x"},
                    "anything": 1,
                },
                "volumeMounts": [{"name": "v", "mountPath": "/x", "propagation": "Bidirectional"}],
            }],
            "volumes": [{"name": "v", "hostPath": {"path": "/dev/fuse", "kind": "CharDevice"}}],
        }});
        let seen: Vec<(String, String)> =
            unknown(&pod).into_iter().map(|found| (found.path, found.remedy)).collect();
        let security = "it belongs in the container's `securityContext`";
        let context = "/spec/containers/0/securityContext";
        let all = CONTAINER_SECURITY.fields.join(", ");
        let mounts = VOLUME_MOUNT.fields.join(", ");
        for (path, remedy) in [
            ("/spec/privileged".to_owned(), security),
            ("/spec/hostPid".to_owned(), "did you mean `hostPID`?"),
            ("/spec/securityContext/privileged".to_owned(), security),
            ("/spec/containers/0/volumeMount".to_owned(), "did you mean `volumeMounts`?"),
            ("/spec/containers/0/capabilities".to_owned(), ""),
            (format!("{context}/priviledged"), "did you mean `privileged`?"),
            (format!("{context}/Privileged"), "did you mean `privileged`?"),
            (format!("{context}/anything"), &format!("its fields are {all}")),
            (
                format!("{context}/seccompProfile/localHostProfile"),
                "did you mean `localhostProfile`?",
            ),
            (format!("{context}/capabilities/allowPrivilegeEscalation"), security),
            (
                "/spec/containers/0/volumeMounts/0/propagation".to_owned(),
                &format!("its fields are {mounts}"),
            ),
            ("/spec/volumes/0/hostPath/kind".to_owned(), "its fields are path, type"),
        ] {
            let remedy = if remedy.is_empty() { security } else { remedy };
            assert!(seen.contains(&(path.clone(), remedy.to_owned())), "{path}: {seen:#?}");
        }
        assert_eq!(seen.len(), 12, "{seen:#?}");
        assert_eq!(unknown(&pod).iter().filter(|found| !found.sure).count(), 3);
    }
}
