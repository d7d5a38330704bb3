//! The server and `devgrant admit` are two doors to one line: the same bytes for every review. And the
//! real binary starts, says where it is, and stops as an operator expects.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on says where and stops"
)]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

#[path = "support/ran.rs"]
mod ran;
#[path = "support/serving.rs"]
mod serving;
use ran::{Ran, program};
use serving::Serving;

fn reviews() -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/admission-reviews");
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let captured = files.filter(|path| path.extension().is_some_and(|ending| ending == "json"));
    let mut reviews = Vec::new();
    for path in captured {
        let bytes = fs::read(&path).unwrap();
        let mut asking: Value = serde_json::from_slice(&bytes).unwrap();
        if asking["request"]["object"].is_object() {
            let annotations =
                json!({ "devices.example/fuse": "true", "devices.example/gpu": "h100:2" });
            json_patch::merge(
                &mut asking["request"]["object"],
                &json!({ "metadata": { "annotations": annotations } }),
            );
            reviews.push((path.clone(), serde_json::to_vec(&asking).unwrap()));
            asking["request"]["object"]["metadata"]["annotations"]["devices.example/fuze"] =
                json!("x");
            reviews.push((path.clone(), serde_json::to_vec(&asking).unwrap()));
        }
        reviews.push((path, bytes));
    }
    assert!(reviews.len() > 40, "{}", reviews.len());
    reviews
}

#[test]
fn the_server_and_admit_give_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let serving = Serving::start(folder.path(), &[]);
    for (path, review) in reviews() {
        let name = path.display();
        let (status, served) = serving.post("/mutate", "", &review);
        assert_eq!(status, 200, "{name}");
        let ran = Ran::of(program().args(["admit", "-f", "-"]).write_stdin(review.as_slice()));
        assert_eq!(String::from_utf8(served.clone()).unwrap(), ran.stdout, "{name}");
        let answer: Value = serde_json::from_slice(&served).unwrap();
        let asked: Value = serde_json::from_slice(&review).unwrap();
        assert_eq!(answer["response"]["uid"], asked["request"]["uid"], "{name}");
        let allowed = answer["response"]["allowed"].as_bool().unwrap();
        assert_eq!(ran.status, i32::from(!allowed), "{name}");
    }
    let (status, body) =
        serving.post("/mutate", "", br#"{"apiVersion":"admission.k8s.io/v1beta1"}"#);
    assert_eq!(status, 400);
    assert!(String::from_utf8(body).unwrap().contains("v1beta1"));
    assert!(serving.stop().success());
}

#[test]
fn a_log_that_nobody_reads_any_more_stops_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut serving = Serving::start(folder.path(), &[]);
    // As `serve 2>&1 | head`: every further line of the log meets a closed pipe.
    serving.lines = None;
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/review.json");
    let review = fs::read(example).unwrap();
    for _ in 0..2 {
        assert_eq!(serving.post("/mutate", "", &review).0, 200);
    }
    assert!(serving.stop().success());
}

#[test]
fn what_is_written_for_pasting_can_be_changed_by_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let serving = Serving::start(folder.path(), &[]);
    let scratch = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.join("review.json").exists())
        .unwrap();
    let mode = fs::metadata(scratch).unwrap().permissions().mode() & 0o777;
    // Before it is judged: a server that is left behind keeps whoever reads our output waiting.
    assert!(serving.stop().success());
    assert_eq!(mode, 0o700);
}

#[test]
fn what_stands_in_the_way_is_said_before_anything_serves() {
    let folder = tempfile::tempdir().unwrap();
    let serving = Serving::start(folder.path(), &[]);
    let taken = format!("127.0.0.1:{}", serving.port);
    let bad = folder.path().join("bad.pem");
    fs::write(&bad, "no certificate").unwrap();
    let bad = bad.to_str().unwrap();
    for (arguments, sentences) in [
        (vec!["--listen", taken.as_str()], vec![taken.as_str(), "--listen"]),
        (vec!["--tls-cert", bad, "--tls-key", bad], vec![bad]),
        (vec!["--tls-cert", "/nowhere/tls.crt", "--tls-key", bad], vec!["/nowhere/tls.crt"]),
        (vec!["--ca-out", "/nowhere/ca.pem"], vec!["/nowhere/ca.pem", "--ca-out"]),
        (vec!["--names", "not a name"], vec!["not a name", "--names"]),
        (vec!["--listen", "0.0.0.0:0"], vec!["flag --listen: 0.0.0.0:0", "--namespace-labels"]),
    ] {
        let mut command = program();
        // One that serves after all does not hold up the tests.
        command.timeout(Duration::from_mins(1));
        command.args(["serve", "--standalone", "--health", "127.0.0.1:0"]);
        if !arguments.contains(&"--listen") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        let Ran { status, stderr, .. } = Ran::of(command.args(&arguments));
        assert_eq!(status, 2, "{arguments:?}: {stderr}");
        for sentence in sentences {
            assert!(stderr.contains(sentence), "{arguments:?}: {stderr}");
        }
        assert!(!stderr.contains("panic"), "{stderr}");
    }
    let nowhere = folder.path().join("nowhere");
    let without_cluster = Ran::of(program().arg("serve").env("KUBECONFIG", &nowhere));
    assert_eq!(without_cluster.status, 2);
    let stderr = without_cluster.stderr;
    for sentence in ["no cluster is known", nowhere.to_str().unwrap(), "--standalone"] {
        assert!(stderr.contains(sentence), "{stderr}");
    }
    assert!(serving.stop().success());
}

#[test]
fn without_an_answer_of_the_api_server_it_lives_and_says_why_it_is_not_ready() {
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = folder.path().join("kubeconfig");
    // Nothing listens at the first of all ports.
    let cluster = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "c", "cluster": { "server": "https://127.0.0.1:1" } }],
        "contexts": [{ "name": "c", "context": { "cluster": "c", "user": "u" } }],
        "users": [{ "name": "u", "user": { "token": "t" } }],
        "current-context": "c",
    });
    fs::write(&kubeconfig, cluster.to_string()).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_devgrant"))
        .args(["serve", "--listen", "127.0.0.1:0", "--health", "127.0.0.1:0"])
        .args(["--shutdown-delay", "0s"])
        .env("KUBECONFIG", &kubeconfig)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap());
    let mut seen = Vec::new();
    let (mut health, mut told) = (None, false);
    while health.is_none() || !told {
        let mut line = String::new();
        assert!(lines.read_line(&mut line).unwrap() > 0, "it ended: {seen:?}");
        let line: Value = serde_json::from_str(&line).unwrap();
        health = health.or_else(|| Some(line["health"].as_str()?.to_owned()));
        told = told || line["topic"] == "authority";
        seen.push(line);
    }
    let get = |path: &str| {
        let mut stream = TcpStream::connect(health.as_ref().unwrap()).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    assert!(get("/livez").starts_with("HTTP/1.1 200"));
    let ready = get("/readyz");
    let kill = ["-TERM".to_owned(), child.id().to_string()];
    assert!(Command::new("kill").args(kill).status().unwrap().success());
    lines.read_to_string(&mut String::new()).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(ready.starts_with("HTTP/1.1 503"), "{ready}");
    for sentence in [
        "[-]namespaces failed: the API server has not listed them yet",
        "[-]certificate failed: there is none yet",
        "[+]authority ok (the Secret devgrant-system/devgrant-authority cannot be read: ",
        "Connection refused",
    ] {
        assert!(ready.contains(sentence), "{ready}");
    }
}
