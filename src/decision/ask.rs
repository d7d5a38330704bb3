//! ask: what the annotations ask for, against the policies: which mode, how many, for which
//! containers, and whether this pod may.

use std::collections::{BTreeMap, BTreeSet};

use super::annotation::{Asked, CONTAINERS, Entry, GRANTED, Stamp, Value};
use super::plan::{Objection, Reason};
use super::pod::{ContainerIndex, ContainerList, Spec};
use super::policy::schema::{Mode, OnInvalid, Requested, ResourceCount};
use super::policy::select::{Allowed, Subject};
use super::policy::{Policy, PolicySet};
use super::request::Request;
use super::spelling::{self, excerpt};

/// The annotation by which kubectl knows a pod's primary container
/// (`kubernetes/kubectl pkg/cmd/util/podcmd`).
pub(super) const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";
/// The most wrong names of one annotation that are told one by one.
const MOST_NAMES: usize = 5;
/// The most containers whose names a wrong one is compared with.
const MOST_COMPARED: usize = 100;
/// The service account of a pod that names none.
const DEFAULT_SERVICE_ACCOUNT: &str = "default";

/// An ask that policy lets through.
#[derive(Debug, Clone)]
pub struct Ask<'a> {
    /// The policy for the device.
    pub policy: &'a Policy,
    /// The mode's name.
    pub mode_name: &'a str,
    /// The mode.
    pub mode: &'a Mode,
    /// How many, for each container.
    pub count: u32,
    /// Who gets it, in the order of the pod.
    pub containers: Vec<ContainerIndex>,
    /// How the containers were chosen.
    pub chosen: Chosen,
    /// Why the pod may ask.
    pub allowed: Allowed,
    /// All modes that the pod may ask for, this one included.
    pub alternatives: Vec<(&'a str, &'a Mode)>,
}

/// How the containers of an ask were chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chosen {
    /// By an annotation of ours.
    Named,
    /// By kubectl's annotation for the primary container.
    DefaultContainer,
    /// As in the first round of admission.
    Stamp,
    /// It is the first regular container.
    First,
    /// Nobody asked: they have the old shape of the device, and the policy looks at such pods.
    OldShape,
}

/// An ask, or what is wrong with it.
#[derive(Debug)]
pub struct Unmet<'a> {
    /// The policy that owns the key.
    pub policy: &'a Policy,
    /// What is wrong, all of it.
    pub objections: Vec<Objection>,
}

impl Unmet<'_> {
    /// Whether the ask is left out with a warning, or the pod refused.
    pub fn on_invalid(&self) -> OnInvalid {
        self.policy.spec().on_invalid
    }
}

/// Everything that is needed to judge an ask.
#[derive(Debug, Clone, Copy)]
pub struct Asker<'a> {
    /// The pod.
    pub spec: &'a Spec<'a>,
    /// The facts.
    pub request: &'a Request<'a>,
    /// The policies.
    pub policies: &'a PolicySet,
    /// Who asks.
    pub subject: Subject<'a>,
}

/// The service account that a pod runs as.
pub fn service_account<'a>(spec: &'a Spec<'_>) -> &'a str {
    let named = spec.service_account_name.as_ref().map_or("", |name| name.as_str());
    if named.is_empty() { DEFAULT_SERVICE_ACCOUNT } else { named }
}

impl<'a> Asker<'a> {
    /// Judges every ask of a pod, in the order of the devices' names.
    pub fn judge(self, asked: &Asked<'a>) -> Vec<Result<Ask<'a>, Unmet<'a>>> {
        let stamp = asked.stamp.and_then(Stamp::parse);
        let judged = asked.devices.iter().filter_map(|entry| {
            let policy = self.policies.find(entry.device)?;
            Some(self.ask(policy, *entry, asked.containers, stamp.as_ref()))
        });
        judged.collect()
    }

    /// What is wrong with `<prefix>/containers` where every device names its own containers.
    pub fn unused_containers(self, asked: &Asked<'a>) -> Vec<Objection> {
        let mut objections = Vec::new();
        let used = asked.devices.iter().any(|entry| entry.containers.is_none());
        if let Some(names) = asked.containers.filter(|_| !used && !asked.devices.is_empty()) {
            let key = format!("{}/containers", self.policies.settings().prefix);
            self.named_containers(&key, names, &mut objections);
        }
        objections
    }

