//! `devgrant serve` in a cluster, with the rights, the registration and the guard that `devgrant
//! manifests` prints, and its own authority.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use libtest_mimic::Trial;
use rcgen::{Certificate, CertificateParams, Issuer, KeyPair};
use rustls::ServerConnection;
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Value, json};

use crate::control_plane::{ControlPlane, Plane, ServerCertificate};
use crate::installation::{Installation, decoded};
use crate::process::soon;
use crate::requests::{FUSE, STAMP, asking, is_granted};
use crate::trial;
use crate::webhook::MUTATING;

/// How many namespaces are made with a pod at once.
const IN_A_HURRY: usize = 20;
/// The shipped policy for FUSE.
const SHIPPED: &str = include_str!("../../policies/fuse.yaml");
/// The metric that a registration has to be applied again.
const OUTDATED: &str = "devgrant_registration_outdated ";

pub(crate) fn trials(plane: &Plane) -> Vec<Trial> {
    vec![
        trial("serving::grants_by_its_own_authority", plane, |plane| grants(plane)),
        trial("serving::follows_its_policies", plane, |plane| follows(plane)),
        trial("serving::an_outgrown_registration_is_noticed", plane, |plane| outgrown(plane)),
        trial("serving::replicas_share_one_authority", plane, |plane| replicas(plane)),
        trial("serving::a_bundle_of_others_is_left_alone", plane, |plane| others(plane)),
        trial("serving::a_policy_holds_it_to_the_bundle", plane, |plane| held(plane)),
        trial("serving::says_that_no_node_offers_the_device", plane, |plane| nodes(plane)),
    ]
}

fn grants(plane: &ControlPlane) {
    let installation = Installation::new(plane, &[("fuse.yaml", SHIPPED)]);
    let replica = installation.replica("devgrant-0", "");
    installation.register_and_wait(&replica, &["--server-side"]);
    replica.wait_until_trusted();
    let bundle = installation.bundle().unwrap();
    assert_eq!(installation.secret("ca.crt"), Some(bundle.clone()));
    a_leaked_key_is_good_for_our_names_alone(plane, &installation);
    for _ in 0..IN_A_HURRY {
        let namespace = installation.room();
        is_granted(&plane.create(&pods(&namespace), &asking()));
    }
    // One that opts out: the API server asks no more, and we would not grant either.
    let namespace = installation.room();
    let granted = |pod: &Value| pod["spec"]["containers"][0]["resources"]["limits"][FUSE] == "1";
    let dry_run = || plane.create(&format!("{}?dryRun=All", pods(&namespace)), &asking());
    let review = || replica.review(&bundle, &namespace, &asking());
    assert!(granted(&dry_run()));
    assert!(review()["patch"].is_string());
    let labels = json!({ "metadata": { "labels": { "devices.example/grant": null } } });
    let path = format!("/api/v1/namespaces/{namespace}");
    let answer = plane.call_with("PATCH", &path, Some(&labels), &MERGE);
    assert_eq!(answer.status, 200, "{}", answer.message());
    soon("the API server to ask no more", || (!granted(&dry_run())).then_some(()));
    soon("the server to grant no more", || {
        let answer = review();
        (answer["allowed"] == true && answer["patch"].is_null()).then_some(())
    });
    replica.is_calm();
}

/// As Go judges it, which the API server and kubectl are written in.
fn a_leaked_key_is_good_for_our_names_alone(plane: &ControlPlane, installation: &Installation<'_>) {
    let certificate = installation.secret("ca.crt").unwrap();
    let key = KeyPair::from_pem(&installation.secret("ca.key").unwrap()).unwrap();
    let issuer = Issuer::from_ca_cert_pem(&certificate, key).unwrap();
    let file = plane.folder().join(format!("{}-ca.crt", installation.namespace));
    fs::write(&file, &certificate).unwrap();
    let says = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
        let server = format!("--server=https://127.0.0.1:{}", shaking_hands(&leaf, &key));
        let authority = format!("--certificate-authority={}", file.display());
        let mut kubectl = plane.kubectl();
        kubectl.env("KUBECONFIG", "/dev/null").args(["get", "--raw=/livez", "--token=none"]);
        kubectl.args([server, authority]);
        String::from_utf8(kubectl.output().unwrap().stderr).unwrap()
    };
    let ours = says(&["127.0.0.1"]);
    assert!(!ours.is_empty() && !ours.contains("x509"), "{ours}");
    for other in ["kubernetes.default.svc", "127.0.0.2"] {
        let said = says(&["127.0.0.1", other]);
        assert!(said.contains("not authorized to sign for this name"), "{other}: {said}");
    }
}

