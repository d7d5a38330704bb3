//! The Lease: which replica takes care of the certificates for all.
//!
//! The protocol is that of client-go (`tools/leaderelection`): whoever holds it renews it, and another
//! replica takes it once it has not seen it change for its duration. Ages are measured by the watcher's
//! own clock from the moment that it saw a change; clocks of two machines are never compared.
//!
//! Two holders for a moment, as after a long pause, do no harm: what a holder writes into the Secret is
//! under optimistic concurrency, and the `caBundle` follows from the Secret.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease as Object, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::time::Instant;

use super::client::{Trouble, call};

/// How long a Lease that is not renewed is respected: three turns of the upkeep.
const DURATION: Duration = Duration::from_secs(15);

/// Our side of the Lease.
#[derive(Debug)]
pub(super) struct Lease {
    api: Api<Object>,
    name: &'static str,
    identity: String,
    /// The version that was seen last, and since when.
    seen: Option<(String, Instant)>,
    held: bool,
}

impl Lease {
    /// The Lease of this name; `identity` must be no other replica's.
    pub(super) fn new(
        client: Client,
        namespace: &str,
        name: &'static str,
        identity: String,
    ) -> Self {
        Self { api: Api::namespaced(client, namespace), name, identity, seen: None, held: false }
    }

    /// Renews the Lease, or takes it if nobody else has it. Whether it is ours now.
    pub(super) async fn hold(&mut self) -> Result<bool, Trouble> {
        let held = match self.try_hold().await {
            // Another replica was faster.
            Err(Trouble::Conflict(_)) => Ok(false),
            result => result,
        };
        self.held = matches!(held, Ok(true));
        held
    }

    /// Gives the Lease back, so that the next holder does not have to wait for it to run out.
    pub(super) async fn release(&mut self) -> Result<(), Trouble> {
        if !std::mem::take(&mut self.held) {
            return Ok(());
        }
        let Some(mut lease) = call(self.api.get_opt(self.name)).await? else { return Ok(()) };
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_ref() != Some(&self.identity) {
            return Ok(());
        }
        spec.holder_identity = None;
        spec.renew_time = Some(MicroTime(Timestamp::now()));
        self.replace(&lease).await
    }

    async fn try_hold(&mut self) -> Result<bool, Trouble> {
        let now = MicroTime(Timestamp::now());
        let Some(mut lease) = call(self.api.get_opt(self.name)).await? else {
            let spec = LeaseSpec { lease_transitions: Some(0), ..LeaseSpec::default() };
            let metadata = ObjectMeta { name: Some(self.name.to_owned()), ..ObjectMeta::default() };
            let lease = Object { metadata, spec: Some(self.mine(spec, now)) };
            call(self.api.create(&PostParams::default(), &lease)).await?;
            return Ok(true);
        };
        let spec = lease.spec.take().unwrap_or_default();
        let holder = spec.holder_identity.as_deref().filter(|holder| !holder.is_empty());
        let ours = holder == Some(self.identity.as_str());
        if holder.is_some() && !ours && !self.ran_out(&lease, &spec) {
            return Ok(false);
        }
        lease.spec = Some(if ours {
            LeaseSpec { renew_time: Some(now), ..spec }
        } else {
            let transitions = spec.lease_transitions.unwrap_or_default().saturating_add(1);
            self.mine(LeaseSpec { lease_transitions: Some(transitions), ..spec }, now)
        });
        self.replace(&lease).await?;
        Ok(true)
    }

    /// Whether somebody else's Lease has not changed for its duration.
    fn ran_out(&mut self, lease: &Object, spec: &LeaseSpec) -> bool {
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        let duration = spec
            .lease_duration_seconds
            .and_then(|seconds| u64::try_from(seconds).ok())
            .map_or(DURATION, Duration::from_secs);
        match &self.seen {
            Some((seen, since)) if *seen == version => since.elapsed() >= duration,
            _ => {
                self.seen = Some((version, Instant::now()));
                false
            }
        }
    }

    fn mine(&self, spec: LeaseSpec, now: MicroTime) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: Some(now.clone()),
            renew_time: Some(now),
            ..spec
        }
    }

    /// Under the version that was read: whoever wrote in between wins.
    async fn replace(&self, lease: &Object) -> Result<(), Trouble> {
        call(self.api.replace(self.name, &PostParams::default(), lease)).await.map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::cluster::fake::Fake;

    const PATH: &str = "/apis/coordination.k8s.io/v1/namespaces/ours/leases/devgrant";

    fn lease(fake: &Fake, identity: &str) -> Lease {
        Lease::new(fake.client(), "ours", "devgrant", identity.to_owned())
    }

    #[tokio::test(start_paused = true)]
    async fn one_holds_it_until_it_stops_renewing() {
        let fake = Fake::default();
        let (mut one, mut two) = (lease(&fake, "one"), lease(&fake, "two"));
        assert!(one.hold().await.unwrap());
        for _ in 0..10 {
            assert!(!two.hold().await.unwrap(), "it is renewed");
            tokio::time::advance(DURATION / 2).await;
            assert!(one.hold().await.unwrap());
        }
        assert!(!two.hold().await.unwrap());
        tokio::time::advance(DURATION).await;
        assert!(two.hold().await.unwrap(), "it was not renewed");
        assert_eq!(fake.object(PATH)["spec"]["leaseTransitions"], 1);
        assert!(!one.hold().await.unwrap(), "it is another one's");
        one.release().await.unwrap();
        assert_eq!(fake.object(PATH)["spec"]["holderIdentity"], "two");
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_is_given_back_is_taken_at_once() {
        let fake = Fake::default();
        let (mut one, mut two) = (lease(&fake, "one"), lease(&fake, "two"));
        assert!(one.hold().await.unwrap());
        one.release().await.unwrap();
        assert!(two.hold().await.unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_slower_has_it_not() {
        let others = json!({ "spec": { "holderIdentity": "two", "leaseDurationSeconds": 15 } });
        let fake = Fake::default();
        let mut one = lease(&fake, "one");
        fake.race(PATH, others.clone());
        assert!(!one.hold().await.unwrap(), "both made it");
        fake.put(PATH, json!({ "spec": { "holderIdentity": "" } }));
        fake.race(PATH, others);
        assert!(!one.hold().await.unwrap(), "both took it");
        assert_eq!(fake.object(PATH)["spec"]["holderIdentity"], "two");
        fake.calls("");
        one.release().await.unwrap();
        assert_eq!(fake.calls("PUT"), [], "what is not held is not given back");
    }

    #[tokio::test(start_paused = true)]
    async fn an_api_server_that_does_not_answer_is_no_lease() {
        let fake = Fake::default();
        let mut one = lease(&fake, "one");
        assert!(one.hold().await.unwrap());
        fake.down(true);
        assert!(one.hold().await.is_err());
        assert!(!one.held);
        fake.down(false);
        assert!(one.hold().await.unwrap());
        assert_eq!(fake.object(PATH)["spec"]["preferredHolder"], Value::Null);
    }
}
