//! Operations: which requests each resource answers, in the form of version 3.

use serde_json::{Map, Value, json};

use super::{Published, custom, definitions::Definitions};
use crate::{
    kind::{Resource, Subresource},
    kinds,
    schema::{Scalar, Schema, Shape},
};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

/// Query parameters: name, type, what it does.
const DRY_RUN: Parameter = ("dryRun", "string", "With the value All nothing is persisted.");
const FIELD_MANAGER: Parameter = ("fieldManager", "string", "Name of the actor who makes the change.");
const FIELD_VALIDATION: Parameter = (
    "fieldValidation",
    "string",
    "What to do about unknown and duplicate fields: Ignore drops them, Warn tells about them in Warning headers, Strict \
     refuses the request.",
);
const FORCE: Parameter = ("force", "boolean", "An apply request takes fields over from other managers.");
const PRETTY: Parameter = ("pretty", "string", "With the value true the output is indented.");
const LIST: &[Parameter] = &[
    ("allowWatchBookmarks", "boolean", "A watch sends bookmarks from time to time."),
    ("continue", "string", "Goes on with a list: the token of the page before."),
    ("fieldSelector", "string", "Restricts the objects by their fields."),
    ("labelSelector", "string", "Restricts the objects by their labels."),
    ("limit", "integer", "Most objects to return; the answer says how to go on."),
    ("resourceVersion", "string", "How recent the answer has to be."),
    ("resourceVersionMatch", "string", "How resourceVersion applies to a list: Exact or NotOlderThan."),
    ("sendInitialEvents", "boolean", "A watch begins with the present objects."),
    ("timeoutSeconds", "integer", "How long a list or watch may last."),
    ("watch", "boolean", "Asks for changes instead of a list."),
];
const DELETE: &[Parameter] = &[
    DRY_RUN,
    ("gracePeriodSeconds", "integer", "How long the object has to end; 0: at once."),
    ("ignoreStoreReadErrorWithClusterBreakingPotential", "boolean", "Deletes objects that cannot be read."),
    ("orphanDependents", "boolean", "Deprecated: use propagationPolicy."),
    ("propagationPolicy", "string", "What becomes of dependents: Orphan, Background or Foreground."),
];
const WRITE: &[Parameter] = &[DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION];
const PATCH: &[Parameter] = &[DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION, FORCE];

const PATCH_TYPES: &[&str] =
    &["application/json-patch+json", "application/merge-patch+json", "application/apply-patch+yaml"];
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const OBJECT_TYPES: &[&str] = &["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
const CUSTOM_TYPES: &[&str] = &["application/json", "application/yaml"];

type Parameter = (&'static str, &'static str, &'static str);

/// All paths of the resources; what they refer to is added to `definitions`.
pub(super) fn build(published: &[Published<'_>], definitions: &mut Definitions<'_>) -> Map<String, Value> {
    let mut paths = Map::new();
    for published in published {
        let base = base(&published.resource.group, &published.version.name);
        if !paths.contains_key(&base) {
            let list = definitions.refer(&format!("{META}.APIResourceList")).unwrap_or_default();
            let operation = json!({
                "tags": [tag(published)],
                "description": "get available resources",
                "operationId": format!("get{}APIResources", group_id(published)),
                "responses": responses(&[200], &list, OBJECT_TYPES),
            });
            paths.insert(base.clone(), json!({"get": operation}));
        }
        Builder::new(published, definitions).write(base.trim_end_matches('/'), &mut paths);
    }
    paths.sort_keys();
    paths
}

/// `/api/v1/` or `/apis/apps/v1/`.
fn base(group: &str, version: &str) -> String {
    format!("/{}/", super::v3_path(group, version))
}

fn tag(published: &Published<'_>) -> String {
    let group = if published.resource.group.is_empty() { "core" } else { group_word(&published.resource.group) };
    format!("{}_{}", group.replace('.', "_"), published.version.name)
}

fn group_word(group: &str) -> &str {
    group.trim_end_matches(".k8s.io")
}

/// `BatchV1`, `RbacAuthorizationV1`.
fn group_id(published: &Published<'_>) -> String {
    let group = if published.resource.group.is_empty() { "core" } else { group_word(&published.resource.group) };
    group.split(['.', '-']).chain([published.version.name.as_str()]).map(capitalized).collect()
}

fn capitalized(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(chars).collect()
}

/// Writes one resource's operations.
struct Builder<'a, 'd, 'o> {
    published: &'a Published<'a>,
    resource: &'a Resource,
    definitions: &'d mut Definitions<'o>,
    object: Value,
    list: Value,
    types: &'static [&'static str],
}

/// What distinguishes one operation.
struct Operation<'a> {
    action: &'a str,
    /// First word of the id, and what stands before the kind in it.
    word: &'a str,
    infix: &'a str,
    /// Behind the kind in the id.
    suffix: &'a str,
    description: String,
    parameters: &'a [Parameter],
    body: Option<Value>,
    codes: &'a [u16],
    response: Value,
    /// Group, version, kind that the operation is about; `None`: the resource's.
    kind: Option<(String, String, String)>,
}

