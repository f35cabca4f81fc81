"""System calls of Linux on riscv64: names by number, and which arguments are texts.

Spec: Linux, include/uapi/asm-generic/unistd.h
"""

from __future__ import annotations

from typing import Final

_NAMES: Final = {
    0: "io_setup io_destroy io_submit io_cancel io_getevents setxattr lsetxattr fsetxattr getxattr lgetxattr fgetxattr"
    " listxattr llistxattr flistxattr removexattr lremovexattr fremovexattr getcwd - eventfd2 epoll_create1 epoll_ctl"
    " epoll_pwait dup dup3 fcntl inotify_init1 inotify_add_watch inotify_rm_watch ioctl ioprio_set ioprio_get flock"
    " mknodat mkdirat unlinkat symlinkat linkat - umount2 mount pivot_root nfsservctl statfs fstatfs truncate"
    " ftruncate fallocate faccessat chdir fchdir chroot fchmod fchmodat fchownat fchown openat close vhangup pipe2"
    " quotactl getdents64 lseek read write readv writev pread64 pwrite64 preadv pwritev sendfile pselect6 ppoll"
    " signalfd4 vmsplice splice tee readlinkat newfstatat fstat sync fsync fdatasync sync_file_range timerfd_create"
    " timerfd_settime timerfd_gettime utimensat acct capget capset personality exit exit_group waitid set_tid_address"
    " unshare futex set_robust_list get_robust_list nanosleep getitimer setitimer kexec_load init_module delete_module"
    " timer_create timer_gettime timer_getoverrun timer_settime timer_delete clock_settime clock_gettime clock_getres"
    " clock_nanosleep syslog ptrace sched_setparam sched_setscheduler sched_getscheduler sched_getparam"
    " sched_setaffinity sched_getaffinity sched_yield sched_get_priority_max sched_get_priority_min"
    " sched_rr_get_interval restart_syscall kill tkill tgkill sigaltstack rt_sigsuspend rt_sigaction rt_sigprocmask"
    " rt_sigpending rt_sigtimedwait rt_sigqueueinfo rt_sigreturn setpriority getpriority reboot setregid setgid"
    " setreuid setuid setresuid getresuid setresgid getresgid setfsuid setfsgid times setpgid getpgid getsid setsid"
    " getgroups setgroups uname sethostname setdomainname getrlimit setrlimit getrusage umask prctl getcpu"
    " gettimeofday settimeofday adjtimex getpid getppid getuid geteuid getgid getegid gettid sysinfo mq_open mq_unlink"
    " mq_timedsend mq_timedreceive mq_notify mq_getsetattr msgget msgctl msgrcv msgsnd semget semctl semtimedop semop"
    " shmget shmctl shmat shmdt socket socketpair bind listen accept connect getsockname getpeername sendto recvfrom"
    " setsockopt getsockopt shutdown sendmsg recvmsg readahead brk munmap mremap add_key request_key keyctl clone"
    " execve mmap fadvise64 swapon swapoff mprotect msync mlock munlock mlockall munlockall mincore madvise"
    " remap_file_pages mbind get_mempolicy set_mempolicy migrate_pages move_pages rt_tgsigqueueinfo perf_event_open"
    " accept4 recvmmsg",
    258: "riscv_hwprobe riscv_flush_icache wait4 prlimit64 fanotify_init fanotify_mark name_to_handle_at"
    " open_by_handle_at clock_adjtime syncfs setns sendmmsg process_vm_readv process_vm_writev kcmp finit_module"
    " sched_setattr sched_getattr renameat2 seccomp getrandom memfd_create bpf execveat userfaultfd membarrier mlock2"
    " copy_file_range preadv2 pwritev2 pkey_mprotect pkey_alloc pkey_free statx io_pgetevents rseq kexec_file_load",
    424: "pidfd_send_signal io_uring_setup io_uring_enter io_uring_register open_tree move_mount fsopen fsconfig"
    " fsmount fspick pidfd_open clone3 close_range openat2 pidfd_getfd faccessat2 process_madvise epoll_pwait2"
    " mount_setattr quotactl_fd landlock_create_ruleset landlock_add_rule landlock_restrict_self memfd_secret"
    " process_mrelease futex_waitv set_mempolicy_home_node cachestat fchmodat2 map_shadow_stack futex_wake futex_wait"
    " futex_requeue statmount listmount lsm_get_self_attr lsm_set_self_attr lsm_list_modules mseal",
}
NAMES: Final = {
    first + i: name for first, names in _NAMES.items() for i, name in enumerate(names.split()) if name != "-"
}

