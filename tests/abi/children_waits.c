/* Whom wait4(2) and waitid(2) wait for: zombies, clone children, tracees; ECHILD at once where no
 * child can have anything to tell. Calls on a zombie are in children_zombies.c. */
#define _GNU_SOURCE
#include "abi.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* A child that is a zombie, with this signal for its parent. */
static int zombie(int signo, int traced)
{
    siginfo_t info;
    int pid = syscall(SYS_clone, signo, 0, 0, 0, 0);
    CHECK(pid >= 0);
    if (pid == 0) {
        if (traced)
            CHECK(ptrace(PTRACE_TRACEME, 0, 0, 0) == 0);
        _exit(7);
    }
    CHECK(waitid(P_PID, pid, &info, WEXITED | WNOWAIT | __WALL) == 0);
    CHECK(info.si_pid == pid && info.si_status == 7);
    return pid;
}

/* No option but WEXITED waits for a zombie: not even for a while. */
static void without_wexited(int signo, int traced)
{
    static const int kinds[] = {0, __WALL, __WCLONE, __WALL | __WNOTHREAD, __WCLONE | __WNOTHREAD};
    static const int what[] = {WSTOPPED, WCONTINUED, WSTOPPED | WCONTINUED};
    siginfo_t info;
    int pid = zombie(signo, traced), status;
    for (int i = 0; i < 5; i++)
        for (int j = 0; j < 3; j++) {
            CHECK_ERR(waitid(P_ALL, 0, &info, kinds[i] | what[j]), ECHILD);
            CHECK_ERR(waitid(P_PID, pid, &info, kinds[i] | what[j]), ECHILD);
            CHECK_ERR(waitid(P_ALL, 0, &info, kinds[i] | what[j] | WNOHANG), ECHILD);
            CHECK_ERR(waitid(P_PID, pid, &info, kinds[i] | what[j] | WNOHANG | WNOWAIT), ECHILD);
        }
    if (!traced) { /* a tracee is waited for whatever its signal is */
        int other = signo == SIGCHLD ? __WCLONE : 0;
        CHECK_ERR(wait4(-1, &status, other, 0), ECHILD);
        CHECK_ERR(wait4(pid, &status, other | WUNTRACED | WCONTINUED, 0), ECHILD);
        CHECK_ERR(waitid(P_ALL, 0, &info, other | WEXITED | WSTOPPED), ECHILD);
        CHECK_ERR(waitid(P_ALL, 0, &info, other | WEXITED | WNOHANG), ECHILD);
    }
    int own = traced == (signo == SIGCHLD) ? __WCLONE : 0;
    CHECK(waitid(P_ALL, 0, &info, own | WEXITED | WNOWAIT | WNOHANG) == 0 && info.si_pid == pid);
    CHECK(wait4(-1, &status, own | (traced ? __WNOTHREAD : 0), 0) == pid && status == 7 << 8);
    CHECK_ERR(wait4(-1, &status, __WALL, 0), ECHILD);
    CHECK_ERR(waitid(P_ALL, 0, &info, WSTOPPED | WEXITED | __WALL), ECHILD);
}

/* Who waits for stops alone when the child ends is told that nobody is left. */
static void child_ends_meanwhile(void)
{
    int gate[2], status;
    siginfo_t info;
    CHECK(pipe(gate) == 0);
    int waiter = fork();
    if (waiter == 0) {
        int pid = fork();
        if (pid == 0) {
            char byte;
            close(gate[1]);
            read(gate[0], &byte, 1);
            _exit(3);
        }
        close(gate[1]);
        CHECK_ERR(waitid(P_ALL, 0, &info, WSTOPPED | WCONTINUED), ECHILD);
        CHECK(wait(&status) == pid && status == 3 << 8);
        _exit(0);
    }
    char name[64], text[512];
    sprintf(name, "/proc/%d/stat", waiter);
    do { /* until it sleeps */
        int fd = open(name, O_RDONLY);
        CHECK(fd >= 0);
        int length = read(fd, text, sizeof text - 1);
        CHECK(length > 0);
        text[length] = 0;
        close(fd);
        sched_yield();
    } while (strrchr(text, ')')[2] != 'S');
    close(gate[0]);
    close(gate[1]);
    CHECK(waitpid(waiter, &status, 0) == waiter && status == 0);
}

