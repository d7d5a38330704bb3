//! Who may reach the server: the flags of the `NetworkPolicy`.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::str::FromStr;

use clap::Args;

use crate::decision::policy::is_dns_subdomain;
use crate::registration::Ingress;

/// The flags that narrow the `NetworkPolicy`.
#[derive(Debug, Args)]
pub struct IngressArguments {
    /// Addresses that the API servers call from; no others may reach the port of reviews. May be
    /// repeated. Without it, everybody may.
    #[arg(long, value_name = "CIDR", conflicts_with = "url")]
    pub api_server_cidr: Vec<Cidr>,
    /// A namespace whose pods may read metrics; no others may reach that port. May be repeated. Without
    /// it, everybody may.
    #[arg(long, value_name = "NAMESPACE", conflicts_with = "url", value_parser = namespace)]
    pub metrics_from_namespace: Vec<String>,
}

impl IngressArguments {
    pub(super) fn ingress(&self) -> Ingress {
        Ingress {
            api_servers: each_once(self.api_server_cidr.iter().map(|cidr| &cidr.0)),
            scrapers: each_once(self.metrics_from_namespace.iter()),
        }
    }

    /// The flags that were given.
    pub(super) fn given(&self) -> impl Iterator<Item = &'static str> {
        let flags = [
            ("--api-server-cidr", self.api_server_cidr.is_empty()),
            ("--metrics-from-namespace", self.metrics_from_namespace.is_empty()),
        ];
        flags.into_iter().filter(|(_, empty)| !empty).map(|(flag, _)| flag)
    }
}

/// All of them, in their order.
fn each_once<'t>(texts: impl Iterator<Item = &'t String>) -> Vec<String> {
    let mut seen = BTreeSet::new();
    texts.filter(|text| seen.insert(*text)).cloned().collect()
}

/// A range of addresses, as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cidr(String);

impl FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.contains(',') {
            return Err("one range belongs here; repeat the flag for each".to_owned());
        }
        let write = || "write ADDRESS/BITS: 10.0.0.0/28, or fd00::/64".to_owned();
        let (address, bits) = text.split_once('/').ok_or_else(write)?;
        let address: IpAddr = address.parse().map_err(|_| write())?;
        let (value, width) = match address {
            IpAddr::V4(address) => (u128::from(address.to_bits()) << 96, 32),
            IpAddr::V6(address) => (address.to_bits(), 128),
        };
        // `+8` and `08` are numbers to Rust, and refused by the API server.
        let bits = bits.parse().ok().filter(|known: &u32| known.to_string() == bits);
        let bits = bits.filter(|bits| *bits <= width).ok_or_else(write)?;
        // Whoever writes one address of a range may mean that address alone.
        if value.checked_shl(bits).unwrap_or(0) != 0 {
            return Err(format!(
                "an address in it and not its first one; write {address}/{width} for that address alone"
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

fn namespace(text: &str) -> Result<String, String> {
    if text.contains(',') {
        return Err("one namespace belongs here; repeat the flag for each".to_owned());
    }
    if text.len() > 63 || text.contains('.') || !is_dns_subdomain(text) {
        return Err(
            "a namespace's name is lower case letters, digits and `-`: monitoring".to_owned()
        );
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_those_that_the_api_server_takes() {
        for good in ["10.0.0.0/28", "0.0.0.0/0", "10.0.0.7/32", "fd00::/64", "::/0", "::1/128"] {
            assert_eq!(good.parse(), Ok(Cidr(good.to_owned())), "{good}");
        }
        for (bad, words) in [
            ("10.0.0.0", "write ADDRESS/BITS"),
            ("10.0.0.0/33", "write ADDRESS/BITS"),
            ("10.0.0.0/+8", "write ADDRESS/BITS"),
            ("10.0.0.0/08", "write ADDRESS/BITS"),
            ("10.0.0.0/28,fd00::/64", "repeat the flag"),
            ("10.0.0/24", "write ADDRESS/BITS"),
            ("kubernetes/32", "write ADDRESS/BITS"),
            ("10.0.0.7/28", "write 10.0.0.7/32 for that address alone"),
            ("fd00::1/64", "write fd00::1/128 for that address alone"),
        ] {
            let error = bad.parse::<Cidr>().unwrap_err();
            assert!(error.contains(words), "{bad}: {error}");
        }
    }
}
