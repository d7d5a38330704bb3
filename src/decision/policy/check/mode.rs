//! What one mode adds, field by field, in the order of the schema.

use std::collections::BTreeSet;

use super::super::name;
use super::super::schema::{
    Mode, NodeOperator, NvidiaVisibleDevices, Profile, TaintEffect, Toleration, TolerationOperator,
};
use super::{Check, Place};
use crate::decision::plan::accelerator;
use crate::decision::quantity::Quantity;
use crate::decision::spelling;

impl Check<'_> {
    pub(super) fn mode(&mut self, at: &Place, mode: &mut Mode) {
        let mut seen = BTreeSet::new();
        for (index, resource) in mode.resources.iter().enumerate() {
            let place = at.key("resources").index(index);
            self.resource_name(&place.key("name"), &resource.name);
            self.once(&mut seen, &place.key("name"), &resource.name, "the resource");
        }
        if grants_nothing(mode) {
            self.error(
                at,
                "the mode grants nothing",
                "a pod would be told that it has the device",
                "name at least what brings the device: `resources`, `resourceClaims` or another field",
            );
        }
        self.claims(at, mode);
        self.capabilities(&at.key("capabilities"), &mut mode.capabilities);
        self.privileged(at, mode);
        if mode.host_users == Some(true) {
            self.error(
                &at.key("hostUsers"),
                "`hostUsers: true` is what every pod has anyway",
                "only `false` means something",
                "write `false` for a user namespace of the pod's own, or leave the field out",
            );
        }
        if let Some(class) = &mode.runtime_class_name
            && !name::is_dns_subdomain(class)
        {
            self.error(
                &at.key("runtimeClassName"),
                format!("`{class}` is no name of a RuntimeClass"),
                "not a DNS subdomain",
                "lower-case letters, digits, `-` and `.`",
            );
        }
        for (label, value) in &mode.node_selector {
            self.label(&at.key("nodeSelector"), label, value);
        }
        self.node_affinity(&at.key("nodeAffinity"), mode);
        for (index, toleration) in mode.tolerations.iter().enumerate() {
            self.toleration(&at.key("tolerations").index(index), toleration);
        }
        self.environment(&at.key("env"), mode);
        self.volumes(at, mode);
        self.profiles(at, mode);
        for (annotation, value) in &mode.pod_annotations {
            self.pod_annotation(&at.key("podAnnotations"), annotation, value);
        }
        let mut seen = BTreeSet::new();
        for (index, gate) in mode.scheduling_gates.iter().enumerate() {
            let place = at.key("schedulingGates").index(index);
            if !name::is_qualified_name(gate) {
                self.error(
                    &place,
                    format!("`{gate}` is no name of a scheduling gate"),
                    "not a qualified name",
                    "as in `vendor.example/gate`",
                );
            }
            self.once(&mut seen, &place, gate, "the scheduling gate");
        }
    }

    fn claims(&mut self, at: &Place, mode: &Mode) {
        let mut seen = BTreeSet::new();
        for (index, claim) in mode.resource_claims.iter().enumerate() {
            let place = at.key("resourceClaims").index(index);
            self.dns_label(&place.key("name"), &claim.name);
            self.once(&mut seen, &place.key("name"), &claim.name, "the claim");
            if !name::is_dns_subdomain(&claim.resource_claim_template_name) {
                self.error(
                    &place.key("resourceClaimTemplateName"),
                    format!(
                        "`{}` is no name of a ResourceClaimTemplate",
                        claim.resource_claim_template_name
                    ),
                    "not a DNS subdomain",
                    "lower-case letters, digits, `-` and `.`",
                );
            }
            if let Some(request) = &claim.request {
                self.dns_label(&place.key("request"), request);
            }
        }
    }

    fn capabilities(&mut self, at: &Place, capabilities: &mut [String]) {
        let mut seen = BTreeSet::new();
        for (index, capability) in capabilities.iter_mut().enumerate() {
            let place = at.index(index);
            let upper = capability.to_ascii_uppercase();
            let bare = upper.strip_prefix("CAP_").unwrap_or(&upper).to_owned();
            if bare == "ALL" {
                self.error(
                    &place,
                    "`ALL` is every capability, which is not the least",
                    "name the capabilities",
                    "the ones that the device needs, such as `SYS_ADMIN`",
                );
            } else if !name::CAPABILITIES.contains(&bare.as_str()) {
                let valid = name::CAPABILITIES.iter().copied();
                self.unknown(&place, format!("`{capability}` is no capability"), &bare, valid, "runtimes ignore an unknown capability or fail the container; see capabilities(7)".to_owned());
            } else if bare != *capability {
                self.note(&place, format!("`{capability}` is read as `{bare}`"), "containerd and runc ignore `CAP_SYS_ADMIN` in silence: Kubernetes spells capabilities in upper case without `CAP_`");
            }
            self.once(&mut seen, &place, &bare, "the capability");
            *capability = bare;
        }
    }

    fn privileged(&mut self, at: &Place, mode: &Mode) {
        match (mode.privileged, &mode.host_path) {
            (true, None) => self.error(&at.key_of("privileged"), "`privileged: true` without `hostPath`", "which device is it for?", "name the device in `hostPath`; without one, use `resources` and `capabilities`"),
            (false, Some(_)) => self.error(&at.key_of("hostPath"), "`hostPath` without `privileged: true`", "open() would fail with EPERM", "the device cgroup denies a device that only a hostPath brings; use `resources` of a device plugin"),
            (true, Some(_)) | (false, None) => {}
        }
        if let Some(host_path) = &mode.host_path {
            let place = at.key("hostPath").key("path");
            self.absolute_path(&place, &host_path.path);
            if !host_path.path.starts_with("/dev/") {
                self.error(
                    &place,
                    format!("`{}` is no device", host_path.path),
                    "not below `/dev`",
                    "the hatch is for devices of the node, such as `/dev/fuse`",
                );
            }
        }
        if mode.privileged {
            if mode.allow_privilege_escalation == Some(false) {
                self.error(
                    &at.key("allowPrivilegeEscalation"),
                    "`privileged: true` beside `allowPrivilegeEscalation: false`",
                    "the API server refuses the two together",
                    "leave `allowPrivilegeEscalation` out",
                );
            }
            if mode.host_users == Some(false) {
                self.error(&at.key("hostUsers"), "`hostUsers: false` beside `hostPath`", "the container would not start", "a device node cannot be idmapped; use `resources` instead of `privileged` and `hostPath`");
            }
        }
    }

    fn node_affinity(&mut self, at: &Place, mode: &Mode) {
        for (index, requirement) in mode.node_affinity.iter().enumerate() {
            let place = at.index(index);
            self.label_key(&place.key("key"), &requirement.key);
            let expected = match requirement.operator {
                NodeOperator::In | NodeOperator::NotIn if requirement.values.is_empty() => {
                    "at least one value"
                }
                NodeOperator::Exists | NodeOperator::DoesNotExist
                    if !requirement.values.is_empty() =>
                {
                    "no values"
                }
                NodeOperator::Gt | NodeOperator::Lt if !matches!(requirement.values.as_slice(), [number] if number.parse::<i64>().is_ok()) => {
                    "one whole number"
                }
                _ => "",
            };
            if !expected.is_empty() {
                self.error(
                    &place,
                    format!("`{:?}` takes {expected}", requirement.operator),
                    expected,
                    "the API server refuses the pod otherwise",
                );
            }
            for (index, value) in requirement.values.iter().enumerate() {
                self.label_value(&place.key("values").index(index), value);
            }
        }
    }

    fn toleration(&mut self, at: &Place, toleration: &Toleration) {
        if toleration.key.is_empty() {
            self.error(
                &at.key("key"),
                "a toleration without a key tolerates every taint",
                "name the taint",
                "the taint's key, such as `nvidia.com/gpu`",
            );
        } else {
            self.label_key(&at.key("key"), &toleration.key);
        }
        match (toleration.operator, &toleration.value) {
            (TolerationOperator::Exists, Some(_)) => {
                self.error(
                    &at.key("value"),
                    "a toleration with `operator: Exists` takes no value",
                    "the API server refuses the pod",
                    "leave `value` out, or write `operator: Equal`",
                );
            }
            (TolerationOperator::Equal, Some(value)) => self.label_value(&at.key("value"), value),
            (TolerationOperator::Equal, None) => {
                self.error(at, "a toleration with `operator: Equal` and no value matches only taints without one", "which value?", "write `operator: Exists` to tolerate every value, or `value: \"\"` if that is meant");
            }
            (TolerationOperator::Exists, None) => {}
        }
        if toleration.toleration_seconds.is_some()
            && toleration.effect != Some(TaintEffect::NoExecute)
        {
            self.error(
                &at.key("tolerationSeconds"),
                "`tolerationSeconds` goes with `effect: NoExecute` only",
                "the API server refuses the pod",
                "leave `tolerationSeconds` out",
            );
        }
    }

    fn environment(&mut self, at: &Place, mode: &Mode) {
        let gpu = mode.resources.iter().find(|resource| accelerator::is_gpu(&resource.name));
        let mut seen = BTreeSet::new();
        for (index, variable) in mode.env.iter().enumerate() {
            let place = at.index(index);
            if !name::is_environment_name(&variable.name) {
                self.error(
                    &place.key("name"),
                    format!("`{}` is no name of an environment variable", variable.name),
                    "not a name",
                    "letters, digits, `_`, `-` and `.`, not starting with a digit",
                );
            }
            self.once(&mut seen, &place.key("name"), &variable.name, "the variable");
            if variable.name == accelerator::NVIDIA_VISIBLE_DEVICES {
                if let Some(gpu) = gpu {
                    self.error(&place, format!("`{}` beside the GPU resource `{}`", variable.name, gpu.name), "it would override the device plugin's allocation", "leave the variable out: the pod's own environment wins over what the device plugin sets");
                } else if !matches!(variable.value.as_str(), "none" | "void") {
                    self.error(
                        &place.key("value"),
                        format!(
                            "`{}={}` hands out GPUs that nobody counts",
                            variable.name, variable.value
                        ),
                        "only `none` or `void`",
                        "ask for a GPU resource instead",
                    );
                } else if mode.nvidia_visible_devices == Some(NvidiaVisibleDevices::Void)
                    && variable.value != "void"
                {
                    self.error(
                        &place,
                        "`env` and `nvidiaVisibleDevices: Void` contradict each other",
                        "one of the two",
                        "write `nvidiaVisibleDevices: Keep`",
                    );
                }
            }
        }
        if mode.nvidia_visible_devices == Some(NvidiaVisibleDevices::Void)
            && let Some(gpu) = gpu
        {
            let place = Place(at.0.iter().take(at.0.len().saturating_sub(1)).cloned().collect());
            self.error(
                &place.key("nvidiaVisibleDevices"),
                format!("`nvidiaVisibleDevices: Void` beside the GPU resource `{}`", gpu.name),
                "it would hide the GPU",
                "leave it out, or write `Keep`",
            );
        }
    }

    fn volumes(&mut self, at: &Place, mode: &Mode) {
        let mut names = BTreeSet::new();
        for (index, volume) in mode.volumes.iter().enumerate() {
            let place = at.key("volumes").index(index);
            self.dns_label(&place.key("name"), &volume.name);
            self.once(&mut names, &place.key("name"), &volume.name, "the volume");
            if let Some(limit) = &volume.empty_dir.size_limit
                && !Quantity::parse(limit).is_some_and(Quantity::is_positive)
            {
                self.error(
                    &place.key("emptyDir").key("sizeLimit"),
                    format!("`{limit}` is no size"),
                    "not a quantity",
                    "as in `8Gi`",
                );
            }
            if !mode.mounts.iter().any(|mount| mount.name == volume.name) {
                self.error(
                    &place.key("name"),
                    format!("the volume `{}` is mounted nowhere", volume.name),
                    "no mount names it",
                    "add it to `mounts`, or leave it out",
                );
            }
        }
        let mut paths = BTreeSet::new();
        for (index, mount) in mode.mounts.iter().enumerate() {
            let place = at.key("mounts").index(index);
            // Volumes that are written and not here have the wrong shape, which is told as that.
            let misshapen = mode.volumes.is_empty() && self.is_written(&at.key("volumes"));
            if !names.contains(&mount.name) && !misshapen {
                let volumes = mode.volumes.iter().map(|volume| volume.name.as_str());
                let help = format!("volumes of this mode: {}", spelling::list(volumes.clone()));
                self.unknown(
                    &place.key("name"),
                    format!("the mode has no volume `{}`", mount.name),
                    &mount.name,
                    volumes,
                    help,
                );
            }
            self.absolute_path(&place.key("mountPath"), &mount.mount_path);
            self.once(&mut paths, &place.key("mountPath"), &mount.mount_path, "the mount path");
        }
    }

    /// The API server's own rules (`kubernetes pkg/apis/core/validation`, `ValidateAppArmorProfileField`
    /// and `validateLocalDescendingPath`).
    fn profiles(&mut self, at: &Place, mode: &Mode) {
        if let Some(Profile::Localhost(profile)) = &mode.app_armor_profile
            && (profile.trim() != profile || profile.is_empty())
        {
            self.error(
                &at.key("appArmorProfile"),
                format!("`{profile}` is no name of an AppArmor profile"),
                "white space around it",
                "the name as `aa-status` prints it on the node",
            );
        }
        if let Some(Profile::Localhost(profile)) = &mode.seccomp_profile
            && (profile.starts_with('/') || profile.split('/').any(|part| part == ".."))
        {
            self.error(
                &at.key("seccompProfile"),
                format!("`{profile}` is no file below the kubelet's seccomp folder"),
                "the API server refuses the pod",
                "a relative path without `..`, as in `Localhost/profiles/fuse.json`",
            );
        }
    }

    fn pod_annotation(&mut self, list: &Place, key: &str, value: &str) {
        let at = &list.key_of(key);
        let (prefix, _) = key.split_once('/').unwrap_or_default();
        if !name::is_qualified_name(key) {
            self.error(
                at,
                format!("`{key}` is no annotation key"),
                "not a qualified name",
                "as in `vendor.example/key`",
            );
        } else if prefix == self.settings.prefix {
            self.error(
                at,
                format!("`{key}` is under devgrant's own prefix"),
                "a grant cannot ask for another",
                "name the other device's resources in this mode instead",
            );
        } else if key.starts_with("container.apparmor.security.beta.kubernetes.io/") {
            self.error(
                at,
                "AppArmor is set by `appArmorProfile`",
                "names one container",
                "use the field `appArmorProfile` of the mode",
            );
        } else if prefix == "cdi.k8s.io" {
            self.error(
                at,
                "`cdi.k8s.io` annotations of a pod hand out devices that nobody counts",
                "not counted by the kubelet",
                "use `resources`, or `resourceClaims` of a DRA driver",
            );
        } else if OF_KUBERNETES.contains(&prefix) || prefix.ends_with(".kubernetes.io") {
            self.error(
                at,
                format!("`{prefix}` annotations mean something to Kubernetes itself"),
                "not a runtime's",
                "only annotations that a container runtime reads, such as CRI-O's, belong into a mode",
            );
        } else if CRIO_DEVICES.contains(&key) && !value.split(',').all(is_plain_device) {
            self.error(
                &list.key(key),
                format!("`{value}` is no list of devices"),
                "not plain",
                "paths below `/dev` with commas, as in `/dev/fuse,/dev/net/tun`",
            );
        }
    }
}

