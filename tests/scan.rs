#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests are outside of what allow-unwrap-in-tests covers"
)]
//! `devgrant scan` as a person runs it.
//!
//! `tests/scan` holds a folder for each case: an input, and the report of it as a table, with what is said
//! beside it and the exit status, as JSON and as CSV. `DEVGRANT_REFRESH_GOLDEN=1 cargo test --test scan`
//! writes the reports again; the difference is for review.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};

#[path = "support/ran.rs"]
mod ran;
use ran::{Ran, program};

/// The least number of cases: a folder that got lost is noticed.
const AT_LEAST: usize = 16;
const PRIVILEGED: &str = "{kind: Pod, metadata: {name: p, namespace: data}, spec: {containers: [{name: c, securityContext: {privileged: true}, volumeMounts: [{name: v, mountPath: /dev/fuse}]}], volumes: [{name: v, hostPath: {path: /dev/fuse}}]}}";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scan")
}

fn scan_in(folder: &Path, arguments: &[&str], stdin: &str, kubeconfig: Option<&Path>) -> Ran {
    let mut command = program();
    command.env("HOME", folder).current_dir(folder);
    if let Some(kubeconfig) = kubeconfig {
        command.env("KUBECONFIG", kubeconfig);
    }
    Ran::of(command.arg("scan").args(arguments).write_stdin(stdin))
}

fn scan(arguments: &[&str], stdin: &str) -> Ran {
    scan_in(&folder(), arguments, stdin, None)
}

/// The report of a text, as `-o json` has it.
#[track_caller]
fn report(text: &str, arguments: &[&str]) -> Value {
    let ran = scan(&[&["-", "-o", "json"], arguments].concat(), text);
    let report = serde_json::from_str(&ran.stdout);
    assert!(report.is_ok(), "{}", ran.stderr);
    report.unwrap()
}

#[test]
fn inputs_get_their_reports() {
    let refresh = std::env::var_os("DEVGRANT_REFRESH_GOLDEN").is_some();
    let names: BTreeSet<String> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(names.len() >= AT_LEAST, "{names:?}");
    for name in names {
        let case = folder().join(&name);
        let input =
            ["input.json", "input.yaml"].into_iter().find(|input| case.join(input).exists());
        let input = input.unwrap_or("no input");
        let mut expected = BTreeSet::from([input.to_owned()]);
        for (file, format) in
            [("report.txt", "table"), ("report.json", "json"), ("report.csv", "csv")]
        {
            expected.insert(file.to_owned());
            let ran = scan_in(&case, &[input, "-o", format], "", None);
            let said = match format {
                "table" => format!("{}---\n{}exit {}\n", ran.stdout, ran.stderr, ran.status),
                _ => ran.stdout,
            };
            if refresh {
                fs::write(case.join(file), &said).unwrap();
            }
            let golden = fs::read_to_string(case.join(file)).unwrap_or_default();
            assert_eq!(said, golden, "{name}/{file}");
        }
        let found: BTreeSet<String> = fs::read_dir(&case)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        assert_eq!(found, expected, "{name}");
    }
}

/// A report is for other programs, too: the table and the cells hold nothing that they would obey.
#[test]
fn no_report_has_what_a_terminal_obeys() {
    let ran = scan(&["injection/input.json", "-o", "table"], "");
    for text in [ran.stdout, ran.stderr, scan(&["injection/input.json", "-o", "csv"], "").stdout] {
        let obeyed = |char: &char| char.is_control() && !['\n', '\r'].contains(char);
        assert_eq!(text.chars().find(obeyed), None, "{text}");
        assert!(!text.contains('\u{202e}'), "{text}");
    }
}

