//! From what was typed to what is meant: the layers merged, each value checked, an error naming its place.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use figment::Figment;

use super::sources::{Origin, Sources, SourcesError, TRACES_SAMPLE};
use super::typed::Typed;
use super::{Assumed, CertificateSource, Config, Error, Limits, LogConfig, ServerConfig, units};
use crate::decision::policy::is_dns_subdomain;
use crate::decision::{KubernetesVersion, Settings};
use crate::policies::Location;
use crate::traces;

/// The merged layers: what was typed in all places together, and where each value was typed.
#[derive(Debug)]
pub struct Merged {
    typed: Typed,
    layers: Figment,
}

impl Merged {
    /// Reads all places and lays them over each other.
    pub fn load(sources: Sources) -> Result<Self, Error> {
        let (layers, defaults) = sources.layers()?;
        let standalone = layers.extract_inner("standalone").unwrap_or(false);
        // `join` keeps what is there: defaults depend on other values, so they come last and lose.
        let layers = layers.join(defaults.layer(standalone));
        let typed = layers.extract().map_err(SourcesError::from)?;
        Ok(Self { typed, layers })
    }

    /// What was typed, with the defaults.
    pub fn typed(&self) -> &Typed {
        &self.typed
    }

    /// The file that says this and nothing else, as YAML.
    pub fn to_yaml(&self) -> Result<String, serde_saphyr::SerializeError> {
        serde_saphyr::to_string(&self.typed)
    }

    /// What is meant.
    pub fn config(&self) -> Result<Config, Error> {
        let typed = &self.typed;
        let settings = self.settings()?;
        let namespace_labels = typed.namespace_labels.clone().map_or_else(
            || BTreeMap::from([(settings.opt_in_label(), Settings::OPTED_IN.to_owned())]),
            |labels| labels.0,
        );
        if let Some(namespace) = &typed.namespace {
            self.value("namespace", label(namespace))?;
        }
        let policies = match typed.policies.clone().unwrap_or_default() {
            paths if paths.is_empty() => Location::Shipped,
            paths => Location::Folders {
                paths,
                allow_empty: typed.allow_empty_policies.unwrap_or(false),
            },
        };
        let level = typed.log_level.as_deref().unwrap_or_default();
        Ok(Config {
            policies,
            assumed: Assumed {
                namespace: typed.namespace.clone(),
                namespace_labels,
                service_account: typed.service_account.clone(),
                user: typed.user.clone(),
            },
            server: self.server()?,
            log: LogConfig {
                format: typed.log_format.unwrap_or_default(),
                level: self.value("logLevel", level.parse())?,
            },
            traces: self.traces()?,
            settings,
        })
    }

    fn settings(&self) -> Result<Settings, Error> {
        let typed = &self.typed;
        let prefix = typed.prefix.clone().unwrap_or_default();
        self.value("prefix", subdomain(&prefix))?;
        let own_namespace = typed.own_namespace.clone().unwrap_or_default();
        self.value("ownNamespace", label(&own_namespace))?;
        let version = typed.kubernetes_version.as_deref().unwrap_or_default();
        Ok(Settings {
            prefix,
            own_namespace,
            kubernetes_version: self.value(
                "kubernetesVersion",
                version.parse::<KubernetesVersion>().map_err(|error| error.to_string()),
            )?,
            on_invalid: typed.on_invalid.unwrap_or_default(),
        })
    }

    fn server(&self) -> Result<ServerConfig, Error> {
        let typed = &self.typed;
        let listen = self.address("listen", typed.listen.as_deref())?;
        let standalone = typed.standalone.unwrap_or(false);
        if standalone && typed.namespace_labels.is_none() {
            self.value("listen", only_here(listen))?;
        }
        Ok(ServerConfig {
            listen,
            health: self.address("health", typed.health.as_deref())?,
            standalone,
            watch_nodes: self.watch_nodes(standalone)?,
            certificate: self.certificate()?,
            limits: self.limits()?,
        })
    }

    fn watch_nodes(&self, standalone: bool) -> Result<bool, Error> {
        let watched = self.typed.watch_nodes.unwrap_or(false);
        if watched && standalone {
            let problem =
                "there are no nodes without a cluster; leave out one of it and standalone";
            return self.value("watchNodes", Err(problem.to_owned()));
        }
        Ok(watched)
    }

    fn limits(&self) -> Result<Limits, Error> {
        let typed = &self.typed;
        let bytes = units::bytes(typed.body_limit.as_deref().unwrap_or_default());
        let delay = units::duration(typed.shutdown_delay.as_deref().unwrap_or_default());
        let limits = Limits {
            handshake: self.duration("handshakeTimeout", typed.handshake_timeout.as_deref())?,
            head: self.duration("headTimeout", typed.head_timeout.as_deref())?,
            body: self.duration("bodyTimeout", typed.body_timeout.as_deref())?,
            idle: self.duration("idleTimeout", typed.idle_timeout.as_deref())?,
            age: self.duration("maxConnectionAge", typed.max_connection_age.as_deref())?,
            connections: self.count("maxConnections", typed.max_connections)?,
            in_flight: self.count("maxInFlight", typed.max_in_flight)?,
            body_bytes: self.value("bodyLimit", bytes.and_then(not_zero))?,
            shutdown_delay: self.value("shutdownDelay", delay)?,
            ..Limits::default()
        };
        // Until then a connection that is too old may be about to end by itself.
        let age_grace = limits.idle + limits.head + limits.body + limits.write;
        let peer_connections = Limits::share(limits.connections);
        Ok(Limits { age_grace, peer_connections, ..limits })
    }

