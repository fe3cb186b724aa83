//! The wire: UDP and TCP sockets, and messages with their codes, sizes and EDNS.
//!
//! A name of the cluster is answered in the socket's own task, without a wait; only what goes upstream gets a task.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use hickory_proto::{
    op::{Edns, Message, MessageType, Metadata, OpCode, Query, ResponseCode},
    rr::{DNSClass, Name, RecordType},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{Instant, timeout},
};

use crate::{
    Config, Error,
    cluster::Cluster,
    metrics,
    upstream::{Error as UpstreamError, Transport, Upstreams},
    zone::{Answer, Zone},
};

/// A connection that says nothing for this long is closed.
const IDLE: Duration = Duration::from_secs(10);
const CONNECTIONS_MAX: usize = 256;
/// What a UDP client without EDNS takes, and the most that is sent to one with it: no fragments on any usual link.
const UDP_MIN: u16 = 512;
const UDP_MAX: u16 = 1232;
/// Names that lead to names are followed this far.
const ALIASES_MAX: usize = 8;

struct Server {
    zone: Zone,
    upstreams: Upstreams,
    synced: watch::Receiver<bool>,
}

/// What to do with a packet.
enum Verdict {
    Reply(Message),
    /// Ask upstream: for the records of a name that the answer so far leads to, or else for everything.
    Ask(Message, Option<Name>),
    Ignore,
}

/// A server that serves until it is dropped.
pub(crate) struct Running {
    _tasks: JoinSet<()>,
    addresses: Vec<SocketAddr>,
}

impl Running {
    /// Where it listens.
    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }
}

/// Binds and serves.
pub(crate) async fn start(config: Config) -> Result<Running, Error> {
    let cluster = Cluster::new(&config.informers);
    let servers = config.listen.iter().map(SocketAddr::ip).collect();
    let zone = Zone::new(&config.domain, servers, cluster)
        .map_err(|source| Error::Domain { domain: config.domain.clone(), source })?;
    let (mut sockets, mut addresses) = (Vec::new(), Vec::new());
    for address in &config.listen {
        let fail = |protocol| move |source| Error::Listen { address: *address, protocol, source };
        let tcp = TcpListener::bind(address).await.map_err(fail("TCP"))?;
        let bound = tcp.local_addr().map_err(fail("TCP"))?;
        let udp = UdpSocket::bind(bound).await.map_err(fail("UDP"))?;
        addresses.push(bound);
        sockets.push((udp, tcp));
    }
    let (synced, is_synced) = watch::channel(false);
    let upstreams = config.upstreams.without(&addresses);
    let server = Arc::new(Server { zone, upstreams, synced: is_synced });
    let mut tasks = JoinSet::new();
    for (udp, tcp) in sockets {
        tasks.spawn(serve_udp(Arc::clone(&server), Arc::new(udp)));
        tasks.spawn(serve_tcp(Arc::clone(&server), tcp));
    }
    tasks.spawn(async move {
        server.zone.cluster().synced().await;
        synced.send_replace(true);
    });
    Ok(Running { _tasks: tasks, addresses })
}

async fn serve_udp(server: Arc<Server>, socket: Arc<UdpSocket>) {
    let mut buffer = vec![0; 4096];
    // Ends what was passed on with the socket.
    let mut waiting = JoinSet::new();
    loop {
        let (size, client) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            // An earlier answer's client was gone.
            Err(error) => {
                tracing::debug!(%error, "receiving");
                continue;
            }
        };
        while waiting.try_join_next().is_some() {}
        let start = Instant::now();
        let packet = &buffer[..size];
        match server.judge(packet, "udp") {
            Verdict::Ignore => {}
            Verdict::Reply(reply) => {
                let limit = udp_limit(&reply);
                send(&socket, client, &finish(reply, limit, start)).await;
            }
            Verdict::Ask(reply, target) => {
                let (server, socket, packet) = (Arc::clone(&server), Arc::clone(&socket), packet.to_vec());
                waiting.spawn(async move {
                    let reply = server.ask(reply, target, &packet, Transport::Udp, start).await;
                    send(&socket, client, &reply).await;
                });
            }
        }
    }
}

