//! Putting a text in the place of a file.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, fchown};
use std::path::Path;

/// Puts a text in the place of a file that still holds what was read of it: all of it or nothing. The
/// owner and the permissions stay, and a link still leads to the file.
pub(super) fn replace(path: &Path, before: &str, after: &str) -> io::Result<()> {
    let file = fs::canonicalize(path)?;
    // To replace a file takes no right to write to it, so that right is asked for here.
    let mut own = OpenOptions::new().read(true).write(true).open(&file)?;
    let metadata = own.metadata()?;
    if metadata.nlink() > 1 {
        return Err(io::Error::other("it is there under another name, too (a hard link)"));
    }
    let mut there = Vec::new();
    own.read_to_end(&mut there)?;
    if there != before.as_bytes() {
        return Err(io::Error::other("it changed meanwhile; run again"));
    }
    let folder = file.parent().ok_or_else(|| io::Error::other("it is in no folder"))?;
    // A name with a dot in front is no manifest for whoever reads the folder meanwhile.
    let mut new = tempfile::Builder::new().prefix(".devgrant-").tempfile_in(folder)?;
    new.write_all(after.as_bytes())?;
    // Before the permissions, of which a new owner loses some.
    let made = new.as_file().metadata()?;
    if (made.uid(), made.gid()) != (metadata.uid(), metadata.gid()) {
        fchown(new.as_file(), Some(metadata.uid()), Some(metadata.gid()))?;
    }
    new.as_file().set_permissions(metadata.permissions())?;
    new.as_file().sync_all()?;
    new.persist(&file)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn a_file_is_replaced_behind_its_link_and_keeps_its_permissions() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("a.yaml"), folder.path().join("b.yaml"));
        fs::write(&file, "old").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        symlink("a.yaml", &link).unwrap();
        replace(&link, "old", "new").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "new");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "nothing else is left");
    }

    #[test]
    fn a_file_of_two_names_stays() {
        let folder = tempfile::tempdir().unwrap();
        let (file, other) = (folder.path().join("a.yaml"), folder.path().join("b.yaml"));
        fs::write(&file, "old").unwrap();
        fs::hard_link(&file, &other).unwrap();
        let error = replace(&file, "old", "new").unwrap_err();
        assert!(error.to_string().contains("hard link"), "{error}");
        assert_eq!(fs::read_to_string(&other).unwrap(), "old");
    }

    #[test]
    fn a_file_that_changed_meanwhile_stays() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.yaml");
        fs::write(&file, "other").unwrap();
        let error = replace(&file, "old", "new").unwrap_err();
        assert!(error.to_string().contains("meanwhile"), "{error}");
        assert_eq!(fs::read_to_string(&file).unwrap(), "other");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
    }
}
