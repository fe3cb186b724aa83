//! YAML to JSON values: one document, core scalars, no executable tags, bounded aliases.

use serde_saphyr::{DuplicateKeyPolicy, Options};

use super::reader::{self, Report};
use crate::schema::TypeRef;

/// Reads YAML (or JSON, which is YAML) along a type. The error says what is wrong with it as YAML.
pub(super) fn read(bytes: &[u8], of: TypeRef<'_>, report: &mut Report) -> Result<serde_json::Value, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "yaml: invalid UTF-8".to_string())?;
    if text.trim_start().starts_with('{') {
        return reader::json(bytes, of, report)
            .map_err(|why| format!("couldn't get version/kind; json parse error: {why}"));
    }
    let mut options = Options::default();
    options.duplicate_keys = DuplicateKeyPolicy::LastWins;
    options.legacy_octal_numbers = true;
    options.with_snippet = false;
    serde_saphyr::with_deserializer_from_str_with_options(text, options, |source| reader::any(source, of, report))
        .map_err(|error| format!("yaml: {error}"))
}
