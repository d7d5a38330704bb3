//! One listening port: accepting, up to so many connections and so many of one peer, until the server
//! drains.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::{JoinError, JoinSet};

use super::connection::Service;
use super::peers::{Peers, Share};
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
        let mut door = Door::of(&self);
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                () = draining(&mut stage) => break,
                Some(ended) = connections.join_next() => self.note(ended),
                // To be cancelled here loses nothing: who waits stays at the door, and a connection that
                // is not accepted yet stays in the kernel's queue.
                next = door.next(&self.listener) => match next {
                    Ok((stream, held)) => {
                        let service = self.service.clone();
                        let counted = self.counted.then(|| self.metrics.connection());
                        let stage = stage.clone();
                        connections.spawn(async move {
                            let _held = (held, counted);
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
        drop(door);
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

/// Who comes in.
struct Door {
    places: Arc<Semaphore>,
    peers: Peers,
    wanted: Arc<Notify>,
    metrics: Arc<Metrics>,
    /// Accepted, and without a place so far.
    waiting: Option<(TcpStream, Share)>,
}

/// What a connection holds as long as it is open.
type Held = (OwnedSemaphorePermit, Share);

impl Door {
    fn of(port: &Port) -> Self {
        let limits = &port.service.limits;
        Self {
            places: Arc::new(Semaphore::new(limits.connections.min(Semaphore::MAX_PERMITS))),
            peers: Peers::new(limits.peer_connections),
            wanted: Arc::clone(&port.service.wanted),
            metrics: Arc::clone(&port.metrics),
            waiting: None,
        }
    }

    /// The next connection, once there is a place for it. Cancellation-safe.
    async fn next(&mut self, listener: &TcpListener) -> io::Result<(TcpStream, Held)> {
        loop {
            if self.waiting.is_none() {
                let (stream, peer) = listener.accept().await?;
                let Some(share) = self.peers.admit(peer.ip()) else {
                    // The number is for everybody; a line for each would be the peer's to multiply.
                    self.metrics.connection_refused();
                    tracing::debug!(peer = %peer.ip(), "a peer over its share of connections");
                    continue;
                };
                if self.places.available_permits() == 0 {
                    // Wakes whoever has been idle longest. Is nobody idle, it is kept for the next
                    // one that will be.
                    self.wanted.notify_one();
                }
                self.waiting = Some((stream, share));
            }
            let place = Arc::clone(&self.places).acquire_owned().await.map_err(io::Error::other)?;
            // Where a place got free by itself, nobody has to give up another any more.
            pin!(self.wanted.notified()).enable();
            if let Some((stream, share)) = self.waiting.take() {
                return Ok((stream, (place, share)));
            }
        }
    }
}

/// The panic of a handler never gets here; one of a connection does.
fn note(metrics: &Metrics, ended: Result<(), JoinError>) {
    if ended.is_err_and(|error| error.is_panic()) {
        metrics.panicked();
    }
}
