//! The client of the API server, and its errors in words.

use std::error::Error;
use std::time::Duration;

use axum::http::Request;
use kube::client::Body;
use kube::config::InferConfigError;
use kube::core::Status;
use kube::{Client, Config};
use tower::service_fn;

/// How long one call may take. An API server answers in milliseconds; whoever waits here has a timer
/// of seconds, or a review that waits.
pub(super) const CALL: Duration = Duration::from_secs(5);

/// There is no cluster to talk to.
#[derive(Debug, thiserror::Error)]
pub enum NoCluster {
    /// Nothing says where a cluster is, or what says so cannot be read. The text of the cause has its
    /// own causes in it.
    #[error(
        "no cluster is known: this is no pod with a service account, and no kubeconfig can be used; \
         set KUBECONFIG to one that can, or run `devgrant serve --standalone`: {0}"
    )]
    Infer(Box<InferConfigError>),
    /// What says where it is does not make a client.
    #[error(
        "the cluster's client configuration cannot be used; mend the kubeconfig that KUBECONFIG names"
    )]
    Client(#[source] Box<kube::Error>),
}

/// The client that kube infers: a kubeconfig if there is one (`KUBECONFIG`), else the service account
/// of the pod. Nothing is sent yet.
pub async fn connect() -> Result<Client, NoCluster> {
    let mut config = Config::infer().await.map_err(|error| NoCluster::Infer(Box::new(error)))?;
    config.connect_timeout = Some(CALL);
    // Whatever is asked here is asked again on a timer; retries below that only make it late.
    config.default_retry = false;
    Client::try_from(config).map_err(|error| NoCluster::Client(Box::new(error)))
}

/// The same client, which says when the API server answered well. A watch is asked for anew every five
/// minutes, also where there is nothing to tell; the events of one do not show that.
pub(super) fn noting(client: Client, answered: impl Fn() + Clone + Send + 'static) -> Client {
    let namespace = client.default_namespace().to_owned();
    let service = service_fn(move |request: Request<Body>| {
        let (client, answered) = (client.clone(), answered.clone());
        async move {
            let answer = client.send(request).await;
            if answer.as_ref().is_ok_and(|answer| answer.status().is_success()) {
                answered();
            }
            answer
        }
    });
    Client::new(service, namespace)
}

/// A call that did not end well.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    /// Somebody else wrote in between, or owns what is written.
    #[error("{}", .0.message)]
    Conflict(Box<Status>),
    /// The API server does not let us.
    #[error("the API server does not allow it ({}); apply the RBAC rules of `devgrant manifests`", .0.message)]
    Forbidden(Box<Status>),
    /// No answer in time.
    #[error("the API server did not answer within {CALL:?}")]
    Late,
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

/// Waits for a call no longer than [`CALL`].
pub(super) async fn call<T>(work: impl Future<Output = kube::Result<T>>) -> Result<T, Trouble> {
    match tokio::time::timeout(CALL, work).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(kube::Error::Api(status))) if status.code == 409 => Err(Trouble::Conflict(status)),
        Ok(Err(kube::Error::Api(status))) if matches!(status.code, 401 | 403) => {
            Err(Trouble::Forbidden(status))
        }
        Ok(Err(error)) => {
            Err(Trouble::Other(format!("the API server cannot be asked: {}", words(&error))))
        }
        Err(_) => Err(Trouble::Late),
    }
}

/// An error with its causes, on one line.
pub(super) fn words(error: &(dyn Error + 'static)) -> String {
    let mut text = String::new();
    let mut cause = Some(error);
    while let Some(error) = cause {
        let own = error.to_string();
        let api = error.downcast_ref().and_then(|error| match error {
            // Its own text has all that the API server said twice.
            kube::Error::Api(status) => {
                Some(format!("the API server says {}: {}", status.code, status.message))
            }
            _ => None,
        });
        // Some errors already say their cause.
        let before = text.trim_end_matches(own.as_str()).trim_end_matches([':', ' ']);
        let between = if before.is_empty() { "" } else { ": " };
        text = format!("{before}{between}{}", api.as_ref().unwrap_or(&own));
        cause = if api.is_some() { None } else { error.source() };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_said_once_with_its_causes() {
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let error = kube::Error::Service(Box::new(refused));
        assert_eq!(words(&error), "ServiceError: connection refused");
        let status = Status { code: 403, message: "no".to_owned(), ..Status::default() };
        let error = kube::Error::Api(Box::new(status));
        let error = kube::runtime::watcher::Error::InitialListFailed(error);
        assert_eq!(
            words(&error),
            "failed to perform initial object list: the API server says 403: no"
        );
    }
}
