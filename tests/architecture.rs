#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on says where and stops"
)]
//! The walls between the modules, over the text of the source.
//!
//! A wall is a row of [`walls`]: a file or folder, the paths that it may not name, and why. Comments,
//! texts and test modules do not count; `use a::{b, c}` and `super::` are followed.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// The most lines of a source file.
const MOST_LINES: usize = 700;
/// The least number of source files of the line: a folder that got lost is noticed.
const AT_LEAST: usize = 25;

/// What the pure part may not name.
const SHELL: &[&str] = &[
    "std::env",
    "std::fs",
    "std::io",
    "std::net",
    "std::os",
    "std::process",
    "std::sync",
    "std::thread",
    "std::time",
    "Instant",
    "SystemTime",
    "anyhow",
    "arc_swap",
    "async",
    "await",
    "axum",
    "clap",
    "dbg",
    "eprint",
    "eprintln",
    "figment",
    "hyper",
    "hyper_util",
    "kube",
    "log",
    "opentelemetry",
    "opentelemetry_proto",
    "opentelemetry_sdk",
    "print",
    "println",
    "prometheus",
    "rand",
    "rcgen",
    "rustls",
    "rustls_pki_types",
    "tokio",
    "tokio_rustls",
    "tower",
    "tracing",
    "tracing_subscriber",
    "crate::cli",
    "crate::cluster",
    "crate::config",
    "crate::metrics",
    "crate::policies",
    "crate::server",
    "crate::shutdown",
    "crate::telemetry",
    "crate::tls",
    "crate::traces",
];

struct Wall {
    /// A file, or a folder with everything under it.
    of: &'static [&'static str],
    forbidden: &'static [&'static str],
    /// What is allowed although it is under something forbidden.
    but: &'static [&'static str],
    why: &'static str,
}

fn walls() -> Vec<Wall> {
    vec![
        Wall {
            of: &["src/decision.rs", "src/decision"],
            forbidden: SHELL,
            // Of constants only, such as the texts of the findings: each time the same value.
            but: &["std::sync::LazyLock"],
            why: "the line is pure: no I/O, no clock, no log, no async, nothing of the shell",
        },
        Wall {
            of: &["src/decision.rs", "src/decision"],
            forbidden: &["HashMap", "HashSet"],
            but: &[],
            why: "the same bytes in, the same bytes out: ordered maps only",
        },
        Wall {
            of: &["src/registration.rs", "src/registration"],
            forbidden: SHELL,
            but: &[],
            why: "what is registered is a function of policies and settings, as what is decided is",
        },
        Wall {
            of: &["src/decision/policy.rs", "src/decision/policy"],
            forbidden: &[
                "crate::decision::annotation",
                "crate::decision::answer",
                "crate::decision::ask",
                "crate::decision::conflict",
                "crate::decision::line",
                "crate::decision::patch",
                "crate::decision::pod",
                "crate::decision::request",
                "crate::decision::review",
            ],
            but: &[],
            why: "a policy is compiled without a pod, and does not know how it is rendered",
        },
        Wall {
            of: &["src/decision/patch.rs", "src/decision/patch"],
            forbidden: &[
                "crate::decision::answer",
                "crate::decision::ask",
                "crate::decision::line",
                "crate::decision::policy",
            ],
            but: &["crate::decision::policy::schema"],
            why: "a patch renders a plan; who may have it is decided before",
        },
        Wall {
            of: &["src/decision/plan.rs", "src/decision/plan"],
            forbidden: &[
                "crate::decision::answer",
                "crate::decision::line",
                "crate::decision::patch",
                "Serialize",
                "serde_json",
            ],
            but: &[],
            why: "a plan knows no JSON: what goes on the wire has types of its own",
        },
        Wall {
            of: &["src/decision/pod.rs", "src/decision/review.rs", "src/decision/quantity.rs"],
            forbidden: &[
                "crate::decision::annotation",
                "crate::decision::answer",
                "crate::decision::ask",
                "crate::decision::conflict",
                "crate::decision::line",
                "crate::decision::patch",
                "crate::decision::plan",
                "crate::decision::policy",
            ],
            but: &[],
            why: "reading comes before deciding",
        },
        Wall {
            of: &["src"],
            forbidden: &[
                "json_patch::AddOperation",
                "json_patch::CopyOperation",
                "json_patch::MoveOperation",
                "json_patch::RemoveOperation",
                "json_patch::ReplaceOperation",
                "json_patch::TestOperation",
                "json_patch::diff",
            ],
            but: &[],
            why: "only the draft makes operations, and applies each as it is recorded; the command \
                  line moves them into a workload's template",
        },
    ]
}

