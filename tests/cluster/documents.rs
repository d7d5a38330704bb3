//! What the pages say of Kubernetes names the trial that shows it: each that is named is there.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use libtest_mimic::Trial;

use crate::golden_case::sorted;

/// The pages, and folders of pages.
const PAGES: [&str; 7] = [
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "certs/README.md",
    "policies/README.md",
    "docs",
    "docs/findings",
];
/// The least number of names: a search that finds none is noticed.
const AT_LEAST: usize = 40;

pub(crate) fn trial(others: &[Trial]) -> Trial {
    let names: BTreeSet<String> = others.iter().map(|trial| trial.name().to_owned()).collect();
    Trial::test("documents::trials_that_they_name_are_there", move || {
        let topics: BTreeSet<&str> =
            names.iter().filter_map(|name| name.split("::").next()).collect();
        let mut count = 0;
        let mut missing = Vec::new();
        for (page, text) in pages() {
            for quoted in text.split('`').skip(1).step_by(2) {
                let topic = quoted.split_once("::").map(|(topic, _)| topic);
                if !topic.is_some_and(|topic| topics.contains(topic)) {
                    continue;
                }
                count += 1;
                if !names.iter().any(|name| names_trial(quoted, name)) {
                    missing.push(format!("{page}: {quoted}"));
                }
            }
        }
        assert_eq!(missing, Vec::<String>::new());
        assert!(count >= AT_LEAST, "{count} names, at least {AT_LEAST} were there");
        Ok(())
    })
}

/// Whether a page means a trial: by its whole name, by its topic (`reach::`), or by what stands before a
/// colon or a space of its name (`claims::DG012`).
fn names_trial(quoted: &str, name: &str) -> bool {
    name.strip_prefix(quoted).is_some_and(|rest| {
        rest.is_empty() || quoted.ends_with("::") || rest.starts_with(':') || rest.starts_with(' ')
    })
}

fn pages() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for page in PAGES {
        let path = root.join(page);
        files.extend(if path.is_dir() { sorted(&path) } else { vec![path] });
    }
    files.retain(|file| file.extension().is_some_and(|extension| extension == "md"));
    let read = |file: &std::path::PathBuf| {
        let name = file.strip_prefix(root).unwrap().display().to_string();
        (name, fs::read_to_string(file).unwrap())
    };
    files.iter().map(read).collect()
}
