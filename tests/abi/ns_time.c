/* Time namespaces: offsets of the monotonic and the boot-time clock. Needs root. */
#define _GNU_SOURCE
#include "abi.h"
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/sysinfo.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <time.h>
#include "ns.h"

static long seconds(int clock)
{
    struct timespec now;
    CHECK(clock_gettime(clock, &now) == 0);
    return now.tv_sec;
}

int main(void)
{
    char text[200], before[64] = {0}, after[64] = {0};
    struct sysinfo info;
    long monotonic = seconds(CLOCK_MONOTONIC), boot = seconds(CLOCK_BOOTTIME);
    long real = seconds(CLOCK_REALTIME);
    read_text("/proc/self/timens_offsets", text, sizeof text);
    CHECK(!strcmp(text, "monotonic           0         0\nboottime            0         0\n"));
    CHECK(write_text("/proc/self/timens_offsets", "monotonic 5 0") == -EACCES);
    CHECK(unshare(CLONE_NEWTIME) == 0);
    CHECK(readlink("/proc/self/ns/time", before, 63) > 0);
    CHECK(readlink("/proc/self/ns/time_for_children", after, 63) > 0 && strcmp(before, after));
    int ns = open("/proc/self/ns/time_for_children", O_RDONLY);
    CHECK(ioctl(ns, NS_GET_NSTYPE) == CLONE_NEWTIME);
    CHECK(write_text("/proc/self/timens_offsets", "nonsense 5 0") == -EINVAL);
    CHECK(write_text("/proc/self/timens_offsets", "monotonic 5 1000000000") == -EINVAL);
    CHECK(write_text("/proc/self/timens_offsets", "monotonic -9000000000 0") == -ERANGE);
    CHECK(write_text("/proc/self/timens_offsets", "monotonic 100000 0\nboottime 200000 5\n") > 0);
    read_text("/proc/self/timens_offsets", text, sizeof text);
    CHECK(!strcmp(text, "monotonic      100000         0\nboottime       200000         5\n"));
    CHECK(seconds(CLOCK_MONOTONIC) - monotonic < 1000); /* only for the children */
    IN_CHILD({
        long now = seconds(CLOCK_MONOTONIC) - monotonic;
        CHECK(now >= 100000 && now < 101000);
        now = seconds(CLOCK_BOOTTIME) - boot;
        CHECK(now >= 200000 && now < 201000);
        now = seconds(CLOCK_MONOTONIC_RAW);
        CHECK(now > 100000);
        CHECK(seconds(CLOCK_MONOTONIC_COARSE) >= 100000);
        struct timespec direct;
        CHECK(syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &direct) == 0);
        CHECK(direct.tv_sec - monotonic >= 100000);
        CHECK(seconds(CLOCK_REALTIME) - real < 100000);
        CHECK(sysinfo(&info) == 0 && info.uptime >= 200000);
        read_text("/proc/uptime", text, sizeof text);
        CHECK(atol(text) >= 200000);
        CHECK(readlink("/proc/self/ns/time", before, 63) > 0 && !strcmp(before, after));
        /* absolute times are those of the namespace */
        struct timespec soon;
        CHECK(clock_gettime(CLOCK_MONOTONIC, &soon) == 0);
        soon.tv_nsec += 1000000;
        if (soon.tv_nsec >= 1000000000) soon.tv_sec++, soon.tv_nsec -= 1000000000;
        CHECK(clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &soon, 0) == 0);
        int fd = timerfd_create(CLOCK_MONOTONIC, 0);
        struct itimerspec spec = {{0, 0}, soon};
        uint64_t ticks;
        CHECK(timerfd_settime(fd, TFD_TIMER_ABSTIME, &spec, 0) == 0);
        CHECK(read(fd, &ticks, 8) == 8 && ticks == 1);
        uint32_t word = 0;
        CHECK_ERR(syscall(SYS_futex, &word, 9 /* FUTEX_WAIT_BITSET */, 0, &soon, 0, -1), ETIMEDOUT);
        timer_t timer;
        sigset_t set;
        sigemptyset(&set);
        sigaddset(&set, SIGALRM);
        sigprocmask(SIG_BLOCK, &set, 0);
        CHECK(timer_create(CLOCK_MONOTONIC, 0, &timer) == 0);
        CHECK(timer_settime(timer, TIMER_ABSTIME, &spec, 0) == 0);
        CHECK(sigwaitinfo(&set, 0) == SIGALRM);
    });
    CHECK(write_text("/proc/self/timens_offsets", "monotonic 5 0") == -EACCES); /* in use */
    CHECK(setns(ns, CLONE_NEWTIME) == 0);
    CHECK(seconds(CLOCK_MONOTONIC) - monotonic >= 100000);
    IN_CHILD({
        CHECK(setresuid(1000, 1000, 1000) == 0);
        CHECK_ERR(unshare(CLONE_NEWTIME), EPERM);
    });
    return 0;
}
