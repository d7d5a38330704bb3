//! The three ways to install give the same objects: the single file, Kustomize and Helm.
//!
//! Needs the folder that `DEVGRANT_TOOLS` names, as `tests/cluster/tools/build` makes it.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::Once;

use libtest_mimic::Trial;
use serde_json::{Map, Value, json};

use crate::control_plane::{ControlPlane, Plane};
use crate::process::soon;
use crate::trial;

/// What Helm adds to every object. Nothing else may differ.
const HELM_LABELS: &[&str] = &[
    "app.kubernetes.io/instance",
    "app.kubernetes.io/managed-by",
    "app.kubernetes.io/version",
    "helm.sh/chart",
];
/// The version that Helm renders for: it knows no cluster here.
const KUBERNETES: &str = "--kube-version=1.36.3";

/// The flags of `devgrant manifests` for what the API server takes.
pub(crate) const VARIANTS: &[&[&str]] = &[
    &[],
    &["--cert-manager"],
    &["--monitoring", "--nodes"],
    &["--cert-manager", "--monitoring", "--failure-policy=Ignore", "--replicas=3"],
    &["--url=https://127.0.0.1:8443"],
    &[
        "--api-server-cidr=10.0.0.0/28",
        "--api-server-cidr=fd00::/64",
        "--metrics-from-namespace=monitoring",
    ],
];
/// Values of the chart, and the flags of `devgrant manifests` for the same.
pub(crate) const CHARTS: &[(&[&str], &[&str])] = &[
    (&[], &[]),
    (&["certificates.from=certManager"], &["--cert-manager"]),
    (&["monitoring.enabled=true", "nodes=true"], &["--monitoring", "--nodes"]),
    (
        &["certificates.from=certManager", "nodes=true", "replicas=3"],
        &["--cert-manager", "--nodes", "--replicas=3"],
    ),
    (&["registration.failurePolicy=Ignore"], &["--failure-policy=Ignore"]),
    (
        &["networkPolicy.apiServerCidrs={10.0.0.0/28,fd00::/64}"],
        &["--api-server-cidr=10.0.0.0/28", "--api-server-cidr=fd00::/64"],
    ),
    (
        &[
            "networkPolicy.apiServerCidrs={10.0.0.0/28}",
            "networkPolicy.metricsFromNamespaces={monitoring,other}",
        ],
        &[
            "--api-server-cidr=10.0.0.0/28",
            "--metrics-from-namespace=monitoring",
            "--metrics-from-namespace=other",
        ],
    ),
    (&["prefix=devices.example.org"], &["--prefix=devices.example.org"]),
    (&["image.repository=other/devgrant", "image.tag=1.2.3"], &["--image=other/devgrant:1.2.3"]),
    (
        &["config.tracesEndpoint=http://collector.observability.svc:4318"],
        &["--config=tests/cluster/traces.yaml"],
    ),
];
/// The folders of `deploy/kustomize`, and the same.
pub(crate) const KUSTOMIZATIONS: &[(&str, &[&str])] =
    &[("base", &[]), ("cert-manager", &["--cert-manager"])];

pub(crate) fn trials(plane: &Plane) -> Vec<Trial> {
    vec![
        trial("install::helm_renders_what_manifests_prints", plane, |_| {
            helm_renders_what_manifests_prints();
        }),
        trial("install::helm_installs_into_another_namespace", plane, |_| {
            helm_installs_into_another_namespace();
        }),
        trial("install::helm_refuses_values_that_do_not_fit", plane, |_| {
            helm_refuses_values_that_do_not_fit();
        }),
        trial("install::kustomize_builds_what_manifests_prints", plane, |_| {
            kustomize_builds_what_manifests_prints();
        }),
        trial("install::the_api_server_takes_every_object", plane, |plane| {
            the_api_server_takes_every_object(plane);
        }),
        trial("install::its_pod_is_restricted", plane, |plane| its_pod_is_restricted(plane)),
        trial("install::prometheus_reads_the_alerts", plane, |_| prometheus_reads_the_alerts()),
    ]
}

