//! The command as a person runs it: every verb, every exit status, and what is said about bad input.
//!
//! What a decision *is* belongs to `tests/cli_decision.rs` and the golden cases; nothing here asks for a
//! device.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests are outside of what allow-unwrap-in-tests covers"
)]

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

#[path = "support/ran.rs"]
mod ran;
use ran::{Ran, program};

fn run_with(arguments: &[&str], stdin: &str, environment: &[(&str, &str)]) -> Ran {
    let mut command = program();
    command.current_dir(folder()).args(arguments).envs(environment.iter().copied());
    Ran::of(command.write_stdin(stdin))
}

fn run(arguments: &[&str]) -> Ran {
    run_with(arguments, "", &[])
}

/// Runs, and gives the results; nothing else may have been said.
#[track_caller]
fn fine(arguments: &[&str]) -> String {
    let ran = run(arguments);
    assert_eq!((ran.status, ran.stderr.as_str()), (0, ""), "{arguments:?}");
    ran.stdout
}

/// Runs, and expects this exit status and all of these words in the message.
#[track_caller]
fn fails(arguments: &[&str], stdin: &str, environment: &[(&str, &str)], words: &[&str]) {
    let ran = run_with(arguments, stdin, environment);
    assert_eq!(ran.status, 2, "{arguments:?}: {}", ran.stderr);
    assert_eq!(ran.stdout, "", "{arguments:?}");
    assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
    for word in words {
        assert!(ran.stderr.contains(word), "{arguments:?}: {}\nshould say: {word}", ran.stderr);
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli")
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

mod admit {
    use super::*;

    #[test]
    fn answers_with_the_uid() {
        let answer = json(&fine(&["admit", "-f", "review.json"]));
        assert_eq!(answer["response"]["uid"], "705ab4f5-6393-11e8-b7cc-42010a800002");
        assert_eq!(answer["response"]["allowed"], true);
    }

    #[test]
    fn answers_the_same_from_standard_input() {
        let review = std::fs::read_to_string("tests/cli/review.json").unwrap();
        let ran = run_with(&["admit", "-f", "-"], &review, &[]);
        assert_eq!((ran.status, ran.stdout), (0, fine(&["admit", "-f", "review.json"])));
    }

    #[test]
    fn what_cannot_be_answered_is_said() {
        for (stdin, word) in [
            ("", "<stdin>: the body is empty"),
            ("{", "is not one JSON document"),
            ("1", "is no AdmissionReview"),
            (r#"{"apiVersion": "v1", "kind": "Pod"}"#, "apiVersion `v1` is not served"),
            (
                r#"{"apiVersion": "v1", "kind": "Pod"}"#,
                "; this is a Pod: `devgrant patch -f` and `devgrant explain -f` take that",
            ),
            ("apiVersion: v1\nkind: Job\n", "; this is YAML, of the kind Job: `devgrant patch -f`"),
            (
                r#"{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {}}"#,
                "`request.uid` is missing",
            ),
        ] {
            fails(&["admit", "-f", "-"], stdin, &[], &[word, "devgrant: error: "]);
        }
    }
}

mod patch {
    use super::*;

    #[test]
    fn nothing_asked_nothing_changes() {
        let ran = run(&["patch", "-f", "manifests/10-pod.yaml"]);
        assert_eq!(
            (ran.status, ran.stdout.as_str(), ran.stderr.as_str()),
            (0, "", "note: nothing changes\n")
        );
        assert_eq!(
            json(&fine(&["patch", "-f", "manifests/10-pod.yaml", "-o", "patch"])),
            json!([])
        );
    }

    #[test]
    fn yaml_comes_out_in_order_and_reads_the_same() {
        let text = std::fs::read_to_string("tests/cli/manifests/10-pod.yaml").unwrap();
        assert_eq!(fine(&["patch", "-f", "manifests/10-pod.yaml", "-o", "yaml"]), text);
    }

    #[test]
    fn folders_are_read_in_name_order_and_others_passed_by() {
        let ran = run(&["patch", "-f", "manifests", "-o", "json"]);
        assert_eq!(ran.status, 0, "{}", ran.stderr);
        let list = json(&ran.stdout);
        let kinds: Vec<_> =
            list["items"].as_array().unwrap().iter().map(|item| &item["kind"]).collect();
        assert_eq!(kinds, [&json!("Pod"), &json!("Service"), &json!("Job"), &Value::Null]);
        assert!(
            ran.stderr.contains(
                "20-service.yaml: document 1 (line 1): Service/plain holds no pod; passed by"
            ),
            "{}",
            ran.stderr
        );
        assert!(
            ran.stderr.contains("values.yaml: document 1 (line 1) has no `kind`"),
            "{}",
            ran.stderr
        );
    }

    #[test]
    fn many_documents_and_files_come_out_as_one_list() {
        let pod = "kind: Pod\nspec: {containers: [{name: c}]}\n";
        let stdin = format!("{pod}---\n{pod}---\n");
        let ran = run_with(
            &["patch", "-f", "-", "-f", "manifests/10-pod.yaml", "-o", "patch"],
            &stdin,
            &[],
        );
        assert_eq!(ran.status, 0, "{}", ran.stderr);
        assert_eq!(
            json(&ran.stdout),
            json!([
                {"file": "<stdin>", "document": 1, "kind": "Pod", "name": "", "patch": []},
                {"file": "<stdin>", "document": 2, "kind": "Pod", "name": "", "patch": []},
                {"file": "manifests/10-pod.yaml", "document": 1, "kind": "Pod", "name": "plain", "patch": []},
            ])
        );
    }

    #[test]
    fn input_that_cannot_be_read_is_said() {
        for (files, stdin, words) in [
            (&["missing.yaml"][..], "", &["cannot read missing.yaml: No such file"][..]),
            (&["empty"], "", &["the folder empty holds no *.yaml"]),
            (
                &["manifests/20-service.yaml"],
                "",
                &["nothing in manifests/20-service.yaml holds a pod"],
            ),
            (&["manifests/values.yaml"], "", &["values.yaml: document 1 (line 1) has no `kind`"]),
            (&["-"], "", &["nothing in <stdin> holds a pod"]),
            (&["-"], "a: b\n---\na: [\n", &["<stdin>: document 2: line 3"]),
            (
                &["-"],
                "just words\n",
                &["<stdin>: document 1 (line 1) is a string, and no Kubernetes object"],
            ),
            (
                &["-"],
                "kind: Pod\n",
                &["<stdin>: document 1 (line 1) is no Pod: `/spec` is missing"],
            ),
            (&["-"], "kind: Pod\nname: {{ .Values.name }}: x\n", &["helm template"]),
        ] {
            let mut arguments = vec!["patch"];
            for file in files {
                arguments.extend(["-f", file]);
            }
            fails(&arguments, stdin, &[], words);
        }
    }

    #[test]
    fn an_empty_list_is_no_error() {
        let list = r#"{"apiVersion": "v1", "kind": "List", "items": []}"#;
        let ran = run_with(&["patch", "-f", "-", "-o", "json"], list, &[]);
        assert_eq!((ran.status, json(&ran.stdout)), (0, json(list)), "{}", ran.stderr);
        assert!(ran.stderr.contains("note: <stdin>: document 1: List/(no name) holds no pod"));
        let ran = run_with(&["explain", "-f", "-", "-o", "json"], list, &[]);
        assert_eq!((ran.status, json(&ran.stdout)), (0, json!([])), "{}", ran.stderr);
    }

    #[test]
    fn bytes_that_are_no_text_are_said() {
        let bytes = b"\xff\xfe".as_slice();
        let ran = Ran::of(program().args(["patch", "-f", "-"]).write_stdin(bytes));
        assert_eq!(ran.status, 2);
        assert!(ran.stderr.contains("<stdin> is not UTF-8 text"), "{}", ran.stderr);
    }

    #[test]
    fn the_examples_are_read() {
        let ran = run(&["patch", "-f", "../../examples", "-o", "yaml"]);
        assert_ne!(ran.status, 2, "{}", ran.stderr);
    }
}

mod explain {
    use super::*;

    #[test]
    fn reads_its_input_as_patch_does() {
        fails(&["explain", "-f", "missing.yaml"], "", &[], &["cannot read missing.yaml"]);
    }
}

mod policy {
    use super::*;

    #[test]
    fn check_says_how_many_and_the_digest() {
        let line = fine(&["policy", "check", "policies"]);
        assert!(line.starts_with("1 policy, digest sha256:"), "{line}");
        let shipped = fine(&["policy", "check"]);
        assert!(shipped.contains("digest sha256:"), "{shipped}");
    }

    #[test]
    fn check_says_which_folders_it_passes_by() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("gpu")).unwrap();
        std::fs::create_dir_all(folder.path().join(".git")).unwrap();
        std::fs::copy("tests/cli/policies/fuse.yaml", folder.path().join("fuse.yaml")).unwrap();
        let ran = run(&["policy", "check", &folder.path().display().to_string()]);
        let sub = folder.path().join("gpu");
        assert_eq!(
            (ran.status, ran.stderr),
            (
                0,
                format!(
                    "note: {} was passed by: name it too, if it holds policies\n",
                    sub.display()
                )
            )
        );
    }

    #[test]
    fn check_draws_what_is_wrong() {
        let ran = run(&["policy", "check", "bad-policies"]);
        assert_eq!(ran.status, 2, "{}", ran.stderr);
        for part in ["devize", "--> bad-policies/fuse.yaml:"] {
            assert!(ran.stdout.contains(part), "the problems are the result: {}", ran.stdout);
        }
        for part in ["in 1 policy file", "devgrant: error: "] {
            assert!(ran.stderr.contains(part), "{}", ran.stderr);
        }
    }

    #[test]
    fn bad_policies_stop_every_verb() {
        for verb in [
            &["patch", "-f", "manifests/10-pod.yaml"][..],
            &["policy", "list"],
            &["admit", "-f", "review.json"],
        ] {
            let arguments: Vec<&str> =
                verb.iter().copied().chain(["--policies", "bad-policies"]).collect();
            fails(&arguments, "", &[], &["bad-policies/fuse.yaml"]);
        }
    }

    #[test]
    fn folders_that_hold_no_policies_are_said() {
        for (folder, word) in [
            ("missing", "cannot read the policy folder missing: No such file"),
            (
                "empty",
                "the policy folder empty holds no *.yaml; name another, or set --allow-empty-policies",
            ),
            ("review.json", "the policy folder review.json is a file"),
        ] {
            fails(&["policy", "check", folder], "", &[], &[word]);
            fails(&["policy", "list", "--policies", folder], "", &[], &[word]);
        }
        let allowed = fine(&["policy", "check", "empty", "--allow-empty-policies"]);
        assert!(allowed.starts_with("0 policies"), "{allowed}");
    }

    #[test]
    fn list_marks_the_default_mode() {
        let table = fine(&["policy", "list", "--policies", "policies"]);
        assert!(table.starts_with("DEVICE  POLICY  COUNT"), "{table}");
        assert!(table.contains("policies/fuse.yaml  mount* rootless\n"), "{table}");
        let listed = json(&fine(&["policy", "list", "--policies", "policies", "-o", "json"]));
        assert_eq!(listed[0]["device"], "fuse");
        assert_eq!(listed[0]["defaultMode"], "mount");
        assert_eq!(listed[0]["count"], json!({"default": 1, "max": 1}));
        assert_eq!(listed[0]["file"], "policies/fuse.yaml");
    }

    #[test]
    fn list_marks_the_modes_that_must_be_named() {
        let table = fine(&["policy", "list"]);
        assert!(table.contains(" privileged! "), "{table}");
        let listed = json(&fine(&["policy", "list", "-o", "json"]));
        assert_eq!(listed[0]["privilegedModes"], json!(["privileged"]));
        assert_eq!(listed[1]["privilegedModes"], json!([]));
    }

    #[test]
    fn show_prints_a_policy_that_reads_back() {
        let shown = fine(&["policy", "show", "fuse", "--policies", "policies"]);
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("fuse.yaml"), &shown).unwrap();
        let again =
            fine(&["policy", "show", "fuse", "--policies", &folder.path().display().to_string()]);
        assert_eq!(shown, again);
        let as_json =
            json(&fine(&["policy", "show", "fuse", "--policies", "policies", "-o", "json"]));
        assert_eq!(as_json["spec"]["device"], "fuse");
        fails(
            &["policy", "show", "fusee", "--policies", "policies"],
            "",
            &[],
            &["no policy for the device `fusee`; did you mean `fuse`"],
        );
    }

    #[test]
    fn schema_is_the_file_that_is_published() {
        let published = std::fs::read_to_string("policies/schema.json").unwrap();
        assert_eq!(
            fine(&["policy", "schema"]),
            published,
            "write it again: devgrant policy schema > policies/schema.json"
        );
    }
}

