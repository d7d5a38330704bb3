//! The certificate and the key of an authority, as text that can be kept.

use std::fmt;
use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, IsCa, KeyPair, KeyUsagePurpose, PublicKeyData as _};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use super::authority::{named, starting};
use super::{Error, Validity, constraints};

/// The certificate and the key of an authority: they belong together, and may sign.
#[derive(Clone, PartialEq, Eq)]
pub struct Pair {
    certificate: String,
    key: String,
    validity: Validity,
}

/// Two texts that are no authority.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Torn {
    /// What should be a certificate is none.
    #[error("is no single PEM certificate")]
    Certificate,
    /// What should be a key is none that we can sign with.
    #[error("has a key that is no ECDSA P-256, P-384 or Ed25519 key in PKCS #8 PEM")]
    Key,
    /// The key is that of another certificate.
    #[error("has a key that does not belong to its certificate")]
    Mismatch,
    /// The certificate may not sign others.
    #[error("is not the certificate of an authority (CA:TRUE)")]
    NotAuthority,
}

impl Pair {
    /// A new P-256 key, and a certificate for it that begins now and lets it sign for `names` alone.
    pub fn new(life: Duration, now: SystemTime, names: &[String]) -> Result<Self, Error> {
        let key = KeyPair::generate().map_err(Error::Authority)?;
        let validity = starting(now, life);
        let mut params = named("devgrant authority", &[], validity)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.name_constraints = constraints::of(names);
        let certificate = params.self_signed(&key).map_err(Error::Authority)?.pem();
        Ok(Self { certificate, key: key.serialize_pem(), validity })
    }

    /// The pair that two PEM texts are.
    pub fn read(certificate: &str, key: &str) -> Result<Self, Torn> {
        let validity = validity_of(certificate)?;
        let der = single(certificate)?;
        let (_, parsed) =
            x509_parser::parse_x509_certificate(&der).map_err(|_| Torn::Certificate)?;
        let signs = parsed.basic_constraints().ok().flatten().is_some_and(|found| found.value.ca);
        if !signs {
            return Err(Torn::NotAuthority);
        }
        let pair = KeyPair::from_pem(key).map_err(|_| Torn::Key)?;
        if pair.subject_public_key_info() != parsed.public_key().raw {
            return Err(Torn::Mismatch);
        }
        Ok(Self { certificate: certificate.to_owned(), key: key.to_owned(), validity })
    }

    /// Whether it may sign for a name; one that cannot be read may sign for all that it is asked for.
    pub fn permits(&self, name: &str) -> bool {
        let Ok(der) = single(&self.certificate) else { return true };
        x509_parser::parse_x509_certificate(&der)
            .map_or(true, |(_, parsed)| constraints::permits(&parsed, name))
    }

    /// The certificate, PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// The private key, PEM. It is for the Secret and for signing, and for nothing that is shown.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// From when until when it may sign.
    pub fn validity(&self) -> Validity {
        self.validity
    }
}

/// Says nothing of the key.
impl fmt::Debug for Pair {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Pair").field("validity", &self.validity).finish_non_exhaustive()
    }
}

/// From when until when the one certificate of a PEM text is valid.
pub fn validity_of(certificate: &str) -> Result<Validity, Torn> {
    super::files::validity(&single(certificate)?).map_err(|_| Torn::Certificate)
}

fn single(pem: &str) -> Result<CertificateDer<'static>, Torn> {
    let mut all = CertificateDer::pem_slice_iter(pem.as_bytes());
    match (all.next(), all.next()) {
        (Some(Ok(one)), None) => Ok(one),
        _ => Err(Torn::Certificate),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_hours(24);

    #[test]
    fn what_was_made_is_read_back() {
        let made = Pair::new(DAY, SystemTime::now(), &[]).unwrap();
        assert_eq!(Pair::read(made.certificate(), made.key()), Ok(made.clone()));
        assert!(!format!("{made:?}").contains("PRIVATE"), "{made:?}");
    }

    #[test]
    fn what_is_no_authority_is_told_apart() {
        let [one, other] = [(); 2].map(|()| Pair::new(DAY, SystemTime::now(), &[]).unwrap());
        let leaf_key = KeyPair::generate().unwrap();
        let leaf = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
        let leaf = leaf.self_signed(&leaf_key).unwrap().pem();
        let two = format!("{}{}", one.certificate(), other.certificate());
        for (certificate, key, torn) in [
            ("", one.key(), Torn::Certificate),
            (&one.certificate()[..200], one.key(), Torn::Certificate),
            (&two, one.key(), Torn::Certificate),
            (one.certificate(), "", Torn::Key),
            (one.certificate(), one.certificate(), Torn::Key),
            (one.certificate(), other.key(), Torn::Mismatch),
            (&leaf, &leaf_key.serialize_pem(), Torn::NotAuthority),
        ] {
            assert_eq!(Pair::read(certificate, key), Err(torn));
        }
    }
}
