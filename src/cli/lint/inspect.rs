//! What is to be said of one pod.

use anyhow::Context;
use json_patch::jsonptr::PointerBuf;
use serde::Deserialize;
use serde_json::Value;
use serde_path_to_error::Segment;

use super::fields::{self, NoText, Unknown};
use super::{Rule, Said};
use crate::cli::output::joined;
use crate::cli::placement::translate;
use crate::cli::question::Question;
use crate::decision::finding::{Code, Finding, Severity};
use crate::decision::foresee::evidence;
use crate::decision::line::{pod_of, unasked};
use crate::decision::plan::Objection;
use crate::decision::pod::{Metadata, Pod};
use crate::decision::warning::Warning;
use crate::decision::{
    Decision, Plan, PolicySet, Reason, Request, Review, Undecided, Verdict, decide, foresee,
    unasked,
};

/// All of one pod, in no order.
pub(super) fn pod(question: &Question, policies: &PolicySet) -> anyhow::Result<Vec<Said>> {
    let pod = &question.pod.pod;
    let mut said: Vec<Said> = fields::unknown(pod).into_iter().map(Said::unknown).collect();
    let no_texts = fields::no_texts(pod);
    let no_text_asks = no_texts.iter().any(|one| one.path.starts_with("/metadata/annotations/"));
    said.extend(no_texts.into_iter().map(Said::no_text));
    // An AdmissionReview in a file may be none.
    match Review::decode(&question.review) {
        Err(problem) => said.push(Said::unreadable(&problem.to_string(), "", pod)),
        Ok(review) => match decided(&review, question, policies) {
            Ok(mut more) => said.append(&mut more),
            Err(
                undecided @ (Undecided::NotPod(_)
                | Undecided::NoSpec
                | Undecided::NotRequest { .. }),
            ) => {
                let path = mismatch(pod);
                let is_said = no_text_asks && path.starts_with("/metadata/annotations");
                if !is_said {
                    said.push(Said::unreadable(&undecided.to_string(), &path, pod));
                }
            }
            Err(undecided) => return Err(undecided).context(question.title.clone()),
        },
    }
    Ok(said)
}

/// The first place in a pod that is not of its type, a JSON Pointer; the pod itself where nobody can
/// tell.
fn mismatch(pod: &Value) -> String {
    let text = pod.to_string();
    let place = place_of_mismatch::<WithMetadata<'_>>(&text);
    place.or_else(|| place_of_mismatch::<Pod<'_>>(&text)).unwrap_or_default()
}

/// What a decision reads of a pod before it reads the rest.
#[derive(Deserialize)]
struct WithMetadata<'a> {
    #[serde(borrow, rename = "metadata")]
    _metadata: Option<Metadata<'a>>,
}

fn place_of_mismatch<'de, T: Deserialize<'de>>(text: &'de str) -> Option<String> {
    let mut json = serde_json::Deserializer::from_str(text);
    let error = serde_path_to_error::deserialize::<_, T>(&mut json).err()?;
    // Written out, a path has dots between its keys, and keys have dots too.
    let mut pointer = PointerBuf::root();
    for segment in error.path() {
        match segment {
            Segment::Seq { index } => pointer.push_back(*index),
            Segment::Map { key } => pointer.push_back(key.as_str()),
            Segment::Enum { .. } | Segment::Unknown => break,
        }
    }
    Some(pointer.to_string())
}

/// Where a part of the pod is in the document that it was found in.
pub(super) fn placed(path: &str, question: &Question) -> String {
    let found = translate(path, &question.pod.places);
    found.as_ref().unwrap_or(&question.pod.template).to_string()
}

fn decided(
    review: &Review<'_>,
    question: &Question,
    policies: &PolicySet,
) -> Result<Vec<Said>, Undecided> {
    let request = Request::of(review)?;
    let pod = pod_of(&request, policies)?;
    let decision = match &pod {
        Some(pod) => decide(&request, pod, policies, Some(&question.namespace))?,
        None => Decision::untouched(unasked(request.creates_pod)),
    };
    let objections: Vec<&Objection> = match &decision.verdict {
        Verdict::Admit(_) => Vec::new(),
        Verdict::Refuse(refusal) => refusal.objections().collect(),
    };
    let mut said = Vec::new();
    for finding in &decision.findings {
        let sentence = finding.to_string();
        let refuses = objections.iter().any(|objection| objection.sentence == sentence);
        said.push(Said::finding(finding, refuses));
    }
    // Nobody foresaw anything of a pod that asks for nothing that is granted.
    if decision.asks.is_empty() && decision.findings.is_empty() {
        let general = general(&request, question, policies)?;
        said.extend(general.iter().map(|finding| Said::finding(finding, false)));
    }
    let keys = Keys { request: &request, prefix: &policies.settings().prefix };
    // What was foreseen is there already, at its own place.
    let others = objections.iter().filter(|other| other.reason != Reason::Foreseen);
    said.extend(others.map(|objection| {
        let rule = Rule::Ask(objection.reason);
        let said = Said::asked(rule, Severity::Error, &objection.sentence, &keys)
            .about(objection.path.as_deref());
        Said { refuses: true, ..said }
    }));
    warnings(&decision, &keys, &mut said);
    Ok(said)
}

