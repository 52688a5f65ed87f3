/* PTRACE_TRACEME, signal-delivery-stops, memory, registers, errors. */
#include "ptrace.h"

#include <asm/prctl.h>
#include <fcntl.h>
#include <sys/mman.h>

#define PTRACE_ARCH_PRCTL 30

static volatile long word = 0x1122334455667788;
static const volatile long constant = 42;
static volatile int handled;

static void on_signal(int signo)
{
    handled = signo;
}

static void signals_body(void)
{
    signal(SIGUSR1, on_signal);
    signal(SIGUSR2, on_signal);
    raise(SIGUSR1); /* suppressed */
    if (handled)
        _exit(1);
    raise(SIGUSR1); /* delivered */
    if (handled != SIGUSR1)
        _exit(2);
    raise(SIGUSR1); /* becomes SIGUSR2 */
    if (handled != SIGUSR2)
        _exit(3);
    signal(SIGCHLD, SIG_IGN);
    raise(SIGCHLD); /* an ignored one is shown too */
    _exit(9);
}

static void signals(void)
{
    siginfo_t info;
    pid_t pid = traced(signals_body);
    CHECK(state_of(pid) == 't');
    CHECK(tracer_of(pid) == getpid());
    CHECK(ptrace(PTRACE_GETSIGINFO, pid, 0, &info) == 0);
    CHECK(info.si_signo == SIGSTOP && info.si_code == SI_TKILL && info.si_pid == pid);
    CHECK(ptrace(PTRACE_CONT, pid, 0, 0) == 0);
    expect_stop(pid, SIGUSR1, 0);
    CHECK(ptrace(PTRACE_CONT, pid, 0, 0) == 0);
    expect_stop(pid, SIGUSR1, 0);
    CHECK(ptrace(PTRACE_CONT, pid, 0, SIGUSR1) == 0);
    expect_stop(pid, SIGUSR1, 0);
    CHECK(ptrace(PTRACE_CONT, pid, 0, SIGUSR2) == 0);
    expect_stop(pid, SIGCHLD, 0);
    CHECK(ptrace(PTRACE_CONT, pid, 0, SIGCHLD) == 0);
    expect_exit(pid, 9);
}

static void notice_body(void)
{
    raise(SIGUSR1);
    _exit(0);
}

static siginfo_t noticed;

static void on_child(int signo, siginfo_t *info, void *context)
{
    noticed = *info;
}

static void tracer_gets_sigchld(void)
{
    struct sigaction action = {.sa_sigaction = on_child, .sa_flags = SA_SIGINFO | SA_RESTART};
    pid_t pid = traced(notice_body);
    CHECK(sigaction(SIGCHLD, &action, NULL) == 0);
    CHECK(ptrace(PTRACE_CONT, pid, 0, 0) == 0);
    siginfo_t info;
    CHECK(waitid(P_PID, pid, &info, WSTOPPED | WNOWAIT) == 0);
    CHECK(info.si_code == CLD_TRAPPED && info.si_status == SIGUSR1 && info.si_pid == pid);
    CHECK(noticed.si_signo == SIGCHLD && noticed.si_code == CLD_TRAPPED);
    CHECK(noticed.si_pid == pid && noticed.si_status == SIGUSR1);
    expect_stop(pid, SIGUSR1, 0);
    int status;
    CHECK(waitpid(pid, &status, WNOHANG) == 0); /* told once */
    signal(SIGCHLD, SIG_DFL);
    CHECK(ptrace(PTRACE_KILL, pid, 0, 0) == 0);
    expect_killed(pid, SIGKILL);
}

static void memory_body(void)
{
    raise(SIGUSR1);
    if (word != 77 || constant != 4711)
        _exit(1);
    _exit(5);
}

