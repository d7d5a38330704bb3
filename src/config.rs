//! What an operator set: defaults, then the file, then the environment, then flags.
//!
//! Two types, two steps. [`Typed`] is what was typed, in one shape for all places; figment lays the
//! places over each other. [`Config`] is what is meant: one conversion checks everything that can be
//! checked without looking at the world, and an error names the place that the value came from.

mod sources;
mod typed;
mod units;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use figment::Figment;

use crate::decision::policy::is_dns_subdomain;
use crate::decision::{KubernetesVersion, Settings};
use crate::policies::Location;
pub use crate::server::Limits;
use crate::telemetry::Level;
use crate::traces;

use sources::TRACES_SAMPLE;
pub use sources::{Origin, Sources, SourcesError};
pub use typed::{Labels, LogFormat, Typed};

/// What is meant.
#[derive(Debug, Clone)]
pub struct Config {
    /// The settings of the decision.
    pub settings: Settings,
    /// Where policies are read from.
    pub policies: Location,
    /// What the command line assumes about pods in files.
    pub assumed: Assumed,
    /// The server.
    pub server: ServerConfig,
    /// Log lines.
    pub log: LogConfig,
    /// Traces, where they are wanted.
    pub traces: Option<traces::Settings>,
}

/// What is assumed about a pod in a file, since no API server says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assumed {
    /// The namespace, whatever the file says.
    pub namespace: Option<String>,
    /// The labels of the namespace.
    pub namespace_labels: BTreeMap<String, String>,
    /// The service account of a pod that names none.
    pub service_account: Option<String>,
    /// Who creates the pod.
    pub user: Option<String>,
}

/// The server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerConfig {
    /// The HTTPS address.
    pub listen: SocketAddr,
    /// The plain address of health and metrics.
    pub health: SocketAddr,
    /// Whether there is no cluster.
    pub standalone: bool,
    /// Whether the nodes are watched.
    pub watch_nodes: bool,
    /// Where the certificate comes from.
    pub certificate: CertificateSource,
    /// The limits of connections and requests.
    pub limits: Limits,
}

/// Where the certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CertificateSource {
    /// Files that somebody else renews.
    Files {
        /// The chain.
        certificate: PathBuf,
        /// The private key.
        key: PathBuf,
    },
    /// The own authority.
    Own {
        /// Further DNS names and addresses of the leaf.
        names: Vec<String>,
        /// Where the authority's certificate is written.
        ca_out: Option<PathBuf>,
    },
}

