//! decode: the bytes of an AdmissionReview to a [`Review`], a review with a uid to answer.
//!
//! Only `admission.k8s.io/v1` is read (`kubernetes/api admission/v1/types.go`). Text is borrowed from
//! the body, in one pass over its bytes.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_path_to_error::Segment;

use super::document::{self, Document};
use super::spelling::excerpt;

/// The API version of the reviews that are read and written.
pub const API_VERSION: &str = "admission.k8s.io/v1";
/// The kind of the reviews that are read and written.
pub const KIND: &str = "AdmissionReview";

/// The most parts of a review. Of fifty containers it has some 10,000.
const MOST_PARTS: usize = 50_000;

/// A review that can be answered: it has a uid. What it is about stays untyped.
#[derive(Debug)]
pub struct Review<'a> {
    /// The uid that the answer must carry. Not the pod's.
    pub uid: Cow<'a, str>,
    pub(super) body: Body<'a>,
}

/// The request of a review, without its uid.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Body<'a> {
    #[serde(borrow)]
    pub(super) kind: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) resource: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) sub_resource: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) name: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) namespace: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) operation: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) user_info: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "document::object")]
    pub(super) object: Option<Document<'a>>,
    #[serde(borrow)]
    pub(super) old_object: Option<&'a RawValue>,
    #[serde(borrow)]
    uid: Option<&'a RawValue>,
}

/// A body that cannot be answered, since no answer of ours would be accepted. HTTP 400: the caller
/// must act.
#[derive(Debug, thiserror::Error)]
pub enum Unanswerable {
    /// The body has no bytes, or only white space.
    #[error("the body is empty; send an AdmissionReview as JSON")]
    Empty,
    /// The body is not one JSON value. The position is in the message.
    #[error("the body is not one JSON document: {0}")]
    NotJson(serde_json::Error),
    /// The body is JSON and no AdmissionReview.
    #[error("the body is no AdmissionReview: {0}")]
    NotReview(Mismatch),
    /// The body is JSON and no object.
    #[error("the body is no AdmissionReview but another JSON value; send an object")]
    NotObject,
    /// `apiVersion` is another one.
    #[error(
        "apiVersion {0} is not served; set `admissionReviewVersions: [\"v1\"]` in the webhook configuration and send {API_VERSION}"
    )]
    ApiVersion(String),
    /// `kind` is another one.
    #[error("kind {0} is not served; send an {KIND} of {API_VERSION}")]
    Kind(String),
    /// There is no `request`.
    #[error("`request` is missing; send a review as the API server does, with `request.uid`")]
    NoRequest,
    /// There is more in it than is read.
    #[error(
        "the body has more than {MOST_PARTS} parts (commas, lists and objects), which no review of a pod has"
    )]
    TooMuch,
    /// There is no uid, so no answer can be matched to the request.
    #[error("`request.uid` is missing or empty; the API server accepts no answer without it")]
    NoUid,
}

impl<'a> Review<'a> {
    /// Reads a review from the bytes of an HTTP body.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, Unanswerable> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Envelope<'a> {
            #[serde(borrow, default)]
            api_version: Option<Cow<'a, str>>,
            #[serde(borrow, default)]
            kind: Option<Cow<'a, str>>,
            #[serde(borrow, default)]
            request: Option<Body<'a>>,
        }

        let first = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
        let first = first.ok_or(Unanswerable::Empty)?;
        if has_too_many_parts(bytes) {
            return Err(Unanswerable::TooMuch);
        }
        // One check of the whole is cheaper than one of each text in it.
        let envelope = match std::str::from_utf8(bytes) {
            Ok(text) => serde_json::from_str(text),
            Err(_) => serde_json::from_slice(bytes),
        };
        let envelope: Envelope<'a> = envelope.map_err(|error| {
            if error.is_data() {
                Unanswerable::NotReview(Mismatch::of(&error))
            } else {
                Unanswerable::NotJson(error)
            }
        })?;
        // A list would be read field by field, in the order of the declaration.
        if *first != b'{' {
            return Err(Unanswerable::NotObject);
        }
        let api_version = envelope.api_version.unwrap_or_default();
        if api_version != API_VERSION {
            return Err(Unanswerable::ApiVersion(named(&api_version)));
        }
        let kind = envelope.kind.unwrap_or_default();
        if kind != KIND {
            return Err(Unanswerable::Kind(named(&kind)));
        }
        let body = envelope.request.ok_or(Unanswerable::NoRequest)?;
        let uid = body
            .uid
            .and_then(|raw| serde_json::from_str::<Name<'a>>(raw.get()).ok())
            .map(|uid| uid.0)
            .filter(|uid| !uid.is_empty())
            .ok_or(Unanswerable::NoUid)?;
        Ok(Self { uid, body })
    }

    /// The namespace that the review names, for whoever looks it up before the line is called; empty if
    /// there is none. One that is no text is left for the line to complain about.
    pub fn namespace(&self) -> Cow<'a, str> {
        let raw = self.body.namespace;
        let name = raw.and_then(|raw| serde_json::from_str::<Name<'a>>(raw.get()).ok());
        name.map(|name| name.0).unwrap_or_default()
    }
}

