//! Logs of containers, from the files that the runtime writes in the format of CRI.
//!
//! ```text
//! 2026-11-21T10:00:00.123456789Z stdout F a whole line
//! 2026-11-21T10:00:00.123456789Z stderr P the beginning of a long one
//! ```

use std::io::{self, SeekFrom};
use std::path::{Component, Path as FilePath, PathBuf};

use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::StreamExt;
use inotify::{Inotify, WatchMask};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1 as core;
use tokio::fs::File;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncSeekExt, BufReader};
use tokio::sync::{mpsc, watch};

use super::upgrade::pairs;
use super::{Context, say};
use crate::cri::v1;
use crate::pod::PodExt;

/// What of a log is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Options {
    follow: bool,
    previous: bool,
    timestamps: bool,
    tail: Option<u64>,
    limit: Option<u64>,
    since: Option<Timestamp>,
    /// `stdout` or `stderr`; both if absent.
    stream: Option<&'static str>,
}

impl Options {
    fn parse(query: &str, now: Timestamp) -> Result<Self, String> {
        let mut options = Self::default();
        for (name, value) in pairs(query) {
            let on = value == "true" || value == "1";
            let bad = || format!("invalid {name}: {value:?}");
            let number = || value.parse::<i64>().map_err(|_| bad());
            match name.as_str() {
                "follow" => options.follow = on,
                "previous" => options.previous = on,
                "timestamps" => options.timestamps = on,
                "tailLines" => options.tail = Some(u64::try_from(number()?).map_err(|_| bad())?),
                "limitBytes" => options.limit = Some(u64::try_from(number()?).ok().filter(|n| *n > 0).ok_or_else(bad)?),
                "sinceSeconds" => options.since = now.checked_sub(SignedDuration::from_secs(number()?)).ok(),
                "sinceTime" => options.since = Some(value.parse().map_err(|_| bad())?),
                "stream" => {
                    options.stream = match value.as_str() {
                        "Stdout" => Some("stdout"),
                        "Stderr" => Some("stderr"),
                        "All" | "" => None,
                        _ => return Err(bad()),
                    };
                }
                _ => {}
            }
        }
        Ok(options)
    }

    /// What is shown of one line of the file.
    fn show(&self, line: &[u8]) -> Option<Vec<u8>> {
        let mut parts = line.splitn(4, |byte| *byte == b' ');
        let (time, stream, tag) = (parts.next()?, parts.next()?, parts.next()?);
        let content = parts.next().unwrap_or_default();
        let whole = tag != b"P" && !tag.starts_with(b"P:");
        if self.stream.is_some_and(|wanted| wanted.as_bytes() != stream) {
            return None;
        }
        if let Some(since) = self.since {
            let written: Option<Timestamp> = std::str::from_utf8(time).ok().and_then(|time| time.parse().ok());
            if written.is_some_and(|written| written < since) {
                return None;
            }
        }
        let mut out = Vec::with_capacity(line.len() + 1);
        if self.timestamps {
            out.extend_from_slice(time);
            out.push(b' ');
        }
        let content = content.strip_suffix(b"\n").unwrap_or(content);
        out.extend_from_slice(content);
        if whole {
            out.push(b'\n');
        }
        Some(out)
    }
}

