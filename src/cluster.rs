//! The cluster that the server serves: its namespaces, the authority that replicas share, and the
//! registration at the API server.
//!
//! Nothing here is on the way of a review, but for one bounded live read where a namespace is unknown.
//! An API server that cannot be reached leaves the last state in force, and is tried again.
//!
//! - `client`: the client, and its errors in words
//! - `namespaces`, `live`: what is known of namespaces; the one live read
//! - `nodes`: which extended resources any node offers
//! - `trust`: the authority in the Secret, and what is due for it; pure
//! - `keeper`: follows the Secret and does what is due, with `lease` to be the only one
//! - `registered`: both webhook configurations, and their `caBundle`
//! - `events`: Events on our own pod, where a policy set is refused
//! - `status`: what a person should know of all that

mod client;
mod events;
#[cfg(test)]
mod fake;
mod keeper;
mod lease;
mod live;
mod namespaces;
mod nodes;
mod registered;
mod status;
mod trust;

use std::fmt;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use kube::Client;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

pub use client::{NoCluster, connect};
pub use events::OwnPod;
pub use namespaces::Namespaces;
pub use nodes::Nodes;
pub use status::{Status, Topic};

use crate::metrics::Metrics;
use crate::server::LivePolicies;
use crate::tls::authority::Authority;
use keeper::Keeper;
use lease::Lease;
use registered::{NAME, Registrations};

/// The cluster's side of a server.
pub struct Cluster {
    client: Client,
    namespaces: Arc<Namespaces>,
    nodes: Option<Arc<Nodes>>,
    registrations: Registrations,
    expression: Option<Expression>,
    told: Option<(OwnPod, Arc<LivePolicies>)>,
    keeper: Option<Keeper>,
    status: Arc<Status>,
    metrics: Arc<Metrics>,
}

/// What the matchCondition of a registration must be, for the policies in force at the moment of the
/// call.
#[derive(Clone)]
pub struct Expression(Arc<dyn Fn() -> String + Send + Sync>);

/// The cluster's side while it runs.
#[derive(Debug)]
pub struct Running {
    tasks: JoinSet<()>,
    stop: watch::Sender<bool>,
}

impl Cluster {
    /// A cluster of which nothing is known yet.
    pub fn new(client: Client, metrics: Arc<Metrics>) -> Self {
        let namespaces = Arc::new(Namespaces::new(client.clone(), Arc::clone(&metrics)));
        let registrations = Registrations::new(client.clone());
        let status = Arc::default();
        Self {
            client,
            namespaces,
            nodes: None,
            registrations,
            expression: None,
            told: None,
            keeper: None,
            status,
            metrics,
        }
    }

    /// Keeps the authority that replicas share, whose leaves are for `names`. `replica` names this one
    /// to people who look at the Lease. What is returned is the authority, as it comes and changes.
    pub fn keep_authority(
        &mut self,
        own_namespace: &str,
        replica: &str,
        names: Vec<String>,
    ) -> watch::Receiver<Option<Arc<Authority>>> {
        let identity = format!("{replica}_{:016x}", random());
        let lease = Lease::new(self.client.clone(), own_namespace, NAME, identity);
        let keeper = Keeper::new(
            self.client.clone(),
            own_namespace.to_owned(),
            lease,
            names,
            Arc::clone(&self.status),
            Arc::clone(&self.metrics),
        );
        let authority = keeper.authority();
        self.keeper = Some(keeper);
        authority
    }

    /// Follows the nodes. What is returned is what they offer.
    pub fn watch_nodes(&mut self) -> Arc<Nodes> {
        let nodes = || Arc::new(Nodes::new(Arc::clone(&self.metrics)));
        Arc::clone(self.nodes.get_or_insert_with(nodes))
    }

    /// Compares what is registered with what the policies need.
    pub fn compare_registration(&mut self, expression: Expression) {
        self.expression = Some(expression);
    }

    /// Makes Events on our own pod where a set of these policies is refused, and where the next one is
    /// in force.
    pub fn tell_of_policies(&mut self, pod: OwnPod, policies: Arc<LivePolicies>) {
        self.told = Some((pod, policies));
    }

    /// What is known of namespaces.
    pub fn namespaces(&self) -> Arc<Namespaces> {
        Arc::clone(&self.namespaces)
    }

    /// What a person should know.
    pub fn status(&self) -> Arc<Status> {
        Arc::clone(&self.status)
    }

    /// Starts it. What is returned ends it, also by being dropped.
    pub fn start(mut self) -> Running {
        let mut tasks = JoinSet::new();
        let (namespaces, client) = (self.namespaces(), self.client.clone());
        tasks.spawn(async move { namespaces.follow(client).await });
        if let Some(nodes) = self.nodes.take() {
            let client = self.client.clone();
            tasks.spawn(async move { nodes.follow(client).await });
        }
        if let Some((pod, policies)) = self.told.take() {
            tasks.spawn(events::tell(self.client.clone(), pod, policies));
        }
        let (stop, asked) = watch::channel(false);
        tasks.spawn(self.keep(asked));
        Running { tasks, stop }
    }

