//! The line itself: one review, one answer.

use json_patch::PatchOperation;

use super::annotation::{self, Asked};
use super::answer::Admission;
use super::ask::{Ask, Asker, Chosen, Unmet, service_account};
use super::finding::{Code, Finding};
use super::namespace::Namespace;
use super::patch::{self, DraftError};
use super::plan::{MOST, Objection, Plan, Reason, Refusal, Verdict, too_large};
use super::pod::{Pod, Spec};
use super::policy::schema::{Enforcement, OnInvalid};
use super::policy::select::Subject;
use super::policy::{Policy, PolicySet};
use super::request::Request;
use super::review::Mismatch;
use super::review::Review;
use super::settings::Settings;
use super::unasked::{self, OldShape};
use super::warning::Warning;
use super::weigh::{Weighed, container_names, shadow_refuses, shadow_warnings, weigh};

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
        None => Decision::untouched(unasked(request.creates_pod)),
    };
    let uid = review.uid.clone().into_owned();
    let (namespace, name) = (request.namespace.to_string(), request.name().to_owned());
    Ok(Admission::new(uid, namespace, name, decision, policies))
}

/// The pod of a request that has anything to decide; `None` for all others, which are most.
pub fn pod_of<'a>(
    request: &Request<'a>,
    policies: &PolicySet,
) -> Result<Option<Pod<'a>>, Undecided> {
    let asks = request.asks(policies.settings());
    if !asks && policies.looking_unasked().next().is_none() {
        return Ok(None);
    }
    let Some(pod) = request.pod()? else { return Ok(None) };
    let shapes = |spec| unasked::find(request, spec, policies);
    let concerns = asks || pod.spec().is_some_and(|spec| !shapes(spec).is_empty());
    Ok(concerns.then_some(pod))
}

/// Why there is nothing to decide.
pub fn unasked(creates_pod: bool) -> Reason {
    if creates_pod { Reason::NotAsked } else { Reason::NotPodCreation }
}

/// Decides a pod that has annotations under the prefix, or the old shape of a device whose policy looks
/// at pods unasked.
pub fn decide<'a>(
    request: &'a Request<'a>,
    pod: &'a Pod<'a>,
    policies: &'a PolicySet,
    namespace: Option<&'a Namespace>,
) -> Result<Decision<'a>, Undecided> {
    let settings = policies.settings();
    if let Some(mut skipped) = skip_by_request(request, settings) {
        // Who asked for nothing is told nothing.
        skipped.warnings.retain(|_| request.asks(settings));
        return Ok(skipped);
    }
    let spec = pod.spec().ok_or(Undecided::NoSpec)?;
    let unknown = || Undecided::UnknownNamespace(request.namespace.to_string());
    let namespace = namespace.ok_or_else(unknown)?;
    if !settings.opted_in(namespace) {
        let label = format!("{}={}", settings.opt_in_label(), Settings::OPTED_IN);
        if !request.asks(settings) {
            return Ok(Decision::untouched(Reason::NotOptedIn));
        }
        let warning =
            format!("nothing is granted: namespace {} lacks the label {label}", namespace.name);
        return Ok(Decision::skipped(Reason::NotOptedIn, &warning));
    }
    let old_shapes = unasked::find(request, spec, policies);
    let asked = match annotation::read(request, policies) {
        Some(asked) => asked,
        None if old_shapes.is_empty() => return Ok(Decision::untouched(Reason::NotAsked)),
        None => Asked::default(),
    };

    let subject = Subject { namespace, service_account: service_account(spec) };
    let judge = Asker { spec, request, policies, subject };
    let sorted = Sorted::of(judge, &asked, old_shapes, namespace);
    let Sorted { enforced, shadowed, unasked, stays, .. } = sorted;
    let Sorted { shadow_refused, mut objections, ignored, mut warnings, .. } = sorted;

    let mut weighed = weigh(request, spec, &enforced, policies, namespace);
    weighed.plan.unasked = unasked;
    for (finding, policy) in stays {
        weighed.say_unasked(finding, policy);
    }
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
    /// The devices among those enforced that nobody asked for.
    unasked: Vec<&'a str>,
    /// What is to be said of containers of the old shape that nobody asked for, and that stay.
    stays: Vec<(Finding, &'a Policy)>,
}

impl<'a> Sorted<'a> {
    /// Everything that a pod asks for, and what policies see in it unasked.
    fn of(
        judge: Asker<'a>,
        asked: &Asked<'a>,
        old_shapes: Vec<OldShape<'a>>,
        namespace: &Namespace,
    ) -> Self {
        let settings = judge.policies.settings();
        let mut sorted = Self::default();
        sorted.keys(asked.objections.clone(), settings);
        sorted.keys(judge.unused_containers(asked), settings);
        for ask in judge.judge(asked) {
            sorted.ask(ask);
        }
        let settled = unasked::settle(judge, old_shapes, &sorted.enforced, namespace);
        sorted.unasked = settled.enforced.iter().map(|ask| ask.policy.device()).collect();
        for (finding, policy) in settled.findings {
            // Of those who stay, only `Deny` is more than a word, and a shadow does nothing.
            let refuses = finding.code == Code::DG023;
            if refuses && policy.spec().enforcement == Enforcement::Shadow {
                sorted.shadow_refused = true;
                sorted.warnings.extend(Warning::lines(shadow_refuses(finding)));
            } else {
                sorted.stays.push((finding, policy));
            }
        }
        sorted.enforced.extend(settled.enforced);
        sorted.enforced.sort_by_key(|ask| ask.policy.device());
        sorted.shadowed.extend(settled.shadowed);
        sorted.shadowed.sort_by_key(|ask| ask.policy.device());
        sorted
    }

    /// Keys that belong to no one policy.
    fn keys(&mut self, objections: Vec<Objection>, settings: &Settings) {
        match settings.on_invalid {
            OnInvalid::Deny => self.objections.extend(objections),
            OnInvalid::Warn => self.ignore(objections),
        }
    }

    fn ask(&mut self, ask: Result<Ask<'a>, Unmet<'a>>) {
        let enforcement = |policy: &Policy| policy.spec().enforcement;
        match ask {
            Ok(ask) if enforcement(ask.policy) == Enforcement::Shadow => self.shadowed.push(ask),
            Ok(ask) => self.enforced.push(ask),
            Err(unmet) if enforcement(unmet.policy) == Enforcement::Shadow => {
                for objection in &unmet.objections {
                    self.warnings.extend(Warning::lines(shadow_refuses(&objection.sentence)));
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
