//! A control plane on loopback: etcd, the API server and, for those who need it, the controllers.

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::api::{Answer, Api};
use crate::process::{Process, free_port, last_lines, soon};
use crate::webhook::{Options, Webhook};

/// Where the API server writes what it was asked, under the folder of a run.
pub(crate) const AUDIT: &str = "audit.jsonl";
/// Of what it writes that: of pods that are created, and of all that service accounts do.
const AUDITED: &str = "\
apiVersion: audit.k8s.io/v1
kind: Policy
rules:
- level: Metadata
  verbs: [create]
  resources: [{ group: '', resources: [pods] }]
  omitStages: [RequestReceived]
- level: Metadata
  userGroups: [system:serviceaccounts]
  omitStages: [RequestReceived]
- level: None
";
/// Every request is part of a trace of which webhooks are told. The traces themselves are for nobody: the
/// endpoint is one that nobody listens at.
const TRACED: &str = "\
apiVersion: apiserver.config.k8s.io/v1beta1
kind: TracingConfiguration
endpoint: 127.0.0.1:1
samplingRatePerMillion: 1000000
";
/// How often a start is tried again because somebody else took a port in between.
const TRIES: usize = 3;

/// The control plane of this run, shared by all trials; there only while they run.
#[derive(Clone, Default)]
pub(crate) struct Plane(Arc<OnceLock<ControlPlane>>);

impl Plane {
    /// Starts it.
    pub(crate) fn start(&self, assets: &Path) {
        assert!(self.0.set(ControlPlane::start(assets)).is_ok(), "one control plane a run");
    }
}

impl std::ops::Deref for Plane {
    type Target = ControlPlane;

    fn deref(&self) -> &ControlPlane {
        self.0.get().unwrap()
    }
}

pub(crate) struct ControlPlane {
    // In the order of the end: who asks goes before who answers.
    controllers: OnceLock<Process>,
    _api_server: Process,
    _etcd: Process,
    api: Api,
    /// Webhooks by how they are started, for trials that can share one.
    webhooks: Mutex<BTreeMap<Options, Arc<OnceLock<Arc<Webhook>>>>>,
    assets: PathBuf,
    folder: TempDir,
    serial: AtomicUsize,
}

impl ControlPlane {
    fn start(assets: &Path) -> Self {
        let folder = tempfile::Builder::new().prefix("devgrant-cluster-").tempdir().unwrap();
        fs::write(folder.path().join("audit.yaml"), AUDITED).unwrap();
        fs::write(folder.path().join("tracing.yaml"), TRACED).unwrap();
        for _ in 0..TRIES {
            match Self::try_start(assets, folder.path()) {
                Ok((etcd, api_server, api)) => {
                    return Self {
                        controllers: OnceLock::new(),
                        _api_server: api_server,
                        webhooks: Mutex::default(),
                        _etcd: etcd,
                        api,
                        assets: assets.to_owned(),
                        folder,
                        serial: AtomicUsize::new(0),
                    };
                }
                Err(log) if log.contains("address already in use") => {}
                Err(log) => panic!("the control plane does not start:\n{log}"),
            }
        }
        panic!("{TRIES} times somebody took a port in between");
    }

    /// A running API server, or what the logs say.
    fn try_start(assets: &Path, folder: &Path) -> Result<(Process, Process, Api), String> {
        let [etcd_port, peer_port, port] = std::array::from_fn(|_| free_port());
        let store = format!("http://127.0.0.1:{etcd_port}");
        let mut etcd = Process::start(
            Command::new(assets.join("etcd"))
                .arg("--unsafe-no-fsync")
                .arg("--data-dir")
                .arg(folder.join(format!("etcd-{etcd_port}")))
                .args(["--listen-client-urls", &store, "--advertise-client-urls", &store])
                .args(["--listen-peer-urls", &format!("http://127.0.0.1:{peer_port}")])
                .args(["--log-level", "warn"]),
            folder.join("etcd.log"),
        );
        write_credentials(folder, port);
        let mut api_server = Process::start(
            Command::new(assets.join("kube-apiserver"))
                .current_dir(folder)
                .args(["--etcd-servers", &store, "--bind-address", "127.0.0.1"])
                .args(["--secure-port", &port.to_string(), "--cert-dir", "certificates"])
                .args(["--tls-cert-file", "server.crt", "--tls-private-key-file", "server.key"])
                .args(["--token-auth-file", "tokens.csv"])
                .args(["--service-account-issuer", "https://kubernetes.default.svc"])
                .args(["--service-account-key-file", "accounts.pub"])
                .args(["--service-account-signing-key-file", "accounts.key"])
                .args(["--service-cluster-ip-range", "10.0.0.0/24"])
                .args(["--endpoint-reconciler-type", "none"])
                .args(["--authorization-mode", "Node,RBAC"])
                .arg("--allow-privileged=true")
                .args(["--audit-policy-file", "audit.yaml", "--audit-log-path", AUDIT])
                .args(["--tracing-config-file", "tracing.yaml"])
                // It waits for service accounts, which only a controller makes.
                .arg("--disable-admission-plugins=ServiceAccount"),
            folder.join("kube-apiserver.log"),
        );
        let api = Api::new(&folder.join("kubeconfig"));
        let ready = soon("the API server", || {
            if etcd.ended().is_some() || api_server.ended().is_some() {
                return Some(false);
            }
            api.try_call("GET", "/readyz", None, &[])
                .is_ok_and(|answer| answer.status == 200)
                .then_some(true)
        });
        if ready { Ok((etcd, api_server, api)) } else { Err(last_lines(folder)) }
    }