/// Prefixes of Kubernetes' own annotations that do not end in `.kubernetes.io`.
const OF_KUBERNETES: &[&str] = &["kubernetes.io", "k8s.io"];
/// CRI-O's annotations for devices (`cri-o pkg/annotations`).
const CRIO_DEVICES: &[&str] = &["io.kubernetes.cri-o.Devices", "devices.crio.io"];

/// Whether an item of CRI-O's list is a device of the node under its own path.
fn is_plain_device(item: &str) -> bool {
    let below = item.trim().strip_prefix("/dev/");
    below.is_some_and(|path| {
        let mut parts = path.split('/');
        !path.contains(':')
            && parts.all(|part| !matches!(part, "" | "." | ".."))
            && !matches!(path, "mem" | "kmem" | "port")
    })
}

/// Whether a mode leaves a pod as it is.
fn grants_nothing(mode: &Mode) -> bool {
    let bare = Mode { description: String::new(), nvidia_visible_devices: None, ..mode.clone() };
    let keep = |profile: &Option<Profile>| profile.as_ref().is_none_or(|own| *own == Profile::Keep);
    keep(&bare.app_armor_profile)
        && keep(&bare.seccomp_profile)
        && serde_json::to_value(Mode { app_armor_profile: None, seccomp_profile: None, ..bare })
            .ok()
            == serde_json::to_value(Mode::default()).ok()
}
