//! A certificate and its key in two PEM files.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::{CertificateError, InconsistentKeys};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::{Certificate, Error, Validity};

/// The two files.
#[derive(Debug, Clone)]
pub struct Files {
    /// The certificate and its chain, leaf first.
    pub certificate: PathBuf,
    /// The key of the leaf.
    pub key: PathBuf,
}

/// What the two files held at one time.
#[derive(Clone, PartialEq, Eq)]
pub struct Bytes {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

/// Says nothing of the bytes, since one half of them is a secret.
impl std::fmt::Debug for Bytes {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Bytes").finish_non_exhaustive()
    }
}

impl Files {
    /// Reads both files. Between the two reads somebody may replace them; [`parse`](Self::parse)
    /// refuses such a pair, and the next reading gets a whole one.
    pub async fn read(&self) -> Result<Bytes, Error> {
        Ok(Bytes { certificate: read(&self.certificate).await?, key: read(&self.key).await? })
    }

    /// The pair that the bytes are.
    pub fn parse(&self, bytes: &Bytes) -> Result<Certificate, Error> {
        let chain = CertificateDer::pem_slice_iter(&bytes.certificate)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| Error::Pem(self.certificate.clone(), error))?;
        let leaf = chain.first().ok_or_else(|| Error::NoCertificate(self.certificate.clone()))?;
        let validity = validity(leaf)
            .map_err(|error| Error::Certificate(self.certificate.clone(), error.into()))?;
        let key = PrivateKeyDer::from_pem_slice(&bytes.key).map_err(|error| match error {
            pem::Error::NoItemsFound => Error::NoKey(self.key.clone()),
            error => Error::Pem(self.key.clone(), error),
        })?;
        Certificate::new(chain, key, validity).map_err(|error| match error {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                Error::Mismatch { certificate: self.certificate.clone(), key: self.key.clone() }
            }
            rustls::Error::InvalidCertificate(_) => {
                Error::Certificate(self.certificate.clone(), error)
            }
            error => Error::Key(self.key.clone(), error),
        })
    }
}

/// What to do about a file that cannot be read.
pub(super) fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file: is the Secret mounted there?",
        io::ErrorKind::PermissionDenied => {
            "let the user that runs devgrant read it (`fsGroup` for a mounted Secret)"
        }
        io::ErrorKind::IsADirectory => "it is a folder: name the file in it",
        _ => "see the cause",
    }
}

async fn read(path: &Path) -> Result<Vec<u8>, Error> {
    tokio::fs::read(path).await.map_err(|error| Error::Read(path.to_owned(), error))
}

pub(super) fn validity(leaf: &CertificateDer<'_>) -> Result<Validity, CertificateError> {
    let (_, leaf) =
        x509_parser::parse_x509_certificate(leaf).map_err(|_| CertificateError::BadEncoding)?;
    let validity = leaf.validity();
    Ok(Validity {
        not_before: unix(validity.not_before.timestamp()),
        not_after: unix(validity.not_after.timestamp()),
    })
}

/// A time before 1970 is as long ago as 1970 for every use of it here.
fn unix(seconds: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: &[u8] = b"";
    const GARBAGE: &[u8] = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";

    fn pair() -> (String, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    #[track_caller]
    fn refused(certificate: &[u8], key: &[u8], message: &str) {
        let files = Files { certificate: "tls.crt".into(), key: "tls.key".into() };
        let bytes = Bytes { certificate: certificate.to_vec(), key: key.to_vec() };
        let error = files.parse(&bytes).unwrap_err().to_string();
        assert!(error.starts_with(message), "{error}");
    }

    #[test]
    fn every_bad_pair_is_refused_by_the_name_of_its_file() {
        let (certificate, key) = pair();
        let (_, other) = pair();
        let (certificate, key) = (certificate.as_bytes(), key.as_bytes());
        refused(NOTHING, key, "there is no certificate in tls.crt");
        refused(key, key, "there is no certificate in tls.crt");
        refused(
            GARBAGE,
            key,
            "the certificate in tls.crt cannot be used; issue one of X.509 version 3",
        );
        refused(certificate, NOTHING, "there is no private key in tls.key");
        refused(certificate, certificate, "there is no private key in tls.key");
        refused(
            certificate,
            other.as_bytes(),
            "the key in tls.key does not belong to the certificate in tls.crt",
        );
        refused(&certificate[..200], key, "tls.crt is no PEM file");
    }

    #[tokio::test]
    async fn a_missing_file_is_named_with_what_to_do() {
        let files =
            Files { certificate: "/nowhere/tls.crt".into(), key: "/nowhere/tls.key".into() };
        assert_eq!(
            files.read().await.unwrap_err().to_string(),
            "cannot read /nowhere/tls.crt; there is no such file: is the Secret mounted there?"
        );
    }
}
