//! Who a container's process is: numbers from CRI, or names looked up in the image's own files.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::Error;
use crate::cri::{LinuxContainerSecurityContext, SupplementalGroupsPolicy};
use crate::images::view::View;

/// The OCI `user` object.
///
/// Without a group the one of the user's line in /etc/passwd counts, else 0. Groups of /etc/group that name the user are
/// added under the policy `Merge`.
pub(super) fn resolve(security: &LinuxContainerSecurityContext, image_user: &str, view: &View) -> Result<Value, Error> {
    let text = |path| view.read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let passwd = text("/etc/passwd");
    let (image_user, image_group) = image_user.split_once(':').unwrap_or((image_user, ""));

    let (wanted, explicit_image) = if let Some(user) = &security.run_as_user {
        (user.value.to_string(), false)
    } else if !security.run_as_username.is_empty() {
        (security.run_as_username.clone(), false)
    } else {
        (image_user.to_owned(), true)
    };
    let entry = passwd.lines().map(Line::new).find(|line| line.is(&wanted));
    let uid = match (&entry, wanted.parse::<u32>()) {
        (_, Ok(uid)) => uid,
        _ if wanted.is_empty() => 0,
        (Some(line), _) => line
            .number(2)
            .ok_or_else(|| Error::User(format!("user {wanted:?} has no number in the image's /etc/passwd")))?,
        (None, _) => return Err(Error::User(format!("user {wanted:?} is not in the image's /etc/passwd"))),
    };
    let groups = text("/etc/group");
    let gid = if let Some(group) = &security.run_as_group {
        group.value as u32
    } else if explicit_image && !image_group.is_empty() {
        match image_group.parse() {
            Ok(gid) => gid,
            Err(_) => groups
                .lines()
                .map(Line::new)
                .find(|line| line.0[0] == image_group)
                .and_then(|line| line.number(2))
                .ok_or_else(|| Error::User(format!("group {image_group:?} is not in the image's /etc/group")))?,
        }
    } else {
        entry.as_ref().and_then(|line| line.number(3)).unwrap_or(0)
    };

    let mut additional: BTreeSet<u32> = security.supplemental_groups.iter().map(|gid| *gid as u32).collect();
    additional.insert(gid);
    if security.supplemental_groups_policy == SupplementalGroupsPolicy::Merge as i32
        && let Some(name) = entry.as_ref().map(|line| line.0[0])
    {
        for line in groups.lines().map(Line::new) {
            if line.0.get(3).is_some_and(|members| members.split(',').any(|member| member == name)) {
                additional.extend(line.number(2));
            }
        }
    }
    Ok(json!({"uid": uid, "gid": gid, "additionalGids": additional}))
}

/// A line of fields between colons.
struct Line<'a>(Vec<&'a str>);

impl<'a> Line<'a> {
    fn new(line: &'a str) -> Line<'a> {
        Line(line.split(':').collect())
    }

    fn number(&self, index: usize) -> Option<u32> {
        self.0.get(index)?.parse().ok()
    }

    /// By name or, in third place, number.
    fn is(&self, wanted: &str) -> bool {
        !wanted.is_empty() && (self.0[0] == wanted || self.0.get(2) == Some(&wanted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cri::Int64Value;

    #[test]
    fn users() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::fs::write(dir.path().join("etc/passwd"), "root:x:0:0::/:/bin/sh\nweb:x:33:34::/:\n").unwrap();
        std::fs::write(dir.path().join("etc/group"), "web:x:34:\nlog:x:50:root,web\n").unwrap();
        let view = View(vec![dir.path().to_owned()]);
        let none = LinuxContainerSecurityContext::default();
        let user = |uid| LinuxContainerSecurityContext { run_as_user: Some(Int64Value { value: uid }), ..none.clone() };
        let with_group = LinuxContainerSecurityContext {
            run_as_group: Some(Int64Value { value: 9 }),
            supplemental_groups: vec![70],
            supplemental_groups_policy: SupplementalGroupsPolicy::Strict as i32,
            ..user(33)
        };
        for (security, image, expect) in [
            (&none, "", Some((0, 0, vec![0]))),
            (&none, "web", Some((33, 34, vec![34, 50]))),
            (&none, "33:log", Some((33, 50, vec![50]))),
            (&none, "1000", Some((1000, 0, vec![0]))),
            (&none, "nobody", None),
            (&none, "web:nogroup", None),
            (&user(33), "root", Some((33, 34, vec![34, 50]))),
            (&with_group, "root", Some((33, 9, vec![9, 70]))),
        ] {
            let expect = expect.map(|(uid, gid, groups)| json!({"uid": uid, "gid": gid, "additionalGids": groups}));
            assert_eq!(resolve(security, image, &view).ok(), expect, "{image:?}");
        }
    }
}
