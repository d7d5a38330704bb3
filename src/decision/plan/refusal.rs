//! Why a pod is admitted or refused: a reason from a fixed set, and a sentence for the person.

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};

use serde::Deserialize;

/// Why, from a fixed set: a metric label and an audit annotation, never a pod's own text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub enum Reason {
    /// Devices are granted.
    Granted,
    /// The pod has no annotation under the prefix, or says `"false"`.
    NotAsked,
    /// Every ask is for a policy that is in shadow.
    Shadow,
    /// Every ask was wrong, and the policies say `onInvalid: Warn`.
    Ignored,
    /// Not the creation of a pod.
    NotPodCreation,
    /// `kube-system`.
    SystemNamespace,
    /// Devgrant's own namespace.
    OwnNamespace,
    /// The namespace does not carry the opt-in label.
    NotOptedIn,
    /// A kubelet's mirror of a static pod.
    MirrorPod,
    /// A Windows pod, which can have no security context of Linux.
    WindowsPod,
    /// A key under the prefix that means nothing.
    UnknownKey,
    /// A mode that the device does not have.
    UnknownMode,
    /// A count that is none, or out of range.
    InvalidCount,
    /// A container that the pod does not have.
    UnknownContainer,
    /// The namespace or service account may not ask for this.
    NotAllowed,
    /// The pod, or another ask, says something else where the grant needs its say.
    Conflict,
    /// The pod would start and not work, and a policy refuses that.
    Foreseen,
    /// The pod lacks what it would be granted: it came around the line, or was changed behind it.
    Bypassed,
    /// The pod asks for more than one answer can hold.
    TooLarge,
    /// The cluster's version does not know a field that the grant needs.
    UnsupportedVersion,
}

impl Reason {
    /// All reasons, in the order of their declaration.
    pub const ALL: [Self; 20] = [
        Self::Granted,
        Self::NotAsked,
        Self::Shadow,
        Self::Ignored,
        Self::NotPodCreation,
        Self::SystemNamespace,
        Self::OwnNamespace,
        Self::NotOptedIn,
        Self::MirrorPod,
        Self::WindowsPod,
        Self::UnknownKey,
        Self::UnknownMode,
        Self::InvalidCount,
        Self::UnknownContainer,
        Self::NotAllowed,
        Self::Conflict,
        Self::Foreseen,
        Self::Bypassed,
        Self::TooLarge,
        Self::UnsupportedVersion,
    ];

    /// The label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Granted => "Granted",
            Self::NotAsked => "NotAsked",
            Self::Shadow => "Shadow",
            Self::Ignored => "Ignored",
            Self::NotPodCreation => "NotPodCreation",
            Self::SystemNamespace => "SystemNamespace",
            Self::OwnNamespace => "OwnNamespace",
            Self::NotOptedIn => "NotOptedIn",
            Self::MirrorPod => "MirrorPod",
            Self::WindowsPod => "WindowsPod",
            Self::UnknownKey => "UnknownKey",
            Self::UnknownMode => "UnknownMode",
            Self::InvalidCount => "InvalidCount",
            Self::UnknownContainer => "UnknownContainer",
            Self::NotAllowed => "NotAllowed",
            Self::Conflict => "Conflict",
            Self::Foreseen => "Foreseen",
            Self::Bypassed => "Bypassed",
            Self::TooLarge => "TooLarge",
            Self::UnsupportedVersion => "UnsupportedVersion",
        }
    }
}

/// One thing that stands in the way of what a pod asks for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Objection {
    /// Why.
    pub reason: Reason,
    /// The sentence: what is wrong, where, and what to write instead.
    pub sentence: String,
    /// Where in the pod, a JSON Pointer; `None` for the annotation that the sentence names.
    pub path: Option<String>,
}

impl Objection {
    /// An objection.
    pub fn new(reason: Reason, sentence: impl Into<String>) -> Self {
        Self { reason, sentence: sentence.into(), path: None }
    }

    /// The same about a field of the pod.
    #[must_use]
    pub fn at(self, path: impl Into<String>) -> Self {
        Self { path: Some(path.into()), ..self }
    }
}

/// With the word that `devgrant explain` knows; the sentence of a finding begins with its code.
impl fmt::Display for Objection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.reason != Reason::Foreseen {
            write!(formatter, "{}: ", self.reason.as_str())?;
        }
        formatter.write_str(&self.sentence)
    }
}

/// Why a pod is refused: at least one objection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    first: Objection,
    others: Vec<Objection>,
}

impl Refusal {
    /// The most objections that one answer spells out.
    const MOST: usize = 20;

    /// A refusal for these objections; `None` if there are none. One that is made twice is said once.
    pub fn of(objections: Vec<Objection>) -> Option<Self> {
        let mut seen = BTreeSet::new();
        let mut distinct = objections;
        distinct.retain(|objection| seen.insert((objection.reason, objection.sentence.clone())));
        let mut distinct = distinct.into_iter();
        distinct.next().map(|first| Self { first, others: distinct.collect() })
    }

    /// The reason of the first objection.
    pub fn reason(&self) -> Reason {
        self.first.reason
    }

    /// The objections.
    pub fn objections(&self) -> impl Iterator<Item = &Objection> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// All objections in one line, for the person at `kubectl`.
    pub fn detail(&self) -> String {
        if self.others.is_empty() {
            return format!("devgrant: {}", self.first);
        }
        let count = 1 + self.others.len();
        let mut detail = format!("devgrant: {count} problems:");
        // Writing to a String does not fail.
        for (index, objection) in self.objections().take(Self::MOST).enumerate() {
            let _ = write!(detail, " ({}) {objection}", index + 1);
        }
        if count > Self::MOST {
            let _ = write!(detail, " … and {} more", count - Self::MOST);
        }
        detail
    }
}