/// The files that the last wall is built around.
const GATES: [&str; 2] = ["src/decision/patch/draft.rs", "src/cli/placement.rs"];

#[test]
fn no_wall_is_broken() {
    let mut breaches = Vec::new();
    for wall in walls() {
        let files: Vec<PathBuf> = wall.of.iter().flat_map(|place| sources(place)).collect();
        for file in files {
            let name = relative(&file);
            if GATES.contains(&name.as_str()) && wall.of == ["src"] {
                continue;
            }
            breaches.extend(check(&name, &fs::read_to_string(&file).unwrap(), &wall));
        }
    }
    let told: Vec<String> = breaches.iter().map(Breach::to_string).collect();
    assert!(told.is_empty(), "{} breaches\n{}", told.len(), told.join("\n"));
    let count = sources("src/decision").len();
    assert!(count >= AT_LEAST, "{count} files, at least {AT_LEAST} were there once");
}

#[test]
fn no_source_file_is_long() {
    let long: Vec<String> = sources("src")
        .iter()
        .map(|file| (relative(file), fs::read_to_string(file).unwrap().lines().count()))
        .filter(|(_, lines)| *lines > MOST_LINES)
        .map(|(file, lines)| format!("{file}: {lines} lines; split it by idea"))
        .collect();
    assert!(long.is_empty(), "over {MOST_LINES} lines\n{}", long.join("\n"));
}

#[test]
fn no_test_is_left_out() {
    for file in sources("tests").into_iter().chain(sources("src")) {
        let text = bare(&fs::read_to_string(&file).unwrap());
        for (index, line) in text.lines().enumerate() {
            let plain: String = line.split_whitespace().collect();
            let found = plain.contains("#[ignore") || plain.contains("#[should_panic");
            assert!(!found, "{}:{}: a test that is there runs", relative(&file), index + 1);
        }
    }
}

/// The wall holds only if a breach of it is seen: each of these is one, at the line given.
#[test]
fn planted_breaches_are_seen() {
    let shell = Wall { of: &[], forbidden: SHELL, but: &[], why: "" };
    let patch = Wall {
        of: &[],
        forbidden: &["crate::decision::policy"],
        but: &["crate::decision::policy::schema"],
        why: "",
    };
    for (file, text, wall, line, name) in [
        ("src/decision/line.rs", "//! a\nuse std::fs;\n", &shell, 2, "std::fs"),
        ("src/decision/line.rs", "use std::{fmt, fs};", &shell, 1, "std::fs"),
        (
            "src/decision/line.rs",
            "use std::{\n  fmt,\n  net::{self, IpAddr},\n};",
            &shell,
            3,
            "std::net",
        ),
        ("src/decision/line.rs", "fn a() { std :: env::var(\"x\") }", &shell, 1, "std::env"),
        ("src/decision/line.rs", "fn a() {\n std::time::Instant::now() }", &shell, 2, "std::time"),
        ("src/decision/line.rs", "pub async fn a() {}", &shell, 1, "async"),
        ("src/decision/line.rs", "fn a() { b().await }", &shell, 1, "await"),
        ("src/decision/line.rs", "#[cfg(test)]\nmod tests;\nuse std::fs;", &shell, 3, "std::fs"),
        (
            "src/decision/line.rs",
            "#[cfg(test)]\nuse a::{b, c};\nuse std::fs;",
            &shell,
            3,
            "std::fs",
        ),
        (
            "src/decision/line.rs",
            "#[cfg(test)]\nfn a() {}\nfn b() { std::fs::read(); }",
            &shell,
            3,
            "std::fs",
        ),
        (
            "src/decision/line.rs",
            "struct A {\n#[cfg(test)]\na: u8,\nb: std::fs::File,\n}\nuse c;",
            &shell,
            4,
            "std::fs",
        ),
        ("src/decision/line.rs", "fn a() { println!(\"{}\", 'x') }", &shell, 1, "println"),
        ("src/decision/line.rs", "use super::super::server::Bound;", &shell, 1, "crate::server"),
        ("src/decision.rs", "use crate::{decision::x, metrics};", &shell, 1, "crate::metrics"),
        ("src/decision/line.rs", "use kube::Client;", &shell, 1, "kube"),
        (
            "src/decision/patch.rs",
            "use super::policy::PolicySet;",
            &patch,
            1,
            "crate::decision::policy",
        ),
        (
            "src/decision/patch/pod.rs",
            "use super::super::policy;",
            &patch,
            1,
            "crate::decision::policy",
        ),
        (
            "src/decision/patch/pod.rs",
            "use crate::decision::policy::{schema::Mode, select};",
            &patch,
            1,
            "crate::decision::policy",
        ),
        (
            "src/decision/patch/pod.rs",
            "use crate::decision::{pod, policy};",
            &patch,
            1,
            "crate::decision::policy",
        ),
    ] {
        let breaches = check(file, text, wall);
        let found = breaches.iter().any(|breach| breach.line == line && breach.name == name);
        assert!(found, "{text}: {:?}", breaches.iter().map(Breach::to_string).collect::<Vec<_>>());
    }
    for (file, text, wall) in [
        (
            "src/decision/line.rs",
            "// use std::fs;\n/* tokio */ const A: &str = \"tokio::spawn\";",
            &shell,
        ),
        ("src/decision/line.rs", "const A: char = '\"'; const B: &str = r#\"std::fs\"#;", &shell),
        (
            "src/decision/line.rs",
            "/// async println\nfn a<'a>(x: &'a str) -> &'a str { x }",
            &shell,
        ),
        ("src/decision/line.rs", "use std::fmt; fn catalog() {}", &shell),
        ("src/decision/line.rs", "fn a() {}\n#[cfg(test)]\nmod tests { use std::fs; }", &shell),
        ("src/decision/line.rs", "#[cfg(test)]\nuse std::fs;\nfn a() {}", &shell),
        ("src/decision/patch/pod.rs", "use crate::decision::policy::schema::{Mode, Spec};", &patch),
    ] {
        let breaches = check(file, text, wall);
        assert!(breaches.is_empty(), "{text}: {}", breaches.first().unwrap());
    }
}

