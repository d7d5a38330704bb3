//! facts: what one admission is about, read once from its review.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::document::Document;
use super::line::Undecided;
use super::pod::{Metadata, Pod, Text};
use super::review::{Mismatch, Review};
use super::settings::Settings;

/// The annotation by which a kubelet marks the mirror of a static pod.
const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";

/// The facts of one admission: deciding needs no look-up beyond them, the policies and the namespace.
#[derive(Debug)]
pub struct Request<'a> {
    /// Whether this is the creation of a pod itself: nothing else can be granted a device.
    pub creates_pod: bool,
    /// Whether an object itself is created or updated, and no subresource such as its `scale` or `status`.
    pub writes_object: bool,
    /// What is updated of a pod that exists already; `None` of anything else.
    pub updated_pod: Option<PodPart>,
    /// The namespace; empty if the review names none.
    pub namespace: Text<'a>,
    /// The pod's metadata; empty if there is no pod.
    pub metadata: Metadata<'a>,
    /// The object; `None` if there is none, or it is `null`.
    pub object: Option<&'a Document<'a>>,
    /// The object before an update, raw.
    pub old_object: Option<&'a RawValue>,
    name: Text<'a>,
    user: UserInfo<'a>,
}

/// What a person may change of a pod that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PodPart {
    /// `pods/ephemeralcontainers`, as `kubectl debug` does.
    EphemeralContainers,
    /// `pods/resize`.
    Resources,
    /// The pod itself: its metadata, and of its spec next to nothing.
    Whole,
}

impl PodPart {
    fn of(sub_resource: &str) -> Option<Self> {
        match sub_resource {
            "" => Some(Self::Whole),
            "ephemeralcontainers" => Some(Self::EphemeralContainers),
            "resize" => Some(Self::Resources),
            _ => None,
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct UserInfo<'a> {
    #[serde(borrow)]
    username: Option<Text<'a>>,
    #[serde(borrow)]
    groups: Option<Vec<Text<'a>>>,
}

/// The kind of an object.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct GroupVersionKind<'a> {
    #[serde(borrow)]
    group: Option<Text<'a>>,
    #[serde(borrow)]
    version: Option<Text<'a>>,
    #[serde(borrow)]
    kind: Option<Text<'a>>,
}

impl<'a> GroupVersionKind<'a> {
    /// Whether to create such an object is to create a pod itself, and no part of one.
    pub(super) fn is_pod_creation(
        &self,
        operation: &Text<'_>,
        sub_resource: Option<&Text<'_>>,
    ) -> bool {
        *operation == "CREATE" && sub_resource.is_none_or(|part| *part == "") && self.is_pod()
    }

    fn is_pod(&self) -> bool {
        let is =
            |text: &Option<Text<'a>>, value: &str| text.as_ref().map_or("", Text::as_str) == value;
        is(&self.kind, "Pod") && is(&self.group, "") && is(&self.version, "v1")
    }
}

/// What has metadata.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Object<'a> {
    #[serde(borrow)]
    metadata: Option<Metadata<'a>>,
}

