#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on says where and stops"
)]
//! What `devgrant manifests` prints: objects that the API knows, which fit each other, and which
//! `deploy/`, `certs/` and `docs/rbac.md` show as they are.
//!
//! `DEVGRANT_REFRESH_GOLDEN=1 cargo test --test manifests` writes those files again; the difference is
//! for review. That Helm and Kustomize make the same objects of them is seen by the cluster tests, which
//! have these tools.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use devgrant::registration::rbac::{GRANTS, Scope, When};
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
    ValidatingWebhookConfiguration,
};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{
    ConfigMap, Namespace, ResourceQuota, Secret, Service, ServiceAccount,
};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

#[path = "support/ran.rs"]
mod ran;
use ran::{Ran, program};

/// Stand for what a user of the chart sets; none of them is a name that Kubernetes takes, so that one
/// that is left over is noticed.
const CHART_NAMESPACE: &str = "chart-namespace";
const CHART_PREFIX: &str = "chart.prefix";

/// Every variant of an installation, by the flags that make it.
const VARIANTS: &[&[&str]] = &[
    &[],
    &["--cert-manager"],
    &["--monitoring", "--nodes"],
    &["--failure-policy=Ignore", "--replicas=3", "--advise=argoproj.io/v1alpha1/rollouts"],
    &["--url=https://127.0.0.1:8443"],
    &["--prefix=devices.example.org", "--own-namespace=grants"],
    &["--kubernetes-version=1.30"],
    &["--api-server-cidr=10.0.0.0/28", "--metrics-from-namespace=monitoring"],
];

#[test]
fn what_is_shipped_is_what_is_printed() {
    let mut failures = Vec::new();
    let mut holds = |file: &str, text: &str| {
        let path = root().join(file);
        if std::env::var_os("DEVGRANT_REFRESH_GOLDEN").is_some() {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
        } else if fs::read_to_string(&path).unwrap_or_default() != text {
            failures
                .push(format!("{file} is another; write it anew with DEVGRANT_REFRESH_GOLDEN=1"));
        }
    };
    holds("deploy/devgrant.yaml", &printed(&[]));
    for part in ["workload", "rbac", "policies", "guard", "registration"] {
        let text = printed(&[&format!("--only={part}")]);
        holds(&format!("deploy/kustomize/base/{part}.yaml"), &text);
    }
    let issued = of_kinds(&objects(&["--cert-manager"]), &["Certificate", "Issuer"]);
    holds("certs/cert-manager.yaml", &documents(&issued));
    holds("deploy/kustomize/cert-manager/certificates.yaml", &documents(&issued));
    // What the roles are without the own authority, as patches that replace them.
    let with_cert_manager = objects(&["--cert-manager"]);
    for kind in ["ClusterRole", "Role"] {
        let file = format!("deploy/kustomize/cert-manager/{}.yaml", kind.to_lowercase());
        holds(&file, &documents(&of_kinds(&with_cert_manager, &[kind])));
    }
    for (file, text) in chart_files() {
        holds(&format!("deploy/helm/devgrant/files/{file}"), &text);
    }
    holds("docs/rbac.md", &rbac_page());
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    // A file that nothing writes any more is stray.
    let folder = root().join("deploy/helm/devgrant/files");
    let wanted: BTreeSet<PathBuf> = chart_files().keys().map(|file| folder.join(file)).collect();
    let found: BTreeSet<PathBuf> =
        [folder.clone(), folder.join("policies")].iter().flat_map(|folder| files(folder)).collect();
    assert_eq!(found, wanted);
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.is_file()).collect()
}

