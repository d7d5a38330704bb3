//! Servers as processes: starting, what they cost by the kernel's account, stopping.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;

use crate::client::Client;

/// Where the programs of the servers are.
pub struct Programs {
    pub builds: PathBuf,
    pub devgrant: PathBuf,
}

/// Which server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Reads and answers a constant.
    Null,
    /// Devgrant with the shipped policies, or with those of a folder.
    Devgrant(Option<PathBuf>),
    /// Devgrant that logs no line a review: what its log costs.
    Quiet,
    /// `AdmissionReview<DynamicObject>` and axum-server.
    KubeRs,
    /// A defaulter of controller-runtime.
    ControllerRuntime,
}

impl Kind {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Devgrant(_) => "devgrant",
            Self::Quiet => "devgrant-quiet",
            Self::KubeRs => "kube-rs",
            Self::ControllerRuntime => "controller-runtime",
        }
    }

    fn command(&self, programs: &Programs, at: SocketAddr, tls: &Tls) -> Command {
        let at = at.to_string();
        let program = |path: &str| Command::new(programs.builds.join(path));
        match self {
            Self::Null | Self::KubeRs => {
                let mut command = program(if *self == Self::Null {
                    "load-harness/release/devgrant-load-null"
                } else {
                    "load-peers/release/devgrant-bench-kube-rs"
                });
                command.arg(at).arg(&tls.certificate).arg(&tls.key);
                command
            }
            Self::Devgrant(_) | Self::Quiet => {
                let mut command = Command::new(&programs.devgrant);
                command.args(["serve", "--standalone", "--health", "127.0.0.1:0", "--listen", &at]);
                command.arg("--tls-cert").arg(&tls.certificate).arg("--tls-key").arg(&tls.key);
                // As in a cluster: standalone it is text.
                command.args(["--log-format", "json"]);
                match self {
                    Self::Devgrant(Some(policies)) => command.arg("--policies").arg(policies),
                    Self::Quiet => command.args(["--log-level", "warn"]),
                    _ => &mut command,
                };
                command
            }
            Self::ControllerRuntime => {
                let mut command = program("load-peers/controller-runtime");
                command.args(["-listen", &at]).arg("-cert").arg(&tls.certificate);
                command.arg("-key").arg(&tls.key);
                command
            }
        }
    }
}

/// The certificate that all servers show.
pub struct Tls {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Tls {
    /// Makes an ECDSA P-256 certificate for localhost in a folder; gives its PEM too.
    pub fn make(folder: &Path) -> anyhow::Result<(Self, String)> {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
        let tls = Self { certificate: folder.join("tls.crt"), key: folder.join("tls.key") };
        std::fs::write(&tls.certificate, made.cert.pem())?;
        std::fs::write(&tls.key, made.signing_key.serialize_pem())?;
        Ok((tls, made.cert.pem()))
    }
}

/// A running server; dropped, it is killed.
pub struct Server {
    pub kind: Kind,
    pub address: SocketAddr,
    /// From the start of the process to its first answer.
    pub ready: Duration,
    child: Child,
}

impl Server {
    /// Starts a server and waits until it has answered a review.
    pub async fn start(
        kind: Kind,
        programs: &Programs,
        tls: &Tls,
        client: &Client,
        review: &[u8],
    ) -> anyhow::Result<Self> {
        // Free a moment ago; whoever takes it in between makes the start fail, and nothing wrong.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let mut command = kind.command(programs, address, tls);
        let start = Instant::now();
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("{command:?}; was it built? see benches/load/run"))?;
        let mut server = Self { kind, address, ready: Duration::ZERO, child };
        while client.once(address, review).await.is_err() {
            ensure!(start.elapsed() < Duration::from_secs(30), "{command:?} answers nothing");
            if let Some(status) = server.child.try_wait()? {
                bail!("{command:?} ended: {status}");
            }
            tokio::time::sleep(Duration::from_micros(500)).await;
        }
        server.ready = start.elapsed();
        Ok(server)
    }

    fn pid(&self) -> anyhow::Result<Pid> {
        Ok(Pid::from_raw(self.child.id().try_into()?))
    }

    /// The time that all its threads have spent on processors, in user and kernel.
    pub fn cpu(&self) -> anyhow::Result<Duration> {
        Ok(Duration::from(clock_getcpuclockid(self.pid()?)?.now()?))
    }

    /// Its resident memory in KiB, as `/proc` has it.
    pub fn resident(&self) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line =
            status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        Ok(line.trim().trim_end_matches("kB").trim().parse()?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Ok(pid) = self.pid() {
            let _ = kill(pid, Signal::SIGKILL);
        }
        let _ = self.child.wait();
    }
}