/// By its own schemas, and by those of cert-manager and the Prometheus operator, in none of which a field
/// may be unknown or twice.
fn the_api_server_takes_every_object(plane: &ControlPlane) {
    // A dry run makes no namespace for those that come after it.
    let namespace = json!({ "metadata": { "name": "devgrant-system" } });
    plane.call("POST", "/api/v1/namespaces", Some(&namespace));
    know_kinds_of_others(plane);
    for flags in VARIANTS {
        let text = printed(flags);
        let applied = fine(&dry_run(plane, &text));
        assert_eq!(applied.lines().count(), documents(&text).len(), "{flags:?}: {applied}");
    }
    // What each of the others says of a field that it does not have: they do judge.
    let text = printed(&["--cert-manager", "--monitoring"]);
    for (ours, other) in [
        ("  renewBefore: 720h\n", "  renewsBefore: 720h\n"),
        ("  podMetricsEndpoints:\n", "  podMetricEndpoints:\n"),
        ("      severity: critical\n", "      severity: [critical]\n"),
        ("    secretName: devgrant-cert-manager-authority\n", "    secret: x\n"),
    ] {
        assert!(text.contains(ours), "{ours:?} is not in\n{text}");
        let refused = dry_run(plane, &text.replacen(ours, other, 1));
        assert!(!refused.status.success(), "{other:?} is taken");
    }
}

/// Makes sure that the API server serves the kinds of cert-manager and of the Prometheus operator.
pub(crate) fn know_kinds_of_others(plane: &ControlPlane) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let definitions = format!("--filename={}", tools().join("definitions").display());
        fine(&plane.kubectl().args(["apply", "--server-side", &definitions]).output().unwrap());
        soon("the kinds of others to be served", || {
            let kinds = "certificates.cert-manager.io,issuers.cert-manager.io,\
                         podmonitors.monitoring.coreos.com,prometheusrules.monitoring.coreos.com";
            let mut kubectl = plane.kubectl();
            let asked = kubectl.args(["get", kinds, "--namespace=default"]).output().unwrap();
            asked.status.success().then_some(())
        });
    });
}

/// What the API server says of objects that it does not keep.
fn dry_run(plane: &ControlPlane, objects: &str) -> Output {
    let arguments = ["apply", "--server-side", "--force-conflicts", "--dry-run=server"];
    fed(plane.kubectl().args(arguments).args(["--validate=strict", "--filename=-"]), objects)
}

/// By the strictest level of Pod Security, as it is today.
fn its_pod_is_restricted(plane: &ControlPlane) {
    let labels = json!({ "pod-security.kubernetes.io/enforce": "restricted" });
    let pods = format!("/api/v1/namespaces/{}/pods?dryRun=All", plane.namespace(&labels));
    for flags in VARIANTS {
        let objects = manifests(flags);
        let Some(deployment) = objects.get("\"Deployment\"/\"devgrant\"") else {
            assert!(flags.iter().any(|flag| flag.starts_with("--url")), "{flags:?}");
            continue;
        };
        let mut pod = deployment["spec"]["template"].clone();
        pod["metadata"]["name"] = json!("p");
        let answer = plane.call("POST", &pods, Some(&pod));
        assert_eq!(answer.status, 201, "{flags:?}: {}", answer.message());
        pod["spec"]["containers"][0]["securityContext"]["privileged"] = json!(true);
        pod["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"].take();
        assert_eq!(plane.call("POST", &pods, Some(&pod)).status, 403, "{flags:?}");
    }
}

/// By Prometheus' own parser: the syntax, what the functions take, the templates of the texts.
fn prometheus_reads_the_alerts() {
    let objects = manifests(&["--monitoring"]);
    let rules = &objects["\"PrometheusRule\"/\"devgrant\""]["spec"];
    let count = rules["groups"][0]["rules"].as_array().unwrap().len();
    assert_eq!(fine(&judged(rules)).trim(), count.to_string());
    for (key, value, words) in [
        ("expr", "min by (pod) (devgrant_lease_held", "could not parse expression"),
        ("expr", "rate(devgrant_lease_held) > 0", "expected type range vector"),
        ("for", "an hour", "not a valid duration"),
        ("fore", "1h", "fore"),
    ] {
        let mut wrong = rules.clone();
        wrong["groups"][0]["rules"][0][key] = json!(value);
        let said = judged(&wrong);
        let stderr = String::from_utf8_lossy(&said.stderr);
        assert!(!said.status.success() && stderr.contains(words), "{value}: {stderr}");
    }
}

fn judged(rules: &Value) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rules.yaml");
    fs::write(&file, rules.to_string()).unwrap();
    tool("rules", &[file.to_str().unwrap()])
}

fn helm_renders_what_manifests_prints() {
    for (values, flags) in CHARTS {
        let mut rendered = documents(&rendered(values));
        for object in rendered.values_mut() {
            let labels = object["metadata"]["labels"].as_object_mut().unwrap();
            for label in HELM_LABELS {
                assert!(labels.remove(*label).is_some(), "{values:?}: {label} is missing");
            }
        }
        same(&rendered, &manifests(flags), &format!("helm {values:?}"));
    }
}

