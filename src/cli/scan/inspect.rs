//! What a pod runs today, and what each of its containers would become.
//!
//! Nothing is decided here. Of a pod that does not ask one is made that does, and the line answers; what
//! it says of the old shape is what stands in the report.

mod decided;

use std::collections::BTreeMap;

use serde_json::Value;

use super::owner::{Owner, controller};
use super::report::{Becomes, Row, Seen};
use super::text::plain;
use crate::cli::question::{annotate, review};
use crate::config::Assumed;
use crate::decision::finding::Code;
use crate::decision::foresee::{evidence, other_use};
use crate::decision::line::{SYSTEM_NAMESPACE, pod_of};
use crate::decision::plan::{devices_of, is_kubelet_plugin};
use crate::decision::pod::{Container, ContainerIndex, ContainerList, Pod, Spec};
use crate::decision::policy::schema::Mode;
use crate::decision::review::Mismatch;
use crate::decision::{
    Namespace, PolicySet, Reason, Request, Review, Settings, Undecided, Verdict, decide,
};
use decided::Decided;

/// The annotation by which a kubelet marks the mirror of a static pod.
const MIRROR: &str = "/metadata/annotations/kubernetes.io~1config.mirror";

/// The annotation by which a pod names its primary container (`kubectl` has it).
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// The most containers that are tried one by one, each with a decision about the whole pod. Of more, one
/// that would be refused is not told apart from the others.
const MOST_ALONE: usize = 100;

/// Where a pod was found.
pub(super) struct Origin<'a> {
    /// Its namespace, with the labels that it has or is taken to have.
    pub(super) namespace: Namespace,
    /// Whose pod it is.
    pub(super) owner: Owner,
    pub(super) assumed: &'a Assumed,
}

/// Everything to say of a pod; the error is why it cannot be read.
pub(super) fn inspect(
    pod: &Value,
    origin: &Origin<'_>,
    policies: &PolicySet,
) -> Result<Seen, String> {
    // Most pods have neither, and need not be read.
    if !has_any(pod) {
        return Ok(Seen::default());
    }
    let pod = as_sent(pod);
    let text = pod.to_string();
    let read: Pod<'_> = serde_json::from_str(&text)
        .map_err(|_| Undecided::NotPod(Mismatch::at::<Pod<'_>>(&text)).to_string())?;
    let Some(spec) = read.spec() else { return Ok(Seen::default()) };
    let mut namespace = origin.namespace.clone();
    let settings = policies.settings();
    namespace.labels.insert(settings.opt_in_label(), Settings::OPTED_IN.to_owned());
    let inspection =
        Inspection { pod: &pod, spec, namespace, policies, origin, own: Vec::new(), refused: None };
    inspection.seen()
}

/// Whether any container is privileged, or any volume is of the node.
fn has_any(pod: &Value) -> bool {
    let list = |at| pod.pointer(at).and_then(Value::as_array).into_iter().flatten();
    let is_set = |value: &Value| !matches!(value, Value::Null | Value::Bool(false));
    let mut containers = list("/spec/initContainers").chain(list("/spec/containers"));
    list("/spec/volumes").any(|volume| volume.get("hostPath").is_some_and(is_set))
        || containers
            .any(|container| container.pointer("/securityContext/privileged").is_some_and(is_set))
}

/// The pod as it was sent when it was made, as far as that is still known: its node, where the scheduler
/// chose one, is not what an author wrote, and ephemeral containers come later.
fn as_sent(pod: &Value) -> Value {
    let mut pod = pod.clone();
    let is_stored = pod.pointer("/metadata/uid").is_some();
    if let Some(fields) = pod.as_object_mut() {
        fields.shift_remove("status");
    }
    if let (true, Some(spec)) = (is_stored, pod.get_mut("spec").and_then(Value::as_object_mut)) {
        spec.shift_remove("nodeName");
        spec.shift_remove("ephemeralContainers");
    }
    pod
}

/// One pod under the glass.
struct Inspection<'a> {
    pod: &'a Value,
    spec: &'a Spec<'a>,
    /// The namespace as if it had opted in.
    namespace: Namespace,
    policies: &'a PolicySet,
    origin: &'a Origin<'a>,
    /// What the pod asks for already, each device with its containers.
    own: Vec<(String, Vec<ContainerIndex>)>,
    /// Why what it asks for already is refused.
    refused: Option<String>,
}

/// What a container has today.
struct Today<'a> {
    at: ContainerIndex,
    name: &'a str,
    privileged: bool,
    /// The devices of the node that it mounts.
    paths: Vec<String>,
    /// Those of policies.
    devices: Vec<&'a str>,
}