static void memory(void)
{
    pid_t pid = traced(memory_body);
    CHECK(ptrace(PTRACE_CONT, pid, 0, 0) == 0);
    expect_stop(pid, SIGUSR1, 0);
    CHECK(ptrace(PTRACE_PEEKDATA, pid, &word, 0) == 0x1122334455667788);
    CHECK(ptrace(PTRACE_PEEKTEXT, pid, (char *)&word + 1, 0) != -1); /* misaligned is fine */
    CHECK(ptrace(PTRACE_POKEDATA, pid, &word, 77) == 0);
    CHECK(ptrace(PTRACE_POKETEXT, pid, &constant, 4711) == 0); /* although read-only */
    CHECK(constant == 42 && word != 77);                       /* ours is another page */
    CHECK_ERR(ptrace(PTRACE_PEEKDATA, pid, 8, 0), EIO);
    CHECK_ERR(ptrace(PTRACE_POKEDATA, pid, 8, 0), EIO);
    long out;
    CHECK_ERR(syscall(SYS_ptrace, PTRACE_PEEKDATA, pid, &word, 8), EFAULT);
    CHECK(syscall(SYS_ptrace, PTRACE_PEEKDATA, pid, &word, &out) == 0 && out == 77);
    CHECK(ptrace(PTRACE_CONT, pid, 0, 0) == 0);
    expect_exit(pid, 5);
}

static void proc_mem(void)
{
    char path[64];
    long value = 0;
    pid_t pid = traced(memory_body);
    snprintf(path, sizeof path, "/proc/%d/mem", pid);
    int fd = open(path, O_RDWR);
    CHECK(fd >= 0);
    CHECK(pread(fd, &value, sizeof value, (off_t)&constant) == sizeof value && value == 42);
    value = 4711;
    CHECK(pwrite(fd, &value, sizeof value, (off_t)&constant) == sizeof value);
    value = 77;
    CHECK(lseek(fd, (off_t)&word, SEEK_SET) == (off_t)&word);
    CHECK(write(fd, &value, sizeof value) == sizeof value);
    CHECK_ERR(pread(fd, &value, sizeof value, 16), EIO);
    CHECK(constant == 42);
    close(fd);
    CHECK(ptrace(PTRACE_CONT, pid, 0, 0) == 0);
    expect_stop(pid, SIGUSR1, 0);
    CHECK(ptrace(PTRACE_CONT, pid, 0, 0) == 0);
    expect_exit(pid, 5);
}

static void regs_body(void)
{
    unsigned long out;
    __asm__ volatile("mov $0x1234, %%r12\n\tint3\n\tmov %%r12, %0" : "=r"(out) : : "r12");
    if (out != 0x5678)
        _exit(1);
    _exit(6);
}