    fn traces(&self) -> Result<Option<traces::Settings>, Error> {
        let typed = &self.typed;
        let sample = ratio(typed.traces_sample.as_deref().unwrap_or_default());
        let sample = self.value("tracesSample", sample)?;
        let Some(endpoint) = &typed.traces_endpoint else {
            if self.says_traces_sample() {
                let problem =
                    "works with tracesEndpoint only, which is missing: nothing is sent; set it too";
                return self.value("tracesSample", Err(problem.to_owned()));
            }
            return Ok(None);
        };
        let collector = self.value("tracesEndpoint", endpoint.parse())?;
        Ok(Some(traces::Settings { collector, sample }))
    }

    /// Whether somebody wants a share of their own. A file that `--print-config` wrote has the usual one.
    fn says_traces_sample(&self) -> bool {
        match Origin::of(&self.layers, "tracesSample") {
            Origin::Defaults => false,
            Origin::File(_) => self.typed.traces_sample.as_deref() != Some(TRACES_SAMPLE),
            Origin::Environment | Origin::Flags => true,
        }
    }

    fn certificate(&self) -> Result<CertificateSource, Error> {
        let typed = &self.typed;
        let (key, problem) = match (&typed.tls_cert, &typed.tls_key) {
            (Some(_), None) => ("tlsCert", "the private key is missing; set tlsKey too"),
            (None, Some(_)) => ("tlsKey", "the certificate is missing; set tlsCert too"),
            (Some(_), Some(_)) if typed.ca_out.is_some() => {
                ("caOut", "there is no own authority beside tlsCert; leave out one of them")
            }
            (None, None) if typed.ca_out.is_some() && typed.standalone != Some(true) => (
                "caOut",
                "works with --standalone only; in a cluster the Secret devgrant-authority has it",
            ),
            (Some(certificate), Some(key)) => {
                return Ok(CertificateSource::Files {
                    certificate: certificate.clone(),
                    key: key.clone(),
                });
            }
            (None, None) => {
                return Ok(CertificateSource::Own {
                    names: typed.names.clone().unwrap_or_default(),
                    ca_out: typed.ca_out.clone(),
                });
            }
        };
        self.value(key, Err(problem.to_owned()))
    }

    fn address(&self, key: &str, text: Option<&str>) -> Result<SocketAddr, Error> {
        let text = text.unwrap_or_default();
        let address = text.parse().map_err(|_| {
            format!("`{text}` is no address; write ADDRESS:PORT, for example 127.0.0.1:8443 or [::]:8443")
        });
        self.value(key, address)
    }

    /// A duration that must pass: a limit of nothing would refuse everything.
    fn duration(&self, key: &str, text: Option<&str>) -> Result<Duration, Error> {
        let duration = units::duration(text.unwrap_or_default());
        self.value(key, duration.and_then(not_zero))
    }

    fn count(&self, key: &str, count: Option<u32>) -> Result<usize, Error> {
        let count = usize::try_from(count.unwrap_or_default()).map_err(|error| error.to_string());
        self.value(key, count.and_then(not_zero))
    }

    /// What a key means, or an error that names the place where it was typed.
    pub fn value<T>(&self, key: &str, value: Result<T, String>) -> Result<T, Error> {
        value.map_err(|problem| Error::Value {
            place: Origin::of(&self.layers, key).place(key),
            problem,
        })
    }
}

fn not_zero<T: Default + PartialEq>(value: T) -> Result<T, String> {
    if value == T::default() {
        return Err("nothing would get through a limit of 0; write more".to_owned());
    }
    Ok(value)
}

/// A share of something.
fn ratio(text: &str) -> Result<f64, String> {
    let ratio = text.trim().parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
    ratio.ok_or_else(|| {
        format!("`{text}` is no share; write a number from 0 (none) to 1 (all), such as 0.01")
    })
}

/// An address that only this machine reaches. Without a cluster every namespace is taken to have opted
/// in unless somebody says otherwise; that is for trying it, and no answer to give to an API server.
fn only_here(address: SocketAddr) -> Result<(), String> {
    if address.ip().to_canonical().is_loopback() {
        return Ok(());
    }
    Err(format!(
        "{address} is reached from other machines, and --standalone would take every namespace as \
         opted in; say with --namespace-labels what labels they have, or listen on 127.0.0.1"
    ))
}

/// A DNS-1123 subdomain, as the prefix of an annotation must be.
fn subdomain(text: &str) -> Result<(), String> {
    if is_dns_subdomain(text) {
        return Ok(());
    }
    Err(format!(
        "`{text}` is no DNS-1123 subdomain; write lower case letters, digits, `-` and `.`, \
         each part beginning and ending with a letter or digit: {}",
        Settings::PREFIX
    ))
}

/// A DNS-1123 label, as the name of a namespace must be.
fn label(text: &str) -> Result<(), String> {
    // A label is a short subdomain of one part.
    if text.len() <= 63 && !text.contains('.') && is_dns_subdomain(text) {
        return Ok(());
    }
    Err(format!(
        "`{text}` is no name of a namespace; write at most 63 lower case letters, digits and `-`"
    ))
}
