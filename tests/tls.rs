//! The server on real sockets: TLS, slow and oversized clients, certificates that change, leaving.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot be set up is a failed test"
)]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use devgrant::server::{Error, Limits};
use devgrant::tls::Source;
use tempfile::TempDir;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

mod support {
    pub(crate) mod running;
    pub(crate) mod server;
}
use support::running::{Client, LONG, Running, head, limits, own_authority, server, soon};
use support::server::REVIEW;

/// A limit that a test runs into.
const SHORT: Duration = Duration::from_millis(150);

#[tokio::test]
async fn reviews_are_answered_over_http_1_on_one_connection() {
    let running = Running::new(limits()).await;
    let mut client = running.connect().await;
    assert_eq!(client.0.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    for _ in 0..3 {
        let answer = client.ask().await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(answer.body.contains("705ab4f5"), "{answer:?}");
        assert!(!answer.closes(), "{answer:?}");
    }
    running.counts("devgrant_connections 1").await;

    let both = running.try_connect(&[b"h2", b"http/1.1"]).await.unwrap();
    assert_eq!(both.0.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    assert!(running.try_connect(&[b"h2"]).await.is_err(), "HTTP/2 is not served");
}

#[tokio::test]
async fn clients_that_stand_still_are_left() {
    let handshake = Running::new(Limits { handshake: SHORT, ..limits() }).await;
    let mut silent = Client(TcpStream::connect(handshake.https).await.unwrap());
    assert!(silent.closed().await >= SHORT / 2, "no ClientHello");

    let running = Running::new(Limits { head: SHORT, ..limits() }).await;
    assert!(running.connect().await.closed().await >= SHORT / 2, "TLS, no bytes");
    let mut partial = running.connect().await;
    partial.send("POST /mutate HTTP/1.1\r\nHost: loc").await;
    assert!(partial.closed().await >= SHORT / 2, "half a head");
    let mut plain = Client(TcpStream::connect(running.plain).await.unwrap());
    plain.send("GET /livez HT").await;
    assert!(plain.closed().await >= SHORT / 2, "half a head on the plain port");

    let body = Running::new(Limits { body: SHORT, ..limits() }).await;
    let mut partial = body.connect().await;
    partial.send(head(1000) + REVIEW).await;
    let answer = partial.answer().await;
    assert_eq!(answer.status, 408, "{answer:?}");
    partial.closed().await;
    body.counts("devgrant_connections 0").await;
}

#[tokio::test]
async fn an_idle_connection_outlives_the_time_of_a_head_and_the_next_head_does_not() {
    let running = Running::new(Limits { head: SHORT, ..limits() }).await;
    let mut client = running.connect().await;
    assert_eq!(client.ask().await.status, 200);
    tokio::time::sleep(SHORT * 4).await;
    assert_eq!(client.ask().await.status, 200, "idle, and then a review");
    client.send("POST /mutate HT").await;
    client.closed().await;

    let idle = Running::new(Limits { idle: SHORT, ..limits() }).await;
    let mut client = idle.connect().await;
    assert_eq!(client.ask().await.status, 200);
    assert!(client.closed().await >= SHORT / 2, "idle for too long");
}

#[tokio::test]
async fn a_body_over_the_limit_gets_an_answer_that_can_be_read() {
    const MIB: usize = 1024 * 1024;

    let running = Running::new(limits()).await;
    let mut client = running.connect().await;
    let padded = |length: usize| format!("{REVIEW}{}", " ".repeat(length - REVIEW.len()));
    client.send(head(6 * MIB) + &padded(6 * MIB)).await;
    assert_eq!(client.answer().await.status, 200, "below the limit");
    client.send(head(8 * MIB) + &padded(8 * MIB)).await;
    let answer = client.answer().await;
    assert_eq!(answer.status, 413, "{answer:?}");
    assert!(answer.body.contains("7340032 bytes"), "{answer:?}");
    // The body was read to its end, so the connection is good for more.
    assert_eq!(client.ask().await.status, 200);

    let mut waiting = running.connect().await;
    let expecting = head(8 * MIB).replace("Host:", "Expect: 100-continue\r\nHost:");
    waiting.send(expecting).await;
    assert_eq!(waiting.answer().await.status, 413, "before the body is sent");
}

#[tokio::test]
async fn a_connection_over_the_cap_waits_for_a_place() {
    let running = Running::new(Limits { connections: 1, ..limits() }).await;
    let mut first = running.connect().await;
    let (half, rest) = REVIEW.split_at(100);
    first.send(head(REVIEW.len()) + half).await;
    running.counts("devgrant_requests_in_flight 1").await;
    let mut second = Box::pin(running.connect());
    assert!(tokio::time::timeout(SHORT, &mut second).await.is_err());
    running.counts("devgrant_connections 1").await;
    first.send(rest).await;
    assert_eq!(first.answer().await.status, 200, "what is in flight is finished");
    assert_eq!(second.await.ask().await.status, 200);
    first.closed().await;
    assert_eq!(running.get("/livez").await.status, 200);
}

#[tokio::test]
async fn the_connection_that_has_been_idle_longest_makes_room_for_a_new_one() {
    let running = Running::new(Limits { connections: 3, ..limits() }).await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = running.connect().await;
        assert_eq!(client.ask().await.status, 200);
        clients.push(client);
    }
    // The first one has come first and was not idle longest.
    assert_eq!(clients[0].ask().await.status, 200);
    let mut new = running.connect().await;
    clients[1].closed().await;
    assert_eq!(new.ask().await.status, 200);
    for kept in [0, 2] {
        assert_eq!(clients[kept].ask().await.status, 200, "{kept}");
    }
}

#[tokio::test]
async fn a_peer_over_its_share_is_closed_at_once_and_the_others_get_through() {
    /// Loopback is more than one address, and so more than one peer.
    async fn from_another(address: SocketAddr) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, 2], 0).into()).unwrap();
        soon(socket.connect(address)).await.unwrap()
    }

    let running = Running::new(Limits { connections: 8, peer_connections: 2, ..limits() }).await;
    let mut held = running.connect().await;
    let silent = running.connect().await;
    assert!(running.try_connect(&[b"http/1.1"]).await.is_err());
    running.counts("devgrant_connections_refused_total 1").await;
    let other = from_another(running.https).await;
    let mut other = running.secured(other, &[b"http/1.1"]).await.unwrap();
    assert_eq!(other.ask().await.status, 200);
    assert_eq!(held.ask().await.status, 200);
    drop(silent);
    running.counts("devgrant_connections 2").await;
    assert_eq!(running.connect().await.ask().await.status, 200, "one went, one may come");

    let _first = TcpStream::connect(running.plain).await.unwrap();
    let _second = TcpStream::connect(running.plain).await.unwrap();
    Client(TcpStream::connect(running.plain).await.unwrap()).closed().await;
    running.counts("devgrant_connections_refused_total 2").await;
    let mut probe = Client(from_another(running.plain).await);
    probe.send("GET /readyz HTTP/1.1\r\nHost: test\r\n\r\n").await;
    assert_eq!(probe.answer().await.status, 200);
}

