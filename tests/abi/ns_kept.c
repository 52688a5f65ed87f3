/* Namespaces that a program has made, and who is in them. Between making and looking lie many calls:
 * tests/e2e/test_snapshots.py stops it at one of those. Needs root. */
#define _GNU_SOURCE
#include "abi.h"
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <time.h>
#include "ns.h"

static const char *const KINDS[] = {
    "cgroup", "ipc", "net", "pid_for_children", "time_for_children", "user", "uts"};
enum { COUNT = sizeof KINDS / sizeof *KINDS };
static char first[COUNT][64];

static void look(char found[COUNT][64])
{
    for (int i = 0; i < COUNT; i++) {
        char path[64];
        snprintf(path, sizeof path, "/proc/thread-self/ns/%s", KINDS[i]);
        CHECK(readlink(path, found[i], 63) > 0);
    }
}

static void many_calls(void)
{
    for (int i = 0; i < 400; i++)
        CHECK(syscall(SYS_getpgid, 0) >= 0);
}

static long long boottime(void)
{
    struct timespec t;
    CHECK(clock_gettime(CLOCK_BOOTTIME, &t) == 0);
    return t.tv_sec;
}

/* The first process of a PID namespace: its child, an orphan that it gets, a process group. */
static int first_process(int from, int to)
{
    char byte;
    CHECK(getpid() == 1 && getppid() == 0);
    int pair[2];
    CHECK(pipe(pair) == 0);
    pid_t middle = fork();
    if (!middle) {
        pid_t orphan = fork();
        if (!orphan) {
            close(pair[1]);
            CHECK(read(pair[0], &byte, 1) == 0);
            _exit(getppid() == 1 && getpid() == 3 ? 5 : 6);
        }
        _exit(orphan == 3 ? 0 : 1);
    }
    CHECK(middle == 2 && status_of(middle) == 0);
    close(pair[0]);
    CHECK(setsid() == 1 && getpgrp() == 1);
    CHECK(write(to, "x", 1) == 1 && read(from, &byte, 1) == 1);

    CHECK(getpid() == 1 && getsid(0) == 1 && kill(1, SIGTERM) == 0);
    CHECK(kill(3, 0) == 0);
    CHECK_ERR(kill(4, 0), ESRCH);
    CHECK(close(pair[1]) == 0 && status_of(3) == 5 << 8);
    pid_t next = fork();
    if (!next)
        _exit(getpid() == 4 ? 0 : 1);
    CHECK(next == 4 && status_of(next) == 0);
    return 0;
}

/* What an open file of /proc lets be written is for who opened it: a user, not root. */
static void maps_later(int from, int to)
{
    char byte;
    CHECK(setresuid(1000, 1000, 1000) == 0 && prctl(PR_SET_DUMPABLE, 1) == 0);
    CHECK(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 && unshare(CLONE_NEWUSER) == 0);
    int map = open("/proc/self/uid_map", O_WRONLY);
    CHECK(map >= 0 && write(to, "x", 1) == 1 && read(from, &byte, 1) == 1);

    CHECK_ERR(write(map, "0 0 2000", 8), EPERM);
    CHECK(write(map, "0 1000 1", 8) == 8 && getuid() == 0);
}

int main(void)
{
    pid_t outside = getpid();
    struct utsname names;
    long long there = boottime();
    int down[2], up[2], to_later[2];
    char text[200], byte;
    look(first);
    CHECK(pipe(down) == 0 && pipe(up) == 0 && pipe(to_later) == 0);
    pid_t later = fork();
    if (!later) {
        maps_later(to_later[0], up[1]);
        _exit(0);
    }
    CHECK(read(up[0], &byte, 1) == 1);
    pid_t child = fork();
    if (!child) {
        CHECK(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0);
        CHECK(unshare(CLONE_NEWUSER) == 0 && getuid() == 65534);
        CHECK(write_text("/proc/self/setgroups", "deny") == 4);
        CHECK(write_text("/proc/self/uid_map", "0 0 1") == 5);
        CHECK(write_text("/proc/self/gid_map", "7 0 1") == 5);
        CHECK(unshare(CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWCGROUP |
                      CLONE_NEWTIME) == 0);
        CHECK(sethostname("inside", 6) == 0);
        CHECK(write_text("/proc/self/timens_offsets", "boottime 1000000 0\n") > 0);
        pid_t init = fork();
        if (!init) {
            CHECK(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0);
            CHECK(boottime() >= there + 1000000);
            return first_process(down[0], up[1]);
        }
        CHECK(read(up[0], &byte, 1) == 1);

        many_calls();

        char now[COUNT][64] = {0};
        look(now);
        for (int i = 0; i < COUNT; i++)
            CHECK(strcmp(now[i], first[i]));
        CHECK(getuid() == 0 && getgid() == 7);
        read_text("/proc/self/uid_map", text, sizeof text);
        unsigned inside, lower, count;
        CHECK(sscanf(text, "%u %u %u", &inside, &lower, &count) == 3 && !inside && count == 1);
        read_text("/proc/self/setgroups", text, sizeof text);
        CHECK(!strcmp(text, "deny\n"));
        CHECK(uname(&names) == 0 && !strcmp(names.nodename, "inside"));
        CHECK(sethostname("changed", 7) == 0); /* with what it may do there, */
        CHECK_ERR(setpriority(PRIO_PROCESS, outside, -1), EACCES); /* and not outside */
        CHECK(boottime() < there + 1000000);
        read_text("/proc/self/timens_offsets", text, sizeof text);
        CHECK(strstr(text, "boottime") && strstr(text, "1000000"));
        CHECK(socket(AF_UNIX, SOCK_STREAM, 0) >= 0);
        CHECK(write(down[1], "x", 1) == 1 && status_of(init) == 0);
        CHECK_ERR(fork(), ENOMEM); /* the first process is gone */
        _exit(0);
    }
    CHECK(status_of(child) == 0);
    CHECK(write(to_later[1], "x", 1) == 1 && status_of(later) == 0);
    CHECK(uname(&names) == 0 && strcmp(names.nodename, "inside") && strcmp(names.nodename, "changed"));
    return 0;
}
