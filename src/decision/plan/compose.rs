//! Many asks, one plan: what each container and the pod get from all of them together.

mod nvidia;

use std::collections::{BTreeMap, BTreeSet};

use super::accelerator::{NVIDIA_VISIBLE_DEVICES, SYS_ADMIN, is_gpu};
use super::{
    ContainerGrant, MOST, Objection, Plan, PodGrant, Reason, VolumeName, legacy, too_large,
};
use crate::decision::annotation::StampedGrant;
use crate::decision::ask::Ask;
use crate::decision::path::same_path;
use crate::decision::pod::{ContainerIndex, Spec};
use crate::decision::policy::schema::{
    EnvironmentVariable, Mount, NvidiaVisibleDevices, OmittableField, Profile, Resource,
    ResourceClaim, ResourceCount, Toleration,
};

/// Composes asks, in any order, for a pod. The objections are about asks that contradict each other;
/// what contradicts the pod itself is said by [`conflict`](crate::decision::conflict).
pub fn compose<'p>(spec: &Spec<'_>, asks: &[Ask<'p>]) -> Result<Plan<'p>, Vec<Objection>> {
    let mut objections = Vec::new();
    let runtime_class = runtime_class(spec, asks, &mut objections);
    let asks: Vec<Share<'_, 'p>> = asks.iter().map(|ask| Share::of(ask, runtime_class)).collect();

    let mut plan = Plan { granted: granted(spec, &asks), ..Plan::default() };
    let mut mounted = BTreeSet::new();
    let old_shapes = legacy::OldShapes::of(spec);
    let mut changes = 0;
    for (at, container) in spec.all_containers() {
        let here: Vec<&Share<'_, 'p>> =
            asks.iter().filter(|share| share.ask.containers.binary_search(&at).is_ok()).collect();
        if here.is_empty() {
            continue;
        }
        let name = container.name.as_str();
        let mut grants = container_grants(spec, at, name, &here, &mut objections);
        let here: Vec<&Ask<'p>> = here.iter().map(|share| share.ask).collect();
        if let Some(rewrite) = old_shapes.rewrite(at, container, &here) {
            grants.extend(rewrite.grants);
            plan.legacy.extend(rewrite.findings);
        }
        mounted.extend(grants.iter().filter_map(|grant| match grant {
            ContainerGrant::Mount { volume, .. } => Some(volume.to_string()),
            _ => None,
        }));
        changes += grants.len();
        plan.containers.push((at, grants));
        // Nothing of such a plan is ever granted, so that the rest is not worth composing.
        if changes > MOST {
            objections.push(too_large(changes));
            return Err(objections);
        }
    }
    plan.pod = pod_grants(&asks, runtime_class, &mounted, &mut objections);
    plan.pod.extend(legacy::volumes(spec, &plan.containers));
    if plan.len() > MOST {
        objections.push(too_large(plan.len()));
    }
    if objections.is_empty() { Ok(plan) } else { Err(objections) }
}

/// One ask, less what the pod's RuntimeClass makes unnecessary.
struct Share<'s, 'p> {
    ask: &'s Ask<'p>,
    omitted: BTreeSet<OmittableField>,
}

impl<'s, 'p> Share<'s, 'p> {
    fn of(ask: &'s Ask<'p>, runtime_class: Option<&str>) -> Self {
        let variant = runtime_class.and_then(|class| ask.policy.spec().runtime_classes.get(class));
        let omitted =
            variant.into_iter().flat_map(|variant| variant.omit.iter().copied()).collect();
        Self { ask, omitted }
    }

    fn unless_omitted<T>(&self, field: OmittableField, value: T, none: T) -> T {
        if self.omitted.contains(&field) { none } else { value }
    }

    fn resources(&self) -> &'p [Resource] {
        self.unless_omitted(OmittableField::Resources, &self.ask.mode.resources, &[])
    }

    fn claims(&self) -> &'p [ResourceClaim] {
        self.unless_omitted(OmittableField::ResourceClaims, &self.ask.mode.resource_claims, &[])
    }

    fn capabilities(&self) -> &'p [String] {
        self.unless_omitted(OmittableField::Capabilities, &self.ask.mode.capabilities, &[])
    }

    fn tolerations(&self) -> &'p [Toleration] {
        self.unless_omitted(OmittableField::Tolerations, &self.ask.mode.tolerations, &[])
    }

    fn own_user_namespace(&self) -> bool {
        self.unless_omitted(
            OmittableField::HostUsers,
            self.ask.mode.host_users == Some(false),
            false,
        )
    }

    fn app_armor(&self) -> Option<&'p Profile> {
        let profile =
            self.ask.mode.app_armor_profile.as_ref().filter(|profile| **profile != Profile::Keep);
        self.unless_omitted(OmittableField::AppArmorProfile, profile, None)
    }

    fn seccomp(&self) -> Option<&'p Profile> {
        let profile =
            self.ask.mode.seccomp_profile.as_ref().filter(|profile| **profile != Profile::Keep);
        self.unless_omitted(OmittableField::SeccompProfile, profile, None)
    }

    /// What this ask wants of `NVIDIA_VISIBLE_DEVICES`; `None` if it does not care.
    fn nvidia(&self) -> Option<NvidiaVisibleDevices> {
        let sets_it =
            self.ask.mode.env.iter().any(|variable| variable.name == NVIDIA_VISIBLE_DEVICES);
        let adds_sys_admin = self.capabilities().iter().any(|capability| capability == SYS_ADMIN);
        let wish = match self.ask.mode.nvidia_visible_devices {
            Some(wish) => Some(wish),
            None if sets_it => Some(NvidiaVisibleDevices::Keep),
            None => adds_sys_admin.then_some(NvidiaVisibleDevices::Void),
        };
        self.unless_omitted(OmittableField::NvidiaVisibleDevices, wish, None)
    }

    fn count(&self, resource: &Resource) -> u32 {
        match resource.count {
            ResourceCount::Fixed(count) => count,
            ResourceCount::Requested(_) => self.ask.count,
        }
    }

    /// How a sentence names this ask.
    fn named(&self) -> String {
        format!("`{}` (mode `{}`)", self.ask.policy.device(), self.ask.mode_name)
    }
}

