//! `devgrant policy test` as a person and as CI run it, and the cases that are shipped.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests are outside of what allow-unwrap-in-tests covers"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use devgrant::cli::policy::test::case;
use serde_json::{Value, json};

#[path = "support/ran.rs"]
mod ran;
use ran::{Ran, program};

/// The least number of cases of each shipped policy.
const AT_LEAST: u64 = 5;

const POLICY: &str = "\
apiVersion: devgrant/v1alpha1
kind: DevicePolicy
metadata: { name: tpm }
spec:
  device: tpm
  description: A TPM.
  defaultMode: tpm
  modes:
    tpm: { description: The device., resources: [{ name: example.com/tpm }] }
";

/// A pod that asks for what [`POLICY`] grants.
const POD: &str = "{ metadata: { annotations: { devices.example/tpm: 'true' } }, \
                   spec: { containers: [{ name: c }] } }";

struct Folder(tempfile::TempDir);

impl Folder {
    /// A folder with the policy and these cases beside it.
    fn new(cases: &str) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        folder.write("tpm.yaml", POLICY);
        folder.write("tpm.test.yaml", cases);
        folder
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.0.path().join(file), text).unwrap();
    }

    /// Runs the cases of the folder.
    fn test(&self, flags: &[&str]) -> Ran {
        // The name of the folder is in what is said.
        run(self.0.path(), &[&["."], flags].concat())
    }
}

fn run(folder: &Path, flags: &[&str]) -> Ran {
    Ran::of(program().current_dir(folder).args(["policy", "test"]).args(flags))
}

/// One case about [`POD`], with this in `expect`.
fn expecting(expect: &str) -> String {
    format!("- {{ name: one, pod: {POD}, expect: {expect} }}\n")
}

#[track_caller]
fn unreadable(ran: &Ran, words: &[&str]) {
    assert_eq!((ran.status, ran.stdout.as_str()), (2, ""), "{}", ran.stderr);
    for word in words {
        assert!(ran.stderr.contains(word), "{word} is not in: {}", ran.stderr);
    }
}

fn json_of(ran: &Ran) -> Value {
    serde_json::from_str(&ran.stdout).unwrap()
}

#[test]
fn shipped_cases_pass_and_every_policy_has_some() {
    let folder = tempfile::tempdir().unwrap();
    let ran = run(folder.path(), &["-o", "json"]);
    assert_eq!((ran.status, ran.stderr.as_str()), (0, ""), "{}", ran.stdout);
    let report = json_of(&ran);
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for case in report["cases"].as_array().unwrap() {
        *counts.entry(case["file"].as_str().unwrap()).or_default() += 1;
    }
    assert_eq!(counts.len(), 13);
    for (file, count) in counts {
        assert!(count >= AT_LEAST, "{file}: {count} cases");
    }
    // Built in is what is in the folder.
    let on_disk = run(&root(), &["policies"]);
    assert_eq!((on_disk.status, on_disk.stderr.as_str()), (0, ""), "{}", on_disk.stdout);
    assert!(on_disk.stdout.contains("all ok"));
}

#[test]
fn every_kind_of_expectation_that_holds_passes() {
    let folder = Folder::new(&expecting(
        "{ verdict: Admit, reason: Granted, patched: true, findings: [], warnings: [], \
           grants: [{ device: tpm, mode: tpm, count: 1, containers: [c] }], \
           fields: { /spec/containers/0/name: c, /spec/hostNetwork: null, \
                     /spec/containers/0/resources/limits/example.com~1tpm: '1' } }",
    ));
    let ran = folder.test(&[]);
    assert_eq!(
        (ran.status, ran.stdout.as_str(), ran.stderr.as_str()),
        (
            0,
            "  CASE  VERDICT\n./tpm.test.yaml\n  one   Admit (Granted)  ok\n1 case in 1 file: all ok\n",
            ""
        )
    );
}

