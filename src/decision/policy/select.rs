//! select: who may ask for a device, and in which modes.

use super::Policy;
use super::schema::{AllowRule, LabelOperator, LabelSelector, Mode};
use crate::decision::namespace::Namespace;

/// Who asks: the namespace and the service account of the pod.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The pod's namespace.
    pub namespace: &'a Namespace,
    /// The pod's service account; `default` if it names none.
    pub service_account: &'a str,
}

/// Why a mode is granted to a subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allowed {
    /// The policy has no rules: every opted-in namespace may ask.
    Everyone,
    /// The rule at this place of `spec.allow` lets it.
    Rule(usize),
}

impl Policy {
    /// Whether a subject may ask for a mode, and by which rule: the first that lets it.
    pub fn allows(&self, subject: Subject<'_>, mode_name: &str, mode: &Mode) -> Option<Allowed> {
        let Some(rules) = &self.spec().allow else {
            return (!mode.must_be_named()).then_some(Allowed::Everyone);
        };
        rules
            .iter()
            .position(|rule| rule.covers(subject) && rule.lists(mode_name, mode))
            .map(Allowed::Rule)
    }

    /// The modes that a subject may ask for.
    pub fn allowed_modes<'a>(&'a self, subject: Subject<'a>) -> impl Iterator<Item = &'a str> {
        let modes = self.spec().modes.iter();
        modes
            .filter(move |(name, mode)| self.allows(subject, name, mode).is_some())
            .map(|(name, _)| name.as_str())
    }
}

impl AllowRule {
    /// Whether the rule is about this namespace and service account.
    fn covers(&self, subject: Subject<'_>) -> bool {
        let namespace = self.namespace_selector.as_ref();
        let accounts = self.service_accounts.as_ref();
        namespace.is_none_or(|selector| selector.matches(subject.namespace))
            && accounts.is_none_or(|patterns| {
                patterns.iter().any(|pattern| glob(pattern, subject.service_account))
            })
    }

    /// Whether the rule is about this mode. Some must be named: a rule that was written without thinking
    /// of them does not open them.
    fn lists(&self, mode_name: &str, mode: &Mode) -> bool {
        match &self.modes {
            Some(modes) => modes.iter().any(|name| name == mode_name),
            None => !mode.must_be_named(),
        }
    }
}

/// Capabilities that are the node itself, and that no shipped mode needs: to load modules, to write
/// memory and ports, to read every file, to trace every process (capabilities(7)). `SYS_ADMIN` is not
/// among them only because it is what FUSE and its kind cannot do without.
pub(super) const OF_THE_NODE: &[&str] = &[
    "BPF",
    "DAC_READ_SEARCH",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "SYS_BOOT",
    "SYS_MODULE",
    "SYS_PTRACE",
    "SYS_RAWIO",
];

impl Mode {
    /// Whether only a rule that names the mode opens it: it is privileged, or has a capability that is as
    /// good as that and holds on the node.
    pub fn must_be_named(&self) -> bool {
        let of_the_node = |name: &String| OF_THE_NODE.contains(&name.as_str());
        self.privileged
            || (self.host_users != Some(false) && self.capabilities.iter().any(of_the_node))
    }

    /// The first field of the mode, if any, that changes more of a pod than one container: where or how
    /// all of it runs.
    pub fn changes_the_pod(&self) -> Option<&'static str> {
        let fields = [
            ("hostUsers", self.host_users.is_some()),
            ("runtimeClassName", self.runtime_class_name.is_some()),
            ("nodeSelector", !self.node_selector.is_empty()),
            ("nodeAffinity", !self.node_affinity.is_empty()),
            ("podAnnotations", !self.pod_annotations.is_empty()),
            ("schedulingGates", !self.scheduling_gates.is_empty()),
        ];
        fields.into_iter().find(|(_, is_set)| *is_set).map(|(field, _)| field)
    }

    /// Whether the mode has the kubelet bring a device. CRI-O brings devices by an annotation.
    pub fn brings_device(&self) -> bool {
        !(self.resources.is_empty()
            && self.resource_claims.is_empty()
            && self.pod_annotations.is_empty())
    }
}

impl LabelSelector {
    /// Whether all requirements hold; a selector without any matches everything
    /// (`kubernetes/apimachinery pkg/labels/selector.go`).
    pub fn matches(&self, namespace: &Namespace) -> bool {
        let labels = &namespace.labels;
        self.match_labels.iter().all(|(key, value)| namespace.has_label(key, value))
            && self.match_expressions.iter().all(|requirement| {
                let value = labels.get(&requirement.key);
                match requirement.operator {
                    LabelOperator::DoesNotExist => value.is_none(),
                    LabelOperator::Exists => value.is_some(),
                    LabelOperator::In => {
                        value.is_some_and(|value| requirement.values.contains(value))
                    }
                    LabelOperator::NotIn => {
                        !value.is_some_and(|value| requirement.values.contains(value))
                    }
                }
            })
    }
}

/// Whether `text` is `pattern`, where `*` stands for any characters. Linear in the text for each `*`.
fn glob(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let Some(last) = parts.next_back() else {
        return rest.is_empty();
    };
    for part in parts {
        match rest.split_once(part) {
            Some((_, behind)) => rest = behind,
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_any_characters() {
        for (pattern, text) in [
            ("builder", "builder"),
            ("*", ""),
            ("*", "x"),
            ("ci-*", "ci-"),
            ("ci-*", "ci-1"),
            ("*-ci", "a-ci"),
            ("a*b*c", "a1b2b3c"),
            ("a**c", "abc"),
        ] {
            assert!(glob(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [
            ("builder", "builder2"),
            ("builder", "bu"),
            ("ci-*", "ci"),
            ("a*a", "a"),
            ("a*b*c", "acb"),
            ("", "x"),
        ] {
            assert!(!glob(pattern, text), "{pattern} {text}");
        }
    }
}