#: Which arguments are texts, by the call's name.
_TEXTS: Final = {
    "setxattr": (0, 1), "lsetxattr": (0, 1), "getxattr": (0, 1), "lgetxattr": (0, 1), "mknodat": (1,), "mkdirat": (1,),
    "unlinkat": (1,), "symlinkat": (0, 2), "linkat": (1, 3), "umount2": (0,), "mount": (0, 1, 2), "pivot_root": (0, 1),
    "statfs": (0,), "truncate": (0,), "faccessat": (1,), "chdir": (0,), "chroot": (0,), "fchmodat": (1,),
    "fchownat": (1,), "openat": (1,), "readlinkat": (1,), "newfstatat": (1,), "utimensat": (1,), "acct": (0,),
    "delete_module": (0,), "sethostname": (0,), "execve": (0,), "execveat": (1,), "swapon": (0,), "swapoff": (0,),
    "finit_module": (1,), "renameat2": (1, 3), "memfd_create": (0,), "statx": (1,), "openat2": (1,),
    "faccessat2": (1,), "fchmodat2": (1,), "move_mount": (1, 3), "fsopen": (0,), "inotify_add_watch": (1,),
}  # fmt: skip
_BY_NUMBER: Final = {number: _TEXTS[name] for number, name in NAMES.items() if name in _TEXTS}

#: How many arguments the commonest calls have; six where it is not known.
_COUNTS: Final = {
    "getpid": 0, "getppid": 0, "getuid": 0, "geteuid": 0, "getgid": 0, "getegid": 0, "gettid": 0, "sync": 0,
    "setsid": 0, "sched_yield": 0, "vhangup": 0, "rt_sigreturn": 0, "restart_syscall": 0, "brk": 1, "close": 1,
    "dup": 1, "chdir": 1, "exit": 1, "exit_group": 1, "uname": 1, "umask": 1, "set_tid_address": 1, "sysinfo": 1,
    "fchdir": 1, "chroot": 1, "times": 1, "getpgid": 1, "getsid": 1, "fsync": 1, "setuid": 1, "setgid": 1, "munmap": 2,
    "getcwd": 2, "fstat": 2, "pipe2": 2, "kill": 2, "setpgid": 2, "nanosleep": 2, "clock_gettime": 2, "umount2": 2,
    "set_robust_list": 2, "statfs": 2, "ftruncate": 2, "read": 3, "write": 3, "readv": 3, "writev": 3, "lseek": 3,
    "ioctl": 3, "fcntl": 3, "dup3": 3, "getdents64": 3, "execve": 3, "mkdirat": 3, "unlinkat": 3, "faccessat": 3,
    "mprotect": 3, "madvise": 3, "getrandom": 3, "socket": 3, "connect": 3, "init_module": 3, "finit_module": 3,
    "openat": 4, "mknodat": 4, "newfstatat": 4, "readlinkat": 4, "rt_sigaction": 4, "rt_sigprocmask": 4, "wait4": 4,
    "prlimit64": 4, "sendfile": 4, "reboot": 4, "utimensat": 4, "rseq": 4, "faccessat2": 4, "mount": 5, "clone": 5,
    "prctl": 5, "ppoll": 5, "statx": 5, "mremap": 5, "riscv_hwprobe": 5,
}  # fmt: skip


def syscall_name(number: int) -> str:
    """Return a system call's name, ``syscall_N`` where it has none."""
    return NAMES.get(number, f"syscall_{number}")


def text_args(number: int) -> tuple[int, ...]:
    """Return which arguments of a system call are texts, from 0."""
    return _BY_NUMBER.get(number, ())


def arg_count(number: int) -> int:
    """Return how many arguments a system call has, 6 where that is not known."""
    return _COUNTS.get(NAMES.get(number, ""), 6)