static void registers(void)
{
    struct user_regs_struct r;
    siginfo_t info;
    pid_t pid = traced(regs_body);
    CHECK(ptrace(PTRACE_CONT, pid, 0, 0) == 0);
    expect_stop(pid, SIGTRAP, 0);
    CHECK(ptrace(PTRACE_GETSIGINFO, pid, 0, &info) == 0);
    CHECK(info.si_signo == SIGTRAP && info.si_code == SI_KERNEL);
    r = regs_of(pid);
    CHECK(r.r12 == 0x1234 && r.cs == 0x33 && r.ss == 0x2b && r.orig_rax == (unsigned long)-1);
    CHECK(ptrace(PTRACE_PEEKUSER, pid, offsetof(struct user, regs.r12), 0) == 0x1234);
    CHECK(ptrace(PTRACE_PEEKUSER, pid, offsetof(struct user, regs.rip), 0) == (long)r.rip);
    CHECK(ptrace(PTRACE_PEEKUSER, pid, offsetof(struct user, start_code), 0) == 0);
    CHECK_ERR(ptrace(PTRACE_PEEKUSER, pid, 1, 0), EIO);
    CHECK_ERR(ptrace(PTRACE_PEEKUSER, pid, sizeof(struct user) + 16, 0), EIO);
    CHECK_ERR(ptrace(PTRACE_PEEKUSER, pid, -8, 0), EIO);
    CHECK_ERR(ptrace(PTRACE_POKEUSER, pid, offsetof(struct user, start_code), 0), EIO);
    CHECK_ERR(ptrace(PTRACE_POKEUSER, pid, offsetof(struct user, regs.cs), 0), EIO);
    CHECK_ERR(ptrace(PTRACE_POKEUSER, pid, offsetof(struct user, regs.cs), 8), EIO);
    CHECK(ptrace(PTRACE_POKEUSER, pid, offsetof(struct user, regs.cs), 0x33) == 0);
    CHECK_ERR(ptrace(PTRACE_POKEUSER, pid, offsetof(struct user, regs.fs_base), -1L), EIO);
    CHECK_ERR(ptrace(PTRACE_ARCH_PRCTL, pid, -1L, ARCH_SET_FS), EPERM);
    CHECK_ERR(ptrace(PTRACE_ARCH_PRCTL, pid, -1L, ARCH_SET_GS), EPERM);
    CHECK(ptrace(PTRACE_POKEUSER, pid, offsetof(struct user, regs.r12), 0x5678) == 0);
    CHECK(regs_of(pid).r12 == 0x5678);
    r.r12 = 0x5678;
    r.eflags |= 0x3200; /* IOPL and IF are not for the asking */
    CHECK(ptrace(PTRACE_SETREGS, pid, 0, &r) == 0);
    CHECK((regs_of(pid).eflags & 0x3200) == 0x200);
    CHECK_ERR(ptrace(PTRACE_GETREGS, pid, 0, 8), EFAULT);
    struct iovec iov = {&r, sizeof r};
    memset(&r, 0, sizeof r);
    CHECK(ptrace(PTRACE_GETREGSET, pid, 1 /* NT_PRSTATUS */, &iov) == 0);
    CHECK(iov.iov_len == sizeof r && r.r12 == 0x5678);
    iov.iov_len = 16;
    CHECK(ptrace(PTRACE_GETREGSET, pid, 1, &iov) == 0 && iov.iov_len == 16);
    iov.iov_len = 4096 + sizeof r;
    char big[8192];
    iov.iov_base = big;
    iov.iov_len = sizeof big;
    CHECK(ptrace(PTRACE_GETREGSET, pid, 1, &iov) == 0 && iov.iov_len == sizeof r);
    iov.iov_len = 7;
    CHECK_ERR(ptrace(PTRACE_GETREGSET, pid, 1, &iov), EINVAL);
    iov.iov_len = sizeof big;
    CHECK_ERR(ptrace(PTRACE_GETREGSET, pid, 0x9999, &iov), EINVAL);
    CHECK_ERR(ptrace(PTRACE_GETREGSET, pid, 1, 8), EFAULT);
    CHECK(ptrace(PTRACE_CONT, pid, 0, 0) == 0);
    expect_exit(pid, 6);
}

static void fpu_body(void)
{
    double x = 1.5, y = 0;
    __asm__ volatile("movsd %1, %%xmm7\n\tint3\n\tmovsd %%xmm7, %0" : "=m"(y) : "m"(x) : "xmm7");
    if (y != 2.5)
        _exit(1);
    __asm__ volatile("movsd %1, %%xmm7\n\tint3\n\tmovsd %%xmm7, %0" : "=m"(y) : "m"(x) : "xmm7");
    if (y != 3.5)
        _exit(2);
    _exit(7);
}

static void fpu(void)
{
    struct user_fpregs_struct f;
    double value;
    pid_t pid = traced(fpu_body);
    CHECK(ptrace(PTRACE_CONT, pid, 0, 0) == 0);
    expect_stop(pid, SIGTRAP, 0);
    CHECK(ptrace(PTRACE_GETFPREGS, pid, 0, &f) == 0);
    CHECK(f.cwd == 0x37f && f.mxcsr == 0x1f80);
    memcpy(&value, (char *)f.xmm_space + 7 * 16, 8);
    CHECK(value == 1.5);
    value = 2.5;
    memcpy((char *)f.xmm_space + 7 * 16, &value, 8);
    CHECK(ptrace(PTRACE_SETFPREGS, pid, 0, &f) == 0);
    f.mxcsr = 0x80000000;
    CHECK_ERR(ptrace(PTRACE_SETFPREGS, pid, 0, &f), EINVAL);
    CHECK(ptrace(PTRACE_CONT, pid, 0, 0) == 0);
    expect_stop(pid, SIGTRAP, 0);
    static _Alignas(64) char image[16384];
    struct iovec iov = {image, sizeof image};
    CHECK(ptrace(PTRACE_GETREGSET, pid, 0x202 /* NT_X86_XSTATE */, &iov) == 0);
    CHECK(iov.iov_len >= 576);
    CHECK((*(uint64_t *)(image + 464) & 3) == 3); /* the components there are */
    memcpy(&value, image + 160 + 7 * 16, 8);
    CHECK(value == 1.5);
    value = 3.5;
    memcpy(image + 160 + 7 * 16, &value, 8);
    CHECK(ptrace(PTRACE_SETREGSET, pid, 0x202, &iov) == 0);
    iov.iov_len -= 8;
    CHECK_ERR(ptrace(PTRACE_SETREGSET, pid, 0x202, &iov), EFAULT);
    iov.iov_len += 8;
    *(uint64_t *)(image + 520) = 1;
    CHECK_ERR(ptrace(PTRACE_SETREGSET, pid, 0x202, &iov), EINVAL);
    CHECK(ptrace(PTRACE_CONT, pid, 0, 0) == 0);
    expect_exit(pid, 7);
}

