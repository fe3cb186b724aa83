//! Which texts are names: DNS labels and subdomains, label keys and values, port names, path segments.
//!
//! Each function returns the messages that Kubernetes gives for a wrong text, and nothing for a right one. The `prefix`
//! variants judge a `generateName`: it may end with a dash, because a suffix follows.

const LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const LABEL_TEXT: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must \
                          start and end with an alphanumeric character";
const SUBDOMAIN: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const SUBDOMAIN_TEXT: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or \
                              '.', and must start and end with an alphanumeric character";
const LABEL_1035: &str = "[a-z]([-a-z0-9]*[a-z0-9])?";
const LABEL_1035_TEXT: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an \
                               alphabetic character, and end with an alphanumeric character";
const QUALIFIED: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";

fn too_long(max: usize) -> String {
    format!("must be no more than {max} characters")
}

/// `text (e.g. 'a',  or 'b', regex used for validation is 'regex')`, with upstream's spacing.
pub(crate) fn pattern(text: &str, regex: &str, examples: &[&str]) -> String {
    if examples.is_empty() {
        return format!("{text} (regex used for validation is '{regex}')");
    }
    let examples: Vec<String> = examples.iter().map(|example| format!("'{example}', ")).collect();
    format!("{text} (e.g. {}regex used for validation is '{regex}')", examples.join(" or "))
}

fn is_lower(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

fn is_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.iter().all(|byte| is_lower(*byte) || *byte == b'-')
        && bytes.first().is_some_and(|byte| is_lower(*byte))
        && bytes.last().is_some_and(|byte| is_lower(*byte))
}

fn is_subdomain(text: &str) -> bool {
    text.split('.').all(is_label)
}

/// Says what is wrong with a name.
pub(crate) type Rule = fn(&str) -> Vec<String>;

/// RFC 1123 label, at most 63 characters.
pub fn dns_label(text: &str) -> Vec<String> {
    let mut messages = Vec::new();
    if text.len() > 63 {
        messages.push(too_long(63));
    }
    if !is_label(text) {
        messages.push(if is_subdomain(text) {
            "must not contain dots".to_string()
        } else {
            pattern(LABEL_TEXT, LABEL, &["my-name", "123-abc"])
        });
    }
    messages
}

/// RFC 1123 subdomain, at most 253 characters.
pub fn dns_subdomain(text: &str) -> Vec<String> {
    let mut messages = Vec::new();
    if text.len() > 253 {
        messages.push(too_long(253));
    }
    if !is_subdomain(text) {
        messages.push(pattern(SUBDOMAIN_TEXT, SUBDOMAIN, &["example.com"]));
    }
    messages
}

/// As [`dns_subdomain`], with underscores too (host names of the pod's DNS configuration).
pub fn dns_subdomain_with_underscore(text: &str) -> Vec<String> {
    let plain: String = text.replace('_', "a");
    if text.len() <= 253 && is_subdomain(&plain) && !text.split('.').any(|label| label.ends_with('_')) {
        return Vec::new();
    }
    let label = "_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?";
    vec![pattern(
        "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and must \
         start and end with an alphanumeric character",
        &format!("{label}(\\.{label})*"),
        &["example.com"],
    )]
}

/// RFC 1035 label: begins with a letter.
pub fn dns_1035_label(text: &str) -> Vec<String> {
    let mut messages = Vec::new();
    if text.len() > 63 {
        messages.push(too_long(63));
    }
    if !is_label(text) || !text.starts_with(|first: char| first.is_ascii_lowercase()) {
        messages.push(pattern(LABEL_1035_TEXT, LABEL_1035, &["my-name", "abc-123"]));
    }
    messages
}

/// `*.` followed by a subdomain.
pub fn wildcard_subdomain(text: &str) -> Vec<String> {
    let mut messages = Vec::new();
    if text.len() > 253 {
        messages.push(too_long(253));
    }
    if !text.strip_prefix("*.").is_some_and(is_subdomain) {
        messages.push(pattern(
            "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of \
             lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character",
            &format!("\\*\\.{SUBDOMAIN}"),
            &["*.example.com"],
        ));
    }
    messages
}

fn is_qualified_part(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
        && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
}

/// A label or annotation key: an optional subdomain, a slash, and a name of at most 63 characters.
pub fn qualified_name(text: &str) -> Vec<String> {
    const TEXT: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
                        alphanumeric character";
    const EXAMPLES: &[&str] = &["MyName", "my.name", "123-abc"];
    let mut messages = Vec::new();
    let mut parts = text.split('/');
    let name = match (parts.next(), parts.next(), parts.next()) {
        (Some(name), None, _) => name,
        (Some(prefix), Some(name), None) => {
            if prefix.is_empty() {
                messages.push("prefix part must be non-empty".to_string());
            } else {
                messages.extend(dns_subdomain(prefix).into_iter().map(|message| format!("prefix part {message}")));
            }
            name
        }
        _ => {
            return vec![format!(
                "a valid label key {} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",
                pattern(TEXT, QUALIFIED, EXAMPLES)
            )];
        }
    };
    if name.is_empty() {
        messages.push("name part must be non-empty".to_string());
    } else if name.len() > 63 {
        messages.push(format!("name part {}", too_long(63)));
    }
    if !is_qualified_part(name) {
        messages.push(format!("name part {}", pattern(TEXT, QUALIFIED, EXAMPLES)));
    }
    messages
}

