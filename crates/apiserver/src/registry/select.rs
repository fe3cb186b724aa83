//! Which objects a list or watch wants: label and field selectors over stored bytes.
//!
//! Labels stand in the metadata that begins every stored object, so a label selector reads no further than that; a
//! selector on the name or namespace reads only the key. Other fields need the whole object.

use std::{borrow::Cow, collections::BTreeMap};

use api::{
    selector::{FieldSelector, LabelSelector},
    status::Status,
    stored,
};
use serde::Deserialize;

use super::caches::{self, Attrs};
use crate::{catalog::Served, pipeline::query::Query};

/// Length of `{"metadata":`, behind which the metadata object begins.
pub(super) const METADATA_AT: usize = stored::HEAD.len() - 1;

/// A parsed pair of selectors.
#[derive(Clone)]
pub(crate) struct Selection {
    served: Served,
    labels: Option<LabelSelector>,
    fields: Option<FieldSelector>,
    /// Terms beyond `metadata.name` and `metadata.namespace` are there.
    deep: bool,
}

#[derive(Deserialize)]
struct Metadata<'a> {
    #[serde(borrow, default)]
    labels: BTreeMap<Cow<'a, str>, Cow<'a, str>>,
}

impl Selection {
    pub(crate) fn parse(query: &Query, served: &Served) -> Result<Self, Status> {
        let labels = match query.text("labelSelector") {
            None => None,
            Some(text) => Some(LabelSelector::parse(text).map_err(|why| Status::bad_request(why.to_string()))?),
        };
        let fields = match query.text("fieldSelector") {
            None => None,
            Some(text) => {
                let fields = FieldSelector::parse(text).map_err(|why| Status::bad_request(why.to_string()))?;
                check_names(served, &fields)?;
                Some(fields)
            }
        };
        let deep = fields.as_ref().is_some_and(|fields| {
            fields.terms().iter().any(|term| !matches!(&*term.field, "metadata.name" | "metadata.namespace"))
        });
        Ok(Self { served: served.clone(), labels, fields, deep })
    }

    /// Everything is selected.
    pub(crate) fn is_empty(&self) -> bool {
        self.labels.is_none() && self.fields.is_none()
    }

    /// Judges a stored object.
    pub(crate) fn matches(&self, key: &str, bytes: &[u8]) -> bool {
        self.fields_match(key, bytes) && self.labels_match(bytes)
    }

    /// Judges an object by what its cache knows of it.
    pub(crate) fn matches_cached(&self, attrs: &Attrs) -> bool {
        let fields_match = self.fields.as_ref().is_none_or(|selector| {
            let (namespace, name) = self.split(attrs.key());
            selector.matches(|field| match field {
                "metadata.name" => Some(name),
                "metadata.namespace" => Some(namespace),
                _ => {
                    let fields = attrs.fields(&self.served);
                    fields.iter().find(|(own, _)| *own == field).map(|(_, value)| value.as_str())
                }
            })
        });
        fields_match && self.labels.as_ref().is_none_or(|selector| selector.matches(|name| attrs.label(name)))
    }

    /// The value of an indexed field that everything selected has.
    pub(crate) fn index(&self) -> Option<(&'static str, &str)> {
        let is_pods = self.served.resource.plural == "pods" && self.served.resource.group.is_empty();
        self.fields.as_ref().filter(|_| is_pods)?.exact(caches::NODE_NAME).map(|node| (caches::NODE_NAME, node))
    }

    fn labels_match(&self, bytes: &[u8]) -> bool {
        let Some(selector) = &self.labels else { return true };
        let Some(rest) = bytes.get(METADATA_AT..) else { return false };
        let mut values = serde_json::Deserializer::from_slice(rest).into_iter::<Metadata<'_>>();
        let Some(Ok(metadata)) = values.next() else { return false };
        selector.matches(|name| metadata.labels.get(name).map(AsRef::as_ref))
    }

    fn fields_match(&self, key: &str, bytes: &[u8]) -> bool {
        let Some(selector) = &self.fields else { return true };
        let (namespace, name) = self.split(key);
        if !self.deep {
            return selector.matches(|field| match field {
                "metadata.name" => Some(name),
                "metadata.namespace" => Some(namespace),
                _ => None,
            });
        }
        let Ok(object) = serde_json::from_slice(bytes) else { return false };
        let fields = self.served.resource.hooks.fields(&object);
        selector.matches(|field| match field {
            "metadata.name" => Some(name),
            "metadata.namespace" => Some(namespace),
            _ => fields.iter().find(|(own, _)| *own == field).map(|(_, value)| value.as_str()),
        })
    }

    /// Namespace and name out of a key.
    fn split<'k>(&self, key: &'k str) -> (&'k str, &'k str) {
        let mut parts = key.rsplit('/');
        let name = parts.next().unwrap_or_default();
        let namespace = if self.served.resource.namespaced { parts.next().unwrap_or_default() } else { "" };
        (namespace, name)
    }

    /// The one name that can match, when a field selector fixes it.
    pub(crate) fn only_name(&self) -> Option<&str> {
        self.fields.as_ref()?.exact("metadata.name")
    }
}

/// A selector on a field that the kind does not offer is a 400.
fn check_names(served: &Served, fields: &FieldSelector) -> Result<(), Status> {
    let own = served.resource.hooks.field_names();
    for term in fields.terms() {
        let known = matches!(&*term.field, "metadata.name" | "metadata.namespace") || own.contains(&&*term.field);
        if !known && own.is_empty() {
            return Err(Status::bad_request(format!(
                "{:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"",
                term.field
            )));
        }
        if !known {
            return Err(Status::bad_request(format!("field label not supported: {}", term.field)));
        }
    }
    Ok(())
}
