//! A running `devgrant serve`: its two ports, from outside.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::{Value, json};

use crate::process::{Process, soon};

pub(crate) struct Server {
    pub(crate) process: Process,
    /// The address of reviews.
    pub(crate) reviews: String,
    /// The address of health and metrics.
    plain: String,
}

impl Server {
    /// Starts it, and waits until it says where it listens: `addresses` finds both addresses in what it
    /// wrote.
    pub(crate) fn start(
        command: &mut Command,
        log: PathBuf,
        addresses: impl Fn(&str) -> Option<(String, String)>,
    ) -> Self {
        let mut process = Process::start(command, log);
        let (reviews, plain) = soon("devgrant to serve", || {
            assert!(process.ended().is_none(), "devgrant ended:\n{}", process.text());
            addresses(&process.text())
        });
        Self { process, reviews, plain }
    }

    /// A connection that trusts these certificates, PEM, and is not the API server's.
    pub(crate) fn connect(&self, trusted: &str) -> StreamOwned<ClientConnection, TcpStream> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(trusted.as_bytes()) {
            roots.add(certificate.unwrap()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("localhost").unwrap();
        let connection = ClientConnection::new(Arc::new(config), name).unwrap();
        let socket = TcpStream::connect(&self.reviews).unwrap();
        StreamOwned::new(connection, socket)
    }

    /// What `/mutate` says of a pod that is created; null if the server shows a certificate that is not
    /// trusted, or does not answer for it.
    pub(crate) fn review(&self, trusted: &str, namespace: &str, pod: &Value) -> Value {
        let resource = json!({ "group": "", "version": "v1", "resource": "pods" });
        let kind = json!({ "group": "", "version": "v1", "kind": "Pod" });
        let body = json!({
            "apiVersion": "admission.k8s.io/v1",
            "kind": "AdmissionReview",
            "request": {
                "uid": "u", "kind": kind, "resource": resource, "operation": "CREATE",
                "namespace": namespace, "userInfo": { "username": "somebody" }, "object": pod,
            },
        })
        .to_string();
        let mut stream = self.connect(trusted);
        let head = format!(
            "POST /mutate HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        if stream.write_all((head + &body).as_bytes()).is_err() {
            return Value::Null;
        }
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        if !head.starts_with("HTTP/1.1 200") {
            return Value::Null;
        }
        serde_json::from_str::<Value>(body).unwrap()["response"].take()
    }

    /// What its counters whose lines begin so, and have `part`, add up to.
    pub(crate) fn counted(&self, beginning: &str, part: &str) -> u64 {
        let metrics = self.plain("/metrics");
        let counts = metrics.lines();
        let counts = counts.filter(|line| line.starts_with(beginning) && line.contains(part));
        counts.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    }

    /// Waits until all that is registered trusts it.
    pub(crate) fn wait_until_trusted(&self) {
        soon("the caBundle to be in force", || {
            (self.counted("devgrant_ca_bundle_in_force ", "") == 1).then_some(())
        });
    }

    /// Whether it keeps the authority for all.
    pub(crate) fn holds_the_lease(&self) -> bool {
        self.counted("devgrant_lease_held ", "") == 1
    }

    /// Holds that nothing went wrong in it, and that it lacked no right.
    #[track_caller]
    pub(crate) fn is_calm(&self) {
        let log = self.process.text();
        let bad = |line: &&str| {
            let error = line.contains("\"level\":\"ERROR\"");
            // A bad set is an error, and is put there by a test.
            (error && !line.contains("policies kept")) || line.to_lowercase().contains("forbidden")
        };
        assert_eq!(log.lines().find(bad), None);
        let answer = self.plain("/readyz?verbose");
        assert!(answer.ends_with("readyz check passed\n"), "{answer}");
    }

    /// What the plain port answers.
    pub(crate) fn plain(&self, path: &str) -> String {
        crate::api::get_plain(&self.plain, path)
    }
}

/// The program, without variables of whoever runs the tests: it refuses those that it does not know.
pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_devgrant"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("DEVGRANT_")) {
        command.env_remove(name);
    }
    command
}
