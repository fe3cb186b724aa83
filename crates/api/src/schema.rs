//! The one model of what objects look like, for built-in types and custom resources alike.
//!
//! A [`Schema`] is an arena of [`Type`]s that refer to each other by [`TypeId`]. The built-in one is read once from the
//! fact table (`data/types.json`), a custom resource's is built at run time from its `openAPIV3Schema`. Decoding,
//! pruning, strategic merge, server-side apply, OpenAPI and protobuf all walk the same model through [`TypeRef`].
//!
//! Names in the built-in schema borrow from the embedded table, so it costs a few hundred kilobytes.

use std::{borrow::Cow, sync::LazyLock};

use serde_json::Value;

mod builtin;
mod structural;

pub use structural::SchemaError;

/// Text that the built-in schema borrows and a custom one owns.
pub type Str = Cow<'static, str>;

/// The place of a type in its schema; the highest bit refers to the built-in schema from a custom one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TypeId(u32);

const BUILTIN: u32 = 1 << 31;

/// An arena of types.
#[derive(Debug, Default)]
pub struct Schema {
    types: Vec<Type>,
    /// Named types, sorted by name.
    names: Vec<(Str, u32)>,
    root: u32,
}

/// One type: its definition name (empty when it has none) and its shape.
#[derive(Debug)]
pub struct Type {
    /// `io.k8s.api.core.v1.Pod`.
    pub name: Str,
    pub shape: Shape,
    /// Custom resources: `null` is a value.
    pub nullable: bool,
    /// It has a protobuf message.
    pub message: bool,
    /// Known to protobuf only: no JSON definition of its own is published.
    pub proto_only: bool,
    /// Kinds that are this type: group, version, kind.
    pub kinds: Vec<(Str, Str, Str)>,
}

/// What values of a type look like in JSON.
#[derive(Debug)]
pub enum Shape {
    Scalar(Scalar),
    List(List),
    Map(Map),
    Object(Object),
    /// Anything. `atomic`: one leaf for server-side apply, else its structure is deduced from the value.
    Any {
        atomic: bool,
    },
}

/// Values without members. Some are more than JSON knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scalar {
    String,
    /// base64 text.
    Bytes,
    Boolean,
    Int32,
    Int64,
    /// Any JSON number.
    Number,
    IntOrString,
    Quantity,
    /// RFC 3339, whole seconds.
    Time,
    /// RFC 3339, six digits.
    MicroTime,
}

/// How the items of a list are told apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ListKind {
    /// The list is one value.
    #[default]
    Atomic,
    /// Items are their own keys.
    Set,
    /// Items are objects told apart by [`List::keys`].
    Map,
}

/// An array.
#[derive(Debug)]
pub struct List {
    pub item: TypeId,
    pub kind: ListKind,
    pub keys: Vec<Str>,
}

/// An object with any keys.
#[derive(Debug)]
pub struct Map {
    pub value: TypeId,
    pub atomic: bool,
}

/// An object with known members.
#[derive(Debug, Default)]
pub struct Object {
    /// Sorted by name.
    pub fields: Vec<Field>,
    pub required: Vec<Str>,
    /// One leaf for server-side apply.
    pub atomic: bool,
    /// Custom resources: type of the members that `fields` does not name, for server-side apply.
    pub extra: Option<TypeId>,
    /// Custom resources: unknown members are kept.
    pub preserve: bool,
    /// Custom resources: an object with `apiVersion`, `kind` and `metadata` of its own.
    pub embedded: bool,
}

/// How a strategic merge patch treats a field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Strategy {
    /// Lists are merged item by item.
    pub merge: bool,
    /// Maps are replaced.
    pub replace: bool,
    /// A patch may name the members that stay.
    pub retain_keys: bool,
}

/// A member of an [`Object`].
#[derive(Debug)]
pub struct Field {
    pub name: Str,
    pub of: TypeId,
    pub default: Option<Box<Value>>,
    pub strategy: Strategy,
    /// The member that tells items apart in a strategic merge; empty when items are their own keys.
    pub merge_key: Str,
    /// Overrides the map kind of the type.
    pub atomic: Option<bool>,
    pub pb: Option<Pb>,
}

impl Field {
    /// It exists in protobuf only: its members stand in the parent's JSON.
    pub fn is_inline(&self) -> bool {
        self.pb.as_ref().is_some_and(|pb| pb.inline)
    }
}

/// A protobuf field.
#[derive(Clone, Debug)]
pub struct Pb {
    pub number: u32,
    /// `string`, `bytes`, `bool`, `int32`, `int64`, `double`, `map<string,T>` or a definition name.
    pub of: Str,
    pub repeated: bool,
    pub inline: bool,
}