/// The port of a server with this certificate that hangs up behind each handshake.
fn shaking_hands(leaf: &Certificate, key: &KeyPair) -> u16 {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider);
    let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = Arc::new(config.with_single_cert(vec![leaf.der().clone()], key).unwrap());
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            // Also where it is refused: that is for the client to say.
            let _ = connection.complete_io(&mut stream);
        }
    });
    port
}

fn follows(plane: &ControlPlane) {
    let mut installation = Installation::new(plane, &[("fuse.yaml", SHIPPED)]);
    // Events are of a pod, and `kubectl describe` shows those that have its uid.
    let own = json!({
        "metadata": { "name": "devgrant-0" },
        "spec": { "containers": [{ "name": "devgrant", "image": "devgrant" }] },
    });
    let own = plane.create(&pods(&installation.namespace), &own);
    let replica = installation.replica("devgrant-0", own["metadata"]["uid"].as_str().unwrap());
    installation.register_and_wait(&replica, &["--server-side"]);
    let own_namespace = installation.namespace.clone();
    let events = |reason: &str| {
        let mut kubectl = plane.kubectl();
        kubectl.args(["--namespace", &own_namespace, "describe", "pod", "devgrant-0"]);
        let text = String::from_utf8(kubectl.output().unwrap().stdout).unwrap();
        text.lines().filter(|line| line.contains(reason)).map(str::to_owned).collect::<Vec<_>>()
    };
    let one_event = |reason: &str| {
        soon("the Event", || {
            let events = events(reason);
            assert!(events.len() <= 1, "{events:?}");
            events.into_iter().next()
        })
    };
    let asked = format!("{}?dryRun=All", pods(&installation.room()));
    let granted = || {
        let answer = plane.call("POST", &asked, Some(&asking()));
        // A pod that is mutated before a swap and validated behind it is refused, and whoever makes it comes
        // again.
        let between = answer.status == 403 && answer.message().contains("came around the webhook");
        assert!(answer.status == 201 || between, "{}", answer.message());
        let limits = answer.body.pointer("/spec/containers/0/resources/limits");
        limits.cloned().unwrap_or_default()
    };
    assert_eq!(granted(), json!({ FUSE: "1" }));
    let other = SHIPPED.replace(FUSE, "squat.ai/fuse");
    installation.policies.swap(&[("fuse.yaml", &other)]);
    soon("the new policies", || (granted() == json!({ "squat.ai/fuse": "1" })).then_some(()));

    installation
        .policies
        .swap(&[("fuse.yaml", &other.replace("defaultMode: mount", "defaultMode: mout"))]);
    let refused = one_event("PoliciesRefused");
    assert!(refused.contains("the policies were not replaced: "), "{refused}");
    let ready = replica.plain("/readyz?verbose");
    let file = installation.policies.path().join("fuse.yaml");
    let says = format!("[+]policies ok (the last reload was refused: {}:", file.display());
    assert!(ready.contains(&says), "{ready}");
    assert_eq!(granted(), json!({ "squat.ai/fuse": "1" }));
    assert_eq!(events("PoliciesReplaced").len(), 0);

    installation.policies.swap(&[("fuse.yaml", SHIPPED)]);
    soon("the good policies", || (granted() == json!({ FUSE: "1" })).then_some(()));
    one_event("PoliciesReplaced");
    let ready = replica.plain("/readyz?verbose");
    assert!(ready.contains("[+]policies ok\n"), "{ready}");
    replica.is_calm();
    // The one right that only a race needs: to read a namespace that the watch has not told of.
    let bundle = installation.bundle().unwrap();
    assert_eq!(replica.review(&bundle, "nowhere", &asking()), Value::Null);
    installation.uses_every_right();
}

