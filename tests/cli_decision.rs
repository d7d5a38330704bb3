//! What the command says when pods ask for devices: the real decision, through the real binary.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests are outside of what allow-unwrap-in-tests covers"
)]

use std::path::Path;

use assert_cmd::Command;
use serde_json::{Value, json};

/// Exit status, stdout, stderr.
fn run(arguments: &[&str], stdin: &str) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_devgrant"));
    command.env_clear();
    command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli"));
    let output = command
        .args(arguments)
        .args(["--policies", "policies"])
        .write_stdin(stdin)
        .output()
        .unwrap();
    (
        output.status.code().unwrap_or(-1),
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    )
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
    let (status, stdout, stderr) = run(&["patch", "-f", "-", "-o", "json"], &pod(ASKS));
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
    let (status, stdout, stderr) = run(&["patch", "-f", "-", "-o", "patch"], &workload.to_string());
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
    let (status, stdout, stderr) = run(&["patch", "-f", "-"], &pod(ASKS));
    assert_eq!(status, 0, "{stderr}");
    assert!(
        stdout.starts_with("--- <stdin> (document 1, Pod/p)\n+++ <stdin> (document 1, Pod/p)\n@@ "),
        "{stdout}"
    );
    assert!(stdout.contains("\n+        smarter-devices/fuse: \"1\"\n"), "{stdout}");
    let (_, colour, _) = run(&["patch", "-f", "-", "--color", "always"], &pod(ASKS));
    assert!(colour.contains("\u{1b}[32m+"), "{colour}");
}

#[test]
fn what_came_out_needs_nothing_more() {
    let (_, patched, _) = run(&["patch", "-f", "-", "-o", "yaml"], &pod(ASKS));
    let (status, again, stderr) = run(&["patch", "-f", "-", "-o", "patch"], &patched);
    assert_eq!((status, json(&again)), (0, json!([])), "{stderr}");
}

#[test]
fn a_refusal_is_said_and_the_others_come_out() {
    let stdin = format!("{}---\n{}", pod(r#"{devices.example/fuse: "moutn"}"#), pod(ASKS));
    let (status, stdout, stderr) = run(&["patch", "-f", "-", "-o", "json"], &stdin);
    assert_eq!(status, 1, "{stderr}");
    assert!(stderr.contains("Error: Pod/p: "), "{stderr}");
    assert!(stderr.contains("mount"), "the nearest spelling: {stderr}");
    let items = json(&stdout)["items"].as_array().map_or(0, Vec::len);
    assert_eq!(items, 1, "only the second comes out");
}

#[test]
fn a_namespace_that_has_not_opted_in_changes_nothing() {
    let (status, stdout, stderr) =
        run(&["patch", "-f", "-", "-o", "patch", "--namespace-labels", "team=data"], &pod(ASKS));
    assert_eq!((status, json(&stdout)), (0, json!([])), "{stderr}");
    assert!(stderr.contains("Warning: Pod/p: "), "{stderr}");
}

#[test]
fn a_warning_names_the_pod() {
    let two = pod(ASKS) + "  - name: second\n    image: x\n";
    let (status, _, stderr) = run(&["patch", "-f", "-"], &two);
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
    let (status, stdout, stderr) = run(&["admit", "-f", "-"], &review.to_string());
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
    let (status, stdout, stderr) = run(&["patch", "-f", "-", "-o", "json"], workflow);
    assert_eq!(status, 0, "{stderr}");
    let template = &json(&stdout)["spec"]["templates"][0];
    assert_eq!(template["container"]["resources"]["limits"], json!({"smarter-devices/fuse": "1"}));
    assert_eq!(template["sidecars"][0].get("resources"), None);
}
