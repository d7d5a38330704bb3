//! Devgrant in a cluster as `devgrant manifests` installs it: a service account with the rights that it
//! prints and no others, the registration and the guard that it prints, and the own authority.
//!
//! The server looks after configurations of one name, so that there is one installation at a time.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::control_plane::{AUDIT, ControlPlane};
use crate::manifests::{BELONGS_TO, confine, printed};
use crate::mount::Mount;
use crate::process::soon;
use crate::server::{Server, program};
use crate::webhook::{MUTATING, wait_until_asked};

/// Whoever has it has the one installation.
static ONE: Mutex<()> = Mutex::new(());

pub(crate) struct Installation<'a> {
    plane: &'a ControlPlane,
    /// Its own namespace; also what sets it apart from everything else in the cluster.
    pub(crate) namespace: String,
    pub(crate) policies: Mount,
    kubeconfig: PathBuf,
    _alone: MutexGuard<'static, ()>,
}

impl<'a> Installation<'a> {
    /// The service account and its rights, in force; nothing runs yet.
    pub(crate) fn new(plane: &'a ControlPlane, policies: &[(&str, &str)]) -> Self {
        let alone = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let namespace = plane.namespace(&json!({}));
        let policies = Mount::new(policies);
        let kubeconfig = PathBuf::new();
        let mut installation = Self { plane, namespace, policies, kubeconfig, _alone: alone };
        installation.remove_last();
        installation.apply(&["--only=rbac"], &["--server-side"]);
        installation.wait_for_rights();
        installation.kubeconfig = write_kubeconfig(plane, &installation.namespace, "devgrant");
        installation
    }

    /// Starts a server, as the pod of this name.
    pub(crate) fn replica(&self, name: &str, uid: &str) -> Server {
        self.replica_with(name, uid, &[])
    }

    /// The same, with further flags of `serve`.
    pub(crate) fn replica_with(&self, name: &str, uid: &str, flags: &[&str]) -> Server {
        let mut command = program();
        command
            .args(["serve", "--listen=127.0.0.1:0", "--health=127.0.0.1:0"])
            .arg(format!("--policies={}", self.policies.path().display()))
            .arg("--shutdown-delay=500ms")
            // The API server looks at the certificate again and again.
            .arg("--max-connection-age=1s")
            .args(flags)
            .env("KUBECONFIG", &self.kubeconfig)
            .env("POD_NAMESPACE", &self.namespace)
            .env("POD_NAME", name)
            .env("POD_UID", uid);
        let log = self.plane.folder().join(format!("{}-{name}.log", self.namespace));
        Server::start(&mut command, log, |text| {
            let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let line = lines.into_iter().find(|line| line["message"] == "listening")?;
            let address = |key: &str| line[key].as_str().map(str::to_owned);
            address("reviews").zip(address("health"))
        })
    }

    /// Registers a server, without a `caBundle`, as the policies in the folder need; `flags` are those
    /// of `kubectl apply`.
    pub(crate) fn register(&self, server: &Server, flags: &[&str]) {
        let url = format!("--url=https://{}", server.reviews);
        self.apply(&["--only=registration", "--only=guard", &url], flags);
    }

    /// Registers it with the authorities of a file; what kubectl says.
    pub(crate) fn register_trusting(
        &self,
        server: &Server,
        authorities: &Path,
        flags: &[&str],
    ) -> Output {
        let url = format!("--url=https://{}", server.reviews);
        let bundle = format!("--ca-bundle={}", authorities.display());
        self.applied(&["--only=registration", &url, &bundle], flags)
    }

    /// Puts the optional policy in force that is in `deploy/`, for the servers of this installation.
    pub(crate) fn hold_to_the_bundle(&self) {
        let file = self.plane.folder().join(format!("{}-held.yaml", self.namespace));
        let text = fs::read_to_string("deploy/ca-bundle-alone.yaml").unwrap();
        fs::write(&file, text.replace(":devgrant-system:", &format!(":{}:", self.namespace)))
            .unwrap();
        let mut kubectl = self.plane.kubectl();
        run(kubectl.args(["apply", "--server-side", "--filename"]).arg(&file));
    }

    /// Lets its servers read nodes.
    pub(crate) fn allow_nodes(&self) {
        self.apply(&["--only=rbac", "--nodes"], &["--server-side"]);
    }

    /// The same, and waits until the API server asks it.
    pub(crate) fn register_and_wait(&self, server: &Server, flags: &[&str]) {
        self.register(server, flags);
        wait_until_asked(self.plane, &self.room(), "devices.example");
    }

    /// A new namespace that has opted in.
    pub(crate) fn room(&self) -> String {
        self.plane.namespace(&self.labels())
    }

    /// The labels of a namespace that has opted in.
    pub(crate) fn labels(&self) -> Value {
        json!({ "devices.example/grant": "enabled", BELONGS_TO: self.namespace })
    }

    /// The `caBundle` that every webhook has, PEM; nothing while they have none, or not the same.
    pub(crate) fn bundle(&self) -> Option<String> {
        let mut bundles = Vec::new();
        for path in [MUTATING, &MUTATING.replace("mutating", "validating")] {
            let configuration = self.plane.call("GET", &format!("{path}/devgrant"), None).body;
            let webhooks = configuration["webhooks"].as_array().cloned().unwrap_or_default();
            bundles
                .extend(webhooks.iter().map(|webhook| webhook["clientConfig"]["caBundle"].clone()));
        }
        let first = bundles.first()?.as_str()?;
        let same = bundles.len() == 5 && bundles.iter().all(|bundle| bundle == first);
        same.then(|| decoded(first))
    }

