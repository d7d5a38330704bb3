//! What can be known of the image without a container engine: that deploy/Dockerfile copies what is
//! there, that it copies what the program is built of, and that what it says twice it says alike.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up is a failed test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const DOCKERFILE: &str = "deploy/Dockerfile";

#[test]
fn what_is_copied_is_there_and_let_in() {
    let root = root();
    let ignore = read(".dockerignore");
    let let_in: BTreeSet<&str> = ignore.lines().filter_map(|line| line.strip_prefix('!')).collect();
    assert!(ignore.lines().any(|line| line == "*"), ".dockerignore lets everything in");
    let copied = copied();
    assert!(copied.contains("src"), "{copied:?}");
    for path in &copied {
        assert!(root.join(path).exists(), "{DOCKERFILE} copies {path}, which is not there");
    }
    assert_eq!(copied.iter().map(String::as_str).collect::<BTreeSet<_>>(), let_in);
}

#[test]
fn all_that_is_compiled_in_is_copied() {
    let copied = copied();
    let mut seen = 0;
    for file in files(&root().join("src")) {
        let text = fs::read_to_string(&file).unwrap();
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        for line in code {
            let macros = ["include_str!(\"", "include_bytes!(\""];
            let Some(rest) = macros.iter().find_map(|it| Some(line.split_once(it)?.1)) else {
                continue;
            };
            let (name, _) = rest.split_once('"').unwrap();
            let path = file.parent().unwrap().join(name).canonicalize().unwrap();
            let path = path.strip_prefix(root()).unwrap().to_owned();
            seen += 1;
            assert!(
                copied.iter().any(|copied| path.starts_with(copied)),
                "{} compiles {} in, which {DOCKERFILE} does not copy",
                file.display(),
                path.display()
            );
        }
    }
    assert!(seen > 20, "only {seen} files are compiled in: are they found?");
}

/// Cargo reads all of Cargo.toml, and refuses a target whose file it has to look for and does not find.
#[test]
fn what_is_not_copied_is_named_by_its_path() {
    let manifest = read("Cargo.toml");
    let mut targets = 0;
    for section in manifest.split("\n[").skip(1).filter(|section| section.starts_with('[')) {
        let path = section.lines().find_map(|line| line.strip_prefix("path = "));
        assert!(path.is_some(), "no path: [{section}");
        assert!(root().join(path.unwrap().trim_matches('"')).exists(), "{path:?}");
        targets += 1;
    }
    assert!(targets > 2, "only {targets} targets: are they found?");
}

#[test]
fn stages_are_named_before_they_are_used() {
    let mut named = BTreeSet::new();
    let mut used = 0;
    for line in instructions() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["FROM", .., "AS", name] => assert!(named.insert(name.to_owned()), "{name} twice"),
            ["COPY", from, ..] if from.starts_with("--from=") => {
                used += 1;
                assert!(named.contains(&from["--from=".len()..]), "{line}");
            }
            _ => {}
        }
    }
    assert_eq!((named.len(), used), (1, 1));
}

#[test]
fn the_image_is_one_program_on_nothing_for_somebody_without_rights() {
    let all = instructions();
    let from = all.iter().rposition(|line| line.starts_with("FROM ")).unwrap();
    let last: Vec<&str> = all[from..].iter().map(String::as_str).collect();
    assert_eq!(last[0], "FROM scratch");
    let of = |word: &str| -> Vec<&str> {
        last.iter().filter_map(|line| line.strip_prefix(word)?.strip_prefix(' ')).collect()
    };
    assert_eq!(of("COPY"), ["--from=build /devgrant /devgrant"]);
    assert_eq!(of("USER"), ["65532:65532"]);
    assert_eq!(of("ENTRYPOINT"), [r#"["/devgrant"]"#]);
    assert_eq!(of("CMD"), [r#"["serve"]"#]);
    let labels = of("LABEL").join(" ");
    for name in ["title", "description", "licenses", "version", "source"] {
        assert!(labels.contains(&format!("org.opencontainers.image.{name}=")), "{name}");
    }
    assert!(labels.contains(&format!("\"{}\"", env!("CARGO_PKG_DESCRIPTION"))), "{labels}");
    assert!(labels.contains(concat!("licenses=\"", env!("CARGO_PKG_LICENSE"), "\"")), "{labels}");
}

#[test]
fn the_image_is_built_by_the_pinned_toolchain() {
    let pinned = read("rust-toolchain.toml");
    let channel = pinned.lines().find_map(|line| line.strip_prefix("channel = ")).unwrap();
    let image = format!("rust:{}-bookworm", channel.trim_matches('"'));
    assert!(instructions().iter().any(|line| line.contains(&image)), "no FROM {image}");
}

/// The paths of the repository that go into the build.
fn copied() -> BTreeSet<String> {
    let mut copied = BTreeSet::new();
    for line in instructions() {
        let mut words = line.split_whitespace();
        if words.next() != Some("COPY") || line.contains("--from=") {
            continue;
        }
        let paths: Vec<&str> = words.collect();
        let (_, sources) = paths.split_last().unwrap();
        copied.extend(sources.iter().map(|&path| path.to_owned()));
    }
    copied
}

/// The instructions of the Dockerfile, each on one line.
fn instructions() -> Vec<String> {
    let text = read(DOCKERFILE);
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let joined = lines.join("\n").replace("\\\n", " ");
    joined.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let (folders, mut files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    files.retain(|file| file.extension().is_some_and(|extension| extension == "rs"));
    files.extend(folders.iter().flat_map(|folder| self::files(folder)));
    files
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
