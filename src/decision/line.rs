//! The line itself: one review, one answer.

use std::collections::BTreeSet;

use json_patch::PatchOperation;

use super::annotation::{self, Asked};
use super::answer::Admission;
use super::ask::{Ask, Asker, Chosen, Unmet, service_account};
use super::conflict;
use super::finding::{Effect, Finding};
use super::foresee;
use super::namespace::Namespace;
use super::patch::{self, DraftError};
use super::plan::{self, Objection, Plan, Reason, Refusal, Verdict};
use super::pod::{Pod, Spec};
use super::policy::PolicySet;
use super::policy::schema::{Enforcement, OnInvalid};
use super::policy::select::Subject;
use super::request::Request;
use super::review::Mismatch;
use super::review::Review;
use super::settings::Settings;
use super::warning::Warning;

/// The most grants and operations of one pod. 50 containers with all 13 shipped devices are some 3,000; an answer of
/// 10,000 operations takes a few megabytes.
const MOST: usize = 10_000;
/// The namespace that the cluster itself lives in.
pub const SYSTEM_NAMESPACE: &str = "kube-system";

/// A review that cannot be decided: HTTP 500, and the operator's `failurePolicy` meanwhile. Never a
/// refusal, since that would block the pod whatever `failurePolicy` says.
#[derive(Debug, thiserror::Error)]
pub enum Undecided {
    /// A field of the request is not of its type.
    #[error("`request.{field}` of the review is not what the API server sends: {cause}")]
    NotRequest {
        /// The field.
        field: &'static str,
        /// Why.
        cause: Mismatch,
    },
    /// The object is no pod.
    #[error("this is no pod: {0}")]
    NotPod(Mismatch),
    /// The object has no spec, or there is no object.
    #[error("this is no pod: it has no `spec`")]
    NoSpec,
    /// The patch would not apply.
    #[error("the patch would not apply: {0}")]
    Patch(DraftError),
    /// The namespace of a pod that asks is not known yet.
    #[error("the namespace `{0}` is not known (yet)")]
    UnknownNamespace(String),
}

/// Every step of one decision, for those who want to read it.
#[derive(Debug)]
pub struct Decision<'a> {
    /// Why, in one word.
    pub reason: Reason,
    /// What the annotations ask for; `None` if nothing, or if that was never looked at.
    pub asked: Option<Asked<'a>>,
    /// The asks that policy lets through, in the order of the devices' names; where nothing is granted,
    /// those for policies in shadow.
    pub asks: Vec<Ask<'a>>,
    /// What was left out with a warning, since the policy says `onInvalid: Warn`.
    pub ignored: Vec<Objection>,
    /// What becomes of the pod.
    pub verdict: Verdict<'a>,
    /// The patch, empty when nothing changes.
    pub operations: Vec<PatchOperation>,
    /// What would start and not work, the worst first; what policies ignore is not among them.
    pub findings: Vec<Finding>,
    /// What the person is told.
    pub warnings: Vec<Warning>,
}

/// The line: decides a review and answers it.
pub fn admit(
    review: &Review<'_>,
    policies: &PolicySet,
    namespace: Option<&Namespace>,
) -> Result<Admission, Undecided> {
    let request = Request::of(review)?;
    let pod = pod_of(&request, policies)?;
    let decision = match &pod {
        Some(pod) => decide(&request, pod, policies, namespace)?,
        None => Decision::untouched(unasked(&request)),
    };
    Ok(Admission::new(review, &request, decision, policies))
}

