//! How long a peer may stand still, by what the connection is doing.
//!
//! hyper has one timer, for the head of a request, and it runs while a connection is idle between
//! two requests as well. Ten seconds for a head would then close the idle connections of the API
//! server, and two minutes of idleness would give a slow client two minutes for a head. So hyper's
//! timer stays off, and the bytes themselves say what a connection is doing: [`Paced`] carries them,
//! [`Pace`] is shared with the service, which alone knows when a request begins and is answered.
//!
//! ```text
//!            head is read        answer is made       answer is flushed
//!   Head ──────────────► Request ─────────────► Answer ───────────────► Idle
//!    ▲                                                                    │
//!    └──────────────────────────── first byte ────────────────────────────┘
//! ```
//!
//! A new connection is in `Head` at once. In `Request` no time runs here: the handler has its own
//! for the body. A client that sends half a head together with the request before it is taken for
//! idle until its next byte; it holds a connection no longer than an idle one may.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;
use tokio::time::{Instant, Sleep, sleep};

use super::limits::Limits;

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Head,
    Request,
    Answer,
    Idle,
}

/// What a connection is doing, for its service to say.
#[derive(Debug, Clone)]
pub(super) struct Pace(Arc<AtomicU64>);

impl Pace {
    /// A new connection, from which a head is expected.
    pub(super) fn new() -> Self {
        Self(Arc::new(AtomicU64::new(encode(0, Phase::Head))))
    }

    /// A head has been read.
    pub(super) fn request(&self) {
        self.enter(Phase::Request);
    }

    /// An answer has been made.
    pub(super) fn answer(&self) {
        self.enter(Phase::Answer);
    }

    // A connection's I/O and its service are polled by one task, one after the other, so there is
    // no race between the load and the store, and no order to keep with other memory.
    fn enter(&self, phase: Phase) {
        let step = self.0.load(Ordering::Relaxed) / PHASES;
        self.0.store(encode(step + 1, phase), Ordering::Relaxed);
    }

    fn now(&self) -> (u64, Phase) {
        let state = self.0.load(Ordering::Relaxed);
        let phase = match state % PHASES {
            0 => Phase::Head,
            1 => Phase::Request,
            2 => Phase::Answer,
            _ => Phase::Idle,
        };
        (state, phase)
    }
}

const PHASES: u64 = 4;

/// Two visits of one phase are two states, so that each gets its own time.
fn encode(step: u64, phase: Phase) -> u64 {
    let phase = match phase {
        Phase::Head => 0,
        Phase::Request => 1,
        Phase::Answer => 2,
        Phase::Idle => 3,
    };
    step * PHASES + phase
}

/// A stream that fails with `TimedOut` when its peer stands still too long, and ends when it is idle
/// and its place is wanted.
#[derive(Debug)]
pub(super) struct Paced<S> {
    stream: S,
    pace: Pace,
    head: Duration,
    write: Duration,
    idle: Duration,
    timer: Pin<Box<Sleep>>,
    /// The state that the timer was set for.
    timed: Option<u64>,
    wanted: Arc<Notify>,
    /// While idle: the turn to give up the place. Whoever has waited longest is notified first.
    turn: Option<Pin<Box<OwnedNotified>>>,
}

impl<S> Paced<S> {
    pub(super) fn new(stream: S, pace: Pace, limits: &Limits, wanted: &Arc<Notify>) -> Self {
        Self {
            stream,
            pace,
            head: limits.head,
            write: limits.write,
            idle: limits.idle,
            timer: Box::pin(sleep(limits.head)),
            timed: None,
            wanted: Arc::clone(wanted),
            turn: None,
        }
    }

