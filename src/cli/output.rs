//! Where results and messages go, and in which colours.

use std::io::{self, Write};

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};
use serde::Serialize;
use similar::TextDiff;

/// When to write in colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Color {
    /// Always, also into a pipe.
    Always,
    /// On a terminal.
    #[default]
    Auto,
    /// Never.
    Never,
}

impl Color {
    pub(super) fn apply(self) {
        match self {
            Self::Always => ColorChoice::Always,
            Self::Auto => ColorChoice::Auto,
            Self::Never => ColorChoice::Never,
        }
        .write_global();
    }
}

/// What is taken away, in a diff.
pub const REMOVED: Style = AnsiColor::Red.on_default();
/// What is added, in a diff.
pub const ADDED: Style = AnsiColor::Green.on_default();
/// Where in a file, in a diff.
pub const PLACE: Style = AnsiColor::Cyan.on_default();
/// What a block is about.
pub const TITLE: Style = Style::new().bold();
/// What a person should read.
pub const WARNING: Style = AnsiColor::Yellow.on_default().bold();
/// What went wrong.
pub const ERROR: Style = AnsiColor::Red.on_default().bold();

/// Standard output; escapes are left out where they do not belong.
pub fn stdout() -> AutoStream<io::Stdout> {
    anstream::stdout()
}

/// Standard error; escapes are left out where they do not belong.
pub fn stderr() -> AutoStream<io::Stderr> {
    anstream::stderr()
}

/// Writes a value as JSON for people and scripts: indented, with a newline at the end.
pub fn json(out: &mut impl Write, value: &impl Serialize) -> anyhow::Result<()> {
    // Into a text first: an error of the pipe must reach `main` as what it is, not inside one of
    // serde's.
    let text = serde_json::to_string_pretty(value)?;
    writeln!(out, "{text}")?;
    Ok(())
}

/// One YAML document, ending in a newline.
pub fn yaml(value: &impl Serialize) -> anyhow::Result<String> {
    let options = serde_saphyr::ser_options! {
        // Long command lines and annotations stay one line, as people and kubectl write them.
        folded_wrap_chars: usize::MAX,
    };
    let mut text = serde_saphyr::to_string_with_options(value, options)?;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}

/// Writes the difference of two texts, unified.
pub fn diff(out: &mut impl Write, before: &str, after: &str, header: &str) -> io::Result<()> {
    let diff = TextDiff::from_lines(before, after);
    let diff = diff.unified_diff().header(header, header).to_string();
    for line in diff.lines() {
        let style = match line.get(..1) {
            _ if line.starts_with("--- ") || line.starts_with("+++ ") => TITLE,
            Some("-") => REMOVED,
            Some("+") => ADDED,
            Some("@") => PLACE,
            _ => Style::new(),
        };
        writeln!(out, "{style}{line}{style:#}")?;
    }
    Ok(())
}

/// Writes what was done, beside the results.
pub fn say(text: &str) -> io::Result<()> {
    writeln!(stderr(), "{text}")
}

/// Writes a note to the person, beside the results.
pub fn note(text: &str) -> io::Result<()> {
    writeln!(stderr(), "{TITLE}note{TITLE:#}: {text}")
}

/// Writes what a person should know about the input, beside the results.
pub fn warning(text: &str) -> io::Result<()> {
    writeln!(stderr(), "{WARNING}Warning:{WARNING:#} {text}")
}

/// Warnings as the sentences that they were before they were cut into lines for the API server.
pub fn joined<'w>(warnings: impl Iterator<Item = &'w str>) -> Vec<String> {
    let mut sentences: Vec<String> = Vec::new();
    for warning in warnings {
        match (warning.strip_prefix('…'), sentences.last_mut()) {
            (Some(rest), Some(last)) if last.ends_with('…') => {
                last.truncate(last.len() - '…'.len_utf8());
                last.push(' ');
                last.push_str(rest);
            }
            _ => sentences.push(warning.to_owned()),
        }
    }
    sentences
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn yaml_reads_back_the_same() {
        let value = json!({
            "z": "yes", "a": "0755", "number": 1, "float": 1.5, "null": null, "text": "null",
            "empty": "", "list": [], "map": {}, "long": "word ".repeat(100),
            "script": "#!/bin/sh\nset -e\n\techo  x \n", "trailing": "a\n\n", "cr": "a\r\nb",
            "quote": "it's \"so\": #1", "date": "2026-01-01", "octal": "0o7", "sexagesimal": "1:30",
            "nested": [[{"a": [1, "2", true, "true"]}], {"b": "- c"}], "*": "&x", "key: a": "%b",
            "unicode": "ä\u{85}\u{2028}☃", "control": "\u{1}\u{7f}",
        });
        let text = yaml(&value).unwrap();
        let back: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(back, value, "{text}");
        assert!(text.starts_with("z: "), "the order of keys is kept: {text}");
    }
}
