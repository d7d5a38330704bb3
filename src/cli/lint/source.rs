//! A file of manifests, with the place of every value in it.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::thread;

use json_patch::jsonptr::Pointer;
use serde::de::{self, Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Location, Spanned};

use crate::cli::input::{self, Document, InputError};

/// Four times of what reading without places takes: each level passes through the parser's span wrapper.
const STACK: usize = 4 * input::STACK;

/// The longest line that a person reads, in bytes.
pub(super) const LONG: usize = 1000;

/// A file that could be read.
pub(super) struct Source {
    /// The file, as it was named, or `<stdin>`.
    pub(super) file: String,
    pub(super) text: String,
    pub(super) documents: Vec<Document>,
    /// The places in each document; fewer than documents where the parser gives none.
    trees: Vec<Tree>,
    /// The byte that each line begins at.
    lines: Vec<usize>,
    /// Whether a character is a byte: JSON without line ends is one line of megabytes, and to count its
    /// characters for each remark would take minutes.
    is_ascii: bool,
}

/// A place in a file: a part of one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Spot {
    /// The line, from 1.
    pub(super) line: usize,
    /// The column of the first character, from 1, in characters.
    pub(super) column: usize,
    /// The column behind the last character.
    pub(super) end_column: usize,
    /// The bytes in the file.
    pub(super) bytes: Range<usize>,
}

impl Source {
    pub(super) fn read(path: &Path, named: bool) -> Result<Self, InputError> {
        let file = input::name(path);
        let text = String::from_utf8(input::bytes(path)?)
            .map_err(|_| InputError::NotText { file: file.clone() })?;
        if named && text.trim().is_empty() {
            return Err(InputError::Empty { file });
        }
        Self::of(file, text, named)
    }

    /// The source that a file of this text would be.
    pub(super) fn of(file: String, text: String, named: bool) -> Result<Self, InputError> {
        let documents = input::parse(&file, &text, named)?;
        let trees = trees(&text).unwrap_or_default();
        Ok(Self::with(file, text, documents, trees))
    }

    /// A file that cannot be read, for a remark about it: its text is never shown.
    pub(super) fn unreadable(path: &Path) -> Self {
        Self::with(input::name(path), String::new(), Vec::new(), Vec::new())
    }

    fn with(file: String, text: String, documents: Vec<Document>, trees: Vec<Tree>) -> Self {
        let newlines = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let lines = std::iter::once(0).chain(newlines.map(|(at, _)| at + 1)).collect();
        let is_ascii = text.is_ascii();
        Self { file, text, documents, trees, lines, is_ascii }
    }

    /// The place of what a JSON Pointer names in a document, or of the nearest thing around it that is
    /// there. With `key` the name of the field and not its value.
    pub(super) fn spot(&self, document: usize, pointer: &str, key: bool) -> Spot {
        let found = self.trees.get(document).and_then(|tree| tree.find(pointer, key));
        found.and_then(|mark| self.spot_of(mark)).unwrap_or_else(|| {
            let line = self.documents.get(document).and_then(|document| document.line);
            let line = line.and_then(|line| usize::try_from(line).ok()).unwrap_or(1);
            let whole = Mark { line, column: 1, length: None };
            self.spot_of(whole).unwrap_or(Spot { line: 1, column: 1, end_column: 1, bytes: 0..0 })
        })
    }

    /// The bytes and the text of a line, without its end.
    pub(super) fn line(&self, line: usize) -> (usize, &str) {
        let end = self.lines.get(line).copied().unwrap_or(self.text.len());
        let start = line.checked_sub(1).and_then(|index| self.lines.get(index)).copied();
        let start = start.unwrap_or(end);
        (start, self.text.get(start..end).unwrap_or_default().trim_end_matches(['\r', '\n']))
    }

    /// How many lines there are; a line end at the end begins none.
    pub(super) fn line_count(&self) -> usize {
        self.lines.len() - usize::from(self.text.ends_with('\n') || self.text.is_empty())
    }

