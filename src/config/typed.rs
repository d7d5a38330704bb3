//! What was typed: one shape for the file, the environment and the flags.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::decision::OnInvalid;

/// What was typed in one place, or in all of them together. Nothing here is checked beyond its shape;
/// [`super::Config`] is what it means.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Typed {
    /// Folders of policies. Absent: the shipped ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policies: Option<Vec<PathBuf>>,
    /// Whether a folder without policies is taken as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_empty_policies: Option<bool>,
    /// The annotation prefix.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// The namespace of devgrant itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub own_namespace: Option<String>,
    /// What to do with a key under the prefix that no policy owns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_invalid: Option<OnInvalid>,
    /// The version of the API server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubernetes_version: Option<String>,
    /// The namespace of pods that are read from files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The labels of that namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace_labels: Option<Labels>,
    /// The service account of pods that name none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_account: Option<String>,
    /// Who creates the pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The HTTPS address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<String>,
    /// The plain address of health and metrics.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<String>,
    /// No cluster, certificate in memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub standalone: Option<bool>,
    /// Where the own authority's certificate is written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_out: Option<PathBuf>,
    /// Further DNS names and addresses of the own certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub names: Option<Vec<String>>,
    /// A certificate chain in a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_cert: Option<PathBuf>,
    /// Its private key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_key: Option<PathBuf>,
    /// Whether the nodes are watched, to warn at a workload whose device none offers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub watch_nodes: Option<bool>,
    /// How log lines are written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_format: Option<LogFormat>,
    /// Which log lines are written, in the words of `tracing`: `info`, `devgrant=debug`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_level: Option<String>,
    /// The URL of the collector of traces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traces_endpoint: Option<String>,
    /// The share of reviews that have a span, of those without a `traceparent`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traces_sample: Option<String>,
    /// The longest TLS handshake.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handshake_timeout: Option<String>,
    /// The longest time for a request's head.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head_timeout: Option<String>,
    /// The longest time for a request's body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_timeout: Option<String>,
    /// How long a connection may be idle.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<String>,
    /// The largest body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_limit: Option<String>,
    /// The most connections at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<u32>,
    /// How old a connection may get.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_connection_age: Option<String>,
    /// The most requests at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_in_flight: Option<u32>,
    /// How long to go on serving after the first SIGTERM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shutdown_delay: Option<String>,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object a line.
    #[default]
    Json,
    /// For people.
    Text,
}

/// Labels, written `k=v,k=v`, in a file also as a mapping.
///
/// They are kept as one text on the way through the layers: two mappings would be united, and a flag
/// must replace what a file says, never add to it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels(pub BTreeMap<String, String>);

impl std::str::FromStr for Labels {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        parts
            .map(|part| match part.split_once('=') {
                Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
                _ => Err(format!("`{part}` is no label; write key=value, several with commas")),
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl Serialize for Labels {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let pairs: Vec<String> =
            self.0.iter().map(|(key, value)| format!("{key}={value}")).collect();
        serializer.serialize_str(&pairs.join(","))
    }
}

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Spelling;

        impl<'de> Visitor<'de> for Spelling {
            type Value = Labels;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("labels, as a mapping or as the text `k=v,k=v`")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Labels, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Labels, M::Error> {
                let mut labels = BTreeMap::new();
                while let Some((key, value)) = map.next_entry()? {
                    labels.insert(key, value);
                }
                Ok(Labels(labels))
            }
        }

        deserializer.deserialize_any(Spelling)
    }
}

/// How the text of a variable becomes a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// `true` or `false`.
    Switch,
    /// A whole number.
    Count,
    /// Entries with commas between them.
    List,
    /// As it is.
    Text,
}

/// Every key, in the order of [`Typed`], and how a variable spells its value.
pub(super) const KEYS: &[(&str, Form)] = &[
    ("policies", Form::List),
    ("allowEmptyPolicies", Form::Switch),
    ("prefix", Form::Text),
    ("ownNamespace", Form::Text),
    ("onInvalid", Form::Text),
    ("kubernetesVersion", Form::Text),
    ("namespace", Form::Text),
    ("namespaceLabels", Form::Text),
    ("serviceAccount", Form::Text),
    ("user", Form::Text),
    ("listen", Form::Text),
    ("health", Form::Text),
    ("standalone", Form::Switch),
    ("caOut", Form::Text),
    ("names", Form::List),
    ("tlsCert", Form::Text),
    ("tlsKey", Form::Text),
    ("watchNodes", Form::Switch),
    ("logFormat", Form::Text),
    ("logLevel", Form::Text),
    ("tracesEndpoint", Form::Text),
    ("tracesSample", Form::Text),
    ("handshakeTimeout", Form::Text),
    ("headTimeout", Form::Text),
    ("bodyTimeout", Form::Text),
    ("idleTimeout", Form::Text),
    ("bodyLimit", Form::Text),
    ("maxConnections", Form::Count),
    ("maxConnectionAge", Form::Text),
    ("maxInFlight", Form::Count),
    ("shutdownDelay", Form::Text),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_keys_is_the_struct() {
        let error = serde_json::from_str::<Typed>(r#"{"?": 1}"#).unwrap_err().to_string();
        let in_struct: Vec<&str> = error
            .split_once("expected one of ")
            .map(|(_, list)| list.split(" at line").next().unwrap_or(list))
            .unwrap()
            .split(", ")
            .map(|name| name.trim_matches('`'))
            .collect();
        let in_table: Vec<&str> = KEYS.iter().map(|(key, _)| *key).collect();
        assert_eq!(in_table, in_struct);
    }

    #[test]
    fn labels_are_read_in_both_spellings() {
        let text: Labels = serde_json::from_str(r#""a=b, c/d=""#).unwrap();
        let map: Labels = serde_json::from_str(r#"{"a": "b", "c/d": ""}"#).unwrap();
        assert_eq!(text, map);
        assert!("a".parse::<Labels>().is_err());
        assert!("=b".parse::<Labels>().is_err());
    }
}
