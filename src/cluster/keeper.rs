//! Keeps the shared authority: follows the Secret, and, where this replica holds the Lease, does what
//! is due for it and writes `caBundle`.
//!
//! It is a turn that is taken again and again and rests on what it reads, not on what it remembers of
//! the turn before: a turn that fails in the middle is made good by the next one. Reading the Secret
//! on a timer needs only `get` of that one name; a change of it has time (see [`super::trust`]).

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::Instant;

use super::client::{Trouble, call};
use super::lease::Lease;
use super::registered::{Registered, Registrations};
use super::status::{Status, Topic};
use super::trust::{Step, Trust, due};
use crate::metrics::{BundleApply, Metrics, Reload};
use crate::tls::authority::Authority;

/// The Secret of the authority.
const SECRET: &str = "devgrant-authority";

/// What takes care of the shared authority.
#[derive(Debug)]
pub(super) struct Keeper {
    secrets: Api<Secret>,
    namespace: String,
    lease: Lease,
    names: Vec<String>,
    /// To whoever signs.
    authority: watch::Sender<Option<Arc<Authority>>>,
    /// The last good content of the Secret.
    trust: Option<Trust>,
    /// The version of a Secret that was refused, so that each is counted once.
    refused: Option<String>,
    /// The bundle that every registration has had, and since when.
    in_force: Option<(String, Instant)>,
    /// Whether the registrations did not trust us a turn ago either.
    untrusted: bool,
    status: Arc<Status>,
    metrics: Arc<Metrics>,
}

/// What the Secret was found to be.
enum Found {
    /// One without content, of this version.
    Empty(String),
    /// A whole authority, in a Secret of this version.
    Whole(String),
    /// Nothing that can be worked with; noted.
    Nothing,
}

