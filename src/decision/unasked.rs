//! unasked: pods of the old shape that ask for nothing, where a policy looks at those too
//! (`legacy.when: Always`).
//!
//! Such a pod is decided as if its privileged containers asked for the default mode. What it did not
//! ask for must not cost it anything: a grant comes only together with the rewrite, and whatever stands
//! against the two leaves the container as it is, with a warning that says why.

use std::collections::{BTreeMap, BTreeSet};

use super::annotation::CONTAINERS;
use super::ask::{Ask, Asker, service_account};
use super::conflict::bare;
use super::finding::{Code, Finding, Severity};
use super::foresee::other_use;
use super::namespace::Namespace;
use super::path::is_harmless;
use super::plan::accelerator::{NVIDIA_VISIBLE_DEVICES, names_gpus};
use super::plan::{ContainerGrant, NodePaths, is_kubelet_plugin, old_shape};
use super::pod::{Container, ContainerIndex, ProfileField, Spec};
use super::policy::schema::{Enforcement, LegacyAction};
use super::policy::select::Subject;
use super::policy::{Policy, PolicySet, is_dns_subdomain};
use super::request::Request;
use super::spelling::excerpt;
use super::weigh::{Weighed, weigh};

/// A device that privileged containers have by hostPath, and that no annotation speaks of.
pub(super) struct OldShape<'a> {
    policy: &'a Policy,
    /// The containers, and the hostPath that each of them mounts.
    containers: Vec<(ContainerIndex, String)>,
}

/// The old shapes of a pod that policies look at unasked. An annotation for the device, also `"false"`,
/// is the author's own word on it.
pub(super) fn find<'a>(
    request: &Request<'_>,
    spec: &Spec<'_>,
    policies: &'a PolicySet,
) -> Vec<OldShape<'a>> {
    shapes(request, spec, policies, policies.looking_unasked())
}

/// The old shapes of a pod of which nobody asked to be rid, each as the ask that would do it; those that
/// would stay are not among them. For those who lint: nothing of it is said at admission.
pub fn would_go<'a>(
    request: &'a Request<'a>,
    spec: &'a Spec<'a>,
    policies: &'a PolicySet,
    namespace: &'a Namespace,
) -> Vec<Finding> {
    let settings = policies.settings();
    if settings.never_touches(request.namespace.as_str()) || !settings.opted_in(namespace) {
        return Vec::new();
    }
    let shapes = shapes(request, spec, policies, policies.policies().iter());
    let paths: BTreeMap<(&str, ContainerIndex), String> = shapes
        .iter()
        .flat_map(|shape| {
            let device = shape.policy.device();
            shape.containers.iter().map(move |(at, path)| ((device, *at), path.clone()))
        })
        .collect();
    let subject = Subject { namespace, service_account: service_account(spec) };
    let asker = Asker { spec, request, policies, subject };
    let settled = settle(asker, shapes, &[], namespace);
    // What Pod Security refuses is no advice.
    let granted = weigh(request, spec, &settled.enforced, policies, namespace);
    if granted.findings.iter().any(|finding| finding.code == Code::DG005) {
        return Vec::new();
    }
    let prefix = &policies.settings().prefix;
    let mut findings = Vec::new();
    for ask in settled.enforced.iter().chain(&settled.shadowed) {
        let device = ask.policy.device();
        let has_no_other_use = |at: &ContainerIndex| {
            let container = spec.container(*at);
            container.is_some_and(|container| other_use::of_container(spec, container).is_none())
        };
        let containers: Vec<ContainerIndex> =
            ask.containers.iter().copied().filter(has_no_other_use).collect();
        let mut ask_for = format!("`{prefix}/{device}: \"true\"`");
        if let Some(names) = asker.names_for(device, &containers) {
            let names: Vec<String> = names.into_iter().map(excerpt).collect();
            let names = format!(" and `{prefix}/{device}.containers: {}`", names.join(","));
            ask_for.push_str(&names);
        }
        for at in containers {
            let name = spec.container(at).map_or("", |container| container.name.as_str());
            let path = paths.get(&(device, at)).map_or("", String::as_str);
            let words = [("container", name), ("path", path), ("ask", ask_for.as_str())];
            findings.push(Finding::new(Code::DG024, place(at), words));
        }
    }
    findings
}

