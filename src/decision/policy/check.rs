//! What the shape of a policy cannot say: names, references, combinations that would never work.
//!
//! Each rule is one that the API server, the kubelet or a container runtime would otherwise tell the
//! author of a pod, or nobody.

use std::collections::BTreeSet;

use super::name;
use super::problem::{Problem, Severity};
use super::schema::{
    AllowRule, LabelOperator, LabelRequirement, LabelSelector, Metadata, Mode, NodeOperator,
    NvidiaVisibleDevices, OmittableField, Requested, ResourceCount, RuntimeClassVariant, Spec,
    TaintEffect, Toleration, TolerationOperator,
};
use super::tree::{Node, Step};
use crate::decision::plan::accelerator;
use crate::decision::quantity::Quantity;
use crate::decision::settings::Settings;
use crate::decision::spelling;

/// Tells all problems of one policy, and normalises the spelling of its capabilities.
pub(super) fn check(
    file: &str,
    tree: &Node,
    metadata: &Metadata,
    spec: &mut Spec,
    settings: &Settings,
    problems: &mut Vec<Problem>,
) {
    let mut check = Check { file, tree, settings, problems };
    let root = Place::default();
    check.dns_label(&root.key("metadata").key("name"), &metadata.name);
    check.spec(&root.key("spec"), spec);
}

/// The way to a value of the file.
#[derive(Clone, Default)]
struct Place(Vec<Step>);

impl Place {
    fn key(&self, name: &str) -> Self {
        self.with(Step::Key(name.to_owned()))
    }

    fn key_of(&self, name: &str) -> Self {
        self.with(Step::KeyOf(name.to_owned()))
    }

    fn index(&self, index: usize) -> Self {
        self.with(Step::Index(index))
    }

    fn with(&self, step: Step) -> Self {
        let mut steps = self.0.clone();
        steps.push(step);
        Self(steps)
    }
}

struct Check<'a> {
    file: &'a str,
    tree: &'a Node,
    settings: &'a Settings,
    problems: &'a mut Vec<Problem>,
}