mod config {
    use super::*;

    #[test]
    fn what_is_printed_reads_back_the_same() {
        let arguments = [
            "serve",
            "--print-config",
            "--standalone",
            "--names",
            "a.example,10.0.0.1",
            "--kubernetes-version",
            "1.30",
            "--namespace-labels",
            "team=data",
        ];
        let printed = fine(&arguments);
        assert!(printed.contains("listen: 127.0.0.1:8443\n"), "{printed}");
        assert!(printed.contains("kubernetesVersion: \"1.30\"\n"), "{printed}");
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("devgrant.yaml");
        std::fs::write(&file, &printed).unwrap();
        let file = file.display().to_string();
        assert_eq!(fine(&["serve", "--print-config", "--config", &file]), printed);
        let ran = run_with(&["serve", "--print-config"], "", &[("DEVGRANT_CONFIG", file.as_str())]);
        assert_eq!(ran.stdout, printed);
    }

    #[test]
    fn the_environment_is_heard() {
        let environment = [
            ("DEVGRANT_PREFIX", "grants.example"),
            ("POD_NAMESPACE", "grants"),
            ("DEVGRANT_PORT_443_TCP", "tcp://10.0.0.1:443"),
        ];
        let ran = run_with(&["serve", "--print-config"], "", &environment);
        assert_eq!(ran.status, 0, "{}", ran.stderr);
        assert!(
            ran.stdout.starts_with("prefix: grants.example\nownNamespace: grants\n"),
            "{}",
            ran.stdout
        );
    }

