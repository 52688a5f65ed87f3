/* Timers: alarm(2), setitimer(2), timer_create(2), timerfd_create(2), RLIMIT_CPU. */
#define _GNU_SOURCE
#include "abi.h"
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BAD ((void *)8)
static volatile int calls, taken_by, most_overrun;
static siginfo_t info;

static void handler(int signo, siginfo_t *details, void *context)
{
    (void)signo;
    (void)context;
    calls++;
    taken_by = (int)syscall(SYS_gettid);
    info = *details;
    if (info.si_code == SI_TIMER && info.si_overrun > most_overrun)
        most_overrun = info.si_overrun;
}

static void install(int signo)
{
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_RESTART};
    calls = most_overrun = 0;
    CHECK(sigaction(signo, &action, NULL) == 0);
}

static long long now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void real(void)
{
    struct itimerval timer = {{0, 10000}, {0, 20000}}, got, off = {{0, 0}, {0, 0}};
    install(SIGALRM);
    long long start = now();
    CHECK(setitimer(ITIMER_REAL, &timer, NULL) == 0);
    CHECK(getitimer(ITIMER_REAL, &got) == 0 && got.it_interval.tv_usec == 10000);
    CHECK(got.it_value.tv_usec > 0 && got.it_value.tv_usec <= 20000);
    while (calls < 3)
        pause();
    CHECK(now() - start >= 39000000 && info.si_code == SI_KERNEL);
    CHECK(setitimer(ITIMER_REAL, &off, &got) == 0 && got.it_interval.tv_usec == 10000);
    CHECK(getitimer(ITIMER_REAL, &got) == 0 && got.it_value.tv_usec == 0);
    CHECK(alarm(10) == 0 && alarm(5) == 10 && alarm(0) == 5 && alarm(0) == 0);
    struct itimerval bad = {{0, 0}, {0, 1000000}};
    CHECK_ERR(setitimer(ITIMER_REAL, &bad, NULL), EINVAL);
    CHECK_ERR(syscall(SYS_setitimer, 9, BAD, NULL), EFAULT);
    CHECK_ERR(syscall(SYS_setitimer, 9, &off, NULL), EINVAL);
    CHECK_ERR(syscall(SYS_getitimer, 9, &off), EINVAL);
    CHECK_ERR(syscall(SYS_getitimer, 0, BAD), EFAULT);
    /* not inherited by fork */
    alarm(100);
    pid_t child = fork();
    if (!child)
        _exit(alarm(0) == 0 ? 0 : 1);
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0 && alarm(0) == 100);
}

static void cpu(int which, int signo)
{
    struct itimerval timer = {{0, 20000}, {0, 20000}}, off = {{0, 0}, {0, 0}};
    install(signo);
    CHECK(setitimer(which, &timer, NULL) == 0);
    usleep(60000); /* asleep: no CPU time */
    CHECK(calls <= 1);
    calls = 0;
    while (calls < 3)
        for (volatile int i = 0; i < 10000; i++)
            ;
    CHECK(setitimer(which, &off, NULL) == 0);
}

static volatile pid_t worker;

static void *work(void *done)
{
    struct itimerval off = {{0, 0}, {0, 0}};
    worker = syscall(SYS_gettid);
    while (calls < 8)
        for (volatile int i = 0; i < 10000; i++)
            ;
    CHECK(setitimer(ITIMER_PROF, &off, NULL) == 0); /* before another thread uses CPU time */
    return done;
}

