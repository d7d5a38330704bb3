//! Manifests from files, folders and standard input, as documents in order.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde_json::Value;
use serde_saphyr::Spanned;
use serde_saphyr::budget::BudgetBreach;

use crate::decision::spelling;

/// The largest file. etcd takes no object above 1.5 MiB (`--max-request-bytes`); this holds ten of the
/// largest, and the custom resource definitions of any project in one file.
pub const FILE_LIMIT: u64 = 16 * MIB;
const MIB: u64 = 1024 * 1024;
/// The most files of all folders together: a mistaken `-f /` ends with a sentence.
const FILES_LIMIT: usize = 10_000;
/// How deep a document may nest, as `serde_json` has it. The deepest that people write are custom
/// resource definitions, at 60 or so.
const DEPTH_LIMIT: usize = 128;
/// The stack for documents of that depth. Reading is recursive, and without optimisation a level takes
/// some 25 KiB: more than the 2 MiB of a test's thread in all.
pub(super) const STACK: usize = 16 * 1024 * 1024;
/// The most values of a document: some, and no more than memory that any machine has.
const VALUES_LIMIT: usize = 4_000_000;
/// How many nodes aliases may stand for, in a file. Manifests that use anchors repeat an `env` block;
/// an alias bomb needs millions.
const ALIAS_LIMIT: usize = 100_000;

/// One document of the input.
#[derive(Debug, Clone)]
pub struct Document {
    /// The file, as it was named, or `<stdin>`.
    pub file: String,
    /// The number in the file, from 1; empty documents do not count.
    pub number: usize,
    /// The line that it begins on, where the parser knows it.
    pub line: Option<u64>,
    /// Whether the person named the file. One that was found in a folder may be something else.
    pub named: bool,
    /// What is in it.
    pub value: Value,
}

impl Document {
    /// The file and the number, for messages.
    pub fn place(&self) -> String {
        match self.line {
            Some(line) => format!("{}: document {} (line {line})", self.file, self.number),
            None => format!("{}: document {}", self.file, self.number),
        }
    }
}

/// Input that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// A file that was named, or standard input, has nothing in it.
    #[error("{file} is empty; did the command that should fill it fail?")]
    Empty {
        /// The file.
        file: String,
    },
    /// A folder holds no manifest.
    #[error("the folder {} holds no *.yaml, *.yml or *.json", folder.display())]
    EmptyFolder {
        /// The folder.
        folder: PathBuf,
    },
    /// A file is too large.
    #[error("{file} is larger than {} MiB; split it into several files, and name the folder that they are in", FILE_LIMIT / MIB)]
    FileTooLarge {
        /// The file.
        file: String,
    },
    /// A folder is too large.
    #[error("the folder {} holds more than {FILES_LIMIT} manifests; name a smaller one", folder.display())]
    FolderTooLarge {
        /// The folder.
        folder: PathBuf,
    },
    /// A file is not text.
    #[error("{file} is not UTF-8 text")]
    NotText {
        /// The file.
        file: String,
    },
    /// A file is no YAML or JSON.
    #[error("{file}: document {number}: {problem}")]
    Syntax {
        /// The file.
        file: String,
        /// The number of the document.
        number: usize,
        /// The line and the column, from 1, where the parser knows them.
        at: Option<(usize, usize)>,
        /// What the parser says, with the line, and what may help.
        problem: String,
    },
    /// A file or folder cannot be read.
    #[error("cannot read {file}")]
    Unreadable {
        /// The file or folder.
        file: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl InputError {
    /// Whether a file is no YAML since it is the template of some.
    pub fn is_template(&self) -> bool {
        matches!(self, Self::Syntax { problem, .. } if problem.ends_with(TEMPLATE))
    }
}

/// What is said of a text that is no YAML yet.
const TEMPLATE: &str =
    "; this looks like a template: render it first, for example with `helm template`";

/// Reads all documents of files, folders and `-`, in order.
pub fn documents(paths: &[PathBuf]) -> Result<Vec<Document>, InputError> {
    let mut documents = Vec::new();
    for path in paths {
        let is_folder = !is_stdin(path) && path.is_dir();
        let files = if is_folder { manifests_of(path)? } else { vec![path.clone()] };
        for file in files {
            let name = name(&file);
            let text = String::from_utf8(bytes(&file)?)
                .map_err(|_| InputError::NotText { file: name.clone() })?;
            documents.extend(parse(&name, &text, !is_folder)?);
        }
    }
    Ok(documents)
}

/// The bytes of a file or of `-`, within the limit.
pub fn bytes(path: &Path) -> Result<Vec<u8>, InputError> {
    let unreadable = |source| InputError::Unreadable { file: name(path), source };
    let mut reader: Box<dyn Read> = if is_stdin(path) {
        Box::new(io::stdin().lock())
    } else {
        Box::new(fs::File::open(path).map_err(unreadable)?)
    };
    let mut bytes = Vec::new();
    // The limit is on what is read and not on a size that is asked for: a pipe has none.
    let read = reader.by_ref().take(FILE_LIMIT + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if read as u64 > FILE_LIMIT {
        return Err(InputError::FileTooLarge { file: name(path) });
    }
    Ok(bytes)
}

/// The name of a file for messages.
pub fn name(path: &Path) -> String {
    if is_stdin(path) { "<stdin>".to_owned() } else { path.display().to_string() }
}

pub(super) fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// The manifests of a folder and of the folders in it, in name order.
pub(super) fn manifests_of(folder: &Path) -> Result<Vec<PathBuf>, InputError> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        let unreadable = |source| InputError::Unreadable { file: name(&next), source };
        for entry in fs::read_dir(&next).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            let path = entry.path();
            if entry.file_name().to_string_lossy().starts_with('.') {
                continue;
            }
            // A linked folder is not followed, since it may lead back here; a linked file is read.
            if entry.file_type().map_err(unreadable)?.is_dir() {
                folders.push(path);
            } else if is_manifest(&path) && path.is_file() {
                files.push(path);
            }
            if files.len() > FILES_LIMIT {
                return Err(InputError::FolderTooLarge { folder: folder.to_owned() });
            }
        }
    }
    if files.is_empty() {
        return Err(InputError::EmptyFolder { folder: folder.to_owned() });
    }
    files.sort();
    Ok(files)
}

