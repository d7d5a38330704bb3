//! From policy files to a [`PolicySet`].

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::check;
use super::problem::{Problem, Severity};
use super::schema::{DevicePolicy, LegacyAction, LegacyWhen, Mode, Spec};
use super::shape;
use super::tree::{Node, Step};
use crate::decision::settings::Settings;

/// One policy file as it was read: its name for messages, and its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicySource {
    /// The file's name, as messages show it.
    pub file: String,
    /// Its text, YAML.
    pub text: String,
}

/// A set of policies, compiled: one that exists is valid.
#[derive(Debug, Clone)]
pub struct PolicySet {
    settings: Settings,
    digest: String,
    notes: Vec<Problem>,
    policies: Vec<Policy>,
    /// The places of those that look at pods which ask for nothing.
    looking_unasked: Vec<usize>,
}

/// One compiled policy.
#[derive(Debug, Clone)]
pub struct Policy {
    name: String,
    file: String,
    spec: Spec,
}

impl PolicySet {
    /// Compiles all files, or says everything that is wrong with them, in the order given.
    pub fn compile(sources: &[PolicySource], settings: Settings) -> Result<Self, Vec<Problem>> {
        let schema = json_schema();
        let mut problems = Vec::new();
        let mut files = Vec::new();
        for source in sources {
            files.extend(File::read(source, &schema, &settings, &mut problems));
        }
        check_together(&files, &mut problems);
        // Ordered by file, then by place, as a reader goes through them.
        let order = |file: &str| sources.iter().position(|source| source.file == file);
        problems.sort_by_key(|problem| (order(&problem.file), problem.span.start));
        if problems.iter().any(|problem| problem.severity == Severity::Error) {
            return Err(problems);
        }
        let mut policies: Vec<Policy> = files.into_iter().map(|file| file.policy).collect();
        policies.sort_by(|one, other| one.spec.device.cmp(&other.spec.device));
        let digest = digest(&policies);
        let places = policies.iter().enumerate().filter(|(_, policy)| policy.looks_unasked());
        let looking_unasked = places.map(|(place, _)| place).collect();
        Ok(Self { settings, digest, notes: problems, policies, looking_unasked })
    }

    /// The settings of the decision.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// `sha256:` and 64 hexadecimal digits over the compiled policies: the same for files that differ
    /// in comments and layout only.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Notes from compiling: things that were read as another spelling than the one written.
    pub fn notes(&self) -> &[Problem] {
        &self.notes
    }

    /// The policies, in the order of their devices' names.
    pub fn policies(&self) -> &[Policy] {
        &self.policies
    }

    /// The policy for a device.
    pub fn find(&self, device: &str) -> Option<&Policy> {
        let found = self.policies.binary_search_by(|policy| policy.device().cmp(device)).ok()?;
        self.policies.get(found)
    }

    /// The policies that look at pods which ask for nothing, in the order of their devices' names.
    pub fn looking_unasked(&self) -> impl Iterator<Item = &Policy> {
        self.looking_unasked.iter().filter_map(|place| self.policies.get(*place))
    }

    /// The devices that there are policies for.
    pub fn devices(&self) -> impl Iterator<Item = &str> + Clone {
        self.policies.iter().map(Policy::device)
    }
}

impl Policy {
    /// The policy's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file it was read from.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The device, which is the annotation key behind the prefix.
    pub fn device(&self) -> &str {
        &self.spec.device
    }

    /// The policy as compiled: defaults filled in, capabilities spelled as Kubernetes does.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Whether the old shape of the device concerns the policy in pods that do not ask for it.
    fn looks_unasked(&self) -> bool {
        self.spec.legacy.as_ref().is_some_and(|legacy| {
            legacy.when == LegacyWhen::Always && legacy.action != LegacyAction::Ignore
        })
    }

    /// A mode by its name, with the name as the policy has it.
    pub fn mode(&self, name: &str) -> Option<(&str, &Mode)> {
        self.spec.modes.get_key_value(name).map(|(name, mode)| (name.as_str(), mode))
    }
}

/// The JSON Schema of a policy file.
pub fn json_schema() -> Value {
    schemars::schema_for!(DevicePolicy).to_value()
}

/// A policy with the places of its file.
struct File {
    tree: Node,
    policy: Policy,
}

