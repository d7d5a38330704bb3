//! What is counted. The only place that names the metrics library.
//!
//! Label values come from enums of ours or from the names in policies, never from a pod: whoever
//! writes pods could otherwise make as many time series as they like.

mod catalog;
mod cluster;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, TextEncoder};

use crate::decision::{Admission, Reason};
use catalog::Catalog;
pub use catalog::{Declared, Kind, Label, Values};
pub use cluster::{BundleApply, ClusterMetrics, NamespaceRead};

/// The buckets of the duration of an admission, in seconds.
///
/// A review of usual size costs 30 µs with its HTTP, so the finest bucket is 50 µs: a slower line
/// shows as a shift out of it. Three steps a decade follow, which is enough to see p99 move. At the
/// top, 5 s: half of the API server's default timeout, beyond which operators see refused pods anyway.
const SECONDS: [f64; 16] = [
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
    1.0, 2.5, 5.0,
];

/// The `verdict` label: of what was decided, and of what was not, by who must act.
pub const VERDICTS: [&str; 4] = ["admit", "refuse", "undecided", "unanswerable"];
/// The `reason` label of reviews that got no verdict. Those that were turned away have their own counter.
pub const FAILURES: [&str; 8] = [
    // A reason of refusals as well.
    "TooLarge",
    "BrokenBody",
    "Bug",
    "Deadline",
    "SlowBody",
    "Unanswerable",
    "Undecided",
    "WrongType",
];

/// All metrics of one server.
#[derive(Debug)]
pub struct Metrics {
    catalog: Catalog,
    admissions: IntCounterVec,
    admission_duration: Histogram,
    in_flight: IntGauge,
    shed: IntCounter,
    connections: IntGauge,
    connections_refused: IntCounter,
    policy_reloads: IntCounterVec,
    policy_refused: IntGauge,
    policy_info: IntGaugeVec,
    certificate_not_after: IntGauge,
    certificate_reloads: IntCounterVec,
    panics: IntCounter,
    trace_spans_dropped: IntCounter,
    cluster: ClusterMetrics,
}

/// A metric is defined twice or wrongly. Ours to mend: no input leads here.
#[derive(Debug, thiserror::Error)]
#[error("the metrics do not fit together: {0}")]
pub struct BadMetric(#[from] prometheus::Error);

/// The HTTPS path that a review came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// `POST /advise`.
    Advise,
    /// `POST /mutate`.
    Mutate,
    /// `POST /validate`.
    Validate,
}

/// How trying to take a new certificate or policy set ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reload {
    /// The new one is bad; the last good one stays.
    Kept,
    /// The new one is in force.
    Swapped,
}

impl Metrics {
    /// All metrics, at zero.
    pub fn new() -> Result<Self, BadMetric> {
        let mut all = Catalog::new();
        let version = Label::open("version", "the version of this program");
        let build_info = all.gauges("build_info", "What runs here", &[version])?;
        build_info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let reasons = Reason::ALL.map(Reason::as_str).into_iter();
        let reload = || Label::closed("result", Reload::ALL.map(Reload::as_str));
        Ok(Self {
            admissions: all.counters(
                "admissions_total",
                "Reviews answered; one for each device of a grant",
                &[
                    Label::closed("endpoint", Endpoint::ALL.map(Endpoint::as_str)),
                    Label::closed("verdict", VERDICTS),
                    Label::closed("reason", reasons.chain(FAILURES.into_iter().skip(1))),
                    Label::open("device", "a device of the policies; empty without a grant"),
                    Label::open("mode", "its mode; empty without a grant"),
                ],
            )?,
            admission_duration: all.histogram(
                "admission_duration_seconds",
                "From the head of a review to its answer, the reading of its body included",
                &SECONDS,
            )?,
            in_flight: all.gauge("requests_in_flight", "Reviews that are being read or decided")?,
            shed: all.counter(
                "requests_shed_total",
                "Reviews answered 429 (Busy) since too many were decided or too many bytes arriving; \
                 not among the admissions",
            )?,
            connections: all.gauge("connections", "Open connections of the HTTPS port")?,
            connections_refused: all.counter(
                "connections_refused_total",
                "Connections of either port closed at once since their peer had its share",
            )?,
            policy_reloads: all.counters(
                "policy_reload_total",
                "Changed policy sets that were read again",
                &[reload()],
            )?,
            policy_refused: all.gauge(
                "policy_refused",
                "Whether the policy set that came last was refused, and an older one decides",
            )?,
            policy_info: all.gauges(
                "policy_info",
                "The policy set in force",
                &[Label::open("digest", "what the policies mean, hashed")],
            )?,
            certificate_not_after: all.gauge(
                "certificate_not_after_seconds",
                "Until when the certificate in force is valid, in Unix time; 0 without one",
            )?,
            certificate_reloads: all.counters(
                "certificate_reload_total",
                "Changed certificates that were read or made again",
                &[reload()],
            )?,
            panics: all.counter("panics_total", "Panics that were caught")?,
            trace_spans_dropped: all.counter(
                "trace_spans_dropped_total",
                "Spans that had no place in the queue or that the collector refused",
            )?,
            cluster: ClusterMetrics::new(&mut all)?,
            catalog: all,
        })
    }