    /// The ask for the default mode that nobody made, for containers of the old shape.
    pub fn unasked(
        self,
        policy: &'a Policy,
        containers: Vec<ContainerIndex>,
    ) -> Result<Ask<'a>, Unmet<'a>> {
        let key = format!("{}/{}", self.policies.settings().prefix, policy.device());
        let mut objections = Vec::new();
        let value = Value { mode: None, count: None };
        let wish = self.wish(policy, &key, value, &mut objections);
        self.made(policy, wish, (Chosen::OldShape, containers), objections)
    }

    /// The names that must be written beside a new ask for a device, so that it means these containers and
    /// nobody is told that none is named; `None` where it means them anyhow.
    pub fn names_for(self, device: &str, wanted: &[ContainerIndex]) -> Option<Vec<&'a str>> {
        let prefix = &self.policies.settings().prefix;
        let annotation = |key: &str| self.request.annotation(&format!("{prefix}/{key}"));
        let stamp = annotation(GRANTED).and_then(Stamp::parse);
        let named = (annotation(&format!("{device}.{CONTAINERS}")), annotation(CONTAINERS));
        // What is wrong with those that are named is said of the ask once it is there.
        let (chosen, containers) = self.containers(device, named, stamp.as_ref(), &mut Vec::new());
        let is_said = chosen == Chosen::First && self.spec.containers.len() > 1;
        if containers == wanted && !is_said {
            return None;
        }
        let wanted = wanted.iter().filter_map(|at| self.spec.container(*at));
        Some(wanted.map(|container| container.name.as_str()).collect())
    }

    fn ask(
        self,
        policy: &'a Policy,
        entry: Entry<'a>,
        shared: Option<&'a str>,
        stamp: Option<&Stamp>,
    ) -> Result<Ask<'a>, Unmet<'a>> {
        let prefix = &self.policies.settings().prefix;
        let key = format!("{prefix}/{}", entry.device);
        let value = Value::parse(entry.value);
        let mut objections = Vec::new();

        let wish = self.wish(policy, &key, value, &mut objections);
        let named = (entry.containers, shared);
        let containers = self.containers(entry.device, named, stamp, &mut objections);
        self.made(policy, wish, containers, objections)
    }

    /// The mode and the count of an ask.
    fn wish(
        self,
        policy: &'a Policy,
        key: &str,
        value: Value<'_>,
        objections: &mut Vec<Objection>,
    ) -> Option<Wish<'a>> {
        let (mode_name, mode, allowed) = self.mode(policy, key, value.mode, objections)?;
        let count = count_of(policy, key, mode_name, mode, value.count, objections)?;
        Some(Wish { mode_name, mode, allowed, count })
    }

    fn made(
        self,
        policy: &'a Policy,
        wish: Option<Wish<'a>>,
        (chosen, containers): (Chosen, Vec<ContainerIndex>),
        objections: Vec<Objection>,
    ) -> Result<Ask<'a>, Unmet<'a>> {
        let Some(wish) = wish.filter(|_| objections.is_empty()) else {
            return Err(Unmet { policy, objections });
        };
        let Wish { mode_name, mode, allowed, count } = wish;
        let alternatives = policy.allowed_modes(self.subject);
        let alternatives = alternatives.filter_map(|name| policy.mode(name)).collect();
        Ok(Ask { policy, mode_name, mode, count, containers, chosen, allowed, alternatives })
    }

    /// The mode that is named, or the default one, if the subject may ask for it.
    fn mode(
        self,
        policy: &'a Policy,
        key: &str,
        named: Option<&str>,
        objections: &mut Vec<Objection>,
    ) -> Option<(&'a str, &'a Mode, Allowed)> {
        let allowed: Vec<&str> = policy.allowed_modes(self.subject).collect();
        let name = named.unwrap_or(&policy.spec().default_mode);
        let objection = match policy.mode(name) {
            // Said first and alone: which modes there are is no business of those who may use none.
            _ if allowed.is_empty() => Objection::new(
                Reason::NotAllowed,
                format!(
                    "annotation `{key}`: namespace `{}` and service account `{}` may not ask for `{}`; ask whoever keeps the policy `{}` to allow it",
                    self.subject.namespace.name,
                    excerpt(self.subject.service_account),
                    policy.device(),
                    policy.name()
                ),
            ),
            None if name.is_empty() => Objection::new(
                Reason::UnknownMode,
                format!(
                    "annotation `{key}` names no mode; write `true`, or a mode: {}",
                    spelling::list(allowed.iter().copied())
                ),
            ),
            None if name == "true" => Objection::new(
                Reason::UnknownMode,
                format!(
                    "annotation `{key}`: a count needs no `true` before it; write the count alone, or a mode, `:` and the count"
                ),
            ),
            None => {
                let valid = allowed.iter().copied().chain(["true", "false"]);
                let near = spelling::nearest(name, valid);
                let near = near.map(|near| format!("; did you mean `{near}`?"));
                Objection::new(
                    Reason::UnknownMode,
                    format!(
                        "annotation `{key}`: `{}` is no mode of `{}`; write `true`, `false`, a count, or a mode: {}{}",
                        excerpt(name),
                        policy.device(),
                        spelling::list(allowed.iter().copied()),
                        near.unwrap_or_default()
                    ),
                )
            }
            Some((mode_name, mode)) => match policy.allows(self.subject, mode_name, mode) {
                Some(allowed) => return Some((mode_name, mode, allowed)),
                None => Objection::new(
                    Reason::NotAllowed,
                    format!(
                        "annotation `{key}`: namespace `{}` and service account `{}` may not use the mode `{mode_name}`; allowed here: {}",
                        self.subject.namespace.name,
                        excerpt(self.subject.service_account),
                        spelling::list(allowed.iter().copied())
                    ),
                ),
            },
        };
        objections.push(objection);
        None
    }

    /// Whom an ask for a device is for, by the names for it or for all devices, if there are any.
    fn containers(
        self,
        device: &str,
        (own, shared): (Option<&str>, Option<&str>),
        stamp: Option<&Stamp>,
        objections: &mut Vec<Objection>,
    ) -> (Chosen, Vec<ContainerIndex>) {
        let prefix = &self.policies.settings().prefix;
        let annotation = own
            .map(|names| (format!("{prefix}/{device}.{CONTAINERS}"), names))
            .or_else(|| shared.map(|names| (format!("{prefix}/{CONTAINERS}"), names)));
        match annotation {
            Some((key, names)) => (Chosen::Named, self.named_containers(&key, names, objections)),
            None => self.primary_container(device, stamp, objections),
        }
    }

    /// Containers by name, or `*`, in the order of the pod.
    fn named_containers(
        self,
        key: &str,
        names: &str,
        objections: &mut Vec<Objection>,
    ) -> Vec<ContainerIndex> {
        let mut places: BTreeMap<&str, Vec<ContainerIndex>> = BTreeMap::new();
        for (at, container) in self.spec.all_containers() {
            places.entry(container.name.as_str()).or_default().push(at);
            if at.list == ContainerList::Regular {
                places.entry("*").or_default().push(at);
            }
        }
        let names: BTreeSet<&str> = names.split(',').map(str::trim).collect();
        let missing: Vec<&str> =
            names.iter().copied().filter(|name| !places.contains_key(name)).collect();
        let told = missing.iter().take(MOST_NAMES);
        objections.extend(told.map(|name| self.no_container(key, name)));
        if missing.len() > MOST_NAMES {
            let more = missing.len() - MOST_NAMES;
            let sentence = format!(
                "annotation `{key}` names {more} more containers that the pod does not have"
            );
            objections.push(Objection::new(Reason::UnknownContainer, sentence));
        }
        let wanted = names.iter().filter_map(|name| places.get(name)).flatten();
        wanted.copied().collect::<BTreeSet<_>>().into_iter().collect()
    }

    fn no_container(self, key: &str, name: &str) -> Objection {
        let all = || self.spec.all_containers().map(|(_, container)| container.name.as_str());
        let first: Vec<String> = all().take(MOST_COMPARED).map(excerpt).collect();
        let near = spelling::nearest(name, first.iter().map(String::as_str));
        let near = near.filter(|_| !name.is_empty());
        let near = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
        // Those behind are counted and not shown.
        let list =
            spelling::list(first.iter().map(String::as_str).chain(all().skip(MOST_COMPARED)));
        let sentence = match name {
            "" => format!(
                "annotation `{key}`: a name is empty; take the comma out, or name one of the containers: {list}, or `*` for every regular one"
            ),
            "*" => format!(
                "annotation `{key}`: `*` is every regular container, and the pod has none; `spec.containers` needs at least one"
            ),
            _ => format!(
                "annotation `{key}`: the pod has no container `{}`; containers: {list}, or `*` for every regular one{near}",
                excerpt(name)
            ),
        };
        Objection::new(Reason::UnknownContainer, sentence)
    }

    /// The container that gets a device when none is named: the one that got it in the first round,
    /// so that a sidecar that another webhook puts in front changes nothing; else kubectl's choice.
    fn primary_container(
        self,
        device: &str,
        stamp: Option<&Stamp>,
        objections: &mut Vec<Objection>,
    ) -> (Chosen, Vec<ContainerIndex>) {
        let by_name = |name: &str| {
            let mut all = self.spec.all_containers();
            all.find(|(_, container)| container.name == name).map(|(at, _)| at)
        };
        let stamped = match stamp.and_then(|stamp| stamp.containers_of(device)) {
            Some([only]) => by_name(only),
            _ => None,
        };
        let default = || self.request.annotation(DEFAULT_CONTAINER).and_then(by_name);
        let first = ContainerIndex { list: ContainerList::Regular, index: 0 };
        let chosen = stamped
            .map(|at| (Chosen::Stamp, at))
            .or_else(|| default().map(|at| (Chosen::DefaultContainer, at)))
            .or_else(|| self.spec.container(first).map(|_| (Chosen::First, first)));
        if let Some((chosen, at)) = chosen {
            return (chosen, vec![at]);
        }
        objections.push(Objection::new(
            Reason::UnknownContainer,
            "the pod has no containers; `spec.containers` needs at least one",
        ));
        (Chosen::First, Vec::new())
    }
}

