//! The shape of a policy file: one file, one device.
//!
//! These types are what an author writes. `policies/schema.json` is generated from them, the loader
//! walks a file by that same schema, and their documentation is what an editor shows. Nothing here is
//! checked beyond its shape; compiling does that and makes the types that decide.

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::decision::finding::Effect;
pub use crate::decision::settings::OnInvalid;

/// A device that pods may ask for by annotation, and how each mode of it is granted.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DevicePolicy {
    /// Always `devgrant/v1alpha1`.
    pub api_version: ApiVersion,
    /// Always `DevicePolicy`.
    pub kind: Kind,
    /// The name of the policy, which the stamp and the metrics carry.
    pub metadata: Metadata,
    /// What is granted, and to whom.
    pub spec: Spec,
}

/// The version of this schema.
#[derive(Debug, Clone, Copy, Deserialize, Serialize, JsonSchema)]
pub enum ApiVersion {
    /// The first version.
    #[serde(rename = "devgrant/v1alpha1")]
    V1Alpha1,
}

/// The kind of this file.
#[derive(Debug, Clone, Copy, Deserialize, Serialize, JsonSchema)]
pub enum Kind {
    /// A policy for one device.
    DevicePolicy,
}

/// What names the policy.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Metadata {
    /// A DNS label, unique in the policy set.
    pub name: String,
}

/// What is granted, and to whom.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Spec {
    /// The annotation key behind the prefix: `fuse` for `devices.example/fuse`. A DNS label.
    pub device: String,
    /// A sentence for people: what the device is for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Whether the policy changes pods, or only says what it would do.
    #[serde(default)]
    pub enforcement: Enforcement,
    /// What happens to an ask for this device that is wrong or not allowed.
    #[serde(default)]
    pub on_invalid: OnInvalid,
    /// How many may be asked for.
    #[serde(default)]
    pub count: Count,
    /// Who may ask. Absent: every opted-in namespace, every mode but privileged ones. Rules are `ORed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow: Option<Vec<AllowRule>>,
    /// The mode that `"true"` and a plain count mean.
    pub default_mode: String,
    /// The ways to grant the device, by name.
    pub modes: BTreeMap<String, Mode>,
    /// Extended resources that already bring the device: where a container has one, no `resources` of
    /// this device are added.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub carried_by: Vec<String>,
    /// The shape that this device replaces: what pods say today.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub legacy: Option<Legacy>,
    /// What becomes of a pod with one of these findings, where the answer is to be another than the
    /// usual one. `devgrant explain DG001` says what each is about.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub conflicts: BTreeMap<String, Effect>,
    /// What to leave out under a RuntimeClass, by its name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub runtime_classes: BTreeMap<String, RuntimeClassVariant>,
}

/// Whether a policy changes pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
pub enum Enforcement {
    /// Grants are written into the pod.
    #[default]
    Enforce,
    /// Decide, log, count and warn; change nothing and refuse nothing.
    Shadow,
}

/// How many of the device a pod may ask for, for each container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Count {
    /// What an ask without a count means.
    #[schemars(range(min = 1, max = 1024))]
    pub default: u32,
    /// The most that one ask may name.
    #[schemars(range(min = 1, max = 1024))]
    pub max: u32,
}

impl Default for Count {
    fn default() -> Self {
        Self { default: 1, max: 1 }
    }
}

/// Who may ask: all parts that are there must match.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AllowRule {
    /// Which namespaces, by their labels. Absent: every opted-in namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<LabelSelector>,
    /// Which service accounts of those namespaces, by name; `*` stands for any characters. Absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_accounts: Option<Vec<String>>,
    /// Which modes. Absent: every mode but privileged ones and those with a capability like
    /// `SYS_MODULE`, which must be named here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modes: Option<Vec<String>>,
}

/// A Kubernetes label selector: everything in it must match.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LabelSelector {
    /// Labels that must have exactly these values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
    /// Further requirements.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub match_expressions: Vec<LabelRequirement>,
}

/// One requirement on a label.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LabelRequirement {
    /// The label key.
    pub key: String,
    /// How the label is compared.
    pub operator: LabelOperator,
    /// The values for `In` and `NotIn`; none for the others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

/// The operators of a label selector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum LabelOperator {
    /// The label is absent.
    DoesNotExist,
    /// The label is there.
    Exists,
    /// The label has one of the values.
    In,
    /// The label is absent or has none of the values.
    NotIn,
}

