//! conflict: what a plan and the pod's own spec say against each other.
//!
//! A grant never overwrites what would make the pod another one: those are refused in words. Where
//! the mode that the author chose cannot work otherwise, its say wins, and a warning tells.

use std::cell::OnceCell;

use super::path::{parts, same_path, token};
use super::plan::accelerator::NVIDIA_VISIBLE_DEVICES;
use super::plan::{ContainerGrant, NodePaths, Objection, Plan, PodGrant, Reason, VolumeName};
use super::pod::{Amount, Container, ContainerIndex, ProfileField, Spec, Volume};
use super::policy::schema::{Profile, Volume as GrantedVolume};
use super::quantity::Quantity;
use super::request::Request;
use super::settings::KubernetesVersion;
use super::spelling::excerpt;
use super::warning::Warning;

/// Objections and warnings about a plan for a pod.
#[derive(Debug, Default)]
pub struct Findings {
    /// What refuses the pod.
    pub objections: Vec<Objection>,
    /// What is only said.
    pub warnings: Vec<Warning>,
}

/// Looks at the pod as the plan would make it.
pub fn find(
    request: &Request<'_>,
    spec: &Spec<'_>,
    plan: &Plan<'_>,
    version: KubernetesVersion,
) -> Findings {
    let mut findings = Findings::default();
    let paths = OnceCell::new();
    for (at, grants) in &plan.containers {
        if let Some(container) = spec.container(*at) {
            let (paths, findings) = (&paths, &mut findings);
            let mut check = ContainerCheck { request, spec, paths, container, at: *at, findings };
            for grant in grants {
                check.grant(*grant, grants);
            }
        }
    }
    for grant in &plan.pod {
        pod_grant(request, spec, *grant, &mut findings);
        too_old(*grant, version, &mut findings);
    }
    findings
}

impl Findings {
    fn refuse(&mut self, path: impl Into<String>, sentence: String) {
        self.objections.push(Objection::new(Reason::Conflict, sentence).at(path));
    }

    fn warn(&mut self, text: impl AsRef<str>) {
        self.warnings.push(Warning::new(text));
    }
}

struct ContainerCheck<'s, 'p, 'a> {
    request: &'s Request<'a>,
    spec: &'p Spec<'a>,
    /// Those of the pod, once somebody wants to know.
    paths: &'s OnceCell<NodePaths<'p>>,
    container: &'s Container<'a>,
    at: ContainerIndex,
    findings: &'s mut Findings,
}

