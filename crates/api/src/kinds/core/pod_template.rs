//! PodTemplate: a template at rest.

use crate::kinds::{
    access::Members,
    builtin::{Kind, Shape},
    cells, pod_spec,
};

pub(crate) static KIND: Kind = Kind {
    shape: Shape { generation: &["template"], ..Shape::PLAIN },
    default: |object| pod_spec::default_template(object.member("template")),
    row: Some(|object, _| {
        let template = &object["template"];
        let [names, images] = cells::containers(&template["spec"]);
        vec![cells::name(object), names, images, cells::labels(&template["metadata"]["labels"])]
    }),
    ..Kind::PLAIN
};
