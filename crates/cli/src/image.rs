//! `navarch image`: the running node's images, through its control socket.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::Path,
};

use anyhow::{Context, bail};
use comfy_table::{Table, presets};
use serde::Deserialize;

/// What can be done with images.
#[derive(clap::Subcommand, Debug)]
pub enum Command {
    /// Import a docker-archive, an OCI archive or an OCI layout directory
    Import { path: std::path::PathBuf },
    /// List the images
    #[command(visible_alias = "list")]
    Ls,
    /// Remove images by name or id
    Rm {
        #[arg(required = true)]
        names: Vec<String>,
    },
}

#[derive(Deserialize)]
struct Image {
    id: String,
    tags: Vec<String>,
    bytes: u64,
}

/// Carries a command out; `socket` is the node's control socket.
pub fn run(command: &Command, socket: &Path, out: &mut impl Write) -> anyhow::Result<()> {
    match command {
        Command::Import { path } => {
            let path = std::path::absolute(path)?;
            let images: Vec<Image> =
                serde_json::from_slice(&call(socket, "POST", "/images", &path.display().to_string())?)?;
            for image in images {
                writeln!(out, "imported {} ({})", image.tags.join(", "), short(&image.id))?;
            }
        }
        Command::Ls => {
            let images: Vec<Image> = serde_json::from_slice(&call(socket, "GET", "/images", "")?)?;
            let mut table = Table::new();
            table.load_style(presets::NOTHING).set_header(["IMAGE", "ID", "SIZE"]);
            for image in images {
                let names = if image.tags.is_empty() { vec!["<none>".into()] } else { image.tags };
                for name in names {
                    table.add_row([name, short(&image.id).to_string(), size(image.bytes)]);
                }
            }
            writeln!(out, "{table}")?;
        }
        Command::Rm { names } => {
            for name in names {
                call(socket, "DELETE", &format!("/images/{name}"), "")?;
                writeln!(out, "removed {name}")?;
            }
        }
    }
    Ok(())
}

fn short(id: &str) -> &str {
    let digits = id.strip_prefix("sha256:").unwrap_or(id);
    digits.get(..12).unwrap_or(digits)
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

/// One HTTP/1.0 exchange; the body of a successful answer.
fn call(socket: &Path, method: &str, path: &str, body: &str) -> anyhow::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(socket).with_context(|| {
        format!(
            "no node answers on {}; start `navarch server`, or put archives into the folder images of its data \
             directory, which is read at start",
            socket.display()
        )
    })?;
    write!(
        stream,
        "{method} {path} HTTP/1.0\r\nHost: navarch\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let end = answer.windows(4).position(|part| part == b"\r\n\r\n").context("the node's answer is cut short")?;
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let body = answer.split_off(end + 4);
    let code: u16 = head.split_whitespace().nth(1).and_then(|code| code.parse().ok()).context("no HTTP status")?;
    if code >= 300 {
        bail!("{}", String::from_utf8_lossy(&body));
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_ids_are_short() {
        assert_eq!(
            (size(900), size(4_200_000), size(3_000_000_000)),
            ("0.9 kB".into(), "4.2 MB".into(), "3.0 GB".into())
        );
        assert_eq!(short("sha256:0123456789abcdef"), "0123456789ab");
    }
}