/// What Helm renders with some values, the namespace with it.
pub(crate) fn rendered(values: &[&str]) -> String {
    let mut arguments = vec!["template", "devgrant", CHART, KUBERNETES];
    arguments.extend(["--namespace=devgrant-system", "--set=namespace.create=true"]);
    let values: Vec<String> = values.iter().map(|value| format!("--set={value}")).collect();
    arguments.extend(values.iter().map(String::as_str));
    fine(&tool("helm", &arguments))
}

fn helm_installs_into_another_namespace() {
    let rendered = fine(&tool(
        "helm",
        &["template", "x", CHART, KUBERNETES, "--namespace=grants", "--set=namespace.create=true"],
    ));
    let mut rendered = documents(&rendered);
    for object in rendered.values_mut() {
        let labels = object["metadata"]["labels"].as_object_mut().unwrap();
        labels.retain(|label, _| !HELM_LABELS.contains(&label.as_str()));
    }
    same(&rendered, &manifests(&["--own-namespace=grants"]), "helm --namespace=grants");
}

fn helm_refuses_values_that_do_not_fit() {
    let lint = tool("helm", &["lint", CHART, "--strict", KUBERNETES]);
    assert!(lint.status.success(), "{}", String::from_utf8_lossy(&lint.stdout));
    for (value, words) in [
        ("replicas=0", "replicas"),
        ("replica=3", "replica"),
        ("registration.failurePolicy=Open", "failurePolicy"),
        ("certificates.from=vault", "certificates"),
        ("prefix=Devices", "prefix"),
        ("networkPolicy.apiServerCidrs={kubernetes}", "apiServerCidrs"),
        ("policies.existingConfigMap=mine", "give yours with --set-file guard.manifest"),
        ("policies.shipped=false", "give yours with --set-file guard.manifest"),
    ] {
        let refused = tool("helm", &["template", "devgrant", CHART, KUBERNETES, "--set", value]);
        let said = String::from_utf8(refused.stderr).unwrap();
        assert!(!refused.status.success() && said.contains(words), "{value}: {said}");
    }
}

fn kustomize_builds_what_manifests_prints() {
    for (folder, flags) in KUSTOMIZATIONS {
        let built = fine(&tool("kustomize", &["build", &format!("deploy/kustomize/{folder}")]));
        same(&documents(&built), &manifests(flags), &format!("kustomize {folder}"));
    }
}

const CHART: &str = "deploy/helm/devgrant";

pub(crate) type Objects = BTreeMap<String, Value>;

#[track_caller]
fn same(made: &Objects, printed: &Objects, how: &str) {
    let names = |objects: &Objects| objects.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(made), names(printed), "{how}");
    for (name, object) in printed {
        assert_eq!(made[name], *object, "{how}: {name}");
    }
}

fn manifests(flags: &[&str]) -> Objects {
    documents(&printed(flags))
}

pub(crate) fn printed(flags: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_devgrant"));
    command.env_clear().current_dir(env!("CARGO_MANIFEST_DIR")).arg("manifests").args(flags);
    fine(&command.output().unwrap())
}

/// The objects of a text by kind and name.
pub(crate) fn documents(text: &str) -> Objects {
    let objects: Vec<Option<Map<String, Value>>> = serde_saphyr::from_multiple(text).unwrap();
    let mut named = Objects::new();
    for object in objects.into_iter().flatten().map(Value::Object) {
        let name = format!("{}/{}", object["kind"], object["metadata"]["name"]);
        assert!(named.insert(name.clone(), object).is_none(), "{name} is there twice");
    }
    named
}

#[track_caller]
pub(crate) fn fine(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub(crate) fn tool(name: &str, arguments: &[&str]) -> Output {
    let program = tools().join(name);
    let mut command = Command::new(&program);
    let command = command.current_dir(env!("CARGO_MANIFEST_DIR")).args(arguments);
    command.output().unwrap_or_else(|error| panic!("{}: {error}", program.display()))
}

fn tools() -> PathBuf {
    match std::env::var_os("DEVGRANT_TOOLS") {
        Some(folder) => folder.into(),
        None => panic!(
            "DEVGRANT_TOOLS is not set; run: export DEVGRANT_TOOLS=$(tests/cluster/tools/build)"
        ),
    }
}

/// What a program says that is given this text.
pub(crate) fn fed(command: &mut Command, text: &str) -> Output {
    let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = pipes.spawn().unwrap();
    running.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    running.wait_with_output().unwrap()
}