fn is_manifest(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    matches!(extension, Some("json" | "yaml" | "yml"))
}

/// The documents of a text, which stands in the file of this name.
pub fn parse(file: &str, text: &str, named: bool) -> Result<Vec<Document>, InputError> {
    // JSON is all but YAML: tabs between tokens and some escapes are not. kubectl looks at the first
    // brace too (`k8s.io/apimachinery pkg/util/yaml`, `GuessJSONStream`).
    let looks_like_json = text.trim_start().starts_with(['{', '[']);
    if looks_like_json && let Some(values) = json(text) {
        return Ok(number(file, named, values.into_iter().map(|value| (value, None))));
    }
    std::thread::scope(|scope| {
        let reader = std::thread::Builder::new().stack_size(STACK);
        let reader = reader.spawn_scoped(scope, || yaml(text));
        let unreadable = |source| InputError::Unreadable { file: file.to_owned(), source };
        let read = reader.map_err(unreadable)?.join();
        let read = read.map_err(|_| unreadable(io::Error::other("the YAML parser panicked")))?;
        let documents = read.map_err(|Broken { number, at, problem }| InputError::Syntax {
            file: file.to_owned(),
            number,
            at,
            problem,
        })?;
        Ok(number(file, named, documents))
    })
}

/// A document and the line that it begins on.
type WithLine = (Value, Option<u64>);

/// A document that cannot be read.
struct Broken {
    number: usize,
    at: Option<(usize, usize)>,
    problem: String,
}

/// The documents with their lines, or the first that cannot be read.
fn yaml(text: &str) -> Result<Vec<WithLine>, Broken> {
    let mut documents = Vec::new();
    let mut reader = text.as_bytes();
    for read in serde_saphyr::read_with_options::<_, Spanned<Value>>(&mut reader, yaml_options()) {
        let spanned = read.map_err(|error| Broken {
            number: documents.len() + 1,
            at: place(&error),
            problem: in_words(&error, text),
        })?;
        let line = Some(spanned.referenced.line()).filter(|line| *line > 0);
        documents.push((spanned.value, line));
    }
    Ok(documents)
}

fn json(text: &str) -> Option<Vec<Value>> {
    let values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    values.collect::<Result<_, _>>().ok()
}

fn number(file: &str, named: bool, values: impl IntoIterator<Item = WithLine>) -> Vec<Document> {
    values
        .into_iter()
        .enumerate()
        .map(|(index, (value, line))| Document {
            file: file.to_owned(),
            number: index + 1,
            line,
            named,
            value,
        })
        .collect()
}

/// How kubectl reads YAML: it is YAML 1.1, where `0644` is octal and `yes` is true
/// (`sigs.k8s.io/yaml`). Another reading here would decide about another pod.
pub(super) fn yaml_options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: DEPTH_LIMIT,
            max_events: 2 * VALUES_LIMIT,
            max_nodes: VALUES_LIMIT,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: ALIAS_LIMIT,
        },
        legacy_octal_numbers: true,
        with_snippet: false,
    }
}

fn place(error: &serde_saphyr::Error) -> Option<(usize, usize)> {
    let location = error.without_snippet().location()?;
    let number = |number: u64| usize::try_from(number).ok().filter(|number| *number > 0);
    Some((number(location.line())?, number(location.column())?))
}

