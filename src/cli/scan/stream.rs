//! JSON, object by object: of a list, however long, one item is in memory at a time.

use std::cell::Cell;
use std::fmt;
use std::io::{self, Read};
use std::rc::Rc;

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value, json};

use crate::cli::input::FILE_LIMIT;

/// Where an object is in its input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    /// The number of the document, from 1.
    pub(super) document: usize,
    /// The number of the item in the list that the document is, from 1.
    pub(super) item: Option<usize>,
}

impl fmt::Display for Position {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "document {}", self.document)?;
        self.item.map_or(Ok(()), |item| write!(formatter, ", item {item}"))
    }
}

/// What takes the objects, as they come.
pub(super) type Take<'t> = dyn FnMut(Position, Value) -> io::Result<()> + 't;

/// Reads JSON documents, one after the other, as `kubectl get -o json` and JSON Lines have them; gives
/// the number of documents. Lists are taken apart, also those whose `kind` comes after the items.
pub(super) fn read(input: impl Read, take: &mut Take<'_>) -> serde_json::Result<usize> {
    let since = Rc::new(Cell::new(0));
    let input = Metered { inner: input, since: Rc::clone(&since) };
    let mut deserializer = serde_json::Deserializer::from_reader(input);
    let mut document = 0;
    while deserializer.end().is_err() {
        document += 1;
        let mut deliver = |item, value| {
            since.set(0);
            take(Position { document, item }, value)
        };
        Document(&mut deliver).deserialize(&mut deserializer)?;
    }
    Ok(document)
}

/// The items of a list that is in memory, or the one object.
pub(super) fn split(document: usize, mut value: Value, take: &mut Take<'_>) -> io::Result<()> {
    let kind = value.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
    match value.get_mut("items").map(Value::take) {
        Some(Value::Array(items)) if kind.ends_with("List") => {
            for (index, item) in items.into_iter().enumerate() {
                let position = Position { document, item: Some(index + 1) };
                take(position, with_kind(item, Some(&kind)))?;
            }
            Ok(())
        }
        Some(Value::Null) if kind.ends_with("List") => Ok(()),
        items => {
            if let (Some(items), Some(place)) = (items, value.get_mut("items")) {
                *place = items;
            }
            take(Position { document, item: None }, value)
        }
    }
}

/// The items of a typed list do not repeat their kind. Where the list's own is not known yet, what has
/// containers is a pod.
pub(super) fn with_kind(mut item: Value, list: Option<&str>) -> Value {
    let of_list = list.and_then(|kind| kind.strip_suffix("List")).filter(|kind| !kind.is_empty());
    let looks_like_pod = item.pointer("/spec/containers").is_some_and(Value::is_array);
    let kind = of_list.or_else(|| looks_like_pod.then_some("Pod"));
    if let (Some(kind), Some(fields)) = (kind, item.as_object_mut())
        && !fields.contains_key("kind")
    {
        fields.insert("kind".to_owned(), json!(kind));
    }
    item
}

/// Counts what is read for one object, so that none takes all memory.
struct Metered<R> {
    inner: R,
    since: Rc<Cell<u64>>,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.since.set(self.since.get() + read as u64);
        if self.since.get() > FILE_LIMIT {
            let limit = FILE_LIMIT / 1024 / 1024;
            return Err(io::Error::other(format!(
                "an object has more than {limit} MiB, which the API server would not hold"
            )));
        }
        Ok(read)
    }
}

/// Takes one object of a document: the number of the item, and the object.
type Deliver<'d> = dyn FnMut(Option<usize>, Value) -> io::Result<()> + 'd;

/// A document.
struct Document<'a, 'd>(&'a mut Deliver<'d>);

