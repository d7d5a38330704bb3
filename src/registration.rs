//! registration: the Kubernetes objects that fit a policy set and its settings.
//!
//! Pure: a [`PolicySet`] and an [`Installation`] in, JSON values out. `devgrant manifests` prints them,
//! `deploy/` holds what it prints, and the server compares what is registered with what fits the
//! policies in force ([`match_expression`]). In reading order:
//!
//! - `matching`: which pods the API server shows to us
//! - `webhooks`: the webhook configurations
//! - `guard`: what the API server refuses by itself when we do not answer
//! - [`rbac`]: what the server may do, and why
//! - `workload`, `deployment`: what runs it
//! - `certificates`, `monitoring`: for cert-manager and for the Prometheus operator
//! - `expression`: texts and lists in CEL

mod certificates;
mod deployment;
mod expression;
mod guard;
mod matching;
mod monitoring;
pub mod rbac;
mod webhooks;
mod workload;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

pub use matching::match_expression;
pub use webhooks::WorkloadKind;

use crate::decision::PolicySet;

/// The name of everything of which there is one: Deployment, Service, webhook configurations …
pub const NAME: &str = "devgrant";
/// The name of the webhook at `/mutate`.
pub const MUTATE: &str = "mutate.pods.devgrant";
/// The name of the webhook at `/validate`.
pub const VALIDATE: &str = "validate.pods.devgrant";
/// The name of the webhook at `/advise`.
pub const ADVISE: &str = "advise.workloads.devgrant";
/// The name of the webhook at `/advise` for pods that exist already.
pub const ADVISE_PODS: &str = "advise.pods.devgrant";
/// The name of the webhook at `/advise` for pods that are resized.
pub const ADVISE_RESIZES: &str = "advise.resizes.devgrant";
/// The name of the one match condition of the webhooks for pods.
pub const MATCH_CONDITION: &str = "asks-for-a-device";
/// The Secret of the own authority, with the keys `ca.crt`, `ca.key` and `previous.crt`.
pub const AUTHORITY_SECRET: &str = "devgrant-authority";
/// The Secret of a certificate that somebody else renews, with the keys `tls.crt` and `tls.key`; also
/// cert-manager's Certificate.
pub const TLS_SECRET: &str = "devgrant-tls";
/// The ConfigMap of the policies.
pub const POLICIES_CONFIG_MAP: &str = "devgrant-policies";
/// The ConfigMap of the settings, with the key `config.yaml`.
pub const SETTINGS_CONFIG_MAP: &str = "devgrant-config";

/// How devgrant is installed, beside the policies and settings of a [`PolicySet`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installation {
    /// The container image.
    pub image: String,
    /// How many pods of ours there are.
    pub replicas: u32,
    /// Where the API server finds us.
    pub reach: Reach,
    /// Where our certificate comes from.
    pub certificates: Certificates,
    /// What becomes of a pod that asks while we do not answer.
    pub failure_policy: FailurePolicy,
    /// The text of each policy file, by its name.
    pub policies: BTreeMap<String, String>,
    /// The text of the configuration file.
    pub config: String,
    /// How long the kubelet waits before it kills, in seconds: longer than the server takes to stop.
    pub grace_seconds: u64,
    /// The memory limit in MiB: more than the server's own limits let it use.
    pub memory_limit: u64,
    /// Kinds beside the built-in ones that hold a pod template.
    pub advised: Vec<WorkloadKind>,
    /// Whether the server may read nodes.
    pub nodes: bool,
    /// Whether there is a Prometheus operator.
    pub monitoring: bool,
    /// The port of the collector of traces, where there is one.
    pub collector_port: Option<u16>,
    /// Who may reach us.
    pub ingress: Ingress,
}

/// Who may reach the server; everybody, where a list is empty.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ingress {
    /// Where API servers call from, as ranges of addresses.
    pub api_servers: Vec<String>,
    /// The namespaces of who reads metrics.
    pub scrapers: Vec<String>,
}

/// Where the API server finds us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// In the cluster, by our Service.
    Service,
    /// Outside of it, at `https://host:port`. Nothing that runs us is made.
    Url(String),
}

/// Where our certificate comes from, and so whom the API server trusts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Certificates {
    /// The own authority: the server writes `caBundle`, and nobody else owns that field.
    Own,
    /// cert-manager: its injector writes `caBundle`.
    CertManager,
    /// Somebody else, by hand. Holds the authority's certificates, PEM, for `caBundle`.
    CaBundle(String),
}

/// What becomes of a request while a webhook does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FailurePolicy {
    /// It fails.
    #[default]
    Fail,
    /// It goes on without us.
    Ignore,
}

impl FailurePolicy {
    /// As the API spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fail => "Fail",
            Self::Ignore => "Ignore",
        }
    }
}

/// A part of an installation that can be had alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The namespace, and what runs the server in it.
    Workload,
    /// Who the server is and what it may do.
    Rbac,
    /// The policies and settings.
    Policies,
    /// What the API server refuses by itself.
    Guard,
    /// The webhook configurations.
    Registration,
}

impl Part {
    /// All parts, in the order in which they are created: the server first, what calls it last.
    pub const ALL: [Self; 5] =
        [Self::Workload, Self::Rbac, Self::Policies, Self::Guard, Self::Registration];

    /// The objects of this part.
    pub fn objects(self, policies: &PolicySet, installation: &Installation) -> Vec<Value> {
        let namespace = policies.settings().own_namespace.as_str();
        match self {
            Self::Workload => workload::objects(namespace, installation),
            Self::Rbac => rbac::objects(namespace, installation),
            Self::Policies => workload::config_maps(namespace, installation),
            Self::Guard => guard::objects(policies),
            Self::Registration => webhooks::objects(policies, installation),
        }
    }
}

/// Everything, in the order in which it is created.
pub fn objects(policies: &PolicySet, installation: &Installation) -> Vec<Value> {
    let parts = Part::ALL.into_iter();
    parts.flat_map(|part| part.objects(policies, installation)).collect()
}

/// An object without a namespace: what names it, and what it says.
fn of_cluster(api_version: &str, kind: &str, name: &str, content: Value) -> Value {
    object(api_version, kind, json!({ "name": name, "labels": labels() }), content)
}

/// An object in our namespace.
fn in_namespace(
    namespace: &str,
    api_version: &str,
    kind: &str,
    name: &str,
    content: Value,
) -> Value {
    let metadata = json!({ "name": name, "namespace": namespace, "labels": labels() });
    object(api_version, kind, metadata, content)
}

fn object(api_version: &str, kind: &str, metadata: Value, content: Value) -> Value {
    let mut object = Map::new();
    object.insert("apiVersion".to_owned(), api_version.into());
    object.insert("kind".to_owned(), kind.into());
    object.insert("metadata".to_owned(), metadata);
    if let Value::Object(content) = content {
        object.extend(content);
    }
    Value::Object(object)
}

/// The label of everything, and all that selects our pods. Who installs adds `managed-by` and the like.
fn labels() -> Value {
    json!({ "app.kubernetes.io/name": NAME })
}