static void queue_body(void)
{
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, NULL);
    union sigval v = {.sival_int = 5};
    sigqueue(getpid(), SIGRTMIN, v);
    v.sival_int = 6;
    sigqueue(getpid(), SIGRTMIN, v);
    syscall(SYS_tgkill, getpid(), getpid(), SIGUSR2);
    __asm__ volatile("int3");
    _exit(8);
}

static void siginfo(void)
{
    struct __ptrace_peeksiginfo_args args = {0, 0, 10};
    siginfo_t infos[10], info;
    sigset_t mask;
    uint64_t bits;
    pid_t pid = traced(queue_body);
    CHECK(ptrace(PTRACE_GETSIGMASK, pid, 8, &bits) == 0);
    CHECK_ERR(ptrace(PTRACE_GETSIGMASK, pid, 16, &bits), EINVAL);
    CHECK(ptrace(PTRACE_CONT, pid, 0, 0) == 0);
    expect_stop(pid, SIGTRAP, 0); /* the exception unblocks SIGTRAP */
    CHECK(ptrace(PTRACE_PEEKSIGINFO, pid, &args, infos) == 1);
    CHECK(infos[0].si_signo == SIGUSR2 && infos[0].si_code == SI_TKILL);
    args.flags = PTRACE_PEEKSIGINFO_SHARED;
    CHECK(ptrace(PTRACE_PEEKSIGINFO, pid, &args, infos) == 2);
    CHECK(infos[0].si_signo == SIGRTMIN && infos[0].si_value.sival_int == 5);
    CHECK(infos[1].si_value.sival_int == 6);
    args.off = 1;
    CHECK(ptrace(PTRACE_PEEKSIGINFO, pid, &args, infos) == 1);
    CHECK(infos[0].si_value.sival_int == 6);
    args.off = 7;
    CHECK(ptrace(PTRACE_PEEKSIGINFO, pid, &args, infos) == 0);
    args.flags = 8;
    CHECK_ERR(ptrace(PTRACE_PEEKSIGINFO, pid, &args, infos), EINVAL);
    CHECK(ptrace(PTRACE_GETSIGMASK, pid, 8, &bits) == 0);
    CHECK(bits & 1ull << (SIGUSR2 - 1));
    bits &= ~(1ull << (SIGUSR2 - 1)) | 1ull << (SIGKILL - 1);
    CHECK(ptrace(PTRACE_SETSIGMASK, pid, 8, &bits) == 0);
    CHECK(ptrace(PTRACE_CONT, pid, 0, 0) == 0);
    expect_stop(pid, SIGUSR2, 0);
    CHECK(ptrace(PTRACE_GETSIGINFO, pid, 0, &info) == 0);
    info.si_code = SI_QUEUE;
    CHECK(ptrace(PTRACE_SETSIGINFO, pid, 0, &info) == 0);
    memset(&info, 0, sizeof info);
    CHECK(ptrace(PTRACE_GETSIGINFO, pid, 0, &info) == 0);
    CHECK(info.si_signo == SIGUSR2 && info.si_code == SI_QUEUE);
    CHECK(ptrace(PTRACE_CONT, pid, 0, 0) == 0);
    expect_exit(pid, 8);
}

