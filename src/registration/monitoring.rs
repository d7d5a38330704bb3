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
                "runbook": format!("docs/install.md#{}", self.name.to_lowercase()),
            },
        })
    }
}

/// Each has a heading in `docs/install.md`.
const ALERTS: &[Alert] = &[
    Alert {
        name: "DevgrantAbsent",
        expression: "absent(devgrant_build_info)",
        lasting: "5m",
        severity: "critical",
        summary: "No devgrant pod is scraped: pods that ask for devices are refused",
    },
    Alert {
        name: "DevgrantCertificateEndsSoon",
        expression: "min by (pod) (devgrant_certificate_not_after_seconds) - time() < 7 * 86400",
        lasting: "1h",
        severity: "critical",
        summary: "The serving certificate ends in less than a week and was not renewed",
    },
    Alert {
        name: "DevgrantPoliciesRefused",
        expression: "increase(devgrant_policy_reload_total{result=\"kept\"}[15m]) > 0",
        lasting: "0m",
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
        name: "DevgrantShedding",
        expression: "rate(devgrant_requests_shed_total[5m]) > 0",
        lasting: "5m",
        severity: "warning",
        summary: "Reviews are turned away: more come in than may be decided at a time",
    },
    Alert {
        name: "DevgrantPanicked",
        expression: "increase(devgrant_panics_total[15m]) > 0",
        lasting: "0m",
        severity: "warning",
        summary: "A review was answered 500 because of a fault in devgrant",
    },
];
