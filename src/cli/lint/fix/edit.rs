//! Changes to the text of a file: whole lines that go, and lines that come. Everything else keeps its
//! bytes.
//!
//! What goes must stand in block style, on lines of its own. An item or a field goes from its first line
//! to the last one that is indented below it, comments among them, and so do the comments right above it:
//! left alone, they would speak of what comes next. Other comments around it stay.

mod page;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use super::super::source::{Place, Source};
use super::pod::Change;
use page::Page;

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
