//! The server: HTTPS for reviews, a plain port for health and metrics.
//!
//! Each state is a type. A [`Server`] is what an operator asks for; [`Server::bind`] gets everything
//! that can fail at the start (the certificate, both ports) and makes it a [`Bound`]; only that can
//! [`run`](Bound::run), until its [`Shutdown`] says so.
//!
//! HTTP is hyper's HTTP/1.1 over tokio-rustls by hand, since what carries axum by default has no
//! time limit for a peer that stands still. In reading order:
//!
//! - `port`: accepting, up to so many connections, and `peers`: so many from one address
//! - `connection`: one connection, from its handshake to its end
//! - `throttle`: what may be logged of it
//! - `pace`: how long a peer may stand still
//! - `routes`: the paths, and panics
//! - `reviews`: the one handler of all three paths; `body`, `deadline` and `failure` are its parts
//! - `health`: the plain port
//!
//! **Invariant**: the handler decides nothing. What it answers is what [`admit`](crate::decision::admit),
//! [`validate`](crate::decision::validate) or [`advise`](crate::decision::advise) says, or a plain HTTP
//! error that lets `failurePolicy` rule.

mod body;
mod connection;
mod context;
mod deadline;
mod failure;
mod health;
mod limits;
mod namespaces;
mod pace;
mod peers;
mod policies;
mod port;
mod reviews;
mod routes;
mod throttle;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

pub use context::Context;
pub use limits::Limits;
pub use namespaces::Namespaces;
pub use policies::LivePolicies;
pub use routes::router;

use crate::cluster;
use crate::metrics::Metrics;
use crate::shutdown::Shutdown;
use crate::tls::{self, Certificates};
use crate::traces::Traces;
use connection::Service;
use health::Health;
use port::Port;

/// What an operator asks for.
#[derive(Debug)]
pub struct Server {
    /// Where reviews come in, over HTTPS (`--listen`).
    pub listen: SocketAddr,
    /// Where health and metrics are, over plain HTTP (`--health`).
    pub health: SocketAddr,
    /// Where the certificate comes from.
    pub certificate: tls::Source,
    /// What peers may ask of us.
    pub limits: Limits,
    /// The policies in force. Whoever reloads them keeps another handle.
    pub policies: Arc<LivePolicies>,
    /// What is known of namespaces.
    pub namespaces: Namespaces,
    /// What nodes offer, where they are watched.
    pub nodes: Option<Arc<cluster::Nodes>>,
    /// What `/readyz?verbose` tells of the cluster, where there is one.
    pub cluster: Option<Arc<cluster::Status>>,
    /// What is counted: the same metrics as those of the policies.
    pub metrics: Arc<Metrics>,
    /// What makes spans of reviews, where somebody wants some. Whoever sends them ends after the server.
    pub traces: Option<Arc<Traces>>,
}

/// A server that has its certificate and its ports, and has not answered anybody yet.
#[derive(Debug)]
pub struct Bound {
    https: TcpListener,
    plain: TcpListener,
    certificates: Arc<Certificates>,
    context: Arc<Context>,
    cluster: Option<Arc<cluster::Status>>,
}

/// Why a server does not start, or does not end well.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A second signal came before the work was done.
    #[error("stopped at once by a second signal; requests in flight were not answered")]
    Aborted,
    /// Requests took longer than the drain allows.
    #[error("requests in flight were not done {0:?} after the server began to drain")]
    DrainTooLong(std::time::Duration),
    /// A port cannot be had.
    #[error("cannot listen on {address} ({flag}): {remedy}", remedy = remedy(.source))]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The flag that names it.
        flag: &'static str,
        /// What the kernel says.
        source: io::Error,
    },
    /// A part of the server ended by itself. Ours to mend.
    #[error("a part of the server ended by itself; its log says where")]
    Stopped,
    /// There is no certificate to serve.
    #[error(transparent)]
    Tls(#[from] tls::Error),
}

impl Server {
    /// Gets the certificate and both ports.
    pub async fn bind(self) -> Result<Bound, Error> {
        let Self { listen, health, certificate, limits, policies, namespaces, .. } = self;
        let Self { nodes, cluster, metrics, traces, .. } = self;
        let certificates = Arc::new(certificate.load().await?);
        let https = bind(listen, "--listen").await?;
        let plain = bind(health, "--health").await?;
        Ok(Bound {
            https,
            plain,
            certificates,
            context: Arc::new(
                Context::new(policies, namespaces, metrics, limits)
                    .with_nodes(nodes)
                    .with_traces(traces),
            ),
            cluster,
        })
    }
}

