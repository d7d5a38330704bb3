//! The real binary, serving without a cluster, and a client that speaks HTTP by hand.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up is a failed test")]

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// The real binary, serving.
pub(crate) struct Serving {
    child: Child,
    pub(crate) port: u16,
    health: u16,
    config: Arc<ClientConfig>,
    /// What the server writes, kept open so that it can go on writing.
    pub(crate) lines: Option<BufReader<std::process::ChildStderr>>,
}

impl Serving {
    /// Without a cluster, with these flags beside; what it writes goes into the folder.
    pub(crate) fn start(folder: &Path, flags: &[&str]) -> Self {
        let ca = folder.join("ca.pem");
        let mut child = Command::new(env!("CARGO_BIN_EXE_devgrant"))
            .args(["serve", "--standalone", "--listen", "127.0.0.1:0", "--health", "127.0.0.1:0"])
            .arg("--ca-out")
            .arg(&ca)
            .args(flags)
            .env("TMPDIR", folder)
            // As in a pod of that name.
            .env("POD_NAME", "devgrant-0")
            .env_remove("DEVGRANT_REFRESH_GOLDEN")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        let mut seen = String::new();
        let port = loop {
            let mut line = String::new();
            assert!(lines.read_line(&mut line).unwrap() > 0, "it ended:\n{seen}");
            seen.push_str(&line);
            // The last line that it prints before it serves: the one to paste.
            if line.contains("curl -sS --cacert") {
                let (_, behind) = line.split_once("https://localhost:").unwrap();
                break behind.split_once('/').unwrap().0.parse().unwrap();
            }
        };
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&ca).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let (_, behind) = seen.split_once("http://127.0.0.1:").unwrap();
        let health = behind.split_once('/').unwrap().0.parse().unwrap();
        let serving = Self { child, port, health, config: Arc::new(config), lines: Some(lines) };
        assert_eq!(serving.plain("/livez").0, 200);
        serving
    }

    /// Sends a body over TLS, with these lines in its head; gives status and body.
    pub(crate) fn post(&self, path: &str, head: &str, body: &[u8]) -> (u16, Vec<u8>) {
        let name = ServerName::try_from("localhost").unwrap();
        let connection = ClientConnection::new(Arc::clone(&self.config), name).unwrap();
        let socket = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        let mut stream = StreamOwned::new(connection, socket);
        write!(
            stream,
            "POST {path}?timeout=10s HTTP/1.1\r\nHost: localhost\r\n{head}Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        )
        .unwrap();
        stream.write_all(body).unwrap();
        answer(stream)
    }

    /// Reads a path of the plain port.
    pub(crate) fn plain(&self, path: &str) -> (u16, Vec<u8>) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.health)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .unwrap();
        answer(stream)
    }

    /// Asks it to stop, and waits until it has.
    pub(crate) fn stop(mut self) -> std::process::ExitStatus {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        if let Some(lines) = &mut self.lines {
            let mut rest = String::new();
            lines.read_to_string(&mut rest).unwrap();
        }
        self.child.wait().unwrap()
    }
}

/// A server that a failed test leaves behind would keep whoever reads our output waiting.
impl Drop for Serving {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Status and body.
fn answer(mut stream: impl Read) -> (u16, Vec<u8>) {
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    let body = answer.split_off(end);
    let head = String::from_utf8(answer).unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body)
}
