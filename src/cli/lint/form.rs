//! The forms that remarks are written in.

mod sarif;

use std::io::Write;

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};
use serde::Serialize;

use super::source::{LONG, Source};
use super::{Remark, Report, Rule, Said};
use crate::cli::output;
use crate::decision::finding::Severity;

pub(super) use sarif::sarif;

pub(super) fn text(out: &mut impl Write, report: &Report) -> anyhow::Result<()> {
    let renderer = Renderer::styled();
    // What cannot be read is on standard error.
    let readable = |remark: &&Remark| remark.said.rule != Rule::UnreadableFile;
    for remark in report.remarks.iter().filter(readable) {
        let Some(source) = report.source(remark) else { continue };
        writeln!(out, "{}\n", renderer.render(&[group(remark, source)]))?;
    }
    Ok(())
}

fn group<'a>(remark: &'a Remark, source: &'a Source) -> Group<'a> {
    let Remark { said, spot, .. } = remark;
    let level = match said.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
        Severity::Info => Level::INFO,
    };
    let group = level.primary_title(said.message.as_str()).id(said.rule.id());
    let (start, line) = source.line(spot.line);
    let group = if line.len() > LONG {
        let origin = Origin::path(source.file.as_str());
        group.element(origin.line(spot.line).char_column(spot.column))
    } else {
        let span = spot.bytes.start - start..spot.bytes.end - start;
        let snippet = Snippet::source(line).line_start(spot.line).path(source.file.as_str());
        group.element(snippet.annotation(AnnotationKind::Primary.span(span)))
    };
    let group = match &said.remedy {
        Some(remedy) => group.element(Level::HELP.message(remedy.as_str())),
        None => group,
    };
    group.element(Level::NOTE.message(note(remark)))
}

/// Whose pod it is, and where more is to be read.
fn note(remark: &Remark) -> String {
    let Remark { pod, said, .. } = remark;
    let start = if said.refuses { format!("{pod} would be refused") } else { format!("in {pod}") };
    match said.rule {
        Rule::Finding(code) => format!("{start}; `devgrant explain {code}` says why"),
        _ => start,
    }
}

/// A remark as scripts read it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Told<'r> {
    rule: String,
    severity: Severity,
    message: &'r str,
    remedy: Option<&'r str>,
    refuses: bool,
    file: &'r str,
    line: usize,
    column: usize,
    end_column: usize,
    document: usize,
    pointer: &'r str,
    pod: &'r str,
    pod_pointer: &'r str,
}

pub(super) fn json(out: &mut impl Write, report: &Report) -> anyhow::Result<()> {
    let told = report.remarks.iter().map(|remark| {
        let Remark { document, pod, said, pointer, spot, .. } = remark;
        let Said { rule, severity, message, remedy, refuses, path, key: _ } = said;
        Told {
            rule: rule.id(),
            severity: *severity,
            message,
            remedy: remedy.as_deref(),
            refuses: *refuses,
            file: report.source(remark).map_or("", |source| &source.file),
            line: spot.line,
            column: spot.column,
            end_column: spot.end_column,
            document: *document,
            pointer,
            pod,
            pod_pointer: path,
        }
    });
    output::json(out, &told.collect::<Vec<_>>())
}

/// Workflow commands (`actions/toolkit packages/core/src/command.ts`).
pub(super) fn github(out: &mut impl Write, report: &Report) -> anyhow::Result<()> {
    for remark in &report.remarks {
        let Remark { pod, said, spot, .. } = remark;
        let command = match said.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Info => "notice",
        };
        let file = property(report.source(remark).map_or("", |source| &source.file));
        let title = property(&format!("{} in {pod}", said.rule.id()));
        let message = data(&sentence(said));
        let (line, column, end) = (spot.line, spot.column, spot.end_column);
        writeln!(
            out,
            "::{command} file={file},line={line},col={column},endColumn={end},title={title}::{message}"
        )?;
    }
    Ok(())
}

/// The message and the remedy in one.
fn sentence(said: &Said) -> String {
    match &said.remedy {
        Some(remedy) => format!("{}; {remedy}", said.message),
        None => said.message.clone(),
    }
}

/// What follows the second `::` of a workflow command.
fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// The value of a property of a workflow command.
fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workflow_commands_are_escaped() {
        assert_eq!(data("50%: a\r\nb, ::error::c"), "50%25: a%0D%0Ab, ::error::c");
        assert_eq!(property("a:b,c%\n"), "a%3Ab%2Cc%25%0A");
    }
}