    /// Counts a verdict: one for each device, or one without device if there is none.
    pub fn admitted(&self, endpoint: Endpoint, admission: &Admission, took: Duration) {
        let verdict = if admission.allowed { "admit" } else { "refuse" };
        let reason = admission.reason.as_str();
        let count = |device: &str, mode: &str| {
            self.admissions
                .with_label_values(&[endpoint.as_str(), verdict, reason, device, mode])
                .inc();
        };
        if admission.devices.is_empty() {
            count("", "");
        }
        for granted in &admission.devices {
            count(&granted.device, &granted.mode);
        }
        self.admission_duration.observe(took.as_secs_f64());
    }

    /// Counts a review that got no verdict. `verdict` and `reason` are fixed text of ours.
    pub fn failed(
        &self,
        endpoint: Endpoint,
        verdict: &'static str,
        reason: &'static str,
        took: Duration,
    ) {
        self.admissions.with_label_values(&[endpoint.as_str(), verdict, reason, "", ""]).inc();
        self.admission_duration.observe(took.as_secs_f64());
    }

    /// Counts a review that was turned away since too much was asked of us at once.
    pub fn shed(&self) {
        self.shed.inc();
    }

    /// Counts a panic that was caught.
    pub fn panicked(&self) {
        self.panics.inc();
    }

    /// Counts spans that will never be at the collector.
    pub fn spans_dropped(&self, spans: u64) {
        self.trace_spans_dropped.inc_by(spans);
    }

    /// A review is in flight until what is returned is dropped.
    pub fn in_flight(&self) -> Count {
        Count::up(&self.in_flight)
    }

    /// A connection is open until what is returned is dropped.
    pub fn connection(&self) -> Count {
        Count::up(&self.connections)
    }

    /// Counts a connection that was closed at once since its peer had its share.
    pub fn connection_refused(&self) {
        self.connections_refused.inc();
    }

    /// Says which policy set is in force.
    pub fn policy(&self, digest: &str) {
        self.policy_info.reset();
        self.policy_info.with_label_values(&[digest]).set(1);
    }

    /// Counts a changed policy set.
    pub fn policy_reload(&self, result: Reload) {
        self.policy_reloads.with_label_values(&[result.as_str()]).inc();
        self.policy_refused.set(i64::from(result == Reload::Kept));
    }

    /// Says until when the certificate in force is valid.
    pub fn certificate(&self, not_after: SystemTime) {
        self.certificate_not_after.set(unix_seconds(not_after));
    }

    /// Counts a changed certificate.
    pub fn certificate_reload(&self, result: Reload) {
        self.certificate_reloads.with_label_values(&[result.as_str()]).inc();
    }

    /// What is counted of the talk with a cluster.
    pub fn cluster(&self) -> &ClusterMetrics {
        &self.cluster
    }

    /// Everything in Prometheus' text format. Should one metric not be writable, the page says so
    /// and has none of it, rather than the scrape failing for reasons that nobody sees.
    pub fn text(&self) -> String {
        TextEncoder::new()
            .encode_to_string(&self.catalog.registry.gather())
            .unwrap_or_else(|error| format!("# {error}\n"))
    }

