//! Reading one namespace from the API server, for a pod that is faster than the watch.
//!
//! Anybody who can reach the port can name any namespace, so that this is bounded: one call a name at
//! a time, so many calls at once, so many names waiting; and what came of it is kept for a moment.
//! It is not put among what the watch tells, which would never be told that it is gone.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace as Object;
use kube::{Api, Client};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::client::{Trouble, call};
use super::namespaces::namespace;
use crate::decision::Namespace;
use crate::decision::policy::is_dns_subdomain;
use crate::metrics::{Metrics, NamespaceRead};

/// How long one read may take, its wait for a permit included. Reviews have 10 s or less.
const READ: Duration = Duration::from_secs(2);
/// How long its answer is kept: until the watch has caught up, or a controller tries again.
const KEPT: Duration = Duration::from_secs(2);
/// How many reads run at once. Each takes milliseconds, and holds its permit for [`PACE`]: whoever makes
/// names up costs the API server 20 calls a second and no more.
const AT_ONCE: usize = 4;
/// The least time from one read to the next by the same permit.
const PACE: Duration = Duration::from_millis(200);
/// How many names are kept or waited for.
const NAMES: usize = 1024;

/// Reads that run, and answers of a moment ago.
#[derive(Debug)]
pub(super) struct Live {
    api: Api<kube::core::PartialObjectMeta<Object>>,
    reads: Arc<Mutex<Reads>>,
    permits: Arc<Semaphore>,
    metrics: Arc<Metrics>,
}

type Reads = HashMap<String, Read>;

#[derive(Debug)]
enum Read {
    /// Somebody reads; closed once there is an answer.
    Running(watch::Receiver<()>),
    /// The answer, and until when it is one.
    Done { found: Option<Arc<Namespace>>, until: Instant },
}

impl Live {
    pub(super) fn new(client: Client, metrics: Arc<Metrics>) -> Self {
        Self {
            api: Api::all(client),
            reads: Arc::default(),
            permits: Arc::new(Semaphore::new(AT_ONCE)),
            metrics,
        }
    }

    /// What was found a moment ago.
    pub(super) fn recent(&self, name: &str) -> Option<Arc<Namespace>> {
        match lock(&self.reads).get(name)? {
            Read::Done { found, until } if Instant::now() < *until => found.clone(),
            _ => None,
        }
    }

    /// Reads a namespace, or waits for whoever is reading it. Whether it is there.
    pub(super) async fn read(&self, name: &str) -> bool {
        // Nothing else is a namespace's name, and it becomes part of a path.
        if name.len() > 63 || name.contains('.') || !is_dns_subdomain(name) {
            return false;
        }
        let Some(mut running) = self.join(name) else {
            return self.recent(name).is_some();
        };
        // The error is what is waited for: the sender is gone once the answer is there.
        let _ = running.changed().await;
        self.recent(name).is_some()
    }

    /// The read of this name that runs, begun if there is none. `None` if there is an answer, or no
    /// place for one.
    fn join(&self, name: &str) -> Option<watch::Receiver<()>> {
        let now = Instant::now();
        let mut reads = lock(&self.reads);
        match reads.get(name) {
            Some(Read::Running(running)) => return Some(running.clone()),
            Some(Read::Done { until, .. }) if now < *until => return None,
            _ => {}
        }
        reads.retain(|_, read| match read {
            Read::Running(_) => true,
            Read::Done { until, .. } => now < *until,
        });
        if reads.len() >= NAMES {
            return None;
        }
        let (done, running) = watch::channel(());
        reads.insert(name.to_owned(), Read::Running(running.clone()));
        self.begin(name.to_owned(), done);
        Some(running)
    }

    /// In a task of its own: whoever began it may stop waiting before the others do.
    fn begin(&self, name: String, done: watch::Sender<()>) {
        let (api, permits) = (self.api.clone(), Arc::clone(&self.permits));
        let (reads, metrics) = (Arc::clone(&self.reads), Arc::clone(&self.metrics));
        tokio::spawn(async move {
            let read = async {
                let permit = permits.acquire().await;
                let next = Instant::now() + PACE;
                (call(api.get_opt(&name)).await, Some((permit, next)))
            };
            let (read, pace) = timeout(READ, read).await.unwrap_or((Err(Trouble::Late), None));
            let found = match read {
                Ok(Some(object)) => {
                    metrics.cluster().namespace_read(NamespaceRead::Found);
                    namespace(object).map(|(_, namespace)| namespace)
                }
                Ok(None) => {
                    metrics.cluster().namespace_read(NamespaceRead::Missing);
                    None
                }
                Err(error) => {
                    metrics.cluster().namespace_read(NamespaceRead::Failed);
                    tracing::warn!(namespace = name, %error, "a namespace could not be read");
                    None
                }
            };
            lock(&reads).insert(name, Read::Done { found, until: Instant::now() + KEPT });
            drop(done);
            if let Some((_permit, next)) = pace {
                sleep_until(next).await;
            }
        });
    }
}