impl File {
    /// Reads one file; `None` if not enough of it fits to be looked at together with the others.
    fn read(
        source: &PolicySource,
        schema: &Value,
        settings: &Settings,
        problems: &mut Vec<Problem>,
    ) -> Option<Self> {
        let error = |span, message: String, help: &str| Problem {
            severity: Severity::Error,
            file: source.file.clone(),
            span,
            message,
            label: String::new(),
            help: Some(help.to_owned()),
        };
        if source.text.trim().is_empty() {
            problems.push(error(
                0..0,
                "the file is empty".to_owned(),
                "write a DevicePolicy, or remove the file",
            ));
            return None;
        }
        let tree = match Node::parse(&source.text) {
            Ok(tree) => tree,
            Err(unreadable) => {
                let message = format!("the file is not one YAML document: {}", unreadable.message);
                problems.push(error(unreadable.span, message, "one file holds one DevicePolicy"));
                return None;
            }
        };
        let fitting = shape::fit(schema, &tree, &mut |finding| {
            problems.push(finding.in_file(&source.file));
        })?;
        let policy: DevicePolicy = match serde_json::from_value(fitting) {
            Ok(policy) => policy,
            Err(mismatch) => {
                problems.push(error(
                    tree.span,
                    format!("the file does not fit the schema: {mismatch}"),
                    "compare it with policies/schema.json",
                ));
                return None;
            }
        };
        let DevicePolicy { metadata, mut spec, .. } = policy;
        check::check(&source.file, &tree, &metadata, &mut spec, settings, problems);
        let policy = Policy { name: metadata.name, file: source.file.clone(), spec };
        Some(Self { tree, policy })
    }

    fn problem(&self, path: &[Step], message: String, label: &str, help: String) -> Problem {
        Problem {
            severity: Severity::Error,
            file: self.policy.file.clone(),
            span: self.tree.span_at(path),
            message,
            label: label.to_owned(),
            help: Some(help),
        }
    }
}

/// What only shows when all files lie side by side.
fn check_together(files: &[File], problems: &mut Vec<Problem>) {
    let key = |name: &str| Step::Key(name.to_owned());
    let mut by_device: BTreeMap<&str, &File> = BTreeMap::new();
    let mut by_name: BTreeMap<&str, &File> = BTreeMap::new();
    for file in files {
        let policy = &file.policy;
        if let Some(first) = by_device.insert(policy.device(), file) {
            problems.push(file.problem(
                &[key("spec"), key("device")],
                format!("a second policy for the device `{}`", policy.device()),
                "this device has a policy already",
                format!(
                    "`{}` is the other one; one file, one device: merge their modes",
                    first.policy.file
                ),
            ));
        }
        if let Some(first) = by_name.insert(policy.name(), file) {
            problems.push(file.problem(
                &[key("metadata"), key("name")],
                format!("a second policy of the name `{}`", policy.name()),
                "this name is taken",
                format!(
                    "`{}` is the other one; the stamp and the metrics tell policies apart by name",
                    first.policy.file
                ),
            ));
        }
    }
    // A device that is carried by what is itself carried would make a decision depend on an order.
    for file in files {
        for (index, resource) in file.policy.spec.carried_by.iter().enumerate() {
            let chained = files.iter().find(|other| {
                let spec = &other.policy.spec;
                !spec.carried_by.is_empty()
                    && spec
                        .modes
                        .values()
                        .flat_map(|mode| &mode.resources)
                        .any(|granted| granted.name == *resource)
            });
            if let Some(other) = chained {
                let help = if other.policy.device() == file.policy.device() {
                    "a device cannot carry itself".to_owned()
                } else {
                    format!(
                        "the policy for `{}` grants it and is itself `carriedBy` something",
                        other.policy.device()
                    )
                };
                problems.push(file.problem(
                    &[key("spec"), key("carriedBy"), Step::Index(index)],
                    format!("`{resource}` cannot carry `{}`", file.policy.device()),
                    "carried by what is itself carried",
                    help,
                ));
            }
        }
    }
}

fn digest(policies: &[Policy]) -> String {
    let mut hash = Sha256::new();
    for policy in policies {
        hash.update(policy.name.as_bytes());
        hash.update([0]);
        // A compiled policy has string keys and plain values only, so that it always has a JSON form.
        hash.update(serde_json::to_vec(&policy.spec).unwrap_or_default());
        hash.update([0]);
    }
    let mut digest = "sha256:".to_owned();
    for byte in hash.finalize() {
        // Writing to a String does not fail.
        let _ = write!(digest, "{byte:02x}");
    }
    digest
}