/// What would become of a container.
struct Outcome {
    becomes: Becomes,
    why: String,
    findings: Vec<Code>,
}

impl Outcome {
    fn new(becomes: Becomes, why: impl Into<String>) -> Self {
        Self { becomes, why: why.into(), findings: Vec::new() }
    }
}

impl<'a> Inspection<'a> {
    fn seen(mut self) -> Result<Seen, String> {
        if self.pod.pointer("/metadata/annotations").is_some_and(Value::is_object) {
            let decided = self.decided(&BTreeMap::new())?;
            self.own = decided.asks;
            self.refused = decided.refused;
        }
        let containers = self.spec.all_containers();
        let today: Vec<Today<'_>> =
            containers.filter_map(|(at, container)| self.today(at, container)).collect();
        let mut crowd = None;
        if today.len() > MOST_ALONE {
            let all: Vec<&Today<'_>> = today.iter().collect();
            crowd = Some(self.decided(&self.annotations(&all))?);
        }
        let mut outcomes = Vec::new();
        for one in &today {
            outcomes.push(self.outcome(one, crowd.as_ref())?);
        }
        let annotations = self.together(&today, &mut outcomes)?;

        let privileged = today.iter().any(|one| one.privileged);
        let with_device = today.iter().any(|one| !one.paths.is_empty());
        let mut rows: BTreeMap<Row, Vec<String>> = BTreeMap::new();
        for (one, outcome) in today.iter().zip(outcomes) {
            let row = self.row(one, outcome, &annotations);
            rows.entry(row).or_default().push(plain(one.name));
        }
        let rows = rows.into_iter().map(|(row, containers)| Row { containers, ..row }).collect();
        Ok(Seen { rows, privileged, with_device })
    }

