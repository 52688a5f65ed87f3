/* UTS, IPC and cgroup namespaces; ceilings; several kinds at once. Needs root. */
#define _GNU_SOURCE
#include "abi.h"
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/sem.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include "ns.h"

static const struct { const char *name; int flag; } KINDS[] = {
    {"cgroup", CLONE_NEWCGROUP}, {"ipc", CLONE_NEWIPC}, {"mnt", CLONE_NEWNS},
    {"net", CLONE_NEWNET}, {"time", CLONE_NEWTIME}, {"user", CLONE_NEWUSER},
    {"uts", CLONE_NEWUTS},
};

/* Every kind: the link changes, the way back is open. */
static void each(void)
{
    for (int i = 0; i < sizeof KINDS / sizeof *KINDS; i++) {
        IN_CHILD({
            char path[64];
            char file[64];
            char before[64] = {0};
            char after[64] = {0};
            char wanted[64];
            int flag = KINDS[i].flag;
            sprintf(path, "/proc/self/ns/%s", KINDS[i].name);
            sprintf(file, "/proc/self/ns/%s%s", KINDS[i].name,
                    flag == CLONE_NEWTIME ? "_for_children" : "");
            int fd = open(path, O_RDONLY);
            struct stat st;
            CHECK(fd >= 0 && fstat(fd, &st) == 0 && ioctl(fd, NS_GET_NSTYPE) == flag);
            CHECK(readlink(path, before, 63) > 0);
            sprintf(wanted, "%s:[%lu]", KINDS[i].name, st.st_ino);
            CHECK(!strcmp(before, wanted));
            CHECK(unshare(flag) == 0);
            CHECK(readlink(file, after, 63) > 0 && strcmp(before, after));
            if (flag != CLONE_NEWUSER) {
                CHECK_ERR(setns(fd, flag ^ CLONE_NEWUSER ^ CLONE_NEWPID), EINVAL);
                CHECK(setns(fd, flag) == 0);
                CHECK(readlink(file, after, 63) > 0 && !strcmp(before, after));
                int owner = ioctl(fd, NS_GET_USERNS);
                CHECK(owner >= 0 && ioctl(owner, NS_GET_NSTYPE) == CLONE_NEWUSER);
            } else
                CHECK_ERR(setns(fd, flag), EPERM);
            CHECK_ERR(open(path, O_RDWR), EPERM);
            CHECK_ERR(read(fd, path, 1), EINVAL);
        });
    }
}

/* The namespaces of a process by its pidfd: Linux 6.11. */
static void by_pidfd(void)
{
    static const char *LINKS[] = {"cgroup", "ipc", "mnt", "net", "pid", "pid_for_children", "time",
                                  "time_for_children", "user", "uts"};
    char path[64];
    struct stat a, b;
    int fds[2];
    CHECK(pipe(fds) == 0 && unshare(CLONE_NEWPID) == 0);
    pid_t child = fork();
    if (child == 0) {
        CHECK(unshare(CLONE_NEWUTS) == 0 && write(fds[1], "x", 1) == 1);
        pause();
    }
    CHECK(read(fds[0], path, 1) == 1);
    int fd = syscall(SYS_pidfd_open, child, 0);
    for (unsigned i = 0; i < sizeof LINKS / sizeof *LINKS; i++) {
        sprintf(path, "/proc/%d/ns/%s", child, LINKS[i]);
        int ns = ioctl(fd, 0xff01 + i, 0);
        CHECK(ns >= 0 && fstat(ns, &a) == 0 && stat(path, &b) == 0 && a.st_ino == b.st_ino);
        CHECK(close(ns) == 0);
    }
    CHECK_ERR(ioctl(fd, 0xff01, 1), EINVAL);
    CHECK_ERR(ioctl(fd, 0xfe01, 0), ENOTTY);
    IN_CHILD({
        CHECK(setresuid(1000, 1000, 1000) == 0);
        CHECK_ERR(ioctl(fd, 0xff01, 0), EACCES);
    });
    CHECK(kill(child, SIGKILL) == 0 && waitpid(child, NULL, 0) == child);
    CHECK_ERR(ioctl(fd, 0xff01, 0), ESRCH);
}

