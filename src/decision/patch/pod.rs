//! Grants to the pod.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::draft::{Draft, DraftError, Path};
use crate::decision::path::same_path;
use crate::decision::plan::{ContainerGrant, MOST, Plan, PodGrant};
use crate::decision::pod::{Spec, Text, Toleration as OwnToleration, VolumeMount};
use crate::decision::policy::schema::{
    NodeRequirement, TaintEffect, Toleration, TolerationOperator,
};
use crate::decision::request::Request;
use crate::decision::review::Mismatch;

/// Applies all grants to the pod.
pub(super) fn apply(
    draft: &mut Draft<'_>,
    request: &Request<'_>,
    spec: &Spec<'_>,
    plan: &Plan<'_>,
) -> Result<(), DraftError> {
    let field = |name| Path::of(&["spec", name]);
    let requirements: Vec<&NodeRequirement> = plan
        .pod
        .iter()
        .filter_map(|grant| {
            if let PodGrant::NodeAffinity(requirement) = grant { Some(*requirement) } else { None }
        })
        .collect();
    for grant in &plan.pod {
        match *grant {
            PodGrant::Volume(volume)
                if spec.volumes.iter().all(|own| own.name != volume.name.as_str()) =>
            {
                draft.append(
                    &field("volumes"),
                    json!({ "name": volume.name, "emptyDir": volume.empty_dir }),
                )?;
            }
            PodGrant::HostPathVolume { name, host_path } => {
                let volume = name.to_string();
                let mount = ContainerGrant::Mount { volume: name, path: &host_path.path };
                // Where every container mounts the device by itself already, nothing refers to ours.
                let needed = plan.containers.iter().any(|(at, grants)| {
                    let mounts =
                        |own: &VolumeMount<'_>| same_path(own.mount_path.as_str(), &host_path.path);
                    grants.contains(&mount)
                        && spec
                            .container(*at)
                            .is_some_and(|container| !container.volume_mounts.iter().any(mounts))
                });
                if needed && spec.volumes.iter().all(|own| own.name != volume.as_str()) {
                    draft.append(
                        &field("volumes"),
                        json!({ "name": volume, "hostPath": host_path }),
                    )?;
                }
            }
            PodGrant::Claim(claim)
                if spec.resource_claims.iter().all(|own| own.name != claim.name.as_str()) =>
            {
                let template = &claim.resource_claim_template_name;
                draft.append(
                    &field("resourceClaims"),
                    json!({ "name": claim.name, "resourceClaimTemplateName": template }),
                )?;
            }
            PodGrant::RemoveVolume(index) => draft.remove(&field("volumes").index(index))?,
            PodGrant::OwnUserNamespace if spec.host_users != Some(false) => {
                draft.set(&field("hostUsers"), false.into())?;
            }
            PodGrant::RuntimeClass(class)
                if spec.runtime_class_name.as_ref().is_none_or(|own| *own != class) =>
            {
                draft.set(&field("runtimeClassName"), class.into())?;
            }
            PodGrant::NodeSelector { key, value } if !spec.node_selector.contains_key(key) => {
                draft.set(&field("nodeSelector").key(key), value.into())?;
            }
            PodGrant::Toleration(toleration)
                if !spec.tolerations.iter().any(|own| covers(own, toleration)) =>
            {
                draft.append(&field("tolerations"), plain(toleration))?;
            }
            PodGrant::Annotation { key, value } if request.annotation(key) != Some(value) => {
                draft.set(&Path::of(&["metadata", "annotations"]).key(key), value.into())?;
            }
            PodGrant::SchedulingGate(gate)
                if spec.scheduling_gates.iter().all(|own| own.name != gate) =>
            {
                draft.append(&field("schedulingGates"), json!({ "name": gate }))?;
            }
            // What is there already, and node affinity, which is written as one below.
            _ => {}
        }
    }
    node_affinity(draft, spec, &requirements)
}

/// Whether a toleration of the pod tolerates all that ours would
/// (`kubernetes pkg/apis/core/helper`, `isSuperset` of tolerations).
fn covers(own: &OwnToleration<'_>, wanted: &Toleration) -> bool {
    let exists = own.operator == "Exists";
    let equal = own.operator == "" || own.operator == "Equal";
    let same_key = own.key == wanted.key.as_str() || (own.key == "" && exists);
    let effect = wanted.effect.map(effect_name);
    let same_effect = own.effect == "" || effect == Some(own.effect.as_str());
    let wanted_value = wanted.value.as_deref().unwrap_or_default();
    let same_value = exists
        || (equal && wanted.operator == TolerationOperator::Equal && own.value == wanted_value);
    // A toleration that ends is no substitute for one that lasts longer.
    let as_long = match (own.toleration_seconds, wanted.toleration_seconds) {
        (None, _) => true,
        (Some(own), Some(wanted)) => own >= wanted,
        (Some(_), None) => false,
    };
    same_key && same_effect && same_value && as_long
}

