//! The null server: reads a review and answers a constant. What it costs is TLS and HTTP, and all that a
//! webhook of these crates costs before it does anything.
//!
//! TLS is set up as devgrant's (`config` in `src/tls.rs`), and so is HTTP/1.1 (`src/server/connection.rs`);
//! the harness holds that the crates below are of the same versions. Used as
//! `devgrant-load-null ADDRESS:PORT CERTIFICATE KEY`. An API server takes no answer with another uid than
//! its own: with `--uid` at the end the first one in the body is answered, and with `--uid PATCH` that
//! patch, which is in Base64, to every review.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use axum::Router;
use axum::body::Body;
use axum::http::{Request, header};
use axum::routing::post;
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;

const BEFORE: &str =
    r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","response":{"uid":""#;
const UID: &str = "75c1d2db-9ecf-485c-bf67-96da40046792";
const AFTER: &str = r#"","allowed":true}}"#;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut next = move |what: &'static str| arguments.next().context(what);
    let address: SocketAddr = next("no address")?.parse()?;
    let certificate = CertificateDer::from_pem_file(next("no certificate")?)?;
    let key = PrivateKeyDer::from_pem_file(next("no key")?)?;
    let tls = TlsAcceptor::from(Arc::new(config(certificate, key)?));
    let json = [(header::CONTENT_TYPE, "application/json")];
    let constant = Bytes::from([BEFORE, UID, AFTER].concat());
    let route = if next("no --uid").is_ok_and(|last| last == "--uid") {
        let after = match next("no patch") {
            Ok(patch) => {
                format!(r#"","allowed":true,"patchType":"JSONPatch","patch":"{patch}"}}}}"#)
            }
            Err(_) => AFTER.to_owned(),
        };
        post(async move |body: Bytes| {
            let uid = uid(&body).unwrap_or(UID);
            (json, [BEFORE, uid, &after].concat())
        })
    } else {
        post(async move |_: Bytes| (json, constant.clone()))
    };
    let routes = Router::new().route("/mutate", route);
    let listener = TcpListener::bind(address).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        let (tls, routes) = (tls.clone(), routes.clone());
        tokio::spawn(async move {
            stream.set_nodelay(true)?;
            let stream = tls.accept(stream).await?;
            let service = service_fn(move |request: Request<Incoming>| {
                routes.clone().oneshot(request.map(Body::new))
            });
            http1::Builder::new()
                .header_read_timeout(None)
                .max_buf_size(64 * 1024)
                .serve_connection(TokioIo::new(stream), service)
                .await?;
            anyhow::Ok(())
        });
    }
}

/// The first uid in a body, which is that of the review: `request` begins with it.
fn uid(body: &[u8]) -> Option<&str> {
    let (_, rest) = str::from_utf8(body).ok()?.split_once(r#""uid":""#)?;
    rest.split('"').next()
}

fn config(
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
) -> Result<ServerConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
