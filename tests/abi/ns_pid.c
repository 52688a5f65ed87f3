/* PID namespaces: numbers on both sides, the first process and its death. Needs root. */
#define _GNU_SOURCE
#include "abi.h"
#include <dirent.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <linux/sched.h>
#include "ns.h"

static pid_t new_process(unsigned long flags)
{
    return syscall(SYS_clone, flags | SIGCHLD, 0, 0, 0, 0);
}

static void nothing(int signo) {}

/* Entries of /proc that are processes. */
static int processes(const char *path)
{
    DIR *dir = opendir(path);
    int found = 0;
    CHECK(dir);
    for (struct dirent *e; (e = readdir(dir));) found += e->d_name[0] >= '0' && e->d_name[0] <= '9';
    closedir(dir);
    return found;
}

static void numbers(void)
{
    int pair[2], fds[2], one = 1;
    char text[4000], link[64];
    CHECK(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair) == 0 && pipe(fds) == 0);
    CHECK(setsockopt(pair[0], SOL_SOCKET, SO_PASSCRED, &one, 4) == 0);
    CHECK(setsockopt(pair[1], SOL_SOCKET, SO_PASSCRED, &one, 4) == 0);
    pid_t child = new_process(CLONE_NEWPID | CLONE_NEWNS);
    if (!child) {
        CHECK(getpid() == 1 && gettid() == 1 && getppid() == 0);
        CHECK(getpgrp() == 0 && getsid(0) == 0);
        pid_t second = fork();
        if (!second) {
            CHECK(getpid() == 2 && getppid() == 1);
            CHECK(kill(1, SIGTERM) == 0); /* the first one does not hear of it */
            CHECK(kill(1, SIGKILL) == 0);
            CHECK_ERR(kill(3, 0), ESRCH);
            CHECK(setsid() == 2 && getsid(0) == 2 && getpgrp() == 2);
            _exit(7);
        }
        CHECK(second == 2 && status_of(2) == 7 << 8);
        CHECK(setpgid(0, 0) == 0 && getpgrp() == 1);
        struct ucred got = receive_creds(pair[1]);
        CHECK(got.pid == 0);
        send_creds(pair[1], 1, 0, 0, 0);
        send_creds(pair[1], 99, 0, 0, ESRCH);
        CHECK(mount(0, "/", 0, MS_REC | MS_PRIVATE, 0) == 0);
        CHECK(mount("proc", "/proc", "proc", 0, 0) == 0);
        CHECK(processes("/proc") == 1);
        CHECK(readlink("/proc/self", link, 64) == 1 && link[0] == '1');
        read_text("/proc/self/stat", text, sizeof text);
        CHECK(!strncmp(text, "1 (", 3));
        read_text("/proc/sys/kernel/ns_last_pid", text, sizeof text);
        CHECK(!strcmp(text, "2\n"));
        int last = open("/proc/sys/kernel/ns_last_pid", O_WRONLY);
        CHECK(last >= 0 && write(last, "41", 2) == 2 && close(last) == 0);
        pid_t next = fork();
        if (next == 0)
            _exit(0);
        CHECK(next == 42 && waitpid(next, 0, 0) == 42);
        signal(SIGUSR1, nothing);
        CHECK(write(fds[1], "x", 1) == 1);
        pause(); /* from outside, with a handler */
        _exit(3);
    }
    CHECK(child > 1);
    send_creds(pair[0], getpid(), 0, 0, 0);
    CHECK(receive_creds(pair[0]).pid == child);
    CHECK(read(fds[0], text, 1) == 1);
    sprintf(text, "/proc/%d/status", child);
    int fd = open(text, O_RDONLY);
    int size = read(fd, text, sizeof text - 1);
    CHECK(size > 0);
    text[size] = 0;
    char wanted[64];
    sprintf(wanted, "NSpid:\t%d\t1\n", child);
    CHECK(strstr(text, wanted));
    CHECK(kill(child, SIGTERM) == 0); /* no handler: ignored */
    while (kill(child, SIGUSR1) == 0 && waitpid(child, &one, WNOHANG) == 0) sched_yield();
    CHECK(one == 3 << 8);
}

