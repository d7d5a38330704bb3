#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests are outside of what allow-unwrap-in-tests covers"
)]
//! `devgrant lint` as a person runs it.
//!
//! `tests/lint` holds manifests shaped after well-known projects, each with what is said of it.
//! `DEVGRANT_REFRESH_GOLDEN=1 cargo test --test lint` writes that again; the difference is for review.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use devgrant::decision::finding::entries;
use serde_json::{Value, json};

#[path = "support/ran.rs"]
mod ran;
use ran::{Ran, program};

/// A pod of which there is one error at `fuse`, one warning at `cdi`.
const BAD: &str = "kind: Pod\nmetadata:\n  name: p\n  annotations:\n    cdi.k8s.io/a: b\nspec:\n  containers:\n  - name: c\n    volumeMounts:\n    - {name: v, mountPath: '/x:ro'}\n";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lint")
}

fn lint_in(folder: &Path, arguments: &[&str], stdin: &str) -> Ran {
    Ran::of(program().current_dir(folder).arg("lint").args(arguments).write_stdin(stdin))
}

fn lint(arguments: &[&str]) -> Ran {
    lint_in(&folder(), arguments, "")
}

/// The remarks about a text, as `-o json` has them.
#[track_caller]
fn remarks(text: &str, arguments: &[&str]) -> Vec<Value> {
    let arguments = [&["-", "-o", "json"], arguments].concat();
    let ran = lint_in(&folder(), &arguments, text);
    let remarks = serde_json::from_str(&ran.stdout);
    assert!(remarks.is_ok(), "{}", ran.stderr);
    remarks.unwrap()
}

fn words<'v>(remarks: &'v [Value], key: &str) -> Vec<&'v str> {
    remarks.iter().map(|remark| remark[key].as_str().unwrap()).collect()
}

#[test]
fn manifests_get_what_is_said_of_them() {
    let refresh = std::env::var_os("DEVGRANT_REFRESH_GOLDEN").is_some();
    let files: BTreeSet<String> = fs::read_dir(folder())
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    let manifests: Vec<&str> = files.iter().filter_map(|file| file.strip_suffix(".yaml")).collect();
    let told: Vec<&str> = files.iter().filter_map(|file| file.strip_suffix(".txt")).collect();
    assert!(manifests.len() >= 13, "{manifests:?}");
    if !refresh {
        assert_eq!(manifests, told, "one text for each manifest");
    }
    for name in manifests {
        let ran = lint(&[&format!("{name}.yaml")]);
        let said = format!("{}{}exit {}\n", ran.stdout, ran.stderr, ran.status);
        let golden = folder().join(format!("{name}.txt"));
        if refresh {
            fs::write(&golden, &said).unwrap();
        }
        assert_eq!(said, fs::read_to_string(&golden).unwrap(), "{name}");
    }
}

/// Neither more nor less than what needs no grant to be true.
#[test]
fn a_pod_that_asks_for_nothing_hears_what_holds_for_any() {
    let text = fs::read_to_string(folder().join("any-pod.yaml")).unwrap();
    let found = remarks(&text, &[]);
    let codes: BTreeSet<&str> = words(&found, "rule").into_iter().collect();
    let expected =
        ["DG007", "DG010", "DG011", "DG012", "DG013", "DG015", "DG016", "DG017", "DG019", "DG020"];
    assert_eq!(codes, expected.into_iter().collect());
}

#[test]
fn the_status_is_by_severity() {
    let info = "gcsfuse.yaml";
    for (file, severity, status) in [
        ("any-pod.yaml", "error", 1),
        (info, "error", 0),
        (info, "warning", 0),
        (info, "info", 1),
        ("csi-node.yaml", "info", 0),
    ] {
        let ran = lint(&[file, "--severity", severity]);
        assert_eq!(ran.status, status, "{file} {severity}: {}", ran.stdout);
    }
    let warned = "kind: Pod\nmetadata: {annotations: {cdi.k8s.io/a: b}}\nspec: {containers: [{}]}";
    assert_eq!(lint_in(&folder(), &["-"], warned).status, 1);
    assert_eq!(lint_in(&folder(), &["-", "--severity=error"], warned).status, 0);
    assert_eq!(lint(&[]).status, 2);
    assert_eq!(lint(&["csi-node.yaml", "--severity=fatal"]).status, 2);
}

