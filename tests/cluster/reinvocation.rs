//! A second webhook changes the pod after us, and the API server asks us again.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use libtest_mimic::Trial;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

use crate::control_plane::{ControlPlane, Plane, ServerCertificate};
use crate::process::soon;
use crate::requests::{FUSE, STAMP, asking};
use crate::trial;
use crate::webhook::{MUTATING, Options, Webhook};

pub(crate) fn trials(plane: &Plane) -> Vec<Trial> {
    CASES
        .iter()
        .map(|case| {
            trial(format!("reinvocation::{}", case.name), plane, move |plane| sidecar(plane, case))
        })
        .collect()
}

/// A pod that another webhook gives a first container.
struct Case {
    name: &'static str,
    /// Whether that webhook is asked before ours.
    comes_first: bool,
    annotations: &'static [(&'static str, &'static str)],
    /// Who has the device in the end: the container that was put there, and the pod's own.
    devices: [bool; 2],
    /// How often ours is asked.
    rounds: u64,
    warnings: &'static [&'static str],
}

const CASES: &[Case] = &[
    Case {
        name: "the_primary_container_stays_the_one_of_the_first_round",
        comes_first: false,
        annotations: &[],
        devices: [false, true],
        rounds: 2,
        warnings: &[],
    },
    Case {
        name: "all_containers_are_those_of_the_last_round",
        comes_first: false,
        annotations: &[("devices.example/containers", "*")],
        devices: [true, true],
        rounds: 2,
        warnings: &[],
    },
    Case {
        name: "who_was_put_in_front_before_is_the_first_container",
        comes_first: true,
        annotations: &[],
        devices: [true, false],
        rounds: 1,
        warnings: &["no container is named: injected, the first of 2, gets fuse"],
    },
    Case {
        name: "the_default_container_is_who_is_meant",
        comes_first: true,
        annotations: &[("kubectl.kubernetes.io/default-container", "c")],
        devices: [false, true],
        rounds: 1,
        warnings: &[],
    },
];

fn sidecar(plane: &ControlPlane, case: &Case) {
    let webhook = Webhook::start(plane, &Options::default());
    let injector = Injector::start(plane, webhook.labels(), case.comes_first);
    let pods = format!("/api/v1/namespaces/{}/pods", webhook.namespace(plane));
    let mut pod = asking();
    for (key, value) in case.annotations {
        pod["metadata"]["annotations"][key] = json!(value);
    }
    let before = webhook.answered();
    let answer = plane.call("POST", &pods, Some(&pod));
    assert_eq!(answer.status, 201, "{}", answer.message());
    assert_eq!(answer.warnings, case.warnings);
    let containers = answer.body["spec"]["containers"].as_array().unwrap();
    let names: Vec<&Value> = containers.iter().map(|container| &container["name"]).collect();
    assert_eq!(names, ["injected", "c"]);
    let has = |container: &Value| container["resources"]["limits"][FUSE] == "1";
    assert_eq!([has(&containers[0]), has(&containers[1])], case.devices);
    let stamp = answer.body["metadata"]["annotations"][STAMP].as_str().unwrap();
    let stamp: Value = serde_json::from_str(stamp).unwrap();
    let devices = names.iter().zip(case.devices).filter(|(_, has)| *has);
    let stamped: Vec<&Value> = devices.map(|(name, _)| *name).collect();
    assert_eq!(stamp["grants"][0]["containers"], json!(stamped));
    assert_eq!(webhook.answered(), before + case.rounds);
    assert!(injector.asked.load(Ordering::Relaxed) > 0);
}

/// A webhook that puts a container in front of the others.
struct Injector {
    asked: Arc<AtomicUsize>,
}

impl Injector {
    /// Serves until the tests end, registered to be asked before or after ours.
    fn start(plane: &ControlPlane, labels: &Value, comes_first: bool) -> Self {
        let certificate = ServerCertificate::new();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let config = Arc::new(server_config(&certificate));
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
                counter.fetch_add(1, Ordering::Relaxed);
                // One request a connection; a peer that goes away is its own affair.
                let _ = answer(StreamOwned::new(connection, stream.unwrap()));
            }
        });
        // Webhooks are asked in the order of the names of their configurations.
        let name = format!("{}-injector-{port}", if comes_first { "aa" } else { "zz" });
        let registration = json!({
            "metadata": { "name": name },
            "webhooks": [{
                "name": "inject.sidecar.example",
                "admissionReviewVersions": ["v1"],
                "sideEffects": "None",
                "clientConfig": {
                    "url": format!("https://127.0.0.1:{port}/"),
                    "caBundle": STANDARD.encode(&certificate.authority),
                },
                "namespaceSelector": { "matchLabels": labels },
                "rules": [{
                    "operations": ["CREATE"],
                    "apiGroups": [""],
                    "apiVersions": ["v1"],
                    "resources": ["pods"],
                }],
            }],
        });
        plane.create(MUTATING, &registration);
        let pods = format!("/api/v1/namespaces/{}/pods?dryRun=All", plane.namespace(labels));
        let probe = json!({
            "metadata": { "name": "probe" },
            "spec": { "containers": [{ "name": "c", "image": "x" }] },
        });
        soon("the injector to be in force", || {
            let pod = plane.call("POST", &pods, Some(&probe)).body;
            (pod["spec"]["containers"].as_array()?.len() == 2).then_some(())
        });
        Self { asked }
    }
}

fn server_config(certificate: &ServerCertificate) -> ServerConfig {
    let chain = vec![CertificateDer::from_pem_slice(certificate.certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(certificate.key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap()
}

/// Reads one review and answers it.
fn answer(stream: StreamOwned<ServerConnection, TcpStream>) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let line = line.trim().to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().map_err(std::io::Error::other)?;
        }
        if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    let review: Value = serde_json::from_slice(&body)?;
    let container = json!({ "name": "injected", "image": "registry.example/injected:1" });
    let patch = json!([{ "op": "add", "path": "/spec/containers/0", "value": container }]);
    let answer = json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "response": {
            "uid": review["request"]["uid"],
            "allowed": true,
            "patchType": "JSONPatch",
            "patch": STANDARD.encode(patch.to_string()),
        },
    })
    .to_string();
    let mut stream = stream.into_inner();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{answer}",
        answer.len()
    )?;
    stream.conn.send_close_notify();
    stream.flush()
}
