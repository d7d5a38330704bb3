//! The shell around [`PolicySet::compile`](crate::decision::PolicySet::compile): policy files from
//! folders, or the shipped ones. [`watch`] keeps those of folders up to date.

pub mod cases;
pub mod watch;

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use crate::decision::PolicySource;

/// The shipped policies, by file name. A test holds this list equal to the folder.
const SHIPPED: &[(&str, &str)] = &[
    ("fuse.yaml", include_str!("../policies/fuse.yaml")),
    ("gaudi.yaml", include_str!("../policies/gaudi.yaml")),
    ("gpu.yaml", include_str!("../policies/gpu.yaml")),
    ("kvm.yaml", include_str!("../policies/kvm.yaml")),
    ("neuron.yaml", include_str!("../policies/neuron.yaml")),
    ("qat.yaml", include_str!("../policies/qat.yaml")),
    ("rdma.yaml", include_str!("../policies/rdma.yaml")),
    ("serial.yaml", include_str!("../policies/serial.yaml")),
    ("sgx.yaml", include_str!("../policies/sgx.yaml")),
    ("tpu.yaml", include_str!("../policies/tpu.yaml")),
    ("tun.yaml", include_str!("../policies/tun.yaml")),
    ("vhost-net.yaml", include_str!("../policies/vhost-net.yaml")),
    ("video.yaml", include_str!("../policies/video.yaml")),
];

/// The largest policy file. A policy that a ConfigMap carries cannot be larger than 1 MiB, since the
/// API server takes no larger ConfigMap (`kubernetes pkg/apis/core/validation`, `MaxSecretSize`).
const FILE_LIMIT: u64 = 1024 * 1024;

/// Where policies are read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// Folders, in this order.
    Folders {
        /// The folders.
        paths: Vec<PathBuf>,
        /// Whether a folder without policies is taken as it is.
        allow_empty: bool,
    },
    /// The ones built in.
    Shipped,
}

