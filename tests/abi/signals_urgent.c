/* SIGURG: for which thread it is, and who may have it sent to whom. send_sigurg(), fs/fcntl.c. */
#define _GNU_SOURCE
#include "abi.h"
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static sigset_t urgent;
static const struct timespec now;

static int taken(void)
{
    siginfo_t info;
    int signo = sigtimedwait(&urgent, &info, &now);
    if (signo < 0 && errno == EAGAIN)
        return 0;
    CHECK(signo == SIGURG && info.si_code == SI_KERNEL && info.si_pid == 0);
    return 1;
}

static void *other(void *found)
{
    *(int *)found = taken();
    return NULL;
}

static int taken_by_other(void)
{
    pthread_t thread;
    int found;
    CHECK(pthread_create(&thread, NULL, other, &found) == 0 && pthread_join(thread, NULL) == 0);
    return found;
}

static void urge(const int *pair)
{
    char byte;
    CHECK(send(pair[1], "!", 1, MSG_OOB) == 1);
    CHECK(recv(pair[0], &byte, 1, MSG_OOB) == 1 && byte == '!');
}

/* A child that has become another user names us, and sends. */
static void by_child(const int *pair, uid_t real, uid_t effective)
{
    pid_t child = fork();
    int status;
    if (child == 0) {
        CHECK(setresuid(real, effective, real) == 0);
        CHECK(fcntl(pair[0], F_SETOWN, getppid()) == 0);
        urge(pair);
        _exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child && status == 0);
}

static void each(const int *pair)
{
    struct f_owner_ex owner = {F_OWNER_TID, (pid_t)syscall(SYS_gettid)};
    urge(pair);
    CHECK(!taken()); /* nobody owns it */
    CHECK(fcntl(pair[0], F_SETOWN, getpid()) == 0);
    urge(pair);
    CHECK(taken_by_other() && !taken());
    CHECK(fcntl(pair[0], F_SETOWN, -getpgrp()) == 0);
    urge(pair);
    CHECK(taken_by_other() && !taken());
    CHECK(fcntl(pair[0], F_SETOWN_EX, &owner) == 0);
    urge(pair);
    CHECK(!taken_by_other() && taken());

    by_child(pair, 1000, 1000);
    CHECK(!taken());
    by_child(pair, 0, 1000);
    CHECK(taken());
    CHECK(fchown(pair[0], 1000, 1000) == 0);
    by_child(pair, 0, 0);
    CHECK(taken());
    CHECK(fcntl(pair[0], F_SETOWN, 0) == 0);
}

int main(void)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t size = sizeof at;
    int pair[2], listener = socket(AF_INET, SOCK_STREAM, 0);
    sigemptyset(&urgent);
    sigaddset(&urgent, SIGURG);
    CHECK(sigprocmask(SIG_BLOCK, &urgent, NULL) == 0);
    CHECK(getpgrp() == getpid() || setpgid(0, 0) == 0);

    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    each(pair);

    CHECK(bind(listener, (void *)&at, size) == 0 && listen(listener, 1) == 0);
    CHECK(getsockname(listener, (void *)&at, &size) == 0);
    CHECK((pair[1] = socket(AF_INET, SOCK_STREAM, 0)) >= 0);
    CHECK(connect(pair[1], (void *)&at, size) == 0);
    CHECK((pair[0] = accept(listener, NULL, NULL)) >= 0);
    each(pair);
    return 0;
}
