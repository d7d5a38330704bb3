//! What is counted of the talk with a cluster.

use std::time::SystemTime;

use prometheus::{IntCounterVec, IntGauge, IntGaugeVec};

use super::catalog::{Catalog, Label};
use super::{BadMetric, Reload, unix_seconds};

/// The metrics of a server in a cluster; at zero without one.
#[derive(Debug)]
pub struct ClusterMetrics {
    watch_synced: IntGaugeVec,
    watch_errors: IntCounterVec,
    /// Absent until there was one.
    watch_contact: IntGaugeVec,
    namespace_reads: IntCounterVec,
    lease_held: IntGauge,
    /// Without labels, and so absent until it is known: nothing is what it is without a cluster.
    authority_not_after: IntGaugeVec,
    authority_reloads: IntCounterVec,
    /// Absent until it is known, as well.
    bundle_in_force: IntGaugeVec,
    bundle_applies: IntCounterVec,
    registration_outdated: IntGauge,
}

/// How the live read of a namespace ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NamespaceRead {
    /// The API server did not say.
    Failed,
    /// It is there.
    Found,
    /// There is none of that name.
    Missing,
}

/// How writing the `caBundle` of a registration ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BundleApply {
    /// It is written.
    Applied,
    /// Another field manager owns the field, with another value.
    Conflict,
    /// The API server did not take it.
    Failed,
}

impl ClusterMetrics {
    pub(super) fn new(all: &mut Catalog) -> Result<Self, BadMetric> {
        let resource = || Label::closed("resource", RESOURCES);
        Ok(Self {
            watch_synced: all.gauges(
                "watch_synced",
                "Whether the first list of a watch is there",
                &[resource()],
            )?,
            watch_errors: all.counters(
                "watch_errors_total",
                "Watches that broke; the last state was kept",
                &[resource()],
            )?,
            watch_contact: all.gauges(
                "watch_contact_seconds",
                "When the API server last answered a watch well, which it does every five minutes, in Unix time",
                &[resource()],
            )?,
            namespace_reads: all.counters(
                "namespace_reads_total",
                "Namespaces read from the API server since the watch had not told of them",
                &[Label::closed("result", NamespaceRead::ALL.map(NamespaceRead::as_str))],
            )?,
            lease_held: all.gauge(
                "lease_held",
                "Whether this replica takes care of the certificates for all",
            )?,
            authority_not_after: all.gauges(
                "authority_not_after_seconds",
                "Until when the shared authority that signs is valid, in Unix time",
                &[],
            )?,
            authority_reloads: all.counters(
                "authority_reload_total",
                "Changed authorities that were read from the Secret",
                &[Label::closed("result", Reload::ALL.map(Reload::as_str))],
            )?,
            bundle_in_force: all.gauges(
                "ca_bundle_in_force",
                "Whether every registered webhook trusts the authorities of the Secret",
                &[],
            )?,
            bundle_applies: all.counters(
                "ca_bundle_apply_total",
                "Times that the caBundle of a registration was written",
                &[Label::closed("result", BundleApply::ALL.map(BundleApply::as_str))],
            )?,
            registration_outdated: all.gauge(
                "registration_outdated",
                "Whether the registered matchConditions are not what the policies need",
            )?,
        })
    }

    /// Says whether the first list of a watch is there. `resource` is fixed text of ours.
    pub fn watch_synced(&self, resource: &'static str, synced: bool) {
        self.watch_synced.with_label_values(&[resource]).set(i64::from(synced));
    }

    /// Counts a watch that broke. `resource` is fixed text of ours.
    pub fn watch_broke(&self, resource: &'static str) {
        self.watch_errors.with_label_values(&[resource]).inc();
    }

    /// Says that the API server just answered a watch well. `resource` is fixed text of ours.
    pub fn watch_answered(&self, resource: &'static str, now: SystemTime) {
        self.watch_contact.with_label_values(&[resource]).set(unix_seconds(now));
    }

    /// Counts the live read of a namespace.
    pub fn namespace_read(&self, result: NamespaceRead) {
        self.namespace_reads.with_label_values(&[result.as_str()]).inc();
    }

    /// Says whether this replica holds the Lease.
    pub fn lease(&self, held: bool) {
        self.lease_held.set(i64::from(held));
    }

    /// Says until when the authority that signs is valid.
    pub fn authority(&self, not_after: SystemTime) {
        self.authority_not_after.with_label_values(NO_LABELS).set(unix_seconds(not_after));
    }

    /// Counts a changed authority.
    pub fn authority_reload(&self, result: Reload) {
        self.authority_reloads.with_label_values(&[result.as_str()]).inc();
    }

    /// Says whether every registered webhook trusts our authorities.
    pub fn bundle(&self, in_force: bool) {
        self.bundle_in_force.with_label_values(NO_LABELS).set(i64::from(in_force));
    }

    /// Counts a `caBundle` that was written, or not.
    pub fn bundle_apply(&self, result: BundleApply) {
        self.bundle_applies.with_label_values(&[result.as_str()]).inc();
    }

    /// Says whether the registration must be applied again.
    pub fn registration_outdated(&self, outdated: bool) {
        self.registration_outdated.set(i64::from(outdated));
    }
}

impl NamespaceRead {
    const ALL: [Self; 3] = [Self::Failed, Self::Found, Self::Missing];

    fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Found => "found",
            Self::Missing => "missing",
        }
    }
}

impl BundleApply {
    const ALL: [Self; 3] = [Self::Applied, Self::Conflict, Self::Failed];

    fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Conflict => "conflict",
            Self::Failed => "failed",
        }
    }
}

/// What is watched.
const RESOURCES: [&str; 2] = ["namespaces", "nodes"];
const NO_LABELS: &[&str] = &[];