/// The pod of a request that has anything to decide; `None` for all others, which are most.
pub fn pod_of<'a>(
    request: &Request<'a>,
    policies: &PolicySet,
) -> Result<Option<Pod<'a>>, Undecided> {
    let asks = request.annotations(&policies.settings().prefix).next().is_some();
    match request.object {
        Some(object) if request.creates_pod && asks => {
            let pod = serde_json::from_str(object.get());
            pod.map(Some).map_err(|_| Undecided::NotPod(Mismatch::at::<Pod<'_>>(object.get())))
        }
        _ => Ok(None),
    }
}

/// Why there is nothing to decide.
pub fn unasked(request: &Request<'_>) -> Reason {
    if request.creates_pod { Reason::NotAsked } else { Reason::NotPodCreation }
}

/// Decides a pod that has annotations under the prefix.
pub fn decide<'a>(
    request: &'a Request<'a>,
    pod: &'a Pod<'a>,
    policies: &'a PolicySet,
    namespace: Option<&'a Namespace>,
) -> Result<Decision<'a>, Undecided> {
    let settings = policies.settings();
    if let Some(skipped) = skip_by_request(request, settings) {
        return Ok(skipped);
    }
    let spec = pod.spec().ok_or(Undecided::NoSpec)?;
    let unknown = || Undecided::UnknownNamespace(request.namespace.to_string());
    let namespace = namespace.ok_or_else(unknown)?;
    if !namespace.has_label(&settings.opt_in_label(), Settings::OPTED_IN) {
        let label = format!("{}={}", settings.opt_in_label(), Settings::OPTED_IN);
        let warning =
            format!("nothing is granted: namespace {} lacks the label {label}", namespace.name);
        return Ok(Decision::skipped(Reason::NotOptedIn, &warning));
    }
    let Some(asked) = annotation::read(request, policies) else {
        return Ok(Decision::untouched(Reason::NotAsked));
    };

    let subject = Subject { namespace, service_account: service_account(spec) };
    let judge = Asker { spec, request, policies, subject };
    let mut sorted = Sorted::default();
    sorted.keys(asked.objections.clone(), settings);
    sorted.keys(judge.unused_containers(&asked), settings);
    for ask in judge.judge(&asked) {
        sorted.ask(ask);
    }
    let Sorted { enforced, shadowed, shadow_refused, mut objections, ignored, mut warnings } =
        sorted;

    let mut weighed = weigh(request, spec, &enforced, policies, namespace);
    objections.append(&mut weighed.objections);
    warnings.append(&mut weighed.warnings);
    let Weighed { mut plan, findings, windows, .. } = weighed;
    if let Some(refusal) = Refusal::of(objections) {
        let reason = refusal.reason();
        let verdict = Verdict::Refuse(refusal);
        return Ok(Decision {
            reason,
            asked: Some(asked),
            asks: enforced,
            ignored,
            verdict,
            operations: Vec::new(),
            findings,
            warnings: Warning::bounded(warnings),
        });
    }
    if windows {
        let warning = "nothing is granted: a Windows pod can have no security context of Linux";
        return Ok(Decision {
            asked: Some(asked),
            ..Decision::skipped(Reason::WindowsPod, warning)
        });
    }
    warnings.extend(shadow_warnings(request, spec, &enforced, &shadowed, policies));
    warnings.extend(primary_container_warning(spec, &enforced));
    warnings.append(&mut plan.warnings);
    if asked.stamp.is_some() && plan.granted.is_empty() {
        let key = annotation::GRANTED;
        warnings.push(Warning::new(format!(
            "annotation {}/{key} is written by devgrant only; removed",
            settings.prefix
        )));
    }

    let object = request.object.ok_or(Undecided::NoSpec)?;
    let operations = patch::render(object, request, spec, &plan, policies.digest(), settings)
        .map_err(Undecided::Patch)?;
    // One requirement goes into every term of the pod's affinity, of which there may be any number.
    if operations.len() > MOST
        && let Some(refusal) = Refusal::of(vec![too_large(operations.len())])
    {
        return Ok(Decision {
            verdict: Verdict::Refuse(refusal),
            asked: Some(asked),
            ..Decision::untouched(Reason::TooLarge)
        });
    }
    let reason = if !plan.granted.is_empty() {
        Reason::Granted
    } else if !shadowed.is_empty() || shadow_refused {
        Reason::Shadow
    } else if !ignored.is_empty() {
        Reason::Ignored
    } else {
        Reason::NotAsked
    };
    let asks = if enforced.is_empty() { shadowed } else { enforced };
    Ok(Decision {
        reason,
        asked: Some(asked),
        asks,
        ignored,
        verdict: Verdict::Admit(plan),
        operations,
        findings,
        warnings: Warning::bounded(warnings),
    })
}