    /// The controllers whose objects tests look at, started by whoever asks first.
    pub(crate) fn with_controllers(&self) {
        self.controllers.get_or_init(|| {
            let controllers = [
                "cronjob-controller",
                "daemonset-controller",
                "deployment-controller",
                "job-controller",
                "replicaset-controller",
                "resourcequota-controller",
                "statefulset-controller",
            ];
            Process::start(
                Command::new(self.assets.join("kube-controller-manager"))
                    .current_dir(self.folder())
                    .args(["--kubeconfig", "kubeconfig", "--bind-address", "127.0.0.1"])
                    .args(["--secure-port", &free_port().to_string()])
                    .args(["--cert-dir", "certificates", "--leader-elect=false"])
                    .arg("--use-service-account-credentials=false")
                    .arg("--authentication-skip-lookup")
                    .args(["--controllers", &controllers.join(",")]),
                self.folder().join("kube-controller-manager.log"),
            )
        });
    }

    /// The webhook that is started so, by whoever asks first.
    pub(crate) fn webhook(&self, options: &Options) -> Arc<Webhook> {
        let webhook = Arc::clone(self.webhooks.lock().unwrap().entry(options.clone()).or_default());
        Arc::clone(webhook.get_or_init(|| Arc::new(Webhook::start(self, options))))
    }

    /// Asks the API server as an administrator.
    pub(crate) fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        self.call_with(method, path, body, &[])
    }

    /// The same, with further headers.
    pub(crate) fn call_with(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
        headers: &[(&str, &str)],
    ) -> Answer {
        self.api
            .try_call(method, path, body, headers)
            .unwrap_or_else(|error| panic!("{method} {path}: {error:#}"))
    }

    /// Creates an object that has to be accepted; gives what is stored.
    pub(crate) fn create(&self, path: &str, body: &Value) -> Value {
        let answer = self.call("POST", path, Some(body));
        assert_eq!(answer.status, 201, "POST {path}: {}", answer.message());
        answer.body
    }

    /// A new namespace with labels; its name has four letters, as `team` in the goldens.
    pub(crate) fn namespace(&self, labels: &Value) -> String {
        let name = format!("n{:03x}", self.serial());
        self.create(
            "/api/v1/namespaces",
            &json!({ "metadata": { "name": name, "labels": labels } }),
        );
        name
    }

    /// Makes sure of a runtime class without overhead or places of its own.
    pub(crate) fn runtime_class(&self, name: &str) {
        let class = json!({ "metadata": { "name": name }, "handler": "runc" });
        let answer = self.call("POST", "/apis/node.k8s.io/v1/runtimeclasses", Some(&class));
        assert!([201, 409].contains(&answer.status), "{}", answer.message());
    }

    /// A number that no other trial of this run has.
    pub(crate) fn serial(&self) -> usize {
        self.serial.fetch_add(1, Ordering::Relaxed)
    }

    /// `kubectl` with the kubeconfig of an administrator.
    pub(crate) fn kubectl(&self) -> Command {
        let mut command = Command::new(self.assets.join("kubectl"));
        command.env("KUBECONFIG", self.kubeconfig()).env("HOME", self.folder());
        command
    }

    /// The kubeconfig of an administrator.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.folder().join("kubeconfig")
    }

    /// Where logs and other files of this run are.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// The folder with the binaries of the control plane.
pub(crate) fn assets() -> PathBuf {
    match std::env::var_os("KUBEBUILDER_ASSETS") {
        Some(folder) => folder.into(),
        None => panic!(
            "KUBEBUILDER_ASSETS is not set; run: KUBEBUILDER_ASSETS=$(tests/cluster/control-plane/build) cargo test --features cluster-tests --test cluster"
        ),
    }
}

/// Keys, certificates and the kubeconfig of one control plane, made anew for each.
fn write_credentials(folder: &Path, port: u16) {
    let write = |name: &str, text: &str| fs::write(folder.join(name), text).unwrap();
    let tls = ServerCertificate::new();
    write("ca.crt", &tls.authority);
    write("server.crt", &tls.certificate);
    write("server.key", &tls.key);
    let accounts = KeyPair::generate().unwrap();
    write("accounts.key", &accounts.serialize_pem());
    write("accounts.pub", &accounts.public_key_pem());
    write("tokens.csv", "administrator,administrator,administrator,system:masters\n");
    let kubeconfig = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "test", "cluster": {
            "server": format!("https://127.0.0.1:{port}"),
            "certificate-authority": folder.join("ca.crt"),
        } }],
        "users": [{ "name": "administrator", "user": { "token": "administrator" } }],
        "contexts": [{ "name": "test", "context": { "cluster": "test", "user": "administrator" } }],
        "current-context": "test",
    });
    write("kubeconfig", &kubeconfig.to_string());
}

/// A certificate for 127.0.0.1 and the authority behind it, PEM.
pub(crate) struct ServerCertificate {
    pub(crate) authority: String,
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl ServerCertificate {
    pub(crate) fn new() -> Self {
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let authority =
            CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let names = [Ipv4Addr::LOCALHOST.to_string(), "localhost".to_owned()];
        let certificate =
            CertificateParams::new(names).unwrap().signed_by(&key, &authority).unwrap();
        Self {
            authority: authority.pem(),
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        }
    }
}
