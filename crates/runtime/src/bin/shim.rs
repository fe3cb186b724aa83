//! The shim alone, as a small binary: what the integration tests start instead of the whole server binary.

fn main() -> std::process::ExitCode {
    navarch_runtime::shim::main()
}