impl Decision<'_> {
    /// Nothing to decide, nothing to say.
    pub fn untouched(reason: Reason) -> Self {
        Self {
            reason,
            asked: None,
            asks: Vec::new(),
            ignored: Vec::new(),
            verdict: Verdict::Admit(Plan::default()),
            operations: Vec::new(),
            findings: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// A pod that asks and is let through as it is.
    fn skipped(reason: Reason, warning: &str) -> Self {
        Self { warnings: Warning::lines(warning), ..Self::untouched(reason) }
    }
}

/// A pod that is none of ours, whatever it asks.
fn skip_by_request<'a>(request: &Request<'_>, settings: &Settings) -> Option<Decision<'a>> {
    let reason = match request.namespace.as_str() {
        SYSTEM_NAMESPACE => Reason::SystemNamespace,
        own if own == settings.own_namespace => Reason::OwnNamespace,
        _ if request.is_mirror_pod() => {
            let warning = "a static pod is never touched: ask in the manifest on the node instead";
            return Some(Decision::skipped(Reason::MirrorPod, warning));
        }
        _ => return None,
    };
    let warning = format!(
        "pods in {} are never touched: the annotations under {} do nothing here",
        request.namespace, settings.prefix
    );
    Some(Decision::skipped(reason, &warning))
}

fn too_large(changes: usize) -> Objection {
    let sentence = format!(
        "the pod would be changed in {changes} places, and one answer holds {MOST}; name fewer containers"
    );
    Objection::new(Reason::TooLarge, sentence)
}

/// Asks by what becomes of them.
#[derive(Default)]
struct Sorted<'a> {
    enforced: Vec<Ask<'a>>,
    shadowed: Vec<Ask<'a>>,
    /// Whether an ask for a policy in shadow is wrong.
    shadow_refused: bool,
    objections: Vec<Objection>,
    ignored: Vec<Objection>,
    warnings: Vec<Warning>,
}

impl<'a> Sorted<'a> {
    /// Keys that belong to no one policy.
    fn keys(&mut self, objections: Vec<Objection>, settings: &Settings) {
        match settings.on_invalid {
            OnInvalid::Deny => self.objections.extend(objections),
            OnInvalid::Warn => self.ignore(objections),
        }
    }

    fn ask(&mut self, ask: Result<Ask<'a>, Unmet<'a>>) {
        let enforcement = |policy: &super::policy::Policy| policy.spec().enforcement;
        match ask {
            Ok(ask) if enforcement(ask.policy) == Enforcement::Shadow => self.shadowed.push(ask),
            Ok(ask) => self.enforced.push(ask),
            Err(unmet) if enforcement(unmet.policy) == Enforcement::Shadow => {
                for objection in &unmet.objections {
                    let text = format!("shadow: would refuse: {}", objection.sentence);
                    self.warnings.extend(Warning::lines(text));
                }
                self.shadow_refused = true;
                self.ignored.extend(unmet.objections);
            }
            Err(unmet) => match unmet.on_invalid() {
                OnInvalid::Deny => self.objections.extend(unmet.objections),
                OnInvalid::Warn => self.ignore(unmet.objections),
            },
        }
    }

    fn ignore(&mut self, objections: Vec<Objection>) {
        for objection in &objections {
            self.warnings.extend(Warning::lines(format!("ignored: {}", objection.sentence)));
        }
        self.ignored.extend(objections);
    }
}

/// A plan with all that is to be said of it.
#[derive(Default)]
struct Weighed<'a> {
    plan: Plan<'a>,
    /// Whether the pod gets nothing of it, since it is for Windows.
    windows: bool,
    findings: Vec<Finding>,
    objections: Vec<Objection>,
    warnings: Vec<Warning>,
}

/// Plans the asks that are right, even beside others that are wrong: what stands against them is said in
/// the same answer.
fn weigh<'a>(
    request: &Request<'_>,
    spec: &Spec<'_>,
    asks: &[Ask<'a>],
    policies: &PolicySet,
    namespace: &Namespace,
) -> Weighed<'a> {
    let mut weighed = Weighed::default();
    match planned(request, spec, asks, policies) {
        Ok(plan) => weighed.plan = plan,
        // Without a plan there is no pod to foresee anything of.
        Err(objections) => return Weighed { objections, ..weighed },
    }
    if weighed.plan.len() > MOST {
        weighed.objections.push(too_large(weighed.plan.len()));
    }
    // A Windows pod that gets nothing is told that and no more.
    weighed.windows = spec.is_windows() && weighed.plan.has_security_context();
    if weighed.windows {
        return weighed;
    }
    let mut said = BTreeSet::new();
    for finding in foresee::findings(request, spec, &weighed.plan, asks, namespace) {
        match foresee::effect(&finding, asks) {
            Effect::Deny => {
                let sentence = finding.to_string();
                weighed.objections.push(Objection::new(Reason::Foreseen, sentence));
            }
            Effect::Ignore => continue,
            Effect::Warn if foresee::is_said(&finding, asks) => {
                // The remedy once for each code: the API server passes a line on only once, too.
                let text = if said.insert(finding.code) {
                    finding.to_string()
                } else {
                    format!("{}: {}", finding.code, finding.sentence())
                };
                weighed.warnings.extend(Warning::lines(text));
            }
            Effect::Warn => {}
        }
        weighed.findings.push(finding);
    }
    weighed
}

