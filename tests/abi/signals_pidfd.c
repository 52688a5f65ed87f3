/* Signals through a descriptor: pidfd_send_signal(2); futex2 calls of Linux 6.7 where there. */
#define _GNU_SOURCE
#include "abi.h"
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
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

static long send_signal(int fd, int signo, siginfo_t *info, int flags)
{
    return syscall(SYS_pidfd_send_signal, fd, signo, info, flags);
}

static void descriptors(void)
{
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO};
    sigaction(SIGUSR1, &action, NULL);
    int self = (int)syscall(SYS_pidfd_open, getpid(), 0), status;
    CHECK(self >= 0);
    CHECK(send_signal(self, 0, NULL, 0) == 0);
    CHECK(send_signal(self, SIGUSR1, NULL, 0) == 0 && calls == 1);
    CHECK(last.si_code == SI_USER && last.si_pid == getpid());
    siginfo_t info = {0};
    info.si_signo = SIGUSR1;
    info.si_code = SI_QUEUE;
    info.si_value.sival_int = 5;
    CHECK(send_signal(self, SIGUSR1, &info, 0) == 0 && calls == 2);
    CHECK(last.si_code == SI_QUEUE && last.si_value.sival_int == 5);
    info.si_signo = SIGUSR2;
    CHECK_ERR(send_signal(self, SIGUSR1, &info, 0), EINVAL);
    CHECK_ERR(send_signal(self, SIGUSR1, NULL, 1 << 20), EINVAL);
    CHECK_ERR(send_signal(self, 99, NULL, 0), EINVAL);
    CHECK_ERR(send_signal(999, SIGUSR1, NULL, 0), EBADF);
    CHECK_ERR(send_signal(0, SIGUSR1, NULL, 0), EBADF);
    CHECK_ERR(send_signal(self, SIGUSR1, BAD, 0), EFAULT);

    pid_t child = fork();
    if (!child)
        for (;;)
            pause();
    int fd = (int)syscall(SYS_pidfd_open, child, 0);
    struct pollfd entry = {fd, POLLIN, 0};
    CHECK(poll(&entry, 1, 0) == 0);
    info.si_signo = SIGUSR1;
    info.si_code = SI_USER;
    CHECK_ERR(send_signal(fd, SIGUSR1, &info, 0), EPERM);
    CHECK(send_signal(fd, SIGTERM, NULL, 0) == 0);
    CHECK(poll(&entry, 1, 5000) == 1 && entry.revents & POLLIN);
    CHECK(send_signal(fd, SIGTERM, NULL, 0) == 0); /* a zombie takes it */
    CHECK(waitpid(child, &status, 0) == child && WTERMSIG(status) == SIGTERM);
    CHECK_ERR(send_signal(fd, SIGTERM, NULL, 0), ESRCH);
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

/* What a pidfd is by its inode: one for each process, however it was opened. */
static void same_process_same_inode(void)
{
    struct stat self, again, received, other, thread;
    struct statfs fs;
    int fd = (int)syscall(SYS_pidfd_open, getpid(), 0), one = 1, pair[2];
    CHECK(fstatfs(fd, &fs) == 0);
    if (fs.f_type != 0x50494446) /* before Linux 6.9 all had the same */
        return;
    CHECK(fstat(fd, &self) == 0);
    CHECK(fstat((int)syscall(SYS_pidfd_open, getpid(), 0), &again) == 0);
    CHECK(fstat((int)syscall(SYS_pidfd_open, getpid(), O_EXCL), &thread) == 0); /* PIDFD_THREAD */
    CHECK(self.st_ino == again.st_ino && self.st_ino == thread.st_ino);
    pid_t child = fork();
    if (!child) {
        pause();
        _exit(0);
    }
    CHECK(fstat((int)syscall(SYS_pidfd_open, child, 0), &other) == 0);
    CHECK(other.st_ino != self.st_ino);
    kill(child, SIGKILL);
    CHECK(waitpid(child, NULL, 0) == child);
    CHECK(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair) == 0);
    CHECK(setsockopt(pair[1], SOL_SOCKET, 76, &one, sizeof one) == 0); /* SO_PASSPIDFD */
    CHECK(write(pair[0], "x", 1) == 1);
    char byte, room[CMSG_SPACE(sizeof(int)) + 64];
    struct iovec data = {&byte, 1};
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = room,
                             .msg_controllen = sizeof room};
    CHECK(recvmsg(pair[1], &message, 0) == 1);
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    CHECK(head != NULL && head->cmsg_type == 4); /* SCM_PIDFD */
    CHECK(fstat(*(int *)CMSG_DATA(head), &received) == 0 && received.st_ino == self.st_ino);
}

int main(void)
{
    descriptors();
    same_process_same_inode();
    newer_futexes();
    return 0;
}
