//! Defaults of volume sources that pods and PersistentVolumes share.

use serde_json::Value;

use super::access::Members;

/// Fills the sources that have defaults of their own in both kinds of volume.
pub(crate) fn default_source(volume: &mut Value) {
    if let Some(path) = volume.existing("hostPath")
        && path["type"].is_null()
    {
        path.set("type", "");
    }
    if let Some(iscsi) = volume.existing("iscsi") {
        iscsi.fill("iscsiInterface", "default");
    }
    if let Some(rbd) = volume.existing("rbd") {
        rbd.fill("pool", "rbd");
        rbd.fill("user", "admin");
        rbd.fill("keyring", "/etc/ceph/keyring");
    }
    if let Some(disk) = volume.existing("azureDisk") {
        disk.fill("cachingMode", "ReadWrite");
        disk.fill("fsType", "ext4");
        disk.fill("readOnly", false);
        disk.fill("kind", "Shared");
    }
    if let Some(scale_io) = volume.existing("scaleIO") {
        scale_io.fill("storageMode", "ThinProvisioned");
        scale_io.fill("fsType", "xfs");
    }
}