    #[test]
    fn what_is_misspelled_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("devgrant.yaml");
        std::fs::write(&file, "user: x\nprefx: a.b\n").unwrap();
        let file = file.display().to_string();
        for (arguments, environment, words) in [
            (
                &["policy", "list", "--config", file.as_str()][..],
                &[][..],
                &["devgrant.yaml: line 2: no such key `prefx`; did you mean `prefix`?"][..],
            ),
            (
                &["policy", "list"],
                &[("DEVGRANT_PREFX", "a")],
                &["variable DEVGRANT_PREFX: no such key; did you mean DEVGRANT_PREFIX?"],
            ),
            (
                &["policy", "list"],
                &[("DEVGRANT_PREFIX", "A/b")],
                &["variable DEVGRANT_PREFIX: `A/b` is no DNS-1123 subdomain"],
            ),
            (
                &["policy", "list", "--config", "missing.yaml"],
                &[],
                &["cannot read the configuration file missing.yaml: No such file"],
            ),
            (
                &["serve", "--listen", "8443"],
                &[],
                &["flag --listen: `8443` is no address; write ADDRESS:PORT"],
            ),
            (&["serve", "--head-timeout", "5"], &[], &["flag --head-timeout: `5` is no duration"]),
            (
                &["serve", "--print-config", "--log-level", "warning"],
                &[],
                &["flag --log-level: `warning` is no log level; did you mean `warn`"],
            ),
            (
                &["serve", "--kubernetes-version", "latest"],
                &[],
                &["flag --kubernetes-version: `latest` is no Kubernetes version"],
            ),
        ] {
            fails(arguments, "", environment, words);
        }
    }
}