/* A signal for CPU time goes to the thread that used it. */
static void busy_thread(void)
{
    struct itimerval timer = {{0, 10000}, {0, 10000}};
    pthread_t thread;
    install(SIGPROF);
    CHECK(setitimer(ITIMER_PROF, &timer, NULL) == 0);
    CHECK(pthread_create(&thread, NULL, work, NULL) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(taken_by == worker);
}

static void wait_calls(int wanted)
{
    for (int i = 0; i < 5000 && calls < wanted; i++)
        usleep(1000);
    CHECK(calls >= wanted);
}

static void posix(void)
{
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN};
    struct itimerspec spec = {{0, 5000000}, {0, 10000000}}, got, off = {{0, 0}, {0, 0}};
    timer_t timer, second;
    event.sigev_value.sival_int = 1234;
    install(SIGRTMIN);
    CHECK(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0);
    CHECK(timer_gettime(timer, &got) == 0 && got.it_value.tv_nsec == 0);
    CHECK(timer_settime(timer, 0, &spec, NULL) == 0);
    CHECK(timer_gettime(timer, &got) == 0 && got.it_interval.tv_nsec == 5000000);
    CHECK(got.it_value.tv_nsec > 0 && got.it_value.tv_nsec <= 10000000);
    wait_calls(3);
    CHECK(info.si_code == SI_TIMER && info.si_value.sival_int == 1234);

    /* overruns while it is blocked */
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN);
    sigprocmask(SIG_BLOCK, &set, NULL);
    calls = 0;
    usleep(60000);
    sigprocmask(SIG_UNBLOCK, &set, NULL);
    CHECK(calls >= 1 && timer_settime(timer, 0, &off, NULL) == 0);
    calls = 0;
    sigprocmask(SIG_BLOCK, &set, NULL);
    CHECK(timer_settime(timer, 0, &spec, NULL) == 0);
    usleep(60000);
    siginfo_t taken;
    CHECK(sigwaitinfo(&set, &taken) == SIGRTMIN && taken.si_overrun >= 7);
    CHECK(timer_getoverrun(timer) == taken.si_overrun);
    sigprocmask(SIG_UNBLOCK, &set, NULL);
    CHECK(timer_delete(timer) == 0);
    CHECK_ERR(syscall(SYS_timer_delete, 9999), EINVAL);
    CHECK_ERR(syscall(SYS_timer_gettime, 9999, BAD), EINVAL);

    /* without a sigevent: SIGALRM with the timer's id */
    install(SIGALRM);
    int id = -1;
    CHECK(syscall(SYS_timer_create, CLOCK_REALTIME, NULL, &id) == 0);
    struct timespec at;
    clock_gettime(CLOCK_REALTIME, &at);
    struct itimerspec absolute = {{0, 0}, at};
    CHECK(syscall(SYS_timer_settime, id, TIMER_ABSTIME, &absolute, NULL) == 0);
    wait_calls(1);
    CHECK(info.si_value.sival_int == id && info.si_timerid == id);
    CHECK(syscall(SYS_timer_delete, id) == 0);
    int next = -1; /* numbers go on, though lower ones are free */
    CHECK(syscall(SYS_timer_create, CLOCK_REALTIME, NULL, &next) == 0 && next == id + 1);
    CHECK(syscall(SYS_timer_delete, next) == 0);

    event.sigev_notify = SIGEV_NONE;
    CHECK(timer_create(CLOCK_MONOTONIC, &event, &second) == 0);
    spec.it_value.tv_sec = 100;
    CHECK(timer_settime(second, 0, &spec, NULL) == 0);
    CHECK(timer_gettime(second, &got) == 0 && got.it_value.tv_sec >= 99);
    timer_delete(second);

    struct kernel_event {
        unsigned long value;
        int signo, notify, tid, pad[11];
    } raw = {0, SIGRTMIN, SIGEV_THREAD_ID, 99999999, {0}};
    CHECK_ERR(syscall(SYS_timer_create, CLOCK_MONOTONIC, &raw, &id), EINVAL);
    raw.notify = 77;
    CHECK_ERR(syscall(SYS_timer_create, CLOCK_MONOTONIC, &raw, &id), EINVAL);
    raw.notify = SIGEV_SIGNAL;
    raw.signo = 99;
    CHECK_ERR(syscall(SYS_timer_create, CLOCK_MONOTONIC, &raw, &id), EINVAL);
    CHECK_ERR(syscall(SYS_timer_create, 99, NULL, &id), EINVAL);
    CHECK_ERR(syscall(SYS_timer_create, CLOCK_MONOTONIC_RAW, NULL, &id), EOPNOTSUPP);
    CHECK_ERR(syscall(SYS_timer_create, CLOCK_MONOTONIC, BAD, &id), EFAULT);
    raw.signo = SIGRTMIN;
    raw.notify = SIGEV_THREAD_ID;
    raw.tid = (int)syscall(SYS_gettid);
    install(SIGRTMIN);
    CHECK(syscall(SYS_timer_create, CLOCK_THREAD_CPUTIME_ID, &raw, &id) == 0);
    spec = (struct itimerspec){{0, 0}, {0, 20000000}};
    CHECK(syscall(SYS_timer_settime, id, 0, &spec, NULL) == 0);
    while (!calls)
        for (volatile int i = 0; i < 10000; i++)
            ;
    CHECK(taken_by == raw.tid && syscall(SYS_timer_delete, id) == 0);
}

