//! SARIF 2.1.0 (OASIS), as code scanning takes it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write;

use serde_json::{Value, json};

use super::{note, sentence};
use crate::cli::lint::{Remark, Report, Rule};
use crate::cli::{output, words};
use crate::decision::finding::{Entry, Severity, entries};

const SCHEMA: &str = "https://json.schemastore.org/sarif-2.1.0.json";

pub(in crate::cli::lint) fn sarif(out: &mut impl Write, report: &Report) -> anyhow::Result<()> {
    // Every finding has its rule; of the other names only those that are used.
    let mut rules: BTreeMap<Rule, Value> =
        entries().iter().map(|entry| (Rule::Finding(entry.code), finding(entry))).collect();
    for remark in &report.remarks {
        rules.entry(remark.said.rule).or_insert_with(|| other(remark.said.rule));
    }
    let index: Vec<Rule> = rules.keys().copied().collect();
    let results: Vec<Value> =
        report.remarks.iter().map(|remark| result(remark, report, &index)).collect();
    let driver = json!({
        "name": "devgrant",
        "semanticVersion": env!("CARGO_PKG_VERSION"),
        "rules": rules.into_values().collect::<Vec<_>>(),
    });
    let log = json!({
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": driver },
            "invocations": [{ "executionSuccessful": !report.broken }],
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    });
    output::json(out, &log)
}

/// The rule of a finding. It has no `helpUri`: the format wants an absolute one, and the pages are files
/// beside the program.
fn finding(entry: &Entry) -> Value {
    let Entry { code, title, severity, sentence, remedy, why, shows, fix, .. } = entry;
    let page = format!("docs/findings/{code}.md");
    let mut text = String::new();
    let mut markdown = format!("**{sentence}; {remedy}**\n");
    for (heading, part) in [("Why", why), ("How it shows", shows), ("What to do", fix)] {
        // Writing to a String does not fail.
        let _ = write!(text, "{heading}\n\n{}\n\n", part.trim());
        let _ = write!(markdown, "\n## {heading}\n\n{}\n", part.trim());
    }
    let _ = write!(text, "See {page}, or `devgrant explain {code}`.");
    let _ = write!(markdown, "\nSee [{page}]({page}), or `devgrant explain {code}`.\n");
    json!({
        "id": code.as_str(),
        "shortDescription": { "text": title },
        "fullDescription": { "text": format!("{sentence}; {remedy}") },
        "help": { "text": text, "markdown": markdown },
        "defaultConfiguration": { "level": level(*severity) },
    })
}

/// The rule of what has no code.
fn other(rule: Rule) -> Value {
    let id = rule.id();
    let title = match rule {
        Rule::Ask(reason) => reason.title(),
        _ => words::find(&id).map_or("", |word| &word.title),
    };
    let severity = match rule {
        Rule::Ask(_) | Rule::UnreadableFile => Severity::Error,
        _ => Severity::Warning,
    };
    json!({
        "id": id,
        "shortDescription": { "text": title },
        "help": { "text": format!("{title}. The message says what to write instead.") },
        "defaultConfiguration": { "level": level(severity) },
    })
}

fn result(remark: &Remark, report: &Report, index: &[Rule]) -> Value {
    let Remark { pod, said, pointer, spot, .. } = remark;
    let file = report.source(remark).map_or("", |source| &source.file);
    json!({
        "ruleId": said.rule.id(),
        "ruleIndex": index.iter().position(|rule| *rule == said.rule),
        "level": level(said.severity),
        "message": { "text": format!("{} ({})", sentence(said), note(remark)) },
        "locations": [{
            "physicalLocation": {
                "artifactLocation": { "uri": uri(file) },
                "region": {
                    "startLine": spot.line,
                    "startColumn": spot.column,
                    "endLine": spot.line,
                    "endColumn": spot.end_column,
                },
            },
            "logicalLocations": [{ "name": pod, "fullyQualifiedName": pointer, "kind": "object" }],
        }],
    })
}

fn level(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Info => "note",
    }
}

/// A path as a URI reference (RFC 3986): relative, or `file:` for one from the root.
fn uri(file: &str) -> String {
    let mut uri = String::new();
    if file.starts_with('/') {
        uri.push_str("file://");
    }
    let file = file.strip_prefix("./").unwrap_or(file);
    for byte in file.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            let _ = write!(uri, "%{byte:02X}");
        }
    }
    uri
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_uris() {
        assert_eq!(uri("./a b/ü:%.yaml"), "a%20b/%C3%BC%3A%25.yaml");
        assert_eq!(uri("/srv/a.yaml"), "file:///srv/a.yaml");
        assert_eq!(uri("<stdin>"), "%3Cstdin%3E");
    }
}
