//! plan: the verdict, and what it consists of.
//!
//! Grants compose before they are rendered: what one device needs is judged in the pod as it will be
//! with all of them, so that neither the order of annotations nor that of policies changes anything.

pub mod accelerator;
mod compose;
mod legacy;
pub mod meaning;
mod node_path;
pub mod refusal;

pub use compose::compose;
pub(crate) use legacy::is_kubelet_plugin;
pub(super) use legacy::old_shape;
pub use legacy::{HostDevice, devices_of};
pub(super) use node_path::NodePaths;
pub use refusal::{Objection, Reason, Refusal};

use std::fmt;

use super::annotation::{Stamp, StampedGrant};
use super::finding::Finding;
use super::pod::ContainerIndex;
use super::policy::schema::{
    HostPath, NodeRequirement, Profile, ResourceClaim, Toleration, Volume,
};
use super::warning::Warning;

/// The most grants and operations of one pod. 50 containers with all 13 shipped devices are some 3,000; an answer of
/// 10,000 operations takes a few megabytes.
pub(super) const MOST: usize = 10_000;

/// Why a pod is refused that would be changed in so many places, if not in more.
pub(super) fn too_large(changes: usize) -> Objection {
    let sentence = format!(
        "the pod would be changed in at least {changes} places, and one answer holds {MOST}; name fewer containers"
    );
    Objection::new(Reason::TooLarge, sentence)
}

/// What becomes of the pod.
#[derive(Debug)]
pub enum Verdict<'p> {
    /// It is created, with these grants, possibly none.
    Admit(Plan<'p>),
    /// It is not created, whatever `failurePolicy` says.
    Refuse(Refusal),
}

/// The grants of one pod, in rendering order.
#[derive(Debug, Default)]
pub struct Plan<'p> {
    /// Grants to containers, in the order of the pod.
    pub containers: Vec<(ContainerIndex, Vec<ContainerGrant<'p>>)>,
    /// Grants to the pod.
    pub pod: Vec<PodGrant<'p>>,
    /// What is granted, for the stamp.
    pub granted: Vec<StampedGrant>,
    /// The devices among them that nobody asked for. The ask is written beside the grant: without it,
    /// the next round of admission would take the stamp for forged.
    pub unasked: Vec<&'p str>,
    /// What the person is told.
    pub warnings: Vec<Warning>,
    /// What is to be said of the old shape, in the order of the pod.
    pub legacy: Vec<Finding>,
}

impl Plan<'_> {
    /// The stamp of this plan; `None` if nothing is granted.
    pub fn stamp(&self, digest: &str) -> Option<Stamp> {
        (!self.granted.is_empty())
            .then(|| Stamp { policy_digest: digest.to_owned(), grants: self.granted.clone() })
    }

    /// How many grants there are.
    pub fn len(&self) -> usize {
        let in_containers: usize = self.containers.iter().map(|(_, grants)| grants.len()).sum();
        in_containers + self.pod.len()
    }

    /// Whether nothing is granted.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether any grant is of the kind that a Windows pod may not have
    /// (`kubernetes pkg/apis/core/validation`, `validateWindows`).
    pub fn has_security_context(&self) -> bool {
        let of_container = |grant: &ContainerGrant<'_>| {
            matches!(
                grant,
                ContainerGrant::AllowPrivilegeEscalation(_)
                    | ContainerGrant::AppArmor(_)
                    | ContainerGrant::Capability(_)
                    | ContainerGrant::Privileged
                    | ContainerGrant::Seccomp(_)
            )
        };
        self.containers.iter().any(|(_, grants)| grants.iter().any(of_container))
            || self.pod.contains(&PodGrant::OwnUserNamespace)
    }
}

