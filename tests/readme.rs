#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on says where and stops"
)]
//! The documents say what is so.
//!
//! Every `console` block of README.md and of the pages in `RUN` is run, line by line in one folder a page,
//! and what comes out is compared with what stands there. A block `yaml file=NAME` is a file of that
//! folder, `text server` is what `serve --standalone` prints, `json patch` is what its line to paste prints.
//! Blocks of other kinds are not run. `DEVGRANT_REFRESH_GOLDEN=1 cargo test --test readme` writes the output of `console` blocks
//! again; the difference is for review.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use devgrant::decision::{PolicySet, PolicySource, Settings};
use serde_json::Value;

/// The documents whose links are followed.
const DOCUMENTS: &[&str] = &[
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "certs/README.md",
    "policies/README.md",
    "docs/image.md",
    "docs/install.md",
    "docs/lint.md",
    "docs/migrate.md",
    "docs/rbac.md",
    "docs/scan.md",
    "docs/traces.md",
];
/// The documents whose commands are run, each with the least number of them: one whose blocks were renamed
/// is noticed.
const RUN: &[(&str, usize)] = &[
    ("README.md", 8),
    ("docs/lint.md", 2),
    ("docs/migrate.md", 10),
    ("docs/scan.md", 2),
    ("docs/traces.md", 4),
];

#[test]
fn commands_give_what_the_documents_show() {
    for (document, at_least) in RUN {
        commands_give_what_is_shown(document, *at_least);
    }
}

fn commands_give_what_is_shown(document: &str, at_least: usize) {
    let folder = Folder::new(document);
    let text = read(document);
    let mut shown = String::new();
    let mut count = 0;
    let mut block = None;
    for line in text.lines() {
        match (&block, line.strip_prefix("$ ")) {
            (Some("console"), Some(command)) => {
                count += 1;
                write!(shown, "{line}\n{}", folder.run(command)).unwrap();
            }
            // Output, which is written anew.
            (Some("console"), None) if line != FENCE => {}
            _ => writeln!(shown, "{line}").unwrap(),
        }
        block = match (block, line.strip_prefix(FENCE)) {
            (None, Some(kind)) => Some(kind),
            (Some(_), Some("")) => None,
            (block, _) => block,
        };
    }
    assert!(count >= at_least, "{document}: {count} commands, at least {at_least} were there once");
    if std::env::var_os("DEVGRANT_REFRESH_GOLDEN").is_some() {
        fs::write(root().join(document), shown).unwrap();
    } else if let Some((line, (is, should))) =
        shown.lines().zip(text.lines()).enumerate().find(|(_, (one, other))| one != other)
    {
        panic!("{document}:{}\nshows: {should}\nnow:   {is}", line + 1);
    } else {
        assert_eq!(shown.len(), text.len(), "{document} ends elsewhere");
    }
}

