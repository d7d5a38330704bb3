//! The share of a port's connections that one peer address may have.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How many connections each peer has.
#[derive(Debug, Clone)]
pub(super) struct Peers {
    most: usize,
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// One connection of a peer, until it is dropped.
#[derive(Debug)]
pub(super) struct Share {
    peers: Peers,
    peer: IpAddr,
}

impl Peers {
    /// No connections yet, and so many of each peer at most.
    pub(super) fn new(most: usize) -> Self {
        Self { most, open: Arc::default() }
    }

    /// One more connection of a peer, if it may have one.
    pub(super) fn admit(&self, peer: IpAddr) -> Option<Share> {
        let mut open = self.open();
        let count = open.entry(peer).or_default();
        // A peer that is there has a connection, and the most is at least one: no entry is left over.
        if *count >= self.most.max(1) {
            return None;
        }
        *count += 1;
        Some(Share { peers: self.clone(), peer })
    }

    /// Nothing panics while it holds the lock, so what another thread left is whole.
    fn open(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut open = self.peers.open();
        if let Some(count) = open.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_has_its_share_and_nothing_is_kept_of_one_that_left() {
        let peers = Peers::new(2);
        let [one, other] = [1, 2].map(|last| IpAddr::from([10, 0, 0, last]));
        let held = [peers.admit(one).unwrap(), peers.admit(one).unwrap()];
        assert!(peers.admit(one).is_none());
        let another = peers.admit(other).unwrap();
        drop(held);
        assert!(peers.admit(one).is_some());
        drop(another);
        assert!(peers.open().is_empty());
    }
}