static void pause_body(void)
{
    for (;;)
        pause();
}

static void errors(void)
{
    long x;
    struct user_regs_struct r;
    CHECK_ERR(ptrace(PTRACE_ATTACH, 0x3ffffff, 0, 0), ESRCH);
    CHECK_ERR(ptrace(PTRACE_ATTACH, getpid(), 0, 0), EPERM);
    CHECK_ERR(ptrace(PTRACE_SEIZE, getpid(), 1, 0), EIO);
    CHECK_ERR(ptrace(PTRACE_SEIZE, getpid(), 0, 0x40000000), EIO);
    CHECK_ERR(ptrace(PTRACE_PEEKDATA, getpid(), &x, 0), ESRCH);
    CHECK_ERR(ptrace(0x7777, getpid(), 0, 0), ESRCH);
    pid_t child = fork();
    if (child == 0)
        pause_body();
    CHECK_ERR(ptrace(PTRACE_GETREGS, child, 0, &r), ESRCH); /* not traced */
    CHECK_ERR(ptrace(PTRACE_DETACH, child, 0, 0), ESRCH);
    kill(child, SIGKILL);
    siginfo_t info;
    CHECK(waitid(P_PID, child, &info, WEXITED | WNOWAIT) == 0);
    CHECK_ERR(ptrace(PTRACE_ATTACH, child, 0, 0), EPERM); /* a zombie */
    expect_killed(child, SIGKILL);

    pid_t pid = traced(pause_body);
    CHECK_ERR(ptrace(PTRACE_ATTACH, pid, 0, 0), EPERM); /* traced already */
    CHECK_ERR(ptrace(PTRACE_SETOPTIONS, pid, 0, 0x40000000), EINVAL);
    CHECK_ERR(ptrace(PTRACE_CONT, pid, 0, 65), EIO);
    CHECK_ERR(ptrace(PTRACE_DETACH, pid, 0, 65), EIO);
    CHECK_ERR(ptrace(0x7777, pid, 0, 0), EIO);
    CHECK_ERR(ptrace(PTRACE_INTERRUPT, pid, 0, 0), EIO); /* not seized */
    CHECK_ERR(ptrace(PTRACE_LISTEN, pid, 0, 0), EIO);
    CHECK(ptrace(PTRACE_CONT, pid, 0, 0) == 0);
    CHECK_ERR(ptrace(PTRACE_GETREGS, pid, 0, &r), ESRCH); /* running */
    CHECK_ERR(ptrace(PTRACE_CONT, pid, 0, 0), ESRCH);
    kill(pid, SIGTERM);
    expect_stop(pid, SIGTERM, 0);
    CHECK(ptrace(PTRACE_CONT, pid, 0, SIGTERM) == 0);
    expect_killed(pid, SIGTERM);
}

static void traceme_twice_body(void)
{
    if (ptrace(PTRACE_TRACEME, 0, 0, 0) != -1 || errno != EPERM)
        _exit(1);
    _exit(4);
}

static void traceme_twice(void)
{
    pid_t pid = traced(traceme_twice_body);
    CHECK(ptrace(PTRACE_CONT, pid, 0, 0) == 0);
    expect_exit(pid, 4);
}

static void kill_in_stop(void)
{
    pid_t pid = traced(pause_body);
    kill(pid, SIGKILL);
    expect_killed(pid, SIGKILL);
}

static void detach(void)
{
    pid_t pid = traced(pause_body);
    CHECK(ptrace(PTRACE_DETACH, pid, 0, 0) == 0);
    CHECK(tracer_of(pid) == 0);
    kill(pid, SIGTERM);
    expect_killed(pid, SIGTERM);
    pid = traced(pause_body);
    CHECK(ptrace(PTRACE_DETACH, pid, 0, SIGUSR1) == 0);
    expect_killed(pid, SIGUSR1);
}

int main(void)
{
    signals();
    tracer_gets_sigchld();
    memory();
    proc_mem();
    registers();
    fpu();
    siginfo();
    errors();
    traceme_twice();
    kill_in_stop();
    detach();
    return 0;
}
