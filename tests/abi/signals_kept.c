/* Signals that a program has asked for, of files and of CPU time. Between asking and hearing lie
 * many calls: tests/e2e/test_snapshots.py stops it at one of those. */
#define _GNU_SOURCE
#include "abi.h"
#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <pthread.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MS 1000000LL
enum { DATA = 34, NAME, OF_PROCESS, OF_THREAD, OF_OTHER, OF_GONE };

static siginfo_t last[65];
static volatile int calls[65];

static void handler(int signo, siginfo_t *info, void *context)
{
    (void)context;
    last[signo] = *info;
    calls[signo]++;
}

static long long clock_ns(clockid_t clock)
{
    struct timespec t;
    CHECK(clock_gettime(clock, &t) == 0);
    return t.tv_sec * 1000 * MS + t.tv_nsec;
}

static void burn(long long ns)
{
    long long until = clock_ns(CLOCK_THREAD_CPUTIME_ID) + ns;
    while (clock_ns(CLOCK_THREAD_CPUTIME_ID) < until)
        ;
}

static timer_t timer(clockid_t clock, int signo, long long ns)
{
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = signo};
    struct itimerspec at = {.it_value = {0, ns}};
    timer_t made;
    event.sigev_value.sival_int = signo;
    CHECK(timer_create(clock, &event, &made) == 0 && timer_settime(made, 0, &at, NULL) == 0);
    return made;
}

static void watch(int fd, int signo)
{
    struct f_owner_ex owner = {F_OWNER_PID, getpid()};
    CHECK(fcntl(fd, F_SETOWN_EX, &owner) == 0 && fcntl(fd, F_SETSIG, signo) == 0);
}

static void *idle(void *fd)
{
    char byte;
    return (void *)read(*(int *)fd, &byte, 1);
}

