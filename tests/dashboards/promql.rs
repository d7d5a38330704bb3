//! As much of `PromQL` as our queries have: which series they ask for, and by which labels they group.

use std::collections::BTreeSet;

/// What a query asks for.
#[derive(Debug, Default)]
pub(crate) struct Query {
    /// In the order of the text.
    pub(crate) series: Vec<Series>,
    /// The labels behind `by`.
    pub(crate) groups: BTreeSet<String>,
}

/// A metric, and what its labels must be.
#[derive(Debug)]
pub(crate) struct Series {
    pub(crate) metric: String,
    /// Label, operator, value.
    pub(crate) matchers: Vec<(String, String, String)>,
}

/// Functions, aggregations and operators that we use. What is none of them is a metric.
const WORDS: &[&str] = &[
    "absent",
    "and",
    "by",
    "count",
    "histogram_quantile",
    "increase",
    "max",
    "min",
    "or",
    "rate",
    "sum",
    "time",
];

impl Query {
    /// Reads a query, or a series as the text format writes it.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        let mut query = Self::default();
        let mut rest = text;
        let mut depth = 0_i32;
        while let Some(first) = rest.chars().next() {
            if first.is_ascii_alphabetic() {
                let (word, behind) = word(rest);
                rest = behind;
                if word == "by" {
                    let (labels, behind) = between(rest, '(', ')')?;
                    query.groups.extend(labels.split(',').map(|label| label.trim().to_owned()));
                    rest = behind;
                } else if !WORDS.contains(&word) {
                    let mut series = Series { metric: word.to_owned(), matchers: Vec::new() };
                    if rest.starts_with('{') {
                        let (inside, behind) = between(rest, '{', '}')?;
                        series.matchers = matchers(inside)?;
                        rest = behind;
                    }
                    query.series.push(series);
                }
            } else if first == '[' {
                rest = between(rest, '[', ']')?.1;
            } else if first.is_ascii_digit() || " \n.,()+-*/<>=!".contains(first) {
                depth += match first {
                    '(' => 1,
                    ')' => -1,
                    _ => 0,
                };
                rest = rest.get(1..).unwrap_or_default();
            } else {
                return Err(format!("`{first}` in {text}"));
            }
        }
        if depth == 0 { Ok(query) } else { Err(format!("a bracket too many in {text}")) }
    }
}

fn word(text: &str) -> (&str, &str) {
    let part_of = |char: char| char.is_ascii_alphanumeric() || char == '_';
    text.split_at(text.find(|char| !part_of(char)).unwrap_or(text.len()))
}

/// What is between two brackets, which hold none of their kind, and what is behind them.
fn between(text: &str, open: char, close: char) -> Result<(&str, &str), String> {
    let inside = text.trim_start().strip_prefix(open);
    inside
        .and_then(|inside| inside.split_once(close))
        .ok_or_else(|| format!("`{open}…{close}` is missing in {text}"))
}

fn matchers(text: &str) -> Result<Vec<(String, String, String)>, String> {
    let mut matchers = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (label, behind) = word(rest);
        let (operator, behind) =
            behind.split_once('"').ok_or_else(|| format!("no value in {text}"))?;
        let (value, behind) =
            behind.split_once('"').ok_or_else(|| format!("no end of a value in {text}"))?;
        if !["=", "!=", "=~", "!~"].contains(&operator) {
            return Err(format!("`{operator}` in {text}"));
        }
        matchers.push((label.to_owned(), operator.to_owned(), value.to_owned()));
        rest = behind.strip_prefix(',').unwrap_or(behind);
    }
    Ok(matchers)
}