fn granted(spec: &Spec<'_>, asks: &[Share<'_, '_>]) -> Vec<StampedGrant> {
    let names =
        |at: &ContainerIndex| spec.container(*at).map(|container| container.name.to_string());
    let mut granted: Vec<StampedGrant> = asks
        .iter()
        .map(|share| StampedGrant {
            device: share.ask.policy.device().to_owned(),
            mode: share.ask.mode_name.to_owned(),
            count: share.ask.count,
            containers: share.ask.containers.iter().filter_map(names).collect(),
            policy: share.ask.policy.name().to_owned(),
        })
        .collect();
    granted.sort_by(|one, other| one.device.cmp(&other.device));
    granted
}

/// The RuntimeClass of the pod as it will be.
fn runtime_class<'a>(
    spec: &'a Spec<'_>,
    asks: &[Ask<'a>],
    objections: &mut Vec<Objection>,
) -> Option<&'a str> {
    let own = spec
        .runtime_class_name
        .as_ref()
        .map(super::super::pod::Text::as_str)
        .filter(|class| !class.is_empty());
    let mut chosen: Option<(&str, String)> =
        own.map(|class| (class, "the pod's `spec.runtimeClassName`".to_owned()));
    for ask in asks {
        let Some(wanted) = ask.mode.runtime_class_name.as_deref() else {
            continue;
        };
        let wish = format!("`{}` (mode `{}`)", ask.policy.device(), ask.mode_name);
        let by = format!("the one of {wish}");
        match &chosen {
            Some((class, by)) if *class != wanted => objections.push(Objection::new(
                Reason::Conflict,
                format!("{wish} needs the RuntimeClass `{wanted}`, and {by} is `{class}`; a pod has one RuntimeClass: leave one of the two out"),
            )),
            Some(_) => {}
            None => chosen = Some((wanted, by)),
        }
    }
    chosen.map(|(class, _)| class)
}