struct Breach {
    file: String,
    line: usize,
    name: String,
    named: String,
    why: &'static str,
}

impl fmt::Display for Breach {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, name, named, why } = self;
        write!(formatter, "{file}:{line}: names `{named}` (forbidden: {name}): {why}")
    }
}

/// Where a file names what the wall forbids.
fn check(file: &str, text: &str, wall: &Wall) -> Vec<Breach> {
    let module = module_of(file);
    let mut breaches = Vec::new();
    for (line, path) in mentions(&bare(text)) {
        let path = resolve(&path, &module);
        let holds = |name: &str| {
            let wanted: Vec<&str> = name.split("::").collect();
            path.windows(wanted.len()).any(|part| part == wanted)
        };
        if wall.but.iter().any(|name| holds(name)) {
            continue;
        }
        for name in wall.forbidden.iter().filter(|name| holds(name)) {
            breaches.push(Breach {
                file: file.to_owned(),
                line,
                name: (*name).to_owned(),
                named: path.join("::"),
                why: wall.why,
            });
        }
    }
    breaches
}

/// `src/decision/patch/pod.rs` is `crate::decision::patch::pod`.
fn module_of(file: &str) -> Vec<String> {
    let inner = file.trim_start_matches("src/").trim_end_matches(".rs");
    std::iter::once("crate").chain(inner.split('/')).map(str::to_owned).collect()
}

/// A path as seen from the crate.
fn resolve(path: &[String], module: &[String]) -> Vec<String> {
    let mut at = module.to_vec();
    let mut rest = path;
    let mut relative = false;
    while let Some((first, others)) = rest.split_first() {
        match first.as_str() {
            "self" => {}
            "super" => {
                at.pop();
            }
            _ => break,
        }
        relative = true;
        rest = others;
    }
    if relative { at.into_iter().chain(rest.iter().cloned()).collect() } else { path.to_vec() }
}

/// Every path that a text names, with its line; the trees of `use` taken apart.
fn mentions(text: &str) -> Vec<(usize, Vec<String>)> {
    let tokens = tokens(text);
    let mut mentions = Vec::new();
    let mut prefixes: Vec<Vec<String>> = Vec::new();
    let mut path: Vec<String> = Vec::new();
    let mut line_of_path = 1;
    let mut in_use = false;
    let mut joined = false;
    let mut end = |path: &mut Vec<String>, prefixes: &[Vec<String>], line: usize| {
        if !path.is_empty() {
            let whole = prefixes.iter().flatten().chain(path.iter()).cloned().collect();
            mentions.push((line, whole));
            path.clear();
        }
    };
    for (line, token) in tokens {
        match token.as_str() {
            "::" => joined = true,
            "{" if in_use => {
                prefixes.push(std::mem::take(&mut path));
                joined = false;
            }
            "}" if in_use => {
                end(&mut path, &prefixes, line_of_path);
                prefixes.pop();
                joined = false;
            }
            word if word.starts_with(|char: char| char.is_alphabetic() || char == '_') => {
                if !joined {
                    end(&mut path, &prefixes, line_of_path);
                    line_of_path = line;
                }
                joined = false;
                if word == "use" {
                    in_use = true;
                } else {
                    path.push(word.to_owned());
                }
            }
            other => {
                end(&mut path, &prefixes, line_of_path);
                joined = false;
                if other == ";" {
                    in_use = false;
                    prefixes.clear();
                }
            }
        }
    }
    end(&mut path, &prefixes, line_of_path);
    mentions
}

