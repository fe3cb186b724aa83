//! Writes a docker-archive of busybox and programs of this machine:
//! `cargo run -p navarch-testkit --example image -- ARCHIVE NAME [PROGRAM...]`

fn main() -> std::io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [archive, name, programs @ ..] = arguments.as_slice() else {
        return Err(std::io::Error::other("usage: image ARCHIVE NAME [PROGRAM...]"));
    };
    let programs: Vec<&str> = programs.iter().map(String::as_str).collect();
    navarch_testkit::image::write(archive.as_ref(), name, &programs)
}