/// One thing for one container. Knows no JSON: `patch` does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContainerGrant<'p> {
    /// An amount of an extended resource.
    Resource {
        /// Its name.
        name: &'p str,
        /// At least this many.
        count: u32,
    },
    /// A reference to a claim of the pod.
    Claim(&'p ResourceClaim),
    /// A capability, without `CAP_`.
    Capability(&'p str),
    /// `privileged: true`.
    Privileged,
    /// `allowPrivilegeEscalation`.
    AllowPrivilegeEscalation(bool),
    /// The AppArmor profile.
    AppArmor(&'p Profile),
    /// The seccomp profile.
    Seccomp(&'p Profile),
    /// An environment variable.
    Environment {
        /// Its name.
        name: &'p str,
        /// Its value.
        value: &'p str,
    },
    /// `NVIDIA_VISIBLE_DEVICES=void`, unless the container says `none` itself.
    NvidiaVoid,
    /// A mount of the old shape goes: the one at this place of the container's own.
    Unmount(usize),
    /// `privileged` goes.
    Unprivileged,
    /// A mount of a volume that the pod is granted.
    Mount {
        /// The volume.
        volume: VolumeName<'p>,
        /// Where.
        path: &'p str,
    },
}

impl<'p> ContainerGrant<'p> {
    /// The capability, if it is one.
    pub fn capability(&self) -> Option<&'p str> {
        if let Self::Capability(name) = self { Some(*name) } else { None }
    }

    /// The place of the mount, if one goes.
    pub fn unmount(&self) -> Option<usize> {
        if let Self::Unmount(index) = self { Some(*index) } else { None }
    }
}

/// The name of a granted volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VolumeName<'p> {
    /// As the policy names it.
    Given(&'p str),
    /// `devgrant-<device>`, for the node's device of the privileged hatch.
    OfDevice(&'p str),
}

impl fmt::Display for VolumeName<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Given(name) => formatter.write_str(name),
            Self::OfDevice(device) => write!(formatter, "devgrant-{device}"),
        }
    }
}

/// As `explain` says it.
impl fmt::Display for ContainerGrant<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resource { name, count } => write!(formatter, "resource {name}: {count}"),
            Self::Claim(claim) => write!(formatter, "resource claim {}", claim.name),
            Self::Capability(name) => write!(formatter, "capability {name}"),
            Self::Privileged => write!(formatter, "privileged"),
            Self::AllowPrivilegeEscalation(value) => {
                write!(formatter, "allowPrivilegeEscalation: {value}")
            }
            Self::AppArmor(profile) => {
                write!(formatter, "AppArmor profile {}", String::from((*profile).clone()))
            }
            Self::Seccomp(profile) => {
                write!(formatter, "seccomp profile {}", String::from((*profile).clone()))
            }
            Self::Environment { name, value } => write!(formatter, "environment {name}={value}"),
            Self::NvidiaVoid => {
                write!(formatter, "environment {}=void", accelerator::NVIDIA_VISIBLE_DEVICES)
            }
            Self::Mount { volume, path } => write!(formatter, "mount of {volume} at {path}"),
            Self::Unmount(index) => write!(formatter, "volumeMounts[{index}] goes"),
            Self::Unprivileged => write!(formatter, "privileged goes"),
        }
    }
}

/// One thing for the pod. Knows no JSON: `patch` does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PodGrant<'p> {
    /// An empty directory.
    Volume(&'p Volume),
    /// A volume of the old shape goes: the one at this place of the pod's own.
    RemoveVolume(usize),
    /// A device of the node, for the privileged hatch.
    HostPathVolume {
        /// The volume's name.
        name: VolumeName<'p>,
        /// The device.
        host_path: &'p HostPath,
    },
    /// A claim from a template.
    Claim(&'p ResourceClaim),
    /// `hostUsers: false`.
    OwnUserNamespace,
    /// The RuntimeClass.
    RuntimeClass(&'p str),
    /// A node label.
    NodeSelector {
        /// Its key.
        key: &'p str,
        /// Its value.
        value: &'p str,
    },
    /// A requirement on the node, in every required term.
    NodeAffinity(&'p NodeRequirement),
    /// A toleration.
    Toleration(&'p Toleration),
    /// An annotation.
    Annotation {
        /// Its key.
        key: &'p str,
        /// Its value.
        value: &'p str,
    },
    /// A scheduling gate.
    SchedulingGate(&'p str),
}

/// As `explain` says it.
impl fmt::Display for PodGrant<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Volume(volume) => write!(formatter, "volume {} (emptyDir)", volume.name),
            Self::RemoveVolume(index) => write!(formatter, "volumes[{index}] goes"),
            Self::HostPathVolume { name, host_path } => {
                write!(formatter, "volume {name} (hostPath {})", host_path.path)
            }
            Self::Claim(claim) => write!(
                formatter,
                "resource claim {} from the template {}",
                claim.name, claim.resource_claim_template_name
            ),
            Self::OwnUserNamespace => write!(formatter, "hostUsers: false"),
            Self::RuntimeClass(class) => write!(formatter, "runtimeClassName {class}"),
            Self::NodeSelector { key, value } => write!(formatter, "nodeSelector {key}={value}"),
            Self::NodeAffinity(requirement) => write!(
                formatter,
                "node affinity {} {:?} {}",
                requirement.key,
                requirement.operator,
                requirement.values.join(", ")
            ),
            Self::Toleration(toleration) => write!(formatter, "toleration of {}", toleration.key),
            Self::Annotation { key, value } => write!(formatter, "annotation {key}={value}"),
            Self::SchedulingGate(gate) => write!(formatter, "scheduling gate {gate}"),
        }
    }
}