pub(super) async fn container(
    State(context): State<Context>,
    Path((namespace, name, container)): Path<(String, String, String)>,
    RawQuery(query): RawQuery,
) -> Response {
    let options = match Options::parse(query.as_deref().unwrap_or_default(), Timestamp::now()) {
        Ok(options) => options,
        Err(message) => return say(StatusCode::UNPROCESSABLE_ENTITY, message),
    };
    let Some(seen) = context.pods.find(&namespace, &name, None) else {
        return say(StatusCode::NOT_FOUND, format!("pod \"{name}\" does not exist"));
    };
    if seen.pod.container(&container).is_none() {
        return say(StatusCode::NOT_FOUND, format!("container \"{container}\" not found in pod \"{name}\""));
    }
    let runs = match context.runs(seen.pod.uid(), &container).await {
        Ok(runs) => runs,
        Err(answer) => return answer,
    };
    let run = match choose(&runs, seen.status.as_ref(), &name, &container, options.previous) {
        Ok(run) => run.clone(),
        Err(message) => return say(StatusCode::BAD_REQUEST, message),
    };
    let running = run.state() == v1::ContainerState::ContainerRunning;
    let path = PathBuf::from(&run.log_path);
    let file = match File::open(&path).await {
        Ok(file) => file,
        Err(error) => {
            return say(
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("failed to open the log of container \"{container}\": {error}"),
            );
        }
    };
    let status = context.pods.watch(seen.pod.uid()).filter(|_| running && options.follow);
    let (sender, receiver) = mpsc::channel::<io::Result<Bytes>>(16);
    tokio::spawn(async move {
        let reader = Reader { path, options, id: run.id, status, sender };
        // The caller hanging up is the usual end of a follow.
        let _ = reader.run(file).await;
    });
    let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
    ([("content-type", "text/plain")], Body::from_stream(stream)).into_response()
}

/// The run whose log is meant.
fn choose<'a>(
    runs: &'a [v1::ContainerStatus],
    status: Option<&core::PodStatus>,
    pod: &str,
    container: &str,
    previous: bool,
) -> Result<&'a v1::ContainerStatus, String> {
    let started = |run: &&v1::ContainerStatus| run.state() != v1::ContainerState::ContainerCreated;
    if previous {
        // While the container waits for its next run, the previous one is the newest there is.
        let waits = state(status, container).is_some_and(|state| state.waiting.is_some());
        let ended = |run: &&v1::ContainerStatus| run.state() == v1::ContainerState::ContainerExited;
        let chosen = if waits { runs.iter().find(ended) } else { runs.iter().skip(1).find(ended) };
        return chosen
            .ok_or_else(|| format!("previous terminated container \"{container}\" in pod \"{pod}\" not found"));
    }
    if let Some(run) = runs.iter().find(started) {
        return Ok(run);
    }
    let waiting = state(status, container).and_then(|state| state.waiting.clone()).unwrap_or_default();
    let reason = waiting.reason.unwrap_or_else(|| "ContainerCreating".to_owned());
    Err(match reason.as_str() {
        "ErrImagePull" => {
            format!("container \"{container}\" in pod \"{pod}\" is waiting to start: image can't be pulled")
        }
        "ImagePullBackOff" => {
            format!("container \"{container}\" in pod \"{pod}\" is waiting to start: trying and failing to pull image")
        }
        reason => format!("container \"{container}\" in pod \"{pod}\" is waiting to start: {reason}"),
    })
}

fn state<'a>(status: Option<&'a core::PodStatus>, container: &str) -> Option<&'a core::ContainerState> {
    let status = status?;
    let lists = [&status.init_container_statuses, &status.container_statuses, &status.ephemeral_container_statuses];
    let mut all = lists.into_iter().flatten().flatten();
    all.find(|status| status.name == container)?.state.as_ref()
}

/// Copies one log to the caller.
struct Reader {
    path: PathBuf,
    options: Options,
    id: String,
    /// The pod's status, to see the container end; only for a follow.
    status: Option<watch::Receiver<Option<core::PodStatus>>>,
    sender: mpsc::Sender<io::Result<Bytes>>,
}

