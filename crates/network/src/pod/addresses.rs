//! Which sandbox has which address: one file for each address, its name the address, its text the sandbox.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    io::Write,
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use ipnet::Ipv4Net;

use super::Error;

#[derive(Debug)]
pub(super) struct Addresses {
    directory: PathBuf,
    cidr: Ipv4Net,
    by_address: BTreeMap<Ipv4Addr, String>,
    by_sandbox: HashMap<String, Ipv4Addr>,
    /// Where the next search begins, so that an address rests before it is given again.
    next: u32,
}

impl Addresses {
    /// Reads what earlier processes gave out.
    pub(super) fn open(directory: &Path, cidr: Ipv4Net) -> Result<Self, Error> {
        let fail = |action| move |source| Error::File { action, path: directory.to_path_buf(), source };
        fs::create_dir_all(directory).map_err(fail("create"))?;
        let mut addresses = Self {
            directory: directory.to_path_buf(),
            cidr,
            by_address: BTreeMap::new(),
            by_sandbox: HashMap::new(),
            next: 0,
        };
        for entry in fs::read_dir(directory).map_err(fail("read"))? {
            let path = entry.map_err(fail("read"))?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let Ok(address) = name.parse::<Ipv4Addr>() else { continue };
            let sandbox = fs::read_to_string(&path).map_err(fail("read"))?;
            if sandbox.is_empty() {
                // Cut short by a crash before anybody used it.
                fs::remove_file(&path).map_err(fail("clean"))?;
                continue;
            }
            addresses.by_sandbox.insert(sandbox.clone(), address);
            addresses.by_address.insert(address, sandbox);
        }
        Ok(addresses)
    }

    /// The sandbox's address, a new one if it has none.
    pub(super) fn allocate(&mut self, sandbox: &str) -> Result<Ipv4Addr, Error> {
        if let Some(address) = self.address(sandbox) {
            return Ok(address);
        }
        let (network, broadcast) = (u32::from(self.cidr.network()), u32::from(self.cidr.broadcast()));
        // Without the network's address, the gateway and the broadcast address.
        let (first, last) = (network + 2, broadcast.saturating_sub(1));
        let size = (last + 1).saturating_sub(first);
        let free = (0..size)
            .map(|step| first + (self.next + step) % size)
            .find(|candidate| !self.by_address.contains_key(&Ipv4Addr::from(*candidate)));
        let Some(found) = free else {
            return Err(Error::Exhausted { cidr: self.cidr, used: self.by_address.len() });
        };
        self.next = (found - first + 1) % size;
        let address = Ipv4Addr::from(found);
        let path = self.directory.join(address.to_string());
        let written = fs::File::create(&path).and_then(|mut file| file.write_all(sandbox.as_bytes()));
        written.map_err(|source| Error::File { action: "write", path, source })?;
        self.by_address.insert(address, sandbox.to_string());
        self.by_sandbox.insert(sandbox.to_string(), address);
        Ok(address)
    }

    pub(super) fn address(&self, sandbox: &str) -> Option<Ipv4Addr> {
        self.by_sandbox.get(sandbox).copied()
    }

    pub(super) fn release(&mut self, sandbox: &str) -> Result<(), Error> {
        let Some(address) = self.address(sandbox) else { return Ok(()) };
        let path = self.directory.join(address.to_string());
        match fs::remove_file(&path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::File { action: "remove", path, source });
            }
            _ => {}
        }
        self.by_sandbox.remove(sandbox);
        self.by_address.remove(&address);
        Ok(())
    }

    /// Sandboxes with an address that are not among these.
    pub(super) fn others(&self, sandboxes: &[String]) -> Vec<String> {
        self.by_address.values().filter(|sandbox| !sandboxes.contains(sandbox)).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_a_restart_and_rest_before_reuse() {
        let directory = tempfile::tempdir().unwrap();
        let cidr = "10.0.0.0/29".parse().unwrap();
        let mut addresses = Addresses::open(directory.path(), cidr).unwrap();
        let a = addresses.allocate("a").unwrap();
        assert_eq!(a, Ipv4Addr::new(10, 0, 0, 2));
        assert_eq!(addresses.allocate("a").unwrap(), a);
        addresses.release("a").unwrap();
        assert_eq!(addresses.allocate("b").unwrap(), Ipv4Addr::new(10, 0, 0, 3));

        let mut again = Addresses::open(directory.path(), cidr).unwrap();
        assert_eq!(again.address("b"), Some(Ipv4Addr::new(10, 0, 0, 3)));
        for name in ["c", "d", "e", "f"] {
            again.allocate(name).unwrap();
        }
        let error = again.allocate("g").unwrap_err();
        assert_eq!(error.to_string(), "no address left in 10.0.0.0/29: 5 are in use");
        assert_eq!(again.others(&["b".into(), "c".into(), "d".into(), "e".into()]), ["f"]);
    }
}
