//! Rules of volumes, their sources, and the mounts that refer to them.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::env;
use crate::validation::{
    claim,
    field::{Errors, Field},
    names,
};

const MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";
const TOKEN_SECONDS_MIN: i64 = 600;
const TOKEN_SECONDS_MAX: i64 = 1 << 32;

/// The well-formed volumes of a pod, by name.
pub(super) struct Volumes<'a> {
    by_name: HashMap<&'a str, &'a Value>,
}

impl<'a> Volumes<'a> {
    /// Judges the list and keeps what mounts may refer to.
    pub(super) fn read(errors: &mut Errors, volumes: &Field<'a>, pod_name: &str) -> Self {
        let mut by_name = HashMap::new();
        let claimed: HashSet<String> = volumes
            .list()
            .iter()
            .filter(|volume| !pod_name.is_empty() && volume["ephemeral"].is_object())
            .map(|volume| format!("{pod_name}-{}", volume["name"].as_str().unwrap_or_default()))
            .collect();
        for (index, value) in volumes.list().iter().enumerate() {
            let volume = &volumes.index(index);
            let before = errors.len();
            source(errors, volume);
            let name = value["name"].as_str().unwrap_or_default();
            match name {
                "" => errors.push(volume.get("name").required("")),
                text => volume.get("name").judge(errors, names::dns_label(text)),
            }
            if !pod_name.is_empty() && value["ephemeral"].is_object() {
                let claim = format!("{pod_name}-{name}");
                for message in names::dns_subdomain(&claim) {
                    errors.push(volume.get("name").invalid(format!("PVC name {claim:?}: {message}")));
                }
            }
            if by_name.contains_key(name) {
                errors.push(volume.get("name").duplicate());
            }
            if errors.len() == before {
                by_name.insert(name, value);
            }
            let claim = volume.get("persistentVolumeClaim.claimName");
            if claimed.contains(claim.str()) {
                errors.push(claim.invalid("must not reference a PVC that gets created for an ephemeral volume"));
            }
        }
        Self { by_name }
    }

    /// `volumeMounts` of a container.
    pub(super) fn mounts(&self, errors: &mut Errors, container: &Field<'_>) {
        let mounts = &container.get("volumeMounts");
        let devices = container.get("volumeDevices").list();
        let privileged = container.get("securityContext.privileged").is_true();
        let mut paths = HashSet::new();
        for mount in mounts.items() {
            let (name, path) = (mount.get("name"), mount.get("mountPath"));
            if name.is_empty() {
                errors.push(name.required(""));
            }
            if !self.by_name.contains_key(name.str()) {
                errors.push(crate::status::FieldError::not_found(name.path(), name.str()));
            }
            if path.is_empty() {
                errors.push(path.required(""));
            }
            if !paths.insert(&mount.value()["mountPath"]) {
                errors.push(path.invalid("must be unique"));
            }
            if devices.iter().any(|device| device["name"] == name.str()) {
                errors.push(name.invalid("must not already exist in volumeDevices"));
            }
            if devices.iter().any(|device| device["devicePath"] == path.str()) {
                errors.push(path.invalid("must not already exist as a path in volumeDevices"));
            }
            let (sub, expression) = (mount.get("subPath"), mount.get("subPathExpr"));
            if !sub.is_empty() && !expression.is_empty() {
                errors.push(expression.invalid("subPathExpr and subPath are mutually exclusive"));
            }
            let start = errors.len();
            for path in [sub, expression].into_iter().filter(|path| !path.is_empty()) {
                descending_path(errors, &path);
            }
            propagation(errors, &mount, privileged);
            // Upstream reports these at the list.
            let (item, list) = (mount.path(), mounts.path());
            for error in &mut errors[start..] {
                error.field = error.field.replacen(&item, &list, 1);
            }
        }
    }

    /// `volumeDevices` of a container.
    pub(super) fn devices(&self, errors: &mut Errors, container: &Field<'_>) {
        let devices = &container.get("volumeDevices");
        let mounts = container.get("volumeMounts").list();
        for (index, device) in devices.items().enumerate() {
            let (name, path) = (device.get("name"), device.get("devicePath"));
            let before = &devices.list()[..index];
            match name.str() {
                "" => errors.push(name.required("")),
                text if before.iter().any(|other| other["name"] == text) => errors.push(name.invalid("must be unique")),
                _ => {}
            }
            match self.by_name.get(name.str()) {
                None => errors.push(name.not_found()),
                Some(volume) if volume["persistentVolumeClaim"].is_null() && volume["ephemeral"].is_null() => {
                    errors.push(name.invalid(
                        "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode",
                    ));
                }
                Some(_) => {}
            }
            match path.str() {
                "" => errors.push(path.required("")),
                text if before.iter().any(|other| other["devicePath"] == text) => {
                    errors.push(path.invalid("must be unique"));
                }
                text if climbs(text) => errors.push(path.invalid("can not contain backsteps ('..')")),
                _ => {}
            }
            if mounts.iter().any(|mount| mount["name"] == name.str()) {
                errors.push(name.invalid("must not already exist in volumeMounts"));
            }
            if mounts.iter().any(|mount| mount["mountPath"] == path.str()) {
                errors.push(path.invalid("must not already exist as a path in volumeMounts"));
            }
        }
    }
}