/* unshare: the children go there; the first of them is 1. */
static void children_only(void)
{
    char before[64] = {0}, after[64] = {0};
    pid_t me = getpid();
    readlink("/proc/self/ns/pid", before, 63);
    CHECK(unshare(CLONE_NEWPID) == 0);
    CHECK(getpid() == me && readlink("/proc/self/ns/pid", after, 63) > 0 && !strcmp(before, after));
    CHECK_ERR(readlink("/proc/self/ns/pid_for_children", after, 63), ENOENT);
    CHECK_ERR(unshare(CLONE_NEWPID), EINVAL); /* once */
    CHECK_ERR(syscall(SYS_clone, CLONE_VM | CLONE_SIGHAND | CLONE_THREAD, 0, 0, 0, 0), EINVAL);
    int fds[2];
    CHECK(pipe(fds) == 0);
    pid_t first = fork();
    if (!first) {
        CHECK(getpid() == 1 && getppid() == 0);
        char c;
        CHECK(read(fds[0], &c, 1) == 1);
        _exit(0);
    }
    CHECK(readlink("/proc/self/ns/pid_for_children", after, 63) > 0 && strcmp(before, after));
    pid_t second = fork();
    if (!second) {
        CHECK(getpid() == 2 && getppid() == 0);
        pause();
    }
    /* when the first one ends, so do all others, and nobody can be born any more */
    CHECK(write(fds[1], "x", 1) == 1);
    CHECK(status_of(second) == SIGKILL);
    CHECK(status_of(first) == 0);
    CHECK_ERR(fork(), ENOMEM);
}

/* Another process joins by a pidfd. */
static void joined(void)
{
    pid_t first = new_process(CLONE_NEWPID | CLONE_NEWUTS);
    if (!first) {
        CHECK(sethostname("joined", 6) == 0);
        pause();
    }
    int inside = syscall(SYS_pidfd_open, first, 0);
    CHECK_ERR(setns(inside, 0), EINVAL);
    CHECK_ERR(setns(inside, 1), EINVAL);
    CHECK(setns(inside, CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC) == 0);
    IN_CHILD({
        CHECK(getpid() == 2 && getppid() == 0);
        CHECK_ERR(syscall(SYS_pidfd_send_signal, inside, 99, 0, 0), EINVAL);
        CHECK(syscall(SYS_pidfd_send_signal, inside, SIGTERM, 0, 0) == 0); /* not heard */
    });
    CHECK(kill(first, SIGKILL) == 0 && status_of(first) == SIGKILL);
    CHECK_ERR(setns(inside, CLONE_NEWPID), ESRCH);
}

/* Orphans go to the first process; its death is told once all are gone. */
static void orphans(void)
{
    int fds[2];
    char c;
    CHECK(pipe(fds) == 0);
    pid_t first = new_process(CLONE_NEWPID);
    if (!first) {
        pid_t middle = fork();
        if (!middle) {
            if (!fork()) {
                while (getppid() != 1) sched_yield();
                CHECK(write(fds[1], "a", 1) == 1);
                pause();
            }
            _exit(0);
        }
        CHECK(status_of(middle) == 0);
        close(fds[1]);
        CHECK(read(fds[0], &c, 1) == 1 && c == 'a');
        _exit(4);
    }
    close(fds[1]);
    CHECK(status_of(first) == 4 << 8);
    CHECK(read(fds[0], &c, 1) == 0); /* nobody has the pipe any more */
    /* SIGKILL from outside */
    first = new_process(CLONE_NEWPID);
    if (!first) pause();
    CHECK(kill(first, SIGKILL) == 0 && status_of(first) == SIGKILL);
    /* reboot(2) */
    first = new_process(CLONE_NEWPID);
    if (!first) {
        CHECK_ERR(reboot(12345), EINVAL);
        CHECK_ERR(reboot(RB_ENABLE_CAD), EINVAL);
        reboot(RB_AUTOBOOT);
        pause();
    }
    CHECK(status_of(first) == SIGHUP);
    first = new_process(CLONE_NEWPID);
    if (!first) {
        reboot(RB_POWER_OFF);
        pause();
    }
    CHECK(status_of(first) == SIGINT);
}

