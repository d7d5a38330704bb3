//! The guard: what the API server refuses by itself, by a ValidatingAdmissionPolicy, when we did not
//! answer and `failurePolicy: Ignore` let the pod go on.
//!
//! - A pod that asks for a device and shows no sign of a grant would start and fail later.
//! - A pod with a stamp that names nothing it asks for carries a forged one.
//!
//! It never refuses what the webhook admitted. So a device is left out whose asks may be admitted
//! without a grant (`enforcement: Shadow`, `onInvalid: Warn`); where a grant may leave nothing to be
//! seen, the stamp is enough; and a stamp of other policies than those the guard was made from is
//! taken at its word, or every pod would be refused between a change of policies and that of the guard.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::expression::{list, text, variable};
use super::matching::{asks, namespace_selector};
use super::{MATCH_CONDITION, NAME, of_cluster};
use crate::decision::annotation::GRANTED;
use crate::decision::policy::Policy;
use crate::decision::policy::schema::{
    Enforcement, LegacyAction, LegacyWhen, Mode, OmittableField, OnInvalid, Spec,
};
use crate::decision::{PolicySet, Settings};

/// The policy and its binding.
pub(super) fn objects(policies: &PolicySet) -> Vec<Value> {
    let api_version = "admissionregistration.k8s.io/v1";
    let settings = policies.settings();
    let guarded: Vec<&Policy> =
        policies.policies().iter().filter(|policy| is_guarded(policy.spec())).collect();
    let policy = json!({
        "spec": {
            // Only pods that ask get this far, and an expression that fails is a fault of ours.
            "failurePolicy": "Fail",
            "matchConstraints": {
                "matchPolicy": "Equivalent",
                "resourceRules": [{
                    "apiGroups": [""],
                    "apiVersions": ["v1"],
                    "operations": ["CREATE"],
                    "resources": ["pods"],
                    "scope": "Namespaced",
                }],
            },
            "matchConditions": [
                { "name": MATCH_CONDITION, "expression": asks(settings) },
                { "name": "is-no-mirror-of-a-static-pod", "expression": NO_MIRROR },
                // Those may be admitted without a grant.
                { "name": "is-not-for-windows", "expression": NOT_WINDOWS },
            ],
            "variables": variables(policies, &guarded),
            "validations": [lacking(settings), forged(policies)],
        },
    });
    let binding = json!({
        "spec": {
            "policyName": NAME,
            "validationActions": ["Deny"],
            "matchResources": { "namespaceSelector": namespace_selector(settings) },
        },
    });
    vec![
        of_cluster(api_version, "ValidatingAdmissionPolicy", NAME, policy),
        of_cluster(api_version, "ValidatingAdmissionPolicyBinding", NAME, binding),
    ]
}

/// Whether every ask for the device that is admitted is also granted.
fn is_guarded(spec: &Spec) -> bool {
    spec.enforcement == Enforcement::Enforce && spec.on_invalid == OnInvalid::Deny
}

fn variables(policies: &PolicySet, guarded: &[&Policy]) -> Vec<Value> {
    let variable_of =
        |name: &str, expression: String| json!({ "name": name, "expression": expression });
    let stamp = text(&format!("{}/{GRANTED}", policies.settings().prefix));
    let digest = text(&format!("\"policyDigest\":\"{}\"", policies.digest()));
    let mut variables = vec![
        variable_of("annotations", "object.metadata.?annotations.orValue({})".to_owned()),
        variable_of(
            "containers",
            "object.spec.containers + object.spec.?initContainers.orValue([])".to_owned(),
        ),
        variable_of(
            "limits",
            "variables.containers.map(container, container.?resources.?limits.orValue({}))"
                .to_owned(),
        ),
        variable_of(
            "granted",
            format!("{stamp} in variables.annotations ? variables.annotations[{stamp}] : ''"),
        ),
        variable_of("by_these_policies", format!("variables.granted.contains({digest})")),
    ];
    variables.extend(guarded.iter().map(|policy| {
        let name = variable("lacks", policy.device());
        variable_of(&name, lacks(policy, policies.settings()))
    }));
    let each: Vec<String> = guarded
        .iter()
        .map(|policy| {
            let lacks = variable("variables.lacks", policy.device());
            format!("({lacks} ? [{}] : [])", text(policy.device()))
        })
        .collect();
    let lacking = if each.is_empty() { "[]".to_owned() } else { each.join(" + ") };
    variables.push(variable_of("lacking", lacking));
    variables
}

/// Whether the pod asks for a device and nothing shows that it got it.
fn lacks(policy: &Policy, settings: &Settings) -> String {
    let key = text(&format!("{}/{}", settings.prefix, policy.device()));
    let signs = Signs::of(policy.spec());
    let stamped = stamped(policy.device());
    let stamp = if signs.may_be_silent {
        stamped
    } else {
        format!("(!variables.by_these_policies && {stamped})")
    };
    let mut shown = vec![stamp];
    shown.extend(signs.expressions());
    format!(
        "{key} in variables.annotations && variables.annotations[{key}] != 'false' && !({})",
        shown.join(" || ")
    )
}

