//! Reading a pod: a tolerant, borrowed view of the fields that a decision looks at.
//!
//! Nothing is written through this view: a round trip would lose every field that it does not know.
//! `null` reads as absent everywhere, as the API server reads it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserializer, Visitor};
use serde::{Deserialize, de};
use serde_json::value::RawValue;

use super::quantity::Quantity;

/// What decides about a pod without its spec.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Metadata<'a> {
    /// `metadata.name`; absent while a generated name is still to come.
    #[serde(borrow)]
    pub name: Option<Text<'a>>,
    /// `metadata.generateName`.
    #[serde(borrow)]
    pub generate_name: Option<Text<'a>>,
    /// `metadata.annotations`.
    #[serde(borrow)]
    pub annotations: Option<BTreeMap<Text<'a>, Option<Text<'a>>>>,
}

/// A pod, as far as a decision reads it.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Pod<'a> {
    #[serde(borrow)]
    pub(super) spec: Option<Spec<'a>>,
}

impl<'a> Pod<'a> {
    /// Its spec, if it has one.
    pub fn spec(&self) -> Option<&Spec<'a>> {
        self.spec.as_ref()
    }
}

/// A pod's spec, as far as a decision reads it.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the fields are the API's own, kubernetes/api core/v1/types.go")]
pub struct Spec<'a> {
    #[serde(borrow, deserialize_with = "null_is_default")]
    pub containers: Vec<Container<'a>>,
    #[serde(borrow, deserialize_with = "null_is_default")]
    pub init_containers: Vec<Container<'a>>,
    #[serde(borrow, deserialize_with = "null_is_default")]
    pub ephemeral_containers: Vec<Named<'a>>,
    #[serde(borrow, deserialize_with = "null_is_default")]
    pub volumes: Vec<Volume<'a>>,
    #[serde(borrow, deserialize_with = "null_is_default")]
    pub node_selector: BTreeMap<Text<'a>, Option<Text<'a>>>,
    #[serde(borrow)]
    pub affinity: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "null_is_default")]
    pub tolerations: Vec<Toleration<'a>>,
    #[serde(borrow)]
    pub runtime_class_name: Option<Text<'a>>,
    pub host_users: Option<bool>,
    pub host_network: Option<bool>,
    #[serde(rename = "hostPID")]
    pub host_pid: Option<bool>,
    #[serde(rename = "hostIPC")]
    pub host_ipc: Option<bool>,
    #[serde(borrow)]
    pub os: Option<Named<'a>>,
    #[serde(borrow)]
    pub node_name: Option<Text<'a>>,
    #[serde(borrow, deserialize_with = "null_is_default")]
    pub scheduling_gates: Vec<Named<'a>>,
    #[serde(borrow, deserialize_with = "null_is_default")]
    pub resource_claims: Vec<PodResourceClaim<'a>>,
    #[serde(borrow)]
    pub service_account_name: Option<Text<'a>>,
    #[serde(borrow)]
    pub security_context: Option<PodSecurityContext<'a>>,
}

/// Where a container stands in the pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ContainerIndex {
    /// Its list.
    pub list: ContainerList,
    /// Its place in that list.
    pub index: usize,
}

/// As a JSON Pointer into the pod.
impl fmt::Display for ContainerIndex {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "/spec/{}/{}", self.list.field(), self.index)
    }
}

/// The two lists whose containers can be granted a device. Ephemeral containers cannot have
/// resources (`kubernetes pkg/apis/core/validation`, `validateEphemeralContainers`) and never exist
/// when a pod is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ContainerList {
    /// `spec.initContainers`, sidecars included.
    Init,
    /// `spec.containers`.
    Regular,
}

impl ContainerList {
    /// The field of the spec.
    pub fn field(self) -> &'static str {
        match self {
            Self::Init => "initContainers",
            Self::Regular => "containers",
        }
    }
}

impl<'a> Spec<'a> {
    /// Every container that can be granted a device, init containers first, as they start.
    pub fn all_containers(&self) -> impl Iterator<Item = (ContainerIndex, &Container<'a>)> {
        let place = |list| move |(index, container)| (ContainerIndex { list, index }, container);
        let init = self.init_containers.iter().enumerate().map(place(ContainerList::Init));
        init.chain(self.containers.iter().enumerate().map(place(ContainerList::Regular)))
    }

    /// The container at a place.
    pub fn container(&self, at: ContainerIndex) -> Option<&Container<'a>> {
        match at.list {
            ContainerList::Init => self.init_containers.get(at.index),
            ContainerList::Regular => self.containers.get(at.index),
        }
    }

    /// Whether the pod says that it is for Windows nodes.
    pub fn is_windows(&self) -> bool {
        self.os.as_ref().is_some_and(|os| os.name == "windows")
    }
}