    /// The nodes on the way to what a JSON Pointer names, the document first; `None` where the parser
    /// gives no place, or nothing is there.
    pub(super) fn way(&self, document: usize, pointer: &str) -> Option<Vec<Step>> {
        let mut node = &self.trees.get(document)?.root;
        let mut steps = vec![node.step(None)];
        for token in Pointer::parse(pointer).ok()?.tokens() {
            let (key, next) = node.child(&token.decoded())?;
            steps.push(next.step(key));
            node = next;
        }
        Some(steps)
    }

    /// The places of the keys of a mapping, in their order; `None` if it is none.
    pub(super) fn keys(&self, document: usize, pointer: &str) -> Option<Vec<Place>> {
        let mut node = &self.trees.get(document)?.root;
        for token in Pointer::parse(pointer).ok()?.tokens() {
            node = node.child(&token.decoded())?.1;
        }
        let Inner::Map(entries) = &node.inner else { return None };
        entries.iter().map(|(_, key, _)| key.map(Mark::place)).collect()
    }

    /// Where the values begin that an alias or a merge key elsewhere stands for.
    pub(super) fn shared(&self) -> BTreeSet<Place> {
        let mut places = BTreeSet::new();
        self.trees.iter().for_each(|tree| tree.root.shared(&mut places));
        places
    }

    /// A mark, cut at the end of its line.
    fn spot_of(&self, mark: Mark) -> Option<Spot> {
        self.lines.get(mark.line.checked_sub(1)?)?;
        let (start, line) = self.line(mark.line);
        let line = line.trim_end();
        let skip = mark.column.checked_sub(1)?;
        let at = |chars: usize| {
            if self.is_ascii {
                chars.min(line.len())
            } else {
                line.char_indices().nth(chars).map_or(line.len(), |(at, _)| at)
            }
        };
        let length = mark.length.or_else(|| (line.len() > LONG).then_some(1));
        let (from, to) = (at(skip), length.map_or(line.len(), |length| at(skip + length)));
        let length = line.get(from..to).unwrap_or_default().chars().count();
        Some(Spot {
            line: mark.line,
            column: mark.column,
            end_column: mark.column + length,
            bytes: start + from..start + to,
        })
    }
}

/// A place in a file: the line and the column, from 1, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) line: usize,
    pub(super) column: usize,
}

/// A node of YAML on the way to another.
#[derive(Debug)]
pub(super) struct Step {
    /// Where its key is; an item of a list has none.
    pub(super) key: Option<Place>,
    /// Where it begins.
    pub(super) value: Option<Place>,
    /// Whether it stands elsewhere, and an alias or a merge key brings it here.
    pub(super) is_alias: bool,
    /// Whether it is a list.
    pub(super) is_list: bool,
}

/// A beginning, as the parser says it, and the characters from there; to the end of the line if `None`.
#[derive(Debug, Clone, Copy)]
struct Mark {
    line: usize,
    column: usize,
    length: Option<usize>,
}

impl Mark {
    fn place(self) -> Place {
        Place { line: self.line, column: self.column }
    }
}

/// The places in one document, counted from where it begins in its file.
struct Tree {
    root: Node,
    lines_before: usize,
    columns_before: usize,
}

struct Node {
    mark: Option<Mark>,
    /// Where it stands, if an alias or a merge key brings it to its mark.
    home: Option<Mark>,
    inner: Inner,
}

enum Inner {
    Scalar,
    List(Vec<Node>),
    Map(Vec<(String, Option<Mark>, Node)>),
}

impl Tree {
    fn find(&self, pointer: &str, key: bool) -> Option<Mark> {
        let mut node = &self.root;
        let mut mark = node.line();
        let mut tokens = Pointer::parse(pointer).ok()?.tokens().peekable();
        while let Some(token) = tokens.next() {
            let Some((name, next)) = node.child(&token.decoded()) else { break };
            let named = name.filter(|_| !next.is_word() || (key && tokens.peek().is_none()));
            // A list or map below a key begins anywhere: its key is what a person looks for.
            mark = named.or_else(|| next.line()).or(mark);
            node = next;
        }
        mark.map(|mark| Mark {
            line: mark.line + self.lines_before,
            column: mark.column + if mark.line == 1 { self.columns_before } else { 0 },
            length: mark.length,
        })
    }
}

