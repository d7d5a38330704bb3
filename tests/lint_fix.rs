#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests are outside of what allow-unwrap-in-tests covers"
)]
//! `devgrant lint --fix` as a person runs it.
//!
//! `tests/lint/fix` holds manifests, each as it is, as it is then, unless nothing changes, and what is
//! said. `DEVGRANT_REFRESH_GOLDEN=1 cargo test --test lint_fix` writes the last two again; the difference
//! is for review.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

#[path = "support/ran.rs"]
mod ran;
use ran::{Ran, program};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn lint(folder: &Path, arguments: &[&str], stdin: &str) -> Ran {
    Ran::of(program().current_dir(folder).arg("lint").args(arguments).write_stdin(stdin))
}

/// The text of a file after `lint --fix`, and the run.
fn fixed(name: &str, text: &str) -> (String, Ran) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(name);
    fs::write(&file, text).unwrap();
    let ran = lint(folder.path(), &["--fix", name], "");
    (fs::read_to_string(file).unwrap(), ran)
}

/// The names of the cases, each with the text of its manifest.
fn cases() -> BTreeMap<String, String> {
    let files = fs::read_dir(root().join("tests/lint/fix")).unwrap();
    let files = files.map(|file| file.unwrap().path());
    let name = |file: &PathBuf| file.file_name().unwrap().to_str().unwrap().to_owned();
    let manifests = files.filter_map(|file| {
        let case = name(&file).strip_suffix(".yaml")?.to_owned();
        let is_golden = case.strip_suffix(".fixed").is_some();
        (!is_golden).then(|| (case, fs::read_to_string(file).unwrap()))
    });
    manifests.collect()
}

#[test]
fn manifests_become_what_they_should() {
    let refresh = std::env::var_os("DEVGRANT_REFRESH_GOLDEN").is_some();
    let folder = root().join("tests/lint/fix");
    let mut expected = BTreeSet::new();
    let cases = cases();
    assert!(cases.len() >= 35, "{}", cases.len());
    for (name, before) in cases {
        let manifest = format!("{name}.yaml");
        let (after, ran) = fixed(&manifest, &before);
        let said = format!("{}{}exit {}\n", ran.stdout, ran.stderr, ran.status);
        let (text, golden) =
            (folder.join(format!("{name}.txt")), folder.join(format!("{name}.fixed.yaml")));
        if refresh {
            fs::write(&text, &said).unwrap();
            if after == before {
                let _ = fs::remove_file(&golden);
            } else {
                fs::write(&golden, &after).unwrap();
            }
        }
        assert_eq!(said, fs::read_to_string(&text).unwrap(), "{name}");
        let should = fs::read_to_string(&golden).unwrap_or_else(|_| before.clone());
        assert_eq!(after, should, "{name}");
        assert_eq!(ran.stderr.contains("fixed "), golden.exists(), "{name}: {}", ran.stderr);
        expected.extend([manifest, format!("{name}.txt")]);
        expected.extend(golden.exists().then(|| format!("{name}.fixed.yaml")));
    }
    let found: BTreeSet<String> = fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(found, expected, "a manifest, what is said, and what it becomes if it changes");
}

/// Lines go and lines come; no other byte changes.
#[test]
fn only_whole_lines_change() {
    let mut changed = 0;
    for (name, before) in cases() {
        let (after, _) = fixed(&format!("{name}.yaml"), &before);
        let mut own = before.split_inclusive('\n');
        for line in after.split_inclusive('\n') {
            let word = line.trim();
            let comes = word.starts_with("devices.example/")
                || word == "annotations:"
                || word == "metadata:";
            let is_own = own.clone().any(|own| own == line);
            assert!(comes || is_own, "{name}: {line:?} was not there");
            if is_own && !comes {
                assert!(own.any(|own| own == line), "{name}: {line:?} is out of order");
            }
        }
        changed += usize::from(after != before);
    }
    assert!(changed >= 14, "{changed}");
}