/// The objects as the chart's templates read them: with names that the templates replace.
fn chart_files() -> BTreeMap<String, String> {
    let own = format!("--own-namespace={CHART_NAMESPACE}");
    let prefix = format!("--prefix={CHART_PREFIX}");
    let flags = |more: &[&'static str]| -> Vec<String> {
        let more = more.iter().map(|flag| (*flag).to_owned());
        [own.clone(), prefix.clone()].into_iter().chain(more).collect()
    };
    let mut files = BTreeMap::new();
    let mut add = |suffix: &str, objects: Vec<Value>| {
        for object in objects {
            let kind = object["kind"].as_str().unwrap().to_lowercase();
            // The chart makes these of files and values.
            if kind != "configmap" {
                files.insert(format!("{kind}{suffix}.yaml"), documents(&[object]));
            }
        }
    };
    let objects_of = |more| objects(&flags(more).iter().map(String::as_str).collect::<Vec<_>>());
    add("", objects_of(&["--monitoring"]));
    let with_cert_manager = objects_of(&["--cert-manager"]);
    add("-cert-manager", of_kinds(&with_cert_manager, &["Role", "ClusterRole", "Deployment"]));
    for (suffix, flags) in
        [("-nodes", &["--nodes"][..]), ("-cert-manager-nodes", &["--cert-manager", "--nodes"])]
    {
        add(suffix, of_kinds(&objects_of(flags), &["ClusterRole"]));
    }
    let issued = of_kinds(&with_cert_manager, &["Certificate", "Issuer"]);
    files.insert("certificates.yaml".to_owned(), documents(&issued));
    for policy in devgrant::policies::shipped() {
        files.insert(format!("policies/{}", policy.file), policy.text);
    }
    files
}

#[test]
fn every_object_is_one_that_the_api_knows() {
    for flags in VARIANTS {
        for object in objects(flags) {
            let kind = object["kind"].as_str().unwrap();
            let known = match kind {
                "ClusterRole" => reads::<ClusterRole>(&object),
                "ClusterRoleBinding" => reads::<ClusterRoleBinding>(&object),
                "ConfigMap" => reads::<ConfigMap>(&object),
                "Deployment" => reads::<Deployment>(&object),
                "MutatingWebhookConfiguration" => reads::<MutatingWebhookConfiguration>(&object),
                "Namespace" => reads::<Namespace>(&object),
                "NetworkPolicy" => reads::<NetworkPolicy>(&object),
                "PodDisruptionBudget" => reads::<PodDisruptionBudget>(&object),
                "ResourceQuota" => reads::<ResourceQuota>(&object),
                "Role" => reads::<Role>(&object),
                "RoleBinding" => reads::<RoleBinding>(&object),
                "Secret" => reads::<Secret>(&object),
                "Service" => reads::<Service>(&object),
                "ServiceAccount" => reads::<ServiceAccount>(&object),
                "ValidatingAdmissionPolicy" => reads::<ValidatingAdmissionPolicy>(&object),
                "ValidatingAdmissionPolicyBinding" => {
                    reads::<ValidatingAdmissionPolicyBinding>(&object)
                }
                "ValidatingWebhookConfiguration" => {
                    reads::<ValidatingWebhookConfiguration>(&object)
                }
                // Of others than Kubernetes; the cluster tests have their schemas.
                "Certificate" | "Issuer" | "PodMonitor" | "PrometheusRule" => object.clone(),
                other => panic!("{other}: say here what knows it"),
            };
            assert_eq!(known, object, "{flags:?}: {kind} lost fields that the API does not know");
            let keys: Vec<&String> = object.as_object().unwrap().keys().take(3).collect();
            assert_eq!(keys, ["apiVersion", "kind", "metadata"], "{flags:?}");
            assert_eq!(object["metadata"]["labels"]["app.kubernetes.io/name"], "devgrant");
        }
    }
}

fn reads<T: Serialize + DeserializeOwned>(object: &Value) -> Value {
    let typed: T = serde_json::from_value(object.clone()).unwrap();
    serde_json::to_value(&typed).unwrap()
}