/// Nothing panics while it holds the lock, so what another thread left is whole.
fn lock(reads: &Mutex<Reads>) -> MutexGuard<'_, Reads> {
    reads.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::http::{Request, Response};
    use http_body_util::Full;
    use kube::client::Body;
    use serde_json::json;
    use tokio::sync::Notify;
    use tower::service_fn;

    use super::*;
    use crate::cluster::fake::{failure, success};

    /// An API server that knows `data`, counts calls, and answers when it is told to.
    #[derive(Default)]
    struct Slow {
        calls: AtomicUsize,
        at_once: AtomicUsize,
        most: AtomicUsize,
        go: Notify,
    }

    impl Slow {
        async fn answer(&self, path: &str) -> Response<Full<bytes::Bytes>> {
            self.calls.fetch_add(1, Ordering::SeqCst);
            let at_once = self.at_once.fetch_add(1, Ordering::SeqCst) + 1;
            self.most.fetch_max(at_once, Ordering::SeqCst);
            self.go.notified().await;
            self.at_once.fetch_sub(1, Ordering::SeqCst);
            match path.rsplit('/').next() {
                Some("data") => success(&json!({
                    "apiVersion": "meta.k8s.io/v1",
                    "kind": "PartialObjectMetadata",
                    "metadata": { "name": "data", "labels": { "a": "b" } },
                })),
                _ => failure(404, "NotFound", "there is none"),
            }
        }

        fn live(self: &Arc<Self>) -> Arc<Live> {
            let slow = Arc::clone(self);
            let service = service_fn(move |request: Request<Body>| {
                let slow = Arc::clone(&slow);
                async move { Ok::<_, std::io::Error>(slow.answer(request.uri().path()).await) }
            });
            let metrics = Arc::new(Metrics::new().unwrap());
            Arc::new(Live::new(Client::new(service, "default"), metrics))
        }

        fn calls(&self) -> usize {
            self.calls.load(Ordering::SeqCst)
        }
    }

    /// Lets everything run that can.
    async fn settle() {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }

    fn reading(live: &Arc<Live>, name: &str) -> tokio::task::JoinHandle<bool> {
        let (live, name) = (Arc::clone(live), name.to_owned());
        tokio::spawn(async move { live.read(&name).await })
    }

    #[tokio::test(start_paused = true)]
    async fn two_misses_are_one_call_and_who_stops_waiting_stops_nobody() {
        let slow = Arc::new(Slow::default());
        let live = slow.live();
        let (first, second) = (reading(&live, "data"), reading(&live, "data"));
        settle().await;
        first.abort();
        slow.go.notify_one();
        assert!(second.await.unwrap());
        assert_eq!(slow.calls(), 1);
        assert_eq!(live.recent("data").unwrap().labels["a"], "b");
        assert!(live.read("data").await, "the answer is kept for a moment");
        assert_eq!(slow.calls(), 1);

        tokio::time::advance(KEPT).await;
        assert_eq!(live.recent("data"), None, "and then not");
        let third = reading(&live, "data");
        settle().await;
        slow.go.notify_one();
        assert!(third.await.unwrap());
        assert_eq!(slow.calls(), 2);
        assert!(live.metrics.text().contains(r#"namespace_reads_total{result="found"} 2"#));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_is_not_there_is_not_asked_for_again_at_once() {
        let slow = Arc::new(Slow::default());
        let live = slow.live();
        slow.go.notify_one();
        assert!(!live.read("none").await);
        assert!(!live.read("none").await);
        assert_eq!(slow.calls(), 1);
        assert!(live.metrics.text().contains(r#"namespace_reads_total{result="missing"} 1"#));
    }

    #[tokio::test(start_paused = true)]
    async fn an_api_server_that_does_not_answer_is_waited_for_so_long() {
        let slow = Arc::new(Slow::default());
        let live = slow.live();
        let begun = Instant::now();
        assert!(!live.read("data").await);
        assert_eq!(begun.elapsed(), READ);
        assert!(live.metrics.text().contains(r#"namespace_reads_total{result="failed"} 1"#));
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_are_read_at_once_and_no_more_names_are_taken_than_there_is_place_for() {
        let slow = Arc::new(Slow::default());
        let live = slow.live();
        let reads: Vec<_> = (0..NAMES).map(|name| reading(&live, &format!("n{name}"))).collect();
        settle().await;
        assert_eq!(slow.calls(), AT_ONCE);
        assert!(!live.read("one-more").await);
        for read in reads {
            assert!(!read.await.unwrap());
        }
        assert_eq!(slow.most.load(Ordering::SeqCst), AT_ONCE);
        assert_eq!(slow.calls(), AT_ONCE, "the others had waited as long as anybody may");
    }

    #[tokio::test]
    async fn what_is_no_name_of_a_namespace_is_not_asked_for() {
        let slow = Arc::new(Slow::default());
        let live = slow.live();
        let long = "a".repeat(64);
        for name in ["", "a/../secrets", "a?b", "A", "a.b", "a%2fb", &long] {
            assert!(!live.read(name).await, "{name}");
        }
        assert_eq!(slow.calls(), 0);
    }
}