#[test]
fn the_server_says_what_the_readme_shows() {
    let folder = Folder::new("README.md");
    let mut server = folder
        .devgrant(&["serve", "--standalone", "--listen=127.0.0.1:0", "--health=127.0.0.1:0"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let wanted = block("README.md", "text server");
    let lines = BufReader::new(server.stderr.take().unwrap()).lines();
    let said: Vec<String> =
        lines.take(wanted.lines().count()).map(|line| folder.plain(&line.unwrap())).collect();
    server.kill().unwrap();
    server.wait().unwrap();

    let said = said.join("\n") + "\n";
    let (listen, health) = (port_of(&said, "reviews"), port_of(&said, "health"));
    let said =
        said.replace(&format!(":{listen}/"), ":8443/").replace(&format!(":{health}/"), ":8080/");
    assert_eq!(said, wanted);
}

#[test]
fn the_line_to_paste_prints_the_patch_of_the_readme() {
    let folder = Folder::new("README.md");
    let answer = folder.run("target/release/devgrant admit -f examples/review.json");
    // The digest is inside of the patch, in base64.
    let answer: Value = serde_json::from_str(&answer).unwrap();
    let patch = answer.pointer("/response/patch").and_then(Value::as_str).unwrap();
    let patch = String::from_utf8(STANDARD.decode(patch).unwrap()).unwrap();
    assert_eq!(without_digest(&patch) + "\n", block("README.md", "json patch"));
}

#[test]
fn policies_in_the_documents_are_policies() {
    for document in ["README.md", "policies/README.md"] {
        let policies: Vec<String> = blocks(document)
            .into_iter()
            .filter(|(kind, _)| kind.starts_with("yaml"))
            .map(|(_, text)| text)
            .filter(|text| text.contains("kind: DevicePolicy"))
            .collect();
        assert!(!policies.is_empty(), "{document} shows no policy");
        for text in policies {
            let source = PolicySource { file: document.to_owned(), text };
            let set = PolicySet::compile(&[source], Settings::default());
            assert!(set.is_ok_and(|set| set.notes().is_empty()), "{document}");
        }
    }
}

#[test]
fn links_lead_somewhere() {
    for document in DOCUMENTS {
        let text = read(document);
        let folder = root().join(document).parent().unwrap().to_owned();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split_once(')')) {
            let (file, heading) = target.0.split_once('#').unwrap_or((target.0, ""));
            if file.starts_with("https://") {
                continue;
            }
            let file = if file.is_empty() { root().join(document) } else { folder.join(file) };
            assert!(file.exists(), "{document}: {} is not there", target.0);
            if !heading.is_empty() {
                let text = fs::read_to_string(&file).unwrap();
                let mut headings = text.lines().filter(|line| line.starts_with('#')).map(anchor);
                assert!(headings.any(|anchor| anchor == heading), "{document}: {}", target.0);
            }
        }
    }
}

/// Where the commands of a reader run: a folder that looks like the repository after a build.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new(document: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let release = folder.path().join("target/release");
        fs::create_dir_all(&release).unwrap();
        fs::create_dir(folder.path().join("tmp")).unwrap();
        symlink(env!("CARGO_BIN_EXE_devgrant"), release.join("devgrant")).unwrap();
        for name in ["examples", "policies", "tests"] {
            symlink(root().join(name), folder.path().join(name)).unwrap();
        }
        for (kind, text) in blocks(document) {
            if let Some(name) = kind.strip_prefix("yaml file=") {
                let file = folder.path().join(name);
                fs::create_dir_all(file.parent().unwrap()).unwrap();
                fs::write(file, text).unwrap();
            }
        }
        Self(folder)
    }

    /// The program, without the settings of whoever runs the tests.
    fn devgrant(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_devgrant"));
        command.args(arguments).env_clear().env("TMPDIR", self.tmp()).current_dir(self.0.path());
        command
    }

    /// What a person sees who types this.
    fn run(&self, command: &str) -> String {
        let output = Command::new("sh")
            .args(["-c", &format!("exec 2>&1; {command}")])
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .current_dir(self.0.path())
            .output()
            .unwrap();
        without_digest(&String::from_utf8(output.stdout).unwrap())
    }

    fn tmp(&self) -> PathBuf {
        self.0.path().join("tmp")
    }

    /// A line of the server, without what differs from run to run.
    fn plain(&self, line: &str) -> String {
        let line = line.replace(&self.tmp().display().to_string(), "…");
        let mut parts = line.split("/devgrant-");
        let first = parts.next().unwrap_or_default().to_owned();
        let line = parts.fold(first, |line, part| {
            format!("{line}/devgrant-XXXXXX{}", part.trim_start_matches(char::is_alphanumeric))
        });
        without_digest(&line)
    }
}

/// The port in the line of the server's notes that begins with this word.
fn port_of(notes: &str, word: &str) -> String {
    let line = notes.lines().find(|line| line.trim_start().starts_with(word)).unwrap();
    line.rsplit_once("127.0.0.1:").unwrap().1.split('/').next().unwrap().to_owned()
}

fn without_digest(text: &str) -> String {
    let mut parts = text.split("sha256:");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        let rest = part.trim_start_matches(|char: char| char.is_ascii_hexdigit());
        format!("{text}sha256:<digest>{rest}")
    })
}

const FENCE: &str = "```";

/// The fenced blocks of a document: what stands behind the fence, and the text.
fn blocks(document: &str) -> Vec<(String, String)> {
    let text = read(document);
    let mut blocks = Vec::new();
    let mut open: Option<(String, String)> = None;
    for line in text.lines() {
        match (&mut open, line.strip_prefix(FENCE)) {
            (None, Some(kind)) => open = Some((kind.to_owned(), String::new())),
            (Some(_), Some("")) => blocks.extend(open.take()),
            (Some((_, text)), _) => writeln!(text, "{line}").unwrap(),
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "{document}: a fence is not closed");
    blocks
}

/// The one block of a kind.
fn block(document: &str, kind: &str) -> String {
    let mut found = blocks(document).into_iter().filter(|(own, _)| own == kind);
    match (found.next(), found.next()) {
        (Some((_, text)), None) => text,
        _ => panic!("{document} has not one block `{kind}`"),
    }
}

/// What a link calls a heading.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    text.chars()
        .filter(|char| char.is_alphanumeric() || " -_".contains(*char))
        .map(|char| if char == ' ' { '-' } else { char })
        .collect()
}

fn read(document: &str) -> String {
    fs::read_to_string(root().join(document)).unwrap_or_else(|error| panic!("{document}: {error}"))
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
