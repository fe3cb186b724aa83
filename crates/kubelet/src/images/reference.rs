//! Names of images: are they well-formed, and what they mean without a tag.

/// An image name that no registry can have.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("couldn't parse image name \"{0}\": invalid reference format")]
pub(crate) struct Invalid(String);

/// `image` with `:latest` if it names neither tag nor digest.
pub(crate) fn normalize(image: &str) -> Result<String, Invalid> {
    let invalid = || Invalid(image.to_owned());
    let (named, digest) = match image.split_once('@') {
        Some((named, digest)) => (named, Some(digest)),
        None => (image, None),
    };
    let slash = named.rfind('/').map_or(0, |at| at + 1);
    let (repository, tag) = match named[slash..].rfind(':') {
        Some(colon) => (&named[..slash + colon], Some(&named[slash + colon + 1..])),
        None => (named, None),
    };
    let good_tag = tag.is_none_or(|tag| {
        !tag.is_empty()
            && tag.len() <= 128
            && !tag.starts_with(['.', '-'])
            && tag.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
    });
    let good_digest = digest.is_none_or(|digest| {
        digest.split_once(':').is_some_and(|(algorithm, hex)| {
            !algorithm.is_empty() && hex.len() >= 32 && hex.bytes().all(|byte| byte.is_ascii_hexdigit())
        })
    });
    if !good_tag || !good_digest || !good_repository(repository) {
        return Err(invalid());
    }
    Ok(if tag.is_none() && digest.is_none() { format!("{image}:latest") } else { image.to_owned() })
}

fn good_repository(repository: &str) -> bool {
    let parts: Vec<&str> = repository.split('/').collect();
    let is_host = |part: &str| part.contains(['.', ':']) || part == "localhost";
    let (host, path) = match parts.split_first() {
        Some((first, rest)) if !rest.is_empty() && is_host(first) => (Some(*first), rest),
        _ => (None, parts.as_slice()),
    };
    let host_byte = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':' | b'[' | b']');
    host.is_none_or(|host| host.bytes().all(host_byte)) && path.iter().all(|part| component(part))
}

/// Lower-case words joined by `.`, `_`, `__` or dashes.
fn component(part: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let edges = part.bytes().next().is_some_and(word) && part.bytes().last().is_some_and(word);
    edges
        && part.bytes().all(|byte| word(byte) || matches!(byte, b'.' | b'_' | b'-'))
        && !part.contains("..")
        && !part.contains("___")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let digest = "sha256:".to_owned() + &"a".repeat(64);
        for (image, expect) in [
            ("busybox", Some("busybox:latest")),
            ("busybox:1", Some("busybox:1")),
            ("localhost:5000/a/b_c", Some("localhost:5000/a/b_c:latest")),
            ("reg.example/a", Some("reg.example/a:latest")),
            ("Busybox", None),
            ("a b", None),
            ("a:", None),
            ("", None),
            ("a@sha256:zz", None),
            ("/a", None),
            ("a//b", None),
        ] {
            assert_eq!(normalize(image).ok().as_deref(), expect, "{image}");
        }
        assert_eq!(normalize(&format!("a/b@{digest}")).unwrap(), format!("a/b@{digest}"));
    }
}