fn stamped(device: &str) -> String {
    format!("variables.granted.contains({})", text(&format!("\"device\":\"{device}\"")))
}

/// What shows that a device was granted, in whatever mode: any one of these.
#[derive(Default)]
struct Signs<'a> {
    resources: BTreeSet<&'a str>,
    claims: BTreeSet<&'a str>,
    runtime_classes: BTreeSet<&'a str>,
    annotations: BTreeSet<&'a str>,
    environment: BTreeSet<&'a str>,
    node_labels: BTreeSet<&'a str>,
    scheduling_gates: BTreeSet<&'a str>,
    is_privileged: bool,
    /// Whether a mode leaves none of these.
    may_be_silent: bool,
}

impl<'a> Signs<'a> {
    fn of(spec: &'a Spec) -> Self {
        let mut signs = Self::default();
        for mode in spec.modes.values() {
            signs.add(mode);
        }
        signs.resources.extend(spec.carried_by.iter().map(String::as_str));
        // Where a RuntimeClass makes the resource unnecessary, it is the sign.
        let omits = [OmittableField::ResourceClaims, OmittableField::Resources];
        let classes = spec.runtime_classes.iter();
        let bare =
            classes.filter(|(_, variant)| omits.iter().any(|field| variant.omit.contains(field)));
        signs.runtime_classes.extend(bare.map(|(class, _)| class.as_str()));
        signs
    }

    /// Of a mode without resources one sign is enough: a grant writes all that the mode has. Only such
    /// signs as are there after every grant: a volume is left out where its path is taken, a
    /// toleration or a capability where the pod has a wider one.
    fn add(&mut self, mode: &'a Mode) {
        self.resources.extend(mode.resources.iter().map(|resource| resource.name.as_str()));
        self.claims.extend(mode.resource_claims.iter().map(|claim| claim.name.as_str()));
        if !mode.resources.is_empty() || !mode.resource_claims.is_empty() {
            return;
        }
        if mode.privileged {
            self.is_privileged = true;
        } else if let Some(class) = &mode.runtime_class_name {
            self.runtime_classes.insert(class);
        } else if !mode.pod_annotations.is_empty() {
            self.annotations.extend(mode.pod_annotations.keys().map(String::as_str));
        } else if !mode.node_selector.is_empty() {
            self.node_labels.extend(mode.node_selector.keys().map(String::as_str));
        } else if !mode.env.is_empty() {
            self.environment.extend(mode.env.iter().map(|variable| variable.name.as_str()));
        } else if !mode.scheduling_gates.is_empty() {
            self.scheduling_gates.extend(mode.scheduling_gates.iter().map(String::as_str));
        } else {
            self.may_be_silent = true;
        }
    }

    fn expressions(&self) -> Vec<String> {
        let each: [(&BTreeSet<&str>, &str, &str); 7] = [
            (
                &self.resources,
                "",
                // An amount of nothing is no device.
                ".exists(name, variables.limits.exists(amounts, name in amounts && string(amounts[name]) != '0'))",
            ),
            (
                &self.claims,
                "object.spec.?resourceClaims.orValue([]).exists(claim, claim.name in ",
                ")",
            ),
            (&self.runtime_classes, "object.spec.?runtimeClassName.orValue('') in ", ""),
            (&self.annotations, "variables.annotations.exists(key, key in ", ")"),
            (
                &self.environment,
                "variables.containers.exists(container, container.?env.orValue([]).exists(variable, variable.name in ",
                "))",
            ),
            (&self.node_labels, "object.spec.?nodeSelector.orValue({}).exists(key, key in ", ")"),
            (
                &self.scheduling_gates,
                "object.spec.?schedulingGates.orValue([]).exists(gate, gate.name in ",
                ")",
            ),
        ];
        let mut expressions: Vec<String> = each
            .into_iter()
            .filter(|(names, ..)| !names.is_empty())
            .map(|(names, before, behind)| {
                format!("{before}{}{behind}", list(names.iter().copied()))
            })
            .collect();
        if self.is_privileged {
            expressions.push(
                "variables.containers.exists(container, \
                 container.?securityContext.?privileged.orValue(false))"
                    .to_owned(),
            );
        }
        expressions
    }
}

fn lacking(settings: &Settings) -> Value {
    let remedy = format!(
        ", which it asks for: the webhook did not answer. Create it again when the pods of {NAME} in the \
         namespace {} are ready, or take the annotation out",
        settings.own_namespace
    );
    json!({
        "expression": "size(variables.lacking) == 0",
        "messageExpression": format!(
            "'devgrant: the pod was not granted ' + variables.lacking.join(', ') + {}",
            text(&remedy)
        ),
        "message": "devgrant: the pod was not granted a device that it asks for: the webhook did not answer",
        "reason": "Forbidden",
    })
}

