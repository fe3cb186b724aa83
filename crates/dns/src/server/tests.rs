//! The server on real sockets: codes, sizes, EDNS, TCP, upstreams.

use std::io::Write;

use client::Informers;
use serde_json::json;
use testkit::api::Api;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::upstream::upstreams;

const PODS: usize = 200;

/// A server over a scripted API, and an upstream that says 192.0.2.1 to everything.
struct Setup {
    api: Api,
    running: Running,
    _resolv_conf: tempfile::NamedTempFile,
    upstream: tokio::task::JoinHandle<()>,
}

impl Drop for Setup {
    fn drop(&mut self) {
        self.upstream.abort();
    }
}

async fn setup() -> Setup {
    let api = Api::default();
    api.put("/api/v1/namespaces", json!({"metadata": {"name": "a"}}));
    let service = |name: &str, spec| json!({"metadata": {"name": name, "namespace": "a"}, "spec": spec});
    api.put("/api/v1/services", service("web", json!({"clusterIPs": ["10.43.0.9"]})));
    api.put("/api/v1/services", service("big", json!({"clusterIPs": ["None"]})));
    api.put("/api/v1/services", service("far", json!({"type": "ExternalName", "externalName": "example.org"})));
    let near = json!({"type": "ExternalName", "externalName": "web.a.svc.cluster.local"});
    api.put("/api/v1/services", service("near", near));
    let circle = json!({"type": "ExternalName", "externalName": "circle.a.svc.cluster.local"});
    api.put("/api/v1/services", service("circle", circle));
    let endpoints: Vec<_> = (0..PODS).map(|n| json!({"addresses": [format!("10.42.0.{n}")]})).collect();
    api.put(
        "/apis/discovery.k8s.io/v1/endpointslices",
        json!({
            "metadata": {"name": "big-1", "namespace": "a", "labels": {"kubernetes.io/service-name": "big"}},
            "addressType": "IPv4", "endpoints": endpoints, "ports": [],
        }),
    );
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "nameserver {}", socket.local_addr().unwrap()).unwrap();
    let upstream = tokio::spawn(async move {
        let mut buffer = [0; 512];
        while let Ok((size, client)) = socket.recv_from(&mut buffer).await {
            let asked = Message::from_vec(&buffer[..size]).unwrap();
            let mut reply = reply_to(&asked);
            let name = asked.queries[0].name().clone();
            let data = hickory_proto::rr::RData::A(std::net::Ipv4Addr::new(192, 0, 2, 1).into());
            reply.add_answer(hickory_proto::rr::Record::from_rdata(name, 60, data));
            socket.send_to(&reply.to_vec().unwrap(), client).await.unwrap();
        }
    });
    let informers = Informers::new(client::in_process(api.clone()), CancellationToken::new());
    let running = start(Config {
        informers: informers.clone(),
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        domain: "cluster.local".into(),
        upstreams: upstreams(file.path()),
        cancel: CancellationToken::new(),
    })
    .await
    .unwrap();
    let synced = Cluster::new(&informers);
    synced.synced().await;
    Setup { api, running, _resolv_conf: file, upstream }
}

impl Setup {
    async fn udp(&self, packet: &[u8]) -> Message {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.send_to(packet, self.running.addresses()[0]).await.unwrap();
        let mut buffer = vec![0; 65535];
        let size = timeout(Duration::from_secs(10), socket.recv(&mut buffer)).await.expect("an answer").unwrap();
        buffer.truncate(size);
        Message::from_vec(&buffer).unwrap()
    }

    async fn tcp(&self, packets: &[Vec<u8>]) -> Vec<Message> {
        let mut stream = TcpStream::connect(self.running.addresses()[0]).await.unwrap();
        let mut replies = Vec::new();
        for packet in packets {
            stream.write_u16(packet.len() as u16).await.unwrap();
            stream.write_all(packet).await.unwrap();
            let mut reply = vec![0; usize::from(stream.read_u16().await.unwrap())];
            stream.read_exact(&mut reply).await.unwrap();
            replies.push(Message::from_vec(&reply).unwrap());
        }
        replies
    }
}

fn question(name: &str, edns: Option<(u8, u16)>) -> Vec<u8> {
    let mut message = Message::query();
    message.metadata.id = 4711;
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    if let Some((version, payload)) = edns {
        let mut edns = Edns::new();
        edns.set_version(version).set_max_payload(payload);
        message.set_edns(edns);
    }
    message.to_vec().unwrap()
}

fn addresses(message: &Message) -> Vec<String> {
    message.answers.iter().map(|record| format!("{} {}", record.record_type(), record.data)).collect()
}