impl Reader {
    async fn run(mut self, mut file: File) -> io::Result<()> {
        // Watched before it is read, so that no write falls between the two.
        let mut changes = self.status.is_some().then(|| watch_log(&self.path)).transpose()?;
        if let Some(lines) = self.options.tail {
            let start = tail_start(&mut file, lines).await?;
            file.seek(SeekFrom::Start(start)).await?;
        }
        let mut left = self.options.limit;
        let mut reader = BufReader::new(file);
        let mut line = Vec::new();
        loop {
            let ended = self.has_ended();
            loop {
                let read = reader.read_until(b'\n', &mut line).await?;
                // A line without its end is still being written, unless nobody writes any more.
                let complete = line.ends_with(b"\n") || (ended && !line.is_empty());
                if !complete {
                    if read == 0 {
                        break;
                    }
                    continue;
                }
                let shown = self.options.show(&line);
                line.clear();
                let Some(mut shown) = shown else { continue };
                if let Some(left) = &mut left {
                    shown.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
                    *left -= shown.len() as u64;
                }
                if self.sender.send(Ok(shown.into())).await.is_err() || left == Some(0) {
                    return Ok(());
                }
            }
            let Some(changes) = changes.as_mut().filter(|_| !ended) else { return Ok(()) };
            self.wait(changes).await;
            if self.sender.is_closed() {
                return Ok(());
            }
            if let Some(fresh) = rotated(&self.path, reader.get_ref()).await {
                // What is left of the old file comes first.
                if reader.fill_buf().await?.is_empty() {
                    reader = BufReader::new(fresh);
                }
            }
        }
    }

    /// Whether the container has ended, by what its pod's status says.
    fn has_ended(&mut self) -> bool {
        let Some(status) = &mut self.status else { return true };
        let gone = status.has_changed().is_err();
        let status = status.borrow_and_update();
        let lists = status.iter().flat_map(|status| {
            [&status.init_container_statuses, &status.container_statuses, &status.ephemeral_container_statuses]
        });
        let mut all = lists.flatten().flatten();
        let runs = all.any(|one| {
            let running = one.state.as_ref().is_some_and(|state| state.running.is_some());
            running && one.container_id.as_deref().is_some_and(|id| id.ends_with(&self.id))
        });
        gone || !runs
    }

    async fn wait(&mut self, changes: &mut inotify::EventStream<[u8; 1024]>) {
        let Some(status) = &mut self.status else { return };
        tokio::select! {
            _ = changes.next() => {}
            _ = status.changed() => {}
            () = self.sender.closed() => {}
        }
    }
}

/// The directory is watched too: rotation puts a new file in the old one's place.
fn watch_log(path: &FilePath) -> io::Result<inotify::EventStream<[u8; 1024]>> {
    let inotify = Inotify::init()?;
    let directory = path.parent().unwrap_or(FilePath::new("/"));
    inotify.watches().add(directory, WatchMask::MODIFY | WatchMask::CREATE | WatchMask::MOVED_TO)?;
    inotify.into_event_stream([0; 1024])
}

/// The file that has taken the place of `open`, if one has.
async fn rotated(path: &FilePath, open: &File) -> Option<File> {
    use std::os::unix::fs::MetadataExt;
    let now = tokio::fs::metadata(path).await.ok()?;
    let old = open.metadata().await.ok()?;
    if (now.dev(), now.ino()) == (old.dev(), old.ino()) { None } else { File::open(path).await.ok() }
}

/// Offset of the last `lines` lines. Lines that were cut into parts count by their parts.
async fn tail_start(file: &mut File, lines: u64) -> io::Result<u64> {
    const BLOCK: u64 = 64 << 10;
    let end = file.seek(SeekFrom::End(0)).await?;
    if lines == 0 {
        return Ok(end);
    }
    let (mut at, mut seen) = (end, 0);
    let mut block = Vec::new();
    while at > 0 {
        let from = at.saturating_sub(BLOCK);
        file.seek(SeekFrom::Start(from)).await?;
        block.resize(usize::try_from(at - from).unwrap_or(0), 0);
        file.read_exact(&mut block).await?;
        for (index, byte) in block.iter().enumerate().rev() {
            let offset = from + index as u64;
            // The newline that ends the file begins no line.
            if *byte == b'\n' && offset + 1 != end {
                seen += 1;
                if seen == lines {
                    return Ok(offset + 1);
                }
            }
        }
        at = from;
    }
    Ok(0)
}