/// Whether there is more in a body than is read: what one part of it is read into may take a hundred times
/// what its text does.
fn has_too_many_parts(bytes: &[u8]) -> bool {
    // Those in texts are no parts, and are told from others only where there are many.
    let marks = [b',', b'[', b'{'].map(|mark| memchr::memchr_iter(mark, bytes).count());
    if marks.iter().sum::<usize>() <= MOST_PARTS {
        return false;
    }
    let (mut parts, mut in_text, mut escaped) = (0, false, false);
    for byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b',' | b'[' | b'{' if !in_text => parts += 1,
            _ => {}
        }
        if parts > MOST_PARTS {
            return true;
        }
    }
    false
}

/// A text that borrows where it has no escapes.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

/// A caller's word, for a sentence.
fn named(text: &str) -> String {
    if text.is_empty() { "(none)".to_owned() } else { format!("`{}`", excerpt(text)) }
}

/// JSON that is not what is expected: what was expected, and where. What stands there instead is not
/// repeated, since it may be a pod's own, and this text goes to logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch(String);

impl Mismatch {
    /// What serde says, without the value that it found.
    pub fn of(error: &serde_json::Error) -> Self {
        let text = error.to_string();
        let place = format!("at line {} column {}", error.line(), error.column());
        // «invalid type: string "…", expected a map at line 1 column 2»: the value may hold any text,
        // and what behind the last «expected» is ours.
        match text.rsplit_once(", expected ") {
            Some((_, expected)) => Self(format!("expected {expected}")),
            None if ["missing field", "duplicate field", document::TWICE, document::TOO_MANY]
                .iter()
                .any(|known| text.starts_with(known)) =>
            {
                Self(text)
            }
            None => Self(format!("it cannot be read {place}")),
        }
    }
}

impl Mismatch {
    /// The same with the place in words, for a text that is known not to be a `T`.
    pub fn at<'de, T: Deserialize<'de>>(text: &'de str) -> Self {
        let mut json = serde_json::Deserializer::from_str(text);
        match serde_path_to_error::deserialize::<_, T>(&mut json) {
            Ok(_) => Self("it cannot be read".to_owned()),
            Err(error) => {
                let path = excerpt(&place(error.path()));
                let Self(expected) = Self::of(error.inner());
                let expected = expected.split(" at line ").next().unwrap_or_default();
                Self(format!("`{path}`: {expected}"))
            }
        }
    }
}

/// Fields whose keys are the pod's own.
const MAPS: &[&str] = &["annotations", "labels", "limits", "nodeSelector", "requests"];

