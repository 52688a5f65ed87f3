/* Job control: SIGSTOP, SIGTSTP, SIGCONT, and what wait(2) and SIGCHLD tell of it. */
#define _GNU_SOURCE
#include "abi.h"
#include <pthread.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static volatile int child_signals, last_code, last_status;
static volatile int counter;

static void on_child(int signo, siginfo_t *info, void *context)
{
    (void)signo;
    (void)context;
    child_signals++;
    last_code = info->si_code;
    last_status = info->si_status;
}

static void on_cont(int signo)
{
    (void)signo;
    counter = 1;
}

static void *spin(void *none)
{
    for (;;)
        usleep(1000);
    return none;
}

static pid_t start(void (*run)(void))
{
    pid_t child = fork();
    if (!child) {
        setpgid(0, 0); /* that of a container's first process is orphaned */
        run();
        _exit(0);
    }
    return child;
}

static void sleeper(void)
{
    for (;;)
        pause();
}

static void threads(void)
{
    pthread_t thread;
    pthread_create(&thread, NULL, spin, NULL);
    pthread_create(&thread, NULL, spin, NULL);
    for (volatile long i = 0;; i++)
        ;
}

static void default_continue(void)
{
    sigset_t none;
    sigemptyset(&none);
    signal(SIGCONT, on_cont);
    while (!counter)
        sigsuspend(&none);
    _exit(77);
}

static void stop_and_continue(void (*run)(void))
{
    int status;
    pid_t child = start(run);
    usleep(30000);
    child_signals = 0;
    CHECK(waitpid(child, &status, WNOHANG | WUNTRACED) == 0);
    CHECK(kill(child, SIGSTOP) == 0);
    CHECK(waitpid(child, &status, WUNTRACED) == child);
    CHECK(WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP);
    CHECK(child_signals == 1 && last_code == CLD_STOPPED && last_status == SIGSTOP);
    CHECK(waitpid(child, &status, WNOHANG | WUNTRACED) == 0);
    CHECK(kill(child, SIGCONT) == 0);
    CHECK(waitpid(child, &status, WCONTINUED) == child && WIFCONTINUED(status));
    for (int i = 0; i < 1000 && child_signals < 2; i++)
        usleep(1000); /* the continued child sends it itself */
    CHECK(child_signals == 2 && last_code == CLD_CONTINUED && last_status == SIGCONT);
    siginfo_t info;
    kill(child, SIGTSTP);
    CHECK(waitid(P_PID, child, &info, WSTOPPED | WNOWAIT) == 0);
    CHECK(info.si_code == CLD_STOPPED && info.si_status == SIGTSTP && info.si_pid == child);
    CHECK(waitid(P_PID, child, &info, WSTOPPED) == 0 && info.si_pid == child);
    info.si_pid = 1;
    CHECK(waitid(P_PID, child, &info, WSTOPPED | WNOHANG) == 0 && info.si_pid == 0);
    /* SIGKILL ends it although it is stopped; other signals wait */
    kill(child, SIGTERM);
    usleep(20000);
    CHECK(waitpid(child, &status, WNOHANG) == 0);
    kill(child, SIGCONT);
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
    child = start(run);
    usleep(20000);
    kill(child, SIGSTOP);
    CHECK(waitpid(child, &status, WUNTRACED) == child && WIFSTOPPED(status));
    kill(child, SIGKILL);
    CHECK(waitpid(child, &status, 0) == child && WTERMSIG(status) == SIGKILL);
}

static void a_handler_for_sigcont_runs(void)
{
    int status;
    sigset_t continues;
    sigemptyset(&continues);
    sigaddset(&continues, SIGCONT);
    sigprocmask(SIG_BLOCK, &continues, NULL); /* it waits until the child waits for it */
    pid_t child = start(default_continue);
    sigprocmask(SIG_UNBLOCK, &continues, NULL);
    kill(child, SIGSTOP);
    CHECK(waitpid(child, &status, WUNTRACED) == child && WIFSTOPPED(status));
    kill(child, SIGCONT);
    CHECK(waitpid(child, &status, 0) == child && WEXITSTATUS(status) == 77);
}

static void orphaned(void)
{
    /* in an orphaned process group the terminal's stop signals do nothing */
    setsid();
    kill(getpid(), SIGTSTP);
    _exit(8);
}

static void orphaned_groups_do_not_stop(void)
{
    int status;
    pid_t child = fork();
    if (!child)
        orphaned();
    CHECK(waitpid(child, &status, WUNTRACED) == child && WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == 8);
}

static void no_notice_if_not_wanted(void)
{
    struct sigaction action = {.sa_sigaction = on_child, .sa_flags = SA_SIGINFO | SA_NOCLDSTOP};
    int status;
    sigaction(SIGCHLD, &action, NULL);
    pid_t child = start(sleeper);
    usleep(20000);
    child_signals = 0;
    kill(child, SIGSTOP);
    CHECK(waitpid(child, &status, WUNTRACED) == child && child_signals == 0);
    kill(child, SIGKILL);
    CHECK(waitpid(child, &status, 0) == child && child_signals == 1 && last_code == CLD_KILLED);
}

/* Who waits for stops alone has nothing to wait for once there are only ends to tell. */
static void ended_child_is_none_for_who_waits_for_stops(void)
{
    siginfo_t info;
    pid_t pid = fork();
    if (!pid)
        _exit(3);
    CHECK_ERR(waitid(P_PID, pid, &info, WSTOPPED | WCONTINUED), ECHILD); /* or it sleeps until then */
    CHECK_ERR(waitid(P_PID, pid, &info, WSTOPPED | WNOHANG), ECHILD);
    CHECK_ERR(waitid(P_ALL, 0, &info, WCONTINUED | WNOHANG), ECHILD);
    pid_t other = fork();
    if (!other)
        for (;;)
            pause();
    CHECK(waitid(P_ALL, 0, &info, WSTOPPED | WNOHANG) == 0);
    CHECK(kill(other, SIGKILL) == 0);
    CHECK_ERR(waitid(P_ALL, 0, &info, WSTOPPED), ECHILD);
    CHECK(waitid(P_PID, pid, &info, WEXITED) == 0 && info.si_status == 3);
    CHECK(waitid(P_PID, other, &info, WEXITED) == 0 && info.si_status == SIGKILL);

    pid = fork();
    if (!pid) {
        CHECK(ptrace(PTRACE_TRACEME, 0, 0, 0) == 0);
        raise(SIGSTOP);
        _exit(4);
    }
    CHECK(waitid(P_PID, pid, &info, WSTOPPED | __WALL) == 0 && info.si_code == CLD_TRAPPED);
    CHECK(ptrace(PTRACE_CONT, pid, 0, 0) == 0);
    CHECK_ERR(waitid(P_PID, pid, &info, WSTOPPED | __WALL), ECHILD);
    CHECK(waitid(P_PID, pid, &info, WEXITED | __WALL) == 0 && info.si_status == 4);
}

int main(void)
{
    struct sigaction action = {.sa_sigaction = on_child, .sa_flags = SA_SIGINFO | SA_RESTART};
    sigaction(SIGCHLD, &action, NULL);
    stop_and_continue(sleeper);
    stop_and_continue(threads);
    a_handler_for_sigcont_runs();
    orphaned_groups_do_not_stop();
    no_notice_if_not_wanted();
    ended_child_is_none_for_who_waits_for_stops();
    return 0;
}
