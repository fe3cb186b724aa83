//! Images from registries: mirrors first, each layer once, everything checked against its digest.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;

use base64::Engine as _;
use futures::{StreamExt as _, TryStreamExt as _};
use oci_client::client::{Certificate, CertificateEncoding, ClientConfig, ClientProtocol};
use oci_client::errors::OciDistributionError;
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference, RegistryOperation};

use super::import::add_layer;
use super::manifest::{Descriptor, ImageConfig, Manifest};
use super::{Error, Image, Images, digest, parse};

/// Manifests and configurations are JSON; larger ones are an attack.
pub(super) const JSON_MAX: u64 = 8 << 20;
/// Layers of one image on their way at the same time.
const LAYERS_AT_ONCE: usize = 3;

const MANIFEST_TYPES: &[&str] = &[
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];

/// What a registry is told about who asks.
#[derive(Clone, Debug, Default)]
pub enum Credentials {
    #[default]
    Anonymous,
    Basic {
        username: String,
        password: String,
    },
    /// A token that goes to the registry as it is.
    Bearer(String),
}

impl Credentials {
    /// From CRI's AuthConfig; `auth` is base64 of `user:password`.
    pub fn new(username: &str, password: &str, auth: &str, registry_token: &str) -> Result<Credentials, Error> {
        if !registry_token.is_empty() {
            return Ok(Credentials::Bearer(registry_token.to_owned()));
        }
        if !username.is_empty() {
            return Ok(Credentials::Basic { username: username.to_owned(), password: password.to_owned() });
        }
        if auth.is_empty() {
            return Ok(Credentials::Anonymous);
        }
        let decoded = base64::engine::general_purpose::STANDARD.decode(auth.trim_end_matches('\0')).ok();
        let text = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
        match text.as_deref().and_then(|text| text.split_once(':')) {
            Some((username, password)) => Ok(Credentials::Basic {
                username: username.to_owned(),
                password: password.trim_end_matches('\0').to_owned(),
            }),
            None => Err(Error::Invalid("the field auth of the credentials is not base64 of user:password".to_owned())),
        }
    }

    fn to_auth(&self) -> RegistryAuth {
        match self {
            Credentials::Anonymous => RegistryAuth::Anonymous,
            Credentials::Basic { username, password } => RegistryAuth::Basic(username.clone(), password.clone()),
            Credentials::Bearer(token) => RegistryAuth::Bearer(token.clone()),
        }
    }
}

/// One place to ask for an image.
struct Host {
    name: String,
    plain_http: bool,
    /// Credentials are for the registry, not for its mirrors.
    is_registry: bool,
}

struct Pull<'a> {
    images: &'a Images,
    client: Client,
    /// With the host to ask as its resolved registry.
    reference: Reference,
    auth: RegistryAuth,
}

impl Images {
    /// Pulls an image; a second pull of the same name waits for the first and then finds the layers there.
    pub async fn pull(&self, name: &str, credentials: &Credentials) -> Result<Arc<Image>, Error> {
        let reference = parse(name)?;
        let whole = reference.whole();
        let lock = self.lock(&whole);
        let _turn = lock.lock().await;
        let _bringing = self.layers_lock()?;
        let mut last = None;
        for host in self.hosts(reference.registry()) {
            let client =
                Client::try_from(self.client_config(&host)?).map_err(|source| pull_error(&whole, &host, source))?;
            let mut asked = reference.clone();
            if !host.is_registry || host.name != reference.resolve_registry() {
                asked.set_mirror_registry(host.name.clone());
            }
            let auth = if host.is_registry { credentials.to_auth() } else { RegistryAuth::Anonymous };
            let pull = Pull { images: self, client, reference: asked, auth };
            tracing::info!(image = whole, host = host.name, "pulling image");
            match pull.run(&whole).await {
                Ok(image) => {
                    tracing::info!(image = whole, id = image.id, size = image.size, "pulled image");
                    return Ok(image);
                }
                Err(Failure::Registry(source)) => {
                    let error = pull_error(&whole, &host, source);
                    tracing::info!(image = whole, host = host.name, error = %crate::chain(&error), "cannot pull image here");
                    last = Some(error);
                }
                Err(Failure::Local(error)) => return Err(error),
            }
        }
        Err(last.unwrap_or_else(|| Error::Invalid(format!("no host to pull {whole} from"))))
    }

    fn hosts(&self, registry: &str) -> Vec<Host> {
        let mirrors = &self.registries.mirrors;
        let endpoints = mirrors.get(registry).or_else(|| mirrors.get("*"));
        let mut hosts: Vec<Host> = endpoints
            .into_iter()
            .flatten()
            .map(|endpoint| {
                let (scheme, name) = endpoint.split_once("://").unwrap_or(("", endpoint));
                let name = name.trim_end_matches('/');
                let plain_http = scheme == "http" || (scheme.is_empty() && self.is_insecure(name));
                Host { name: name.to_owned(), plain_http, is_registry: false }
            })
            .collect();
        let name = if registry == "docker.io" { "index.docker.io" } else { registry };
        hosts.push(Host { name: name.to_owned(), plain_http: self.is_insecure(registry), is_registry: true });
        hosts
    }

    fn is_insecure(&self, registry: &str) -> bool {
        let host = registry.rsplit_once(':').map_or(registry, |(host, _)| host).trim_matches(['[', ']']);
        let loopback = host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
        loopback || self.registries.insecure.iter().any(|listed| listed == registry)
    }

