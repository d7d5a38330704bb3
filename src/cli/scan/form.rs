//! The report as a table, as JSON and as CSV.

use std::fmt::Write as _;
use std::io::Write;

use serde::Serialize;

use super::report::{Becomes, Counts, Report, Row, Summary};
use super::text::cell;
use crate::cli::output::{self, TITLE};
use crate::cli::problems::plural;
use crate::decision::Settings;

/// The most containers that a cell of the table names.
const MOST_NAMES: usize = 3;

/// For people: one line for each row, and what to label.
pub(super) fn table(
    out: &mut impl Write,
    report: &Report,
    settings: &Settings,
) -> anyhow::Result<()> {
    if report.rows.is_empty() {
        // Of what could not be read nobody knows.
        if report.summary.unreadable > 0 {
            return Ok(());
        }
        writeln!(out, "nothing is privileged, and nothing has a device of the node by hostPath")?;
        return Ok(());
    }
    let mut lines = vec![HEAD.map(str::to_owned)];
    lines.extend(report.rows.iter().map(|(row, counts)| cells(row, *counts)));
    let mut widths = [0; HEAD.len()];
    for line in &lines {
        for (width, text) in widths.iter_mut().zip(line) {
            *width = (*width).max(text.chars().count());
        }
    }
    for (index, line) in lines.iter().enumerate() {
        let mut text = String::new();
        for (width, cell) in widths.iter().zip(line) {
            let _ = write!(text, "{cell:<width$}  ");
        }
        let text = text.trim_end();
        if index == 0 {
            writeln!(out, "{TITLE}{text}{TITLE:#}")?;
        } else {
            writeln!(out, "{text}")?;
        }
    }
    let names = report.to_opt_in();
    if !names.is_empty() {
        let label = settings.opt_in_label();
        let names = names.join(" ");
        writeln!(
            out,
            "\nto opt in: kubectl label namespace {names} {label}={}",
            Settings::OPTED_IN
        )?;
    }
    Ok(())
}

const HEAD: [&str; 8] = [
    "NAMESPACE",
    "OWNER",
    "PODS",
    "CONTAINERS",
    "TODAY",
    "DEVICES",
    "BECOMES",
    "ANNOTATIONS TO ADD, OR WHY NOT",
];

fn cells(row: &Row, counts: Counts) -> [String; 8] {
    let mut names: Vec<String> = row.containers.iter().take(MOST_NAMES).cloned().collect();
    if row.containers.len() > MOST_NAMES {
        names.push(format!("+{}", row.containers.len() - MOST_NAMES));
    }
    let paths = row.host_paths.iter().map(|path| format!("hostPath {path}"));
    let today: Vec<String> =
        row.privileged.then(|| "privileged".to_owned()).into_iter().chain(paths).collect();
    let last = if row.becomes == Becomes::Rewrite {
        let findings = row.findings.iter().map(|code| code.as_str());
        let findings = findings.collect::<Vec<_>>().join(", ");
        let see = if findings.is_empty() { String::new() } else { format!(" (see {findings})") };
        format!("{}{see}", pairs(row))
    } else {
        row.why.clone()
    };
    [
        row.namespace.clone(),
        row.owner.to_string(),
        // A template is no pod yet.
        if counts.pods == 0 { "-".to_owned() } else { counts.pods.to_string() },
        names.join(","),
        today.join(", "),
        if row.devices.is_empty() { "-".to_owned() } else { row.devices.join(",") },
        row.becomes.words().to_owned(),
        last,
    ]
}

/// Annotations as `kubectl annotate` takes them.
fn pairs(row: &Row) -> String {
    let pairs = row.annotations.iter().map(|(key, value)| format!("{key}={value}"));
    pairs.collect::<Vec<_>>().join(" ")
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Told<'r> {
    rows: Vec<ToldRow<'r>>,
    namespaces: Vec<ToldNamespace<'r>>,
    summary: &'r Summary,
}

#[derive(Serialize)]
struct ToldRow<'r> {
    #[serde(flatten)]
    row: &'r Row,
    #[serde(flatten)]
    counts: Counts,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ToldNamespace<'r> {
    name: &'r str,
    opted_in: Option<bool>,
}

/// For scripts; `docs/scan.md` says what is what.
pub(super) fn json(out: &mut impl Write, report: &Report) -> anyhow::Result<()> {
    let rows = report.rows.iter().map(|(row, counts)| ToldRow { row, counts: *counts }).collect();
    let mut names: Vec<&str> = report.rows.keys().map(|row| row.namespace.as_str()).collect();
    names.dedup();
    let namespaces = names
        .into_iter()
        .map(|name| ToldNamespace { name, opted_in: report.opted_in.get(name).copied() })
        .collect();
    output::json(out, &Told { rows, namespaces, summary: &report.summary })
}

/// For spreadsheets, RFC 4180.
pub(super) fn csv(out: &mut impl Write, report: &Report) -> anyhow::Result<()> {
    let head = [
        "namespace",
        "ownerKind",
        "ownerName",
        "pods",
        "templates",
        "containers",
        "privileged",
        "hostPaths",
        "devices",
        "becomes",
        "why",
        "annotations",
        "findings",
    ];
    write!(out, "{}\r\n", head.join(","))?;
    for (row, counts) in &report.rows {
        let findings: Vec<String> = row.findings.iter().map(|code| code.as_str()).collect();
        let cells = [
            &row.namespace,
            &row.owner.kind,
            &row.owner.name,
            &counts.pods.to_string(),
            &counts.templates.to_string(),
            &row.containers.join(" "),
            &row.privileged.to_string(),
            &row.host_paths.join(" "),
            &row.devices.join(" "),
            row.becomes.words(),
            &row.why,
            &pairs(row),
            &findings.join(" "),
        ];
        let cells: Vec<String> = cells.iter().map(|text| cell(text)).collect();
        write!(out, "{}\r\n", cells.join(","))?;
    }
    Ok(())
}

/// The last line: what was seen, in numbers.
pub(super) fn summary(summary: &Summary) -> String {
    let seen = match summary.templates {
        0 => plural(summary.pods, "pod"),
        templates => {
            format!("{} and {}", plural(summary.pods, "pod"), plural(templates, "template"))
        }
    };
    let mut text = format!(
        "{seen}: {} privileged, {} with a device by hostPath",
        summary.privileged, summary.with_device
    );
    let parts = [
        (summary.rewrite, Becomes::Rewrite.words()),
        (summary.asks_already, Becomes::AsksAlready.words()),
        (summary.keeps, Becomes::Keeps.words()),
        (summary.denied, Becomes::Denied.words()),
        (summary.no_policy, Becomes::NoPolicy.words()),
        (summary.no_device, Becomes::NoDevice.words()),
        (summary.never_touched, Becomes::NeverTouched.words()),
        (summary.unreadable, "unreadable"),
    ];
    for (index, (count, what)) in parts.iter().filter(|(count, _)| *count > 0).enumerate() {
        let _ = write!(text, "{} {count} {what}", if index == 0 { ";" } else { "," });
    }
    text
}