/// Over every manifest that the tests have: what is fixed is fixed, and line ends make no difference.
#[test]
fn fixing_again_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: String, text: &str| {
        fs::write(folder.path().join(name), text).unwrap();
    };
    let mut sources: Vec<(String, PathBuf)> = Vec::new();
    for place in ["tests/lint", "tests/lint/fix", "examples"] {
        for file in fs::read_dir(root().join(place)).unwrap() {
            let file = file.unwrap().path();
            let stem = file.file_stem().unwrap().to_str().unwrap().to_owned();
            if file.extension().is_some_and(|extension| extension == "yaml") {
                sources.push((format!("{}-{stem}", place.replace('/', "-")), file));
            }
        }
    }
    for case in fs::read_dir(root().join("tests/golden/cases")).unwrap() {
        let case = case.unwrap();
        let pod = case.path().join("pod.yaml");
        if pod.exists() {
            sources.push((format!("case-{}", case.file_name().to_str().unwrap()), pod));
        }
    }
    assert!(sources.len() >= 600, "{}", sources.len());
    let mut names = BTreeMap::new();
    for (name, file) in &sources {
        let text = fs::read_to_string(file).unwrap().replace("\r\n", "\n");
        write(format!("{name}.yaml"), &text);
        write(format!("{name}.crlf.yaml"), &text.replace('\n', "\r\n"));
        names.insert(name, text);
    }
    let read = |name: String| fs::read_to_string(folder.path().join(name)).unwrap();
    let first = lint(folder.path(), &["--fix", ".", "-o", "json"], "");
    assert!(first.status == 1, "{}", first.stderr);
    let mut once = BTreeMap::new();
    let mut changed = 0;
    for (name, before) in &names {
        let (lf, crlf) = (read(format!("{name}.yaml")), read(format!("{name}.crlf.yaml")));
        assert_eq!(crlf, lf.replace('\n', "\r\n"), "{name}");
        changed += usize::from(lf != *before);
        once.insert(*name, (lf, crlf));
    }
    assert!(changed >= 20, "{changed}");
    let second = lint(folder.path(), &["--fix", ".", "-o", "json"], "");
    assert!(!second.stderr.lines().any(|line| line.starts_with("fixed ")), "{}", second.stderr);
    for (name, (lf, crlf)) in once {
        assert_eq!(read(format!("{name}.yaml")), lf, "{name}");
        assert_eq!(read(format!("{name}.crlf.yaml")), crlf, "{name}");
    }
    // What is left is said again, and of the same lines.
    let left = |ran: &Ran| -> Vec<String> {
        let lines = ran.stderr.lines().filter(|line| line.contains(" stays as it is: "));
        lines.map(str::to_owned).collect()
    };
    assert!(left(&first).len() >= 20);
    assert_eq!(left(&first), left(&second));
}

#[test]
fn a_dry_run_shows_and_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let before = &cases()["pod"];
    let file = folder.path().join("pod.yaml");
    fs::write(&file, before).unwrap();
    let ran = lint(folder.path(), &["--fix", "--dry-run", "pod.yaml"], "");
    assert_eq!(fs::read_to_string(&file).unwrap(), *before);
    assert!(ran.stdout.starts_with("--- pod.yaml\n+++ pod.yaml\n@@ "), "{}", ran.stdout);
    assert!(ran.stdout.contains("\n+    devices.example/fuse: \"true\"\n"), "{}", ran.stdout);
    assert!(ran.stdout.contains("\n-      privileged: true\n"), "{}", ran.stdout);
    assert!(ran.stderr.starts_with("would fix pod.yaml: 1 pod\n"), "{}", ran.stderr);
    for arguments in [&["--dry-run", "pod.yaml"][..], &["--fix", "--dry-run", "-ojson", "pod.yaml"]]
    {
        assert_eq!(lint(folder.path(), arguments, "").status, 2, "{arguments:?}");
    }
}

#[test]
fn standard_input_stays() {
    let ran = lint(root(), &["--fix", "-"], &cases()["pod"]);
    let line =
        "note: <stdin>:1: Pod/mounter stays as it is: standard input cannot be written in place";
    assert!(ran.stderr.starts_with(line), "{}", ran.stderr);
    assert!(ran.stdout.starts_with("warning[DG024]: "), "{}", ran.stdout);
    assert_eq!(ran.status, 1, "it is linted all the same");
}

