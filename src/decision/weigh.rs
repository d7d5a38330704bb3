//! weigh: one plan for all asks of a pod, with everything that stands against it or is to be said of it.

use std::collections::BTreeSet;
use std::fmt;

use super::ask::Ask;
use super::conflict;
use super::finding::{Code, Effect, Finding};
use super::foresee;
use super::namespace::Namespace;
use super::plan::{self, Objection, Plan, Reason};
use super::pod::Spec;
use super::policy::{Policy, PolicySet};
use super::request::Request;
use super::warning::Warning;

/// A plan with all that is to be said of it.
#[derive(Default)]
pub(super) struct Weighed<'a> {
    pub(super) plan: Plan<'a>,
    /// Whether the pod gets nothing of it, since it is for Windows.
    pub(super) windows: bool,
    pub(super) findings: Vec<Finding>,
    /// The codes of the findings.
    codes: BTreeSet<Code>,
    pub(super) objections: Vec<Objection>,
    pub(super) warnings: Vec<Warning>,
}

/// Plans the asks that are right, even beside others that are wrong: what stands against them is said in
/// the same answer.
pub(super) fn weigh<'a>(
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
    // A Windows pod that gets nothing is told that and no more.
    weighed.windows = spec.is_windows() && weighed.plan.has_security_context();
    if weighed.windows {
        return weighed;
    }
    let asked: Vec<&Policy> = asks.iter().map(|ask| ask.policy).collect();
    for finding in foresee::findings(request, spec, &weighed.plan, asks, namespace) {
        weighed.say(finding, &asked);
    }
    weighed
}

impl Weighed<'_> {
    /// Makes of a finding what the policies that it concerns want of it.
    pub(super) fn say(&mut self, finding: Finding, policies: &[&Policy]) {
        match foresee::effect(&finding, policies) {
            Effect::Deny => {
                let sentence = finding.to_string();
                self.objections.push(Objection::new(Reason::Foreseen, sentence));
            }
            Effect::Ignore => return,
            Effect::Warn if foresee::is_said(&finding, policies) => {
                // The remedy once for each code: the API server passes a line on only once, too.
                let text = if self.codes.contains(&finding.code) {
                    format!("{}: {}", finding.code, finding.sentence())
                } else {
                    finding.to_string()
                };
                self.warnings.extend(Warning::lines(text));
            }
            Effect::Warn => {}
        }
        self.found(finding);
    }

    fn found(&mut self, finding: Finding) {
        self.codes.insert(finding.code);
        self.findings.push(finding);
    }

    /// The same of a device that nobody asked for: only `legacy.action: Deny` refuses.
    pub(super) fn say_unasked(&mut self, finding: Finding, policy: &Policy) {
        if finding.code == Code::DG023 {
            return self.say(finding, &[policy]);
        }
        if foresee::effect(&finding, &[policy]) != Effect::Ignore {
            self.warnings.extend(Warning::lines(finding.to_string()));
            self.found(finding);
        }
    }
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
    let alone: Vec<(&Ask<'_>, BTreeSet<Objection>)> = asks
        .iter()
        .filter_map(|ask| {
            let plan = plan::compose(spec, std::slice::from_ref(ask)).ok()?;
            let found = conflict::find(request, spec, &plan, version);
            Some((ask, found.objections.into_iter().collect()))
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
        let sentence = format!("{keys}: {}", objection.sentence);
        Objection { sentence, ..objection }
    });
    Err(named.collect())
}

/// What the policies in shadow would have done, beside those that are enforced.
pub(super) fn shadow_warnings(
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
            .flat_map(|objection| Warning::lines(shadow_refuses(&objection.sentence)))
            .collect(),
    }
}

/// What a policy in shadow says in place of a refusal.
pub(super) fn shadow_refuses(sentence: impl fmt::Display) -> String {
    format!("shadow: would refuse: {sentence}")
}

pub(super) fn container_names(spec: &Spec<'_>, ask: &Ask<'_>) -> String {
    let names = ask.containers.iter().filter_map(|at| spec.container(*at));
    names.map(|container| container.name.as_str()).collect::<Vec<_>>().join(", ")
}
