/* What an open file of /proc goes on showing, what it tells to poll, and who may write a sysctl. */
#define _GNU_SOURCE
#include "abi.h"
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <linux/capability.h>
#include <unistd.h>

static char text[1 << 16];

static char *contents(int fd)
{
    int size = 0, n;
    CHECK(lseek(fd, 0, SEEK_SET) == 0);
    while ((n = read(fd, text + size, sizeof text - 1 - size)) > 0)
        size += n;
    text[size] = 0;
    return text;
}

static void write_text(const char *path, const char *value)
{
    int fd = open(path, O_WRONLY);
    CHECK(fd >= 0 && write(fd, value, strlen(value)) == (ssize_t)strlen(value));
    close(fd);
}

static void expect_success(pid_t child)
{
    int status;
    CHECK(child > 0 && waitpid(child, &status, 0) == child && status == 0);
}

/* The mounts are those of the namespace that the process was in when the file was opened. */
static void mounts(void)
{
    CHECK(mkdir("old", 0755) == 0 && mkdir("new", 0755) == 0);
    int before = open("/proc/self/mounts", O_RDONLY);
    CHECK(mount(0, "old", "tmpfs", 0, 0) == 0);
    CHECK(strstr(contents(before), "none /") && strstr(text, "/old tmpfs"));
    CHECK(unshare(CLONE_NEWNS) == 0 && mount("tmp", "new", "tmpfs", 0, 0) == 0);
    CHECK(strstr(contents(before), "/old tmpfs") && !strstr(text, "/new tmpfs"));
    int now = open("/proc/self/mounts", O_RDONLY);
    CHECK(strstr(contents(now), "/new tmpfs"));
    struct pollfd fds[2] = {{before, POLLPRI}, {now, POLLPRI}};
    CHECK(umount("new") == 0);
    CHECK(poll(fds, 2, 0) == 2);
    CHECK(fds[1].revents & POLLERR);
    close(before);
    close(now);
}

static void names(void)
{
    struct epoll_event event = {0};
    CHECK(unshare(CLONE_NEWUTS) == 0);
    int host = open("/proc/sys/kernel/hostname", O_RDONLY), epoll = epoll_create1(0);
    int domain = open("/proc/sys/kernel/domainname", O_RDONLY);
    CHECK(epoll_ctl(epoll, EPOLL_CTL_ADD, host, &event) == 0);
    CHECK(epoll_ctl(epoll, EPOLL_CTL_ADD, domain, &event) == 0);
    CHECK(epoll_wait(epoll, &event, 1, 0) == 0);
    CHECK(sethostname("another", 7) == 0);
    CHECK(epoll_wait(epoll, &event, 1, 0) == 1 && event.events & EPOLLERR);
    CHECK(epoll_wait(epoll, &event, 1, 0) == 0);
    CHECK(setdomainname("place", 5) == 0);
    CHECK(epoll_wait(epoll, &event, 1, 0) == 1 && event.events & EPOLLERR);
    CHECK(epoll_wait(epoll, &event, 1, 0) == 0);
    int set = open("p/sys/kernel/hostname", O_WRONLY);
    CHECK(write(set, "third", 5) == 5 && write(set, "\n", 1) == 1);
    CHECK(!strcmp(contents(host), "third\n"));
    close(set);
    close(epoll);
    close(host);
    close(domain);
}

/* A limit of a user namespace belongs to whoever has CAP_SYS_RESOURCE there. */
static void limits(void)
{
    pid_t child = fork();
    if (!child) {
        const char *path = "p/sys/user/max_user_namespaces";
        struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
        struct __user_cap_data_struct data[2];
        CHECK(unshare(CLONE_NEWUSER) == 0);
        write_text(path, "42");
        CHECK(syscall(SYS_capget, &head, data) == 0);
        data[0].effective &= ~(1u << CAP_SYS_RESOURCE);
        CHECK(syscall(SYS_capset, &head, data) == 0);
        CHECK_ERR(open(path, O_WRONLY), EACCES);
        CHECK_ERR(open(path, O_RDWR), EACCES);
        int fd = open(path, O_RDONLY);
        CHECK(!strcmp(contents(fd), "42\n"));
        _exit(0);
    }
    expect_success(child);
}

