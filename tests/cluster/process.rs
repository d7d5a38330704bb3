//! A process of the control plane, which does not outlive the tests.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Longer than anything here takes on a slow machine; only a test that fails ever waits for it.
pub(crate) const PATIENCE: Duration = Duration::from_mins(2);
/// How often something that has to come is looked for.
const LOOK: Duration = Duration::from_millis(25);
/// How much of a log is shown.
const LAST_LINES: usize = 25;

/// A process that ends with this value, and also when the tests are killed: a shell beside it waits for
/// the end of a pipe that only the tests hold open.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    watchdog: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command`, in a process group of its own, writing both outputs into `log`.
    pub(crate) fn start(command: &mut Command, log: PathBuf) -> Self {
        let file = File::create(&log).unwrap();
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", command.get_program().display()));
        let watchdog = Command::new("sh")
            .args(["-c", "read -r _; kill -KILL \"$1\"", "watchdog", &child.id().to_string()])
            .stdin(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        Self { child, watchdog, log }
    }

    /// How the process ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// The whole lines that it wrote so far: the last one may be in the middle of being written.
    pub(crate) fn text(&self) -> String {
        let mut text = fs::read_to_string(&self.log).unwrap();
        text.truncate(text.rfind('\n').map_or(0, |end| end + 1));
        text
    }

    /// Asks the process to end, as a kubelet does.
    pub(crate) fn terminate(&self) {
        let asked = Command::new("kill").arg(self.child.id().to_string()).status().unwrap();
        assert!(asked.success(), "{asked}");
    }

    /// Ends the process without giving it a chance to say goodbye.
    pub(crate) fn kill(&mut self) {
        // First, so that it cannot hit somebody else who got the number of the process.
        let _ = self.watchdog.kill();
        let _ = self.watchdog.wait();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port of the loopback that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

/// Waits until `look` finds something; `what` is said when it does not come.
pub(crate) fn soon<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(LOOK);
    }
}

/// The last lines of every log in a folder, for whoever reads why a test failed.
pub(crate) fn last_lines(folder: &Path) -> String {
    let mut logs: Vec<PathBuf> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    logs.retain(|path| path.extension().is_some_and(|ending| ending == "log"));
    logs.sort();
    let mut shown = String::new();
    for log in logs {
        let text = fs::read(&log).unwrap();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        let last = &lines[lines.len().saturating_sub(LAST_LINES)..];
        writeln!(shown, "== {}\n{}", log.display(), last.join("\n")).unwrap();
    }
    shown
}