#[test]
fn what_cannot_be_read_hides_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).unwrap();
    write("a-broken.yaml", b"a: b\nkind: [\n");
    write("b-binary.yaml", b"\xff\xfe");
    write("c-pod.yaml", BAD.as_bytes());
    write("d-template.yaml", b"a: {{ .Values.x }}\nb: c: d\n");
    let ran = lint_in(folder.path(), &["."], "");
    assert_eq!(ran.status, 2);
    assert!(ran.stdout.contains("error[DG019]"), "{}", ran.stdout);
    let lines: Vec<&str> = ran.stderr.lines().collect();
    for (line, start) in lines.iter().zip([
        "devgrant: error: ./a-broken.yaml: document 1: line ",
        "devgrant: error: ./b-binary.yaml is not UTF-8 text",
        "note: ./d-template.yaml: document 1: ",
        "1 error, 1 warning, 0 info in 1 pod of 1 file",
        "devgrant: error: not every file could be read",
    ]) {
        assert!(line.starts_with(start), "{start}: {}", ran.stderr);
    }
    assert_eq!(lines.len(), 5, "{}", ran.stderr);
    // Whoever sees nothing but remarks hears of it too.
    let ran = lint_in(folder.path(), &[".", "-o", "json"], "");
    let told: Vec<Value> = serde_json::from_str(&ran.stdout).unwrap();
    let unread = told.iter().filter(|remark| remark["rule"] == "UnreadableFile");
    let places: Vec<_> = unread.map(|one| (one["file"].as_str(), one["line"].as_u64())).collect();
    assert_eq!(places, [(Some("./a-broken.yaml"), Some(2)), (Some("./b-binary.yaml"), Some(1))]);
    let ran = lint_in(folder.path(), &["missing.yaml", "-o", "github"], "");
    assert!(ran.stdout.starts_with("::error file=missing.yaml,line=1,"), "{}", ran.stdout);
    assert_eq!(lint_in(folder.path(), &["missing.yaml"], "").status, 2);
    // A template is for Helm to read, and no mistake.
    assert_eq!(lint_in(folder.path(), &["d-template.yaml"], "").status, 0);
}

#[test]
fn any_text_ends_with_a_sentence() {
    let deep = format!("kind: Pod\nspec: {}1{}", "[".repeat(120), "]".repeat(120));
    for text in ["---\n---\n", "just words", "[1, 2]", "null", "kind: Pod", "\u{feff}a: b"] {
        let ran = lint_in(&folder(), &["-"], text);
        assert_eq!((ran.status, ran.stdout.as_str()), (0, ""), "{text}: {}", ran.stderr);
    }
    let empty = lint_in(&folder(), &["-"], "\n");
    assert_eq!(empty.status, 2, "{}", empty.stderr);
    assert!(empty.stderr.contains("<stdin> is empty; did the command"), "{}", empty.stderr);
    for text in ["%", "kind: Pod\nspec: {containers: [{name: 1, securityContext: []}]}", &deep] {
        let ran = lint_in(&folder(), &["-"], text);
        assert!(ran.status > 0 && !ran.stderr.contains("panicked"), "{text}: {}", ran.stderr);
    }
}

#[test]
fn json_is_stable_and_points_at_json_too() {
    let found = remarks(
        "{\n\t\"kind\": \"Pod\", \"spec\": {\"containers\": [\n\t{\"name\": \"c\", \"securityContext\": {\"Privileged\": true}}]}}",
        &[],
    );
    let expected = json!([{
        "rule": "UnknownField",
        "severity": "Warning",
        "message": "`Privileged` is no field of a container's `securityContext`: the API server drops it, or refuses the object where it validates strictly",
        "remedy": "did you mean `privileged`?",
        "refuses": false,
        "file": "<stdin>",
        "line": 3,
        "column": 36,
        "endColumn": 48,
        "document": 1,
        "pointer": "/spec/containers/0/securityContext/Privileged",
        "pod": "Pod/(no name)",
        "podPointer": "/spec/containers/0/securityContext/Privileged",
    }]);
    assert_eq!(Value::from(found), expected);
}

