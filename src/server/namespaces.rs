//! What is known of the namespace that a pod is for.

use std::collections::BTreeMap;

use crate::decision::Namespace;

/// The label by which the API server names every namespace (`kubernetes pkg/apis/core/v1/defaults.go`,
/// `SetDefaults_Namespace`).
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// Where namespaces come from. Finding one never waits for Kubernetes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Namespaces {
    /// Without a cluster: every namespace has the same labels, beside the one of its name.
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
                let mut labels = labels.clone();
                labels.entry(NAME_LABEL.to_owned()).or_insert_with(|| name.to_owned());
                Some(Namespace { name: name.to_owned(), labels })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_namespace_has_the_label_of_its_name() {
        let label = |given: &[(&str, &str)]| {
            let labels = given.iter().map(|(key, value)| ((*key).into(), (*value).into()));
            let found = Namespaces::Fixed { labels: labels.collect() }.find("data").unwrap();
            found.labels[NAME_LABEL].clone()
        };
        assert_eq!(label(&[]), "data");
        assert_eq!(label(&[(NAME_LABEL, "given")]), "given");
    }
}
