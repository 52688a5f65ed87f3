/* Clocks and sleeping: clock_gettime(2), nanosleep(2), times(2), and what they refuse. */
#define _GNU_SOURCE
#include "abi.h"
#include <pthread.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/times.h>
#include <sys/timex.h>
#include <time.h>
#include <unistd.h>

#define BAD ((void *)8)

static long long ns(struct timespec t)
{
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static long long now(clockid_t clock)
{
    struct timespec t;
    CHECK(syscall(SYS_clock_gettime, clock, &t) == 0 && t.tv_nsec >= 0 && t.tv_nsec < 1000000000);
    return ns(t);
}

static void burn(long long cpu_ns)
{
    long long start = now(CLOCK_THREAD_CPUTIME_ID);
    while (now(CLOCK_THREAD_CPUTIME_ID) - start < cpu_ns)
        for (volatile int i = 0; i < 10000; i++)
            ;
}

static void *spinner(void *none)
{
    burn(30000000);
    return none;
}

static void reading(void)
{
    struct timespec t, vdso;
    struct timeval tv;
    clockid_t clocks[] = {CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_MONOTONIC_RAW, CLOCK_BOOTTIME,
                          CLOCK_REALTIME_COARSE, CLOCK_MONOTONIC_COARSE, CLOCK_TAI};
    for (unsigned i = 0; i < 7; i++) {
        long long before = now(clocks[i]);
        CHECK(clock_gettime(clocks[i], &vdso) == 0);
        long long after = now(clocks[i]);
        CHECK(before <= ns(vdso) + 1000 && ns(vdso) <= after + 1000);
        CHECK(syscall(SYS_clock_getres, clocks[i], &t) == 0 && t.tv_sec == 0 && t.tv_nsec > 0);
    }
    CHECK(syscall(SYS_clock_getres, CLOCK_MONOTONIC, &t) == 0 && t.tv_nsec == 1);
    CHECK(syscall(SYS_gettimeofday, &tv, NULL) == 0);
    CHECK(llabs(now(CLOCK_REALTIME) - tv.tv_sec * 1000000000LL - tv.tv_usec * 1000) < 500000000);
    time_t seconds = 0, got = syscall(SYS_time, &seconds);
    CHECK(got == seconds && llabs(now(CLOCK_REALTIME) / 1000000000 - got) <= 1);
    CHECK_ERR(syscall(SYS_clock_gettime, 99, BAD), EINVAL);
    CHECK_ERR(syscall(SYS_clock_gettime, CLOCK_REALTIME, BAD), EFAULT);
    CHECK_ERR(syscall(SYS_clock_getres, 99, &t), EINVAL);
    CHECK(syscall(SYS_clock_getres, CLOCK_REALTIME, NULL) == 0);
    CHECK_ERR(syscall(SYS_gettimeofday, BAD, NULL), EFAULT);
    CHECK_ERR(syscall(SYS_clock_settime, 99, BAD), EINVAL);
    CHECK_ERR(syscall(SYS_clock_settime, CLOCK_MONOTONIC, &t), EINVAL);
}

static void cpu_time(void)
{
    struct rusage usage;
    struct tms ticks;
    long long process = now(CLOCK_PROCESS_CPUTIME_ID), thread = now(CLOCK_THREAD_CPUTIME_ID);
    burn(50000000);
    CHECK(now(CLOCK_THREAD_CPUTIME_ID) - thread >= 50000000);
    CHECK(now(CLOCK_PROCESS_CPUTIME_ID) - process >= 50000000);
    pthread_t other;
    pthread_create(&other, NULL, spinner, NULL);
    pthread_join(other, NULL);
    CHECK(now(CLOCK_PROCESS_CPUTIME_ID) - process >= 80000000);
    /* What the other thread used is not this one's. */
    thread = now(CLOCK_THREAD_CPUTIME_ID) - thread;
    CHECK(now(CLOCK_PROCESS_CPUTIME_ID) - process >= thread + 30000000);
    clockid_t clock;
    CHECK(clock_getcpuclockid(getpid(), &clock) == 0 && now(clock) >= 80000000);
    CHECK(pthread_getcpuclockid(pthread_self(), &clock) == 0 && now(clock) >= 50000000);
    CHECK_ERR(syscall(SYS_clock_gettime, ~(clockid_t)99999999 << 3 | 2, BAD), EINVAL);
    CHECK(getrusage(RUSAGE_SELF, &usage) == 0);
    CHECK(usage.ru_utime.tv_sec * 1000000 + usage.ru_utime.tv_usec +
              usage.ru_stime.tv_sec * 1000000 + usage.ru_stime.tv_usec >= 60000);
    CHECK(times(&ticks) != -1 && ticks.tms_utime + ticks.tms_stime >= 6);
    CHECK_ERR(syscall(SYS_times, BAD), EFAULT);
}

static void sleeping(void)
{
    struct timespec wait = {0, 20000000}, bad = {0, 1000000000}, negative = {-1, 0}, left;
    long long start = now(CLOCK_MONOTONIC);
    CHECK(nanosleep(&wait, &left) == 0);
    CHECK(now(CLOCK_MONOTONIC) - start >= 20000000);
    CHECK_ERR(syscall(SYS_nanosleep, &bad, NULL), EINVAL);
    CHECK_ERR(syscall(SYS_nanosleep, &negative, NULL), EINVAL);
    CHECK_ERR(syscall(SYS_nanosleep, BAD, NULL), EFAULT);
    wait.tv_nsec = 0;
    CHECK(nanosleep(&wait, NULL) == 0);
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += 20000000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    CHECK(clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &until, NULL) == 0);
    CHECK(now(CLOCK_REALTIME) >= ns(until));
    CHECK(clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &until, NULL) == 0);
    CHECK_ERR(syscall(SYS_clock_nanosleep, 99, 0, BAD, NULL), EINVAL);
    CHECK_ERR(syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC_RAW, 0, BAD, NULL), EOPNOTSUPP);
    CHECK_ERR(syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, BAD, NULL), EFAULT);
    CHECK_ERR(syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, &bad, NULL), EINVAL);
    /* a short sleep is no tick of a slow clock, if the machine has a moment for one of them */
    struct timespec tiny = {0, 100000};
    long long shortest = 1000000000;
    for (int i = 0; i < 20; i++) {
        start = now(CLOCK_MONOTONIC);
        nanosleep(&tiny, NULL);
        long long took = now(CLOCK_MONOTONIC) - start;
        shortest = took < shortest ? took : shortest;
    }
    CHECK(shortest >= tiny.tv_nsec && shortest < 10000000);
}

static void discipline(void)
{
    struct timex t = {0};
    int state = adjtimex(&t);
    CHECK(state >= 0 && state <= 5 && t.tick > 9000 && t.tick < 11000);
    CHECK(llabs(t.time.tv_sec - time(NULL)) <= 1);
    CHECK_ERR(syscall(SYS_adjtimex, BAD), EFAULT);
    memset(&t, 0, sizeof t);
    CHECK_ERR(syscall(SYS_clock_adjtime, 99, &t), EINVAL);
}

int main(void)
{
    reading();
    cpu_time();
    sleeping();
    discipline();
    return 0;
}
