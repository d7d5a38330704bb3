//! What runs the server: the namespace and the objects in it.

use serde_json::{Value, json};

use super::{
    Certificates, Ingress, Installation, NAME, POLICIES_CONFIG_MAP, Reach, SETTINGS_CONFIG_MAP,
    certificates, deployment, in_namespace, labels, monitoring, object,
};

/// The port of reviews, over TLS.
pub(super) const WEBHOOK_PORT: u16 = 8443;
/// The port of health and metrics.
pub(super) const HEALTH_PORT: u16 = 8080;

/// The namespace and all that runs in it.
pub(super) fn objects(own: &str, installation: &Installation) -> Vec<Value> {
    let mut objects = vec![namespace(own)];
    if installation.reach != Reach::Service {
        return objects;
    }
    if installation.certificates == Certificates::CertManager {
        objects.extend(certificates::objects(own));
    }
    objects.extend([
        critical_pods(own),
        service(own),
        deployment::object(own, installation),
        disruption_budget(own),
        network_policy(own, installation),
    ]);
    if installation.monitoring {
        objects.extend(monitoring::objects(own));
    }
    objects
}

/// The policies and settings, as the server reads them.
pub(super) fn config_maps(own: &str, installation: &Installation) -> Vec<Value> {
    if installation.reach != Reach::Service {
        return Vec::new();
    }
    let config_map =
        |name, data: Value| in_namespace(own, "v1", "ConfigMap", name, json!({ "data": data }));
    vec![
        config_map(POLICIES_CONFIG_MAP, json!(installation.policies)),
        config_map(SETTINGS_CONFIG_MAP, json!({ "config.yaml": installation.config })),
    ]
}

/// Nobody else's pod belongs there, and ours needs nothing that `restricted` forbids.
fn namespace(own: &str) -> Value {
    let mut labels = labels();
    if let Some(labels) = labels.as_object_mut() {
        for mode in ["enforce", "audit", "warn"] {
            labels.insert(format!("pod-security.kubernetes.io/{mode}"), "restricted".into());
        }
    }
    object("v1", "Namespace", json!({ "name": own, "labels": labels }), json!({}))
}

/// Some clusters let `system-cluster-critical` pods run outside of `kube-system` only where a quota
/// speaks of them (`kubernetes plugin/pkg/admission/resourcequota`, `limitedResources`; GKE is one).
fn critical_pods(own: &str) -> Value {
    let content = json!({
        "spec": {
            "hard": { "pods": "100" },
            "scopeSelector": {
                "matchExpressions": [{
                    "scopeName": "PriorityClass",
                    "operator": "In",
                    "values": [deployment::PRIORITY_CLASS],
                }],
            },
        },
    });
    in_namespace(own, "v1", "ResourceQuota", NAME, content)
}

fn service(own: &str) -> Value {
    let content = json!({
        "spec": {
            "selector": labels(),
            "ports": [{
                "name": "webhook",
                "port": 443,
                "protocol": "TCP",
                "targetPort": "webhook",
            }],
        },
    });
    in_namespace(own, "v1", "Service", NAME, content)
}

/// One at a time, whatever the number of replicas: a budget that allows none blocks the drain of a
/// node for ever (tektoncd/pipeline#3654). A pod that is not ready protects nobody.
fn disruption_budget(own: &str) -> Value {
    let content = json!({
        "spec": {
            "maxUnavailable": 1,
            "selector": { "matchLabels": labels() },
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    });
    in_namespace(own, "policy/v1", "PodDisruptionBudget", NAME, content)
}

/// Where the API server calls from is known only to who installs, and so is where it is reached: the
/// addresses are open unless they are told, the ports are not.
fn network_policy(own: &str, installation: &Installation) -> Value {
    let port = |protocol: &str, port: u16| json!({ "protocol": protocol, "port": port });
    let mut egress = vec![
        // The API server: behind its Service, and where a network plugin looks behind it.
        json!({ "ports": [port("TCP", 443), port("TCP", 6443)] }),
        json!({ "ports": [port("UDP", 53), port("TCP", 53)] }),
    ];
    egress.extend(
        installation.collector_port.map(|collector| json!({ "ports": [port("TCP", collector)] })),
    );
    let content = json!({
        "spec": {
            "podSelector": { "matchLabels": labels() },
            "policyTypes": ["Ingress", "Egress"],
            "ingress": ingress_rules(&installation.ingress, port("TCP", WEBHOOK_PORT), port("TCP", HEALTH_PORT)),
            "egress": egress,
        },
    });
    in_namespace(own, "networking.k8s.io/v1", "NetworkPolicy", NAME, content)
}

/// The kubelet is in neither list, and probes all the same: a pod's own node always reaches it
/// (kubernetes.io, "Network Policies").
fn ingress_rules(ingress: &Ingress, webhook: Value, health: Value) -> Vec<Value> {
    if *ingress == Ingress::default() {
        return vec![json!({ "ports": [webhook, health] })];
    }
    let rule = |port: Value, from: Vec<Value>| {
        if from.is_empty() {
            json!({ "ports": [port] })
        } else {
            json!({ "ports": [port], "from": from })
        }
    };
    let range = |cidr: &String| json!({ "ipBlock": { "cidr": cidr } });
    let namespace = |name: &String| json!({ "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": name } } });
    vec![
        rule(webhook, ingress.api_servers.iter().map(range).collect()),
        rule(health, ingress.scrapers.iter().map(namespace).collect()),
    ]
}
