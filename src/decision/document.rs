//! A JSON document, opened as far as it is read or changed; the rest stays the text that came.
//!
//! A pod is scanned as seldom as can be: a review's object is opened while the review is read, so that
//! its metadata can be looked at, and its spec be changed, without a second pass over the whole.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use super::pod::Text;

/// A JSON value.
#[derive(Debug, Clone)]
pub enum Document<'a> {
    /// Not opened: the text as it came.
    Raw(&'a RawValue),
    /// Its entries, in their order.
    Object(Vec<(Text<'a>, Self)>),
    /// Its items.
    List(Vec<Self>),
    /// A plain value, or one that was written since.
    New(Value),
}

impl<'a> Document<'a> {
    /// The value of a key of an object; `None` for all else, and for `null`.
    pub fn get(&self, key: &str) -> Option<&Self> {
        let Self::Object(entries) = self else { return None };
        let (_, value) = entries.iter().find(|(name, _)| name.as_str() == key)?;
        (!value.is_null()).then_some(value)
    }

    /// Whether it is `null`, which is what an absent one is.
    pub fn is_null(&self) -> bool {
        match self {
            Self::Raw(raw) => raw.get() == "null",
            Self::New(value) => value.is_null(),
            Self::Object(_) | Self::List(_) => false,
        }
    }

    /// Reads a value; `null` for one that was opened or written.
    pub(super) fn read<T: Deserialize<'a>>(&self) -> serde_json::Result<T> {
        let text = if let Self::Raw(raw) = self { raw.get() } else { "null" };
        serde_json::from_str(text)
    }

    /// Opens it, and what is in it along a path, if it is an object or a list; others stay as they are.
    pub fn open(&mut self, along: &[Step<'_>]) -> serde_json::Result<()> {
        match self {
            Self::Raw(raw) if raw.get().starts_with(['{', '[']) => {
                let mut json = serde_json::Deserializer::from_str(raw.get());
                *self = Opening(along).deserialize(&mut json)?;
            }
            Self::New(Value::Object(map)) => {
                let entries = std::mem::take(map).into_iter();
                *self = Self::Object(
                    entries.map(|(key, value)| (key.into(), Self::New(value))).collect(),
                );
            }
            Self::New(Value::Array(items)) => {
                let items = std::mem::take(items).into_iter();
                *self = Self::List(items.map(Self::New).collect());
            }
            Self::Raw(_) | Self::New(_) | Self::Object(_) | Self::List(_) => {}
        }
        Ok(())
    }

    /// It as JSON text. What was not opened is as it came.
    pub fn to_json(&self) -> String {
        let mut text = String::new();
        self.write(&mut text);
        text
    }

    fn write(&self, text: &mut String) {
        match self {
            Self::Raw(raw) => text.push_str(raw.get()),
            Self::New(value) => text.push_str(&value.to_string()),
            Self::Object(entries) => {
                text.push('{');
                for (index, (key, value)) in entries.iter().enumerate() {
                    if index > 0 {
                        text.push(',');
                    }
                    text.push_str(&Value::from(key.as_str()).to_string());
                    text.push(':');
                    value.write(text);
                }
                text.push('}');
            }
            Self::List(items) => {
                text.push('[');
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        text.push(',');
                    }
                    item.write(text);
                }
                text.push(']');
            }
        }
    }
}

/// A step into a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step<'p> {
    /// To the value of a key.
    Key(Cow<'p, str>),
    /// To an item.
    Index(usize),
    /// Behind the last item of a list.
    End,
}

/// Reads an object of Kubernetes, with itself and its metadata opened; `None` for `null`.
pub(super) fn with_metadata<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Document<'de>>, D::Error> {
    let metadata = [Step::Key("metadata".into())];
    let document = Opening(&metadata).deserialize(deserializer)?;
    Ok((!document.is_null()).then_some(document))
}

/// Opens a value while it is read, and what is in it along a path: all in one pass.
struct Opening<'p>(&'p [Step<'p>]);

impl<'de> DeserializeSeed<'de> for Opening<'_> {
    type Value = Document<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Opening<'_> {
    type Value = Document<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    /// A key that stands twice is refused: which of the two counts depends on who reads it.
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::with_capacity(ENTRIES);
        while let Some(key) = map.next_key::<Text<'de>>()? {
            let value = match self.0.split_first() {
                Some((Step::Key(first), rest)) if key == first.as_ref() => {
                    map.next_value_seed(Opening(rest))?
                }
                _ => Document::Raw(map.next_value()?),
            };
            entries.push((key, value));
        }
        let mut keys: Vec<&str> = entries.iter().map(|(key, _)| key.as_str()).collect();
        keys.sort_unstable();
        if keys.array_windows().any(|[one, other]| one == other) {
            return Err(serde::de::Error::custom(TWICE));
        }
        Ok(Document::Object(entries))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut list = Vec::new();
        loop {
            let item = match self.0.split_first() {
                Some((Step::Index(index), rest)) if *index == list.len() => {
                    items.next_element_seed(Opening(rest))?
                }
                _ => items.next_element()?.map(Document::Raw),
            };
            match item {
                Some(item) => list.push(item),
                None => return Ok(Document::List(list)),
            }
        }
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Document::New(Value::Null))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Document::New(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(Document::New(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(Document::New(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
        Ok(Document::New(value.into()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
        Ok(Document::New(value.into()))
    }
}

/// The fields of most objects.
const ENTRIES: usize = 12;
/// What is said of a key that stands twice.
pub(super) const TWICE: &str = "a key stands twice";
