//! Files, folders and standard input.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use super::stream::{self, Position};
use super::survey::Survey;
use crate::cli::input::{self, FILE_LIMIT, InputError};
use crate::cli::output;
use crate::decision::spelling::excerpt;

/// Surveys all paths, in order; gives whether any could not be read. One that cannot be read does not
/// hide what is in the others.
pub(super) fn survey(paths: &[PathBuf], survey: &mut Survey<'_>) -> anyhow::Result<bool> {
    let mut broken = false;
    for path in paths {
        let is_folder = !input::is_stdin(path) && path.is_dir();
        let files = if is_folder { input::manifests_of(path)? } else { vec![path.clone()] };
        for file in files {
            broken |= !read(&file, !is_folder, survey)?;
        }
    }
    Ok(broken)
}

/// Reads one file; gives whether that went well.
fn read(file: &Path, named: bool, survey: &mut Survey<'_>) -> anyhow::Result<bool> {
    let name = input::name(file);
    let opened: io::Result<Box<dyn Read>> = if input::is_stdin(file) {
        Ok(Box::new(io::stdin().lock()))
    } else {
        File::open(file).map(|file| Box::new(file) as Box<dyn Read>)
    };
    let begun = opened.and_then(|input| Begun::new(BufReader::new(input)));
    let problem = match begun {
        Err(error) => Some(format!("cannot be read: {error}")),
        Ok(Begun { start, .. }) if start.is_empty() && named => {
            Some("is empty; did the command that should fill it fail?".to_owned())
        }
        Ok(begun) if begun.is_json() => json(&name, begun.whole(), named, survey),
        Ok(begun) => yaml(&name, begun.whole(), named, survey)?,
    };
    if let Some(problem) = &problem {
        survey.unreadable(&name, problem)?;
    }
    Ok(problem.is_none())
}

/// Reads JSON object by object; gives what is wrong with it.
fn json(name: &str, input: impl Read, named: bool, survey: &mut Survey<'_>) -> Option<String> {
    let mut take =
        |position: Position, value| survey.take(&At { name, position: &position }, &value, named);
    let error = stream::read(input, &mut take).err()?;
    let help =
        if error.is_eof() { "; it is cut off: did the command that writes it fail?" } else { "" };
    // The text of a parser may repeat the input.
    Some(format!("cannot be read further: {}{help}", excerpt_of(&error)))
}

fn excerpt_of(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.split_once(" at line ") {
        Some((what, _)) if error.line() > 0 => {
            format!("line {}, column {}: {}", error.line(), error.column(), excerpt(what))
        }
        _ => text,
    }
}

/// Reads YAML, which has to be in memory as a whole; gives what is wrong with it.
fn yaml(
    name: &str,
    input: impl Read,
    named: bool,
    survey: &mut Survey<'_>,
) -> io::Result<Option<String>> {
    let mut bytes = Vec::new();
    let read = input.take(FILE_LIMIT + 1).read_to_end(&mut bytes)?;
    if read as u64 > FILE_LIMIT {
        let limit = FILE_LIMIT / 1024 / 1024;
        let problem = format!(
            "is YAML of more than {limit} MiB; write it with `-o json`, which may be of any length"
        );
        return Ok(Some(problem));
    }
    let Ok(text) = String::from_utf8(bytes) else {
        return Ok(Some("is not UTF-8 text".to_owned()));
    };
    let documents = match input::parse(name, &text, named) {
        Ok(documents) => documents,
        // A template is for Helm to read, and no mistake.
        Err(error) if error.is_template() => {
            output::note(&format!("{error}; passed by"))?;
            return Ok(None);
        }
        // The name is said already.
        Err(InputError::Syntax { number, problem, .. }) => {
            return Ok(Some(format!("document {number}: {problem}")));
        }
        Err(error) => return Ok(Some(error.to_string())),
    };
    for document in documents {
        let mut take = |position: Position, value| {
            survey.take(&At { name, position: &position }, &value, named)
        };
        stream::split(document.number, document.value, &mut take)?;
    }
    Ok(None)
}

/// A place in a file.
struct At<'a> {
    name: &'a str,
    position: &'a dyn Display,
}

impl Display for At<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}: {}", self.name, self.position)
    }
}

/// An input of which the first two visible bytes are known.
struct Begun<R> {
    /// What was read, up to those bytes.
    start: Vec<u8>,
    rest: R,
}

impl<R: Read> Begun<R> {
    fn new(mut rest: R) -> io::Result<Self> {
        let mut start = Vec::new();
        let mut visible = 0;
        let mut byte = [0];
        while visible < 2 && start.len() as u64 <= FILE_LIMIT {
            match rest.read(&mut byte) {
                Ok(0) => break,
                Ok(_) => {
                    start.extend(byte);
                    visible += usize::from(!byte[0].is_ascii_whitespace());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if visible == 0 {
            start.clear();
        }
        Ok(Self { start, rest })
    }

    /// Whether this is JSON: YAML in braces has no quotes around its keys, mostly.
    fn is_json(&self) -> bool {
        let visible: Vec<u8> =
            self.start.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
        matches!(visible.as_slice(), [b'{', b'"' | b'}'] | [b'[', b'{' | b']'])
    }

    fn whole(self) -> impl Read {
        io::Cursor::new(self.start).chain(self.rest)
    }
}