/// Log lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// How they are written.
    pub format: LogFormat,
    /// Which are written.
    pub level: Level,
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or a variable cannot be read.
    #[error(transparent)]
    Sources(#[from] SourcesError),
    /// A value does not mean anything.
    #[error("{place}: {problem}")]
    Value {
        /// The flag, the variable, or the file and key.
        place: String,
        /// What is wrong with it, and what to write.
        problem: String,
    },
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(
        clippy::unwrap_in_result,
        reason = "a scratch folder that cannot be made is no result"
    )]
    fn merged(
        file: Option<&str>,
        environment: &[(&str, &str)],
        flags: Typed,
    ) -> Result<Merged, Error> {
        let folder = tempfile::tempdir().unwrap();
        let path = file.map(|text| {
            let path = folder.path().join("devgrant.yaml");
            std::fs::write(&path, text).unwrap();
            path
        });
        Merged::load(Sources {
            file: path,
            environment: environment
                .iter()
                .map(|(name, value)| ((*name).into(), (*value).into()))
                .collect(),
            flags,
        })
    }

    #[test]
    fn later_places_win() {
        let flags = Typed { user: Some("flag".to_owned()), ..Typed::default() };
        let merged = merged(
            Some("prefix: file.example\nuser: file\nnamespace: file\nkubernetesVersion: 1.30\n"),
            &[("DEVGRANT_USER", "variable"), ("DEVGRANT_NAMESPACE", "variable")],
            flags,
        )
        .unwrap();
        let config = merged.config().unwrap();
        assert_eq!(config.assumed.user.as_deref(), Some("flag"));
        assert_eq!(config.assumed.namespace.as_deref(), Some("variable"));
        assert_eq!(config.settings.prefix, "file.example");
        assert_eq!(config.settings.kubernetes_version.minor, 30);
        assert_eq!(config.settings.own_namespace, Settings::OWN_NAMESPACE);
        assert_eq!(config.server.listen.to_string(), "0.0.0.0:8443");
    }

    #[test]
    fn traces_are_off_until_somebody_names_a_collector() {
        let off = merged(None, &[], Typed::default()).unwrap();
        assert_eq!(off.config().unwrap().traces, None);
        let printed = off.to_yaml().unwrap();
        assert!(printed.contains("tracesSample"), "{printed}");
        let again = merged(Some(&printed), &[], Typed::default()).unwrap();
        assert_eq!(again.config().unwrap().traces, None);
        let file = "tracesEndpoint: http://collector:4318\ntracesSample: 0.5\n";
        let on = merged(Some(file), &[], Typed::default()).unwrap();
        let traces = on.config().unwrap().traces.unwrap();
        assert_eq!(traces.collector.port(), 4318);
        assert!((traces.sample - 0.5).abs() < f64::EPSILON);
    }

    #[test]
    fn labels_replace_and_do_not_unite() {
        let flags = Typed { namespace_labels: Some("b=2".parse().unwrap()), ..Typed::default() };
        let merged = merged(Some("namespaceLabels: { a: 1 }\n"), &[], flags).unwrap();
        let labels = merged.config().unwrap().assumed.namespace_labels;
        assert_eq!(labels, BTreeMap::from([("b".to_owned(), "2".to_owned())]));
    }

    #[test]
    fn defaults_depend_on_other_values() {
        let config = merged(
            None,
            &[("DEVGRANT_STANDALONE", "true"), ("POD_NAMESPACE", "grants")],
            Typed::default(),
        )
        .unwrap()
        .config()
        .unwrap();
        assert_eq!(config.server.listen.to_string(), "127.0.0.1:8443");
        assert_eq!(config.settings.own_namespace, "grants");
    }

    #[test]
    fn what_is_printed_reads_back_the_same() {
        let flags = Typed {
            policies: Some(vec!["a".into(), "b".into()]),
            kubernetes_version: Some("1.30".to_owned()),
            namespace_labels: Some("team=data,x=true".parse().unwrap()),
            ..Typed::default()
        };
        let first = merged(None, &[("DEVGRANT_MAX_IN_FLIGHT", "7")], flags).unwrap();
        let second = merged(Some(&first.to_yaml().unwrap()), &[], Typed::default()).unwrap();
        assert_eq!(first.typed(), second.typed());
    }

    #[test]
    fn a_bad_value_of_traces_names_its_place() {
        for (file, environment, expected) in [
            (
                None,
                &[("DEVGRANT_TRACES_ENDPOINT", "collector:4318")][..],
                "variable DEVGRANT_TRACES_ENDPOINT: `collector:4318` does not begin with http://",
            ),
            (
                None,
                &[("DEVGRANT_TRACES_ENDPOINT", "")][..],
                "variable DEVGRANT_TRACES_ENDPOINT: there is no URL; write the URL of a collector",
            ),
            (
                None,
                &[("DEVGRANT_TRACES_SAMPLE", "0.01")][..],
                "variable DEVGRANT_TRACES_SAMPLE: works with tracesEndpoint only",
            ),
            (
                Some("tracesSample: 1\n"),
                &[][..],
                "key `tracesSample`: works with tracesEndpoint only",
            ),
            (
                Some("tracesSample: 50%\n"),
                &[][..],
                "key `tracesSample`: `50%` is no share; write a number from 0",
            ),
            (
                None,
                &[("DEVGRANT_TRACES_SAMPLE", "1.5")][..],
                "variable DEVGRANT_TRACES_SAMPLE: `1.5`",
            ),
            (
                None,
                &[("DEVGRANT_TRACES_SAMPLE", "NaN")][..],
                "variable DEVGRANT_TRACES_SAMPLE: `NaN`",
            ),
        ] {
            let error = merged(file, environment, Typed::default())
                .and_then(|merged| merged.config().map(|_| ()))
                .unwrap_err()
                .to_string();
            assert!(error.contains(expected), "{error}\nshould contain: {expected}");
        }
    }

    #[test]
    fn a_bad_value_names_its_place() {
        for (file, environment, expected) in [
            (
                Some("prefix: Devices\n"),
                &[][..],
                "devgrant.yaml: key `prefix`: `Devices` is no DNS-1123 subdomain",
            ),
            (
                None,
                &[("DEVGRANT_LISTEN", "8443")][..],
                "variable DEVGRANT_LISTEN: `8443` is no address",
            ),
            (
                None,
                &[("DEVGRANT_MAX_IN_FLIGHT", "0")][..],
                "variable DEVGRANT_MAX_IN_FLIGHT: nothing would",
            ),
            (
                None,
                &[("DEVGRANT_MAX_IN_FLIGHT", "x")][..],
                "variable DEVGRANT_MAX_IN_FLIGHT: `x` is no whole number",
            ),
            (
                None,
                &[("DEVGRANT_ON_INVALID", "deny")][..],
                "variable DEVGRANT_ON_INVALID: unknown variant `deny`",
            ),
            (
                None,
                &[("DEVGRANT_PREFIXX", "a.b")][..],
                "variable DEVGRANT_PREFIXX: no such key; did you mean DEVGRANT_PREFIX",
            ),
            (
                None,
                &[("DEVGRANT_TLS_KEY", "k")][..],
                "variable DEVGRANT_TLS_KEY: the certificate is missing",
            ),
            (
                None,
                &[("DEVGRANT_CA_OUT", "ca.pem")][..],
                "variable DEVGRANT_CA_OUT: works with --standalone only",
            ),
            (
                Some("prefx: a.b\n"),
                &[][..],
                "devgrant.yaml: line 1: no such key `prefx`; did you mean `prefix`",
            ),
            (
                None,
                &[("DEVGRANT_LOG_LEVEL", "inof")][..],
                "variable DEVGRANT_LOG_LEVEL: `inof` is no log level; did you mean `info`",
            ),
            (Some("logLevel: banana\n"), &[][..], "devgrant.yaml: key `logLevel`: `banana` is no"),
            (Some("headTimeout: 5\n"), &[][..], "key `headTimeout`: `5` is no duration"),
            (Some("- a\n"), &[][..], "devgrant.yaml"),
            (
                Some("user: x\nmaxInFlight: \"many\"\n"),
                &[][..],
                "devgrant.yaml: line 2: key `maxInFlight`: a whole number belongs here",
            ),
            (
                Some("policies: emptyd\n"),
                &[][..],
                "line 1: key `policies`: a list, such as `[a, b]` belongs here",
            ),
            (
                Some("onInvalid: warn\n"),
                &[][..],
                "line 1: key `onInvalid`: unknown variant `warn`, expected one of Deny, Warn",
            ),
            (Some("standalone: maybe\n"), &[][..], "key `standalone`: `true` or `false` belongs"),
            (Some("prefix:\n- a\n"), &[][..], "key `prefix`: a text belongs here"),
            (Some("user: x\nuser: y\n"), &[][..], "line 2: the key `user` is there twice"),
            (Some("user: x\n---\nuser: y\n"), &[][..], "there is a second document"),
        ] {
            let error = merged(file, environment, Typed::default())
                .and_then(|merged| merged.config().map(|_| ()))
                .unwrap_err()
                .to_string();
            assert!(error.contains(expected), "{error}\nshould contain: {expected}");
        }
    }

    #[test]
    fn beyond_this_machine_namespaces_are_not_taken_as_opted_in_unasked() {
        let refused = |file, environment: &[_], flags| {
            merged(file, environment, flags).unwrap().config().err().map(|error| error.to_string())
        };
        let listening = |address: &str| Typed {
            standalone: Some(true),
            listen: Some(address.to_owned()),
            ..Typed::default()
        };
        for (file, environment, flags, place) in [
            (None, &[][..], listening("0.0.0.0:8443"), "flag --listen: 0.0.0.0:8443 is"),
            (None, &[], listening("[::]:8443"), "flag --listen: [::]:8443 is"),
            (
                Some("standalone: true\n"),
                &[("DEVGRANT_LISTEN", "10.0.0.1:8443")],
                Typed::default(),
                "variable DEVGRANT_LISTEN: 10.0.0.1:8443 is",
            ),
            (
                Some("standalone: true\nlisten: 0.0.0.0:8443\n"),
                &[],
                Typed::default(),
                "devgrant.yaml: key `listen`: 0.0.0.0:8443 is",
            ),
        ] {
            let error = refused(file, environment, flags).unwrap();
            assert!(error.contains(place), "{error}\nshould contain: {place}");
            assert!(error.contains("--namespace-labels"), "{error}");
        }
        for here in ["127.0.0.1:8443", "127.9.9.9:8443", "[::1]:8443", "[::ffff:127.0.0.1]:8443"] {
            assert_eq!(refused(None, &[], listening(here)), None, "{here}");
        }
        let labels = Some("team=data".parse().unwrap());
        let said = Typed { namespace_labels: labels, ..listening("0.0.0.0:8443") };
        assert_eq!(refused(None, &[], said), None);
        let variable = [("DEVGRANT_NAMESPACE_LABELS", "team=data")];
        assert_eq!(refused(None, &variable, listening("0.0.0.0:8443")), None);
        let file = Some("namespaceLabels: { team: data }\n");
        assert_eq!(refused(file, &[], listening("0.0.0.0:8443")), None);
        let cluster = Typed { standalone: None, ..listening("0.0.0.0:8443") };
        assert_eq!(refused(None, &[], cluster), None);
    }

    #[test]
    fn a_flag_is_named_as_it_is_typed() {
        let flags = Typed { own_namespace: Some("A b".to_owned()), ..Typed::default() };
        let error = merged(None, &[], flags).unwrap().config().unwrap_err().to_string();
        assert!(error.starts_with("flag --own-namespace: `A b` is no name"), "{error}");
    }

    #[test]
    fn service_links_are_no_settings() {
        let links = [
            ("DEVGRANT_SERVICE_HOST", "10.0.0.1"),
            ("DEVGRANT_SERVICE_PORT", "443"),
            ("DEVGRANT_SERVICE_PORT_HTTPS", "443"),
            ("DEVGRANT_PORT", "tcp://10.0.0.1:443"),
            ("DEVGRANT_PORT_443_TCP", "tcp://10.0.0.1:443"),
            ("DEVGRANT_PORT_443_TCP_ADDR", "10.0.0.1"),
            ("DEVGRANT_METRICS_SERVICE_HOST", "10.0.0.2"),
            ("DEVGRANT_METRICS_PORT_8080_TCP_PROTO", "tcp"),
        ];
        assert!(merged(None, &links, Typed::default()).is_ok());
    }
}
