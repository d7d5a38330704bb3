//! `serve`: the webhook.

use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Args;

use super::arguments::{ReviewArguments, compile, load};
use super::output::TITLE;
use super::{Status, output};
use crate::cluster::{self, Cluster, Expression, OwnPod};
use crate::config::{CertificateSource, Config, LogFormat, Typed};
use crate::decision::{PolicySet, Settings};
use crate::metrics::Metrics;
use crate::policies::watch::Watch;
use crate::registration;
use crate::server::{self, Bound, LivePolicies, Namespaces, Server};
use crate::shutdown::Shutdown;
use crate::traces::{Export, NoTraces, Traces};
use crate::{telemetry, tls};

/// The flags of `serve`.
#[derive(Debug, Args)]
pub struct Serve {
    /// Run without a cluster: every namespace is taken to have --namespace-labels.
    #[arg(long)]
    pub standalone: bool,
    /// HTTPS address; default 0.0.0.0:8443, with --standalone 127.0.0.1:8443.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<String>,
    /// Plain address of health and metrics; default 0.0.0.0:8080, with --standalone 127.0.0.1:8080.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub health: Option<String>,
    /// Write the certificate of the own authority into this file; with --standalone.
    #[arg(long, value_name = "FILE", conflicts_with = "tls_cert")]
    pub ca_out: Option<PathBuf>,
    /// Further DNS names and IP addresses of the own certificate.
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    pub names: Vec<String>,
    /// Certificate chain, PEM, that somebody else renews.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Private key of --tls-cert, PEM.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Warn at a workload whose device no node offers; needs the rights of `manifests --nodes`.
    #[arg(long, conflicts_with = "standalone")]
    pub watch_nodes: bool,
    /// How log lines are written; default json, with --standalone text.
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
    /// Which log lines are written, such as warn or devgrant=debug; default info.
    #[arg(long, value_name = "FILTER")]
    pub log_level: Option<String>,
    /// Send traces to this collector, by OTLP over HTTP, by custom at port 4318; default none.
    #[arg(long, value_name = "http://HOST:PORT")]
    pub traces_endpoint: Option<String>,
    /// Share of reviews with a span, of those whose caller has no trace of its own; default 0.01.
    #[arg(long, value_name = "0…1")]
    pub traces_sample: Option<String>,
    /// Print the merged configuration as YAML, and exit.
    #[arg(long)]
    pub print_config: bool,
    /// The policies, and the labels of namespaces.
    #[command(flatten)]
    pub review: ReviewArguments,
    /// The limits.
    #[command(flatten)]
    pub limits: LimitArguments,
}

/// The flags of the server's limits. Durations are written 500ms, 5s, 2m.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Limits")]
pub struct LimitArguments {
    /// Longest TLS handshake; default 5s.
    #[arg(long, value_name = "DURATION")]
    pub handshake_timeout: Option<String>,
    /// Longest time for a request's head; default 10s.
    #[arg(long, value_name = "DURATION")]
    pub head_timeout: Option<String>,
    /// Longest time for a request's body; default 10s.
    #[arg(long, value_name = "DURATION")]
    pub body_timeout: Option<String>,
    /// How long a connection may be idle; default 120s.
    #[arg(long, value_name = "DURATION")]
    pub idle_timeout: Option<String>,
    /// Largest body; default 7Mi.
    #[arg(long, value_name = "SIZE")]
    pub body_limit: Option<String>,
    /// Most connections at a time; default 1024.
    #[arg(long, value_name = "COUNT")]
    pub max_connections: Option<u32>,
    /// How old a connection may get; default 10m.
    #[arg(long, value_name = "DURATION")]
    pub max_connection_age: Option<String>,
    /// Most reviews decided at a time, more are answered 429; times --body-limit, the memory for
    /// bodies; /advise has a quarter of as many of its own; default 64.
    #[arg(long, value_name = "COUNT")]
    pub max_in_flight: Option<u32>,
    /// How long to go on serving after the first SIGTERM; default 5s, with --standalone 0s.
    #[arg(long, value_name = "DURATION")]
    pub shutdown_delay: Option<String>,
}

