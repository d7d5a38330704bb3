//! TLS: one resolver, and the sources that keep its certificate fresh.
//!
//! A handshake takes whatever certificate is in force at that moment, by one pointer, and never
//! waits. [`Source::load`] gets the first certificate or says why there is none; after that the last
//! good one stays in force, and [`Certificates::keep_fresh`] replaces it when there is a better one.
//!
//! - [`authority`]: a certificate authority of our own, in memory (`--standalone`) or shared by replicas
//! - [`pair`]: its certificate and key
//! - [`files`]: a certificate and its key in files, as cert-manager writes them

pub mod authority;
mod constraints;
pub mod files;
pub mod pair;

use std::error::Error as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwapOption;
use rustls::crypto::{CryptoProvider, ring};
use rustls::server::{ClientHello, ResolvesServerCert, ServerConfig};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::watch;

use crate::metrics::{Metrics, Reload};
use authority::Authority;
use files::{Bytes, Files};

/// Where the certificate comes from.
#[derive(Debug, Clone)]
pub enum Source {
    /// A new authority in memory signs it; see [`authority::names`] for what clients call us.
    Authority {
        /// DNS names and IP addresses.
        names: Vec<String>,
    },
    /// It is read from two PEM files.
    Files {
        /// The certificate and its chain, leaf first.
        certificate: PathBuf,
        /// The key of the leaf.
        key: PathBuf,
        /// How often the files are read again.
        reread: Duration,
    },
    /// An authority that replicas share signs it. Until there is one there is no certificate, and
    /// handshakes fail.
    Shared {
        /// The authority to sign with, as it changes.
        authority: watch::Receiver<Option<Arc<Authority>>>,
    },
}

/// The certificate in force, and what is needed to replace it.
#[derive(Debug)]
pub struct Certificates {
    live: Arc<Live>,
    config: Arc<ServerConfig>,
    renewal: Renewal,
}

/// A certificate that can be served: it parses, and its key belongs to it.
#[derive(Debug)]
pub struct Certificate {
    served: Arc<CertifiedKey>,
    validity: Validity,
}

/// From when until when a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// The first moment.
    pub not_before: SystemTime,
    /// The last moment.
    pub not_after: SystemTime,
}

