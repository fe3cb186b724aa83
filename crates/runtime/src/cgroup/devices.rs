//! Device access with cgroup version 2: the kernel has no file for it but runs an eBPF program at each access.
//!
//! ```text
//! in   r1 -> { u32 access_type: access << 16 | kind, u32 major, u32 minor }
//!      access: 1 mknod, 2 read, 4 write         kind: 1 block, 2 char
//! out  r0 = 1 allowed, 0 not
//!
//! for each rule, the last first:  kind, major, minor equal and access a subset?  -> r0 = rule's answer, exit
//! r0 = 0, exit
//! ```

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use nix::libc;
use serde_json::Value;

const LOAD: libc::c_int = 5;
const ATTACH: libc::c_int = 8;
const TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;

const LOAD_WORD: u8 = 0x61;
const MOVE: u8 = 0xb7;
const MOVE_REGISTER: u8 = 0xbf;
const AND: u8 = 0x57;
const SHIFT_RIGHT: u8 = 0x77;
const JUMP_NOT_EQUAL: u8 = 0x55;
const JUMP_NOT_EQUAL_REGISTER: u8 = 0x5d;
const EXIT: u8 = 0x95;

/// `struct bpf_insn`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
struct Instruction {
    code: u8,
    /// Source in the high half, destination in the low one.
    registers: u8,
    offset: i16,
    immediate: i32,
}

fn instruction(code: u8, to: u8, from: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers: from << 4 | to, offset, immediate }
}

/// The program for rules as the OCI specification has them (`linux.resources.devices`); later rules win.
fn program(rules: &[Value]) -> Vec<Instruction> {
    let mut program = vec![
        instruction(LOAD_WORD, 2, 1, 0, 0),
        instruction(MOVE_REGISTER, 3, 2, 0, 0),
        instruction(SHIFT_RIGHT, 3, 0, 0, 16),
        instruction(AND, 2, 0, 0, 0xffff),
        instruction(LOAD_WORD, 4, 1, 4, 0),
        instruction(LOAD_WORD, 5, 1, 8, 0),
    ];
    for rule in rules.iter().rev() {
        // Tests that jump past the rule's answer; how far is known at the end.
        let mut tests = Vec::new();
        match rule["type"].as_str() {
            Some("b") => tests.push(instruction(JUMP_NOT_EQUAL, 2, 0, 0, 1)),
            Some("c") => tests.push(instruction(JUMP_NOT_EQUAL, 2, 0, 0, 2)),
            _ => {}
        }
        let access = rule["access"].as_str().unwrap_or("rwm").bytes().fold(0, |bits, letter| match letter {
            b'm' => bits | 1,
            b'r' => bits | 2,
            b'w' => bits | 4,
            _ => bits,
        });
        if access != 7 {
            tests.push(instruction(MOVE_REGISTER, 6, 3, 0, 0));
            tests.push(instruction(AND, 6, 0, 0, access));
            tests.push(instruction(JUMP_NOT_EQUAL_REGISTER, 6, 3, 0, 0));
        }
        for (register, name) in [(4, "major"), (5, "minor")] {
            if let Some(number) = rule[name].as_i64().filter(|number| *number >= 0) {
                tests.push(instruction(JUMP_NOT_EQUAL, register, 0, 0, number as i32));
            }
        }
        let length = tests.len();
        for (index, test) in tests.iter_mut().enumerate() {
            if matches!(test.code, JUMP_NOT_EQUAL | JUMP_NOT_EQUAL_REGISTER) {
                test.offset = (length - index - 1 + 2) as i16;
            }
        }
        program.extend(tests);
        let allowed = i32::from(rule["allow"].as_bool().unwrap_or(false));
        program.extend([instruction(MOVE, 0, 0, 0, allowed), instruction(EXIT, 0, 0, 0, 0)]);
        if length == 0 {
            // The rule is about everything: nothing after it is ever reached, and the verifier refuses that.
            return program;
        }
    }
    program.extend([instruction(MOVE, 0, 0, 0, 0), instruction(EXIT, 0, 0, 0, 0)]);
    program
}