/// A label value: empty, or at most 63 characters of the label alphabet.
pub fn label_value(text: &str) -> Vec<String> {
    let mut messages = Vec::new();
    if text.len() > 63 {
        messages.push(too_long(63));
    }
    if !text.is_empty() && !is_qualified_part(text) {
        messages.push(pattern(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must \
             start and end with an alphanumeric character",
            "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?",
            &["MyValue", "my_value", "12345"],
        ));
    }
    messages
}

/// A port's name: at most 15 of `a-z`, `0-9` and `-`, with a letter (RFC 6335).
pub fn port_name(text: &str) -> Vec<String> {
    let mut messages = Vec::new();
    if text.len() > 15 {
        messages.push(too_long(15));
    }
    if text.is_empty() || !text.bytes().all(|byte| is_lower(byte) || byte == b'-') {
        messages.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_string());
    }
    if !text.bytes().any(|byte| byte.is_ascii_lowercase()) {
        messages.push("must contain at least one letter (a-z)".to_string());
    }
    if text.contains("--") {
        messages.push("must not contain consecutive hyphens".to_string());
    }
    if text.starts_with('-') || text.ends_with('-') {
        messages.push("must not begin or end with a hyphen".to_string());
    }
    messages
}

/// 1 to 65535.
pub fn port_number(port: i64) -> Vec<String> {
    in_range(port, 1, 65535)
}

/// `min..=max`.
pub fn in_range(number: i64, min: i64, max: i64) -> Vec<String> {
    if (min..=max).contains(&number) {
        return Vec::new();
    }
    vec![format!("must be between {min} and {max}, inclusive")]
}

/// An environment variable's name: printable ASCII without `=`.
pub fn env_var_name(text: &str) -> Vec<String> {
    let mut messages = Vec::new();
    if text.is_empty() {
        messages.push("environment variable name must be non-empty".to_string());
    }
    if !text.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b'=') {
        messages.push(
            "a valid environment variable name must consist only of printable ASCII characters other than '='"
                .to_string(),
        );
    }
    messages
}

/// A key of a ConfigMap or Secret: also a file name.
pub fn config_key(text: &str) -> Vec<String> {
    let mut messages = Vec::new();
    if text.len() > 253 {
        messages.push(too_long(253));
    }
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')) {
        messages.push(pattern(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
            "[-._a-zA-Z0-9]+",
            &["key.name", "KEY_NAME", "key-name"],
        ));
    }
    match text {
        "." => messages.push("must not be '.'".to_string()),
        ".." => messages.push("must not be '..'".to_string()),
        _ if text.starts_with("..") => messages.push("must not start with '..'".to_string()),
        _ => {}
    }
    messages
}

/// A name of an HTTP header.
pub fn http_header(text: &str) -> Vec<String> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        return Vec::new();
    }
    vec![pattern(
        "a valid HTTP header must consist of alphanumeric characters or '-'",
        "[-A-Za-z0-9]+",
        &["X-Header-Name"],
    )]
}

/// A number followed by `%`.
pub fn percent(text: &str) -> Vec<String> {
    if text.strip_suffix('%').is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())) {
        return Vec::new();
    }
    vec![pattern(
        "a valid percent string must be a numeric string followed by an ending '%'",
        "[0-9]+%",
        &["1%", "93%"],
    )]
}

/// A name that can be one segment of a URL path.
pub fn path_segment(name: &str, prefix: bool) -> Vec<String> {
    if !prefix && matches!(name, "." | "..") {
        return vec![format!("may not be '{name}'")];
    }
    ['/', '%'].into_iter().filter(|bad| name.contains(*bad)).map(|bad| format!("may not contain '{bad}'")).collect()
}

/// What stands for a `generateName` when it is judged: a trailing dash is not its end.
fn unmasked(name: &str, prefix: bool) -> String {
    if prefix && name.len() > 1 && name.ends_with('-') {
        format!("{}a", &name[..name.len() - 1])
    } else {
        name.to_string()
    }
}

/// Object name: DNS subdomain.
pub fn subdomain_name(name: &str, prefix: bool) -> Vec<String> {
    dns_subdomain(&unmasked(name, prefix))
}

/// Object name: DNS label.
pub fn label_name(name: &str, prefix: bool) -> Vec<String> {
    dns_label(&unmasked(name, prefix))
}

/// Object name: RFC 1035 label.
pub fn label_1035_name(name: &str, prefix: bool) -> Vec<String> {
    dns_1035_label(&unmasked(name, prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_names_get_upstreams_words() {
        let cases: &[(Rule, &str, &str)] = &[
            (dns_label, "web", ""),
            (dns_label, "a.b", "must not contain dots"),
            (
                dns_label,
                "Web",
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and \
                 end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
                 '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
            ),
            (dns_subdomain, "a..b", &pattern(SUBDOMAIN_TEXT, SUBDOMAIN, &["example.com"])),
            (dns_1035_label, "1a", &pattern(LABEL_1035_TEXT, LABEL_1035, &["my-name", "abc-123"])),
            (qualified_name, "example.com/MyName", ""),
            (qualified_name, "/x", "prefix part must be non-empty"),
            (label_value, "", ""),
            (port_name, "http", ""),
            (port_name, "1--1", "must contain at least one letter (a-z); must not contain consecutive hyphens"),
            (config_key, "..", "must not be '..'"),
            (
                env_var_name,
                "a=b",
                "a valid environment variable name must consist only of printable ASCII characters other than '='",
            ),
        ];
        for (judge, text, want) in cases {
            assert_eq!(judge(text).join("; "), *want, "{text}");
        }
    }

    #[test]
    fn a_generate_name_may_end_with_a_dash() {
        assert!(subdomain_name("web-", true).is_empty());
        assert!(!subdomain_name("web-", false).is_empty());
    }
}