/// What the policy says of the old shape is what the report says.
#[test]
fn the_line_answers_and_nobody_else() {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("policies/fuse.yaml");
    let shipped = fs::read_to_string(shipped).unwrap();
    let rewrite = "action: Rewrite";
    for (from, to, becomes, why) in [
        (rewrite, rewrite, "rewrite", ""),
        (rewrite, "action: Warn", "keeps", "the policy only warns of it"),
        (rewrite, "action: Ignore", "keeps", "leaves the old shape alone"),
        (rewrite, "action: Deny", "denied", "DG023: container `c` has a hostPath of `/dev/fuse`"),
        (
            "    privileged: true\n    action",
            "    action",
            "keeps",
            "the policy leaves `privileged` alone",
        ),
        ("\nspec:\n", "\nspec:\n  enforcement: Shadow\n", "keeps", "is in shadow"),
        (
            "hostPaths: [/dev/fuse]",
            "hostPaths: [/dev/other]",
            "noPolicy",
            "its policy does not name",
        ),
    ] {
        let policies = tempfile::tempdir().unwrap();
        let text = shipped.replacen(from, to, 1);
        assert!(from == to || text != shipped, "{from} is there no more");
        fs::write(policies.path().join("fuse.yaml"), text).unwrap();
        let folder = policies.path().to_str().unwrap();
        let report = report(PRIVILEGED, &["--policies", folder]);
        let row = &report["rows"][0];
        assert_eq!(row["becomes"], becomes, "{to}: {row}");
        assert!(row["why"].as_str().unwrap().contains(why), "{to}: {row}");
        let has_annotations = row["annotations"].as_object().is_some_and(|all| !all.is_empty());
        assert_eq!(has_annotations, becomes == "rewrite", "{to}: {row}");
    }
}

/// One that may be privileged for more is not advised to ask; where the line does not wait to be asked, that
/// is what the report says.
#[test]
fn another_use_hides_no_rewrite() {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("policies/fuse.yaml");
    let shipped = fs::read_to_string(shipped).unwrap();
    let mut pod: Value = serde_saphyr::from_str(PRIVILEGED).unwrap();
    let container = pod.pointer_mut("/spec/containers/0").unwrap().as_object_mut().unwrap();
    container.insert("command".to_owned(), json!(["sh", "-c", "modprobe fuse; exec mounter"]));
    for (when, becomes) in [("Asked", "keeps"), ("Always", "rewrite")] {
        let policies = tempfile::tempdir().unwrap();
        let looking =
            shipped.replace("action: Rewrite", &format!("action: Rewrite\n    when: {when}"));
        fs::write(policies.path().join("fuse.yaml"), looking).unwrap();
        let report = report(&pod.to_string(), &["--policies", policies.path().to_str().unwrap()]);
        let row = &report["rows"][0];
        assert_eq!(row["becomes"], becomes, "{when}: {row}");
        assert!(row["why"].as_str().unwrap().contains("it names `modprobe`"), "{when}: {row}");
    }
}

/// What the report says to add is what makes the line rewrite.
#[test]
fn the_annotations_of_a_report_do_what_it_says() {
    let report = report(PRIVILEGED, &[]);
    let mut pod: Value = serde_saphyr::from_str(PRIVILEGED).unwrap();
    pod["metadata"]["annotations"] = report["rows"][0]["annotations"].clone();
    let mut patch = program();
    let patch = patch.args(["patch", "-f", "-", "-o", "json"]).write_stdin(pod.to_string());
    let patched: Value = serde_json::from_str(&Ran::of(patch).stdout).unwrap();
    let container = &patched["spec"]["containers"][0];
    assert_eq!(container["securityContext"].get("privileged"), None, "{patched}");
    assert_eq!(container["resources"]["limits"]["smarter-devices/fuse"], "1", "{patched}");
}

/// Trying so many one by one would take a decision about the whole pod for each.
#[test]
fn a_crowd_of_containers_is_decided_together() {
    let pod = |count: usize| {
        let container = |number| {
            json!({
                "name": format!("c{number}"),
                "securityContext": { "privileged": true },
                "volumeMounts": [{ "name": "v", "mountPath": "/dev/fuse" }],
            })
        };
        json!({ "kind": "Pod", "spec": {
            "containers": (0..count).map(container).collect::<Vec<_>>(),
            "volumes": [{ "name": "v", "hostPath": { "path": "/dev/fuse" } }],
        }})
    };
    for (count, becomes) in [(100, "rewrite"), (101, "rewrite"), (5_000, "denied")] {
        let report = report(&pod(count).to_string(), &[]);
        let row = &report["rows"][0];
        assert_eq!(row["becomes"], becomes, "{count}: {}", row["why"]);
        assert_eq!(row["containers"].as_array().unwrap().len(), count);
        assert_eq!(report["summary"]["pods"], 1);
    }
}

#[test]
fn only_one_namespace_where_one_is_named() {
    let case = folder().join("namespaces");
    let ran = scan_in(&case, &["input.json", "-o", "json", "-n", "team-a"], "", None);
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(report["summary"]["pods"], 1);
    assert_eq!(report["rows"][0]["namespace"], "team-a");
}

