//! Names that are not the cluster's: asked of the machine's own resolvers, packet in, packet out.
//!
//! Loop guard: an upstream that is one of this server's own addresses is never asked; and a question that comes back
//! under the number that it was passed on with, because an upstream asks us in turn, is refused.

use std::{
    collections::HashSet,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    sync::Semaphore,
    time::timeout,
};

use crate::metrics;

/// One upstream gets this long to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// All upstreams are asked this often before a question counts as unanswered.
const ROUNDS: usize = 2;
/// As many as the system's resolvers use.
const SERVERS_MAX: usize = 3;
/// Questions in flight; more are not passed on.
const IN_FLIGHT_MAX: usize = 1000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Udp,
    Tcp,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("no upstream is configured")]
    Nobody,
    #[error("the question came back: an upstream asks this server")]
    Loop,
    #[error("too many questions are in flight")]
    Busy,
    #[error("the question is malformed")]
    Malformed,
    #[error("no upstream answered")]
    Silent(#[source] io::Error),
}

/// The resolvers that a file in the format of resolv.conf names. The file is read again when it has changed.
pub struct Upstreams {
    file: PathBuf,
    known: Mutex<(Option<SystemTime>, Arc<[SocketAddr]>)>,
    own: Vec<SocketAddr>,
    /// Number and question of everything in flight.
    outstanding: Mutex<HashSet<(u16, Vec<u8>)>>,
    room: Semaphore,
}

/// The resolvers of `file`, such as /etc/resolv.conf.
pub fn upstreams(file: &Path) -> Upstreams {
    Upstreams {
        file: file.to_path_buf(),
        known: Mutex::new((None, Arc::default())),
        own: Vec::new(),
        outstanding: Mutex::default(),
        room: Semaphore::new(IN_FLIGHT_MAX),
    }
}

impl Upstreams {
    /// Never asks `own`.
    pub(crate) fn without(mut self, own: &[SocketAddr]) -> Self {
        self.own = own.to_vec();
        self
    }

    fn servers(&self) -> Arc<[SocketAddr]> {
        let changed = std::fs::metadata(&self.file).and_then(|metadata| metadata.modified()).ok();
        let mut known = self.known.lock();
        if known.0 != changed || changed.is_none() {
            let text = std::fs::read_to_string(&self.file).unwrap_or_else(|error| {
                tracing::warn!(file = %self.file.display(), %error, "no upstream resolvers");
                String::new()
            });
            let mut servers = parse(&text);
            servers.retain(|server| !self.own.contains(server));
            *known = (changed, servers.into_iter().take(SERVERS_MAX).collect());
        }
        Arc::clone(&known.1)
    }

    /// Passes a question on and gives the answer, both as on the wire and under the asker's number.
    pub(crate) async fn ask(&self, packet: &[u8], transport: Transport) -> Result<Vec<u8>, Error> {
        let (Some(asked), Some(id)) = (question(packet), packet.first_chunk::<2>()) else {
            return Err(Error::Malformed);
        };
        let asked = asked.to_ascii_lowercase();
        if self.outstanding.lock().contains(&(u16::from_be_bytes(*id), asked.clone())) {
            return Err(Error::Loop);
        }
        let _room = self.room.try_acquire().map_err(|_| Error::Busy)?;
        let number: u16 = rand::random();
        let entry = Entry { outstanding: &self.outstanding, key: (number, asked) };
        self.outstanding.lock().insert(entry.key.clone());
        let mut outgoing = packet.to_vec();
        outgoing[..2].copy_from_slice(&number.to_be_bytes());
        let answer = self.ask_all(&outgoing, transport).await;
        metrics::forwarded(answer.is_ok());
        let mut answer = answer?;
        answer[..2].copy_from_slice(id);
        Ok(answer)
    }

    async fn ask_all(&self, packet: &[u8], transport: Transport) -> Result<Vec<u8>, Error> {
        let servers = self.servers();
        let mut last = None;
        for _ in 0..ROUNDS {
            for server in servers.iter() {
                let answer = match transport {
                    Transport::Udp => timeout(PATIENCE, ask_udp(*server, packet)).await,
                    Transport::Tcp => timeout(PATIENCE, ask_tcp(*server, packet)).await,
                };
                match answer.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                    Ok(answer) => return Ok(answer),
                    Err(error) => last = Some(error),
                }
            }
        }
        Err(last.map_or(Error::Nobody, Error::Silent))
    }
}

