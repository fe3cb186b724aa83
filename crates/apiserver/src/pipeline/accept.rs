//! Content negotiation: which encoding and which view of an object a client wants.
//!
//! A clause of `Accept` that names an encoding or a view that the endpoint does not have is skipped; when none is left
//! the answer is 406, as upstream's negotiation does it.

use api::status::Status;
use http::{HeaderMap, header};

pub(crate) const JSON: &str = "application/json";
pub(crate) const YAML: &str = "application/yaml";
pub(crate) const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// How an answer is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Json,
    Yaml,
    Protobuf,
}

impl Format {
    pub(crate) fn media_type(self) -> &'static str {
        match self {
            Format::Json => JSON,
            Format::Yaml => YAML,
            Format::Protobuf => PROTOBUF,
        }
    }
}

/// Which form of an object is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum View {
    /// The object itself.
    Full,
    /// `meta.k8s.io Table`, in this version.
    Table(&'static str),
    /// `PartialObjectMetadata` (of each item, in a list).
    Metadata(&'static str),
}

/// What an endpoint can send.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Offer {
    pub(crate) yaml: bool,
    pub(crate) protobuf: bool,
    /// Table and PartialObjectMetadata.
    pub(crate) views: bool,
}

impl Offer {
    /// Objects of the API.
    pub(crate) const OBJECTS: Offer = Offer { yaml: true, protobuf: true, views: true };
    /// Custom resources have no protobuf form.
    pub(crate) const CUSTOM: Offer = Offer { yaml: true, protobuf: false, views: true };
    /// Statuses.
    pub(crate) const PLAIN: Offer = Offer { yaml: true, protobuf: true, views: false };
    /// Documents that are no API objects.
    pub(crate) const DOCUMENTS: Offer = Offer { yaml: true, protobuf: false, views: false };

    fn list(self) -> String {
        let mut types = vec![JSON];
        if self.yaml {
            types.push(YAML);
        }
        if self.protobuf {
            types.push(PROTOBUF);
        }
        types.join(", ")
    }
}

/// The negotiated answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Accepted {
    pub(crate) format: Format,
    pub(crate) view: View,
    pub(crate) pretty: bool,
    /// `stream=watch` was asked for; the answer's content type repeats it.
    pub(crate) stream: bool,
}

impl Default for Accepted {
    fn default() -> Self {
        Self { format: Format::Json, view: View::Full, pretty: false, stream: false }
    }
}

/// One clause of an `Accept` header.
pub(crate) struct Clause<'a> {
    pub(crate) media: &'a str,
    params: Vec<(&'a str, &'a str)>,
    quality: f32,
}

impl Clause<'_> {
    pub(crate) fn param(&self, name: &str) -> Option<&str> {
        self.params.iter().find(|(own, _)| *own == name).map(|(_, value)| *value)
    }
}

/// The clauses of an `Accept` header, best first.
pub(crate) fn clauses(header: &str) -> Vec<Clause<'_>> {
    let mut clauses: Vec<Clause<'_>> = header
        .split(',')
        .filter_map(|clause| {
            let mut pieces = clause.split(';').map(str::trim);
            let media = pieces.next().filter(|media| !media.is_empty())?;
            let params: Vec<(&str, &str)> = pieces.filter_map(|piece| piece.split_once('=')).collect();
            let quality = params.iter().find(|(name, _)| *name == "q").and_then(|(_, q)| q.parse().ok()).unwrap_or(1.0);
            Some(Clause { media, params, quality })
        })
        .collect();
    clauses.sort_by(|a, b| b.quality.total_cmp(&a.quality));
    clauses
}

/// The header's text; several headers count as one list.
pub(crate) fn header_text(headers: &HeaderMap) -> String {
    let values: Vec<&str> = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    values.join(",")
}

/// Chooses the best clause that `offer` can serve.
pub(crate) fn negotiate(headers: &HeaderMap, pretty: bool, offer: Offer) -> Result<Accepted, Status> {
    let text = header_text(headers);
    if text.trim().is_empty() {
        return Ok(Accepted { pretty, ..Accepted::default() });
    }
    clauses(&text)
        .iter()
        .find_map(|clause| serve(clause, offer))
        .map(|accepted| Accepted { pretty: pretty || accepted.pretty, ..accepted })
        .ok_or_else(|| Status::not_acceptable(&offer.list()))
}

fn serve(clause: &Clause<'_>, offer: Offer) -> Option<Accepted> {
    let format = match clause.media {
        JSON | "*/*" | "application/*" => Format::Json,
        YAML if offer.yaml => Format::Yaml,
        PROTOBUF if offer.protobuf => Format::Protobuf,
        _ => return None,
    };
    let view = match clause.param("as") {
        None => View::Full,
        Some(_) if !offer.views || clause.param("g") != Some("meta.k8s.io") => return None,
        Some(kind) => {
            let version = match clause.param("v")? {
                "v1" => "v1",
                "v1beta1" => "v1beta1",
                _ => return None,
            };
            match kind {
                "Table" => View::Table(version),
                "PartialObjectMetadata" | "PartialObjectMetadataList" => View::Metadata(version),
                _ => return None,
            }
        }
    };
    // A table has no protobuf form of its own.
    let stream = match clause.param("stream") {
        None | Some("") => false,
        Some("watch") => true,
        Some(_) => return None,
    };
    if format == Format::Protobuf && matches!(view, View::Table(_)) {
        return None;
    }
    Some(Accepted { format, view, pretty: clause.param("pretty") == Some("1"), stream })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(accept: &str, offer: Offer, expect: Option<(Format, View)>) {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, accept.parse().unwrap());
        let got = negotiate(&headers, false, offer).ok().map(|accepted| (accepted.format, accepted.view));
        assert_eq!(got, expect, "{accept}");
    }

    #[test]
    fn the_best_servable_clause_wins() {
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
        check("*/*", Offer::OBJECTS, Some((Format::Json, View::Full)));
        check(table, Offer::OBJECTS, Some((Format::Json, View::Table("v1"))));
        check(table, Offer::PLAIN, Some((Format::Json, View::Full)));
        check("application/vnd.kubernetes.protobuf, application/json", Offer::CUSTOM, Some((Format::Json, View::Full)));
        check("application/json;q=0.1, application/yaml", Offer::OBJECTS, Some((Format::Yaml, View::Full)));
        check("text/html", Offer::OBJECTS, None);
        check(
            "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
            Offer::OBJECTS,
            Some((Format::Json, View::Metadata("v1"))),
        );
    }
}
