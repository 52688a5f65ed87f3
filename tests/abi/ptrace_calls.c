/* PTRACE_SYSCALL: stops, PTRACE_GET_SYSCALL_INFO, changed and skipped calls, restarts, seccomp. */
#include "ptrace.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <time.h>

struct call_info {
    uint8_t op, pad[3];
    uint32_t arch;
    uint64_t ip, sp;
    union {
        struct { uint64_t nr, args[6]; } entry;
        struct { int64_t rval; uint8_t is_error; } exit;
        struct { uint64_t nr, args[6]; uint32_t data; } seccomp;
    };
};

static void go(pid_t pid, int request, int signo)
{
    CHECK(ptrace(request, pid, 0, signo) == 0);
}

static void to_call_stop(pid_t pid)
{
    go(pid, PTRACE_SYSCALL, 0);
    expect_stop(pid, SIGTRAP | 0x80, 0);
}

static struct call_info info_of(pid_t pid, long size)
{
    struct call_info info;
    memset(&info, 0xee, sizeof info);
    CHECK(ptrace(0x420e, pid, sizeof info, &info) == size);
    return info;
}

static void calls_body(void)
{
    syscall(SYS_getppid);
    syscall(SYS_close, -1);
    syscall(SYS_getpid);
    _exit(3);
}

static void stops(void)
{
    unsigned long message;
    pid_t pid = traced(calls_body);
    CHECK(ptrace(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACESYSGOOD) == 0);
    struct call_info info = info_of(pid, 24);
    CHECK(info.op == 0 && info.arch == AUDIT_ARCH_X86_64 && info.ip && info.sp);
    struct user_regs_struct r;
    do { /* the rest of raise() */
        to_call_stop(pid);
        r = regs_of(pid);
    } while (r.orig_rax != SYS_getppid);
    CHECK(r.rax == (unsigned long)-ENOSYS);
    CHECK(ptrace(PTRACE_GETEVENTMSG, pid, 0, &message) == 0 && message == 1);
    info = info_of(pid, 80);
    CHECK(info.op == 1 && info.entry.nr == SYS_getppid && info.ip == r.rip && info.sp == r.rsp);
    to_call_stop(pid);
    CHECK(ptrace(PTRACE_GETEVENTMSG, pid, 0, &message) == 0 && message == 2);
    info = info_of(pid, 33);
    CHECK(info.op == 2 && info.exit.rval == getpid() && !info.exit.is_error);
    uint64_t small[2] = {1, 1};
    CHECK(ptrace(0x420e, pid, 8, small) == 33 && small[1] == 1); /* no more than asked for */
    to_call_stop(pid);
    info = info_of(pid, 80);
    CHECK(info.entry.nr == SYS_close && (int)info.entry.args[0] == -1);
    to_call_stop(pid);
    info = info_of(pid, 33);
    CHECK(info.exit.rval == -EBADF && info.exit.is_error == 1);
    to_call_stop(pid);
    CHECK(regs_of(pid).orig_rax == SYS_getpid); /* not answered without the kernel */
    to_call_stop(pid);
    CHECK(regs_of(pid).rax == pid);
    to_call_stop(pid);
    CHECK(regs_of(pid).orig_rax == SYS_exit_group);
    go(pid, PTRACE_SYSCALL, 0);
    expect_exit(pid, 3);
}

static void changed_body(void)
{
    if (syscall(SYS_getppid) != 1234)
        _exit(1); /* skipped, with a result */
    if (syscall(SYS_getppid) != -1 || errno != ENOSYS)
        _exit(2); /* skipped, without one */
    if (syscall(SYS_getppid) != getpid())
        _exit(3); /* another call */
    if (syscall(SYS_getppid) != 99)
        _exit(4); /* another result */
    char buffer[] = "xx";
    if (syscall(SYS_write, -1, buffer, 2) != 1)
        _exit(5); /* other arguments */
    _exit(0);
}

