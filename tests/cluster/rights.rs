//! What the pages say of rights, without Devgrant: the API server's RBAC, and what it shows to admission.

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::control_plane::{ControlPlane, Plane};
use crate::process::soon;
use crate::trial;

/// Where configurations and policies of admission are.
const ADMISSION: &str = "/apis/admissionregistration.k8s.io/v1";

/// The kinds that register webhooks.
const CONFIGURATIONS: [&str; 2] =
    ["mutatingwebhookconfigurations", "validatingwebhookconfigurations"];

pub(crate) fn trials(plane: &Plane) -> Vec<Trial> {
    vec![
        trial("rights::create_is_bound_to_no_name", plane, |plane| create(plane)),
        trial("rights::no_webhook_judges_webhook_configurations", plane, |plane| {
            no_webhook(plane);
        }),
        trial("rights::a_policy_judges_webhook_configurations", plane, |plane| a_policy(plane)),
    ]
}

/// The name stands in the object, which RBAC does not look into.
fn create(plane: &ControlPlane) {
    let namespace = plane.namespace(&json!({}));
    let user = format!("user-of-{namespace}");
    let roles = format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}");
    let leases = json!({
        "apiGroups": ["coordination.k8s.io"],
        "resources": ["leases"],
        "resourceNames": ["devgrant"],
        "verbs": ["create", "get", "update"],
    });
    let role = json!({ "metadata": { "name": "r" }, "rules": [leases] });
    plane.create(&format!("{roles}/roles"), &role);
    let binding = json!({
        "metadata": { "name": "r" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r" },
        "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user }],
    });
    plane.create(&format!("{roles}/rolebindings"), &binding);
    let path = format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases");
    let lease = json!({ "metadata": { "name": "devgrant" } });
    plane.create(&path, &lease);
    let headers = [("impersonate-user", user.as_str())];
    soon("the rights to be in force", || {
        let answer = plane.call_with("GET", &format!("{path}/devgrant"), None, &headers);
        (answer.status == 200).then_some(())
    });
    let answer = plane.call_with("POST", &path, Some(&lease), &headers);
    assert_eq!(answer.status, 403, "{}", answer.message());
    assert!(answer.message().contains("cannot create resource \"leases\""), "{}", answer.message());
}

/// Which objects admission is tried with: those of one name, and a kind that it judges beside the others.
fn rules_and_condition(name: &str) -> (Value, Value) {
    let rule = |group: &str, resources: &[&str]| {
        json!({
            "apiGroups": [group],
            "apiVersions": ["*"],
            "operations": ["CREATE", "UPDATE"],
            "resources": resources,
        })
    };
    let rules = [rule("", &["configmaps"]), rule("admissionregistration.k8s.io", &CONFIGURATIONS)];
    let expression = format!("object.metadata.name == '{name}'");
    (json!(rules), json!([{ "name": "of-this-name", "expression": expression }]))
}

/// Waits until an object of this name is refused with these words.
fn wait_until_judged(plane: &ControlPlane, name: &str, words: &str) {
    let path = format!("/api/v1/namespaces/{}/configmaps?dryRun=All", plane.namespace(&json!({})));
    let object = json!({ "metadata": { "name": name } });
    soon("admission to be in force", || {
        plane.call("POST", &path, Some(&object)).message().contains(words).then_some(())
    });
}

fn no_webhook(plane: &ControlPlane) {
    let name = format!("unseen-{}", plane.serial());
    let (rules, condition) = rules_and_condition(&name);
    let webhook = json!({
        "name": "nobody.cluster.test",
        "clientConfig": { "url": "https://127.0.0.1:1" },
        "rules": rules,
        "matchConditions": condition,
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
    });
    let configuration =
        json!({ "metadata": { "name": format!("{name}-by") }, "webhooks": [webhook] });
    plane.create(&format!("{ADMISSION}/{}", CONFIGURATIONS[1]), &configuration);
    wait_until_judged(plane, &name, "failed calling webhook \"nobody.cluster.test\"");
    for plural in CONFIGURATIONS {
        plane.create(&format!("{ADMISSION}/{plural}"), &json!({ "metadata": { "name": name } }));
    }
}

fn a_policy(plane: &ControlPlane) {
    let name = format!("judged-{}", plane.serial());
    let (rules, condition) = rules_and_condition(&name);
    let words = "not while this is looked at";
    let policy = json!({
        "metadata": { "name": name },
        "spec": {
            "matchConstraints": { "resourceRules": rules },
            "matchConditions": condition,
            "validations": [{ "expression": "false", "message": words }],
        },
    });
    plane.create(&format!("{ADMISSION}/validatingadmissionpolicies"), &policy);
    let binding = json!({
        "metadata": { "name": name },
        "spec": { "policyName": name, "validationActions": ["Deny"] },
    });
    plane.create(&format!("{ADMISSION}/validatingadmissionpolicybindings"), &binding);
    wait_until_judged(plane, &name, words);
    for plural in CONFIGURATIONS {
        let object = json!({ "metadata": { "name": name } });
        let answer = plane.call("POST", &format!("{ADMISSION}/{plural}"), Some(&object));
        assert!(answer.status == 422 && answer.message().contains(words), "{}", answer.message());
    }
}
