//! answer: the AdmissionReview that goes back.

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use json_patch::PatchOperation;
use serde::Serialize;
use serde_json::value::RawValue;

use super::line::Decision;
use super::plan::{Reason, Verdict};
use super::policy::PolicySet;
use super::review::{API_VERSION, KIND};
use super::warning::Warning;

/// The code inside of a refusal, as any forbidden request has it.
const FORBIDDEN: u16 = 403;

/// The answer to one review, and what the shell records about it.
#[derive(Debug)]
pub struct Admission {
    /// The review's uid.
    pub uid: String,
    /// The pod's namespace; empty if the review names none.
    pub namespace: String,
    /// The pod's name, or the start of the name that it will be given; may be empty.
    pub name: String,
    /// Whether the pod is admitted.
    pub allowed: bool,
    /// Why, from a fixed set.
    pub reason: Reason,
    /// What is granted, or would be in shadow, in the order of the devices' names.
    pub devices: Vec<GrantedDevice>,
    /// The sentence of a refusal.
    pub message: Option<String>,
    /// What the person at `kubectl` is told.
    pub warnings: Vec<Warning>,
    /// The patch, empty when nothing changes: any patch makes the API server run all mutation twice.
    pub operations: Vec<PatchOperation>,
    /// The digest of the policies that decided.
    pub policy_digest: String,
}

/// One device that was granted: names that policies gave, never a pod's own text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantedDevice {
    /// The device.
    pub device: String,
    /// The mode.
    pub mode: String,
}

impl Admission {
    pub(super) fn new(
        uid: String,
        namespace: String,
        name: String,
        decision: Decision<'_>,
        policies: &PolicySet,
    ) -> Self {
        let message = match &decision.verdict {
            Verdict::Admit(_) => None,
            Verdict::Refuse(refusal) => Some(refusal.detail()),
        };
        let devices = decision.asks.iter().filter(|_| message.is_none()).map(|ask| GrantedDevice {
            device: ask.policy.device().to_owned(),
            mode: ask.mode_name.to_owned(),
        });
        Self {
            uid,
            namespace,
            name,
            allowed: message.is_none(),
            reason: decision.reason,
            devices: devices.collect(),
            message,
            warnings: decision.warnings,
            operations: decision.operations,
            policy_digest: policies.digest().to_owned(),
        }
    }

    /// The AdmissionReview, as bytes, that lets an object through of which nothing is known but the uid of
    /// its review.
    pub fn without_a_word(uid: &str) -> Vec<u8> {
        let response = Response { uid, allowed: true, ..Response::default() };
        plain(&Answer { api_version: API_VERSION, kind: KIND, response }, ROOM)
    }

    /// The AdmissionReview that goes back, as bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let patch = (!self.operations.is_empty()).then(|| encoded(&self.operations)).flatten();
        let status = self.message.as_deref().map(|message| Status {
            code: FORBIDDEN,
            reason: "Forbidden",
            message,
        });
        let room = ROOM + patch.as_ref().map_or(0, |patch| patch.get().len());
        let response = Response {
            uid: &self.uid,
            allowed: self.allowed,
            status,
            patch_type: patch.is_some().then_some("JSONPatch"),
            patch,
            audit_annotations: self.audit_annotations(),
            warnings: self.warnings.iter().map(Warning::as_str).collect(),
        };
        plain(&Answer { api_version: API_VERSION, kind: KIND, response }, room)
    }

    /// Stable over reinvocation: the API server drops a key that comes again with another value
    /// (`kubernetes/apiserver pkg/audit/context.go`).
    fn audit_annotations(&self) -> BTreeMap<&'static str, Cow<'_, str>> {
        let mut annotations = BTreeMap::from([
            ("reason", Cow::Borrowed(self.reason.as_str())),
            ("policy-digest", Cow::Borrowed(self.policy_digest.as_str())),
        ]);
        if !self.devices.is_empty() {
            let joined = |part: fn(&GrantedDevice) -> &str| {
                self.devices.iter().map(part).collect::<Vec<_>>().join(",")
            };
            annotations.insert("device", joined(|granted| &granted.device).into());
            annotations.insert("mode", joined(|granted| &granted.mode).into());
        }
        annotations
    }
}

/// Wire form of the answer (`kubernetes/api admission/v1/types.go`, `AdmissionReview`).
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    api_version: &'a str,
    kind: &'a str,
    response: Response<'a>,
}

#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Response<'a> {
    uid: &'a str,
    allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status<'a>>,
    // Both or neither: the API server takes one without the other for an invalid answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    patch_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    audit_annotations: BTreeMap<&'static str, Cow<'a, str>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<&'a str>,
}

#[derive(Serialize)]
struct Status<'a> {
    code: u16,
    /// By which clients tell errors apart; without it `kubectl` says `Error from server` and no more.
    reason: &'static str,
    message: &'a str,
}

/// A patch as a JSON string of Base64. It has nothing to escape, so that it is written as it is.
fn encoded(operations: &[PatchOperation]) -> Option<Box<RawValue>> {
    let patch = plain(&operations, ROOM);
    let length = base64::encoded_len(patch.len(), true).unwrap_or_default();
    let mut text = String::with_capacity(length + "\"\"".len());
    text.push('"');
    STANDARD.encode_string(patch, &mut text);
    text.push('"');
    RawValue::from_string(text).ok()
}

/// The bytes of most patches, and of most answers but for their patch. They are written without growing.
const ROOM: usize = 1024;

/// Text, numbers and lists only, so that there is always a JSON form.
fn plain(value: &impl Serialize, room: usize) -> Vec<u8> {
    let mut text = Vec::with_capacity(room);
    serde_json::to_writer(&mut text, value).map(|()| text).unwrap_or_default()
}
