/* User namespaces: maps, capabilities, ids seen from both sides. Needs root. */
#define _GNU_SOURCE
#include "abi.h"
#include <fcntl.h>
#include <grp.h>
#include <sys/resource.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <linux/capability.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "ns.h"

static int up[2], down[2];

static void reach(int fd) { CHECK(write(fd, "x", 1) == 1); }
static void await(int fd) { char c; CHECK(read(fd, &c, 1) == 1); }

static uint64_t effective(void)
{
    struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2];
    CHECK(syscall(SYS_capget, &head, data) == 0);
    return data[0].effective | (uint64_t)data[1].effective << 32;
}

/* An ordinary user alone: one id of its own, and nothing outside. */
static void alone(void)
{
    struct stat st;
    char text[200];
    CHECK(setgroups(0, 0) == 0 && setresgid(1000, 1000, 1000) == 0);
    CHECK(setresuid(1000, 1000, 1000) == 0 && prctl(PR_SET_DUMPABLE, 1) == 0);
    CHECK(effective() == 0);
    CHECK_ERR(unshare(CLONE_NEWUTS), EPERM);
    CHECK(unshare(CLONE_NEWUSER) == 0);
    CHECK(getuid() == 65534 && geteuid() == 65534 && getgid() == 65534);
    CHECK((effective() & 0xffffffff) == 0xffffffff);
    CHECK(prctl(PR_GET_SECUREBITS) == 0);
    read_text("/proc/self/uid_map", text, sizeof text);
    CHECK(!strcmp(text, ""));
    CHECK_ERR(setuid(0), EINVAL);
    CHECK_ERR(setgroups(0, 0), EPERM);
    CHECK(write_text("/proc/self/uid_map", "0 0 1") == -EPERM);
    CHECK(write_text("/proc/self/uid_map", "0 1000 2") == -EPERM);
    CHECK(write_text("/proc/self/uid_map", "nonsense") == -EINVAL);
    CHECK(write_text("/proc/self/uid_map", "0 1000 0") == -EINVAL);
    CHECK(write_text("/proc/self/gid_map", "0 1000 1") == -EPERM); /* setgroups first */
    read_text("/proc/self/setgroups", text, sizeof text);
    CHECK(!strcmp(text, "allow\n"));
    CHECK(write_text("/proc/self/setgroups", "maybe") == -EINVAL);
    CHECK(write_text("/proc/self/setgroups", "deny") == 4);
    CHECK(write_text("/proc/self/setgroups", "allow") == -EPERM);
    CHECK(write_text("/proc/self/gid_map", "0 1000 1") == 8);
    CHECK(write_text("/proc/self/uid_map", "0 1000 1") == 8);
    CHECK(write_text("/proc/self/uid_map", "0 1000 1") == -EPERM);
    read_text("/proc/self/uid_map", text, sizeof text);
    CHECK(!strcmp(text, "         0       1000          1\n"));
    CHECK(getuid() == 0 && geteuid() == 0 && getgid() == 0);
    CHECK_ERR(setgroups(0, 0), EPERM);
    CHECK_ERR(setuid(5), EINVAL);
    CHECK(setresuid(0, -1, 0) == 0);
    /* files: mine are root's, root's are the overflow user's */
    CHECK(stat("mine", &st) == 0 && st.st_uid == 0 && st.st_gid == 0);
    CHECK(stat("secret", &st) == 0 && st.st_uid == 65534 && st.st_gid == 65534);
    CHECK_ERR(open("secret", O_RDONLY), EACCES);
    CHECK_ERR(chmod("secret", 0777), EPERM);
    CHECK_ERR(chown("mine", 1000, -1), EINVAL);
    CHECK_ERR(chown("mine", 65534, -1), EINVAL);
    CHECK(chown("mine", 0, 0) == 0 && chmod("mine", 0600) == 0);
    CHECK_ERR(mknod("dev", S_IFCHR | 0600, makedev(1, 3)), EPERM);
    /* capabilities count here alone */
    CHECK_ERR(sethostname("x", 1), EPERM);
    CHECK_ERR(mount("x", "/tmp", "tmpfs", 0, 0), EPERM);
    CHECK(chroot("/") == 0);
    CHECK_ERR(kill(getppid(), 0), EPERM);
    CHECK_ERR(setpriority(0, 0, -5), EACCES);
    struct rlimit limit;
    CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    limit.rlim_max++;
    CHECK_ERR(setrlimit(RLIMIT_NOFILE, &limit), EPERM);
    CHECK_ERR(syscall(SYS_reboot, 1, 2, 3, 0), EPERM);
    CHECK_ERR(syscall(SYS_acct, 0), EPERM);
    CHECK_ERR(ptrace(PTRACE_SEIZE, getppid(), 0, 0), EPERM);
    struct timespec now = {0};
    CHECK_ERR(clock_settime(CLOCK_REALTIME, &now), EPERM);
    CHECK(socket(AF_INET, SOCK_RAW, 1) == -1 && errno == EPERM);
    CHECK(unshare(CLONE_NEWUTS) == 0 && sethostname("inside", 6) == 0);
    CHECK(unshare(CLONE_NEWNET) == 0 && socket(AF_INET, SOCK_RAW, 1) >= 0);
    CHECK(unshare(CLONE_NEWNS | CLONE_NEWIPC) == 0);
    CHECK(mkdir("top", 0755) == 0 && mount("x", "top", "tmpfs", 0, "size=64k") == 0);
    CHECK(stat("top", &st) == 0 && st.st_uid == 0);
    CHECK_ERR(mknod("top/dev", S_IFCHR | 0600, makedev(1, 3)), EPERM);
    CHECK_ERR(umount("/proc"), EINVAL); /* locked together */
    CHECK_ERR(mount("proc", "top", "proc", 0, 0), EPERM); /* of another's PID namespace */
    CHECK(mount("mqueue", "top", "mqueue", 0, 0) == 0);
    /* set-user-id programs of others count for nothing */
    CHECK(prctl(PR_CAPBSET_DROP, 21) == 0);
}