/// Every expectation that is not met is said, each with what there is.
#[test]
fn every_kind_of_expectation_that_does_not_hold_is_said_at_once() {
    let folder = Folder::new(&expecting(
        "{ verdict: Refuse, reason: Conflict, patched: false, findings: [DG001], \
           warnings: [one, two], message: absent, \
           grants: [{ device: tpm, count: 2 }], \
           fields: { /spec/containers/0/name: d, /spec/nodeName: node, \
                     /spec/containers/0/resources: null } }",
    ));
    let ran = folder.test(&["-o", "json"]);
    assert_eq!((ran.status, ran.stderr.as_str()), (1, ""));
    let grant = json!({ "device": "tpm", "mode": "tpm", "count": 1, "containers": ["c"] });
    let tpm = json!({ "example.com/tpm": "1" });
    assert_eq!(
        json_of(&ran),
        json!({
            "passed": 0,
            "failed": 1,
            "cases": [{
                "file": "./tpm.test.yaml",
                "line": 1,
                "name": "one",
                "passed": false,
                "verdict": "Admit",
                "reason": "Granted",
                "unmet": [
                    { "expectation": "verdict", "expected": "Refuse", "actual": "Admit" },
                    { "expectation": "reason", "expected": "Conflict", "actual": "Granted" },
                    { "expectation": "grants", "expected": [{ "device": "tpm", "count": 2 }], "actual": [grant] },
                    { "expectation": "findings", "expected": ["DG001"], "actual": [] },
                    { "expectation": "warnings", "expected": "one", "actual": [] },
                    { "expectation": "warnings", "expected": "two", "actual": [] },
                    { "expectation": "message", "expected": "absent", "actual": null },
                    { "expectation": "fields", "pointer": "/spec/containers/0/name", "expected": "d", "actual": "c" },
                    { "expectation": "fields", "pointer": "/spec/containers/0/resources", "expected": null, "actual": { "limits": tpm, "requests": tpm } },
                    { "expectation": "fields", "pointer": "/spec/nodeName", "expected": "node", "actual": null },
                    { "expectation": "patched", "expected": false, "actual": true },
                ],
            }],
        })
    );
    let table = folder.test(&[]);
    assert_eq!(table.status, 1);
    for part in [
        "  one   Admit (Granted)  FAILED (line 1)\n",
        "    verdict\n      expected \"Refuse\"\n      actual   \"Admit\"\n",
        "    findings\n      expected [\"DG001\"]\n      actual   (none)\n",
        "    message\n      expected \"absent\"\n      actual   (the pod is admitted)\n",
        "    fields /spec/nodeName\n      expected \"node\"\n      actual   (absent)\n",
        "    patched\n      expected false\n      actual   true\n1 case in 1 file: 0 ok, 1 FAILED\n",
    ] {
        assert!(table.stdout.contains(part), "{part} is not in:\n{}", table.stdout);
    }
}

#[test]
fn a_refused_pod_has_no_fields_and_a_message() {
    let folder = Folder::new(
        "- { name: one, pod: { metadata: { annotations: { devices.example/tpm: tmp } }, \
              spec: { containers: [{ name: c }] } }, \
             expect: { message: 'did you mean `tpm`?', grants: [], patched: false, \
                       fields: { /spec/hostNetwork: null } } }\n",
    );
    let report = json_of(&folder.test(&["-o", "json"]));
    assert_eq!(
        report["cases"][0]["unmet"],
        json!([{ "expectation": "fields", "pointer": "/spec/hostNetwork", "expected": null, "actual": "(the pod is refused)" }])
    );
}

/// Where a pod comes from decides: its namespace, account and version.
#[test]
fn a_case_says_where_its_pod_comes_from() {
    let folder = Folder::new(&format!(
        "- {{ name: not opted in, namespace: {{ labels: {{}} }}, pod: {POD}, expect: {{ reason: NotOptedIn }} }}
- {{ name: system, namespace: {{ name: kube-system }}, pod: {POD}, expect: {{ reason: SystemNamespace }} }}
- name: its own namespace
  pod: {{ metadata: {{ namespace: kube-system, annotations: {{ devices.example/tpm: 'true' }} }}, spec: {{ containers: [{{ name: c }}] }} }}
  expect: {{ reason: SystemNamespace }}
- {{ name: account, serviceAccount: robot, user: jane, pod: {POD}, expect: {{ fields: {{ /spec/serviceAccountName: robot }} }} }}
- {{ name: version, kubernetesVersion: '1.29', pod: {POD}, expect: {{ verdict: Admit }} }}
- {{ name: no pod, pod: {{ metadata: {{ annotations: {{ devices.example/tpm: 'true' }} }} }}, expect: {{ verdict: Admit }} }}
"
    ));
    let ran = folder.test(&[]);
    assert!(ran.stdout.contains("6 cases in 1 file: 5 ok, 1 FAILED"), "{}", ran.stdout);
    // What cannot be decided fails its case, and says why.
    assert!(ran.stdout.contains("this is no pod: it has no `spec`"), "{}", ran.stdout);
}