/* A zombie whose tracer, another process, has not yet waited for it counts for its parent. */
static void held_by_its_tracer(void)
{
    int to_tracer[2], from_tracer[2], status;
    char byte;
    siginfo_t info;
    CHECK(pipe(to_tracer) == 0 && pipe(from_tracer) == 0);
    int child = fork();
    if (child == 0) {
        prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
        for (;;)
            pause();
    }
    int tracer = fork();
    if (tracer == 0) {
        CHECK(ptrace(PTRACE_SEIZE, child, 0, 0) == 0);
        CHECK(kill(child, SIGKILL) == 0);
        CHECK(waitid(P_PID, child, &info, WEXITED | WNOWAIT) == 0);
        CHECK_ERR(waitid(P_PID, child, &info, WSTOPPED), ECHILD);
        CHECK(write(from_tracer[1], "z", 1) == 1);
        CHECK(read(to_tracer[0], &byte, 1) == 1);
        CHECK(waitid(P_PID, child, &info, WEXITED | __WCLONE) == 0 && info.si_pid == child);
        _exit(0);
    }
    CHECK(read(from_tracer[0], &byte, 1) == 1);
    memset(&info, 0xff, sizeof info);
    CHECK(waitid(P_PID, child, &info, WEXITED | WNOHANG) == 0 && info.si_pid == 0);
    CHECK(waitid(P_PID, child, &info, WSTOPPED | WNOHANG) == 0 && info.si_pid == 0);
    CHECK_ERR(waitid(P_PID, child, &info, WEXITED | WNOHANG | __WCLONE), ECHILD);
    CHECK(write(to_tracer[1], "g", 1) == 1);
    CHECK(waitpid(child, &status, 0) == child && status == SIGKILL);
    CHECK(waitpid(tracer, &status, 0) == tracer && status == 0);
}

/* Process group 1 is one like others, not everybody. */
static void group_one(void)
{
    int status;
    siginfo_t info;
    int waiter = fork();
    if (waiter == 0) {
        CHECK(setpgid(0, 0) == 0);
        int pid = fork();
        if (pid == 0)
            _exit(3);
        CHECK_ERR(waitid(P_PGID, 1, &info, WEXITED), ECHILD);
        CHECK(waitid(P_PGID, getpid(), &info, WEXITED | WNOWAIT) == 0 && info.si_pid == pid);
        CHECK(waitid(P_PGID, 0, &info, WEXITED) == 0 && info.si_pid == pid);
        _exit(0);
    }
    CHECK(waitpid(waiter, &status, 0) == waiter && status == 0);
}

/* execve(2) and another parent make an ordinary child of one that clone(2) made without SIGCHLD. */
static void signal_becomes_sigchld(const char *self)
{
    int status;
    siginfo_t info;
    int pid = syscall(SYS_clone, 0, 0, 0, 0, 0);
    if (pid == 0) {
        execl(self, self, "end", (char *)0);
        _exit(1);
    }
    CHECK(waitid(P_PID, pid, &info, WEXITED | WNOWAIT | __WALL) == 0 && info.si_status == 9);
    CHECK_ERR(wait4(-1, &status, __WCLONE, 0), ECHILD);
    CHECK(wait4(-1, &status, 0, 0) == pid && status == 9 << 8);

    int gate[2], names[2];
    char byte;
    CHECK(pipe(gate) == 0 && pipe(names) == 0);
    CHECK(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0);
    int middle = fork();
    if (middle == 0) {
        int grandchild = syscall(SYS_clone, 0, 0, 0, 0, 0);
        if (grandchild == 0) {
            close(gate[1]);
            read(gate[0], &byte, 1);
            _exit(5);
        }
        CHECK(write(names[1], &grandchild, sizeof grandchild) == sizeof grandchild);
        _exit(0);
    }
    int orphan;
    CHECK(read(names[0], &orphan, sizeof orphan) == sizeof orphan);
    CHECK(waitpid(middle, &status, 0) == middle && status == 0);
    CHECK_ERR(wait4(-1, &status, __WCLONE | WNOHANG, 0), ECHILD);
    CHECK(wait4(-1, &status, WNOHANG, 0) == 0);
    close(gate[1]);
    CHECK(wait4(-1, &status, 0, 0) == orphan && status == 5 << 8);
    CHECK(prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0) == 0);
}

int main(int argc, char **argv)
{
    if (argc > 1)
        return 9;
    signal(SIGUSR2, SIG_IGN);
    alarm(30); /* a wait that never ends */
    static const int signals[] = {SIGCHLD, 0, SIGUSR2};
    for (int i = 0; i < 3; i++)
        for (int traced = 0; traced < 2; traced++)
            without_wexited(signals[i], traced);
    child_ends_meanwhile();
    held_by_its_tracer();
    group_one();
    signal_becomes_sigchld("/proc/self/exe");
    return 0;
}