#[test]
fn objects_name_each_other_rightly() {
    for flags in VARIANTS.iter().filter(|flags| flags.iter().all(|flag| !flag.contains("--url"))) {
        let objects = objects(flags);
        let one = |kind: &str| {
            let found = of_kinds(&objects, &[kind]);
            assert_eq!(found.len(), 1, "{flags:?}: {kind}");
            found[0].clone()
        };
        let deployment = one("Deployment");
        let template = &deployment["spec"]["template"];
        let labels = &template["metadata"]["labels"];
        assert_eq!(&deployment["spec"]["selector"]["matchLabels"], labels);
        assert_eq!(&one("Service")["spec"]["selector"], labels);
        for kind in ["PodDisruptionBudget", "NetworkPolicy"] {
            let spec = &one(kind)["spec"];
            let selector = spec.get("selector").or_else(|| spec.get("podSelector")).unwrap();
            assert_eq!(&selector["matchLabels"], labels, "{kind}");
        }
        let container = &template["spec"]["containers"][0];
        let ports: Vec<&Value> =
            container["ports"].as_array().unwrap().iter().map(|port| &port["name"]).collect();
        assert_eq!(ports, ["webhook", "health"]);
        assert_eq!(one("Service")["spec"]["ports"][0]["targetPort"], "webhook");

        // What is mounted is there, from objects that are there or that somebody makes.
        let names = |kind: &str| -> BTreeSet<String> {
            let found = of_kinds(&objects, &[kind]);
            found
                .iter()
                .map(|object| object["metadata"]["name"].as_str().unwrap().to_owned())
                .collect()
        };
        let volumes = template["spec"]["volumes"].as_array().unwrap();
        let mounts = container["volumeMounts"].as_array().unwrap();
        let volume_names: Vec<&Value> = volumes.iter().map(|volume| &volume["name"]).collect();
        let mount_names: Vec<&Value> = mounts.iter().map(|mount| &mount["name"]).collect();
        assert_eq!(volume_names, mount_names, "{flags:?}");
        for volume in volumes {
            if let Some(name) = volume["configMap"]["name"].as_str() {
                assert!(names("ConfigMap").contains(name), "{flags:?}: {name}");
            }
            if let Some(name) = volume["secret"]["secretName"].as_str() {
                let made = of_kinds(&objects, &["Certificate"]);
                assert!(made.iter().any(|object| object["spec"]["secretName"] == name), "{name}");
            }
        }
        let namespace = one("Namespace")["metadata"]["name"].clone();
        for object in objects.iter().filter(|object| object["metadata"].get("namespace").is_some())
        {
            assert_eq!(object["metadata"]["namespace"], namespace);
        }
        for kind in ["ClusterRoleBinding", "RoleBinding"] {
            assert_eq!(one(kind)["subjects"][0]["name"], template["spec"]["serviceAccountName"]);
            assert_eq!(one(kind)["subjects"][0]["namespace"], namespace);
        }
    }
}

/// What the webhooks of pods have in common decides who waits for us.
#[test]
fn only_pods_of_opted_in_namespaces_that_ask_wait_for_us() {
    for flags in VARIANTS {
        let objects = objects(flags);
        let own = of_kinds(&objects, &["Namespace"])[0]["metadata"]["name"].clone();
        let prefix = if flags.contains(&"--prefix=devices.example.org") {
            "devices.example.org"
        } else {
            "devices.example"
        };
        let selector = json!({
            "matchLabels": { format!("{prefix}/grant"): "enabled" },
            "matchExpressions": [{
                "key": "kubernetes.io/metadata.name",
                "operator": "NotIn",
                "values": ["kube-system", own],
            }],
        });
        let configurations =
            of_kinds(&objects, &["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"]);
        let mut count = 0;
        for webhook in configurations.iter().flat_map(|one| one["webhooks"].as_array().unwrap()) {
            count += 1;
            assert_eq!(webhook["namespaceSelector"], selector, "{flags:?}");
            assert_eq!(webhook["sideEffects"], "None");
            assert!(!webhook["matchConditions"].as_array().unwrap().is_empty());
            assert!(webhook["timeoutSeconds"].as_u64().unwrap() <= 5);
            // Who applies this owns no field that the server writes.
            assert_eq!(webhook["clientConfig"].get("caBundle"), None, "{flags:?}");
            let advises = webhook["clientConfig"].to_string().contains("/advise");
            assert_eq!(webhook["name"].as_str().unwrap().starts_with("advise."), advises);
            assert!(!advises || webhook["failurePolicy"] == "Ignore", "{webhook:#}");
        }
        assert_eq!(count, 5);
        let binding = &of_kinds(&objects, &["ValidatingAdmissionPolicyBinding"])[0];
        assert_eq!(binding["spec"]["matchResources"]["namespaceSelector"], selector);
    }
}