static void next_getppid(pid_t pid)
{
    do
        to_call_stop(pid);
    while (regs_of(pid).orig_rax != SYS_getppid);
}

static void poke(pid_t pid, size_t offset, long value)
{
    CHECK(ptrace(PTRACE_POKEUSER, pid, offset, value) == 0);
}

#define REG(name) offsetof(struct user, regs.name)

static void changed(void)
{
    pid_t pid = traced(changed_body);
    CHECK(ptrace(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACESYSGOOD) == 0);
    next_getppid(pid);
    poke(pid, REG(orig_rax), -1);
    poke(pid, REG(rax), 1234);
    to_call_stop(pid);
    CHECK(regs_of(pid).rax == 1234);
    next_getppid(pid);
    poke(pid, REG(orig_rax), -1);
    to_call_stop(pid);
    next_getppid(pid);
    poke(pid, REG(orig_rax), SYS_getpid);
    to_call_stop(pid);
    next_getppid(pid);
    to_call_stop(pid);
    poke(pid, REG(rax), 99);
    to_call_stop(pid);
    struct user_regs_struct r = regs_of(pid);
    CHECK(r.orig_rax == SYS_write);
    int fds[2];
    CHECK(pipe(fds) == 0);
    poke(pid, REG(orig_rax), SYS_kill); /* kill(pid, 0) + 1: shows that arguments are taken */
    poke(pid, REG(rdi), pid);
    poke(pid, REG(rsi), 0);
    to_call_stop(pid);
    CHECK(regs_of(pid).rax == 0);
    poke(pid, REG(rax), 1);
    go(pid, PTRACE_CONT, 0);
    expect_exit(pid, 0);
}

static void emulated_body(void)
{
    if (syscall(SYS_getppid) != 4321)
        _exit(1);
    _exit(0);
}

static void emulated(void)
{
    pid_t pid = traced(emulated_body);
    CHECK(ptrace(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACESYSGOOD) == 0);
    for (;;) {
        go(pid, PTRACE_SYSEMU, 0);
        expect_stop(pid, SIGTRAP | 0x80, 0);
        struct user_regs_struct r = regs_of(pid);
        if (r.orig_rax == SYS_getppid) {
            poke(pid, REG(rax), 4321);
        } else if (r.orig_rax == SYS_exit_group) {
            CHECK(r.rdi == 0);
            break;
        } else {
            poke(pid, REG(rax), 0);
        }
    }
    CHECK(ptrace(PTRACE_KILL, pid, 0, 0) == 0);
    expect_killed(pid, SIGKILL);
}

static int ready[2];
static volatile int handled;

static void on_signal(int signo)
{
    handled++;
}

static void restart_body(void)
{
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGUSR1, &action, NULL);
    struct timespec nap = {100, 0}, left;
    if (nanosleep(&nap, &left) != -1 || errno != EINTR || handled != 1)
        _exit(1);
    action.sa_flags = SA_RESTART;
    sigaction(SIGUSR1, &action, NULL);
    char byte;
    if (read(ready[0], &byte, 1) != 1 || handled != 2)
        _exit(2);
    _exit(0);
}

