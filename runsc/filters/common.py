"""What CPython and glibc need to go on living, in either process."""

from __future__ import annotations

import errno

from runsc.filters.rule import Rule, Test, clear, low, one_of
from sentry.abi import fcntl as files
from sentry.abi import mman, prctl, unistd
from sentry.abi.sched import (
    CLONE_CHILD_CLEARTID,
    CLONE_FILES,
    CLONE_FS,
    CLONE_PARENT_SETTID,
    CLONE_SETTLS,
    CLONE_SIGHAND,
    CLONE_SYSVSEM,
    CLONE_THREAD,
    CLONE_VM,
)

SANDBOX_PID = 1
"""Each process is the first of a pid namespace of its own."""

PTHREAD_FLAGS = (
    CLONE_VM
    | CLONE_FS
    | CLONE_FILES
    | CLONE_SIGHAND
    | CLONE_THREAD
    | CLONE_SYSVSEM
    | CLONE_SETTLS
    | CLONE_PARENT_SETTID
    | CLONE_CHILD_CLEARTID
)
"""Exactly what glibc's pthread_create passes to clone(2)."""

_FALLBACK = "the vDSO has it, but makes the call where the clock source is not for user space"
_NEXT_THREAD = "glibc, when a thread starts; threads start when work comes"
_RARE = "allocation patterns decide whether it happens"

NO_EXEC = (clear(2, mman.PROT_EXEC),)
"""mmap(2) and mprotect(2) without PROT_EXEC: nothing written can be run."""

_FCNTL = (files.F_GETFD, files.F_SETFD, files.F_GETFL, files.F_DUPFD_CLOEXEC)