fn in_words(error: &serde_saphyr::Error, text: &str) -> String {
    let error = error.without_snippet();
    let message = match error {
        serde_saphyr::Error::DuplicateMappingKey { key: Some(key), .. } => {
            format!("the key `{}` is there twice; take one out", spelling::excerpt(key))
        }
        serde_saphyr::Error::DuplicateMappingKey { .. } => {
            "a key is there twice; take one out".to_owned()
        }
        serde_saphyr::Error::Budget { breach: BudgetBreach::Depth { .. }, .. } => too_deep(),
        serde_saphyr::Error::Budget { .. } => {
            format!("a document has more than {VALUES_LIMIT} values; split it into several")
        }
        error => match error.to_string() {
            // The parser wraps this one.
            alias if alias.starts_with("alias replay limit exceeded") => format!(
                "its aliases (`*name`) stand for more than {ALIAS_LIMIT} values; write out what they stand for, or split the file"
            ),
            deep if deep.starts_with("recursion limit exceeded") => too_deep(),
            // Some errors have their position in the message, all have it here.
            message => {
                message.split_once(" at line ").map_or(message.as_str(), |parts| parts.0).to_owned()
            }
        },
    };
    let place = error.location().map_or_else(String::new, |location| {
        format!("line {}, column {}: ", location.line(), location.column())
    });
    let help = if text.contains("{{") { TEMPLATE } else { "" };
    format!("{place}{message}{help}")
}

fn too_deep() -> String {
    format!("it is nested deeper than {DEPTH_LIMIT} levels, which no manifest is")
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::*;
    use serde_json::json;

    #[test]
    fn reads_many_documents_with_their_lines() {
        let text = "# first\nkind: A\n---\n# nothing\n---\nkind: B\nmode: 0644\nyes: on\n";
        let documents = parse("a.yaml", text, true).unwrap();
        let seen: Vec<_> = documents.iter().map(|found| (found.number, found.line)).collect();
        assert_eq!(seen, [(1, Some(2)), (2, Some(6))]);
        assert_eq!(documents[1].value["mode"], json!(420));
    }

    #[test]
    fn reads_json_with_tabs() {
        let documents =
            parse("a.json", "\t{\n\t\"kind\":\t\"A\"}\n{\"kind\": \"B\"}", true).unwrap();
        assert_eq!(documents.len(), 2);
    }

    #[test]
    fn errors_name_document_and_line() {
        for (text, expected) in [
            ("kind: A\n---\nkind: [\n", "a.yaml: document 2: line "),
            ("a: {{ .Values.x }}\nb: c: d\n", "helm template"),
            ("a: 1\na: 2\n", "a.yaml: document 1: line 2"),
        ] {
            let error = parse("a.yaml", text, true).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[track_caller]
    fn refused(text: &str, sentence: &str) {
        let error = parse("a.yaml", text, true).map(|_| ()).unwrap_err();
        assert!(matches!(error, InputError::Syntax { .. }), "{error}");
        assert!(error.to_string().ends_with(sentence), "{error}");
    }

    const TOO_DEEP: &str = ": it is nested deeper than 128 levels, which no manifest is";

    #[test]
    fn a_key_that_is_there_twice_ends_with_a_sentence() {
        refused("a: 1\na: 2\n", "line 2, column 1: the key `a` is there twice; take one out");
    }

    #[test]
    fn a_file_that_is_too_large_says_what_to_do() {
        let error = InputError::FileTooLarge { file: "a.yaml".to_owned() }.to_string();
        assert!(error.starts_with("a.yaml is larger than 16 MiB; split it"), "{error}");
    }

    #[test]
    fn alias_bombs_end_with_a_sentence() {
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..10 {
            let previous = format!("*a{}, ", level - 1).repeat(10);
            let _ = writeln!(bomb, "a{level}: &a{level} [{previous}]");
        }
        refused(&bomb, "write out what they stand for, or split the file");
    }

    #[test]
    fn deep_flow_ends_with_a_sentence() {
        refused(&format!("a: {}{}", "[".repeat(50_000), "]".repeat(50_000)), TOO_DEEP);
    }

    #[test]
    fn deep_json_ends_with_a_sentence() {
        refused(&format!("{}{}", "[".repeat(50_000), "]".repeat(50_000)), TOO_DEEP);
    }

    #[test]
    fn deep_blocks_end_with_a_sentence() {
        let levels = (0..5_000).map(|level| format!("{}a:\n", " ".repeat(level)));
        refused(&levels.collect::<String>(), TOO_DEEP);
    }

    #[test]
    fn documents_as_deep_as_the_limit_are_read() {
        let levels = (0..DEPTH_LIMIT - 1).map(|level| format!("{}a:\n", " ".repeat(level)));
        assert!(parse("a.yaml", &levels.collect::<String>(), true).is_ok());
    }
}