fn propagation(errors: &mut Errors, mount: &Field<'_>, privileged: bool) {
    let mode = mount.get("mountPropagation");
    if mode.exists() {
        mode.one_of(errors, &["Bidirectional", "HostToContainer", "None"]);
        if mode.str() == "Bidirectional" && !privileged {
            errors.push(mode.forbidden("Bidirectional mount propagation is available only to privileged containers"));
        }
    }
    let recursive = mount.get("recursiveReadOnly");
    if !recursive.exists() || recursive.str() == "Disabled" {
        return;
    }
    if recursive.one_of(errors, &["Disabled", "Enabled", "IfPossible"]) {
        if !mount.get("readOnly").is_true() {
            errors.push(recursive.forbidden("may only be specified when readOnly is true"));
        }
        if !matches!(mode.str(), "" | "None") {
            errors.push(recursive.forbidden("may only be specified when mountPropagation is None or not specified"));
        }
    }
}

fn climbs(path: &str) -> bool {
    path.split('/').any(|part| part == "..")
}

/// A relative path that stays below where it starts.
pub(super) fn descending_path(errors: &mut Errors, path: &Field<'_>) {
    if path.str().starts_with('/') {
        errors.push(path.invalid("must be a relative path"));
    }
    if climbs(path.str()) {
        errors.push(path.invalid("must not contain '..'"));
    }
}

/// A [`descending_path`] that leaves names with two leading dots to the kubelet.
fn plain_path(errors: &mut Errors, path: &Field<'_>) {
    descending_path(errors, path);
    if path.str().starts_with("..") && !path.str().starts_with("../") {
        errors.push(path.invalid("must not start with '..'"));
    }
}

fn mode(errors: &mut Errors, mode: &Field<'_>) {
    if mode.int().is_some_and(|mode| !(0..=0o777).contains(&mode)) {
        errors.push(mode.invalid(MODE));
    }
}

/// Members that must have a value, by source.
const REQUIRED: &[(&str, &[&str])] = &[
    ("persistentVolumeClaim", &["claimName"]),
    ("nfs", &["server", "path"]),
    ("gcePersistentDisk", &["pdName"]),
    ("awsElasticBlockStore", &["volumeID"]),
    ("glusterfs", &["endpoints", "path"]),
    ("flexVolume", &["driver"]),
    ("azureFile", &["secretName", "shareName"]),
    ("azureDisk", &["diskName", "diskURI"]),
    ("vsphereVolume", &["volumePath"]),
    ("portworxVolume", &["volumeID"]),
    ("cephfs", &["monitors"]),
    ("cinder", &["volumeID"]),
    ("rbd", &["monitors", "image"]),
    ("iscsi", &["targetPortal", "iqn"]),
    ("gitRepo", &["repository"]),
    ("quobyte", &["registry", "volume"]),
    ("photonPersistentDisk", &["pdID"]),
    ("scaleIO", &["gateway", "system", "volumeName"]),
    ("csi", &["driver"]),
    ("ephemeral", &["volumeClaimTemplate"]),
];

/// Exactly one source, and that one well-formed.
fn source(errors: &mut Errors, volume: &Field<'_>) {
    let mut given = false;
    for (name, value) in volume.map().into_iter().flatten() {
        if name == "name" || value.is_null() {
            continue;
        }
        let source = &volume.get(name);
        if given {
            errors.push(source.forbidden("may not specify more than 1 volume type"));
            continue;
        }
        given = true;
        for member in REQUIRED.iter().filter(|(source, _)| source == name).flat_map(|(_, members)| *members) {
            if source.get(member).is_empty() {
                errors.push(source.get(member).required(""));
            }
        }
        match name.as_str() {
            "emptyDir" => {
                let limit = source.get("sizeLimit");
                if super::resources::parse(limit.value()).is_some_and(|limit| limit.sign() < 0) {
                    errors.push(limit.forbidden("SizeLimit field must be a valid resource quantity"));
                }
            }
            "hostPath" => host_path(errors, source),
            "secret" => keyed(errors, source, "secretName"),
            "configMap" => keyed(errors, source, "name"),
            "downwardAPI" => {
                mode(errors, &source.get("defaultMode"));
                let items = &source.get("items");
                for item in items.items() {
                    downward_file(errors, &item, source);
                }
            }
            "projected" => projected(errors, source),
            "nfs" => {
                let path = source.get("path");
                if !path.str().starts_with('/') {
                    errors.push(path.invalid("must be an absolute path"));
                }
            }
            "ephemeral" => {
                let template = &source.get("volumeClaimTemplate");
                if template.exists() {
                    claim::spec(errors, &template.get("spec"));
                }
            }
            "image" => {
                let reference = source.get("reference");
                if reference.is_empty() {
                    errors.push(reference.required(""));
                }
                source.get("pullPolicy").required_one_of(errors, &["Always", "IfNotPresent", "Never"]);
            }
            _ => {}
        }
    }
    if !given {
        errors.push(volume.required("must specify a volume type"));
    }
}

