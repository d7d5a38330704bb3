//! What every review needs, shared by all of them.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::limits::Limits;
use super::namespaces::Namespaces;
use super::policies::LivePolicies;
use crate::metrics::Metrics;

/// What every review needs.
#[derive(Debug)]
pub struct Context {
    pub(super) policies: Arc<LivePolicies>,
    pub(super) namespaces: Namespaces,
    pub(super) metrics: Arc<Metrics>,
    pub(super) limits: Limits,
    pub(super) in_flight: Semaphore,
}

impl Context {
    /// A context with nothing in flight.
    pub fn new(
        policies: Arc<LivePolicies>,
        namespaces: Namespaces,
        metrics: Arc<Metrics>,
        limits: Limits,
    ) -> Self {
        let in_flight = Semaphore::new(limits.in_flight.min(Semaphore::MAX_PERMITS));
        Self { policies, namespaces, metrics, limits, in_flight }
    }
}
