//! Reading a body: so much, so long, and together with all others no more than the memory for bodies.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use axum::http::{HeaderMap, header};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::failure::{Failure, Scarce};

/// What a body may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Allowance {
    /// The longest body, in bytes.
    pub(super) bytes: usize,
    /// How long it may take to arrive.
    pub(super) time: Duration,
    /// When the request began.
    pub(super) start: Instant,
    /// How long the caller waits for its answer, if it says so.
    pub(super) timeout: Option<Duration>,
}

impl Allowance {
    /// Whether the caller has stopped waiting.
    pub(super) fn check(&self) -> Result<(), Failure> {
        match self.timeout {
            Some(timeout) if self.start.elapsed() > timeout => Err(Failure::Deadline(timeout)),
            _ => Ok(()),
        }
    }

    /// Waits for a future no longer than the caller waits.
    pub(super) async fn answered<T>(&self, work: impl Future<Output = T>) -> Result<T, Failure> {
        match self.timeout {
            Some(timeout) => {
                timeout_at(self.start + timeout, work).await.map_err(|_| Failure::Deadline(timeout))
            }
            None => Ok(work.await),
        }
    }

    /// Waits for a future no longer than the body may take, and no longer than the caller waits.
    async fn bound<T>(&self, work: impl Future<Output = T>) -> Result<T, Failure> {
        let (time, failure) = match self.timeout {
            Some(timeout) if timeout <= self.time => (timeout, Failure::Deadline(timeout)),
            _ => (self.time, Failure::SlowBody(self.time)),
        };
        timeout_at(self.start + time, work).await.map_err(|_| failure)
    }
}

/// The memory that all bodies share.
///
/// It is charged as bytes arrive and not as they are announced, which costs a peer nothing; and not
/// for the first [`ORDINARY`] bytes, so that whoever fills it with large bodies turns no ordinary
/// review away. What is not charged is bounded by the connections: each has one body at a time.
#[derive(Debug, Clone)]
pub(super) struct Memory(Arc<Semaphore>);

impl Memory {
    /// So many bytes.
    pub(super) fn new(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new(bytes.min(Semaphore::MAX_PERMITS))))
    }

    /// Charges a body for what it has grown to. `None` if there is not that much left.
    fn charge(&self, charged: &mut Option<OwnedSemaphorePermit>, length: usize) -> Option<()> {
        let held = charged.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let more = length.saturating_sub(ORDINARY).saturating_sub(held);
        if more == 0 {
            return Some(());
        }
        let more = Arc::clone(&self.0).try_acquire_many_owned(u32::try_from(more).ok()?).ok()?;
        match charged {
            Some(held) => held.merge(more),
            None => *charged = Some(more),
        }
        Some(())
    }
}

/// A whole body, which is charged for until it is dropped.
#[derive(Debug)]
pub(super) struct Whole {
    pub(super) bytes: Bytes,
    _charged: Option<OwnedSemaphorePermit>,
}

/// The bytes of a body.
pub(super) async fn read(
    headers: &HeaderMap,
    mut body: Body,
    allowance: &Allowance,
    memory: &Memory,
) -> Result<Whole, Failure> {
    if body.size_hint().lower() > allowance.bytes as u64 {
        return Err(too_large(headers, body, allowance).await);
    }
    let collected = allowance.bound(collect(&mut body, allowance.bytes, memory)).await??;
    match collected {
        Collected::Whole(whole) => Ok(whole),
        Collected::TooLong => Err(too_large(headers, body, allowance).await),
        Collected::NoMemory => {
            discard(body, allowance).await?;
            Err(Failure::Busy(Scarce::Memory))
        }
    }
}

/// Reads a body to its end and forgets it.
///
/// An answer that is sent before the client has finished is often not seen: the client is still
/// writing, and gets a reset. And HTTP/1.1 has to give up a connection on which half a body waits; a
/// TLS handshake costs ten times what deciding does.
pub(super) async fn discard(mut body: Body, allowance: &Allowance) -> Result<(), Failure> {
    let rest = async {
        let mut read = 0;
        while let Some(Ok(frame)) = body.frame().await {
            read += frame.data_ref().map_or(0, Bytes::len);
            if read > DISCARDED {
                break;
            }
        }
    };
    allowance.bound(rest).await
}

/// A body that is no longer than this is an ordinary one: reviews of pods have 2 to 15 KB.
pub(super) const ORDINARY: usize = 64 * 1024;
/// The most that is read only to be forgotten.
const DISCARDED: usize = 64 * 1024 * 1024;

/// What became of a body. Unless it is whole, what had come of it is given up.
enum Collected {
    NoMemory,
    TooLong,
    Whole(Whole),
}

/// The body. One that came in one piece, as almost all do, is not copied.
async fn collect(body: &mut Body, limit: usize, memory: &Memory) -> Result<Collected, Failure> {
    let mut whole = Bytes::new();
    let mut pieces: Option<BytesMut> = None;
    let mut charged = None;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| Failure::BrokenBody)?.into_data() else {
            continue;
        };
        let so_far = pieces.as_ref().map_or(whole.len(), BytesMut::len);
        if data.len() > limit.saturating_sub(so_far) {
            return Ok(Collected::TooLong);
        }
        if memory.charge(&mut charged, so_far + data.len()).is_none() {
            return Ok(Collected::NoMemory);
        }
        if whole.is_empty() && pieces.is_none() {
            whole = data;
            continue;
        }
        let pieces = pieces.get_or_insert_with(|| {
            // No more than that at first: a caller may announce 7 MiB and send nothing.
            let mut first = BytesMut::with_capacity(ORDINARY);
            first.extend_from_slice(&whole);
            first
        });
        pieces.extend_from_slice(&data);
    }
    let bytes = pieces.map_or(whole, BytesMut::freeze);
    Ok(Collected::Whole(Whole { bytes, _charged: charged }))
}

async fn too_large(headers: &HeaderMap, body: Body, allowance: &Allowance) -> Failure {
    // A client that waits for `100 Continue` has sent nothing yet, and is best answered at once.
    if !headers.contains_key(header::EXPECT)
        && let Err(failure) = discard(body, allowance).await
    {
        return failure;
    }
    Failure::TooLarge(allowance.bytes)
}
