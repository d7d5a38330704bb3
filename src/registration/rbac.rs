//! What the server may do in the cluster, and why: no verb without a reason.
//!
//! `docs/rbac.md` shows [`GRANTS`] as a table.

use serde_json::{Value, json};

use super::{AUTHORITY_SECRET, Certificates, Installation, NAME, in_namespace, of_cluster};

/// One permission of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// Where it holds.
    pub scope: Scope,
    /// When the server needs it.
    pub when: When,
    /// The API group; empty for the core group.
    pub group: &'static str,
    /// The resource.
    pub resource: &'static str,
    /// The one object that it holds for; none: every one.
    pub name: Option<&'static str>,
    /// The verbs, each with its reason.
    pub verbs: &'static [(&'static str, &'static str)],
}

/// Where a permission holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// In the whole cluster: a ClusterRole.
    Cluster,
    /// In our namespace: a Role.
    Namespace,
}

/// When the server needs a permission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Always.
    Always,
    /// With the own authority: `caBundle` and the Secret are written by the server.
    OwnAuthority,
    /// With `--nodes`.
    Nodes,
}

/// Everything that the server may do. It may not create Secrets: who may could make a token of any
/// service account of the namespace. Hence the Secret of the authority comes empty with the
/// installation.
pub const GRANTS: &[Grant] = &[
    Grant {
        scope: Scope::Cluster,
        when: When::Always,
        group: "",
        resource: "namespaces",
        name: None,
        verbs: &[
            ("get", "a pod comes from a namespace that the watch has not told of yet"),
            (
                "list",
                "who may ask is decided by the labels of namespaces; a watch begins with a list",
            ),
            ("watch", "labels change"),
        ],
    },
    Grant {
        scope: Scope::Cluster,
        when: When::Always,
        group: "admissionregistration.k8s.io",
        resource: "mutatingwebhookconfigurations",
        name: Some(NAME),
        verbs: &[("get", "whether what is registered still fits the policies and the certificate")],
    },
    Grant {
        scope: Scope::Cluster,
        when: When::OwnAuthority,
        group: "admissionregistration.k8s.io",
        resource: "mutatingwebhookconfigurations",
        name: Some(NAME),
        verbs: &[(
            "patch",
            "`caBundle` is all that is written; the right itself is wider, see below",
        )],
    },
    Grant {
        scope: Scope::Cluster,
        when: When::Always,
        group: "admissionregistration.k8s.io",
        resource: "validatingwebhookconfigurations",
        name: Some(NAME),
        verbs: &[("get", "whether what is registered still fits the policies and the certificate")],
    },
    Grant {
        scope: Scope::Cluster,
        when: When::OwnAuthority,
        group: "admissionregistration.k8s.io",
        resource: "validatingwebhookconfigurations",
        name: Some(NAME),
        verbs: &[(
            "patch",
            "`caBundle` is all that is written; the right itself is wider, see below",
        )],
    },
    Grant {
        scope: Scope::Cluster,
        when: When::Nodes,
        group: "",
        resource: "nodes",
        name: None,
        verbs: &[
            ("list", "to warn that no node offers a resource; a watch begins with a list"),
            ("watch", "nodes come and go"),
        ],
    },
    Grant {
        scope: Scope::Namespace,
        when: When::OwnAuthority,
        group: "",
        resource: "secrets",
        name: Some(AUTHORITY_SECRET),
        verbs: &[
            ("get", "the authority that all replicas share"),
            ("patch", "the first replica writes it, and later renews it, over what it read"),
        ],
    },
    Grant {
        scope: Scope::Namespace,
        when: When::OwnAuthority,
        group: "coordination.k8s.io",
        resource: "leases",
        name: None,
        verbs: &[(
            "create",
            "the Lease of whoever keeps `caBundle`; `create` cannot be bound to a name",
        )],
    },
    Grant {
        scope: Scope::Namespace,
        when: When::OwnAuthority,
        group: "coordination.k8s.io",
        resource: "leases",
        name: Some(NAME),
        verbs: &[
            ("get", "who holds it"),
            ("update", "to hold it, and to let it go, over what was read"),
        ],
    },
    Grant {
        scope: Scope::Namespace,
        when: When::Always,
        group: "events.k8s.io",
        resource: "events",
        name: None,
        verbs: &[("create", "that a new policy set was refused")],
    },
];

/// The ServiceAccount, its roles, and the Secret that they speak of.
pub(super) fn objects(namespace: &str, installation: &Installation) -> Vec<Value> {
    let api_version = "rbac.authorization.k8s.io/v1";
    let subjects = json!([{ "kind": "ServiceAccount", "name": NAME, "namespace": namespace }]);
    let role_ref =
        |kind: &str| json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": NAME });
    let rules = |scope| json!({ "rules": rules(scope, installation) });
    let mut objects = vec![
        in_namespace(namespace, "v1", "ServiceAccount", NAME, json!({})),
        of_cluster(api_version, "ClusterRole", NAME, rules(Scope::Cluster)),
        of_cluster(
            api_version,
            "ClusterRoleBinding",
            NAME,
            json!({ "roleRef": role_ref("ClusterRole"), "subjects": subjects }),
        ),
        in_namespace(namespace, api_version, "Role", NAME, rules(Scope::Namespace)),
        in_namespace(
            namespace,
            api_version,
            "RoleBinding",
            NAME,
            json!({ "roleRef": role_ref("Role"), "subjects": subjects }),
        ),
    ];
    if installation.certificates == Certificates::Own {
        // Without `data`: what the server writes there is no field of whoever applies this again.
        let content = json!({ "type": "Opaque" });
        objects.push(in_namespace(namespace, "v1", "Secret", AUTHORITY_SECRET, content));
    }
    objects
}

fn rules(scope: Scope, installation: &Installation) -> Vec<Value> {
    let grants = GRANTS.iter().filter(|grant| {
        grant.scope == scope
            && match grant.when {
                When::Always => true,
                When::OwnAuthority => installation.certificates == Certificates::Own,
                When::Nodes => installation.nodes,
            }
    });
    grants.map(rule).collect()
}

fn rule(grant: &Grant) -> Value {
    let verbs: Vec<&str> = grant.verbs.iter().map(|(verb, _)| *verb).collect();
    match grant.name {
        Some(name) => json!({
            "apiGroups": [grant.group],
            "resources": [grant.resource],
            "resourceNames": [name],
            "verbs": verbs,
        }),
        None => json!({
            "apiGroups": [grant.group],
            "resources": [grant.resource],
            "verbs": verbs,
        }),
    }
}