/* A call that a signal ended: -ERESTART* at its end, then the signal; then what follows from it. */
static void restarts(void)
{
    CHECK(pipe(ready) == 0);
    pid_t pid = traced(restart_body);
    CHECK(ptrace(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACESYSGOOD) == 0);
    do
        to_call_stop(pid);
    while (regs_of(pid).orig_rax != SYS_clock_nanosleep);
    go(pid, PTRACE_SYSCALL, 0);
    await_state(pid, 'S');
    kill(pid, SIGUSR1);
    expect_stop(pid, SIGTRAP | 0x80, 0);
    CHECK(regs_of(pid).rax == (unsigned long)-516);
    go(pid, PTRACE_SYSCALL, 0);
    expect_stop(pid, SIGUSR1, 0);
    CHECK(regs_of(pid).rax == (unsigned long)-516);
    go(pid, PTRACE_SYSCALL, 0); /* suppressed: restart_syscall goes on */
    expect_stop(pid, SIGTRAP | 0x80, 0);
    CHECK(regs_of(pid).orig_rax == SYS_restart_syscall);
    go(pid, PTRACE_SYSCALL, 0);
    await_state(pid, 'S');
    kill(pid, SIGUSR1);
    expect_stop(pid, SIGTRAP | 0x80, 0);
    go(pid, PTRACE_SYSCALL, 0);
    expect_stop(pid, SIGUSR1, 0);
    go(pid, PTRACE_SYSCALL, SIGUSR1); /* delivered: EINTR */
    expect_stop(pid, SIGTRAP | 0x80, 0);
    CHECK(regs_of(pid).orig_rax == SYS_rt_sigreturn);
    do
        to_call_stop(pid);
    while (regs_of(pid).orig_rax != SYS_read);
    go(pid, PTRACE_SYSCALL, 0);
    await_state(pid, 'S');
    kill(pid, SIGUSR1);
    expect_stop(pid, SIGTRAP | 0x80, 0);
    CHECK(regs_of(pid).rax == (unsigned long)-512);
    go(pid, PTRACE_CONT, 0);
    expect_stop(pid, SIGUSR1, 0);
    CHECK(write(ready[1], "x", 1) == 1);
    go(pid, PTRACE_CONT, SIGUSR1);
    expect_exit(pid, 0);
}

/* As gdb calls a function in the middle of a sleep: ORIG_RAX -1, something else, all put back. */
static void no_restart_body(void)
{
    char byte;
    long n = syscall(SYS_read, ready[0], &byte, 1);
    _exit(n == 1 && byte == 'y' ? 0 : 1);
}

static void registers_decide(void)
{
    pid_t pid = traced(no_restart_body);
    CHECK(ptrace(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACESYSGOOD) == 0);
    go(pid, PTRACE_CONT, 0);
    await_state(pid, 'S');
    kill(pid, SIGUSR1);
    expect_stop(pid, SIGUSR1, 0);
    struct user_regs_struct saved = regs_of(pid), r = saved;
    CHECK(saved.rax == (unsigned long)-512 && saved.orig_rax == SYS_read);
    /* a stray syscall instruction: run getppid at the same place */
    r.rip -= 2;
    r.orig_rax = -1;
    r.rax = SYS_getppid;
    CHECK(ptrace(PTRACE_SETREGS, pid, 0, &r) == 0);
    to_call_stop(pid);
    CHECK(regs_of(pid).orig_rax == SYS_getppid);
    to_call_stop(pid);
    CHECK(regs_of(pid).rax == getpid());
    kill(pid, SIGUSR1);
    go(pid, PTRACE_CONT, 0);
    expect_stop(pid, SIGUSR1, 0);
    CHECK(ptrace(PTRACE_SETREGS, pid, 0, &saved) == 0);
    to_call_stop(pid); /* the read starts again */
    CHECK(regs_of(pid).orig_rax == SYS_read);
    CHECK(write(ready[1], "y", 1) == 1);
    go(pid, PTRACE_CONT, 0);
    expect_exit(pid, 0);
}

static void nowhere_body(void)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    char byte;
    sigaction(SIGUSR1, &action, NULL);
    syscall(SYS_read, ready[0], &byte, 1);
    _exit(1);
}

/* A call that is to start again two bytes before the beginning of all memory. */
static void starts_nowhere(void)
{
    pid_t pid = traced(nowhere_body);
    CHECK(ptrace(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACESYSGOOD) == 0);
    do
        to_call_stop(pid);
    while (regs_of(pid).orig_rax != SYS_read);
    poke(pid, REG(rip), 0);
    CHECK(ptrace(PTRACE_DETACH, pid, 0, 0) == 0);
    while (state_of(pid) != 'S' && state_of(pid) != 'Z') /* to be let go may end its sleep, too */
        usleep(1000);
    kill(pid, SIGUSR1);
    expect_killed(pid, SIGSEGV);
}