#[tokio::test]
async fn answers_carry_codes_and_the_soa() {
    let setup = setup().await;
    let found = setup.udp(&question("web.a.svc.cluster.local.", None)).await;
    assert_eq!(
        (found.metadata.id, found.metadata.authoritative, found.metadata.recursion_available),
        (4711, true, true)
    );
    assert_eq!(addresses(&found), ["A 10.43.0.9"]);
    assert_eq!(found.answers[0].ttl, 5);
    assert!(found.edns.is_none());
    let gone = setup.udp(&question("gone.a.svc.cluster.local.", None)).await;
    assert_eq!(gone.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(gone.authorities[0].record_type(), RecordType::SOA);
    setup.api.delete("/api/v1/services", "a", "web");
    setup.api.until(|api| api.all("/api/v1/services").len() == 4).await;
    let informers = Informers::new(client::in_process(setup.api.clone()), CancellationToken::new());
    Cluster::new(&informers).synced().await;
    let mut code = ResponseCode::NoError;
    for _ in 0..1000 {
        code = setup.udp(&question("web.a.svc.cluster.local.", None)).await.metadata.response_code;
        if code == ResponseCode::NXDomain {
            break;
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(code, ResponseCode::NXDomain, "a deleted Service's name goes");
}

#[tokio::test]
async fn long_answers_are_cut_for_udp_and_whole_over_tcp() {
    let setup = setup().await;
    for (edns, limit) in [(None, 512), (Some((0, 1232)), 1232), (Some((0, 65535)), 1232)] {
        let cut = setup.udp(&question("big.a.svc.cluster.local.", edns)).await;
        assert!(cut.metadata.truncation);
        assert_eq!(cut.edns.is_some(), edns.is_some());
        let size = cut.to_vec().unwrap().len();
        assert!(size <= limit && size > limit / 2, "{size} bytes for {edns:?}");
    }
    let both = [question("big.a.svc.cluster.local.", None), question("web.a.svc.cluster.local.", None)];
    let replies = setup.tcp(&both).await;
    assert_eq!((replies[0].answers.len(), replies[1].answers.len()), (PODS, 1));
    assert!(!replies[0].metadata.truncation);
}

#[tokio::test]
async fn other_names_go_upstream_and_aliases_are_followed() {
    let setup = setup().await;
    let other = setup.udp(&question("example.com.", None)).await;
    assert_eq!((other.metadata.id, addresses(&other)), (4711, vec!["A 192.0.2.1".to_string()]));
    let far = setup.udp(&question("far.a.svc.cluster.local.", None)).await;
    assert_eq!(addresses(&far), ["CNAME example.org.", "A 192.0.2.1"]);
    let near = setup.udp(&question("near.a.svc.cluster.local.", None)).await;
    assert_eq!(addresses(&near), ["CNAME web.a.svc.cluster.local.", "A 10.43.0.9"]);
    let circle = setup.udp(&question("circle.a.svc.cluster.local.", None)).await;
    assert_eq!(circle.metadata.response_code, ResponseCode::ServFail);
}

#[tokio::test]
async fn bad_packets_get_their_codes() {
    let setup = setup().await;
    let good = question("web.a.svc.cluster.local.", None);
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut packet = good.clone();
        change(&mut packet);
        packet
    };
    let cases = [
        ("cut", with(&|packet| packet.truncate(20)), ResponseCode::FormErr),
        (
            "no question",
            with(&|packet| {
                packet[5] = 0;
                packet.truncate(12)
            }),
            ResponseCode::FormErr,
        ),
        ("a status request", with(&|packet| packet[2] |= 0x10), ResponseCode::NotImp),
        ("class CHAOS", with(&|packet| *packet.last_mut().unwrap() = 3), ResponseCode::Refused),
        ("EDNS version 1", question("web.a.svc.cluster.local.", Some((1, 1232))), ResponseCode::BADVERS),
    ];
    for (what, packet, code) in cases {
        // By number: 16 has two names.
        let seen = setup.udp(&packet).await.metadata.response_code;
        assert_eq!(u16::from(seen), u16::from(code), "{what}");
    }
}

#[tokio::test]
async fn a_question_that_comes_back_is_refused() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let relay = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    writeln!(file, "nameserver {}", relay.local_addr().unwrap()).unwrap();
    let informers = Informers::new(client::in_process(Api::default()), CancellationToken::new());
    let running = start(Config {
        informers,
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        domain: "cluster.local".into(),
        upstreams: upstreams(file.path()),
        cancel: CancellationToken::new(),
    })
    .await
    .unwrap();
    let address = running.addresses()[0];
    // An upstream that asks the server itself, and passes its answer back.
    let relayed = tokio::spawn(async move {
        let mut buffer = [0; 512];
        let (size, server) = relay.recv_from(&mut buffer).await.unwrap();
        let onward = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        onward.send_to(&buffer[..size], address).await.unwrap();
        let size = onward.recv(&mut buffer).await.unwrap();
        relay.send_to(&buffer[..size], server).await.unwrap();
    });
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.send_to(&question("example.com.", None), address).await.unwrap();
    let mut buffer = [0; 512];
    let size = timeout(Duration::from_secs(10), client.recv(&mut buffer)).await.expect("an answer").unwrap();
    assert_eq!(Message::from_vec(&buffer[..size]).unwrap().metadata.response_code, ResponseCode::Refused);
    relayed.await.unwrap();
}