/// The mode and the count of an ask, as policy lets it.
struct Wish<'a> {
    mode_name: &'a str,
    mode: &'a Mode,
    allowed: Allowed,
    count: u32,
}

/// How many of the device, if the policy and the mode let that many be asked for.
fn count_of(
    policy: &Policy,
    key: &str,
    mode_name: &str,
    mode: &Mode,
    written: Option<&str>,
    objections: &mut Vec<Objection>,
) -> Option<u32> {
    let heeds = mode
        .resources
        .iter()
        .any(|resource| resource.count == ResourceCount::Requested(Requested::Requested));
    let limits = policy.spec().count;
    let Some(written) = written else {
        return Some(if heeds { limits.default } else { 1 });
    };
    let most = if heeds { limits.max } else { 1 };
    // Digits only: `parse` alone would take a sign.
    let digits = !written.is_empty() && written.bytes().all(|byte| byte.is_ascii_digit());
    let count = if digits { written.parse::<u32>().ok() } else { None };
    let sentence = match count {
        Some(count) if (1..=most).contains(&count) => return Some(count),
        _ if !heeds => format!(
            "annotation `{key}`: the mode `{mode_name}` gives one device to each container; leave the count `{}` out",
            excerpt(written)
        ),
        _ if !digits => format!(
            "annotation `{key}`: `{}` is no count; write a whole number from 1 to {most}",
            excerpt(written)
        ),
        _ if written.bytes().all(|byte| byte == b'0') => {
            format!(
                "annotation `{key}`: a count of 0 asks for nothing; write `false`, or a count from 1 to {most}"
            )
        }
        _ => format!(
            "annotation `{key}`: the count {} is more than the policy `{}` lets a pod have; write one from 1 to {most}",
            excerpt(written),
            policy.name()
        ),
    };
    objections.push(Objection::new(Reason::InvalidCount, sentence));
    None
}
