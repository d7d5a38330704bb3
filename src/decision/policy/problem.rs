//! What is wrong with a policy file, and where.

use std::ops::Range;

/// How much a problem matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The set cannot be used.
    Error,
    /// The set can be used; something was read as another spelling than the one written.
    Note,
}

/// One problem in one policy file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// How much it matters.
    pub severity: Severity,
    /// The file, as it was named when it was given to [`super::PolicySet::compile`].
    pub file: String,
    /// The bytes of the file that the problem is about.
    pub span: Range<usize>,
    /// The sentence: what is wrong. Lower case, no full stop.
    pub message: String,
    /// A few words at the place itself; may be empty.
    pub label: String,
    /// What to write instead.
    pub help: Option<String>,
}