/// What holds for any pod, also for one that asks for nothing.
fn general(
    request: &Request<'_>,
    question: &Question,
    policies: &PolicySet,
) -> Result<Vec<Finding>, Undecided> {
    let pod = request.pod()?;
    let Some(spec) = pod.as_ref().and_then(Pod::spec) else { return Ok(Vec::new()) };
    let plan = Plan::default();
    let mut findings = foresee::findings(request, spec, &plan, &[], &question.namespace);
    // That an ephemeral container gets no device is nothing to a pod that wants none.
    findings.retain(|finding| finding.code != Code::DG014);
    findings.extend(unasked::would_go(request, spec, policies, &question.namespace));
    findings.extend(evidence::of_fuse(spec));
    Ok(findings)
}

/// The warnings that are no findings: what `onInvalid: Warn` ignores, and what a shadow would do.
fn warnings(decision: &Decision<'_>, keys: &Keys<'_>, said: &mut Vec<Said>) {
    let found = decision.findings.iter().flat_map(|finding| Warning::lines(finding.to_string()));
    let mut known: Vec<Warning> = found.collect();
    for objection in &decision.ignored {
        let shadow = Warning::lines(format!("{SHADOW_REFUSES}{}", objection.sentence));
        let is_shadow = shadow.first().is_some_and(|first| decision.warnings.contains(first));
        let start = if is_shadow { SHADOW_REFUSES } else { "ignored: " };
        let text = format!("{start}{}", objection.sentence);
        known.extend(Warning::lines(&text));
        let one = Said::asked(Rule::Ask(objection.reason), Severity::Warning, &text, keys);
        said.push(one.about(objection.path.as_deref()));
    }
    let others = decision.warnings.iter().filter(|warning| !known.contains(warning));
    for text in joined(others.map(Warning::as_str)) {
        let severity = if NOTES.iter().any(|note| text.starts_with(note)) {
            Severity::Info
        } else {
            Severity::Warning
        };
        said.push(Said::asked(Rule::Note, severity, &text, keys));
    }
}

const SHADOW_REFUSES: &str = "shadow: would refuse: ";
/// The starts of what is no fault of the pod.
const NOTES: [&str; 2] = ["shadow: would grant ", "no container is named: "];

/// The annotations that ask.
struct Keys<'a> {
    request: &'a Request<'a>,
    prefix: &'a str,
}

impl Keys<'_> {
    /// The annotation that a sentence is about: the one that it names whole, or by its device, or else
    /// the first.
    fn path(&self, sentence: &str) -> String {
        let keys: Vec<&str> = self.request.annotations(self.prefix).map(|(key, _)| key).collect();
        let longest = |all: &mut dyn Iterator<Item = &str>| {
            all.max_by_key(|key| key.len()).map(str::to_owned)
        };
        let whole = |key: &&str| sentence.contains(&format!("{}/{key}", self.prefix));
        let device = |key: &&str| sentence.contains(*key);
        let key = longest(&mut keys.iter().copied().filter(whole))
            .or_else(|| longest(&mut keys.iter().copied().filter(device)))
            .or_else(|| keys.first().map(|key| (*key).to_owned()));
        match key {
            Some(key) => format!("/metadata/annotations/{}~1{key}", self.prefix),
            None => "/metadata/annotations".to_owned(),
        }
    }
}

impl Said {
    fn finding(finding: &Finding, refuses: bool) -> Self {
        Self {
            rule: Rule::Finding(finding.code),
            severity: if refuses { Severity::Error } else { finding.severity() },
            message: finding.sentence(),
            remedy: Some(finding.remedy()),
            refuses,
            path: finding.path.clone(),
            // The value of an annotation says nothing of what is wrong with its key.
            key: finding.path.starts_with("/metadata/annotations/"),
        }
    }

    fn asked(rule: Rule, severity: Severity, sentence: &str, keys: &Keys<'_>) -> Self {
        let path = keys.path(sentence);
        let message = sentence.to_owned();
        let key = rule == Rule::Ask(Reason::UnknownKey);
        Self { rule, severity, message, remedy: None, refuses: false, path, key }
    }

    /// The same about a field of the pod, if there is one.
    fn about(self, path: Option<&str>) -> Self {
        match path {
            Some(path) => Self { path: path.to_owned(), key: false, ..self },
            None => self,
        }
    }

    fn unknown(unknown: Unknown) -> Self {
        Self {
            rule: Rule::UnknownField,
            severity: if unknown.sure { Severity::Warning } else { Severity::Info },
            message: unknown.message,
            remedy: Some(unknown.remedy),
            refuses: false,
            path: unknown.path,
            key: true,
        }
    }

    fn no_text(no_text: NoText) -> Self {
        Self {
            rule: Rule::UnreadablePod,
            severity: Severity::Error,
            message: no_text.message,
            remedy: Some(no_text.remedy),
            refuses: false,
            path: no_text.path,
            key: false,
        }
    }

    fn unreadable(message: &str, path: &str, pod: &Value) -> Self {
        let message = message.replace("this is no pod:", "the API server cannot read this pod:");
        // A text may be a placeholder, and something else once that is filled in.
        let (severity, remedy) = match pod.pointer(path) {
            Some(Value::String(_)) => (
                Severity::Warning,
                "write that; if a placeholder stands there, lint the manifest once it is filled in",
            ),
            _ => (Severity::Error, "write what is expected there"),
        };
        Self {
            rule: Rule::UnreadablePod,
            severity,
            message,
            remedy: Some(remedy.to_owned()),
            refuses: false,
            path: path.to_owned(),
            key: false,
        }
    }
}
