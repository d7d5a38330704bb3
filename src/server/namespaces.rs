//! What is known of the namespace that a pod is for.

use std::collections::BTreeMap;

use crate::decision::Namespace;

/// Where namespaces come from. Finding one never waits for Kubernetes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Namespaces {
    /// Without a cluster: every namespace has the same labels.
    Fixed {
        /// The labels.
        labels: BTreeMap<String, String>,
    },
}

impl Namespaces {
    /// The namespace of this name, if it is known.
    #[expect(
        clippy::unnecessary_wraps,
        reason = "a source that watches a cluster does not know every namespace"
    )]
    pub(super) fn find(&self, name: &str) -> Option<Namespace> {
        match self {
            Self::Fixed { labels } => {
                Some(Namespace { name: name.to_owned(), labels: labels.clone() })
            }
        }
    }
}
