//! The namespaces of the cluster, as a watch tells of them: names and labels only.
//!
//! A review takes what is known and never waits for the watch. Right after a namespace come its pods,
//! sometimes before the watch has told of it; such a miss is worth one live read ([`Live`]).

use std::collections::HashMap;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::Namespace as Object;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::{self, Config, Event, watcher};
use kube::{Api, Client};
use tokio::time::sleep;

use super::client::{noting, words};
use super::live::Live;
use crate::decision::Namespace;
use crate::metrics::Metrics;

/// The namespaces that are known.
#[derive(Debug)]
pub struct Namespaces {
    known: RwLock<Known>,
    /// Whether the first list was there.
    listed: AtomicBool,
    live: Live,
    metrics: Arc<Metrics>,
}

type Known = HashMap<String, Arc<Namespace>>;

impl Namespaces {
    /// None known yet.
    pub fn new(client: Client, metrics: Arc<Metrics>) -> Self {
        metrics.cluster().watch_synced(RESOURCE, false);
        Self {
            known: RwLock::default(),
            listed: AtomicBool::new(false),
            live: Live::new(client, Arc::clone(&metrics)),
            metrics,
        }
    }

    /// The namespace of this name, if it is known.
    pub fn find(&self, name: &str) -> Option<Arc<Namespace>> {
        // Nothing panics while it holds the lock, so what another thread left is whole.
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        known.or_else(|| self.live.recent(name))
    }

    /// Reads a namespace from the API server that [`find`](Self::find) does not know. Whether it is
    /// known now. The caller bounds the wait; to stop waiting loses nothing.
    pub async fn look(&self, name: &str) -> bool {
        self.live.read(name).await
    }

    /// Whether the first list is there.
    pub fn listed(&self) -> bool {
        self.listed.load(Ordering::Relaxed)
    }