impl Node {
    /// Whether it is one word or text with a place of its own.
    fn is_word(&self) -> bool {
        let has_length = self.mark.is_some_and(|mark| mark.length.is_some_and(|length| length > 0));
        matches!(self.inner, Inner::Scalar) && has_length
    }

    /// What is below it by this key or index, and where the key is.
    fn child(&self, token: &str) -> Option<(Option<Mark>, &Self)> {
        match &self.inner {
            Inner::Map(entries) => {
                let (_, key, value) = entries.iter().find(|(name, ..)| name == token)?;
                Some((*key, value))
            }
            Inner::List(items) => Some((None, items.get(token.parse::<usize>().ok()?)?)),
            Inner::Scalar => None,
        }
    }

    fn step(&self, key: Option<Mark>) -> Step {
        Step {
            key: key.map(Mark::place),
            value: self.mark.map(Mark::place),
            is_alias: self.home.is_some(),
            is_list: matches!(self.inner, Inner::List(_)),
        }
    }

    fn shared(&self, places: &mut BTreeSet<Place>) {
        places.extend(self.home.map(Mark::place));
        match &self.inner {
            Inner::Scalar => {}
            Inner::List(items) => items.iter().for_each(|item| item.shared(places)),
            Inner::Map(entries) => entries.iter().for_each(|(_, _, value)| value.shared(places)),
        }
    }

    /// The line that a person knows it by: of a map that begins with a brace alone, the first field's.
    fn line(&self) -> Option<Mark> {
        let first = match &self.inner {
            Inner::Map(entries) => entries.first().and_then(|(_, key, _)| *key),
            _ => None,
        };
        let below = first.filter(|first| self.mark.is_none_or(|own| own.line < first.line));
        let length = |mark: Mark| if self.is_word() { mark.length } else { None };
        below.or(self.mark).map(|mark| Mark { length: length(mark), ..mark })
    }
}

fn trees(text: &str) -> Option<Vec<Tree>> {
    thread::scope(|scope| {
        let reader = thread::Builder::new().stack_size(STACK);
        reader.spawn_scoped(scope, || json(text).or_else(|| yaml(text))).ok()?.join().ok()?
    })
}

fn yaml(text: &str) -> Option<Vec<Tree>> {
    let mut bytes = text.as_bytes();
    let options = input::yaml_options();
    let read = serde_saphyr::read_with_options::<_, Spanned<Inner>>(&mut bytes, options);
    let trees = read.map(|spanned| {
        Some(Tree { root: Node::of(spanned.ok()?), lines_before: 0, columns_before: 0 })
    });
    trees.collect()
}

/// JSON has no places of its own, but is YAML, except for its tabs.
fn json(text: &str) -> Option<Vec<Tree>> {
    if !text.trim_start().starts_with(['{', '[']) {
        return None;
    }
    let mut stream = serde_json::Deserializer::from_str(text).into_iter::<IgnoredAny>();
    let (mut trees, mut start) = (Vec::new(), 0);
    let (mut lines_before, mut columns_before) = (0, 0);
    while let Some(value) = stream.next() {
        value.ok()?;
        let part = text.get(start..stream.byte_offset())?;
        start = stream.byte_offset();
        let mut found = yaml(&part.replace('\t', " "))?.into_iter();
        trees.push(Tree { root: found.next()?.root, lines_before, columns_before });
        lines_before += part.matches('\n').count();
        match part.rsplit_once('\n') {
            Some((_, last)) => columns_before = last.chars().count(),
            None => columns_before += part.chars().count(),
        }
    }
    Some(trees)
}

fn mark(location: Location) -> Option<Mark> {
    let number = |number: u64| usize::try_from(number).ok().filter(|number| *number > 0);
    let length = usize::try_from(location.span().len()).ok();
    Some(Mark { line: number(location.line())?, column: number(location.column())?, length })
}

impl Node {
    fn of(spanned: Spanned<Inner>) -> Self {
        let Spanned { value: inner, referenced, defined } = spanned;
        let home = mark(defined).filter(|_| referenced != defined);
        Self { mark: mark(referenced), home, inner }
    }
}

