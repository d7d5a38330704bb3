//! What is known of the namespace that a pod is for.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::cluster;
use crate::decision::Namespace;

/// The label by which the API server names every namespace (`kubernetes pkg/apis/core/v1/defaults.go`,
/// `SetDefaults_Namespace`).
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// Where namespaces come from. Finding one never waits for Kubernetes.
#[derive(Debug, Clone)]
pub enum Namespaces {
    /// Without a cluster: every namespace has the same labels, beside the one of its name.
    Fixed {
        /// The labels.
        labels: BTreeMap<String, String>,
    },
    /// Those of a cluster, as a watch tells of them.
    Watched(Arc<cluster::Namespaces>),
}

impl Namespaces {
    /// The namespace of this name, if it is known.
    pub(super) fn find(&self, name: &str) -> Option<Arc<Namespace>> {
        match self {
            Self::Fixed { labels } => {
                let mut labels = labels.clone();
                labels.entry(NAME_LABEL.to_owned()).or_insert_with(|| name.to_owned());
                Some(Arc::new(Namespace { name: name.to_owned(), labels }))
            }
            Self::Watched(namespaces) => namespaces.find(name),
        }
    }

    /// Asks the cluster for a namespace that is not known. Whether it is known now.
    pub(super) async fn look(&self, name: &str) -> bool {
        match self {
            Self::Fixed { .. } => false,
            Self::Watched(namespaces) => namespaces.look(name).await,
        }
    }

    /// Why no review should come yet, if none should.
    pub(super) fn problem(&self) -> Option<&'static str> {
        match self {
            Self::Watched(namespaces) if !namespaces.listed() => {
                Some("the API server has not listed them yet; the log says why")
            }
            _ => None,
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