/// A registration is made of policies. Where they come to need more than it shows, that is said; and
/// once it is applied again, pods of the old shape are rewritten.
fn outgrown(plane: &ControlPlane) {
    let mut installation = Installation::new(plane, &[("fuse.yaml", SHIPPED)]);
    let replica = installation.replica("devgrant-0", "");
    installation.register_and_wait(&replica, &[]);
    replica.wait_until_trusted();
    let bundle = installation.bundle();
    let pods = pods(&installation.room());
    let dry_run = || plane.create(&format!("{pods}?dryRun=All"), &old_shape());
    let is_old = |pod: &Value| {
        pod["spec"]["containers"][0]["securityContext"]["privileged"] == true
            && pod["metadata"]["annotations"].is_null()
    };
    soon("a look at the registration", || {
        replica.plain("/readyz?verbose").contains("[+]registration ok\n").then_some(())
    });
    assert!(is_old(&dry_run()));

    let always = SHIPPED.replace("    action: Rewrite", "    action: Rewrite\n    when: Always");
    installation.policies.swap(&[("fuse.yaml", &always)]);
    soon("the registration to be outgrown", || (replica.counted(OUTDATED, "") == 1).then_some(()));
    let ready = replica.plain("/readyz?verbose");
    let says = "[+]registration ok (webhook mutate.pods.devgrant does not let through what the policies need; apply `devgrant manifests` again)";
    assert!(ready.contains(says), "{ready}");
    assert!(is_old(&dry_run()));

    installation.register(&replica, &[]);
    soon("the registration to fit", || (replica.counted(OUTDATED, "") == 0).then_some(()));
    assert_eq!(installation.bundle(), bundle, "who applies again takes nothing away");
    soon("old shapes to be shown to it", || (!is_old(&dry_run())).then_some(()));
    // Both configurations, so that the guard at the end is asked as well.
    let validated = || replica.counted("devgrant_admissions_total{", "endpoint=\"validate\"");
    let before = validated();
    soon("its guard to be asked", || {
        dry_run();
        (validated() > before).then_some(())
    });
    let stored = plane.create(&pods, &old_shape());
    is_granted(&stored);
    let annotations = &stored["metadata"]["annotations"];
    assert_eq!(annotations["devices.example/fuse"], "true", "{annotations}");
    assert!(annotations[STAMP].is_string(), "{annotations}");
    assert_ne!(stored["spec"]["containers"][0]["securityContext"]["privileged"], true);
    let volumes = stored["spec"]["volumes"].as_array().into_iter().flatten();
    assert_eq!(volumes.filter(|volume| volume["hostPath"].is_object()).count(), 0);
    // What is stored, created once more.
    let mut again = json!({ "spec": stored["spec"], "metadata": { "name": "again" } });
    again["metadata"]["annotations"] = annotations.clone();
    let again = plane.create(&pods, &again);
    assert_eq!(again["spec"], stored["spec"]);
    assert_eq!(again["metadata"]["annotations"], *annotations);
    replica.is_calm();
}

/// Two servers with one authority; it is replaced, and one of them goes, while pods are created.
fn replicas(plane: &ControlPlane) {
    let installation = Installation::new(plane, &[("fuse.yaml", SHIPPED)]);
    let mut first = installation.replica("devgrant-0", "");
    soon("the Lease to be held", || first.holds_the_lease().then_some(()));
    let second = installation.replica("devgrant-1", "");
    // Who keeps the authority leaves later, and the other one answers to the end.
    installation.register_and_wait(&second, &["--server-side"]);
    for replica in [&first, &second] {
        replica.wait_until_trusted();
    }
    assert!(installation.holder().unwrap().starts_with("devgrant-0_"));
    assert!(!second.holds_the_lease());
    let namespace = installation.room();
    let pods = format!("{}?dryRun=All", pods(&namespace));
    let showing = |trusted: &str| {
        let answers =
            [&first, &second].map(|replica| replica.review(trusted, &namespace, &asking()));
        answers.iter().filter(|answer| answer["patch"].is_string()).count()
    };
    let old = installation.bundle().unwrap();
    assert_eq!(showing(&old), 2);

    // It takes the minute in which API servers have to learn of the new one.
    installation.empty_secret();
    let new = soon("a new authority that signs", || {
        is_granted(&plane.create(&pods, &asking()));
        installation.secret("previous.crt")?;
        installation.secret("ca.crt")
    });
    assert!(!old.contains(&new));
    soon("certificates of the new authority", || {
        is_granted(&plane.create(&pods, &asking()));
        (showing(&new) == 2).then_some(())
    });
    assert_eq!(showing(&old), 0);
    let both = installation.bundle().unwrap();
    assert!(both.contains(&old) && both.contains(&new), "{both}");

    for replica in [&first, &second] {
        replica.is_calm();
    }
    first.process.terminate();
    let ended = soon("the first to end", || {
        is_granted(&plane.create(&pods, &asking()));
        first.process.ended()
    });
    assert!(ended.success(), "{ended}");
    let holder = installation.holder().unwrap_or_default();
    assert!(!holder.starts_with("devgrant-0_"), "it was not given back: {holder}");
    soon("the Lease to go over", || {
        is_granted(&plane.create(&pods, &asking()));
        second.holds_the_lease().then_some(())
    });
    assert!(installation.holder().unwrap().starts_with("devgrant-1_"));
    second.is_calm();
}

