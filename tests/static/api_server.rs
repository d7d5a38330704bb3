//! As much of an API server as a client needs that lists: TLS, and lists without items.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// All names that the tests call it by.
const NAMES: [&str; 4] =
    ["127.0.0.1", "kubernetes.test", "kubernetes.default.svc", "no-such-name.test"];

/// It runs until the tests end.
pub(crate) struct ApiServer {
    address: SocketAddr,
    certificate: String,
    calls: Arc<AtomicUsize>,
}

impl ApiServer {
    pub(crate) fn start() -> Self {
        let own = rcgen::generate_simple_self_signed(NAMES.map(str::to_owned)).unwrap();
        let key = PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![own.cert.der().clone()], key)
            .unwrap();
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&calls);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (config, calls) = (Arc::clone(&config), Arc::clone(&counted));
                // A client that goes away in the middle is its own affair.
                thread::spawn(move || answer(config, stream?, &calls));
            }
        });
        Self { address, certificate: own.cert.pem(), calls }
    }

    /// How a client reaches it under this name.
    pub(crate) fn kubeconfig(&self, name: &str) -> String {
        let (port, certificate) = (self.address.port(), STANDARD.encode(&self.certificate));
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: it\n\
             clusters: [{{name: it, cluster: {{server: 'https://{name}:{port}', certificate-authority-data: {certificate}}}}}]\n\
             users: [{{name: it, user: {{token: none}}}}]\n\
             contexts: [{{name: it, context: {{cluster: it, user: it}}}}]\n"
        )
    }

    /// How many requests came.
    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

fn answer(
    config: Arc<ServerConfig>,
    stream: TcpStream,
    calls: &AtomicUsize,
) -> std::io::Result<()> {
    let connection = ServerConnection::new(config).map_err(std::io::Error::other)?;
    let mut stream = BufReader::new(StreamOwned::new(connection, stream));
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if stream.read_line(&mut head)? == 0 {
                return Ok(());
            }
        }
        calls.fetch_add(1, Ordering::SeqCst);
        write!(
            stream.get_mut(),
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{LIST}",
            LIST.len()
        )?;
        stream.get_mut().flush()?;
    }
}

const LIST: &str = r#"{"apiVersion":"v1","kind":"List","metadata":{},"items":[]}"#;