impl ContainerCheck<'_, '_, '_> {
    fn grant(&mut self, grant: ContainerGrant<'_>, all: &[ContainerGrant<'_>]) {
        let name = excerpt(self.container.name.as_str());
        let security = &self.container.security_context;
        match grant {
            // containerd and CRI-O apply drops last, so that a name in both lists ends up dropped.
            ContainerGrant::Capability(capability) => {
                let dropped = security
                    .capabilities
                    .drop
                    .iter()
                    .enumerate()
                    .find(|(_, dropped)| bare(dropped.as_str()) == capability);
                if let Some((index, dropped)) = dropped {
                    let path = format!("{}/securityContext/capabilities/drop/{index}", self.at);
                    self.findings.refuse(path, format!(
                        "container `{name}` drops the capability `{}` that the device needs, and a drop by name wins over an add; remove it from `securityContext.capabilities.drop` (`ALL` may stay)",
                        excerpt(dropped.as_str())
                    ));
                }
            }
            ContainerGrant::Privileged
                if security.allow_privilege_escalation == Some(false)
                    && !all.contains(&ContainerGrant::AllowPrivilegeEscalation(true)) =>
            {
                let path = format!("{}/securityContext/allowPrivilegeEscalation", self.at);
                self.findings.refuse(path, format!(
                    "container `{name}` sets `allowPrivilegeEscalation: false`, which the API server refuses beside `privileged`; remove it, or ask for another mode"
                ));
            }
            ContainerGrant::AllowPrivilegeEscalation(false) => self.escalation_off(all),
            ContainerGrant::AllowPrivilegeEscalation(true)
                if security.allow_privilege_escalation == Some(false) =>
            {
                self.findings.warn(format!("container {name}: allowPrivilegeEscalation false becomes true, which the mode needs"));
            }
            ContainerGrant::AppArmor(profile) => {
                let pod = self
                    .spec
                    .security_context
                    .as_ref()
                    .and_then(|pod| pod.app_armor_profile.as_ref());
                let annotation =
                    self.request.annotation(&app_armor_key(self.container.name.as_str()));
                match (&security.app_armor_profile, annotation) {
                    // The API server copies an annotation into an empty field.
                    (None, Some(own)) if own != app_armor_value(profile) => {
                        self.findings.warn(format!("container {name}: its AppArmor profile {} becomes {}, which the mode needs", excerpt(own), String::from(profile.clone())));
                    }
                    (None, Some(_)) => {}
                    (field, _) => self.profile("AppArmor", profile, field.as_ref().or(pod)),
                }
            }
            ContainerGrant::Seccomp(profile) => {
                let pod = self
                    .spec
                    .security_context
                    .as_ref()
                    .and_then(|pod| pod.seccomp_profile.as_ref());
                self.profile("seccomp", profile, security.seccomp_profile.as_ref().or(pod));
            }
            ContainerGrant::Environment { name: variable, value } => {
                let mut own = self.container.env.iter().enumerate();
                let own = own.rfind(|(_, own)| own.name == variable);
                if let Some((index, _)) = own.filter(|(_, own)| !own.is(value)) {
                    self.findings.refuse(format!("{}/env/{index}", self.at), format!(
                        "container `{name}` sets the environment variable `{variable}` to something else than the `{value}` that the mode needs; remove it"
                    ));
                }
            }
            ContainerGrant::NvidiaVoid => {
                let own = self.container.env.iter().rfind(|own| own.name == NVIDIA_VISIBLE_DEVICES);
                if own.is_some_and(|own| !own.is("void") && !own.is("none")) {
                    self.findings.warn(format!("container {name}: {NVIDIA_VISIBLE_DEVICES} becomes void, since it requests no GPU"));
                }
            }
            ContainerGrant::Mount { volume, path } => self.mount(volume, path),
            ContainerGrant::Claim(claim) if claim.request.is_none() => {
                let own = self.container.resources.claims.iter();
                let mut parts = own.filter(|own| own.name == claim.name.as_str());
                if let Some(part) = parts.find_map(|own| own.request.as_ref()) {
                    self.findings.refuse(format!("{}/resources/claims", self.at), format!(
                        "container `{name}` names the request `{}` of the claim `{}`, of which the mode needs all; the API server refuses the two together: remove it from `resources.claims`",
                        excerpt(part.as_str()), claim.name
                    ));
                }
            }
            ContainerGrant::Claim(_)
            | ContainerGrant::Unmount(_)
            | ContainerGrant::Unprivileged
            | ContainerGrant::Resource { .. }
            | ContainerGrant::Privileged
            | ContainerGrant::AllowPrivilegeEscalation(true) => {}
        }
    }

    /// `allowPrivilegeEscalation: false` where the pod itself makes that invalid
    /// (`kubernetes pkg/apis/core/validation`, `ValidateSecurityContext`).
    fn escalation_off(&mut self, all: &[ContainerGrant<'_>]) {
        let security = &self.container.security_context;
        let name = excerpt(self.container.name.as_str());
        if security.privileged == Some(true) && !all.contains(&ContainerGrant::Unprivileged) {
            let path = format!("{}/securityContext/privileged", self.at);
            self.findings.refuse(path, format!(
                "container `{name}` is privileged, and the mode needs `allowPrivilegeEscalation: false`, which the API server refuses together; remove `privileged`"
            ));
        }
        let replaced = all.contains(&ContainerGrant::Capability("SYS_ADMIN"));
        if !replaced && security.capabilities.add.iter().any(|added| *added == "CAP_SYS_ADMIN") {
            let path = format!("{}/securityContext/capabilities/add", self.at);
            self.findings.refuse(path, format!(
                "container `{name}` adds `CAP_SYS_ADMIN`, which the API server refuses beside the `allowPrivilegeEscalation: false` of the mode; spell it `SYS_ADMIN`, or remove it"
            ));
        }
    }

    fn profile(&mut self, kind: &str, wanted: &Profile, own: Option<&ProfileField<'_>>) {
        if let Some(own) = own
            && !is_profile(own, wanted)
        {
            let name = excerpt(self.container.name.as_str());
            self.findings.warn(format!(
                "container {name}: its {kind} profile {} becomes {}, which the mode needs",
                excerpt(own.kind.as_str()),
                String::from(wanted.clone())
            ));
        }
    }

    /// The privileged hatch: the path may be mounted already, from the same place of the node.
    fn mount(&mut self, volume: VolumeName<'_>, path: &str) {
        let VolumeName::OfDevice(_) = volume else {
            return;
        };
        let mounts = self.container.volume_mounts.iter().enumerate();
        let Some((index, own)) =
            mounts.into_iter().find(|(_, mount)| same_path(mount.mount_path.as_str(), path))
        else {
            return;
        };
        let paths = self.paths.get_or_init(|| NodePaths::of(self.spec));
        if paths.of_volume(own.name.as_str()) != Some(&parts(path)) {
            let list = self.at.list.field();
            self.findings.refuse(format!("{}/volumeMounts/{index}", self.at), format!(
                "container `{}` mounts another volume, `{}`, at `{path}` where the device goes; remove that mount from `{list}`",
                excerpt(self.container.name.as_str()),
                excerpt(own.name.as_str())
            ));
        }
    }
}

