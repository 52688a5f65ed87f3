/* getrlimit(2), prlimit(2), getrusage(2). */
#define _GNU_SOURCE
#include "abi.h"
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#define BAD ((void *)8)

static void soft_moves_below_hard(void)
{
    struct rlimit limit, now;
    CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur <= limit.rlim_max);
    now = limit;
    now.rlim_cur = 50;
    CHECK(setrlimit(RLIMIT_NOFILE, &now) == 0);
    CHECK(getrlimit(RLIMIT_NOFILE, &now) == 0 && now.rlim_cur == 50);
    CHECK_ERR(dup2(0, 50), EBADF);
    CHECK(dup2(0, 49) == 49 && close(49) == 0);
    int last, first = dup(0);
    for (last = first; (last = dup(0)) >= 0;)
        ;
    CHECK(errno == 0 || errno == EMFILE);
    CHECK_ERR(dup(0), EMFILE);
    CHECK(fcntl(49, F_GETFD) == 0);
    for (int fd = first; fd < 50; fd++)
        close(fd);
    now.rlim_cur = now.rlim_max;
    CHECK(setrlimit(RLIMIT_NOFILE, &now) == 0);
    CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
}

static void errors(void)
{
    struct rlimit limit;
    CHECK(getrlimit(RLIMIT_CORE, &limit) == 0);
    CHECK_ERR(getrlimit(RLIM_NLIMITS, &limit), EINVAL);
    CHECK_ERR(setrlimit(RLIM_NLIMITS, &limit), EINVAL);
    CHECK_ERR(syscall(SYS_getrlimit, RLIMIT_CORE, BAD), EFAULT);
    CHECK_ERR(syscall(SYS_getrlimit, RLIM_NLIMITS, BAD), EINVAL);
    CHECK_ERR(syscall(SYS_setrlimit, RLIM_NLIMITS, BAD), EFAULT);
    CHECK_ERR(syscall(SYS_prlimit64, 0, RLIMIT_CORE, BAD, NULL), EFAULT);
    CHECK_ERR(syscall(SYS_prlimit64, 999999, RLIM_NLIMITS, NULL, NULL), ESRCH);
    CHECK_ERR(syscall(SYS_prlimit64, 999999, RLIM_NLIMITS, BAD, NULL), EFAULT);
    limit.rlim_cur = 2;
    limit.rlim_max = 1;
    CHECK_ERR(setrlimit(RLIMIT_CORE, &limit), EINVAL);
    limit.rlim_cur = 1;
    limit.rlim_max = 1 << 21;
    CHECK_ERR(setrlimit(RLIMIT_NOFILE, &limit), EPERM);
}

static void children_inherit(void)
{
    struct rlimit limit, old;
    CHECK(prlimit(0, RLIMIT_CPU, NULL, &old) == 0);
    limit = old;
    limit.rlim_cur = 1000;
    CHECK(prlimit(0, RLIMIT_CPU, &limit, NULL) == 0);
    pid_t child = fork();
    if (child == 0) {
        CHECK(getrlimit(RLIMIT_CPU, &limit) == 0 && limit.rlim_cur == 1000);
        limit.rlim_cur = limit.rlim_max = 2000;
        CHECK(setrlimit(RLIMIT_CPU, &limit) == 0);
        CHECK(setuid(1234) == 0);
        limit.rlim_max = 2001;
        CHECK_ERR(setrlimit(RLIMIT_CPU, &limit), EPERM);
        CHECK_ERR(prlimit(getppid(), RLIMIT_CPU, NULL, &limit), EPERM);
        CHECK(prlimit(getpid(), RLIMIT_CPU, NULL, &limit) == 0 && limit.rlim_cur == 2000);
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    CHECK(prlimit(0, RLIMIT_CPU, &old, &limit) == 0 && limit.rlim_cur == 1000);
}

static void file_size(void)
{
    struct rlimit limit = {10, RLIM_INFINITY}, old;
    CHECK(getrlimit(RLIMIT_FSIZE, &old) == 0);
    limit.rlim_max = old.rlim_max;
    pid_t child = fork();
    if (child == 0) {
        int fd = open("limited", O_CREAT | O_WRONLY | O_TRUNC, 0600);
        CHECK(fd >= 0 && setrlimit(RLIMIT_FSIZE, &limit) == 0);
        CHECK(write(fd, "0123456789abc", 13) == 10);
        write(fd, "x", 1);
        _exit(1);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == 25 /* SIGXFSZ */);
    unlink("limited");
}

static void usage(void)
{
    struct rusage before, after;
    CHECK(getrusage(RUSAGE_SELF, &before) == 0);
    CHECK(before.ru_maxrss > 0);
    do
        for (volatile int i = 0; i < 1000000; i++)
            ;
    while (getrusage(RUSAGE_SELF, &after) == 0 &&
           after.ru_utime.tv_sec * 1000000 + after.ru_utime.tv_usec <
               before.ru_utime.tv_sec * 1000000 + before.ru_utime.tv_usec + 30000);
    CHECK(getrusage(RUSAGE_THREAD, &after) == 0);
    pid_t child = fork();
    if (child == 0) {
        do
            getrusage(RUSAGE_SELF, &after);
        while (after.ru_utime.tv_sec * 1000000 + after.ru_utime.tv_usec < 20000);
        _exit(0);
    }
    CHECK(waitpid(child, NULL, 0) == child);
    CHECK(getrusage(RUSAGE_CHILDREN, &after) == 0);
    CHECK(after.ru_utime.tv_sec * 1000000 + after.ru_utime.tv_usec >= 20000);
    CHECK_ERR(getrusage(2, &after), EINVAL);
    CHECK_ERR(getrusage(-2, &after), EINVAL);
    CHECK_ERR(syscall(SYS_getrusage, RUSAGE_SELF, BAD), EFAULT);
}

int main(void)
{
    soft_moves_below_hard();
    errors();
    children_inherit();
    file_size();
    usage();
    return 0;
}
