//! What an operator set: defaults, then the file, then the environment, then flags.
//!
//! Two types, two steps. [`Typed`] is what was typed, in one shape for all places; figment lays the
//! places over each other. [`Config`] is what is meant: one conversion checks everything that can be
//! checked without looking at the world, and an error names the place that the value came from.

mod merged;
mod sources;
mod typed;
mod units;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::decision::Settings;
use crate::policies::Location;
pub use crate::server::Limits;
use crate::telemetry::Level;
use crate::traces;

pub use merged::Merged;
pub use sources::{Origin, Sources, SourcesError};
pub use typed::{Labels, LogFormat, Typed};

/// What is meant.
#[derive(Debug, Clone)]
pub struct Config {
    /// The settings of the decision.
    pub settings: Settings,
    /// Where policies are read from.
    pub policies: Location,
    /// What the command line assumes about pods in files.
    pub assumed: Assumed,
    /// The server.
    pub server: ServerConfig,
    /// Log lines.
    pub log: LogConfig,
    /// Traces, where they are wanted.
    pub traces: Option<traces::Settings>,
}

/// What is assumed about a pod in a file, since no API server says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assumed {
    /// The namespace, whatever the file says.
    pub namespace: Option<String>,
    /// The labels of the namespace.
    pub namespace_labels: BTreeMap<String, String>,
    /// The service account of a pod that names none.
    pub service_account: Option<String>,
    /// Who creates the pod.
    pub user: Option<String>,
}

/// The server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerConfig {
    /// The HTTPS address.
    pub listen: SocketAddr,
    /// The plain address of health and metrics.
    pub health: SocketAddr,
    /// Whether there is no cluster.
    pub standalone: bool,
    /// Whether the nodes are watched.
    pub watch_nodes: bool,
    /// Where the certificate comes from.
    pub certificate: CertificateSource,
    /// The limits of connections and requests.
    pub limits: Limits,
}

/// Where the certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CertificateSource {
    /// Files that somebody else renews.
    Files {
        /// The chain.
        certificate: PathBuf,
        /// The private key.
        key: PathBuf,
    },
    /// The own authority.
    Own {
        /// Further DNS names and addresses of the leaf.
        names: Vec<String>,
        /// Where the authority's certificate is written.
        ca_out: Option<PathBuf>,
    },
}

/// Log lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// How they are written.
    pub format: LogFormat,
    /// Which are written.
    pub level: Level,
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or a variable cannot be read.
    #[error(transparent)]
    Sources(#[from] SourcesError),
    /// A value does not mean anything.
    #[error("{place}: {problem}")]
    Value {
        /// The flag, the variable, or the file and key.
        place: String,
        /// What is wrong with it, and what to write.
        problem: String,
    },
}

#[cfg(test)]
mod tests;
