//! The pod under change: every operation is applied as it is recorded.
//!
//! A patch that does not apply fails the whole request, even under `failurePolicy: Ignore`
//! (`kubernetes/apiserver pkg/admission/plugin/webhook/mutating/dispatcher.go`). So an operation that
//! cannot be applied here is never sent. Only what an operation touches is opened; the rest stays the
//! text that the API server sent.

use std::borrow::Cow;

use json_patch::{AddOperation, PatchOperation, RemoveOperation, ReplaceOperation};
use jsonptr::PointerBuf;
use serde_json::Value;
use smallvec::SmallVec;

use crate::decision::document::Document;
use crate::decision::pod::Text;
use crate::decision::review::Mismatch;

/// A JSON document and the operations that made it what it is.
#[derive(Debug)]
pub struct Draft<'a> {
    root: Document<'a>,
    operations: Vec<PatchOperation>,
}

/// An operation that would not apply, or a document that is not what it should be: ours to mend.
#[derive(Debug, thiserror::Error)]
pub enum DraftError {
    /// A value on the way is neither an object nor a list.
    #[error("`{0}` is neither an object nor a list")]
    NotContainer(String),
    /// Something is not where an operation needs it.
    #[error("`{0}` is missing")]
    Missing(String),
    /// A part of the document that was opened is not readable.
    #[error("`{path}` cannot be read: {cause}")]
    Unreadable {
        /// Where.
        path: String,
        /// Why.
        cause: Mismatch,
    },
}

/// A step into a document.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step<'p> {
    /// To the value of a key.
    Key(Cow<'p, str>),
    /// To an item.
    Index(usize),
    /// Behind the last item of a list.
    End,
}

/// The way to a value, in typed steps: escaping is left to the pointer that is made of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Path<'p>(SmallVec<[Step<'p>; STEPS]>);

/// The steps of most paths: `/spec/containers/0/securityContext/capabilities/add/-`.
const STEPS: usize = 7;

impl<'p> Path<'p> {
    /// The path of the keys given.
    pub fn of(keys: &[&'p str]) -> Self {
        Self(keys.iter().map(|key| Step::Key(Cow::Borrowed(*key))).collect())
    }

    /// The value of a key of this.
    #[must_use]
    pub fn key(&self, key: impl Into<Cow<'p, str>>) -> Self {
        self.with(Step::Key(key.into()))
    }

    /// An item of this.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        self.with(Step::Index(index))
    }

    fn with(&self, step: Step<'p>) -> Self {
        let mut steps = self.0.clone();
        steps.push(step);
        Self(steps)
    }
}

