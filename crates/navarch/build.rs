//! A fixed load address: processes of this binary share all of its pages instead of relocating their own.

fn main() {
    println!("cargo::rustc-link-arg-bins=-no-pie");
    println!("cargo::rerun-if-changed=build.rs");
}
