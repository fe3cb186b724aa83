//! HTTP(S) GET as probes do it: any certificate will do, 200 to 399 is good, redirects stay on the host.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1 as core;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::action::{Outcome, shorten};

const MAX_REDIRECTS: usize = 10;
/// Most of a body that is read.
const MAX_BODY: usize = 10 << 10;

pub(super) struct Get<'a> {
    pub(super) host: &'a str,
    pub(super) port: u16,
    pub(super) path: &'a str,
    pub(super) tls: bool,
    pub(super) headers: &'a [core::HTTPHeader],
    pub(super) agent: &'a str,
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

struct Answer {
    code: u16,
    location: Option<String>,
    body: String,
}

impl Get<'_> {
    pub(super) fn url(&self) -> String {
        format!("{}://{}{}", if self.tls { "https" } else { "http" }, self.authority(), rooted(self.path))
    }

    fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.to_owned() };
        format!("{host}:{}", self.port)
    }

    pub(super) async fn send(&self) -> Outcome {
        let mut path = rooted(self.path);
        for _ in 0..=MAX_REDIRECTS {
            let answer = match self.once(&path).await {
                Ok(answer) => answer,
                Err(error) => return Outcome::Failure(format!("Get \"{}\": {}", self.url(), chain(error.as_ref()))),
            };
            match (answer.code, answer.location) {
                (300..400, Some(location)) => match same_host(&location, &self.authority()) {
                    Some(next) => path = next,
                    None => {
                        return Outcome::Warning(format!("Probe terminated redirects, Response body: {}", answer.body));
                    }
                },
                (200..400, _) => return Outcome::Success,
                (code, _) => return Outcome::Failure(format!("HTTP probe failed with statuscode: {code}")),
            }
        }
        Outcome::Failure(format!("Get \"{}\": stopped after {MAX_REDIRECTS} redirects", self.url()))
    }

    async fn once(&self, path: &str) -> Result<Answer, BoxError> {
        let stream = TcpStream::connect((self.host, self.port)).await?;
        if !self.tls {
            return self.exchange(stream, path).await;
        }
        let name = self.headers.iter().find(|header| header.name.eq_ignore_ascii_case("host"));
        let name = name.map_or(self.host, |header| header.value.as_str()).to_owned();
        let connector = tokio_rustls::TlsConnector::from(TRUST_ANY.clone());
        let stream = connector.connect(ServerName::try_from(name)?, stream).await?;
        self.exchange(stream, path).await
    }

    async fn exchange(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        path: &str,
    ) -> Result<Answer, BoxError> {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let mut request = ::http::Request::get(path).header("connection", "close");
        let given = |name: &str| self.headers.iter().any(|header| header.name.eq_ignore_ascii_case(name));
        if !given("host") {
            request = request.header("host", self.authority());
        }
        if !given("user-agent") {
            request = request.header("user-agent", self.agent);
        }
        if !given("accept") {
            request = request.header("accept", "*/*");
        }
        for header in self.headers {
            request = request.header(&header.name, &header.value);
        }
        let request = request.body(Empty::<Bytes>::new())?;
        let exchange = async {
            let response = sender.send_request(request).await?;
            let code = response.status().as_u16();
            let location = response.headers().get("location").and_then(|value| value.to_str().ok()).map(str::to_owned);
            // A body that is too long or breaks off does not change the verdict.
            let body = Limited::new(response.into_body(), MAX_BODY).collect().await;
            let body = body.map(|body| String::from_utf8_lossy(&body.to_bytes()).into_owned()).unwrap_or_default();
            Ok::<_, BoxError>(Answer { code, location, body: shorten(&body) })
        };
        let mut exchange = std::pin::pin!(exchange);
        tokio::select! {
            answer = &mut exchange => answer,
            // The answer may have come with the end of the connection.
            _ = connection => exchange.await,
        }
    }
}

fn rooted(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

/// The path of a redirect that stays on `authority`.
fn same_host(location: &str, authority: &str) -> Option<String> {
    if location.starts_with('/') && !location.starts_with("//") {
        return Some(location.to_owned());
    }
    let uri: ::http::Uri = location.parse().ok()?;
    let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
    let same = format!("{}:{port}", uri.host()?) == authority;
    same.then(|| uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string))
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

/// A probe asks whether a container answers, not who it is.
static TRUST_ANY: LazyLock<Arc<rustls::ClientConfig>> = LazyLock::new(|| {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let schemes = provider.signature_verification_algorithms.supported_schemes();
    let builder = rustls::ClientConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions();
    // The provider is compiled in with its default versions: there is nothing to fail.
    let builder = builder.unwrap_or_else(|error| unreachable!("default TLS versions: {error}"));
    let verifier = Arc::new(AnyCertificate(schemes));
    Arc::new(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
});

#[derive(Debug)]
struct AnyCertificate(Vec<SignatureScheme>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.clone()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    async fn answer(texts: &'static [&'static str]) -> Outcome {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            for text in texts {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut buffer = [0; 1024];
                let _ = stream.read(&mut buffer).await;
                stream.write_all(text.as_bytes()).await.unwrap();
            }
        });
        Get { host: "127.0.0.1", port, path: "x", tls: false, headers: &[], agent: "t" }.send().await
    }

    #[tokio::test]
    async fn codes_and_redirects() {
        assert_eq!(answer(&["HTTP/1.1 204 No Content\r\n\r\n"]).await, Outcome::Success);
        assert_eq!(
            answer(&["HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n"]).await,
            Outcome::Failure("HTTP probe failed with statuscode: 503".into())
        );
        const HERE: &str = "HTTP/1.1 302 Found\r\nlocation: /y\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(answer(&[HERE, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"]).await, Outcome::Success);
        let away = answer(&["HTTP/1.1 302 Found\r\nlocation: http://192.0.2.1/y\r\ncontent-length: 0\r\n\r\n"]).await;
        assert!(matches!(away, Outcome::Warning(_)), "{away:?}");
        assert!(matches!(answer(&[""]).await, Outcome::Failure(_)));
    }
}
