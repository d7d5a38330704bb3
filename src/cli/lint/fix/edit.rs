//! Changes to the text of a file: whole lines that go, and lines that come. Everything else keeps its
//! bytes.
//!
//! What goes must stand in block style, on lines of its own. An item or a field goes from its first line
//! to the last one that is indented below it, comments among them, and so do the comments right above it:
//! left alone, they would speak of what comes next. Other comments around it stay.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use serde_json::Value;

use super::super::source::{Place, Source, Step};
use super::pod::Change;

/// Lines that go and lines that come, by their numbers from 1.
#[derive(Debug, Default)]
pub(super) struct Edit {
    removed: Vec<RangeInclusive<usize>>,
    /// What comes in front of a line, without line ends.
    added: BTreeMap<usize, Vec<String>>,
}

/// Why a text is not edited, and at which line.
#[derive(Debug)]
pub(super) struct Unclear {
    pub(super) line: usize,
    pub(super) why: &'static str,
}

const ALIAS: &str = "an anchor, an alias or a tag (`&`, `*`, `<<`, `!`) has to do with what would change; \
                     write it out, or change it by hand";
const FLOW: &str = "what would change stands in braces or brackets; write it in lines, or change it by \
                    hand";
const NO_END: &str =
    "the last line of the file has no end, so that nothing can come behind it; end it";
const PLACE: &str = "what would change has no lines of its own; change it by hand";

impl Edit {
    /// The edit that makes a change to the pod whose template is at this place of a document. `shared` is
    /// what aliases stand for, which would change elsewhere too.
    pub(super) fn of(
        source: &Source,
        shared: &BTreeSet<Place>,
        document: usize,
        template: &str,
        change: &Change,
    ) -> Result<Self, Unclear> {
        let page = Page { source, document, shared };
        let mut edit = Self::default();
        for path in &change.removed {
            edit.removed.push(page.lines_of(&format!("{template}{path}"))?);
        }
        if !change.annotations.is_empty() {
            let (line, lines) = page.annotations(template, &change.annotations)?;
            edit.added.insert(line, lines);
        }
        Ok(edit)
    }

    /// Adds an edit of other lines of the same file.
    pub(super) fn join(&mut self, mut other: Self) {
        self.removed.append(&mut other.removed);
        self.added.append(&mut other.added);
    }

    /// Where a line is in the text as edited; of one that goes, what comes in its place.
    pub(super) fn moved(&self, line: usize) -> usize {
        let gone = self.removed.iter().cloned().flatten().filter(|gone| *gone < line).count();
        let come: usize = self.added.range(..=line).map(|(_, lines)| lines.len()).sum();
        line + come - gone
    }

    /// How many of the lines that go are comments.
    pub(super) fn comments(&self, source: &Source) -> usize {
        let lines = self.removed.iter().cloned().flatten();
        lines.filter(|line| source.line(*line).1.trim_start().starts_with('#')).count()
    }

    /// The text as edited.
    pub(super) fn apply(&self, text: &str) -> String {
        let end = if text.contains("\r\n") { "\r\n" } else { "\n" };
        let removed: BTreeSet<usize> = self.removed.iter().cloned().flatten().collect();
        let mut edited = String::with_capacity(text.len());
        let add = |edited: &mut String, line: usize| {
            for added in self.added.get(&line).into_iter().flatten() {
                edited.push_str(added);
                edited.push_str(end);
            }
        };
        let mut number = 1;
        for line in text.split_inclusive('\n') {
            add(&mut edited, number);
            if !removed.contains(&number) {
                edited.push_str(line);
            }
            number += 1;
        }
        add(&mut edited, number);
        edited
    }
}

/// A document, and where its values are in the text.
struct Page<'s> {
    source: &'s Source,
    document: usize,
    shared: &'s BTreeSet<Place>,
}