    /// Fails if the time of the present phase is over, else has the task woken when it will be.
    fn poll_timer(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let (state, phase) = self.pace.now();
        let (time, what) = match phase {
            Phase::Head => (self.head, "the head of a request"),
            Phase::Answer => (self.write, "taking an answer"),
            Phase::Idle => (self.idle, "the next request"),
            Phase::Request => return Ok(()),
        };
        if self.timed != Some(state) {
            self.timer.as_mut().reset(Instant::now() + time);
            self.timed = Some(state);
        }
        match self.timer.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("{what} took more than {time:?}"),
            )),
            Poll::Pending => Ok(()),
        }
    }

    /// Whether an idle connection has to give up its place, else has the task woken when it will.
    fn poll_turn(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.pace.now().1 != Phase::Idle {
            // To be notified and busy again hands the turn on to the next.
            self.turn = None;
            return Poll::Pending;
        }
        let wanted = &self.wanted;
        let turn = self.turn.get_or_insert_with(|| Box::pin(Arc::clone(wanted).notified_owned()));
        turn.as_mut().poll(context)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // Before the read: a client that sends one byte a second always has one to read.
        self.poll_timer(context)?;
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before && self.pace.now().1 == Phase::Idle {
            self.pace.enter(Phase::Head);
            self.poll_timer(context)?;
        }
        // After the read: a request that is there already is answered first. What comes after is the
        // end of the stream, as if the peer had closed: hyper then says goodbye properly.
        if self.poll_turn(context).is_ready() && read.is_pending() {
            return Poll::Ready(Ok(()));
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, buffer);
        if written.is_pending() {
            self.poll_timer(context)?;
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        match &flushed {
            Poll::Pending => self.poll_timer(context)?,
            Poll::Ready(Ok(())) if self.pace.now().1 == Phase::Answer => {
                self.pace.enter(Phase::Idle);
            }
            Poll::Ready(_) => {}
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // To say goodbye takes no longer than an answer, whatever went before.
        if self.pace.now().1 != Phase::Answer {
            self.pace.enter(Phase::Answer);
        }
        let closed = Pin::new(&mut self.stream).poll_shutdown(context);
        if closed.is_pending() {
            self.poll_timer(context)?;
        }
        closed
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, buffers);
        if written.is_pending() {
            self.poll_timer(context)?;
        }
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

    const HEAD: Duration = Duration::from_secs(10);
    const QUIET: Duration = Duration::from_secs(100);
    const IDLE: Duration = Duration::from_mins(2);

    fn paced() -> (DuplexStream, Paced<DuplexStream>, Pace) {
        let (peer, stream) = duplex(64);
        let pace = Pace::new();
        let paced = Paced::new(stream, pace.clone(), &Limits::default(), &Arc::default());
        (peer, paced, pace)
    }

    /// Reads until the stream gives up, and says after how long it did.
    async fn gives_up_after(paced: &mut Paced<DuplexStream>) -> Duration {
        let start = Instant::now();
        let mut buffer = [0; 16];
        loop {
            match paced.read(&mut buffer).await {
                Ok(0) => panic!("closed by the peer"),
                Ok(_) => {}
                Err(error) => {
                    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
                    return start.elapsed();
                }
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_connection_has_the_time_of_a_head() {
        let (_peer, mut paced, _) = paced();
        let took = gives_up_after(&mut paced).await;
        assert!(took >= HEAD && took < HEAD * 2, "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_byte_now_and_then_gains_a_head_no_time() {
        let (mut peer, mut paced, _) = paced();
        let dripping = tokio::spawn(async move {
            while peer.write_all(b"P").await.is_ok() {
                sleep(Duration::from_secs(1)).await;
            }
        });
        let took = gives_up_after(&mut paced).await;
        assert!(took >= HEAD && took < HEAD * 2, "{took:?}");
        drop(paced);
        dripping.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_has_more_and_its_next_head_no_more_than_the_first() {
        let (mut peer, mut paced, pace) = paced();
        pace.request();
        pace.answer();
        paced.flush().await.unwrap();
        let sends = tokio::spawn(async move {
            sleep(QUIET).await;
            peer.write_all(b"POST").await.unwrap();
            peer
        });
        let took = gives_up_after(&mut paced).await;
        let expected = QUIET + HEAD;
        assert!(took >= expected && took < expected + HEAD, "{took:?}");
        drop(sends.await.unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_ends_too() {
        let (_peer, mut paced, pace) = paced();
        pace.request();
        pace.answer();
        paced.flush().await.unwrap();
        let took = gives_up_after(&mut paced).await;
        assert!(took >= IDLE && took < IDLE + HEAD, "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_no_answer_is_left() {
        let (_peer, mut paced, pace) = paced();
        pace.request();
        pace.answer();
        let error = paced.write_all(&[0; 1000]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_request_that_is_there_is_read_before_the_place_is_given_up() {
        let (mut peer, mut paced, pace) = paced();
        pace.answer();
        paced.flush().await.unwrap();
        paced.wanted.notify_one();
        peer.write_all(b"POST").await.unwrap();
        let mut buffer = [0; 16];
        assert_eq!(paced.read(&mut buffer).await.unwrap(), 4);

        pace.answer();
        paced.flush().await.unwrap();
        assert_eq!(paced.read(&mut buffer).await.unwrap(), 0, "idle again, and still wanted");
    }

    #[tokio::test(start_paused = true)]
    async fn no_time_runs_while_a_request_is_decided() {
        let (mut peer, mut paced, pace) = paced();
        pace.request();
        let sends = tokio::spawn(async move {
            sleep(IDLE * 2).await;
            peer.write_all(b"body").await.unwrap();
        });
        let mut buffer = [0; 4];
        paced.read_exact(&mut buffer).await.unwrap();
        sends.await.unwrap();
    }
}