static void drop_capabilities(unsigned kept)
{
    struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2] = {{kept, kept, 0}};
    CHECK(syscall(SYS_capset, &head, data) == 0);
}

/* Some handlers ask for a capability; else who writes is root by its uid, with or without any. */
static void root_alone(void)
{
    const char *asking[] = {"kernel/dmesg_restrict", "kernel/kptr_restrict", "vm/mmap_min_addr",
                            "kernel/tainted"};
    char path[100];
    CHECK(unshare(CLONE_NEWUTS | CLONE_NEWIPC) == 0);
    int given = open("p/sys/kernel/msg_next_id", O_WRONLY);
    CHECK(given >= 0 && write(given, "7", 1) == 1);
    drop_capabilities(0);
    CHECK_ERR(pwrite(given, "8", 1, 0), EPERM);
    CHECK_ERR(pwrite(given, "8", 1, 1), EPERM);
    CHECK_ERR(pwrite(given, "", 0, 0), EPERM);
    CHECK_ERR(open("p/sys/kernel/msg_next_id", O_WRONLY), EACCES);
    for (int i = 0; i < 4; i++) {
        sprintf(path, "p/sys/%s", asking[i]);
        int fd = open(path, O_RDWR);
        CHECK(fd >= 0 && strlen(contents(fd)) > 1 && lseek(fd, 0, SEEK_SET) == 0);
        CHECK_ERR(write(fd, text, strlen(text)), EPERM);
        CHECK_ERR(pwrite(fd, text, 1, 1), EPERM);
        CHECK_ERR(pwrite(fd, "", 0, 0), EPERM);
        close(fd);
    }
    write_text("p/sys/kernel/hostname", "fourth");
    int name = open("p/sys/kernel/hostname", O_RDWR);
    CHECK(pwrite(name, "", 0, 0) == 0 && !strcmp(contents(name), "fourth\n"));
    close(name);
    CHECK_ERR(open("p/sys/vm/drop_caches", O_RDONLY), EACCES);
    CHECK_ERR(access("p/sys/vm/drop_caches", R_OK), EACCES);
    CHECK_ERR(open("p/sys/fs/inode-nr", O_WRONLY), EACCES);
}

/* Nobody else, whatever capabilities it has, or who has opened the file. */
static void others(void)
{
    char byte[20];
    CHECK(unshare(CLONE_NEWUTS) == 0 && prctl(PR_SET_KEEPCAPS, 1) == 0);
    int name = open("p/sys/kernel/hostname", O_RDWR);
    int bits = open("p/sys/vm/mmap_rnd_bits", O_RDONLY);
    CHECK(name >= 0 && write(name, "fifth", 5) == 5 && bits >= 0);
    CHECK(setresgid(1000, 1000, 1000) == 0 && setresuid(1000, 1000, 1000) == 0);
    drop_capabilities(1u << CAP_DAC_OVERRIDE | 1u << CAP_SYS_ADMIN);
    CHECK_ERR(open("p/sys/kernel/hostname", O_WRONLY), EACCES);
    CHECK_ERR(open("p/sys/vm/mmap_rnd_bits", O_RDONLY), EACCES);
    CHECK_ERR(pwrite(name, "sixth", 5, 0), EPERM);
    CHECK_ERR(pwrite(name, "sixth", 5, 5), EPERM);
    CHECK_ERR(read(bits, byte, 20), EPERM);
    CHECK(!strcmp(contents(name), "fifth\n"));
    drop_capabilities(0);
    int last = open("p/sys/kernel/ns_last_pid", O_WRONLY);
    CHECK(last >= 0);
    CHECK_ERR(write(last, "500", 3), EPERM);
    CHECK_ERR(pwrite(last, "500", 3, 1), EPERM);
    CHECK_ERR(pwrite(last, "", 0, 0), EPERM);
    CHECK(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) == 0);
    CHECK(unshare(CLONE_NEWUSER | CLONE_NEWUTS | CLONE_NEWIPC) == 0);
    CHECK_ERR(open("p/sys/kernel/hostname", O_WRONLY), EACCES);
    CHECK(open("p/sys/kernel/msg_next_id", O_WRONLY) >= 0);
}

