//! What each reason means, for people: one data file, `reasons.yaml` beside this one, of which
//! `devgrant explain UnknownMode` and `docs/reasons.md` are made.

use std::sync::LazyLock;

use serde::Deserialize;

use super::Reason;

/// What is known of one reason.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Meaning {
    /// The reason.
    pub reason: Reason,
    /// What it is, in a few words.
    pub title: String,
    /// What it says of the pod, and what becomes of that.
    pub means: String,
    /// What to do.
    pub fix: String,
}

static MEANINGS: LazyLock<Vec<Meaning>> = LazyLock::new(|| {
    // The file is part of the program, and a test reads it.
    serde_saphyr::from_str(include_str!("reasons.yaml")).unwrap_or_default()
});

/// Those of all reasons, in order.
pub fn meanings() -> &'static [Meaning] {
    &MEANINGS
}

impl Reason {
    /// The reason of this name, in upper or lower case.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str().eq_ignore_ascii_case(text))
    }

    /// What it is, in a few words.
    pub fn title(self) -> &'static str {
        let meaning = meanings().iter().find(|meaning| meaning.reason == self);
        meaning.map_or("", |meaning| &meaning.title)
    }
}