#[test]
fn our_pod_is_one_that_restricted_admits() {
    let objects = objects(&[]);
    let namespace = &of_kinds(&objects, &["Namespace"])[0];
    assert_eq!(namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"], "restricted");
    let pod = of_kinds(&objects, &["Deployment"])[0]["spec"]["template"]["spec"].clone();
    let security = &pod["securityContext"];
    assert_eq!(security["runAsNonRoot"], true);
    assert_eq!(security["seccompProfile"]["type"], "RuntimeDefault");
    let container = &pod["containers"][0]["securityContext"];
    assert_eq!(container["allowPrivilegeEscalation"], false);
    assert_eq!(container["readOnlyRootFilesystem"], true);
    assert_eq!(container["capabilities"]["drop"], json!(["ALL"]));
    assert_eq!(
        pod["volumes"].as_array().unwrap().iter().filter(|v| v.get("hostPath").is_some()).count(),
        0
    );
}

#[test]
fn who_reaches_the_server_is_as_wide_as_it_is_told() {
    let ingress = |flags: &[&str]| {
        let policies = of_kinds(&objects(flags), &["NetworkPolicy"]);
        policies[0]["spec"]["ingress"].clone()
    };
    let port = |port: u16| json!({ "protocol": "TCP", "port": port });
    assert_eq!(ingress(&[]), json!([{ "ports": [port(8443), port(8080)] }]));
    assert_eq!(
        ingress(&["--api-server-cidr=10.0.0.0/28", "--api-server-cidr=fd00::/64"]),
        json!([
            { "ports": [port(8443)], "from": [
                { "ipBlock": { "cidr": "10.0.0.0/28" } },
                { "ipBlock": { "cidr": "fd00::/64" } },
            ] },
            { "ports": [port(8080)] },
        ])
    );
    let selector = json!({ "matchLabels": { "kubernetes.io/metadata.name": "monitoring" } });
    assert_eq!(
        ingress(&["--metrics-from-namespace=monitoring"]),
        json!([
            { "ports": [port(8443)] },
            { "ports": [port(8080)], "from": [{ "namespaceSelector": selector }] },
        ])
    );
    fails(&["--api-server-cidr=10.0.0.7/28"], &["--api-server-cidr", "10.0.0.7/32"]);
    fails(&["--metrics-from-namespace=Monitoring"], &["--metrics-from-namespace", "monitoring"]);
    let url = "--url=https://127.0.0.1:8443";
    fails(&["--api-server-cidr=10.0.0.0/28", url], &["--url"]);
    for list in ["--api-server-cidr=10.0.0.0/28,fd00::/64", "--metrics-from-namespace=a,b"] {
        fails(&[list], &["repeat the flag"]);
    }
    for (flag, path) in [
        ("--api-server-cidr=10.0.0.0/28", "/0/from"),
        ("--metrics-from-namespace=monitoring", "/1/from"),
    ] {
        let twice = ingress(&[flag, flag]);
        assert_eq!(twice.pointer(path).unwrap().as_array().unwrap().len(), 1, "{twice}");
        // Without the part that has the NetworkPolicy, it is said that the flag does nothing.
        let said = |part: &str| devgrant(&[part, flag]).stderr;
        let (name, _) = flag.split_once('=').unwrap();
        let note = format!("flag {name} has no effect here");
        assert!(said("--only=guard").contains(&note), "{}", said("--only=guard"));
        assert_eq!(said("--only=workload"), "");
    }
}

/// A pattern cannot compare an address with its bits: that the first one is meant, the flag alone sees.
#[test]
fn the_chart_takes_the_ranges_that_the_flag_takes() {
    let text = fs::read_to_string(root().join("deploy/helm/devgrant/values.schema.json")).unwrap();
    let schema: Value = serde_json::from_str(&text).unwrap();
    let at = "/properties/networkPolicy/properties/apiServerCidrs/items";
    let judge = jsonschema::validator_for(schema.pointer(at).unwrap()).unwrap();
    for cidr in [
        "10.0.0.0/28",
        "0.0.0.0/0",
        "255.255.255.255/32",
        "fd00::/64",
        "::/0",
        "::1/128",
        "2001:DB8::1:0/112",
        "1:2:3:4:5:6:7:8/128",
        "1:2:3:4:5:6:7::/112",
        "1::8/128",
        "10.0.0.0",
        "10.0.0.0/33",
        "10.0.0.0/08",
        "10.0.0.0/+8",
        "10.0.0/24",
        "10.0.0.256/32",
        "10.0.0.00/28",
        "fd00::/129",
        "fd00::1::/128",
        "fd00:::/64",
        "1:2:3:4:5:6:7/128",
        "1:2:3:4:5:6:7:8:9/128",
        "1:2:3:4:5:6:7:8::/128",
        "12345::/64",
        ":/0",
        "kubernetes/32",
        "10.0.0.0/28,fd00::/64",
    ] {
        let flag = devgrant(&["--only=workload", &format!("--api-server-cidr={cidr}")]);
        assert_eq!(judge.is_valid(&json!(cidr)), flag.status == 0, "{cidr}");
    }
}

#[test]
fn settings_reach_the_server_and_its_deployment() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("devgrant.yaml");
    fs::write(
        &file,
        "prefix: d.example\nshutdownDelay: 30s\nmaxInFlight: 128\nlisten: 127.0.0.1:1\n",
    )
    .unwrap();
    let objects = objects(&[&format!("--config={}", file.display())]);
    let config_maps = of_kinds(&objects, &["ConfigMap"]);
    let config =
        config_maps.iter().find(|one| one["metadata"]["name"] == "devgrant-config").unwrap();
    assert_eq!(
        config["data"]["config.yaml"],
        "prefix: d.example\nmaxInFlight: 128\nshutdownDelay: 30s\n"
    );
    let pod = of_kinds(&objects, &["Deployment"])[0]["spec"]["template"]["spec"].clone();
    assert_eq!(pod["terminationGracePeriodSeconds"], 55);
    // 128 bodies of 7 MiB, and what the connections and the rest take.
    assert_eq!(pod["containers"][0]["resources"]["limits"]["memory"], "1152Mi");
}

