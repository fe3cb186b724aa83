//! Compiles `proto/etcd.proto` without protoc, when the etcd backend is wanted.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto/etcd.proto");
    #[cfg(feature = "etcd")]
    {
        let descriptors = protox::compile(["proto/etcd.proto"], ["proto"])?;
        tonic_prost_build::configure().build_server(false).bytes(".").compile_fds(descriptors)?;
    }
    Ok(())
}
