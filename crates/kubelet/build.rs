//! Compiles the CRI proto of the runtime crate as a client (and a server for the tests' fake) without protoc.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=../runtime/proto/cri.proto");
    let descriptors = protox::compile(["../runtime/proto/cri.proto"], ["../runtime/proto"])?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
