/* What a handler does to a call that sleeps: EINTR, SA_RESTART, temporary masks. signal(7). */
#define _GNU_SOURCE
#include "abi.h"
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static volatile int calls;
static int pipe_fds[2];
static volatile int feed;

static void handler(int signo)
{
    (void)signo;
    calls++;
    if (feed && write(pipe_fds[1], "x", 1) != 1)
        _exit(9);
}

static void install(int flags)
{
    struct sigaction action = {.sa_handler = handler, .sa_flags = flags};
    CHECK(sigaction(SIGALRM, &action, NULL) == 0);
    calls = 0;
}

static pid_t sleeper;

static void *wake(void *none)
{
    char name[64], stat[512], *state;
    snprintf(name, sizeof name, "/proc/self/task/%d/stat", sleeper);
    do {
        int fd = open(name, O_RDONLY);
        ssize_t n = read(fd, stat, sizeof stat - 1);
        CHECK(fd >= 0 && n > 0);
        stat[n] = 0;
        close(fd);
        state = strrchr(stat, ')') + 2;
        usleep(1000);
    } while (*state != 'S');
    CHECK(syscall(SYS_tgkill, getpid(), sleeper, SIGALRM) == 0);
    return none;
}

/* SIGALRM for this thread, as soon as it sleeps. */
static void alarm_in_sleep(void)
{
    static pthread_t thread;
    sigset_t all, before;
    if (thread)
        CHECK(pthread_join(thread, NULL) == 0);
    sleeper = gettid();
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    CHECK(pthread_create(&thread, NULL, wake, NULL) == 0);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static long ms_since(struct timespec *start)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (now.tv_sec - start->tv_sec) * 1000 + (now.tv_nsec - start->tv_nsec) / 1000000;
}

static void reads(void)
{
    char c;
    install(0);
    alarm_in_sleep();
    CHECK_ERR(read(pipe_fds[0], &c, 1), EINTR);
    CHECK(calls == 1);
    install(SA_RESTART);
    feed = 1;
    alarm_in_sleep();
    CHECK(read(pipe_fds[0], &c, 1) == 1 && c == 'x' && calls == 1);
    feed = 0;
}

static void never_restarted(void)
{
    struct pollfd entry = {pipe_fds[0], POLLIN, 0};
    install(SA_RESTART);
    alarm_in_sleep();
    CHECK_ERR(poll(&entry, 1, 5000), EINTR);
    alarm_in_sleep();
    CHECK_ERR(pause(), EINTR);
    int epoll = epoll_create1(0);
    struct epoll_event event;
    alarm_in_sleep();
    CHECK_ERR(epoll_wait(epoll, &event, 1, 5000), EINTR);
    close(epoll);
    struct timeval wait = {5, 0};
    alarm_in_sleep();
    CHECK_ERR(select(0, NULL, NULL, NULL, &wait), EINTR);
    struct timespec sleep = {5, 0}, left = {0, 0};
    alarm_in_sleep();
    CHECK_ERR(nanosleep(&sleep, &left), EINTR);
    CHECK(left.tv_sec < 5 && (left.tv_sec || left.tv_nsec));
    alarm_in_sleep();
    CHECK(clock_nanosleep(CLOCK_MONOTONIC, 0, &sleep, &left) == EINTR && left.tv_sec < 5);
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += 5;
    alarm_in_sleep();
    CHECK(clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR);
    CHECK(calls == 7);
}

static void waiting_for_children(void)
{
    int status;
    pid_t child = fork();
    if (!child) {
        char c;
        _exit(read(pipe_fds[0], &c, 1) == 1 ? 5 : 1);
    }
    install(0);
    alarm_in_sleep();
    CHECK_ERR(waitpid(child, &status, 0), EINTR);
    install(SA_RESTART);
    feed = 1;
    alarm_in_sleep();
    CHECK(waitpid(child, &status, 0) == child && WEXITSTATUS(status) == 5 && calls == 1);
    feed = 0;
}

static void ignored_signals_do_not_interrupt(void)
{
    struct timespec start, sleep = {0, 60000000};
    signal(SIGALRM, SIG_IGN);
    clock_gettime(CLOCK_MONOTONIC, &start);
    struct itimerval timer = {{0, 0}, {0, 10000}};
    CHECK(setitimer(ITIMER_REAL, &timer, NULL) == 0);
    CHECK(nanosleep(&sleep, NULL) == 0);
    CHECK(ms_since(&start) >= 60);
    /* a stop and a continuation do not either: the sleep goes on to its end */
    pid_t child = fork();
    if (!child) {
        struct timespec long_sleep = {0, 150000000};
        struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGSTOP};
        struct itimerspec soon = {{0, 0}, {0, 30000000}};
        timer_t stops;
        clock_gettime(CLOCK_MONOTONIC, &start);
        if (timer_create(CLOCK_MONOTONIC, &event, &stops) || timer_settime(stops, 0, &soon, NULL))
            _exit(3);
        if (nanosleep(&long_sleep, NULL) != 0)
            _exit(1);
        _exit(ms_since(&start) >= 150 ? 0 : 2);
    }
    int status;
    CHECK(waitpid(child, &status, WUNTRACED) == child && WIFSTOPPED(status));
    usleep(30000);
    kill(child, SIGCONT);
    CHECK(waitpid(child, &status, 0) == child && status == 0);
}

static void temporary_masks(void)
{
    sigset_t block, none, now;
    sigemptyset(&none);
    sigemptyset(&block);
    sigaddset(&block, SIGALRM);
    install(0);
    sigprocmask(SIG_BLOCK, &block, NULL);
    raise(SIGALRM);
    CHECK(calls == 0);
    CHECK_ERR(sigsuspend(&none), EINTR);
    CHECK(calls == 1);
    sigprocmask(SIG_SETMASK, NULL, &now);
    CHECK(sigismember(&now, SIGALRM));

    struct timespec wait = {5, 0}, zero = {0, 0};
    raise(SIGALRM);
    CHECK_ERR(ppoll(NULL, 0, &wait, &none), EINTR);
    CHECK(calls == 2);
    sigprocmask(SIG_SETMASK, NULL, &now);
    CHECK(sigismember(&now, SIGALRM));
    CHECK(ppoll(NULL, 0, &zero, &none) == 0);
    sigprocmask(SIG_SETMASK, NULL, &now);
    CHECK(sigismember(&now, SIGALRM));
    raise(SIGALRM);
    CHECK_ERR(pselect(0, NULL, NULL, NULL, &wait, &none), EINTR);
    int epoll = epoll_create1(0);
    struct epoll_event event;
    raise(SIGALRM);
    CHECK_ERR(epoll_pwait(epoll, &event, 1, 5000, &none), EINTR);
    CHECK(calls == 4);
    alarm_in_sleep();
    CHECK_ERR(epoll_pwait(epoll, &event, 1, 5000, &none), EINTR);
    CHECK(calls == 5);
    sigprocmask(SIG_SETMASK, NULL, &now);
    CHECK(sigismember(&now, SIGALRM));
    close(epoll);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

int main(void)
{
    CHECK(pipe(pipe_fds) == 0);
    reads();
    never_restarted();
    waiting_for_children();
    ignored_signals_do_not_interrupt();
    temporary_masks();
    return 0;
}