/// Words, `::` and single signs, with their lines.
fn tokens(text: &str) -> Vec<(usize, String)> {
    let mut tokens: Vec<(usize, String)> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let mut rest = line;
        while let Some(first) = rest.chars().next() {
            let is_word = |char: char| char.is_alphanumeric() || char == '_';
            let length = if first.is_whitespace() {
                rest = rest.trim_start();
                continue;
            } else if is_word(first) {
                rest.find(|char| !is_word(char)).unwrap_or(rest.len())
            } else if rest.starts_with("::") {
                2
            } else {
                first.len_utf8()
            };
            let (token, behind) = rest.split_at(length);
            tokens.push((index + 1, token.to_owned()));
            rest = behind;
        }
    }
    tokens
}

/// A source text without comments, texts and its test module, line for line.
fn bare(text: &str) -> String {
    let mut bare = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let raw_hashes = raw_text_hashes(rest, &bare);
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(hashes) = raw_hashes {
            let open = rest.find('"').unwrap() + 1;
            let close = format!("\"{}", "#".repeat(hashes));
            let inner = rest.split_at(open).1;
            inner.find(&close).map_or(rest.len(), |end| open + end + close.len())
        } else if first == '"' {
            quoted(rest)
        } else if rest.starts_with("'\\") || rest.chars().nth(2) == Some('\'') && first == '\'' {
            let inner = if rest.starts_with("'\\") { 3 } else { 1 };
            rest.char_indices()
                .skip(inner)
                .find(|(_, char)| *char == '\'')
                .map_or(rest.len(), |(end, _)| end + 1)
        } else {
            bare.push(first);
            rest = rest.split_at(first.len_utf8()).1;
            continue;
        };
        let (hidden, behind) = rest.split_at(length);
        bare.extend(hidden.chars().map(|char| if char == '\n' { '\n' } else { ' ' }));
        rest = behind;
    }
    without_tests(&bare)
}

/// Code without what is there for tests alone: a module with its body, behind which clippy lets nothing
/// stand, and modules and imports that are named. Whatever else is for tests is read as all code is.
fn without_tests(bare: &str) -> String {
    let mut parts = bare.split("#[cfg(test)]");
    let mut code = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (item, behind) = part.split_once(';').unwrap_or((part, ""));
        match item.split_whitespace().next() {
            Some("mod") if item.contains('{') => break,
            Some("mod" | "use") => {
                code.extend(item.chars().filter(|char| *char == '\n'));
                code.push_str(behind);
            }
            _ => code.push_str(part),
        }
    }
    code
}

/// The number of `#` of a raw text that starts here.
fn raw_text_hashes(rest: &str, before: &str) -> Option<usize> {
    let behind = rest.strip_prefix('r')?;
    let in_word = before.ends_with(|char: char| char.is_alphanumeric() && char != 'b');
    let hashes = behind.len() - behind.trim_start_matches('#').len();
    (!in_word && behind.trim_start_matches('#').starts_with('"')).then_some(hashes)
}

/// The bytes of a text in quotes.
fn quoted(rest: &str) -> usize {
    let mut escaped = false;
    for (at, char) in rest.char_indices().skip(1) {
        match char {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

fn relative(file: &Path) -> String {
    let file = file.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap();
    file.to_string_lossy().replace('\\', "/")
}

/// All Rust files at or under a place, which must be there.
fn sources(place: &str) -> Vec<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(place);
    if path.is_file() {
        return vec![path];
    }
    let entries = fs::read_dir(&path).unwrap_or_else(|error| panic!("{place}: {error}"));
    let mut files = Vec::new();
    for entry in entries.map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            files.extend(sources(&relative(&entry)));
        } else if entry.extension().is_some_and(|ending| ending == "rs") {
            files.push(entry);
        }
    }
    files.sort();
    files
}
