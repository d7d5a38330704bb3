//! One connection, from its handshake to its end.

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, Request, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, BufReader};
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;

use super::limits::Limits;
use super::pace::{Pace, Paced};
use super::throttle::Throttle;
use super::{Stage, draining};

/// What all connections of a port have in common.
#[derive(Clone)]
pub(super) struct Service {
    pub(super) router: Router,
    /// `None` on the plain port.
    pub(super) tls: Option<TlsAcceptor>,
    pub(super) limits: Limits,
    /// Notified when a connection waits for a place: an idle one gives up its own.
    pub(super) wanted: Arc<Notify>,
    /// Of callers that do not trust our certificate.
    pub(super) distrusted: Arc<Throttle>,
}

impl Service {
    /// Serves one connection to its end, and no longer than a connection may live.
    pub(super) async fn serve(self, stream: TcpStream, stage: watch::Receiver<Stage>) {
        // An answer is one small write; Nagle's algorithm would keep it back for an acknowledgement.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "no TCP_NODELAY");
        }
        let life = self.limits.age + self.limits.age_grace;
        if timeout(life, self.secured(stream, stage)).await.is_err() {
            tracing::debug!("connection cut off at its greatest age");
        }
    }

    async fn secured(self, stream: TcpStream, mut stage: watch::Receiver<Stage>) {
        let Some(acceptor) = &self.tls else {
            return self.http(stream, stage).await;
        };
        let peer = stream.peer_addr().ok();
        // rustls reads 4 KiB at a time, and a review has more than two of them.
        let stream = BufReader::with_capacity(RECEIVED, stream);
        let handshake = timeout(self.limits.handshake, acceptor.accept(stream));
        // A handshake that is given up when the server stops loses no request.
        let stream = tokio::select! {
            handshake = handshake => handshake,
            () = draining(&mut stage) => return,
        };
        match stream {
            Ok(Ok(stream)) => self.http(stream, stage).await,
            Ok(Err(error)) if distrusts(&error) => {
                if let Some(unsaid) = self.distrusted.due() {
                    tracing::warn!(
                        %error,
                        peer = peer.map(|peer| tracing::field::display(peer.ip())),
                        unsaid,
                        "a caller does not trust our certificate; does its caBundle name our authority?"
                    );
                }
            }
            Ok(Err(error)) => tracing::debug!(%error, "no TLS handshake"),
            Err(_) => tracing::debug!("the TLS handshake took too long"),
        }
    }

    async fn http<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        mut stage: watch::Receiver<Stage>,
    ) {
        let opened = Instant::now();
        let pace = Pace::new();
        let stream = Paced::new(stream, pace.clone(), &self.limits, &self.wanted);
        let now = stage.clone();
        let service = service_fn(|request: Request<Incoming>| {
            pace.request();
            let answer = self.router.clone().oneshot(request.map(Body::new));
            let (pace, now) = (&pace, &now);
            async move {
                let mut response = answer.await?;
                // The polite way to end a connection: the client knows before it sends again, so
                // no request is lost. From the first signal on it moves clients to other replicas.
                if opened.elapsed() > self.limits.age || *now.borrow() != Stage::Serving {
                    let close = HeaderValue::from_static("close");
                    response.headers_mut().insert(header::CONNECTION, close);
                }
                pace.answer();
                Ok::<_, Infallible>(response)
            }
        });
        let mut connection = pin!(
            http1::Builder::new()
                // `Paced` knows a slow head from an idle connection; hyper's timer does not.
                .header_read_timeout(None)
                .max_buf_size(BUFFER)
                .serve_connection(TokioIo::new(stream), service)
        );
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = draining(&mut stage) => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "connection broke off");
        }
    }
}

/// Whether a handshake failed since the peer does not trust our certificate. Every review is lost
/// while an API server does that, and nothing else here would say so; other failed handshakes are
/// port scanners.
fn distrusts(error: &io::Error) -> bool {
    use rustls::AlertDescription as Alert;

    let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
    matches!(
        cause,
        Some(rustls::Error::AlertReceived(
            Alert::BadCertificate
                | Alert::CertificateExpired
                | Alert::CertificateUnknown
                | Alert::UnknownCA
        ))
    )
}

/// What hyper may buffer of a connection, and so the longest head: that of the API server is less
/// than 1 KiB, and hyper's own 400 KiB would be 400 MiB for a thousand connections.
const BUFFER: usize = 64 * 1024;
/// What is received at once: the longest TLS record, and so an ordinary review.
const RECEIVED: usize = 16 * 1024;