fn shapes<'a>(
    request: &Request<'_>,
    spec: &Spec<'_>,
    policies: &'a PolicySet,
    looking: impl Iterator<Item = &'a Policy>,
) -> Vec<OldShape<'a>> {
    let prefix = &policies.settings().prefix;
    let paths = NodePaths::of(spec);
    let counts = name_counts(spec);
    let is_plugin = is_kubelet_plugin(spec);
    let shapes = looking.filter_map(|policy| {
        let legacy = policy.spec().legacy.as_ref()?;
        // What is refused is refused whatever the author says of it.
        let denies = legacy.action == LegacyAction::Deny;
        let key = format!("{prefix}/{}", policy.device());
        let is_spoken_of = [key.clone(), format!("{key}.{CONTAINERS}")]
            .iter()
            .any(|key| request.annotation(key).is_some());
        // A device plugin has exactly the old shape, and would ask for what only it can offer.
        if (is_spoken_of || is_plugin) && !denies {
            return None;
        }
        // Without `privileged` nothing of it works today, and a grant would be a privilege more.
        let privileged = spec
            .all_containers()
            .filter(|(_, container)| container.security_context.privileged == Some(true));
        let containers: Vec<_> = privileged
            // The ask that is written must mean this container and no other.
            .filter(|(_, container)| denies || counts.get(container.name.as_str()) == Some(&1))
            .filter_map(|(at, container)| Some((at, old_shape(&paths, container, legacy)?)))
            .collect();
        (!containers.is_empty()).then_some(OldShape { policy, containers })
    });
    shapes.collect()
}

/// How many containers have each name that Kubernetes takes for one.
fn name_counts<'s>(spec: &'s Spec<'_>) -> BTreeMap<&'s str, usize> {
    let mut counts = BTreeMap::new();
    let all = spec.all_containers().map(|(_, container)| container.name.as_str());
    let ephemeral = spec.ephemeral_containers.iter().map(|container| container.name.as_str());
    for name in all.chain(ephemeral).filter(|name| !name.contains('.') && is_dns_subdomain(name)) {
        *counts.entry(name).or_insert(0) += 1;
    }
    counts
}

/// What becomes of the old shapes of a pod.
#[derive(Default)]
pub(super) struct Settled<'a> {
    /// What is granted though nobody asked.
    pub(super) enforced: Vec<Ask<'a>>,
    /// What a policy in shadow would grant.
    pub(super) shadowed: Vec<Ask<'a>>,
    /// What is to be said of containers that stay as they are, each with the policy that says it.
    pub(super) findings: Vec<(Finding, &'a Policy)>,
}

/// Settles which of the old shapes are rewritten beside what the pod asks for.
pub(super) fn settle<'a>(
    asker: Asker<'a>,
    shapes: Vec<OldShape<'a>>,
    asks: &[Ask<'a>],
    namespace: &Namespace,
) -> Settled<'a> {
    let mut settled = Settled::default();
    let mut enforced = Vec::new();
    let mut shadowed = Vec::new();
    for OldShape { policy, mut containers } in shapes {
        // What is asked for is judged as that; only `Deny` looks at pods that ask for the device.
        let mut own = asks.iter().filter(|ask| ask.policy.device() == policy.device());
        if let Some(ask) = own.next() {
            containers.retain(|(at, _)| ask.containers.binary_search(at).is_err());
        }
        let stays = Stays { spec: asker.spec, policy, containers: &containers };
        match policy.spec().legacy.as_ref().map(|legacy| legacy.action) {
            Some(LegacyAction::Deny) => settled.findings.extend(stays.each(Code::DG023, "")),
            Some(LegacyAction::Warn) => {
                settled.findings.extend(stays.each(Code::DG022, "the policy only warns of it"));
            }
            Some(LegacyAction::Rewrite) => {
                match asker.unasked(policy, containers.iter().map(|(at, _)| *at).collect()) {
                    Ok(ask) if policy.spec().enforcement == Enforcement::Shadow => {
                        shadowed.push((ask, containers));
                    }
                    Ok(ask) => enforced.push((ask, containers)),
                    Err(unmet) => {
                        let why = unmet.objections.first();
                        let why = why.map_or("", |objection| objection.sentence.as_str());
                        settled.findings.extend(stays.each(Code::DG022, why));
                    }
                }
            }
            Some(LegacyAction::Ignore) | None => {}
        }
    }
    settled.enforced = rewritten(asker, asks, enforced, namespace, &mut settled.findings);
    // What would be, once the policy is enforced, beside all that is.
    let others: Vec<Ask<'_>> = asks.iter().chain(&settled.enforced).cloned().collect();
    settled.shadowed = rewritten(asker, &others, shadowed, namespace, &mut settled.findings);
    settled
}

