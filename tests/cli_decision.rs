//! What the command says when pods ask for devices: the real decision, through the real binary.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests are outside of what allow-unwrap-in-tests covers"
)]

use std::path::Path;

use serde_json::{Value, json};

#[path = "support/ran.rs"]
mod ran;
use ran::{Ran, program};

/// Runs with the policies of `tests/cli`.
fn run(arguments: &[&str], stdin: &str) -> Ran {
    let mut command = program();
    command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli"));
    Ran::of(command.args(arguments).args(["--policies", "policies"]).write_stdin(stdin))
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn pod(annotations: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: p\n  annotations: {annotations}\nspec:\n  containers:\n  - name: main\n    image: x\n"
    )
}

const ASKS: &str = r#"{devices.example/fuse: "true"}"#;

#[test]
fn a_bare_pod_gets_the_resource_twice_and_the_capability() {
    let Ran { status, stdout, stderr } = run(&["patch", "-f", "-", "-o", "json"], &pod(ASKS));
    assert_eq!(status, 0, "{stderr}");
    let container = &json(&stdout)["spec"]["containers"][0];
    let amount = json!({"smarter-devices/fuse": "1"});
    assert_eq!(container["resources"], json!({"limits": amount, "requests": amount}));
    assert_eq!(container["securityContext"]["capabilities"]["add"], json!(["SYS_ADMIN"]));
}

#[test]
fn a_template_gets_it_at_its_place() {
    let workload = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
        "spec": {"template": {
            "metadata": {"annotations": {"devices.example/fuse": "rootless"}},
            "spec": {"containers": [{"name": "main", "image": "x"}]},
        }},
    });
    let Ran { status, stdout, stderr } =
        run(&["patch", "-f", "-", "-o", "patch"], &workload.to_string());
    assert_eq!(status, 0, "{stderr}");
    let patch: json_patch::Patch = serde_json::from_str(&stdout).unwrap();
    assert!(
        patch.0.iter().all(|operation| operation.path().as_str().starts_with("/spec/template/")),
        "{stdout}"
    );
    let mut patched = workload;
    json_patch::patch(&mut patched, &patch.0).unwrap();
    let container = &patched["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["resources"]["limits"], json!({"smarter-devices/fuse": "1"}));
    assert_eq!(container.get("securityContext"), None, "the device only");
}

#[test]
fn the_difference_is_drawn() {
    let Ran { status, stdout, stderr } = run(&["patch", "-f", "-"], &pod(ASKS));
    assert_eq!(status, 0, "{stderr}");
    assert!(
        stdout.starts_with("--- <stdin> (document 1, Pod/p)\n+++ <stdin> (document 1, Pod/p)\n@@ "),
        "{stdout}"
    );
    assert!(stdout.contains("\n+        smarter-devices/fuse: \"1\"\n"), "{stdout}");
    let colour = run(&["patch", "-f", "-", "--color", "always"], &pod(ASKS)).stdout;
    assert!(colour.contains("\u{1b}[32m+"), "{colour}");
}

#[test]
fn what_came_out_needs_nothing_more() {
    let patched = run(&["patch", "-f", "-", "-o", "yaml"], &pod(ASKS)).stdout;
    let Ran { status, stdout: again, stderr } = run(&["patch", "-f", "-", "-o", "patch"], &patched);
    assert_eq!((status, json(&again)), (0, json!([])), "{stderr}");
}

