//! Reading a body: so much, and so long.

use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use axum::http::{HeaderMap, header};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use tokio::time::{Instant, timeout_at};

use super::failure::Failure;

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

    /// Waits for a future no longer than the body may take, and no longer than the caller waits.
    async fn bound<T>(&self, work: impl Future<Output = T>) -> Result<T, Failure> {
        let (time, failure) = match self.timeout {
            Some(timeout) if timeout <= self.time => (timeout, Failure::Deadline(timeout)),
            _ => (self.time, Failure::SlowBody(self.time)),
        };
        timeout_at(self.start + time, work).await.map_err(|_| failure)
    }
}

/// The bytes of a body.
pub(super) async fn read(
    headers: &HeaderMap,
    mut body: Body,
    allowance: &Allowance,
) -> Result<Bytes, Failure> {
    if body.size_hint().lower() > allowance.bytes as u64 {
        return Err(too_large(headers, body, allowance).await);
    }
    let whole = allowance.bound(collect(&mut body, allowance.bytes)).await??;
    match whole {
        Some(bytes) => Ok(bytes),
        None => Err(too_large(headers, body, allowance).await),
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

/// The most that is read only to be forgotten.
const DISCARDED: usize = 64 * 1024 * 1024;
/// What is reserved before the first byte has come: a caller may announce 7 MiB and send nothing.
const RESERVED: usize = 64 * 1024;

/// The body, or `None` if it is too long. One that came in one piece, as almost all do, is not copied.
async fn collect(body: &mut Body, limit: usize) -> Result<Option<Bytes>, Failure> {
    let mut whole = Bytes::new();
    let mut pieces: Option<BytesMut> = None;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| Failure::BrokenBody)?.into_data() else {
            continue;
        };
        let so_far = pieces.as_ref().map_or(whole.len(), BytesMut::len);
        if data.len() > limit.saturating_sub(so_far) {
            return Ok(None);
        }
        if whole.is_empty() && pieces.is_none() {
            whole = data;
            continue;
        }
        let pieces = pieces.get_or_insert_with(|| {
            let mut first = BytesMut::with_capacity(RESERVED);
            first.extend_from_slice(&whole);
            first
        });
        pieces.extend_from_slice(&data);
    }
    Ok(Some(pieces.map_or(whole, BytesMut::freeze)))
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
