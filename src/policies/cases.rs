//! The cases beside policies: `fuse.test.yaml` next to `fuse.yaml`. `devgrant policy test` runs them.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::{FILE_LIMIT, Location};

/// The shipped cases, by file name. A test holds this list equal to the folder.
const SHIPPED: &[(&str, &str)] = &[
    ("fuse.test.yaml", include_str!("../../policies/fuse.test.yaml")),
    ("gaudi.test.yaml", include_str!("../../policies/gaudi.test.yaml")),
    ("gpu.test.yaml", include_str!("../../policies/gpu.test.yaml")),
    ("kvm.test.yaml", include_str!("../../policies/kvm.test.yaml")),
    ("neuron.test.yaml", include_str!("../../policies/neuron.test.yaml")),
    ("qat.test.yaml", include_str!("../../policies/qat.test.yaml")),
    ("rdma.test.yaml", include_str!("../../policies/rdma.test.yaml")),
    ("serial.test.yaml", include_str!("../../policies/serial.test.yaml")),
    ("sgx.test.yaml", include_str!("../../policies/sgx.test.yaml")),
    ("tpu.test.yaml", include_str!("../../policies/tpu.test.yaml")),
    ("tun.test.yaml", include_str!("../../policies/tun.test.yaml")),
    ("vhost-net.test.yaml", include_str!("../../policies/vhost-net.test.yaml")),
    ("video.test.yaml", include_str!("../../policies/video.test.yaml")),
];

/// A file of cases as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaseSource {
    /// The file's name, as messages show it.
    pub file: String,
    /// The folder that files named in it are relative to; a shipped one has none.
    pub folder: Option<PathBuf>,
    /// Its text, YAML.
    pub text: String,
}

/// Files of cases that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file is larger than any list of cases.
    #[error("the case file {} is larger than {FILE_LIMIT} bytes", file.display())]
    TooLarge {
        /// The file.
        file: PathBuf,
    },
    /// A file or folder cannot be read.
    #[error("cannot read {}", place.display())]
    Unreadable {
        /// The file or folder.
        place: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Reads all case files of a location, in the order of the folders and of the names in each.
pub fn read(location: &Location) -> Result<Vec<CaseSource>, Error> {
    match location {
        Location::Folders { paths, .. } => {
            let mut sources = Vec::new();
            for folder in paths {
                sources.extend(read_folder(folder)?);
            }
            Ok(sources)
        }
        Location::Shipped => Ok(shipped()),
    }
}

fn shipped() -> Vec<CaseSource> {
    let source = |(file, text): &(&str, &str)| CaseSource {
        file: (*file).to_owned(),
        folder: None,
        text: (*text).to_owned(),
    };
    SHIPPED.iter().map(source).collect()
}

fn read_folder(folder: &Path) -> Result<Vec<CaseSource>, Error> {
    let unreadable = |source| Error::Unreadable { place: folder.to_owned(), source };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let path = entry.path();
        // Links are followed, as for policies.
        if entry.file_name().to_str().is_some_and(is_case) && !path.is_dir() {
            files.push(path);
        }
    }
    files.sort();
    files.into_iter().map(|file| read_file(file, folder)).collect()
}

fn read_file(file: PathBuf, folder: &Path) -> Result<CaseSource, Error> {
    let unreadable = |source| Error::Unreadable { place: file.clone(), source };
    let mut text = String::new();
    let opened = std::fs::File::open(&file).map_err(unreadable)?;
    opened.take(FILE_LIMIT + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() as u64 > FILE_LIMIT {
        return Err(Error::TooLarge { file });
    }
    Ok(CaseSource { file: file.display().to_string(), folder: Some(folder.to_owned()), text })
}

/// Whether a file of this name holds cases: what [`super::read`] leaves out, hidden files aside.
fn is_case(name: &str) -> bool {
    let stem = name.strip_suffix(".test.yaml").or_else(|| name.strip_suffix(".test.yml"));
    stem.is_some_and(|stem| !stem.is_empty() && !stem.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_the_folder_and_every_policy_has_cases() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("policies");
        let on_disk = read_folder(&folder).unwrap();
        let read: Vec<(&str, &str)> = on_disk
            .iter()
            .map(|source| (source.file.rsplit('/').next().unwrap(), source.text.as_str()))
            .collect();
        assert_eq!(SHIPPED, read);
        let policies = super::super::shipped();
        let wanted: Vec<String> =
            policies.iter().map(|policy| policy.file.replace(".yaml", ".test.yaml")).collect();
        let listed: Vec<&str> = SHIPPED.iter().map(|(file, _)| *file).collect();
        assert_eq!(listed, wanted);
    }

    #[test]
    fn a_file_is_a_policy_or_holds_cases() {
        for (name, policy, case) in [
            ("fuse.yaml", true, false),
            ("fuse.test.yaml", false, true),
            ("fuse.test.yml", false, true),
            ("test.yaml", true, false),
            (".fuse.test.yaml", false, false),
            (".test.yaml", false, false),
            ("fuse.test.json", false, false),
        ] {
            assert_eq!((super::super::is_policy(name), is_case(name)), (policy, case), "{name}");
        }
    }
}