/* A timer whose signal is ignored rests; when it is not any more, it tells of all its periods. */
static void ignored(void)
{
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN};
    struct itimerspec spec = {{0, 1000000}, {0, 1000000}}, got, once = {{0, 0}, {0, 1000000}};
    timer_t timer;
    sigset_t set, pending;
    signal(SIGRTMIN, SIG_IGN);
    CHECK(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0);
    CHECK(timer_settime(timer, 0, &spec, NULL) == 0);
    usleep(20000);
    CHECK(timer_gettime(timer, &got) == 0 && got.it_interval.tv_nsec == 1000000);
    CHECK(got.it_value.tv_sec == 0 && got.it_value.tv_nsec > 0 && got.it_value.tv_nsec <= 1000000);
    install(SIGRTMIN);
    CHECK(calls >= 1 && info.si_code == SI_TIMER);
    wait_calls(3);
    /* one that is queued is thrown away */
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN);
    CHECK(sigprocmask(SIG_BLOCK, &set, NULL) == 0);
    do
        CHECK(sigpending(&pending) == 0);
    while (!sigismember(&pending, SIGRTMIN));
    signal(SIGRTMIN, SIG_IGN);
    CHECK(sigpending(&pending) == 0 && !sigismember(&pending, SIGRTMIN));
    usleep(5000);
    install(SIGRTMIN);
    CHECK(sigpending(&pending) == 0 && sigismember(&pending, SIGRTMIN) && !calls);
    CHECK(sigprocmask(SIG_UNBLOCK, &set, NULL) == 0);
    CHECK(calls >= 1 && most_overrun >= 3);
    wait_calls(4);
    /* one that expires once does so while it is ignored */
    signal(SIGRTMIN, SIG_IGN);
    CHECK(timer_settime(timer, 0, &once, NULL) == 0);
    usleep(5000);
    install(SIGRTMIN);
    CHECK(calls == 0 && timer_gettime(timer, &got) == 0 && got.it_value.tv_nsec == 0);
    CHECK(timer_delete(timer) == 0);
}

/* The CPU time of another process has timers; they rest when it has ended. */
static void of_another(void)
{
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN};
    struct itimerspec spec = {{0, 20000000}, {0, 20000000}}, got;
    clockid_t clock;
    timer_t timer, late;
    siginfo_t ended;
    install(SIGRTMIN);
    pid_t child = fork();
    if (!child)
        for (;;)
            ;
    CHECK(clock_getcpuclockid(child, &clock) == 0);
    CHECK_ERR(timer_create(clock | 4, &event, &timer), EINVAL); /* its thread's: CPUCLOCK_PERTHREAD */
    CHECK(timer_create(clock, &event, &timer) == 0);
    CHECK(timer_settime(timer, 0, &spec, NULL) == 0);
    wait_calls(3);
    CHECK(timer_gettime(timer, &got) == 0 && got.it_interval.tv_nsec == 20000000);
    CHECK(kill(child, SIGKILL) == 0);
    CHECK(waitid(P_PID, child, &ended, WEXITED | WNOWAIT) == 0);
    CHECK(timer_create(clock, &event, &late) == 0 && timer_delete(late) == 0);
    CHECK(timer_settime(timer, 0, &spec, NULL) == 0); /* a zombie has a clock that stands */
    CHECK(waitpid(child, NULL, 0) == child);
    CHECK_ERR(timer_settime(timer, 0, &spec, NULL), ESRCH);
    CHECK(timer_gettime(timer, &got) == 0);
    CHECK(got.it_interval.tv_nsec == 0 && got.it_value.tv_nsec == 0);
    CHECK_ERR(timer_create(clock, &event, &late), EINVAL);
    CHECK(timer_delete(timer) == 0);
}

