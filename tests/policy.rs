#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on says where and stops"
)]
//! What is wrong with a policy file, and where: one folder a case, a closed set.
//!
//! A case is one or more `.yaml` files; `problems.txt` is what compiling them together says, each
//! problem with its place and under it the text at that place. `DEVGRANT_REFRESH_GOLDEN=1 cargo test
//! --test policy` writes it and `policies/schema.json` again; the difference is for review.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use devgrant::decision::policy::json_schema;
use devgrant::decision::policy::problem::{Problem, Severity};
use devgrant::decision::{PolicySet, PolicySource, Settings};
use serde_json::Value;

/// The least number of cases: a folder that got lost is noticed.
const AT_LEAST: usize = 75;
/// The start of the sentence for what is no YAML at all, which no schema can judge.
const UNREADABLE: &str = "the file is not one YAML document";

#[test]
fn every_case_says_what_its_folder_says() {
    let mut failures = Vec::new();
    let cases = cases();
    for case in &cases {
        let name = name_of(case);
        for file in sorted(case) {
            let known = name_of(&file) == "problems.txt" || is_yaml(&file);
            if !known {
                failures.push(format!("{name}: stray file {}", name_of(&file)));
            }
        }
        let sources = sources(case);
        assert!(!sources.is_empty(), "{name}: a case has at least one policy file");
        let told = match PolicySet::compile(&sources, Settings::default()) {
            Ok(_) => {
                failures.push(format!("{name}: nothing is wrong here"));
                continue;
            }
            Err(problems) => told(&problems, &sources),
        };
        let path = case.join("problems.txt");
        if refresh() {
            fs::write(&path, &told).unwrap();
        } else if fs::read_to_string(&path).unwrap_or_default() != told {
            failures.push(format!("{name}: problems.txt differs; now:\n{told}"));
        }
    }
    assert!(failures.is_empty(), "{} failures\n{}", failures.len(), failures.join("\n"));
    assert!(cases.len() >= AT_LEAST, "{} cases, at least {AT_LEAST} were there", cases.len());
}

/// The place of a problem is inside of its file, and the order is that of a reader.
#[test]
fn every_problem_has_a_place() {
    for case in cases() {
        let sources = sources(&case);
        let problems = PolicySet::compile(&sources, Settings::default()).unwrap_err();
        let order = |problem: &Problem| {
            let file = sources.iter().position(|source| source.file == problem.file).unwrap();
            (file, problem.span.start)
        };
        assert!(problems.is_sorted_by_key(order), "{}: not in order", name_of(&case));
        for problem in &problems {
            let place = text_at(problem, &sources);
            // Only what stands nowhere has an empty place, and of a block only its start is known.
            let nowhere = is_unreadable(problem)
                || problem.message.contains(" is empty, and must be ")
                || problem.message.contains(" is a list, and must be ")
                || problem.message.contains(" is a mapping, and must be ");
            assert!(
                nowhere || !place.trim().is_empty(),
                "{}: `{}` points at nothing",
                name_of(&case),
                problem.message
            );
            assert!(!problem.message.ends_with('.'), "{}", problem.message);
        }
    }
}

#[test]
fn the_published_schema_is_the_one_of_the_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("policies/schema.json");
    let schema = serde_json::to_string_pretty(&json_schema()).unwrap() + "\n";
    if refresh() {
        fs::write(&path, &schema).unwrap();
    }
    let published = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        published == schema,
        "policies/schema.json is not the code's schema; DEVGRANT_REFRESH_GOLDEN=1 writes it again"
    );
}

/// An outside judge reads the schema as ours does: the two agree on every file about whether its shape
/// is right.
#[test]
fn an_outside_judge_agrees_on_every_shape() {
    let judge = jsonschema::validator_for(&json_schema()).unwrap();
    let folders = cases().into_iter().chain([shipped()]);
    for source in folders.flat_map(|folder| sources(&folder)) {
        let alone = std::slice::from_ref(&source);
        let problems = match PolicySet::compile(alone, Settings::default()) {
            Ok(_) => Vec::new(),
            Err(problems) => problems,
        };
        let Ok(document) = serde_saphyr::from_str::<Value>(&source.text) else {
            let unreadable = problems.iter().any(is_unreadable);
            assert!(unreadable, "{}: unreadable, and not told so", source.file);
            continue;
        };
        if problems.iter().any(is_unreadable) {
            continue;
        }
        let wrong: Vec<&str> = problems
            .iter()
            .filter(|problem| is_of_shape(problem))
            .map(|problem| problem.message.as_str())
            .collect();
        assert_eq!(
            judge.is_valid(&document),
            wrong.is_empty(),
            "{}: we say {wrong:?}, jsonschema says {:?}",
            source.text,
            judge.iter_errors(&document).map(|error| error.to_string()).collect::<Vec<_>>()
        );
    }
}

