#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where and stops")]
//! Traces of the real binary, as a collector gets them; and what becomes of reviews where there is no
//! collector, or one that does not do its work.

use std::collections::BTreeMap;
use std::io::BufRead as _;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

mod support {
    pub(crate) mod collector;
    pub(crate) mod ran;
    pub(crate) mod serving;
}
use support::collector::{Arrived, Collector, TAKEN};
use support::ran::{Ran, program};
use support::serving::Serving;

const REVIEW: &[u8] = include_bytes!("../examples/review.json");
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

#[test]
fn a_sampled_review_is_a_child_of_its_caller() {
    let collector = Collector::start();
    let (serving, _folder) = serve(&collector.url, &["--traces-sample=0"]);
    let head = format!("{}Tracestate: vendor=opaque\r\n", traceparent(1));
    for (path, reason) in [("/mutate", "Granted"), ("/validate", "Bypassed")] {
        assert_eq!(serving.post(path, &head, REVIEW).0, 200);
        let Arrived { span, attributes, resource } = collector.next();
        assert_eq!((hex(&span.trace_id), hex(&span.parent_span_id)), (TRACE.into(), PARENT.into()));
        assert_eq!(span.span_id.len(), 8);
        assert_ne!(span.span_id, span.parent_span_id);
        assert_eq!(span.trace_state, "vendor=opaque");
        assert_eq!(span.name, format!("POST {path}"));
        assert_eq!(span.kind().as_str_name(), "SPAN_KIND_SERVER");
        assert_eq!(span.status.unwrap().code, 0);
        assert!(span.start_time_unix_nano <= span.end_time_unix_nano);
        assert_eq!((span.events.len(), span.links.len()), (0, 0));
        let verdict = if path == "/mutate" { "admit" } else { "refuse" };
        let wanted = [
            ("devgrant.reason", reason),
            ("devgrant.review.name", "bare"),
            ("devgrant.review.namespace", "team-a"),
            ("devgrant.review.uid", "2a536c95-98ba-404c-a90a-daa734ec5f99"),
            ("devgrant.verdict", verdict),
            ("http.request.method", "POST"),
            ("http.response.status_code", "200"),
            ("http.route", path),
        ];
        // These and no others: nothing else of the pod leaves the server.
        assert_eq!(attributes, texts(&wanted));
        let wanted = [
            ("service.instance.id", "devgrant-0"),
            ("service.name", "devgrant"),
            ("service.version", env!("CARGO_PKG_VERSION")),
        ];
        assert_eq!(resource, texts(&wanted));
    }
    assert!(serving.stop().success());
}

/// What is left in the queue is sent at the end, so that then all there is has come.
#[test]
fn the_caller_decides_and_without_its_word_the_share() {
    for (sample, head, spans) in [
        ("1", traceparent(0), 0),
        ("0", traceparent(1), 1),
        ("0", String::new(), 0),
        ("1", String::new(), 1),
    ] {
        let collector = Collector::start();
        let (serving, _folder) = serve(&collector.url, &["--traces-sample", sample]);
        assert_eq!(serving.post("/advise", &head, REVIEW).0, 200);
        assert!(serving.stop().success());
        let arrived = collector.rest();
        assert_eq!(arrived.len(), spans, "sample {sample}, {head:?}: {arrived:?}");
        for Arrived { span, .. } in arrived {
            let child = !head.is_empty();
            assert_eq!(hex(&span.trace_id) == TRACE, child);
            assert_eq!(span.parent_span_id.is_empty(), !child, "{span:?}");
        }
    }
}

#[test]
fn a_review_without_a_verdict_has_a_span_that_says_why() {
    let collector = Collector::start();
    let (serving, _folder) = serve(&collector.url, &["--traces-sample=1"]);
    assert_eq!(serving.post("/mutate", "", b"{}").0, 400);
    // A pod that is none: ours to answer for.
    let mut torn: serde_json::Value = serde_json::from_slice(REVIEW).unwrap();
    torn["request"]["object"]["spec"] = 7.into();
    assert_eq!(serving.post("/mutate", "", torn.to_string().as_bytes()).0, 500);
    assert_eq!(serving.post("/nothing", "", REVIEW).0, 404);
    assert!(serving.stop().success());
    let arrived = collector.rest();
    assert_eq!(arrived.len(), 2, "{arrived:?}");
    let said = |arrived: &Arrived| {
        let keys = ["devgrant.reason", "http.response.status_code"];
        keys.map(|key| arrived.attributes[key].clone())
    };
    assert_eq!(said(&arrived[0]), ["Unanswerable", "400"]);
    assert!(!arrived[0].attributes.contains_key("devgrant.review.uid"), "{arrived:?}");
    assert_eq!(said(&arrived[1]), ["Undecided", "500"]);
    assert_eq!(arrived[1].attributes["devgrant.review.name"], "bare");
    let codes = arrived.iter().map(|one| one.span.status.clone().unwrap().code);
    assert_eq!(codes.collect::<Vec<_>>(), [0, 2], "an error is what we have to mend");
}