fn pod_grant(request: &Request<'_>, spec: &Spec<'_>, grant: PodGrant<'_>, findings: &mut Findings) {
    match grant {
        PodGrant::Volume(volume) => {
            let mut own = spec.volumes.iter().enumerate();
            let own = own.find(|(_, own)| own.name == volume.name.as_str());
            if let Some((index, _)) = own.filter(|(_, own)| !is_empty_dir(own, volume)) {
                findings.refuse(format!("/spec/volumes/{index}/name"), format!(
                    "the pod has another volume of the name `{}`, which the mode needs; rename it",
                    volume.name
                ));
            }
        }
        PodGrant::HostPathVolume { name, host_path } => {
            let name = name.to_string();
            let mut own = spec.volumes.iter().enumerate();
            let own = own.find(|(_, own)| own.name == name.as_str());
            let is_device = |own: &Volume<'_>| {
                own.host_path
                    .as_ref()
                    .is_some_and(|own| same_path(own.path.as_str(), &host_path.path))
            };
            if let Some((index, _)) = own.filter(|(_, own)| !is_device(own)) {
                findings.refuse(format!("/spec/volumes/{index}/name"), format!("the pod has another volume of the name `{name}`, which the mode needs; rename it"));
            }
            if spec.host_users == Some(false) {
                findings.refuse("/spec/hostUsers", format!("`spec.hostUsers: false` cannot be beside the `{}` of the mode: a device node cannot be idmapped, and the container would not start; remove it, or ask for another mode", host_path.path));
            }
        }
        PodGrant::Claim(claim) => {
            let mut own = spec.resource_claims.iter().enumerate();
            let own = own.find(|(_, own)| own.name == claim.name.as_str());
            let template = |own: &super::pod::PodResourceClaim<'_>| {
                own.resource_claim_template_name
                    .as_ref()
                    .is_some_and(|name| *name == claim.resource_claim_template_name.as_str())
            };
            if let Some((index, _)) = own.filter(|(_, own)| !template(own)) {
                findings.refuse(format!("/spec/resourceClaims/{index}/name"), format!(
                    "the pod has another claim of the name `{}`, which the mode makes from the template `{}`; rename it",
                    claim.name, claim.resource_claim_template_name
                ));
            }
        }
        PodGrant::OwnUserNamespace => own_user_namespace(spec, findings),
        PodGrant::NodeSelector { key, value } => {
            if let Some(own) =
                spec.node_selector.get(key).map(|own| own.as_ref().map_or("", |own| own.as_str()))
                && own != value
            {
                findings.refuse(format!("/spec/nodeSelector/{}", token(key)), format!("`spec.nodeSelector` has `{key}: {}`, and the mode needs `{key}: {value}`; no node has both: remove it, or ask for another mode", excerpt(own)));
            }
        }
        PodGrant::Annotation { key, value } => {
            if request.annotation(key).is_some_and(|own| own != value) {
                findings.refuse(format!("/metadata/annotations/{}", token(key)), format!("the annotation `{key}` has another value than the `{value}` that the mode needs; remove it, or ask for another mode"));
            }
        }
        PodGrant::RemoveVolume(_)
        | PodGrant::NodeAffinity(_)
        | PodGrant::RuntimeClass(_)
        | PodGrant::Toleration(_) => {}
        PodGrant::SchedulingGate(gate) => {
            if spec.node_name.as_ref().is_some_and(|node| !node.as_str().is_empty()) {
                findings.refuse("/spec/nodeName", format!("`spec.nodeName` is set, and the mode needs the scheduling gate `{gate}`; the API server refuses the two together: remove `nodeName`"));
            }
        }
    }
}

