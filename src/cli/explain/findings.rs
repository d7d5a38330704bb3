//! `explain DG001`: the long text of a finding.

use std::io::Write;

use anyhow::anyhow;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use serde::Serialize;

use super::Format;
use crate::cli::output::{self, TITLE};
use crate::decision::finding::{Code, Effect, Entry, Severity, entries};

/// Reads a code. clap lists all of them with their titles in `--help`, completes them in shells, and
/// answers a misspelt one with the nearest.
pub(super) fn codes() -> impl TypedValueParser<Value = Code> {
    let known = |entry: &Entry| PossibleValue::new(entry.code.as_str()).help(entry.title.clone());
    PossibleValuesParser::new(entries().iter().map(known))
        .try_map(|text| Code::parse(&text).ok_or_else(|| anyhow!("no finding has the code {text}")))
}

pub(super) fn run(codes: &[Code], format: Format) -> anyhow::Result<()> {
    let asked = codes.iter().filter_map(|code| entries().iter().find(|entry| entry.code == *code));
    let mut stdout = output::stdout();
    match format {
        Format::Json => output::json(&mut stdout, &asked.map(Told::of).collect::<Vec<_>>())?,
        Format::Text => {
            for (index, entry) in asked.enumerate() {
                if index > 0 {
                    writeln!(stdout)?;
                }
                write(&mut stdout, entry)?;
            }
        }
    }
    Ok(())
}

/// An entry as scripts read it.
#[derive(Debug, Serialize)]
struct Told<'e> {
    code: Code,
    title: &'e str,
    severity: Severity,
    effect: Effect,
    sentence: &'e str,
    remedy: &'e str,
    why: &'e str,
    shows: &'e str,
    fix: &'e str,
}

impl<'e> Told<'e> {
    fn of(entry: &'e Entry) -> Self {
        // Nothing that an entry holds is left out: a new field does not compile here.
        let Entry { code, title, severity, effect, sentence, remedy, why, shows, fix } = entry;
        let (code, severity, effect) = (*code, *severity, *effect);
        Self { code, title, severity, effect, sentence, remedy, why, shows, fix }
    }
}

fn write(out: &mut impl Write, entry: &Entry) -> anyhow::Result<()> {
    let Entry { code, title, severity, effect, .. } = entry;
    writeln!(out, "{TITLE}{code}: {title}{TITLE:#} (severity {severity:?}, effect {effect:?})")?;
    writeln!(out, "\n{}; {}", entry.sentence.trim(), entry.remedy.trim())?;
    for (heading, text) in
        [("Why", &entry.why), ("How it shows", &entry.shows), ("What to do", &entry.fix)]
    {
        writeln!(out, "\n{TITLE}{heading}{TITLE:#}\n\n{}", text.trim())?;
    }
    Ok(())
}
