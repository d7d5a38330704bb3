//! `manifests`: the Kubernetes objects that fit the policies and the configuration.

mod ingress;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, anyhow, bail};
use clap::{Args, ValueEnum};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use x509_parser::certificate::X509Certificate;
use x509_parser::x509::X509Version;

use super::arguments::{PolicyArguments, load};
use super::problems::BadPolicies;
use super::{Status, output};
use crate::config::{Limits, Merged, Sources, Typed};
use crate::decision::policy::is_dns_subdomain;
use crate::decision::{KubernetesVersion, PolicySet, PolicySource};
use crate::policies;
use crate::registration::{Certificates, FailurePolicy, Installation, Part, Reach, WorkloadKind};
pub use ingress::{Cidr, IngressArguments};

/// The flags of `manifests`.
#[derive(Debug, Args)]
pub struct Manifests {
    /// Print this part only; may be repeated.
    #[arg(long, value_enum, value_name = "PART")]
    pub only: Vec<PartName>,
    /// How to write them.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    pub output: Format,
    /// Register a server outside of the cluster; nothing that runs one is printed.
    #[arg(long, value_name = "https://HOST:PORT")]
    pub url: Option<Url>,
    /// Certificates of the authority that the API server shall trust, PEM; the server then takes its
    /// own from the Secret `devgrant-tls`. Without it, the server writes `caBundle` itself.
    #[arg(long, value_name = "FILE")]
    pub ca_bundle: Option<PathBuf>,
    /// Let cert-manager make the certificate and write `caBundle`.
    #[arg(long, conflicts_with_all = ["ca_bundle", "url"])]
    pub cert_manager: bool,
    /// The container image.
    #[arg(long, value_name = "IMAGE", default_value = IMAGE, value_parser = image)]
    pub image: String,
    /// How many pods of devgrant there are.
    #[arg(long, value_name = "COUNT", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    pub replicas: u32,
    /// What becomes of pods that ask while devgrant does not answer: `Fail` refuses them; with
    /// `Ignore`, the guard does, unless they have the device anyway.
    #[arg(long, value_name = "Fail|Ignore", default_value = "Fail", value_parser = failure_policy)]
    pub failure_policy: FailurePolicy,
    /// A further kind with a pod template, whose authors are warned; may be repeated.
    #[arg(long, value_name = "GROUP/VERSION/PLURAL")]
    pub advise: Vec<WorkloadKind>,
    /// Let the server read nodes, to warn that none offers a resource.
    #[arg(long)]
    pub nodes: bool,
    /// Add a PodMonitor and alerts, for the Prometheus operator.
    #[arg(long, conflicts_with = "url")]
    pub monitoring: bool,
    /// Who may reach the server.
    #[command(flatten)]
    pub ingress: IngressArguments,
    /// The policies.
    #[command(flatten)]
    pub policy: PolicyArguments,
}

/// The parts by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PartName {
    /// What the API server refuses by itself.
    Guard,
    /// Policies and settings.
    Policies,
    /// Who the server is, and what it may do.
    Rbac,
    /// The webhook configurations.
    Registration,
    /// The namespace, and what runs the server in it.
    Workload,
}

/// How objects are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// One `List`.
    Json,
    /// One document an object.
    #[default]
    Yaml,
}

/// Where a server outside of the cluster is: `https://host:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url(String);

impl FromStr for Url {
    type Err = String;

    /// The API server takes no user, query or fragment, and the paths are ours
    /// (`kubernetes/apiserver pkg/util/webhook/validation.go`, `ValidateWebhookURL`).
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let Some(rest) = text.strip_prefix("https://") else {
            return Err(
                "the API server calls webhooks over https only; write https://HOST:PORT".to_owned()
            );
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        let plain = |char: char| char.is_ascii_alphanumeric() || ".-_:[]".contains(char);
        if authority.is_empty() || !authority.chars().all(plain) {
            return Err("write https://HOST:PORT and no more: devgrant adds the paths".to_owned());
        }
        Ok(Self(format!("https://{authority}")))
    }
}

impl FromStr for WorkloadKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts: Vec<&str> = text.split('/').collect();
        match parts.as_slice() {
            [group, version, resource]
                if [group, version, resource].iter().all(|part| is_dns_subdomain(part)) =>
            {
                Ok(Self {
                    group: (*group).to_owned(),
                    version: (*version).to_owned(),
                    resource: (*resource).to_owned(),
                })
            }
            _ => Err("write GROUP/VERSION/PLURAL: argoproj.io/v1alpha1/rollouts".to_owned()),
        }
    }
}

