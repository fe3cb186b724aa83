//! Reading an upgrade request and answering it: which protocol, which subprotocol.

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::Full;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::Response;

/// What the client asked the connection to become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Spdy,
    WebSocket,
}

/// An accepted upgrade: the protocol, the subprotocol chosen and the 101 answer.
pub(crate) struct Accepted {
    pub(crate) kind: Kind,
    pub(crate) subprotocol: &'static str,
    pub(crate) response: Response,
}

/// Chooses a subprotocol: the first of ours (best first) that the client offers.
///
/// The error is the answer to send instead: 400 for a request that is no upgrade, 403 for no common subprotocol.
pub(crate) fn accept<B>(
    request: &Request<B>,
    spdy: &[&'static str],
    websocket: &[&'static str],
) -> Result<Accepted, Box<Response>> {
    let headers = request.headers();
    let upgrade = joined(headers, header::UPGRADE.as_str()).to_ascii_lowercase();
    let (kind, name, ours) = match upgrade.as_str() {
        "spdy/3.1" => (Kind::Spdy, "x-stream-protocol-version", spdy),
        "websocket" => (Kind::WebSocket, "sec-websocket-protocol", websocket),
        _ => {
            return Err(refuse(StatusCode::BAD_REQUEST, "you must ask for an upgrade to SPDY/3.1 or websocket"));
        }
    };
    let offered = joined(headers, name);
    let offered: Vec<&str> = offered.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    let Some(subprotocol) = ours.iter().find(|ours| offered.contains(*ours)) else {
        let why =
            format!("unable to upgrade: unable to negotiate protocol: client supports {offered:?}, server {ours:?}");
        return Err(refuse(StatusCode::FORBIDDEN, &why));
    };
    let mut answer = http::Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, "Upgrade")
        .header(name, *subprotocol);
    match kind {
        Kind::Spdy => answer = answer.header(header::UPGRADE, "SPDY/3.1"),
        Kind::WebSocket => {
            let Some(key) = headers.get(header::SEC_WEBSOCKET_KEY) else {
                return Err(refuse(StatusCode::BAD_REQUEST, "websocket upgrade without Sec-WebSocket-Key"));
            };
            answer = answer
                .header(header::UPGRADE, "websocket")
                .header(header::SEC_WEBSOCKET_ACCEPT, derive_accept_key(key.as_bytes()));
        }
    }
    match answer.body(Full::default()) {
        Ok(response) => Ok(Accepted { kind, subprotocol, response }),
        Err(error) => Err(refuse(StatusCode::BAD_REQUEST, &error.to_string())),
    }
}

fn joined(headers: &HeaderMap, name: &str) -> String {
    let values: Vec<&str> = headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect();
    values.join(",")
}

fn refuse(code: StatusCode, why: &str) -> Box<Response> {
    let mut response = http::Response::new(Full::new(Bytes::from(format!("{why}\n"))));
    *response.status_mut() = code;
    Box::new(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(headers: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::new(());
        for (name, value) in headers {
            request.headers_mut().append(
                http::HeaderName::from_bytes(name.as_bytes()).unwrap(),
                http::HeaderValue::from_str(value).unwrap(),
            );
        }
        request
    }

    #[test]
    fn our_order_decides_among_the_offers() {
        let accepted = accept(
            &request(&[
                ("upgrade", "SPDY/3.1"),
                ("x-stream-protocol-version", "v3.channel.k8s.io"),
                ("x-stream-protocol-version", "v4.channel.k8s.io"),
            ]),
            &["v4.channel.k8s.io", "v3.channel.k8s.io"],
            &[],
        )
        .ok()
        .unwrap();
        assert_eq!((accepted.kind, accepted.subprotocol), (Kind::Spdy, "v4.channel.k8s.io"));
        assert_eq!(accepted.response.headers()["x-stream-protocol-version"], "v4.channel.k8s.io");
    }

    #[test]
    fn refusals_say_why() {
        let cases: [(&[(&str, &str)], u16); 3] = [
            (&[], 400),
            (&[("upgrade", "websocket"), ("sec-websocket-protocol", "x")], 403),
            (&[("upgrade", "websocket"), ("sec-websocket-protocol", "v5.channel.k8s.io")], 400),
        ];
        for (headers, code) in cases {
            let refusal = accept(&request(headers), &[], &["v5.channel.k8s.io"]).err().unwrap();
            assert_eq!(refusal.status().as_u16(), code, "{headers:?}");
        }
    }
}
