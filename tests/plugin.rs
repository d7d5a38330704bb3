//! The program as kubectl runs it: under the names `kubectl-devgrant` and `kubectl_complete-devgrant`.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests are outside of what allow-unwrap-in-tests covers"
)]

use std::fs;
use std::os::unix::fs::symlink;
use std::process::{Command, Output};

/// What cobra's scripts understand: no names of files from the shell, and also no space.
const NO_FILES: &str = ":4";
const NO_FILES_NO_SPACE: &str = ":6";

#[test]
fn usage_lines_say_what_a_person_types() {
    for (words, usage) in [
        (&["--help"][..], "Usage: kubectl devgrant [OPTIONS] <COMMAND>\n"),
        (&["patch", "--help"], "Usage: kubectl devgrant patch "),
        (&["policy", "show", "--help"], "Usage: kubectl devgrant policy show "),
    ] {
        let output = run("kubectl-devgrant", words);
        assert!(output.status.success(), "{words:?}");
        let help = String::from_utf8(output.stdout).unwrap();
        assert!(help.contains(usage), "{words:?}: {help}");
        assert!(!help.contains("kubectl-devgrant"), "{words:?}: {help}");
    }
    let output = run("kubectl-devgrant", &["pach"]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.contains("Usage: kubectl devgrant "), "{error}");
}

#[test]
fn another_name_means_nothing() {
    for name in ["devgrant", "devgrant-0.1.0", "my-kubectl-devgrant"] {
        let help = String::from_utf8(run(name, &["--help"]).stdout).unwrap();
        assert!(help.contains(&format!("Usage: {name} ")), "{help}");
    }
}

#[test]
fn the_plugin_answers_as_the_program_does() {
    let words = ["policy", "show", "kvm"];
    let (one, other) = (run("devgrant", &words), run("kubectl-devgrant", &words));
    assert!(one.status.success());
    assert_eq!(one, other);
}

#[test]
fn verbs_are_completed_with_what_they_do() {
    let said = completions(&["p"]);
    assert_eq!(
        said,
        [
            "patch\tShow what comes out for pods and everything that holds a pod template",
            "policy\tLook into the policy set",
            NO_FILES,
        ]
    );
    // kubectl always passes the word to complete, also an empty one; nothing at all means the same.
    let (empty, nothing) = (completions(&[""]), completions(&[]));
    assert_eq!(empty, nothing);
    assert!(empty.iter().any(|line| line.starts_with("serve\t")), "{empty:?}");
    assert!(completions(&["policy", "sh"]).iter().any(|line| line.starts_with("show\t")));
    assert_eq!(completions(&["no-such-verb", "--no-such"]), [NO_FILES]);
}

#[test]
fn flags_and_their_values_are_completed() {
    let said = completions(&["patch", "--out"]);
    assert!(matches!(&said[..], [flag, _] if flag.starts_with("--output\t")), "{said:?}");
    let values = |words: &[&str]| -> Vec<String> {
        let said = completions(words);
        said.iter().map(|line| line.split('\t').next().unwrap_or_default().to_owned()).collect()
    };
    let formats = ["diff", "json", "patch", "yaml", NO_FILES];
    assert_eq!(values(&["patch", "-o", ""]), formats);
    assert_eq!(values(&["patch", "--output", ""]), formats);
    // The scripts put `--output=` before each themselves.
    assert_eq!(values(&["patch", "--output="]), formats);
    assert_eq!(values(&["patch", "--output=y"]), ["yaml", NO_FILES]);
}

#[test]
fn files_are_completed_and_folders_go_on() {
    assert_eq!(completions(&["lint", "ma"]), ["manifests/", NO_FILES_NO_SPACE]);
    assert_eq!(completions(&["lint", "manifests/"]), ["manifests/pod.yaml", NO_FILES]);
    assert_eq!(completions(&["patch", "-f", "manifests/p"]), ["manifests/pod.yaml", NO_FILES]);
    assert_eq!(completions(&["lint", "nothing-begins-so"]), [NO_FILES]);
}

/// What kubectl reads of the program.
#[track_caller]
fn completions(words: &[&str]) -> Vec<String> {
    let output = run("kubectl_complete-devgrant", words);
    assert!(output.status.success(), "{words:?}");
    assert!(output.stderr.is_empty(), "{words:?}");
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// Runs a link of this name to the program, in a folder with one manifest.
fn run(name: &str, words: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    for name in ["bin", "manifests"] {
        fs::create_dir(folder.path().join(name)).unwrap();
    }
    fs::write(folder.path().join("manifests/pod.yaml"), "").unwrap();
    let link = folder.path().join("bin").join(name);
    symlink(env!("CARGO_BIN_EXE_devgrant"), &link).unwrap();
    Command::new(link).args(words).env_clear().current_dir(folder.path()).output().unwrap()
}
