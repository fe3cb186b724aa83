use std::os::unix::fs::MetadataExt;

use super::*;

enum Item<'a> {
    Dir(&'a str),
    File(&'a str, &'a str),
    Symlink(&'a str, &'a str),
    Link(&'a str, &'a str),
    Xattr(&'a str, &'a str, &'a str),
}

fn archive(items: &[Item<'_>]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for item in items {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_mtime(1000);
        header.set_uid(7);
        header.set_gid(8);
        header.set_size(0);
        // The builder refuses paths with `..`; a hostile image does not.
        let mut named = |path: &str| {
            header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
            header.clone()
        };
        match item {
            Item::Dir(path) => {
                let mut header = named(path);
                header.set_entry_type(EntryType::Directory);
                header.set_mode(0o755);
                header.set_cksum();
                builder.append(&header, io::empty()).unwrap();
            }
            Item::File(path, text) | Item::Xattr(path, text, _) => {
                if let Item::Xattr(_, _, attribute) = item {
                    let (name, value) = attribute.split_once('=').unwrap();
                    builder
                        .append_pax_extensions([(format!("SCHILY.xattr.{name}").as_str(), value.as_bytes())])
                        .unwrap();
                }
                let mut header = named(path);
                header.set_size(text.len() as u64);
                header.set_cksum();
                builder.append(&header, text.as_bytes()).unwrap();
            }
            Item::Symlink(path, to) | Item::Link(path, to) => {
                let mut header = named(path);
                let kind = if matches!(item, Item::Link(..)) { EntryType::Link } else { EntryType::Symlink };
                header.set_entry_type(kind);
                header.as_gnu_mut().unwrap().linkname[..to.len()].copy_from_slice(to.as_bytes());
                header.set_cksum();
                builder.append(&header, io::empty()).unwrap();
            }
        }
    }
    builder.into_inner().unwrap()
}

fn unpacked(items: &[Item<'_>]) -> (tempfile::TempDir, Result<String, Error>) {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("layer");
    fs::create_dir(&target).unwrap();
    let result = unpack(archive(items).as_slice(), &target);
    (dir, result)
}

/// Owners and device nodes need root.
fn root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("skipped: needs root");
    }
    root
}

#[test]
fn files_links_owners_times_and_attributes() {
    if !root() {
        return;
    }
    let (dir, result) = unpacked(&[
        Item::Dir("./etc/"),
        Item::Xattr("etc/a", "text", "user.colour=blue"),
        Item::Link("etc/b", "etc/a"),
        Item::Symlink("c", "/etc/a"),
        Item::File("made/on/the/way", ""),
    ]);
    result.unwrap();
    let layer = dir.path().join("layer");
    let a = fs::metadata(layer.join("etc/a")).unwrap();
    assert_eq!((a.uid(), a.gid(), a.mtime(), a.nlink()), (7, 8, 1000, 2));
    assert_eq!(xattr::get(layer.join("etc/a"), "user.colour").unwrap().as_deref(), Some(b"blue".as_slice()));
    assert_eq!(fs::read_link(layer.join("c")).unwrap(), Path::new("/etc/a"));
    assert_eq!(fs::metadata(layer.join("etc")).unwrap().mtime(), 1000);
    assert!(layer.join("made/on/the/way").exists());
}

#[test]
fn whiteouts_become_what_overlayfs_knows() {
    if !root() {
        return;
    }
    let (dir, result) = unpacked(&[
        Item::Dir("d/"),
        Item::File("d/.wh.gone", ""),
        Item::Dir("o/"),
        Item::File("o/.wh..wh..opq", ""),
        Item::File(".wh.again", ""),
        Item::Dir("again/"),
    ]);
    result.unwrap();
    let layer = dir.path().join("layer");
    assert!(is_whiteout(&fs::symlink_metadata(layer.join("d/gone")).unwrap()));
    for opaque in ["o", "again"] {
        assert_eq!(xattr::get(layer.join(opaque), OPAQUE_XATTR).unwrap().as_deref(), Some(b"y".as_slice()), "{opaque}");
    }
}

#[test]
fn nothing_gets_outside() {
    if !root() {
        return;
    }
    for (items, fails) in [
        (vec![Item::File("../evil", "x")], true),
        (vec![Item::Symlink("up", ".."), Item::File("up/evil", "x")], false),
        (vec![Item::Symlink("abs", "/"), Item::File("abs/evil", "x")], false),
        (vec![Item::Link("evil", "../../etc/passwd")], true),
        (vec![Item::File(".wh...", "")], true),
    ] {
        let (dir, result) = unpacked(&items);
        assert_eq!(result.is_err(), fails, "{result:?}");
        assert!(!dir.path().join("evil").exists() && !Path::new("/evil").exists());
    }
}

#[test]
fn a_symlink_is_replaced_and_not_written_through() {
    if !root() {
        return;
    }
    let (dir, result) = unpacked(&[Item::File("a", "old"), Item::Symlink("l", "a"), Item::File("l", "new")]);
    result.unwrap();
    assert_eq!(fs::read_to_string(dir.path().join("layer/a")).unwrap(), "old");
    assert_eq!(fs::read_to_string(dir.path().join("layer/l")).unwrap(), "new");
}

#[test]
fn compressions_have_one_diff_id() {
    if !root() {
        return;
    }
    let plain = archive(&[Item::File("a", "text")]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    io::Write::write_all(&mut gzip, &plain).unwrap();
    let expect = format!("sha256:{}", hex(&Sha256::digest(&plain)));
    for packed in [plain.clone(), gzip.finish().unwrap(), zstd::encode_all(plain.as_slice(), 1).unwrap()] {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(unpack(packed.as_slice(), dir.path()).unwrap(), expect);
    }
}