/* Root outside gives a map of many ids to a child. */
static void mapped(void)
{
    struct stat st;
    char path[64], text[200];
    int pair[2], one = 1;
    CHECK(pipe(up) == 0 && pipe(down) == 0 && socketpair(AF_UNIX, SOCK_DGRAM, 0, pair) == 0);
    CHECK(setsockopt(pair[0], SOL_SOCKET, SO_PASSCRED, &one, 4) == 0);
    CHECK(setsockopt(pair[1], SOL_SOCKET, SO_PASSCRED, &one, 4) == 0);
    pid_t child = fork();
    if (!child) {
        CHECK(unshare(CLONE_NEWUSER) == 0);
        reach(up[1]);
        await(down[0]);
        CHECK(getuid() == 65534);
        CHECK(setgid(7) == 0 && setgroups(1, (gid_t[]){8}) == 0);
        CHECK(setuid(0) == 0 && getuid() == 0 && effective() != 0);
        CHECK(setuid(7) == 0 && effective() == 0); /* no longer root here */
        CHECK(getuid() == 7 && getgid() == 7);
        gid_t groups[4];
        CHECK(getgroups(4, groups) == 1 && groups[0] == 8);
        int fd = open("made", O_CREAT | O_RDWR, 0644);
        CHECK(fd >= 0 && fstat(fd, &st) == 0 && st.st_uid == 7 && st.st_gid == 7);
        struct ucred got = receive_creds(pair[1]);
        CHECK(got.uid == 65534 && got.gid == 65534 && got.pid == getppid());
        send_creds(pair[1], getpid(), 7, 7, 0);
        send_creds(pair[1], getpid(), 8, 7, EPERM);
        send_creds(pair[1], getpid(), 500, 7, EINVAL);
        sigset_t set;
        sigemptyset(&set);
        sigaddset(&set, SIGUSR1);
        sigprocmask(SIG_BLOCK, &set, 0);
        reach(up[1]);
        siginfo_t info;
        CHECK(sigwaitinfo(&set, &info) == SIGUSR1 && info.si_uid == 65534);
        CHECK(info.si_pid == getppid());
        _exit(0);
    }
    await(up[0]);
    sprintf(path, "/proc/%d/uid_map", child);
    CHECK(write_text(path, "0 5000 10\n20 5100 10\n5 9 1\n") == -EINVAL); /* overlap */
    CHECK(write_text(path, "0 5000 10\n20 5100 10\n") == 21);
    CHECK(write_text(path, "0 5000 10\n") == -EPERM);
    read_text(path, text, sizeof text);
    CHECK(!strcmp(text, "         0       5000         10\n        20       5100         10\n"));
    sprintf(path, "/proc/%d/gid_map", child);
    CHECK(write_text(path, "0 6000 10\n") == 10);
    sprintf(path, "/proc/%d/setgroups", child);
    CHECK(write_text(path, "deny") == -EPERM); /* too late */
    CHECK(chmod(".", 0777) == 0);
    reach(down[1]);
    send_creds(pair[0], getpid(), 0, 0, 0);
    struct ucred got = receive_creds(pair[0]);
    CHECK(got.uid == 5007 && got.gid == 6007 && got.pid == child);
    await(up[0]);
    CHECK(stat("made", &st) == 0 && st.st_uid == 5007 && st.st_gid == 6007);
    sprintf(path, "/proc/%d/status", child);
    read_text(path, text, sizeof text);
    CHECK(kill(child, SIGUSR1) == 0);
    CHECK(status_of(child) == 0);
}

/* A file of a map that was open before: rights are those of who opened it and of who writes, and
 * the namespace is the one of then. */