#[test]
fn a_refusal_is_said_and_the_others_come_out() {
    let stdin = format!("{}---\n{}", pod(r#"{devices.example/fuse: "moutn"}"#), pod(ASKS));
    let Ran { status, stdout, stderr } = run(&["patch", "-f", "-", "-o", "json"], &stdin);
    assert_eq!(status, 1, "{stderr}");
    assert!(stderr.contains("Error: Pod/p: "), "{stderr}");
    assert!(stderr.contains("mount"), "the nearest spelling: {stderr}");
    let items = json(&stdout)["items"].as_array().map_or(0, Vec::len);
    assert_eq!(items, 1, "only the second comes out");
}

/// A pod, and two more items that are refused: all of it, or half of it.
fn list() -> String {
    let pod = |name: &str, value: &str| {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "annotations": {"devices.example/fuse": value}},
            "spec": {"containers": [{"name": "main"}]},
        })
    };
    let half = json!({
        "apiVersion": "x.example/v1", "kind": "Cluster", "metadata": {"name": "half"},
        "spec": {"head": pod("a", "true"), "worker": pod("b", "moutn")},
    });
    let items = [half, pod("bad", "moutn"), pod("good", "true")];
    json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()
}

#[test]
fn a_refused_item_does_not_take_the_list_with_it() {
    let Ran { status, stdout, stderr } = run(&["patch", "-f", "-", "-o", "json"], &list());
    assert_eq!(status, 1);
    for title in ["Error: Cluster/half (/items/0/spec/worker): ", "Error: Pod/bad (/items/1): "] {
        assert!(stderr.contains(title), "{stderr}");
    }
    let came_out = json(&stdout);
    assert_eq!(came_out["items"].as_array().map(Vec::len), Some(1), "{stdout}");
    assert_eq!(came_out["items"][0]["metadata"]["name"], "good");
    assert!(came_out["items"][0].pointer("/spec/containers/0/resources/limits").is_some());
    let yaml = run(&["patch", "-f", "-", "-o", "yaml"], &list()).stdout;
    assert_eq!(serde_saphyr::from_str::<Value>(&yaml).unwrap(), came_out);

    // The patch and the difference fit the file, where the refused items still are.
    let Ran { status, stdout, .. } = run(&["patch", "-f", "-", "-o", "patch"], &list());
    assert_eq!(status, 1);
    let patch: json_patch::Patch = serde_json::from_str(&stdout).unwrap();
    let mut patched = json(&list());
    json_patch::patch(&mut patched, &patch.0).unwrap();
    assert_eq!(patched["items"][2], came_out["items"][0]);
    assert_eq!(patched["items"][0], json(&list())["items"][0], "nothing of half an item");
    let difference = run(&["patch", "-f", "-"], &list()).stdout;
    assert!(difference.contains("\n+          smarter-devices/fuse: \"1\"\n"), "{difference}");
    assert!(!difference.lines().skip(2).any(|line| line.starts_with('-')), "{difference}");
}

#[test]
fn a_list_of_refused_items_does_not_come_out() {
    let bad = list().replace("\"true\"", "\"moutn\"");
    let Ran { status, stdout, .. } = run(&["patch", "-f", "-", "-o", "json"], &bad);
    assert_eq!((status, stdout.as_str()), (1, ""));
}

#[test]
fn every_namespace_has_the_label_of_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let policy = std::fs::read_to_string("tests/cli/policies/fuse.yaml").unwrap();
    let rule = "spec:\n  allow:\n  - namespaceSelector: { matchLabels: { kubernetes.io/metadata.name: data } }\n";
    std::fs::write(folder.path().join("fuse.yaml"), policy.replace("spec:\n", rule)).unwrap();
    for (namespace, expected) in [("data", 0), ("other", 1)] {
        let mut command = program();
        command.args(["patch", "-f", "-", "--namespace", namespace, "--policies"]);
        let ran = Ran::of(command.arg(folder.path()).write_stdin(pod(ASKS)));
        assert_eq!(ran.status, expected, "{}{}", ran.stdout, ran.stderr);
    }
}

