//! The policy set in force, and how a better one gets there.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::decision::PolicySet;
use crate::metrics::{Metrics, Reload};

/// The policy set in force: one pointer, which every review takes once.
///
/// Whoever watches the policy files ([`Watch`](crate::policies::watch::Watch)) calls
/// [`replace`](Self::replace) or [`refuse`](Self::refuse); a set that does not compile changes nothing
/// but what `/readyz?verbose` says.
#[derive(Debug)]
pub struct LivePolicies {
    current: ArcSwap<PolicySet>,
    refused: watch::Sender<Option<Arc<String>>>,
    metrics: Arc<Metrics>,
}

impl LivePolicies {
    /// Puts the first set in force.
    pub fn new(first: PolicySet, metrics: Arc<Metrics>) -> Self {
        metrics.policy(first.digest());
        let refused = watch::Sender::new(None);
        Self { current: ArcSwap::from_pointee(first), refused, metrics }
    }

    /// The set in force.
    pub fn current(&self) -> Arc<PolicySet> {
        self.current.load_full()
    }

    /// Puts another set in force.
    pub fn replace(&self, new: PolicySet) {
        let digest = new.digest().to_owned();
        self.current.store(Arc::new(new));
        self.refused.send_if_modified(|refused| refused.take().is_some());
        self.metrics.policy(&digest);
        self.metrics.policy_reload(Reload::Swapped);
        tracing::info!(digest, "policies replaced");
    }

    /// Keeps the set in force, since the new one is bad; `problem` says why, best in one line.
    pub fn refuse(&self, problem: String) {
        self.metrics.policy_reload(Reload::Kept);
        tracing::error!(problem, digest = self.current().digest(), "policies kept");
        self.refused.send_replace(Some(Arc::new(problem)));
    }

    /// What was wrong with the last set that was refused, if it was the last to come.
    pub fn refused(&self) -> Option<Arc<String>> {
        self.refused.borrow().clone()
    }

    /// The same for whoever waits for it, to tell others: it changes when a set is refused, and when the
    /// next one is not.
    pub fn refusals(&self) -> watch::Receiver<Option<Arc<String>>> {
        self.refused.subscribe()
    }
}
