//! Files of a volume that is rendered from the API.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1 as core;

use super::{Context, Error};
use crate::pod::fields;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct File {
    pub(super) data: Vec<u8>,
    pub(super) mode: u32,
    /// Owner, for tokens of a pod whose containers all run as one user.
    pub(super) owner: Option<u32>,
}

/// Files by their path within the volume.
pub(super) type Payload = BTreeMap<String, File>;

/// Mode of files without one of their own.
pub(super) const DEFAULT_MODE: i32 = 0o644;

/// Puts the keys of a ConfigMap or Secret into `payload`: all of them, or those that `items` chooses.
pub(super) fn keys(
    payload: &mut Payload,
    data: &BTreeMap<String, Vec<u8>>,
    items: &[core::KeyToPath],
    default_mode: i32,
    optional: bool,
    what: &'static str,
) -> Result<(), Error> {
    if items.is_empty() {
        for (key, value) in data {
            put(payload, key, value.clone(), default_mode)?;
        }
        return Ok(());
    }
    for item in items {
        let Some(value) = data.get(&item.key) else {
            if optional {
                continue;
            }
            return Err(Error::NoKey { what, key: item.key.clone() });
        };
        put(payload, &item.path, value.clone(), item.mode.unwrap_or(default_mode))?;
    }
    Ok(())
}

/// Puts one file; a path that would leave the volume is refused.
pub(super) fn put(payload: &mut Payload, path: &str, data: Vec<u8>, mode: i32) -> Result<(), Error> {
    let inside = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    if path.is_empty() || !inside || path.starts_with("..") {
        return Err(Error::Refused(format!("invalid path {path:?}: must be relative and stay in the volume")));
    }
    let mode = u32::try_from(mode).unwrap_or(0o644);
    payload.insert(path.to_owned(), File { data, mode, owner: None });
    Ok(())
}

pub(super) fn config_map_data(map: &core::ConfigMap) -> BTreeMap<String, Vec<u8>> {
    let text = map.data.iter().flatten().map(|(key, value)| (key.clone(), value.clone().into_bytes()));
    text.chain(binary(map.binary_data.as_ref())).collect()
}

pub(super) fn binary(data: Option<&BTreeMap<String, ByteString>>) -> impl Iterator<Item = (String, Vec<u8>)> {
    data.into_iter().flatten().map(|(key, value)| (key.clone(), value.0.clone()))
}

/// Files of a downward API volume or projection.
pub(super) fn downward(
    payload: &mut Payload,
    context: &Context<'_>,
    items: &[core::DownwardAPIVolumeFile],
    default_mode: i32,
) -> Result<(), Error> {
    for item in items {
        let text = match (&item.field_ref, &item.resource_field_ref) {
            (Some(reference), _) => fields::field(context.pod, &reference.field_path, context.node, context.addresses)?,
            (None, Some(reference)) => fields::resource(context.pod, reference, "", context.node)?,
            (None, None) => continue,
        };
        put(payload, &item.path, text.into_bytes(), item.mode.unwrap_or(default_mode))?;
    }
    Ok(())
}
