//! What the shape of a policy cannot say: names, references, combinations that would never work.
//!
//! Each rule is one that the API server, the kubelet or a container runtime would otherwise tell the
//! author of a pod, or nobody. `check/mode.rs` looks at what one mode adds, `check/allow.rs` at who may ask.

mod allow;
mod mode;

use std::collections::BTreeSet;

use super::name;
use super::problem::{Problem, Severity};
use super::schema::{
    Legacy, LegacyAction, LegacyWhen, Metadata, Mode, OmittableField, Requested, ResourceCount,
    RuntimeClassVariant, Spec,
};
use super::tree::{Node, Step};
use crate::decision::finding::entries;
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
        } else if !spec.modes.contains_key(&spec.default_mode)
            && !self.is_written(&at.key("modes").key(&spec.default_mode))
        {
            let modes = spec.modes.keys().map(String::as_str);
            let message = format!(
                "`defaultMode` names the mode `{}`, which does not exist",
                spec.default_mode
            );
            let help = format!("modes: {}", spelling::list(modes.clone()));
            self.unknown(&at.key("defaultMode"), message, &spec.default_mode, modes, help);
        }
        self.default_mode(&at.key("defaultMode"), spec);
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
        if let Some(legacy) = &spec.legacy {
            self.legacy(&at.key("legacy").key("hostPaths"), &legacy.host_paths);
            self.unasked(at, legacy, spec);
        }
        for code in spec.conflicts.keys() {
            let place = at.key("conflicts").key_of(code);
            let codes: Vec<String> = entries().iter().map(|entry| entry.code.to_string()).collect();
            let codes = codes.iter().map(String::as_str);
            if !codes.clone().any(|known| known == code) {
                let help = format!("codes: {}", spelling::list(codes.clone()));
                self.unknown(
                    &place,
                    format!("`{code}` is no code of a finding"),
                    code,
                    codes,
                    help,
                );
            }
        }
        for (class, variant) in &spec.runtime_classes {
            self.variant(&at.key("runtimeClasses"), class, variant, &spec.modes);
        }
    }

    /// `"true"` should mean something to somebody.
    fn default_mode(&mut self, at: &Place, spec: &Spec) {
        let guarded = spec.modes.get(&spec.default_mode).is_some_and(Mode::must_be_named);
        if guarded && spec.allow.is_none() {
            self.error(
                at,
                format!("nobody may use the default mode `{}`", spec.default_mode),
                "must be named in a rule",
                "a privileged mode, and one with a capability such as `SYS_MODULE`, is open only where a rule in `allow` names it in `modes`",
            );
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

    fn legacy(&mut self, at: &Place, paths: &[String]) {
        if paths.is_empty() {
            self.error(
                at,
                "`hostPaths` is empty, so that no pod has the old shape",
                "no paths",
                "name the device on the node, such as `/dev/fuse`, or leave `legacy` out",
            );
        }
        for (index, path) in paths.iter().enumerate() {
            let place = at.index(index);
            self.absolute_path(&place, path);
            let (_, inner) = path.split_at_checked(1).unwrap_or_default();
            let star = inner.strip_suffix('*').unwrap_or(inner);
            if !path.starts_with("/dev/") || star.contains('*') || path.ends_with("/*") {
                self.error(
                    &place,
                    format!("`{path}` is no device"),
                    "not one below `/dev`",
                    "as in `/dev/fuse` or `/dev/nvidia*`: below `/dev`, with a `*` at the end of a name only",
                );
            }
        }
    }

    /// A policy that looks at pods unasked must have something to give them.
    fn unasked(&mut self, at: &Place, legacy: &Legacy, spec: &Spec) {
        if legacy.when != LegacyWhen::Always || legacy.action != LegacyAction::Rewrite {
            return;
        }
        let when = at.key("legacy").key("when");
        if !legacy.privileged {
            self.error(
                &when,
                "`when: Always` looks at privileged containers, and the policy leaves `privileged` alone",
                "would change nothing",
                "write `privileged: true` beside it, or `when: Asked`",
            );
        }
        let brings = |mode: &Mode| !mode.privileged && mode.brings_device();
        let whole = spec.modes.get(&spec.default_mode).and_then(Mode::changes_the_pod);
        if let Some(field) = whole {
            self.error(
                &when,
                format!(
                    "`when: Always` gives the default mode, and `{}` has `{field}`, which changes the whole pod",
                    spec.default_mode
                ),
                "the other containers asked for nothing either",
                "make a mode the default that changes its container only, or write `when: Asked`",
            );
        }
        let brings = spec.modes.get(&spec.default_mode).is_none_or(brings);
        if !brings {
            self.error(
                &when,
                format!("`when: Always` gives the default mode, and `{}` brings no device", spec.default_mode),
                "would change nothing",
                "make a mode with `resources`, `resourceClaims` or `podAnnotations` the default, or write `when: Asked`",
            );
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
        // The pod's author chooses the RuntimeClass, so that it must not open what a mode closes.
        let capabilities = variant.omit.contains(&OmittableField::Capabilities);
        for (index, field) in variant.omit.iter().enumerate() {
            let closes =
                matches!(field, OmittableField::HostUsers | OmittableField::NvidiaVisibleDevices);
            if closes && !capabilities {
                self.error(
                    &at.key(class).key("omit").index(index),
                    "leaving this out while capabilities stay gives more than the mode does",
                    "whoever writes the pod chooses its RuntimeClass",
                    "leave out `capabilities` as well, or remove it",
                );
            }
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

    /// Whether the file has anything there. What has the wrong shape is told as that, and not a second
    /// time as missing.
    fn is_written(&self, at: &Place) -> bool {
        self.tree.has(&at.0)
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
