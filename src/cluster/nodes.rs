//! The extended resources that the nodes of the cluster offer, as a watch tells of them.
//!
//! Only for a warning at `/advise`, so that nothing waits for it: what is not known is not warned of.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::core::{ApiResource, NotUsed, Object};
use kube::runtime::watcher::{self, Config, Event, watcher};
use kube::{Api, Client};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use super::client::{noting, words};
use crate::metrics::Metrics;

/// What nodes offer.
#[derive(Debug)]
pub struct Nodes {
    /// Nothing until the first list is there.
    offered: ArcSwapOption<BTreeSet<String>>,
    metrics: Arc<Metrics>,
}

impl Nodes {
    /// None known yet.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        metrics.cluster().watch_synced(RESOURCE, false);
        Self { offered: ArcSwapOption::empty(), metrics }
    }

    /// The names of the extended resources of which any node has more than none for pods, whether they
    /// are taken or not. Nothing before the first list, and without the right to read nodes.
    pub fn offered(&self) -> Option<Arc<BTreeSet<String>>> {
        self.offered.load_full()
    }

    /// Follows the cluster for ever. A watch that breaks keeps the last state.
    pub async fn follow(&self, client: Client) {
        let metrics = Arc::clone(&self.metrics);
        let client = noting(client, move || {
            metrics.cluster().watch_answered(RESOURCE, SystemTime::now());
        });
        let api: Api<Lean> = Api::all_with(client, &ApiResource::erase::<Node>(&()));
        // A node has some 20 KB, of which little is kept.
        let mut events = pin!(watcher(api, Config::default().page_size(PAGE)));
        let mut nodes = Known::new();
        let mut listing = Known::new();
        let mut pause = PAUSE;
        let mut refused = false;
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => {
                    // Every try begins with this one.
                    if !matches!(event, Event::Init) {
                        (pause, refused) = (PAUSE, false);
                    }
                    self.take(event, &mut nodes, &mut listing);
                }
                Err(error) => {
                    self.metrics.cluster().watch_broke(RESOURCE);
                    let forbidden = is_forbidden(&error);
                    // Said once: the right to read nodes comes when somebody gives it, or never.
                    if !(forbidden && refused) {
                        self.say(&error, forbidden);
                    }
                    refused = forbidden;
                    pause = if forbidden { LONGEST_PAUSE } else { pause };
                    sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// A list is gathered aside and taken whole: until it is there, the last state holds.
    fn take(&self, event: Event<Lean>, nodes: &mut Known, listing: &mut Known) {
        match event {
            Event::Init => listing.clear(),
            Event::InitApply(node) => listing.extend(resources(node)),
            Event::InitDone => {
                *nodes = std::mem::take(listing);
                tracing::info!(count = nodes.len(), "nodes listed");
                self.offer(nodes);
                self.metrics.cluster().watch_synced(RESOURCE, true);
            }
            Event::Apply(node) => {
                let Some((name, resources)) = resources(node) else { return };
                // Every node says every few minutes that it is as it was.
                if nodes.get(&name) != Some(&resources) {
                    nodes.insert(name, resources);
                    self.offer(nodes);
                }
            }
            Event::Delete(node) => {
                if node.metadata.name.and_then(|name| nodes.remove(&name)).is_some() {
                    self.offer(nodes);
                }
            }
        }
    }

    fn offer(&self, nodes: &Known) {
        let offered: BTreeSet<String> = nodes.values().flatten().cloned().collect();
        if self.offered().as_deref() != Some(&offered) {
            self.offered.store(Some(Arc::new(offered)));
        }
    }

    fn say(&self, error: &watcher::Error, forbidden: bool) {
        let remedy = if forbidden {
            "apply `devgrant manifests --nodes`, or leave out watchNodes; until then nothing is said of \
             resources that no node offers"
        } else {
            "it is tried again; the last state holds"
        };
        let listed = self.offered().is_some();
        tracing::warn!(resource = RESOURCE, error = words(error), listed, remedy, "a watch broke");
    }
}

/// The resource, as metrics name it.
const RESOURCE: &str = "nodes";
/// How many nodes are read at a time.
const PAGE: u32 = 50;
/// How long a watch that broke waits before it is tried again, each time twice as long.
const PAUSE: Duration = Duration::from_secs(1);
/// And never longer than this: nobody waits for nodes.
const LONGEST_PAUSE: Duration = Duration::from_mins(5);

/// The extended resources of each node.
type Known = HashMap<String, BTreeSet<String>>;

/// As much of a node as is read: images and addresses are most of it.
type Lean = Object<NotUsed, Status>;

#[derive(Debug, Clone, Default, Deserialize, Serialize)]
struct Status {
    #[serde(default)]
    allocatable: BTreeMap<String, Quantity>,
}

/// The names with a domain, which extended resources have and CPU and memory have not, of which there is
/// more than none. Those of Kubernetes itself are none (`kubernetes pkg/apis/core/v1/helper`,
/// `IsExtendedResourceName`).
fn resources(node: Lean) -> Option<(String, BTreeSet<String>)> {
    let status = node.status.unwrap_or_default();
    let some = |(name, amount): (String, Quantity)| {
        let is_zero = amount.0.trim_start_matches('0').is_empty();
        (name.contains('/') && !is_zero).then_some(name)
    };
    Some((node.metadata.name?, status.allocatable.into_iter().filter_map(some).collect()))
}

fn is_forbidden(error: &watcher::Error) -> bool {
    use watcher::Error::{InitialListFailed, WatchFailed, WatchStartFailed};
    let (InitialListFailed(error) | WatchStartFailed(error) | WatchFailed(error)) = error else {
        return false;
    };
    matches!(error, kube::Error::Api(status) if matches!(status.code, 401 | 403))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use serde_json::{Value, json};

    use super::*;
    use crate::cluster::fake::{Response, events, failure, success, watched};

    fn node(name: &str, allocatable: &Value) -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": { "name": name, "resourceVersion": "7" },
            "spec": { "podCIDR": "10.0.0.0/24" },
            "status": { "allocatable": allocatable, "images": [{ "names": ["x"] }] },
        })
    }

    fn list(items: &[Value]) -> Response {
        success(&json!({
            "apiVersion": "v1",
            "kind": "NodeList",
            "metadata": { "resourceVersion": "7" },
            "items": items,
        }))
    }

    /// Follows until the API server is silent.
    async fn after(answers: Vec<Response>) -> Nodes {
        let count = answers.len();
        let (client, asked) = watched(answers);
        let nodes = Nodes::new(Arc::new(Metrics::new().unwrap()));
        tokio::select! {
            () = nodes.follow(client) => {}
            () = async {
                while asked.load(Ordering::SeqCst) <= count {
                    sleep(Duration::from_millis(1)).await;
                }
            } => {}
        }
        nodes
    }

    fn offered(nodes: &Nodes) -> Option<Vec<String>> {
        nodes.offered().map(|offered| offered.iter().cloned().collect())
    }

    #[tokio::test(start_paused = true)]
    async fn what_any_node_has_is_offered() {
        let listed = || {
            list(&[
                node("a", &json!({ "cpu": "4", "x.example/fuse": "8", "x.example/kvm": "0" })),
                node("b", &json!({ "x.example/gpu": "1", "x.example/fuse": "8" })),
            ])
        };
        let nodes = after(vec![listed()]).await;
        assert_eq!(offered(&nodes).unwrap(), ["x.example/fuse", "x.example/gpu"]);

        let changes = events(&[
            ("DELETED", node("b", &json!({}))),
            ("MODIFIED", node("a", &json!({ "x.example/kvm": "100", "x.example/fuse": "0" }))),
            ("ADDED", node("c", &json!({ "y.example/z": "1k" }))),
        ]);
        let nodes = after(vec![listed(), changes]).await;
        assert_eq!(offered(&nodes).unwrap(), ["x.example/kvm", "y.example/z"]);
        let text = nodes.metrics.text();
        assert!(text.contains(r#"devgrant_watch_synced{resource="nodes"} 1"#), "{text}");

        let away = failure(503, "ServiceUnavailable", "away");
        let nodes = after(vec![listed(), events(&[]), away]).await;
        assert_eq!(offered(&nodes).unwrap().len(), 2, "the last state holds");
    }

    #[tokio::test(start_paused = true)]
    async fn without_the_right_to_read_them_nothing_is_known_and_little_asked() {
        let begun = tokio::time::Instant::now();
        let nodes = after((0..3).map(|_| failure(403, "Forbidden", "no")).collect()).await;
        assert_eq!(offered(&nodes), None);
        assert!(begun.elapsed() >= LONGEST_PAUSE * 3, "{:?}", begun.elapsed());
        let text = nodes.metrics.text();
        assert!(text.contains(r#"devgrant_watch_synced{resource="nodes"} 0"#), "{text}");
        assert!(text.contains(r#"devgrant_watch_errors_total{resource="nodes"} 3"#), "{text}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_right_that_comes_later_is_noticed() {
        let given = list(&[node("a", &json!({ "x.example/fuse": "1" }))]);
        let nodes = after(vec![failure(403, "Forbidden", "no"), given]).await;
        assert_eq!(offered(&nodes).unwrap(), ["x.example/fuse"]);
    }
}
