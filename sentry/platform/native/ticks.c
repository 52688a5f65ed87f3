#define _GNU_SOURCE
#include "ticks.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* The timer has the kernel's number, which timer_create(3) hides. */
int ticks_start(int signal, int64_t interval_ns)
{
    struct sigevent event;
    memset(&event, 0, sizeof event);
    event.sigev_notify = SIGEV_THREAD_ID;
    event.sigev_signo = signal;
    event._sigev_un._tid = (pid_t)syscall(SYS_gettid);
    int timer;
    if (syscall(SYS_timer_create, CLOCK_THREAD_CPUTIME_ID, &event, &timer) < 0)
        return -errno;
    struct timespec each = {interval_ns / 1000000000, interval_ns % 1000000000};
    struct itimerspec when = {each, each};
    if (syscall(SYS_timer_settime, timer, 0, &when, NULL) < 0) {
        int error = errno;
        ticks_stop(timer);
        return -error;
    }
    return timer;
}

void ticks_stop(int timer)
{
    syscall(SYS_timer_delete, timer);
}

static volatile int64_t left;
static int log_fd;
static void (*next)(int);

int64_t *ticks_left(void)
{
    return (int64_t *)&left;
}

static void count(int signal)
{
    static const char why[] =
        "policy: a handler cannot be stopped, so the sandbox ends\n";
    if (left > 0 && --left == 0) {
        ssize_t written = write(log_fd, why, sizeof why - 1);
        (void)written;
        _exit(70); /* EX_SOFTWARE */
    }
    next(signal);
}

void ticks_bound(int signal, int fd)
{
    struct sigaction action;
    if (sigaction(signal, NULL, &action) < 0 || action.sa_handler == count)
        return;
    log_fd = fd;
    next = action.sa_handler;
    action.sa_handler = count;
    sigaction(signal, &action, NULL);
}
