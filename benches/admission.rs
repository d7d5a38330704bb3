#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    dead_code,
    reason = "a measurement that cannot go on says where and stops; of the tests' control plane not all is used"
)]
//! What admission costs in a real API server: pods created with no webhook, with one that answers a
//! constant, with one whose constant is the patch of devgrant, with devgrant, with controller-runtime's
//! defaulter, and with a MutatingAdmissionPolicy that grants the same.
//!
//! `benches/load/admission` builds all that it starts. All variants are registered at once, each for a
//! namespace of its own, and take turns, another one first in each round. `mutating` is the time that the
//! API server itself says it spent on mutating webhooks and policies, so that both can be compared.

#[path = "../tests/cluster/api.rs"]
mod api;
#[path = "../tests/cluster/control_plane.rs"]
mod control_plane;
#[path = "../tests/cluster/manifests.rs"]
mod manifests;
#[path = "../tests/cluster/process.rs"]
mod process;
#[path = "support/reviews.rs"]
mod reviews;
#[path = "../tests/cluster/server.rs"]
mod server;
#[path = "../tests/cluster/webhook.rs"]
mod webhook;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use devgrant::decision::{Namespace, PolicySet, Review, Settings, admit};
use devgrant::policies;
use serde_json::{Value, json};

use control_plane::{Plane, ServerCertificate, assets};
use manifests::printed;
use process::{Process, free_port, soon};
use reviews::{Annotated, ORDINARY, review};
use webhook::MUTATING;

/// Pods of one turn, one after another, and by this many at once.
const ALONE: usize = 100;
const TOGETHER: usize = 400;
const THREADS: usize = 8;

/// The label by which a namespace says whose turn it is.
const VARIANT: &str = "bench/variant";
const POLICIES: &str = "/apis/admissionregistration.k8s.io/v1/mutatingadmissionpolicies";
const BINDINGS: &str = "/apis/admissionregistration.k8s.io/v1/mutatingadmissionpolicybindings";

fn main() {
    let mut rounds = 5;
    let mut builds = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/target"));
    let mut arguments = env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--rounds" => rounds = arguments.next().unwrap().parse().unwrap(),
            "--builds" => builds = arguments.next().unwrap().into(),
            // Of cargo.
            "--bench" => {}
            other => panic!("`{other}` is no argument; there are `--rounds` and `--builds`"),
        }
    }
    let plane = Plane::default();
    plane.start(&assets());
    let servers = Servers::start(&plane, &builds);
    let variants = servers.variants(&plane);
    for variant in &variants {
        variant.wait(&plane);
    }
    let mut turns: Vec<Vec<Turn>> = variants.iter().map(|_| Vec::new()).collect();
    for round in 0..rounds {
        for turn in 0..variants.len() {
            let at = (round + turn) % variants.len();
            turns[at].push(variants[at].turn(&plane));
        }
    }
    print(&variants, &turns);
}

/// The servers that webhooks call; they end with this value.
struct Servers {
    ca: String,
    null: (Process, u16),
    patching: (Process, u16),
    devgrant: (Process, u16),
    controller_runtime: (Process, u16),
}

impl Servers {
    fn start(plane: &Plane, builds: &Path) -> Self {
        let tls = ServerCertificate::new();
        let certificate = plane.folder().join("bench.crt");
        let key = plane.folder().join("bench.key");
        fs::write(&certificate, &tls.certificate).unwrap();
        fs::write(&key, &tls.key).unwrap();
        let start = |name: &str, command: &dyn Fn(u16) -> Command| {
            let port = free_port();
            let log = plane.folder().join(format!("{name}.log"));
            (Process::start(&mut command(port), log), port)
        };
        let constant = |port| {
            let mut command = Command::new(builds.join("load-harness/release/devgrant-load-null"));
            command.arg(format!("127.0.0.1:{port}")).arg(&certificate).arg(&key);
            command.arg("--uid");
            command
        };
        let null = start("null", &constant);
        let patch = patch();
        let patching = start("patching", &|port| {
            let mut command = constant(port);
            command.arg(&patch);
            command
        });
        let devgrant = start("devgrant", &|port| {
            let mut command = Command::new(builds.join("load/devgrant"));
            command.args(["serve", "--standalone", "--health", "127.0.0.1:0"]);
            command.args(["--log-format", "json", "--listen", &format!("127.0.0.1:{port}")]);
            command.arg("--tls-cert").arg(&certificate).arg("--tls-key").arg(&key);
            command
        });
        let controller_runtime = start("controller-runtime", &|port| {
            let mut command = Command::new(builds.join("load-peers/controller-runtime"));
            command.arg("-listen").arg(format!("127.0.0.1:{port}"));
            command.arg("-cert").arg(&certificate).arg("-key").arg(&key);
            command
        });
        Self { ca: tls.authority, null, patching, devgrant, controller_runtime }
    }

