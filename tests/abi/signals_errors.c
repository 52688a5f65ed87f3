/* What the signal calls refuse, in Linux's order. */
#define _GNU_SOURCE
#include "abi.h"
#include <fcntl.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define BAD ((void *)8)

int main(void)
{
    unsigned long set = 0, action[4] = {0};
    CHECK_ERR(syscall(SYS_rt_sigaction, SIGUSR1, BAD, NULL, 4), EINVAL);
    CHECK_ERR(syscall(SYS_rt_sigaction, 999, BAD, NULL, 8), EFAULT);
    CHECK_ERR(syscall(SYS_rt_sigaction, 999, action, NULL, 8), EINVAL);
    CHECK_ERR(syscall(SYS_rt_sigaction, 0, NULL, NULL, 8), EINVAL);
    CHECK_ERR(syscall(SYS_rt_sigaction, SIGKILL, action, NULL, 8), EINVAL);
    CHECK_ERR(syscall(SYS_rt_sigaction, SIGSTOP, action, NULL, 8), EINVAL);
    CHECK(syscall(SYS_rt_sigaction, SIGKILL, NULL, action, 8) == 0);
    CHECK_ERR(syscall(SYS_rt_sigaction, SIGUSR1, NULL, BAD, 8), EFAULT);

    CHECK_ERR(syscall(SYS_rt_sigprocmask, 77, BAD, NULL, 4), EINVAL);
    CHECK_ERR(syscall(SYS_rt_sigprocmask, 77, BAD, NULL, 8), EFAULT);
    CHECK_ERR(syscall(SYS_rt_sigprocmask, 77, &set, NULL, 8), EINVAL);
    CHECK(syscall(SYS_rt_sigprocmask, 77, NULL, &set, 8) == 0);
    CHECK_ERR(syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, BAD, 8), EFAULT);

    CHECK_ERR(syscall(SYS_rt_sigpending, &set, 16), EINVAL);
    CHECK(syscall(SYS_rt_sigpending, &set, 4) == 0);
    CHECK_ERR(syscall(SYS_rt_sigpending, BAD, 8), EFAULT);
    CHECK_ERR(syscall(SYS_rt_sigsuspend, BAD, 4), EINVAL);
    CHECK_ERR(syscall(SYS_rt_sigsuspend, BAD, 8), EFAULT);
    struct timespec bad_time = {0, 1000000000}, no_time = {0, 0};
    CHECK_ERR(syscall(SYS_rt_sigtimedwait, BAD, BAD, BAD, 4), EINVAL);
    CHECK_ERR(syscall(SYS_rt_sigtimedwait, BAD, BAD, BAD, 8), EFAULT);
    CHECK_ERR(syscall(SYS_rt_sigtimedwait, &set, NULL, BAD, 8), EFAULT);
    CHECK_ERR(syscall(SYS_rt_sigtimedwait, &set, NULL, &bad_time, 8), EINVAL);
    CHECK_ERR(syscall(SYS_rt_sigtimedwait, &set, NULL, &no_time, 8), EAGAIN);

    CHECK_ERR(kill(99999999, 0), ESRCH);
    CHECK_ERR(kill(99999999, 999), ESRCH);
    CHECK_ERR(kill(getpid(), 65), EINVAL);
    CHECK_ERR(kill(getpid(), -1), EINVAL);
    CHECK_ERR(kill(-99999999, SIGTERM), ESRCH);
    CHECK_ERR(kill(-2147483648, SIGTERM), ESRCH);
    CHECK(kill(getpid(), 0) == 0);
    CHECK_ERR(syscall(SYS_tkill, 0, 0), EINVAL);
    CHECK_ERR(syscall(SYS_tkill, 99999999, 0), ESRCH);
    CHECK_ERR(syscall(SYS_tkill, getpid(), 65), EINVAL);
    CHECK_ERR(syscall(SYS_tgkill, 0, getpid(), 0), EINVAL);
    CHECK_ERR(syscall(SYS_tgkill, 1 + getpid(), getpid(), 0), ESRCH);

    siginfo_t info = {0};
    info.si_code = SI_USER;
    CHECK_ERR(syscall(SYS_rt_sigqueueinfo, getppid(), SIGUSR1, BAD), EFAULT);
    CHECK_ERR(syscall(SYS_rt_sigqueueinfo, getppid(), SIGUSR1, &info), EPERM);
    info.si_code = SI_TKILL;
    CHECK_ERR(syscall(SYS_rt_sigqueueinfo, getppid(), SIGUSR1, &info), EPERM);
    info.si_code = SI_QUEUE;
    CHECK_ERR(syscall(SYS_rt_sigqueueinfo, 99999999, SIGUSR1, &info), ESRCH);
    CHECK_ERR(syscall(SYS_rt_sigqueueinfo, getpid(), 65, &info), EINVAL);
    CHECK_ERR(syscall(SYS_rt_tgsigqueueinfo, 0, getpid(), SIGUSR1, BAD), EFAULT);
    CHECK_ERR(syscall(SYS_rt_tgsigqueueinfo, 0, getpid(), SIGUSR1, &info), EINVAL);

    static char stack[8192];
    stack_t alt = {.ss_sp = stack, .ss_size = 1024};
    CHECK_ERR(sigaltstack(&alt, NULL), ENOMEM);
    alt.ss_flags = 4;
    CHECK_ERR(sigaltstack(&alt, NULL), EINVAL);
    CHECK_ERR(syscall(SYS_sigaltstack, BAD, NULL), EFAULT);
    CHECK_ERR(syscall(SYS_sigaltstack, NULL, BAD), EFAULT);

    CHECK_ERR(syscall(SYS_signalfd4, -1, BAD, 4, 0), EINVAL);
    CHECK_ERR(syscall(SYS_signalfd4, 999, BAD, 8, 77), EFAULT);
    CHECK_ERR(syscall(SYS_signalfd4, 999, &set, 8, 77), EINVAL);
    CHECK_ERR(syscall(SYS_signalfd4, 999, &set, 8, 0), EBADF);
    CHECK_ERR(syscall(SYS_signalfd4, 0, &set, 8, 0), EINVAL);
    CHECK_ERR(syscall(SYS_restart_syscall), EINTR);

    /* another user's process */
    pid_t child = fork();
    if (!child) {
        if (setresgid(1, 1, 1) || setresuid(1, 1, 1))
            _exit(2);
        errno = 0;
        if (kill(getppid(), 0) != -1 || errno != EPERM)
            _exit(3);
        errno = 0;
        if (kill(getppid(), SIGTERM) != -1 || errno != EPERM)
            _exit(4);
        /* SIGCONT may go to any process of the session */
        if (kill(getppid(), SIGCONT) != 0)
            _exit(5);
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(status == 0);
    return 0;
}
