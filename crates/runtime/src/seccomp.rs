//! The system call filter of the profile RuntimeDefault, as a classic BPF program.
//!
//! It forbids what software in a container has no business with: loading kernel code, mounting, entering namespaces,
//! the machine's clock, keys, raw access to others. A capability that exists for such a call allows it. All else is
//! let through: the filter is the second fence, capabilities and namespaces are the first.
//!
//! ```text
//! load arch        not ours -> EPERM
//! load nr          >= 0x40000000 (x32) -> EPERM          (x86-64 only)
//!                  clone3 -> ENOSYS: its flags are behind a pointer, and everybody falls back to clone
//!                  each forbidden number -> EPERM
//! clone?           flags & CLONE_NEW* -> EPERM           (without CAP_SYS_ADMIN)
//! allow
//! ```

use std::collections::BTreeSet;

use nix::libc::{self, c_long};

#[cfg(target_arch = "x86_64")]
const ARCH: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCH: u32 = 0xc000_00b7;

const LOAD_WORD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const JUMP_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
#[cfg(target_arch = "x86_64")]
const JUMP_AT_LEAST: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
const JUMP_ANY_BIT: u16 = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

/// Offsets in `struct seccomp_data`; the first argument's low half on a little-endian machine.
const NR: u32 = 0;
const ARCH_AT: u32 = 4;
const ARGUMENT_0: u32 = 16;

/// Every namespace, the cgroup's and time's included.
const NEW_NAMESPACES: u32 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWCGROUP) as u32;

/// Forbidden calls, and the capability that allows them.
const FORBIDDEN: &[(Option<&str>, &[c_long])] = &[
    (
        Some("CAP_SYS_ADMIN"),
        &[
            libc::SYS_mount,
            libc::SYS_umount2,
            libc::SYS_pivot_root,
            libc::SYS_setns,
            libc::SYS_unshare,
            libc::SYS_fsopen,
            libc::SYS_fsconfig,
            libc::SYS_fsmount,
            libc::SYS_fspick,
            libc::SYS_move_mount,
            libc::SYS_open_tree,
            libc::SYS_mount_setattr,
            libc::SYS_bpf,
            libc::SYS_perf_event_open,
            libc::SYS_quotactl,
            libc::SYS_lookup_dcookie,
            libc::SYS_fanotify_init,
            libc::SYS_swapon,
            libc::SYS_swapoff,
            libc::SYS_sethostname,
            libc::SYS_setdomainname,
        ],
    ),
    (Some("CAP_SYS_BOOT"), &[libc::SYS_reboot, libc::SYS_kexec_load, libc::SYS_kexec_file_load]),
    (Some("CAP_SYS_MODULE"), &[libc::SYS_init_module, libc::SYS_finit_module, libc::SYS_delete_module]),
    (Some("CAP_SYS_PACCT"), &[libc::SYS_acct]),
    (Some("CAP_SYS_TIME"), &[libc::SYS_settimeofday, libc::SYS_clock_settime]),
    (Some("CAP_SYS_PTRACE"), &[libc::SYS_kcmp, libc::SYS_pidfd_getfd, libc::SYS_process_madvise]),
    (Some("CAP_DAC_READ_SEARCH"), &[libc::SYS_open_by_handle_at]),
    (Some("CAP_SYS_NICE"), &[libc::SYS_set_mempolicy, libc::SYS_mbind, libc::SYS_move_pages, libc::SYS_migrate_pages]),
    #[cfg(target_arch = "x86_64")]
    (Some("CAP_SYS_RAWIO"), &[libc::SYS_iopl, libc::SYS_ioperm]),
    (
        None,
        &[
            libc::SYS_add_key,
            libc::SYS_request_key,
            libc::SYS_keyctl,
            libc::SYS_userfaultfd,
            libc::SYS_nfsservctl,
            libc::SYS_io_uring_setup,
            libc::SYS_io_uring_enter,
            libc::SYS_io_uring_register,
        ],
    ),
];

fn instruction(code: u16, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k }
}