#[test]
fn what_cannot_be_read_hides_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).unwrap();
    write("a-broken.yaml", b"kind: [\n");
    write("b-binary.yaml", b"\xff\xfe");
    write("c-values.yaml", b"replicas: 1\n");
    write("d-pod.yaml", PRIVILEGED.as_bytes());
    write("e-empty.yaml", b"\n");
    write("f-cut.json", b"{\"kind\": ");
    write("g-dashboards.json", b"[{\"title\": \"CPU\"}]");
    let ran = scan_in(folder.path(), &["."], "", None);
    assert_eq!(ran.status, 2, "{}", ran.stderr);
    assert!(ran.stdout.contains("data       Pod/p"), "{}", ran.stdout);
    let lines: Vec<&str> = ran.stderr.lines().collect();
    for (line, start) in lines.iter().zip([
        "devgrant: error: ./a-broken.yaml document 1: line ",
        "devgrant: error: ./b-binary.yaml is not UTF-8 text",
        "devgrant: error: ./f-cut.json cannot be read further: line 1, column ",
        "1 pod: 1 privileged, 1 with a device by hostPath; 1 rewrite, 3 unreadable",
        "devgrant: error: not everything could be read; the report is without that",
    ]) {
        assert!(line.starts_with(start), "{start}: {}", ran.stderr);
    }
    assert_eq!(lines.len(), 5, "{}", ran.stderr);
}

#[test]
fn bad_usage_and_bad_input_end_with_a_sentence() {
    for (arguments, stdin, sentence) in [
        (["-", "-l", "a=b"].as_slice(), "", "cannot be used with"),
        (&["-", "--page-size", "10"], "", "cannot be used with"),
        (&["--page-size", "0"], "", "0 is not in 1..=10000"),
        (&["--namespace-labels", "a=b"], "", "a cluster says itself what labels there are"),
        (&["missing.yaml"], "", "missing.yaml cannot be read: No such file"),
        (&["-"], "", "<stdin> is empty; did the command that should fill it fail?"),
        (&["-"], "\n \n", "<stdin> is empty"),
        (&["-"], "just words", "<stdin>: document 1 is a string, and no Kubernetes object"),
        (&["-"], "{\"kind\": 1}", "<stdin>: document 1 has no `kind`"),
        (&["-"], "[{\"kind\"", "it is cut off: did the command that writes it fail?"),
        (&["-"], "{\"kind\": \"A\", \"items\": 1}", "expected a list of Kubernetes objects"),
        (&["-"], "{\"kind\": \"Pod\"} text", "cannot be read further: line 1, column "),
        // No kubeconfig, and not in a pod.
        (&[], "", "no path is given, and no cluster is known: set KUBECONFIG"),
    ] {
        let ran = scan(arguments, stdin);
        assert_eq!(ran.status, 2, "{arguments:?} {stdin}: {}", ran.stderr);
        assert!(ran.stderr.contains(sentence), "{arguments:?} {stdin}: {}", ran.stderr);
    }
    // Thousands of bad items are not thousands of lines.
    let many = json!({ "kind": "List", "items": vec![json!(1); 1000] }).to_string();
    let ran = scan(&["-"], &many);
    assert_eq!(ran.stderr.lines().count(), 20 + 1 + 2, "{}", ran.stderr);
    assert!(ran.stderr.contains("1000 unreadable"), "{}", ran.stderr);
}

#[test]
fn yaml_that_is_too_long_says_what_to_do() {
    let ran = scan(&["-"], &format!("# {}\nkind: Pod\n", "x".repeat(16 * 1024 * 1024)));
    assert_eq!(ran.status, 2);
    assert!(ran.stderr.contains("write it with `-o json`"), "{}", ran.stderr);
}

