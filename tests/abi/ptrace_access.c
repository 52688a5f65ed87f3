/* Who may trace whom: relations, rights, Yama where it is on; and what a tracer does to its parent. */
#include "ptrace.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/prctl.h>

static int scope(void)
{
    char digit = '0';
    int fd = open("/proc/sys/kernel/yama/ptrace_scope", O_RDONLY);
    if (fd < 0)
        return 0;
    CHECK(read(fd, &digit, 1) == 1);
    close(fd);
    return digit - '0';
}

static void drop_capability(void)
{
    struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2];
    CHECK(syscall(SYS_capget, &head, data) == 0);
    data[0].effective &= ~(1u << CAP_SYS_PTRACE);
    data[0].permitted &= ~(1u << CAP_SYS_PTRACE);
    CHECK(syscall(SYS_capset, &head, data) == 0);
}

/* Attach and let go again: 0, or errno. */
static int try(pid_t pid)
{
    int status;
    if (ptrace(PTRACE_ATTACH, pid, 0, 0))
        return errno;
    CHECK(waitpid(pid, &status, 0) == pid && WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP);
    CHECK(ptrace(PTRACE_DETACH, pid, 0, 0) == 0);
    return 0;
}

/* What a new process, which is no ancestor, finds. */
static int stranger(pid_t pid)
{
    int status;
    pid_t tracer = fork();
    if (tracer == 0)
        _exit(try(pid));
    CHECK(waitpid(tracer, &status, 0) == tracer && WIFEXITED(status));
    return WEXITSTATUS(status);
}

static pid_t sleeper(unsigned long allow, int uid)
{
    int ready[2];
    char byte;
    CHECK(pipe(ready) == 0);
    pid_t pid = fork();
    if (pid == 0) {
        if (uid) {
            CHECK(setresgid(uid, uid, uid) == 0 && setresuid(uid, uid, uid) == 0);
            CHECK(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) == 0);
        }
        if (allow)
            prctl(PR_SET_PTRACER, allow, 0, 0, 0);
        CHECK(write(ready[1], "x", 1) == 1);
        for (;;)
            pause();
    }
    CHECK(read(ready[0], &byte, 1) == 1);
    close(ready[0]), close(ready[1]);
    return pid;
}

static void end(pid_t pid)
{
    kill(pid, SIGKILL);
    expect_killed(pid, SIGKILL);
}

static void relations(void)
{
    int yama = scope();
    pid_t pid = sleeper(0, 0);
    CHECK(try(pid) == 0); /* a child */
    CHECK(stranger(pid) == (yama ? EPERM : 0));
    CHECK(stranger(getpid()) == (yama ? EPERM : 0));
    end(pid);
    if (!yama)
        return;
    pid = sleeper(PR_SET_PTRACER_ANY, 0);
    CHECK(stranger(pid) == 0);
    end(pid);
    pid = sleeper(getpid(), 0); /* an ancestor of the stranger */
    CHECK(stranger(pid) == 0);
    end(pid);
    CHECK_ERR(prctl(PR_SET_PTRACER, 0x3fffffff, 0, 0, 0), EINVAL);
    CHECK(prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0) == 0);
    pid = sleeper(0, 0); /* it is not inherited */
    CHECK(stranger(pid) == EPERM);
    CHECK(stranger(getpid()) == 0);
    CHECK(prctl(PR_SET_PTRACER, 0, 0, 0, 0) == 0);
    CHECK(stranger(getpid()) == EPERM);
    end(pid);
}

static void memory(void)
{
    char path[64];
    long value = 0, *other = &value;
    struct iovec local = {&value, 8}, remote = {&other, 8};
    pid_t pid = sleeper(0, 0);
    snprintf(path, sizeof path, "/proc/%d/mem", pid);
    CHECK(process_vm_readv(pid, &local, 1, &remote, 1, 0) == 8);
    int fd = open(path, O_RDWR);
    CHECK(fd >= 0);
    close(fd);
    if (scope()) {
        int status;
        pid_t tracer = fork();
        if (tracer == 0) {
            CHECK_ERR(open(path, O_RDONLY), EACCES);
            snprintf(path, sizeof path, "/proc/%d/syscall", pid);
            CHECK_ERR(read(open(path, O_RDONLY), path, sizeof path), EPERM);
            CHECK_ERR(process_vm_readv(pid, &local, 1, &remote, 1, 0), EPERM);
            _exit(0);
        }
        expect_exit(tracer, 0);
    }
    end(pid);
}

