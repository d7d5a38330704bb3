//! A folder as the kubelet mounts a ConfigMap, and the swap of its contents
//! (`kubernetes pkg/volume/util/atomic_writer.go`, `Write`).
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up is a failed test")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// A mounted ConfigMap.
pub(crate) struct Mount {
    folder: tempfile::TempDir,
    generation: usize,
}

impl Mount {
    /// A mount with these files.
    pub(crate) fn new(files: &[(&str, &str)]) -> Self {
        let mut mount = Self { folder: tempfile::tempdir().unwrap(), generation: 0 };
        mount.swap(files);
        mount
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Puts other files there, step by step as the kubelet does.
    pub(crate) fn swap(&mut self, files: &[(&str, &str)]) {
        self.begin(files);
        self.finish();
    }

    /// All but the last step: the new files are there, and links to files that are gone.
    pub(crate) fn begin(&mut self, files: &[(&str, &str)]) {
        self.generation += 1;
        let generation = format!("..2026_11_22_10_00_00.{}", self.generation);
        let folder = self.path().join(&generation);
        fs::create_dir(&folder).unwrap();
        for (name, text) in files {
            fs::write(folder.join(name), text).unwrap();
        }
        let new = self.path().join("..data_tmp");
        symlink(&generation, &new).unwrap();
        fs::rename(new, self.path().join("..data")).unwrap();
        for (name, _) in files {
            let link = self.path().join(name);
            if link.symlink_metadata().is_err() {
                symlink(Path::new("..data").join(name), link).unwrap();
            }
        }
    }

    /// The last step: what is gone loses its link, and the old files their folder.
    pub(crate) fn finish(&mut self) {
        let current = fs::read_link(self.path().join("..data")).unwrap();
        for (name, path) in self.entries() {
            if path.is_dir() && name.starts_with("..2026") && Path::new(&name) != current {
                fs::remove_dir_all(&path).unwrap();
            } else if !path.exists() {
                fs::remove_file(&path).unwrap();
            }
        }
    }

    fn entries(&self) -> BTreeMap<String, PathBuf> {
        let entries = fs::read_dir(self.path()).unwrap().map(|entry| entry.unwrap());
        entries.map(|entry| (entry.file_name().into_string().unwrap(), entry.path())).collect()
    }
}
