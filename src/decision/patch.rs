//! patch: a plan as JSON Patch operations, each applied as it is recorded.
//!
//! What is there already is left as it is, so that deciding the patched pod again records nothing:
//! the API server may call us twice (`reinvocationPolicy: IfNeeded`).

mod container;
pub mod draft;
mod pod;

use json_patch::PatchOperation;

pub use draft::{Draft, DraftError, Path};

use super::annotation::{ASK, CONTAINERS, GRANTED, Stamp};
use super::document::Document;
use super::plan::Plan;
use super::pod::Spec;
use super::request::Request;
use super::settings::Settings;

/// Renders a plan for a pod. The operations are empty when nothing changes. Of more than 10,000
/// some may be missing: whoever asks refuses the pod.
pub fn render(
    object: &Document<'_>,
    request: &Request<'_>,
    spec: &Spec<'_>,
    plan: &Plan<'_>,
    digest: &str,
    settings: &Settings,
) -> Result<Vec<PatchOperation>, DraftError> {
    let mut draft = Draft::new(Document::Shared(object));
    for (at, grants) in &plan.containers {
        if let Some(container) = spec.container(*at) {
            let mut target = container::Target::new(
                &mut draft,
                request,
                spec,
                (*at, container),
                settings.kubernetes_version,
            );
            for grant in grants {
                target.apply(*grant)?;
            }
        }
    }
    pod::apply(&mut draft, request, spec, plan)?;
    unasked(&mut draft, plan, settings)?;
    stamp(&mut draft, request, plan.stamp(digest).as_ref(), settings)?;
    Ok(draft.into_operations())
}

/// Writes the asks that nobody made and that are granted all the same.
fn unasked(draft: &mut Draft<'_>, plan: &Plan<'_>, settings: &Settings) -> Result<(), DraftError> {
    let granted = plan.granted.iter();
    for grant in granted.filter(|grant| plan.unasked.contains(&grant.device.as_str())) {
        let key = format!("{}/{}", settings.prefix, grant.device);
        let containers = format!("{key}.{CONTAINERS}");
        let annotations = Path::of(&["metadata", "annotations"]);
        draft.set(&annotations.key(key.as_str()), ASK.into())?;
        draft.set(&annotations.key(containers.as_str()), grant.containers.join(",").into())?;
    }
    Ok(())
}

/// Writes the true stamp, or takes a forged one away.
pub fn stamp(
    draft: &mut Draft<'_>,
    request: &Request<'_>,
    stamp: Option<&Stamp>,
    settings: &Settings,
) -> Result<(), DraftError> {
    let key = format!("{}/{GRANTED}", settings.prefix);
    let own = request.annotation(&key);
    let path = Path::of(&["metadata", "annotations"]).key(key.as_str());
    match (stamp.map(Stamp::to_text), own) {
        (Some(stamp), Some(own)) if own == stamp => Ok(()),
        (Some(stamp), _) => draft.set(&path, stamp.into()),
        (None, Some(_)) => draft.remove(&path),
        (None, None) => Ok(()),
    }
}