/// Policy files that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A folder has no policies in it. An empty policy set grants nothing to anybody, and is most often
    /// a wrong path or a ConfigMap that is not mounted.
    #[error("the policy folder {} holds no *.yaml; name another, or set --allow-empty-policies", folder.display())]
    Empty {
        /// The folder.
        folder: PathBuf,
    },
    /// A file is a pipe, a socket or a device, which may never end, or never begin.
    #[error("the policy file {} is no regular file; put a file there, or a link to one", file.display())]
    NotFile {
        /// The file.
        file: PathBuf,
    },
    /// A file was named where a folder is meant.
    #[error("the policy folder {} is a file; name the folder that it is in", folder.display())]
    NotFolder {
        /// What was named.
        folder: PathBuf,
    },
    /// A file is larger than any policy.
    #[error("the policy file {} is larger than {FILE_LIMIT} bytes", file.display())]
    TooLarge {
        /// The file.
        file: PathBuf,
    },
    /// A file cannot be read.
    #[error("cannot read the policy file {}", file.display())]
    UnreadableFile {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A folder cannot be read.
    #[error("cannot read the policy folder {}", folder.display())]
    UnreadableFolder {
        /// The folder.
        folder: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Reads all policy files of a location.
pub fn read(location: &Location) -> Result<Vec<PolicySource>, Error> {
    match location {
        Location::Folders { paths, allow_empty } => {
            let mut sources = Vec::new();
            for folder in paths {
                let read = read_folder(folder)?;
                if read.is_empty() && !allow_empty {
                    return Err(Error::Empty { folder: folder.clone() });
                }
                sources.extend(read);
            }
            Ok(sources)
        }
        Location::Shipped => Ok(shipped()),
    }
}

/// The policies that are built in.
pub fn shipped() -> Vec<PolicySource> {
    SHIPPED
        .iter()
        .map(|(file, text)| PolicySource { file: (*file).to_owned(), text: (*text).to_owned() })
        .collect()
}

fn read_folder(folder: &Path) -> Result<Vec<PolicySource>, Error> {
    let unreadable = |source| Error::UnreadableFolder { folder: folder.to_owned(), source };
    if !std::fs::metadata(folder).map_err(unreadable)?.is_dir() {
        return Err(Error::NotFolder { folder: folder.to_owned() });
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        if entry.file_name().to_str().is_some_and(is_policy) {
            files.push(entry.path());
        }
    }
    files.sort();
    let mut sources = Vec::new();
    for file in files {
        let unreadable = |source| Error::UnreadableFile { file: file.clone(), source };
        // Links are followed: in a ConfigMap mount every file is one, into `..data`. Asked before it
        // is opened, since to open a pipe waits for whoever writes.
        let metadata = std::fs::metadata(&file).map_err(unreadable)?;
        if metadata.is_dir() {
            continue;
        }
        if !metadata.is_file() {
            return Err(Error::NotFile { file });
        }
        let Some(bytes) = read_limited(&file).map_err(unreadable)? else {
            return Err(Error::TooLarge { file });
        };
        let text = String::from_utf8(bytes)
            .map_err(|error| unreadable(io::Error::new(io::ErrorKind::InvalidData, error)))?;
        sources.push(PolicySource { file: file.display().to_string(), text });
    }
    Ok(sources)
}

/// The bytes of a file, or `None` if there are too many. What is read is counted, not what the file
/// system says: of a file that grows, or is made while it is read, that is anything.
fn read_limited(file: &Path) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    let read = File::open(file)?.take(FILE_LIMIT + 1).read_to_end(&mut bytes)?;
    Ok((read as u64 <= FILE_LIMIT).then_some(bytes))
}

/// Whether a file of this name is a policy. Not one: hidden files, among them the `..data` and
/// `..2026_…` of a ConfigMap mount, and the cases beside policies.
fn is_policy(name: &str) -> bool {
    let yaml = name.strip_suffix(".yaml").or_else(|| name.strip_suffix(".yml"));
    yaml.is_some_and(|stem| {
        let is_case = Path::new(stem).extension().is_some_and(|extension| extension == "test");
        !stem.is_empty() && !stem.starts_with('.') && !is_case
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            std::fs::write(folder.path().join(file), *file).unwrap();
        }
        folder
    }

    fn location(folder: &Path) -> Location {
        Location::Folders { paths: vec![folder.to_owned()], allow_empty: false }
    }

    #[test]
    fn the_list_is_the_folder() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("policies");
        let mut on_disk: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| is_policy(name))
            .collect();
        on_disk.sort();
        let listed: Vec<&str> = SHIPPED.iter().map(|(file, _)| *file).collect();
        assert_eq!(listed, on_disk);
    }

    #[test]
    fn reads_policies_in_name_order_and_nothing_else() {
        let folder =
            folder(&["b.yml", "a.yaml", ".hidden.yaml", "a.test.yaml", "notes.md", "z.json"]);
        std::fs::create_dir(folder.path().join("sub.yaml")).unwrap();
        let texts: Vec<String> =
            read(&location(folder.path())).unwrap().into_iter().map(|source| source.text).collect();
        assert_eq!(texts, ["a.yaml", "b.yml"]);
    }

    #[cfg(unix)]
    #[test]
    fn reads_a_config_map_mount_once() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().unwrap();
        let generation = folder.path().join("..2026_11_22");
        std::fs::create_dir(&generation).unwrap();
        std::fs::write(generation.join("fuse.yaml"), "text").unwrap();
        symlink("..2026_11_22", folder.path().join("..data")).unwrap();
        symlink("..data/fuse.yaml", folder.path().join("fuse.yaml")).unwrap();
        let sources = read(&location(folder.path())).unwrap();
        assert_eq!(sources.len(), 1);
        assert_eq!(sources[0].text, "text");
    }

    /// In a thread, since what is held here is that reading comes to an end.
    #[cfg(unix)]
    #[test]
    fn refuses_what_may_never_end() {
        let pipe = folder(&[]);
        let made = std::process::Command::new("mkfifo").arg(pipe.path().join("fuse.yaml")).status();
        assert!(made.unwrap().success());
        let zero = folder(&[]);
        std::os::unix::fs::symlink("/dev/zero", zero.path().join("fuse.yaml")).unwrap();
        for folder in [pipe, zero] {
            let (answer, answered) = std::sync::mpsc::channel();
            let location = location(folder.path());
            std::thread::spawn(move || answer.send(read(&location)));
            let read = answered.recv_timeout(std::time::Duration::from_mins(1)).unwrap();
            assert!(matches!(read, Err(Error::NotFile { .. })), "{read:?}");
        }
    }

    #[test]
    fn a_policy_file_may_be_as_long_as_the_limit() {
        let folder = folder(&[]);
        let limit = usize::try_from(FILE_LIMIT).unwrap();
        let file = folder.path().join("fuse.yaml");
        std::fs::write(&file, "#".repeat(limit)).unwrap();
        assert_eq!(read(&location(folder.path())).unwrap()[0].text.len(), limit);
        // The limit is in the middle of the last letter.
        std::fs::write(&file, "#".repeat(limit) + "é").unwrap();
        assert!(matches!(read(&location(folder.path())), Err(Error::TooLarge { .. })));
        std::fs::write(&file, [0xff]).unwrap();
        assert!(matches!(read(&location(folder.path())), Err(Error::UnreadableFile { .. })));
    }

    #[cfg(unix)]
    #[test]
    fn what_is_read_is_counted_and_not_what_the_file_system_says() {
        let endless = Path::new("/dev/zero");
        assert_eq!(std::fs::metadata(endless).unwrap().len(), 0);
        assert!(read_limited(endless).unwrap().is_none());
    }

    #[test]
    fn refuses_what_is_no_policy_folder() {
        let empty = folder(&["a.test.yaml"]);
        assert!(matches!(read(&location(empty.path())), Err(Error::Empty { .. })));
        let allowed = Location::Folders { paths: vec![empty.path().to_owned()], allow_empty: true };
        assert_eq!(read(&allowed).unwrap(), []);
        let file = empty.path().join("a.test.yaml");
        assert!(matches!(read(&location(&file)), Err(Error::NotFolder { .. })));
        let missing = empty.path().join("missing");
        assert!(matches!(read(&location(&missing)), Err(Error::UnreadableFolder { .. })));
    }
}
