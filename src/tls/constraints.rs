//! For which names an authority may sign: the name constraints of X.509 (RFC 5280, 4.2.1.10).
//!
//! Its certificate is in a `caBundle`, and whoever has its key could show a certificate for any name
//! there. With constraints the key is good for our names and nothing else: Go, which the API server is
//! written in, and rustls take no certificate that holds a name beside them.

use std::net::IpAddr;

use rcgen::{CidrSubnet, GeneralSubtree, NameConstraints};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;

/// The constraints of an authority whose leaves are for these names. Names of a kind (DNS or address) of
/// which there is none are not constrained: [`names`](super::authority::names) always has both.
pub(super) fn of(names: &[String]) -> Option<NameConstraints> {
    let subtree = |name: &String| match name.parse::<IpAddr>() {
        Ok(address) => {
            let bits = if address.is_ipv4() { 32 } else { 128 };
            GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(address, bits))
        }
        Err(_) => GeneralSubtree::DnsName(name.clone()),
    };
    (!names.is_empty()).then(|| NameConstraints {
        permitted_subtrees: names.iter().map(subtree).collect(),
        excluded_subtrees: Vec::new(),
    })
}

/// Whether an authority with this certificate may sign for a name.
pub(super) fn permits(authority: &X509Certificate<'_>, name: &str) -> bool {
    let Ok(Some(constraints)) = authority.name_constraints() else { return true };
    let of_kind = |subtrees: &Option<Vec<_>>| -> Vec<bool> {
        let subtrees = subtrees.iter().flatten();
        subtrees.filter_map(|subtree| holds(subtree, name)).collect()
    };
    let permitted = of_kind(&constraints.value.permitted_subtrees);
    let excluded = of_kind(&constraints.value.excluded_subtrees);
    (permitted.is_empty() || permitted.contains(&true)) && !excluded.contains(&true)
}

/// Whether a name is in a subtree; `None` where that speaks of another kind of name.
fn holds(subtree: &x509_parser::extensions::GeneralSubtree<'_>, name: &str) -> Option<bool> {
    match (&subtree.base, name.parse::<IpAddr>()) {
        (GeneralName::IPAddress(range), Ok(address)) => {
            let address = match address {
                IpAddr::V4(address) => address.octets().to_vec(),
                IpAddr::V6(address) => address.octets().to_vec(),
            };
            let (network, mask) = range.split_at_checked(address.len())?;
            let bytes = address.iter().zip(network).zip(mask);
            Some(
                mask.len() == address.len()
                    && bytes
                        .into_iter()
                        .all(|((address, network), mask)| address & mask == network & mask),
            )
        }
        (GeneralName::DNSName(base), Err(_)) => {
            let name = name.to_ascii_lowercase();
            let base = base.to_ascii_lowercase();
            let above = name.strip_suffix(&base);
            Some(above.is_some_and(|above| {
                above.is_empty() || base.is_empty() || above.ends_with('.') || base.starts_with('.')
            }))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, SystemTime};

    use rcgen::{CertificateParams, Issuer, KeyPair};
    use rustls::RootCertStore;
    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier as _;
    use rustls_pki_types::pem::PemObject as _;
    use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

    use crate::tls::pair::Pair;

    #[test]
    fn an_authority_may_sign_for_its_names_and_no_others() {
        let now = SystemTime::now();
        let pair = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            Pair::new(Duration::from_hours(24), now, &names).unwrap()
        };
        let ours = pair(&["localhost", "devgrant.ours.svc", "127.0.0.1", "::1", "10.0.0.7"]);
        for name in
            ["localhost", "devgrant.ours.svc", "DEVGRANT.ours.svc", "127.0.0.1", "::1", "10.0.0.7"]
        {
            assert!(ours.permits(name), "{name}");
        }
        for name in [
            "kubernetes.default.svc",
            "otherdevgrant.ours.svc",
            "svc",
            "127.0.0.2",
            "::2",
            "10.0.0.8",
        ] {
            assert!(!ours.permits(name), "{name}");
        }
        assert!(pair(&[]).permits("kubernetes.default.svc"), "one without constraints");
        assert!(pair(&["localhost"]).permits("::1"), "nothing is said of addresses");
    }

    /// That Go does not either is seen by `tests/cluster/serving.rs`.
    #[test]
    fn who_has_the_key_is_not_believed_for_other_names() {
        let names = ["devgrant.ours.svc".to_owned(), "127.0.0.1".to_owned()];
        let pair = Pair::new(Duration::from_hours(24), SystemTime::now(), &names).unwrap();
        let key = KeyPair::from_pem(pair.key()).unwrap();
        let issuer = Issuer::from_ca_cert_pem(pair.certificate(), key).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(pair.certificate().as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
        let verifier = verifier.build().unwrap();
        for (name, believed) in [
            ("devgrant.ours.svc", true),
            ("127.0.0.1", true),
            ("devgrant.theirs.svc", false),
            ("127.0.0.2", false),
        ] {
            let leaf_key = KeyPair::generate().unwrap();
            let leaf = CertificateParams::new([name.to_owned()]).unwrap();
            let leaf = leaf.signed_by(&leaf_key, &issuer).unwrap();
            let server = ServerName::try_from(name).unwrap();
            let answer =
                verifier.verify_server_cert(leaf.der(), &[], &server, &[], UnixTime::now());
            assert_eq!(answer.is_ok(), believed, "{name}: {answer:?}");
        }
    }
}
