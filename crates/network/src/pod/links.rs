//! Links and addresses by netlink, in this network namespace and in those of pods.

use std::{
    fs::File,
    future::Future,
    net::{IpAddr, Ipv4Addr},
    os::fd::AsRawFd,
    path::{Path, PathBuf},
};

use futures::TryStreamExt;
use rtnetlink::{
    Handle, LinkBridge, LinkUnspec, LinkVeth, RouteMessageBuilder,
    packet_route::link::{InfoBridgePort, InfoPortData, InfoPortKind, LinkAttribute},
};

use super::Error;

const EEXIST: i32 = 17;
const ENODEV: i32 = 19;

/// Runs `work` with a netlink connection to this namespace.
async fn with_handle<T, F>(work: impl FnOnce(Handle) -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    let (connection, handle, _) = rtnetlink::new_connection()
        .map_err(|source| Error::Enter { path: PathBuf::from("/proc/self/ns/net"), source })?;
    let driver = tokio::spawn(connection);
    let done = work(handle).await;
    driver.abort();
    done
}

fn failed(action: &'static str, link: &str) -> impl FnOnce(rtnetlink::Error) -> Error {
    let link = link.to_string();
    move |source| Error::Link { action, link, source }
}

fn code(error: &rtnetlink::Error) -> i32 {
    match error {
        rtnetlink::Error::NetlinkError(message) => -message.raw_code(),
        _ => 0,
    }
}

/// What was to be made is there already: fine.
fn or_exists(done: Result<(), rtnetlink::Error>) -> Result<(), rtnetlink::Error> {
    match done {
        Err(error) if code(&error) == EEXIST => Ok(()),
        other => other,
    }
}

async fn index(handle: &Handle, name: &str) -> Result<u32, rtnetlink::Error> {
    let mut found = handle.link().get().match_name(name.to_string()).execute();
    match found.try_next().await? {
        Some(link) => Ok(link.header.index),
        None => Err(rtnetlink::Error::RequestFailed),
    }
}

/// Makes the bridge with its address, or brings what is there into that state.
pub(super) async fn bridge(name: &str, address: Ipv4Addr, prefix_len: u8, mtu: u32) -> Result<(), Error> {
    with_handle(|handle| async move {
        // A fixed address keeps the bridge from changing its own with every port that comes and goes.
        let octets = address.octets();
        let hardware = vec![0x0a, 0x58, octets[0], octets[1], octets[2], octets[3]];
        let made = handle.link().add(LinkBridge::new(name).address(hardware).mtu(mtu).up().build()).execute().await;
        or_exists(made).map_err(failed("make bridge", name))?;
        let bridge = index(&handle, name).await.map_err(failed("find bridge", name))?;
        let up = LinkUnspec::new_with_index(bridge).up().build();
        handle.link().set(up).execute().await.map_err(failed("bring up bridge", name))?;
        let added = handle.address().add(bridge, IpAddr::V4(address), prefix_len).execute().await;
        or_exists(added).map_err(failed("give an address to bridge", name))
    })
    .await?;
    // Node ports on 127.0.0.1 leave through the bridge with a loopback source until they are masqueraded.
    super::set_sysctl(&format!("net/ipv4/conf/{name}/route_localnet"), "1");
    Ok(())
}

/// Adds an address to a link, if it has it not.
pub(super) async fn add_address(name: &str, address: Ipv4Addr, prefix_len: u8) -> Result<(), Error> {
    with_handle(|handle| async move {
        let link = index(&handle, name).await.map_err(failed("find", name))?;
        let added = handle.address().add(link, IpAddr::V4(address), prefix_len).execute().await;
        or_exists(added).map_err(failed("give an address to", name))
    })
    .await
}

/// Adds a route through a link, if it is not there.
pub(super) async fn add_route(name: &str, to: ipnet::Ipv4Net, source: Ipv4Addr) -> Result<(), Error> {
    with_handle(|handle| async move {
        let link = index(&handle, name).await.map_err(failed("find", name))?;
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(to.network(), to.prefix_len())
            .output_interface(link)
            .pref_source(source)
            .build();
        or_exists(handle.route().add(route).execute().await).map_err(failed("add a route through", name))
    })
    .await
}

/// A sandbox's connection.
#[derive(Clone, Debug)]
pub(super) struct Pair {
    pub(super) netns: PathBuf,
    pub(super) host_name: String,
    pub(super) bridge: String,
    pub(super) address: Ipv4Addr,
    pub(super) prefix_len: u8,
    pub(super) gateway: Ipv4Addr,
    pub(super) mtu: u32,
}