/// The plan for some asks, or everything that stands against it.
fn planned<'a>(
    request: &Request<'_>,
    spec: &Spec<'_>,
    asks: &[Ask<'a>],
    policies: &PolicySet,
) -> Result<Plan<'a>, Vec<Objection>> {
    let mut plan = plan::compose(spec, asks)?;
    let version = policies.settings().kubernetes_version;
    // Nothing of a Windows pod's security context is compared: it can have none.
    if spec.is_windows() && plan.has_security_context() {
        return Ok(plan);
    }
    let found = conflict::find(request, spec, &plan, version);
    plan.warnings.extend(found.warnings);
    if found.objections.is_empty() {
        return Ok(plan);
    }
    // A conflict is found in the plan of all asks; it is the fault of those that have it alone, too.
    let alone: Vec<(&Ask<'_>, Vec<Objection>)> = asks
        .iter()
        .filter_map(|ask| {
            let plan = plan::compose(spec, std::slice::from_ref(ask)).ok()?;
            Some((ask, conflict::find(request, spec, &plan, version).objections))
        })
        .collect();
    let prefix = &policies.settings().prefix;
    let named = found.objections.into_iter().map(|objection| {
        let at_fault = alone.iter().filter(|(_, objections)| objections.contains(&objection));
        let keys: Vec<String> = at_fault
            .map(|(ask, _)| {
                format!("`{prefix}/{}` (mode `{}`)", ask.policy.device(), ask.mode_name)
            })
            .collect();
        let keys =
            if keys.is_empty() { "these asks together".to_owned() } else { keys.join(" and ") };
        Objection::new(objection.reason, format!("{keys}: {}", objection.sentence))
    });
    Err(named.collect())
}

/// What the policies in shadow would have done, beside those that are enforced.
fn shadow_warnings(
    request: &Request<'_>,
    spec: &Spec<'_>,
    enforced: &[Ask<'_>],
    shadowed: &[Ask<'_>],
    policies: &PolicySet,
) -> Vec<Warning> {
    if shadowed.is_empty() {
        return Vec::new();
    }
    let all: Vec<Ask<'_>> = enforced.iter().chain(shadowed).cloned().collect();
    match planned(request, spec, &all, policies) {
        Ok(_) => shadowed
            .iter()
            .map(|ask| {
                let names = container_names(spec, ask);
                Warning::new(format!(
                    "shadow: would grant {} ({}) to container {names}",
                    ask.policy.device(),
                    ask.mode_name
                ))
            })
            .collect(),
        Err(objections) => objections
            .iter()
            .flat_map(|objection| {
                Warning::lines(format!("shadow: would refuse: {}", objection.sentence))
            })
            .collect(),
    }
}

/// Which container got what, where the pod left it to a rule.
fn primary_container_warning(spec: &Spec<'_>, asks: &[Ask<'_>]) -> Option<Warning> {
    let unnamed: Vec<&Ask<'_>> = asks.iter().filter(|ask| ask.chosen == Chosen::First).collect();
    let first = unnamed.first().filter(|_| spec.containers.len() > 1)?;
    let devices: Vec<&str> = unnamed.iter().map(|ask| ask.policy.device()).collect();
    let names = container_names(spec, first);
    Some(Warning::new(format!(
        "no container is named: {names}, the first of {}, gets {}",
        spec.containers.len(),
        devices.join(", ")
    )))
}

fn container_names(spec: &Spec<'_>, ask: &Ask<'_>) -> String {
    let names = ask.containers.iter().filter_map(|at| spec.container(*at));
    names.map(|container| container.name.as_str()).collect::<Vec<_>>().join(", ")
}
