//! A DNS server that knows one name, which is 127.0.0.1.

use std::net::{IpAddr, UdpSocket};
use std::thread;

/// Of this machine, and unlikely to be anybody else's. A `resolv.conf` can name no port.
const ADDRESS: &str = "127.53.65.32:53";

/// It runs until the tests end.
pub(crate) struct NameServer(IpAddr);

impl NameServer {
    /// `None` where the port cannot be had.
    pub(crate) fn start(name: &'static str) -> Option<Self> {
        let socket = UdpSocket::bind(ADDRESS).ok()?;
        let address = socket.local_addr().unwrap().ip();
        thread::spawn(move || {
            let mut query = [0; 512];
            while let Ok((length, peer)) = socket.recv_from(&mut query) {
                let Some(answer) = answer(query.get(..length).unwrap_or_default(), name) else {
                    continue;
                };
                let _ = socket.send_to(&answer, peer);
            }
        });
        Some(Self(address))
    }

    pub(crate) fn address(&self) -> IpAddr {
        self.0
    }
}

/// RFC 1035, section 4: a head of twelve bytes, the question, the answers.
fn answer(query: &[u8], name: &str) -> Option<Vec<u8>> {
    let (head, rest) = query.split_at_checked(12)?;
    let end = rest.iter().position(|byte| *byte == 0)?;
    let question = rest.get(..end + 5)?;
    let mut labels: Vec<u8> = Vec::new();
    for label in name.split('.') {
        labels.push(u8::try_from(label.len()).ok()?);
        labels.extend(label.as_bytes());
    }
    let known = question.get(..end)?.eq_ignore_ascii_case(&labels);
    let asks_for_ipv4 = question.get(end + 1..end + 3)? == [0, 1];
    let answers = u8::from(known && asks_for_ipv4);
    let status = if known { NO_ERROR } else { NO_SUCH_NAME };
    let mut answer = head.get(..2)?.to_vec();
    answer.extend([RESPONSE, RECURSION_AVAILABLE | status, 0, 1, 0, answers, 0, 0, 0, 0]);
    answer.extend(question);
    if answers == 1 {
        // The name of the question, an address, of the internet, for a minute, four bytes of it.
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
    }
    Some(answer)
}

/// A response, recursion desired.
const RESPONSE: u8 = 0x81;
const RECURSION_AVAILABLE: u8 = 0x80;
const NO_ERROR: u8 = 0;
const NO_SUCH_NAME: u8 = 3;