/// `hostPath`, of a pod or a PersistentVolume.
pub(crate) fn host_path(errors: &mut Errors, source: &Field<'_>) {
    let path = source.get("path");
    if path.is_empty() {
        errors.push(path.required(""));
        return;
    }
    if climbs(path.str()) {
        errors.push(path.invalid("must not contain '..'"));
    }
    let kind = source.get("type");
    if !kind.is_empty() {
        kind.one_of(
            errors,
            &["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"],
        );
    }
}

fn keyed(errors: &mut Errors, source: &Field<'_>, name: &str) {
    if source.get(name).is_empty() {
        errors.push(source.get(name).required(""));
    }
    mode(errors, &source.get("defaultMode"));
    let items = &source.get("items");
    for item in items.items() {
        key_to_path(errors, &item);
    }
}

/// One key of a ConfigMap or Secret as a file.
fn key_to_path(errors: &mut Errors, item: &Field<'_>) {
    for name in ["key", "path"] {
        if item.get(name).is_empty() {
            errors.push(item.get(name).required(""));
        }
    }
    plain_path(errors, &item.get("path"));
    mode(errors, &item.get("mode"));
}

/// One file of the downward API. Upstream reports it at the list's owner, not at the item.
fn downward_file(errors: &mut Errors, file: &Field<'_>, owner: &Field<'_>) {
    let start = errors.len();
    let path = file.get("path");
    if path.is_empty() {
        errors.push(path.required(""));
    }
    plain_path(errors, &path);
    let (field, resource) = (file.get("fieldRef"), file.get("resourceFieldRef"));
    if field.exists() {
        env::field_ref(errors, &field, env::FILE_FIELDS);
        if resource.exists() {
            errors.push(
                file.invalid_value("resource", "fieldRef and resourceFieldRef can not be specified simultaneously"),
            );
        }
    } else if resource.exists() {
        env::resource_ref(errors, &resource, true);
    } else {
        errors.push(file.required("one of fieldRef and resourceFieldRef is required"));
    }
    mode(errors, &file.get("mode"));
    let (item, owner) = (file.path(), owner.path());
    for error in &mut errors[start..] {
        if let Some(rest) = error.field.strip_prefix(&item) {
            error.field = format!("{owner}{rest}");
        }
    }
}

/// Kinds of projected source, in the order in which their paths are compared.
const PROJECTIONS: &[&str] =
    &["secret", "configMap", "downwardAPI", "serviceAccountToken", "clusterTrustBundle", "podCertificate"];

fn projected(errors: &mut Errors, projected: &Field<'_>) {
    mode(errors, &projected.get("defaultMode"));
    let sources = &projected.get("sources");
    let mut paths: HashSet<String> = HashSet::new();
    for source in sources.items() {
        let mut kinds = 0;
        for name in PROJECTIONS {
            if !source.get(name).exists() {
                continue;
            }
            kinds += 1;
            let part = &source.get(name);
            let mut written: Vec<(String, &str)> = Vec::new();
            let items = &part.get("items");
            match *name {
                "secret" | "configMap" => {
                    if part.get("name").is_empty() {
                        errors.push(part.get("name").required(""));
                    }
                    for item in items.items() {
                        key_to_path(errors, &item);
                    }
                    let owner = part.get("name").str();
                    written.extend(paths_of(items).map(|path| (path, owner)));
                }
                "downwardAPI" => {
                    for item in items.items() {
                        downward_file(errors, &item, part);
                    }
                    written.extend(paths_of(items).map(|path| (path, "")));
                }
                "serviceAccountToken" => token(errors, part, projected),
                _ => {}
            }
            for (path, owner) in written {
                let shown = if owner.is_empty() { path.clone() } else { owner.to_string() };
                if !path.is_empty() && !paths.insert(path) {
                    errors.push(projected.invalid_value(shown, "conflicting duplicate paths"));
                }
            }
        }
        if kinds > 1 {
            errors.push(source.forbidden("may not specify more than 1 volume type per source"));
        }
    }
}

fn paths_of(items: &Field<'_>) -> impl Iterator<Item = String> {
    items.list().iter().filter_map(|item| item["path"].as_str().map(str::to_string))
}

/// A service account's token. Its path is reported at the volume, as upstream does.
fn token(errors: &mut Errors, token: &Field<'_>, volume: &Field<'_>) {
    let seconds = token.get("expirationSeconds");
    let number = seconds.int().unwrap_or(0);
    if number < TOKEN_SECONDS_MIN {
        errors.push(seconds.invalid("may not specify a duration less than 10 minutes"));
    }
    if number > TOKEN_SECONDS_MAX {
        errors.push(seconds.invalid("may not specify a duration larger than 2^32 seconds"));
    }
    let path = token.get("path");
    let start = errors.len();
    if path.is_empty() {
        errors.push(path.required(""));
    } else {
        plain_path(errors, &path);
    }
    for error in &mut errors[start..] {
        error.field = format!("{}.path", volume.path());
    }
}