/// From the own authority to one by hand, which `kubectl` has to be told twice.
fn others(plane: &ControlPlane) {
    let installation = Installation::new(plane, &[("fuse.yaml", SHIPPED)]);
    let replica = installation.replica("devgrant-0", "");
    installation.register_and_wait(&replica, &["--server-side"]);
    replica.wait_until_trusted();
    let ours = installation.bundle();
    installation.register(&replica, &["--server-side"]);
    assert_eq!(installation.bundle(), ours, "who applies again takes nothing away");

    let file = plane.folder().join(format!("{}-others.crt", installation.namespace));
    let theirs = ServerCertificate::new().authority;
    fs::write(&file, &theirs).unwrap();
    let refused = installation.register_trusting(&replica, &file, &["--server-side"]);
    let said = String::from_utf8(refused.stderr).unwrap();
    let says = "conflicts with \"devgrant-authority\"";
    assert!(!refused.status.success() && said.contains(says), "{said}");
    assert_eq!(installation.bundle(), ours);
    let flags = ["--server-side", "--force-conflicts"];
    let applied = installation.register_trusting(&replica, &file, &flags);
    assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
    let theirs = Some(theirs);
    assert_eq!(installation.bundle(), theirs);

    soon("the conflict to be noticed", || {
        let tried = replica.counted("devgrant_ca_bundle_apply_total", "conflict") > 0;
        (tried && replica.counted("devgrant_ca_bundle_in_force ", "") == 0).then_some(())
    });
    assert_eq!(installation.bundle(), theirs);
    let asked = format!("{}?dryRun=All", pods(&installation.room()));
    soon("the API server to trust others alone", || {
        let answer = plane.call("POST", &asked, Some(&asking()));
        answer.message().contains("x509: certificate signed by unknown authority").then_some(())
    });
}

