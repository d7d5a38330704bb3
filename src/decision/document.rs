//! A JSON document, opened as far as it is read or changed; the rest stays the text that came.
//!
//! A pod is scanned as seldom as can be: a review's object is opened while the review is read, down to
//! its containers, so that what is looked at and what is changed is found without another pass over
//! the whole.

use std::fmt;

use serde::Deserialize;
use serde::de::value::{BorrowedStrDeserializer, MapDeserializer, SeqDeserializer};
use serde::de::{DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;
use serde_json::Value;
use serde_json::value::RawValue;

use super::pod::Text;

/// A JSON value.
#[derive(Debug)]
pub enum Document<'a> {
    /// Not opened: the text as it came.
    Raw(&'a RawValue),
    /// What stands in another document, and is copied as far as it is opened.
    Shared(&'a Self),
    /// Its entries, in their order.
    Object(Vec<(Text<'a>, Self)>),
    /// Its items.
    List(Vec<Self>),
    /// A plain value, or one that was written since.
    New(Value),
}

impl Document<'_> {
    /// The value of a key of an object; `None` for all else, and for `null`.
    pub fn get(&self, key: &str) -> Option<&Self> {
        let entries = match self {
            Self::Shared(document) => return document.get(key),
            Self::Object(entries) => entries,
            Self::Raw(_) | Self::List(_) | Self::New(_) => return None,
        };
        let (_, value) = entries.iter().find(|(name, _)| name.as_str() == key)?;
        (!value.is_null()).then_some(value)
    }

    /// Whether it is `null`, which is what an absent one is.
    pub fn is_null(&self) -> bool {
        match self {
            Self::Raw(raw) => raw.get() == "null",
            Self::Shared(document) => document.is_null(),
            Self::New(value) => value.is_null(),
            Self::Object(_) | Self::List(_) => false,
        }
    }

    /// Reads it as a type. What was not opened is read from its text.
    pub(super) fn read<'d, T: Deserialize<'d>>(&'d self) -> serde_json::Result<T> {
        T::deserialize(self)
    }

    /// Opens it, if it is an object or a list; others stay as they are.
    pub fn open(&mut self) -> serde_json::Result<()> {
        if let Self::Shared(document) = self {
            *self = document.top();
        }
        match self {
            Self::Raw(raw) if raw.get().starts_with(['{', '[']) => {
                let mut json = serde_json::Deserializer::from_str(raw.get());
                *self = Opened::Itself.deserialize(&mut json)?;
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
            Self::Raw(_) | Self::Shared(_) | Self::New(_) | Self::Object(_) | Self::List(_) => {}
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
            Self::Shared(document) => document.write(text),
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

impl<'a> Document<'a> {
    /// A copy of it, of which all that is below is shared.
    fn top(&'a self) -> Self {
        match self {
            Self::Raw(raw) => Self::Raw(raw),
            Self::Shared(document) => document.top(),
            Self::Object(entries) => Self::Object(
                entries.iter().map(|(key, value)| (key.clone(), value.shared())).collect(),
            ),
            Self::List(items) => Self::List(items.iter().map(Self::shared).collect()),
            Self::New(value) => Self::New(value.clone()),
        }
    }

    /// It, without a copy of what may be much.
    fn shared(&'a self) -> Self {
        match self {
            Self::Raw(raw) => Self::Raw(raw),
            other => Self::Shared(other),
        }
    }
}

impl<'de> Deserializer<'de> for &'de Document<'de> {
    type Error = serde_json::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> serde_json::Result<V::Value> {
        match self {
            Document::Raw(raw) => {
                serde_json::Deserializer::from_str(raw.get()).deserialize_any(visitor)
            }
            Document::Shared(document) => document.deserialize_any(visitor),
            Document::Object(entries) => {
                let entries = entries
                    .iter()
                    .map(|(key, value)| (BorrowedStrDeserializer::new(key.as_str()), value));
                MapDeserializer::new(entries).deserialize_map(visitor)
            }
            Document::List(items) => SeqDeserializer::new(items.iter()).deserialize_seq(visitor),
            Document::New(value) => value.deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> serde_json::Result<V::Value> {
        if self.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    /// A `RawValue` asks for its text by this.
    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> serde_json::Result<V::Value> {
        match self {
            Document::Raw(raw) => serde_json::Deserializer::from_str(raw.get())
                .deserialize_newtype_struct(name, visitor),
            Document::Shared(document) => document.deserialize_newtype_struct(name, visitor),
            other => visitor.visit_newtype_struct(other),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> serde_json::Result<V::Value> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf
        unit unit_struct seq tuple tuple_struct map struct enum identifier
    }
}

impl<'de> IntoDeserializer<'de, serde_json::Error> for &'de Document<'de> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

/// Reads an object of Kubernetes, opened where a decision looks and where grants go; `None` for `null`.
pub(super) fn object<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Document<'de>>, D::Error> {
    let document = OBJECT.deserialize(deserializer)?;
    Ok((!document.is_null()).then_some(document))
}

const OBJECT: Opened = Opened::Keys(&[
    ("metadata", Opened::Keys(&[("annotations", Opened::Itself)])),
    ("spec", Opened::Keys(&[("containers", Opened::Items), ("initContainers", Opened::Items)])),
]);

/// What is opened of a value while it is read.
#[derive(Debug, Clone, Copy)]
enum Opened {
    /// The value.
    Itself,
    /// The value, and each item of the list of containers that it is.
    Items,
    /// The value, and what these keys of the object that it is have.
    Keys(&'static [(&'static str, Self)]),
}

impl Opened {
    /// What is opened at a key; `None` where the text stays.
    fn at(self, key: &str) -> Option<Self> {
        let Self::Keys(keys) = self else { return None };
        keys.iter().find(|(name, _)| *name == key).map(|(_, opened)| *opened)
    }
}

impl<'de> DeserializeSeed<'de> for Opened {
    type Value = Document<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Opened {
    type Value = Document<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    /// A key that stands twice is refused: which of the two counts depends on who reads it.
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<Text<'de>>()? {
            if entries.is_empty() {
                entries.reserve(ENTRIES);
            }
            let value = match self.at(key.as_str()) {
                Some(opened) => map.next_value_seed(opened)?,
                None => Document::Raw(map.next_value()?),
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
            let item = match self {
                Self::Items => items.next_element_seed(Self::Itself)?,
                Self::Itself | Self::Keys(_) => items.next_element()?.map(Document::Raw),
            };
            match item {
                Some(_) if matches!(self, Self::Items) && list.len() == MOST_CONTAINERS => {
                    return Err(serde::de::Error::custom(TOO_MANY));
                }
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
/// The most containers of one list. What is read of one takes a kilobyte, even where nothing is written in
/// it, and no node starts as many.
const MOST_CONTAINERS: usize = 5_000;
/// What is said of a key that stands twice.
pub(super) const TWICE: &str = "a key stands twice";
/// What is said of more containers than that.
pub(super) const TOO_MANY: &str = "more than 5000 containers in one list";
