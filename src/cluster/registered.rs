//! What is registered at the API server: both webhook configurations of our name, whom they trust,
//! and which pods they let through.

use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{
    MatchCondition, MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
    WebhookClientConfig,
};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::{Value, json};

use super::client::{Trouble, call};
use super::trust::Trust;

/// The name of both configurations.
pub(super) const NAME: &str = "devgrant";
/// Who we are to server-side apply. We own one field, so that whoever owns the others is never met.
const MANAGER: &str = "devgrant-authority";
/// The webhooks that get pods: what they let through follows from the policies.
const OF_PODS: [&str; 2] = ["mutate.pods.devgrant", "validate.pods.devgrant"];
/// The matchCondition that lets pods through.
const CONDITION: &str = "asks-for-a-device";

/// Both configurations.
#[derive(Debug)]
pub(super) struct Registrations {
    mutating: Api<MutatingWebhookConfiguration>,
    validating: Api<ValidatingWebhookConfiguration>,
}

/// One configuration that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Registered {
    kind: Kind,
    webhooks: Vec<Webhook>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Mutating,
    Validating,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Webhook {
    name: String,
    bundle: Vec<u8>,
    expression: Option<String>,
}

impl Registrations {
    pub(super) fn new(client: Client) -> Self {
        Self { mutating: Api::all(client.clone()), validating: Api::all(client) }
    }

    /// The configurations that are there.
    pub(super) async fn read(&self) -> Result<Vec<Registered>, Trouble> {
        let mutating = call(self.mutating.get_opt(NAME)).await?;
        let validating = call(self.validating.get_opt(NAME)).await?;
        let mutating = mutating.map(|found| Registered {
            kind: Kind::Mutating,
            webhooks: found
                .webhooks
                .unwrap_or_default()
                .into_iter()
                .map(|webhook| {
                    Webhook::of(webhook.name, webhook.client_config, webhook.match_conditions)
                })
                .collect(),
        });
        let validating = validating.map(|found| Registered {
            kind: Kind::Validating,
            webhooks: found
                .webhooks
                .unwrap_or_default()
                .into_iter()
                .map(|webhook| {
                    Webhook::of(webhook.name, webhook.client_config, webhook.match_conditions)
                })
                .collect(),
        });
        Ok(mutating.into_iter().chain(validating).collect())
    }

    /// Writes the `caBundle` of every webhook of a configuration, and nothing else. Another manager's
    /// value is a conflict, and is left as it is.
    pub(super) async fn apply(
        &self,
        registered: &Registered,
        trust: &Trust,
    ) -> Result<(), Trouble> {
        let patch = Patch::Apply(registered.bundle_patch(trust));
        let params = PatchParams::apply(MANAGER);
        match registered.kind {
            Kind::Mutating => call(self.mutating.patch(NAME, &params, &patch)).await.map(drop),
            Kind::Validating => call(self.validating.patch(NAME, &params, &patch)).await.map(drop),
        }
    }
}

impl Registered {
    /// Whether every webhook has exactly the bundle that it should have.
    pub(super) fn has_bundle(&self, trust: &Trust) -> bool {
        let bundle = trust.bundle();
        self.webhooks.iter().all(|webhook| webhook.bundle == bundle.as_bytes())
    }

    /// The first webhook that does not trust all that it should.
    pub(super) fn untrusting(&self, trust: &Trust) -> Option<&str> {
        let wanted: Vec<_> =
            trust.certificates().flat_map(|pem| certificates(pem.as_bytes())).collect();
        self.webhooks.iter().find_map(|webhook| {
            let trusted = certificates(&webhook.bundle);
            let all = wanted.iter().all(|wanted| trusted.contains(wanted));
            (!all).then_some(webhook.name.as_str())
        })
    }

    /// The first webhook of pods that lets other pods through than the policies need.
    pub(super) fn outdated(&self, expression: &str) -> Option<&str> {
        self.webhooks
            .iter()
            .filter(|webhook| OF_PODS.contains(&webhook.name.as_str()))
            .find(|webhook| webhook.expression.as_deref() != Some(expression))
            .map(|webhook| webhook.name.as_str())
    }