    /// Follows the cluster for ever. A watch that breaks keeps the last state.
    pub async fn follow(&self, client: Client) {
        let metrics = Arc::clone(&self.metrics);
        let client = noting(client, move || {
            metrics.cluster().watch_answered(RESOURCE, SystemTime::now());
        });
        let api: Api<PartialObjectMeta<Object>> = Api::all(client);
        let mut events = pin!(watcher(api, Config::default()));
        let mut listing = Known::new();
        let mut pause = PAUSE;
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => {
                    // Every try begins with this one. The watcher's own backoff takes it for a
                    // success, and would ask an API server that refuses once a second for ever.
                    if !matches!(event, Event::Init) {
                        pause = PAUSE;
                    }
                    self.take(event, &mut listing);
                }
                Err(error) => {
                    self.broke(&error);
                    sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// A list is gathered aside and taken whole: until it is there, the last state holds.
    fn take(&self, event: Event<PartialObjectMeta<Object>>, listing: &mut Known) {
        match event {
            Event::Init => listing.clear(),
            Event::InitApply(object) => listing.extend(namespace(object)),
            Event::InitDone => {
                let known = std::mem::take(listing);
                tracing::info!(count = known.len(), "namespaces listed");
                self.change(|all| *all = known);
                self.listed.store(true, Ordering::Relaxed);
                self.metrics.cluster().watch_synced(RESOURCE, true);
            }
            Event::Apply(object) => self.change(|all| all.extend(namespace(object))),
            Event::Delete(object) => self.change(|all| {
                object.metadata.name.and_then(|name| all.remove(&name));
            }),
        }
    }

    fn change(&self, change: impl FnOnce(&mut Known)) {
        change(&mut self.known.write().unwrap_or_else(PoisonError::into_inner));
    }

    fn broke(&self, error: &watcher::Error) {
        self.metrics.cluster().watch_broke(RESOURCE);
        tracing::warn!(
            resource = RESOURCE,
            error = words(error),
            listed = self.listed(),
            "a watch broke and is tried again; the last state holds"
        );
    }
}

/// The resource, as metrics name it.
const RESOURCE: &str = "namespaces";
/// How long a watch that broke waits before it is tried again, each time twice as long.
const PAUSE: Duration = Duration::from_millis(500);
/// And never longer than this: a list of metadata is cheap, and namespaces are waited for.
const LONGEST_PAUSE: Duration = Duration::from_secs(16);

/// What is kept of a namespace.
pub(super) fn namespace(object: PartialObjectMeta<Object>) -> Option<(String, Arc<Namespace>)> {
    let name = object.metadata.name?;
    let labels = object.metadata.labels.unwrap_or_default();
    Some((name.clone(), Arc::new(Namespace { name, labels })))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::cluster::fake::{Response, events, failure, success, watched};

    fn object(name: &str, label: &str) -> Value {
        json!({
            "apiVersion": "meta.k8s.io/v1",
            "kind": "PartialObjectMetadata",
            "metadata": { "name": name, "resourceVersion": "7", "labels": { "team": label } },
        })
    }

    fn list(items: &[Value]) -> Response {
        success(&json!({
            "apiVersion": "meta.k8s.io/v1",
            "kind": "PartialObjectMetadataList",
            "metadata": { "resourceVersion": "7" },
            "items": items,
        }))
    }

    /// Follows until the API server is silent. How long that took is for the clock to say.
    async fn after(answers: Vec<Response>) -> Namespaces {
        let count = answers.len();
        let (client, asked) = watched(answers);
        let namespaces = Namespaces::new(client.clone(), Arc::new(Metrics::new().unwrap()));
        tokio::select! {
            () = namespaces.follow(client) => {}
            () = async {
                while asked.load(Ordering::SeqCst) <= count {
                    sleep(Duration::from_millis(1)).await;
                }
            } => {}
        }
        namespaces
    }

    fn team(namespaces: &Namespaces, name: &str) -> Option<String> {
        namespaces.find(name).map(|found| found.labels["team"].clone())
    }

    #[tokio::test(start_paused = true)]
    async fn lists_and_changes_are_followed() {
        let listed = list(&[object("kept", "a"), object("changed", "a"), object("gone", "a")]);
        let changes = events(&[
            ("ADDED", object("new", "a")),
            ("MODIFIED", object("changed", "b")),
            ("DELETED", object("gone", "a")),
        ]);
        let namespaces = after(vec![listed, changes]).await;
        let names = ["kept", "changed", "gone", "new", "never"];
        let teams = names.map(|name| team(&namespaces, name));
        assert_eq!(
            teams.each_ref().map(Option::as_deref),
            [Some("a"), Some("b"), None, Some("a"), None]
        );
        assert!(namespaces.listed());
        let text = namespaces.metrics.text();
        assert!(text.contains(r#"devgrant_watch_synced{resource="namespaces"} 1"#), "{text}");
        assert!(
            text.contains(r#"devgrant_watch_contact_seconds{resource="namespaces"} 1"#),
            "{text}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_not_listed_before_the_first_list_is_there() {
        let namespaces = after(vec![failure(500, "InternalError", "etcd is away")]).await;
        assert!(!namespaces.listed());
        let text = namespaces.metrics.text();
        assert!(text.contains(r#"devgrant_watch_synced{resource="namespaces"} 0"#), "{text}");
        assert!(text.contains(r#"devgrant_watch_errors_total{resource="namespaces"} 1"#), "{text}");
        assert!(!text.contains("devgrant_watch_contact_seconds"), "an error is no answer: {text}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_api_server_that_refuses_is_asked_less_and_less_often() {
        let begun = tokio::time::Instant::now();
        after((0..10).map(|_| failure(403, "Forbidden", "no")).collect()).await;
        let least = PAUSE * (1 + 2 + 4 + 8 + 16) + LONGEST_PAUSE * 5;
        assert!(begun.elapsed() >= least, "{:?}", begun.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_breaks_keeps_the_last_state_until_there_is_a_better_one() {
        let gone = json!({
            "kind": "Status", "apiVersion": "v1", "status": "Failure",
            "code": 410, "reason": "Expired", "message": "too old",
        });
        let broken = || {
            vec![
                list(&[object("kept", "a"), object("gone", "a")]),
                events(&[("ERROR", gone.clone())]),
                failure(503, "ServiceUnavailable", "away"),
            ]
        };
        let namespaces = after(broken()).await;
        assert_eq!(team(&namespaces, "gone").as_deref(), Some("a"));
        assert!(namespaces.listed());
        let text = namespaces.metrics.text();
        assert!(text.contains(r#"devgrant_watch_errors_total{resource="namespaces"} 2"#), "{text}");

        let mended = broken().into_iter().chain([list(&[object("kept", "b")]), events(&[])]);
        let namespaces = after(mended.collect()).await;
        assert_eq!(team(&namespaces, "kept").as_deref(), Some("b"));
        assert_eq!(team(&namespaces, "gone"), None, "what the new list has not is gone");
    }
}
