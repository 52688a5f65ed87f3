/* PTRACE_ATTACH, PTRACE_SEIZE, PTRACE_INTERRUPT, PTRACE_LISTEN, group stops, the tracer's end. */
#include "ptrace.h"

#include <pthread.h>
#include <sys/prctl.h>

static pid_t sleeper(void)
{
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0)
        for (;;)
            pause();
    await_state(pid, 'S');
    return pid;
}

static pid_t spinner(void)
{
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0)
        for (;;)
            __asm__ volatile("" ::: "memory");
    return pid;
}

static void cont(pid_t pid, int signo)
{
    CHECK(ptrace(PTRACE_CONT, pid, 0, signo) == 0);
}

static void attach(void)
{
    siginfo_t info;
    pid_t pid = sleeper();
    CHECK(ptrace(PTRACE_ATTACH, pid, 0, 0) == 0);
    expect_stop(pid, SIGSTOP, 0);
    CHECK(ptrace(PTRACE_GETSIGINFO, pid, 0, &info) == 0 && info.si_signo == SIGSTOP);
    CHECK(state_of(pid) == 't' && tracer_of(pid) == getpid());
    CHECK(regs_of(pid).orig_rax == SYS_pause);
    CHECK(ptrace(PTRACE_DETACH, pid, 0, 0) == 0);
    await_state(pid, 'S'); /* goes on sleeping */
    CHECK(tracer_of(pid) == 0);
    kill(pid, SIGKILL);
    expect_killed(pid, SIGKILL);
    pid = spinner();
    CHECK(ptrace(PTRACE_ATTACH, pid, 0, 0) == 0);
    expect_stop(pid, SIGSTOP, 0);
    CHECK(ptrace(PTRACE_DETACH, pid, 0, SIGTERM) == 0);
    expect_killed(pid, SIGTERM);
}

static void attach_to_stopped(void)
{
    siginfo_t info;
    pid_t pid = sleeper();
    kill(pid, SIGSTOP);
    await_state(pid, 'T');
    CHECK(ptrace(PTRACE_ATTACH, pid, 0, 0) == 0);
    expect_stop(pid, SIGSTOP, 0); /* the group stop, as a trap */
    CHECK_ERR(ptrace(PTRACE_GETSIGINFO, pid, 0, &info), EINVAL);
    cont(pid, 0);
    expect_stop(pid, SIGSTOP, 0); /* the signal that attaching sent */
    CHECK(ptrace(PTRACE_GETSIGINFO, pid, 0, &info) == 0);
    CHECK(ptrace(PTRACE_DETACH, pid, 0, 0) == 0);
    await_state(pid, 'T'); /* the process is stopped all the same */
    kill(pid, SIGKILL);
    expect_killed(pid, SIGKILL);
}

static void group_stop_of_attached(void)
{
    siginfo_t info;
    pid_t pid = sleeper();
    CHECK(ptrace(PTRACE_ATTACH, pid, 0, 0) == 0);
    expect_stop(pid, SIGSTOP, 0);
    cont(pid, 0);
    kill(pid, SIGTSTP);
    expect_stop(pid, SIGTSTP, 0);
    CHECK(ptrace(PTRACE_GETSIGINFO, pid, 0, &info) == 0);
    cont(pid, SIGSTOP); /* injected: now the group stop */
    expect_stop(pid, SIGSTOP, 0);
    CHECK_ERR(ptrace(PTRACE_GETSIGINFO, pid, 0, &info), EINVAL);
    cont(pid, 0); /* and it runs although its process is stopped */
    await_state(pid, 'S');
    kill(pid, SIGKILL);
    expect_killed(pid, SIGKILL);
}

