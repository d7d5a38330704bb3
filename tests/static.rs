#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on says where and stops"
)]
//! The image's program where the image runs it: nothing beside it, a root that is read only, no rights.
//!
//! `.ci/static` builds the program and runs this. A file system of one file is made with `unshare` and
//! `chroot`: by root, or by anybody where the kernel lets users make namespaces.

#[path = "static/api_server.rs"]
mod api_server;
#[path = "static/empty_root.rs"]
mod empty_root;
#[path = "static/name_server.rs"]
mod name_server;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use api_server::ApiServer;
use empty_root::EmptyRoot;
use name_server::NameServer;

/// Somewhat more than the program has today, so that a dependency that doubles it is noticed.
const MOST_BYTES: u64 = 17_900_000;

#[test]
fn it_is_static_small_and_anywhere_in_memory() {
    let program = program();
    let headers = readelf(&["--program-headers", "--wide"], &program);
    assert!(headers.contains("LOAD"), "{headers}");
    assert!(!headers.contains("INTERP"), "it asks for a dynamic linker:\n{headers}");
    let dynamic = readelf(&["--dynamic", "--wide"], &program);
    assert!(!dynamic.contains("NEEDED"), "it asks for libraries:\n{dynamic}");
    // Rust makes no static program for arm64 that may lie anywhere.
    if cfg!(target_arch = "x86_64") {
        let kind = readelf(&["--file-header"], &program);
        assert!(kind.contains("DYN (Position-Independent Executable file)"), "{kind}");
    }
    let bytes = fs::metadata(&program).unwrap().len();
    assert!(bytes <= MOST_BYTES, "{bytes} bytes, at most {MOST_BYTES} are wanted");
}

#[test]
fn it_serves_with_nothing_beside_it() {
    let root = EmptyRoot::new(&program(), &[]);
    let mut server =
        root.spawn(&["serve", "--standalone", "--listen=127.0.0.1:0", "--health=127.0.0.1:0"], &[]);
    let said = server.says_until("-----END CERTIFICATE-----");
    assert!(said.contains("set TMPDIR"), "{said}");
    let address = |word: &str| -> SocketAddr {
        let line = said.lines().find(|line| line.trim_start().starts_with(word)).unwrap();
        line.split("://").nth(1).unwrap().split('/').next().unwrap().parse().unwrap()
    };

    let mut plain = TcpStream::connect(address("health")).unwrap();
    let answer = ask(&mut plain, "GET", "/readyz", "");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");

    let review = include_str!("../examples/review.json");
    let ca = said.find("-----BEGIN CERTIFICATE-----").map(|start| &said[start..]).unwrap();
    let answer = ask(&mut trusting(ca, address("reviews")), "POST", "/mutate", review);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains(r#""patchType":"JSONPatch""#), "{answer}");

    server.is_nobody();
    root.is_as_it_was();
}

/// In a cluster: the API server is the one that the environment names, by address, and credentials are
/// mounted.
#[test]
fn it_reaches_the_api_server_by_address() {
    let server = ApiServer::start();
    let said = scan(&server, "127.0.0.1", &[]);
    assert_eq!(said.status, Some(0), "{}", said.stderr);
    assert!(server.calls() > 0, "nobody called");
}

/// The kubelet mounts `/etc/hosts` and `/etc/resolv.conf` into every container, also into an empty one.
#[test]
fn it_reaches_the_api_server_by_a_name_of_etc_hosts() {
    let server = ApiServer::start();
    let hosts = [("etc/hosts", "127.0.0.1 kubernetes.test\n")];
    let said = scan(&server, "kubernetes.test", &hosts);
    assert_eq!(said.status, Some(0), "{}", said.stderr);
    assert!(server.calls() > 0, "nobody called");
}

#[test]
fn it_reaches_the_api_server_by_a_name_of_dns() {
    let Some(names) = NameServer::start("kubernetes.default.svc.cluster.test") else {
        println!("not tried: a name server needs port 53, which takes root");
        return;
    };
    let server = ApiServer::start();
    // As the kubelet writes it.
    let text = format!(
        "search default.svc.cluster.test svc.cluster.test cluster.test\nnameserver {}\noptions ndots:5\n",
        names.address()
    );
    let resolve = [("etc/resolv.conf", text.as_str())];
    let said = scan(&server, "kubernetes.default.svc", &resolve);
    assert_eq!(said.status, Some(0), "{}", said.stderr);
    assert!(server.calls() > 0, "nobody called");

    // A Pod's `hostAliases`, which no name server knows.
    let both = [resolve[0], ("etc/hosts", "127.0.0.1 kubernetes.test\n")];
    let said = scan(&server, "kubernetes.test", &both);
    assert_eq!(said.status, Some(0), "{}", said.stderr);

    let said = scan(&server, "no-such-name.test", &resolve);
    assert_eq!(said.status, Some(2), "{}", said.stderr);
    assert!(said.stderr.contains("no-such-name.test"), "{}", said.stderr);
}

#[test]
fn it_says_why_a_name_leads_nowhere() {
    let server = ApiServer::start();
    let said = scan(&server, "kubernetes.test", &[]);
    assert_eq!(said.status, Some(2), "{}", said.stderr);
    assert!(said.stderr.contains("kubernetes.test"), "{}", said.stderr);
    assert!(said.stderr.contains("lookup"), "{}", said.stderr);
    assert_eq!(server.calls(), 0);
}

/// Runs a verb that asks the API server, with what is mounted beside the program.
fn scan(server: &ApiServer, name: &str, mounted: &[(&str, &str)]) -> empty_root::Ended {
    let kubeconfig = server.kubeconfig(name);
    let mut mounted = mounted.to_vec();
    mounted.push(("kubeconfig", &kubeconfig));
    let root = EmptyRoot::new(&program(), &mounted);
    let ended = root.spawn(&["scan"], &[("KUBECONFIG", "/kubeconfig")]).end();
    root.is_as_it_was();
    ended
}

fn program() -> PathBuf {
    let Some(program) = std::env::var_os("DEVGRANT_STATIC") else {
        panic!("DEVGRANT_STATIC names no program; run .ci/static");
    };
    program.into()
}

fn readelf(flags: &[&str], program: &Path) -> String {
    let output = Command::new("readelf").args(flags).arg(program).env("LC_ALL", "C").output();
    // A part of binutils, which the C compiler needs too.
    let output = output.unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

/// One request, and all of the answer.
fn ask(stream: &mut (impl Read + Write), method: &str, path: &str, body: &str) -> String {
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// A TLS connection of a client that trusts this authority only.
fn trusting(ca: &str, address: SocketAddr) -> StreamOwned<ClientConnection, TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    StreamOwned::new(connection, TcpStream::connect(address).unwrap())
}