    /// Turn after turn until it is asked to stop; then gives the Lease back.
    async fn keep(mut self, mut stop: watch::Receiver<bool>) {
        let mut turns = interval(TURN);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let turn = async {
                turns.tick().await;
                self.turn(SystemTime::now()).await;
            };
            tokio::select! {
                biased;
                // A turn that is left in the middle is what a crash would leave: nothing half written.
                _ = stop.wait_for(|stop| *stop) => break,
                () = turn => {}
            }
        }
        if let Some(keeper) = &mut self.keeper {
            keeper.release().await;
        }
    }

    async fn turn(&mut self, now: SystemTime) {
        let registered = self.registrations.read().await;
        let (note, outdated) = match &registered {
            Err(error) => (Some(format!("it cannot be read: {error}")), None),
            Ok(registered) if registered.is_empty() => {
                (Some(format!("no webhook configuration `{NAME}` is there; {APPLY}")), Some(false))
            }
            Ok(registered) => {
                let wanted = self.expression.as_ref().map(|expression| (expression.0)());
                let outdated = wanted.and_then(|wanted| {
                    registered.iter().find_map(|registered| registered.outdated(&wanted))
                });
                let note = outdated.map(|webhook| {
                    format!(
                        "webhook {webhook} does not let through what the policies need; {APPLY}"
                    )
                });
                (note, Some(outdated.is_some()))
            }
        };
        self.status.note(Topic::Registration, note);
        if let Some(outdated) = outdated {
            self.metrics.cluster().registration_outdated(outdated);
        }
        if let Some(keeper) = &mut self.keeper {
            keeper.turn(&self.registrations, registered.as_deref().ok(), now).await;
        }
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Cluster").field("status", &self.status).finish_non_exhaustive()
    }
}

impl Running {
    /// Waits for a part that ended by itself, which none does.
    pub async fn ended(&mut self) {
        self.tasks.join_next().await;
    }

    /// Ends it in order: the Lease is given back, if that takes no longer than a moment.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        // The one part that ends when it is asked; the watch of namespaces never does.
        if timeout(PARTING, self.tasks.join_next()).await.is_err() {
            tracing::warn!("the Lease was not given back in time, and has to run out");
        }
    }
}

impl Expression {
    /// What the policies in force need.
    pub fn new(of_policies: impl Fn() -> String + Send + Sync + 'static) -> Self {
        Self(Arc::new(of_policies))
    }
}

impl fmt::Debug for Expression {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Expression").finish_non_exhaustive()
    }
}

/// How often the cluster is looked at: five calls, each of one object by its name.
const TURN: Duration = Duration::from_secs(5);
/// How long giving back the Lease may take. The kubelet kills 30 s after its SIGTERM, of which delay and
/// drain take 25 s.
const PARTING: Duration = Duration::from_secs(3);
const APPLY: &str = "apply `devgrant manifests` again";

/// Different in every process: the keys of a standard hash map are.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use serde_json::{Value, json};

    use super::*;
    use fake::Fake;

    const MUTATING: &str =
        "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/devgrant";

    fn cluster(fake: &Fake) -> Cluster {
        Cluster::new(fake.client(), Arc::new(Metrics::new().unwrap()))
    }

    fn note(cluster: &Cluster, wanted: Topic) -> String {
        let note = cluster.status.notes().find(|(topic, _)| *topic == wanted).unwrap().1;
        note.map(|note| note.to_string()).unwrap_or_default()
    }

    #[tokio::test(start_paused = true)]
    async fn a_registration_that_the_policies_outgrew_is_to_be_applied_again() {
        let fake = Fake::default();
        let mut cluster = cluster(&fake);
        let more = Arc::new(AtomicBool::new(false));
        let policies = Arc::clone(&more);
        cluster.compare_registration(Expression::new(move || {
            if policies.load(Ordering::Relaxed) { "new".to_owned() } else { "old".to_owned() }
        }));
        cluster.turn(SystemTime::now()).await;
        let none = "no webhook configuration `devgrant` is there; apply `devgrant manifests` again";
        assert_eq!(note(&cluster, Topic::Registration), none);

        let conditions = json!([{ "name": "asks-for-a-device", "expression": "old" }]);
        let webhook = json!({
            "name": "mutate.pods.devgrant",
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
            "clientConfig": {},
            "matchConditions": conditions,
        });
        fake.put(MUTATING, json!({ "webhooks": [webhook] }));
        cluster.turn(SystemTime::now()).await;
        assert_eq!(note(&cluster, Topic::Registration), "");
        assert!(cluster.metrics.text().contains("devgrant_registration_outdated 0"));

        more.store(true, Ordering::Relaxed);
        cluster.turn(SystemTime::now()).await;
        assert_eq!(
            note(&cluster, Topic::Registration),
            "webhook mutate.pods.devgrant does not let through what the policies need; apply \
             `devgrant manifests` again"
        );
        assert!(cluster.metrics.text().contains("devgrant_registration_outdated 1"));
        assert_eq!(fake.calls("PATCH"), [], "certificates from files: caBundle is not ours");
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_stopped_gives_the_lease_back() {
        let fake = Fake::default();
        let mut cluster = cluster(&fake);
        drop(cluster.keep_authority("ours", "replica", Vec::new()));
        let running = cluster.start();
        let holder = || {
            let lease = fake.object("/apis/coordination.k8s.io/v1/namespaces/ours/leases/devgrant");
            lease["spec"]["holderIdentity"].clone()
        };
        while holder() == Value::Null {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(holder().as_str().unwrap().starts_with("replica_"));
        running.stop().await;
        assert_eq!(holder(), Value::Null);
    }
}
