//! `explain UnknownMode`: what a reason means.

use std::io::Write;

use serde::Serialize;

use crate::cli::output::TITLE;
use crate::decision::plan::meaning::Meaning;

/// A meaning as scripts read it.
#[derive(Debug, Serialize)]
pub(super) struct Told<'m> {
    reason: &'static str,
    title: &'m str,
    means: &'m str,
    fix: &'m str,
}

impl<'m> Told<'m> {
    pub(super) fn of(meaning: &'m Meaning) -> Self {
        // Nothing that a meaning holds is left out: a new field does not compile here.
        let Meaning { reason, title, means, fix } = meaning;
        Self { reason: reason.as_str(), title, means, fix }
    }
}

pub(super) fn write(out: &mut impl Write, meaning: &Meaning) -> anyhow::Result<()> {
    let Meaning { reason, title, means, fix } = meaning;
    writeln!(out, "{TITLE}{}: {title}{TITLE:#}", reason.as_str())?;
    for (heading, text) in [("What it means", means), ("What to do", fix)] {
        writeln!(out, "\n{TITLE}{heading}{TITLE:#}\n\n{}", text.trim())?;
    }
    Ok(())
}
