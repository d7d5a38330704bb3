//! A server on real sockets, and a client that speaks HTTP by hand, so that it can speak it badly.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up is a failed test")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use devgrant::metrics::Metrics;
use devgrant::server::{Error, Limits, Server};
use devgrant::shutdown::{Shutdown, Trigger};
use devgrant::tls::{Source, authority};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::server::{REVIEW, metrics, namespaces, policies};

/// Longer than anything here takes on a slow machine; only a test that fails ever waits for it.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);
/// For limits that are not what a test is about.
pub(crate) const LONG: Duration = Duration::from_mins(10);

/// Waits for an event that has to come.
#[track_caller]
pub(crate) fn soon<T>(event: impl Future<Output = T>) -> impl Future<Output = T> {
    let caller = std::panic::Location::caller();
    async move {
        match tokio::time::timeout(PATIENCE, event).await {
            Ok(event) => event,
            Err(_) => unreachable!("waited in vain at {caller}"),
        }
    }
}

/// Limits that nothing runs into, and no delay at the end.
pub(crate) fn limits() -> Limits {
    Limits {
        handshake: LONG,
        head: LONG,
        body: LONG,
        write: LONG,
        idle: LONG,
        age: LONG,
        age_grace: LONG,
        shutdown_delay: Duration::ZERO,
        drain: LONG,
        ..Limits::default()
    }
}

pub(crate) fn own_authority() -> Source {
    Source::Authority { names: authority::names("devgrant-system") }
}

pub(crate) fn server(certificate: Source, limits: Limits) -> Server {
    let metrics = metrics();
    Server {
        listen: ([127, 0, 0, 1], 0).into(),
        health: ([127, 0, 0, 1], 0).into(),
        certificate,
        limits,
        policies: policies(&metrics),
        namespaces: namespaces(),
        nodes: None,
        cluster: None,
        metrics,
        traces: None,
    }
}

/// A server that runs.
pub(crate) struct Running {
    pub(crate) https: SocketAddr,
    pub(crate) plain: SocketAddr,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) shutdown: Trigger,
    pub(crate) ended: JoinHandle<Result<(), Error>>,
    roots: RootCertStore,
}

impl Running {
    /// With a certificate of its own authority.
    pub(crate) async fn new(limits: Limits) -> Self {
        Self::start(server(own_authority(), limits), None).await
    }

    /// With any certificate; `trusted` is what clients trust, PEM, if it is not the own authority.
    pub(crate) async fn start(server: Server, trusted: Option<&str>) -> Self {
        let metrics = Arc::clone(&server.metrics);
        let bound = server.bind().await.unwrap();
        let mut roots = RootCertStore::empty();
        let trusted = trusted.or_else(|| bound.authority_pem()).unwrap();
        for certificate in CertificateDer::pem_slice_iter(trusted.as_bytes()) {
            roots.add(certificate.unwrap()).unwrap();
        }
        let (shutdown, asked) = Shutdown::by_hand();
        Self {
            https: bound.listen_address().unwrap(),
            plain: bound.health_address().unwrap(),
            metrics,
            shutdown,
            ended: tokio::spawn(bound.run(asked)),
            roots,
        }
    }

    /// A TLS connection as the API server makes it.
    pub(crate) async fn connect(&self) -> Client<TlsStream<TcpStream>> {
        self.try_connect(&[b"http/1.1"]).await.unwrap()
    }

    pub(crate) async fn try_connect(
        &self,
        protocols: &[&[u8]],
    ) -> std::io::Result<Client<TlsStream<TcpStream>>> {
        self.secured(TcpStream::connect(self.https).await?, protocols).await
    }

    /// TLS over a connection to the HTTPS port.
    pub(crate) async fn secured(
        &self,
        stream: TcpStream,
        protocols: &[&[u8]],
    ) -> std::io::Result<Client<TlsStream<TcpStream>>> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.roots.clone())
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        let name = ServerName::try_from("localhost").unwrap();
        let connecting = TlsConnector::from(Arc::new(config)).connect(name, stream);
        Ok(Client(soon(connecting).await?))
    }

    /// A `GET` of the plain port: the status and the body.
    pub(crate) async fn get(&self, path: &str) -> Answer {
        let mut client = Client(TcpStream::connect(self.plain).await.unwrap());
        client.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n")).await;
        client.answer().await
    }

    /// Waits until a line is among the metrics.
    #[track_caller]
    pub(crate) fn counts(&self, line: &str) -> impl Future<Output = ()> {
        soon(async move {
            while !self.metrics.text().contains(line) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
    }
}

/// One HTTP answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The head, in lower case.
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn closes(&self) -> bool {
        self.head.contains("\r\nconnection: close\r\n")
    }
}

/// One connection.
pub(crate) struct Client<S>(pub(crate) S);

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        soon(self.0.write_all(bytes.as_ref())).await.unwrap();
        soon(self.0.flush()).await.unwrap();
    }

    /// The answer to a small review.
    pub(crate) async fn ask(&mut self) -> Answer {
        self.send(head(REVIEW.len()) + REVIEW).await;
        self.answer().await
    }

    pub(crate) async fn answer(&mut self) -> Answer {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(soon(self.0.read_u8()).await.unwrap());
        }
        let head = String::from_utf8(head).unwrap().to_lowercase();
        let after =
            |what: &str| head.split(what).nth(1).and_then(|rest| rest.split_whitespace().next());
        let length = after("\r\ncontent-length:").unwrap().parse().unwrap();
        let status = after("http/1.1").unwrap().parse().unwrap();
        let mut body = vec![0; length];
        soon(self.0.read_exact(&mut body)).await.unwrap();
        Answer { status, head, body: String::from_utf8(body).unwrap() }
    }

    /// Waits until the server closes the connection, and says after how long it did. What it still
    /// sends is read.
    #[track_caller]
    pub(crate) fn closed(&mut self) -> impl Future<Output = Duration> {
        let begun = std::time::Instant::now();
        soon(async move {
            let mut buffer = [0; 1024];
            while let Ok(1..) = self.0.read(&mut buffer).await {}
            begun.elapsed()
        })
    }
}

/// The head of a review with a body of so many bytes.
pub(crate) fn head(length: usize) -> String {
    format!(
        "POST /mutate?timeout=10s HTTP/1.1\r\nHost: localhost\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    )
}
