/* Scheduling attributes: policies, affinity, nice values, I/O priorities, membarrier(2). */
#define _GNU_SOURCE
#include "abi.h"
#include <linux/membarrier.h>
#include <sched.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BAD ((void *)8)

static void policies(void)
{
    struct sched_param param = {0}, got = {9};
    CHECK(sched_getscheduler(0) == SCHED_OTHER);
    CHECK(sched_getparam(0, &got) == 0 && got.sched_priority == 0);
    CHECK(sched_setscheduler(0, SCHED_BATCH, &param) == 0 && sched_getscheduler(0) == SCHED_BATCH);
    CHECK(sched_setscheduler(0, SCHED_OTHER, &param) == 0);
    param.sched_priority = 5;
    CHECK_ERR(sched_setscheduler(0, SCHED_OTHER, &param), EINVAL);
    CHECK_ERR(sched_setparam(0, &param), EINVAL);
    param.sched_priority = 100;
    CHECK_ERR(sched_setscheduler(0, SCHED_FIFO, &param), EINVAL);
    CHECK_ERR(sched_setscheduler(0, 77, &param), EINVAL);
    CHECK_ERR(syscall(SYS_sched_setscheduler, 0, SCHED_OTHER, NULL), EINVAL);
    CHECK_ERR(syscall(SYS_sched_setscheduler, 0, SCHED_OTHER, BAD), EFAULT);
    CHECK_ERR(sched_getscheduler(-1), EINVAL);
    CHECK_ERR(sched_getscheduler(99999999), ESRCH);
    CHECK_ERR(syscall(SYS_sched_getparam, 0, NULL), EINVAL);
    CHECK(sched_get_priority_max(SCHED_FIFO) == 99 && sched_get_priority_min(SCHED_RR) == 1);
    CHECK(sched_get_priority_max(SCHED_OTHER) == 0);
    CHECK_ERR(sched_get_priority_max(77), EINVAL);
    struct timespec t;
    CHECK(sched_rr_get_interval(0, &t) == 0 && t.tv_sec == 0);
    CHECK_ERR(sched_rr_get_interval(-1, &t), EINVAL);
    CHECK(sched_yield() == 0);
}

static void attributes(void)
{
    unsigned attr[14] = {48, SCHED_OTHER};
    CHECK(syscall(SYS_sched_setattr, 0, attr, 0) == 0);
    memset(attr, 0xff, sizeof attr);
    CHECK(syscall(SYS_sched_getattr, 0, attr, 48, 0) == 0 && attr[0] == 48 && attr[1] == 0);
    CHECK_ERR(syscall(SYS_sched_getattr, 0, attr, 47, 0), EINVAL);
    CHECK_ERR(syscall(SYS_sched_getattr, 0, attr, 48, 1), EINVAL);
    CHECK_ERR(syscall(SYS_sched_getattr, 99999999, attr, 48, 0), ESRCH);
    CHECK_ERR(syscall(SYS_sched_setattr, 0, NULL, 0), EINVAL);
    unsigned small[12] = {12};
    CHECK_ERR(syscall(SYS_sched_setattr, 0, small, 0), E2BIG);
}

static void affinity(void)
{
    cpu_set_t set, one, got;
    unsigned cpu = 9999, node = 9999;
    CHECK(sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) >= 1);
    int first = 0;
    while (!CPU_ISSET(first, &set))
        first++;
    CPU_ZERO(&one);
    CPU_SET(first, &one);
    CHECK(sched_setaffinity(0, sizeof one, &one) == 0);
    CHECK(sched_getaffinity(0, sizeof got, &got) == 0 && CPU_EQUAL(&got, &one));
    CHECK(syscall(SYS_getcpu, &cpu, &node, NULL) == 0 && (int)cpu == first && node < 64);
    pid_t child = fork();
    if (!child) {
        sched_getaffinity(0, sizeof got, &got);
        _exit(CPU_EQUAL(&got, &one) ? 0 : 1);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    CHECK(sched_setaffinity(0, sizeof set, &set) == 0);
    CPU_ZERO(&one);
    CHECK_ERR(sched_setaffinity(0, sizeof one, &one), EINVAL);
    CHECK_ERR(syscall(SYS_sched_setaffinity, 99999999, 8, BAD), EFAULT);
    CHECK_ERR(sched_setaffinity(99999999, sizeof set, &set), ESRCH);
    CHECK_ERR(syscall(SYS_sched_getaffinity, 0, 0, &set), EINVAL);
    CHECK_ERR(syscall(SYS_sched_getaffinity, 0, 129, &set), EINVAL);
    CHECK_ERR(syscall(SYS_sched_getaffinity, 99999999, 128, &set), ESRCH);
    CHECK_ERR(syscall(SYS_sched_getaffinity, 0, 128, BAD), EFAULT);
}