pub(super) fn run(arguments: &Manifests) -> anyhow::Result<Status> {
    // Who lets the server read nodes wants it to.
    let watch_nodes = arguments.nodes.then_some(true);
    let typed = Typed { watch_nodes, ..arguments.policy.typed() };
    let merged = load(arguments.policy.config.clone(), typed)?;
    let config = merged.config()?;
    merged.value("kubernetesVersion", new_enough(config.settings.kubernetes_version))?;
    let sources = policies::read(&config.policies)?;
    let policies = PolicySet::compile(&sources, config.settings.clone())
        .map_err(|problems| BadPolicies::new(&problems, &sources))?;
    let limits = &config.server.limits;
    let installation = Installation {
        image: arguments.image.clone(),
        replicas: arguments.replicas,
        reach: arguments.url.clone().map_or(Reach::Service, |url| Reach::Url(url.0)),
        certificates: arguments.certificates()?,
        failure_policy: arguments.failure_policy,
        policies: files(sources)?,
        config: settings(&merged)?,
        grace_seconds: (limits.shutdown_delay + limits.drain).as_secs() + SPARE_SECONDS,
        memory_limit: memory_limit(limits),
        advised: arguments.advise.clone(),
        nodes: config.server.watch_nodes,
        monitoring: arguments.monitoring,
        collector_port: config.traces.map(|traces| traces.collector.port()),
        ingress: arguments.ingress.ingress(),
    };
    let parts = Part::ALL.into_iter().filter(|part| arguments.wants(*part));
    let objects: Vec<Value> =
        parts.flat_map(|part| part.objects(&policies, &installation)).collect();
    if !arguments.wants(Part::Workload) {
        for flag in arguments.ingress.given() {
            output::note(&format!(
                "flag {flag} has no effect here: the NetworkPolicy is in the part `workload`"
            ))?;
        }
    }
    if objects.is_empty() {
        output::note(
            "there is nothing to print: with --url, whoever runs the server has its policies",
        )?;
    }
    arguments.print(&objects)?;
    Ok(Status::Fine)
}

impl Manifests {
    fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only.part() == part)
    }

    fn certificates(&self) -> anyhow::Result<Certificates> {
        match &self.ca_bundle {
            Some(file) => ca_bundle(file).map(Certificates::CaBundle),
            None if self.cert_manager => Ok(Certificates::CertManager),
            None => Ok(Certificates::Own),
        }
    }

    fn print(&self, objects: &[Value]) -> anyhow::Result<()> {
        let mut stdout = output::stdout();
        if self.output == Format::Json {
            let list = json!({ "apiVersion": "v1", "kind": "List", "items": objects });
            return output::json(&mut stdout, &list);
        }
        let mut text = HEADER.to_owned();
        for object in objects {
            text.push_str("---\n");
            text.push_str(&output::yaml(object)?);
        }
        stdout.write_all(text.as_bytes())?;
        Ok(())
    }
}

impl PartName {
    fn part(self) -> Part {
        match self {
            Self::Guard => Part::Guard,
            Self::Policies => Part::Policies,
            Self::Rbac => Part::Rbac,
            Self::Registration => Part::Registration,
            Self::Workload => Part::Workload,
        }
    }
}

/// The certificates of a file, if that is what it holds: it will be read by everybody.
fn ca_bundle(file: &Path) -> anyhow::Result<String> {
    let place = || format!("flag --ca-bundle: {}", file.display());
    let text = std::fs::read_to_string(file).with_context(place)?;
    if text.contains("PRIVATE KEY") {
        bail!("{}: a private key is in it; give the certificate of the authority alone", place());
    }
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    let certificates =
        certificates.map_err(|error| anyhow!("{}: this is no PEM: {error}", place()))?;
    if certificates.is_empty() {
        bail!("{}: no certificate is in it; it begins with BEGIN CERTIFICATE", place());
    }
    for (index, der) in certificates.iter().enumerate() {
        let number = index + 1;
        let (_, certificate) = x509_parser::parse_x509_certificate(der)
            .map_err(|error| anyhow!("{}: certificate {number} is none: {error}", place()))?;
        if !is_authority(&certificate) {
            output::warning(&format!(
                "{}: certificate {number} ({}) is of no authority: the API server would trust that one \
                 alone, and fail with the next; give the certificate of whoever issued it",
                place(),
                certificate.subject()
            ))?;
        }
    }
    Ok(text)
}

/// Whether the API server takes others that this one signed. Before version 3 nothing said that it does
/// not (Go `crypto/x509`, `CheckSignatureFrom`).
fn is_authority(certificate: &X509Certificate<'_>) -> bool {
    certificate.version().0 < X509Version::V3.0 || certificate.is_ca()
}

