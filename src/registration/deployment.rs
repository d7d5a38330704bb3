//! The Deployment.

use serde_json::{Value, json};

use super::workload::{HEALTH_PORT, WEBHOOK_PORT};
use super::{
    Certificates, Installation, NAME, POLICIES_CONFIG_MAP, SETTINGS_CONFIG_MAP, TLS_SECRET,
    in_namespace, labels,
};

/// While a node is short of room, pods of others go before ours: without us no pod that asks starts.
pub(super) const PRIORITY_CLASS: &str = "system-cluster-critical";

/// The Deployment of the server.
pub(super) fn object(own: &str, installation: &Installation) -> Value {
    let content = json!({
        "spec": {
            "replicas": installation.replicas,
            "selector": { "matchLabels": labels() },
            // A new pod is ready before an old one goes: with `maxUnavailable: 1` calls were seen to fail
            // at each roll-out (openchoreo#3743).
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": { "maxSurge": 1, "maxUnavailable": 0 },
            },
            "template": {
                "metadata": {
                    "labels": labels(),
                    "annotations": { "kubectl.kubernetes.io/default-container": NAME },
                },
                "spec": pod(installation),
            },
        },
    });
    in_namespace(own, "apps/v1", "Deployment", NAME, content)
}

fn pod(installation: &Installation) -> Value {
    json!({
        "serviceAccountName": NAME,
        "automountServiceAccountToken": true,
        "enableServiceLinks": false,
        "priorityClassName": PRIORITY_CLASS,
        "terminationGracePeriodSeconds": installation.grace_seconds,
        "nodeSelector": { "kubernetes.io/os": "linux" },
        "securityContext": {
            "runAsNonRoot": true,
            "runAsUser": NONROOT,
            "runAsGroup": NONROOT,
            "fsGroup": NONROOT,
            "seccompProfile": { "type": "RuntimeDefault" },
        },
        "topologySpreadConstraints": [spread("kubernetes.io/hostname"), spread("topology.kubernetes.io/zone")],
        "containers": [container(installation)],
        "volumes": volumes(installation),
    })
}

/// Preferred, not required: a cluster of one node gets its two replicas too. Each revision by itself, or
/// the pods of the old one would push those of the new one together.
fn spread(topology_key: &str) -> Value {
    json!({
        "maxSkew": 1,
        "topologyKey": topology_key,
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": { "matchLabels": labels() },
        "matchLabelKeys": ["pod-template-hash"],
    })
}

fn container(installation: &Installation) -> Value {
    let mut arguments = vec!["serve", "--policies", POLICIES_FOLDER];
    if installation.certificates != Certificates::Own {
        arguments.extend(["--tls-cert", TLS_CERTIFICATE, "--tls-key", TLS_KEY]);
    }
    let field = |name: &str, path: &str| json!({ "name": name, "valueFrom": { "fieldRef": { "fieldPath": path } } });
    json!({
        "name": NAME,
        "image": installation.image,
        "args": arguments,
        "env": [
            { "name": "DEVGRANT_CONFIG", "value": SETTINGS_FILE },
            field("POD_NAME", "metadata.name"),
            field("POD_NAMESPACE", "metadata.namespace"),
            field("POD_UID", "metadata.uid"),
        ],
        "ports": [
            { "name": "webhook", "containerPort": WEBHOOK_PORT, "protocol": "TCP" },
            { "name": "health", "containerPort": HEALTH_PORT, "protocol": "TCP" },
        ],
        "resources": {
            // No CPU limit: a throttled webhook is a late one. Memory never lacks: one that is killed
            // for it took pod creation with it (kyverno#1540).
            "requests": { "cpu": "100m", "memory": "64Mi" },
            "limits": { "memory": format!("{}Mi", installation.memory_limit) },
        },
        "livenessProbe": probe("/livez", 10, 3),
        "readinessProbe": probe("/readyz", 5, 2),
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": { "drop": ["ALL"] },
        },
        "volumeMounts": mounts(installation),
    })
}

fn probe(path: &str, period_seconds: u32, failure_threshold: u32) -> Value {
    json!({
        "httpGet": { "path": path, "port": "health" },
        "periodSeconds": period_seconds,
        "timeoutSeconds": 2,
        "failureThreshold": failure_threshold,
    })
}

fn mounts(installation: &Installation) -> Vec<Value> {
    let mut mounts = vec![
        json!({ "name": "policies", "mountPath": POLICIES_FOLDER, "readOnly": true }),
        // Read once, at the start, so that it may be a single file, which the kubelet does not update.
        json!({
            "name": "config",
            "mountPath": SETTINGS_FILE,
            "subPath": "config.yaml",
            "readOnly": true,
        }),
    ];
    if installation.certificates != Certificates::Own {
        mounts.push(json!({ "name": "tls", "mountPath": TLS_FOLDER, "readOnly": true }));
    }
    mounts
}

fn volumes(installation: &Installation) -> Vec<Value> {
    let mut volumes = vec![
        json!({ "name": "policies", "configMap": { "name": POLICIES_CONFIG_MAP } }),
        json!({ "name": "config", "configMap": { "name": SETTINGS_CONFIG_MAP } }),
    ];
    if installation.certificates != Certificates::Own {
        // For our group only; `fsGroup` lets us read it.
        volumes.push(json!({
            "name": "tls",
            "secret": { "secretName": TLS_SECRET, "defaultMode": 0o440 },
        }));
    }
    volumes
}

/// The user of distroless images, and of ours.
const NONROOT: u32 = 65532;
const POLICIES_FOLDER: &str = "/etc/devgrant/policies";
const SETTINGS_FILE: &str = "/etc/devgrant/config.yaml";
const TLS_FOLDER: &str = "/etc/devgrant/tls";
const TLS_CERTIFICATE: &str = "/etc/devgrant/tls/tls.crt";
const TLS_KEY: &str = "/etc/devgrant/tls/tls.key";