async fn send(socket: &UdpSocket, client: SocketAddr, reply: &[u8]) {
    if let Err(error) = socket.send_to(reply, client).await {
        tracing::debug!(%client, %error, "answering");
    }
}

async fn serve_tcp(server: Arc<Server>, listener: TcpListener) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        // The semaphore is never closed.
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let server = Arc::clone(&server);
                connections.spawn(async move {
                    // A client that goes away, or says nothing, needs no answer.
                    let _ = converse(server, stream).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "accepting a DNS client");
                // Out of descriptors: without a pause this would spin.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
}

/// Answers the questions of a connection, one after the other.
async fn converse(server: Arc<Server>, mut stream: TcpStream) -> io::Result<()> {
    let mut packet = Vec::new();
    loop {
        let size = timeout(IDLE, stream.read_u16()).await??;
        packet.resize(usize::from(size), 0);
        timeout(IDLE, stream.read_exact(&mut packet)).await??;
        let start = Instant::now();
        let reply = match server.judge(&packet, "tcp") {
            Verdict::Ignore => return Ok(()),
            Verdict::Reply(reply) => finish(reply, u16::MAX, start),
            Verdict::Ask(reply, target) => server.ask(reply, target, &packet, Transport::Tcp, start).await,
        };
        let size = u16::try_from(reply.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        timeout(IDLE, stream.write_all(&[&size.to_be_bytes(), reply.as_slice()].concat())).await??;
    }
}

impl Server {
    /// Decides about a packet, and answers at once what is answered here.
    fn judge(&self, packet: &[u8], protocol: &'static str) -> Verdict {
        let request = match Message::from_vec(packet) {
            Ok(request) => request,
            Err(_) => return malformed(packet),
        };
        if request.metadata.message_type == MessageType::Response {
            return Verdict::Ignore;
        }
        let mut reply = reply_to(&request);
        let refuse = |mut reply: Message, code| {
            reply.metadata.response_code = code;
            Verdict::Reply(reply)
        };
        if request.metadata.op_code != OpCode::Query {
            return refuse(reply, ResponseCode::NotImp);
        }
        let [query] = request.queries.as_slice() else { return refuse(reply, ResponseCode::FormErr) };
        metrics::asked(protocol, query.query_type());
        if request.version() > 0 {
            return refuse(reply, ResponseCode::BADVERS);
        }
        if !matches!(query.query_class(), DNSClass::IN | DNSClass::ANY) {
            return refuse(reply, ResponseCode::Refused);
        }
        if !*self.synced.borrow() && self.zone.owns(query.name()) {
            return refuse(reply, ResponseCode::ServFail);
        }
        let mut name = query.name().clone();
        reply.metadata.authoritative = true;
        for _ in 0..ALIASES_MAX {
            match self.zone.answer(&name, query.query_type()) {
                Answer::Records { answers, additionals } => {
                    reply.add_answers(answers);
                    reply.add_additionals(additionals);
                }
                Answer::Alias { answers, target } => {
                    reply.add_answers(answers);
                    if query.query_type() != RecordType::CNAME {
                        name = target;
                        continue;
                    }
                }
                Answer::NoData => reply.authorities.extend(self.zone.soa()),
                Answer::NoSuchName => {
                    reply.metadata.response_code = ResponseCode::NXDomain;
                    reply.authorities.extend(self.zone.soa());
                }
                Answer::Elsewhere if reply.answers.is_empty() => return Verdict::Ask(reply, None),
                Answer::Elsewhere => return Verdict::Ask(reply, Some(name)),
            }
            return Verdict::Reply(reply);
        }
        refuse(reply, ResponseCode::ServFail)
    }

    /// Completes a reply with what upstreams say.
    async fn ask(
        &self,
        reply: Message,
        target: Option<Name>,
        packet: &[u8],
        transport: Transport,
        start: Instant,
    ) -> Vec<u8> {
        let reply = match target {
            Some(target) => self.chase(reply, target).await,
            None => match self.upstreams.ask(packet, transport).await {
                Ok(answer) => {
                    let code = ResponseCode::from_low(answer.get(3).copied().unwrap_or(0) & 15);
                    metrics::answered(code, start.elapsed());
                    return answer;
                }
                Err(error) => unanswered(reply, &error),
            },
        };
        let limit = if transport == Transport::Tcp { u16::MAX } else { udp_limit(&reply) };
        finish(reply, limit, start)
    }

    /// Adds the records of a name elsewhere that a name of the cluster stands for. Without an upstream's answer the
    /// name alone is the answer: some resolvers go on from there themselves.
    async fn chase(&self, mut reply: Message, target: Name) -> Message {
        let Some(kind) = reply.queries.first().map(Query::query_type) else { return reply };
        let mut question = Message::query();
        question.metadata.id = rand::random();
        question.metadata.recursion_desired = true;
        question.add_query(Query::query(target, kind));
        let Ok(packet) = question.to_vec() else { return reply };
        let mut answer = self.upstreams.ask(&packet, Transport::Udp).await.ok();
        if answer.as_ref().is_some_and(|answer| answer.get(2).is_some_and(|flags| flags & 2 != 0)) {
            answer = self.upstreams.ask(&packet, Transport::Tcp).await.ok();
        }
        if let Some(answer) = answer.and_then(|answer| Message::from_vec(&answer).ok()) {
            reply.metadata.response_code = answer.metadata.response_code;
            reply.add_answers(answer.answers);
        }
        reply
    }
}

/// The answer when no upstream has one.
fn unanswered(mut reply: Message, error: &UpstreamError) -> Message {
    let name = reply.queries.first().map(|query| query.name().to_string()).unwrap_or_default();
    reply.metadata.authoritative = false;
    reply.metadata.response_code = match error {
        UpstreamError::Loop => ResponseCode::Refused,
        UpstreamError::Malformed => ResponseCode::FormErr,
        _ => ResponseCode::ServFail,
    };
    if matches!(error, UpstreamError::Loop) {
        tracing::warn!(name, "{error}; leave this server out of the upstream's own resolvers");
    } else {
        tracing::debug!(name, error = error as &dyn std::error::Error, "not answered");
    }
    reply
}

/// The empty answer to a request.
fn reply_to(request: &Message) -> Message {
    let mut reply = Message::new(request.metadata.id, MessageType::Response, request.metadata.op_code);
    reply.metadata = Metadata::response_from_request(&request.metadata);
    reply.metadata.recursion_available = true;
    reply.add_queries(request.queries.iter().cloned());
    if let Some(asked) = &request.edns {
        let mut edns = Edns::new();
        edns.set_max_payload(asked.max_payload().clamp(UDP_MIN, UDP_MAX)).set_version(0);
        reply.set_edns(edns);
    }
    reply
}

/// A packet that cannot be read has at least a number to answer to, unless it is an answer itself.
fn malformed(packet: &[u8]) -> Verdict {
    let Some(&[high, low, flags, ..]) = packet.first_chunk::<12>() else { return Verdict::Ignore };
    if flags & 0x80 != 0 {
        return Verdict::Ignore;
    }
    Verdict::Reply(Message::error_msg(u16::from_be_bytes([high, low]), OpCode::Query, ResponseCode::FormErr))
}

/// What the asker of this reply takes in one packet.
fn udp_limit(reply: &Message) -> u16 {
    reply.edns.as_ref().map_or(UDP_MIN, Edns::max_payload)
}

/// The reply's bytes: without additional records, then with fewer answers and marked as cut, if it is too long.
fn finish(mut reply: Message, limit: u16, start: Instant) -> Vec<u8> {
    metrics::answered(reply.metadata.response_code, start.elapsed());
    loop {
        match reply.to_vec() {
            Ok(bytes) if bytes.len() <= usize::from(limit) => return bytes,
            Err(error) => {
                tracing::warn!(%error, "cannot encode an answer");
                return Vec::new();
            }
            Ok(_) if !reply.additionals.is_empty() => reply.additionals.clear(),
            Ok(bytes) if reply.answers.is_empty() => return bytes,
            Ok(bytes) => {
                reply.metadata.truncation = true;
                // As many as fit, to judge by their mean size; always fewer.
                let keep = reply.answers.len() * usize::from(limit) / bytes.len();
                reply.answers.truncate(keep.min(reply.answers.len() - 1));
            }
        }
    }
}

#[cfg(test)]
mod tests;
