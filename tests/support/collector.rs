//! A collector of traces on loopback: it takes OTLP over HTTP, as far as a server that sends spans needs.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot be set up is a failed test"
)]

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;

/// All went well, and there is nothing to say.
pub(crate) const TAKEN: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n";

/// A span as it arrived.
#[derive(Debug)]
pub(crate) struct Arrived {
    /// Of the resource.
    pub(crate) resource: BTreeMap<String, String>,
    pub(crate) attributes: BTreeMap<String, String>,
    pub(crate) span: Span,
}

/// What an answer is, by the spans that came.
type Answers = Arc<Mutex<dyn FnMut(&[u8]) -> Option<String> + Send>>;

/// A collector that listens.
pub(crate) struct Collector {
    pub(crate) url: String,
    spans: Receiver<Arrived>,
}

impl Collector {
    /// One that takes everything.
    pub(crate) fn start() -> Self {
        Self::answering(|_| Some(TAKEN.to_owned()))
    }

    /// One that answers each request as it is told to, or not at all. It passes on the spans of those that
    /// it answers with [`TAKEN`].
    pub(crate) fn answering(answer: impl FnMut(&[u8]) -> Option<String> + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (sender, spans) = channel();
        let answers: Answers = Arc::new(Mutex::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (answers, sender) = (Arc::clone(&answers), sender.clone());
                std::thread::spawn(move || serve(stream.unwrap(), &answers, &sender));
            }
        });
        Self { url, spans }
    }

    /// The next span.
    #[track_caller]
    pub(crate) fn next(&self) -> Arrived {
        self.spans.recv_timeout(Duration::from_mins(1)).unwrap_or_else(|_| panic!("no span came"))
    }

    /// What has come and was not looked at.
    pub(crate) fn rest(&self) -> Vec<Arrived> {
        self.spans.try_iter().collect()
    }
}

/// One connection to its end.
fn serve(mut stream: TcpStream, answers: &Answers, sender: &Sender<Arrived>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    while let Some((head, body)) = request(&mut reader) {
        assert!(head.starts_with("post /v1/traces http/1.1\r\n"), "{head}");
        assert!(head.contains("\r\ncontent-type: application/x-protobuf\r\n"), "{head}");
        let Some(answer) = answers.lock().unwrap()(&body) else {
            // Whoever asked waits until it does not want to any more.
            let _ = reader.read_to_end(&mut Vec::new());
            return;
        };
        if answer == TAKEN {
            for arrived in arrived(&body) {
                // Whoever wanted it may have seen enough.
                sender.send(arrived).unwrap_or_default();
            }
        }
        stream.write_all(answer.as_bytes()).unwrap();
    }
}

/// The head in lower case and the body of the next request, if there is one.
fn request(reader: &mut BufReader<TcpStream>) -> Option<(String, Vec<u8>)> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let head = head.to_lowercase();
    let (_, length) = head.split_once("\r\ncontent-length: ")?;
    let mut body = vec![0; length.split_once("\r\n")?.0.parse().ok()?];
    reader.read_exact(&mut body).ok()?;
    Some((head, body))
}

fn arrived(body: &[u8]) -> Vec<Arrived> {
    let request = ExportTraceServiceRequest::decode(body).unwrap();
    let mut all = Vec::new();
    for of_resource in request.resource_spans {
        let resource = texts(&of_resource.resource.unwrap().attributes);
        for span in of_resource.scope_spans.into_iter().flat_map(|of_scope| of_scope.spans) {
            let attributes = texts(&span.attributes);
            all.push(Arrived { resource: resource.clone(), attributes, span });
        }
    }
    all
}

fn texts(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |value: &KeyValue| match value.value.clone().unwrap().value.unwrap() {
        Value::StringValue(text) => text,
        Value::IntValue(number) => number.to_string(),
        other => panic!("{}: {other:?}", value.key),
    };
    attributes.iter().map(|one| (one.key.clone(), text(one))).collect()
}