#[repr(C)]
#[derive(Default)]
struct LoadRequest {
    program_type: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct AttachRequest {
    target: u32,
    program: u32,
    attach_type: u32,
    flags: u32,
}

fn bpf<T>(command: libc::c_int, request: &T) -> io::Result<libc::c_long> {
    // SAFETY: `request` is laid out as the head of the kernel's union for `command`, its size is given, and what it
    // points to lives in the caller.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(request), size_of::<T>()) };
    Ok(nix::Error::result(result)?)
}

/// Puts the rules on the cgroup in `dir`, where they stay until it is removed.
pub(super) fn restrict(dir: &Path, rules: &[Value]) -> io::Result<()> {
    let instructions = program(rules);
    let load = LoadRequest {
        program_type: TYPE_CGROUP_DEVICE,
        count: instructions.len() as u32,
        instructions: instructions.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        ..LoadRequest::default()
    };
    let fd = bpf(LOAD, &load)?;
    // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
    let program = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    let cgroup = File::open(dir)?;
    let attach = AttachRequest {
        target: cgroup.as_raw_fd() as u32,
        program: program.as_raw_fd() as u32,
        attach_type: ATTACH_CGROUP_DEVICE,
        flags: 0,
    };
    bpf(ATTACH, &attach).map(drop)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Runs the program as the kernel does.
    fn run(rules: &[Value], kind: u64, access: u64, major: u64, minor: u64) -> u64 {
        let program = program(rules);
        let input = [access << 16 | kind, major, minor];
        let (mut at, mut registers) = (0, [0_u64; 11]);
        loop {
            let step = program[at];
            at += 1;
            let (to, from) = (usize::from(step.registers & 15), usize::from(step.registers >> 4));
            let jump = match step.code {
                LOAD_WORD => {
                    registers[to] = input[step.offset as usize / 4];
                    false
                }
                MOVE => {
                    registers[to] = step.immediate as u64;
                    false
                }
                MOVE_REGISTER => {
                    registers[to] = registers[from];
                    false
                }
                AND => {
                    registers[to] &= step.immediate as u64;
                    false
                }
                SHIFT_RIGHT => {
                    registers[to] >>= step.immediate;
                    false
                }
                JUMP_NOT_EQUAL => registers[to] != step.immediate as u64,
                JUMP_NOT_EQUAL_REGISTER => registers[to] != registers[from],
                _ => return registers[0],
            };
            at += if jump { step.offset as usize } else { 0 };
        }
    }

    #[test]
    fn the_last_rule_that_fits_decides() {
        let rules = [
            json!({"allow": false, "access": "rwm"}),
            json!({"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rw"}),
            json!({"allow": true, "type": "c", "major": 136, "access": "rwm"}),
            json!({"allow": true, "type": "b", "major": 8, "minor": 0, "access": "r"}),
        ];
        const BLOCK: u64 = 1;
        const CHAR: u64 = 2;
        for (kind, access, major, minor, expect) in [
            (CHAR, 6, 1, 3, 1),
            (CHAR, 7, 1, 3, 0),
            (BLOCK, 2, 1, 3, 0),
            (CHAR, 7, 136, 77, 1),
            (BLOCK, 2, 8, 0, 1),
            (BLOCK, 4, 8, 0, 0),
            (CHAR, 2, 10, 200, 0),
        ] {
            assert_eq!(run(&rules, kind, access, major, minor), expect, "{kind} {access} {major}:{minor}");
        }
        assert_eq!(run(&[json!({"allow": true, "access": "rwm"})], BLOCK, 7, 9, 9), 1);
        assert_eq!(run(&[], BLOCK, 1, 9, 9), 0);
    }

    #[test]
    fn the_kernel_takes_it() {
        let unified = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].map(Path::new);
        let Some(root) = unified.into_iter().find(|path| path.join("cgroup.controllers").exists()) else {
            eprintln!("skipped: no cgroup version 2 is mounted");
            return;
        };
        let dir = root.join(format!("nvrt-devices-{}", std::process::id()));
        if let Err(error) = std::fs::create_dir(&dir) {
            eprintln!("skipped: cannot make a cgroup: {error}");
            return;
        }
        let done =
            restrict(&dir, &[json!({"allow": false}), json!({"allow": true, "type": "c", "major": 1, "access": "r"})]);
        std::fs::remove_dir(&dir).unwrap();
        done.unwrap();
    }
}
