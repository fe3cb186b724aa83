//! `registries.yaml`: mirrors and authorities of image registries, in the form that k3s users know.
//!
//! ```yaml
//! mirrors:
//!   docker.io: {endpoint: ["https://mirror.example", "http://127.0.0.1:5000"]}
//! configs:
//!   registry.example:5000: {tls: {ca_file: /etc/ssl/registry.pem, insecure_skip_verify: false}}
//! ```

use std::{collections::BTreeMap, path::Path};

use anyhow::Context;
use runtime::Registries;
use serde::Deserialize;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    mirrors: BTreeMap<String, Mirror>,
    #[serde(default)]
    configs: BTreeMap<String, Config>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Mirror {
    #[serde(default)]
    endpoint: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    #[serde(default)]
    tls: Tls,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tls {
    ca_file: Option<std::path::PathBuf>,
}

/// Reads the file; a missing one configures nothing.
pub(crate) fn load(path: &Path) -> anyhow::Result<Registries> {
    match std::fs::read_to_string(path) {
        Ok(text) => parse(&text).with_context(|| format!("the registry configuration {} is wrong", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Registries::default()),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

fn parse(text: &str) -> anyhow::Result<Registries> {
    let file: File = if text.trim().is_empty() { File::default() } else { serde_saphyr::from_str(text)? };
    let mut out = Registries::default();
    for (name, mirror) in file.mirrors {
        out.insecure.extend(mirror.endpoint.iter().filter_map(|endpoint| {
            endpoint.strip_prefix("http://").map(|host| host.trim_end_matches('/').to_string())
        }));
        out.mirrors.insert(name, mirror.endpoint);
    }
    out.certificate_authorities.extend(file.configs.into_values().filter_map(|config| config.tls.ca_file));
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_and_authorities_are_read_and_mistakes_refused() {
        let text = "mirrors:\n  docker.io:\n    endpoint: [\"http://127.0.0.1:5000\"]\nconfigs:\n  a:5000:\n    tls: {ca_file: /ca.pem}\n";
        let registries = parse(text).unwrap();
        assert_eq!(registries.mirrors["docker.io"], ["http://127.0.0.1:5000"]);
        assert_eq!(registries.insecure, ["127.0.0.1:5000"]);
        assert_eq!(registries.certificate_authorities, [Path::new("/ca.pem")]);
        assert!(parse("mirror: {}").is_err());
    }
}
