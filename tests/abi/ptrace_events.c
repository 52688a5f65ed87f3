/* PTRACE_O_TRACE*: fork, vfork, clone, exec (also of a thread), exit; who waits for whom. */
#include "ptrace.h"

#include <pthread.h>
#include <sched.h>

static char self[4096];

static void options(pid_t pid, long wanted)
{
    CHECK(ptrace(PTRACE_SETOPTIONS, pid, 0, wanted) == 0);
}

static void cont(pid_t pid)
{
    CHECK(ptrace(PTRACE_CONT, pid, 0, 0) == 0);
}

static unsigned long message_of(pid_t pid)
{
    unsigned long message = 0;
    CHECK(ptrace(PTRACE_GETEVENTMSG, pid, 0, &message) == 0);
    return message;
}

static void fork_body(void)
{
    pid_t child = fork();
    if (child == 0)
        _exit(4);
    int status;
    if (waitpid(child, &status, 0) != child || !WIFEXITED(status) || WEXITSTATUS(status) != 4)
        _exit(1);
    _exit(0);
}

static void fork_event(void)
{
    siginfo_t info;
    pid_t pid = traced(fork_body);
    options(pid, PTRACE_O_TRACEFORK);
    cont(pid);
    expect_stop(pid, SIGTRAP, PTRACE_EVENT_FORK);
    CHECK(ptrace(PTRACE_GETSIGINFO, pid, 0, &info) == 0);
    CHECK(info.si_signo == SIGTRAP && info.si_code == (SIGTRAP | PTRACE_EVENT_FORK << 8));
    pid_t child = message_of(pid);
    CHECK(child > 0 && child != pid);
    expect_stop(child, SIGSTOP, 0);
    CHECK(tracer_of(child) == getpid());
    CHECK(regs_of(child).rax == 0);
    cont(pid);
    await_state(pid, 'S'); /* it waits for its child */
    cont(child);
    siginfo_t ended;
    CHECK(waitid(P_PID, child, &ended, WEXITED | WNOWAIT) == 0); /* the tracer hears first */
    CHECK(state_of(pid) == 'S');
    expect_exit(child, 4);
    int status; /* then SIGCHLD for the parent, which is traced */
    CHECK(waitpid(pid, &status, 0) == pid && WSTOPSIG(status) == SIGCHLD);
    cont(pid);
    expect_exit(pid, 0);
}

static void vfork_body(void)
{
    pid_t child = vfork();
    if (child == 0)
        _exit(0);
    _exit(child > 0 ? 0 : 1);
}

