//! finding: what would start and not work, each by a stable code.
//!
//! One data file, `findings.yaml` beside this one, holds what is said of each code: the sentence and
//! the remedy with places for a pod's own words, and the long text that `devgrant explain DG001` and
//! the pages under `docs/findings` show.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::LazyLock;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::spelling::excerpt;

/// What a finding is about. A code never changes its meaning, and is never used again.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, JsonSchema,
)]
pub enum Code {
    /// A capability for a user that is not root, who may not gain it.
    DG001,
    /// A capability for a user that is not root.
    DG002,
    /// FUSE without a capability, where seccomp denies user namespaces.
    DG003,
    /// A mount that the default AppArmor profile denies.
    DG004,
    /// Pod Security refuses the pod.
    DG005,
    /// Pod Security warns of the pod, or audits it.
    DG006,
    /// A capability that is spelled with `CAP_`.
    DG007,
    /// A device in a user namespace.
    DG008,
    /// A pod that the scheduler does not place.
    DG009,
    /// A CDI annotation of the pod.
    DG010,
    /// A GPU in gVisor.
    DG011,
    /// Requests and limits of a device that differ.
    DG012,
    /// A device of which there are none.
    DG013,
    /// An ephemeral container.
    DG014,
    /// GPUs by environment.
    DG015,
    /// An unmasked `/proc` without a user namespace.
    DG016,
    /// A device by hostPath, unprivileged.
    DG017,
    /// A container that is privileged anyway.
    DG018,
    /// A mount path with an option behind a colon.
    DG019,
    /// A shared mount in a container that is not privileged.
    DG020,
    /// The old shape, replaced by the grant.
    DG021,
    /// The old shape, which stays.
    DG022,
    /// The old shape, which a policy refuses.
    DG023,
    /// The old shape, of which nobody asked to be rid.
    DG024,
    /// A privileged container that seems to mount by FUSE.
    DG025,
    /// An annotation of a pod that exists already.
    DG026,
    /// A device in a resize.
    DG027,
    /// A number of devices by hand that is another one than the grant's.
    DG028,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
pub enum Severity {
    /// It will not work.
    Error,
    /// It works only if something else holds.
    Warning,
    /// Worth knowing.
    Info,
}

/// What becomes of a pod with a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum Effect {
    /// It is refused.
    Deny,
    /// The finding is a warning.
    Warn,
    /// Nothing is said.
    Ignore,
}

/// What is known of one code.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Entry {
    /// The code.
    pub code: Code,
    /// A name in words, for headings.
    pub title: String,
    /// How bad it is.
    pub severity: Severity,
    /// What becomes of the pod unless a policy says otherwise in `conflicts`.
    pub effect: Effect,
    /// One sentence, with `{places}` for the pod's own words.
    pub sentence: String,
    /// What to do, in a few words, with the same places.
    pub remedy: String,
    /// Why it is so, with the source of the fact.
    pub why: String,
    /// How it shows at run time: the errno, and the text that a program prints.
    pub shows: String,
    /// What to do, at length.
    pub fix: String,
}

static ENTRIES: LazyLock<Vec<Entry>> = LazyLock::new(|| {
    // The file is part of the program, and a test reads it.
    serde_saphyr::from_str(include_str!("findings.yaml")).unwrap_or_default()
});

impl Code {
    /// The code as people write it.
    pub fn as_str(self) -> String {
        format!("{self:?}")
    }

    /// The code of this name, in upper or lower case.
    pub fn parse(text: &str) -> Option<Self> {
        let wanted = text.to_ascii_uppercase();
        entries().iter().map(|entry| entry.code).find(|code| code.as_str() == wanted)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{self:?}")
    }
}

/// All codes, in order.
pub fn entries() -> &'static [Entry] {
    &ENTRIES
}

/// Places that are filled with our words, not with the pod's.
const OUR_WORDS: &[&str] = &["ask", "change", "check", "instead", "modes", "why"];

/// One finding in one pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What it is about.
    pub code: Code,
    /// Where in the pod, a JSON Pointer.
    pub path: String,
    places: BTreeMap<&'static str, String>,
}

impl Finding {
    /// A finding, with the pod's own words for the places of its sentence.
    pub fn new<const N: usize>(
        code: Code,
        path: impl Into<String>,
        places: [(&'static str, &str); N],
    ) -> Self {
        let places = places.into_iter().map(|(name, word)| {
            // Ours are sentences, in which the pod's own words are cut already.
            let is_ours = OUR_WORDS.contains(&name);
            (name, if is_ours { word.to_owned() } else { excerpt(word) })
        });
        let places = places.collect();
        Self { code, path: path.into(), places }
    }

    /// The word at a place of its sentence.
    pub fn word(&self, place: &str) -> Option<&str> {
        self.places.get(place).map(String::as_str)
    }

    /// What is known of its code.
    pub fn entry(&self) -> Option<&'static Entry> {
        entries().iter().find(|entry| entry.code == self.code)
    }

    /// How bad it is.
    pub fn severity(&self) -> Severity {
        self.entry().map_or(Severity::Warning, |entry| entry.severity)
    }

    /// What becomes of the pod, if no policy says otherwise.
    pub fn effect(&self) -> Effect {
        self.entry().map_or(Effect::Warn, |entry| entry.effect)
    }

    /// What is wrong.
    pub fn sentence(&self) -> String {
        self.filled(self.entry().map_or("", |entry| &entry.sentence))
    }

    /// What to do.
    pub fn remedy(&self) -> String {
        self.filled(self.entry().map_or("", |entry| &entry.remedy))
    }

    fn filled(&self, template: &str) -> String {
        let mut text = template.trim().to_owned();
        for (name, word) in &self.places {
            text = text.replace(&format!("{{{name}}}"), word);
        }
        text
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}; {}", self.code, self.sentence(), self.remedy())
    }
}