fn container_grants<'p>(
    spec: &Spec<'_>,
    at: ContainerIndex,
    name: &str,
    here: &[&Share<'_, 'p>],
    objections: &mut Vec<Objection>,
) -> Vec<ContainerGrant<'p>> {
    // What is there with all grants, before any is carried: what carries is never itself carried,
    // which the policy set guarantees.
    let mut present: BTreeSet<&str> = BTreeSet::new();
    if let Some(container) = spec.container(at) {
        present.extend(container.resources.present(|_| true));
    }
    let granted = here.iter().flat_map(|share| share.resources());
    present.extend(granted.map(|resource| resource.name.as_str()));

    let place = format!("container `{name}`");
    let mut grants = resources(here, &present);
    grants.extend(security(here, &place, objections));
    grants.extend(environment(spec, at, here, &place, &present, objections));
    grants.extend(mounts(spec, at, here, &place, objections));
    distinct(grants)
}

/// The same resource for two devices is one amount: the larger, never the sum.
fn resources<'p>(here: &[&Share<'_, 'p>], present: &BTreeSet<&str>) -> Vec<ContainerGrant<'p>> {
    let mut amounts: BTreeMap<&str, u32> = BTreeMap::new();
    for share in here {
        let carriers = &share.ask.policy.spec().carried_by;
        if carriers.iter().any(|carrier| present.contains(carrier.as_str())) {
            continue;
        }
        for resource in share.resources() {
            let amount = amounts.entry(&resource.name).or_default();
            *amount = share.count(resource).max(*amount);
        }
    }
    // The API server takes a part of a claim beside the whole for a duplicate.
    let claims = || here.iter().flat_map(|share| share.claims());
    let is_part = |claim: &ResourceClaim| {
        let mut wholes = claims().filter(|other| other.request.is_none());
        claim.request.is_some() && wholes.any(|whole| whole.name == claim.name)
    };
    let claims = claims().filter(|claim| !is_part(claim));
    let amounts = amounts.into_iter();
    let amounts = amounts.map(|(name, count)| ContainerGrant::Resource { name, count });
    amounts.chain(claims.map(ContainerGrant::Claim)).collect()
}

fn security<'p>(
    here: &[&Share<'_, 'p>],
    place: &str,
    objections: &mut Vec<Objection>,
) -> Vec<ContainerGrant<'p>> {
    let capabilities = here.iter().flat_map(|share| share.capabilities());
    let mut grants: Vec<_> =
        capabilities.map(|capability| ContainerGrant::Capability(capability)).collect();
    if here.iter().any(|share| share.ask.mode.privileged) {
        grants.push(ContainerGrant::Privileged);
    }
    // The API server refuses the two together.
    let hatch = here.iter().find(|share| share.ask.mode.privileged);
    let bound = here.iter().find(|share| share.ask.mode.allow_privilege_escalation == Some(false));
    if let (Some(hatch), Some(bound)) = (hatch, bound) {
        objections.push(contradiction(hatch, bound, place, "`allowPrivilegeEscalation`"));
    }
    let escalation = |share: &Share<'_, '_>| share.ask.mode.allow_privilege_escalation;
    let escalation = agree(here, place, "`allowPrivilegeEscalation`", escalation, objections);
    grants.extend(escalation.map(ContainerGrant::AllowPrivilegeEscalation));
    let app_armor = agree(here, place, "the AppArmor profile", Share::app_armor, objections);
    grants.extend(app_armor.map(ContainerGrant::AppArmor));
    let seccomp = agree(here, place, "the seccomp profile", Share::seccomp, objections);
    grants.extend(seccomp.map(ContainerGrant::Seccomp));
    grants
}