static void open_before(void)
{
    char path[64], text[200];
    CHECK(pipe(up) == 0 && pipe(down) == 0);
    pid_t child = fork();
    if (!child) {
        CHECK(unshare(CLONE_NEWUSER) == 0);
        reach(up[1]);
        await(down[0]);
        CHECK(unshare(CLONE_NEWUSER) == 0);
        reach(up[1]);
        await(down[0]);
        _exit(0);
    }
    await(up[0]);
    sprintf(path, "/proc/%d/uid_map", child);
    int fd = open(path, O_RDWR);
    sprintf(path, "/proc/%d/projid_map", child);
    int projects = open(path, O_RDWR);
    CHECK(fd >= 0 && projects >= 0);
    pid_t writer = fork();
    if (!writer) {
        CHECK(setresuid(1000, 1000, 1000) == 0);
        CHECK_ERR(write(fd, "0 0 10", 6), EPERM);
        _exit(0);
    }
    CHECK(status_of(writer) == 0);
    CHECK(write(fd, "0 0 10", 6) == 6);
    sprintf(path, "/proc/%d/gid_map", child);
    CHECK(write_text(path, "0 0 10") == 6);
    reach(down[1]);
    await(up[0]);
    CHECK(write(projects, "0 0 10", 6) == 6);
    CHECK(pread(projects, text, sizeof text, 0) == 33);
    reach(down[1]);
    CHECK(status_of(child) == 0);
}

/* Nested ones, and the descriptors of namespaces. */
static void nested(void)
{
    uid_t owner;
    int initial = open("/proc/self/ns/user", O_RDONLY);
    CHECK(initial >= 0);
    CHECK(ioctl(initial, NS_GET_NSTYPE) == CLONE_NEWUSER);
    CHECK_ERR(setns(initial, 0), EINVAL); /* one's own */
    CHECK_ERR(setns(initial, CLONE_NEWNET), EINVAL);
    CHECK(setresuid(1000, 1000, 1000) == 0 && prctl(PR_SET_DUMPABLE, 1) == 0);
    CHECK(unshare(CLONE_NEWUSER) == 0);
    CHECK_ERR(ioctl(initial, NS_GET_PARENT), EPERM);
    CHECK_ERR(unshare(CLONE_NEWUSER), EPERM); /* no ids */
    CHECK(write_text("/proc/self/uid_map", "0 1000 1") == 8);
    CHECK(write_text("/proc/self/setgroups", "deny") == 4);
    CHECK_ERR(setns(initial, CLONE_NEWUSER), EPERM);
    int first = open("/proc/self/ns/user", O_RDONLY);
    CHECK(ioctl(first, NS_GET_OWNER_UID, &owner) == 0 && owner == 0);
    CHECK_ERR(ioctl(first, NS_GET_PARENT), EPERM);
    CHECK_ERR(ioctl(first, NS_GET_USERNS), EPERM);
    CHECK(unshare(CLONE_NEWUTS) == 0);
    int uts = open("/proc/self/ns/uts", O_RDONLY);
    int of = ioctl(uts, NS_GET_USERNS);
    struct stat a, b;
    CHECK(of >= 0 && fstat(of, &a) == 0 && fstat(first, &b) == 0 && a.st_ino == b.st_ino);
    CHECK_ERR(ioctl(uts, NS_GET_PARENT), EINVAL);
    CHECK_ERR(ioctl(uts, NS_GET_OWNER_UID, &owner), EINVAL);
    CHECK_ERR(ioctl(uts, TCGETS_), ENOTTY);
}

/* A namespace whose parent is the 32nd below the first one is the last. */
static void deep(void)
{
    int level = 0;
    while (unshare(CLONE_NEWUSER) == 0) {
        CHECK(++level < 40);
        CHECK(write_text("/proc/self/setgroups", "deny") == 4);
        CHECK(write_text("/proc/self/uid_map", "0 0 1") == 5);
        CHECK(write_text("/proc/self/gid_map", "0 0 1") == 5);
    }
    CHECK_ERR(unshare(CLONE_NEWUSER), ENOSPC);
    CHECK(level == 33);
}

int main(void)
{
    int fd = open("secret", O_CREAT | O_RDWR, 0600);
    CHECK(fd >= 0 && close(fd) == 0);
    fd = open("mine", O_CREAT | O_RDWR, 0600);
    CHECK(fd >= 0 && fchown(fd, 1000, 1000) == 0 && close(fd) == 0);
    CHECK(chmod(".", 0777) == 0);
    IN_CHILD(alone());
    IN_CHILD(mapped());
    IN_CHILD(open_before());
    IN_CHILD(nested());
    IN_CHILD(deep());
    /* clone: the child is there from its first instruction */
    IN_CHILD({
        pid_t child = syscall(SYS_clone, CLONE_NEWUSER | CLONE_NEWUTS | SIGCHLD, 0, 0, 0, 0);
        if (!child) {
            CHECK(getuid() == 65534 && sethostname("x", 1) == 0);
            _exit(0);
        }
        CHECK(child > 0 && status_of(child) == 0);
    });
    CHECK_ERR(syscall(SYS_clone, CLONE_NEWUSER | CLONE_FS | SIGCHLD, 0, 0, 0, 0), EINVAL);
    CHECK_ERR(unshare(1 << 31), EINVAL);
    return 0;
}