#[test]
fn a_review_is_read_from_beside_the_cases() {
    let folder =
        Folder::new("- { name: one, review: review.json, expect: { reason: NotAsked } }\n");
    let missing = folder.test(&[]);
    unreadable(&missing, &["./tpm.test.yaml:1: `one`", "cannot read", "review.json"]);
    folder.write("review.json", "{}");
    unreadable(&folder.test(&[]), &["./tpm.test.yaml:1: `one`"]);
    fs::copy(root().join("examples/review.json"), folder.0.path().join("review.json")).unwrap();
    let ran = folder.test(&[]);
    // It asks for fuse, and there is no policy for that here.
    assert!(ran.stdout.contains("Refuse (UnknownKey)"), "{}{}", ran.stdout, ran.stderr);
}

#[test]
fn everything_wrong_with_case_files_is_said_and_nothing_is_run() {
    let folder = Folder::new(&format!(
        "- {{ name: one, pod: {POD}, expect: {{ verdct: Admit }} }}
- {{ name: one, pod: {POD}, expect: {{}} }}
"
    ));
    folder.write("more.test.yaml", "- { name: two, pods: {}, expect: { patched: true } }\n");
    unreadable(
        &folder.test(&[]),
        &[
            "error: ./tpm.test.yaml:1: case `one`: `expect` has no field `verdct`; did you mean `verdict`?\n",
            "error: ./tpm.test.yaml:2: case `one`: this name is taken by the case on line 1",
            "error: ./tpm.test.yaml:2: case `one`: `expect` is empty",
            "error: ./more.test.yaml:1: case `two`: the case has no field `pods`; did you mean `pod`?\n",
            "devgrant: error: 4 errors in 2 case files\n",
        ],
    );
}

#[test]
fn what_cannot_be_run_is_exit_status_2() {
    let folder = Folder::new("");
    unreadable(&folder.test(&[]), &["the file holds no case"]);
    fs::remove_file(folder.0.path().join("tpm.test.yaml")).unwrap();
    unreadable(&folder.test(&[]), &["there are no cases; write some beside a policy"]);
    folder.write("tpm.test.yaml", &expecting("{ verdict: Admit }"));
    unreadable(&folder.test(&["--filter", "nothing"]), &["no case has `nothing`"]);
    folder.write("bad.yaml", "kind: DevicePolicy\n");
    unreadable(&folder.test(&[]), &["bad.yaml", "in 1 policy file"]);
    unreadable(&run(folder.0.path(), &["missing"]), &["missing"]);
}

