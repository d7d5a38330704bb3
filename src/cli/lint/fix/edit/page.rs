//! Where the values of a document are in its text: which lines a field or an item has, and where new lines
//! go. What has no lines of its own is unclear.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use serde_json::Value;

use super::super::super::source::{Place, Source, Step};
use super::{ALIAS, FLOW, NO_END, PLACE, Unclear};

/// A document, and where its values are in the text.
pub(super) struct Page<'s> {
    pub(super) source: &'s Source,
    pub(super) document: usize,
    /// What aliases stand for, which would change elsewhere too.
    pub(super) shared: &'s BTreeSet<Place>,
}

impl Page<'_> {
    /// The lines of a field or an item.
    pub(super) fn lines_of(&self, pointer: &str) -> Result<RangeInclusive<usize>, Unclear> {
        let way = self.way(pointer)?;
        let unclear = |line, why| Err(Unclear { line, why });
        let Some((last, above)) = way.split_last() else { return unclear(1, PLACE) };
        self.in_block_style(above)?;
        let Some(place) = last.key.or(last.value) else {
            return unclear(line_of(above), PLACE);
        };
        if last.is_alias {
            return unclear(place.line, ALIAS);
        }
        let indent =
            if last.key.is_some() { self.indent_of_key(place) } else { self.indent_of_item(place) };
        let Some(indent) = indent else { return unclear(place.line, PLACE) };
        let dashes = last.key.is_some() && last.is_list;
        let end = self.end(place.line, indent, dashes);
        let is_shared = self.shared.iter().any(|shared| (place.line..=end).contains(&shared.line));
        if is_shared || (place.line..=end).any(|line| has_tokens(self.source.line(line).1)) {
            return unclear(place.line, ALIAS);
        }
        Ok(place.line - self.comments_above(place.line, indent)..=end)
    }

    /// How many lines of comment stand right above a line, as deep as it.
    fn comments_above(&self, line: usize, indent: usize) -> usize {
        let is_comment = |line: &usize| {
            let text = self.source.line(*line).1;
            spaces(text) == indent && text.trim_start().starts_with('#')
        };
        (1..line).rev().take_while(is_comment).count()
    }

    /// The lines that annotations of a template are, and the line that they come in front of.
    pub(super) fn annotations(
        &self,
        template: &str,
        annotations: &BTreeMap<String, String>,
    ) -> Result<(usize, Vec<String>), Unclear> {
        let entries = |indent: usize| {
            let line = move |(key, value): (&String, &String)| {
                format!("{}{key}: \"{value}\"", " ".repeat(indent))
            };
            annotations.iter().map(line).collect::<Vec<_>>()
        };
        let headed = |indent: usize, key: &str, below: Vec<String>| {
            let mut lines = vec![format!("{}{key}:", " ".repeat(indent))];
            lines.extend(below);
            lines
        };
        let metadata = format!("{template}/metadata");
        let own = format!("{metadata}/annotations");
        if let Some(value) = self.value(&own) {
            let (line, indent) = if value.is_null() {
                let (line, indent) = self.below_nothing(&own)?;
                (line, indent + self.step(&metadata))
            } else {
                self.behind_the_fields(&own)?
            };
            return Ok((line, entries(indent)));
        }
        match self.value(&metadata) {
            Some(Value::Null) => {
                let step = self.step(&format!("{template}/spec"));
                let (line, indent) = self.below_nothing(&metadata)?;
                let below = entries(indent + 2 * step);
                Ok((line, headed(indent + step, "annotations", below)))
            }
            Some(_) => {
                let (line, indent) = self.behind_the_fields(&metadata)?;
                let below = entries(indent + self.step(&metadata));
                Ok((line, headed(indent, "annotations", below)))
            }
            None => {
                let spec = format!("{template}/spec");
                let step = self.step(&spec);
                let (line, indent) = self.in_front_of(&spec)?;
                let below = headed(indent + step, "annotations", entries(indent + 2 * step));
                Ok((line, headed(indent, "metadata", below)))
            }
        }
    }

    fn value(&self, pointer: &str) -> Option<&Value> {
        self.source.documents.get(self.document)?.value.pointer(pointer)
    }

    /// The line behind the last field of a mapping in block style, and how deep its fields are.
    fn behind_the_fields(&self, pointer: &str) -> Result<(usize, usize), Unclear> {
        let way = self.way(pointer)?;
        self.in_block_style(&way)?;
        let line = line_of(&way);
        let unclear = |why| Unclear { line, why };
        let keys = self.source.keys(self.document, pointer).unwrap_or_default();
        let last = *keys.last().ok_or_else(|| unclear(FLOW))?;
        // What a merge key brings has its place there.
        let indent = self.indent_of_key(last).ok_or_else(|| unclear(PLACE))?;
        if keys.iter().any(|key| key.column != last.column) {
            return Err(unclear(ALIAS));
        }
        let end = self.end(last.line, indent, true);
        self.has_end(end)?;
        Ok((end + 1, indent))
    }

    /// The line behind a field without a value, and how deep it is.
    fn below_nothing(&self, pointer: &str) -> Result<(usize, usize), Unclear> {
        let (key, indent) = self.field(pointer)?;
        self.has_end(key.line)?;
        let text = self.source.line(key.line).1;
        let rest = text.split_once(':').map_or("", |(_, rest)| rest).trim();
        if !(rest.is_empty() || rest.starts_with('#')) {
            return Err(Unclear { line: key.line, why: PLACE });
        }
        Ok((key.line + 1, indent))
    }

    /// That a line has an end. Parsers differ in what a text without one ends in.
    fn has_end(&self, line: usize) -> Result<(), Unclear> {
        let is_last = line == self.source.line_count() && !self.source.text.ends_with('\n');
        if is_last { Err(Unclear { line, why: NO_END }) } else { Ok(()) }
    }

    /// The line of a field, or of the comments that stand right above it, and how deep it is.
    fn in_front_of(&self, pointer: &str) -> Result<(usize, usize), Unclear> {
        let (key, indent) = self.field(pointer)?;
        Ok((key.line - self.comments_above(key.line, indent), indent))
    }

    /// The key of a field that begins its line, and how deep it is.
    fn field(&self, pointer: &str) -> Result<(Place, usize), Unclear> {
        let way = self.way(pointer)?;
        let line = line_of(&way);
        let unclear = |why| Unclear { line, why };
        let above = way.split_last().map_or(&[][..], |(_, above)| above);
        self.in_block_style(above)?;
        let key = way.last().and_then(|step| step.key).ok_or_else(|| unclear(PLACE))?;
        let indent = self.indent_of_key(key).ok_or_else(|| unclear(PLACE))?;
        Ok((key, indent))
    }

    /// How much deeper the fields of a mapping are than its key.
    fn step(&self, pointer: &str) -> usize {
        let below = self.source.keys(self.document, pointer).unwrap_or_default();
        let below = below.first().map(|key| key.column);
        let own = self.way(pointer).ok().and_then(|way| way.last()?.key).map(|key| key.column);
        match (own, below) {
            (Some(own), Some(below)) if below > own => below - own,
            _ => 2,
        }
    }

    fn way(&self, pointer: &str) -> Result<Vec<Step>, Unclear> {
        let line = self.source.documents.get(self.document).and_then(|document| document.line);
        let line = line.and_then(|line| usize::try_from(line).ok()).unwrap_or(1);
        self.source.way(self.document, pointer).ok_or(Unclear { line, why: PLACE })
    }

    /// That all of these are written in lines, here, and once.
    fn in_block_style(&self, steps: &[Step]) -> Result<(), Unclear> {
        for step in steps {
            let Some(place) = step.value else { continue };
            let first = self.source.line(place.line).1.chars().nth(place.column - 1);
            let why = match first {
                _ if step.is_alias || self.shared.contains(&place) => ALIAS,
                Some('{' | '[') => FLOW,
                _ => continue,
            };
            return Err(Unclear { line: place.line, why });
        }
        Ok(())
    }

    /// How deep a key is that begins its line.
    fn indent_of_key(&self, place: Place) -> Option<usize> {
        let indent = place.column.checked_sub(1)?;
        (spaces(self.source.line(place.line).1) == indent).then_some(indent)
    }

    /// How deep the dash of an item is that begins its line.
    fn indent_of_item(&self, place: Place) -> Option<usize> {
        let text = self.source.line(place.line).1;
        let indent = spaces(text);
        let between = text.get(indent..)?.strip_prefix('-')?;
        let gap = spaces(between);
        (gap > 0 && indent + 1 + gap == place.column.checked_sub(1)?).then_some(indent)
    }

    /// The last line of what begins at a line and is as deep as this. With `dashes` the items of a list
    /// may be as deep as its key.
    fn end(&self, start: usize, indent: usize, dashes: bool) -> usize {
        let mut end = self.end_of_text(start);
        let mut line = end + 1;
        while line <= self.source.line_count() {
            let text = self.source.line(line).1;
            let content = text.trim_start();
            let depth = spaces(text);
            let is_item = content == "-" || content.starts_with("- ");
            let is_inside = depth > indent || (dashes && depth == indent && is_item);
            if content.starts_with('#') {
                // One behind the last value is inside if nothing lies between.
                if is_inside && line == end + 1 {
                    end = line;
                }
            } else if !content.is_empty() {
                if !is_inside {
                    break;
                }
                end = self.end_of_text(line);
                line = end;
            }
            line += 1;
        }
        end
    }

    /// The last line of the text that a line begins with `|` or `>`, in which `#` begins no comment; the
    /// line itself if it begins none.
    fn end_of_text(&self, line: usize) -> usize {
        if !begins_text(self.source.line(line).1) {
            return line;
        }
        let mut below = (line + 1..=self.source.line_count()).map(|below| {
            let text = self.source.line(below).1;
            (below, spaces(text), text.trim().is_empty())
        });
        let Some((first, depth, _)) = below.find(|(.., is_empty)| !is_empty) else { return line };
        if depth <= spaces(self.source.line(line).1) {
            return line;
        }
        let text = below.take_while(|(_, deep, is_empty)| *is_empty || *deep >= depth);
        text.filter(|(.., is_empty)| !is_empty).last().map_or(first, |(last, ..)| last)
    }
}

