//! The program as a plugin of kubectl.
//!
//! For `kubectl devgrant` kubectl runs the executable `kubectl-devgrant` of the PATH, and when the shell
//! completes such a line `kubectl_complete-devgrant`, with the words behind the plugin's name. Both are
//! links to this program, which tells by the name what is wanted. (kubectl, `pkg/cmd/plugin.go` and
//! `pkg/cmd/plugin/plugin_completion.go`.)

use std::env;
use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::path::Path;

use clap::{Command, CommandFactory};
use clap_complete::engine::{self, CompletionCandidate};

use super::{Arguments, Status, output};

/// What the program was run as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Name {
    /// As itself, or under a name that means nothing to us.
    Devgrant,
    /// As `kubectl devgrant`.
    Plugin,
    /// By kubectl, for what could stand at the end of a `kubectl devgrant …`.
    PluginCompletions,
}

impl Name {
    /// By the program's path, the first of the arguments.
    pub fn of(program: Option<&OsStr>) -> Self {
        match program.and_then(|program| Path::new(program).file_name()?.to_str()) {
            Some("kubectl-devgrant") => Self::Plugin,
            Some("kubectl_complete-devgrant") => Self::PluginCompletions,
            _ => Self::Devgrant,
        }
    }

    /// The command, with usage lines as a person types them.
    pub fn command(self) -> Command {
        let command = Arguments::command();
        if self == Self::Devgrant { command } else { command.bin_name("kubectl devgrant") }
    }
}

/// Prints what could stand for the last of the words, for kubectl.
pub(super) fn complete(words: Vec<OsString>) -> anyhow::Result<Status> {
    let word = words.last().cloned().unwrap_or_default();
    let mut line = vec![OsString::from("devgrant")];
    line.extend(words);
    if line.len() == 1 {
        line.push(OsString::new());
    }
    let last = line.len() - 1;
    let mut command = Name::PluginCompletions.command();
    let folder = env::current_dir().ok();
    let candidates = engine::complete(&mut command, line, last, folder.as_deref())?;
    output::stdout().write_all(in_cobras_format(&candidates, &word).as_bytes())?;
    Ok(Status::Fine)
}

/// A line a candidate, its description behind a tab, and what the shell should do (cobra,
/// `completions.go`).
fn in_cobras_format(candidates: &[CompletionCandidate], word: &OsStr) -> String {
    // The shells' scripts complete what stands behind `--output=`, and put that before it themselves.
    let flag = word.to_str().filter(|word| word.starts_with('-'));
    let flag = flag.and_then(|word| word.get(..=word.find('=')?)).unwrap_or_default();
    let mut text = String::new();
    let mut directive = NO_FILES;
    for candidate in candidates {
        // What is no UTF-8 cannot be said in this format.
        let Some(value) = candidate.get_value().to_str() else { continue };
        let value = value.strip_prefix(flag).unwrap_or(value);
        if value.ends_with('/') {
            directive |= NO_SPACE;
        }
        text.push_str(value);
        if let Some(help) = candidate.get_help() {
            let help = help.to_string();
            text.push('\t');
            text.push_str(help.lines().next().unwrap_or_default());
        }
        text.push('\n');
    }
    text + &format!(":{directive}\n")
}

/// No space behind a completion: a folder, which goes on.
const NO_SPACE: u8 = 2;
/// The shell adds no names of files: where files may stand, they are among the candidates.
const NO_FILES: u8 = 4;
