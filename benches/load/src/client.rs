//! The one client of all servers: TLS 1.3, HTTP/1.1, connections that are kept.
//!
//! Closed loop: each connection sends its next review when it has the answer to the last one. One thread,
//! so that the other processor is the server's.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::task::LocalSet;
use tokio_rustls::TlsConnector;

#[derive(Clone)]
pub struct Client {
    tls: TlsConnector,
}

/// What many reviews came to.
pub struct Run {
    /// Of each answered review, sorted.
    pub latencies: Vec<Duration>,
    /// Reviews without an answer of status 200.
    pub lost: usize,
}

impl Run {
    /// The latency below which such a part of the reviews is; `part` from 0 to 1.
    pub fn quantile(&self, part: f64) -> Duration {
        let at = (self.latencies.len() as f64 * part).ceil() as usize;
        self.latencies.get(at.saturating_sub(1)).copied().unwrap_or_default()
    }
}

/// From when the latency of a review counts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// From when it is sent.
    Sent,
    /// From the start of the run: all were due at once.
    Start,
}

impl Client {
    /// Trusts one certificate.
    pub fn trusting(pem: &str) -> anyhow::Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(pem.as_bytes())?)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { tls: TlsConnector::from(Arc::new(config)) })
    }

    /// One review over a connection of its own.
    pub async fn once(&self, address: SocketAddr, review: &[u8]) -> anyhow::Result<Bytes> {
        let mut connection = self.connect(address).await?;
        post(&mut connection, Bytes::copy_from_slice(review)).await
    }

    async fn connect(&self, address: SocketAddr) -> anyhow::Result<SendRequest<Full<Bytes>>> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let stream = self.tls.connect(ServerName::try_from("localhost")?, stream).await?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(sender)
    }

    /// Sends so many reviews over so many connections; `before` is called when all of them are open and
    /// have had one answer.
    pub async fn drive(
        &self,
        address: SocketAddr,
        review: &Bytes,
        connections: usize,
        reviews: usize,
        from: From,
        before: impl FnOnce(),
    ) -> anyhow::Result<Run> {
        let mut open = Vec::new();
        for _ in 0..connections {
            let mut connection = self.connect(address).await?;
            post(&mut connection, review.clone()).await?;
            open.push(connection);
        }
        let left = Rc::new(Cell::new(reviews));
        let lost = Rc::new(Cell::new(0));
        let here = LocalSet::new();
        before();
        let begin = Instant::now();
        let tasks: Vec<_> = open
            .into_iter()
            .map(|mut connection| {
                let (left, lost, review) = (Rc::clone(&left), Rc::clone(&lost), review.clone());
                let client = self.clone();
                here.spawn_local(async move {
                    let mut latencies = Vec::new();
                    while let Some(rest) = left.get().checked_sub(1) {
                        left.set(rest);
                        // A server may close a connection between two reviews, as ours does when it is old.
                        if connection.ready().await.is_err()
                            && let Ok(another) = client.connect(address).await
                        {
                            connection = another;
                        }
                        let sent = if from == From::Start { begin } else { Instant::now() };
                        match post(&mut connection, review.clone()).await {
                            Ok(_) => latencies.push(sent.elapsed()),
                            Err(_) => lost.set(lost.get() + 1),
                        }
                    }
                    latencies
                })
            })
            .collect();
        let mut latencies = Vec::with_capacity(reviews);
        here.run_until(async {
            for task in tasks {
                latencies.extend(task.await?);
            }
            anyhow::Ok(())
        })
        .await?;
        latencies.sort_unstable();
        Ok(Run { latencies, lost: lost.get() })
    }
}

async fn post(connection: &mut SendRequest<Full<Bytes>>, review: Bytes) -> anyhow::Result<Bytes> {
    let request = Request::post("/mutate?timeout=10s")
        .header(header::HOST, "localhost")
        .header(header::USER_AGENT, "kube-apiserver-admission")
        .header(header::ACCEPT, "application/json, */*")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(review))?;
    let response = connection.send_request(request).await?;
    let status = response.status();
    let answer = response.into_body().collect().await?.to_bytes();
    ensure!(status.is_success(), "{status}");
    Ok(answer)
}
