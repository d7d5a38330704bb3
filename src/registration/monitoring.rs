//! For the Prometheus operator: what is scraped, and when somebody is called.

use serde_json::{Value, json};

use super::{NAME, in_namespace, labels};

/// The PodMonitor and the PrometheusRule.
pub(super) fn objects(own: &str) -> Vec<Value> {
    let object = |kind, spec: Value| {
        in_namespace(own, "monitoring.coreos.com/v1", kind, NAME, json!({ "spec": spec }))
    };
    let rules: Vec<Value> = ALERTS.iter().map(Alert::rule).collect();
    vec![
        object(
            "PodMonitor",
            json!({
                "selector": { "matchLabels": labels() },
                "podMetricsEndpoints": [{ "port": "health", "path": "/metrics" }],
            }),
        ),
        object("PrometheusRule", json!({ "groups": [{ "name": NAME, "rules": rules }] })),
    ]
}

struct Alert {
    name: &'static str,
    expression: &'static str,
    lasting: &'static str,
    severity: &'static str,
    summary: &'static str,
}

impl Alert {
    fn rule(&self) -> Value {
        json!({
            "alert": self.name,
            "expr": self.expression,
            "for": self.lasting,
            "labels": { "severity": self.severity },
            "annotations": {
                "summary": self.summary,
                // Of this repository: where it is published is not ours to know.
                "runbook_url": format!("docs/runbooks.md#{}", self.name.to_lowercase()),
            },
        })
    }
}

/// Each has a section in `docs/runbooks.md`, in this order. Critical is what refuses pods, or will.
const ALERTS: &[Alert] = &[
    Alert {
        name: "DevgrantAbsent",
        expression: "absent(devgrant_build_info)",
        lasting: "5m",
        severity: "critical",
        summary: "No devgrant pod is scraped: pods that ask for devices may be refused",
    },
    Alert {
        name: "DevgrantCertificateEndsSoon",
        // One that renews itself is renewed ten days before its end at the latest.
        expression: "min by (pod) (devgrant_certificate_not_after_seconds) - time() < 7 * 86400",
        lasting: "1h",
        severity: "critical",
        summary: "The serving certificate ends in less than a week and was not renewed",
    },
    Alert {
        name: "DevgrantAuthorityEndsSoon",
        // It lives for a year, and is replaced at half of it.
        expression: "max(devgrant_authority_not_after_seconds) - time() < 60 * 86400",
        lasting: "1h",
        severity: "warning",
        summary: "The authority that replicas share ends in less than 60 days and was not replaced",
    },
    Alert {
        name: "DevgrantCaBundleNotInForce",
        // Between two authorities it is 0 for a moment.
        expression: "min(devgrant_ca_bundle_in_force) == 0",
        lasting: "15m",
        severity: "critical",
        summary: "The registration does not trust the authority: the API server cannot call devgrant",
    },
    Alert {
        name: "DevgrantNobodyHoldsLease",
        // Without an authority of our own there is no Lease.
        expression: "max(devgrant_lease_held) == 0 and count(devgrant_authority_not_after_seconds) > 0",
        lasting: "15m",
        severity: "warning",
        summary: "No replica takes care of the certificates: they are not renewed",
    },
    Alert {
        name: "DevgrantRegistrationOutdated",
        expression: "max(devgrant_registration_outdated) == 1",
        lasting: "15m",
        severity: "warning",
        summary: "The registration does not let through what the policies need",
    },
    Alert {
        name: "DevgrantWatchBroken",
        // A watch that ends in order is no error; one a minute is a watch that does not hold.
        expression: "min by (pod, resource) (devgrant_watch_synced) == 0 or \
                     sum by (pod, resource) (increase(devgrant_watch_errors_total[15m])) > 15",
        lasting: "10m",
        severity: "warning",
        summary: "A watch of the API server does not hold: what is known grows old",
    },
    Alert {
        name: "DevgrantWatchSilent",
        // A watch is asked for anew every five minutes, so that silence of one is no silence.
        expression: "time() - min by (pod, resource) (devgrant_watch_contact_seconds) > 15 * 60",
        lasting: "5m",
        severity: "warning",
        summary: "The API server has not answered a watch for 15 minutes: what is known is as old",
    },
    Alert {
        name: "DevgrantPoliciesRefused",
        expression: "max by (pod) (devgrant_policy_refused) == 1",
        lasting: "1m",
        severity: "warning",
        summary: "A changed policy set is wrong: the last good one stays in force",
    },
    Alert {
        name: "DevgrantPoliciesDiffer",
        expression: "count(count by (digest) (devgrant_policy_info)) > 1",
        lasting: "10m",
        severity: "warning",
        summary: "The replicas decide by different policy sets",
    },
    Alert {
        name: "DevgrantUndecided",
        // Advice that cannot be given keeps nobody from anything.
        expression: "sum(rate(devgrant_admissions_total{verdict=\"undecided\",endpoint!=\"advise\"}[5m])) > 0",
        lasting: "5m",
        severity: "critical",
        summary: "Reviews get no verdict: failurePolicy decides about pods that ask",
    },
    Alert {
        name: "DevgrantSlow",
        // The API server waits 5 s, as it is registered.
        expression: "histogram_quantile(0.99, sum by (le) \
                     (rate(devgrant_admission_duration_seconds_bucket[5m]))) > 1",
        lasting: "10m",
        severity: "warning",
        summary: "One review of a hundred takes longer than a second",
    },
    Alert {
        name: "DevgrantShedding",
        expression: "sum(rate(devgrant_requests_shed_total[5m])) > 0",
        lasting: "5m",
        severity: "warning",
        summary: "Reviews are turned away: more come in than may be decided at a time",
    },
    Alert {
        name: "DevgrantPanicked",
        expression: "sum by (pod) (increase(devgrant_panics_total[15m])) > 0",
        lasting: "0m",
        severity: "warning",
        summary: "A review was answered 500 because of a fault in devgrant",
    },
];
