//! Configuration: flags, `NAVARCH_*` environment, YAML file, in this order of precedence.
//!
//! The file holds the flags' names without dashes in front; lists where a flag may be repeated. Unknown names are
//! errors, so that a typing mistake never runs with a default.

use std::{
    ffi::OsString,
    net::IpAddr,
    path::{Path, PathBuf},
};

use clap::{ArgAction, Args, CommandFactory};
use ipnet::IpNet;
use serde_json::Value;

/// Flags of `navarch server`.
#[derive(Args, Clone, Debug)]
pub struct Server {
    /// YAML file of these flags' names
    #[arg(long, value_name = "FILE", env = "NAVARCH_CONFIG", default_value = "/etc/navarch/config.yaml")]
    pub config: PathBuf,
    /// Directory that holds everything the cluster remembers
    #[arg(long, value_name = "DIR", env = "NAVARCH_DATA_DIR", default_value = "/var/lib/navarch")]
    pub data_dir: PathBuf,
    /// Where to write the administrator's kubeconfig [default: DATA-DIR/kubeconfig]
    #[arg(long, value_name = "FILE", env = "NAVARCH_WRITE_KUBECONFIG")]
    pub write_kubeconfig: Option<PathBuf>,
    /// Address that the API listens on
    #[arg(long, value_name = "IP", env = "NAVARCH_BIND_ADDRESS", default_value = "0.0.0.0")]
    pub bind_address: IpAddr,
    /// Port that the API listens on
    #[arg(long, value_name = "PORT", env = "NAVARCH_HTTPS_LISTEN_PORT", default_value_t = 6443)]
    pub https_listen_port: u16,
    /// Address at which pods and other nodes reach the API [default: the node's]
    #[arg(long, value_name = "IP", env = "NAVARCH_ADVERTISE_ADDRESS")]
    pub advertise_address: Option<IpAddr>,
    /// Further names and addresses for the API's certificate
    #[arg(long, value_name = "NAME", env = "NAVARCH_TLS_SAN", value_delimiter = ',')]
    pub tls_san: Vec<String>,
    /// Addresses of pods
    #[arg(long, value_name = "CIDR", env = "NAVARCH_CLUSTER_CIDR", default_value = "10.42.0.0/16")]
    pub cluster_cidr: IpNet,
    /// Addresses of Services
    #[arg(long, value_name = "CIDR", env = "NAVARCH_SERVICE_CIDR", default_value = "10.43.0.0/16")]
    pub service_cidr: IpNet,
    /// Ports of NodePort Services
    #[arg(long, value_name = "A-B", env = "NAVARCH_SERVICE_NODE_PORT_RANGE", default_value = "30000-32767",
          value_parser = port_range)]
    pub service_node_port_range: (u16, u16),
    /// Address of the cluster DNS [default: the tenth of the Service addresses]
    #[arg(long, value_name = "IP", env = "NAVARCH_CLUSTER_DNS")]
    pub cluster_dns: Option<IpAddr>,
    /// Domain of the cluster's names
    #[arg(long, value_name = "DOMAIN", env = "NAVARCH_CLUSTER_DOMAIN", default_value = "cluster.local")]
    pub cluster_domain: String,
    /// Name of this machine's Node [default: the host name, lower case]
    #[arg(long, value_name = "NAME", env = "NAVARCH_NODE_NAME")]
    pub node_name: Option<String>,
    /// Address of this machine's Node [default: that of the default route]
    #[arg(long, value_name = "IP", env = "NAVARCH_NODE_IP")]
    pub node_ip: Option<IpAddr>,
    /// Labels to register the Node with
    #[arg(long, value_name = "KEY=VALUE", env = "NAVARCH_NODE_LABEL", value_delimiter = ',')]
    pub node_label: Vec<String>,
    /// Taints to register the Node with
    #[arg(long, value_name = "KEY=VALUE:EFFECT", env = "NAVARCH_NODE_TAINT", value_delimiter = ',')]
    pub node_taint: Vec<String>,
    /// Components not to run: dns, proxy, scheduler, controllers
    #[arg(long, value_name = "NAME", env = "NAVARCH_DISABLE", value_delimiter = ',')]
    pub disable: Vec<Component>,
    /// Only the control plane: no kubelet, no runtime, no network, no root
    #[arg(long, env = "NAVARCH_DISABLE_AGENT", action = ArgAction::SetTrue)]
    pub disable_agent: bool,
    /// Secret that lets nodes and administrators in [default: generated]
    #[arg(long, value_name = "TOKEN", env = "NAVARCH_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// Where the data lives; only the embedded datastore (the default) is there
    #[arg(long, value_name = "URL", env = "NAVARCH_DATASTORE_ENDPOINT")]
    pub datastore_endpoint: Option<String>,
    /// CRI socket of another container runtime [default: the embedded one]
    #[arg(long, value_name = "PATH", env = "NAVARCH_CONTAINER_RUNTIME_ENDPOINT")]
    pub container_runtime_endpoint: Option<String>,
    /// Registry mirrors and credentials, YAML
    #[arg(long, value_name = "FILE", env = "NAVARCH_PRIVATE_REGISTRY", default_value = "/etc/navarch/registries.yaml")]
    pub private_registry: PathBuf,
    /// Cgroup below which everything of the node is made
    #[arg(long, value_name = "NAME", env = "NAVARCH_CGROUP_ROOT", default_value = "navarch")]
    pub cgroup_root: String,
    /// Port of the kubelet
    #[arg(long, value_name = "PORT", env = "NAVARCH_KUBELET_PORT", default_value_t = 10250)]
    pub kubelet_port: u16,
}

