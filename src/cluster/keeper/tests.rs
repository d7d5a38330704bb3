//! Turns of one or two replicas over one API server. Only the test winds the clocks.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::*;
use crate::cluster::fake::Fake;
use crate::cluster::trust::{LIFE, SETTLED};
use crate::tls::authority::LEAF;

const SECRET_PATH: &str = "/api/v1/namespaces/devgrant-system/secrets/devgrant-authority";
const LEASE_PATH: &str = "/apis/coordination.k8s.io/v1/namespaces/devgrant-system/leases/devgrant";
const MUTATING: &str =
    "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/devgrant";
const VALIDATING: &str =
    "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/devgrant";
const MINUTE: Duration = Duration::from_mins(1);

/// A Secret without content, and both configurations without a bundle.
fn installed() -> Fake {
    let fake = Fake::default();
    fake.put(SECRET_PATH, json!({ "metadata": { "labels": { "kept": "yes" } } }));
    let webhook = |name: &str| {
        json!({
            "name": name,
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
            "clientConfig": { "url": "https://127.0.0.1:8443/mutate" },
        })
    };
    fake.put(MUTATING, json!({ "webhooks": [webhook("mutate.pods.devgrant")] }));
    let two = [webhook("validate.pods.devgrant"), webhook("advise.workloads.devgrant")];
    fake.put(VALIDATING, json!({ "webhooks": two }));
    fake
}

struct Replica {
    keeper: Keeper,
    registrations: Registrations,
    signs: watch::Receiver<Option<Arc<Authority>>>,
}

impl Replica {
    fn new(fake: &Fake, identity: &str) -> Self {
        let lease = Lease::new(fake.client(), "devgrant-system", "devgrant", identity.to_owned());
        let keeper = Keeper::new(
            fake.client(),
            "devgrant-system".to_owned(),
            lease,
            vec!["localhost".to_owned()],
            Arc::default(),
            Arc::new(Metrics::new().unwrap()),
        );
        let signs = keeper.authority();
        Self { keeper, registrations: Registrations::new(fake.client()), signs }
    }

    async fn turn(&mut self, now: SystemTime) {
        let registered = self.registrations.read().await;
        self.keeper.turn(&self.registrations, registered.as_deref().ok(), now).await;
    }

    /// The certificate of the authority that it signs with.
    fn signs_with(&self) -> Option<String> {
        self.signs.borrow().as_ref().map(|authority| authority.pem().to_owned())
    }

    fn note(&self, wanted: Topic) -> String {
        let mut notes = self.keeper.status.notes();
        let note = notes.find(|(topic, _)| *topic == wanted).unwrap().1;
        note.map(|note| note.to_string()).unwrap_or_default()
    }