static void descriptors(void)
{
    struct stat a, b;
    int outer = open("/proc/self/ns/pid", O_RDONLY), fds[2];
    char path[64];
    CHECK(outer >= 0 && ioctl(outer, NS_GET_NSTYPE) == CLONE_NEWPID && pipe(fds) == 0);
    CHECK(setns(outer, CLONE_NEWPID) == 0);
    pid_t child = new_process(CLONE_NEWPID);
    if (!child) {
        int own = open("/proc/self/ns/pid", O_RDONLY); /* by the /proc of outside */
        CHECK(own >= 0);
        CHECK_ERR(ioctl(own, NS_GET_PARENT), EPERM);
        CHECK_ERR(setns(outer, 0), EINVAL); /* never upwards */
        char c;
        CHECK(read(fds[0], &c, 1) == 1);
        _exit(0);
    }
    sprintf(path, "/proc/%d/ns/pid", child);
    int inner = open(path, O_RDONLY);
    CHECK(inner >= 0 && fstat(inner, &a) == 0 && fstat(outer, &b) == 0 && a.st_ino != b.st_ino);
    int parent = ioctl(inner, NS_GET_PARENT);
    CHECK(parent >= 0 && fstat(parent, &a) == 0 && a.st_ino == b.st_ino);
    CHECK_ERR(ioctl(outer, NS_GET_PARENT), EPERM);
    CHECK(write(fds[1], "x", 1) == 1 && status_of(child) == 0);
    CHECK(setns(inner, 0) == 0); /* it is there, but has ended */
    CHECK_ERR(fork(), ENOMEM);
}

static void chosen(void)
{
    pid_t wanted[2] = {1, 0};
    struct clone_args args = {.flags = CLONE_NEWPID, .exit_signal = SIGCHLD,
                              .set_tid = (uintptr_t)wanted, .set_tid_size = 1};
    pid_t child = syscall(SYS_clone3, &args, sizeof args);
    if (!child) {
        CHECK(getpid() == 1);
        wanted[0] = 42;
        args.flags = 0;
        child = syscall(SYS_clone3, &args, sizeof args);
        if (!child) _exit(getpid());
        CHECK(child == 42 && status_of(42) == 42 << 8);
        wanted[0] = 1;
        CHECK_ERR(syscall(SYS_clone3, &args, sizeof args), EEXIST);
        args.set_tid_size = 32;
        _exit(0);
    }
    CHECK(child > 0 && status_of(child) == 0);
    wanted[0] = 1;
    wanted[1] = child; /* who makes a user namespace may choose here what it could before */
    args.set_tid_size = 2;
    args.flags = CLONE_NEWPID | CLONE_NEWUSER;
    child = syscall(SYS_clone3, &args, sizeof args);
    if (!child) _exit(getpid() != 1);
    CHECK(child == wanted[1] && status_of(child) == 0);
    args.set_tid_size = 1;
    args.flags = CLONE_NEWPID;
    wanted[0] = 2;
    CHECK_ERR(syscall(SYS_clone3, &args, sizeof args), EINVAL); /* the first is 1 */
}

static void deep(void)
{
    for (int level = 0;; level++) {
        pid_t child = new_process(CLONE_NEWPID);
        if (child < 0) {
            int error = errno;
            CHECK(error == ENOSPC && level >= 8 && level <= 32);
            _exit(0);
        }
        if (child) {
            CHECK(status_of(child) == 0);
            break;
        }
        CHECK(getpid() == 1);
    }
}

int main(void)
{
    IN_CHILD(numbers());
    IN_CHILD(children_only());
    IN_CHILD(joined());
    IN_CHILD(orphans());
    IN_CHILD(descriptors());
    IN_CHILD(chosen());
    IN_CHILD(deep());
    return 0;
}