#[test]
fn shipped_policies_compile_without_a_word() {
    let sources = sources(&shipped());
    assert!(sources.len() >= 10, "{} shipped policies", sources.len());
    let set = PolicySet::compile(&sources, Settings::default())
        .unwrap_or_else(|problems| panic!("{}", told(&problems, &sources)));
    assert_eq!(set.notes(), [], "{}", told(set.notes(), &sources));
    assert_eq!(set.policies().len(), sources.len());
}

/// Notes alone do not stand in the way.
#[test]
fn a_spelling_is_noted_and_taken() {
    let text = "apiVersion: devgrant/v1alpha1\nkind: DevicePolicy\nmetadata: { name: cam }\nspec:\n  device: cam\n  defaultMode: plain\n  modes: { plain: { capabilities: [cap_sys_admin] } }\n";
    let sources = [PolicySource { file: "cam.yaml".to_owned(), text: text.to_owned() }];
    let set = PolicySet::compile(&sources, Settings::default()).unwrap();
    let (_, mode) = set.find("cam").unwrap().mode("plain").unwrap();
    assert_eq!(mode.capabilities, ["SYS_ADMIN"]);
    assert!(set.notes().iter().all(|note| note.severity == Severity::Note));
    assert_eq!(
        told(set.notes(), &sources).lines().next().unwrap(),
        "cam.yaml:7:36: note: `cap_sys_admin` is read as `SYS_ADMIN` () help: containerd and runc ignore `CAP_SYS_ADMIN` in silence: Kubernetes spells capabilities in upper case without `CAP_`"
    );
}

fn is_unreadable(problem: &Problem) -> bool {
    problem.message.starts_with(UNREADABLE) || problem.message == "the file is empty"
}

/// What the shape says, by the sentences of `policy/shape.rs`: everything else is a matter of names and
/// combinations, which a schema cannot say.
fn is_of_shape(problem: &Problem) -> bool {
    let message = &problem.message;
    message.contains(" has no field `")
        || message.contains(" lacks the field `")
        || message.contains(" has no value `")
        || message.contains(", and must be ")
        || problem.label.starts_with("expected ")
}

/// `file:line:column: severity: message (label) help: …`, and under it the text at that place.
fn told(problems: &[Problem], sources: &[PolicySource]) -> String {
    let mut told = String::new();
    for problem in problems {
        let text = &sources.iter().find(|source| source.file == problem.file).unwrap().text;
        let before = text.get(..problem.span.start).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        let severity = match problem.severity {
            Severity::Error => "error",
            Severity::Note => "note",
        };
        let Problem { file, message, label, .. } = problem;
        write!(told, "{file}:{line}:{column}: {severity}: {message} ({label})").unwrap();
        if let Some(help) = &problem.help {
            write!(told, " help: {help}").unwrap();
        }
        let place = text_at(problem, sources);
        let first = place.lines().next().unwrap_or_default();
        let more = if place.trim_end().contains('\n') { " …" } else { "" };
        let shown: String = first.trim_end().chars().take(60).collect();
        writeln!(told, "\n  | {shown}{more}").unwrap();
    }
    told
}

fn text_at<'a>(problem: &Problem, sources: &'a [PolicySource]) -> &'a str {
    let source = sources.iter().find(|source| source.file == problem.file).unwrap();
    source
        .text
        .get(problem.span.clone())
        .unwrap_or_else(|| panic!("{}: {:?} cuts a character", problem.message, problem.span))
}

fn cases() -> Vec<PathBuf> {
    sorted(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/policies"))
}

fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("policies")
}

fn refresh() -> bool {
    std::env::var_os("DEVGRANT_REFRESH_GOLDEN").is_some()
}

fn sources(folder: &Path) -> Vec<PolicySource> {
    let files = sorted(folder).into_iter().filter(|path| is_yaml(path));
    files
        .map(|path| PolicySource { file: name_of(&path), text: fs::read_to_string(path).unwrap() })
        .collect()
}

fn is_yaml(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == "yaml")
        && !name_of(path).ends_with(".test.yaml")
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

fn sorted(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    paths
}
