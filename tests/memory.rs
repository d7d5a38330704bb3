//! How much memory reading takes, of bodies that are made to take as much as can be.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up is a failed test")]

use std::fs;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::http::{Request, StatusCode, header};
use devgrant::server::{Context, Limits, router};
use tokio::task::JoinSet;
use tower::ServiceExt as _;

mod support {
    #[expect(dead_code, reason = "not every test needs all of it")]
    pub(crate) mod server;
}
use support::server::{metrics, namespaces, policies};

/// Three quarters of what the limit of the container's memory leaves beside bodies and connections
/// (`src/cli/manifests.rs`).
const MEBIBYTES: usize = 144;
/// As many at once, of each body.
const AT_ONCE: usize = 16;
/// As many parts as are read in all, less those of the review itself.
const PARTS: usize = 49_900;

/// The most that this process has ever had, in MiB.
fn peak() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<usize>().unwrap() / 1024
}

/// A pod that asks for `fuse`, with something in its metadata and its spec.
fn review(metadata: &str, spec: &str) -> Bytes {
    asking("fuse", "true", metadata, spec)
}

fn asking(device: &str, value: &str, metadata: &str, spec: &str) -> Bytes {
    format!(
        r#"{{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{{"uid":"u",
        "kind":{{"group":"","version":"v1","kind":"Pod"}},"operation":"CREATE","namespace":"team",
        "object":{{"metadata":{{"annotations":{{"devices.example/{device}":"{value}"}}{metadata}}},"spec":{{{spec}}}}}}}}}"#
    )
    .into()
}

fn list(items: usize, item: &str) -> String {
    format!("{item},").repeat(items - 1) + item
}

fn entries(count: usize, value: &str) -> String {
    (0..count).map(|at| format!(r#""{at:x}":{value}"#)).collect::<Vec<_>>().join(",")
}

/// The path that it is sent to, and the body.
fn bodies() -> Vec<(&'static str, &'static str, Bytes)> {
    let of_pod = |field: &str, item: &str| {
        review(
            "",
            &format!(r#""containers":[{{"name":"a"}}],"{field}":[{}]"#, list(PARTS / 2, item)),
        )
    };
    let of_container = |field: &str, item: &str| {
        review(
            "",
            &format!(r#""containers":[{{"name":"a","{field}":[{}]}}]"#, list(PARTS / 2, item)),
        )
    };
    // Policies of GPUs require things of nodes, and so look at the pod's own requirements.
    let of_term = |term: &str| {
        let terms = format!(
            r#""affinity":{{"nodeAffinity":{{"requiredDuringSchedulingIgnoredDuringExecution":{{"nodeSelectorTerms":[{term}]}}}}}}"#
        );
        asking("gpu", "a100", "", &format!(r#"{terms},"containers":[{{"name":"a"}}]"#))
    };
    let nested = |open: &str, close: &str, most: usize| {
        let one = format!("{}1{}", open.repeat(100), close.repeat(100));
        of_term(&format!(r#"{{"matchExpressions":[{{"values":[{}]}}]}}"#, list(most / 101, &one)))
    };
    let limits = format!(r#""resources":{{"limits":{{{}}}}}"#, entries(PARTS, "1"));
    vec![
        ("containers", "/mutate", review("", &format!(r#""containers":[{}]"#, list(5_000, "{}")))),
        ("too many", "/mutate", review("", &format!(r#""containers":[{}]"#, list(PARTS, "{}")))),
        (
            "too much",
            "/mutate",
            review("", &format!(r#""containers":[{}]"#, list(2_400_000, "{}"))),
        ),
        ("volumes", "/mutate", of_pod("volumes", "{}")),
        ("tolerations", "/mutate", of_pod("tolerations", "{}")),
        ("claims", "/mutate", of_pod("resourceClaims", "{}")),
        ("debug containers", "/mutate", of_pod("ephemeralContainers", "{}")),
        ("env", "/mutate", of_container("env", "{}")),
        ("mounts", "/mutate", of_container("volumeMounts", "{}")),
        ("limits", "/mutate", review("", &format!(r#""containers":[{{{limits}}}]"#))),
        ("fields of a spec", "/mutate", review("", &entries(PARTS, "1"))),
        ("fields of metadata", "/validate", review(&format!(",{}", entries(PARTS, "1")), "")),
        (
            "labels of nodes",
            "/validate",
            review("", &format!(r#""nodeSelector":{{{}}}"#, entries(PARTS, r#""""#))),
        ),
        ("requirements of fields", "/mutate", of_term(&list(PARTS / 3, r#"{"matchFields":[]}"#))),
        ("terms", "/mutate", of_term(&list(PARTS / 4, r#"{"matchFields":[1]}"#))),
        ("nested lists", "/mutate", nested("[", "]", PARTS)),
        ("nested objects", "/mutate", nested(r#"{"a":"#, "}", PARTS)),
        ("too many nested lists", "/mutate", nested("[", "]", 3_000_000)),
        ("env, advised", "/advise", of_container("env", "{}")),
    ]
}

#[tokio::test]
async fn what_is_read_fits_into_the_memory_that_the_manifests_give() {
    let metrics = metrics();
    let context = Context::new(policies(&metrics), namespaces(), metrics, Limits::default());
    let router = router(Arc::new(context));
    let bodies = bodies();
    let before = peak();
    for (name, path, body) in bodies {
        let mut asked = JoinSet::new();
        for _ in 0..AT_ONCE {
            let request = Request::post(path)
                .header(header::CONTENT_TYPE, "application/json")
                .body(Body::from(body.clone()))
                .unwrap();
            asked.spawn(router.clone().oneshot(request));
        }
        let answers = asked.join_all().await;
        // Some may be turned away, since few of their size are decided at once.
        let refused = name.starts_with("too ");
        for answer in answers {
            assert_eq!(answer.unwrap().status() == StatusCode::BAD_REQUEST, refused, "{name}");
        }
        let took = peak() - before;
        assert!(took < MEBIBYTES, "{name}: {took} MiB");
    }
}