impl Serve {
    /// What these flags say.
    pub fn typed(&self) -> Typed {
        let limits = &self.limits;
        Typed {
            listen: self.listen.clone(),
            health: self.health.clone(),
            standalone: self.standalone.then_some(true),
            ca_out: self.ca_out.clone(),
            names: (!self.names.is_empty()).then(|| self.names.clone()),
            tls_cert: self.tls_cert.clone(),
            tls_key: self.tls_key.clone(),
            watch_nodes: self.watch_nodes.then_some(true),
            log_format: self.log_format,
            log_level: self.log_level.clone(),
            traces_endpoint: self.traces_endpoint.clone(),
            traces_sample: self.traces_sample.clone(),
            handshake_timeout: limits.handshake_timeout.clone(),
            head_timeout: limits.head_timeout.clone(),
            body_timeout: limits.body_timeout.clone(),
            idle_timeout: limits.idle_timeout.clone(),
            body_limit: limits.body_limit.clone(),
            max_connections: limits.max_connections,
            max_connection_age: limits.max_connection_age.clone(),
            max_in_flight: limits.max_in_flight,
            shutdown_delay: limits.shutdown_delay.clone(),
            ..self.review.typed()
        }
    }
}

pub(super) fn run(arguments: &Serve) -> anyhow::Result<Status> {
    let merged = load(arguments.review.policy.config.clone(), arguments.typed())?;
    // Before it is printed: what is printed must be usable as a file.
    let config = merged.config()?;
    if arguments.print_config {
        output::stdout().write_all(merged.to_yaml()?.as_bytes())?;
        return Ok(Status::Fine);
    }
    serve(&config)
}

fn serve(config: &Config) -> anyhow::Result<Status> {
    let policies = compile(config)?;
    let format = match config.log.format {
        LogFormat::Json => telemetry::Format::Json,
        LogFormat::Text => telemetry::Format::Text,
    };
    telemetry::start(format, &config.log.level)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if config.server.standalone {
        runtime.block_on(serve_standalone(config, policies))?;
    } else {
        runtime.block_on(serve_cluster(config, policies))?;
    }
    Ok(Status::Fine)
}

/// Nothing here waits for the API server: one that cannot be reached is tried again for as long as it
/// takes, and until then the server lives and is not ready.
async fn serve_cluster(config: &Config, policies: PolicySet) -> anyhow::Result<()> {
    let metrics = Arc::new(Metrics::new()?);
    let shutdown = Shutdown::on_signals()?;
    let mut cluster = Cluster::new(cluster::connect().await?, Arc::clone(&metrics));
    let policies = Arc::new(LivePolicies::new(policies, Arc::clone(&metrics)));
    let watch = Watch::new(config.policies.clone(), config.settings.clone(), Arc::clone(&policies));
    let of_registration = Arc::clone(&policies);
    cluster.compare_registration(Expression::new(move || {
        registration::match_expression(&of_registration.current())
    }));
    if let Some(pod) = own_pod(config) {
        cluster.tell_of_policies(pod, Arc::clone(&policies));
    }
    let own_namespace = &config.settings.own_namespace;
    let certificate = match &config.server.certificate {
        CertificateSource::Files { certificate, key } => files(certificate, key),
        CertificateSource::Own { names, .. } => {
            let names = all_names(config, names);
            tls::authority::check(&names)?;
            let authority = cluster.keep_authority(own_namespace, &replica(), names);
            tls::Source::Shared { authority }
        }
    };
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        own_namespace,
        policies = policies.current().policies().len(),
        digest = policies.current().digest(),
        "starting"
    );
    let (traces, export) = traces(config, &metrics)?.unzip();
    let bound = Server {
        listen: config.server.listen,
        health: config.server.health,
        certificate,
        limits: config.server.limits.clone(),
        policies,
        namespaces: Namespaces::Watched(cluster.namespaces()),
        nodes: config.server.watch_nodes.then(|| cluster.watch_nodes()),
        cluster: Some(cluster.status()),
        metrics,
        traces,
    }
    .bind()
    .await?;
    tracing::info!(
        reviews = %bound.listen_address()?,
        health = %bound.health_address()?,
        "listening"
    );
    let mut cluster = cluster.start();
    // Ends with the runtime, which ends with the server.
    tokio::spawn(watch.run());
    let ended = tokio::select! {
        ended = bound.run(shutdown) => ended,
        () = cluster.ended() => Err(server::Error::Stopped),
    };
    // A second signal waits for nothing.
    if !matches!(ended, Err(server::Error::Aborted)) {
        tokio::join!(cluster.stop(), finish(export));
    }
    Ok(ended?)
}