impl<'de> Deserialize<'de> for Inner {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(InnerVisitor)
    }
}

struct InnerVisitor;

/// Takes every kind of scalar for what it is here: a place.
macro_rules! scalars {
    ($($visit:ident: $kind:ty),*) => {
        $(fn $visit<E: de::Error>(self, _: $kind) -> Result<Inner, E> {
            Ok(Inner::Scalar)
        })*
    };
}

impl<'de> Visitor<'de> for InnerVisitor {
    type Value = Inner;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a YAML value")
    }

    scalars!(
        visit_bool: bool, visit_i64: i64, visit_i128: i128, visit_u64: u64, visit_u128: u128,
        visit_f64: f64, visit_str: &str, visit_bytes: &[u8]
    );

    fn visit_unit<E: de::Error>(self) -> Result<Inner, E> {
        Ok(Inner::Scalar)
    }

    fn visit_none<E: de::Error>(self) -> Result<Inner, E> {
        Ok(Inner::Scalar)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Inner, D::Error> {
        Inner::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Inner, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element::<Spanned<Inner>>()? {
            list.push(Node::of(item));
        }
        Ok(Inner::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Inner, A::Error> {
        let mut map = Vec::new();
        while let Some(key) = entries.next_key::<Spanned<String>>()? {
            let at = mark(key.referenced);
            map.push((key.value, at, Node::of(entries.next_value()?)));
        }
        Ok(Inner::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[track_caller]
    fn check(name: &str, text: &str, document: usize, spots: &[(&str, bool, usize, usize, &str)]) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(name);
        fs::write(&file, text).unwrap();
        let source = Source::read(&file, true).unwrap();
        for (pointer, key, line, column, shown) in spots {
            let spot = source.spot(document, pointer, *key);
            let seen = (spot.line, spot.column, &source.text[spot.bytes.clone()]);
            assert_eq!(seen, (*line, *column, *shown), "{pointer}");
            assert_eq!(spot.end_column, column + shown.chars().count(), "{pointer}");
        }
    }

    #[test]
    fn values_have_their_line_and_column() {
        let text = "# first\nkind: A\n---\n\nkind: B\nspec:\n  list:\n  - name: ö # a word\n    deep: {x: \"y z\", e: }\n    text: |\n      a\n      b\n  - é\n  a/b: &anchor 1\n  c: *anchor\n";
        check(
            "a.yaml",
            text,
            1,
            &[
                ("/kind", false, 5, 7, "B"),
                ("/kind", true, 5, 1, "kind"),
                ("/spec", false, 6, 1, "spec"),
                ("/spec/list", false, 7, 3, "list"),
                ("/spec/list/0", false, 8, 5, "name: ö # a word"),
                ("/spec/list/0/name", false, 8, 11, "ö"),
                ("/spec/list/0/missing/more", false, 8, 5, "name: ö # a word"),
                ("/spec/list/0/deep/x", false, 9, 15, "\"y z\""),
                ("/spec/list/0/deep/e", false, 9, 22, "e"),
                ("/spec/list/1", false, 13, 5, "é"),
                ("/spec/a~1b", true, 14, 3, "a/b"),
                ("/spec/c", false, 15, 6, "*anchor"),
                ("/none", false, 5, 1, "kind: B"),
            ],
        );
    }

    #[test]
    fn json_has_places_too() {
        let text = "{\n\t\"kind\": \"A\"}  {\"kind\":\n\t\"B\", \"spec\": [{\"c\": true}]}";
        check("a.json", text, 0, &[("/kind", false, 2, 10, "\"A\"")]);
        check(
            "a.json",
            text,
            1,
            &[
                ("/kind", true, 2, 17, "\"kind\""),
                ("/kind", false, 3, 2, "\"B\""),
                ("/spec/0/c", false, 3, 22, "true"),
            ],
        );
        let text = "{\n  \"list\": [\n    {\n      \"name\": \"é\",\n      \"a\": 1\n    }\n  ]\n}";
        check("a.json", text, 0, &[("/list/0/b", false, 4, 7, "\"name\": \"é\",")]);
    }
}