fn line_of(way: &[Step]) -> usize {
    let places = way.iter().rev().find_map(|step| step.key.or(step.value));
    places.map_or(1, |place| place.line)
}

fn spaces(text: &str) -> usize {
    text.len() - text.trim_start_matches(' ').len()
}

/// Whether a line ends in the head of a block scalar.
fn begins_text(line: &str) -> bool {
    let content = line.split_once(" #").map_or(line, |(content, _)| content);
    let mut words = content.split_whitespace().rev();
    let head = words.next().and_then(|head| head.strip_prefix(['|', '>']));
    let is_head = head.is_some_and(|rest| rest.chars().all(|char| "+-123456789".contains(char)));
    is_head && words.next().is_some_and(|word| word == "-" || word.ends_with(':'))
}

/// Whether a line may hold an anchor, an alias, a tag or a merge key. A text that looks like one counts.
fn has_tokens(line: &str) -> bool {
    let content = line.trim_start();
    let content = content.split_once(" #").map_or(content, |(content, _)| content);
    if content.starts_with('#') {
        return false;
    }
    let separators = |char: char| char.is_whitespace() || "[]{},".contains(char);
    content
        .split(separators)
        .any(|word| word.starts_with("<<") || (word.len() > 1 && word.starts_with(['&', '*', '!'])))
}
