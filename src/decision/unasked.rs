//! unasked: pods of the old shape that ask for nothing, where a policy looks at those too
//! (`legacy.when: Always`).
//!
//! Such a pod is decided as if its privileged containers asked for the default mode. What it did not
//! ask for must not cost it anything: a grant comes only together with the rewrite, and whatever stands
//! against the two leaves the container as it is, with a warning that says why.

use std::collections::BTreeMap;

use super::ask::{Ask, Asker, DEFAULT_CONTAINER, service_account};
use super::finding::{Code, Finding, Severity};
use super::namespace::Namespace;
use super::plan::{ContainerGrant, is_kubelet_plugin, old_shape};
use super::pod::{ContainerIndex, ContainerList, Spec};
use super::policy::schema::{Enforcement, LegacyAction};
use super::policy::select::Subject;
use super::policy::{Policy, PolicySet};
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
    let prefix = &policies.settings().prefix;
    let mut findings = Vec::new();
    for ask in settled.enforced.iter().chain(&settled.shadowed) {
        let device = ask.policy.device();
        let mut ask_for = format!("`{prefix}/{device}: \"true\"`");
        let first = ContainerIndex { list: ContainerList::Regular, index: 0 };
        if ask.containers != [first] || request.annotation(DEFAULT_CONTAINER).is_some() {
            let names = ask.containers.iter().filter_map(|at| spec.container(*at));
            let names: Vec<String> = names.map(|one| excerpt(one.name.as_str())).collect();
            let names = format!(" and `{prefix}/{device}.containers: {}`", names.join(","));
            ask_for.push_str(&names);
        }
        for at in &ask.containers {
            let name = spec.container(*at).map_or("", |container| container.name.as_str());
            let path = paths.get(&(device, *at)).map_or("", String::as_str);
            let words = [("container", name), ("path", path), ("ask", ask_for.as_str())];
            findings.push(Finding::new(Code::DG024, place(*at), words));
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
    // A device plugin has exactly the old shape, and would ask for what only it can offer.
    if is_kubelet_plugin(spec) {
        return Vec::new();
    }
    let prefix = &policies.settings().prefix;
    let shapes = looking.filter_map(|policy| {
        let legacy = policy.spec().legacy.as_ref()?;
        if request.annotation(&format!("{prefix}/{}", policy.device())).is_some() {
            return None;
        }
        // Without `privileged` nothing of it works today, and a grant would be a privilege more.
        let privileged = spec
            .all_containers()
            .filter(|(_, container)| container.security_context.privileged == Some(true));
        let containers: Vec<_> = privileged
            .filter_map(|(at, container)| Some((at, old_shape(spec, container, legacy)?)))
            .collect();
        (!containers.is_empty()).then_some(OldShape { policy, containers })
    });
    shapes.collect()
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
    for OldShape { policy, containers } in shapes {
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
    // A container that stays takes its share of every ask with it, so that this ends.
    while !unasked.is_empty() {
        let mut all = others.to_vec();
        all.extend(unasked.iter().map(|(ask, _)| ask.clone()));
        let weighed = weigh(request, spec, &all, policies, namespace);
        if weighed.windows {
            return Vec::new();
        }
        if let Some(objection) = weighed.objections.first() {
            // Said of the pod's own asks if they are at fault; then it is refused anyway.
            for (ask, containers) in &unasked {
                let stays = Stays { spec, policy: ask.policy, containers };
                findings.extend(stays.each(Code::DG022, &objection.sentence));
            }
            return Vec::new();
        }
        let mut stays = Vec::new();
        for (ask, containers) in &mut unasked {
            let (go, stay): (Vec<_>, Vec<_>) =
                containers.drain(..).partition(|(at, _)| why_not(&weighed, *at).is_none());
            ask.containers = go.iter().map(|(at, _)| *at).collect();
            *containers = go;
            stays.extend(stay.into_iter().map(|one| (ask.policy, one)));
        }
        if stays.is_empty() {
            break;
        }
        for (policy, one) in stays {
            let why = why_not(&weighed, one.0).unwrap_or_default();
            let stays = Stays { spec, policy, containers: &[one] };
            findings.extend(stays.each(Code::DG022, &why));
        }
        unasked.retain(|(ask, _)| !ask.containers.is_empty());
    }
    unasked.into_iter().map(|(ask, _)| ask).collect()
}

/// Why a container is not rewritten, or had better not be: what works today must work afterwards.
fn why_not(weighed: &Weighed<'_>, at: ContainerIndex) -> Option<String> {
    let at_container = |finding: &&Finding| {
        let rest = finding.path.strip_prefix(&place(at));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let findings = || weighed.findings.iter().filter(at_container);
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
    let mut containers = weighed.plan.containers.iter();
    let goes = containers
        .any(|(place, grants)| *place == at && grants.contains(&ContainerGrant::Unprivileged));
    (!goes).then(|| "the grant does not take its place".to_owned())
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
    format!("/spec/{}/{}", at.list.field(), at.index)
}