/// There is no certificate to serve.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A key or a certificate of our own could not be made.
    #[error("cannot make a certificate")]
    Authority(#[source] rcgen::Error),
    /// The certificate in a file is none.
    #[error(
        "the certificate in {0} cannot be used; issue one of X.509 version 3, with a subjectAltName"
    )]
    Certificate(PathBuf, #[source] rustls::Error),
    /// The key in a file is of no kind that we know.
    #[error("the private key in {0} cannot be used; write an ECDSA P-256, RSA or Ed25519 key")]
    Key(PathBuf, #[source] rustls::Error),
    /// Certificate and key are not a pair.
    #[error(
        "the key in {key} does not belong to the certificate in {certificate}; give both from one issue"
    )]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// A name for the certificate is neither a DNS name nor an IP address.
    #[error("`{0}` is neither a DNS name nor an IP address (--names)")]
    Name(String),
    /// A file has no certificate in it.
    #[error(
        "there is no certificate in {0}; it must hold `-----BEGIN CERTIFICATE-----`, the leaf first"
    )]
    NoCertificate(PathBuf),
    /// A file has no key in it.
    #[error("there is no private key in {0}; it must hold `-----BEGIN PRIVATE KEY-----`")]
    NoKey(PathBuf),
    /// A file is not PEM.
    #[error("{0} is no PEM file; write it again")]
    Pem(PathBuf, #[source] rustls_pki_types::pem::Error),
    /// A file cannot be read.
    #[error("cannot read {0}; {remedy}", remedy = files::remedy(.1))]
    Read(PathBuf, #[source] std::io::Error),
    /// rustls and its provider do not fit together. Ours to mend.
    #[error("cannot set up TLS")]
    Rustls(#[source] rustls::Error),
}

impl Source {
    /// Gets the first certificate.
    pub async fn load(self) -> Result<Certificates, Error> {
        let (first, renewal) = match self {
            Self::Authority { names } => {
                let authority = Authority::new(names, SystemTime::now())?;
                let first = authority.sign(SystemTime::now())?;
                (Some(first), Renewal::Authority(Box::new(authority)))
            }
            Self::Files { certificate, key, reread } => {
                let files = Files { certificate, key };
                let bytes = files.read().await?;
                let first = files.parse(&bytes)?;
                if let Some(problem) = first.validity.problem(SystemTime::now()) {
                    tracing::error!(certificate = %files.certificate.display(), "{problem}");
                }
                let renewal = Renewal::Files { files, bytes, reread };
                (Some(first), renewal)
            }
            Self::Shared { authority } => (None, Renewal::Shared(authority)),
        };
        let live = Arc::new(Live(ArcSwapOption::from_pointee(first)));
        let config = config(Arc::<Live>::clone(&live)).map_err(Error::Rustls)?;
        Ok(Certificates { live, config: Arc::new(config), renewal })
    }
}

impl Certificates {
    /// What a TLS server needs; it follows every replacement by itself.
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }

    /// The certificate in force. `None` as long as a shared authority has not been read.
    pub fn current(&self) -> Option<Arc<Certificate>> {
        self.live.0.load_full()
    }

    /// What is wrong with the certificate at a moment, if anything is.
    pub fn problem(&self, now: SystemTime) -> Option<&'static str> {
        match self.current() {
            Some(certificate) => certificate.validity.problem(now),
            None => {
                Some("there is none yet: the authority in the cluster could not be read so far")
            }
        }
    }

    /// The certificate of our own authority in memory. `None` for files, whose authority is somebody
    /// else's, and for a shared one, which changes.
    pub fn authority_pem(&self) -> Option<&str> {
        match &self.renewal {
            Renewal::Authority(authority) => Some(authority.pem()),
            Renewal::Files { .. } | Renewal::Shared(_) => None,
        }
    }

    /// Replaces the certificate whenever there is a better one, for ever.
    ///
    /// The files are read on a timer, since the kubelet replaces a mounted Secret by swapping a
    /// symbolic link: whoever watches the files hears nothing of that
    /// (kubernetes/kubernetes#111947). Our own leaf is judged by the wall clock, and often, since
    /// the clock of a machine that slept or was moved jumps.
    pub async fn keep_fresh(&self, metrics: &Metrics) {
        if let Some(first) = self.current() {
            metrics.certificate(first.validity.not_after);
        }
        let mut ticks = tokio::time::interval(match &self.renewal {
            Renewal::Authority(_) | Renewal::Shared(_) => authority::CHECK,
            Renewal::Files { reread, .. } => *reread,
        });
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        match &self.renewal {
            Renewal::Authority(authority) => loop {
                ticks.tick().await;
                self.renew(authority, metrics);
            },
            Renewal::Shared(authority) => {
                let mut authority = authority.clone();
                let mut signer: Option<Arc<Authority>> = None;
                loop {
                    if let Some(latest) = authority.borrow_and_update().clone() {
                        if signer.as_ref().is_some_and(|signer| signer.pem() == latest.pem()) {
                            self.renew(&latest, metrics);
                        } else {
                            self.take(latest.sign(SystemTime::now()), metrics);
                            signer = Some(latest);
                        }
                    }
                    // To be cancelled loses neither: a change is seen by the next look.
                    tokio::select! {
                        () = changed(&mut authority) => {}
                        _ = ticks.tick() => {}
                    }
                }
            }
            Renewal::Files { files, bytes, .. } => {
                let mut seen = Ok(bytes.clone());
                loop {
                    ticks.tick().await;
                    // What was refused once is not counted and logged again at every tick.
                    let read = files.read().await.map_err(|error| whole(&error));
                    if read == seen {
                        continue;
                    }
                    match &read {
                        Ok(bytes) => self.take(files.parse(bytes), metrics),
                        Err(error) => self.keep(error, metrics),
                    }
                    seen = read;
                }
            }
        }
    }

    /// A new leaf, where it is time for one.
    fn renew(&self, authority: &Authority, metrics: &Metrics) {
        let now = SystemTime::now();
        let due = |leaf: Arc<Certificate>| authority.is_due(leaf.validity, now);
        if self.current().is_none_or(due) {
            self.take(authority.sign(now), metrics);
        }
    }

    fn take(&self, new: Result<Certificate, Error>, metrics: &Metrics) {
        match new {
            Ok(new) => {
                let not_after = new.validity.not_after;
                self.live.0.store(Some(Arc::new(new)));
                metrics.certificate(not_after);
                metrics.certificate_reload(Reload::Swapped);
                tracing::info!(not_after = unix_seconds(not_after), "certificate replaced");
            }
            Err(error) => self.keep(&whole(&error), metrics),
        }
    }

    fn keep(&self, error: &str, metrics: &Metrics) {
        metrics.certificate_reload(Reload::Kept);
        let not_after = self.current().map(|kept| unix_seconds(kept.validity.not_after));
        tracing::error!(error, not_after, "certificate kept");
    }
}

impl Certificate {
    /// A pair whose halves belong together, or rustls' word for what is wrong.
    fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        validity: Validity,
    ) -> Result<Self, rustls::Error> {
        let served = CertifiedKey::from_der(chain, key, &ring::default_provider())?;
        Ok(Self { served: Arc::new(served), validity })
    }

    /// From when until when it is valid.
    pub fn validity(&self) -> Validity {
        self.validity
    }
}

impl Validity {
    /// What is wrong with the certificate at a moment, if anything is.
    pub fn problem(self, now: SystemTime) -> Option<&'static str> {
        if now < self.not_before {
            Some("the certificate is not valid yet; check the clock of this machine")
        } else if now > self.not_after {
            Some("the certificate has expired; renew it, it is read again by itself")
        } else {
            None
        }
    }
}

#[derive(Debug)]
enum Renewal {
    Authority(Box<Authority>),
    Files { files: Files, bytes: Bytes, reread: Duration },
    Shared(watch::Receiver<Option<Arc<Authority>>>),
}

/// Waits for another authority. Once nobody sends any more, for ever.
async fn changed(authority: &mut watch::Receiver<Option<Arc<Authority>>>) {
    if authority.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

#[derive(Debug)]
struct Live(ArcSwapOption<Certificate>);

impl ResolvesServerCert for Live {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.load().as_ref().map(|certificate| Arc::clone(&certificate.served))
    }
}

/// TLS 1.2 and 1.3 with the provider named, since two that are linked in would make rustls panic at
/// its default; and HTTP/1.1 only, since the API server speaks nothing else to a Service and what is
/// not announced cannot be attacked.
fn config(live: Arc<Live>) -> Result<ServerConfig, rustls::Error> {
    let provider: Arc<CryptoProvider> = Arc::new(ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_no_client_auth()
        .with_cert_resolver(live);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// An error with its causes, on one line.
fn whole(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
