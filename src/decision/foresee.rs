//! foresee: what would start and not work, in the pod as it will be with all its grants.
//!
//! Nothing here changes the pod. Each finding has a code, whose text is in
//! [`finding`](super::finding); whether it refuses is policy (`conflicts`).

mod container;
pub mod evidence;
pub mod other_use;
mod pod_security;

use std::collections::BTreeMap;

use super::ask::Ask;
use super::finding::{Code, Effect, Finding, Severity};
use super::namespace::Namespace;
use super::path::{is_harmless, parts};
use super::plan::accelerator::is_gpu;
use super::plan::{ContainerGrant, Plan, PodGrant};
use super::pod::{Container, ContainerIndex, PodSecurityContext, ProfileField, Spec, Volume};
use super::policy::Policy;
use super::policy::schema::{Mode, Profile};
use super::request::Request;

/// The RuntimeClass whose sandbox serves its own devices (gVisor's documented name).
const GVISOR: &str = "gvisor";

/// The most containers for debugging that are told one by one: the API server refuses to create a pod with any.
const MOST_DEBUGGING: usize = 100;

/// Everything that can be foreseen of a pod, the worst first.
pub fn findings(
    request: &Request<'_>,
    spec: &Spec<'_>,
    plan: &Plan<'_>,
    asks: &[Ask<'_>],
    namespace: &Namespace,
) -> Vec<Finding> {
    let mut findings = plan.legacy.clone();
    let pod = PodAfter::of(spec, plan);
    let grants: BTreeMap<_, _> =
        plan.containers.iter().map(|(at, grants)| (*at, grants.as_slice())).collect();
    for (at, container) in spec.all_containers() {
        let grants = grants.get(&at).copied().unwrap_or_default();
        let asks = asks.iter().filter(|ask| ask.containers.binary_search(&at).is_ok()).collect();
        let after = ContainerAfter { spec, container, path: at, grants, asks };
        container::findings(request, &pod, &after, &mut findings);
    }
    pod_findings(request, spec, plan, &mut findings);
    pod_security::findings(spec, plan, asks, namespace, &mut findings);
    findings.sort_by_key(|finding| (finding.severity(), finding.code));
    findings
}

/// What becomes of a finding: as the strictest of the policies that are asked says, else as usual. Where
/// none is enforced, or none is asked, nobody is refused: the API server says it itself.
pub fn effect(finding: &Finding, policies: &[&Policy]) -> Effect {
    let code = finding.code.to_string();
    let says: Vec<Effect> =
        policies.iter().filter_map(|policy| policy.spec().conflicts.get(&code).copied()).collect();
    let strictest = [Effect::Deny, Effect::Warn, Effect::Ignore];
    match finding.effect() {
        Effect::Deny if policies.is_empty() => Effect::Warn,
        usual => strictest.into_iter().find(|effect| says.contains(effect)).unwrap_or(usual),
    }
}

/// Whether a finding is worth a warning at every creation of a pod: it is more than good to know, or a
/// policy wants it said.
pub fn is_said(finding: &Finding, policies: &[&Policy]) -> bool {
    let code = finding.code.to_string();
    let wanted = |policy: &&Policy| policy.spec().conflicts.contains_key(&code);
    finding.severity() != Severity::Info || policies.iter().any(wanted)
}

/// What the whole pod will be.
struct PodAfter<'a> {
    host_users: Option<bool>,
    runtime_class: Option<&'a str>,
    /// The devices of the node that volumes bring, by the volume's name.
    devices: BTreeMap<&'a str, HostDevice<'a>>,
}

impl<'a> PodAfter<'a> {
    fn of(spec: &'a Spec<'_>, plan: &'a Plan<'_>) -> Self {
        let own = plan.pod.contains(&PodGrant::OwnUserNamespace);
        let class = plan.pod.iter().find_map(|grant| match grant {
            PodGrant::RuntimeClass(class) => Some(*class),
            _ => None,
        });
        let device = |volume: &'a Volume<'_>| {
            let path = volume.host_path.as_ref()?.path.as_str();
            Some((volume.name.as_str(), HostDevice::of(path)?))
        };
        let named = spec.runtime_class_name.as_ref().map(super::pod::Text::as_str);
        Self {
            host_users: if own { Some(false) } else { spec.host_users },
            runtime_class: class.or(named).filter(|class| !class.is_empty()),
            devices: spec.volumes.iter().filter_map(device).collect(),
        }
    }