static void nice_values(void)
{
    CHECK(getpriority(PRIO_PROCESS, 0) == 0 && syscall(SYS_getpriority, PRIO_PROCESS, 0) == 20);
    CHECK(setpriority(PRIO_PROCESS, 0, 5) == 0 && getpriority(PRIO_PROCESS, 0) == 5);
    CHECK(setpriority(PRIO_PROCESS, 0, 100) == 0 && getpriority(PRIO_PROCESS, 0) == 19);
    CHECK_ERR(setpriority(77, 0, 0), EINVAL);
    CHECK_ERR(setpriority(PRIO_PROCESS, 99999999, 0), ESRCH);
    CHECK_ERR(syscall(SYS_getpriority, 77, 0), EINVAL);
    CHECK_ERR(syscall(SYS_getpriority, PRIO_PGRP, 99999999), ESRCH);
    CHECK(syscall(SYS_ioprio_set, 1, 0, 2 << 13 | 6) == 0);
    CHECK(syscall(SYS_ioprio_get, 1, 0) == (2 << 13 | 6));
    CHECK_ERR(syscall(SYS_ioprio_set, 1, 0, 7 << 13), EINVAL);
    CHECK_ERR(syscall(SYS_ioprio_set, 9, 0, 2 << 13), EINVAL);
    CHECK_ERR(syscall(SYS_ioprio_get, 1, 99999999), ESRCH);
    pid_t child = fork();
    if (!child) {
        if (setresuid(1, 1, 1))
            _exit(2);
        errno = 0;
        if (setpriority(PRIO_PROCESS, 0, 0) != -1 || errno != EACCES)
            _exit(3);
        if (setpriority(PRIO_PROCESS, getppid(), 19) != -1 || errno != EPERM)
            _exit(4);
        struct sched_param param = {1};
        if (sched_setscheduler(0, SCHED_FIFO, &param) != -1 || errno != EPERM)
            _exit(5);
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(status == 0);
}

static void barriers(void)
{
    int supported = (int)syscall(SYS_membarrier, MEMBARRIER_CMD_QUERY, 0, 0);
    CHECK(supported > 0 && supported & MEMBARRIER_CMD_PRIVATE_EXPEDITED);
    CHECK_ERR(syscall(SYS_membarrier, MEMBARRIER_CMD_QUERY, 1, 0), EINVAL);
    CHECK_ERR(syscall(SYS_membarrier, 1 << 30, 0, 0), EINVAL);
    CHECK_ERR(syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0), EPERM);
    CHECK(syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) == 0);
    CHECK(syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) == 0);
    CHECK(syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL_EXPEDITED, 0, 0) == 0);
}

/* A process of the same user that has capabilities which the caller lacks is left alone. */
static void outranked(void)
{
    int ready[2], user;
    char c;
    CHECK(pipe(ready) == 0);
    pid_t root = fork();
    if (!root) {
        CHECK(setpriority(PRIO_PROCESS, 0, 0) == 0 && setresuid(0, 2000, 2000) == 0);
        CHECK(write(ready[1], "r", 1) == 1);
        for (;;)
            pause();
    }
    CHECK(read(ready[0], &c, 1) == 1);
    if (!(user = fork())) {
        unsigned long all = -1ul;
        struct sched_param none = {0};
        CHECK(setresuid(1000, 2000, 2000) == 0);
        CHECK_ERR(setpriority(PRIO_PROCESS, root, 19), EPERM);
        CHECK_ERR(sched_setaffinity(root, sizeof all, (cpu_set_t *)&all), EPERM);
        CHECK_ERR(sched_setscheduler(root, SCHED_BATCH, &none), EPERM);
        CHECK_ERR(syscall(SYS_ioprio_set, 1, root, 2 << 13 | 6), EPERM);
        CHECK(kill(root, SIGKILL) == 0);
        _exit(0);
    }
    CHECK(waitpid(user, &user, 0) > 0 && user == 0);
    CHECK(waitpid(root, NULL, 0) == root);
}

int main(void)
{
    outranked();
    policies();
    attributes();
    affinity();
    nice_values();
    barriers();
    return 0;
}