/// What the policies and the namespace say, the file cannot know.
#[test]
fn policies_and_namespaces_are_heard() {
    let folder = tempfile::tempdir().unwrap();
    let policy = fs::read_to_string(root().join("policies/fuse.yaml")).unwrap();
    let file = folder.path().join("pod.yaml");
    let policies = folder.path().join("policies");
    fs::create_dir(&policies).unwrap();
    let before = &cases()["pod"];
    fs::write(&file, before).unwrap();
    for (old, new, arguments, why) in [
        (
            "\nspec:\n",
            "\nspec:\n  enforcement: Shadow\n",
            &[][..],
            "the policy `fuse` only watches",
        ),
        ("action: Rewrite", "action: Warn", &[], "container `mounter` keeps `/dev/fuse`"),
        ("action: Rewrite", "action: Deny", &[], "it would be refused: DG023: "),
        (
            "privileged: true\n    action",
            "privileged: false\n    action",
            &[],
            "container `mounter` keeps",
        ),
        ("", "", &["--namespace-labels=a=b"], "namespace default lacks the label"),
        ("", "", &["--namespace=kube-system"], "pods in kube-system are never touched"),
        (
            "",
            "",
            &[
                "--namespace-labels=devices.example/grant=enabled,pod-security.kubernetes.io/enforce=restricted",
            ],
            "Pod Security",
        ),
    ] {
        let text = policy.replacen(old, new, 1);
        assert!(old.is_empty() || text != policy, "{old}");
        fs::write(policies.join("fuse.yaml"), text).unwrap();
        let common = ["--fix", "pod.yaml", "--policies", "policies"];
        let ran = lint(folder.path(), &[&common, arguments].concat(), "");
        let said = ran.stderr.lines().next().unwrap_or_default();
        assert!(
            said.contains("Pod/mounter stays as it is: ") && said.contains(why),
            "{why}: {said}"
        );
        assert_eq!(fs::read_to_string(&file).unwrap(), *before, "{why}");
    }
    // With `Ignore` there is no old shape.
    let text = policy.replacen("action: Rewrite", "action: Ignore", 1);
    fs::write(policies.join("fuse.yaml"), text).unwrap();
    let ran = lint(folder.path(), &["--fix", "pod.yaml", "--policies", "policies"], "");
    assert_eq!(ran.stderr, "0 errors, 0 warnings, 0 info in 1 pod of 1 file\n");
    // Another prefix is another key.
    let arguments = ["--fix", "pod.yaml", "--prefix", "grants.example"];
    lint(folder.path(), &arguments, "");
    let after = fs::read_to_string(&file).unwrap();
    assert!(after.contains("\n    grants.example/fuse: \"true\"\n"), "{after}");
}

/// A file that two paths lead to is fixed once, and read as it is then.
#[test]
fn a_file_may_be_named_twice() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("pod.yaml"), &cases()["pod"]).unwrap();
    let ran = lint(folder.path(), &["--fix", "pod.yaml", "."], "");
    let lines: Vec<&str> = ran.stderr.lines().collect();
    assert_eq!(
        lines,
        [
            "fixed pod.yaml: 1 pod",
            "note: what was fixed works only where the webhook runs and the namespace is opted in",
            "0 errors, 0 warnings, 0 info in 2 pods of 2 files"
        ]
    );
    let golden = root().join("tests/lint/fix/pod.fixed.yaml");
    let after = fs::read_to_string(folder.path().join("pod.yaml")).unwrap();
    assert_eq!(after, fs::read_to_string(golden).unwrap());
}

/// A folder of somebody else's may hold a link to any file of ours.
#[test]
fn a_link_in_a_folder_is_not_followed_to_write() {
    let folder = tempfile::tempdir().unwrap();
    let text = fs::read_to_string(root().join("tests/lint/fix/already-asking.yaml")).unwrap();
    let outside = folder.path().join("outside.yaml");
    fs::write(&outside, &text).unwrap();
    fs::create_dir(folder.path().join("in")).unwrap();
    std::os::unix::fs::symlink(&outside, folder.path().join("in/link.yaml")).unwrap();
    let ran = lint(folder.path(), &["--fix", "in"], "");
    assert_eq!(fs::read_to_string(&outside).unwrap(), text);
    assert!(ran.stderr.contains("it is a link"), "{}", ran.stderr);
    lint(folder.path(), &["--fix", "in/link.yaml"], "");
    assert_ne!(fs::read_to_string(&outside).unwrap(), text);
}