impl<'a, 'd, 'o> Builder<'a, 'd, 'o> {
    fn new(published: &'a Published<'a>, definitions: &'d mut Definitions<'o>) -> Self {
        let resource = published.resource;
        let definition = &published.version.definition;
        let custom = definition.is_empty();
        let (object, list) = if custom {
            custom::define(published, definitions)
        } else {
            let list = definitions.refer(&format!("{definition}List")).unwrap_or_default();
            (definitions.refer(definition).unwrap_or_default(), list)
        };
        let types = if custom { CUSTOM_TYPES } else { OBJECT_TYPES };
        Self { published, resource, definitions, object, list, types }
    }

    fn write(&mut self, base: &str, paths: &mut Map<String, Value>) {
        let plural = &self.resource.plural;
        let scoped =
            if self.resource.namespaced { format!("{base}/namespaces/{{namespace}}") } else { base.to_string() };
        if self.resource.namespaced && self.has("list") {
            let list = self.list_operation("ForAllNamespaces");
            paths.insert(format!("{base}/{plural}"), json!({"get": list, "parameters": [query(&PRETTY)]}));
        }
        let collection = format!("{scoped}/{plural}");
        self.insert(paths, &collection, self.resource.namespaced, false, Self::collection);
        let item = format!("{collection}/{{name}}");
        self.insert(paths, &item, self.resource.namespaced, true, Self::item);
        for subresource in &self.published.version.subresources {
            let path = format!("{item}/{}", subresource.name);
            self.insert(paths, &path, self.resource.namespaced, true, |builder| builder.subresource(subresource, ""));
            if subresource.name == "proxy" {
                let path = format!("{path}/{{path}}");
                let deeper = |builder: &mut Self| builder.subresource(subresource, "WithPath");
                self.insert(paths, &path, self.resource.namespaced, true, deeper);
            }
        }
    }

    /// Adds a path with the operations and the parameters that it has, unless it has no operation.
    fn insert(
        &mut self,
        paths: &mut Map<String, Value>,
        path: &str,
        namespaced: bool,
        named: bool,
        operations: impl FnOnce(&mut Self) -> Map<String, Value>,
    ) {
        let mut operations = operations(self);
        if operations.is_empty() {
            return;
        }
        let kind = &self.resource.kind;
        let mut parameters = Vec::new();
        if named {
            parameters.push(in_path("name", &format!("name of the {kind}")));
        }
        if namespaced {
            parameters.push(in_path("namespace", "namespace of the object"));
        }
        if path.ends_with("/{path}") {
            parameters.push(in_path("path", "path to the resource"));
        }
        parameters.push(query(&PRETTY));
        operations.insert("parameters".into(), parameters.into());
        paths.insert(path.to_string(), operations.into());
    }

    fn has(&self, verb: &str) -> bool {
        self.resource.verbs.iter().any(|own| own == verb)
    }

    fn list_operation(&self, suffix: &str) -> Value {
        let mut types = self.types.to_vec();
        types.push("application/json;stream=watch");
        if self.types.len() == OBJECT_TYPES.len() {
            types.push("application/vnd.kubernetes.protobuf;stream=watch");
        }
        let operation = Operation {
            action: "list",
            word: "list",
            infix: "",
            suffix,
            description: format!("list or watch objects of kind {}", self.resource.kind),
            parameters: LIST,
            body: None,
            codes: &[],
            response: Value::Null,
            kind: None,
        };
        let mut operation = self.operation(operation);
        operation["responses"] = responses(&[200], &self.list, &types);
        operation
    }