static void names(void)
{
    struct utsname uts;
    char text[100];
    int fds[2];
    CHECK(unshare(CLONE_NEWUTS) == 0 && sethostname("outer", 5) == 0 && pipe(fds) == 0);
    pid_t child = fork();
    if (!child) {
        CHECK(unshare(CLONE_NEWUTS) == 0);
        CHECK(uname(&uts) == 0 && !strcmp(uts.nodename, "outer")); /* a copy */
        CHECK(sethostname("inner", 5) == 0 && setdomainname("dom", 3) == 0);
        read_text("/proc/sys/kernel/hostname", text, sizeof text);
        CHECK(!strcmp(text, "inner\n"));
        char c;
        CHECK(read(fds[0], &c, 1) == 1);
        _exit(0);
    }
    int inside = syscall(SYS_pidfd_open, child, 0);
    CHECK(inside >= 0);
    IN_CHILD({
        do {
            CHECK(setns(inside, CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWCGROUP) == 0);
            CHECK(uname(&uts) == 0);
        } while (strcmp(uts.nodename, "inner"));
        CHECK_ERR(setns(inside, CLONE_NEWUTS | CLONE_NEWUSER), EINVAL); /* all or nothing */
    });
    CHECK(uname(&uts) == 0 && !strcmp(uts.nodename, "outer"));
    CHECK(write(fds[1], "x", 1) == 1 && status_of(child) == 0);
    CHECK_ERR(setns(inside, CLONE_NEWUTS), ESRCH);
}

static void objects(void)
{
    int key = 0x57000000 | getpid(), old = open("/proc/self/ns/ipc", O_RDONLY);
    int set = semget(key, 1, IPC_CREAT | 0600);
    CHECK(set >= 0 && unshare(CLONE_NEWIPC) == 0);
    CHECK_ERR(semget(key, 1, 0), ENOENT);
    CHECK(setns(old, CLONE_NEWIPC) == 0 && semget(key, 1, 0) == set);
    CHECK(semctl(set, 0, IPC_RMID) == 0);
}

/* The limits of a user namespace of one's own. */
static void ceilings(void)
{
    char text[64];
    CHECK(unshare(CLONE_NEWNS) == 0 && mount(0, "/", 0, MS_REC | MS_PRIVATE, 0) == 0);
    CHECK(mkdir("p", 0755) == 0 && mount("proc", "p", "proc", 0, 0) == 0);
    CHECK(unshare(CLONE_NEWUSER) == 0);
    CHECK(write_text("/proc/self/uid_map", "0 0 1") == 5);
    CHECK(write_text("/proc/self/setgroups", "deny") == 4);
    CHECK(write_text("/proc/self/gid_map", "0 0 1") == 5);
    read_text("p/sys/user/max_uts_namespaces", text, sizeof text);
    CHECK(!strcmp(text, "2147483647\n"));
    CHECK(write_text("p/sys/user/max_uts_namespaces", "1") == 1);
    CHECK(write_text("p/sys/user/max_user_namespaces", "0") == 1);
    CHECK(write_text("p/sys/user/max_net_namespaces", "-1") == -EINVAL);
    for (int i = 0; i < 3; i++) IN_CHILD(CHECK(unshare(CLONE_NEWUTS) == 0)); /* given back */
    CHECK(unshare(CLONE_NEWUTS) == 0);
    int fd = open("/proc/self/ns/uts", O_RDONLY);
    CHECK_ERR(unshare(CLONE_NEWUTS), ENOSPC);
    close(fd);
    CHECK_ERR(unshare(CLONE_NEWUSER), ENOSPC);
    CHECK_ERR(syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0), ENOSPC);
}

static void deep(int level)
{
    if (unshare(CLONE_NEWUSER) < 0) {
        int error = errno;
        CHECK(error == ENOSPC && level >= 8 && level <= 33);
        return;
    }
    CHECK(write_text("/proc/self/uid_map", "0 0 1") == 5);
    CHECK(write_text("/proc/self/setgroups", "deny") == 4 || level);
    CHECK(write_text("/proc/self/gid_map", "0 0 1") == 5);
    deep(level + 1);
}

int main(void)
{
    char text[100];
    each();
    IN_CHILD(by_pidfd());
    IN_CHILD(names());
    IN_CHILD(objects());
    IN_CHILD(ceilings());
    IN_CHILD(deep(0));
    IN_CHILD({
        CHECK(unshare(CLONE_NEWCGROUP) == 0);
        read_text("/proc/self/cgroup", text, sizeof text);
        CHECK(strstr(text, ":/\n"));
    });
    return 0;
}
