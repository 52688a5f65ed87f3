/* Signals through a descriptor: pidfd_send_signal(2); futex2 calls of Linux 6.7 where there. */
#define _GNU_SOURCE
#include "abi.h"
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef SYS_futex_wake
#define SYS_futex_wake 454
#define SYS_futex_wait 455
#define SYS_futex_requeue 456
#endif
#define BAD ((void *)8)

static volatile int calls;
static siginfo_t last;
static void handler(int signo, siginfo_t *info, void *context)
{
    (void)signo;
    (void)context;
    calls++;
    last = *info;
}

static long send(int fd, int signo, siginfo_t *info, int flags)
{
    return syscall(SYS_pidfd_send_signal, fd, signo, info, flags);
}

static void descriptors(void)
{
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO};
    sigaction(SIGUSR1, &action, NULL);
    int self = (int)syscall(SYS_pidfd_open, getpid(), 0), status;
    CHECK(self >= 0);
    CHECK(send(self, 0, NULL, 0) == 0);
    CHECK(send(self, SIGUSR1, NULL, 0) == 0 && calls == 1);
    CHECK(last.si_code == SI_USER && last.si_pid == getpid());
    siginfo_t info = {0};
    info.si_signo = SIGUSR1;
    info.si_code = SI_QUEUE;
    info.si_value.sival_int = 5;
    CHECK(send(self, SIGUSR1, &info, 0) == 0 && calls == 2);
    CHECK(last.si_code == SI_QUEUE && last.si_value.sival_int == 5);
    info.si_signo = SIGUSR2;
    CHECK_ERR(send(self, SIGUSR1, &info, 0), EINVAL);
    CHECK_ERR(send(self, SIGUSR1, NULL, 1 << 20), EINVAL);
    CHECK_ERR(send(self, 99, NULL, 0), EINVAL);
    CHECK_ERR(send(999, SIGUSR1, NULL, 0), EBADF);
    CHECK_ERR(send(0, SIGUSR1, NULL, 0), EBADF);
    CHECK_ERR(send(self, SIGUSR1, BAD, 0), EFAULT);

    pid_t child = fork();
    if (!child)
        for (;;)
            pause();
    int fd = (int)syscall(SYS_pidfd_open, child, 0);
    struct pollfd entry = {fd, POLLIN, 0};
    CHECK(poll(&entry, 1, 0) == 0);
    info.si_signo = SIGUSR1;
    info.si_code = SI_USER;
    CHECK_ERR(send(fd, SIGUSR1, &info, 0), EPERM);
    CHECK(send(fd, SIGTERM, NULL, 0) == 0);
    CHECK(poll(&entry, 1, 5000) == 1 && entry.revents & POLLIN);
    CHECK(send(fd, SIGTERM, NULL, 0) == 0); /* a zombie takes it */
    CHECK(waitpid(child, &status, 0) == child && WTERMSIG(status) == SIGTERM);
    CHECK_ERR(send(fd, SIGTERM, NULL, 0), ESRCH);
    close(fd);
    close(self);
}

static void newer_futexes(void)
{
    uint32_t word = 1, other = 0;
    struct {
        uint64_t val, uaddr;
        uint32_t flags, reserved;
    } two[2] = {{1, (uintptr_t)&word, 2, 0}, {0, (uintptr_t)&other, 2, 0}};
    struct timespec past = {0, 1};
    errno = 0;
    if (syscall(SYS_futex_wake, &word, 1UL, 1, 2) == -1 && errno == ENOSYS)
        return;
    CHECK(syscall(SYS_futex_wake, &word, 1UL, 1, 2) == 0);
    CHECK_ERR(syscall(SYS_futex_wake, &word, 0UL, 1, 2), EINVAL);
    CHECK_ERR(syscall(SYS_futex_wake, &word, 1UL, 1, 0), EINVAL);
    CHECK_ERR(syscall(SYS_futex_wait, &word, 0UL, 1UL, 2, NULL, CLOCK_MONOTONIC), EAGAIN);
    CHECK_ERR(syscall(SYS_futex_wait, &word, 1UL, 1UL, 2, &past, CLOCK_MONOTONIC), ETIMEDOUT);
    CHECK(syscall(SYS_futex_requeue, two, 0, 1, 1) == 0);
    two[0].val = 7;
    CHECK_ERR(syscall(SYS_futex_requeue, two, 0, 1, 1), EAGAIN);
    CHECK_ERR(syscall(SYS_futex_requeue, two, 1, 1, 1), EINVAL);
}

int main(void)
{
    descriptors();
    newer_futexes();
    return 0;
}