/// Makes the veth pair, its far end in the sandbox's namespace with address and routes.
pub(super) async fn connect(pair: &Pair) -> Result<(), Error> {
    let netns = File::open(&pair.netns).map_err(|source| Error::Enter { path: pair.netns.clone(), source })?;
    let peer = format!("{}p", pair.host_name);
    let host_name = pair.host_name.as_str();
    with_handle(|handle| {
        let (netns, peer) = (&netns, peer.as_str());
        async move {
            // Left by an attempt that was cut short.
            delete_with(&handle, host_name).await?;
            let bridge = index(&handle, &pair.bridge).await.map_err(failed("find bridge", &pair.bridge))?;
            let veth = LinkVeth::new(host_name, peer).mtu(pair.mtu).controller(bridge).up().build();
            handle.link().add(veth).execute().await.map_err(failed("make veth", host_name))?;
            let host = index(&handle, host_name).await.map_err(failed("find veth", host_name))?;
            let hairpin = LinkUnspec::new_with_index(host)
                .set_port_kind(InfoPortKind::Bridge)
                .set_port_data(InfoPortData::BridgePort(vec![InfoBridgePort::HairpinMode(true)]))
                .build();
            handle.link().set_port(hairpin).execute().await.map_err(failed("set hairpin mode of", host_name))?;
            let far = index(&handle, peer).await.map_err(failed("find veth", peer))?;
            let moved = LinkUnspec::new_with_index(far).mtu(pair.mtu).setns_by_fd(netns.as_raw_fd()).build();
            handle.link().set(moved).execute().await.map_err(failed("move into its sandbox veth", peer))
        }
    })
    .await?;
    let inside = pair.clone();
    in_netns(&pair.netns, move || configure(inside, peer)).await
}

/// Names the far end `eth0` and gives it its address and the default route.
async fn configure(pair: Pair, peer: String) -> Result<(), Error> {
    with_handle(|handle| async move {
        let loopback = LinkUnspec::new_with_name("lo").up().build();
        handle.link().set(loopback).execute().await.map_err(failed("bring up", "lo"))?;
        let link = index(&handle, &peer).await.map_err(failed("find", &peer))?;
        let octets = pair.address.octets();
        let hardware = vec![0x0a, 0x58, octets[0], octets[1], octets[2], octets[3]];
        let named = LinkUnspec::new_with_index(link).name("eth0").address(hardware).build();
        handle.link().set(named).execute().await.map_err(failed("rename", &peer))?;
        let added = handle.address().add(link, IpAddr::V4(pair.address), pair.prefix_len).execute().await;
        or_exists(added).map_err(failed("give an address to", "eth0"))?;
        let up = LinkUnspec::new_with_index(link).up().build();
        handle.link().set(up).execute().await.map_err(failed("bring up", "eth0"))?;
        let route = RouteMessageBuilder::<Ipv4Addr>::new().gateway(pair.gateway).output_interface(link).build();
        let routed = handle.route().add(route).execute().await;
        or_exists(routed).map_err(failed("add the default route of", "eth0"))
    })
    .await
}

/// Runs `work` on a thread of its own that has entered the namespace.
async fn in_netns<F>(netns: &Path, work: impl FnOnce() -> F + Send + 'static) -> Result<(), Error>
where
    F: Future<Output = Result<(), Error>>,
{
    let path = netns.to_path_buf();
    let (sender, result) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let fail = |source| Error::Enter { path: path.clone(), source };
        let entered = File::open(&path)
            .and_then(|file| nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET).map_err(Into::into));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let done = match (entered, runtime) {
            (Ok(()), Ok(runtime)) => runtime.block_on(work()),
            (Err(error), _) | (_, Err(error)) => Err(fail(error)),
        };
        let _ = sender.send(done); // the caller may have given up
    });
    result.await.unwrap_or_else(|_| {
        Err(Error::Enter { path: netns.to_path_buf(), source: std::io::Error::other("the thread panicked") })
    })
}

async fn delete_with(handle: &Handle, name: &str) -> Result<(), Error> {
    let link = match index(handle, name).await {
        Ok(link) => link,
        Err(error) if code(&error) == ENODEV => return Ok(()),
        Err(error) => return Err(failed("find", name)(error)),
    };
    match handle.link().del(link).execute().await {
        Err(error) if code(&error) == ENODEV => Ok(()),
        other => other.map_err(failed("delete", name)),
    }
}

/// Deletes a link, if it is there.
pub(super) async fn delete(name: &str) -> Result<(), Error> {
    with_handle(|handle| async move { delete_with(&handle, name).await }).await
}

/// Names of the links that begin with `prefix` and go on with a hexadecimal digit: ours.
pub(super) async fn named(prefix: &str) -> Result<Vec<String>, Error> {
    with_handle(|handle| async move {
        let mut links = handle.link().get().execute();
        let mut names = Vec::new();
        while let Some(link) = links.try_next().await.map_err(failed("list", "links"))? {
            names.extend(link.attributes.into_iter().filter_map(|attribute| match attribute {
                LinkAttribute::IfName(name) => Some(name),
                _ => None,
            }));
        }
        names.retain(|name| {
            name.strip_prefix(prefix)
                .is_some_and(|rest| !rest.is_empty() && rest.chars().all(|c| c.is_ascii_hexdigit() || c == 'p'))
        });
        Ok(names)
    })
    .await
}