/// Files below the machine's log directory, for those who may read them.
pub(super) async fn node(path: Option<Path<String>>) -> Response {
    let relative = path.map(|Path(path)| path).unwrap_or_default();
    if !FilePath::new(&relative).components().all(|part| matches!(part, Component::Normal(_))) {
        return say(StatusCode::BAD_REQUEST, "the path must stay below the log directory");
    }
    let target = FilePath::new("/var/log").join(&relative);
    if target.is_dir() {
        let entries = std::fs::read_dir(&target).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        let items: String = names.iter().map(|name| format!("<a href=\"{name}\">{name}</a>\n")).collect();
        return ([("content-type", "text/html; charset=utf-8")], format!("<pre>\n{items}</pre>\n")).into_response();
    }
    match File::open(&target).await {
        Ok(file) => Body::from_stream(tokio_util::io::ReaderStream::new(file)).into_response(),
        Err(_) => say(StatusCode::NOT_FOUND, "404 page not found"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(text: &str, query: &str) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        std::fs::write(&path, text).unwrap();
        let options = Options::parse(query, "2026-01-01T00:00:10Z".parse().unwrap()).unwrap();
        let (sender, mut receiver) = mpsc::channel(16);
        let file = File::open(&path).await.unwrap();
        let reader = Reader { path, options, id: "x".into(), status: None, sender };
        let task = tokio::spawn(reader.run(file));
        let mut out = Vec::new();
        while let Some(bytes) = receiver.recv().await {
            out.extend_from_slice(&bytes.unwrap());
        }
        task.await.unwrap().unwrap();
        String::from_utf8(out).unwrap()
    }

    #[tokio::test]
    async fn options_choose_lines() {
        let text = "2026-01-01T00:00:01Z stdout F one\n2026-01-01T00:00:02Z stderr P two\n\
                    2026-01-01T00:00:03Z stderr F three\n2026-01-01T00:00:09Z stdout F \n";
        for (query, expect) in [
            ("", "one\ntwothree\n\n"),
            ("tailLines=2", "three\n\n"),
            ("tailLines=0", ""),
            ("tailLines=99", "one\ntwothree\n\n"),
            ("limitBytes=5", "one\nt"),
            ("sinceSeconds=7", "three\n\n"),
            ("sinceTime=2026-01-01T00:00:09Z", "\n"),
            ("stream=Stdout", "one\n\n"),
            ("timestamps=true&tailLines=1", "2026-01-01T00:00:09Z \n"),
        ] {
            assert_eq!(read(text, query).await, expect, "{query}");
        }
        assert_eq!(read("2026-01-01T00:00:01Z stdout F unfinished", "").await, "unfinished\n");
        assert!(Options::parse("tailLines=x", Timestamp::now()).is_err());
        assert!(Options::parse("limitBytes=0", Timestamp::now()).is_err());
    }

    #[tokio::test]
    async fn follow_ends_with_the_container() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        std::fs::write(&path, "2026-01-01T00:00:01Z stdout F one\n").unwrap();
        let status = |state: serde_json::Value| -> Option<core::PodStatus> {
            serde_json::from_value(serde_json::json!({"containerStatuses": [
                {"name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 0, "containerID": "t://x", "state": state}]}))
            .unwrap()
        };
        let (say, status_of) = watch::channel(status(serde_json::json!({"running": {}})));
        let (sender, mut receiver) = mpsc::channel(16);
        let options = Options { follow: true, ..Options::default() };
        let file = File::open(&path).await.unwrap();
        let reader = Reader { path: path.clone(), options, id: "x".into(), status: Some(status_of), sender };
        let task = tokio::spawn(reader.run(file));
        assert_eq!(receiver.recv().await.unwrap().unwrap(), "one\n");
        let mut log = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
        std::io::Write::write_all(&mut log, b"2026-01-01T00:00:02Z stdout F two\n").unwrap();
        assert_eq!(receiver.recv().await.unwrap().unwrap(), "two\n");
        say.send_replace(status(serde_json::json!({"terminated": {"exitCode": 0}})));
        assert!(receiver.recv().await.is_none());
        task.await.unwrap().unwrap();
    }
}
