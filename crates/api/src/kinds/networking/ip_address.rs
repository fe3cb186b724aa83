//! IPAddress: an address in use, named by itself.

use std::net::IpAddr;

use crate::{
    kinds::{
        access::Members,
        builtin::{Kind, Shape},
        cells,
    },
    validation::{field::Field, names},
};

pub(crate) static KIND: Kind = Kind {
    shape: Shape::PLAIN,
    name: |name, _| match name.parse::<IpAddr>() {
        Ok(address) if address.to_string() == name => Vec::new(),
        Ok(address) => vec![format!("must be in canonical form (\"{address}\")")],
        Err(_) => vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".into()],
    },
    validate: |errors, address, _| {
        let parent = &address.get("spec.parentRef");
        if !parent.exists() {
            errors.push(parent.required(""));
            return;
        }
        let judge = |field: Field<'_>, judge: fn(&str) -> Vec<String>, required: bool| match field.str() {
            "" if required => vec![field.required("")],
            "" => Vec::new(),
            text => judge(text).into_iter().map(|message| field.invalid(message)).collect(),
        };
        errors.extend(judge(parent.get("group"), names::dns_subdomain, false));
        for name in ["resource", "name"] {
            errors.extend(judge(parent.get(name), |text| names::path_segment(text, false), true));
        }
        errors.extend(judge(parent.get("namespace"), |text| names::path_segment(text, false), false));
    },
    validate_update: Some(|errors, new, old, _| {
        new.get("spec.parentRef").immutable(errors, &old.get("spec.parentRef"));
    }),
    row: Some(|address, now| {
        let parent = &address["spec"]["parentRef"];
        let text = if parent.is_object() {
            let mut text = match parent.text("group") {
                "" => parent.text("resource").to_lowercase(),
                group => format!("{}.{group}", parent.text("resource")).to_lowercase(),
            };
            for part in [parent.text("namespace"), parent.text("name")].into_iter().filter(|part| !part.is_empty()) {
                text += &format!("/{part}");
            }
            text
        } else {
            cells::NONE.into()
        };
        vec![cells::name(address), text.into(), cells::age(address, now)]
    }),
    ..Kind::PLAIN
};