    fn client_config(&self, host: &Host) -> Result<ClientConfig, Error> {
        let mut config = ClientConfig {
            protocol: if host.plain_http { ClientProtocol::Http } else { ClientProtocol::Https },
            connect_timeout: Some(std::time::Duration::from_secs(30)),
            read_timeout: Some(std::time::Duration::from_secs(60)),
            user_agent: concat!("navarch/", env!("CARGO_PKG_VERSION")),
            ..ClientConfig::default()
        };
        for path in &self.registries.certificate_authorities {
            let data = fs::read(path).map_err(Error::io("cannot read the certificate authority", path))?;
            config.extra_root_certificates.push(Certificate { encoding: CertificateEncoding::Pem, data });
        }
        Ok(config)
    }
}

fn pull_error(reference: &str, host: &Host, source: OciDistributionError) -> Error {
    Error::Pull { reference: reference.to_owned(), host: host.name.clone(), source: Box::new(source) }
}

/// Whose fault: the registry's (another one may do better), or ours.
enum Failure {
    Registry(OciDistributionError),
    Local(Error),
}

impl From<OciDistributionError> for Failure {
    fn from(error: OciDistributionError) -> Failure {
        Failure::Registry(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Local(error)
    }
}

impl Pull<'_> {
    async fn run(&self, whole: &str) -> Result<Arc<Image>, Failure> {
        self.client.auth(&self.reference, &self.auth, RegistryOperation::Pull).await?;
        let (body, manifest_digest) = self.manifest(&self.reference).await?;
        let mut manifest = Manifest::parse(whole, &body)?;
        while manifest.config.is_none() {
            let chosen = manifest.for_platform(whole)?.digest.clone();
            let (body, _) = self.manifest(&self.reference.clone_with_digest(chosen)).await?;
            manifest = Manifest::parse(whole, &body)?;
        }
        let Some(config) = &manifest.config else {
            return Err(Error::Invalid(format!("{whole} has no configuration")).into());
        };
        let config_json = self.small_blob(config).await?;
        let id = config.digest.clone();
        let config = ImageConfig::parse(&id, &config_json)?;
        let chain = config.chain();
        if chain.len() != manifest.layers.len() {
            let text = format!("image {whole} has {} layers and {} diff ids", manifest.layers.len(), chain.len());
            return Err(Error::Invalid(text).into());
        }
        // An image and another one with the same layer wait for each other.
        let locks: Vec<_> = chain.iter().map(|name| self.images.lock(name)).collect();
        let mut layers = Vec::new();
        for (((layer, name), diff_id), lock) in
            manifest.layers.iter().zip(&chain).zip(&config.rootfs.diff_ids).zip(&locks)
        {
            layers.push(self.layer(layer, name, diff_id, lock));
        }
        futures::stream::iter(layers).buffer_unordered(LAYERS_AT_ONCE).try_collect::<Vec<()>>().await?;
        self.images.put_blob(&id, &config_json)?;
        let (tags, name) = match self.reference.tag() {
            Some(_) => (BTreeSet::from([whole.split('@').next().unwrap_or(whole).to_owned()]), whole),
            None => (BTreeSet::new(), whole),
        };
        let repository = parse(name)?;
        let digests =
            BTreeSet::from([format!("{}/{}@{manifest_digest}", repository.registry(), repository.repository())]);
        let size = self.images.layers_size(&chain);
        Ok(self.images.commit(Image { id, tags, digests, size, layers: chain, config: Arc::new(config) })?)
    }

    async fn manifest(&self, reference: &Reference) -> Result<(bytes::Bytes, String), Failure> {
        Ok(self.client.pull_manifest_raw(reference, &self.auth, MANIFEST_TYPES).await?)
    }

    async fn small_blob(&self, descriptor: &Descriptor) -> Result<Vec<u8>, Failure> {
        if descriptor.size < 0 || descriptor.size as u64 > JSON_MAX {
            return Err(
                Error::Invalid(format!("configuration {} has {} bytes", descriptor.digest, descriptor.size)).into()
            );
        }
        let mut bytes = Vec::new();
        self.client.pull_blob(&self.reference, descriptor.digest.as_str(), &mut bytes).await?;
        let got = digest(&bytes);
        if got != descriptor.digest {
            let what = "configuration".to_owned();
            return Err(Error::Digest { what, want: descriptor.digest.clone(), got }.into());
        }
        Ok(bytes)
    }

    async fn layer(
        &self,
        layer: &Descriptor,
        name: &str,
        diff_id: &str,
        lock: &tokio::sync::Mutex<()>,
    ) -> Result<(), Failure> {
        let _turn = lock.lock().await;
        if self.images.has_layer(name) {
            return Ok(());
        }
        let root = self.images.root().to_owned();
        let scratch = super::import::unnamed(&root).map_err(Error::io("cannot make a file for a layer", root))?;
        let mut file = tokio::fs::File::from_std(scratch);
        tracing::info!(layer = layer.digest, size = layer.size, "pulling layer");
        // Checks the digest on the way.
        self.client.pull_blob(&self.reference, layer.digest.as_str(), &mut file).await?;
        let mut file = file.into_std().await;
        std::io::Seek::rewind(&mut file).map_err(Error::io("cannot rewind a layer", name))?;
        // The unpacking outlives a cancelled pull, harmlessly: it ends in a complete layer or in nothing.
        let (layers, name, diff_id) = (self.images.layers(), name.to_owned(), diff_id.to_owned());
        let unpacked = tokio::task::spawn_blocking(move || add_layer(&layers, &name, &diff_id, file)).await;
        match unpacked {
            Ok(result) => Ok(result?),
            Err(_) => Err(Error::Invalid("unpacking a layer was interrupted".to_owned()).into()),
        }
    }
}
