/* Taking signals without a handler: sigtimedwait(2), signalfd(2). */
#define _GNU_SOURCE
#include "abi.h"
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static sigset_t set;
static volatile int handled;

static void handler(int signo)
{
    handled = signo;
}

static void waiting(void)
{
    siginfo_t info;
    struct timespec short_time = {0, 20000000}, long_time = {5, 0};
    CHECK_ERR(sigtimedwait(&set, &info, &short_time), EAGAIN);
    sigqueue(getpid(), SIGRTMIN, (union sigval){.sival_int = 7});
    kill(getpid(), SIGUSR1);
    CHECK(sigwaitinfo(&set, &info) == SIGUSR1 && info.si_code == SI_USER);
    CHECK(sigwaitinfo(&set, &info) == SIGRTMIN && info.si_value.sival_int == 7);
    pid_t child = fork();
    if (!child) {
        usleep(20000);
        kill(getppid(), SIGUSR2);
        _exit(3);
    }
    CHECK(sigtimedwait(&set, &info, &long_time) == SIGUSR2 && info.si_pid == child);
    CHECK(sigtimedwait(&set, &info, &long_time) == SIGCHLD && info.si_pid == child);
    CHECK(info.si_code == CLD_EXITED && info.si_status == 3);
    CHECK(waitpid(child, NULL, 0) == child);
    /* another signal with a handler ends it, whatever SA_RESTART says */
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART};
    sigaction(SIGALRM, &action, NULL);
    struct itimerval timer = {{0, 20000}, {0, 20000}}, off = {{0, 0}, {0, 0}};
    setitimer(ITIMER_REAL, &timer, NULL);
    CHECK_ERR(sigtimedwait(&set, &info, &long_time), EINTR);
    setitimer(ITIMER_REAL, &off, NULL);
    CHECK(handled == SIGALRM);
}

static void *sender(void *target)
{
    usleep(20000);
    pthread_kill(*(pthread_t *)target, SIGUSR1);
    return NULL;
}

static void between_threads(void)
{
    pthread_t self = pthread_self(), thread;
    siginfo_t info;
    CHECK(pthread_create(&thread, NULL, sender, &self) == 0);
    CHECK(sigwaitinfo(&set, &info) == SIGUSR1 && info.si_pid == getpid());
    pthread_join(thread, NULL);
}

static void descriptors(void)
{
    struct signalfd_siginfo got[3];
    int fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    CHECK(fd >= 0);
    struct pollfd entry = {fd, POLLIN, 0};
    CHECK(poll(&entry, 1, 0) == 0);
    CHECK_ERR(read(fd, got, sizeof got), EAGAIN);
    CHECK_ERR(read(fd, got, 127), EINVAL);
    sigqueue(getpid(), SIGRTMIN + 1, (union sigval){.sival_int = 99});
    kill(getpid(), SIGUSR1);
    CHECK(poll(&entry, 1, 0) == 1 && entry.revents == POLLIN);
    CHECK(read(fd, got, sizeof got) == 2 * 128);
    CHECK(got[0].ssi_signo == SIGUSR1 && got[0].ssi_code == SI_USER);
    CHECK(got[0].ssi_pid == (unsigned)getpid() && got[0].ssi_uid == getuid());
    CHECK(got[1].ssi_signo == (unsigned)SIGRTMIN + 1 && got[1].ssi_int == 99);
    CHECK(got[1].ssi_code == SI_QUEUE && got[1].ssi_ptr == 99);
    CHECK(poll(&entry, 1, 0) == 0);

    pid_t child = fork();
    if (!child)
        _exit(42);
    CHECK(poll(&entry, 1, 5000) == 1);
    CHECK(read(fd, got, sizeof got) == 128 && got[0].ssi_signo == SIGCHLD);
    CHECK(got[0].ssi_status == 42 && got[0].ssi_code == CLD_EXITED);
    CHECK(got[0].ssi_pid == (unsigned)child && waitpid(child, NULL, 0) == child);

    sigset_t other;
    sigemptyset(&other);
    sigaddset(&other, SIGUSR2);
    CHECK(signalfd(fd, &other, 0) == fd);
    kill(getpid(), SIGUSR1);
    CHECK_ERR(read(fd, got, sizeof got), EAGAIN);
    CHECK(sigwaitinfo(&set, NULL) == SIGUSR1);

    int blocking = signalfd(-1, &set, 0);
    child = fork();
    if (!child) {
        usleep(20000);
        kill(getppid(), SIGUSR2);
        _exit(0);
    }
    CHECK(read(blocking, got, 128) == 128 && got[0].ssi_signo == SIGUSR2);
    CHECK(waitpid(child, NULL, 0) == child && sigwaitinfo(&set, NULL) == SIGCHLD);
    close(blocking);
    close(fd);
}

