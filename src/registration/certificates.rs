//! Certificates from cert-manager: an authority of our own in our namespace, and a leaf from it.
//!
//! Not a self-signed leaf: its `caBundle` would change with every renewal, and calls fail in between.

use serde_json::{Value, json};

use super::{NAME, TLS_SECRET, in_namespace};

/// The authority's Issuers and Certificates, in the order in which each needs the one before.
pub(super) fn objects(own: &str) -> Vec<Value> {
    let object = |kind, name, spec: Value| {
        in_namespace(own, "cert-manager.io/v1", kind, name, json!({ "spec": spec }))
    };
    let issued_by =
        |name: &str| json!({ "name": name, "kind": "Issuer", "group": "cert-manager.io" });
    vec![
        object("Issuer", SELF_SIGNED, json!({ "selfSigned": {} })),
        object(
            "Certificate",
            AUTHORITY,
            json!({
                "isCA": true,
                "commonName": "devgrant authority",
                "secretName": AUTHORITY,
                "duration": "87600h",
                "privateKey": private_key(),
                "issuerRef": issued_by(SELF_SIGNED),
            }),
        ),
        object("Issuer", NAME, json!({ "ca": { "secretName": AUTHORITY } })),
        object(
            "Certificate",
            TLS_SECRET,
            json!({
                "secretName": TLS_SECRET,
                // All that the API server asks for (`<service>.<namespace>.svc`), and the longer name
                // for people with curl.
                "dnsNames": [
                    format!("{NAME}.{own}.svc"),
                    format!("{NAME}.{own}.svc.cluster.local"),
                ],
                "duration": "2160h",
                "renewBefore": "720h",
                "privateKey": { "algorithm": "ECDSA", "size": 256, "rotationPolicy": "Always" },
                "usages": ["digital signature", "server auth"],
                "issuerRef": issued_by(NAME),
            }),
        ),
    ]
}

/// P-256: a handshake costs a third of one with RSA 2048.
fn private_key() -> Value {
    json!({ "algorithm": "ECDSA", "size": 256, "rotationPolicy": "Never" })
}

const SELF_SIGNED: &str = "devgrant-self-signed";
/// Not the Secret of the server's own authority: nobody shall take the one for the other.
const AUTHORITY: &str = "devgrant-cert-manager-authority";