static struct sock_filter trace_getppid[] = {
    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 1),
    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE | 0x77),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getpgrp, 0, 1),
    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | 42),
    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
};

static void filter(void)
{
    struct sock_fprog program = {sizeof trace_getppid / 8, trace_getppid};
    CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    CHECK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0);
}

static void seccomp_body(void)
{
    long parent = syscall(SYS_getppid);
    filter();
    if (syscall(SYS_getppid) != parent)
        _exit(1); /* let through */
    if (syscall(SYS_getppid) != 17)
        _exit(2); /* skipped */
    if (syscall(SYS_getppid) != -1 || errno != 42)
        _exit(3); /* changed into one that the filter refuses */
    if (syscall(SYS_getppid) != -1 || errno != ENOSYS)
        _exit(4); /* nobody is asked */
    _exit(0);
}

static void seccomp_event(void)
{
    unsigned long message;
    pid_t pid = traced(seccomp_body);
    CHECK(ptrace(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACESECCOMP | PTRACE_O_TRACESYSGOOD) == 0);
    go(pid, PTRACE_CONT, 0);
    expect_stop(pid, SIGTRAP, PTRACE_EVENT_SECCOMP);
    CHECK(ptrace(PTRACE_GETEVENTMSG, pid, 0, &message) == 0 && message == 0x77);
    struct call_info info = info_of(pid, 84);
    CHECK(info.op == 3 && info.seccomp.nr == SYS_getppid && info.seccomp.data == 0x77);
    CHECK(regs_of(pid).rax == (unsigned long)-ENOSYS);
    go(pid, PTRACE_CONT, 0);
    expect_stop(pid, SIGTRAP, PTRACE_EVENT_SECCOMP);
    poke(pid, REG(orig_rax), -1);
    poke(pid, REG(rax), 17);
    go(pid, PTRACE_CONT, 0);
    expect_stop(pid, SIGTRAP, PTRACE_EVENT_SECCOMP);
    poke(pid, REG(orig_rax), SYS_getpgrp);
    go(pid, PTRACE_SYSCALL, 0);
    expect_stop(pid, SIGTRAP | 0x80, 0); /* its end: a call that a filter refused has one */
    CHECK(regs_of(pid).rax == (unsigned long)-42);
    CHECK(ptrace(PTRACE_SETOPTIONS, pid, 0, 0) == 0);
    go(pid, PTRACE_CONT, 0);
    expect_exit(pid, 0);
}

static void filters_body(void)
{
    struct sock_filter allow[] = {BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
    struct sock_fprog program = {1, allow};
    filter();
    CHECK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0);
    raise(SIGUSR1);
    _exit(0);
}

static void filters(void)
{
    struct sock_filter out[16];
    pid_t pid = traced(filters_body);
    CHECK_ERR(ptrace(0x420c, pid, 0, out), EINVAL); /* none yet */
    go(pid, PTRACE_CONT, 0);
    expect_stop(pid, SIGUSR1, 0);
    CHECK(ptrace(0x420c, pid, 0, NULL) == sizeof trace_getppid / 8); /* the oldest */
    CHECK(ptrace(0x420c, pid, 0, out) == sizeof trace_getppid / 8);
    CHECK(memcmp(out, trace_getppid, sizeof trace_getppid) == 0);
    CHECK(ptrace(0x420c, pid, 1, NULL) == 1);
    CHECK_ERR(ptrace(0x420c, pid, 2, NULL), ENOENT);
    go(pid, PTRACE_CONT, 0);
    expect_exit(pid, 0);
}

int main(void)
{
    stops();
    changed();
    emulated();
    restarts();
    registers_decide();
    starts_nowhere();
    seccomp_event();
    filters();
    return 0;
}