static TABLE: LazyLock<Schema> = LazyLock::new(builtin::load);

impl Schema {
    /// All built-in types.
    pub fn builtin() -> &'static Schema {
        &TABLE
    }

    /// Reads a custom resource's `openAPIV3Schema`; its root has `apiVersion`, `kind` and `metadata` added.
    pub fn from_openapi(schema: &Value) -> Result<Schema, SchemaError> {
        structural::read(schema)
    }

    /// A named type.
    pub fn find(&self, name: &str) -> Option<TypeRef<'_>> {
        let at = self.names.binary_search_by(|(own, _)| own.as_ref().cmp(name)).ok()?;
        Some(TypeRef { schema: self, index: self.names[at].1 })
    }

    /// The type of whole objects, in a custom resource's schema.
    pub fn root(&self) -> TypeRef<'_> {
        TypeRef { schema: self, index: self.root }
    }

    /// All named types, sorted by name.
    pub fn named(&self) -> impl Iterator<Item = TypeRef<'_>> {
        self.names.iter().map(|(_, index)| TypeRef { schema: self, index: *index })
    }

    fn push(&mut self, shape: Shape) -> TypeId {
        let id = TypeId(self.types.len() as u32);
        self.types.push(Type {
            name: Str::Borrowed(""),
            shape,
            nullable: false,
            message: false,
            proto_only: false,
            kinds: Vec::new(),
        });
        id
    }
}

/// A type with the schema it is in: cheap to copy, the handle that all walkers use.
#[derive(Clone, Copy)]
pub struct TypeRef<'a> {
    schema: &'a Schema,
    index: u32,
}

impl PartialEq for TypeRef<'_> {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.schema, other.schema) && self.index == other.index
    }
}

impl std::fmt::Debug for TypeRef<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TypeRef({} {:?})", self.index, self.get().name)
    }
}

impl<'a> TypeRef<'a> {
    /// The type of objects whose kind has no schema: everything is deduced from the values.
    pub fn deduced() -> TypeRef<'static> {
        TypeRef { schema: Schema::builtin(), index: builtin::DEDUCED }
    }

    /// A value of which nothing is known: one leaf.
    pub fn untyped() -> TypeRef<'static> {
        TypeRef { schema: Schema::builtin(), index: builtin::UNTYPED }
    }

    /// It is a published built-in type, whose values are read as Go reads them into its struct.
    pub fn is_builtin(self) -> bool {
        std::ptr::eq(self.schema, Schema::builtin()) && self.index > builtin::UNTYPED
    }

    pub fn get(self) -> &'a Type {
        &self.schema.types[self.index as usize]
    }

    pub fn shape(self) -> &'a Shape {
        &self.get().shape
    }

    /// The type behind an id found in this type.
    pub fn at(self, id: TypeId) -> TypeRef<'a> {
        if id.0 & BUILTIN != 0 {
            let builtin: &'static Schema = Schema::builtin();
            return TypeRef { schema: builtin, index: id.0 & !BUILTIN };
        }
        TypeRef { schema: self.schema, index: id.0 }
    }

    /// The members, when it is an object.
    pub fn object(self) -> Option<&'a Object> {
        match self.shape() {
            Shape::Object(object) => Some(object),
            _ => None,
        }
    }

    /// The named member, when it is an object.
    pub fn field(self, name: &str) -> Option<&'a Field> {
        self.object()?.field(name)
    }

    /// The type of a member's value, for objects and maps; `None` when the name is unknown.
    pub fn member(self, name: &str) -> Option<TypeRef<'a>> {
        match self.shape() {
            Shape::Object(object) => match object.field(name) {
                Some(field) => Some(self.at(field.of)),
                None => object.extra.map(|extra| self.at(extra)),
            },
            Shape::Map(map) => Some(self.at(map.value)),
            Shape::Any { .. } => Some(self),
            _ => None,
        }
    }

    /// The type of the items, for lists.
    pub fn item(self) -> Option<TypeRef<'a>> {
        match self.shape() {
            Shape::List(list) => Some(self.at(list.item)),
            Shape::Any { .. } => Some(self),
            _ => None,
        }
    }
}

impl Object {
    /// The named member; fields that only protobuf has are none.
    pub fn field(&self, name: &str) -> Option<&Field> {
        let at = self.fields.binary_search_by(|field| field.name.as_ref().cmp(name)).ok()?;
        Some(&self.fields[at]).filter(|field| !field.is_inline())
    }

    /// The members that JSON has.
    pub fn members(&self) -> impl Iterator<Item = &Field> {
        self.fields.iter().filter(|field| !field.is_inline())
    }
}

#[cfg(test)]
mod tests;