static void seize_and_interrupt(void)
{
    siginfo_t info;
    struct user_regs_struct r;
    int status;
    pid_t pid = sleeper();
    CHECK(ptrace(PTRACE_SEIZE, pid, 0, PTRACE_O_TRACESYSGOOD) == 0);
    CHECK(state_of(pid) == 'S' && tracer_of(pid) == getpid());
    CHECK(waitpid(pid, &status, WNOHANG) == 0);
    CHECK_ERR(ptrace(PTRACE_GETREGS, pid, 0, &r), ESRCH);
    CHECK(ptrace(PTRACE_INTERRUPT, pid, 0, 0) == 0);
    expect_stop(pid, SIGTRAP, PTRACE_EVENT_STOP);
    CHECK(ptrace(PTRACE_GETSIGINFO, pid, 0, &info) == 0);
    CHECK(info.si_signo == SIGTRAP && info.si_code == (PTRACE_EVENT_STOP << 8 | SIGTRAP));
    CHECK(regs_of(pid).orig_rax == SYS_pause && regs_of(pid).rax == (unsigned long)-514);
    CHECK(ptrace(PTRACE_INTERRUPT, pid, 0, 0) == 0); /* in a stop: once more after it */
    cont(pid, 0);
    expect_stop(pid, SIGTRAP, PTRACE_EVENT_STOP);
    cont(pid, 0);
    await_state(pid, 'S');
    kill(pid, SIGUSR1);
    expect_stop(pid, SIGUSR1, 0);
    cont(pid, 0);
    await_state(pid, 'S');
    kill(pid, SIGKILL);
    expect_killed(pid, SIGKILL);
}

static void listening(void)
{
    int status;
    pid_t pid = sleeper();
    CHECK(ptrace(PTRACE_SEIZE, pid, 0, 0) == 0);
    kill(pid, SIGSTOP);
    expect_stop(pid, SIGSTOP, 0);
    CHECK_ERR(ptrace(PTRACE_LISTEN, pid, 0, 0), EIO); /* a signal, not yet the stop */
    cont(pid, SIGSTOP);
    expect_stop(pid, SIGSTOP, PTRACE_EVENT_STOP);
    CHECK(ptrace(PTRACE_LISTEN, pid, 0, 0) == 0);
    CHECK(waitpid(pid, &status, WNOHANG) == 0);
    struct user_regs_struct r;
    CHECK_ERR(ptrace(PTRACE_GETREGS, pid, 0, &r), ESRCH); /* as if it ran */
    CHECK(ptrace(PTRACE_INTERRUPT, pid, 0, 0) == 0);
    expect_stop(pid, SIGSTOP, PTRACE_EVENT_STOP); /* still the group stop */
    CHECK(ptrace(PTRACE_LISTEN, pid, 0, 0) == 0);
    kill(pid, SIGCONT);
    expect_stop(pid, SIGTRAP, PTRACE_EVENT_STOP); /* which is over */
    cont(pid, 0);
    expect_stop(pid, SIGCONT, 0);
    cont(pid, SIGCONT);
    await_state(pid, 'S');
    kill(pid, SIGKILL);
    expect_killed(pid, SIGKILL);
}

static void seize_stopped(void)
{
    pid_t pid = sleeper();
    kill(pid, SIGSTOP);
    await_state(pid, 'T');
    CHECK(ptrace(PTRACE_SEIZE, pid, 0, 0) == 0);
    expect_stop(pid, SIGSTOP, PTRACE_EVENT_STOP);
    CHECK(ptrace(PTRACE_DETACH, pid, 0, 0) == 0);
    await_state(pid, 'T');
    kill(pid, SIGCONT);
    await_state(pid, 'S');
    kill(pid, SIGKILL);
    expect_killed(pid, SIGKILL);
}

static void seized_fork(void)
{
    unsigned long child;
    pid_t pid = fork();
    if (pid == 0) {
        raise(SIGSTOP);
        if (fork() == 0)
            _exit(1);
        _exit(0);
    }
    await_state(pid, 'T');
    CHECK(ptrace(PTRACE_SEIZE, pid, 0, PTRACE_O_TRACEFORK) == 0);
    expect_stop(pid, SIGSTOP, PTRACE_EVENT_STOP);
    kill(pid, SIGCONT);
    cont(pid, 0);
    expect_stop(pid, SIGTRAP, PTRACE_EVENT_STOP);
    cont(pid, 0);
    expect_stop(pid, SIGCONT, 0);
    cont(pid, 0);
    expect_stop(pid, SIGTRAP, PTRACE_EVENT_FORK);
    CHECK(ptrace(PTRACE_GETEVENTMSG, pid, 0, &child) == 0);
    expect_stop(child, SIGTRAP, PTRACE_EVENT_STOP); /* no SIGSTOP for a child of the seized */
    cont(child, 0);
    expect_exit(child, 1);
    int status;
    do {
        ptrace(PTRACE_CONT, pid, 0, 0);
        CHECK(waitpid(pid, &status, 0) == pid);
    } while (WIFSTOPPED(status));
    CHECK(WIFEXITED(status));
}