#[test]
fn the_collector_of_traces_is_reached() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("devgrant.yaml");
    let egress = |text: &str| {
        fs::write(&file, text).unwrap();
        let objects = objects(&[&format!("--config={}", file.display())]);
        let policy = &of_kinds(&objects, &["NetworkPolicy"])[0];
        policy["spec"]["egress"].as_array().unwrap().clone()
    };
    let without = egress("logLevel: debug\n");
    for (url, port) in [("http://collector:4318", 4318), ("https://[::1]/x", 443), ("http://c", 80)]
    {
        let with = egress(&format!("tracesEndpoint: {url}\n"));
        let (last, others) = with.split_last().unwrap();
        assert_eq!(others, without, "{url}");
        assert_eq!(*last, json!({ "ports": [{ "protocol": "TCP", "port": port }] }), "{url}");
    }
}

#[test]
fn an_authority_is_given_by_its_certificates_alone() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let signing_key = rcgen::KeyPair::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::default();
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let certificate = parameters.self_signed(&signing_key).unwrap().pem();
    let key = signing_key.serialize_pem();
    let good = file("ca.crt", &certificate);
    let objects = objects(&[&format!("--ca-bundle={good}"), "--url=https://[::1]:8443/"]);
    for kind in ["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"] {
        let client = &of_kinds(&objects, &[kind])[0]["webhooks"][0]["clientConfig"];
        assert!(client["url"].as_str().unwrap().starts_with("https://[::1]:8443/"));
        assert!(client["caBundle"].as_str().unwrap().starts_with("LS0t"));
    }
    assert_eq!(of_kinds(&objects, &["Deployment", "Secret"]), Vec::<Value>::new());
    for (name, text, words) in [
        ("both.pem", format!("{certificate}{key}"), "a private key is in it"),
        ("empty.pem", String::new(), "no certificate is in it"),
        ("torn.pem", certificate.replace("-----END", ""), "this is no PEM"),
        (
            "none.pem",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned(),
            "certificate 1 is none",
        ),
    ] {
        fails(&[&format!("--ca-bundle={}", file(name, &text))], &[name, words]);
    }
}

/// It works until the certificate is renewed, so that it is no error.
#[test]
fn a_certificate_of_a_server_is_no_authority() {
    let folder = tempfile::tempdir().unwrap();
    let certs = folder.path().join("certs");
    let made = Command::new(root().join("certs/make")).arg(&certs).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let bundle = certs.join("both.crt");
    let text = ["ca.crt", "tls.crt"].map(|file| fs::read_to_string(certs.join(file)).unwrap());
    fs::write(&bundle, text.concat()).unwrap();
    let bundle = format!("--ca-bundle={}", bundle.display());
    let Ran { status, stdout, stderr } = devgrant(&["--only=registration", &bundle]);
    assert_eq!(status, 0, "{stderr}");
    let words = "both.crt: certificate 2 (CN=devgrant.devgrant-system.svc) is of no authority";
    assert!(stderr.contains(words), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stdout.contains("caBundle"), "{stdout}");
}