impl<'de> DeserializeSeed<'de> for Document<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Document<'_, '_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a Kubernetes object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut fields = Map::new();
        let mut is_list = false;
        while let Some(key) = map.next_key::<String>()? {
            if key == "items" {
                let kind = fields.get("kind").and_then(Value::as_str);
                let items = Items { deliver: &mut *self.0, kind };
                match map.next_value_seed(items)? {
                    None => is_list = true,
                    Some(other) => drop(fields.insert(key, other)),
                }
            } else if is_list && key != "kind" {
                map.next_value::<IgnoredAny>()?;
            } else {
                fields.insert(key, map.next_value()?);
            }
        }
        if is_list {
            Ok(())
        } else {
            (self.0)(None, Value::Object(fields)).map_err(A::Error::custom)
        }
    }

    /// What `jq .items` prints.
    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<(), A::Error> {
        let items = Items { deliver: self.0, kind: None };
        items.visit_seq(seq).map(drop)
    }
}

/// The items of a list; gives what stands there if it is something else.
struct Items<'a, 'd, 'k> {
    deliver: &'a mut Deliver<'d>,
    kind: Option<&'k str>,
}

impl<'de> DeserializeSeed<'de> for Items<'_, '_, '_> {
    type Value = Option<Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Items<'_, '_, '_> {
    type Value = Option<Value>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list of Kubernetes objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut number = 0;
        while let Some(item) = seq.next_element::<Value>()? {
            number += 1;
            let item = with_kind(item, self.kind);
            (self.deliver)(Some(number), item).map_err(A::Error::custom)?;
        }
        Ok(None)
    }

    /// What Go writes for a list that nobody made.
    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Map::new();
        while let Some((key, value)) = map.next_entry()? {
            fields.insert(key, value);
        }
        Ok(Some(Value::Object(fields)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where objects were found, and of what kind.
    #[track_caller]
    fn found(text: &str) -> Vec<String> {
        let mut found = Vec::new();
        let mut take = |position: Position, value: Value| {
            found.push(format!("{position}: {}", value["kind"].as_str().unwrap_or("-")));
            Ok(())
        };
        read(text.as_bytes(), &mut take).unwrap();
        found
    }

    #[test]
    fn lists_are_taken_apart_wherever_their_kind_stands() {
        let pod = r#"{"kind": "Pod"}"#;
        let kindless = r#"{"spec": {"containers": []}}"#;
        for (text, expected) in [
            (
                format!(r#"{{"kind": "List", "items": [{pod}, {pod}]}}"#),
                vec!["1, item 1: Pod", "1, item 2: Pod"],
            ),
            (format!(r#"{{"items": [{pod}], "kind": "List"}}"#), vec!["1, item 1: Pod"]),
            (r#"{"kind": "PodList", "items": [{}]}"#.to_owned(), vec!["1, item 1: Pod"]),
            (format!(r#"{{"items": [{kindless}], "kind": "PodList"}}"#), vec!["1, item 1: Pod"]),
            (r#"{"kind": "List", "items": []}"#.to_owned(), vec![]),
            (r#"{"kind": "List", "items": null}"#.to_owned(), vec![]),
            (format!("{pod}\n{pod}{pod}"), vec!["1: Pod", "2: Pod", "3: Pod"]),
            (format!("[{pod}]\n"), vec!["1, item 1: Pod"]),
            (r#"{"kind": "Odd", "items": {"a": 1}}"#.to_owned(), vec!["1: Odd"]),
            (" \n".to_owned(), vec![]),
        ] {
            let expected: Vec<String> =
                expected.iter().map(|place| format!("document {place}")).collect();
            assert_eq!(found(&text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_cut_off_is_an_error_with_its_place() {
        let text = r#"{"items": [{"kind": "Pod"}, {"kind": "#;
        let mut count = 0;
        let mut take = |_, _| {
            count += 1;
            Ok(())
        };
        let error = read(text.as_bytes(), &mut take).unwrap_err();
        assert!(error.is_eof() && error.line() == 1, "{error}");
        assert_eq!(count, 1, "what came before is taken");
    }

    #[test]
    fn no_object_takes_all_memory() {
        let head = br#"{"items": [{"kind": ""#.as_slice();
        let input = head.chain(io::repeat(b'x'));
        let error = read(input, &mut |_, _| Ok(())).unwrap_err();
        assert!(error.to_string().contains("more than 16 MiB"), "{error}");
    }
}
