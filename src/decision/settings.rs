//! What an operator sets for the whole cluster, beside the policies.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::line::SYSTEM_NAMESPACE;
use super::namespace::Namespace;

/// Settings of the decision that are not part of any one policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The annotation prefix, a DNS subdomain without a slash: `devices.example`.
    pub prefix: String,
    /// Our own namespace. Its pods are never touched, or the webhook could block its own start.
    pub own_namespace: String,
    /// The version of the API server, which says what fields a pod may have.
    pub kubernetes_version: KubernetesVersion,
    /// What to do with a key under the prefix that no policy owns.
    pub on_invalid: OnInvalid,
}

impl Settings {
    /// The default annotation prefix.
    pub const PREFIX: &'static str = "devices.example";
    /// The default namespace of devgrant itself.
    pub const OWN_NAMESPACE: &'static str = "devgrant-system";
    /// The value of the namespace label that opts a namespace in.
    pub const OPTED_IN: &'static str = "enabled";

    /// Whether pods of a namespace are left alone, whatever they ask.
    pub fn never_touches(&self, namespace: &str) -> bool {
        namespace == SYSTEM_NAMESPACE || namespace == self.own_namespace
    }

    /// Whether a namespace takes part.
    pub fn opted_in(&self, namespace: &Namespace) -> bool {
        namespace.has_label(&self.opt_in_label(), Self::OPTED_IN)
    }

    /// The namespace label that opts a namespace in when its value is [`Self::OPTED_IN`].
    pub fn opt_in_label(&self) -> String {
        format!("{}/grant", self.prefix)
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            prefix: Self::PREFIX.to_owned(),
            own_namespace: Self::OWN_NAMESPACE.to_owned(),
            kubernetes_version: KubernetesVersion::default(),
            on_invalid: OnInvalid::default(),
        }
    }
}

/// What happens to an ask that cannot be granted as it is written.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, schemars::JsonSchema,
)]
pub enum OnInvalid {
    /// The pod is refused, with a sentence that says what to write instead.
    #[default]
    Deny,
    /// The ask is left out, and a warning says so.
    Warn,
}

/// The minor version of a Kubernetes 1.x API server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct KubernetesVersion {
    /// The number behind `1.`.
    pub minor: u16,
}

impl Default for KubernetesVersion {
    /// The newest version that the facts behind this code were read from.
    fn default() -> Self {
        Self { minor: 36 }
    }
}

impl fmt::Display for KubernetesVersion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "1.{}", self.minor)
    }
}

/// A Kubernetes version that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no Kubernetes version; write it as 1.NN, for example 1.36")]
pub struct BadKubernetesVersion(String);

impl FromStr for KubernetesVersion {
    type Err = BadKubernetesVersion;

    /// Reads `1.36`, `v1.36` and `v1.36.3+build`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || BadKubernetesVersion(text.to_owned());
        let rest = text.strip_prefix('v').unwrap_or(text);
        let rest = rest.strip_prefix("1.").ok_or_else(bad)?;
        let digits = rest.split_once('.').map_or(rest, |(minor, _)| minor);
        let digits = digits.strip_suffix('+').unwrap_or(digits);
        digits.parse().map(|minor| Self { minor }).map_err(|_| bad())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_versions_as_kubectl_prints_them() {
        for (text, minor) in [("1.29", 29), ("v1.36.3", 36), ("1.31+", 31), ("v1.30.2-eks", 30)] {
            assert_eq!(text.parse(), Ok(KubernetesVersion { minor }), "{text}");
        }
        for text in ["", "1", "2.3", "1.x", "latest"] {
            assert!(text.parse::<KubernetesVersion>().is_err(), "{text}");
        }
    }
}
