/* fcntl and flock: locks, descriptor flags, owners, the order of checks. */
#define _GNU_SOURCE
#include "abi.h"
#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define BAD ((void *)8)

static struct flock lock(short type, off_t start, off_t len)
{
    return (struct flock){.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = len};
}

static int set(int fd, int cmd, short type, off_t start, off_t len)
{
    struct flock l = lock(type, start, len);
    return fcntl(fd, cmd, &l);
}

/* In a child: what F_GETLK says of a range. */
static int held(int fd, off_t start, off_t len)
{
    int status;
    pid_t pid = fork();
    if (pid == 0) {
        struct flock l = lock(F_WRLCK, start, len);
        if (fcntl(fd, F_GETLK, &l))
            _exit(99);
        if (l.l_type != F_UNLCK && l.l_pid != getppid())
            _exit(98);
        _exit(l.l_type);
    }
    CHECK(waitpid(pid, &status, 0) == pid);
    return WEXITSTATUS(status);
}

static void wrong(int fd)
{
    struct flock l = lock(9, 0, 0);
    CHECK_ERR(fcntl(99, 9999, 0), EBADF);
    CHECK_ERR(fcntl(fd, 9999, 0), EINVAL);
    CHECK_ERR(fcntl(fd, F_DUPFD, -1), EINVAL);
    CHECK_ERR(fcntl(fd, F_DUPFD, 1 << 30), EINVAL);
    CHECK_ERR(fcntl(fd, F_SETLK, BAD), EFAULT);
    CHECK_ERR(fcntl(fd, F_SETLK, &l), EINVAL);
    l = lock(F_RDLCK, -1, 0);
    CHECK_ERR(fcntl(fd, F_SETLK, &l), EINVAL);
    l.l_whence = 7;
    CHECK_ERR(fcntl(fd, F_SETLK, &l), EINVAL);
    CHECK_ERR(fcntl(fd, F_GETPIPE_SZ), EBADF);
    CHECK_ERR(fcntl(fd, F_SETOWN, 999999), ESRCH);
    CHECK_ERR(fcntl(fd, F_SETSIG, 65), EINVAL);
    CHECK_ERR(fcntl(fd, F_ADD_SEALS, 1), EINVAL);
    CHECK_ERR(flock(99, 77), EINVAL);
    CHECK_ERR(flock(99, LOCK_SH), EBADF);
    CHECK_ERR(dup(99), EBADF);
    CHECK_ERR(dup2(99, 5), EBADF);
    CHECK_ERR(dup2(99, 99), EBADF);
    CHECK_ERR(dup2(fd, -1), EBADF);
    CHECK_ERR(dup3(99, 99, 1), EINVAL);
    CHECK_ERR(dup3(99, 99, 0), EINVAL);
    CHECK_ERR(dup3(99, 98, 0), EBADF);
    CHECK_ERR(ioctl(99, 0, 0), EBADF);
    CHECK_ERR(ioctl(fd, 0x1234, 0), ENOTTY);
    CHECK_ERR(ioctl(fd, FIONBIO, BAD), EFAULT);
    CHECK_ERR(ioctl(fd, TIOCGWINSZ, 0), ENOTTY);
}

static void records(int fd)
{
    CHECK(set(fd, F_SETLK, F_WRLCK, 10, 10) == 0);
    CHECK(held(fd, 0, 0) == F_WRLCK && held(fd, 0, 10) == F_UNLCK && held(fd, 19, 1) == F_WRLCK);
    CHECK(set(fd, F_SETLK, F_RDLCK, 12, 2) == 0);
    CHECK(held(fd, 12, 1) == F_RDLCK && held(fd, 11, 1) == F_WRLCK && held(fd, 14, 1) == F_WRLCK);
    CHECK(set(fd, F_SETLK, F_UNLCK, 15, 0) == 0);
    CHECK(held(fd, 15, 0) == F_UNLCK && held(fd, 14, 1) == F_WRLCK);
    /* closing any descriptor of the file drops them all */
    close(dup(fd));
    CHECK(held(fd, 0, 0) == F_UNLCK);
    /* open file description locks do not care */
    int other = open("f", O_RDWR);
    CHECK(set(fd, F_OFD_SETLK, F_WRLCK, 0, 10) == 0);
    CHECK_ERR(set(other, F_OFD_SETLK, F_WRLCK, 5, 10), EAGAIN);
    struct flock l = lock(F_WRLCK, 0, 0);
    CHECK(fcntl(other, F_OFD_GETLK, &l) == 0 && l.l_type == F_WRLCK && l.l_pid == -1);
    CHECK(l.l_start == 0 && l.l_len == 10);
    l.l_pid = 1;
    CHECK_ERR(fcntl(other, F_OFD_SETLK, &l), EINVAL);
    close(dup(fd));
    CHECK_ERR(set(other, F_OFD_SETLK, F_RDLCK, 5, 10), EAGAIN);
    CHECK(set(fd, F_OFD_SETLK, F_UNLCK, 0, 0) == 0);
    close(other);
    int ro = open("f", O_RDONLY);
    CHECK_ERR(set(ro, F_SETLK, F_WRLCK, 0, 1), EBADF);
    close(ro);
}