/// The asks of containers that are indeed rewritten; what is said of the others goes into `findings`.
fn rewritten<'a>(
    asker: Asker<'a>,
    others: &[Ask<'a>],
    mut unasked: Vec<(Ask<'a>, Vec<(ContainerIndex, String)>)>,
    namespace: &Namespace,
    findings: &mut Vec<(Finding, &'a Policy)>,
) -> Vec<Ask<'a>> {
    let Asker { spec, request, policies, .. } = asker;
    let paths = NodePaths::of(spec);
    // A container that stays takes its share of every ask with it, so that this ends.
    while !unasked.is_empty() {
        let mut all = others.to_vec();
        all.extend(unasked.iter().map(|(ask, _)| ask.clone()));
        let weighed = weigh(request, spec, &all, policies, namespace);
        if weighed.windows {
            return Vec::new();
        }
        // Where there is no plan, or a policy refuses what is foreseen: nobody asked for that.
        let objection = weighed.objections.first().map(|objection| objection.sentence.as_str());
        let by_container = ByContainer::of(&weighed);
        let mut stay = Vec::new();
        for (ask, containers) in &mut unasked {
            for one in std::mem::take(containers) {
                match why_not(spec, &paths, &by_container, one.0, objection) {
                    Some(why) => stay.push((ask.policy, one, why)),
                    None => containers.push(one),
                }
            }
        }
        if let Some(why) = objection.filter(|_| stay.is_empty()) {
            for (ask, containers) in &mut unasked {
                let all = std::mem::take(containers).into_iter();
                stay.extend(all.map(|one| (ask.policy, one, why.to_owned())));
            }
        }
        if stay.is_empty() {
            break;
        }
        for (policy, one, why) in stay {
            let stays = Stays { spec, policy, containers: &[one] };
            findings.extend(stays.each(Code::DG022, &why));
        }
        for (ask, containers) in &mut unasked {
            ask.containers = containers.iter().map(|(at, _)| *at).collect();
        }
        unasked.retain(|(ask, _)| !ask.containers.is_empty());
    }
    unasked.into_iter().map(|(ask, _)| ask).collect()
}

/// What is weighed, by the containers that it is of: each is found and not searched.
struct ByContainer<'w> {
    /// By the place of the container, in their order.
    findings: BTreeMap<&'w str, Vec<&'w Finding>>,
    grants: BTreeMap<ContainerIndex, &'w [ContainerGrant<'w>]>,
}

impl<'w> ByContainer<'w> {
    fn of(weighed: &'w Weighed<'w>) -> Self {
        let mut findings: BTreeMap<&str, Vec<&Finding>> = BTreeMap::new();
        for finding in &weighed.findings {
            // `/spec/containers/0`, of what is there or below.
            let mut slashes = finding.path.match_indices('/').map(|(at, _)| at);
            let end = slashes.nth(3).unwrap_or(finding.path.len());
            let container = finding.path.get(..end).unwrap_or_default();
            findings.entry(container).or_default().push(finding);
        }
        let grants = weighed.plan.containers.iter();
        let grants = grants.map(|(at, grants)| (*at, grants.as_slice())).collect();
        Self { findings, grants }
    }
}