#[test]
fn folders_are_one_set_and_a_policy_without_cases_is_noted() {
    let one = Folder::new(&expecting("{ verdict: Admit }"));
    let other = Folder::new(&expecting("{ reason: Granted }"));
    other.write("tpm.yaml", &POLICY.replace("tpm", "tpm2"));
    other.write("tpm3.yaml", &POLICY.replace("tpm", "tpm3"));
    let ran = one.test(&[&other.0.path().display().to_string()]);
    assert_eq!(ran.status, 0, "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.contains("2 cases in 2 files: all ok"), "{}", ran.stdout);
    assert!(ran.stderr.contains("tpm3.yaml has no cases"), "{}", ran.stderr);
    assert!(!ran.stderr.contains("tpm2"), "{}", ran.stderr);
}

#[test]
fn a_filter_looks_at_the_names_of_cases_and_files() {
    for (filter, count) in [("userns", 2), ("tpu.test", 6), ("restricted", 8)] {
        let ran = run(&root(), &["--filter", filter, "-o", "json"]);
        let report = json_of(&ran);
        let cases = report["cases"].as_array().unwrap();
        assert!(cases.len() >= count, "{filter}: {}", cases.len());
        for case in cases {
            let texts = [case["name"].as_str().unwrap(), case["file"].as_str().unwrap()];
            assert!(texts.iter().any(|text| text.contains(filter)), "{texts:?}");
        }
    }
}

#[test]
fn colours_are_for_terminals() {
    let folder = Folder::new(&expecting("{ verdict: Refuse }"));
    assert!(!folder.test(&[]).stdout.contains('\u{1b}'));
    let coloured = folder.test(&["--color", "always"]).stdout;
    assert!(coloured.contains("\u{1b}[1m\u{1b}[31mFAILED\u{1b}[0m"), "{coloured:?}");
    let folder = Folder::new(&expecting("{ verdict: Admit }").replace("one", "\"\\e[31mred\""));
    assert!(!folder.test(&[]).stdout.contains('\u{1b}'));
}

/// JUnit by an outside reader: counts, places, and texts that XML cannot hold as they are.
#[test]
fn junit_reads_as_xml() {
    let name = "a & b < \\\"c\\\" 'd' ]]> \\e ☃";
    let folder = Folder::new(&format!(
        "- {{ name: fine, pod: {POD}, expect: {{ verdict: Admit }} }}
- {{ name: \"{name}\", pod: {POD}, expect: {{ verdict: Refuse, message: '<&>' }} }}
"
    ));
    let ran = folder.test(&["-o", "junit"]);
    assert_eq!((ran.status, ran.stderr.as_str()), (1, ""));
    let document = roxmltree::Document::parse(&ran.stdout).unwrap();
    let suites = document.root_element();
    assert_eq!(suites.tag_name().name(), "testsuites");
    let suite = suites.first_element_child().unwrap();
    for element in [suites, suite] {
        let count = |name| element.attribute(name).unwrap();
        assert_eq!((count("tests"), count("failures"), count("errors")), ("2", "1", "0"));
    }
    assert_eq!(suite.attribute("name"), Some("./tpm.test.yaml"));
    let cases: Vec<_> = suite.children().filter(roxmltree::Node::is_element).collect();
    let of = |index: usize, name| cases.get(index).unwrap().attribute(name);
    assert_eq!((of(0, "name"), of(0, "line")), (Some("fine"), Some("1")));
    assert!(cases.first().unwrap().first_element_child().is_none());
    assert_eq!(of(1, "name"), Some("a & b < \"c\" 'd' ]]> \u{fffd} ☃"));
    let failure = cases.get(1).unwrap().first_element_child().unwrap();
    assert_eq!(failure.tag_name().name(), "failure");
    assert_eq!(failure.attribute("message"), Some("otherwise than expected: verdict, message"));
    assert_eq!(
        failure.text(),
        Some(
            "verdict\n  expected \"Refuse\"\n  actual   \"Admit\"\nmessage\n  expected \"<&>\"\n  actual   (the pod is admitted)\n"
        )
    );

    let shipped = run(&root(), &["-o", "junit"]).stdout;
    let document = roxmltree::Document::parse(&shipped).unwrap();
    assert_eq!(document.root_element().attribute("failures"), Some("0"));
}

#[test]
fn the_published_schema_is_the_one_of_the_code() {
    let path = root().join("policies/test-schema.json");
    let schema = serde_json::to_string_pretty(&case::json_schema()).unwrap() + "\n";
    if std::env::var_os("DEVGRANT_REFRESH_GOLDEN").is_some() {
        fs::write(&path, &schema).unwrap();
    }
    assert!(
        fs::read_to_string(&path).unwrap_or_default() == schema,
        "policies/test-schema.json is not the code's schema; DEVGRANT_REFRESH_GOLDEN=1 writes it again"
    );
}

/// An outside judge finds the shipped cases right, and wrong ones wrong.
#[test]
fn an_outside_judge_reads_cases_as_we_do() {
    let judge = jsonschema::validator_for(&case::json_schema()).unwrap();
    let mut count = 0;
    for entry in fs::read_dir(root().join("policies")).unwrap() {
        let path = entry.unwrap().path();
        if path.to_string_lossy().ends_with(".test.yaml") {
            count += 1;
            let text = fs::read_to_string(&path).unwrap();
            assert!(
                text.starts_with("# yaml-language-server: $schema=test-schema.json\n"),
                "{}: editors know the fields by its first line",
                path.display()
            );
            let cases: Value = serde_saphyr::from_str(&text).unwrap();
            let problem = judge.iter_errors(&cases).next();
            assert!(problem.is_none(), "{}: {}", path.display(), problem.unwrap());
        }
    }
    assert_eq!(count, 13);
    for wrong in [
        json!([]),
        json!([{ "name": "a", "pod": {} }]),
        json!([{ "name": "a", "expect": { "verdct": "Admit" } }]),
        json!([{ "name": "a", "expect": { "reason": "Grantd" } }]),
        json!([{ "name": "a", "expect": { "findings": ["DG999"] } }]),
    ] {
        assert!(!judge.is_valid(&wrong), "{wrong}");
    }
}

/// The policy and the case that policies/README.md shows belong together.
#[test]
fn the_case_of_the_readme_passes() {
    let text = fs::read_to_string(root().join("policies/README.md")).unwrap();
    let blocks: Vec<&str> =
        text.split("```yaml\n").skip(1).map(|rest| rest.split_once("```").unwrap().0).collect();
    let [policy, cases] = blocks.as_slice() else { unreachable!("two blocks of YAML") };
    let folder = Folder::new(cases);
    folder.write("tpm.yaml", policy);
    let ran = folder.test(&[]);
    assert_eq!((ran.status, ran.stderr.as_str()), (0, ""), "{}", ran.stdout);
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