static void waiting(int fd)
{
    int status, ends[2];
    char c;
    CHECK(pipe(ends) == 0);
    CHECK(set(fd, F_SETLK, F_WRLCK, 0, 1) == 0);
    pid_t pid = fork();
    if (pid == 0) {
        if (set(fd, F_SETLK, F_WRLCK, 1, 1))
            _exit(1);
        write(ends[1], "x", 1);
        /* the parent will wait for byte 1: this wait would close the circle, or is granted */
        int got = set(fd, F_SETLKW, F_WRLCK, 0, 1);
        _exit(got == 0 ? 0 : errno == EDEADLK ? 2 : 3);
    }
    CHECK(read(ends[0], &c, 1) == 1);
    int mine = set(fd, F_SETLKW, F_WRLCK, 1, 1), why = errno;
    if (mine == -1) {
        CHECK(why == EDEADLK);
        CHECK(set(fd, F_SETLK, F_UNLCK, 0, 0) == 0);
    }
    CHECK(waitpid(pid, &status, 0) == pid);
    CHECK((mine == -1) == (WEXITSTATUS(status) == 0));
    CHECK(set(fd, F_SETLK, F_UNLCK, 0, 0) == 0);
}

static void on_alarm(int signo) { (void)signo; }

static void flocks(int fd)
{
    int other = open("f", O_RDONLY), again = dup(fd);
    CHECK(flock(fd, LOCK_EX) == 0);
    CHECK(flock(again, LOCK_EX | LOCK_NB) == 0);
    CHECK_ERR(flock(other, LOCK_SH | LOCK_NB), EAGAIN);
    CHECK(flock(again, LOCK_SH) == 0);
    CHECK(flock(other, LOCK_SH | LOCK_NB) == 0);
    CHECK_ERR(flock(fd, LOCK_EX | LOCK_NB), EAGAIN);
    CHECK(flock(other, LOCK_EX | LOCK_NB) == 0); /* the failed conversion lost the lock */
    struct sigaction sa = {.sa_handler = on_alarm};
    sigaction(SIGALRM, &sa, 0);
    struct timeval;
    alarm(1);
    CHECK_ERR(flock(fd, LOCK_SH), EINTR);
    close(other);
    CHECK(flock(fd, LOCK_EX | LOCK_NB) == 0);
    close(fd);
    int fresh = open("f", O_RDWR);
    CHECK_ERR(flock(fresh, LOCK_EX | LOCK_NB), EAGAIN); /* `again` still holds it */
    close(again);
    CHECK(flock(fresh, LOCK_EX | LOCK_NB) == 0);
    close(fresh);
}

static void flags(void)
{
    int fd = open("f", O_RDWR), on = 1, n;
    CHECK(fcntl(fd, F_SETFD, 1) == 0 && fcntl(fd, F_GETFD) == 1);
    CHECK(ioctl(fd, FIONCLEX) == 0 && fcntl(fd, F_GETFD) == 0);
    CHECK(ioctl(fd, FIOCLEX) == 0 && fcntl(fd, F_GETFD) == 1);
    int copy = dup(fd);
    CHECK(fcntl(copy, F_GETFD) == 0);
    CHECK(fcntl(copy, F_SETFL, O_APPEND | O_NONBLOCK | O_CREAT | O_WRONLY) == 0);
    CHECK(fcntl(fd, F_GETFL) == (O_RDWR | O_APPEND | O_NONBLOCK | 0100000));
    on = 0;
    CHECK(ioctl(fd, FIONBIO, &on) == 0 && fcntl(fd, F_GETFL) == (O_RDWR | O_APPEND | 0100000));
    CHECK(write(fd, "12345", 5) == 5 && lseek(fd, 2, SEEK_SET) == 2);
    CHECK(ioctl(fd, FIONREAD, &n) == 0 && n == 3);
    CHECK(dup2(fd, 50) == 50 && fcntl(50, F_GETFD) == 0);
    CHECK(dup3(fd, 50, O_CLOEXEC) == 50 && fcntl(50, F_GETFD) == 1);
    CHECK(dup2(fd, fd) == fd);
    CHECK(fcntl(fd, F_SETOWN, getpid()) == 0 && fcntl(fd, F_GETOWN) == getpid());
    CHECK(fcntl(fd, F_SETSIG, SIGUSR1) == 0 && fcntl(fd, F_GETSIG) == SIGUSR1);
    struct f_owner_ex ex = {F_OWNER_TID, gettid()}, got;
    CHECK(fcntl(fd, F_SETOWN_EX, &ex) == 0 && fcntl(fd, F_GETOWN_EX, &got) == 0);
    CHECK(got.type == F_OWNER_TID && got.pid == gettid());
}

int main(void)
{
    int fd = open("f", O_CREAT | O_RDWR, 0644);
    wrong(fd);
    records(fd);
    waiting(fd);
    flocks(fd);
    flags();
    return 0;
}
