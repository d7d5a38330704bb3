//! A YAML document with the place of every value, so that a problem can point at it.

use std::fmt;
use std::ops::Range;

use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Location, Spanned};

/// How deep a file may be nested, twice of what the schema has. The parser's own limit of 64 overflows
/// the 2 MiB stack of a thread in a debug build: reading one level takes tens of kilobytes there.
const DEEPEST: usize = 16;
/// How many values a file may have, aliases followed: ten times of the largest that is shipped.
const MOST: usize = 20_000;

/// A value and the bytes that it stands at.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) value: Yaml,
    pub(super) span: Range<usize>,
}

/// A YAML value. Anchors are resolved, duplicate keys are refused by the parser.
#[derive(Debug)]
pub(super) enum Yaml {
    Null,
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

/// A key and the bytes that it stands at.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) text: String,
    pub(super) span: Range<usize>,
}

/// One step from a value to one inside of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Key(String),
    /// The key itself, not its value.
    KeyOf(String),
    Index(usize),
}

/// A document that is not one YAML value.
#[derive(Debug)]
pub(super) struct Unreadable {
    pub(super) message: String,
    pub(super) span: Range<usize>,
}

impl Node {
    /// Reads a text that holds exactly one document.
    pub(super) fn parse(text: &str) -> Result<Self, Unreadable> {
        let budget = serde_saphyr::budget! { max_depth: DEEPEST, max_nodes: MOST };
        let options = serde_saphyr::options! { budget: budget };
        match serde_saphyr::from_str_with_options::<Spanned<Yaml>>(text, options) {
            Ok(spanned) => Ok(Self::from(spanned)),
            Err(error) => {
                let error = error.without_snippet();
                let at = error.location();
                let span = at.and_then(|at| bytes_of(at).or_else(|| start_of(text, at)));
                // The parser says the line in its message, which is ours to draw, and names functions
                // and options of its own, which are nothing to the author of a policy.
                let message = error.to_string();
                let ends = [" at line ", "; use ", ", set "].map(|end| message.find(end));
                let end = ends.into_iter().flatten().min().unwrap_or(message.len());
                let message = match message.get(..end).unwrap_or(&message) {
                    budget if budget.starts_with("budget breached") => format!(
                        "it is nested deeper than {DEEPEST} levels, or has more than {MOST} values"
                    ),
                    plain => plain.to_owned(),
                };
                Err(Unreadable { message, span: span.unwrap_or(0..0) })
            }
        }
    }

    /// Whether anything is written at a path, be it of the right shape or not.
    pub(super) fn has(&self, path: &[Step]) -> bool {
        let Some((step, rest)) = path.split_first() else { return true };
        match (step, &self.value) {
            (Step::Key(name) | Step::KeyOf(name), Yaml::Map(entries)) => {
                let mut entries = entries.iter();
                entries.find(|(key, _)| key.text == *name).is_some_and(|(_, node)| node.has(rest))
            }
            (Step::Index(index), Yaml::List(items)) => {
                items.get(*index).is_some_and(|node| node.has(rest))
            }
            _ => false,
        }
    }

    /// The bytes of the value at a path, or of the last value on the way that is there.
    pub(super) fn span_at(&self, path: &[Step]) -> Range<usize> {
        let Some((step, rest)) = path.split_first() else {
            return self.span.clone();
        };
        match (step, &self.value) {
            (Step::Key(name), Yaml::Map(entries)) => entries
                .iter()
                .find(|(key, _)| key.text == *name)
                .map_or_else(|| self.span.clone(), |(_, node)| node.span_at(rest)),
            (Step::KeyOf(name), Yaml::Map(entries)) => entries
                .iter()
                .find(|(key, _)| key.text == *name)
                .map_or_else(|| self.span.clone(), |(key, _)| key.span.clone()),
            (Step::Index(index), Yaml::List(items)) => {
                items.get(*index).map_or_else(|| self.span.clone(), |node| node.span_at(rest))
            }
            _ => self.span.clone(),
        }
    }
}

impl From<Spanned<Yaml>> for Node {
    fn from(spanned: Spanned<Yaml>) -> Self {
        Self { span: bytes_of(spanned.referenced).unwrap_or(0..0), value: spanned.value }
    }
}

fn bytes_of(location: Location) -> Option<Range<usize>> {
    let span = location.span();
    let start = usize::try_from(span.byte_offset()?).ok()?;
    let length = usize::try_from(span.byte_len().unwrap_or(0)).ok()?;
    Some(start..start.saturating_add(length))
}

/// The place of a line and a column, which is all that some errors of the parser know.
fn start_of(text: &str, location: Location) -> Option<Range<usize>> {
    let line = usize::try_from(location.line().checked_sub(1)?).ok()?;
    let column = usize::try_from(location.column().checked_sub(1)?).ok()?;
    let before: usize = text.split_inclusive('\n').take(line).map(str::len).sum();
    let rest = text.get(before..)?;
    let inner = rest.char_indices().nth(column).map_or(rest.len(), |(at, _)| at);
    Some(before.saturating_add(inner)..before.saturating_add(inner))
}

impl<'de> Deserialize<'de> for Yaml {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct YamlVisitor;

        impl<'de> Visitor<'de> for YamlVisitor {
            type Value = Yaml;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a YAML value")
            }

            fn visit_unit<E: de::Error>(self) -> Result<Yaml, E> {
                Ok(Yaml::Null)
            }

            fn visit_none<E: de::Error>(self) -> Result<Yaml, E> {
                Ok(Yaml::Null)
            }

            fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Yaml, D::Error> {
                Yaml::deserialize(deserializer)
            }

            fn visit_bool<E: de::Error>(self, value: bool) -> Result<Yaml, E> {
                Ok(Yaml::Bool(value))
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Yaml, E> {
                Ok(Yaml::Integer(value))
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Yaml, E> {
                i64::try_from(value)
                    .map(Yaml::Integer)
                    .map_err(|_| E::custom("a number this large is in no policy"))
            }

            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Yaml, E> {
                Ok(Yaml::Float(value))
            }

            fn visit_str<E: de::Error>(self, value: &str) -> Result<Yaml, E> {
                Ok(Yaml::Text(value.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Yaml, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = items.next_element::<Spanned<Yaml>>()? {
                    list.push(Node::from(item));
                }
                Ok(Yaml::List(list))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Yaml, A::Error> {
                let mut map = Vec::new();
                while let Some(key) = entries.next_key::<Spanned<String>>()? {
                    let span = bytes_of(key.referenced).unwrap_or(0..0);
                    let value = entries.next_value::<Spanned<Yaml>>()?;
                    map.push((Key { text: key.value, span }, Node::from(value)));
                }
                Ok(Yaml::Map(map))
            }
        }

        deserializer.deserialize_any(YamlVisitor)
    }
}