/// With the policy that docs/rbac.md names, the server has all that it needs, and its token no more.
fn held(plane: &ControlPlane) {
    let installation = Installation::new(plane, &[("fuse.yaml", SHIPPED)]);
    installation.hold_to_the_bundle();
    let replica = installation.replica("devgrant-0", "");
    installation.register_and_wait(&replica, &["--server-side"]);
    replica.wait_until_trusted();
    is_granted(&plane.create(&pods(&installation.room()), &asking()));
    replica.is_calm();

    let user = installation.user();
    let headers =
        [("impersonate-user", user.as_str()), ("content-type", "application/json-patch+json")];
    let words = "devgrant's server changes caBundle alone";
    soon("the policy to be in force", || {
        let path = format!("{MUTATING}/devgrant?dryRun=All");
        let removal = json!([{ "op": "remove", "path": "/webhooks" }]);
        let answer = plane.call_with("PATCH", &path, Some(&removal), &headers);
        answer.message().contains(words).then_some(())
    });
    let webhook = |field: &str, value: Value| json!([{ "op": "add", "path": format!("/webhooks/0/{field}"), "value": value }]);
    let owner = json!({ "apiVersion": "v1", "kind": "Node", "name": "none", "uid": "none" });
    let everything = json!([{
        "apiGroups": ["*"], "apiVersions": ["*"], "operations": ["*"], "resources": ["*"],
    }]);
    for path in [MUTATING, &MUTATING.replace("mutating", "validating")] {
        let path = format!("{path}/devgrant");
        let tried = |patch: &Value| plane.call_with("PATCH", &path, Some(patch), &headers);
        let there = plane.call("GET", &path, None).body;
        for patch in [
            webhook("rules", everything.clone()),
            webhook("clientConfig/url", json!("https://127.0.0.1:2")),
            webhook("name", json!("other.pods.devgrant")),
            webhook("failurePolicy", json!("Ignore")),
            webhook("matchPolicy", json!("Exact")),
            webhook("namespaceSelector", json!({})),
            webhook("objectSelector", json!({ "matchLabels": { "a": "b" } })),
            webhook("matchConditions", json!([])),
            webhook("timeoutSeconds", json!(30)),
            webhook("sideEffects", json!("NoneOnDryRun")),
            webhook("admissionReviewVersions", json!(["v1", "v1beta1"])),
            json!([{ "op": "remove", "path": "/webhooks/0" }]),
            json!([{ "op": "move", "from": "/webhooks/0", "path": "/webhooks/1" }]),
            json!([{ "op": "remove", "path": "/metadata/labels" }]),
            json!([{ "op": "add", "path": "/metadata/generateName", "value": "a" }]),
            json!([{ "op": "add", "path": "/metadata/finalizers", "value": ["a.example/b"] }]),
            json!([{ "op": "add", "path": "/metadata/annotations", "value": { "a": "b" } }]),
            json!([{ "op": "add", "path": "/metadata/ownerReferences", "value": [owner] }]),
            json!([{ "op": "remove", "path": "/webhooks" }]),
        ] {
            let answer = tried(&patch);
            assert!(answer.message().contains(words), "{patch}: {}", answer.message());
        }
        let bundle = &there["webhooks"][0]["clientConfig"]["caBundle"];
        let twice = decoded(bundle.as_str().unwrap()).repeat(2);
        let answer = tried(&webhook("clientConfig/caBundle", json!(STANDARD.encode(twice))));
        assert_eq!(answer.status, 200, "{}", answer.message());
    }
}

/// What a person at `kubectl apply` is told of the nodes, as they come.
fn nodes(plane: &ControlPlane) {
    // Other trials may have nodes with the shipped one.
    let resource = "devices.example.net/fuse";
    let policy = SHIPPED.replace(FUSE, resource);
    let installation = Installation::new(plane, &[("fuse.yaml", &policy)]);
    installation.allow_nodes();
    let replica = installation.replica_with("devgrant-0", "", &["--watch-nodes"]);
    installation.register_and_wait(&replica, &["--server-side"]);
    let labels = json!({ "app": "d" });
    let mut template = asking();
    template["metadata"]["labels"] = labels.clone();
    let deployment = json!({
        "metadata": { "name": "d" },
        "spec": { "selector": { "matchLabels": labels }, "template": template },
    });
    let path = format!("/apis/apps/v1/namespaces/{}/deployments?dryRun=All", installation.room());
    let warned = || {
        let answer = plane.call("POST", &path, Some(&deployment));
        assert_eq!(answer.status, 201, "{}", answer.message());
        let says = format!("no node offers `{resource}` now");
        answer.warnings.iter().any(|warning| warning.contains(&says))
    };
    soon("the warning", || warned().then_some(()));
    // Nobody else's pods may go there.
    let node = json!({
        "metadata": { "name": format!("{}-node", installation.namespace) },
        "spec": { "taints": [{ "key": "cluster-test/alone", "effect": "NoExecute" }] },
        "status": { "allocatable": { resource: "1" }, "capacity": { resource: "1" } },
    });
    plane.create("/api/v1/nodes", &node);
    soon("the warning to go", || (!warned()).then_some(()));
    replica.is_calm();
}

/// A pod that takes the device by itself, and everything else with it.
fn old_shape() -> Value {
    let mut pod = asking();
    pod["metadata"] = json!({ "name": "p" });
    let container = &mut pod["spec"]["containers"][0];
    container["securityContext"] = json!({ "privileged": true });
    container["volumeMounts"] = json!([{ "name": "fuse", "mountPath": "/dev/fuse" }]);
    pod["spec"]["volumes"] = json!([{ "name": "fuse", "hostPath": { "path": "/dev/fuse" } }]);
    pod
}

fn pods(namespace: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/pods")
}

const MERGE: [(&str, &str); 1] = [("content-type", "application/merge-patch+json")];