int main(void)
{
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_RESTART};
    for (int signo = DATA; signo <= OF_GONE; signo++)
        CHECK(sigaction(signo, &action, NULL) == 0);
    CHECK(sigaction(SIGVTALRM, &action, NULL) == 0 && sigaction(SIGPROF, &action, NULL) == 0);

    int pair[2], directory, wait[2], on = 1;
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0 && pipe(wait) == 0);
    watch(pair[0], DATA);
    CHECK(ioctl(pair[0], FIOASYNC, &on) == 0);
    directory = open(".", O_RDONLY | O_DIRECTORY);
    watch(directory, NAME);
    CHECK(fcntl(directory, F_NOTIFY, DN_CREATE | DN_MULTISHOT) == 0);

    /* a process that sleeps for 50 ms of this one's time and then works until it is told that its
     * own has been heard of (a timer is looked at in ticks, of which a busy machine loses some),
     * and one that is gone */
    clockid_t mine, theirs, ended;
    int heard[2];
    CHECK(clock_getcpuclockid(getpid(), &mine) == 0 && pipe2(heard, O_NONBLOCK) == 0);
    pid_t child = fork();
    if (!child) {
        struct timespec time = {0, 50 * MS};
        char byte;
        int error = clock_nanosleep(mine, 0, &time, NULL);
        do
            burn(15 * MS);
        while (read(heard[0], &byte, 1) != 1);
        _exit(error);
    }
    pid_t gone = fork();
    if (!gone)
        _exit(0);
    CHECK(clock_getcpuclockid(child, &theirs) == 0 && clock_getcpuclockid(gone, &ended) == 0);
    timer(theirs, OF_OTHER, 10 * MS);
    timer_t of_gone = timer(ended, OF_GONE, 999 * MS);
    CHECK(waitpid(gone, NULL, 0) == gone);
    /* a process that waits for a signal of its own, by a descriptor in a set */
    int begun[2];
    char byte;
    CHECK(pipe(begun) == 0);
    pid_t waiter = fork();
    if (!waiter) {
        sigset_t mask;
        sigemptyset(&mask);
        sigaddset(&mask, SIGURG);
        CHECK(sigprocmask(SIG_BLOCK, &mask, NULL) == 0);
        int fd = signalfd(-1, &mask, 0), set = epoll_create1(0);
        struct epoll_event event = {.events = EPOLLIN};
        struct signalfd_siginfo info;
        CHECK(epoll_ctl(set, EPOLL_CTL_ADD, fd, &event) == 0 && write(begun[1], "x", 1) == 1);
        alarm(60);
        CHECK(epoll_wait(set, &event, 1, -1) == 1);
        CHECK(read(fd, &info, sizeof info) == sizeof info && info.ssi_signo == SIGURG);
        _exit(0);
    }
    CHECK(read(begun[0], &byte, 1) == 1);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, idle, &wait[0]) == 0);

    struct itimerval user = {{0, 30000}, {0, 30000}}, both = {{0, 0}, {0, 40000}};
    CHECK(setitimer(ITIMER_VIRTUAL, &user, NULL) == 0 && setitimer(ITIMER_PROF, &both, NULL) == 0);
    timer(CLOCK_PROCESS_CPUTIME_ID, OF_PROCESS, 60 * MS);
    timer(CLOCK_THREAD_CPUTIME_ID, OF_THREAD, 70 * MS);
    burn(5 * MS);
    long long process_ns = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
    long long thread_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID);
    CHECK(thread_ns >= 5 * MS && !calls[DATA] && !calls[NAME] && !calls[OF_THREAD]);

    for (int i = 0; i < 400; i++)
        CHECK(syscall(SYS_getpgid, 0) > 0);

    CHECK(clock_ns(CLOCK_PROCESS_CPUTIME_ID) >= process_ns);
    CHECK(clock_ns(CLOCK_THREAD_CPUTIME_ID) >= thread_ns);
    CHECK(fcntl(pair[0], F_GETFL) & O_ASYNC);
    CHECK(write(pair[1], "x", 1) == 1 && calls[DATA] == 1);
    CHECK(last[DATA].si_fd == pair[0] && last[DATA].si_band & POLLIN);
    for (int i = 1; i < 3; i++) {
        CHECK(close(open("new", O_CREAT | O_WRONLY, 0600)) == 0 && calls[NAME] == i);
        CHECK(last[NAME].si_fd == directory && unlink("new") == 0);
    }
    int off = 0;
    CHECK(ioctl(pair[0], FIOASYNC, &off) == 0 && write(pair[1], "x", 1) == 1 && calls[DATA] == 1);
    for (int i = 0; i < 1000 && !(calls[OF_PROCESS] && calls[OF_THREAD] && calls[OF_OTHER] &&
                                  calls[SIGPROF] && calls[SIGVTALRM] >= 2); i++)
        burn(5 * MS);
    CHECK(write(heard[1], "x", 1) == 1);
    CHECK(calls[OF_PROCESS] == 1 && calls[OF_THREAD] == 1 && calls[SIGPROF] == 1);
    CHECK(last[OF_THREAD].si_code == SI_TIMER && last[OF_THREAD].si_value.sival_int == OF_THREAD);
    struct itimerval now;
    CHECK(getitimer(ITIMER_VIRTUAL, &now) == 0 && now.it_interval.tv_usec == 30000);

    int status;
    CHECK(kill(waiter, SIGURG) == 0 && waitpid(waiter, &status, 0) == waiter && status == 0);
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    CHECK(calls[OF_OTHER] == 1 && !calls[OF_GONE]);
    struct itimerspec left, again = {.it_value = {1, 0}};
    CHECK(timer_gettime(of_gone, &left) == 0 && !left.it_value.tv_sec && !left.it_value.tv_nsec);
    CHECK_ERR(timer_settime(of_gone, 0, &again, NULL), ESRCH);
    CHECK(close(wait[1]) == 0 && pthread_join(thread, NULL) == 0);
    return 0;
}
