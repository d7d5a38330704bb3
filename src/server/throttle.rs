//! A log line that anybody on the network can cause: once an interval, with how often it was not written.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The least time from one line to the next.
pub(super) const INTERVAL: Duration = Duration::from_mins(1);

/// When a line was written, and what happened since then.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    said: Mutex<Said>,
}

#[derive(Debug, Default)]
struct Said {
    last: Option<Instant>,
    unsaid: u64,
}

impl Throttle {
    /// Counts what happened. Where it is due to be said: how often it happened unsaid before.
    pub(super) fn due(&self) -> Option<u64> {
        let now = Instant::now();
        // Nothing panics while it holds the lock, so what another thread left is whole.
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.last.is_some_and(|last| now < last + INTERVAL) {
            said.unsaid = said.unsaid.saturating_add(1);
            return None;
        }
        said.last = Some(now);
        Some(std::mem::take(&mut said.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_an_interval_with_the_count_of_the_others() {
        let throttle = Throttle::default();
        assert_eq!(throttle.due(), Some(0));
        for _ in 0..1000 {
            assert_eq!(throttle.due(), None);
        }
        tokio::time::advance(INTERVAL).await;
        assert_eq!(throttle.due(), Some(1000));
        assert_eq!(throttle.due(), None);
        tokio::time::advance(INTERVAL).await;
        assert_eq!(throttle.due(), Some(1));
        tokio::time::advance(INTERVAL).await;
        assert_eq!(throttle.due(), Some(0));
    }
}