/// Of any device that the pod asks for, also one that the guard was made without.
fn forged(policies: &PolicySet) -> Value {
    let prefix = &policies.settings().prefix;
    let key = format!("{prefix}/{GRANTED}");
    let mut true_ones = vec![
        "variables.granted == ''".to_owned(),
        format!(
            "variables.annotations.exists(key, key.startsWith({start}) && \
             variables.annotations[key] != 'false' && \
             variables.granted.contains('\"device\":\"' + key.replace({start}, '') + '\"'))",
            start = text(&format!("{prefix}/")),
        ),
    ];
    let always = policies.policies().iter().filter(|policy| is_granted_unasked(policy.spec()));
    true_ones.extend(always.map(|policy| stamped(policy.device())));
    json!({
        "expression": true_ones.join(" || "),
        "message": format!(
            "devgrant: only the webhook writes the annotation {key}, and this one names nothing that the pod \
             asks for; take it out"
        ),
        "reason": "Forbidden",
    })
}

/// Whether pods get the device that do not ask for it, for their old shape.
fn is_granted_unasked(spec: &Spec) -> bool {
    spec.legacy.as_ref().is_some_and(|legacy| {
        legacy.when == LegacyWhen::Always && legacy.action == LegacyAction::Rewrite
    })
}

/// Only a node's word counts, as in the line.
const NO_MIRROR: &str = "!('kubernetes.io/config.mirror' in object.metadata.?annotations.orValue({}) && \
    (request.userInfo.?username.orValue('').startsWith('system:node:') || \
    'system:nodes' in request.userInfo.?groups.orValue([])))";
const NOT_WINDOWS: &str = "object.spec.?os.?name.orValue('') != 'windows'";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::PolicySource;

    fn lacks_of(spec: &str) -> String {
        let text = format!(
            "apiVersion: devgrant/v1alpha1\nkind: DevicePolicy\nmetadata: {{ name: cam }}\nspec:\n  device: \
             cam\n  defaultMode: a\n{spec}"
        );
        let source = PolicySource { file: "cam.yaml".to_owned(), text };
        let set = PolicySet::compile(&[source], Settings::default()).unwrap();
        let policy = objects(&set).remove(0);
        let variables = policy["spec"]["variables"].as_array().unwrap().clone();
        let found = variables.iter().find(|variable| variable["name"] == "lacks_cam");
        found
            .map(|variable| variable["expression"].as_str().unwrap().to_owned())
            .unwrap_or_default()
    }

    #[test]
    fn every_kind_of_mode_has_a_sign() {
        for (spec, signs) in [
            (
                "  modes: { a: { resources: [{ name: v.example/cam }] } }",
                "['v.example/cam'].exists(name, variables.limits",
            ),
            (
                "  modes: { a: { resources: [{ name: v.example/cam }] } }\n  carriedBy: [v.example/box]",
                "['v.example/box', 'v.example/cam'].exists(name,",
            ),
            (
                "  modes: { a: { resourceClaims: [{ name: cam, resourceClaimTemplateName: t }] } }",
                "claim.name in ['cam']",
            ),
            (
                "  modes: { a: { resources: [{ name: v.example/cam }] } }\n  runtimeClasses: { sandbox: { omit: [resources] } }",
                "runtimeClassName.orValue('') in ['sandbox']",
            ),
            ("  modes: { a: { podAnnotations: { x.example/y: z } } }", "key in ['x.example/y']"),
            ("  modes: { a: { env: [{ name: CAM, value: z }] } }", "variable.name in ['CAM']"),
            ("  modes: { a: { nodeSelector: { cam: z } } }", "key in ['cam']"),
            ("  modes: { a: { schedulingGates: [x.example/g] } }", "gate.name in ['x.example/g']"),
            (
                "  modes: { a: { privileged: true, hostPath: { path: /dev/cam, type: CharDevice } } }\n  allow: [{ modes: [a] }]",
                "?privileged.orValue(false)",
            ),
            // Nothing to be seen: the stamp is all there is.
            (
                "  modes: { a: { capabilities: [SYS_NICE] } }",
                "!(variables.granted.contains('\"device\":\"cam\"'))",
            ),
        ] {
            let lacks = lacks_of(spec);
            assert!(lacks.contains(signs), "{lacks}\nshould hold: {signs}");
        }
    }

    #[test]
    fn what_may_be_admitted_without_a_grant_is_not_guarded() {
        let mode = "  modes: { a: { resources: [{ name: v.example/cam }] } }\n";
        for field in ["enforcement: Shadow", "onInvalid: Warn"] {
            assert_eq!(lacks_of(&format!("{mode}  {field}\n")), "");
        }
    }
}