/// `docs/kubernetes-facts.md` F: both became stable there.
fn new_enough(version: KubernetesVersion) -> Result<(), String> {
    if version >= OLDEST {
        return Ok(());
    }
    Err(format!(
        "devgrant runs on Kubernetes {OLDEST} and later, where matchConditions and \
         ValidatingAdmissionPolicy are stable, and this is {version}; upgrade the cluster first"
    ))
}

/// Policy files as the keys of a ConfigMap.
fn files(sources: Vec<PolicySource>) -> anyhow::Result<BTreeMap<String, String>> {
    let mut files = BTreeMap::new();
    let mut bytes = 0;
    for source in sources {
        let name = Path::new(&source.file).file_name().unwrap_or_default().to_string_lossy();
        let valid = |char: char| char.is_ascii_alphanumeric() || "-._".contains(char);
        if name.len() > 253 || !name.chars().all(valid) {
            bail!(
                "{}: no ConfigMap takes this name; use letters, digits, `-`, `_` and `.`",
                source.file
            );
        }
        bytes += name.len() + source.text.len();
        if files.insert(name.clone().into_owned(), source.text).is_some() {
            bail!(
                "{}: a second policy file of this name; one ConfigMap holds them all: rename it",
                source.file
            );
        }
    }
    if bytes > CONFIG_MAP_LIMIT {
        bail!(
            "flag --policies: the files are {bytes} bytes, and a ConfigMap takes {CONFIG_MAP_LIMIT}; \
             leave comments out"
        );
    }
    Ok(files)
}

/// The configuration file of the server: what differs from the defaults and means anything there.
fn settings(merged: &Merged) -> anyhow::Result<String> {
    let defaults = Merged::load(Sources::default())?;
    let (Value::Object(typed), Value::Object(defaults)) =
        (serde_json::to_value(merged.typed())?, serde_json::to_value(defaults.typed())?)
    else {
        return Ok(String::new());
    };
    let elsewhere: BTreeSet<&str> = ELSEWHERE.iter().copied().collect();
    let settings: serde_json::Map<String, Value> = typed
        .into_iter()
        .filter(|(key, value)| {
            !elsewhere.contains(key.as_str()) && defaults.get(key) != Some(value)
        })
        .collect();
    if settings.is_empty() {
        return Ok(NO_SETTINGS.to_owned());
    }
    let typed: Typed = serde_json::from_value(Value::Object(settings))?;
    output::yaml(&typed)
}

/// Bodies as the limits let them pile up, and twice as much for all the rest as it was ever seen to take: 14 MiB
/// after a million reviews, and up to 90 MiB where bodies come, a few at once, that are made to take the
/// most memory to read (`tests/memory.rs`).
fn memory_limit(limits: &Limits) -> u64 {
    let mebibytes = |bytes: usize| bytes.div_ceil(1024 * 1024);
    // The first 64 KiB of a body are not counted in, for any connection.
    let bodies = limits.in_flight.saturating_mul(limits.body_bytes);
    let heads = limits.connections.saturating_mul(64 * 1024);
    let sum = mebibytes(bodies).saturating_add(mebibytes(heads)).saturating_add(192);
    u64::try_from(sum).unwrap_or(u64::MAX)
}

fn image(text: &str) -> Result<String, String> {
    if text.is_empty() || text.chars().any(|char| char.is_whitespace() || char.is_control()) {
        return Err(format!("write NAME:TAG or NAME@DIGEST: {IMAGE}"));
    }
    Ok(text.to_owned())
}

fn failure_policy(text: &str) -> Result<FailurePolicy, String> {
    match text.to_ascii_lowercase().as_str() {
        "fail" => Ok(FailurePolicy::Fail),
        "ignore" => Ok(FailurePolicy::Ignore),
        _ => Err("write `Fail` or `Ignore`".to_owned()),
    }
}

/// Keys of the configuration that the objects themselves say, or that are for files on a laptop.
const ELSEWHERE: &[&str] = &[
    "policies",
    "ownNamespace",
    "namespace",
    "namespaceLabels",
    "serviceAccount",
    "user",
    "listen",
    "health",
    "standalone",
    "caOut",
    "tlsCert",
    "tlsKey",
];
/// The oldest API server that takes all objects.
const OLDEST: KubernetesVersion = KubernetesVersion { minor: 30 };
const IMAGE: &str = concat!("devgrant:", env!("CARGO_PKG_VERSION"));
const HEADER: &str =
    "# Made by `devgrant manifests`. Make it again when policies or settings change.\n";
const NO_SETTINGS: &str = "# All defaults; `devgrant serve --print-config` shows them.\n";
/// Between the end of the drain and the kill.
const SPARE_SECONDS: u64 = 5;
/// The most that a ConfigMap holds (`kubernetes pkg/apis/core/validation`, `MaxSecretSize`).
const CONFIG_MAP_LIMIT: usize = 1024 * 1024;