static void descriptors(void)
{
    uint64_t ticks = 0;
    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    CHECK(fd >= 0);
    CHECK_ERR(read(fd, &ticks, 8), EAGAIN);
    CHECK_ERR(read(fd, &ticks, 7), EINVAL);
    struct itimerspec spec = {{0, 10000000}, {0, 20000000}}, got, off = {{0, 0}, {0, 0}};
    struct itimerspec late = {{0, 0}, {1000, 0}};
    CHECK(timerfd_settime(fd, 0, &late, NULL) == 0);
    struct pollfd entry = {fd, POLLIN, 0};
    CHECK(poll(&entry, 1, 0) == 0);
    CHECK(timerfd_settime(fd, 0, &spec, NULL) == 0);
    CHECK(poll(&entry, 1, 5000) == 1 && entry.revents == POLLIN);
    CHECK(read(fd, &ticks, 8) == 8 && ticks >= 1);
    usleep(55000);
    CHECK(read(fd, &ticks, 8) == 8 && ticks >= 4 && ticks < 1000);
    CHECK(timerfd_gettime(fd, &got) == 0 && got.it_interval.tv_nsec == 10000000);
    CHECK(got.it_value.tv_nsec <= 10000000);
    CHECK(timerfd_settime(fd, 0, &off, &got) == 0 && got.it_interval.tv_nsec == 10000000);
    CHECK(timerfd_gettime(fd, &got) == 0 && got.it_value.tv_nsec == 0);
    usleep(20000);
    CHECK_ERR(read(fd, &ticks, 8), EAGAIN);
    close(fd);

    fd = timerfd_create(CLOCK_REALTIME, 0);
    struct timespec at;
    clock_gettime(CLOCK_REALTIME, &at);
    at.tv_nsec += 20000000;
    at.tv_sec += at.tv_nsec / 1000000000;
    at.tv_nsec %= 1000000000;
    struct itimerspec absolute = {{0, 0}, at};
    CHECK(timerfd_settime(fd, TFD_TIMER_ABSTIME, &absolute, NULL) == 0);
    CHECK(read(fd, &ticks, 8) == 8 && ticks == 1);
    CHECK_ERR(syscall(SYS_timerfd_create, 99, 0), EINVAL);
    CHECK_ERR(syscall(SYS_timerfd_create, CLOCK_MONOTONIC, 0x10), EINVAL);
    CHECK_ERR(syscall(SYS_timerfd_settime, 999, 77, BAD, NULL), EFAULT);
    CHECK_ERR(syscall(SYS_timerfd_settime, 999, 77, &off, NULL), EINVAL);
    CHECK_ERR(syscall(SYS_timerfd_settime, 999, 0, &off, NULL), EBADF);
    CHECK_ERR(syscall(SYS_timerfd_settime, 0, 0, &off, NULL), EINVAL);
    CHECK_ERR(syscall(SYS_timerfd_gettime, 0, &off), EINVAL);
    close(fd);
}

static volatile int xcpu;
static void on_xcpu(int signo)
{
    (void)signo;
    xcpu++;
}

static void cpu_limit(void)
{
    int status;
    pid_t child = fork();
    if (!child) {
        signal(SIGXCPU, on_xcpu);
        struct rlimit limit = {1, 2};
        setrlimit(RLIMIT_CPU, &limit);
        for (;;)
            ;
    }
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    child = fork();
    if (!child) {
        struct rlimit limit = {1, 5};
        setrlimit(RLIMIT_CPU, &limit);
        pid_t inner = fork();
        if (!inner)
            for (;;)
                ;
        waitpid(inner, &status, 0);
        _exit((status & 0x7f) == SIGXCPU ? 0 : 1);
    }
    CHECK(waitpid(child, &status, 0) == child && status == 0);
}

int main(void)
{
    real();
    cpu(ITIMER_VIRTUAL, SIGVTALRM);
    cpu(ITIMER_PROF, SIGPROF);
    busy_thread();
    posix();
    ignored();
    of_another();
    descriptors();
    cpu_limit();
    return 0;
}
