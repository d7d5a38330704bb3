//! Pod Security foretold: which check of the namespace's level the grants will fail.
//!
//! Only what a grant changes is ours to say: capabilities, privileged, hostPath, AppArmor, seccomp and
//! privilege escalation (`kubernetes/pod-security-admission policy/check_*.go`). What the pod's own spec
//! fails, the API server says without us.

use std::collections::BTreeMap;

use crate::decision::ask::Ask;
use crate::decision::finding::{Code, Finding};
use crate::decision::namespace::Namespace;
use crate::decision::plan::{ContainerGrant, Plan, PodGrant, VolumeName};
use crate::decision::pod::Spec;
use crate::decision::policy::schema::{Mode, Profile};

const ENFORCE: &str = "pod-security.kubernetes.io/enforce";
const SOFT: [(&str, &str); 2] =
    [("warn", "pod-security.kubernetes.io/warn"), ("audit", "pod-security.kubernetes.io/audit")];

/// What baseline lets a container add (`policy/check_capabilities_baseline.go`).
const BASELINE_CAPABILITIES: &[&str] = &[
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];
/// What restricted lets a container add (`policy/check_capabilities_restricted.go`).
const RESTRICTED_CAPABILITIES: &[&str] = &["NET_BIND_SERVICE"];
/// The minor versions that a check begins with (`MinimumVersion` in `policy/check_*.go`). A label
/// `…-version` may name an older one than the server's.
const RESTRICTED_CAPABILITIES_SINCE: u16 = 22;
const SECCOMP_SINCE: u16 = 19;
const ESCALATION_SINCE: u16 = 8;
/// What no label, `latest` and a label that cannot be read mean.
const LATEST: u16 = u16::MAX;

/// A level that refuses anything at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Baseline,
    Restricted,
}

/// A level, as some minor version of Kubernetes has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Level {
    kind: Kind,
    minor: u16,
}

impl Level {
    /// The level of a label. The API server takes an unknown value for restricted where it enforces, and
    /// for privileged where it only warns or audits (`api/helpers.go`, `PolicyToEvaluate`).
    fn of(namespace: &Namespace, label: &str) -> Option<Self> {
        let kind = match namespace.labels.get(label)?.as_str() {
            "baseline" => Kind::Baseline,
            "restricted" => Kind::Restricted,
            "privileged" => return None,
            _ if label == ENFORCE => Kind::Restricted,
            _ => return None,
        };
        let version = namespace.labels.get(&format!("{label}-version"));
        let minor = version.and_then(|version| version.strip_prefix("v1.")?.parse().ok());
        Some(Self { kind, minor: minor.unwrap_or(LATEST) })
    }

    fn as_str(self) -> &'static str {
        match self.kind {
            Kind::Baseline => "baseline",
            Kind::Restricted => "restricted",
        }
    }

    fn refuses_capability(self, capability: &str) -> Option<String> {
        let (allowed, check) = match self.kind {
            Kind::Restricted if self.minor >= RESTRICTED_CAPABILITIES_SINCE => {
                (RESTRICTED_CAPABILITIES, "unrestricted capabilities")
            }
            _ => (BASELINE_CAPABILITIES, "non-default capabilities"),
        };
        (!allowed.contains(&capability)).then(|| format!("{check}: {capability}"))
    }

    fn refuses_escalation(self, allowed: bool) -> Option<String> {
        (allowed && self.kind == Kind::Restricted && self.minor >= ESCALATION_SINCE)
            .then(|| "allowPrivilegeEscalation != false".to_owned())
    }

    /// The check that a grant to a container fails, in the API server's words.
    fn refuses(self, grant: ContainerGrant<'_>) -> Option<String> {
        match grant {
            ContainerGrant::Capability(capability) => self.refuses_capability(capability),
            ContainerGrant::Privileged => Some("privileged".to_owned()),
            ContainerGrant::AllowPrivilegeEscalation(value) => self.refuses_escalation(value),
            ContainerGrant::AppArmor(Profile::Unconfined) => {
                Some("forbidden AppArmor profile: Unconfined".to_owned())
            }
            ContainerGrant::Seccomp(Profile::Unconfined) if self.minor >= SECCOMP_SINCE => {
                Some("seccompProfile: Unconfined".to_owned())
            }
            _ => None,
        }
    }

    /// Whether a mode adds nothing that this level refuses.
    fn passes(self, mode: &Mode) -> bool {
        let unconfined = Some(&Profile::Unconfined);
        mode.capabilities.iter().all(|capability| self.refuses_capability(capability).is_none())
            && !mode.privileged
            && mode.app_armor_profile.as_ref() != unconfined
            && (mode.seccomp_profile.as_ref() != unconfined || self.minor < SECCOMP_SINCE)
            && mode
                .allow_privilege_escalation
                .is_none_or(|value| self.refuses_escalation(value).is_none())
    }
}

pub(super) fn findings(
    spec: &Spec<'_>,
    plan: &Plan<'_>,
    asks: &[Ask<'_>],
    namespace: &Namespace,
    findings: &mut Vec<Finding>,
) {
    if let Some(level) = Level::of(namespace, ENFORCE) {
        let modes = passing_modes(level, asks);
        for (check, containers) in failed(level, spec, plan) {
            let places = [
                ("level", level.as_str()),
                ("check", check.as_str()),
                ("container", containers.as_str()),
                ("modes", modes.as_str()),
            ];
            findings.push(Finding::new(Code::DG005, "/spec", places));
        }
    }
    for (mode, label) in SOFT {
        let Some(level) = Level::of(namespace, label) else { continue };
        for (check, containers) in failed(level, spec, plan) {
            let places = [
                ("mode", mode),
                ("level", level.as_str()),
                ("check", check.as_str()),
                ("container", containers.as_str()),
            ];
            findings.push(Finding::new(Code::DG006, "/spec", places));
        }
    }
}

/// The checks that the grants fail, and for which containers.
fn failed(level: Level, spec: &Spec<'_>, plan: &Plan<'_>) -> BTreeMap<String, String> {
    let mut failed: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    let volumes = plan.pod.iter().filter_map(|grant| match grant {
        PodGrant::HostPathVolume { name, .. } => Some(*name),
        _ => None,
    });
    let volumes: Vec<VolumeName<'_>> = volumes.collect();
    let of_node = |grant: &ContainerGrant<'_>| match grant {
        ContainerGrant::Mount { volume, .. } => volumes.contains(volume),
        _ => false,
    };
    for (at, grants) in &plan.containers {
        let Some(container) = spec.container(*at) else { continue };
        let mounts_node = grants.iter().any(of_node).then(|| "hostPath volumes".to_owned());
        let refused = grants.iter().filter_map(|grant| level.refuses(*grant));
        for check in refused.chain(mounts_node) {
            failed.entry(check).or_default().push(container.name.as_str());
        }
    }
    failed.into_iter().map(|(check, containers)| (check, containers.join(", "))).collect()
}

/// The modes of the same policies that would pass, and that this pod may ask for.
fn passing_modes(level: Level, asks: &[Ask<'_>]) -> String {
    let mut passing = Vec::new();
    for ask in asks.iter().filter(|ask| !level.passes(ask.mode)) {
        let modes = ask.alternatives.iter().filter(|(_, mode)| level.passes(mode));
        passing.extend(modes.map(|(name, _)| format!("{} ({name})", ask.policy.device())));
    }
    if passing.is_empty() { "none".to_owned() } else { passing.join(", ") }
}
