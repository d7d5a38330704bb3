//! What every review needs, shared by all of them.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::body::Memory;
use super::limits::Limits;
use super::namespaces::Namespaces;
use super::policies::LivePolicies;
use crate::cluster;
use crate::metrics::Metrics;
use crate::traces::Traces;

/// What every review needs.
#[derive(Debug)]
pub struct Context {
    pub(super) policies: Arc<LivePolicies>,
    pub(super) namespaces: Namespaces,
    /// What nodes offer, where they are watched.
    pub(super) nodes: Option<Arc<cluster::Nodes>>,
    pub(super) metrics: Arc<Metrics>,
    /// What makes spans, where somebody wants some.
    pub(super) traces: Option<Arc<Traces>>,
    pub(super) limits: Limits,
    /// Permits to decide.
    pub(super) in_flight: Arc<Semaphore>,
    /// Permits to decide what is larger than ordinary, beside the others.
    pub(super) large: Arc<Semaphore>,
    /// What bodies may take together.
    pub(super) memory: Memory,
}

/// How many large reviews are decided at once: what one is read into may take 20 MiB, which the
/// limit of the container's memory has to hold.
const LARGE: usize = 2;

impl Context {
    /// A context with nothing in flight.
    pub fn new(
        policies: Arc<LivePolicies>,
        namespaces: Namespaces,
        metrics: Arc<Metrics>,
        limits: Limits,
    ) -> Self {
        let in_flight = Arc::new(Semaphore::new(limits.in_flight.min(Semaphore::MAX_PERMITS)));
        let memory = Memory::new(limits.in_flight.saturating_mul(limits.body_bytes));
        Self {
            policies,
            namespaces,
            nodes: None,
            metrics,
            traces: None,
            limits,
            in_flight,
            large: Arc::new(Semaphore::new(LARGE)),
            memory,
        }
    }

    /// The same, with what nodes offer for `/advise` to speak of.
    #[must_use]
    pub fn with_nodes(self, nodes: Option<Arc<cluster::Nodes>>) -> Self {
        Self { nodes, ..self }
    }

    /// The same, with a span for each review that is sampled.
    #[must_use]
    pub fn with_traces(self, traces: Option<Arc<Traces>>) -> Self {
        Self { traces, ..self }
    }
}