    fn collection(&mut self) -> Map<String, Value> {
        let mut operations = Map::new();
        if self.has("list") {
            operations.insert("get".into(), self.list_operation(""));
        }
        let kind = &self.resource.kind;
        if self.has("create") {
            let create = Operation {
                action: "post",
                word: "create",
                infix: "",
                suffix: "",
                description: format!("create a {kind}"),
                parameters: WRITE,
                body: Some(body(&self.object, &["*/*"])),
                codes: &[200, 201, 202],
                response: self.object.clone(),
                kind: None,
            };
            operations.insert("post".into(), self.operation(create));
        }
        if self.has("deletecollection") {
            let parameters: Vec<Parameter> = LIST.iter().take(LIST.len() - 1).skip(1).chain(DELETE).copied().collect();
            let delete = Operation {
                action: "deletecollection",
                word: "delete",
                infix: "Collection",
                suffix: "",
                description: format!("delete collection of {kind}"),
                parameters: &parameters,
                body: self.delete_options(),
                codes: &[200],
                response: self.status(),
                kind: None,
            };
            operations.insert("delete".into(), self.operation(delete));
        }
        operations
    }

    fn item(&mut self) -> Map<String, Value> {
        let kind = &self.resource.kind;
        let verbs: Vec<String> = self
            .resource
            .verbs
            .iter()
            .filter(|verb| ["get", "update", "patch", "delete"].contains(&verb.as_str()))
            .cloned()
            .collect();
        let object = self.object.clone();
        self.single(&verbs, &object, "", &format!("the specified {kind}"), None)
    }

    /// Operations on one object or one of its subresources.
    fn single(
        &mut self,
        verbs: &[String],
        object: &Value,
        suffix: &str,
        what: &str,
        kind: Option<(String, String, String)>,
    ) -> Map<String, Value> {
        let mut operations = Map::new();
        for verb in verbs {
            let (method, action, word, text): (_, _, _, &str) = match verb.as_str() {
                "get" => ("get", "get", "read", "read"),
                "update" => ("put", "put", "replace", "replace"),
                "patch" => ("patch", "patch", "patch", "partially update"),
                "delete" => ("delete", "delete", "delete", "delete"),
                "create" => ("post", "post", "create", "create"),
                _ => continue,
            };
            let (parameters, codes): (&[Parameter], &[u16]) = match method {
                "get" => (&[], &[200]),
                "put" => (WRITE, &[200, 201]),
                "patch" => (PATCH, &[200, 201]),
                "post" => (WRITE, &[200, 201, 202]),
                _ => (DELETE, &[200, 202]),
            };
            let body = match method {
                "get" => None,
                "patch" => self.patch(),
                "delete" => self.delete_options(),
                _ => Some(body(object, &["*/*"])),
            };
            let response = if method == "delete" { self.status() } else { object.clone() };
            let description = format!("{text} {what}");
            let kind = kind.clone();
            let operation =
                Operation { action, word, infix: "", suffix, description, parameters, body, codes, response, kind };
            operations.insert(method.into(), self.operation(operation));
        }
        operations
    }

    fn subresource(&mut self, subresource: &Subresource, deeper: &str) -> Map<String, Value> {
        let (group, version, kind) = &subresource.response;
        let group = if version.is_empty() { &self.resource.group } else { group };
        let version = if version.is_empty() { &self.published.version.name } else { version };
        let suffix = format!("{}{deeper}", capitalized(&subresource.name));
        let what = format!("{} of the specified {}", subresource.name, self.resource.kind);
        let about = Some((group.clone(), version.clone(), kind.clone()));
        let definition = kinds::definition(group, version, kind);
        if kind.ends_with("Options") {
            return self.connect(subresource, &definition, &suffix, about);
        }
        if subresource.name == "log" {
            let mut operations = self.single(&subresource.verbs, &json!({"type": "string"}), &suffix, &what, about);
            let options = option_parameters(&kinds::definition(group, version, "PodLogOptions"));
            operations.values_mut().for_each(|operation| operation["parameters"] = options.clone().into());
            return operations;
        }
        let object = if self.resource.kind == *kind {
            self.object.clone()
        } else {
            self.definitions.refer(&definition).unwrap_or_else(|| self.object.clone())
        };
        self.single(&subresource.verbs, &object, &suffix, &what, about)
    }

