//! A file system with nothing but the program, to read only, and the program in it without rights.

use std::fs::{self, Permissions};
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};

/// Who the program runs as: the user of the image.
const NOBODY: &str = "65532";

/// Makes the folder $1 a root to read only, in a mount namespace of this process, and runs the rest there
/// as the user $2. Two ways, since who is not root may only become somebody else inside of a further
/// namespace of users.
const BY_ROOT: &str = r#"root=$1 user=$2; shift 2
mount --bind "$root" "$root" && mount -o remount,bind,ro "$root" &&
exec chroot --userspec="$user:$user" "$root" "$@""#;
const BY_ANYBODY: &str = r#"root=$1 user=$2; shift 2
mount --bind "$root" "$root" && mount -o remount,bind,ro "$root" &&
exec unshare --user --map-user="$user" --map-group="$user" --root="$root" "$@""#;

/// The folder.
pub(crate) struct EmptyRoot {
    folder: tempfile::TempDir,
    files: Vec<PathBuf>,
    by_root: bool,
}

/// The program, running.
pub(crate) struct Process {
    child: Child,
    stderr: BufReader<ChildStderr>,
    by_root: bool,
}

/// What came of a run.
pub(crate) struct Ended {
    pub(crate) status: Option<i32>,
    pub(crate) stderr: String,
}

impl EmptyRoot {
    /// With the program and these files, each with its text.
    pub(crate) fn new(program: &Path, mounted: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::copy(program, folder.path().join("devgrant")).unwrap();
        for (name, text) in mounted {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        // A temporary folder is its owner's only.
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        let by_root = fs::metadata("/proc/self").unwrap().uid() == 0;
        Self { files: files(folder.path()), folder, by_root }
    }

    /// Runs the program with nothing in its environment but what is given.
    pub(crate) fn spawn(&self, words: &[&str], environment: &[(&str, &str)]) -> Process {
        let (namespaces, script): (&[&str], _) = if self.by_root {
            (&["--mount"], BY_ROOT)
        } else {
            (&["--map-root-user", "--mount"], BY_ANYBODY)
        };
        let mut command = Command::new("unshare");
        command.args(namespaces).args(["sh", "-c", script, "sh"]).arg(self.folder.path());
        // The environment of the commands that make the root is cleared behind them.
        command.args([NOBODY, "/devgrant"]).args(words);
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.envs(environment.iter().copied());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        Process { child, stderr, by_root: self.by_root }
    }

    /// Nothing was written, also not for a while: there is no more than there was.
    #[track_caller]
    pub(crate) fn is_as_it_was(&self) {
        assert_eq!(files(self.folder.path()), self.files);
    }
}

impl Process {
    /// What it says on standard error, up to the line that has this.
    #[track_caller]
    pub(crate) fn says_until(&mut self, last: &str) -> String {
        let mut said = String::new();
        loop {
            let length = said.len();
            let more = self.stderr.read_line(&mut said).unwrap() > 0;
            assert!(more, "no `{last}`; where namespaces cannot be made, run as root: {said}");
            if said.get(length..).is_some_and(|line| line.contains(last)) {
                return said;
            }
        }
    }

    /// It runs as nobody, without capabilities, and its root is to read only.
    #[track_caller]
    pub(crate) fn is_nobody(&self) {
        let about =
            |what: &str| fs::read_to_string(format!("/proc/{}/{what}", self.child.id())).unwrap();
        let status = about("status");
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.split_whitespace().next().unwrap().to_owned()
        };
        // Seen from outside of a namespace of users it is whoever runs this test.
        if self.by_root {
            assert_eq!((field("Uid:"), field("Gid:")), (NOBODY.to_owned(), NOBODY.to_owned()));
        }
        assert_ne!(field("Uid:"), "0");
        assert_eq!(field("CapEff:").trim_start_matches('0'), "", "capabilities");
        let mounts = about("mountinfo");
        let root: Vec<&str> = mounts
            .lines()
            .map(|line| line.split(' ').collect::<Vec<_>>())
            .find(|fields| fields.get(4) == Some(&"/"))
            .unwrap();
        assert!(
            root.get(5).is_some_and(|options| options.split(',').any(|it| it == "ro")),
            "{mounts}"
        );
    }

    /// Waits until it ends by itself.
    pub(crate) fn end(mut self) -> Ended {
        let mut stderr = String::new();
        self.stderr.read_to_string(&mut stderr).unwrap();
        Ended { status: self.child.wait().unwrap().code(), stderr }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(files(&path));
        }
        all.push(path);
    }
    all.sort();
    all
}
