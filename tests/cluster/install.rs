//! The three ways to install give the same objects: the single file, Kustomize and Helm.
//!
//! Needs `helm` and `kustomize`, from the folder that `DEVGRANT_TOOLS` names, or from `PATH`.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};

use libtest_mimic::Trial;
use serde_json::{Map, Value, json};

use crate::control_plane::{ControlPlane, Plane};
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
    ]
}

/// By its own schemas, in which no field may be unknown or twice.
fn the_api_server_takes_every_object(plane: &ControlPlane) {
    // A dry run makes no namespace for those that come after it.
    let namespace = json!({ "metadata": { "name": "devgrant-system" } });
    plane.call("POST", "/api/v1/namespaces", Some(&namespace));
    let mut kubectl = plane.kubectl();
    kubectl.current_dir(env!("CARGO_MANIFEST_DIR")).args([
        "apply",
        "--server-side",
        "--force-conflicts",
    ]);
    kubectl.args(["--dry-run=server", "--validate=strict", "--filename=deploy/devgrant.yaml"]);
    let applied = fine(&kubectl.output().unwrap());
    assert_eq!(applied.lines().count(), manifests(&[]).len(), "{applied}");
}

fn helm_renders_what_manifests_prints() {
    for (values, flags) in [
        (&[][..], &[][..]),
        (&["certificates.from=certManager"], &["--cert-manager"]),
        (&["monitoring.enabled=true", "nodes=true"], &["--monitoring", "--nodes"]),
        (
            &["certificates.from=certManager", "nodes=true", "replicas=3"],
            &["--cert-manager", "--nodes", "--replicas=3"],
        ),
        (&["registration.failurePolicy=Ignore"], &["--failure-policy=Ignore"]),
        (&["prefix=devices.example.org"], &["--prefix=devices.example.org"]),
        (
            &["image.repository=other/devgrant", "image.tag=1.2.3"],
            &["--image=other/devgrant:1.2.3"],
        ),
        (
            &["config.tracesEndpoint=http://collector.observability.svc:4318"],
            &["--config=tests/cluster/traces.yaml"],
        ),
    ] {
        let mut arguments = vec!["template", "devgrant", CHART, KUBERNETES];
        arguments.extend(["--namespace=devgrant-system", "--set=namespace.create=true"]);
        let values: Vec<String> = values.iter().map(|value| format!("--set={value}")).collect();
        arguments.extend(values.iter().map(String::as_str));
        let mut rendered = documents(&fine(&tool("helm", &arguments)));
        for object in rendered.values_mut() {
            let labels = object["metadata"]["labels"].as_object_mut().unwrap();
            for label in HELM_LABELS {
                assert!(labels.remove(*label).is_some(), "{values:?}: {label} is missing");
            }
        }
        same(&rendered, &manifests(flags), &format!("helm {values:?}"));
    }
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
        ("policies.existingConfigMap=mine", "give yours with --set-file guard.manifest"),
        ("policies.shipped=false", "give yours with --set-file guard.manifest"),
    ] {
        let refused = tool("helm", &["template", "devgrant", CHART, KUBERNETES, "--set", value]);
        let said = String::from_utf8(refused.stderr).unwrap();
        assert!(!refused.status.success() && said.contains(words), "{value}: {said}");
    }
}

fn kustomize_builds_what_manifests_prints() {
    for (folder, flags) in [("base", &[][..]), ("cert-manager", &["--cert-manager"])] {
        let built = fine(&tool("kustomize", &["build", &format!("deploy/kustomize/{folder}")]));
        same(&documents(&built), &manifests(flags), &format!("kustomize {folder}"));
    }
}

const CHART: &str = "deploy/helm/devgrant";

type Objects = BTreeMap<String, Value>;

#[track_caller]
fn same(made: &Objects, printed: &Objects, how: &str) {
    let names = |objects: &Objects| objects.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(made), names(printed), "{how}");
    for (name, object) in printed {
        assert_eq!(made[name], *object, "{how}: {name}");
    }
}

fn manifests(flags: &[&str]) -> Objects {
    let mut command = Command::new(env!("CARGO_BIN_EXE_devgrant"));
    command.env_clear().current_dir(env!("CARGO_MANIFEST_DIR")).arg("manifests").args(flags);
    documents(&fine(&command.output().unwrap()))
}

/// The objects of a text by kind and name.
fn documents(text: &str) -> Objects {
    let objects: Vec<Option<Map<String, Value>>> = serde_saphyr::from_multiple(text).unwrap();
    let mut named = Objects::new();
    for object in objects.into_iter().flatten().map(Value::Object) {
        let name = format!("{}/{}", object["kind"], object["metadata"]["name"]);
        assert!(named.insert(name.clone(), object).is_none(), "{name} is there twice");
    }
    named
}

#[track_caller]
fn fine(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn tool(name: &str, arguments: &[&str]) -> Output {
    let program = std::env::var_os("DEVGRANT_TOOLS")
        .map_or_else(|| name.into(), |folder| Path::new(&folder).join(name));
    let mut command = Command::new(&program);
    let command = command.current_dir(env!("CARGO_MANIFEST_DIR")).args(arguments);
    command.output().unwrap_or_else(|error| {
        panic!("{} (set DEVGRANT_TOOLS to the folder that it is in): {error}", program.display())
    })
}
