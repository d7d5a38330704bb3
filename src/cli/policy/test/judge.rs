//! What a case expects, against what comes out. Pure: a review in, an outcome out.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::{Value, json};

use super::case::{Expect, ExpectedGrant, Verdict};
use crate::decision::annotation::StampedGrant;
use crate::decision::document::Document;
use crate::decision::finding::Code;
use crate::decision::line::{pod_of, unasked};
use crate::decision::{
    self, Decision, Namespace, PolicySet, Reason, Request, Review, Undecided, decide,
};

/// What came of one case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// The verdict; `None` if there is none, as for what is no pod.
    pub verdict: Option<Verdict>,
    /// Why, in one word.
    pub reason: Option<&'static str>,
    /// Everything that is otherwise than expected.
    pub unmet: Vec<Unmet>,
}

/// An expectation that is not met.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Unmet {
    /// Which one, by its name in the file; `decision` if there is no verdict at all.
    pub expectation: &'static str,
    /// The field of the pod, a JSON Pointer, for `fields`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pointer: Option<String>,
    /// What the case says.
    pub expected: Value,
    /// What there is.
    pub actual: Value,
}

/// What came out, in the words that a case uses.
struct Actual {
    verdict: Verdict,
    reason: Reason,
    grants: Vec<StampedGrant>,
    findings: BTreeSet<Code>,
    warnings: Vec<String>,
    message: Option<String>,
    /// The pod that comes out, if one does.
    pod: Option<Value>,
    patched: bool,
}

/// Decides the review, and compares.
pub fn judge(
    expect: &Expect,
    review: &[u8],
    namespace: &Namespace,
    policies: &PolicySet,
) -> Outcome {
    match actual(review, namespace, policies) {
        Ok(actual) => Outcome {
            verdict: Some(actual.verdict),
            reason: Some(actual.reason.as_str()),
            unmet: actual.unmet(expect),
        },
        Err(why) => {
            let unmet = Unmet::new("decision", json!("a verdict"), json!(why));
            Outcome { verdict: None, reason: None, unmet: vec![unmet] }
        }
    }
}

/// What comes out of a review, or why nothing can.
fn actual(review: &[u8], namespace: &Namespace, policies: &PolicySet) -> Result<Actual, String> {
    let review = Review::decode(review).map_err(|error| error.to_string())?;
    let undecided = |error: Undecided| error.to_string();
    let request = Request::of(&review).map_err(undecided)?;
    let pod = pod_of(&request, policies).map_err(undecided)?;
    let decision = match &pod {
        Some(pod) => decide(&request, pod, policies, Some(namespace)).map_err(undecided)?,
        None => Decision::untouched(unasked(request.creates_pod)),
    };
    let object = request.object.map_or_else(|| "null".to_owned(), Document::to_json);
    Actual::of(decision, &object)
}

impl Actual {
    fn of(decision: Decision<'_>, object: &str) -> Result<Self, String> {
        let (verdict, grants, message) = match decision.verdict {
            decision::Verdict::Admit(plan) => (Verdict::Admit, plan.granted, None),
            decision::Verdict::Refuse(refusal) => {
                (Verdict::Refuse, Vec::new(), Some(refusal.detail()))
            }
        };
        let pod = if verdict == Verdict::Admit {
            let mut pod = serde_json::from_str(object).map_err(|error| error.to_string())?;
            json_patch::patch(&mut pod, &decision.operations).map_err(|error| error.to_string())?;
            Some(pod)
        } else {
            None
        };
        Ok(Self {
            verdict,
            reason: decision.reason,
            grants,
            findings: decision.findings.iter().map(|finding| finding.code).collect(),
            warnings: decision.warnings.iter().map(ToString::to_string).collect(),
            message,
            pod,
            patched: !decision.operations.is_empty(),
        })
    }