static void vfork_event(void)
{
    pid_t pid = traced(vfork_body);
    options(pid, PTRACE_O_TRACEVFORK | PTRACE_O_TRACEVFORKDONE);
    cont(pid);
    expect_stop(pid, SIGTRAP, PTRACE_EVENT_VFORK);
    pid_t child = message_of(pid);
    expect_stop(child, SIGSTOP, 0);
    cont(pid);
    int status;
    CHECK(waitpid(pid, &status, WNOHANG) == 0);
    CHECK(ptrace(PTRACE_DETACH, child, 0, 0) == 0);
    do { /* SIGCHLD may come before */
        CHECK(waitpid(pid, &status, 0) == pid);
        if (status >> 8 == SIGCHLD)
            cont(pid);
    } while (status >> 8 == SIGCHLD);
    CHECK(status >> 8 == (SIGTRAP | PTRACE_EVENT_VFORK_DONE << 8));
    CHECK(message_of(pid) == child);
    do {
        cont(pid);
        CHECK(waitpid(pid, &status, 0) == pid);
    } while (WIFSTOPPED(status));
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void *thread(void *unused)
{
    return unused;
}

static void clone_body(void)
{
    pthread_t t;
    pthread_create(&t, NULL, thread, NULL);
    pthread_join(t, NULL);
    _exit(6);
}

static void clone_event(void)
{
    int status;
    pid_t pid = traced(clone_body);
    options(pid, PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXIT);
    cont(pid);
    expect_stop(pid, SIGTRAP, PTRACE_EVENT_CLONE);
    pid_t tid = message_of(pid);
    expect_stop(tid, SIGSTOP, 0);
    CHECK(waitpid(tid, &status, WNOHANG | __WNOTHREAD) == 0);
    cont(pid);
    cont(tid);
    expect_stop(tid, SIGTRAP, PTRACE_EVENT_EXIT);
    CHECK(message_of(tid) == 0);
    cont(tid);
    CHECK(waitpid(tid, &status, __WALL) == tid); /* the end of a thread is told to its tracer */
    CHECK(status == 0 || status == 6 << 8);      /* or the process's, if that ends meanwhile */
    expect_stop(pid, SIGTRAP, PTRACE_EVENT_EXIT);
    CHECK(message_of(pid) == 6 << 8);
    cont(pid);
    expect_exit(pid, 6);
    CHECK_ERR(waitpid(tid, &status, __WALL), ECHILD);
}

static void exec_body(void)
{
    char *argv[] = {self, "child", NULL};
    execv(self, argv);
    _exit(1);
}

static void exec_event(void)
{
    siginfo_t info;
    pid_t pid = traced(exec_body); /* without the option: SIGTRAP */
    cont(pid);
    expect_stop(pid, SIGTRAP, 0);
    CHECK(ptrace(PTRACE_GETSIGINFO, pid, 0, &info) == 0);
    CHECK(info.si_code == SI_USER && info.si_pid == pid);
    cont(pid);
    expect_exit(pid, 42);

    pid = traced(exec_body);
    options(pid, PTRACE_O_TRACEEXEC | PTRACE_O_TRACESYSGOOD);
    cont(pid);
    expect_stop(pid, SIGTRAP, PTRACE_EVENT_EXEC);
    CHECK(message_of(pid) == pid);
    struct user_regs_struct r = regs_of(pid);
    CHECK(r.orig_rax == SYS_execve);
    CHECK(ptrace(PTRACE_SYSCALL, pid, 0, 0) == 0);
    expect_stop(pid, SIGTRAP | 0x80, 0);
    r = regs_of(pid);
    CHECK(r.rax == 0 && r.orig_rax == SYS_execve && r.rbx == 0);
    cont(pid);
    expect_exit(pid, 42);
}

static void *exec_thread(void *unused)
{
    exec_body();
    return NULL;
}

static void exec_thread_body(void)
{
    pthread_t t;
    pthread_create(&t, NULL, exec_thread, NULL);
    for (;;)
        pause();
}

/* A thread that is not the leader becomes it: the leader vanishes unheard of. */
static void exec_of_a_thread(void)
{
    int status;
    pid_t pid = traced(exec_thread_body);
    options(pid, PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC);
    cont(pid);
    expect_stop(pid, SIGTRAP, PTRACE_EVENT_CLONE);
    pid_t tid = message_of(pid);
    expect_stop(tid, SIGSTOP, 0);
    cont(pid);
    cont(tid);
    expect_stop(pid, SIGTRAP, PTRACE_EVENT_EXEC);
    CHECK(message_of(pid) == tid);
    CHECK_ERR(ptrace(PTRACE_CONT, tid, 0, 0), ESRCH);
    cont(pid);
    expect_exit(pid, 42);
}

static void kill_body(void)
{
    for (;;)
        pause();
}

static void exit_of_the_killed(void)
{
    pid_t pid = traced(kill_body);
    options(pid, PTRACE_O_TRACEEXIT);
    cont(pid);
    kill(pid, SIGTERM);
    expect_stop(pid, SIGTERM, 0);
    CHECK(ptrace(PTRACE_CONT, pid, 0, SIGTERM) == 0);
    expect_stop(pid, SIGTRAP, PTRACE_EVENT_EXIT);
    CHECK(message_of(pid) == SIGTERM);
    regs_of(pid);
    cont(pid);
    expect_killed(pid, SIGTERM);
}

static int child_of_a_grandchild[2];

/* A tracer that is not the parent: the parent hears of the end when the tracer has. */
static void foreign_tracer(void)
{
    int go[2], report[2];
    char byte;
    pid_t target = fork();
    if (target == 0)
        kill_body();
    CHECK(pipe(go) == 0 && pipe(report) == 0);
    pid_t tracer = fork();
    if (tracer == 0) {
        int status;
        CHECK(ptrace(PTRACE_SEIZE, target, 0, 0) == 0);
        CHECK(write(report[1], "a", 1) == 1);
        CHECK(waitpid(target, &status, __WALL) == target && WIFSTOPPED(status));
        CHECK(WSTOPSIG(status) == SIGTERM);
        CHECK(ptrace(PTRACE_CONT, target, 0, SIGTERM) == 0);
        siginfo_t info;
        CHECK(waitid(P_PID, target, &info, WEXITED | WNOWAIT | __WALL) == 0);
        CHECK(write(report[1], "b", 1) == 1);
        CHECK(read(go[0], &byte, 1) == 1);
        CHECK(waitpid(target, &status, __WALL) == target && WIFSIGNALED(status));
        CHECK_ERR(waitpid(target, &status, __WALL), ECHILD);
        _exit(0);
    }
    CHECK(read(report[0], &byte, 1) == 1 && byte == 'a');
    kill(target, SIGTERM);
    CHECK(read(report[0], &byte, 1) == 1 && byte == 'b');
    int status;
    CHECK(waitpid(target, &status, WNOHANG) == 0);
    CHECK(write(go[1], "x", 1) == 1);
    expect_killed(target, SIGTERM);
    expect_exit(tracer, 0);
}

int main(int argc, char **argv)
{
    if (argc > 1)
        return 42;
    CHECK(readlink("/proc/self/exe", self, sizeof self - 1) > 0);
    fork_event();
    vfork_event();
    clone_event();
    exec_event();
    exec_of_a_thread();
    exit_of_the_killed();
    foreign_tracer();
    return 0;
}
