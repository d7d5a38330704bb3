//! The ways in which a pod can be created.

use std::io::Write as _;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::control_plane::{ControlPlane, Plane};
use crate::process::soon;
use crate::trial;
use crate::webhook::{Options, WEBHOOK, Webhook};

pub(crate) fn trials(plane: &Plane) -> Vec<Trial> {
    vec![
        trial("requests::dry_run", plane, |plane| dry_run(plane)),
        trial("requests::generate_name", plane, |plane| generate_name(plane)),
        trial("requests::server_side_apply", plane, |plane| server_side_apply(plane)),
        trial("requests::kubectl_apply_twice", plane, |plane| kubectl_apply_twice(plane, &[])),
        trial("requests::kubectl_server_side_apply_twice", plane, |plane| {
            kubectl_apply_twice(plane, &["--server-side"]);
        }),
        trial("requests::audit_annotations", plane, |plane| audit(plane)),
        trial("requests::many_at_once", plane, |plane| many_at_once(plane)),
        trial("requests::sent_away_it_comes_again", plane, |plane| come_again(plane)),
        trial("requests::update_is_not_decided_again", plane, |plane| update(plane)),
    ]
}

/// A pod that asks for FUSE.
pub(crate) fn asking() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": "p", "annotations": { "devices.example/fuse": "rootless" } },
        "spec": { "containers": [{ "name": "c", "image": "registry.example/c:1" }] },
    })
}

/// Holds that a pod has what [`asking`] asks for.
#[track_caller]
pub(crate) fn is_granted(pod: &Value) {
    for list in ["limits", "requests"] {
        assert_eq!(pod["spec"]["containers"][0]["resources"][list][FUSE], "1", "{pod:#}");
    }
    let stamp = pod["metadata"]["annotations"][STAMP].as_str().unwrap_or_default();
    let stamp: Value = serde_json::from_str(stamp).unwrap();
    assert_eq!(stamp["grants"][0]["device"], "fuse", "{stamp}");
}

/// The resource that stands for a FUSE device in the shipped policy.
pub(crate) const FUSE: &str = "smarter-devices/fuse";
/// Where it is written what was granted.
pub(crate) const STAMP: &str = "devices.example/granted";

/// How many create pods at once, and how many each.
const AT_ONCE: usize = 32;
const IN_TURN: usize = 8;
/// The counter of reviews that were sent away.
const SHED: &str = "devgrant_requests_shed_total";

fn room(plane: &ControlPlane) -> (String, String) {
    let namespace = plane.webhook(&Options::default()).namespace(plane);
    let pods = format!("/api/v1/namespaces/{namespace}/pods");
    (namespace, pods)
}

fn dry_run(plane: &ControlPlane) {
    let (_, pods) = room(plane);
    is_granted(&plane.create(&format!("{pods}?dryRun=All"), &asking()));
    assert_eq!(plane.call("GET", &format!("{pods}/p"), None).status, 404);
}

fn generate_name(plane: &ControlPlane) {
    let (_, pods) = room(plane);
    let mut pod = asking();
    pod["metadata"]["name"].take();
    pod["metadata"]["generateName"] = json!("made-");
    let created = plane.create(&pods, &pod);
    is_granted(&created);
    assert!(created["metadata"]["name"].as_str().unwrap().starts_with("made-"));
}

fn server_side_apply(plane: &ControlPlane) {
    let (_, pods) = room(plane);
    let apply = || {
        let path = format!("{pods}/p?fieldManager=somebody");
        let headers = [("content-type", "application/apply-patch+yaml")];
        plane.call_with("PATCH", &path, Some(&asking()), &headers)
    };
    let first = apply();
    assert_eq!(first.status, 201, "{}", first.message());
    is_granted(&first.body);
    let second = apply();
    assert_eq!(second.status, 200, "{}", second.message());
    assert_eq!(second.body, first.body);
}

