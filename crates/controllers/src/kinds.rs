//! API types by the short names of their groups.

pub(crate) use k8s_openapi::{
    api::{apps::v1 as apps, batch::v1 as batch, core::v1 as core, discovery::v1 as discovery},
    apimachinery::pkg::{
        apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference, Time},
        util::intstr::IntOrString,
    },
};