/// One container.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the fields are the API's own, kubernetes/api core/v1/types.go")]
pub struct Container<'a> {
    #[serde(borrow, deserialize_with = "null_is_default")]
    pub name: Text<'a>,
    #[serde(borrow)]
    pub restart_policy: Option<Text<'a>>,
    #[serde(borrow)]
    pub image: Option<&'a RawValue>,
    #[serde(borrow)]
    pub command: Option<&'a RawValue>,
    #[serde(borrow)]
    pub args: Option<&'a RawValue>,
    #[serde(borrow)]
    pub lifecycle: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "null_is_default")]
    pub resources: Resources<'a>,
    #[serde(borrow, deserialize_with = "null_is_default")]
    pub security_context: SecurityContext<'a>,
    #[serde(borrow, deserialize_with = "null_is_default")]
    pub env: Vec<EnvironmentVariable<'a>>,
    #[serde(borrow, deserialize_with = "null_is_default")]
    pub env_from: Vec<&'a RawValue>,
    #[serde(borrow, deserialize_with = "null_is_default")]
    pub volume_mounts: Vec<VolumeMount<'a>>,
    #[serde(borrow, deserialize_with = "null_is_default")]
    pub volume_devices: Vec<&'a RawValue>,
}

/// A container's resources.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the fields are the API's own, kubernetes/api core/v1/types.go")]
pub struct Resources<'a> {
    #[serde(borrow, deserialize_with = "null_is_default")]
    pub limits: BTreeMap<Text<'a>, Amount<'a>>,
    #[serde(borrow, deserialize_with = "null_is_default")]
    pub requests: BTreeMap<Text<'a>, Amount<'a>>,
    #[serde(borrow, deserialize_with = "null_is_default")]
    pub claims: Vec<ContainerClaim<'a>>,
}

impl Resources<'_> {
    /// The resources of a kind of which the container gets any.
    pub fn present(&self, is_such: impl Fn(&str) -> bool) -> impl Iterator<Item = &str> {
        let named = self.limits.iter().chain(&self.requests);
        let such = named.filter(move |(name, _)| is_such(name.as_str()));
        such.filter(|(_, own)| own.quantity().is_some_and(Quantity::is_positive))
            .map(|(name, _)| name.as_str())
    }
}

/// A reference of a container to a claim of the pod.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the fields are the API's own, kubernetes/api core/v1/types.go")]
pub struct ContainerClaim<'a> {
    #[serde(borrow, deserialize_with = "null_is_default")]
    pub name: Text<'a>,
    #[serde(borrow)]
    pub request: Option<Text<'a>>,
}

/// A container's security context.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the fields are the API's own, kubernetes/api core/v1/types.go")]
pub struct SecurityContext<'a> {
    pub privileged: Option<bool>,
    pub run_as_user: Option<i64>,
    pub run_as_non_root: Option<bool>,
    #[serde(borrow)]
    pub proc_mount: Option<Text<'a>>,
    pub allow_privilege_escalation: Option<bool>,
    #[serde(borrow, deserialize_with = "null_is_default")]
    pub capabilities: Capabilities<'a>,
    #[serde(borrow)]
    pub app_armor_profile: Option<ProfileField<'a>>,
    #[serde(borrow)]
    pub seccomp_profile: Option<ProfileField<'a>>,
}

/// The pod's own security context, the default of its containers'.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the fields are the API's own, kubernetes/api core/v1/types.go")]
pub struct PodSecurityContext<'a> {
    pub run_as_user: Option<i64>,
    pub run_as_non_root: Option<bool>,
    #[serde(borrow)]
    pub app_armor_profile: Option<ProfileField<'a>>,
    #[serde(borrow)]
    pub seccomp_profile: Option<ProfileField<'a>>,
}

/// Added and dropped capabilities.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the fields are the API's own, kubernetes/api core/v1/types.go")]
pub struct Capabilities<'a> {
    #[serde(borrow, deserialize_with = "null_is_default")]
    pub add: Vec<Text<'a>>,
    #[serde(borrow, deserialize_with = "null_is_default")]
    pub drop: Vec<Text<'a>>,
}

/// An AppArmor or seccomp profile.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the fields are the API's own, kubernetes/api core/v1/types.go")]
pub struct ProfileField<'a> {
    #[serde(borrow, rename = "type", deserialize_with = "null_is_default")]
    pub kind: Text<'a>,
    #[serde(borrow)]
    pub localhost_profile: Option<Text<'a>>,
}