/// Why a container is not rewritten, or had better not be: what works today must work afterwards.
fn why_not(
    spec: &Spec<'_>,
    paths: &NodePaths<'_>,
    weighed: &ByContainer<'_>,
    at: ContainerIndex,
    objection: Option<&str>,
) -> Option<String> {
    let findings = || weighed.findings.get(place(at).as_str()).into_iter().flatten();
    if let Some(stays) = findings().find(|finding| finding.code == Code::DG022) {
        return Some(stays.word("why").unwrap_or_default().to_owned());
    }
    // Pod Security refuses the pod as it is, too; AppArmor does nothing to it as long as it is privileged.
    let fails = findings().find(|finding| match finding.code {
        Code::DG004 => true,
        Code::DG005 => false,
        _ => finding.severity() == Severity::Error,
    });
    if let Some(fails) = fails {
        return Some(format!("without it, {}", fails.sentence()));
    }
    let grants = weighed.grants.get(&at).copied();
    let Some(grants) = grants.filter(|grants| grants.contains(&ContainerGrant::Unprivileged))
    else {
        return Some(objection.unwrap_or("the grant does not take its place").to_owned());
    };
    wakes_up(spec, paths, grants, spec.container(at)?)
}

/// What `privileged` overrides today, or may serve, and that would show without it.
fn wakes_up(
    spec: &Spec<'_>,
    paths: &NodePaths<'_>,
    grants: &[ContainerGrant<'_>],
    container: &Container<'_>,
) -> Option<String> {
    let own = &container.security_context;
    let pod = spec.security_context.as_ref();
    let confines = |profile: Option<&ProfileField<'_>>| {
        profile.is_some_and(|profile| profile.kind != "" && profile.kind != "Unconfined")
    };
    let seccomp = own.seccomp_profile.as_ref().or_else(|| pod?.seccomp_profile.as_ref());
    if confines(seccomp) {
        return Some("its seccomp profile is without force while it is privileged".to_owned());
    }
    let app_armor = own.app_armor_profile.as_ref().or_else(|| pod?.app_armor_profile.as_ref());
    if confines(app_armor) {
        return Some("its AppArmor profile is without force while it is privileged".to_owned());
    }
    let granted: BTreeSet<&str> = grants.iter().filter_map(ContainerGrant::capability).collect();
    let gone: BTreeSet<usize> = grants.iter().filter_map(ContainerGrant::unmount).collect();
    let mut added = own.capabilities.add.iter();
    if let Some(other) = added.find(|name| !granted.contains(bare(name.as_str()).as_str())) {
        return Some(format!("it adds the capability `{}`, too", excerpt(other.as_str())));
    }
    let hides = grants.contains(&ContainerGrant::NvidiaVoid);
    if hides && (container.env.iter().any(names_gpus) || !container.env_from.is_empty()) {
        return Some(format!("its environment may set `{NVIDIA_VISIBLE_DEVICES}`"));
    }
    // On nodes with SELinux, for one, only a privileged container reads what is there.
    let stays = container.volume_mounts.iter().enumerate().find_map(|(index, mount)| {
        let path = paths.of_mount(mount)?;
        let is_harmless = matches!(path.as_slice(), ["dev", below @ ..] if is_harmless(below));
        (!gone.contains(&index) && !is_harmless).then(|| format!("/{}", path.join("/")))
    });
    stays.map(|path| format!("the node's `{}` is mounted", excerpt(&path)))
}

/// Containers that stay as they are.
struct Stays<'s, 'a> {
    spec: &'s Spec<'s>,
    policy: &'a Policy,
    containers: &'s [(ContainerIndex, String)],
}

impl<'a> Stays<'_, 'a> {
    fn each(&self, code: Code, why: &str) -> impl Iterator<Item = (Finding, &'a Policy)> {
        self.containers.iter().map(move |(at, path)| {
            let name = self.spec.container(*at).map_or("", |container| container.name.as_str());
            let words = [("container", name), ("path", path.as_str()), ("why", why)];
            (Finding::new(code, place(*at), words), self.policy)
        })
    }
}

fn place(at: ContainerIndex) -> String {
    at.to_string()
}
