//! The pods of a cluster, in pages.
//!
//! Pods are read as they come, not as typed structs: a field that this build does not know may not be
//! lost, and one odd pod may not stop the rest.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io;

use anyhow::{Context as _, anyhow, bail};
use kube::core::params::{GetParams, ListParams};
use kube::core::{Request, Status};
use kube::{Client, Config};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::Scan;
use super::stream::with_kind;
use super::survey::{Labels, Survey};
use crate::cli::output;
use crate::decision::policy::is_dns_subdomain;
use crate::decision::spelling::excerpt;

/// How often a list may begin again, or expire twice with no page between: one that does so more often
/// expires faster than it is read.
const MOST_EXPIRIES: usize = 3;

/// Surveys the cluster that KUBECONFIG, or else the pod that this runs in, leads to.
pub(super) fn survey(arguments: &Scan, survey: &mut Survey<'_>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let config = Config::infer().await.map_err(|error| {
            anyhow!(
                "no path is given, and no cluster is known: set KUBECONFIG, or pipe `kubectl get pods \
                 -A -o json` into `devgrant scan -` ({error})"
            )
        })?;
        let server = config.cluster_url.to_string();
        output::note(&format!("reading from {server}"))?;
        let client = Client::try_from(config).context("the kubeconfig cannot be used; are its credentials still good?")?;
        let cluster = Cluster { client, server };
        cluster.survey(arguments, survey).await
    })
}

/// A cluster, and its address for messages.
struct Cluster {
    client: Client,
    server: String,
}

/// What comes of a list.
enum Event<'a> {
    /// An object, and where it is.
    Object(&'a dyn Display, &'a RawValue),
    /// The list begins again.
    Again,
}

/// A page of a list.
#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    metadata: PageMetadata,
    /// `null` where there are none.
    items: Option<Vec<Box<RawValue>>>,
}

#[derive(Default, Deserialize)]
struct PageMetadata {
    #[serde(rename = "continue")]
    continue_token: Option<String>,
}

/// What is read of a namespace.
#[derive(Deserialize)]
struct Named {
    metadata: NamedMetadata,
}

#[derive(Deserialize)]
struct NamedMetadata {
    name: String,
    labels: Option<BTreeMap<String, String>>,
}