/// Forgets a question in flight when it is dropped.
struct Entry<'a> {
    outstanding: &'a Mutex<HashSet<(u16, Vec<u8>)>>,
    key: (u16, Vec<u8>),
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.outstanding.lock().remove(&self.key);
    }
}

/// Asks from a port of its own, which makes a forged answer improbable.
async fn ask_udp(server: SocketAddr, packet: &[u8]) -> io::Result<Vec<u8>> {
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(packet).await?;
    let mut buffer = vec![0; 4096];
    loop {
        let size = socket.recv(&mut buffer).await?;
        if answers(&buffer[..size], packet) {
            buffer.truncate(size);
            return Ok(buffer);
        }
    }
}

async fn ask_tcp(server: SocketAddr, packet: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let size = u16::try_from(packet.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    stream.write_all(&[&size.to_be_bytes(), packet].concat()).await?;
    let size = stream.read_u16().await?;
    let mut buffer = vec![0; usize::from(size)];
    stream.read_exact(&mut buffer).await?;
    if answers(&buffer, packet) { Ok(buffer) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// Whether a packet has the number and the question of another.
fn answers(answer: &[u8], asked: &[u8]) -> bool {
    let same_question = match (question(answer), question(asked)) {
        (Some(answered), Some(asked)) => answered.eq_ignore_ascii_case(asked),
        // Servers that refuse a packet may leave the question out.
        (None, _) => answer.len() >= 12 && answer[4..6] == [0, 0],
        _ => false,
    };
    answer.get(..2) == asked.get(..2) && same_question
}

/// The bytes of the first question: name, type and class.
fn question(packet: &[u8]) -> Option<&[u8]> {
    if packet.get(4..6)? == [0, 0] {
        return None;
    }
    let mut at = 12;
    loop {
        match *packet.get(at)? {
            0 => return packet.get(12..at + 5),
            length if length < 64 => at += 1 + usize::from(length),
            _ => return None,
        }
    }
}

/// The `nameserver` lines of a resolv.conf, with or without a port; a scope (`%eth0`) makes an address unusable here.
fn parse(text: &str) -> Vec<SocketAddr> {
    let server = |word: &str| {
        let plain = word.parse::<IpAddr>().map(|address| SocketAddr::new(address, 53));
        plain.or_else(|_| word.parse()).ok()
    };
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            (words.next() == Some("nameserver")).then(|| server(words.next()?)).flatten()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_is_read_as_resolvers_do() {
        let text = "# nameserver 9.9.9.9\nsearch a.b\nnameserver 10.0.0.1\n nameserver\t::1 # local\nnameserver x\nnameserver 10.0.0.2:5353\n";
        let servers: Vec<String> = parse(text).iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["10.0.0.1:53", "[::1]:53", "10.0.0.2:5353"]);
    }

    #[test]
    fn own_addresses_are_never_asked_and_changes_are_seen() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "nameserver 10.43.0.10\nnameserver 10.0.0.1\n").unwrap();
        let upstreams = upstreams(file.path()).without(&["10.43.0.10:53".parse().unwrap()]);
        assert_eq!(*upstreams.servers(), ["10.0.0.1:53".parse().unwrap()]);
        std::fs::write(file.path(), "nameserver 10.0.0.2\n").unwrap();
        let later = SystemTime::now() + Duration::from_secs(5);
        std::fs::File::open(file.path()).unwrap().set_modified(later).unwrap();
        assert_eq!(*upstreams.servers(), ["10.0.0.2:53".parse().unwrap()]);
    }

    #[test]
    fn the_question_is_found_and_malformed_packets_have_none() {
        let mut packet = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, b'a', 0, 0, 1, 0, 1];
        assert_eq!(question(&packet), Some(&[1, b'a', 0, 0, 1, 0, 1][..]));
        for length in 0..packet.len() {
            assert_eq!(question(&packet[..length]), None, "{length} bytes");
        }
        packet[12] = 0xc0;
        assert_eq!(question(&packet), None);
    }
}
