//! glance: where the annotation prefix stands nowhere in a review, nothing is asked for, and the pod need
//! not be read.
//!
//! An API server writes who is asked about before the object (`kubernetes/api admission/v1/types.go`), so
//! that reading ends there. Whatever is not as it writes it goes the whole way, by the line.

use std::fmt;

use memchr::memmem;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};

use super::answer::Admission;
use super::line::{Decision, unasked};
use super::pod::Text;
use super::policy::PolicySet;
use super::request::GroupVersionKind;
use super::review::{API_VERSION, KIND};

/// What [`admit`](super::admit) and [`validate`](super::validate) say of a review that plainly asks for
/// nothing; `None` for one that has to be read.
pub fn glance(bytes: &[u8], policies: &PolicySet) -> Option<Admission> {
    if policies.looking_unasked().next().is_some() || may_name(bytes, &policies.settings().prefix) {
        return None;
    }
    let mut head = Head::default();
    let mut json = serde_json::Deserializer::from_slice(bytes);
    // It ends with an error on purpose, and with another one that the line will say in words.
    let _ = Part { of: Level::Review, head: &mut head }.deserialize(&mut json);
    head.admission(policies)
}

/// Whether a text may stand in JSON: as it is, or with escapes. An API server escapes no letter and no
/// slash, but `<`, `>` and `&` (`encoding/json`, `HTMLEscape`).
fn may_name(bytes: &[u8], text: &str) -> bool {
    [text, "\\u", "\\/"].iter().any(|part| memmem::find(bytes, part.as_bytes()).is_some())
}

/// What stands before the object of a review, and the object's name.
#[derive(Default)]
struct Head<'a> {
    api_version: Option<Text<'a>>,
    kind: Option<Text<'a>>,
    uid: Option<Text<'a>>,
    of: Option<GroupVersionKind<'a>>,
    operation: Option<Text<'a>>,
    sub_resource: Option<Text<'a>>,
    namespace: Option<Text<'a>>,
    name: Option<Text<'a>>,
    /// Whether reading ended since nothing more was needed.
    is_enough: bool,
}

impl Head<'_> {
    fn creates_pod(&self) -> Option<bool> {
        let operation = self.operation.as_ref()?;
        Some(self.of.as_ref()?.is_pod_creation(operation, self.sub_resource.as_ref()))
    }

    fn admission(&self, policies: &PolicySet) -> Option<Admission> {
        let text = |text: &Option<Text<'_>>| text.as_ref().map(Text::to_string);
        let is = |text: &Option<Text<'_>>, value| text.as_ref().is_some_and(|text| *text == value);
        if !self.is_enough || !is(&self.api_version, API_VERSION) || !is(&self.kind, KIND) {
            return None;
        }
        let uid = text(&self.uid).filter(|uid| !uid.is_empty())?;
        let decision = Decision::untouched(unasked(self.creates_pod()?));
        let (namespace, name) = (text(&self.namespace)?, text(&self.name)?);
        Some(Admission::new(uid, namespace, name, decision, policies))
    }
}

#[derive(Clone, Copy)]
enum Level {
    Review,
    Request,
    Object,
    Metadata,
}

/// One object of a review, read into its head.
struct Part<'h, 'a> {
    of: Level,
    head: &'h mut Head<'a>,
}

impl<'de> DeserializeSeed<'de> for Part<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Part<'_, 'de> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { of, head } = self;
        let enough = || A::Error::custom("enough");
        while let Some(key) = map.next_key::<Text<'de>>()? {
            match (of, key.as_str()) {
                (Level::Review, "apiVersion") => head.api_version = map.next_value()?,
                (Level::Review, "kind") => head.kind = map.next_value()?,
                (Level::Review, "request") => {
                    map.next_value_seed(Part { of: Level::Request, head })?;
                }
                (Level::Request, "uid") => head.uid = map.next_value()?,
                (Level::Request, "kind") => head.of = map.next_value()?,
                (Level::Request, "subResource") => head.sub_resource = map.next_value()?,
                (Level::Request, "name") => head.name = filled(map.next_value()?),
                (Level::Request, "namespace") => head.namespace = map.next_value()?,
                (Level::Request, "operation") => head.operation = map.next_value()?,
                (Level::Request, "object") if head.name.is_some() => {
                    head.is_enough = true;
                    return Err(enough());
                }
                // It has a name yet to be given, from the start that it says.
                (Level::Request, "object") if head.creates_pod() == Some(true) => {
                    map.next_value_seed(Part { of: Level::Object, head })?;
                }
                (Level::Object, "metadata") => {
                    map.next_value_seed(Part { of: Level::Metadata, head })?;
                }
                (Level::Metadata, "name" | "generateName") => {
                    head.name = filled(map.next_value()?);
                    if head.name.is_some() {
                        head.is_enough = true;
                        return Err(enough());
                    }
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

/// The empty text is what an absent one is.
fn filled(text: Option<Text<'_>>) -> Option<Text<'_>> {
    text.filter(|text| !text.as_str().is_empty())
}