mod usage {
    use super::*;

    #[test]
    fn the_help_says_that_no_other_labels_are_there() {
        let help = fine(&["explain", "--help"]);
        let words = help.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words.contains("and no others but that of its name"), "{help}");
    }

    #[test]
    fn a_misspelled_flag_is_suggested() {
        fails(&["patch", "--polices", "x", "-f", "a"], "", &[], &["'--policies'"]);
        fails(&["ptach"], "", &[], &["'patch'"]);
        fails(&["patch"], "", &[], &["--file"]);
        fails(&["patch", "-f", "a", "-o", "xml"], "", &[], &["diff", "yaml"]);
        fails(&["patch", "-f", "a", "--on-invalid", "maybe"], "", &[], &["write `Deny` or `Warn`"]);
        fails(&["patch", "-f", "a", "--namespace-labels", "team"], "", &[], &["write key=value"]);
        fails(&["serve", "--tls-cert", "a"], "", &[], &["--tls-key"]);
        fails(&[], "", &[], &["Usage: devgrant"]);
    }

    #[test]
    fn help_and_version_are_results() {
        assert!(fine(&["--help"]).contains("Usage: devgrant"));
        assert_eq!(fine(&["--version"]), format!("devgrant {}\n", env!("CARGO_PKG_VERSION")));
    }

    #[test]
    fn completions_and_manual_are_there() {
        for shell in ["bash", "zsh", "fish"] {
            let text = fine(&["completions", shell]);
            assert!(text.contains("print-config"), "{shell}");
        }
        assert!(fine(&["man"]).contains(".TH devgrant 1"));
        assert!(fine(&["man", "serve"]).contains("devgrant\\-serve"));
        fails(&["man", "sreve"], "", &[], &["there is no verb `sreve`; the verbs are `admit`"]);
    }

    #[test]
    fn completions_parse_in_bash() {
        // Elsewhere than under `cargo test` on a machine without bash this proves nothing, so it is
        // said in the output and not failed.
        let Ok(mut bash) = Command::new("bash").arg("-n").stdin(Stdio::piped()).spawn() else {
            eprintln!("no bash here");
            return;
        };
        std::io::Write::write_all(
            &mut bash.stdin.take().unwrap(),
            fine(&["completions", "bash"]).as_bytes(),
        )
        .unwrap();
        assert!(bash.wait().unwrap().success());
    }

    #[test]
    fn colour_is_for_terminals_or_when_asked_for() {
        let bad = ["policy", "check", "bad-policies"];
        let escape = '\u{1b}';
        for (flags, environment, colour) in [
            (&[][..], &[][..], false),
            (&["--color", "always"], &[], true),
            (&["--color", "never"], &[("CLICOLOR_FORCE", "1")], false),
            (&[], &[("CLICOLOR_FORCE", "1")], true),
            (&[], &[("NO_COLOR", "1")], false),
        ] {
            let arguments: Vec<&str> = bad.iter().chain(flags).copied().collect();
            let ran = run_with(&arguments, "", environment);
            assert_eq!(ran.stderr.contains(escape), colour, "{flags:?} {environment:?}");
        }
        assert!(!fine(&["policy", "list"]).contains(escape));
        assert!(fine(&["policy", "list", "--color", "always"]).contains(escape));
    }

    #[test]
    fn a_reader_that_has_seen_enough_is_no_error() {
        for arguments in
            [&["completions", "bash"][..], &["policy", "schema"], &["--help"], &["man"]]
        {
            let mut child = Command::new(env!("CARGO_BIN_EXE_devgrant"))
                .env_clear()
                .args(arguments)
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            drop(child.stdout.take());
            let mut stderr = String::new();
            child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
            let status = child.wait().unwrap();
            assert_eq!((status.code(), stderr.as_str()), (Some(0), ""), "{arguments:?}");
        }
    }
}