fn pointer(steps: &[Step<'_>]) -> PointerBuf {
    // The empty text is a pointer, too: one that need not grow from step to step.
    let mut pointer = PointerBuf::parse(String::with_capacity(POINTER)).unwrap_or_default();
    for step in steps {
        match step {
            Step::Key(key) => pointer.push_back(key.as_ref()),
            Step::Index(index) => pointer.push_back(*index),
            Step::End => pointer.push_back("-"),
        }
    }
    pointer
}

/// More bytes than most pointers have, such as `/spec/containers/0/resources/requests/smarter-devices~1fuse`.
const POINTER: usize = 80;

impl<'a> Draft<'a> {
    /// A draft of a document as it came.
    pub fn new(document: Document<'a>) -> Self {
        Self { root: document, operations: Vec::new() }
    }

    /// The operations so far.
    pub fn operations(&self) -> &[PatchOperation] {
        &self.operations
    }

    /// All operations.
    pub fn into_operations(self) -> Vec<PatchOperation> {
        self.operations
    }

    /// The document as it is now.
    pub fn to_json(&self) -> String {
        self.root.to_json()
    }

    /// Gives a value to a key, and to every parent that is missing or `null`. Records one `add`, or a
    /// `replace` if the key has a value.
    pub fn set(&mut self, path: &Path<'_>, value: Value) -> Result<(), DraftError> {
        let steps = path.0.as_slice();
        let missing = || DraftError::Missing(describe(steps));
        let (node, there) = self.reach(steps)?;
        let wanting = steps.get(there..).unwrap_or_default();
        let Some((first, rest)) = wanting.split_first() else {
            *node = Document::New(value.clone());
            let path = pointer(steps);
            self.operations.push(PatchOperation::Replace(ReplaceOperation { path, value }));
            return Ok(());
        };
        let value = wrap(rest, value).ok_or_else(missing)?;
        let (Document::Object(entries), Step::Key(key)) = (node, first) else {
            return Err(missing());
        };
        let new = Document::New(value.clone());
        // A key that has a value was found above.
        match entries.iter_mut().find(|(name, value)| value.is_null() && name == key.as_ref()) {
            Some((_, null)) => *null = new,
            None => entries.push((key.to_string().into(), new)),
        }
        let path = pointer(steps.get(..=there).unwrap_or_default());
        self.operations.push(PatchOperation::Add(AddOperation { path, value }));
        Ok(())
    }

    /// Adds an item at the end of a list, which is made if it is missing or `null`.
    pub fn append(&mut self, list: &Path<'_>, item: Value) -> Result<(), DraftError> {
        let Some(node) = self.at(&list.0)? else {
            return self.set(list, Value::Array(vec![item]));
        };
        let Document::List(items) = open(node, &list.0)? else {
            return Err(DraftError::NotContainer(describe(&list.0)));
        };
        items.push(Document::New(item.clone()));
        let path = pointer(&list.with(Step::End).0);
        self.operations.push(PatchOperation::Add(AddOperation { path, value: item }));
        Ok(())
    }

    /// Takes away a key or an item that is there. Of several items of a list the last one goes first, or
    /// the others would move.
    pub fn remove(&mut self, path: &Path<'_>) -> Result<(), DraftError> {
        let missing = || DraftError::Missing(describe(&path.0));
        let (last, parent) = path.0.split_last().ok_or_else(missing)?;
        let node = self.at(parent)?.ok_or_else(missing)?;
        match (open(node, parent)?, last) {
            (Document::Object(entries), Step::Key(key)) => {
                let position = entries.iter().position(|(name, _)| name == key.as_ref());
                entries.remove(position.ok_or_else(missing)?);
            }
            (Document::List(items), Step::Index(index)) if *index < items.len() => {
                items.remove(*index);
            }
            _ => return Err(missing()),
        }
        self.operations.push(PatchOperation::Remove(RemoveOperation { path: pointer(&path.0) }));
        Ok(())
    }

    /// The last value on a path that is there, and how many steps lead to it; `null` is not there. All
    /// before it is opened.
    fn reach(&mut self, steps: &[Step<'_>]) -> Result<(&mut Document<'a>, usize), DraftError> {
        let mut node = &mut self.root;
        for (depth, step) in steps.iter().enumerate() {
            node = open(node, steps.get(..depth).unwrap_or_default())?;
            match position(node, step) {
                Some(position) => node = child(node, position, steps)?,
                None => return Ok((node, depth)),
            }
        }
        Ok((node, steps.len()))
    }

    /// The value at a path; `None` if it, or a parent, is missing or `null`. All on the way is opened.
    fn at(&mut self, steps: &[Step<'_>]) -> Result<Option<&mut Document<'a>>, DraftError> {
        let (node, there) = self.reach(steps)?;
        Ok((there == steps.len()).then_some(node))
    }
}

/// Makes the children of a value reachable.
fn open<'n, 'a>(
    node: &'n mut Document<'a>,
    way: &[Step<'_>],
) -> Result<&'n mut Document<'a>, DraftError> {
    node.open().map_err(|error| DraftError::Unreadable {
        path: describe(way),
        cause: Mismatch::of(&error),
    })?;
    match node {
        Document::Object(_) | Document::List(_) => Ok(node),
        Document::Raw(_) | Document::Shared(_) | Document::New(_) => {
            Err(DraftError::NotContainer(describe(way)))
        }
    }
}

/// Where in an object or a list a step leads to; `None` to what is missing or `null`.
fn position(node: &Document<'_>, step: &Step<'_>) -> Option<usize> {
    let (position, value) = match (node, step) {
        (Document::Object(entries), Step::Key(key)) => {
            let mut entries = entries.iter().enumerate();
            let (position, (_, value)) = entries.find(|(_, (name, _))| is(name, key))?;
            (position, value)
        }
        (Document::List(items), Step::Index(index)) => (*index, items.get(*index)?),
        _ => return None,
    };
    (!value.is_null()).then_some(position)
}

fn child<'n, 'a>(
    node: &'n mut Document<'a>,
    position: usize,
    steps: &[Step<'_>],
) -> Result<&'n mut Document<'a>, DraftError> {
    let child = match node {
        Document::Object(entries) => entries.get_mut(position).map(|(_, value)| value),
        Document::List(items) => items.get_mut(position),
        Document::Raw(_) | Document::Shared(_) | Document::New(_) => None,
    };
    child.ok_or_else(|| DraftError::Missing(describe(steps)))
}

/// Whether a name is a key. Those of one map often begin alike and end otherwise, and there may be thousands.
fn is(name: &Text<'_>, key: &str) -> bool {
    name.as_str().as_bytes().last() == key.as_bytes().last() && name == key
}

/// A value inside of the objects that the keys make; `None` if the keys are not all keys.
fn wrap(keys: &[Step<'_>], value: Value) -> Option<Value> {
    keys.iter().rev().try_fold(value, |value, step| match step {
        Step::Key(key) => {
            let mut map = serde_json::Map::with_capacity(1);
            map.insert(key.to_string(), value);
            Some(Value::Object(map))
        }
        Step::Index(_) | Step::End => None,
    })
}

fn describe(steps: &[Step<'_>]) -> String {
    pointer(steps).to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use serde_json::value::RawValue;

    use super::*;

    fn draft(text: &str) -> Draft<'_> {
        let raw: &RawValue = serde_json::from_str(text).unwrap();
        Draft::new(Document::Raw(raw))
    }

    /// Runs `change` and holds what every draft promises: the operations, applied by another library
    /// to the original, give the draft.
    #[track_caller]
    fn check(
        before: &str,
        after: &Value,
        operations: &Value,
        change: impl Fn(&mut Draft<'_>) -> Result<(), DraftError>,
    ) {
        let mut draft = draft(before);
        change(&mut draft).unwrap();
        assert_eq!(&serde_json::from_str::<Value>(&draft.to_json()).unwrap(), after);
        let recorded = draft.into_operations();
        assert_eq!(&serde_json::to_value(&recorded).unwrap(), operations);
        let mut document: Value = serde_json::from_str(before).unwrap();
        json_patch::patch(&mut document, &recorded).unwrap();
        assert_eq!(&document, after);
    }

    #[test]
    fn missing_and_null_parents_are_made_once() {
        for before in [r#"{"a":{}}"#, r#"{"a":{"b":null}}"#] {
            check(
                before,
                &json!({"a": {"b": {"c~/d": "1", "e": ["x"]}}}),
                &json!([
                    {"op": "add", "path": "/a/b", "value": {"c~/d": "1"}},
                    {"op": "add", "path": "/a/b/e", "value": ["x"]},
                ]),
                |draft| {
                    draft.set(&Path::of(&["a", "b", "c~/d"]), "1".into())?;
                    draft.append(&Path::of(&["a", "b", "e"]), "x".into())
                },
            );
        }
    }

    #[test]
    fn keys_are_escaped_and_values_replaced() {
        check(
            r#"{"list":[{"a/b":"1","keep":1e2}]}"#,
            &json!({"list": [{"a/b": "2", "keep": 1e2}, "end"]}),
            &json!([
                {"op": "replace", "path": "/list/0/a~1b", "value": "2"},
                {"op": "add", "path": "/list/-", "value": "end"},
            ]),
            |draft| {
                draft.set(&Path::of(&["list"]).index(0).key("a/b"), "2".into())?;
                draft.append(&Path::of(&["list"]), "end".into())
            },
        );
    }

    #[test]
    fn what_is_there_can_be_removed() {
        check(
            r#"{"a":{"x":1,"y":[1,2,3]}}"#,
            &json!({"a": {"y": [2]}}),
            &json!([
                {"op": "remove", "path": "/a/x"},
                {"op": "remove", "path": "/a/y/2"},
                {"op": "remove", "path": "/a/y/0"},
            ]),
            |draft| {
                draft.remove(&Path::of(&["a", "x"]))?;
                draft.remove(&Path::of(&["a", "y"]).index(2))?;
                draft.remove(&Path::of(&["a", "y"]).index(0))
            },
        );
    }

    #[test]
    fn what_is_shared_is_changed_in_the_draft_alone() {
        let text = r#"{"a":{"b":{"c":[{"d":1},{"d":null}]},"e":"kept"}}"#;
        let mut original = Document::Raw(serde_json::from_str::<&RawValue>(text).unwrap());
        original.open().unwrap();
        let mut draft = Draft::new(Document::Shared(&original));
        let list = Path::of(&["a", "b", "c"]);
        draft.set(&list.index(1).key("d"), 2.into()).unwrap();
        draft.append(&list, 3.into()).unwrap();
        draft.remove(&list.index(0).key("d")).unwrap();
        assert_eq!(draft.to_json(), r#"{"a":{"b":{"c":[{},{"d":2},3]},"e":"kept"}}"#);
        assert_eq!(original.to_json(), text);
    }

    #[test]
    fn what_would_not_apply_is_an_error() {
        let mut draft = draft(r#"{"a":"text","list":[],"b":{"x":1,"x":2}}"#);
        assert!(draft.remove(&Path::of(&["none"])).is_err());
        assert!(draft.remove(&Path::of(&["list"]).index(0)).is_err());
        assert!(draft.set(&Path::of(&["a", "b"]), 1.into()).is_err());
        assert!(draft.set(&Path::of(&["list"]).index(0).key("x"), 1.into()).is_err());
        assert!(draft.append(&Path::of(&["b", "x"]), 1.into()).is_err());
        assert!(draft.append(&Path::of(&["a"]), 1.into()).is_err());
        assert!(draft.into_operations().is_empty());
    }

    #[test]
    fn untouched_text_stays_as_it_came() {
        let mut draft = draft(r#"{"n": 1.0e+2, "s":"\u00e4",  "t":{ "x":null}}"#);
        draft.set(&Path::of(&["new"]), 1.into()).unwrap();
        assert_eq!(draft.to_json(), r#"{"n":1.0e+2,"s":"\u00e4","t":{ "x":null},"new":1}"#);
    }
}