impl Keeper {
    /// One that has read nothing yet.
    pub(super) fn new(
        client: Client,
        namespace: String,
        lease: Lease,
        names: Vec<String>,
        status: Arc<Status>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            secrets: Api::namespaced(client, &namespace),
            namespace,
            lease,
            names,
            authority: watch::Sender::new(None),
            trust: None,
            refused: None,
            in_force: None,
            untrusted: false,
            status,
            metrics,
        }
    }

    /// The authority to sign with, as it changes.
    pub(super) fn authority(&self) -> watch::Receiver<Option<Arc<Authority>>> {
        self.authority.subscribe()
    }

    /// One turn; `registered` is what is registered, if that could be read.
    pub(super) async fn turn(
        &mut self,
        registrations: &Registrations,
        registered: Option<&[Registered]>,
        now: SystemTime,
    ) {
        let held = self.hold().await;
        let found = self.read().await;
        if held {
            self.step(found, now).await;
        }
        let trusted = match (&self.trust, registered) {
            (Some(trust), Some(registered)) => {
                let trust = trust.clone();
                let problem =
                    if held { self.spread(registrations, registered, &trust).await } else { None };
                self.judge(registered, &trust, problem)
            }
            _ => false,
        };
        self.settle(trusted);
        // What could not be read says nothing of what is in force.
        if registered.is_some() {
            self.metrics.cluster().bundle(trusted);
        }
    }

    /// Gives the Lease back.
    pub(super) async fn release(&mut self) {
        match self.lease.release().await {
            Ok(()) => self.metrics.cluster().lease(false),
            Err(error) => {
                tracing::warn!(%error, "the Lease was not given back, and has to run out");
            }
        }
    }

    async fn hold(&mut self) -> bool {
        let held = self.lease.hold().await;
        let problem = held.as_ref().err().map(|error| format!("it cannot be held: {error}"));
        self.status.note(Topic::Lease, problem);
        let held = held.unwrap_or(false);
        self.metrics.cluster().lease(held);
        held
    }

    /// Reads the Secret, and takes what it holds.
    async fn read(&mut self) -> Found {
        let secret = match call(self.secrets.get_opt(SECRET)).await {
            Ok(Some(secret)) => secret,
            Ok(None) => {
                self.problem(
                    "is missing; apply `devgrant manifests`, which has it without content",
                );
                return Found::Nothing;
            }
            Err(error) => {
                self.problem(&format!("cannot be read: {error}"));
                return Found::Nothing;
            }
        };
        let version = secret.metadata.resource_version.unwrap_or_default();
        match Trust::read(&secret.data.unwrap_or_default()) {
            Ok(Some(trust)) => {
                if self.take(trust) {
                    Found::Whole(version)
                } else {
                    Found::Nothing
                }
            }
            Ok(None) => {
                // Not for long: whoever holds the Lease fills it.
                self.status.note(Topic::Authority, None);
                Found::Empty(version)
            }
            Err(bad) => {
                if self.refused.as_ref() != Some(&version) {
                    self.metrics.cluster().authority_reload(Reload::Kept);
                    self.refused = Some(version);
                }
                self.problem(&format!(
                    "holds no whole authority: {bad}; the last good one is used; mend it, or empty \
                     it (remove its data) and a new one is made"
                ));
                Found::Nothing
            }
        }
    }

    /// Does what is due, if anything is. Two who do so at once: the second one is refused by the
    /// version, and reads again in its next turn.
    async fn step(&mut self, found: Found, now: SystemTime) {
        let (version, step) = match found {
            Found::Nothing => return,
            Found::Whole(version) => {
                (version, due(self.trust.as_ref(), &self.names, now, self.settled()))
            }
            // Emptied by hand while we run, to have another authority. What replicas show is still
            // signed by the last one, so it stays until the new one is trusted.
            Found::Empty(version) => match due(self.trust.as_ref(), &self.names, now, None) {
                Step::Create => (version, Step::Create),
                _ => (version, Step::Introduce),
            },
        };
        let after = match (step, self.trust.clone()) {
            (Step::None, _) => return,
            (Step::Create, _) | (_, None) => Trust::create(&self.names, now),
            (Step::Introduce, Some(trust)) => trust.introduce(&self.names, now),
            (Step::Promote, Some(trust)) => Ok(trust.promote(now)),
            (Step::Retire, Some(trust)) => Ok(trust.retire()),
        };
        let written = match after {
            Ok(after) => self.write(&after, &version).await.map(|()| after),
            Err(error) => Err(Trouble::Other(error.to_string())),
        };
        match written {
            Ok(after) => {
                tracing::info!(step = ?step, "the authority in the Secret was changed");
                self.take(after);
            }
            Err(Trouble::Conflict(_)) => {
                tracing::info!(step = ?step, "somebody else wrote the Secret first; it is read again");
            }
            Err(error) => self.problem(&format!("cannot be written ({step:?}): {error}")),
        }
    }

    /// Under the version that was read, and nothing but the data.
    async fn write(&self, trust: &Trust, version: &str) -> Result<(), Trouble> {
        let patch = json!({
            "metadata": { "resourceVersion": version },
            "data": trust.to_patch(),
        });
        let params =
            PatchParams { field_manager: Some(SECRET.to_owned()), ..PatchParams::default() };
        call(self.secrets.patch(SECRET, &params, &Patch::Merge(patch))).await.map(drop)
    }

    /// Takes a whole authority; whoever signs hears of it if it is another one. Whether it can sign.
    fn take(&mut self, trust: Trust) -> bool {
        let same = self.trust.as_ref().is_some_and(|known| known.current == trust.current);
        if !same {
            match Authority::of(trust.current.clone(), self.names.clone()) {
                Ok(authority) => {
                    self.metrics.cluster().authority(authority.validity().not_after);
                    self.metrics.cluster().authority_reload(Reload::Swapped);
                    tracing::info!("the authority that signs was read");
                    for name in self.names.iter().filter(|name| !trust.current.permits(name)) {
                        tracing::warn!(
                            name,
                            "the authority does not sign for a name of ours; whoever holds the Lease \
                             replaces it where it has that name, so give all replicas the same --names"
                        );
                    }
                    self.authority.send_replace(Some(Arc::new(authority)));
                }
                Err(error) => {
                    self.problem(&format!("holds an authority that cannot sign: {error}"));
                    return false;
                }
            }
        }
        self.refused = None;
        self.status.note(Topic::Authority, None);
        self.trust = Some(trust);
        true
    }

    /// Writes the bundle where it is another one. What is wrong, if anything is.
    async fn spread(
        &self,
        registrations: &Registrations,
        registered: &[Registered],
        trust: &Trust,
    ) -> Option<String> {
        let mut problem = None;
        for registered in registered.iter().filter(|registered| !registered.has_bundle(trust)) {
            let kind = registered.kind();
            match registrations.apply(registered, trust).await {
                Ok(()) => {
                    self.metrics.cluster().bundle_apply(BundleApply::Applied);
                    tracing::info!(kind, "caBundle written");
                }
                Err(Trouble::Conflict(status)) => {
                    self.metrics.cluster().bundle_apply(BundleApply::Conflict);
                    problem = Some(format!(
                        "the caBundle of the {kind} belongs to somebody else and is left as it is: \
                         {}; have them leave it out, or use --tls-cert with a certificate of theirs",
                        one_line(&status.message)
                    ));
                }
                Err(error) => {
                    self.metrics.cluster().bundle_apply(BundleApply::Failed);
                    problem = Some(format!("the caBundle of the {kind} is not written: {error}"));
                }
            }
        }
        problem
    }

    /// Whether everything that was registered when it was read trusts us. What is wrong is noted:
    /// for whoever cannot write it only when it stays so.
    fn judge(&mut self, registered: &[Registered], trust: &Trust, problem: Option<String>) -> bool {
        let untrusting = registered.iter().find_map(|registered| registered.untrusting(trust));
        let stays = std::mem::replace(&mut self.untrusted, untrusting.is_some());
        let note = untrusting.and_then(|webhook| match problem {
            Some(problem) => Some(problem),
            None => stays.then(|| format!("webhook {webhook} does not trust the authority yet")),
        });
        self.status.note(Topic::Bundle, note);
        untrusting.is_none()
    }

    /// Since when the whole bundle is in force.
    fn settle(&mut self, trusted: bool) {
        let Some(trust) = self.trust.as_ref().filter(|_| trusted) else {
            self.in_force = None;
            return;
        };
        let bundle = trust.bundle();
        if self.in_force.as_ref().is_none_or(|(settled, _)| *settled != bundle) {
            self.in_force = Some((bundle, Instant::now()));
        }
    }

    /// How long all that is in the Secret has been trusted.
    fn settled(&self) -> Option<Duration> {
        let bundle = self.trust.as_ref()?.bundle();
        let (settled, since) = self.in_force.as_ref()?;
        (*settled == bundle).then(|| since.elapsed())
    }

    fn problem(&self, problem: &str) {
        let secret = format!("the Secret {}/{SECRET} {problem}", self.namespace);
        self.status.note(Topic::Authority, Some(secret));
    }
}

/// A conflict is told over several lines, and a check has one.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests;