/// What makes spans and what sends them, where somebody wants some.
fn traces(
    config: &Config,
    metrics: &Arc<Metrics>,
) -> Result<Option<(Arc<Traces>, Export)>, NoTraces> {
    let start = |settings| Traces::start(settings, &replica(), Arc::clone(metrics));
    config.traces.as_ref().map(start).transpose()
}

async fn finish(export: Option<Export>) {
    if let Some(export) = export {
        export.finish().await;
    }
}

/// Our own pod, if the downward API names it.
fn own_pod(config: &Config) -> Option<OwnPod> {
    let named = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let namespace = config.settings.own_namespace.clone();
    Some(OwnPod { namespace, name: named("POD_NAME")?, uid: named("POD_UID") })
}

/// What this replica is called: the name of its pod, which is also what the kernel calls it.
fn replica() -> String {
    let named = ["POD_NAME", "HOSTNAME"].iter().find_map(|name| std::env::var(name).ok());
    named.filter(|name| !name.is_empty()).unwrap_or_else(|| "devgrant".to_owned())
}

async fn serve_standalone(config: &Config, policies: PolicySet) -> anyhow::Result<()> {
    let metrics = Arc::new(Metrics::new()?);
    let shutdown = Shutdown::on_signals()?;
    let notes = Notes::of(config, &policies);
    let policies = Arc::new(LivePolicies::new(policies, Arc::clone(&metrics)));
    let watch = Watch::new(config.policies.clone(), config.settings.clone(), Arc::clone(&policies));
    let (traces, export) = traces(config, &metrics)?.unzip();
    let bound = Server {
        listen: config.server.listen,
        health: config.server.health,
        certificate: source(config),
        limits: config.server.limits.clone(),
        policies,
        namespaces: Namespaces::Fixed { labels: config.assumed.namespace_labels.clone() },
        nodes: None,
        cluster: None,
        metrics,
        traces,
    }
    .bind()
    .await?;
    // Lives as long as the server: what it prints for pasting stays there until the end. Nobody else
    // gets in: who may write there could have the pasted line trust another authority.
    let owner_only = std::fs::Permissions::from_mode(0o700);
    // There need be none: an image may have nothing but this program, and a file system to read only.
    let scratch = tempfile::Builder::new().prefix("devgrant-").permissions(owner_only).tempdir();
    notes.print(&bound, scratch.as_ref().map(tempfile::TempDir::path))?;
    // Ends with the runtime, which ends with the server.
    tokio::spawn(watch.run());
    let ended = bound.run(shutdown).await;
    // A second signal waits for nothing.
    if !matches!(ended, Err(server::Error::Aborted)) {
        finish(export).await;
    }
    Ok(ended?)
}

fn source(config: &Config) -> tls::Source {
    match &config.server.certificate {
        CertificateSource::Files { certificate, key } => files(certificate, key),
        CertificateSource::Own { names, .. } => {
            tls::Source::Authority { names: all_names(config, names) }
        }
    }
}

fn files(certificate: &Path, key: &Path) -> tls::Source {
    tls::Source::Files { certificate: certificate.to_owned(), key: key.to_owned(), reread: REREAD }
}

/// What callers call us, and the `further` names.
fn all_names(config: &Config, further: &[String]) -> Vec<String> {
    let mut names = tls::authority::names(&config.settings.own_namespace);
    names.extend(further.iter().cloned());
    names
}

