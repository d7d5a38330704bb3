//! What is to be said of what should hold pods and cannot be read.

use serde_json::Value;

use super::fields;
use super::{Rule, Said};
use crate::decision::finding::Severity;
use crate::decision::workload::{NoPod, Unread};

/// What is to be said, and where in the document; `None` of what is no manifest at all, or may be a part
/// of one.
pub(super) fn said(document: &Value, unread: &Unread) -> Option<(String, Said)> {
    let at = unread.at.as_str();
    let sentence = format!("the document {unread}");
    let (at, rule, message, remedy) = match &unread.problem {
        NoPod::Missing { kind, pointer } => {
            let object = document.pointer(at)?;
            match fields::misspelt(object, pointer) {
                Some(found) => {
                    let message = format!(
                        "`{}` is no field here, and `{}` is missing: the API server refuses the {kind}",
                        found.shown, found.meant
                    );
                    let remedy = format!("did you mean `{}`?", found.meant);
                    (format!("{at}{}", found.path), Rule::UnknownField, message, Some(remedy))
                }
                // A patch of a Deployment has none.
                None if unread.is_document() => return None,
                None => (at.to_owned(), Rule::UnreadablePod, sentence, None),
            }
        }
        NoPod::Wrong { pointer, .. } => {
            (format!("{at}{pointer}"), Rule::UnreadablePod, sentence, None)
        }
        NoPod::NotObject(_) | NoPod::NoKind if unread.is_document() => return None,
        NoPod::NotObject(_) | NoPod::NoKind => {
            let remedy = "take it out, or write the object".to_owned();
            (at.to_owned(), Rule::UnreadablePod, sentence, Some(remedy))
        }
    };
    let said = Said {
        rule,
        severity: Severity::Error,
        message,
        remedy,
        refuses: false,
        path: String::new(),
        key: rule == Rule::UnknownField,
    };
    Some((at, said))
}