/// The pods of a large cluster cost no more memory than those of a small one.
#[test]
fn fifty_thousand_pods_fit_into_little_memory() {
    const PODS: usize = 50_000;
    const MOST_KIB: usize = 64 * 1024;
    const MOST_GROWTH_KIB: usize = 8 * 1024;
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_devgrant"))
        .env_clear()
        .args(["scan", "-", "-o", "json", "--progress"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"{\"apiVersion\": \"v1\", \"items\": [").unwrap();
    let mut written = 0;
    let mut early = 0;
    for number in 0..PODS {
        if number == 1_000 {
            early = peak_kib(child.id());
        }
        let pod = pod(number).to_string();
        written += pod.len();
        let comma = if number == 0 { "" } else { "," };
        stdin.write_all(format!("{comma}{pod}").as_bytes()).unwrap();
    }
    // All but what the pipe holds has been read.
    let late = peak_kib(child.id());
    stdin.write_all(b"], \"kind\": \"List\"}").unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());

    assert!(late < MOST_KIB, "{late} KiB for {written} bytes");
    assert!(written > 2 * MOST_GROWTH_KIB * 1024, "{written} bytes could be held");
    assert!(late - early < MOST_GROWTH_KIB, "{early} to {late} KiB for {written} bytes");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["summary"]["pods"], PODS);
    assert_eq!(report["summary"]["rewrite"], PODS / 100);
    assert_eq!(report["rows"].as_array().unwrap().len(), 7);
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.starts_with("note: 5000 pods so far, 50 privileged\n"), "{told}");
    assert!(told.contains("note: 50000 pods so far"), "{told}");
}

/// Every hundredth is of the old shape.
fn pod(number: usize) -> Value {
    let is_old = number.is_multiple_of(100);
    let spec = if is_old {
        json!({
            "containers": [{
                "name": "c",
                "securityContext": { "privileged": true },
                "volumeMounts": [{ "name": "v", "mountPath": "/dev/fuse" }],
            }],
            "volumes": [{ "name": "v", "hostPath": { "path": "/dev/fuse" } }],
        })
    } else {
        json!({ "containers": [{ "name": "c", "image": "registry.example/app" }] })
    };
    json!({
        "kind": "Pod",
        "metadata": {
            "name": format!("p-{number}"),
            "namespace": format!("n-{}", number % 7),
            "annotations": { "padding": "x".repeat(200) },
            "ownerReferences": [{ "kind": "StatefulSet", "name": "s", "controller": true }],
        },
        "spec": spec,
    })
}

/// The most memory that a process ever had.
fn peak_kib(process: u32) -> usize {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    peak.split_whitespace().next().unwrap().parse().unwrap()
}

/// A cluster that answers each path with this.
struct Cluster {
    folder: tempfile::TempDir,
    _runtime: tokio::runtime::Runtime,
}

impl Cluster {
    fn new(answer: impl Fn(&str) -> (u16, Value) + Clone + Send + Sync + 'static) -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let service = service_fn(move |request: Request<Incoming>| {
            let (status, body) = answer(&request.uri().to_string());
            let response = Response::builder().status(status).body(body.to_string());
            std::future::ready(response)
        });
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let connection = http1::Builder::new();
                tokio::spawn(connection.serve_connection(TokioIo::new(stream), service.clone()));
            }
        });
        Self { folder: kubeconfig(address), _runtime: runtime }
    }

    fn scan(&self, arguments: &[&str]) -> Ran {
        let file = self.folder.path().join("config");
        scan_in(self.folder.path(), arguments, "", Some(&file))
    }
}

fn kubeconfig(address: SocketAddr) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{ "name": "c", "cluster": { "server": format!("http://{address}") } }],
        "contexts": [{ "name": "c", "context": { "cluster": "c", "user": "u" } }],
        "users": [{ "name": "u", "user": {} }],
    });
    fs::write(folder.path().join("config"), config.to_string()).unwrap();
    folder
}

fn failure(code: u16, message: &str) -> (u16, Value) {
    let body = json!({ "kind": "Status", "status": "Failure", "message": message, "code": code });
    (code, body)
}

fn namespaces() -> Value {
    let opted_in = json!({ "devices.example/grant": "enabled" });
    json!({ "metadata": {}, "items": [
        { "metadata": { "name": "data" } },
        { "metadata": { "name": "ready", "labels": opted_in } },
    ]})
}

/// A page of pods: the second one comes by the token of the first.
fn pods(uri: &str) -> Value {
    let pod = |namespace: &str| {
        let text = PRIVILEGED.replace("namespace: data", &format!("namespace: {namespace}"));
        serde_saphyr::from_str::<Value>(&text.replace("kind: Pod, ", "")).unwrap()
    };
    if uri.contains("continue=second") {
        json!({ "metadata": {}, "items": [pod("ready"), 7, pod("data")] })
    } else {
        json!({ "metadata": { "continue": "second" }, "items": [pod("data")] })
    }
}