impl Cluster {
    async fn survey(&self, arguments: &Scan, survey: &mut Survey<'_>) -> anyhow::Result<()> {
        let params = ListParams { limit: Some(arguments.page_size), ..ListParams::default() };
        let path = match &arguments.namespace {
            Some(name) if !is_dns_subdomain(name) => {
                bail!("--namespace: `{}` is no name of a namespace", excerpt(name))
            }
            Some(name) => {
                survey.labels = Some(self.one_namespace(name).await?);
                format!("/api/v1/namespaces/{name}/pods")
            }
            None => {
                survey.labels = Some(self.all_namespaces(&params).await?);
                "/api/v1/pods".to_owned()
            }
        };
        let params = ListParams { label_selector: arguments.selector.clone(), ..params };
        let mut take = |event: Event<'_>| match event {
            Event::Again => {
                survey.again();
                Ok(())
            }
            Event::Object(place, raw) => match serde_json::from_str::<Value>(raw.get()) {
                // The items of a PodList do not say what they are.
                Ok(pod) => survey.take(place, &with_kind(pod, Some("PodList")), true),
                Err(error) => survey.unreadable(place, &format!("is no object: {error}")),
            },
        };
        self.list(&path, "pods", params, &mut take).await
    }

    async fn all_namespaces(&self, params: &ListParams) -> anyhow::Result<Labels> {
        let mut labels = Labels::new();
        let mut take = |event: Event<'_>| {
            match event {
                Event::Again => labels.clear(),
                Event::Object(_, raw) => {
                    let named: Named = serde_json::from_str(raw.get())?;
                    labels.insert(named.metadata.name, named.metadata.labels.unwrap_or_default());
                }
            }
            Ok(())
        };
        self.list("/api/v1/namespaces", "namespaces", params.clone(), &mut take).await?;
        Ok(labels)
    }

    /// The labels of one namespace. Whoever may only read the pods of it goes on without: that it is
    /// there is known from its pods.
    async fn one_namespace(&self, name: &str) -> anyhow::Result<Labels> {
        let request = Request::new("/api/v1/namespaces").get(name, &GetParams::default())?;
        match self.client.request::<Named>(request).await {
            Ok(named) => {
                let labels = named.metadata.labels.unwrap_or_default();
                Ok(Labels::from([(named.metadata.name, labels)]))
            }
            Err(kube::Error::Api(status)) if status.code == 403 => {
                output::warning(&format!(
                    "the labels of the namespace `{name}` are not known, so that policies which select \
                     by them do not allow it: {}",
                    plain_message(&status)
                ))?;
                Ok(Labels::new())
            }
            Err(kube::Error::Api(status)) if status.code == 404 => {
                bail!("{} has no namespace `{name}`", self.server)
            }
            Err(error) => Err(self.in_words(error, "namespaces")),
        }
    }

    /// Reads a list page by page.
    ///
    /// The API server forgets what a list looked like when it began, after some minutes. It answers 410
    /// then, with a token by which the rest can be read as it is by now
    /// (`kubernetes/apimachinery pkg/apis/meta/v1/types.go`, `ListOptions.Continue`); without one the
    /// list begins again.
    async fn list(
        &self,
        path: &str,
        resource: &str,
        mut params: ListParams,
        take: &mut dyn FnMut(Event<'_>) -> io::Result<()>,
    ) -> anyhow::Result<()> {
        let mut page_number = 1;
        let mut expiries = 0;
        let mut restarts = 0;
        loop {
            let request = Request::new(path).list(&params)?;
            let page = match self.client.request::<Page>(request).await {
                Ok(page) => page,
                Err(kube::Error::Api(status)) if is_expired(&status, &params) => {
                    expiries += 1;
                    params.continue_token = status.metadata.and_then(|list| list.continue_);
                    if params.continue_token.is_some() {
                        output::note(&format!(
                            "the list of {resource} expired while it was read; what came or went since \
                             it began may be missing"
                        ))?;
                    } else {
                        restarts += 1;
                        page_number = 1;
                        take(Event::Again)?;
                    }
                    if expiries.max(restarts) > MOST_EXPIRIES {
                        bail!(
                            "{} lets lists expire faster than they are read; raise --page-size, or read \
                             one --namespace at a time",
                            self.server
                        );
                    }
                    continue;
                }
                Err(error) => return Err(self.in_words(error, resource)),
            };
            expiries = 0;
            for (index, item) in page.items.into_iter().flatten().enumerate() {
                let place = format!("{resource}, page {page_number}, item {}", index + 1);
                take(Event::Object(&place, &item))?;
            }
            params.continue_token = page.metadata.continue_token.filter(|token| !token.is_empty());
            if params.continue_token.is_none() {
                return Ok(());
            }
            page_number += 1;
        }
    }

    fn in_words(&self, error: kube::Error, resource: &str) -> anyhow::Error {
        let server = &self.server;
        match error {
            kube::Error::Api(status) => {
                let message = plain_message(&status);
                match status.code {
                    401 => anyhow!(
                        "{server} does not know who asks: the kubeconfig has no credentials for it, or they \
                         have expired; log in again ({message})"
                    ),
                    403 => anyhow!(
                        "{server} does not let you list {resource}: {message}; ask for a ClusterRole with \
                         the verb `list` on `pods` and `namespaces`, or scan a --namespace in which you \
                         may list pods"
                    ),
                    code => anyhow!("{server} cannot list {resource}: {code} {message}"),
                }
            }
            kube::Error::Auth(error) => anyhow!(error)
                .context("the kubeconfig has no credentials that can be used; log in again"),
            kube::Error::SerdeError(error) => {
                anyhow!(error).context(format!("{server} answers with no list of {resource}"))
            }
            error @ (kube::Error::Service(_) | kube::Error::HyperError(_)) => anyhow!(error)
                .context(format!(
                    "{server} cannot be reached, or hung up; is KUBECONFIG the right one?"
                )),
            error => anyhow!(error).context(format!("cannot list {resource} of {server}")),
        }
    }
}

/// Whether a list that was begun has expired.
fn is_expired(status: &Status, params: &ListParams) -> bool {
    status.code == 410 && params.continue_token.is_some()
}

/// What the API server says, on one line.
fn plain_message(status: &Status) -> String {
    super::text::plain(&status.message).chars().take(300).collect()
}

#[cfg(test)]
mod tests;