/// `kubernetes pkg/apis/core/validation`, `validateHostUsers`.
fn own_user_namespace(spec: &Spec<'_>, findings: &mut Findings) {
    let hosts = [
        ("hostNetwork", spec.host_network),
        ("hostPID", spec.host_pid),
        ("hostIPC", spec.host_ipc),
    ];
    for (field, _) in hosts.iter().filter(|(_, value)| *value == Some(true)) {
        findings.refuse(format!("/spec/{field}"), format!("`spec.{field}: true` cannot be beside the `hostUsers: false` of the mode; remove it, or ask for another mode"));
    }
    if spec.host_users == Some(true) {
        findings.refuse("/spec/hostUsers", "`spec.hostUsers: true` contradicts the mode, which needs `false`; remove it, or ask for another mode".to_owned());
    }
    if let Some((at, container)) =
        spec.all_containers().find(|(_, container)| !container.volume_devices.is_empty())
    {
        findings.refuse(format!("{at}/volumeDevices"), format!("container `{}` has `volumeDevices`, which cannot be beside the `hostUsers: false` of the mode; ask for another mode", excerpt(container.name.as_str())));
    }
}

/// Fields that an API server does not know, or whose feature is off, are lost in silence, and the pod
/// would start without them: `SYS_ADMIN` on the node instead of in a user namespace. So the versions
/// are those that have each feature on by default (`kubernetes pkg/features/kube_features.go`).
fn too_old(grant: PodGrant<'_>, version: KubernetesVersion, findings: &mut Findings) {
    let (field, minor) = match grant {
        PodGrant::OwnUserNamespace => ("hostUsers", 33),
        PodGrant::Claim(_) => ("resourceClaims", 34),
        PodGrant::SchedulingGate(_) => ("schedulingGates", 27),
        _ => return,
    };
    if version < (KubernetesVersion { minor }) {
        findings.objections.push(Objection::new(
            Reason::UnsupportedVersion,
            format!("the mode needs `spec.{field}`, which Kubernetes has on from 1.{minor}; this cluster is {version}: ask for another mode"),
        ));
    }
}

/// A capability as Kubernetes spells it.
pub(super) fn bare(capability: &str) -> String {
    let upper = capability.to_ascii_uppercase();
    upper.strip_prefix("CAP_").map_or_else(|| upper.clone(), str::to_owned)
}

/// The annotation that held a container's AppArmor profile before Kubernetes 1.30, and still may.
pub(super) fn app_armor_key(container: &str) -> String {
    format!("container.apparmor.security.beta.kubernetes.io/{container}")
}

/// An AppArmor profile as that annotation spells it.
pub(super) fn app_armor_value(profile: &Profile) -> String {
    match profile {
        Profile::Keep => String::new(),
        Profile::Localhost(profile) => format!("localhost/{profile}"),
        Profile::RuntimeDefault => "runtime/default".to_owned(),
        Profile::Unconfined => "unconfined".to_owned(),
    }
}

/// Whether a profile field says what a mode wants.
pub(super) fn is_profile(own: &ProfileField<'_>, wanted: &Profile) -> bool {
    let localhost = own.localhost_profile.as_ref().map_or("", |profile| profile.as_str());
    match wanted {
        Profile::Keep => true,
        Profile::Localhost(profile) => own.kind == "Localhost" && localhost == profile,
        Profile::RuntimeDefault => own.kind == "RuntimeDefault",
        Profile::Unconfined => own.kind == "Unconfined",
    }
}

/// Whether a volume of the pod is the empty directory that a mode wants.
fn is_empty_dir(own: &Volume<'_>, wanted: &GrantedVolume) -> bool {
    let Some(own) = &own.empty_dir else {
        return false;
    };
    let medium = own.medium.as_ref().map_or("", |medium| medium.as_str());
    let limit = own.size_limit.as_ref().and_then(Amount::quantity);
    let wanted_limit = wanted.empty_dir.size_limit.as_deref().and_then(Quantity::parse);
    (medium == "Memory") == wanted.empty_dir.medium.is_some() && limit == wanted_limit
}