    /// A subresource that becomes a connection: any method, parameters by its options kind.
    fn connect(
        &mut self,
        subresource: &Subresource,
        definition: &str,
        suffix: &str,
        about: Option<(String, String, String)>,
    ) -> Map<String, Value> {
        let methods: &[&str] = match subresource.name.as_str() {
            "proxy" => &["get", "put", "post", "delete", "options", "head", "patch"],
            _ => &["get", "post"],
        };
        let parameters = option_parameters(definition);
        let mut operations = Map::new();
        for method in methods {
            let upper = method.to_ascii_uppercase();
            let description = format!("connect {upper} requests to {} of {}", subresource.name, self.resource.kind);
            let operation = Operation {
                action: "connect",
                word: "connect",
                infix: &capitalized(method),
                suffix,
                description,
                parameters: &[],
                body: None,
                codes: &[],
                response: Value::Null,
                kind: about.clone(),
            };
            let mut operation = self.operation(operation);
            operation["parameters"] = parameters.clone().into();
            operation["responses"] = responses(&[200], &json!({"type": "string"}), &["*/*"]);
            operations.insert(method.to_string(), operation);
        }
        operations
    }

    fn operation(&self, operation: Operation<'_>) -> Value {
        let (resource, version) = (self.resource, &self.published.version.name);
        let namespaced = if resource.namespaced && operation.suffix != "ForAllNamespaces" { "Namespaced" } else { "" };
        let id = format!(
            "{}{}{}{namespaced}{}{}",
            operation.word,
            group_id(self.published),
            operation.infix,
            resource.kind,
            operation.suffix
        );
        let own = || (resource.group.clone(), version.clone(), resource.kind.clone());
        let (group, version, kind) = operation.kind.unwrap_or_else(own);
        let mut out = json!({
            "tags": [tag(self.published)],
            "description": operation.description,
            "operationId": id,
            "parameters": operation.parameters.iter().map(query).collect::<Vec<Value>>(),
            "responses": responses(operation.codes, &operation.response, self.types),
            "x-kubernetes-action": operation.action,
            "x-kubernetes-group-version-kind": {"group": group, "version": version, "kind": kind},
        });
        if let Some(body) = operation.body {
            out["requestBody"] = body;
        }
        out
    }

    fn patch(&mut self) -> Option<Value> {
        let patch = self.definitions.refer(&format!("{META}.Patch"))?;
        let mut types = PATCH_TYPES.to_vec();
        if self.types.len() == OBJECT_TYPES.len() {
            types.push(STRATEGIC);
        }
        Some(body(&patch, &types))
    }

    fn delete_options(&mut self) -> Option<Value> {
        let options = self.definitions.refer(&format!("{META}.DeleteOptions"))?;
        let mut body = body(&options, &["*/*"]);
        body["required"] = false.into();
        Some(body)
    }

    fn status(&mut self) -> Value {
        self.definitions.refer(&format!("{META}.Status")).unwrap_or_default()
    }
}

fn in_path(name: &str, text: &str) -> Value {
    let schema = json!({"type": "string", "uniqueItems": true});
    json!({"name": name, "in": "path", "description": text, "required": true, "schema": schema})
}

fn query((name, of, text): &Parameter) -> Value {
    json!({"name": name, "in": "query", "description": text, "schema": {"type": of, "uniqueItems": true}})
}

/// Query parameters that are the members of an options type.
fn option_parameters(definition: &str) -> Vec<Value> {
    let Some(options) = Schema::builtin().find(definition) else { return Vec::new() };
    let members = options.object().into_iter().flat_map(|object| object.members());
    let named = members.filter(|field| field.name != "apiVersion" && field.name != "kind");
    let parameter = |field: &crate::schema::Field| {
        let of = match options.at(field.of).shape() {
            Shape::Scalar(Scalar::Boolean) => "boolean",
            Shape::Scalar(Scalar::Int32 | Scalar::Int64) => "integer",
            _ => "string",
        };
        json!({"name": field.name, "in": "query", "schema": {"type": of, "uniqueItems": true}})
    };
    named.map(parameter).collect()
}

fn body(schema: &Value, types: &[&str]) -> Value {
    json!({"content": content(schema, types), "required": true})
}

fn content(schema: &Value, types: &[&str]) -> Map<String, Value> {
    types.iter().map(|name| (name.to_string(), json!({"schema": schema}))).collect()
}

fn responses(codes: &[u16], schema: &Value, types: &[&str]) -> Value {
    let mut out = Map::new();
    for code in codes {
        let text = match code {
            201 => "Created",
            202 => "Accepted",
            _ => "OK",
        };
        out.insert(code.to_string(), json!({"description": text, "content": content(schema, types)}));
    }
    out.insert("401".into(), json!({"description": "Unauthorized"}));
    out.into()
}