fn effect_name(effect: TaintEffect) -> &'static str {
    match effect {
        TaintEffect::NoExecute => "NoExecute",
        TaintEffect::NoSchedule => "NoSchedule",
        TaintEffect::PreferNoSchedule => "PreferNoSchedule",
    }
}

/// Terms are alternatives: a requirement holds for the pod only if it stands in every one of them, and
/// a term of its own would let the pod run elsewhere. An empty term matches nothing, and a requirement
/// in it would make it match something (`kubernetes/api core/v1/types.go`, `NodeSelectorTerm`).
fn node_affinity(
    draft: &mut Draft<'_>,
    spec: &Spec<'_>,
    requirements: &[&NodeRequirement],
) -> Result<(), DraftError> {
    if requirements.is_empty() {
        return Ok(());
    }
    let terms_path = Path::of(&[
        "spec",
        "affinity",
        "nodeAffinity",
        "requiredDuringSchedulingIgnoredDuringExecution",
        "nodeSelectorTerms",
    ]);
    let affinity: Affinity<'_> = match spec.affinity {
        Some(raw) => serde_json::from_str::<Option<Affinity<'_>>>(raw.get())
            .map_err(|error| DraftError::Unreadable {
                path: "/spec/affinity".to_owned(),
                cause: Mismatch::of(&error),
            })?
            .unwrap_or_default(),
        None => Affinity::default(),
    };
    let terms = affinity.terms();
    if terms.is_empty() {
        let all: Vec<Value> = requirements.iter().map(plain).collect();
        return draft.set(&terms_path, json!([{ "matchExpressions": all }]));
    }
    for (index, term) in terms.iter().enumerate().filter(|(_, term)| !term.is_empty()) {
        // Nothing of such a patch is ever sent, so that the rest is not worth making.
        if draft.operations().len() > MOST {
            return Ok(());
        }
        let own = term.match_expressions.as_deref().unwrap_or_default();
        for requirement in requirements {
            let wanted = plain(requirement);
            if !own.iter().any(|own| own.is(&wanted)) {
                draft.append(&terms_path.index(index).key("matchExpressions"), wanted)?;
            }
        }
    }
    Ok(())
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Affinity<'a> {
    #[serde(borrow)]
    node_affinity: Option<NodeAffinity<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct NodeAffinity<'a> {
    #[serde(borrow)]
    required_during_scheduling_ignored_during_execution: Option<NodeSelector<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct NodeSelector<'a> {
    #[serde(borrow)]
    node_selector_terms: Option<Vec<Term<'a>>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Term<'a> {
    #[serde(borrow)]
    match_expressions: Option<Vec<OwnRequirement<'a>>>,
    match_fields: Option<Vec<IgnoredAny>>,
}

/// A requirement of the pod's own. Whatever else stands in it is none of ours.
#[derive(Default, Deserialize)]
#[serde(default)]
struct OwnRequirement<'a> {
    #[serde(borrow)]
    key: Option<Text<'a>>,
    #[serde(borrow)]
    operator: Option<Text<'a>>,
    #[serde(borrow)]
    values: Option<Vec<Text<'a>>>,
}

impl<'a> Affinity<'a> {
    fn terms(self) -> Vec<Term<'a>> {
        let required = self
            .node_affinity
            .and_then(|node| node.required_during_scheduling_ignored_during_execution);
        required.and_then(|required| required.node_selector_terms).unwrap_or_default()
    }
}

impl Term<'_> {
    fn is_empty(&self) -> bool {
        self.match_expressions.as_ref().is_none_or(Vec::is_empty)
            && self.match_fields.as_ref().is_none_or(Vec::is_empty)
    }
}

impl OwnRequirement<'_> {
    fn is(&self, wanted: &Value) -> bool {
        let text = |key: &str| wanted.get(key).and_then(Value::as_str);
        let wanted_values = wanted.get("values").and_then(Value::as_array);
        let mut wanted_values: Vec<&str> =
            wanted_values.into_iter().flatten().filter_map(Value::as_str).collect();
        let mut values: Vec<&str> = self.values.iter().flatten().map(Text::as_str).collect();
        wanted_values.sort_unstable();
        values.sort_unstable();
        self.key.as_ref().map(Text::as_str) == text("key")
            && self.operator.as_ref().map(Text::as_str) == text("operator")
            && values == wanted_values
    }
}

/// A part of a policy as the JSON that Kubernetes reads: the schema spells it the same.
fn plain<T: serde::Serialize>(part: &T) -> Value {
    // Text and numbers only, so that there is always a JSON form.
    serde_json::to_value(part).unwrap_or_default()
}