#[test]
fn an_ask_where_nobody_looks_is_said() {
    let workload = |owner: &str, template: &str| {
        format!(
            "apiVersion: batch/v1\nkind: CronJob\nmetadata: {{ name: c{owner} }}\nspec:\n  jobTemplate:\n    spec:\n      template:\n        metadata: {{ name: t{template} }}\n        spec: {{ containers: [{{ name: main }}] }}\n"
        )
    };
    let fuse = "{ devices.example/fuse: \"true\" }";
    for (manifest, sentence) in [
        (
            workload(&format!(", annotations: {fuse}"), ""),
            "Warning: CronJob/c: `devices.example/fuse` in `/metadata/annotations` is of the CronJob and not of its pods, so it asks for nothing; write it in `/spec/jobTemplate/spec/template/metadata/annotations`",
        ),
        (
            workload(&format!(", labels: {fuse}"), ""),
            "`devices.example/fuse` in `/metadata/labels` is of the CronJob",
        ),
        (
            workload("", &format!(", labels: {fuse}")),
            "`devices.example/fuse` is a label, and only annotations ask; write it in `/spec/jobTemplate/spec/template/metadata/annotations`",
        ),
        (
            format!(
                "kind: Pod\nmetadata: {{ name: p, labels: {fuse} }}\nspec: {{ containers: [{{ name: c }}] }}\n"
            ),
            "Warning: Pod/p: `devices.example/fuse` is a label",
        ),
        (
            workload(", labels: { devices.example/grant: enabled }", ""),
            "`devices.example/grant` is a label of namespaces and does nothing here",
        ),
    ] {
        for verb in ["patch", "explain"] {
            let Ran { status, stderr, .. } = run(&[verb, "-f", "-"], &manifest);
            assert_eq!(status, 0, "{stderr}");
            assert!(stderr.contains(sentence), "{manifest}: {stderr}\nshould say: {sentence}");
        }
    }
    let stderr =
        run(&["patch", "-f", "-"], &workload("", &format!(", annotations: {fuse}"))).stderr;
    for wrong in ["does nothing here", "is a label"] {
        assert!(!stderr.contains(wrong), "it is where it belongs: {stderr}");
    }
}

#[test]
fn templates_of_argo_that_are_not_foretold_are_said() {
    let workflow = "
apiVersion: argoproj.io/v1alpha1
kind: Workflow
metadata: { name: w }
spec:
  templates:
  - { name: a, container: { image: x } }
  - name: b
    metadata: { annotations: { devices.example/fuse: \"true\" } }
    containerSet: { containers: [{ name: x, image: x }] }
  - { name: c, resource: { action: get } }
";
    let Ran { status, stderr, .. } = run(&["patch", "-f", "-"], workflow);
    assert_eq!(status, 0, "{stderr}");
    let warnings = stderr.lines().filter(|line| line.starts_with("Warning: "));
    assert_eq!(
        warnings.collect::<Vec<_>>(),
        [
            "Warning: Workflow/w: `/spec/templates/1` asks, and what becomes of the pod of a `containerSet` template is not foretold"
        ]
    );
}

#[test]
fn explain_shows_what_is_asked_and_by_whom_in_any_case() {
    let explain = |namespace: &str, annotations: &str| {
        let arguments = ["explain", "-f", "-", "-o", "json", "--namespace", namespace];
        let Ran { status, stdout, stderr } = run(&arguments, &pod(annotations));
        assert_eq!(status, 0, "{stderr}");
        json(&stdout)[0].clone()
    };
    for (namespace, annotations, never_touched) in [
        ("kube-system", ASKS, true),
        ("devgrant-system", ASKS, true),
        ("data", r#"{devices.example/fuse: "false"}"#, false),
    ] {
        let explained = explain(namespace, annotations);
        assert_eq!(explained["annotation"][0]["device"], "fuse", "{explained}");
        assert_eq!(explained["request"]["neverTouched"], never_touched, "{explained}");
        assert_eq!(explained["request"]["containers"], json!(["main"]), "{explained}");
    }
    let silent = explain("data", "{}");
    assert_eq!(silent["request"]["serviceAccount"], "default");
    assert_eq!(silent["request"]["containers"], json!(["main"]));

    let arguments = ["explain", "-f", "-", "--namespace", "kube-system"];
    let text = run(&arguments, &pod(ASKS)).stdout;
    assert!(text.contains("namespace kube-system (never touched)\n"), "{text}");
    let text = run(&["explain", "-f", "-"], &pod(ASKS)).stdout;
    assert!(
        text.contains("  patch      (paths begin at the pod)\n             add /spec"),
        "{text}"
    );
}

#[test]
fn explain_shows_the_plan_of_a_policy_in_shadow() {
    let folder = tempfile::tempdir().unwrap();
    let policy = std::fs::read_to_string("tests/cli/policies/fuse.yaml").unwrap();
    let shadow = policy.replace("spec:\n", "spec:\n  enforcement: Shadow\n");
    std::fs::write(folder.path().join("fuse.yaml"), shadow).unwrap();
    let mut command = program();
    command.args(["explain", "-f", "-", "--policies"]);
    let text = Ran::of(command.arg(folder.path()).write_stdin(pod(ASKS))).stdout;
    assert!(
        text.contains(
            "plan       in shadow, not granted: container main: resource smarter-devices/fuse: 1\n"
        ),
        "{text}"
    );
}

#[test]
fn the_difference_of_a_review_is_of_its_pod() {
    let review = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "u", "operation": "CREATE", "namespace": "data",
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "object": json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": "p", "annotations": {"devices.example/fuse": "true"}},
                "spec": {"containers": [{"name": "main"}]},
            }),
        },
    });
    let stdout = run(&["patch", "-f", "-"], &review.to_string()).stdout;
    assert!(stdout.starts_with("--- <stdin> (document 1, AdmissionReview/p)\n"), "{stdout}");
}

