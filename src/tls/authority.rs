//! A certificate authority, and the leaf that it signs for us.
//!
//! Its [`Pair`] is made here and never leaves the process (`--standalone`), or is shared by replicas.
//! The leaf's key never leaves the process. Whoever calls us needs the authority's certificate; leaves
//! are short and are replaced without anybody noticing.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};

use super::pair::Pair;
use super::{Certificate, Error, Validity};

/// How often the wall clock is asked whether a new leaf is due.
pub(super) const CHECK: Duration = Duration::from_mins(1);
/// How long a leaf is valid: long enough that a laptop that slept for a week still has a good one.
pub const LEAF: Duration = Duration::from_hours(30 * 24);
/// How long before its end a leaf is replaced.
const EARLY: Duration = Duration::from_hours(10 * 24);
/// How long the authority is valid: longer than any process.
const AUTHORITY: Duration = Duration::from_hours(3650 * 24);
/// How far before now a certificate begins, for callers whose clock is behind.
const SKEW: Duration = Duration::from_hours(1);

/// An authority that can sign.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pair: Pair,
    names: Vec<String>,
}

impl Authority {
    /// A new authority, whose leaves are for `names`: DNS names and IP addresses.
    pub fn new(names: Vec<String>, now: SystemTime) -> Result<Self, Error> {
        check(&names)?;
        Self::of(Pair::new(AUTHORITY, now, &names)?, names)
    }

    /// The authority of a pair, whose leaves are for as many of `names` as it may sign for: of a leaf
    /// with one more, callers believe none.
    pub fn of(pair: Pair, mut names: Vec<String>) -> Result<Self, Error> {
        names.retain(|name| pair.permits(name));
        let key = KeyPair::from_pem(pair.key()).map_err(Error::Authority)?;
        let issuer = Issuer::from_ca_cert_pem(pair.certificate(), key).map_err(Error::Authority)?;
        Ok(Self { issuer, pair, names })
    }

    /// The authority's certificate.
    pub fn pem(&self) -> &str {
        self.pair.certificate()
    }

    /// From when until when it may sign.
    pub fn validity(&self) -> Validity {
        self.pair.validity()
    }

    /// Whether a new leaf would be better than the one in force: long before its end, or at once when
    /// the clock is before its start, which is what a clock that was set back looks like.
    pub(super) fn is_due(&self, leaf: Validity, now: SystemTime) -> bool {
        is_due(leaf, now) && (now < leaf.not_before || leaf.not_after < self.validity().not_after)
    }

    /// A new leaf with a new key.
    pub fn sign(&self, now: SystemTime) -> Result<Certificate, Error> {
        let key = KeyPair::generate().map_err(Error::Authority)?;
        let mut validity = starting(now, LEAF);
        // Who checks a leaf checks its authority as well.
        validity.not_after = validity.not_after.min(self.validity().not_after);
        let mut params = named("devgrant", &self.names, validity)?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let leaf = params.signed_by(&key, &self.issuer).map_err(Error::Authority)?;
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        Certificate::new(vec![leaf.der().clone()], key, validity).map_err(Error::Rustls)
    }
}

/// Names that a certificate can be for.
pub fn check(names: &[String]) -> Result<(), Error> {
    for name in names {
        // rcgen takes any ASCII text for a DNS name, which no client would ever match.
        ServerName::try_from(name.as_str()).map_err(|_| Error::Name(name.clone()))?;
    }
    Ok(())
}

/// What callers call us: this machine, and the Service `devgrant` in a namespace.
pub fn names(namespace: &str) -> Vec<String> {
    [
        "localhost".to_owned(),
        "127.0.0.1".to_owned(),
        "::1".to_owned(),
        format!("devgrant.{namespace}"),
        format!("devgrant.{namespace}.svc"),
        format!("devgrant.{namespace}.svc.cluster.local"),
    ]
    .into()
}

fn is_due(validity: Validity, now: SystemTime) -> bool {
    now < validity.not_before || now + EARLY > validity.not_after
}

/// X.509 counts whole seconds; so does this, so that what we say is what the certificate says.
pub(super) fn starting(now: SystemTime, length: Duration) -> Validity {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = UNIX_EPOCH + Duration::from_secs(since.as_secs());
    Validity { not_before: now - SKEW, not_after: now + length }
}

pub(super) fn named(
    common_name: &str,
    names: &[String],
    validity: Validity,
) -> Result<CertificateParams, Error> {
    let mut params = CertificateParams::new(names).map_err(Error::Authority)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.not_before = validity.not_before.into();
    params.not_after = validity.not_after.into();
    Ok(params)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leaf_is_replaced_long_before_its_end_and_after_a_clock_was_set_back() {
        let now = SystemTime::now();
        let leaf = starting(now, LEAF);
        let days = |days: u64| Duration::from_hours(days * 24);
        assert!(!is_due(leaf, now));
        assert!(!is_due(leaf, now + days(19)));
        assert!(is_due(leaf, now + days(21)));
        assert!(is_due(leaf, now - days(1)));
        assert_eq!(leaf.problem(now), None);
        assert!(leaf.problem(now + days(31)).is_some());
        assert!(leaf.problem(now - days(1)).is_some());
    }

    #[test]
    fn a_name_that_is_none_is_named() {
        let error = Authority::new(vec!["größe".to_owned()], SystemTime::now()).unwrap_err();
        assert_eq!(error.to_string(), "`größe` is neither a DNS name nor an IP address (--names)");
    }
}
