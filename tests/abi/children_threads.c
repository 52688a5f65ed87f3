/* Children belong to the thread that made them: __WNOTHREAD of wait(2), PR_SET_PDEATHSIG. */
#define _GNU_SOURCE
#include "abi.h"
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static pid_t child, maker;
static int ready[2], told[2];

static void *make(void *none)
{
    char byte;
    maker = gettid();
    child = fork();
    if (child == 0) {
        CHECK(prctl(PR_SET_PDEATHSIG, SIGUSR2) == 0);
        CHECK(write(ready[1], "r", 1) == 1);
        pause();
        _exit(1);
    }
    CHECK(child > 0 && read(ready[0], &byte, 1) == 1);
    CHECK(waitpid(child, NULL, WNOHANG | __WNOTHREAD) == 0);
    CHECK(write(ready[1], "m", 1) == 1);
    CHECK(read(told[0], &byte, 1) == 1);
    return NULL;
}

static volatile int died;
static void on_death(int signo) { died = signo; }

/* A parent tells of its death if it may send the signal: the child's byte says whether it did. */
static void tells(int uid, char expected)
{
    char byte;
    pid_t parent = fork();
    if (parent == 0) {
        pid_t me = getpid();
        if (fork() == 0) {
            signal(SIGUSR1, on_death);
            CHECK(prctl(PR_SET_PDEATHSIG, SIGUSR1) == 0 && write(ready[1], "r", 1) == 1);
            while (getppid() == me)
                usleep(1000);
            CHECK(write(told[1], died ? "d" : "n", 1) == 1);
            _exit(0);
        }
        CHECK(read(ready[0], &byte, 1) == 1);
        CHECK(setresuid(uid, uid, uid) == 0);
        _exit(0);
    }
    CHECK(waitpid(parent, NULL, 0) == parent);
    CHECK(read(told[0], &byte, 1) == 1 && byte == expected);
    CHECK(waitpid(-1, NULL, 0) > 0); /* the orphan */
}

int main(void)
{
    pthread_t thread;
    int status;
    char byte;
    siginfo_t info;
    CHECK(pipe(ready) == 0 && pipe(told) == 0);
    CHECK(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0);
    tells(0, 'd');
    tells(12345, 'n');
    CHECK(pthread_create(&thread, NULL, make, NULL) == 0);
    do
        CHECK(read(ready[0], &byte, 1) == 1);
    while (byte != 'm' && write(ready[1], &byte, 1) == 1);
    CHECK(waitpid(child, NULL, WNOHANG) == 0);
    CHECK_ERR(waitpid(child, NULL, WNOHANG | __WNOTHREAD), ECHILD);
    CHECK_ERR(waitid(P_ALL, 0, &info, WEXITED | __WNOTHREAD), ECHILD);
    CHECK(kill(child, 0) == 0);
    CHECK_ERR(setpgid(maker, 0), EINVAL);
    CHECK_ERR(setpgid(maker, maker), EINVAL);
    CHECK(write(told[1], "t", 1) == 1);
    CHECK(pthread_join(thread, NULL) == 0);
    /* the thread is dead, and this one has its children now */
    CHECK(waitpid(child, &status, __WNOTHREAD) == child);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGUSR2);
    return 0;
}
