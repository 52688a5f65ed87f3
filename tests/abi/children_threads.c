/* Children belong to the thread that made them: __WNOTHREAD of wait(2), PR_SET_PDEATHSIG. */
#define _GNU_SOURCE
#include "abi.h"
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static pid_t child;
static int ready[2], told[2];

static void *make(void *none)
{
    char byte;
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

int main(void)
{
    pthread_t thread;
    int status;
    char byte;
    siginfo_t info;
    CHECK(pipe(ready) == 0 && pipe(told) == 0);
    CHECK(pthread_create(&thread, NULL, make, NULL) == 0);
    do
        CHECK(read(ready[0], &byte, 1) == 1);
    while (byte != 'm' && write(ready[1], &byte, 1) == 1);
    CHECK(waitpid(child, NULL, WNOHANG) == 0);
    CHECK_ERR(waitpid(child, NULL, WNOHANG | __WNOTHREAD), ECHILD);
    CHECK_ERR(waitid(P_ALL, 0, &info, WEXITED | __WNOTHREAD), ECHILD);
    CHECK(kill(child, 0) == 0);
    CHECK(write(told[1], "t", 1) == 1);
    CHECK(pthread_join(thread, NULL) == 0);
    /* the thread is dead, and this one has its children now */
    CHECK(waitpid(child, &status, __WNOTHREAD) == child);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGUSR2);
    return 0;
}