/// One way to grant the device. Every field is optional; nothing is added that is not named.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Mode {
    /// A sentence for people: when to take this mode.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Extended resources for each granted container, in requests and limits.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<Resource>,
    /// Dynamic Resource Allocation claims, by template only: the webhook never creates objects.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resource_claims: Vec<ResourceClaim>,
    /// Capabilities to add, without `CAP_`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<String>,
    /// The legacy hatch: a privileged container. Needs `hostPath`, and a rule in `allow` that names
    /// this mode.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub privileged: bool,
    /// The device on the node, for `privileged` only: an unprivileged container cannot open it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_path: Option<HostPath>,
    /// `securityContext.allowPrivilegeEscalation` of each granted container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_privilege_escalation: Option<bool>,
    /// `Keep`, `RuntimeDefault`, `Unconfined` or `Localhost/<profile>`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app_armor_profile: Option<Profile>,
    /// `Keep`, `RuntimeDefault`, `Unconfined` or `Localhost/<file>`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seccomp_profile: Option<Profile>,
    /// `false`: the pod gets its own user namespace, and capabilities hold in there only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_users: Option<bool>,
    /// The RuntimeClass of the pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime_class_name: Option<String>,
    /// Node labels that the pod needs, all of them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// Requirements that are added to every required node selector term of the pod.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub node_affinity: Vec<NodeRequirement>,
    /// Tolerations of the pod.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<Toleration>,
    /// Environment of each granted container.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<EnvironmentVariable>,
    /// What the NVIDIA runtime may make of a granted container. It takes `SYS_ADMIN` for privileged and
    /// would hand out every GPU. Absent: `Void` where the mode adds `SYS_ADMIN`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nvidia_visible_devices: Option<NvidiaVisibleDevices>,
    /// Volumes of the pod, for `mounts`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<Volume>,
    /// Mounts of each granted container; each names one of `volumes`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<Mount>,
    /// Annotations of the pod, for runtimes that read them (CRI-O).
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub pod_annotations: BTreeMap<String, String>,
    /// Scheduling gates of the pod, which something else must open.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub scheduling_gates: Vec<String>,
}

/// An AppArmor or seccomp profile.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub enum Profile {
    /// Leave what the pod says.
    Keep,
    /// A profile on the node, by its name (AppArmor) or file (seccomp).
    Localhost(String),
    /// The container runtime's own profile.
    RuntimeDefault,
    /// No profile.
    Unconfined,
}

/// A text that names no profile.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is no profile; write Keep, RuntimeDefault, Unconfined or Localhost/<profile>")]
pub struct BadProfile(String);

impl TryFrom<String> for Profile {
    type Error = BadProfile;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        match text.as_str() {
            "Keep" => Ok(Self::Keep),
            "RuntimeDefault" => Ok(Self::RuntimeDefault),
            "Unconfined" => Ok(Self::Unconfined),
            other => match other.strip_prefix("Localhost/") {
                Some(profile) if !profile.is_empty() => Ok(Self::Localhost(profile.to_owned())),
                _ => Err(BadProfile(text)),
            },
        }
    }
}

impl From<Profile> for String {
    fn from(profile: Profile) -> Self {
        match profile {
            Profile::Keep => "Keep".to_owned(),
            Profile::Localhost(profile) => format!("Localhost/{profile}"),
            Profile::RuntimeDefault => "RuntimeDefault".to_owned(),
            Profile::Unconfined => "Unconfined".to_owned(),
        }
    }
}

impl JsonSchema for Profile {
    fn schema_name() -> Cow<'static, str> {
        "Profile".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Keep, RuntimeDefault, Unconfined or Localhost/<profile>.",
            "type": "string",
            "format": "profile",
            "pattern": "^(Keep|RuntimeDefault|Unconfined|Localhost/.+)$",
        })
    }
}

/// An extended resource, served by a device plugin or by a DRA driver.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Resource {
    /// Its name: `smarter-devices/fuse`.
    pub name: String,
    /// How many: a whole number, or `Requested` for the count that was asked for.
    #[serde(default)]
    pub count: ResourceCount,
}

/// How many of an extended resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum ResourceCount {
    /// Always this many.
    Fixed(#[schemars(range(min = 1, max = 1024))] u32),
    /// As many as the annotation asks for.
    Requested(Requested),
}

impl Default for ResourceCount {
    fn default() -> Self {
        Self::Fixed(1)
    }
}

/// The word `Requested`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum Requested {
    /// As many as the annotation asks for.
    Requested,
}

/// A DRA claim that the pod gets from a template (`resource.k8s.io/v1`).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ResourceClaim {
    /// The name of the claim in the pod, a DNS label.
    pub name: String,
    /// A ResourceClaimTemplate in the pod's namespace.
    pub resource_claim_template_name: String,
    /// One request of the claim, for containers that need only that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
}

/// A device on the node.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HostPath {
    /// An absolute path without `..`; it is mounted at the same path.
    pub path: String,
    /// What must be there.
    #[serde(rename = "type")]
    pub kind: HostPathType,
}