/* A tracer ends: its tracees go on; or they die with it. */
static void tracer_ends(long options, int survives)
{
    int report[2];
    char byte;
    pid_t pid = sleeper();
    CHECK(pipe(report) == 0);
    pid_t tracer = fork();
    if (tracer == 0) {
        CHECK(ptrace(PTRACE_SEIZE, pid, 0, options) == 0);
        CHECK(ptrace(PTRACE_INTERRUPT, pid, 0, 0) == 0);
        expect_stop(pid, SIGTRAP, PTRACE_EVENT_STOP);
        CHECK(write(report[1], "x", 1) == 1);
        pause();
    }
    CHECK(read(report[0], &byte, 1) == 1);
    CHECK(tracer_of(pid) == tracer && state_of(pid) == 't');
    kill(tracer, SIGKILL);
    expect_killed(tracer, SIGKILL);
    if (survives) {
        await_state(pid, 'S');
        CHECK(tracer_of(pid) == 0);
        kill(pid, SIGKILL);
    }
    expect_killed(pid, SIGKILL);
}

/* The parent's own view of a child that another process traces. */
static void parents_view(void)
{
    int report[2], go[2], status;
    char byte;
    pid_t pid = sleeper();
    CHECK(pipe(report) == 0 && pipe(go) == 0);
    pid_t tracer = fork();
    if (tracer == 0) {
        CHECK(ptrace(PTRACE_ATTACH, pid, 0, 0) == 0);
        expect_stop(pid, SIGSTOP, 0);
        CHECK(write(report[1], "a", 1) == 1);
        CHECK(read(go[0], &byte, 1) == 1);
        cont(pid, SIGSTOP); /* the group stop is the parent's business too */
        expect_stop(pid, SIGSTOP, 0);
        CHECK(write(report[1], "b", 1) == 1);
        pause();
    }
    CHECK(read(report[0], &byte, 1) == 1);
    CHECK(waitpid(pid, &status, WNOHANG | WUNTRACED) == 0); /* a ptrace-stop is not */
    CHECK(write(go[1], "x", 1) == 1);
    CHECK(read(report[0], &byte, 1) == 1);
    CHECK(waitpid(pid, &status, WUNTRACED) == pid);
    CHECK(WIFSTOPPED(status) && status >> 8 == SIGSTOP);
    kill(tracer, SIGKILL);
    expect_killed(tracer, SIGKILL);
    await_state(pid, 'T');
    kill(pid, SIGKILL);
    expect_killed(pid, SIGKILL);
}

static pid_t thread_target;

static void *tracing_thread(void *unused)
{
    int status;
    CHECK(ptrace(PTRACE_SEIZE, thread_target, 0, 0) == 0);
    CHECK(ptrace(PTRACE_INTERRUPT, thread_target, 0, 0) == 0);
    return NULL;
}

/* The tracer is a thread: another thread of its process may wait, but not ask. */
static void *asking_thread(void *unused)
{
    struct user_regs_struct r;
    CHECK_ERR(ptrace(PTRACE_GETREGS, thread_target, 0, &r), ESRCH);
    return NULL;
}

static void tracer_is_a_thread(void)
{
    pthread_t t;
    thread_target = sleeper();
    CHECK(ptrace(PTRACE_SEIZE, thread_target, 0, 0) == 0);
    CHECK(ptrace(PTRACE_INTERRUPT, thread_target, 0, 0) == 0);
    expect_stop(thread_target, SIGTRAP, PTRACE_EVENT_STOP);
    pthread_create(&t, NULL, asking_thread, NULL);
    pthread_join(t, NULL);
    CHECK(ptrace(PTRACE_DETACH, thread_target, 0, 0) == 0);
    pthread_create(&t, NULL, tracing_thread, NULL);
    pthread_join(t, NULL); /* its end sets the tracee free */
    await_state(thread_target, 'S');
    CHECK(tracer_of(thread_target) == 0);
    kill(thread_target, SIGKILL);
    expect_killed(thread_target, SIGKILL);
}

int main(void)
{
    attach();
    attach_to_stopped();
    group_stop_of_attached();
    seize_and_interrupt();
    listening();
    seize_stopped();
    seized_fork();
    tracer_ends(0, 1);
    tracer_ends(PTRACE_O_EXITKILL, 0);
    parents_view();
    tracer_is_a_thread();
    return 0;
}