MEMORY = (
    Rule(
        unistd.mmap,
        "memory of the process, windows onto donated files; never executable",
        (NO_EXEC,),
    ),
    Rule(unistd.mprotect, "stacks of threads, flushes; never executable", (NO_EXEC,), unused=_RARE),
    Rule(unistd.munmap, "memory of the process"),
    Rule(unistd.mremap, "realloc of large blocks", unused=_RARE),
    Rule(unistd.brk, "malloc"),
    Rule(unistd.madvise, "giving pages back, stacks of threads that end"),
)
THREADS = (
    Rule(
        unistd.clone,
        "new threads, and nothing else",
        ((Test(0, PTHREAD_FLAGS),),),
        unused=_NEXT_THREAD,
    ),
    Rule(
        unistd.clone3,
        "its arguments lie in memory and cannot be inspected; glibc then uses clone",
        errno=errno.ENOSYS,
        unused=_NEXT_THREAD,
    ),
    Rule(unistd.set_robust_list, _NEXT_THREAD, unused=_NEXT_THREAD),
    Rule(unistd.rseq, _NEXT_THREAD, unused=_NEXT_THREAD),
    Rule(unistd.futex, "locks and conditions"),
    Rule(unistd.exit, "the end of a thread", unused="threads live as long as the process"),
    Rule(unistd.exit_group, "the end of the process"),
    Rule(unistd.sched_yield, "spinning", unused=_RARE),
    Rule(unistd.gettid, "the name of a thread in a log", unused=_RARE),
    Rule(unistd.getpid, "raise(3)", unused=_RARE),
    Rule(unistd.sched_getaffinity, "how many CPUs there are", unused=_RARE),
)
SIGNALS = (
    Rule(unistd.rt_sigaction, "changing a handler", unused="done before the filter"),
    Rule(unistd.rt_sigprocmask, "new threads start with signals blocked", unused=_NEXT_THREAD),
    Rule(unistd.rt_sigreturn, "the end of a handler", unused="kicks are seldom handlers"),
    Rule(unistd.sigaltstack, "new threads of CPython's faulthandler", unused=_RARE),
    Rule(
        unistd.tgkill,
        "kicking a thread of our own; abort(3)",
        ((low(0, SANDBOX_PID),),),
        unused="a kick needs a program that runs on",
    ),
    Rule(unistd.restart_syscall, "the kernel's own, after a stop and continuation", unused=_RARE),
)
TIME = (
    Rule(unistd.clock_gettime, _FALLBACK, unused=_FALLBACK),
    Rule(unistd.clock_getres, _FALLBACK, unused=_FALLBACK),
    Rule(unistd.gettimeofday, _FALLBACK, unused=_FALLBACK),
    Rule(unistd.time, _FALLBACK, unused=_FALLBACK),
    Rule(unistd.clock_nanosleep, "back-off of a C thread", unused=_RARE),
)
FILES = (
    Rule(unistd.read, "descriptors we hold"),
    Rule(unistd.write, "descriptors we hold, the log"),
    Rule(unistd.readv, "descriptors we hold", unused="depends on the program"),
    Rule(unistd.writev, "descriptors we hold", unused="depends on the program"),
    Rule(unistd.pread64, "donated files", unused="depends on the program"),
    Rule(unistd.pwrite64, "donated files", unused="depends on the program"),
    Rule(unistd.preadv, "donated files", unused="depends on the program"),
    Rule(unistd.pwritev, "donated files", unused="depends on the program"),
    Rule(unistd.preadv2, "donated files, without waiting", unused="depends on the program"),
    Rule(unistd.pwritev2, "donated files, without waiting", unused="depends on the program"),
    Rule(unistd.close, "descriptors we hold"),
    Rule(unistd.fstat, "size and kind of descriptors we hold"),
    Rule(unistd.lseek, "holes and ends of donated files", unused="depends on the program"),
    Rule(unistd.ftruncate, "donated files, files in RAM", unused="depends on the program"),
    Rule(unistd.fallocate, "punching RAM, donated files", unused="depends on the program"),
    Rule(unistd.fsync, "donated files", unused="depends on the program"),
    Rule(unistd.fdatasync, "donated files", unused="depends on the program"),
    Rule(
        unistd.fcntl,
        "what a descriptor allows, a second one of the same; never F_SETFL: flags of what was"
        " donated are the caller's",
        one_of(1, _FCNTL),
        unused="depends on the program",
    ),
)
WAITING = (
    Rule(unistd.epoll_wait, "the loop", unused="libc decides which"),
    Rule(unistd.epoll_pwait, "the loop", unused="libc decides which"),
    Rule(unistd.epoll_pwait2, "the loop, with nanoseconds", unused="libc decides which"),
    Rule(unistd.epoll_ctl, "the loop"),
    Rule(unistd.poll, "whether a descriptor is ready", unused="libc decides which"),
    Rule(unistd.ppoll, "whether a descriptor is ready", unused="libc decides which"),
)
SOCKETS = (
    Rule(unistd.sendmsg, "9P with donated descriptors", unused="the Gofer's side uses it"),
    Rule(unistd.recvmsg, "9P with donated descriptors, control"),
    Rule(unistd.sendto, "9P, control", unused="depends on the length of a message"),
    Rule(unistd.recvfrom, "9P, control", unused="depends on the length of a message"),
    Rule(unistd.shutdown, "ending a session", unused="the end of the process does it"),
    Rule(
        unistd.getsockname, "CPython, making a socket object", unused="sockets that come in later"
    ),
    Rule(unistd.getpeername, "CPython, printing a socket object", unused="only in messages"),
    Rule(unistd.getsockopt, "CPython, making a socket object", unused="sockets that come in later"),
)
RANDOM = (
    Rule(
        unistd.getrandom, "getrandom(2) of the program, AT_RANDOM", unused="depends on the program"
    ),
)
NAMES = (
    Rule(
        unistd.prctl,
        "names of threads, for ps; outliving the command line that created the sandbox",
        ((low(0, prctl.PR_SET_NAME),), (low(0, prctl.PR_SET_PDEATHSIG), Test(1, 0))),
        unused="threads start when work comes; `run` outlives nobody",
    ),
)

COMMON = (*MEMORY, *THREADS, *SIGNALS, *TIME, *FILES, *WAITING, *SOCKETS, *RANDOM, *NAMES)
