use super::*;
use crate::images::manifest::Process;

fn build_with(config: &cri::ContainerConfig, image: Process) -> Result<Value, Error> {
    let inputs = Inputs {
        config,
        image: &ImageConfig { config: image, ..ImageConfig::default() },
        view: &View(Vec::new()),
        paths: Paths::default(),
        cgroup: "/pods/c",
        cgroup_v2: false,
        hostname: "host",
        pid_namespace: None,
        seccomp: false,
        available: &Default::default(),
    };
    build(&inputs).map(|(spec, _)| spec)
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn commands() {
    // Entrypoint and cmd of the image, command and args of the container.
    for (entrypoint, cmd, command, args, expect) in [
        ("e", "c", "", "", Some("e c")),
        ("e", "c", "", "a", Some("e a")),
        ("e", "c", "x", "", Some("x")),
        ("e", "c", "x", "a", Some("x a")),
        ("", "c d", "", "", Some("c d")),
        ("", "", "", "", None),
    ] {
        let config = cri::ContainerConfig { command: words(command), args: words(args), ..Default::default() };
        let image = Process { entrypoint: words(entrypoint), cmd: words(cmd), ..Process::default() };
        let got = build_with(&config, image).ok().map(|spec| spec["process"]["args"].clone());
        assert_eq!(got, expect.map(|expect| json!(words(expect))), "{entrypoint}/{cmd}/{command}/{args}");
    }
}

#[test]
fn later_environment_wins() {
    let config = cri::ContainerConfig {
        command: words("x"),
        envs: vec![cri::KeyValue { key: "A".into(), value: "container".into() }],
        ..Default::default()
    };
    let image = Process { env: words("A=image B=image PATH=/bin"), ..Process::default() };
    let spec = build_with(&config, image).unwrap();
    assert_eq!(spec["process"]["env"], json!(["PATH=/bin", "HOSTNAME=host", "A=container", "B=image"]));
}

#[test]
fn mounts_nest_and_replace() {
    let dir = tempfile::tempdir().unwrap();
    let host = dir.path().to_str().unwrap().to_owned();
    let mount = |at: &str, propagation: i32| cri::Mount {
        container_path: at.into(),
        host_path: host.clone(),
        propagation,
        ..Default::default()
    };
    let config = cri::ContainerConfig {
        command: words("x"),
        mounts: vec![mount("/a/b", 0), mount("/a", 1), mount("/etc/hosts", 0)],
        ..Default::default()
    };
    let spec = build_with(&config, Process::default()).unwrap();
    let at: Vec<&str> =
        spec["mounts"].as_array().unwrap().iter().filter_map(|mount| mount["destination"].as_str()).collect();
    assert_eq!(at.iter().filter(|at| **at == "/etc/hosts").count(), 1);
    assert!(at.iter().position(|at| *at == "/a") < at.iter().position(|at| *at == "/a/b"));
    assert_eq!(spec["linux"]["rootfsPropagation"], "rslave");

    let relative = cri::ContainerConfig { command: words("x"), mounts: vec![mount("a", 0)], ..Default::default() };
    assert!(build_with(&relative, Process::default()).is_err());
}

#[test]
fn libcontainer_takes_it() {
    let config = cri::ContainerConfig { command: words("x"), ..Default::default() };
    let mut spec = build_with(&config, Process::default()).unwrap();
    for privileged in [false, true] {
        let security = cri::LinuxContainerSecurityContext { privileged, ..Default::default() };
        let linux = cri::LinuxContainerConfig { security_context: Some(security), ..Default::default() };
        let config = cri::ContainerConfig { linux: Some(linux), ..config.clone() };
        spec = build_with(&config, Process::default()).unwrap();
        serde_json::from_value::<oci_spec::runtime::Spec>(spec.clone()).unwrap();
    }
    let process = exec(&spec, &words("ls -l"), true).unwrap();
    serde_json::from_value::<oci_spec::runtime::Process>(process).unwrap();
}