static void writers(void)
{
    struct stat st;
    CHECK(stat("p/sys/kernel/msg_next_id", &st) == 0 && st.st_mode == (S_IFREG | 0444));
    CHECK(stat("p/sys/vm/drop_caches", &st) == 0 && st.st_mode == (S_IFREG | 0200));
    pid_t child = fork();
    if (!child) {
        root_alone();
        exit(0);
    }
    expect_success(child);
    if (!(child = fork())) {
        others();
        exit(0);
    }
    expect_success(child);
}

/* The map of a process that is gone can still be read, its other files not. */
static void after_the_end(void)
{
    char path[40], byte;
    pid_t child = fork();
    if (!child) {
        pause();
        _exit(0);
    }
    snprintf(path, sizeof path, "/proc/%d/uid_map", child);
    int map = open(path, O_RDONLY);
    snprintf(path, sizeof path, "/proc/%d/comm", child);
    int comm = open(path, O_RDONLY);
    CHECK(kill(child, SIGKILL) == 0 && waitpid(child, 0, 0) == child);
    CHECK(read(map, &byte, 1) == 1);
    CHECK_ERR(read(comm, &byte, 1), ESRCH);
    close(map);
    close(comm);
}

static ssize_t access_of(const char *path, int flags, char *value)
{
    int fd = open(path, flags);
    CHECK(fd >= 0);
    ssize_t n = flags == O_RDONLY ? read(fd, value, 16) : write(fd, value, strlen(value));
    int error = errno;
    close(fd);
    errno = error;
    return n;
}

static void refused(void)
{
    char value[16] = "1";
    CHECK_ERR(access_of("/proc/self/status", O_WRONLY, value), EINVAL);
    CHECK_ERR(access_of("/proc/version", O_WRONLY, value), EIO);
    CHECK(access_of("/proc/self/clear_refs", O_WRONLY, value) == 1);
    CHECK_ERR(access_of("/proc/self/clear_refs", O_WRONLY, "6"), EINVAL);
    CHECK_ERR(access_of("/proc/self/clear_refs", O_RDONLY, value), EINVAL);
    if (access("/proc/config.gz", F_OK) == 0) {
        CHECK(access_of("/proc/config.gz", O_RDONLY, value) == 16);
        CHECK(value[0] == '\x1f' && value[1] == '\x8b');
    }
}

/* A file of /sys is as large as a page, one of /proc/sys empty; most of /proc have no end. */
static void ends(void)
{
    struct stat st;
    int sys = open("/sys/devices/system/cpu/online", O_RDONLY);
    int sysctl = open("/proc/sys/kernel/ostype", O_RDONLY), proc = open("/proc/stat", O_RDONLY);
    CHECK(fstat(sys, &st) == 0 && st.st_size == 4096 && lseek(sys, 0, SEEK_END) == 4096);
    CHECK(lseek(sys, 1, SEEK_HOLE) == 4096 && lseek(sys, 5, SEEK_DATA) == 5);
    CHECK(fstat(sysctl, &st) == 0 && st.st_size == 0 && lseek(sysctl, 3, SEEK_END) == 3);
    CHECK_ERR(lseek(sysctl, 0, SEEK_DATA), ENXIO);
    CHECK_ERR(lseek(proc, 0, SEEK_END), EINVAL);
    CHECK_ERR(lseek(proc, 0, SEEK_HOLE), EINVAL);
    close(sys), close(sysctl), close(proc);
}

int main(void)
{
    CHECK(unshare(CLONE_NEWNS) == 0 && mount(0, "/", 0, MS_REC | MS_PRIVATE, 0) == 0);
    CHECK(mkdir("p", 0755) == 0 && mount("proc", "p", "proc", 0, 0) == 0); /* one to write to */
    limits();
    writers();
    names();
    after_the_end();
    mounts();
    refused();
    ends();
    return 0;
}
