//! `devgrant scan` of a cluster, with the rights that docs/scan.md says and no others.

use std::fs;
use std::process::Command;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::control_plane::{AUDIT, ControlPlane, Plane};
use crate::installation::write_kubeconfig;
use crate::process::soon;
use crate::server::program;
use crate::trial;

/// How many pods there are, and how many a page has.
const PODS: usize = 7;
const PAGE: usize = 3;
/// The label of the pods that are looked for.
const LABEL: &str = "cluster-test/scanned";

pub(crate) fn trials(plane: &Plane) -> Vec<Trial> {
    vec![
        trial("scan::reads_the_cluster_in_pages", plane, |plane| {
            reads(plane, "everything", true);
        }),
        trial("scan::reads_one_namespace_in_pages", plane, |plane| reads(plane, "one", false)),
    ]
}

fn reads(plane: &ControlPlane, account: &str, whole: bool) {
    let namespace = plane.namespace(&json!({ "devices.example/grant": "enabled" }));
    let room = format!("/api/v1/namespaces/{namespace}");
    for number in 0..PODS {
        plane.create(&format!("{room}/pods"), &privileged(number, &namespace));
    }
    let metadata = json!({ "metadata": { "name": account } });
    plane.create(&format!("{room}/serviceaccounts"), &metadata);
    let name = format!("scan-{namespace}");
    let user = format!("--serviceaccount={namespace}:{account}");
    let run = |words: &[&str]| {
        let output = plane.kubectl().arg("create").args(words).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let only_there = format!("--namespace={namespace}");
    let role = format!("--role={name}");
    let cluster_role = format!("--clusterrole={name}");
    if whole {
        run(&["clusterrole", &name, "--verb=list", "--resource=pods,namespaces"]);
    } else {
        let only = format!("--resource-name={namespace}");
        run(&["role", &name, "--verb=list", "--resource=pods", &only_there]);
        run(&["rolebinding", &name, &role, &user, &only_there]);
        run(&["clusterrole", &name, "--verb=get", "--resource=namespaces", &only]);
    }
    run(&["clusterrolebinding", &name, &cluster_role, &user]);

    let mut command: Command = program();
    command.env("KUBECONFIG", write_kubeconfig(plane, &namespace, account));
    command.args(["scan", "--output=json", &format!("--page-size={PAGE}")]);
    command.arg(format!("--selector={LABEL}={namespace}"));
    if !whole {
        command.arg(&only_there);
    }
    let report = soon("the rights to be in force", || {
        let output = command.output().unwrap();
        output.status.success().then(|| serde_json::from_slice::<Value>(&output.stdout).unwrap())
    });
    assert_eq!(report["summary"]["pods"], PODS, "{report:#}");
    assert_eq!(report["summary"]["rewrite"], PODS, "{report:#}");
    assert_eq!(report["namespaces"], json!([{ "name": namespace, "optedIn": true }]));
    let user = format!("system:serviceaccount:{namespace}:{account}");
    soon("the audit log to have every page", || {
        let log = fs::read_to_string(plane.folder().join(AUDIT)).unwrap();
        let events = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let pages = events.filter(|event| {
            let uri = event["requestURI"].as_str().unwrap_or_default();
            event["user"]["username"] == user.as_str()
                && event["responseStatus"]["code"] == 200
                && uri.contains("/pods?")
                && uri.contains(&format!("limit={PAGE}"))
        });
        (pages.count() == PODS.div_ceil(PAGE)).then_some(())
    });
}

/// A pod that is privileged for a device.
fn privileged(number: usize, namespace: &str) -> Value {
    json!({
        "metadata": { "name": format!("p-{number}"), "labels": { LABEL: namespace } },
        "spec": {
            "containers": [{
                "name": "c",
                "image": "registry.example/c:1",
                "securityContext": { "privileged": true },
                "volumeMounts": [{ "name": "fuse", "mountPath": "/dev/fuse" }],
            }],
            "volumes": [{ "name": "fuse", "hostPath": { "path": "/dev/fuse" } }],
        },
    })
}