fn environment<'p>(
    spec: &Spec<'_>,
    at: ContainerIndex,
    here: &[&Share<'_, 'p>],
    place: &str,
    present: &BTreeSet<&str>,
    objections: &mut Vec<Objection>,
) -> Vec<ContainerGrant<'p>> {
    let variables = here.iter().flat_map(|share| {
        let env = share.ask.mode.env.iter();
        env.map(|variable| (variable.name.as_str(), *share, variable))
    });
    let gpu = present.iter().find(|resource| is_gpu(resource)).copied();
    let wants = |wish| here.iter().any(|share| share.nvidia() == Some(wish));
    let void = wants(NvidiaVisibleDevices::Void);
    let keep = wants(NvidiaVisibleDevices::Keep);
    if let Some(gpu) = gpu {
        nvidia::hidden_gpu(here, place, gpu, objections);
    }
    if void && (gpu.is_some() || keep) {
        nvidia::every_gpu(spec, at, place, gpu, objections);
    }
    let value = |variable: &&EnvironmentVariable| variable.value.clone();
    let variables = one_each(variables, place, "the environment variable", value, objections);
    let variables = variables.into_iter();
    let mut grants: Vec<_> = variables
        .map(|EnvironmentVariable { name, value }| ContainerGrant::Environment { name, value })
        .collect();

    if void && !keep && gpu.is_none() {
        grants.push(ContainerGrant::NvidiaVoid);
    }
    grants
}

fn mounts<'p>(
    spec: &Spec<'_>,
    at: ContainerIndex,
    here: &[&Share<'_, 'p>],
    place: &str,
    objections: &mut Vec<Objection>,
) -> Vec<ContainerGrant<'p>> {
    // A mount of the pod's own at that path is left: it is what the author chose to have there.
    let is_free = |path: &str| {
        let mut own = spec.container(at).into_iter().flat_map(|own| &own.volume_mounts);
        !own.any(|mount| same_path(mount.mount_path.as_str(), path))
    };
    let mut wanted = Vec::new();
    for share in here {
        if let Some(host_path) = &share.ask.mode.host_path {
            let volume = VolumeName::OfDevice(share.ask.policy.device());
            wanted.push((host_path.path.as_str(), *share, (volume, host_path.path.as_str())));
        }
        for Mount { name, mount_path } in &share.ask.mode.mounts {
            if is_free(mount_path) {
                wanted.push((mount_path, *share, (VolumeName::Given(name), mount_path)));
            }
        }
    }
    // Of one path the API server takes one mount.
    let volume = |(volume, _): &(VolumeName<'_>, &str)| volume.to_string();
    one_each(wanted.into_iter(), place, "the volume at", volume, objections)
        .into_iter()
        .map(|(volume, path)| ContainerGrant::Mount { volume, path })
        .collect()
}

/// The first of each, in order.
fn distinct<T: PartialEq>(grants: Vec<T>) -> Vec<T> {
    let mut distinct = Vec::with_capacity(grants.len());
    for grant in grants {
        if !distinct.contains(&grant) {
            distinct.push(grant);
        }
    }
    distinct
}