    /// Whether containers run on a kernel of their own, to which the node's AppArmor and seccomp are
    /// nothing: gVisor, and Kata by the names that its installation gives.
    fn is_sandboxed(&self) -> bool {
        self.is_gvisor() || self.runtime_class.is_some_and(|class| class.starts_with("kata"))
    }

    fn is_gvisor(&self) -> bool {
        self.runtime_class == Some(GVISOR)
    }
}

/// A device of the node that a container may not open by itself.
struct HostDevice<'a> {
    /// Its path, as it is written.
    path: &'a str,
    /// The last part of it, and all below `/dev` as one word: resources are named after both.
    names: [String; 2],
}

impl<'a> HostDevice<'a> {
    /// By components: `/srv/dev/fuse` and `/dev-data` are none.
    fn of(path: &'a str) -> Option<Self> {
        match parts(path).as_slice() {
            // runc lists tun among what every container may open
            // (`opencontainers/runc libcontainer/specconv/spec_linux.go`).
            ["dev"] | ["dev", "net"] | ["dev", "net", "tun"] => None,
            ["dev", below @ ..] if !is_harmless(below) => {
                let last = below.last().copied().unwrap_or_default();
                Some(Self { path, names: [last.to_owned(), below.join("_")] })
            }
            _ => None,
        }
    }
}

/// What one container will be.
struct ContainerAfter<'a> {
    spec: &'a Spec<'a>,
    container: &'a Container<'a>,
    path: ContainerIndex,
    grants: &'a [ContainerGrant<'a>],
    /// The asks that reach this container.
    asks: Vec<&'a Ask<'a>>,
}

impl<'a> ContainerAfter<'a> {
    fn name(&self) -> &str {
        self.container.name.as_str()
    }

    fn is_privileged(&self) -> bool {
        let own = self.container.security_context.privileged == Some(true);
        (own && !self.grants.contains(&ContainerGrant::Unprivileged))
            || self.grants.contains(&ContainerGrant::Privileged)
    }

    fn is_granted(&self, capability: &str) -> bool {
        self.granted_capabilities().any(|granted| granted == capability)
    }

