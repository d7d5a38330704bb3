//! Holds that the null server is made of the crates of devgrant, in the same versions: it is what devgrant
//! is compared with.

use std::fs;

use anyhow::{Context as _, ensure};

/// What bytes pass through between a connection and a route.
const CRATES: [&str; 8] =
    ["axum", "hyper", "hyper-util", "ring", "rustls", "tokio", "tokio-rustls", "tower"];

/// Fails where the two locks differ in one of those.
pub fn same() -> anyhow::Result<()> {
    let folder = env!("CARGO_MANIFEST_DIR");
    let read = |path: String| fs::read_to_string(&path).context(path);
    let own = read(format!("{folder}/Cargo.lock"))?;
    let devgrant = read(format!("{folder}/../../Cargo.lock"))?;
    for name in CRATES {
        let (own, devgrant) = (version(&own, name), version(&devgrant, name));
        ensure!(
            own == devgrant,
            "benches/load/Cargo.lock has {name} {}, and devgrant has {}; run \
             `cargo update --manifest-path benches/load/Cargo.toml {name} --precise VERSION`",
            own.unwrap_or("not"),
            devgrant.unwrap_or("not")
        );
    }
    Ok(())
}

/// The version of a crate in a lock.
fn version<'a>(lock: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = lock.split_once(&format!("name = \"{name}\"\nversion = \""))?;
    rest.split('"').next()
}