/// What `--disable` can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Component {
    Dns,
    Proxy,
    Scheduler,
    Controllers,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read the configuration file {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("the configuration file {} is not YAML: {why}", path.display())]
    Syntax { path: PathBuf, why: String },
    #[error("the configuration file {} has {name:?}, which is no option; `navarch server --help` lists them", path.display())]
    Unknown { path: PathBuf, name: String },
    #[error("the configuration file {}: {name} must be {want}", path.display())]
    Type { path: PathBuf, name: String, want: &'static str },
}

fn port_range(text: &str) -> Result<(u16, u16), String> {
    let bounds = text.split_once('-').and_then(|(low, high)| Some((low.parse().ok()?, high.parse().ok()?)));
    bounds.filter(|(low, high)| low <= high && *low > 0).ok_or_else(|| "must be two ports, FIRST-LAST".to_string())
}

/// Puts what the configuration file says between the subcommand and the flags given, so that the flags win.
///
/// `given`: the arguments behind `server`. The file need not exist unless it was named.
pub fn with_file(given: &[OsString]) -> Result<Vec<OsString>, Error> {
    let (path, named) = match file_named(given) {
        Some(path) => (path, true),
        None => (PathBuf::from("/etc/navarch/config.yaml"), false),
    };
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if !named && error.kind() == std::io::ErrorKind::NotFound => return Ok(given.to_vec()),
        Err(source) => return Err(Error::Read { path, source }),
    };
    let mut arguments = to_flags(&path, &text, |name| std::env::var_os(name).is_some())?;
    arguments.extend_from_slice(given);
    Ok(arguments)
}

fn file_named(given: &[OsString]) -> Option<PathBuf> {
    let mut arguments = given.iter();
    while let Some(argument) = arguments.next() {
        let text = argument.to_string_lossy();
        if text == "--config" {
            return arguments.next().map(PathBuf::from);
        }
        if let Some(path) = text.strip_prefix("--config=") {
            return Some(PathBuf::from(path));
        }
    }
    std::env::var_os("NAVARCH_CONFIG").map(PathBuf::from)
}

fn to_flags(path: &Path, text: &str, in_environment: impl Fn(&str) -> bool) -> Result<Vec<OsString>, Error> {
    #[derive(clap::Parser)]
    struct Known {
        #[command(flatten)]
        _server: Server,
    }
    let path = path.to_path_buf();
    let file: Value = match text.trim() {
        "" => Value::Null,
        text => serde_saphyr::from_str(text)
            .map_err(|error| Error::Syntax { path: path.clone(), why: error.to_string() })?,
    };
    let entries = match file {
        Value::Null => return Ok(Vec::new()),
        Value::Object(entries) => entries,
        _ => return Err(Error::Syntax { path, why: "the top level must be a mapping".into() }),
    };
    let command = Known::command();
    let mut flags = Vec::new();
    for (name, value) in entries {
        let wrong = |want| Error::Type { path: path.clone(), name: name.clone(), want };
        let Some(flag) = command.get_arguments().find(|flag| flag.get_long() == Some(&name) && name != "config") else {
            return Err(Error::Unknown { path, name });
        };
        if flag.get_env().and_then(|env| env.to_str()).is_some_and(&in_environment) {
            continue;
        }
        if matches!(flag.get_action(), ArgAction::SetTrue) {
            match value {
                Value::Bool(true) => flags.push(format!("--{name}")),
                Value::Bool(false) => {}
                _ => return Err(wrong("true or false")),
            }
            continue;
        }
        let values = match value {
            Value::Array(values) if matches!(flag.get_action(), ArgAction::Append) => values,
            Value::Array(_) | Value::Object(_) | Value::Null => return Err(wrong("a single value")),
            one => vec![one],
        };
        for value in values {
            match value {
                Value::String(text) => flags.push(format!("--{name}={text}")),
                Value::Number(number) => flags.push(format!("--{name}={number}")),
                Value::Bool(flag) => flags.push(format!("--{name}={flag}")),
                _ => return Err(wrong("a list of plain values")),
            }
        }
    }
    Ok(flags.into_iter().map(OsString::from).collect())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    #[command(args_override_self = true)]
    struct Whole {
        #[command(flatten)]
        server: Server,
    }

    fn flags(text: &str) -> Result<Vec<OsString>, Error> {
        to_flags(Path::new("c.yaml"), text, |_| false)
    }

    #[test]
    fn the_file_gives_values_and_flags_override_them() {
        let mut arguments = vec![OsString::from("server")];
        arguments.extend(flags("https-listen-port: 7443\ntls-san: [a, b]\ndisable-agent: true\n").unwrap());
        arguments.push("--https-listen-port=8443".into());
        let server = Whole::try_parse_from(arguments).unwrap().server;
        assert_eq!(server.https_listen_port, 8443);
        assert_eq!(server.tls_san, ["a", "b"]);
        assert!(server.disable_agent);
    }

    #[test]
    fn what_the_environment_says_beats_the_file() {
        let flags = to_flags(Path::new("c.yaml"), "node-name: a", |name| name == "NAVARCH_NODE_NAME").unwrap();
        assert!(flags.is_empty());
    }

    #[test]
    fn mistakes_name_the_file_and_the_option() {
        let cases = [
            ("data_dir: /x", "has \"data_dir\", which is no option"),
            ("disable-agent: yes-please", "disable-agent must be true or false"),
            ("data-dir: [a]", "data-dir must be a single value"),
            ("- a", "the top level must be a mapping"),
            ("a: [", "is not YAML"),
        ];
        for (text, want) in cases {
            let error = flags(text).unwrap_err().to_string();
            assert!(error.contains(want) && error.contains("c.yaml"), "{text}: {error}");
        }
    }
}