    /// What the Secret of the authority holds under a key.
    pub(crate) fn secret(&self, key: &str) -> Option<String> {
        let secret = self.plane.call("GET", &self.secret_path(), None).body;
        secret["data"][key].as_str().map(decoded)
    }

    /// Removes all data of the Secret, as an operator does who wants another authority.
    pub(crate) fn empty_secret(&self) {
        let headers = [("content-type", "application/merge-patch+json")];
        let patch = json!({ "data": null });
        let answer = self.plane.call_with("PATCH", &self.secret_path(), Some(&patch), &headers);
        assert_eq!(answer.status, 200, "{}", answer.message());
    }

    /// Whoever holds the Lease.
    pub(crate) fn holder(&self) -> Option<String> {
        let path =
            format!("/apis/coordination.k8s.io/v1/namespaces/{}/leases/devgrant", self.namespace);
        let lease = self.plane.call("GET", &path, None).body;
        lease["spec"]["holderIdentity"].as_str().map(str::to_owned)
    }

    /// Holds that its servers have done all that they have rights for, and tried nothing else.
    pub(crate) fn uses_every_right(&self) {
        let printed = printed(&["--only=rbac".to_owned()]);
        let rules = printed.iter().filter_map(|object| object["rules"].as_array()).flatten();
        let rights: BTreeSet<String> = rules
            .flat_map(|rule| {
                let (group, resource) = (&rule["apiGroups"][0], &rule["resources"][0]);
                let verbs = rule["verbs"].as_array().unwrap().iter();
                verbs.map(move |verb| right(verb, resource, group))
            })
            .collect();
        let user = self.user();
        soon("every right to be used", || {
            let log = fs::read_to_string(self.plane.folder().join(AUDIT)).unwrap();
            let events = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let done: BTreeSet<String> = events
                .filter(|event| event["user"]["username"] == user.as_str())
                .map(|event| {
                    let object = &event["objectRef"];
                    right(&event["verb"], &object["resource"], &object["apiGroup"])
                })
                .collect();
            assert!(done.is_subset(&rights), "{done:#?}");
            (done == rights).then_some(())
        });
    }

    fn secret_path(&self) -> String {
        format!("/api/v1/namespaces/{}/secrets/devgrant-authority", self.namespace)
    }

    /// What `devgrant manifests` prints, for the namespaces of this installation only.
    fn apply(&self, parts: &[&str], flags: &[&str]) {
        let output = self.applied(parts, flags);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn applied(&self, parts: &[&str], flags: &[&str]) -> Output {
        let mut arguments: Vec<String> = parts.iter().map(|part| (*part).to_owned()).collect();
        arguments.push(format!("--own-namespace={}", self.namespace));
        arguments.push(format!("--policies={}", self.policies.path().display()));
        let mut objects = printed(&arguments);
        for object in &mut objects {
            confine(object, &self.namespace);
        }
        let file = self.plane.folder().join(format!("{}.json", self.namespace));
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": objects });
        fs::write(&file, list.to_string()).unwrap();
        let mut kubectl = self.plane.kubectl();
        kubectl.arg("apply").args(flags).arg("--filename").arg(&file).output().unwrap()
    }

    /// What the last installation left in the whole cluster.
    fn remove_last(&self) {
        let mut kubectl = self.plane.kubectl();
        kubectl.args(["delete", "--ignore-not-found", "--wait=true"]).arg(KINDS.join(","));
        run(kubectl.arg("devgrant"));
    }

    /// The API server learns of new roles by a watch of its own. Whoever asked before would be refused,
    /// and that is what the log must not have.
    fn wait_for_rights(&self) {
        let user = self.user();
        let headers = [("impersonate-user", user.as_str())];
        for path in [self.secret_path(), "/api/v1/namespaces".to_owned()] {
            soon("the rights to be in force", || {
                let answer = self.plane.call_with("GET", &path, None, &headers);
                (answer.status == 200).then_some(())
            });
        }
    }

    /// The user that its servers are.
    pub(crate) fn user(&self) -> String {
        format!("system:serviceaccount:{}:devgrant", self.namespace)
    }
}

/// Writes a kubeconfig with a token of a service account.
pub(crate) fn write_kubeconfig(plane: &ControlPlane, namespace: &str, account: &str) -> PathBuf {
    let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token");
    let request = json!({ "spec": { "expirationSeconds": 3600 } });
    let token = plane.create(&path, &request);
    let text = fs::read_to_string(plane.kubeconfig()).unwrap();
    let mut kubeconfig: Value = serde_json::from_str(&text).unwrap();
    kubeconfig["users"][0]["user"]["token"] = token["status"]["token"].clone();
    let file = plane.folder().join(format!("{namespace}-{account}.kubeconfig"));
    fs::write(&file, kubeconfig.to_string()).unwrap();
    file
}

/// Kinds of which there is one object in the whole cluster.
const KINDS: [&str; 6] = [
    "mutatingwebhookconfiguration",
    "validatingwebhookconfiguration",
    "validatingadmissionpolicybinding",
    "validatingadmissionpolicy",
    "clusterrolebinding",
    "clusterrole",
];

/// A verb and what it is for, as one word.
fn right(verb: &Value, resource: &Value, group: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    format!("{} {}.{}", text(verb), text(resource), text(group))
}

#[track_caller]
fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

pub(crate) fn decoded(text: &str) -> String {
    String::from_utf8(STANDARD.decode(text).unwrap()).unwrap()
}