    #[track_caller]
    fn counted(&self, line: &str) {
        let text = self.keeper.metrics.text();
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

fn decoded(value: &Value) -> String {
    String::from_utf8(STANDARD.decode(value.as_str().unwrap_or_default()).unwrap()).unwrap()
}

/// The keys of the Secret that have something in them, and what.
fn secret(fake: &Fake) -> BTreeMap<String, String> {
    let object = fake.object(SECRET_PATH);
    let data = object["data"].as_object().cloned().unwrap_or_default();
    data.iter().map(|(key, value)| (key.clone(), decoded(value))).collect()
}

/// The bundle that all webhooks have.
#[track_caller]
fn bundle(fake: &Fake) -> String {
    let webhooks = [MUTATING, VALIDATING].map(|path| fake.object(path)["webhooks"].clone());
    let webhooks = webhooks.iter().flat_map(|webhooks| webhooks.as_array().unwrap());
    let mut bundles = webhooks.map(|webhook| decoded(&webhook["clientConfig"]["caBundle"]));
    let first = bundles.next().unwrap();
    assert!(bundles.all(|other| other == first), "webhooks trust different authorities");
    first
}

#[tokio::test(start_paused = true)]
async fn the_first_replica_makes_the_authority_and_the_second_finds_it() {
    let fake = installed();
    let (mut first, mut second) = (Replica::new(&fake, "one"), Replica::new(&fake, "two"));
    let now = SystemTime::now();
    first.turn(now).await;
    let made = secret(&fake);
    assert_eq!(made.keys().collect::<Vec<_>>(), ["ca.crt", "ca.key"]);
    assert_eq!(fake.object(SECRET_PATH)["metadata"]["labels"]["kept"], "yes");
    assert_eq!(bundle(&fake), made["ca.crt"]);
    assert_eq!(first.signs_with().as_ref(), Some(&made["ca.crt"]));
    first.counted("devgrant_lease_held 1");

    fake.calls("");
    second.turn(now).await;
    assert_eq!(fake.calls("PATCH"), [], "who has not the Lease writes nothing");
    assert_eq!(second.signs_with().as_ref(), Some(&made["ca.crt"]));
    second.counted("devgrant_ca_bundle_in_force 1");
    second.counted("devgrant_lease_held 0");

    first.turn(now).await;
    assert_eq!(fake.calls("PATCH"), [], "what is as it should be is not written again");
}

#[tokio::test(start_paused = true)]
async fn who_comes_second_with_an_authority_takes_the_first_one() {
    let fake = installed();
    let mut replica = Replica::new(&fake, "one");
    let now = SystemTime::now();
    let first = Trust::create(&[], now).unwrap();
    fake.race(SECRET_PATH, json!({ "data": first.to_patch() }));
    replica.turn(now).await;
    assert_eq!(secret(&fake)["ca.crt"], first.bundle(), "what came first stays");
    assert_eq!(replica.signs_with(), None, "what was refused is not used");
    replica.turn(now).await;
    assert_eq!(replica.signs_with(), Some(first.bundle()));
    assert_eq!(bundle(&fake), first.bundle());
}

#[tokio::test(start_paused = true)]
async fn an_authority_is_replaced_in_phases() {
    let fake = installed();
    let (mut holder, mut other) = (Replica::new(&fake, "one"), Replica::new(&fake, "two"));
    let start = SystemTime::now();
    holder.turn(start).await;
    other.turn(start).await;
    let old = secret(&fake)["ca.crt"].clone();

    let half = start + LIFE / 2;
    holder.turn(half).await;
    let new = secret(&fake)["next.crt"].clone();
    assert_eq!(bundle(&fake), format!("{old}{new}"), "both are trusted");
    other.turn(half).await;
    for replica in [&holder, &other] {
        assert_eq!(replica.signs_with().as_ref(), Some(&old), "and the old one signs");
    }

    // Sees the bundle in force for the first time, and from then on it has to be so for a while.
    holder.turn(half).await;
    tokio::time::advance(SETTLED.saturating_sub(Duration::from_secs(1))).await;
    holder.turn(half + MINUTE).await;
    assert_eq!(secret(&fake)["ca.crt"], old);
    tokio::time::advance(Duration::from_secs(1)).await;
    holder.turn(half + MINUTE).await;
    let after = secret(&fake);
    assert_eq!((&after["ca.crt"], &after["previous.crt"]), (&new, &old));
    assert!(!after.contains_key("next.crt"), "{after:?}");
    assert_eq!(bundle(&fake), format!("{new}{old}"), "both are still trusted");
    other.turn(half + MINUTE).await;
    for replica in [&holder, &other] {
        assert_eq!(replica.signs_with().as_ref(), Some(&new), "and the new one signs");
    }

    holder.turn(half + LEAF).await;
    assert_eq!(bundle(&fake), format!("{new}{old}"), "a leaf of the old one may live");
    holder.turn(half + LEAF + 2 * MINUTE).await;
    assert_eq!(bundle(&fake), new);
    assert_eq!(secret(&fake).keys().collect::<Vec<_>>(), ["ca.crt", "ca.key"]);
}

#[tokio::test(start_paused = true)]
async fn a_bundle_that_is_not_in_force_everywhere_promotes_nothing() {
    let fake = installed();
    let mut holder = Replica::new(&fake, "one");
    let start = SystemTime::now();
    holder.turn(start).await;
    let old = secret(&fake)["ca.crt"].clone();
    fake.own(VALIDATING, true);
    let half = start + LIFE / 2;
    for _ in 0..4 {
        holder.turn(half).await;
        tokio::time::advance(SETTLED).await;
    }
    assert_eq!(secret(&fake)["ca.crt"], old);
    holder.counted("devgrant_ca_bundle_in_force 0");
    let note = holder.note(Topic::Bundle);
    assert!(note.contains("ValidatingWebhookConfiguration belongs to somebody else"), "{note}");
    assert!(note.contains("conflict with \"argo\"") && !note.contains('\n'), "{note}");

    fake.own(VALIDATING, false);
    for _ in 0..3 {
        holder.turn(half).await;
        tokio::time::advance(SETTLED).await;
    }
    assert_eq!(secret(&fake)["previous.crt"], old);
    assert_eq!(holder.note(Topic::Bundle), "");
}

#[tokio::test(start_paused = true)]
async fn somebody_elses_bundle_is_left_and_one_that_is_gone_is_written_again() {
    let fake = installed();
    let mut holder = Replica::new(&fake, "one");
    let now = SystemTime::now();
    holder.turn(now).await;
    let good = fake.object(MUTATING);
    let with_bundle = |bundle: Value| {
        let mut changed = good.clone();
        changed["webhooks"][0]["clientConfig"]["caBundle"] = bundle;
        changed
    };
    fake.put(MUTATING, with_bundle(Value::Null));
    holder.turn(now).await;
    bundle(&fake);

    let foreign = json!(STANDARD.encode("somebody else's"));
    fake.put(MUTATING, with_bundle(foreign.clone()));
    fake.own(MUTATING, true);
    fake.calls("");
    holder.turn(now).await;
    let object = fake.object(MUTATING);
    assert_eq!(object["webhooks"][0]["clientConfig"]["caBundle"], foreign);
    for call in fake.calls("PATCH") {
        assert!(!call.query.contains("force"), "{call:?}");
    }
    holder.counted(r#"devgrant_ca_bundle_apply_total{result="conflict"} 1"#);
    holder.counted("devgrant_ca_bundle_in_force 0");

    // Theirs may hold ours beside others: then all is well.
    let both = format!("{}{}", secret(&fake)["ca.crt"], secret(&fake)["ca.crt"]);
    fake.put(MUTATING, with_bundle(json!(STANDARD.encode(both))));
    holder.turn(now).await;
    holder.counted("devgrant_ca_bundle_in_force 1");
    assert_eq!(holder.note(Topic::Bundle), "");
}

#[tokio::test(start_paused = true)]
async fn a_secret_emptied_by_hand_is_a_new_authority_in_phases() {
    let fake = installed();
    let mut holder = Replica::new(&fake, "one");
    let now = SystemTime::now();
    holder.turn(now).await;
    let before = secret(&fake);
    fake.put(SECRET_PATH, json!({}));
    holder.turn(now).await;
    let after = secret(&fake);
    assert_eq!((&after["ca.crt"], &after["ca.key"]), (&before["ca.crt"], &before["ca.key"]));
    assert_eq!(bundle(&fake), format!("{}{}", before["ca.crt"], after["next.crt"]));
    assert_eq!(holder.signs_with().as_ref(), Some(&before["ca.crt"]));
}

#[tokio::test(start_paused = true)]
async fn a_torn_secret_is_told_and_the_last_good_one_kept() {
    let fake = installed();
    let mut holder = Replica::new(&fake, "one");
    let now = SystemTime::now();
    holder.turn(now).await;
    let good = secret(&fake);
    let mut torn = fake.object(SECRET_PATH);
    torn["data"]["ca.key"] = json!(STANDARD.encode("half a key"));
    fake.put(SECRET_PATH, torn.clone());
    for _ in 0..2 {
        holder.turn(now).await;
    }
    assert_eq!(fake.object(SECRET_PATH)["data"], torn["data"], "what somebody wrote is theirs");
    assert_eq!(holder.signs_with().as_ref(), Some(&good["ca.crt"]));
    assert_eq!(bundle(&fake), good["ca.crt"]);
    holder.counted(r#"devgrant_authority_reload_total{result="kept"} 1"#);
    let note = holder.note(Topic::Authority);
    let start =
        "the Secret devgrant-system/devgrant-authority holds no whole authority: key `ca.crt`";
    assert!(note.starts_with(start), "{note}");

    fake.put(SECRET_PATH, json!({}));
    holder.turn(now).await;
    assert_eq!(holder.note(Topic::Authority), "");
    assert!(secret(&fake).contains_key("next.crt"));
}

#[tokio::test(start_paused = true)]
async fn without_the_secret_or_the_api_server_it_says_so_and_goes_on_later() {
    let fake = Fake::default();
    let mut replica = Replica::new(&fake, "one");
    let now = SystemTime::now();
    replica.turn(now).await;
    assert!(replica.note(Topic::Authority).contains("is missing; apply `devgrant manifests`"));
    assert_eq!(replica.signs_with(), None);

    fake.down(true);
    replica.turn(now).await;
    let note = replica.note(Topic::Authority);
    assert!(
        note.contains(
            "cannot be read: the API server cannot be asked: ServiceError: connection refused"
        ),
        "{note}"
    );
    assert!(replica.note(Topic::Lease).starts_with("it cannot be held"));
    replica.counted("devgrant_lease_held 0");

    fake.down(false);
    fake.put(SECRET_PATH, json!({}));
    replica.turn(now).await;
    assert!(replica.signs_with().is_some());
    assert_eq!(replica.note(Topic::Authority), "");
    assert_eq!(replica.note(Topic::Lease), "");
}

#[tokio::test(start_paused = true)]
async fn an_authority_that_ended_is_replaced_at_once() {
    let fake = installed();
    let mut holder = Replica::new(&fake, "one");
    let start = SystemTime::now();
    holder.turn(start).await;
    let old = secret(&fake)["ca.crt"].clone();
    holder.turn(start + LIFE + MINUTE).await;
    let new = secret(&fake)["ca.crt"].clone();
    assert_ne!(new, old);
    assert_eq!(bundle(&fake), new);
    assert_eq!(holder.signs_with(), Some(new));
}

#[tokio::test(start_paused = true)]
async fn the_next_holder_goes_on() {
    let fake = installed();
    let (mut first, mut second) = (Replica::new(&fake, "one"), Replica::new(&fake, "two"));
    let now = SystemTime::now();
    first.turn(now).await;
    second.turn(now).await;
    first.keeper.release().await;
    first.counted("devgrant_lease_held 0");
    assert_eq!(fake.object(LEASE_PATH)["spec"]["holderIdentity"], Value::Null);
    second.turn(now + LIFE / 2).await;
    second.counted("devgrant_lease_held 1");
    assert!(secret(&fake).contains_key("next.crt"));
}