impl Check<'_> {
    fn spec(&mut self, at: &Place, spec: &mut Spec) {
        self.device(&at.key("device"), &spec.device);
        self.count(&at.key("count"), spec);
        if spec.modes.is_empty() {
            self.error(
                &at.key("modes"),
                "`modes` is empty",
                "at least one mode",
                "a policy without modes grants nothing; remove the file instead",
            );
        } else if !spec.modes.contains_key(&spec.default_mode) {
            let modes = spec.modes.keys().map(String::as_str);
            let message = format!(
                "`defaultMode` names the mode `{}`, which does not exist",
                spec.default_mode
            );
            let help = format!("modes: {}", spelling::list(modes.clone()));
            self.unknown(&at.key("defaultMode"), message, &spec.default_mode, modes, help);
        }
        for (mode_name, mode) in &mut spec.modes {
            let place = at.key("modes");
            if !name::is_mode_name(mode_name) {
                self.error(
                    &place.key_of(mode_name),
                    format!("`{mode_name}` cannot be the name of a mode"),
                    "not a mode name",
                    "lower-case letters, digits, `-` and `.`; not `true`, `false` or a number, which mean something else in an annotation",
                );
            }
            self.mode(&place.key(mode_name), mode);
        }
        self.allow(&at.key("allow"), spec);
        for (index, resource) in spec.carried_by.iter().enumerate() {
            self.resource_name(&at.key("carriedBy").index(index), resource);
        }
        for (class, variant) in &spec.runtime_classes {
            self.variant(&at.key("runtimeClasses"), class, variant, &spec.modes);
        }
    }

    fn device(&mut self, at: &Place, device: &str) {
        if matches!(device, "containers" | "granted" | "grant") {
            self.error(
                at,
                format!(
                    "`{device}` cannot be a device: the annotation key has a meaning of its own"
                ),
                "reserved",
                "choose another name",
            );
        } else {
            self.dns_label(at, device);
        }
    }

    fn count(&mut self, at: &Place, spec: &Spec) {
        if spec.count.default > spec.count.max {
            self.error(
                at,
                format!(
                    "`count.default` {} is more than `count.max` {}",
                    spec.count.default, spec.count.max
                ),
                "an ask without a count would always be refused",
                "raise `max` or lower `default`",
            );
        }
        let requested = |mode: &Mode| {
            mode.resources
                .iter()
                .any(|resource| resource.count == ResourceCount::Requested(Requested::Requested))
        };
        if spec.count.max > 1 && !spec.modes.values().any(requested) {
            self.error(at, "`count.max` is more than 1, and no mode has a resource with `count: Requested`", "no mode would heed the count", "write `count: Requested` beside the resource that is counted, or leave `count` out");
        }
    }

    fn mode(&mut self, at: &Place, mode: &mut Mode) {
        let mut seen = BTreeSet::new();
        for (index, resource) in mode.resources.iter().enumerate() {
            let place = at.key("resources").index(index);
            self.resource_name(&place.key("name"), &resource.name);
            self.once(&mut seen, &place.key("name"), &resource.name, "the resource");
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
        for annotation in mode.pod_annotations.keys() {
            self.pod_annotation(&at.key("podAnnotations").key_of(annotation), annotation);
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
            self.absolute_path(&at.key("hostPath").key("path"), &host_path.path);
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
            if !names.contains(&mount.name) {
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

    fn pod_annotation(&mut self, at: &Place, key: &str) {
        if !name::is_qualified_name(key) {
            self.error(
                at,
                format!("`{key}` is no annotation key"),
                "not a qualified name",
                "as in `vendor.example/key`",
            );
        } else if key.split_once('/').is_some_and(|(prefix, _)| prefix == self.settings.prefix) {
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
        }
    }

    fn allow(&mut self, at: &Place, spec: &Spec) {
        let Some(rules) = &spec.allow else { return };
        if rules.is_empty() {
            self.error(
                at,
                "`allow` is an empty list, so nobody could ask",
                "no rules",
                "leave `allow` out to let every opted-in namespace ask, or remove the file",
            );
        }
        for (index, rule) in rules.iter().enumerate() {
            self.rule(&at.index(index), rule, spec);
        }
    }

    fn rule(&mut self, at: &Place, rule: &AllowRule, spec: &Spec) {
        if let Some(selector) = &rule.namespace_selector {
            self.selector(&at.key("namespaceSelector"), selector);
        }
        if let Some(accounts) = &rule.service_accounts {
            if accounts.is_empty() {
                self.error(
                    &at.key("serviceAccounts"),
                    "`serviceAccounts` is an empty list, so that the rule never holds",
                    "no names",
                    "leave it out for every service account",
                );
            }
            for (index, pattern) in accounts.iter().enumerate() {
                let literal = pattern.replace('*', "a");
                if !name::is_dns_subdomain(&literal) {
                    self.error(&at.key("serviceAccounts").index(index), format!("`{pattern}` can match no service account"), "not a name", "a service account's name without its namespace; `*` stands for any characters");
                }
            }
        }
        if let Some(modes) = &rule.modes {
            if modes.is_empty() {
                self.error(
                    &at.key("modes"),
                    "`modes` is an empty list, so that the rule never holds",
                    "no modes",
                    "leave it out for every mode but privileged ones",
                );
            }
            for (index, mode) in modes.iter().enumerate() {
                if !spec.modes.contains_key(mode) {
                    let valid = spec.modes.keys().map(String::as_str);
                    let help = format!("modes: {}", spelling::list(valid.clone()));
                    self.unknown(
                        &at.key("modes").index(index),
                        format!("the policy has no mode `{mode}`"),
                        mode,
                        valid,
                        help,
                    );
                }
            }
        }
    }

    fn selector(&mut self, at: &Place, selector: &LabelSelector) {
        for (label, value) in &selector.match_labels {
            self.label(&at.key("matchLabels"), label, value);
        }
        for (index, requirement) in selector.match_expressions.iter().enumerate() {
            let place = at.key("matchExpressions").index(index);
            let LabelRequirement { key, operator, values } = requirement;
            self.label_key(&place.key("key"), key);
            let needs_values = matches!(operator, LabelOperator::In | LabelOperator::NotIn);
            if needs_values == values.is_empty() {
                let takes = if needs_values { "at least one value" } else { "no values" };
                self.error(
                    &place,
                    format!("`{operator:?}` takes {takes}"),
                    takes,
                    "as in any Kubernetes label selector",
                );
            }
            for (index, value) in values.iter().enumerate() {
                self.label_value(&place.key("values").index(index), value);
            }
        }
    }

    fn variant(
        &mut self,
        at: &Place,
        class: &str,
        variant: &RuntimeClassVariant,
        modes: &std::collections::BTreeMap<String, Mode>,
    ) {
        if !name::is_dns_subdomain(class) {
            self.error(
                &at.key_of(class),
                format!("`{class}` is no name of a RuntimeClass"),
                "not a DNS subdomain",
                "lower-case letters, digits, `-` and `.`",
            );
        }
        if variant.omit.is_empty() {
            self.error(
                &at.key(class),
                "`omit` is empty, so that the variant changes nothing",
                "no fields",
                "name the fields to leave out, or remove the variant",
            );
        }
        for (index, field) in variant.omit.iter().enumerate() {
            let used = modes.values().any(|mode| has_field(mode, *field));
            if !used {
                self.error(
                    &at.key(class).key("omit").index(index),
                    "no mode has this field, so that leaving it out changes nothing",
                    "used by no mode",
                    "remove it",
                );
            }
        }
    }

    fn label(&mut self, at: &Place, key: &str, value: &str) {
        self.label_key(&at.key_of(key), key);
        self.label_value(&at.key(key), value);
    }

    fn label_key(&mut self, at: &Place, key: &str) {
        if !name::is_qualified_name(key) {
            self.error(
                at,
                format!("`{key}` is no label key"),
                "not a qualified name",
                "as in `team` or `vendor.example/team`",
            );
        }
    }

    fn label_value(&mut self, at: &Place, value: &str) {
        if !name::is_label_value(value) {
            self.error(
                at,
                format!("`{value}` is no label value"),
                "not a label value",
                "at most 63 letters, digits, `-`, `_` or `.`",
            );
        }
    }

    fn dns_label(&mut self, at: &Place, text: &str) {
        if !name::is_dns_label(text) {
            self.error(
                at,
                format!("`{text}` is no DNS label"),
                "not a DNS label",
                "at most 63 lower-case letters, digits and `-`",
            );
        }
    }

    fn resource_name(&mut self, at: &Place, resource: &str) {
        if let Some(fault) = name::extended_resource_fault(resource) {
            self.error(
                at,
                format!("`{resource}` is no extended resource"),
                "the API server refuses the pod",
                fault,
            );
        }
    }

    fn absolute_path(&mut self, at: &Place, path: &str) {
        let mut parts = path.split('/').skip(1);
        let plain = path.starts_with('/')
            && path.len() > 1
            && parts.all(|part| !matches!(part, "" | "." | ".."));
        if !plain || path.contains(':') {
            self.error(
                at,
                format!("`{path}` is no absolute path"),
                "not absolute and plain",
                "as in `/dev/fuse`: no `..`, no `//`, no `:`, no slash at the end",
            );
        }
    }

    fn once(&mut self, seen: &mut BTreeSet<String>, at: &Place, name: &str, what: &str) {
        if !seen.insert(name.to_owned()) {
            self.error(
                at,
                format!("{what} `{name}` is named twice"),
                "again",
                "remove one of the two",
            );
        }
    }

    /// An error about a word, with the nearest valid one.
    fn unknown<'v>(
        &mut self,
        at: &Place,
        message: String,
        word: &str,
        valid: impl IntoIterator<Item = &'v str>,
        help: String,
    ) {
        let label = match spelling::nearest(word, valid) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "not known".to_owned(),
        };
        self.error(at, message, label, help);
    }

    fn error(
        &mut self,
        at: &Place,
        message: impl Into<String>,
        label: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.tell(Severity::Error, at, message.into(), label.into(), help.into());
    }

    fn note(&mut self, at: &Place, message: String, help: &str) {
        self.tell(Severity::Note, at, message, String::new(), help.to_owned());
    }

    fn tell(
        &mut self,
        severity: Severity,
        at: &Place,
        message: String,
        label: String,
        help: String,
    ) {
        self.problems.push(Problem {
            severity,
            file: self.file.to_owned(),
            span: self.tree.span_at(&at.0),
            message,
            label,
            help: Some(help),
        });
    }
}

/// Whether a mode has a field that a RuntimeClass may leave out.
fn has_field(mode: &Mode, field: OmittableField) -> bool {
    match field {
        OmittableField::AppArmorProfile => mode.app_armor_profile.is_some(),
        OmittableField::Capabilities => !mode.capabilities.is_empty(),
        OmittableField::HostUsers => mode.host_users.is_some(),
        // Where a mode adds SYS_ADMIN it says so without being written.
        OmittableField::NvidiaVisibleDevices => {
            mode.nvidia_visible_devices.is_some() || !mode.capabilities.is_empty()
        }
        OmittableField::ResourceClaims => !mode.resource_claims.is_empty(),
        OmittableField::Resources => !mode.resources.is_empty(),
        OmittableField::SeccompProfile => mode.seccomp_profile.is_some(),
        OmittableField::Tolerations => !mode.tolerations.is_empty(),
    }
}