    /// Every metric there is, in the order of its declaration, also those that [`text`](Self::text) does
    /// not have yet.
    pub fn declared(&self) -> &[Declared] {
        &self.catalog.declared
    }

    /// The content type of [`text`](Self::text).
    pub const CONTENT_TYPE: &'static str = prometheus::TEXT_FORMAT;
}

impl Endpoint {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Advise, Self::Mutate, Self::Validate];

    /// The label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Advise => "advise",
            Self::Mutate => "mutate",
            Self::Validate => "validate",
        }
    }
}

impl Reload {
    /// Both of them.
    pub const ALL: [Self; 2] = [Self::Kept, Self::Swapped];

    /// The label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Swapped => "swapped",
        }
    }
}

/// One more of something, until it is dropped.
#[derive(Debug)]
pub struct Count(IntGauge);

impl Count {
    fn up(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn unix_seconds(time: SystemTime) -> i64 {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    i64::try_from(seconds).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_the_names_that_dashboards_use() {
        let metrics = Metrics::new().unwrap();
        for name in ["devgrant_authority_not_after_seconds", "devgrant_ca_bundle_in_force"] {
            assert!(!metrics.text().contains(name), "{name} is not known yet");
        }
        metrics.failed(Endpoint::Mutate, "unanswerable", "TooLarge", Duration::from_micros(70));
        metrics.policy("sha256:old");
        metrics.policy("sha256:new");
        metrics.policy_reload(Reload::Swapped);
        metrics.certificate_reload(Reload::Kept);
        metrics.certificate(UNIX_EPOCH + Duration::from_hours(500_000));
        let cluster = metrics.cluster();
        cluster.watch_synced("namespaces", true);
        cluster.watch_broke("namespaces");
        cluster.watch_answered("namespaces", UNIX_EPOCH + Duration::from_hours(500_000));
        cluster.namespace_read(NamespaceRead::Found);
        cluster.lease(true);
        cluster.authority(UNIX_EPOCH + Duration::from_hours(500_000));
        cluster.authority_reload(Reload::Kept);
        cluster.bundle(true);
        cluster.bundle_apply(BundleApply::Conflict);
        cluster.registration_outdated(true);
        let held = metrics.in_flight();
        let text = metrics.text();
        for line in [
            r#"devgrant_admissions_total{device="",endpoint="mutate",mode="",reason="TooLarge",verdict="unanswerable"} 1"#,
            r#"devgrant_admission_duration_seconds_bucket{le="0.00005"} 0"#,
            r#"devgrant_admission_duration_seconds_bucket{le="0.0001"} 1"#,
            "devgrant_requests_in_flight 1",
            "devgrant_requests_shed_total 0",
            "devgrant_connections 0",
            "devgrant_connections_refused_total 0",
            r#"devgrant_policy_reload_total{result="swapped"} 1"#,
            r#"devgrant_policy_info{digest="sha256:new"} 1"#,
            "devgrant_certificate_not_after_seconds 1800000000",
            r#"devgrant_certificate_reload_total{result="kept"} 1"#,
            "devgrant_panics_total 0",
            r#"devgrant_watch_synced{resource="namespaces"} 1"#,
            r#"devgrant_watch_errors_total{resource="namespaces"} 1"#,
            r#"devgrant_watch_contact_seconds{resource="namespaces"} 1800000000"#,
            r#"devgrant_namespace_reads_total{result="found"} 1"#,
            "devgrant_lease_held 1",
            "devgrant_authority_not_after_seconds 1800000000",
            r#"devgrant_authority_reload_total{result="kept"} 1"#,
            "devgrant_ca_bundle_in_force 1",
            r#"devgrant_ca_bundle_apply_total{result="conflict"} 1"#,
            "devgrant_registration_outdated 1",
            "devgrant_build_info{version=",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("sha256:old"), "one policy set is in force");
        drop(held);
        assert!(metrics.text().contains("devgrant_requests_in_flight 0"));
    }
}