/// An environment variable.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the fields are the API's own, kubernetes/api core/v1/types.go")]
pub struct EnvironmentVariable<'a> {
    #[serde(borrow, deserialize_with = "null_is_default")]
    pub name: Text<'a>,
    #[serde(borrow)]
    pub value: Option<Text<'a>>,
    #[serde(borrow)]
    pub value_from: Option<&'a RawValue>,
}

impl EnvironmentVariable<'_> {
    /// Whether it plainly has this value.
    pub fn is(&self, value: &str) -> bool {
        self.value_from.is_none() && self.value.as_ref().map_or("", Text::as_str) == value
    }
}

/// A mount of a volume in a container.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the fields are the API's own, kubernetes/api core/v1/types.go")]
pub struct VolumeMount<'a> {
    #[serde(borrow, deserialize_with = "null_is_default")]
    pub name: Text<'a>,
    #[serde(borrow, deserialize_with = "null_is_default")]
    pub mount_path: Text<'a>,
    #[serde(borrow)]
    pub mount_propagation: Option<Text<'a>>,
    #[serde(borrow)]
    pub sub_path: Option<Text<'a>>,
    #[serde(borrow)]
    pub sub_path_expr: Option<Text<'a>>,
}

/// A volume of the pod.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the fields are the API's own, kubernetes/api core/v1/types.go")]
pub struct Volume<'a> {
    #[serde(borrow, deserialize_with = "null_is_default")]
    pub name: Text<'a>,
    #[serde(borrow)]
    pub host_path: Option<HostPath<'a>>,
    #[serde(borrow)]
    pub empty_dir: Option<EmptyDir<'a>>,
}

/// A path of the node.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the fields are the API's own, kubernetes/api core/v1/types.go")]
pub struct HostPath<'a> {
    #[serde(borrow, deserialize_with = "null_is_default")]
    pub path: Text<'a>,
}

/// An empty directory.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the fields are the API's own, kubernetes/api core/v1/types.go")]
pub struct EmptyDir<'a> {
    #[serde(borrow)]
    pub medium: Option<Text<'a>>,
    #[serde(borrow)]
    pub size_limit: Option<Amount<'a>>,
}

/// A toleration. Operators that are not known are kept as they are and cover nothing.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the fields are the API's own, kubernetes/api core/v1/types.go")]
pub struct Toleration<'a> {
    #[serde(borrow, deserialize_with = "null_is_default")]
    pub key: Text<'a>,
    #[serde(borrow, deserialize_with = "null_is_default")]
    pub operator: Text<'a>,
    #[serde(borrow, deserialize_with = "null_is_default")]
    pub value: Text<'a>,
    #[serde(borrow, deserialize_with = "null_is_default")]
    pub effect: Text<'a>,
    pub toleration_seconds: Option<i64>,
}

/// A claim of the pod.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the fields are the API's own, kubernetes/api core/v1/types.go")]
pub struct PodResourceClaim<'a> {
    #[serde(borrow, deserialize_with = "null_is_default")]
    pub name: Text<'a>,
    #[serde(borrow)]
    pub resource_claim_template_name: Option<Text<'a>>,
}

/// A thing with a name.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the field is the API's own, kubernetes/api core/v1/types.go")]
pub struct Named<'a> {
    #[serde(borrow, deserialize_with = "null_is_default")]
    pub name: Text<'a>,
}

/// Text of the body, borrowed where it has no escapes. Unlike `Cow`, it borrows inside of lists and
/// maps as well.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Text<'a>(Cow<'a, str>);

impl Text<'_> {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for Text<'_> {
    fn from(text: String) -> Self {
        Self(Cow::Owned(text))
    }
}

impl std::borrow::Borrow<str> for Text<'_> {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl PartialEq<str> for Text<'_> {
    fn eq(&self, other: &str) -> bool {
        self.0 == other
    }
}

impl PartialEq<&str> for Text<'_> {
    fn eq(&self, other: &&str) -> bool {
        self.0 == *other
    }
}

impl fmt::Display for Text<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;

        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a string, in quotes")
            }

            fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }

        deserializer.deserialize_str(TextVisitor)
    }
}

/// An amount as it is written: a JSON string, or a number, which stays what it is
/// (`kubernetes/apimachinery pkg/api/resource/quantity.go`, `UnmarshalJSON`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Amount<'a>(Cow<'a, str>);

impl Amount<'_> {
    /// The text, without quotes.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What it says, if that is a quantity.
    pub fn quantity(&self) -> Option<Quantity> {
        Quantity::parse(&self.0)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Amount<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&RawValue>::deserialize(deserializer)?.get();
        if !raw.starts_with('"') {
            return Ok(Self(Cow::Borrowed(raw)));
        }
        let Text(text) = serde_json::from_str(raw).map_err(de::Error::custom)?;
        Ok(Self(text))
    }
}

/// `null` is what an absent field is.
fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}