fn kubectl_apply_twice(plane: &ControlPlane, flags: &[&str]) {
    let (namespace, pods) = room(plane);
    let file = plane.folder().join(format!("{namespace}.yaml"));
    std::fs::write(&file, asking().to_string()).unwrap();
    let apply = || {
        let mut command = plane.kubectl();
        command.args(["--namespace", &namespace, "apply"]).args(flags).arg("-f").arg(&file);
        let output = command.output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{stderr}");
        String::from_utf8(output.stdout).unwrap() + &stderr
    };
    let applied = |how: &str| format!("pod/p {how}\n");
    let (first, second) = if flags.is_empty() {
        ("created", "unchanged")
    } else {
        ("serverside-applied", "serverside-applied")
    };
    assert_eq!(apply(), applied(first));
    let before = plane.call("GET", &format!("{pods}/p"), None).body;
    is_granted(&before);
    assert_eq!(apply(), applied(second));
    assert_eq!(plane.call("GET", &format!("{pods}/p"), None).body, before);
}

/// What was decided is in the audit log of the cluster.
fn audit(plane: &ControlPlane) {
    let (namespace, pods) = room(plane);
    is_granted(&plane.create(&pods, &asking()));
    let log = plane.folder().join(crate::control_plane::AUDIT);
    let event = soon("the audit log to have the pod", || {
        let text = std::fs::read_to_string(&log).unwrap();
        let line =
            text.lines().find(|line| line.contains(&format!("/namespaces/{namespace}/pods")))?;
        serde_json::from_str::<Value>(line).ok()
    });
    let annotation = |key: &str| event["annotations"][format!("{WEBHOOK}/{key}")].as_str();
    assert_eq!(annotation("device"), Some("fuse"), "{event:#}");
    assert_eq!(annotation("mode"), Some("rootless"));
    assert_eq!(annotation("reason"), Some("Granted"));
    assert!(annotation("policy-digest").unwrap().starts_with("sha256:"));
}

/// Within its limits, a server sends nobody away.
fn many_at_once(plane: &ControlPlane) {
    let webhook = Webhook::start(plane, &Options::default());
    let pods = format!("/api/v1/namespaces/{}/pods", webhook.namespace(plane));
    std::thread::scope(|scope| {
        for thread in 0..AT_ONCE {
            let pods = &pods;
            scope.spawn(move || {
                for number in 0..IN_TURN {
                    let mut pod = asking();
                    pod["metadata"]["name"] = json!(format!("p-{thread}-{number}"));
                    is_granted(&plane.create(pods, &pod));
                }
            });
        }
    });
    assert_eq!(webhook.counted(SHED, ""), 0);
}

/// A server that has no room sends a review away for a second, and the API server comes again.
fn come_again(plane: &ControlPlane) {
    let serving = ["--max-in-flight", "1", "--body-limit", "256Ki"].map(str::to_owned).to_vec();
    let webhook = Webhook::start(plane, &Options { serving, ..Options::default() });
    let pods = format!("/api/v1/namespaces/{}/pods", webhook.namespace(plane));
    // All the room there is, for a body that does not end. Small reviews have room of their own.
    let mut pod = asking();
    pod["metadata"]["annotations"]["example.com/large"] = json!("x".repeat(200_000));
    let mut hog = webhook.connect();
    let head = "POST /mutate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 260000\r\n\r\n";
    hog.write_all(head.as_bytes()).unwrap();
    hog.write_all(&b" ".repeat(259_000)).unwrap();
    hog.flush().unwrap();
    std::thread::scope(|scope| {
        let creating = scope.spawn(|| plane.create(&pods, &pod));
        soon("a review to be sent away", || (webhook.counted(SHED, "") > 0).then_some(()));
        drop(hog);
        is_granted(&creating.join().unwrap());
    });
}

/// A pod that runs keeps what it has, whatever its annotations become.
fn update(plane: &ControlPlane) {
    let (_, pods) = room(plane);
    let created = plane.create(&pods, &asking());
    let patch =
        json!({ "metadata": { "annotations": { "devices.example/fuse": "no-such-mode" } } });
    let headers = [("content-type", "application/merge-patch+json")];
    let updated = plane.call_with("PATCH", &format!("{pods}/p"), Some(&patch), &headers);
    assert_eq!(updated.status, 200, "{}", updated.message());
    // `/advise` says so; nobody says what is wrong with the mode.
    let said = updated.warnings.join("\n");
    assert!(said.starts_with("DG026: ") && !said.contains("no-such-mode"), "{said}");
    assert_eq!(updated.body["spec"], created["spec"]);
}
