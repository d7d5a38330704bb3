//! Names that no decision gives, for people: one data file, `words.yaml` beside this one, of which
//! `devgrant explain Deadline`, the rules in SARIF and `docs/reasons.md` are made.

use std::sync::LazyLock;

use serde::Deserialize;

/// What is known of one name.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Word {
    /// The name.
    pub name: String,
    /// Who says it.
    pub of: Speaker,
    /// What it is, in a few words.
    pub title: String,
    /// What it says, and what becomes of that.
    pub means: String,
    /// What to do.
    pub fix: String,
}

/// Who says a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Speaker {
    /// `devgrant lint`, as a rule.
    Lint,
    /// The server, as the reason of a review that got no verdict.
    Server,
}

static WORDS: LazyLock<Vec<Word>> = LazyLock::new(|| {
    // The file is part of the program, and a test reads it.
    serde_saphyr::from_str(include_str!("words.yaml")).unwrap_or_default()
});

/// All of them, in order.
pub fn words() -> &'static [Word] {
    &WORDS
}

/// That of a name, in upper or lower case.
pub fn find(name: &str) -> Option<&'static Word> {
    words().iter().find(|word| word.name.eq_ignore_ascii_case(name))
}