    /// The capabilities among its grants. To look for many of them, make a set: there may be thousands of
    /// grants, one for each mount that goes.
    fn granted_capabilities(&self) -> impl Iterator<Item = &'a str> {
        self.grants.iter().filter_map(ContainerGrant::capability)
    }

    fn has_capability(&self, capability: &str) -> bool {
        let mut own = self.container.security_context.capabilities.add.iter();
        self.is_granted(capability)
            || own.any(|own| {
                own.as_str().eq_ignore_ascii_case(capability)
                    || own.as_str().eq_ignore_ascii_case("ALL")
            })
    }

    fn allows_escalation(&self) -> Option<bool> {
        let granted = self.grants.iter().find_map(|grant| match grant {
            ContainerGrant::AllowPrivilegeEscalation(value) => Some(*value),
            _ => None,
        });
        granted.or(self.container.security_context.allow_privilege_escalation)
    }

    /// The user, in words, if it is surely not root.
    fn non_root(&self) -> Option<String> {
        let own = &self.container.security_context;
        let pod = self.spec.security_context.as_ref();
        let user = own.run_as_user.or_else(|| pod?.run_as_user);
        let non_root = own.run_as_non_root.or_else(|| pod?.run_as_non_root);
        match user {
            Some(0) => None,
            Some(user) => Some(format!("uid {user}")),
            None => (non_root == Some(true)).then(|| "a user that is not root".to_owned()),
        }
    }

    fn seccomp(&self) -> Option<&str> {
        let granted = self.grants.iter().find_map(|grant| match grant {
            ContainerGrant::Seccomp(profile) => Some(*profile),
            _ => None,
        });
        let own = self.container.security_context.seccomp_profile.as_ref();
        self.profile(granted, own, |pod| pod.seccomp_profile.as_ref())
    }

    fn app_armor(&self) -> Option<&str> {
        let granted = self.grants.iter().find_map(|grant| match grant {
            ContainerGrant::AppArmor(profile) => Some(*profile),
            _ => None,
        });
        let own = self.container.security_context.app_armor_profile.as_ref();
        self.profile(granted, own, |pod| pod.app_armor_profile.as_ref())
    }

    /// The type of the profile that will be in force; `None` if nobody names one.
    fn profile(
        &self,
        granted: Option<&Profile>,
        own: Option<&'a ProfileField<'a>>,
        of_pod: impl Fn(&'a PodSecurityContext<'a>) -> Option<&'a ProfileField<'a>>,
    ) -> Option<&'a str> {
        let granted = granted.map(|profile| match profile {
            Profile::Keep => "Keep",
            Profile::Localhost(_) => "Localhost",
            Profile::RuntimeDefault => "RuntimeDefault",
            Profile::Unconfined => "Unconfined",
        });
        let pod = || self.spec.security_context.as_ref().and_then(of_pod);
        granted.or_else(|| own.or_else(pod).map(|field| field.kind.as_str()))
    }

    /// The resources of a kind that the container will have any of.
    fn resources(&self, is_such: impl Fn(&str) -> bool + Copy) -> impl Iterator<Item = &str> {
        let own = self.container.resources.present(is_such);
        let granted = self.grants.iter().filter_map(|grant| match grant {
            ContainerGrant::Resource { name, .. } => Some(*name),
            _ => None,
        });
        own.chain(granted.filter(move |name| is_such(name)))
    }

    fn has_gpu(&self) -> bool {
        self.resources(is_gpu).next().is_some()
    }

    /// Whether the container is to mount by FUSE: it asks for it, or has the device by a resource of its own.
    fn is_for_fuse(&self) -> bool {
        self.fuse_asks().next().is_some()
            || self.resources(|name| name.ends_with("/fuse")).next().is_some()
    }

    /// The other modes of the same policies that the pod may ask for and that are such, by name.
    fn other_modes(&self, is_such: impl Fn(&Mode) -> bool) -> Option<String> {
        let others = self.fuse_asks().flat_map(|ask| {
            let others = ask.alternatives.iter().filter(|(name, _)| *name != ask.mode_name);
            others.filter(|(_, mode)| is_such(mode) && !mode.privileged).map(|(name, _)| *name)
        });
        let others: Vec<&str> = others.collect();
        (!others.is_empty()).then(|| others.join(", "))
    }

    /// The asks that are for FUSE: their policy serves it in some mode.
    fn fuse_asks(&self) -> impl Iterator<Item = &&'a Ask<'a>> {
        self.asks.iter().filter(|ask| {
            let mut modes = ask.policy.spec().modes.values();
            modes.any(|mode| mode.resources.iter().any(|resource| resource.name.ends_with("/fuse")))
        })
    }
}

/// What is about the pod as a whole.
fn pod_findings(
    request: &Request<'_>,
    spec: &Spec<'_>,
    plan: &Plan<'_>,
    findings: &mut Vec<Finding>,
) {
    let node =
        spec.node_name.as_ref().map(super::pod::Text::as_str).filter(|node| !node.is_empty());
    let asks_for_resource = plan.containers.iter().any(|(_, grants)| {
        grants.iter().any(|grant| matches!(grant, ContainerGrant::Resource { .. }))
    });
    if let Some(node) = node.filter(|_| asks_for_resource) {
        findings.push(Finding::new(Code::DG009, "/spec/nodeName", [("node", node)]));
    }
    let annotations = request.metadata.annotations.iter().flatten();
    let mut cdi =
        annotations.map(|(key, _)| key.as_str()).filter(|key| key.starts_with("cdi.k8s.io/"));
    if let Some(key) = cdi.next() {
        let path = format!("/metadata/annotations/{}", key.replace('~', "~0").replace('/', "~1"));
        findings.push(Finding::new(Code::DG010, path, [("annotation", key)]));
    }
    let debugging = spec.ephemeral_containers.iter().take(MOST_DEBUGGING);
    for (index, container) in debugging.enumerate() {
        let path = format!("/spec/ephemeralContainers/{index}");
        findings.push(Finding::new(Code::DG014, path, [("container", container.name.as_str())]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_told_by_the_components_of_their_path() {
        for path in
            ["/dev/fuse", "//dev//fuse/", "/dev/nvidia0", "/dev/infiniband/uverbs0", "/dev/./kvm"]
        {
            assert!(HostDevice::of(path).is_some(), "{path}");
        }
        for path in [
            "/dev",
            "/",
            "/dev/shm",
            "/dev/shm/x",
            "/dev/null",
            "/dev/net/tun",
            "/srv/dev/fuse",
            "/dev-data/fuse",
            "/var/lib/kubelet/plugins/fuse",
        ] {
            assert!(HostDevice::of(path).is_none(), "{path}");
        }
    }
}