#[test]
fn policies_that_warn_or_watch_only_are_heard() {
    let folder = tempfile::tempdir().unwrap();
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("policies/fuse.yaml");
    let policy = fs::read_to_string(shipped).unwrap();
    let pod = |value: &str| {
        format!(
            "kind: Pod\nmetadata: {{name: p, annotations: {{devices.example/fuse: '{value}'}}}}\nspec: {{containers: [{{name: c}}]}}\n"
        )
    };
    for (line, value, rule, severity, start) in [
        ("onInvalid: Warn", "nonsense", "UnknownMode", "Warning", "ignored: "),
        ("enforcement: Shadow", "nonsense", "UnknownMode", "Warning", "shadow: would refuse: "),
        ("enforcement: Shadow", "true", "Note", "Info", "shadow: would grant fuse "),
    ] {
        let text = policy.replacen("\nspec:\n", &format!("\nspec:\n  {line}\n"), 1);
        assert_ne!(text, policy);
        fs::write(folder.path().join("fuse.yaml"), text).unwrap();
        let found = remarks(&pod(value), &["--policies", folder.path().to_str().unwrap()]);
        assert_eq!(words(&found, "rule"), [rule], "{found:?}");
        assert_eq!(words(&found, "severity"), [severity], "{found:?}");
        assert!(words(&found, "message")[0].starts_with(start), "{found:?}");
        assert_eq!(found[0]["pointer"], "/metadata/annotations/devices.example~1fuse");
        assert_eq!((&found[0]["line"], &found[0]["refuses"]), (&json!(2), &json!(false)));
    }
}

#[test]
fn github_commands_are_one_line_each() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a,b:100%.yaml"), BAD).unwrap();
    let ran = lint_in(folder.path(), &["a,b:100%.yaml", "-o", "github"], "");
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(lines.len(), 2, "{}", ran.stdout);
    let start = "::warning file=a%2Cb%3A100%25.yaml,line=5,col=5,endColumn=17,title=DG010 in Pod/p::the annotation `cdi.k8s.io/a` ";
    assert!(lines[0].starts_with(start), "{}", lines[0]);
    let start =
        "::error file=a%2Cb%3A100%25.yaml,line=10,col=28,endColumn=35,title=DG019 in Pod/p::";
    assert!(lines[1].starts_with(start), "{}", lines[1]);
}

/// The schema is that of OASIS (`$id`), as the crate serde-sarif 0.8.0 ships it.
#[test]
fn sarif_fits_its_schema() {
    let schema = fs::read_to_string(folder().join("sarif-2.1.0.schema.json")).unwrap();
    let mut schema: Value = serde_json::from_str(&schema).unwrap();
    // Its one pattern that is no regular expression: a bracket is closed that nobody opened.
    for of in ["run", "toolComponent"] {
        let language = schema.pointer_mut(&format!("/definitions/{of}/properties/language"));
        language.unwrap().as_object_mut().unwrap().remove("pattern").unwrap();
    }
    let validator = jsonschema::options().should_validate_formats(true).build(&schema).unwrap();
    let ran = lint(&[".", "-o", "sarif"]);
    assert_eq!(ran.status, 1, "{}", ran.stderr);
    let log: Value = serde_json::from_str(&ran.stdout).unwrap();
    let problems: Vec<String> =
        validator.iter_errors(&log).map(|error| error.to_string()).collect();
    assert!(problems.is_empty(), "{problems:#?}");

    let rules = log["runs"][0]["tool"]["driver"]["rules"].as_array().unwrap();
    for entry in entries() {
        let rule = rules.iter().find(|rule| rule["id"] == entry.code.as_str()).unwrap();
        let help = rule["help"]["text"].as_str().unwrap();
        let page = format!("docs/findings/{}.md", entry.code);
        assert!(help.contains(entry.fix.trim()) && help.contains(&page), "{help}");
        assert!(folder().join("../..").join(page).is_file());
    }
    let results = log["runs"][0]["results"].as_array().unwrap();
    assert!(results.len() >= 20);
    for result in results {
        let index = usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap();
        assert_eq!(rules[index]["id"], result["ruleId"]);
    }
    // One that is no SARIF is seen.
    let mut broken = log.clone();
    broken["runs"][0]["results"][0]["level"] = json!("fatal");
    assert!(!validator.is_valid(&broken));
    let mut broken = log;
    broken["runs"][0]["tool"]["driver"]["rules"][0]["helpUri"] = json!("docs/findings/DG001.md");
    assert!(!validator.is_valid(&broken), "a relative helpUri is none, so it is left out");
}

/// The hook and the action call what there is.
#[test]
fn the_hook_and_the_action_are_as_they_should_be() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |name: &str| -> Value {
        serde_saphyr::from_str(&fs::read_to_string(root.join(name)).unwrap()).unwrap()
    };
    let hook = &read(".pre-commit-hooks.yaml")[0];
    assert_eq!((&hook["id"], &hook["entry"]), (&json!("devgrant-lint"), &json!("devgrant lint")));
    let action = read("action.yml");
    assert_eq!(action["runs"]["using"], "composite");
    let run = action["runs"]["steps"][0]["run"].as_str().unwrap();
    assert!(run.contains("devgrant lint -o github"), "{run}");
}