impl Page<'_> {
    /// The lines of a field or an item.
    fn lines_of(&self, pointer: &str) -> Result<RangeInclusive<usize>, Unclear> {
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
    fn annotations(
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
        let way = self.way(pointer)?;
        let line = line_of(&way);
        let unclear = |why| Unclear { line, why };
        let above = way.split_last().map_or(&[][..], |(_, above)| above);
        self.in_block_style(above)?;
        let key = way.last().and_then(|step| step.key).ok_or_else(|| unclear(PLACE))?;
        let indent = self.indent_of_key(key).ok_or_else(|| unclear(PLACE))?;
        self.has_end(key.line)?;
        let text = self.source.line(key.line).1;
        let rest = text.split_once(':').map_or("", |(_, rest)| rest).trim();
        if !(rest.is_empty() || rest.starts_with('#')) {
            return Err(unclear(PLACE));
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
        let way = self.way(pointer)?;
        let line = line_of(&way);
        let unclear = |why| Unclear { line, why };
        let above = way.split_last().map_or(&[][..], |(_, above)| above);
        self.in_block_style(above)?;
        let key = way.last().and_then(|step| step.key).ok_or_else(|| unclear(PLACE))?;
        let indent = self.indent_of_key(key).ok_or_else(|| unclear(PLACE))?;
        Ok((key.line - self.comments_above(key.line, indent), indent))
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TEXT: &str = "\
a:
  # above
  list:
  # first
  - name: one  # at one
    # in one

    deep:
      text: |
        # no comment
    # behind one
  # above two
  - name: two

  # behind the list
  map: {x: 1}
  'quoted': 1
  none:
  last: x";

    fn source(text: &str) -> Source {
        Source::of("a.yaml".to_owned(), text.to_owned(), true).unwrap()
    }

    #[track_caller]
    fn check(removed: &[&str], gone: &[usize]) {
        let source = source(TEXT);
        let removed = removed.iter().map(|path| (*path).to_owned()).collect();
        let change = Change { removed, annotations: BTreeMap::new() };
        let edit = Edit::of(&source, &source.shared(), 0, "", &change).unwrap();
        let lines = TEXT.split_inclusive('\n').enumerate();
        let kept = lines.filter(|(index, _)| !gone.contains(&(index + 1)));
        assert_eq!(edit.apply(TEXT), kept.map(|(_, line)| line).collect::<String>());
    }

    #[test]
    fn what_goes_takes_its_own_lines_and_no_others() {
        check(&["/a/list/0"], &[4, 5, 6, 7, 8, 9, 10, 11]);
        check(&["/a/list/1"], &[12, 13]);
        check(&["/a/list/0/deep"], &[8, 9, 10]);
        check(&["/a/list"], &[2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]);
        check(&["/a/map", "/a/quoted", "/a/none"], &[15, 16, 17, 18]);
        check(&["/a/last"], &[19]);
    }

    #[test]
    fn what_has_no_lines_of_its_own_stays() {
        for (text, pointer, why) in [
            ("a: {b: 1, c: 2}\n", "/a/b", FLOW),
            ("a:\n- {b: 1}\n", "/a/0/b", FLOW),
            ("a: [\n  1,\n  2\n]\n", "/a/0", FLOW),
            ("a:\n- b: 1\n  c: 2\n", "/a/0/b", PLACE),
            ("a:\n- - 1\n  - 2\n", "/a/0/0", PLACE),
            ("? a\n: b\n", "/a", PLACE),
            ("a: &x 1\nb: *x\n", "/a", ALIAS),
            ("a: &x 1\nb: *x\n", "/b", ALIAS),
            ("a: &x\n  c: 1\nb: *x\n", "/a/c", ALIAS),
            ("a: &x\n  c: 1\nb: *x\n", "/b/c", ALIAS),
            ("a: &x\n  c: 1\nb:\n  <<: *x\n  d: 1\n", "/b/c", ALIAS),
            ("a: !!str 1\n", "/a", ALIAS),
        ] {
            let source = source(text);
            let change = Change { removed: vec![pointer.to_owned()], annotations: BTreeMap::new() };
            let unclear = Edit::of(&source, &source.shared(), 0, "", &change).unwrap_err();
            assert_eq!(unclear.why, why, "{text}");
        }
    }

    #[test]
    fn nothing_comes_behind_a_line_without_an_end() {
        for text in
            ["spec: {}\nmetadata:\n  annotations:\n    a: |\n      b", "spec: {}\nmetadata:"]
        {
            let source = source(text);
            let annotations = BTreeMap::from([("k".to_owned(), "v".to_owned())]);
            let change = Change { removed: Vec::new(), annotations };
            let unclear = Edit::of(&source, &source.shared(), 0, "", &change).unwrap_err();
            assert_eq!((unclear.why, unclear.line), (NO_END, source.line_count()), "{text}");
        }
    }

    #[test]
    fn annotations_find_their_place() {
        for (text, edited) in [
            (
                "metadata:\n    annotations:\n        a: b  # c\n        # d\nspec: {}",
                "metadata:\n    annotations:\n        a: b  # c\n        k: \"v\"\n        # d\nspec: {}",
            ),
            (
                "metadata:\n  annotations:\n    a: |- # b\n      c\n\n      # d\n\n    # e\nspec: {}\n",
                "metadata:\n  annotations:\n    a: |- # b\n      c\n\n      # d\n    k: \"v\"\n\n    # e\nspec: {}\n",
            ),
            (
                "metadata:\n    annotations:\n    name: x\nspec: {}\n",
                "metadata:\n    annotations:\n        k: \"v\"\n    name: x\nspec: {}\n",
            ),
            (
                "spec: {}\nmetadata:\n  labels:\n    a: b\n",
                "spec: {}\nmetadata:\n  labels:\n    a: b\n  annotations:\n    k: \"v\"\n",
            ),
            (
                "# the pod\nspec:\n   x: 1\nmetadata: # none\n",
                "# the pod\nspec:\n   x: 1\nmetadata: # none\n   annotations:\n      k: \"v\"\n",
            ),
            (
                "kind: Pod\n# the spec\nspec:\r\n  x: 1\r\n",
                "kind: Pod\nmetadata:\r\n  annotations:\r\n    k: \"v\"\r\n# the spec\nspec:\r\n  x: 1\r\n",
            ),
        ] {
            let source = source(text);
            let annotations = BTreeMap::from([("k".to_owned(), "v".to_owned())]);
            let change = Change { removed: Vec::new(), annotations };
            let edit = Edit::of(&source, &source.shared(), 0, "", &change).unwrap();
            assert_eq!(edit.apply(text), edited);
        }
    }

    proptest! {
        /// Of a list in block style, whatever its words and however deep, an item goes and all others
        /// stay, to the byte.
        #[test]
        fn an_item_goes_alone(
            items in prop::collection::vec("[a-z]{1,5}( #[a-z]{0,3})?", 1..6),
            indent in 0_usize..4,
            which in 0_usize..6,
        ) {
            let which = which % items.len();
            let indent = " ".repeat(indent);
            let lines: Vec<String> =
                items.iter().map(|item| format!("{indent}- name: {item}\n{indent}  x: 1\n")).collect();
            let text = format!("list:\n{}", lines.concat());
            let change = Change { removed: vec![format!("/list/{which}")], annotations: BTreeMap::new() };
            let source = source(&text);
            let edit = Edit::of(&source, &source.shared(), 0, "", &change).unwrap();
            let mut kept = lines;
            kept.remove(which);
            prop_assert_eq!(edit.apply(&text), format!("list:\n{}", kept.concat()));
        }
    }
}