    fn variants(&self, plane: &Plane) -> Vec<Variant> {
        let namespace = |name: &str| plane.namespace(&json!({ VARIANT: name }));
        let webhook = |name: &'static str, title, port: u16, annotated, conditions: &Value| {
            let webhook = self.registration(name, port, conditions);
            plane.create(MUTATING, &webhook);
            Variant { title, hook: Some(name), annotated, namespace: namespace(name) }
        };
        let (null, patching) = (self.null.1, self.patching.1);
        let (devgrant, peer) = (self.devgrant.1, self.controller_runtime.1);
        let (asking, never) = (Annotated::Asking, Annotated::Never);
        let installed = self.conditions(plane);
        let none = json!([]);
        let titles = [
            "devgrant, unannotated, as installed",
            "devgrant, unannotated, sent",
            "null webhook, devgrant's patch",
            "devgrant, fuse grant",
            "controller-runtime, fuse grant",
        ];
        let mut variants = vec![
            Variant {
                title: "no webhook",
                hook: None,
                annotated: never,
                namespace: namespace("none"),
            },
            webhook("null.bench.test", "null webhook", null, never, &none),
            webhook("installed.bench.test", titles[0], devgrant, never, &installed),
            webhook("sent.bench.test", titles[1], devgrant, never, &none),
            webhook("patching.bench.test", titles[2], patching, asking, &installed),
            webhook("grant.bench.test", titles[3], devgrant, asking, &installed),
            webhook("peer.bench.test", titles[4], peer, asking, &none),
        ];
        variants.push(policy(plane));
        variants
    }

    fn registration(&self, name: &str, port: u16, conditions: &Value) -> Value {
        use base64::Engine as _;
        let ca = base64::engine::general_purpose::STANDARD.encode(&self.ca);
        json!({
            "metadata": { "name": name },
            "webhooks": [{
                "name": name,
                "clientConfig": { "url": format!("https://127.0.0.1:{port}/mutate"), "caBundle": ca },
                "rules": [RULE.clone()],
                "namespaceSelector": { "matchLabels": { VARIANT: name } },
                "matchConditions": conditions,
                "sideEffects": "None",
                "admissionReviewVersions": ["v1"],
            }],
        })
    }

    /// By which an API server knows pods that ask for nothing, as `devgrant manifests` prints it.
    fn conditions(&self, plane: &Plane) -> Value {
        let ca = plane.folder().join("bench-ca.crt");
        fs::write(&ca, &self.ca).unwrap();
        let ca = format!("--ca-bundle={}", ca.display());
        let flags = ["--only=registration", "--url=https://127.0.0.1", &ca].map(str::to_owned);
        let objects = printed(&flags);
        let mutating =
            objects.iter().find(|object| object["kind"] == "MutatingWebhookConfiguration");
        mutating.unwrap()["webhooks"][0]["matchConditions"].clone()
    }
}

/// What devgrant answers, in Base64.
fn patch() -> String {
    let policies = PolicySet::compile(&policies::shipped(), Settings::default()).unwrap();
    let opted_in = [("devices.example/grant".to_owned(), "enabled".to_owned())];
    let namespace = Namespace { name: "bench".to_owned(), labels: opted_in.into() };
    let bytes = review(ORDINARY, Annotated::Asking);
    let admission = admit(&Review::decode(&bytes).unwrap(), &policies, Some(&namespace)).unwrap();
    let answer: Value = serde_json::from_slice(&admission.to_bytes()).unwrap();
    answer["response"]["patch"].as_str().unwrap().to_owned()
}

static RULE: std::sync::LazyLock<Value> = std::sync::LazyLock::new(
    || json!({ "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"] }),
);

