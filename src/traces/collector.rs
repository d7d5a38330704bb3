//! Where spans are sent, and what it answers.

use std::error::Error;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use axum::http::{Request, StatusCode, Uri, header};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message as _;
use tokio::time::timeout;

use crate::telemetry::shown;

/// The URL of a collector: `http://collector:4318`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collector(Uri);

impl Collector {
    /// The port that the collector is at.
    pub fn port(&self) -> u16 {
        let of_scheme = if self.is_secure() { 443 } else { 80 };
        self.0.port_u16().unwrap_or(of_scheme)
    }

    fn is_secure(&self) -> bool {
        self.0.scheme_str() == Some("https")
    }

    /// What sends to it. The program has one HTTP client, kube's, and a second one would make it larger;
    /// nothing of a cluster's configuration is in this one.
    pub(super) fn client(&self) -> Result<Client, NoTraces> {
        let mut config = kube::Config::new(self.0.clone());
        config.connect_timeout = Some(CALL);
        // Who exports knows better when to try again.
        config.default_retry = false;
        if !self.is_secure() {
            // The authorities of this machine would be looked for, and there need be none.
            config.root_cert = Some(Vec::new());
        }
        let sender = kube::Client::try_from(config)
            .map_err(|error| NoTraces { collector: self.clone(), source: Box::new(error) })?;
        Ok(Client { sender, collector: self.clone() })
    }
}

impl FromStr for Collector {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRITE: &str =
            "write the URL of a collector for OTLP over HTTP, such as http://collector:4318";
        if text.trim().is_empty() {
            return Err(format!("there is no URL; {WRITE}, or leave it out for no traces"));
        }
        let uri: Uri =
            text.parse().map_err(|error| format!("`{text}` is no URL ({error}); {WRITE}"))?;
        let (Some("http" | "https"), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(format!("`{text}` does not begin with http:// or https://; {WRITE}"));
        };
        if authority.as_str().contains('@') || uri.query().is_some() {
            // Not quoted: a password may be in it.
            return Err(format!("no user and no query may be in it; {WRITE}"));
        }
        if authority.host().is_empty() {
            return Err(format!("`{text}` names no host; {WRITE}"));
        }
        // The type takes every number for a port, and says of some that there is none.
        let port = authority.as_str().rsplit_once(':').filter(|(_, port)| !port.ends_with(']'));
        if port.is_some_and(|(_, port)| !port.parse::<u16>().is_ok_and(|port| port > 0)) {
            return Err(format!("`{text}`: the port is no number from 1 to 65535; {WRITE}"));
        }
        if uri.path().trim_end_matches('/').ends_with(PATH) {
            return Err(format!("`{text}`: leave out `{PATH}`, which devgrant adds"));
        }
        Ok(Self(uri))
    }
}

impl fmt::Display for Collector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// A collector that nothing can be sent to.
#[derive(Debug, thiserror::Error)]
#[error(
    "tracesEndpoint: there is no way to trust {collector}; set SSL_CERT_FILE to a file with the \
     certificate of the authority that signed its own, or write http://"
)]
pub struct NoTraces {
    collector: Collector,
    source: Box<kube::Error>,
}

/// What sends to a collector.
pub(super) struct Client {
    sender: kube::Client,
    pub(super) collector: Collector,
}

/// Spans that a collector did not take, though it took the others.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Rejected {
    pub(super) spans: u64,
    pub(super) message: String,
}

/// Why nothing was taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// It may go better later.
    Passing(String),
    /// The same again would be refused again.
    Lasting(String),
}

impl Client {
    /// Sends the bytes of a request, and waits 10 s at most for what becomes of it.
    pub(super) async fn post(&self, body: Bytes) -> Result<Rejected, Trouble> {
        let late = || Trouble::Passing(format!("there was no answer within {CALL:?}"));
        timeout(CALL, self.ask(body)).await.unwrap_or_else(|_| Err(late()))
    }

    async fn ask(&self, body: Bytes) -> Result<Rejected, Trouble> {
        let request = Request::post(PATH)
            .header(header::CONTENT_TYPE, "application/x-protobuf")
            .header(header::USER_AGENT, concat!("devgrant/", env!("CARGO_PKG_VERSION")))
            .body(body.into())
            .map_err(|error| Trouble::Lasting(error.to_string()))?;
        let answer = self.sender.send(request).await.map_err(|error| passing(&error))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), LONGEST_ANSWER).collect().await;
        if !status.is_success() {
            return Err(refused(status));
        }
        let odd = || {
            Trouble::Lasting(
                "the answer is none of OTLP; is this the port for OTLP over HTTP?".to_owned(),
            )
        };
        let body = body.map_err(|_| odd())?.to_bytes();
        let answer = ExportTraceServiceResponse::decode(body).map_err(|_| odd())?;
        let partial = answer.partial_success.unwrap_or_default();
        Ok(Rejected {
            spans: u64::try_from(partial.rejected_spans).unwrap_or_default(),
            message: shown(&partial.error_message).into_owned(),
        })
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Client").field("collector", &self.collector).finish_non_exhaustive()
    }
}

/// Which answers are worth another try: OTLP specification, "OTLP/HTTP Response", "Retryable Response
/// Codes".
fn refused(status: StatusCode) -> Trouble {
    let text = format!("it answered {status}");
    match status.as_u16() {
        429 | 502 | 503 | 504 => Trouble::Passing(text),
        _ => Trouble::Lasting(text),
    }
}

/// The causes alone: what kube says above them speaks of an API server.
fn passing(error: &kube::Error) -> Trouble {
    let causes = std::iter::successors(error.source(), |cause| (*cause).source());
    let causes: Vec<String> = causes.map(ToString::to_string).collect();
    let text = if causes.is_empty() { error.to_string() } else { causes.join(": ") };
    Trouble::Passing(text)
}

/// What OTLP adds to the URL of a collector (specification, "OTLP/HTTP Request").
const PATH: &str = "/v1/traces";
/// How long one request may take, as the OTLP exporter specification has it by default.
const CALL: Duration = Duration::from_secs(10);
/// A collector answers with nothing, or with one sentence.
const LONGEST_ANSWER: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_whole_or_not_at_all() {
        for (text, port) in [
            ("http://collector:4318", 4318),
            ("http://collector.observability.svc:4318/", 4318),
            ("http://collector", 80),
            ("https://collector/tenant", 443),
            ("http://[::1]:4318", 4318),
        ] {
            assert_eq!(text.parse::<Collector>().unwrap().port(), port, "{text}");
        }
        for (text, words) in [
            ("", "is no URL"),
            ("collector:4318", "does not begin with http://"),
            ("collector", "does not begin with http://"),
            ("/v1/traces", "does not begin with http://"),
            ("grpc://collector:4317", "does not begin with http://"),
            ("http://", "is no URL"),
            ("http://:4318", "names no host"),
            ("http://collector:", "no number from 1"),
            ("http://collector:0", "no number from 1"),
            ("http://collector:99999", "no number from 1"),
            ("http://a b", "is no URL"),
            ("http://me:secret@collector:4318", "no user and no query"),
            ("http://collector:4318?key=secret", "no user and no query"),
            ("http://collector:4318/v1/traces", "leave out `/v1/traces`"),
        ] {
            let error = text.parse::<Collector>().unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