/// What a hostPath must be (`kubernetes/api core/v1/types.go`, `HostPathType`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum HostPathType {
    /// A block device.
    BlockDevice,
    /// A character device.
    CharDevice,
    /// A directory.
    Directory,
    /// A file.
    File,
    /// A Unix socket.
    Socket,
}

/// A requirement on the labels of a node.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeRequirement {
    /// The label key.
    pub key: String,
    /// How the label is compared.
    pub operator: NodeOperator,
    /// Several for `In` and `NotIn`, one number for `Gt` and `Lt`, none for the others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

/// The operators of a node selector requirement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum NodeOperator {
    /// The label is absent.
    DoesNotExist,
    /// The label is there.
    Exists,
    /// The label is a number above the value.
    Gt,
    /// The label has one of the values.
    In,
    /// The label is a number below the value.
    Lt,
    /// The label is absent or has none of the values.
    NotIn,
}

/// A toleration of a node taint.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Toleration {
    /// The taint key.
    pub key: String,
    /// How the taint is compared.
    #[serde(default)]
    pub operator: TolerationOperator,
    /// The taint value, for `Equal` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The taint effect. Absent: every effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<TaintEffect>,
    /// How long, in seconds, the pod stays on a node with the taint; for `NoExecute` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub toleration_seconds: Option<i64>,
}

/// How a toleration compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
pub enum TolerationOperator {
    /// Key and value are equal.
    #[default]
    Equal,
    /// The key is there.
    Exists,
}

/// What a taint does to pods that do not tolerate it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum TaintEffect {
    /// They are evicted.
    NoExecute,
    /// They are not scheduled.
    NoSchedule,
    /// They are scheduled elsewhere if that is possible.
    PreferNoSchedule,
}

/// An environment variable with a plain value.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EnvironmentVariable {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// What becomes of `NVIDIA_VISIBLE_DEVICES` in a granted container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum NvidiaVisibleDevices {
    /// Never written: this mode hands out GPUs, or GPUs are no concern here.
    Keep,
    /// `void` in a container that requests no GPU.
    Void,
}

/// A volume that needs nothing from the node: emptyDir only.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Volume {
    /// Its name in the pod, a DNS label.
    pub name: String,
    /// An empty directory that lives as long as the pod.
    pub empty_dir: EmptyDir,
}

/// An empty directory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct EmptyDir {
    /// `Memory` for tmpfs. Absent: the node's disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub medium: Option<Medium>,
    /// The most that it may hold, a quantity such as `8Gi`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_limit: Option<String>,
}

/// Where an empty directory is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum Medium {
    /// In memory.
    Memory,
}

/// A mount of one of the mode's volumes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Mount {
    /// The volume's name.
    pub name: String,
    /// An absolute path in the container.
    pub mount_path: String,
}

/// The shape that a device replaces: `privileged` and a hostPath of the device, in a pod that asks for
/// the device.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Legacy {
    /// The device on the node, by its paths; the last part of a path may end in `*`.
    pub host_paths: Vec<String>,
    /// Whether `privileged` goes with it, where it visibly serves nothing else.
    #[serde(default)]
    pub privileged: bool,
    /// What happens to a container of that shape that is granted the device.
    #[serde(default)]
    pub action: LegacyAction,
    /// Which pods it happens to.
    #[serde(default)]
    pub when: LegacyWhen,
}

/// What happens to a container of the old shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
pub enum LegacyAction {
    /// The pod is refused.
    Deny,
    /// Nothing, and nothing is said.
    Ignore,
    /// The hostPath, its mounts and `privileged` go.
    #[default]
    Rewrite,
    /// It stays as it is, with a warning.
    Warn,
}

/// Which pods of the old shape are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
pub enum LegacyWhen {
    /// All of the opted-in namespaces, as if those of the old shape asked for the default mode.
    Always,
    /// Those that ask for the device by annotation.
    #[default]
    Asked,
}

/// What a RuntimeClass makes unnecessary.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RuntimeClassVariant {
    /// The fields of the mode to leave out.
    pub omit: Vec<OmittableField>,
}

/// A field of a mode that a RuntimeClass may make unnecessary.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, JsonSchema,
)]
#[serde(rename_all = "camelCase")]
pub enum OmittableField {
    /// `appArmorProfile`
    AppArmorProfile,
    /// `capabilities`
    Capabilities,
    /// `hostUsers`
    HostUsers,
    /// `nvidiaVisibleDevices`
    NvidiaVisibleDevices,
    /// `resourceClaims`
    ResourceClaims,
    /// `resources`
    Resources,
    /// `seccompProfile`
    SeccompProfile,
    /// `tolerations`
    Tolerations,
}