/// The same grant by a MutatingAdmissionPolicy.
fn policy(plane: &Plane) -> Variant {
    const NAME: &str = "policy.bench.test";
    let container = "Object.spec.containers";
    let operations = [
        ("/spec/containers/0/resources/limits/smarter-devices~1fuse", "\"1\"".to_owned()),
        ("/spec/containers/0/resources/requests/smarter-devices~1fuse", "\"1\"".to_owned()),
        (
            "/spec/containers/0/securityContext",
            format!(
                "{container}.securityContext{{capabilities: {container}.securityContext.capabilities{{add: \
                 [\"SYS_ADMIN\"]}}, appArmorProfile: \
                 {container}.securityContext.appArmorProfile{{type: \"Unconfined\"}}}}"
            ),
        ),
        (
            "/spec/containers/0/env/-",
            format!("{container}.env{{name: \"NVIDIA_VISIBLE_DEVICES\", value: \"void\"}}"),
        ),
        (
            "/metadata/annotations/devices.example~1granted",
            "'{\"grants\":[{\"device\":\"fuse\",\"mode\":\"mount\",\"count\":1,\"containers\":[\"' + \
             object.spec.containers[0].name + '\"],\"policy\":\"fuse\"}]}'"
                .to_owned(),
        ),
    ];
    let operations = operations
        .map(|(path, value)| format!("JSONPatch{{op: \"add\", path: \"{path}\", value: {value}}}"));
    let policy = json!({
        "metadata": { "name": NAME },
        "spec": {
            "matchConstraints": { "resourceRules": [RULE.clone()] },
            "matchConditions": [{
                "name": "asks",
                "expression": "object.metadata.?annotations[?'devices.example/fuse'].orValue('') == 'true'",
            }],
            "failurePolicy": "Fail",
            "reinvocationPolicy": "Never",
            "mutations": [{
                "patchType": "JSONPatch",
                "jsonPatch": { "expression": format!("[{}]", operations.join(", ")) },
            }],
        },
    });
    plane.create(POLICIES, &policy);
    let binding = json!({
        "metadata": { "name": NAME },
        "spec": {
            "policyName": NAME,
            "matchResources": { "namespaceSelector": { "matchLabels": { VARIANT: NAME } } },
        },
    });
    plane.create(BINDINGS, &binding);
    Variant {
        title: "MutatingAdmissionPolicy, fuse grant",
        hook: None,
        annotated: Annotated::Asking,
        namespace: plane.namespace(&json!({ VARIANT: NAME })),
    }
}

/// One way to admit pods.
struct Variant {
    title: &'static str,
    /// The webhook's name, where it is one.
    hook: Option<&'static str>,
    annotated: Annotated,
    namespace: String,
}

/// One turn of it.
struct Turn {
    /// Pods a second by all threads.
    rate: f64,
    /// Of pods one after another, in microseconds, sorted.
    alone: Vec<f64>,
    /// What the API server spent on mutating webhooks and policies, in microseconds a pod.
    mutating: f64,
    /// And what it says of this webhook, where it was called.
    called: Option<f64>,
}

impl Variant {
    fn pod(&self) -> Value {
        let mut review: Value = serde_json::from_slice(&review(ORDINARY, self.annotated)).unwrap();
        let mut pod = review["request"]["object"].take();
        let metadata = pod["metadata"].as_object_mut().unwrap();
        metadata.remove("managedFields");
        metadata.insert("namespace".to_owned(), self.namespace.clone().into());
        pod
    }

    fn path(&self) -> String {
        format!("/api/v1/namespaces/{}/pods", self.namespace)
    }

    /// Waits until it is in force, and holds that it does what it is for.
    fn wait(&self, plane: &Plane) {
        let path = self.path() + "?dryRun=All";
        soon(self.title, || {
            let before = self.hook.map(|hook| called(&metrics(plane), hook));
            let made = plane.call("POST", &path, Some(&self.pod()));
            let granted =
                made.body.pointer("/spec/containers/0/resources/limits/smarter-devices~1fuse");
            let asks = self.annotated == Annotated::Asking;
            let is_asked = asks
                || self.title.ends_with("as installed")
                || before
                    .is_none_or(|before| called(&metrics(plane), self.hook.unwrap()).1 > before.1);
            (made.status == 201 && granted.is_some() == asks && is_asked).then_some(())
        });
    }