    /// Everything that is otherwise, in the order of the fields in the schema.
    fn unmet(&self, expect: &Expect) -> Vec<Unmet> {
        let mut unmet = Vec::new();
        if let Some(expected) = expect.verdict.filter(|expected| *expected != self.verdict) {
            unmet.push(Unmet::new("verdict", json!(expected), json!(self.verdict)));
        }
        let reason = self.reason.as_str();
        if let Some(expected) = expect.reason.as_ref().filter(|expected| *expected != reason) {
            unmet.push(Unmet::new("reason", json!(expected), json!(reason)));
        }
        if let Some(expected) = expect.grants.as_ref().filter(|expected| !self.grants_are(expected))
        {
            let granted: Vec<Value> = self.grants.iter().map(grant).collect();
            unmet.push(Unmet::new("grants", json!(expected), json!(granted)));
        }
        if let Some(expected) =
            expect.findings.as_ref().filter(|expected| **expected != self.findings)
        {
            unmet.push(Unmet::new("findings", json!(expected), json!(self.findings)));
        }
        self.unmet_warnings(expect, &mut unmet);
        if let Some(expected) = &expect.message
            && !self.message.as_ref().is_some_and(|message| message.contains(expected))
        {
            unmet.push(Unmet::new("message", json!(expected), json!(self.message)));
        }
        self.unmet_fields(expect, &mut unmet);
        if let Some(expected) = expect.patched.filter(|expected| *expected != self.patched) {
            unmet.push(Unmet::new("patched", json!(expected), json!(self.patched)));
        }
        unmet
    }

    fn grants_are(&self, expected: &[ExpectedGrant]) -> bool {
        let is = |(expected, actual): (&ExpectedGrant, &StampedGrant)| {
            expected.device == actual.device
                && expected.mode.as_ref().is_none_or(|mode| *mode == actual.mode)
                && expected.count.is_none_or(|count| count == actual.count)
                && expected.containers.as_ref().is_none_or(|names| *names == actual.containers)
        };
        expected.len() == self.grants.len() && expected.iter().zip(&self.grants).all(is)
    }

    fn unmet_warnings(&self, expect: &Expect, unmet: &mut Vec<Unmet>) {
        let Some(expected) = &expect.warnings else { return };
        if expected.is_empty() && !self.warnings.is_empty() {
            unmet.push(Unmet::new("warnings", json!(expected), json!(self.warnings)));
        }
        for part in expected {
            if !self.warnings.iter().any(|warning| warning.contains(part)) {
                unmet.push(Unmet::new("warnings", json!(part), json!(self.warnings)));
            }
        }
    }

    fn unmet_fields(&self, expect: &Expect, unmet: &mut Vec<Unmet>) {
        for (pointer, expected) in expect.fields.iter().flatten() {
            let actual = match &self.pod {
                // To the API server, a field that is `null` is absent.
                Some(pod) => pod.pointer(pointer).cloned().unwrap_or(Value::Null),
                None => json!("(the pod is refused)"),
            };
            if actual != *expected {
                let at = Some(pointer.clone());
                let expected = expected.clone();
                unmet.push(Unmet { expectation: "fields", pointer: at, expected, actual });
            }
        }
    }
}

/// A grant in the words of a case.
fn grant(grant: &StampedGrant) -> Value {
    json!(ExpectedGrant {
        device: grant.device.clone(),
        mode: Some(grant.mode.clone()),
        count: Some(grant.count),
        containers: Some(grant.containers.clone()),
    })
}

impl Unmet {
    fn new(expectation: &'static str, expected: Value, actual: Value) -> Self {
        Self { expectation, pointer: None, expected, actual }
    }

    /// Which expectation, with the field if it is about one.
    pub fn title(&self) -> String {
        match &self.pointer {
            Some(pointer) => format!("{} {pointer}", self.expectation),
            None => self.expectation.to_owned(),
        }
    }

    /// What was expected, in one line.
    pub fn expected(&self) -> String {
        self.in_words(&self.expected)
    }

    /// What there is, in one line.
    pub fn actual(&self) -> String {
        self.in_words(&self.actual)
    }

    fn in_words(&self, value: &Value) -> String {
        match (self.expectation, value) {
            ("fields", Value::Null) => "(absent)".to_owned(),
            ("message", Value::Null) => "(the pod is admitted)".to_owned(),
            ("decision", Value::String(text)) => text.clone(),
            (_, Value::Array(items)) if items.is_empty() => "(none)".to_owned(),
            (_, value) => value.to_string(),
        }
    }
}