#[tokio::test]
async fn an_old_connection_is_closed_with_an_answer_or_at_last_without() {
    let running = Running::new(Limits { age: Duration::ZERO, ..limits() }).await;
    let mut client = running.connect().await;
    let answer = client.ask().await;
    assert!(answer.status == 200 && answer.closes(), "{answer:?}");
    client.closed().await;

    let grace = Limits { age: Duration::ZERO, age_grace: SHORT, ..limits() };
    let running = Running::new(grace).await;
    let mut client = running.connect().await;
    client.send(head(1000) + REVIEW).await;
    client.closed().await;
}

#[tokio::test]
async fn the_plain_port_tells_of_health_and_numbers() {
    let running = Running::new(limits()).await;
    assert_eq!(running.get("/livez").await.status, 200);
    assert_eq!(running.get("/readyz").await.body, "ok\n");
    assert_eq!(
        running.get("/readyz?verbose").await.body,
        "[+]policies ok\n[+]namespaces ok\n[+]certificate ok\n[+]shutdown ok\nreadyz check passed\n"
    );
    let metrics = running.get("/metrics").await;
    assert!(metrics.head.contains("text/plain; version=0.0.4"), "{metrics:?}");
    assert!(metrics.body.contains("devgrant_build_info"), "{metrics:?}");
    assert_eq!(running.get("/mutate").await.status, 404);
}

