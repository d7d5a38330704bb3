//! What `explain` can be asked for by name: the code of a finding, a reason, or a rule of lint.

use std::ffi::OsStr;
use std::io::Write;

use anyhow::anyhow;
use clap::builder::{PossibleValue, StringValueParser, TypedValueParser};
use clap::{Arg, Command};
use serde::Serialize;

use super::{Format, findings, reasons, words};
use crate::cli::output;
use crate::cli::words::{self as known, Word};
use crate::decision::Reason;
use crate::decision::finding::{Code, Entry, entries};
use crate::decision::plan::meaning::{Meaning, meanings};
use crate::decision::spelling;

/// A name with a meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Name {
    /// A finding, such as DG001.
    Finding(Code),
    /// A reason, such as `UnknownMode`.
    Reason(Reason),
    /// What no decision says, such as `Deadline` or `UnknownField`.
    Word(&'static Word),
}

impl Name {
    fn parse(text: &str) -> Option<Self> {
        let reason = || Reason::parse(text).map(Self::Reason);
        let word = || known::find(text).map(Self::Word);
        Code::parse(text).map(Self::Finding).or_else(reason).or_else(word)
    }
}

/// Reads a name.
pub(super) fn parser() -> impl TypedValueParser<Value = Name> {
    Names
}

/// Clap lists all names with their titles in `--help`, and completes them in shells. To a misspelt one it
/// would answer with the whole list.
#[derive(Debug, Clone, Copy)]
struct Names;

impl TypedValueParser for Names {
    type Value = Name;

    fn parse_ref(
        &self,
        command: &Command,
        argument: Option<&Arg>,
        value: &OsStr,
    ) -> Result<Name, clap::Error> {
        let read = |text: String| {
            Name::parse(&text).ok_or_else(|| {
                let all = all();
                let near = spelling::nearest(&text, all.iter().map(|(name, _)| name.as_str()));
                let near = near.map(|near| format!("did you mean `{near}`? ")).unwrap_or_default();
                anyhow!("nothing has this name; {near}`devgrant explain --help` lists all")
            })
        };
        StringValueParser::new().try_map(read).parse_ref(command, argument, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        let values = all().into_iter().map(|(name, title)| PossibleValue::new(name).help(title));
        Some(Box::new(values))
    }
}

/// Every name with its title.
fn all() -> Vec<(String, &'static str)> {
    let findings = entries().iter().map(|entry| (entry.code.as_str(), entry.title.as_str()));
    let reasons = meanings()
        .iter()
        .map(|meaning| (meaning.reason.as_str().to_owned(), meaning.title.as_str()));
    let words = known::words().iter().map(|word| (word.name.clone(), word.title.as_str()));
    findings.chain(reasons).chain(words).collect()
}

pub(super) fn run(names: &[Name], format: Format) -> anyhow::Result<()> {
    let texts = names.iter().filter_map(|name| Text::of(*name));
    let mut stdout = output::stdout();
    match format {
        Format::Json => {
            output::json(&mut stdout, &texts.map(Told::of).collect::<Vec<_>>())?;
        }
        Format::Text => {
            for (index, text) in texts.enumerate() {
                if index > 0 {
                    writeln!(stdout)?;
                }
                match text {
                    Text::Finding(entry) => findings::write(&mut stdout, entry)?,
                    Text::Reason(meaning) => reasons::write(&mut stdout, meaning)?,
                    Text::Word(word) => words::write(&mut stdout, word)?,
                }
            }
        }
    }
    Ok(())
}

/// What is to be told of a name.
#[derive(Debug, Clone, Copy)]
enum Text {
    Finding(&'static Entry),
    Reason(&'static Meaning),
    Word(&'static Word),
}

impl Text {
    fn of(name: Name) -> Option<Self> {
        match name {
            Name::Finding(code) => {
                entries().iter().find(|entry| entry.code == code).map(Self::Finding)
            }
            Name::Reason(reason) => {
                meanings().iter().find(|meaning| meaning.reason == reason).map(Self::Reason)
            }
            Name::Word(word) => Some(Self::Word(word)),
        }
    }
}

/// The same as scripts read it.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Told {
    Finding(findings::Told<'static>),
    Reason(reasons::Told<'static>),
    Word(words::Told<'static>),
}

impl Told {
    fn of(text: Text) -> Self {
        match text {
            Text::Finding(entry) => Self::Finding(findings::Told::of(entry)),
            Text::Reason(meaning) => Self::Reason(reasons::Told::of(meaning)),
            Text::Word(word) => Self::Word(words::Told::of(word)),
        }
    }
}
