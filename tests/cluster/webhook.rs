//! The real binary, serving, and its registration at the API server.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use hyper::Uri;
use rustls::{ClientConnection, StreamOwned};
use serde_json::{Value, json};

use crate::control_plane::ControlPlane;
use crate::manifests::{BELONGS_TO, confine, printed, rename};
use crate::process::soon;
use crate::server::{Server, program};

/// How a webhook is started.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Options {
    /// A folder of policies; without it, the shipped ones.
    pub(crate) policies: Option<PathBuf>,
    pub(crate) prefix: String,
    /// Labels of the namespaces that it is for.
    pub(crate) labels: BTreeMap<String, String>,
    /// Further flags of every verb that knows the policies.
    pub(crate) flags: Vec<String>,
    /// Further flags of `serve` alone.
    pub(crate) serving: Vec<String>,
    /// Whether `/mutate` is registered beside `/validate` and `/advise`.
    pub(crate) mutates: bool,
    /// What the API server does when it is not there: `Fail` or `Ignore`.
    pub(crate) failure_policy: &'static str,
}

impl Default for Options {
    fn default() -> Self {
        let opted_in = ("devices.example/grant".to_owned(), "enabled".to_owned());
        Self {
            policies: None,
            prefix: "devices.example".to_owned(),
            labels: BTreeMap::from([opted_in]),
            flags: Vec::new(),
            serving: Vec::new(),
            mutates: true,
            failure_policy: "Fail",
        }
    }
}

/// A webhook that is registered and in force.
pub(crate) struct Webhook {
    pub(crate) server: Server,
    ca: String,
    name: String,
    labels: Value,
}

impl Webhook {
    /// Starts the binary, registers it, and waits until the API server asks it.
    pub(crate) fn start(plane: &ControlPlane, options: &Options) -> Self {
        let name = format!("devgrant{:04}", plane.serial());
        let ca = plane.folder().join(format!("{name}.pem"));
        let log = plane.folder().join(format!("{name}.log"));
        let server = Server::start(&mut serve(options, &ca), log, |text| {
            let served = |what: &str| {
                let line = text.lines().find_map(|line| line.trim().strip_prefix(what))?;
                let url: Uri = line.split_whitespace().next()?.parse().unwrap();
                Some(url.authority().unwrap().to_string())
            };
            served("reviews ").zip(served("health "))
        });
        let mut labels = json!(options.labels);
        labels[BELONGS_TO] = json!(name);
        for mut object in registration(options, &server.reviews, &ca) {
            rename(&mut object, &name);
            confine(&mut object, &name);
            let path = if object["kind"] == MUTATING_KIND { MUTATING } else { VALIDATING };
            plane.create(path, &object);
        }
        let ca = fs::read_to_string(&ca).unwrap();
        let webhook = Self { server, ca, name, labels };
        wait_until_asked(plane, &webhook.namespace(plane), &options.prefix);
        webhook
    }

    /// A new namespace whose pods it is asked about.
    pub(crate) fn namespace(&self, plane: &ControlPlane) -> String {
        plane.namespace(&self.labels)
    }

    /// The labels of a namespace whose pods it is asked about.
    pub(crate) fn labels(&self) -> &Value {
        &self.labels
    }

    /// A connection to it that is not the API server's.
    pub(crate) fn connect(&self) -> StreamOwned<ClientConnection, TcpStream> {
        self.server.connect(&self.ca)
    }

    /// How many reviews its `/advise` has answered.
    pub(crate) fn advised(&self) -> u64 {
        self.counted("devgrant_admissions_total{", "endpoint=\"advise\"")
    }

    /// How many reviews of one device at most its `/mutate` has answered.
    pub(crate) fn answered(&self) -> u64 {
        self.counted("devgrant_admissions_total{", "endpoint=\"mutate\"")
    }

    /// What its counters whose lines begin so, and have `part`, add up to.
    pub(crate) fn counted(&self, beginning: &str, part: &str) -> u64 {
        self.server.counted(beginning, part)
    }
}

impl std::fmt::Debug for Webhook {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Webhook").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Waits until the API server asks in this namespace. A registration is in force about a second after it
/// was made; the API server does not say when.
pub(crate) fn wait_until_asked(plane: &ControlPlane, namespace: &str, prefix: &str) {
    let metadata = json!({ "name": "probe", "annotations": { format!("{prefix}/probe"): "true" } });
    let spec = json!({ "containers": [{ "name": "c", "image": "x" }] });
    let pod = json!({ "metadata": metadata, "spec": spec });
    let labels = json!({ "app": "probe" });
    let mut template = pod.clone();
    template["metadata"]["labels"] = labels.clone();
    let deployment = json!({
        "metadata": { "name": "probe" },
        "spec": { "selector": { "matchLabels": labels }, "template": template },
    });
    let pods = format!("/api/v1/namespaces/{namespace}/pods?dryRun=All");
    let deployments = format!("/apis/apps/v1/namespaces/{namespace}/deployments?dryRun=All");
    // The two configurations do not come into force at once.
    for (path, object) in [(pods, pod), (deployments, deployment)] {
        soon("the registration to be in force", || {
            let answer = plane.call("POST", &path, Some(&object));
            // Refused or, where the operator wants only that, warned of.
            let said = answer.warnings.join("\n") + answer.message();
            said.contains("/probe").then_some(())
        });
    }
}

/// Where mutating webhooks are registered.
pub(crate) const MUTATING: &str =
    "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
const VALIDATING: &str = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
const MUTATING_KIND: &str = "MutatingWebhookConfiguration";
/// The name of the webhook, as refusals show it.
pub(crate) const WEBHOOK: &str = "mutate.pods.devgrant";
/// The name of the guard behind all mutation.
pub(crate) const GUARD: &str = "validate.pods.devgrant";

/// The command that serves. Every namespace is taken to have the labels of those that it is for.
fn serve(options: &Options, ca: &Path) -> Command {
    let mut command = program();
    let labels: Vec<String> =
        options.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    command
        .args(["serve", "--standalone", "--listen", "127.0.0.1:0", "--health", "127.0.0.1:0"])
        .arg("--ca-out")
        .arg(ca)
        .args(["--namespace-labels", &labels.join(",")])
        .args(deciding(options))
        .args(&options.serving);
    command
}

/// The objects that `devgrant manifests` registers a server with.
fn registration(options: &Options, authority: &str, ca: &Path) -> Vec<Value> {
    let mut flags = vec![
        "--only=registration".to_owned(),
        format!("--url=https://{authority}"),
        format!("--ca-bundle={}", ca.display()),
        format!("--failure-policy={}", options.failure_policy),
    ];
    flags.extend(deciding(options));
    let mut objects = printed(&flags);
    objects.retain(|object| options.mutates || object["kind"] != MUTATING_KIND);
    objects
}

/// The flags of every verb that knows the policies.
fn deciding(options: &Options) -> Vec<String> {
    let mut flags = vec![format!("--prefix={}", options.prefix)];
    flags.extend(options.policies.iter().map(|folder| format!("--policies={}", folder.display())));
    flags.extend(options.flags.iter().cloned());
    flags
}