    fn turn(&self, plane: &Plane) -> Turn {
        let (path, pod) = (self.path(), self.pod());
        let create = || {
            let begin = Instant::now();
            plane.create(&path, &pod);
            begin.elapsed().as_secs_f64() * 1e6
        };
        // Connections are open by then.
        for _ in 0..THREADS {
            create();
        }
        let before = metrics(plane);
        let mut alone: Vec<f64> = (0..ALONE).map(|_| create()).collect();
        alone.sort_unstable_by(f64::total_cmp);
        let after = metrics(plane);
        let begin = Instant::now();
        let left = Mutex::new(TOGETHER);
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    while let Some(()) = take(&left) {
                        create();
                    }
                });
            }
        });
        let rate = TOGETHER as f64 / begin.elapsed().as_secs_f64();
        let spent = mutating(&after) - mutating(&before);
        let called = self.hook.and_then(|hook| {
            let (before, after) = (called(&before, hook), called(&after, hook));
            (after.1 > before.1).then(|| (after.0 - before.0) * 1e6 / (after.1 - before.1))
        });
        Turn { rate, alone, mutating: spent * 1e6 / ALONE as f64, called }
    }
}

fn take(left: &Mutex<usize>) -> Option<()> {
    let mut left = left.lock().unwrap();
    *left = left.checked_sub(1)?;
    Some(())
}

/// What the API server says of itself.
fn metrics(plane: &Plane) -> String {
    plane.call("GET", "/metrics", None).body.as_str().unwrap().to_owned()
}

/// The sum of the metrics whose line begins so and has all parts.
fn sum(metrics: &str, name: &str, parts: &[&str]) -> f64 {
    let lines = metrics.lines().filter(|line| {
        line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{'))
            && parts.iter().all(|part| line.contains(part))
    });
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

/// The seconds spent on mutating webhooks and policies of objects that are created.
fn mutating(metrics: &str) -> f64 {
    let of = |plugin| {
        let name = "apiserver_admission_controller_admission_duration_seconds_sum";
        sum(metrics, name, &[plugin, "operation=\"CREATE\"", "type=\"admit\""])
    };
    of("name=\"MutatingAdmissionWebhook\"") + of("name=\"MutatingAdmissionPolicy\"")
}

/// The seconds spent on a webhook, and how often it was called.
fn called(metrics: &str, hook: &str) -> (f64, f64) {
    let name = format!("name=\"{hook}\"");
    let of = |what: &str| {
        let metric = format!("apiserver_admission_webhook_admission_duration_seconds_{what}");
        sum(metrics, &metric, &[&name])
    };
    (of("sum"), of("count"))
}

fn print(variants: &[Variant], turns: &[Vec<Turn>]) {
    type Column = (&'static str, fn(&Turn) -> f64);
    let columns: [Column; 4] = [
        ("pods/s", |turn| turn.rate),
        ("p50 µs", |turn| turn.alone[turn.alone.len() / 2]),
        ("p99 µs", |turn| turn.alone[turn.alone.len() * 99 / 100]),
        ("mutating µs", |turn| turn.mutating),
    ];
    println!("of {} turns: median (ratio to null, from its least to its most)", turns[0].len());
    print!("{:<38}", "");
    for (title, _) in columns {
        print!(" {title:>32}");
    }
    println!(" {:>12}", "webhook µs");
    for (variant, own) in variants.iter().zip(turns) {
        print!("{:<38}", variant.title);
        for (_, column) in columns {
            // The null webhook is the second one.
            let ratios = own.iter().zip(&turns[1]).map(|(own, null)| column(own) / column(null));
            let (least, ratio, most) = spread(ratios.collect());
            let value = spread(own.iter().map(column).collect()).1;
            let cell = format!("{value:.0} ({ratio:.2}, {least:.2}–{most:.2})");
            print!(" {cell:>32}");
        }
        let called: Vec<f64> = own.iter().filter_map(|turn| turn.called).collect();
        if called.is_empty() {
            println!(" {:>12}", "not called");
        } else {
            println!(" {:>12.0}", spread(called).1);
        }
    }
}

/// The least, the median and the most.
fn spread(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_unstable_by(f64::total_cmp);
    (values[0], values[values.len() / 2], values[values.len() - 1])
}