#[test]
fn a_collector_that_is_dead_or_silent_keeps_nobody_waiting() {
    // Nobody listens there, and nobody is given a port below 1024.
    let silent = Collector::answering(|_| None);
    for (url, last_words) in [("http://127.0.0.1:9", false), (silent.url.as_str(), true)] {
        let (mut serving, _folder) = serve(url, &["--traces-sample=1"]);
        let log = log(&mut serving);
        for _ in 0..20 {
            assert_eq!(serving.post("/mutate", "", REVIEW).0, 200);
        }
        assert!(serving.stop().success());
        let log: Vec<String> = log.iter().collect();
        let about = |words: &str| log.iter().filter(|line| line.contains(words)).count();
        let lost = "the last spans could not be sent";
        assert_eq!(about(lost), usize::from(last_words), "{log:#?}");
        assert_eq!(about(TROUBLE), usize::from(!last_words), "{log:#?}");
    }
}

#[test]
fn a_change_of_state_is_one_line_and_what_is_lost_is_counted() {
    let mut answers = [
        "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>",
        "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        // One span of those of this request: field 1, a message, in which field 1 is 1.
        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n\n\u{2}\u{8}\u{1}",
        TAKEN,
        // A collector that comes up again gets what it did not take.
        "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
        "no HTTP at all\r\n\r\n",
    ]
    .into_iter();
    let (asked, asks) = channel();
    let collector = Collector::answering(move |_| {
        asked.send(()).unwrap();
        Some(answers.next().unwrap_or(TAKEN).to_owned())
    });
    let (mut serving, _folder) = serve(&collector.url, &["--traces-sample=1"]);
    let log = log(&mut serving);
    let review = || assert_eq!(serving.post("/mutate", "", REVIEW).0, 200);
    let next = |words: &str| {
        let waited = Duration::from_mins(1);
        while !log.recv_timeout(waited).unwrap().contains(words) {}
    };
    let dropped = |count: usize| {
        let line = format!("\ndevgrant_trace_spans_dropped_total {count}\n");
        let page = String::from_utf8(serving.plain("/metrics").1).unwrap();
        assert!(page.contains(&line), "{line}{page}");
    };

    review();
    next(TROUBLE);
    dropped(1);
    // The collector is asked with the next ones only when the last are done with.
    for _ in 0..3 {
        asks.recv_timeout(Duration::from_mins(1)).unwrap();
        review();
    }
    // No second line of trouble before it.
    assert!(log_until(&log, WELL).iter().all(|line| !line.contains(TROUBLE)));
    dropped(3);
    collector.next();

    review();
    next(TROUBLE);
    next(WELL);
    dropped(3);
    collector.next();
    assert!(serving.stop().success());
    assert_eq!(collector.rest().len(), 0);
    assert!(log.iter().all(|line| !line.contains(TROUBLE)));
}

#[test]
fn a_setting_that_cannot_be_used_is_refused_at_the_start() {
    for (flag, words) in [
        (
            "--traces-endpoint=collector:4317",
            "flag --traces-endpoint: `collector:4317` does not begin",
        ),
        ("--traces-sample=2", "flag --traces-sample: `2` is no share; write a number from 0"),
    ] {
        let ran = Ran::of(program().args(["serve", "--standalone", flag]));
        assert_eq!((ran.status, ran.stdout.as_str()), (2, ""), "{}", ran.stderr);
        assert!(ran.stderr.contains(words), "{}", ran.stderr);
    }
}

const TROUBLE: &str = "the collector does not take spans";
const WELL: &str = "the collector takes spans";

/// The real binary, with spans for this collector.
fn serve(url: &str, flags: &[&str]) -> (Serving, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let flags: Vec<&str> = flags.iter().copied().chain(["--traces-endpoint", url]).collect();
    (Serving::start(folder.path(), &flags), folder)
}

/// The lines that it writes from here on.
fn log(serving: &mut Serving) -> Receiver<String> {
    let (sender, lines) = channel();
    let written = serving.lines.take().unwrap();
    std::thread::spawn(move || {
        // Who has seen enough hangs up; the server writes on.
        written.lines().for_each(|line| sender.send(line.unwrap()).unwrap_or_default());
    });
    lines
}

/// The lines up to the one with these words.
fn log_until(log: &Receiver<String>, words: &str) -> Vec<String> {
    let mut lines = Vec::new();
    while !lines.last().is_some_and(|line: &String| line.contains(words)) {
        lines.push(log.recv_timeout(Duration::from_mins(1)).unwrap());
    }
    lines
}

/// A line of a request's head.
fn traceparent(flags: u8) -> String {
    format!("Traceparent: 00-{TRACE}-{PARENT}-{flags:02x}\r\n")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

fn texts(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}