fn pod_grants<'p>(
    asks: &[Share<'_, 'p>],
    runtime_class: Option<&str>,
    mounted: &BTreeSet<String>,
    objections: &mut Vec<Objection>,
) -> Vec<PodGrant<'p>> {
    let mut grants = Vec::new();
    let mut add = |grant: PodGrant<'p>| {
        if !grants.contains(&grant) {
            grants.push(grant);
        }
    };
    let modes = || asks.iter().map(|share| (share, share.ask.mode));

    let classes = modes().filter_map(|(_, mode)| mode.runtime_class_name.as_deref());
    classes
        .filter(|class| runtime_class == Some(*class))
        .for_each(|class| add(PodGrant::RuntimeClass(class)));
    if let Some(own_users) = asks.iter().find(|share| share.own_user_namespace()) {
        add(PodGrant::OwnUserNamespace);
        // A device node cannot be idmapped, and the container would not start.
        if let Some(hatch) = asks.iter().find(|share| share.ask.mode.host_path.is_some()) {
            objections.push(contradiction(hatch, own_users, "the pod", "`hostUsers`"));
        }
    }
    let claims = asks.iter().flat_map(|share| {
        share.claims().iter().map(move |claim| (claim.name.as_str(), share, claim))
    });
    for claim in one_each(
        claims,
        "the pod",
        "the claim",
        |claim| claim.resource_claim_template_name.clone(),
        objections,
    ) {
        add(PodGrant::Claim(claim));
    }
    for (share, mode) in modes() {
        if let Some(host_path) = &mode.host_path {
            add(PodGrant::HostPathVolume {
                name: VolumeName::OfDevice(share.ask.policy.device()),
                host_path,
            });
        }
    }
    let volumes = modes().flat_map(|(share, mode)| {
        mode.volumes.iter().map(move |volume| (volume.name.as_str(), share, volume))
    });
    for volume in one_each(
        volumes,
        "the pod",
        "the volume",
        |volume| format!("{:?}", volume.empty_dir),
        objections,
    ) {
        if mounted.contains(&volume.name) {
            add(PodGrant::Volume(volume));
        }
    }
    let selectors = modes().flat_map(|(share, mode)| {
        mode.node_selector.iter().map(move |entry| (entry.0.as_str(), share, entry))
    });
    for (key, value) in
        one_each(selectors, "the pod", "the node label", |(_, value)| (*value).clone(), objections)
    {
        add(PodGrant::NodeSelector { key, value });
    }
    modes()
        .flat_map(|(_, mode)| &mode.node_affinity)
        .for_each(|requirement| add(PodGrant::NodeAffinity(requirement)));
    asks.iter()
        .flat_map(Share::tolerations)
        .for_each(|toleration| add(PodGrant::Toleration(toleration)));
    let annotations = modes().flat_map(|(share, mode)| {
        mode.pod_annotations.iter().map(move |entry| (entry.0.as_str(), share, entry))
    });
    for (key, value) in one_each(
        annotations,
        "the pod",
        "the annotation",
        |(_, value)| (*value).clone(),
        objections,
    ) {
        add(PodGrant::Annotation { key, value });
    }
    modes()
        .flat_map(|(_, mode)| &mode.scheduling_gates)
        .for_each(|gate| add(PodGrant::SchedulingGate(gate)));
    grants
}

/// The one value that all asks which care agree on.
fn agree<'s, 'p, T: PartialEq>(
    asks: &[&'s Share<'s, 'p>],
    place: &str,
    what: &str,
    wish: impl Fn(&'s Share<'s, 'p>) -> Option<T>,
    objections: &mut Vec<Objection>,
) -> Option<T> {
    let mut wishes = asks.iter().filter_map(|share| Some((*share, wish(share)?)));
    let (first, value) = wishes.next()?;
    for (other, _) in wishes.filter(|(_, other)| *other != value) {
        objections.push(contradiction(first, other, place, what));
    }
    Some(value)
}

/// The values by their names, where asks that name the same agree on the value.
fn one_each<'s, 'p: 's, T: Copy>(
    named: impl Iterator<Item = (&'p str, &'s Share<'s, 'p>, T)>,
    place: &str,
    what: &str,
    content: impl Fn(&T) -> String,
    objections: &mut Vec<Objection>,
) -> Vec<T> {
    let mut chosen: BTreeMap<&str, (&Share<'_, '_>, T)> = BTreeMap::new();
    for (name, share, value) in named {
        match chosen.get(name) {
            Some((first, other)) if content(other) != content(&value) => {
                objections.push(contradiction(first, share, place, &format!("{what} `{name}`")));
            }
            Some(_) => {}
            None => {
                chosen.insert(name, (share, value));
            }
        }
    }
    chosen.into_values().map(|(_, value)| value).collect()
}

fn contradiction(one: &Share<'_, '_>, other: &Share<'_, '_>, place: &str, what: &str) -> Objection {
    Objection::new(
        Reason::Conflict,
        format!(
            "{} and {} need {what} of {place} to be different; ask for other modes, or in different pods",
            one.named(),
            other.named()
        ),
    )
}