fn deny(errno: i32) -> libc::sock_filter {
    instruction(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | errno as u32)
}

/// The program for a process with these capabilities (`CAP_...`).
fn program(capabilities: &BTreeSet<String>) -> Vec<libc::sock_filter> {
    let has = |name: &str| capabilities.contains(name);
    let mut program = vec![
        instruction(LOAD_WORD, 0, 0, ARCH_AT),
        instruction(JUMP_EQUAL, 1, 0, ARCH),
        deny(libc::EPERM),
        instruction(LOAD_WORD, 0, 0, NR),
    ];
    #[cfg(target_arch = "x86_64")]
    program.extend([instruction(JUMP_AT_LEAST, 0, 1, 0x4000_0000), deny(libc::EPERM)]);
    let mut forbid = |number: c_long, errno: i32| {
        program.extend([instruction(JUMP_EQUAL, 0, 1, number as u32), deny(errno)]);
    };
    if !has("CAP_SYS_ADMIN") {
        forbid(libc::SYS_clone3, libc::ENOSYS);
    }
    for (allowed_by, numbers) in FORBIDDEN {
        if !allowed_by.is_some_and(has) {
            numbers.iter().for_each(|number| forbid(*number, libc::EPERM));
        }
    }
    if !has("CAP_SYS_ADMIN") {
        program.extend([
            instruction(JUMP_EQUAL, 0, 3, libc::SYS_clone as u32),
            instruction(LOAD_WORD, 0, 0, ARGUMENT_0),
            instruction(JUMP_ANY_BIT, 0, 1, NEW_NAMESPACES),
            deny(libc::EPERM),
        ]);
    }
    program.push(instruction(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW));
    program
}

/// The program as the bytes that a shim reads.
pub(crate) fn encode(capabilities: &BTreeSet<String>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for step in program(capabilities) {
        bytes.extend(step.code.to_ne_bytes());
        bytes.extend([step.jt, step.jf]);
        bytes.extend(step.k.to_ne_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the program as the kernel does.
    fn run(capabilities: &[&str], arch: u32, nr: c_long, argument: u32) -> u32 {
        let program = program(&capabilities.iter().map(|name| (*name).to_owned()).collect());
        let (mut at, mut loaded) = (0, 0);
        loop {
            let step = program[at];
            at += 1;
            let hit = match step.code {
                LOAD_WORD => {
                    loaded = match step.k {
                        NR => nr as u32,
                        ARCH_AT => arch,
                        _ => argument,
                    };
                    continue;
                }
                RETURN => return step.k,
                JUMP_EQUAL => loaded == step.k,
                JUMP_ANY_BIT => loaded & step.k != 0,
                _ => loaded >= step.k,
            };
            at += usize::from(if hit { step.jt } else { step.jf });
        }
    }

    #[test]
    fn what_is_allowed() {
        const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
        const EPERM: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
        const ENOSYS: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
        let admin = ["CAP_SYS_ADMIN"].as_slice();
        for (capabilities, nr, argument, expect) in [
            ([].as_slice(), libc::SYS_read, 0, ALLOW),
            (&[], libc::SYS_mount, 0, EPERM),
            (admin, libc::SYS_mount, 0, ALLOW),
            (admin, libc::SYS_keyctl, 0, EPERM),
            (&[], libc::SYS_clone, libc::SIGCHLD as u32, ALLOW),
            (&[], libc::SYS_clone, libc::CLONE_NEWUSER as u32, EPERM),
            (admin, libc::SYS_clone, libc::CLONE_NEWUSER as u32, ALLOW),
            (&[], libc::SYS_clone3, 0, ENOSYS),
            (&[], 0x4000_0001, 0, if cfg!(target_arch = "x86_64") { EPERM } else { ALLOW }),
        ] {
            assert_eq!(run(capabilities, ARCH, nr, argument), expect, "{nr} with {capabilities:?}");
        }
        assert_eq!(run(admin, 3, libc::SYS_read, 0), EPERM, "another architecture's numbers mean other calls");
    }
}
