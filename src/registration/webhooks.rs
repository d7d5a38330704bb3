//! The webhook configurations.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::expression::{list, text};
use super::matching::{changes_too_late, match_expression, namespace_selector, resizes_devices};
use super::{
    ADVISE, ADVISE_PODS, ADVISE_RESIZES, Certificates, FailurePolicy, Installation,
    MATCH_CONDITION, MUTATE, NAME, Reach, TLS_SECRET, VALIDATE, of_cluster,
};
use crate::decision::{PolicySet, Settings};

/// A kind that holds a pod template, as the rule of a webhook names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkloadKind {
    /// Its API group, such as `argoproj.io`.
    pub group: String,
    /// The version, such as `v1alpha1`.
    pub version: String,
    /// The plural of its name, such as `rollouts`.
    pub resource: String,
}

/// Both configurations.
pub(super) fn objects(policies: &PolicySet, installation: &Installation) -> Vec<Value> {
    let registration = Registration { policies, installation };
    let configuration = |kind, webhooks| {
        let content = json!({ "webhooks": webhooks });
        let mut object = of_cluster("admissionregistration.k8s.io/v1", kind, NAME, content);
        if installation.certificates == Certificates::CertManager {
            let certificate = format!("{}/{TLS_SECRET}", policies.settings().own_namespace);
            if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
                let injected = json!({ "cert-manager.io/inject-ca-from": certificate });
                metadata.insert("annotations".to_owned(), injected);
            }
        }
        object
    };
    vec![
        configuration(
            "MutatingWebhookConfiguration",
            vec![registration.mutate(), registration.advise_resizes()],
        ),
        configuration(
            "ValidatingWebhookConfiguration",
            vec![registration.validate(), registration.advise(), registration.advise_pods()],
        ),
    ]
}

struct Registration<'a> {
    policies: &'a PolicySet,
    installation: &'a Installation,
}