/// A path without keys that are a pod's own words.
fn place(path: &serde_path_to_error::Path) -> String {
    let mut place = String::new();
    for segment in path {
        match segment {
            Segment::Map { .. } if MAPS.iter().any(|map| place.ends_with(map)) => break,
            Segment::Seq { .. } => {}
            _ if place.is_empty() => {}
            _ => place.push('.'),
        }
        place.push_str(&segment.to_string());
    }
    if place.is_empty() { ".".to_owned() } else { place }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_answered_says_why() {
        let deep = format!("{}1{}", "[".repeat(40_000), "]".repeat(40_000));
        let many = format!("[{}1]", "1,".repeat(MOST_PARTS + 1));
        let nested = format!("[{}]", "[[[]]]".repeat(MOST_PARTS));
        let objects = format!("[{}]", "{}".repeat(MOST_PARTS));
        let text = format!(r#"["\"{}"]"#, "[,{\\\"".repeat(MOST_PARTS));
        let containers = format!(
            r#"{{"request":{{"object":{{"spec":{{"containers":[{}{{}}]}}}}}}}}"#,
            "{},".repeat(5_000)
        );
        let bomb = format!(r#"{{"apiVersion":"admission.k8s.io/v1","kind":{deep}}}"#);
        for (body, sentence) in [
            ("", "the body is empty"),
            (" \n", "the body is empty"),
            ("nonsense", "the body is not one JSON document: expected ident at line 1 column 2"),
            ("{", "the body is not one JSON document: EOF"),
            ("{} {}", "the body is not one JSON document: trailing characters"),
            ("[]", "the body is no AdmissionReview"),
            ("1", "the body is no AdmissionReview"),
            (r#"["admission.k8s.io/v1","AdmissionReview",{"uid":"u"}]"#, "but another JSON value"),
            ("{}", "apiVersion (none) is not served"),
            (
                r#"{"apiVersion":"admission.k8s.io/v1beta1"}"#,
                "apiVersion `admission.k8s.io/v1beta1`",
            ),
            (
                r#"{"apiVersion":1}"#,
                "the body is no AdmissionReview: expected a string at line 1 column 15",
            ),
            (r#"{"apiVersion":"admission.k8s.io/v1","kind":"Pod"}"#, "kind `Pod` is not served"),
            (
                r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}"#,
                "`request` is missing",
            ),
            (
                r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":null}"#,
                "`request` is missing",
            ),
            (
                r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":""}}"#,
                "`request.uid` is missing or empty",
            ),
            (
                r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":7}}"#,
                "`request.uid` is missing or empty",
            ),
            (bomb.as_str(), "the body is no AdmissionReview"),
            (many.as_str(), "the body has more than 50000 parts"),
            (nested.as_str(), "the body has more than 50000 parts"),
            (objects.as_str(), "the body has more than 50000 parts"),
            (text.as_str(), "the body is no AdmissionReview"),
            (containers.as_str(), "no AdmissionReview: more than 5000 containers in one list"),
        ] {
            let error = Review::decode(body.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(sentence), "{}: {error}", excerpt(body));
        }
    }

    #[test]
    fn a_mismatch_does_not_repeat_what_it_found() {
        let error = serde_json::from_str::<Vec<u8>>("\"hunter2, expected x\"").unwrap_err();
        assert_eq!(Mismatch::of(&error).to_string(), "expected a sequence at line 1 column 21");
    }

    #[test]
    fn a_mismatch_names_fields_and_no_key_of_the_pod() {
        for (pod, place) in [
            (r#"{"metadata":{"annotations":{"hunter2":5}}}"#, "`metadata.annotations`: expected"),
            (r#"{"spec":{"nodeSelector":{"hunter2":5}}}"#, "`spec.nodeSelector`: expected"),
            (
                r#"{"spec":{"containers":[{"env":[{"name":5}]}]}}"#,
                "`spec.containers[0].env[0].name`: expected",
            ),
        ] {
            #[derive(Debug, Default, Deserialize)]
            #[serde(default)]
            struct Object<'a> {
                #[serde(borrow)]
                metadata: crate::decision::pod::Metadata<'a>,
                #[serde(borrow)]
                spec: crate::decision::pod::Spec<'a>,
            }
            let said = Mismatch::at::<Object<'_>>(pod).to_string();
            assert!(said.starts_with(place), "{said}");
        }
    }

    #[test]
    fn a_review_borrows_what_it_can() {
        let body = br#"{"request":{"uid":"u-1","namespace":"team"},"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1"}"#;
        let review = Review::decode(body).unwrap();
        assert!(matches!(review.uid, Cow::Borrowed("u-1")));
        assert!(matches!(review.namespace(), Cow::Borrowed("team")));
    }
}
