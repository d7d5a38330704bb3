//! What every review needs, shared by all of them.

use std::sync::Arc;

use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

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
    /// To mutate and to validate.
    pub(super) deciding: Permits,
    /// To advise.
    pub(super) advising: Permits,
    /// What bodies may take together.
    pub(super) memory: Memory,
}

/// Permits for so many reviews at once.
#[derive(Debug)]
pub(super) struct Permits {
    pub(super) all: Arc<Semaphore>,
    /// Those of reviews that are larger than ordinary, beside the others.
    large: Arc<Semaphore>,
}

impl Permits {
    fn new(all: usize, large: usize) -> Self {
        let permits = |most: usize| Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)));
        Self { all: permits(all), large: permits(large) }
    }

    /// Waits for what one review needs, which is freed when it is dropped.
    pub(super) async fn acquire(
        &self,
        large: bool,
    ) -> Result<[Option<OwnedSemaphorePermit>; 2], AcquireError> {
        // First that of the few, so that those who wait for it keep none from the many.
        let few = Arc::clone(&self.large).acquire_owned();
        let few = if large { Some(few.await?) } else { None };
        Ok([few, Some(Arc::clone(&self.all).acquire_owned().await?)])
    }
}

/// How many large reviews are decided at once: what one is read into may take 20 MiB, which the
/// limit of the container's memory has to hold.
const LARGE: usize = 2;
/// How many of them are advised.
const LARGE_ADVISED: usize = 1;

impl Context {
    /// A context with nothing in flight.
    pub fn new(
        policies: Arc<LivePolicies>,
        namespaces: Namespaces,
        metrics: Arc<Metrics>,
        limits: Limits,
    ) -> Self {
        let deciding = Permits::new(limits.in_flight, LARGE);
        let advising = Permits::new(Limits::share(limits.in_flight), LARGE_ADVISED);
        let memory = Memory::new(limits.in_flight.saturating_mul(limits.body_bytes));
        Self {
            policies,
            namespaces,
            nodes: None,
            metrics,
            traces: None,
            limits,
            deciding,
            advising,
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
