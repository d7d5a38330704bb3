//! How much, and how long, a peer may ask of the server.

use std::time::Duration;

/// The limits of a server. Each default says where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// How long a TLS handshake may take. It is two round trips and less than a millisecond of
    /// arithmetic, so 5 s is only ever passed by a peer that has stopped.
    pub handshake: Duration,
    /// How long the head of a request may take, from its first byte; for the first request of a
    /// connection from the end of the handshake, so that port scanners hold nothing open.
    pub head: Duration,
    /// How long the body of a request may take. The API server gives a webhook 10 s by default and
    /// 30 s at most for everything, and sends the body from memory at once.
    pub body: Duration,
    /// How long the writing of an answer may stand still. An answer fits into the socket's buffer.
    pub write: Duration,
    /// How long a connection may be idle between two requests. It has to be longer than the 90 s of
    /// Go's client, or the API server sends a review into a connection that we are just closing.
    pub idle: Duration,
    /// The age after which an answer carries `Connection: close`, so that new replicas get their
    /// share: the API server would keep one connection for ever.
    pub age: Duration,
    /// How long after [`age`](Self::age) a connection is cut off whatever it is doing. No less than
    /// idle, head, body and write together, since until then it may be about to end by itself.
    pub age_grace: Duration,
    /// The connections of one port. The next one takes the place of whichever has been idle longest,
    /// or waits until there is a place.
    pub connections: usize,
    /// The connections of one port that one peer address may have; more are closed at once, so that
    /// nobody takes all places alone. A quarter of [`connections`](Self::connections): 256 are ten
    /// times the 25 idle connections that the Go client of an API server keeps for a host
    /// (client-go `transport/cache.go`), and the kubelet probes from one address, one
    /// connection a probe.
    pub peer_connections: usize,
    /// The reviews that are decided at once; more are answered 429, which the API server tries again.
    /// One that is still arriving is none of them, or whoever sends slowly would keep everybody else
    /// out. An ordinary one takes tens of microseconds, so 64 are enough for any number of callers.
    ///
    /// As many times [`body_bytes`](Self::body_bytes), 64 times 7 MiB, is the memory for bodies that
    /// arrive or are decided: 448 MiB, counted as bytes come in; over it the answer is 429 as well.
    /// The first 64 KiB of each body are not counted in, so that no ordinary review is turned away
    /// for large ones; for 1,024 [`connections`](Self::connections) that is 64 MiB more.
    ///
    /// `/advise` is not counted in: it has a quarter of as many of its own. Nobody waits for advice,
    /// and it must not keep out a pod that waits for its device.
    pub in_flight: usize,
    /// The longest body in bytes.
    ///
    /// The API server takes requests of up to 3 MiB (`kubernetes/apiserver
    /// pkg/server/config.go`, `MaxRequestBodyBytes`). A review carries two objects of that size,
    /// the new and the old one, and the rest of it is less than 1 MiB: 7 MiB, as controller-runtime
    /// derives it (`pkg/webhook/admission/http.go`).
    pub body_bytes: usize,
    /// How long the server goes on after it was asked to stop, not ready, while endpoints that name
    /// it disappear from the cluster.
    pub shutdown_delay: Duration,
    /// How long requests in flight may take after that. Delay and drain together stay below the
    /// 30 s which the kubelet waits before it kills.
    pub drain: Duration,
}

impl Limits {
    /// The share that one of several may have of so many places: a quarter, and at least one. Of
    /// [`connections`](Self::connections) a peer's, of [`in_flight`](Self::in_flight) that of `/advise`.
    pub(crate) fn share(places: usize) -> usize {
        (places / 4).max(1)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(5),
            head: Duration::from_secs(10),
            body: Duration::from_secs(10),
            write: Duration::from_secs(10),
            idle: Duration::from_mins(2),
            age: Duration::from_mins(10),
            age_grace: Duration::from_secs(150),
            connections: 1024,
            peer_connections: Self::share(1024),
            in_flight: 64,
            body_bytes: 7 * 1024 * 1024,
            shutdown_delay: Duration::from_secs(5),
            drain: Duration::from_secs(20),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_fit_together() {
        let limits = Limits::default();
        let kubelet = Duration::from_secs(30);
        assert!(limits.idle > Duration::from_secs(90), "Go's client");
        assert!(limits.shutdown_delay + limits.drain < kubelet);
        assert!(limits.age_grace >= limits.idle + limits.head + limits.body + limits.write);
        assert!(limits.drain >= limits.body + limits.write);
        assert!(limits.peer_connections > 25, "Go's client");
        assert_eq!([1, 4, 7, 8].map(Limits::share), [1, 1, 1, 2]);
    }
}