/* Another user's process; one that is not dumpable. */
static void rights(void)
{
    pid_t other = sleeper(0, 1000), pid = fork();
    if (pid == 0) {
        CHECK(setresgid(1001, 1001, 1001) == 0 && setresuid(1001, 1001, 1001) == 0);
        CHECK_ERR(ptrace(PTRACE_ATTACH, other, 0, 0), EPERM);
        CHECK_ERR(ptrace(PTRACE_SEIZE, other, 0, 0), EPERM);
        pid_t child = fork();
        if (child == 0) {
            prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
            for (;;)
                pause();
        }
        await_state(child, 'S');
        CHECK_ERR(ptrace(PTRACE_ATTACH, child, 0, 0), EPERM);
        end(child);
        _exit(0);
    }
    expect_exit(pid, 0);
    end(other);
}

static volatile long word = 10;

/* A child traces its parent, which waits for it. */
static void attach_to_parent(void)
{
    long *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(shared != MAP_FAILED);
    if (scope())
        CHECK(prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0) == 0);
    pid_t pid = fork();
    if (pid == 0) {
        int status;
        pid_t parent = getppid();
        CHECK(ptrace(PTRACE_ATTACH, parent, 0, 0) == 0);
        CHECK(waitpid(parent, &status, 0) == parent && WSTOPSIG(status) == SIGSTOP);
        CHECK(ptrace(PTRACE_PEEKDATA, parent, &word, 0) == 10);
        CHECK(ptrace(PTRACE_POKEDATA, parent, &word, 20) == 0);
        CHECK(ptrace(PTRACE_POKEDATA, parent, shared, 30) == 0);
        CHECK(*shared == 30 && word == 10);
        CHECK(ptrace(PTRACE_DETACH, parent, 0, 0) == 0);
        _exit(0);
    }
    expect_exit(pid, 0);
    CHECK(word == 20 && *shared == 30);
}

/* A signal that comes while the tracee only listens is there after the stop. */
static void signal_while_listening(void)
{
    int status;
    pid_t pid = sleeper(0, 0);
    CHECK(ptrace(PTRACE_SEIZE, pid, 0, 0) == 0);
    CHECK(ptrace(PTRACE_INTERRUPT, pid, 0, 0) == 0);
    expect_stop(pid, SIGTRAP, PTRACE_EVENT_STOP);
    kill(pid, SIGSTOP);
    CHECK(ptrace(PTRACE_CONT, pid, 0, 0) == 0);
    expect_stop(pid, SIGSTOP, 0);
    CHECK(ptrace(PTRACE_CONT, pid, 0, SIGSTOP) == 0);
    expect_stop(pid, SIGSTOP, PTRACE_EVENT_STOP);
    CHECK(ptrace(PTRACE_LISTEN, pid, 0, 0) == 0);
    CHECK_ERR(ptrace(PTRACE_CONT, pid, 0, 0), ESRCH);
    kill(pid, SIGTERM);
    usleep(20000);
    CHECK(waitpid(pid, &status, WNOHANG) == 0);
    kill(pid, SIGCONT);
    expect_stop(pid, SIGTRAP, PTRACE_EVENT_STOP);
    CHECK(ptrace(PTRACE_DETACH, pid, 0, 0) == 0);
    expect_killed(pid, SIGTERM);
}

static void pause_body(void)
{
    signal(SIGUSR1, SIG_IGN);
    raise(SIGUSR2);
    pause();
    _exit(3);
}

/* The result that a tracer puts in keeps an interrupted call from starting again. */
static void result_instead_of_restart(void)
{
    pid_t pid = traced(pause_body);
    CHECK(ptrace(PTRACE_CONT, pid, 0, 0) == 0);
    expect_stop(pid, SIGUSR2, 0);
    do {
        CHECK(ptrace(PTRACE_SYSCALL, pid, 0, 0) == 0);
        expect_stop(pid, SIGTRAP, 0);
    } while (regs_of(pid).orig_rax != SYS_pause);
    CHECK(ptrace(PTRACE_SYSCALL, pid, 0, 0) == 0);
    await_state(pid, 'S');
    kill(pid, SIGUSR1);
    expect_stop(pid, SIGTRAP, 0);
    CHECK(regs_of(pid).rax == (unsigned long)-514);
    CHECK(ptrace(PTRACE_POKEUSER, pid, offsetof(struct user, regs.rax), 0) == 0);
    CHECK(ptrace(PTRACE_DETACH, pid, 0, 0) == 0);
    expect_exit(pid, 3);
}

int main(void)
{
    rights();
    attach_to_parent();
    if (scope())
        CHECK(prctl(PR_SET_PTRACER, 0, 0, 0, 0) == 0);
    drop_capability();
    relations();
    memory();
    signal_while_listening();
    result_instead_of_restart();
    return 0;
}