#[test]
fn a_cluster_is_read_in_pages() {
    let cluster = Cluster::new(|uri| match uri.split('?').next().unwrap_or_default() {
        "/api/v1/namespaces" => (200, namespaces()),
        "/api/v1/pods" => (200, pods(uri)),
        _ => failure(404, uri),
    });
    let ran = cluster.scan(&["-o", "json", "--page-size", "1"]);
    assert!(ran.stderr.contains("pods, page 2, item 2 is a number"), "{}", ran.stderr);
    assert_eq!(ran.status, 2, "an item is none: {}", ran.stderr);
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(report["summary"]["pods"], 3);
    assert_eq!(report["rows"][0]["pods"], 2);
    let opted_in =
        json!([{ "name": "data", "optedIn": false }, { "name": "ready", "optedIn": true }]);
    assert_eq!(report["namespaces"], opted_in);
    let table = cluster.scan(&[]).stdout;
    let label = "\nto opt in: kubectl label namespace data devices.example/grant=enabled\n";
    assert!(table.ends_with(label), "{table}");
}

#[test]
fn one_namespace_needs_no_more_than_its_pods() {
    let cluster = Cluster::new(|uri| match uri.split('?').next().unwrap_or_default() {
        "/api/v1/namespaces/data" => failure(403, "namespaces \"data\" is forbidden"),
        "/api/v1/namespaces/data/pods" if uri.contains("labelSelector=a%3Db") => {
            (200, json!({ "metadata": {}, "items": pods(uri)["items"] }))
        }
        _ => failure(404, uri),
    });
    let ran = cluster.scan(&["-n", "data", "-l", "a=b", "-o", "json"]);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert!(ran.stderr.contains("the labels of the namespace `data` are not known"));
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(report["rows"][0]["becomes"], "rewrite");
    assert_eq!(report["namespaces"], json!([{ "name": "data", "optedIn": null }]));
    let missing = cluster.scan(&["-n", "other"]);
    assert!(missing.stderr.contains("has no namespace `other`"), "{}", missing.stderr);
    let odd = cluster.scan(&["-n", "../nodes"]);
    assert!(odd.stderr.contains("is no name of a namespace"), "{}", odd.stderr);
}

#[test]
fn what_a_cluster_refuses_is_said_in_words() {
    for (code, message, sentence) in [
        (401, "Unauthorized", "the kubeconfig has no credentials for it, or they have expired"),
        (
            403,
            "namespaces is forbidden: User \"jane\" cannot list",
            "ask for a ClusterRole with the verb `list` on `pods` and `namespaces`",
        ),
        (500, "etcd is away", "cannot list namespaces: 500 etcd is away"),
        (200, "", "answers with no list of namespaces"),
    ] {
        let cluster = Cluster::new(move |_| match code {
            200 => (200, json!("no list")),
            code => failure(code, message),
        });
        let ran = cluster.scan(&[]);
        assert_eq!(ran.status, 2, "{code}: {}", ran.stderr);
        assert!(ran.stderr.contains(sentence), "{code}: {}", ran.stderr);
        assert_eq!(ran.stdout, "", "{code}");
    }
}

#[test]
fn a_cluster_that_is_not_there_is_said_in_words() {
    // A port that was free a moment ago.
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let folder = kubeconfig(address);
    let ran = scan_in(folder.path(), &[], "", Some(&folder.path().join("config")));
    assert_eq!(ran.status, 2, "{}", ran.stderr);
    assert!(ran.stderr.contains("cannot be reached"), "{}", ran.stderr);
    assert!(ran.stderr.contains("Connection refused"), "{}", ran.stderr);
    let bad = folder.path().join("bad");
    fs::write(&bad, "clusters: [\n").unwrap();
    let ran = scan_in(folder.path(), &[], "", Some(&bad));
    assert_eq!(ran.status, 2, "{}", ran.stderr);
    assert!(ran.stderr.contains("no cluster is known"), "{}", ran.stderr);
}

#[test]
fn a_template_is_passed_by() {
    let ran = scan(&["-"], "a: {{ .Values.x }}\nb: c: d\n");
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert!(ran.stderr.contains("`helm template`; passed by"), "{}", ran.stderr);
}