impl Bound {
    /// Where reviews come in.
    pub fn listen_address(&self) -> io::Result<SocketAddr> {
        self.https.local_addr()
    }

    /// Where health and metrics are.
    pub fn health_address(&self) -> io::Result<SocketAddr> {
        self.plain.local_addr()
    }

    /// The certificate of our own authority in memory, which callers must trust. `None` if the
    /// certificate comes from anywhere else.
    pub fn authority_pem(&self) -> Option<&str> {
        self.certificates.authority_pem()
    }

    /// Serves until `shutdown` asks to stop, then leaves in order; a second time, at once.
    ///
    /// Leaving in order: not ready any more, and every answer closes its connection, while the
    /// cluster forgets our address; then no new connections, and what is in flight is finished.
    pub async fn run(self, mut shutdown: Shutdown) -> Result<(), Error> {
        let limits = self.context.limits.clone();
        let (stage, observed) = watch::channel(Stage::Serving);
        // Dropped at every way out of here, and with it everything that runs.
        let mut background = JoinSet::new();
        let mut https = self.start(&mut background, observed);
        tracing::info!("serving");
        tokio::select! {
            () = shutdown.asked() => {}
            _ = https.join_next() => return Err(Error::Stopped),
            _ = background.join_next() => return Err(Error::Stopped),
        }
        let leave = async {
            stage.send_replace(Stage::Leaving);
            tracing::info!(delay = ?limits.shutdown_delay, "leaving");
            tokio::time::sleep(limits.shutdown_delay).await;
            stage.send_replace(Stage::Draining);
            tracing::info!(drain = ?limits.drain, "draining");
            tokio::time::timeout(limits.drain, https.join_next())
                .await
                .map_err(|_| Error::DrainTooLong(limits.drain))
        };
        tokio::select! {
            left = leave => left?,
            () = shutdown.asked() => return Err(Error::Aborted),
        };
        tracing::info!("stopped");
        Ok(())
    }

    /// Starts both ports and the care for the certificate. The HTTPS port is returned apart, since
    /// it is the one whose end is waited for; the plain one tells of us to the last.
    fn start(self, background: &mut JoinSet<()>, stage: watch::Receiver<Stage>) -> JoinSet<()> {
        let Self { https, plain, certificates, context, cluster } = self;
        let metrics = Arc::clone(&context.metrics);
        let health = Health {
            context: Arc::clone(&context),
            certificates: Arc::clone(&certificates),
            stage: stage.clone(),
            cluster,
        };
        let plain = Port {
            listener: plain,
            service: Service {
                router: health::router(Arc::new(health)),
                tls: None,
                limits: context.limits.clone(),
                wanted: Arc::default(),
                distrusted: Arc::default(),
            },
            metrics: Arc::clone(&metrics),
            counted: false,
        };
        let reviews = Port {
            listener: https,
            service: Service {
                limits: context.limits.clone(),
                router: router(context),
                tls: Some(TlsAcceptor::from(certificates.config())),
                wanted: Arc::default(),
                distrusted: Arc::default(),
            },
            metrics: Arc::clone(&metrics),
            counted: true,
        };
        // The plain port never drains: it is asked whether we are ready until we are gone.
        let (serving, never) = watch::channel(Stage::Serving);
        background.spawn(async move {
            plain.serve(never).await;
            drop(serving);
        });
        background.spawn(async move { certificates.keep_fresh(&metrics).await });
        let mut https = JoinSet::new();
        https.spawn(reviews.serve(stage));
        https
    }
}

/// How far a server is on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Serving,
    /// Asked to stop: not ready, still serving.
    Leaving,
    /// No new connections; finishing what is in flight.
    Draining,
}

/// Waits until the server drains. Cancellation-safe; a server that is gone counts as draining.
async fn draining(stage: &mut watch::Receiver<Stage>) {
    // The error says that the sender is gone, and with it the server.
    let _ = stage.wait_for(|stage| *stage == Stage::Draining).await;
}

async fn bind(address: SocketAddr, flag: &'static str) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|source| Error::Listen { address, flag, source })
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "address in use; stop the program that has it, or give another port"
        }
        io::ErrorKind::AddrNotAvailable => {
            "no such address on this machine; give one that it has, or 0.0.0.0 for all"
        }
        io::ErrorKind::PermissionDenied => {
            "permission denied; ports below 1024 are for root, give a higher one"
        }
        _ => "the kernel refuses it; see the cause",
    }
}
