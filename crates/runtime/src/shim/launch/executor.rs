//! The last steps of a container's process before it becomes its program.

use std::ffi::CString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use caps::{CapSet, Capability};
use libcontainer::oci_spec::runtime::Spec;
use libcontainer::workload::{Executor, ExecutorError, ExecutorValidationError};
use nix::libc;

use crate::shim::protocol::Seccomp;

/// Installs the system call filter, gives borrowed capabilities back, runs the program.
#[derive(Clone)]
pub(super) struct Program {
    /// Read before the root file system changes.
    filter: Option<(Vec<u8>, Vec<Capability>)>,
}

impl Program {
    pub(super) fn new(seccomp: Option<Seccomp>) -> Result<Program, String> {
        let Some(seccomp) = seccomp else { return Ok(Program { filter: None }) };
        let program = fs::read(&seccomp.program)
            .map_err(|error| format!("reading the seccomp program {:?}: {error}", seccomp.program))?;
        let borrowed = seccomp.borrowed.iter().map(|name| Capability::from_str(name)).collect::<Result<_, _>>();
        Ok(Program { filter: Some((program, borrowed.map_err(|error| error.to_string())?)) })
    }
}

impl Executor for Program {
    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let args = arguments(spec).ok_or(ExecutorError::InvalidArg)?;
        let args: Vec<CString> = args
            .iter()
            .map(|arg| CString::new(arg.as_bytes()))
            .collect::<Result<_, _>>()
            .map_err(|_| ExecutorError::InvalidArg)?;
        let program = args.first().ok_or(ExecutorError::InvalidArg)?;
        if let Some((filter, borrowed)) = &self.filter {
            install(filter).map_err(|error| ExecutorError::Other(format!("installing the seccomp filter: {error}")))?;
            for set in [CapSet::Ambient, CapSet::Bounding, CapSet::Inheritable, CapSet::Effective, CapSet::Permitted] {
                for capability in borrowed {
                    caps::drop(None, set, *capability)
                        .map_err(|error| ExecutorError::Other(format!("dropping {capability}: {error}")))?;
                }
            }
        }
        let Err(error) = nix::unistd::execvp(program, &args);
        Err(ExecutorError::Other(format!("exec {program:?}: {error}")))
    }

    /// Finds the program now, while there is somebody to tell.
    fn validate(&self, spec: &Spec) -> Result<(), ExecutorValidationError> {
        let invalid = |text: String| Err(ExecutorValidationError::ArgValidationError(text));
        let Some(program) = arguments(spec).and_then(|args| args.first()) else {
            return invalid("no command specified".to_owned());
        };
        if program.contains('/') {
            let process = spec.process().as_ref();
            let path = process.map_or_else(|| PathBuf::from(program), |process| process.cwd().join(program));
            return match executable(&path) {
                Ok(()) => Ok(()),
                Err(why) => invalid(format!("exec: \"{program}\": stat {}: {why}", path.display())),
            };
        }
        let search = search_path(spec);
        match search.split(':').any(|dir| executable(&Path::new(dir).join(program)).is_ok()) {
            true => Ok(()),
            false => invalid(format!("exec: \"{program}\": executable file not found in $PATH")),
        }
    }
}

fn arguments(spec: &Spec) -> Option<&Vec<String>> {
    spec.process().as_ref()?.args().as_ref()
}

fn search_path(spec: &Spec) -> String {
    let env = spec.process().as_ref().and_then(|process| process.env().as_ref());
    let path = env.and_then(|env| env.iter().rev().find_map(|entry| entry.strip_prefix("PATH=")));
    path.unwrap_or_default().to_owned()
}

fn executable(path: &Path) -> Result<(), String> {
    match fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err("no such file or directory".to_owned()),
        // Another user than root may run what root's missing capabilities forbid to look at; execve decides.
        Err(_) => Ok(()),
        Ok(found) if found.is_dir() => Err("is a directory".to_owned()),
        Ok(found) if found.permissions().mode() & 0o111 == 0 => Err("permission denied".to_owned()),
        Ok(_) => Ok(()),
    }
}

fn install(program: &[u8]) -> nix::Result<()> {
    let filter = libc::sock_fprog {
        len: (program.len() / size_of::<libc::sock_filter>()) as u16,
        filter: program.as_ptr().cast_mut().cast(),
    };
    // SAFETY: the kernel copies `len` instructions of 8 bytes out of `program`, reading unaligned memory is fine for it.
    let result = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter, 0, 0) };
    nix::Error::result(result).map(drop)
}
