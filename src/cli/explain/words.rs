//! `explain Deadline`: what a name of the server's or of lint's means.

use std::io::Write;

use serde::Serialize;

use crate::cli::output::TITLE;
use crate::cli::words::{Speaker, Word};

/// A word as scripts read it.
#[derive(Debug, Serialize)]
pub(super) struct Told<'w> {
    /// Of the server, as `reason` of those of decisions.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'w str>,
    /// Of lint, as `rule` in its own output.
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<&'w str>,
    title: &'w str,
    means: &'w str,
    fix: &'w str,
}

impl<'w> Told<'w> {
    pub(super) fn of(word: &'w Word) -> Self {
        // Nothing that a word holds is left out: a new field does not compile here.
        let Word { name, of, title, means, fix } = word;
        let (reason, rule) = match of {
            Speaker::Lint => (None, Some(name.as_str())),
            Speaker::Server => (Some(name.as_str()), None),
        };
        Self { reason, rule, title, means, fix }
    }
}

pub(super) fn write(out: &mut impl Write, word: &Word) -> anyhow::Result<()> {
    let Word { name, of, title, means, fix } = word;
    let of = match of {
        Speaker::Lint => "a rule of lint",
        Speaker::Server => "a review without a verdict",
    };
    writeln!(out, "{TITLE}{name}: {title}{TITLE:#} ({of})")?;
    for (heading, text) in [("What it means", means), ("What to do", fix)] {
        writeln!(out, "\n{TITLE}{heading}{TITLE:#}\n\n{}", text.trim())?;
    }
    Ok(())
}
