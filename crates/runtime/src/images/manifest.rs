//! The JSON of images: index, manifest and configuration, both in OCI's and Docker's form.
//!
//! The two differ in media types only; what matters is read, what is unknown is ignored.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};
use sha2::{Digest, Sha256};

use super::{CHAIN_DIGITS, Error, hex};

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Descriptor {
    pub(crate) digest: String,
    #[serde(default)]
    pub(crate) size: i64,
    pub(crate) platform: Option<Platform>,
    #[serde(default, deserialize_with = "nullable")]
    pub(crate) annotations: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Platform {
    pub(crate) os: String,
    pub(crate) architecture: String,
    #[serde(default)]
    pub(crate) variant: String,
}

/// An index (`manifests`) or a manifest (`config` and `layers`).
#[derive(Debug, Deserialize)]
pub(crate) struct Manifest {
    #[serde(default, deserialize_with = "nullable")]
    pub(crate) manifests: Vec<Descriptor>,
    pub(crate) config: Option<Descriptor>,
    #[serde(default, deserialize_with = "nullable")]
    pub(crate) layers: Vec<Descriptor>,
}

/// What a container inherits from its image.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct ImageConfig {
    #[serde(default, deserialize_with = "nullable")]
    pub(crate) config: Process,
    #[serde(default, deserialize_with = "nullable")]
    pub(crate) rootfs: RootFs,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Process {
    #[serde(deserialize_with = "nullable")]
    pub(crate) user: String,
    #[serde(deserialize_with = "nullable")]
    pub(crate) env: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    pub(crate) entrypoint: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    pub(crate) cmd: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    pub(crate) working_dir: String,
    #[serde(deserialize_with = "nullable")]
    pub(crate) stop_signal: String,
    #[serde(deserialize_with = "nullable")]
    pub(crate) labels: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
pub(crate) struct RootFs {
    #[serde(default, deserialize_with = "nullable")]
    pub(crate) diff_ids: Vec<String>,
}

/// Docker writes `null` for what is empty.
fn nullable<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl Manifest {
    pub(crate) fn parse(what: &str, json: &[u8]) -> Result<Manifest, Error> {
        let manifest: Manifest =
            serde_json::from_slice(json).map_err(|source| Error::Json { what: what.to_owned(), source })?;
        if manifest.config.is_none() && manifest.manifests.is_empty() {
            return Err(Error::Invalid(format!("{what} is neither an index nor a manifest of schema version 2")));
        }
        Ok(manifest)
    }

    /// The entry of an index for this machine.
    pub(crate) fn for_platform(&self, what: &str) -> Result<&Descriptor, Error> {
        let architecture = architecture();
        let fits = |descriptor: &&Descriptor| match &descriptor.platform {
            Some(platform) => platform.os == "linux" && platform.architecture == architecture,
            None => true,
        };
        self.manifests.iter().find(fits).ok_or_else(|| {
            let offered = self.manifests.iter().filter_map(|entry| entry.platform.as_ref());
            let offered: Vec<String> = offered
                .map(|platform| {
                    [&*platform.os, &platform.architecture, &platform.variant]
                        .join("/")
                        .trim_end_matches('/')
                        .to_owned()
                })
                .collect();
            Error::Platform(format!("linux/{architecture} in {what}"), offered.join(", "))
        })
    }
}

impl ImageConfig {
    pub(crate) fn parse(what: &str, json: &[u8]) -> Result<ImageConfig, Error> {
        serde_json::from_slice(json).map_err(|source| Error::Json { what: format!("configuration {what}"), source })
    }

    /// Directory names of the layers, lowest first.
    pub(crate) fn chain(&self) -> Vec<String> {
        let mut chain = String::new();
        self.rootfs
            .diff_ids
            .iter()
            .map(|diff_id| {
                chain = match chain.is_empty() {
                    true => diff_id.clone(),
                    false => format!("sha256:{}", hex(&Sha256::digest(format!("{chain} {diff_id}")))),
                };
                chain.trim_start_matches("sha256:").chars().take(CHAIN_DIGITS).collect()
            })
            .collect()
    }
}

/// This machine's architecture as images call it.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nulls_and_unknown_fields_are_fine() {
        let json = br#"{"architecture":"amd64","config":{"Env":null,"Cmd":["sh"],"User":"","Volumes":{}},"rootfs":{"type":"layers","diff_ids":["sha256:aa"]}}"#;
        let config = ImageConfig::parse("x", json).unwrap();
        assert_eq!((config.config.cmd, config.config.env), (vec!["sh".to_owned()], vec![]));
    }

    #[test]
    fn chain_ids_depend_on_all_layers_below() {
        let config = |ids: &[&str]| ImageConfig {
            rootfs: RootFs { diff_ids: ids.iter().map(|id| format!("sha256:{}", id.repeat(64))).collect() },
            ..ImageConfig::default()
        };
        let (one, two) = (config(&["a", "b"]).chain(), config(&["c", "b"]).chain());
        assert_eq!(one[0], "a".repeat(CHAIN_DIGITS));
        assert_ne!(one[1], two[1]);
    }

    #[test]
    fn an_index_names_what_it_offers() {
        let json = br#"{"manifests":[{"digest":"sha256:1","platform":{"os":"windows","architecture":"amd64"}}]}"#;
        let error = Manifest::parse("x", json).unwrap().for_platform("x").unwrap_err();
        assert!(error.to_string().contains("windows/amd64"), "{error}");
        assert!(Manifest::parse("x", b"{}").is_err());
    }
}
