//! The null server: reads a review and answers a constant. What it costs is TLS and HTTP, and all that a
//! webhook of these crates costs before it does anything.
//!
//! TLS is devgrant's own code; HTTP is hyper's HTTP/1.1 with an axum route, as devgrant has it. Used as
//! `devgrant-load-null ADDRESS:PORT CERTIFICATE KEY`.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::body::Body;
use axum::http::{Request, header};
use axum::routing::post;
use bytes::Bytes;
use devgrant::tls::Source;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;

const ANSWER: &str = r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","response":{"uid":"75c1d2db-9ecf-485c-bf67-96da40046792","allowed":true}}"#;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut next = move |what: &'static str| arguments.next().context(what);
    let address: SocketAddr = next("no address")?.parse()?;
    let certificate = next("no certificate")?.into();
    let key = next("no key")?.into();
    let source = Source::Files { certificate, key, reread: Duration::from_hours(1) };
    let tls = TlsAcceptor::from(source.load().await?.config());
    let routes = Router::new().route(
        "/mutate",
        post(async |_: Bytes| ([(header::CONTENT_TYPE, "application/json")], ANSWER)),
    );
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