impl<'a> Request<'a> {
    /// Reads the facts of a review.
    pub fn of(review: &'a Review<'_>) -> Result<Self, Undecided> {
        let body = &review.body;
        let kind: GroupVersionKind<'a> = field("kind", body.kind)?;
        let operation: Text<'a> = field("operation", body.operation)?;
        let sub_resource: Option<Text<'a>> = field("subResource", body.sub_resource)?;
        let creates_pod = kind.is_pod_creation(&operation, sub_resource.as_ref());
        let is_whole = sub_resource.as_ref().is_none_or(|part| *part == "");
        let updates = operation == "UPDATE";
        let part = PodPart::of(sub_resource.as_ref().map_or("", Text::as_str));

        // Only a pod's metadata is read as metadata: a Binding or PodExecOptions is none of ours.
        let metadata = match &body.object {
            Some(object) if creates_pod => metadata(object)
                .ok_or_else(|| Undecided::NotPod(Mismatch::at::<Object<'_>>(&object.to_json())))?,
            _ => Metadata::default(),
        };
        Ok(Self {
            creates_pod,
            writes_object: is_whole && (operation == "CREATE" || updates),
            updated_pod: part.filter(|_| updates && kind.is_pod()),
            namespace: field::<Option<Text<'a>>>("namespace", body.namespace)?.unwrap_or_default(),
            name: field::<Option<Text<'a>>>("name", body.name)?.unwrap_or_default(),
            user: field("userInfo", body.user_info)?,
            object: body.object.as_ref(),
            old_object: body.old_object,
            metadata,
        })
    }

    /// The pod that is created; `None` for every other request.
    pub fn pod(&self) -> Result<Option<Pod<'a>>, Undecided> {
        let Some(object) = self.object.filter(|_| self.creates_pod) else {
            return Ok(None);
        };
        let spec = object.get("spec").map(Document::read).transpose();
        let spec =
            spec.map_err(|_| Undecided::NotPod(Mismatch::at::<Pod<'_>>(&object.to_json())))?;
        Ok(Some(Pod { spec }))
    }

    /// The pod's name, or the start of the name that it will be given.
    pub fn name(&self) -> &str {
        let named =
            [Some(&self.name), self.metadata.name.as_ref(), self.metadata.generate_name.as_ref()];
        let mut named = named.into_iter().flatten().map(Text::as_str);
        named.find(|name| !name.is_empty()).unwrap_or_default()
    }

    /// The annotations under `prefix/`, without the prefix, in key order. A `null` value is the empty
    /// one, as for the API server.
    pub fn annotations<'s>(&'s self, prefix: &'s str) -> impl Iterator<Item = (&'s str, &'s str)> {
        let all = self.metadata.annotations.iter().flatten();
        all.filter_map(move |(key, value)| {
            let key = key.as_str().strip_prefix(prefix)?.strip_prefix('/')?;
            Some((key, value.as_ref().map_or("", Text::as_str)))
        })
    }

    /// Whether the pod has annotations under the prefix.
    pub fn asks(&self, settings: &Settings) -> bool {
        self.annotations(&settings.prefix).next().is_some()
    }

    /// The value of one annotation.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        let value = self.metadata.annotations.as_ref()?.get(key)?;
        Some(value.as_ref().map_or("", Text::as_str))
    }

    /// Whether this is a kubelet's mirror of a static pod: a patch would change only what the API
    /// shows. Anybody can write the annotation, so that it counts only from a node.
    pub fn is_mirror_pod(&self) -> bool {
        let user = &self.user;
        let by_node =
            user.username.as_ref().is_some_and(|name| name.as_str().starts_with("system:node:"))
                || user.groups.iter().flatten().any(|group| *group == "system:nodes");
        by_node && self.annotation(MIRROR_ANNOTATION).is_some()
    }
}

/// The metadata of an object; `None` if there is no object, or it has others.
fn metadata<'a>(object: &'a Document<'a>) -> Option<Metadata<'a>> {
    let Document::Object(_) = object else { return None };
    let metadata = match object.get("metadata") {
        None => return Some(Metadata::default()),
        Some(metadata @ Document::Object(_)) => metadata,
        Some(_) => return None,
    };
    let text = |key| metadata.get(key).map(Document::read).transpose().ok();
    Some(Metadata {
        name: text("name")?,
        generate_name: text("generateName")?,
        annotations: metadata.get("annotations").map(Document::read).transpose().ok()?,
    })
}

/// One field of the request; `null` is what an absent one is.
fn field<'a, T: Default + Deserialize<'a>>(
    name: &'static str,
    raw: Option<&'a RawValue>,
) -> Result<T, Undecided> {
    let Some(raw) = raw else {
        return Ok(T::default());
    };
    let value: Option<T> = serde_json::from_str(raw.get())
        .map_err(|error| Undecided::NotRequest { field: name, cause: Mismatch::of(&error) })?;
    Ok(value.unwrap_or_default())
}