#[test]
fn a_namespace_that_has_not_opted_in_changes_nothing() {
    let Ran { status, stdout, stderr } =
        run(&["patch", "-f", "-", "-o", "patch", "--namespace-labels", "team=data"], &pod(ASKS));
    assert_eq!((status, json(&stdout)), (0, json!([])), "{stderr}");
    assert!(stderr.contains("Warning: Pod/p: "), "{stderr}");
}

#[test]
fn a_warning_names_the_pod() {
    let two = pod(ASKS) + "  - name: second\n    image: x\n";
    let Ran { status, stderr, .. } = run(&["patch", "-f", "-"], &two);
    assert_eq!(status, 0);
    assert!(stderr.contains("Warning: Pod/p: ") && stderr.contains("main"), "{stderr}");
}

#[test]
fn admit_refuses_with_the_bytes_of_the_answer() {
    let review = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "u", "operation": "CREATE", "namespace": "data",
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "object": {
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": "p", "annotations": {"devices.example/fuse": "moutn"}},
                "spec": {"containers": [{"name": "main"}]},
            },
        },
    });
    let Ran { status, stdout, stderr } = run(&["admit", "-f", "-"], &review.to_string());
    assert_eq!((status, stderr.as_str()), (1, ""));
    let response = &json(&stdout)["response"];
    assert_eq!((&response["uid"], &response["allowed"]), (&json!("u"), &json!(false)));
}

#[test]
fn a_pod_of_argo_is_foretold() {
    let workflow = "
apiVersion: argoproj.io/v1alpha1
kind: Workflow
metadata: { generateName: w- }
spec:
  podMetadata: { annotations: { devices.example/fuse: \"true\" } }
  templates:
  - name: t
    container: { image: x }
    sidecars: [{ name: side, image: x }]
";
    let Ran { status, stdout, stderr } = run(&["patch", "-f", "-", "-o", "json"], workflow);
    assert_eq!(status, 0, "{stderr}");
    let template = &json(&stdout)["spec"]["templates"][0];
    assert_eq!(template["container"]["resources"]["limits"], json!({"smarter-devices/fuse": "1"}));
    assert_eq!(template["sidecars"][0].get("resources"), None);
}