    /// What a container has today; `None` if nothing that is looked for.
    fn today(&self, at: ContainerIndex, container: &'a Container<'_>) -> Option<Today<'a>> {
        let privileged = container.security_context.privileged == Some(true);
        let mut paths = Vec::new();
        let mut devices = Vec::new();
        for found in devices_of(self.spec, container, self.policies) {
            devices.extend(found.device.filter(|device| !devices.contains(device)));
            // An unprivileged container reads files from there.
            if !paths.contains(&found.path) && (privileged || found.path != "/") {
                paths.push(found.path);
            }
        }
        // All of `/dev` is the device that the pod asks for already.
        if paths.iter().any(|path| path == "/dev") {
            let asked = self.own.iter().filter(|(_, containers)| containers.contains(&at));
            let asked = asked.filter_map(|(device, _)| self.policies.find(device));
            for policy in asked.filter(|policy| policy.spec().legacy.is_some()) {
                devices.extend(Some(policy.device()).filter(|device| !devices.contains(device)));
            }
        }
        let name = container.name.as_str();
        (privileged || !paths.is_empty()).then_some(Today { at, name, privileged, paths, devices })
    }

    /// What would become of a container if it alone asked for its devices, or as it was decided in a crowd.
    fn outcome(&self, today: &Today<'_>, crowd: Option<&Decided>) -> Result<Outcome, String> {
        let settings = self.policies.settings();
        let namespace = self.origin.namespace.name.as_str();
        if namespace == SYSTEM_NAMESPACE || namespace == settings.own_namespace {
            let why = format!("pods of {namespace} are never touched");
            return Ok(Outcome::new(Becomes::NeverTouched, why));
        }
        let by_node = controller(self.pod)
            .is_some_and(|owner| owner.get("kind").is_some_and(|kind| kind == "Node"));
        if by_node && self.pod.pointer(MIRROR).is_some() {
            let why = "a static pod: its manifest is on the node";
            return Ok(Outcome::new(Becomes::NeverTouched, why));
        }
        if today.devices.is_empty() {
            return Ok(self.without_policy(today));
        }
        // What it asks for is its author's to put right, before anything is added.
        if let Some(refused) = &self.refused {
            return Ok(Outcome::new(Becomes::Denied, refused.clone()));
        }
        let outcome = match crowd {
            Some(decided) => decided.outcome(today),
            None => self.decided(&self.annotations(&[today]))?.outcome(today),
        };
        Ok(match self.other_use(today) {
            Some(why) if outcome.becomes == Becomes::Rewrite => {
                let why = format!("it may be privileged for more than its device: {why}");
                if self.is_looked_at_unasked(today) {
                    Outcome { why, ..outcome }
                } else {
                    Outcome::new(Becomes::Keeps, why)
                }
            }
            _ => outcome,
        })
    }

    /// What a privileged container that does not ask is used for beside its devices, as far as it shows.
    fn other_use(&self, today: &Today<'_>) -> Option<String> {
        let asks = self.own.iter().any(|(_, containers)| containers.contains(&today.at));
        let container = self.spec.container(today.at).filter(|_| today.privileged && !asks)?;
        other_use::of_container(self.spec, container)
    }

    /// Whether the line rewrites a container whatever its pod asks for.
    fn is_looked_at_unasked(&self, today: &Today<'_>) -> bool {
        self.policies.looking_unasked().any(|policy| today.devices.contains(&policy.device()))
    }

    fn without_policy(&self, today: &Today<'_>) -> Outcome {
        if is_kubelet_plugin(self.spec) {
            return Outcome::new(Becomes::Keeps, "it is a plugin of the kubelet");
        }
        match today.paths.iter().find(|path| *path != "/dev" && *path != "/") {
            Some(path) => {
                let why = match other_way(path, self.policies) {
                    Some(ask) => {
                        format!("ask for {ask}; its policy does not name `{path}` in `legacy`")
                    }
                    None => format!("no policy names `{path}` in `legacy`"),
                };
                Outcome::new(Becomes::NoPolicy, why)
            }
            None if today.paths.is_empty() => self.without_device(today),
            None => Outcome::new(
                Becomes::NoPolicy,
                "all of the node's devices are mounted, and nothing says which one it is for",
            ),
        }
    }

    fn without_device(&self, today: &Today<'_>) -> Outcome {
        let place = place(today.at);
        let guess = evidence::of_fuse(self.spec).into_iter().find(|guess| guess.path == place);
        let Some(guess) = guess else {
            let container = self.spec.container(today.at);
            let why = if container.is_some_and(evidence::shares_mounts) {
                "it mounts for other containers (`mountPropagation: Bidirectional`), which only privileged ones may (see DG020)"
            } else {
                "nothing says which device it is for"
            };
            return Outcome::new(Becomes::NoDevice, why);
        };
        let program = guess.word("program").unwrap_or_default();
        let why = format!("it names `{program}`, so it may be for FUSE (see {})", guess.code);
        Outcome { findings: vec![guess.code], ..Outcome::new(Becomes::NoDevice, why) }
    }

    /// The annotations with which all containers that can be rewritten are, and what becomes of them when
    /// they ask together: two modes can be at odds.
    fn together(
        &self,
        today: &[Today<'_>],
        outcomes: &mut [Outcome],
    ) -> Result<BTreeMap<String, String>, String> {
        let goes = |outcome: &Outcome| outcome.becomes == Becomes::Rewrite;
        let pairs = today.iter().zip(outcomes.iter());
        let asking: Vec<&Today<'_>> =
            pairs.filter(|(_, outcome)| goes(outcome)).map(|(today, _)| today).collect();
        let annotations = self.annotations(&asking);
        if asking.len() > 1 {
            let decided = self.decided(&annotations)?;
            for (today, outcome) in today.iter().zip(outcomes.iter_mut()) {
                if goes(outcome) {
                    *outcome = decided.outcome(today);
                }
            }
        }
        for (today, outcome) in today.iter().zip(outcomes.iter_mut()) {
            let asks = |device: &&str| self.asks(device).is_some_and(|at| at.contains(&today.at));
            if outcome.becomes == Becomes::Rewrite && today.devices.iter().all(asks) {
                outcome.becomes = Becomes::AsksAlready;
                "once it is made anew in a namespace that opted in".clone_into(&mut outcome.why);
            }
        }
        Ok(annotations)
    }

    /// The containers for which the pod asks for a device already.
    fn asks(&self, device: &str) -> Option<&[ContainerIndex]> {
        let own = self.own.iter().find(|(own, _)| own == device);
        own.map(|(_, containers)| containers.as_slice())
    }

    /// What the pod must say beside what it says, for these containers to ask for their devices.
    fn annotations(&self, asking: &[&Today<'_>]) -> BTreeMap<String, String> {
        let prefix = &self.policies.settings().prefix;
        let mut annotations = BTreeMap::new();
        let mut wanted: BTreeMap<&str, Vec<ContainerIndex>> = BTreeMap::new();
        for one in asking {
            for device in &one.devices {
                wanted.entry(device).or_default().push(one.at);
            }
        }
        for (device, mut containers) in wanted {
            let own = self.asks(device);
            containers.extend(own.into_iter().flatten());
            containers.sort_unstable();
            containers.dedup();
            if own.is_some_and(|own| own.len() == containers.len()) {
                continue;
            }
            if own.is_none() {
                annotations.insert(format!("{prefix}/{device}"), "true".to_owned());
            }
            let names = containers.iter().filter_map(|at| self.spec.container(*at));
            let names: Vec<&str> = names.map(|container| container.name.as_str()).collect();
            // Where there is one container, the line chooses it.
            let regular = |at: &ContainerIndex| at.list == ContainerList::Regular;
            let count = self.spec.all_containers().filter(|(at, _)| regular(at)).count();
            let is_only = count == 1 && containers.iter().all(regular);
            if own.is_none() && is_only && !self.names_containers(device) {
                continue;
            }
            // One without a name cannot be named; the API server takes no pod with such a one.
            if names.iter().all(|name| !name.is_empty()) {
                annotations.insert(format!("{prefix}/{device}.containers"), names.join(","));
            }
        }
        annotations
    }

    /// Whether the pod says itself which containers get the device.
    fn names_containers(&self, device: &str) -> bool {
        let annotations = self.pod.pointer("/metadata/annotations").and_then(Value::as_object);
        let prefix = &self.policies.settings().prefix;
        let (shared, own) =
            (format!("{prefix}/containers"), format!("{prefix}/{device}.containers"));
        let mut saying = [DEFAULT_CONTAINER, &shared, &own].into_iter();
        annotations.is_some_and(|annotations| saying.any(|key| annotations.contains_key(key)))
    }

    /// What the line says of the pod with these annotations.
    fn decided(&self, annotations: &BTreeMap<String, String>) -> Result<Decided, String> {
        let mut pod = self.pod.clone();
        // What is no mapping is for the line to refuse.
        let _ = annotate(&mut pod, annotations);
        let review = review(&pod, &self.namespace.name, self.origin.assumed).to_string();
        let review = Review::decode(review.as_bytes()).map_err(|error| error.to_string())?;
        let say = |undecided: Undecided| undecided.to_string();
        let request = Request::of(&review).map_err(say)?;
        let Some(pod) = pod_of(&request, self.policies).map_err(say)? else {
            return Ok(Decided::default());
        };
        let decision = decide(&request, &pod, self.policies, Some(&self.namespace)).map_err(say)?;
        // Where a policy looks at pods that ask for nothing, the line answers as if they did.
        let prefix = &self.policies.settings().prefix;
        let is_own = |device: &str| request.annotation(&format!("{prefix}/{device}")).is_some();
        let asks = decision.asks.iter().map(|ask| (ask.policy.device(), ask.containers.clone()));
        let asks = asks.filter(|(device, _)| is_own(device));
        let asks = asks.map(|(device, containers)| (device.to_owned(), containers)).collect();
        let (legacy, refused) = match decision.verdict {
            Verdict::Admit(plan) => (plan.legacy, None),
            Verdict::Refuse(refusal) => {
                let sentences = refusal.objections().map(|one| one.sentence.as_str());
                (Vec::new(), Some(sentences.collect::<Vec<_>>().join("; ")))
            }
        };
        Ok(Decided {
            asks,
            refused,
            legacy,
            findings: decision.findings,
            in_shadow: decision.reason == Reason::Shadow,
            ignored: decision.ignored.into_iter().next().map(|objection| objection.sentence),
        })
    }

    /// The row of a container, without its name.
    fn row(
        &self,
        today: &Today<'_>,
        outcome: Outcome,
        annotations: &BTreeMap<String, String>,
    ) -> Row {
        let annotations = match outcome.becomes {
            Becomes::Rewrite => {
                annotations.iter().map(|(key, value)| (plain(key), plain(value))).collect()
            }
            _ => BTreeMap::new(),
        };
        Row {
            namespace: plain(&self.origin.namespace.name),
            owner: self.origin.owner.clone(),
            containers: Vec::new(),
            privileged: today.privileged,
            host_paths: today.paths.iter().map(|path| plain(path)).collect(),
            devices: today.devices.iter().map(|device| (*device).to_owned()).collect(),
            becomes: outcome.becomes,
            why: plain(&outcome.why),
            annotations,
            findings: outcome.findings,
        }
    }
}

/// The ask that brings a device of the node of which no policy names the old shape, as far as names tell:
/// those of resources, of devices, and the well-known ones.
fn other_way(path: &str, policies: &PolicySet) -> Option<String> {
    let below = path.strip_prefix("/dev/")?;
    // smarter-device-manager has `net_tun` for `/dev/net/tun`.
    let joined = below.replace('/', "_");
    let prefix = &policies.settings().prefix;
    for policy in policies.policies() {
        let serves = |mode: &Mode| {
            let mut resources = mode.resources.iter();
            resources.any(|resource| resource.name.rsplit('/').next() == Some(joined.as_str()))
        };
        let spec = policy.spec();
        // The default mode first: it needs no name.
        if spec.modes.get(&spec.default_mode).is_some_and(serves) {
            return Some(format!("`{prefix}/{}: \"true\"`", policy.device()));
        }
        if let Some((mode, _)) = spec.modes.iter().find(|(_, mode)| serves(mode)) {
            return Some(format!("`{prefix}/{}: {mode}`", policy.device()));
        }
    }
    let names =
        below.split('/').map(|part| part.trim_end_matches(|end: char| end.is_ascii_digit()));
    let known = |name| WELL_KNOWN.iter().find(|(known, _)| *known == name);
    let mut devices =
        names.flat_map(|name| known(name).map(|(_, device)| *device).into_iter().chain([name]));
    let policy = devices.find_map(|device| policies.find(device))?;
    Some(format!("`{prefix}/{}`", policy.device()))
}

/// Names below `/dev`, and the device of the shipped policies that they are.
const WELL_KNOWN: &[(&str, &str)] = &[
    ("dri", "gpu"),
    ("infiniband", "rdma"),
    ("kfd", "gpu"),
    ("ttyACM", "serial"),
    ("ttyUSB", "serial"),
];

/// Where a container is in the pod.
fn place(at: ContainerIndex) -> String {
    at.to_string()
}