/// As `certs/README.md` says to do it; rustls is what serves such a pair.
#[test]
fn certificates_by_hand_are_ones_that_the_server_takes() {
    let folder = tempfile::tempdir().unwrap();
    let certs = folder.path().join("certs");
    let script = |arguments: &[&str]| {
        let mut command = Command::new(root().join("certs/make"));
        command.arg(&certs).args(arguments).output().unwrap()
    };
    let made = script(&["grants", "host.example", "10.0.0.7", "::1"]);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let again = script(&[]);
    assert!(!again.status.success(), "a key that is there is not written over");

    let authority = certs.join("ca.crt").display().to_string();
    let configurations = objects(&["--only=registration", &format!("--ca-bundle={authority}")]);
    assert_eq!(configurations.len(), 2);
    let der = |file: &str| {
        let text = fs::read(certs.join(file)).unwrap();
        CertificateDer::from_pem_slice(&text).unwrap()
    };
    let mut roots = rustls::RootCertStore::empty();
    roots.add(der("ca.crt")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let verifier = builder.build().unwrap();
    for name in ["devgrant.grants.svc", "host.example", "10.0.0.7", "::1"] {
        let name = ServerName::try_from(name).unwrap();
        let now = UnixTime::now();
        verifier.verify_server_cert(&der("tls.crt"), &[], &name, &[], now).unwrap();
    }
    let key = PrivateKeyDer::from_pem_file(certs.join("tls.key")).unwrap();
    let server = rustls::ServerConfig::builder_with_provider(provider);
    let server = server.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    server.with_single_cert(vec![der("tls.crt")], key).unwrap();
}

#[test]
fn the_chart_is_of_this_version() {
    let text = fs::read_to_string(root().join("deploy/helm/devgrant/Chart.yaml")).unwrap();
    let chart: Value = serde_saphyr::from_str(&text).unwrap();
    for key in ["version", "appVersion"] {
        assert_eq!(chart[key], env!("CARGO_PKG_VERSION"), "{key}");
    }
}

#[test]
fn what_cannot_be_printed_is_said() {
    let folder = tempfile::tempdir().unwrap();
    for place in ["a", "b"] {
        fs::create_dir(folder.path().join(place)).unwrap();
    }
    fs::copy(root().join("policies/kvm.yaml"), folder.path().join("a/x.yaml")).unwrap();
    fs::copy(root().join("policies/tun.yaml"), folder.path().join("b/x.yaml")).unwrap();
    let (a, b) = (folder.path().join("a"), folder.path().join("b"));
    let (a, b) = (a.to_str().unwrap(), b.to_str().unwrap());
    for (flags, words) in [
        (&["--url=http://host"][..], "over https only"),
        (&["--url=https://host/path"], "devgrant adds the paths"),
        (&["--url=https://user@host"], "and no more"),
        (&["--url=https://host", "--cert-manager"], "cannot be used with"),
        (&["--ca-bundle=missing.pem"], "flag --ca-bundle: missing.pem: No such file"),
        (&["--failure-policy=open"], "write `Fail` or `Ignore`"),
        (&["--replicas=0"], "--replicas"),
        (&["--image=a b"], "write NAME:TAG"),
        (&["--advise=rollouts"], "argoproj.io/v1alpha1/rollouts"),
        (&["--only=all"], "--only"),
        (
            &["--kubernetes-version=1.29"],
            "flag --kubernetes-version: devgrant runs on Kubernetes 1.30 and later",
        ),
        (&["--policies", a, "--policies", b], "x.yaml: a second policy file of this name"),
    ] {
        fails(flags, &[words]);
    }
}

#[track_caller]
fn fails(flags: &[&str], words: &[&str]) {
    let ran = devgrant(flags);
    assert_eq!((ran.status, ran.stdout.as_str()), (2, ""), "{flags:?}: {}", ran.stderr);
    for word in words {
        assert!(ran.stderr.contains(word), "{flags:?}: {}\nshould say: {word}", ran.stderr);
    }
}

/// `docs/rbac.md`.
fn rbac_page() -> String {
    let mut page = "\
# What devgrant may do in a cluster

Each verb of the server's roles, and why; `devgrant manifests --only rbac` prints the roles. Both are made from
`src/registration/rbac.rs`: nothing is granted that is not here. In particular nothing about pods: they come to the
server in reviews, and the API server writes what it answers. `devgrant scan` asks with the rights of whoever runs it.
"
    .to_owned();
    for (scope, title) in [
        (Scope::Cluster, "In the whole cluster (ClusterRole `devgrant`)"),
        (Scope::Namespace, "In its own namespace (Role `devgrant`)"),
    ] {
        write!(
            page,
            "\n## {title}\n\n| resource | verb | why | when |\n| --- | --- | --- | --- |\n"
        )
        .unwrap();
        for grant in GRANTS.iter().filter(|grant| grant.scope == scope) {
            let group = if grant.group.is_empty() { "" } else { "." };
            let name = grant.name.map(|name| format!(" `{name}` only")).unwrap_or_default();
            let when = match grant.when {
                When::Always => "always",
                When::OwnAuthority => "own authority",
                When::Nodes => "`--nodes`",
            };
            for (verb, why) in grant.verbs {
                writeln!(
                    page,
                    "| `{}{group}{}`{name} | {verb} | {why} | {when} |",
                    grant.resource, grant.group
                )
                .unwrap();
            }
        }
    }
    page.push_str(
        "
*Own authority*: the default, without `--cert-manager` and `--ca-bundle`. With either of them the server has its
certificate from files: it reads no Secret through the API, writes no `caBundle`, and needs no Lease.

No `create` of Secrets: whoever may create one may get a token of any service account of the namespace.
So the Secret `devgrant-authority` comes with the installation, empty, and the server fills it.

**What a stolen token of the server could do.** RBAC knows no fields: `patch` of the webhook configurations is
used for `caBundle` alone, and would let whoever holds the token widen the rules to every resource of the cluster and
send the reviews elsewhere. That is as good as cluster-admin. No webhook can forbid it, since none is asked about
webhook configurations; a ValidatingAdmissionPolicy is asked. [One](../deploy/ca-bundle-alone.yaml) holds the server to
`caBundle`, and is not part of the installation: `kubectl apply --server-side -f deploy/ca-bundle-alone.yaml`. A stolen
token can still write a `caBundle` that nobody can be reached by, and so stop every pod that asks. Or have
cert-manager keep the certificate and the `caBundle` (`--cert-manager`): then the server may read the two
configurations, and write neither.

Whoever may write the webhook configurations, the guard, the ConfigMap `devgrant-policies` or anything else
in the server's namespace decides what pods get: give that to nobody but those who administer the cluster.

Cluster tests show it: the server runs with these rights, uses each, and lacks none
(`serving::follows_its_policies`); `rights::create_is_bound_to_no_name`;
`rights::no_webhook_judges_webhook_configurations`, `rights::a_policy_judges_webhook_configurations`,
`serving::a_policy_holds_it_to_the_bundle`. Who makes tokens of Secrets is
`pkg/controller/serviceaccount/tokens_controller.go` of kubernetes/kubernetes 1.36.3.
",
    );
    page
}

fn of_kinds(objects: &[Value], kinds: &[&str]) -> Vec<Value> {
    let named = |object: &&Value| kinds.iter().any(|kind| object["kind"] == *kind);
    objects.iter().filter(named).cloned().collect()
}

fn documents(objects: &[Value]) -> String {
    let texts: Vec<String> =
        objects.iter().map(|object| devgrant::cli::output::yaml(object).unwrap()).collect();
    format!("# Made by `devgrant manifests`; a test keeps it so.\n---\n{}", texts.join("---\n"))
}

fn objects(flags: &[&str]) -> Vec<Value> {
    let flags: Vec<&str> = flags.iter().copied().chain(["--output=json"]).collect();
    let list: Value = serde_json::from_str(&printed(&flags)).unwrap();
    list["items"].as_array().unwrap().clone()
}

fn printed(flags: &[&str]) -> String {
    let ran = devgrant(flags);
    assert_eq!((ran.status, ran.stderr.as_str()), (0, ""), "{flags:?}");
    ran.stdout
}

fn devgrant(flags: &[&str]) -> Ran {
    Ran::of(program().current_dir(root()).arg("manifests").args(flags))
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}
