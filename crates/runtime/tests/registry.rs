//! Pulls from a real registry: Debian's docker-registry on the loopback.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use navarch_runtime::{Registries, cri};

use crate::support::{self, Lab, Options, eventually, lab};

/// bcrypt of "secret".
const HTPASSWD: &str = "me:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";

struct Registry(Child);

impl Registry {
    async fn start(dir: &Path, port: u16, login: bool) -> Registry {
        let root = dir.join(format!("registry-{port}"));
        std::fs::create_dir_all(&root).unwrap();
        let mut config = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n",
            root.display()
        );
        if login {
            let passwords = root.join("htpasswd");
            std::fs::write(&passwords, HTPASSWD).unwrap();
            config += &format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", passwords.display());
        }
        let path = root.join("config.yml");
        std::fs::write(&path, config).unwrap();
        let child =
            Command::new("docker-registry").arg("serve").arg(path).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let registry = Registry(child.expect("Debian's docker-registry is installed"));
        eventually("the registry listens", async || {
            tokio::net::TcpStream::connect(("127.0.0.1", port)).await.map(drop).map_err(|error| error.to_string())
        })
        .await;
        registry
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn push(lab: &Lab, to: &str, login: bool) {
    let archive = lab.dir.join("push.tar");
    support::image::docker_archive(&archive, "pushed:test");
    let mut skopeo = Command::new("skopeo");
    skopeo.args(["copy", "--quiet", "--dest-tls-verify=false", "--insecure-policy"]);
    if login {
        skopeo.args(["--dest-creds", "me:secret"]);
    }
    let status =
        skopeo.arg(format!("docker-archive:{}", archive.display())).arg(format!("docker://{to}")).status().unwrap();
    assert!(status.success(), "skopeo copy to {to}");
}

async fn pull(lab: &mut Lab, image: &str, auth: Option<cri::AuthConfig>) -> Result<String, tonic::Status> {
    let image = Some(cri::ImageSpec { image: image.to_owned(), ..Default::default() });
    let request = cri::PullImageRequest { image, auth, sandbox_config: None };
    Ok(lab.images.pull_image(request).await?.into_inner().image_ref)
}

async fn find(lab: &mut Lab, image: &str) -> Option<cri::Image> {
    let image = Some(cri::ImageSpec { image: image.to_owned(), ..Default::default() });
    let request = cri::ImageStatusRequest { image, verbose: true };
    lab.images.image_status(request).await.unwrap().into_inner().image
}

#[test]
fn pulls_by_name_and_digest_and_removes() {
    lab(Options::default(), |mut lab| async move {
        let _registry = Registry::start(&lab.dir, 5000, false).await;
        push(&lab, "127.0.0.1:5000/team/box:v1", false);
        let name = "127.0.0.1:5000/team/box:v1";
        let mut clients: Vec<_> = (0..4).map(|_| lab.images.clone()).collect();
        let pulls = clients.iter_mut().map(|client| {
            let image = Some(cri::ImageSpec { image: name.to_owned(), ..Default::default() });
            client.pull_image(cri::PullImageRequest { image, ..Default::default() })
        });
        for pulled in futures::future::join_all(pulls).await {
            pulled.unwrap();
        }
        let image = find(&mut lab, name).await.unwrap();
        assert_eq!(image.repo_tags, [name]);
        let by_digest = image.repo_digests[0].clone();
        assert!(by_digest.starts_with("127.0.0.1:5000/team/box@sha256:"), "{by_digest}");
        assert_eq!(pull(&mut lab, &by_digest, None).await.unwrap(), image.id);

        let config = lab.sandbox_config("pulled");
        let sandbox = lab.run_sandbox(&config).await;
        let spec = Some(cri::ImageSpec { image: image.id.clone(), ..Default::default() });
        let container = cri::ContainerConfig { image: spec.clone(), ..lab.shell("c", "echo $FROM") };
        assert_eq!(lab.try_script(&sandbox, container).await, (0, "image".to_owned()));

        lab.images.remove_image(cri::RemoveImageRequest { image: spec }).await.unwrap();
        assert_eq!(find(&mut lab, name).await, None);
        let layers = || std::fs::read_dir(lab.dir.join("root/layers")).unwrap().count();
        assert_eq!(layers(), 1, "a container still stands on the layer");
        for missing in ["127.0.0.1:5000/team/none:v1", "127.0.0.1:5999/no/registry:v1"] {
            let error = pull(&mut lab, missing, None).await.unwrap_err();
            assert!(error.message().contains(missing), "{error}");
        }
    });
}

#[test]
fn logs_in_with_the_credentials_of_the_call() {
    lab(Options::default(), |mut lab| async move {
        let _registry = Registry::start(&lab.dir, 5000, true).await;
        push(&lab, "127.0.0.1:5000/private:v1", true);
        let auth = |username: &str, password: &str, auth: &str| {
            Some(cri::AuthConfig {
                username: username.into(),
                password: password.into(),
                auth: auth.into(),
                ..Default::default()
            })
        };
        let name = "127.0.0.1:5000/private:v1";
        for (auth, works) in [
            (None, false),
            (auth("me", "wrong", ""), false),
            (auth("", "", "not base64!"), false),
            (auth("me", "secret", ""), true),
            (auth("", "", "bWU6c2VjcmV0"), true),
        ] {
            let pulled = pull(&mut lab, name, auth.clone()).await;
            assert_eq!(pulled.is_ok(), works, "{auth:?}: {pulled:?}");
        }
    });
}

#[test]
fn a_mirror_is_asked_first() {
    let mirrors =
        [("docker.io".to_owned(), vec!["http://127.0.0.1:5998".to_owned(), "http://127.0.0.1:5000".to_owned()])];
    let registries = Registries { mirrors: mirrors.into(), ..Registries::default() };
    lab(Options { registries, ..Options::default() }, |mut lab| async move {
        let _registry = Registry::start(&lab.dir, 5000, false).await;
        push(&lab, "127.0.0.1:5000/library/thing:latest", false);
        pull(&mut lab, "thing", None).await.unwrap();
        assert_eq!(find(&mut lab, "thing").await.unwrap().repo_tags, ["docker.io/library/thing:latest"]);
    });
}

#[test]
fn oci_layouts_are_imported() {
    lab(Options::default(), |mut lab| async move {
        let archive = lab.dir.join("push.tar");
        support::image::docker_archive(&archive, "saved:test");
        let root = lab.dir.join("root");
        let config = lab.sandbox_config("oci");
        let sandbox = lab.run_sandbox(&config).await;
        for (n, (to, name, expect)) in [
            ("oci:DIR/layout:team/one:v1", "layout", "docker.io/team/one:v1"),
            ("oci-archive:DIR/two.tar:v2", "two.tar", "docker.io/library/two:v2"),
            ("docker-archive:DIR/three.tar:localhost/three:v3", "three.tar", "localhost/three:v3"),
        ]
        .into_iter()
        .enumerate()
        {
            let mut skopeo = Command::new("skopeo");
            skopeo.args(["copy", "--quiet", "--insecure-policy"]).arg(format!("docker-archive:{}", archive.display()));
            let status = skopeo.arg(to.replace("DIR", &lab.dir.display().to_string())).status().unwrap();
            assert!(status.success(), "skopeo copy to {to}");
            let (root, path) = (root.clone(), lab.dir.join(name));
            let imported = tokio::task::spawn_blocking(move || {
                navarch_runtime::images::Images::open(&root, Registries::default())?.import(&path)
            });
            let images = imported.await.unwrap().unwrap();
            assert!(images[0].tags.contains(expect), "{:?}", images[0].tags);
            let image = Some(cri::ImageSpec { image: expect.to_owned(), ..Default::default() });
            let container = cri::ContainerConfig { image, ..lab.shell(&format!("c{n}"), "echo $FROM") };
            assert_eq!(lab.try_script(&sandbox, container).await, (0, "image".to_owned()), "{expect}");
        }
    });
}