#[tokio::test]
async fn leaving_finishes_what_is_in_flight_and_takes_nothing_new() {
    let running = Running::new(limits()).await;
    let mut idle = running.connect().await;
    assert_eq!(idle.ask().await.status, 200);
    let mut busy = running.connect().await;
    let (first, second) = REVIEW.split_at(100);
    busy.send(head(REVIEW.len()) + first).await;
    running.counts("devgrant_requests_in_flight 1").await;

    running.shutdown.ask();
    idle.closed().await;
    soon(async { while TcpStream::connect(running.https).await.is_ok() {} }).await;
    let ready = running.get("/readyz").await;
    assert_eq!(ready.status, 503);
    assert!(ready.body.contains("[-]shutdown failed"), "{ready:?}");
    assert_eq!(running.get("/livez").await.status, 200);

    busy.send(second).await;
    let answer = busy.answer().await;
    assert!(answer.status == 200 && answer.closes(), "{answer:?}");
    soon(running.ended).await.unwrap().unwrap();
    assert!(TcpStream::connect(running.plain).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_under_load_loses_no_review() {
    let delay = Limits { shutdown_delay: SHORT * 2, ..limits() };
    let old = Arc::new(Running::new(delay).await);
    let new = Arc::new(Running::new(limits()).await);
    let mut clients = JoinSet::new();
    for _ in 0..8 {
        let (old, new) = (Arc::clone(&old), Arc::clone(&new));
        clients.spawn(async move {
            let mut client = old.connect().await;
            // As the API server does: it uses a connection until an answer closes it.
            while !client.ask().await.closes() {}
            let mut client = new.connect().await;
            assert_eq!(client.ask().await.status, 200);
        });
    }
    old.counts("devgrant_connections 8").await;
    old.shutdown.ask();
    while let Some(client) = soon(clients.join_next()).await {
        client.unwrap();
    }
    let old = Arc::into_inner(old).unwrap();
    soon(old.ended).await.unwrap().unwrap();
}

#[tokio::test]
async fn while_leaving_reviews_are_answered_and_a_second_signal_ends_it() {
    let running = Running::new(Limits { shutdown_delay: LONG, ..limits() }).await;
    let mut open = running.connect().await;
    assert!(!open.ask().await.closes());
    running.shutdown.ask();
    soon(async { while running.get("/readyz").await.status != 503 {} }).await;
    for mut client in [open, running.connect().await] {
        let answer = client.ask().await;
        assert!(answer.status == 200 && answer.closes(), "{answer:?}");
    }

    running.shutdown.ask();
    let ended = soon(running.ended).await.unwrap();
    assert!(matches!(ended, Err(Error::Aborted)), "{ended:?}");
}

#[tokio::test]
async fn a_request_that_never_ends_does_not_keep_the_server() {
    let running = Running::new(Limits { drain: SHORT, ..limits() }).await;
    let mut stuck = running.connect().await;
    stuck.send(head(1000) + REVIEW).await;
    running.counts("devgrant_requests_in_flight 1").await;
    running.shutdown.ask();
    let ended = soon(running.ended).await.unwrap();
    assert!(matches!(ended, Err(Error::DrainTooLong(SHORT))), "{ended:?}");
    stuck.closed().await;
}

#[tokio::test]
async fn a_port_in_use_is_named_by_its_flag() {
    let running = Running::new(limits()).await;
    let mut second = server(own_authority(), limits());
    second.listen = running.https;
    assert_eq!(
        second.bind().await.unwrap_err().to_string(),
        format!(
            "cannot listen on {} (--listen): address in use; stop the program that has it, or give another port",
            running.https
        )
    );
    let mut third = server(own_authority(), limits());
    third.health = running.plain;
    let error = third.bind().await.unwrap_err().to_string();
    assert!(error.contains("(--health)"), "{error}");
}

/// A folder as the kubelet mounts a Secret: files are links into `..data`, which is a link to the
/// folder of one moment.
struct Mounted {
    folder: TempDir,
    moment: u32,
}

impl Mounted {
    fn new(certificate: &str, key: &str) -> Self {
        let mut mounted = Self { folder: TempDir::new().unwrap(), moment: 0 };
        mounted.swap(certificate, key);
        for file in ["tls.crt", "tls.key"] {
            let target = Path::new("..data").join(file);
            std::os::unix::fs::symlink(target, mounted.path(file)).unwrap();
        }
        mounted
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    fn swap(&mut self, certificate: &str, key: &str) {
        self.moment += 1;
        let moment = format!("..moment_{}", self.moment);
        std::fs::create_dir(self.path(&moment)).unwrap();
        std::fs::write(self.path(&moment).join("tls.crt"), certificate).unwrap();
        std::fs::write(self.path(&moment).join("tls.key"), key).unwrap();
        std::os::unix::fs::symlink(&moment, self.path("..data_tmp")).unwrap();
        std::fs::rename(self.path("..data_tmp"), self.path("..data")).unwrap();
    }

    fn source(&self) -> Source {
        Source::Files {
            certificate: self.path("tls.crt"),
            key: self.path("tls.key"),
            reread: Duration::from_millis(10),
        }
    }
}

/// Certificates of one authority, each with its key, all PEM.
struct Authority {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: rcgen::Issuer::new(params, key), pem }
    }

    fn sign(&self, not_after: SystemTime) -> (String, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.not_after = not_after.into();
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        (leaf.pem(), key.serialize_pem())
    }
}

fn next_year() -> SystemTime {
    SystemTime::now() + Duration::from_hours(365 * 24)
}

async fn shown(running: &Running) -> Vec<u8> {
    let client = running.connect().await;
    client.0.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

#[tokio::test]
async fn certificate_files_are_swapped_as_the_kubelet_does_and_a_torn_write_changes_nothing() {
    let authority = Authority::new();
    let (certificate, key) = authority.sign(next_year());
    let mut mounted = Mounted::new(&certificate, &key);
    let running = Running::start(server(mounted.source(), limits()), Some(&authority.pem)).await;
    let mut held = running.connect().await;
    let first = shown(&running).await;

    let (certificate, key) = authority.sign(next_year());
    mounted.swap(&certificate, &key);
    running.counts(r#"devgrant_certificate_reload_total{result="swapped"} 1"#).await;
    let second = shown(&running).await;
    assert_ne!(first, second);

    let (certificate, new_key) = authority.sign(next_year());
    mounted.swap(&certificate, &key);
    running.counts(r#"devgrant_certificate_reload_total{result="kept"} 1"#).await;
    assert_eq!(second, shown(&running).await, "a new certificate with the old key");

    std::fs::remove_file(mounted.path("..data")).unwrap();
    running.counts(r#"devgrant_certificate_reload_total{result="kept"} 2"#).await;
    assert_eq!(second, shown(&running).await, "no files at all");

    mounted.swap(&certificate, &new_key);
    running.counts(r#"devgrant_certificate_reload_total{result="swapped"} 2"#).await;
    assert_ne!(second, shown(&running).await);
    assert_eq!(held.ask().await.status, 200, "a connection outlives its certificate");
}

#[tokio::test]
async fn an_expired_certificate_is_not_ready() {
    let authority = Authority::new();
    let (certificate, key) = authority.sign(SystemTime::now() - Duration::from_hours(1));
    let mut mounted = Mounted::new(&certificate, &key);
    let running = Running::start(server(mounted.source(), limits()), Some(&authority.pem)).await;
    let ready = running.get("/readyz").await;
    assert_eq!(ready.status, 503);
    assert!(ready.body.contains("[-]certificate failed: the certificate has expired"), "{ready:?}");

    let (certificate, key) = authority.sign(next_year());
    mounted.swap(&certificate, &key);
    soon(async { while running.get("/readyz").await.status != 200 {} }).await;
}

#[tokio::test]
async fn without_a_certificate_no_port_is_bound() {
    let folder = TempDir::new().unwrap();
    let source = Source::Files {
        certificate: folder.path().join("tls.crt"),
        key: folder.path().join("tls.key"),
        reread: LONG,
    };
    let error = server(source, limits()).bind().await.unwrap_err().to_string();
    assert!(error.contains("tls.crt; there is no such file"), "{error}");
}

#[tokio::test]
async fn a_shared_authority_is_followed_as_it_comes_and_changes() {
    let new = || {
        let names = devgrant::tls::authority::names("devgrant-system");
        Arc::new(devgrant::tls::authority::Authority::new(names, SystemTime::now()).unwrap())
    };
    let (first, second) = (new(), new());
    let trusted = format!("{}{}", first.pem(), second.pem());
    let (sender, authority) = tokio::sync::watch::channel(None);
    let running =
        Running::start(server(Source::Shared { authority }, limits()), Some(&trusted)).await;
    let ready = running.get("/readyz").await;
    assert_eq!(ready.status, 503);
    assert!(ready.body.contains("[-]certificate failed: there is none yet"), "{ready:?}");
    assert!(running.try_connect(&[b"http/1.1"]).await.is_err(), "there is nothing to show");

    sender.send_replace(Some(first));
    running.counts(r#"devgrant_certificate_reload_total{result="swapped"} 1"#).await;
    assert_eq!(running.get("/readyz").await.status, 200);
    let mut held = running.connect().await;
    let shown_first = shown(&running).await;

    sender.send_replace(Some(second));
    running.counts(r#"devgrant_certificate_reload_total{result="swapped"} 2"#).await;
    assert_ne!(shown(&running).await, shown_first);
    drop(sender);
    assert_eq!(held.ask().await.status, 200, "a connection outlives its certificate");
    assert_eq!(running.get("/readyz").await.status, 200, "and the last one stays");
}
