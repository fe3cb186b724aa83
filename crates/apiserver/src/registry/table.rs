//! `Table`: what `kubectl get` prints, a row for each object.

use std::{collections::HashMap, sync::LazyLock};

use api::status::Status;
use serde_json::{Value, json};

use super::output;
use crate::{
    catalog::Served,
    pipeline::{call::Call, query::Query},
};

static COLUMNS: LazyLock<HashMap<String, Vec<Value>>> =
    LazyLock::new(|| serde_json::from_str(include_str!("../../../api/data/columns.json")).unwrap_or_default());

/// What a row carries of its object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Include {
    None,
    Metadata,
    Object,
}

/// A table of one resource's objects.
pub(crate) struct Table {
    served: Served,
    version: &'static str,
    columns: Vec<Value>,
    include: Include,
    headless: bool,
    now: String,
}

impl Table {
    pub(crate) fn new(call: &Call, served: &Served, version: &'static str, query: &Query) -> Result<Self, Status> {
        let include = match query.text("includeObject") {
            None | Some("Metadata") => Include::Metadata,
            Some("None") => Include::None,
            Some("Object") => Include::Object,
            Some(other) => {
                return Err(Status::bad_request(format!("unrecognized includeObject value: {other:?}")));
            }
        };
        let key = format!("{}/{}/{}", served.resource.group, served.version().name, served.resource.plural);
        let own = served.resource.hooks.columns(&served.version().name);
        let columns = own.or_else(|| COLUMNS.get(&key).cloned()).unwrap_or_else(|| {
            vec![
                json!({"name": "Name", "type": "string", "format": "name", "description": "", "priority": 0}),
                json!({"name": "Age", "type": "string", "format": "", "description": "", "priority": 0}),
            ]
        });
        Ok(Self { served: served.clone(), version, columns, include, headless: false, now: call.now.clone() })
    }

    /// A row of an object in the request's version.
    pub(crate) fn row(&self, object: &Value) -> Value {
        let cells = self.served.resource.hooks.row(object, &self.now).unwrap_or_else(|| {
            vec![object["metadata"]["name"].clone(), object["metadata"]["creationTimestamp"].clone()]
        });
        self.with_object(cells, object)
    }

    /// A row without cells, for bookmarks.
    pub(crate) fn bare_row(&self, object: &Value) -> Value {
        self.with_object(vec![Value::Null; self.columns.len()], object)
    }

    fn with_object(&self, cells: Vec<Value>, object: &Value) -> Value {
        match self.include {
            Include::None => json!({"cells": cells}),
            Include::Metadata => json!({"cells": cells, "object": output::partial(object.clone(), self.version)}),
            Include::Object => json!({"cells": cells, "object": object}),
        }
    }

    pub(crate) fn document(&self, rows: Vec<Value>, metadata: Value) -> Value {
        json!({
            "kind": "Table",
            "apiVersion": format!("meta.k8s.io/{}", self.version),
            "metadata": metadata,
            "columnDefinitions": if self.headless { Value::Null } else { self.columns.clone().into() },
            "rows": rows,
        })
    }

    /// Later tables of a stream do not repeat their columns.
    pub(crate) fn headless(&mut self) {
        self.headless = true;
    }
}