impl Registration<'_> {
    fn mutate(&self) -> Value {
        let mut webhook = self.pods(MUTATE, "/mutate");
        if let Some(webhook) = webhook.as_object_mut() {
            // A sidecar that another webhook adds after us is one of the containers of `*`.
            webhook.insert("reinvocationPolicy".to_owned(), "IfNeeded".into());
        }
        webhook
    }

    /// As strict as the first call: it is for pods whose annotations another webhook wrote after us,
    /// which the first call therefore never saw. Under `Ignore` the guard refuses these.
    fn validate(&self) -> Value {
        self.pods(VALIDATE, "/validate")
    }

    fn pods(&self, name: &str, path: &str) -> Value {
        json!({
            "name": name,
            "clientConfig": self.client(path),
            "rules": [{
                "apiGroups": [""],
                "apiVersions": ["v1"],
                // Not UPDATE: a pod that exists cannot be given a device, of which `/advise` speaks.
                // Not `pods/*`: that is also bindings and evictions.
                "operations": ["CREATE"],
                "resources": ["pods"],
                "scope": "Namespaced",
            }],
            "namespaceSelector": namespace_selector(self.settings()),
            "matchConditions": [{
                "name": MATCH_CONDITION,
                "expression": match_expression(self.policies),
            }],
            "failurePolicy": self.installation.failure_policy.as_str(),
            "matchPolicy": "Equivalent",
            "sideEffects": "None",
            "timeoutSeconds": TIMEOUT_SECONDS,
            "admissionReviewVersions": ["v1"],
        })
    }

    fn advise(&self) -> Value {
        let conditions = [
            (MATCH_CONDITION, self.template_asks()),
            // Its owner has been told.
            ("has-no-owner", "!has(object.metadata.ownerReferences)".to_owned()),
        ];
        self.advising(ADVISE, &self.workloads(), &conditions)
    }

    /// What comes too late for a pod that exists.
    fn advise_pods(&self) -> Value {
        let rules = [pod_updates(&["pods", "pods/ephemeralcontainers"])];
        let conditions = [("comes-too-late", changes_too_late(self.settings()))];
        self.advising(ADVISE_PODS, &rules, &conditions)
    }

    /// The API server refuses the resize of a device, and drops other changes in silence, before it asks
    /// any webhook that validates. This one mutates nothing: `/advise` never has a patch.
    fn advise_resizes(&self) -> Value {
        let rules = [pod_updates(&["pods/resize"])];
        let conditions = [("resizes-a-device", resizes_devices(self.settings()))];
        self.advising(ADVISE_RESIZES, &rules, &conditions)
    }

    /// Warnings where a person reads them. Nobody depends on it: a cluster without us goes on as before.
    fn advising(&self, name: &str, rules: &[Value], conditions: &[(&str, String)]) -> Value {
        let conditions = conditions.iter().map(|(name, expression)| (*name, expression.as_str()));
        let conditions = conditions.chain([NO_CONTROLLER]);
        json!({
            "name": name,
            "clientConfig": self.client("/advise"),
            "rules": rules,
            "namespaceSelector": namespace_selector(self.settings()),
            "matchConditions": conditions
                .map(|(name, expression)| json!({ "name": name, "expression": expression }))
                .collect::<Vec<_>>(),
            "failurePolicy": FailurePolicy::Ignore.as_str(),
            "matchPolicy": "Equivalent",
            "sideEffects": "None",
            "timeoutSeconds": ADVISE_TIMEOUT_SECONDS,
            "admissionReviewVersions": ["v1"],
        })
    }

    fn workloads(&self) -> Vec<Value> {
        let rule = |group: &str, version: &str, resources: &[&str]| {
            json!({
                "apiGroups": [group],
                "apiVersions": [version],
                "operations": ["CREATE", "UPDATE"],
                "resources": resources,
                "scope": "Namespaced",
            })
        };
        let mut rules = vec![
            rule("apps", "v1", &["daemonsets", "deployments", "replicasets", "statefulsets"]),
            rule("batch", "v1", &["cronjobs", "jobs"]),
        ];
        let own = self.installation.advised.iter();
        rules.extend(own.map(|kind| rule(&kind.group, &kind.version, &[&kind.resource])));
        rules
    }

    /// Whether a template asks, or the workload itself does by mistake. Where another kind has its
    /// template we do not know: all of those are looked at.
    fn template_asks(&self) -> String {
        let prefix = text(&format!("{}/", self.settings().prefix));
        let places =
            ["object", "object.spec.?template", "object.spec.?jobTemplate.?spec.?template"];
        let asks = places.map(|place| {
            format!(
                "{place}.?metadata.?annotations.orValue({{}}).exists(key, key.startsWith({prefix}))"
            )
        });
        let asks = asks.join(" || ");
        if self.installation.advised.is_empty() {
            return asks;
        }
        format!("!(request.kind.group in {}) || {asks}", list(["apps", "batch"]))
    }

    fn client(&self, path: &str) -> Value {
        let mut client = match &self.installation.reach {
            Reach::Service => json!({
                "service": {
                    "namespace": self.settings().own_namespace,
                    "name": NAME,
                    "path": path,
                    "port": 443,
                },
            }),
            Reach::Url(url) => json!({ "url": format!("{url}{path}") }),
        };
        if let (Certificates::CaBundle(pem), Some(client)) =
            (&self.installation.certificates, client.as_object_mut())
        {
            client.insert("caBundle".to_owned(), STANDARD.encode(pem).into());
        }
        client
    }

    fn settings(&self) -> &Settings {
        self.policies.settings()
    }
}

fn pod_updates(resources: &[&str]) -> Value {
    json!({
        "apiGroups": [""],
        "apiVersions": ["v1"],
        "operations": ["UPDATE"],
        "resources": resources,
        "scope": "Namespaced",
    })
}

/// Those of Kubernetes write status and revisions, and read no warnings.
const NO_CONTROLLER: (&str, &str) = (
    "is-no-controller-of-kubernetes",
    "!request.userInfo.username.startsWith('system:kube-') && \
     !request.userInfo.username.startsWith('system:serviceaccount:kube-system:')",
);
/// An answer takes under a millisecond; the rest is for a new connection and one that is retried.
/// Longer ones have starved controllers of their leases (gatekeeper#870).
const TIMEOUT_SECONDS: u32 = 5;
/// What only advises keeps nobody waiting for long.
const ADVISE_TIMEOUT_SECONDS: u32 = 3;
