//! Numbers of system calls, as `sandbox` judges them: name, then x86-64, aarch64 and arm; -1: not there.

use std::ffi::c_int;

const COLUMN: usize = if cfg!(target_arch = "x86_64") {
    0
} else if cfg!(target_arch = "aarch64") {
    1
} else {
    2
};

macro_rules! calls {
    ($list:ident $($name:ident $x86:literal $aarch64:literal $arm:literal,)*) => {
        pub const $list: &[c_int] = &[$([$x86, $aarch64, $arm][COLUMN],)*];
    };
}

macro_rules! call {
    ($($name:ident $x86:literal $aarch64:literal $arm:literal,)*) => {
        $(pub const $name: c_int = [$x86, $aarch64, $arm][COLUMN];)*
    };
}

// What the running server, its libc and std use, with any arguments. The busiest come first.
calls! { ALLOWED
    read 0 63 3,
    write 1 64 4,
    sendto 44 206 290,
    recvfrom 45 207 292,
    send -1 -1 289,
    recv -1 -1 291,
    readv 19 65 145,
    writev 20 66 146,
    splice 275 76 340,
    futex 202 98 240,
    futex_time64 -1 -1 422,
    poll 7 -1 168,
    ppoll 271 73 336,
    setsockopt 54 208 294,
    getsockopt 55 209 295,
    shutdown 48 210 293,
    close 3 57 6,
    connect 42 203 283,
    accept4 288 242 366,
    accept 43 202 285,
    recvmsg 47 212 297,
    sendmsg 46 211 296,
    sendmmsg 307 269 374,
    bind 49 200 282,
    listen 50 201 284,
    getsockname 51 204 286,
    getpeername 52 205 287,
    fcntl 72 25 55,
    ioctl 16 29 54,
    pipe2 293 59 359,
    openat 257 56 322,
    open 2 -1 5,
    fstat 5 80 108,
    newfstatat 262 79 -1,
    statx 332 291 397,
    stat 4 -1 106,
    lstat 6 -1 107,
    lseek 8 62 19,
    pread64 17 67 180,
    pwrite64 18 68 181,
    munmap 11 215 91,
    mremap 25 216 163,
    brk 12 214 45,
    madvise 28 233 220,
    rt_sigaction 13 134 174,
    rt_sigprocmask 14 135 175,
    rt_sigreturn 15 139 173,
    rt_sigtimedwait 128 137 177,
    sigaltstack 131 132 186,
    sched_yield 24 124 158,
    sched_getaffinity 204 123 242,
    nanosleep 35 101 162,
    clock_nanosleep 230 115 265,
    clock_gettime 228 113 263,
    clock_getres 229 114 264,
    gettimeofday 96 169 78,
    getpid 39 172 20,
    gettid 186 178 224,
    getuid 102 174 24,
    geteuid 107 175 49,
    getgid 104 176 47,
    getegid 108 177 50,
    exit 60 93 1,
    exit_group 231 94 248,
    set_robust_list 273 99 338,
    rseq 334 293 398,
    set_tid_address 218 96 256,
    tgkill 234 131 268,
    tkill 200 130 238,
    getrandom 318 278 384,
    dup 32 23 41,
    dup2 33 -1 63,
    dup3 292 24 358,
    rename 82 -1 38,
    renameat 264 38 329,
    renameat2 316 276 382,
    unlink 87 -1 10,
    unlinkat 263 35 328,
    fsync 74 82 118,
    fdatasync 75 83 148,
    ftruncate 77 46 93,
    chmod 90 -1 15,
    fchmod 91 52 94,
    fchmodat 268 53 333,
    mkdir 83 -1 39,
    mkdirat 258 34 323,
    getdents64 217 61 217,
    readlink 89 -1 85,
    readlinkat 267 78 332,
    access 21 -1 33,
    faccessat 269 48 334,
    sysinfo 99 179 116,
    prlimit64 302 261 369,
    getrlimit 97 163 -1,
    getrusage 98 165 77,
    membarrier 324 283 389,
    uname 63 160 122,
    getcwd 79 17 183,
    umask 95 166 60,
    restart_syscall 219 128 0,
    times 100 153 43,
    ppoll_time64 -1 -1 414,
    fcntl64 -1 -1 221,
    fstat64 -1 -1 197,
    fstatat64 -1 -1 327,
    stat64 -1 -1 195,
    lstat64 -1 -1 196,
    _llseek -1 -1 140,
    rt_sigtimedwait_time64 -1 -1 421,
    clock_nanosleep_time64 -1 -1 407,
    clock_gettime64 -1 -1 403,
    clock_getres_time64 -1 -1 406,
    getuid32 -1 -1 199,
    geteuid32 -1 -1 201,
    getgid32 -1 -1 200,
    getegid32 -1 -1 202,
    ftruncate64 -1 -1 194,
    ugetrlimit -1 -1 191,
}

// What takes a process over, or the machine.
calls! { DEADLY
    execve 59 221 11,
    execveat 322 281 387,
    ptrace 101 117 26,
    process_vm_readv 310 270 376,
    process_vm_writev 311 271 377,
    bpf 321 280 386,
    mount 165 40 21,
    umount2 166 39 52,
    setns 308 268 375,
    unshare 272 97 337,
    init_module 175 105 128,
    finit_module 313 273 379,
    kexec_load 246 104 347,
    pivot_root 155 41 218,
    keyctl 250 219 311,
    add_key 248 217 309,
    perf_event_open 298 241 364,
    userfaultfd 323 282 388,
    io_uring_setup 425 425 425,
}

// What is judged by its arguments, and what sets the filter.
call! {
    SOCKET 41 198 281,
    MMAP 9 222 -1,
    MPROTECT 10 226 125,
    PRCTL 157 167 172,
    CLONE 56 220 120,
    MMAP2 -1 -1 192,
    SECCOMP 317 277 383,
}