/// What a person wants to know when the server is up.
struct Notes {
    policies: usize,
    digest: String,
    certificate: CertificateSource,
    example: String,
}

impl Notes {
    fn of(config: &Config, policies: &PolicySet) -> Self {
        Self {
            policies: policies.policies().len(),
            digest: policies.digest().to_owned(),
            certificate: config.server.certificate.clone(),
            example: EXAMPLE.replace(Settings::PREFIX, &config.settings.prefix),
        }
    }

    /// Says where the server listens, what clients must trust, and how to try it.
    fn print(&self, bound: &Bound, scratch: Result<&Path, &io::Error>) -> anyhow::Result<()> {
        let ca = self.ca(bound, scratch)?;
        let mut stderr = output::stderr();
        writeln!(stderr, "{TITLE}devgrant{TITLE:#} {}", env!("CARGO_PKG_VERSION"))?;
        writeln!(stderr, "  policies   {}, digest {}", self.policies, self.digest)?;
        writeln!(stderr, "  reviews    https://{}/mutate", bound.listen_address()?)?;
        writeln!(
            stderr,
            "  health     http://{}/readyz?verbose and /metrics",
            bound.health_address()?
        )?;
        match &ca {
            Ca::Elsewhere => {}
            Ca::File(path) => writeln!(stderr, "  authority  {}", path.display())?,
            Ca::Text { pem, why } => {
                writeln!(
                    stderr,
                    "  authority  as below: no file can be made ({why}); set TMPDIR to a folder that \
                     can be written, or name a file with --ca-out"
                )?;
                write!(stderr, "{pem}")?;
            }
        }
        if let (Ca::File(ca), Ok(scratch)) = (ca, scratch) {
            let review = scratch.join("review.json");
            write(&review, &self.example)?;
            let port = bound.listen_address()?.port();
            // Reviews are answered on every address; the certificate is for these names.
            let url = format!("https://localhost:{port}/mutate");
            writeln!(
                stderr,
                "Try it: a pod asks for fuse; the line prints the patch that it gets."
            )?;
            writeln!(
                stderr,
                "  curl -sS --cacert {} -H 'Content-Type: application/json' --data-binary @{} {url} | \
                 sed -E 's/.*\"patch\":\"([^\"]*)\".*/\\1/' | base64 -d; echo",
                quoted(&ca),
                quoted(&review)
            )?;
        }
        Ok(())
    }

    /// The certificate that clients must trust, in a file if there is a place for one.
    fn ca(&self, bound: &Bound, scratch: Result<&Path, &io::Error>) -> anyhow::Result<Ca> {
        let CertificateSource::Own { ca_out, .. } = &self.certificate else {
            return Ok(Ca::Elsewhere);
        };
        let Some(pem) = bound.authority_pem() else { return Ok(Ca::Elsewhere) };
        let path = match (ca_out, scratch) {
            (Some(path), _) => path.clone(),
            (None, Ok(scratch)) => scratch.join("ca.pem"),
            (None, Err(error)) => {
                return Ok(Ca::Text { pem: pem.to_owned(), why: error.to_string() });
            }
        };
        write(&path, pem)?;
        Ok(Ca::File(path))
    }
}

/// Where clients find the certificate that they must trust.
enum Ca {
    /// With whoever issued ours.
    Elsewhere,
    /// Here.
    File(PathBuf),
    /// In what we print.
    Text {
        /// The certificate.
        pem: String,
        /// Why there is no file.
        why: String,
    },
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| {
        format!("cannot write {}; name another file with --ca-out", path.display())
    })
}

/// A path as a shell reads it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |char: char| char.is_ascii_alphanumeric() || "/._-+".contains(char);
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

/// A review as an API server sends it, for trying the server.
const EXAMPLE: &str = include_str!("../../examples/review.json");
/// How often certificate files are read again: well within the time that whoever renews them leaves.
const REREAD: Duration = Duration::from_secs(10);