    /// The kind of the configuration.
    pub(super) fn kind(&self) -> &'static str {
        match self.kind {
            Kind::Mutating => "MutatingWebhookConfiguration",
            Kind::Validating => "ValidatingWebhookConfiguration",
        }
    }

    /// Names beside the bundle, since they are the keys of the list. Only webhooks that are there:
    /// one that is not would be made, and be none.
    fn bundle_patch(&self, trust: &Trust) -> Value {
        let bundle = ByteString(trust.bundle().into_bytes());
        let webhooks = self
            .webhooks
            .iter()
            .map(|webhook| json!({ "name": webhook.name, "clientConfig": { "caBundle": bundle } }));
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": self.kind(),
            "metadata": { "name": NAME },
            "webhooks": webhooks.collect::<Vec<_>>(),
        })
    }
}

impl Webhook {
    fn of(
        name: String,
        client: WebhookClientConfig,
        conditions: Option<Vec<MatchCondition>>,
    ) -> Self {
        let mut conditions = conditions.unwrap_or_default().into_iter();
        Self {
            name,
            bundle: client.ca_bundle.map(|bundle| bundle.0).unwrap_or_default(),
            expression: conditions
                .find(|condition| condition.name == CONDITION)
                .map(|condition| condition.expression),
        }
    }
}

/// The certificates of a PEM text; what is none is left out.
fn certificates(pem: &[u8]) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem).flatten().collect()
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::*;
    use crate::cluster::fake::Fake;

    const PATH: &str =
        "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/devgrant";

    fn registered(expression: Option<&str>) -> Fake {
        let conditions =
            expression.map(|expression| json!([{ "name": CONDITION, "expression": expression }]));
        let webhook = |name: &str| {
            json!({
                "name": name,
                "admissionReviewVersions": ["v1"],
                "sideEffects": "None",
                "clientConfig": { "service": { "name": "devgrant", "namespace": "devgrant-system" } },
                "matchConditions": conditions,
                "failurePolicy": "Fail",
            })
        };
        let fake = Fake::default();
        let webhooks = [webhook("mutate.pods.devgrant"), webhook("another.one.devgrant")];
        fake.put(PATH, json!({ "webhooks": webhooks }));
        fake
    }

    #[tokio::test]
    async fn the_bundle_of_each_webhook_is_applied_and_nothing_else() {
        let fake = registered(None);
        let registrations = Registrations::new(fake.client());
        let found = registrations.read().await.unwrap();
        let trust = Trust::create(&[], SystemTime::now()).unwrap();
        let [mutating] = &found[..] else { panic!("{found:?}") };
        assert_eq!(mutating.untrusting(&trust), Some("mutate.pods.devgrant"));
        registrations.apply(mutating, &trust).await.unwrap();
        let [call] = &fake.calls("PATCH")[..] else { panic!("one call") };
        assert_eq!(
            (call.path.as_str(), call.query.as_str()),
            (PATH, "&fieldManager=devgrant-authority")
        );
        let bundle = STANDARD.encode(trust.bundle());
        assert_eq!(
            call.body,
            json!({
                "apiVersion": "admissionregistration.k8s.io/v1",
                "kind": "MutatingWebhookConfiguration",
                "metadata": { "name": "devgrant" },
                "webhooks": [
                    { "name": "mutate.pods.devgrant", "clientConfig": { "caBundle": bundle } },
                    { "name": "another.one.devgrant", "clientConfig": { "caBundle": bundle } },
                ],
            })
        );
        let after = registrations.read().await.unwrap();
        assert!(after[0].has_bundle(&trust));
        assert_eq!(after[0].untrusting(&trust), None);
    }

    #[tokio::test]
    async fn a_registration_is_outdated_where_its_condition_is_another_one() {
        for (expression, outdated) in [
            (Some("true"), None),
            (Some("false"), Some("mutate.pods.devgrant")),
            (None, Some("mutate.pods.devgrant")),
        ] {
            let found = Registrations::new(registered(expression).client()).read().await.unwrap();
            assert_eq!(found[0].outdated("true"), outdated, "{expression:?}");
        }
        let none = Registrations::new(Fake::default().client()).read().await.unwrap();
        assert_eq!(none, []);
    }
}