/* What programs say of signals may be any numbers. */
static void odd_details(void)
{
    static const struct { int signo, code; } sent[] = {
        {SIGUSR1, SI_TIMER}, {SIGUSR1, SI_QUEUE}, {SIGCHLD, CLD_EXITED}, {SIGSEGV, SEGV_MAPERR},
        {SIGIO, POLL_IN}, {SIGSYS, 1},
    };
    struct signalfd_siginfo got[6];
    sigset_t all, old;
    siginfo_t info;
    sigfillset(&all);
    CHECK(sigprocmask(SIG_SETMASK, &all, &old) == 0);
    int fd = signalfd(-1, &all, SFD_NONBLOCK);
    for (int i = 0; i < 6; i++) {
        memset(&info, 0xff, sizeof info);
        info.si_code = sent[i].code;
        info.si_signo = sent[i].signo;
        CHECK(syscall(SYS_rt_sigqueueinfo, getpid(), sent[i].signo, &info) == 0);
        CHECK(read(fd, got, sizeof got) == 128 && (int)got[0].ssi_signo == sent[i].signo);
        CHECK(got[0].ssi_code == sent[i].code && got[0].ssi_errno == -1);
        if (i == 0)
            CHECK(got[0].ssi_overrun == ~0u && got[0].ssi_tid == ~0u && got[0].ssi_ptr == ~0ul);
        if (i == 1)
            CHECK(got[0].ssi_pid == ~0u && got[0].ssi_uid == ~0u && got[0].ssi_int == -1);
        if (i == 2)
            CHECK(got[0].ssi_utime == ~0ul && got[0].ssi_stime == ~0ul && got[0].ssi_status == -1);
        if (i == 3)
            CHECK(got[0].ssi_addr == ~0ul);
        if (i == 4)
            CHECK(got[0].ssi_band == ~0u && got[0].ssi_fd == -1);
        if (i == 5)
            CHECK(got[0].ssi_call_addr == ~0ul && got[0].ssi_syscall == -1);
    }
    close(fd);
    CHECK(sigprocmask(SIG_SETMASK, &old, NULL) == 0);
}

static long queued(void)
{
    long count = -1;
    char line[128];
    FILE *f = fopen("/proc/self/status", "r");
    CHECK(f != NULL);
    while (fgets(line, sizeof line, f))
        if (sscanf(line, "SigQ: %ld", &count) == 1)
            break;
    fclose(f);
    return count;
}

static void *with_signals_of_its_own(void *unused)
{
    for (int i = 0; i < 50; i++)
        CHECK(pthread_sigqueue(pthread_self(), SIGRTMIN, (union sigval){.sival_int = i}) == 0);
    return unused;
}

/* What waits for a thread or a process that ends is nobody's charge any more. */
static void left_behind(void)
{
    pthread_t thread;
    long before = queued();
    CHECK(pthread_create(&thread, NULL, with_signals_of_its_own, NULL) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(queued() < before + 50);
    for (int i = 0; i < 3; i++) {
        pid_t child = fork();
        if (child == 0) {
            for (int k = 0; k < 50; k++)
                CHECK(sigqueue(getpid(), SIGRTMIN + 1, (union sigval){.sival_int = k}) == 0);
            _exit(0);
        }
        CHECK(waitpid(child, NULL, 0) == child);
    }
    CHECK(queued() < before + 50);
}

int main(void)
{
    int signals[] = {SIGUSR1, SIGUSR2, SIGCHLD, SIGRTMIN, SIGRTMIN + 1};
    sigemptyset(&set);
    for (unsigned i = 0; i < 5; i++)
        sigaddset(&set, signals[i]);
    CHECK(sigprocmask(SIG_BLOCK, &set, NULL) == 0);
    waiting();
    between_threads();
    descriptors();
    odd_details();
    left_behind();
    return 0;
}
