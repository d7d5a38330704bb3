//! `explain DG001`: the long text of a finding.

use std::io::Write;

use serde::Serialize;

use crate::cli::output::TITLE;
use crate::decision::finding::{Code, Effect, Entry, Severity};

/// An entry as scripts read it.
#[derive(Debug, Serialize)]
pub(super) struct Told<'e> {
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
    pub(super) fn of(entry: &'e Entry) -> Self {
        // Nothing that an entry holds is left out: a new field does not compile here.
        let Entry { code, title, severity, effect, sentence, remedy, why, shows, fix } = entry;
        let (code, severity, effect) = (*code, *severity, *effect);
        Self { code, title, severity, effect, sentence, remedy, why, shows, fix }
    }
}

pub(super) fn write(out: &mut impl Write, entry: &Entry) -> anyhow::Result<()> {
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
