//! Problems of policy files, drawn as rustc draws its own.

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use crate::decision::PolicySource;
use crate::decision::policy::problem::{Problem, Severity};

/// A policy set that cannot be used: everything that is wrong with it.
#[derive(Debug)]
pub struct BadPolicies {
    report: String,
    summary: String,
}

impl BadPolicies {
    pub(super) fn new(problems: &[Problem], sources: &[PolicySource]) -> Self {
        Self { report: draw(problems, sources), summary: count(problems) }
    }

    /// Every problem at its place, with escapes for colour.
    pub fn report(&self) -> &str {
        &self.report
    }
}

impl std::fmt::Display for BadPolicies {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.summary)
    }
}

impl std::error::Error for BadPolicies {}

/// Every problem at its place, with escapes for colour, a blank line after each.
pub fn draw(problems: &[Problem], sources: &[PolicySource]) -> String {
    let renderer = Renderer::styled();
    let mut report = String::new();
    for problem in problems {
        let text = sources
            .iter()
            .find(|source| source.file == problem.file)
            .map_or("", |source| source.text.as_str());
        report.push_str(&renderer.render(&groups(problem, text)));
        report.push_str("\n\n");
    }
    report
}

fn groups<'a>(problem: &'a Problem, text: &'a str) -> Vec<Group<'a>> {
    let level = match problem.severity {
        Severity::Error => Level::ERROR,
        Severity::Note => Level::NOTE,
    };
    let mut annotation = AnnotationKind::Primary.span(within(problem, text));
    if !problem.label.is_empty() {
        annotation = annotation.label(problem.label.as_str());
    }
    let mut group = level
        .primary_title(problem.message.as_str())
        .element(Snippet::source(text).path(problem.file.as_str()).annotation(annotation));
    if let Some(help) = &problem.help {
        group = group.element(Level::HELP.message(help.as_str()));
    }
    vec![group]
}

/// The span of a problem, moved to what the drawing can take: inside of the text, between characters.
fn within(problem: &Problem, text: &str) -> std::ops::Range<usize> {
    let start = text.floor_char_boundary(problem.span.start.min(text.len()));
    let end = text.ceil_char_boundary(problem.span.end.clamp(start, text.len()));
    start..end
}

fn count(problems: &[Problem]) -> String {
    let errors: Vec<&Problem> =
        problems.iter().filter(|problem| problem.severity == Severity::Error).collect();
    let mut files: Vec<&str> = errors.iter().map(|problem| problem.file.as_str()).collect();
    files.sort_unstable();
    files.dedup();
    let notes = problems.len() - errors.len();
    let mut summary =
        format!("{} in {}", plural(errors.len(), "error"), plural(files.len(), "policy file"));
    if notes > 0 {
        summary = format!("{summary}, {}", plural(notes, "note"));
    }
    summary
}

/// `1 error`, `2 errors`; `1 policy`, `2 policies`.
pub fn plural(count: usize, noun: &str) -> String {
    match (count, noun.strip_suffix('y')) {
        (1, _) => format!("1 {noun}"),
        (count, Some(stem)) => format!("{count} {stem}ies"),
        (count, None) => format!("{count} {noun}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_file_line_column_caret_label_and_help() {
        let text = "kind: DevicePolicy\nspec:\n  devize: füse\n";
        let start = text.find("devize").unwrap();
        let problem = Problem {
            severity: Severity::Error,
            file: "fuse.yaml".to_owned(),
            span: start..start + 6,
            message: "unknown field `devize`".to_owned(),
            label: "not a field of the spec".to_owned(),
            help: Some("write `device`".to_owned()),
        };
        let source = PolicySource { file: "fuse.yaml".to_owned(), text: text.to_owned() };
        let drawn = anstream::adapter::strip_str(&draw(&[problem], &[source])).to_string();
        assert_eq!(
            drawn.trim_end(),
            "error: unknown field `devize`\n --> fuse.yaml:3:3\n  |\n3 |   devize: füse\n  |   ^^^^^^ not a field of the spec\n  |\n  = help: write `device`",
            "{drawn}"
        );
    }

    #[test]
    fn draws_spans_that_do_not_fit() {
        let text = "ä: ö\n";
        for span in [0..1, 1..2, 3..400, 400..500, 6..6] {
            let problem = Problem {
                severity: Severity::Note,
                file: "a.yaml".to_owned(),
                span,
                message: "m".to_owned(),
                label: String::new(),
                help: None,
            };
            let source = PolicySource { file: "a.yaml".to_owned(), text: text.to_owned() };
            assert!(!draw(&[problem], &[source]).is_empty());
        }
    }

    #[test]
    fn counts_read_as_a_sentence() {
        assert_eq!(plural(1, "error"), "1 error");
        assert_eq!(plural(2, "policy"), "2 policies");
        assert_eq!(plural(0, "policy file"), "0 policy files");
    }
}
