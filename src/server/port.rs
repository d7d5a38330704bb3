//! One listening port: accepting, up to so many connections, until the server drains.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::{JoinError, JoinSet};

use super::connection::Service;
use super::{Stage, draining};
use crate::metrics::Metrics;

/// A bound port.
pub(super) struct Port {
    pub(super) listener: TcpListener,
    pub(super) service: Service,
    pub(super) metrics: Arc<Metrics>,
    /// Whether its connections are counted.
    pub(super) counted: bool,
}

impl Port {
    /// Accepts until the server drains, then waits for the connections that are left.
    ///
    /// All connections are children of this future: to drop it ends them.
    pub(super) async fn serve(self, mut stage: watch::Receiver<Stage>) {
        let places =
            Arc::new(Semaphore::new(self.service.limits.connections.min(Semaphore::MAX_PERMITS)));
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                () = draining(&mut stage) => break,
                Some(ended) = connections.join_next() => self.note(ended),
                // To be cancelled here loses nothing: the place is given back, and a connection
                // that is not accepted yet stays in the kernel's queue.
                next = accept(&self.listener, &places) => match next {
                    Ok((stream, place)) => {
                        let service = self.service.clone();
                        let counted = self.counted.then(|| self.metrics.connection());
                        let stage = stage.clone();
                        connections.spawn(async move {
                            let _held = (place, counted);
                            service.serve(stream, stage).await;
                        });
                    }
                    Err(error) => self.pause(&error).await,
                },
            }
        }
        let Self { listener, metrics, .. } = self;
        // From here on the kernel refuses new connections.
        drop(listener);
        while let Some(ended) = connections.join_next().await {
            note(&metrics, ended);
        }
    }

    fn note(&self, ended: Result<(), JoinError>) {
        note(&self.metrics, ended);
    }

    /// A connection that broke off before it was accepted says nothing of the next one. Anything
    /// else, above all that we are out of file descriptors, would be met again at once, for ever.
    async fn pause(&self, error: &io::Error) {
        if error.kind() != io::ErrorKind::ConnectionAborted {
            tracing::error!(%error, "cannot accept connections");
            tokio::time::sleep(PAUSE).await;
        }
    }
}

const PAUSE: Duration = Duration::from_millis(100);

/// The next connection, once there is a place for it.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _): (_, SocketAddr) = listener.accept().await?;
    Ok((stream, place))
}

/// The panic of a handler never gets here; one of a connection does.
fn note(metrics: &Metrics, ended: Result<(), JoinError>) {
    if ended.is_err_and(|error| error.is_panic()) {
        metrics.panicked();
    }
}
