//! What a person at kubectl sees: one folder a case, `object.yaml` and what is shown, `shown.txt`. What
//! follows the object's creation is in `commands.txt`, a line each, without `kubectl` and without quotes.
//! `DEVGRANT_REFRESH_GOLDEN=1` writes the latter again; the difference is for review.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use libtest_mimic::Trial;

use crate::control_plane::{ControlPlane, Plane};
use crate::golden_case::sorted;
use crate::webhook::Options;
use crate::{same_text, trial};

/// The least number of cases: a folder that got lost is noticed.
const AT_LEAST: usize = 15;

pub(crate) fn trials(plane: &Plane) -> Vec<Trial> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cluster/kubectl");
    let folders = sorted(&root);
    assert!(folders.len() >= AT_LEAST, "{} cases, at least {AT_LEAST} were there", folders.len());
    let of = |folder: PathBuf| {
        for file in sorted(&folder) {
            let known = ["object.yaml", "commands.txt", "shown.txt"];
            assert!(known.iter().any(|name| file.ends_with(name)), "stray file {}", file.display());
        }
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        trial(format!("kubectl::{name}"), plane, move |plane| {
            let shown = shown(plane, &name, &folder);
            let golden = folder.join("shown.txt");
            if std::env::var_os("DEVGRANT_REFRESH_GOLDEN").is_some() {
                fs::write(&golden, &shown).unwrap();
            }
            same_text(&shown, &fs::read_to_string(&golden).unwrap_or_default());
        })
    };
    let mut trials: Vec<Trial> = folders.into_iter().map(of).collect();
    trials.push(trial("kubectl::runs_and_completes_the_plugin", plane, |plane| plugin(plane)));
    trials
}

/// By the two names that README.md says to install it under.
fn plugin(plane: &ControlPlane) {
    let folder = tempfile::tempdir().unwrap();
    for name in ["kubectl-devgrant", "kubectl_complete-devgrant"] {
        symlink(env!("CARGO_BIN_EXE_devgrant"), folder.path().join(name)).unwrap();
    }
    let said = |words: &[&str]| {
        let mut kubectl = plane.kubectl();
        // Devgrant refuses variables that it does not know, such as those of the tests.
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("DEVGRANT_")) {
            kubectl.env_remove(name);
        }
        let output = kubectl.env("PATH", folder.path()).args(words).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(said(&["devgrant", "policy", "show", "kvm"]).contains("/dev/kvm"));
    let completed = said(&["__complete", "devgrant", "policy", "sh"]);
    assert!(completed.starts_with("show\t"), "{completed}");
}

/// What kubectl shows of the object of a case: of a workload, when it is applied.
fn shown(plane: &ControlPlane, name: &str, folder: &Path) -> String {
    let mut options = Options::default();
    if name.starts_with("baseline-") {
        let level = "pod-security.kubernetes.io/enforce".to_owned();
        options.labels.insert(level, "baseline".to_owned());
    }
    let verb = if name.starts_with("advised-") { "apply" } else { "create" };
    let namespace = plane.webhook(&options).namespace(plane);
    let created = format!("{verb} -f object.yaml");
    let others = fs::read_to_string(folder.join("commands.txt")).unwrap_or_default();
    let mut shown = String::new();
    for command in std::iter::once(created.as_str()).chain(others.lines()) {
        let output = plane
            .kubectl()
            .current_dir(folder)
            .args(["--namespace", &namespace])
            .args(command.split(' '))
            .output()
            .unwrap();
        writeln!(shown, "$ kubectl {command}").unwrap();
        shown.push_str(&String::from_utf8(output.stdout).unwrap());
        shown.push_str(&String::from_utf8(output.stderr).unwrap());
    }
    shown.replace(&namespace, "<namespace>")
}
