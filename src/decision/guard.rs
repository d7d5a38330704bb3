//! guard: the last look at a pod, when everybody has changed it.
//!
//! A pod can come around the line: while no server answered under `failurePolicy: Ignore`, or since
//! another webhook undid a grant after us. Deciding twice changes nothing, so a pod that came through
//! needs no patch any more, and one that needs one did not come through.

use json_patch::PatchOperation;

use super::annotation::{GRANTED, Stamp};
use super::answer::Admission;
use super::line::{Undecided, admit};
use super::namespace::Namespace;
use super::plan::{Objection, Reason, Refusal};
use super::policy::PolicySet;
use super::request::Request;
use super::review::Review;

/// The line without a patch: what would be changed now is refused, as is what is refused anyway.
///
/// Warnings go with a refusal only: who comes through has read them at [`admit`].
pub fn validate(
    review: &Review<'_>,
    policies: &PolicySet,
    namespace: Option<&Namespace>,
) -> Result<Admission, Undecided> {
    let mut admission = admit(review, policies, namespace)?;
    let operations = std::mem::take(&mut admission.operations);
    if !admission.allowed {
        return Ok(admission);
    }
    admission.warnings.clear();
    let Some(first) = operations.first() else {
        return Ok(admission);
    };
    // Of a pod that asks for nothing, nothing is missing: `legacy.when: Always` came after it, or has
    // not reached every replica.
    let request = Request::of(review)?;
    if !request.asks(policies.settings()) {
        return Ok(admission);
    }
    if is_only_a_digest(&operations, &request, policies) {
        return Ok(admission);
    }
    let sentence = bypassed(&admission, first, operations.len());
    let refusal = Refusal::of(vec![Objection::new(Reason::Bypassed, sentence)]);
    Ok(Admission {
        allowed: false,
        reason: Reason::Bypassed,
        devices: Vec::new(),
        message: refusal.map(|refusal| refusal.detail()),
        ..admission
    })
}

/// Whether all that would change is the digest in the stamp: the pod has all that it is granted, and only
/// the policies that said so were others. So it is while policies are replaced, on one replica before
/// the other, and no reason to refuse every pod for that long.
fn is_only_a_digest(
    operations: &[PatchOperation],
    request: &Request<'_>,
    policies: &PolicySet,
) -> bool {
    let [PatchOperation::Replace(stamp)] = operations else {
        return false;
    };
    let key = format!("{}/{GRANTED}", policies.settings().prefix);
    let new = stamp.value.as_str().and_then(Stamp::parse);
    let old = request.annotation(&key).and_then(Stamp::parse);
    let is_stamp = stamp.path.last().is_some_and(|token| token.decoded() == key);
    is_stamp && matches!((old, new), (Some(old), Some(new)) if old.grants == new.grants)
}

fn bypassed(admission: &Admission, first: &PatchOperation, changes: usize) -> String {
    let devices = admission.devices.iter().map(|granted| granted.device.as_str());
    let devices = devices.collect::<Vec<_>>().join(", ");
    let grant =
        if devices.is_empty() { "no grant".to_owned() } else { format!("the grant of {devices}") };
    let (missing, at) = match changes {
        1 => ("1 change is missing,".to_owned(), "at"),
        _ => (format!("{changes} changes are missing,"), "the first at"),
    };
    format!(
        "the pod is not what {grant} makes of it: {missing} {at} `{}`; it came around the webhook that \
         makes them, or was changed behind it: create it again, and if it is refused again, ask whoever \
         runs devgrant",
        first.path()
    )
}
