/* Mount namespaces: joining, and what a less privileged one may not undo. Needs root. */
#define _GNU_SOURCE
#include "abi.h"
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include "ns.h"

static int up[2], down[2];

static void put(const char *path)
{
    int fd = open(path, O_CREAT | O_WRONLY, 0644);
    CHECK(fd >= 0);
    close(fd);
}

static void go(int fd) { CHECK(write(fd, "x", 1) == 1); }
static void await(int fd) { char c; CHECK(read(fd, &c, 1) == 1); }

static void joining(const char *here)
{
    char path[600], link[64] = {0}, other[64] = {0};
    struct stat a, b;
    CHECK(pipe(up) == 0 && pipe(down) == 0);
    int own = open("/proc/self/ns/mnt", O_RDONLY);
    CHECK(own >= 0 && ioctl(own, NS_GET_NSTYPE) == CLONE_NEWNS);
    pid_t child = fork();
    if (!child) {
        CHECK(unshare(CLONE_NEWNS) == 0);
        CHECK(mount("x", "m", "tmpfs", 0, 0) == 0);
        put("m/inside");
        go(up[1]);
        await(down[0]);
        _exit(0);
    }
    await(up[0]);
    CHECK_ERR(access("m/inside", F_OK), ENOENT);
    sprintf(path, "/proc/%d/ns/mnt", child);
    int theirs = open(path, O_RDONLY);
    CHECK(fstat(theirs, &a) == 0 && fstat(own, &b) == 0 && a.st_ino != b.st_ino);
    sprintf(path, "/proc/%d/root%s/m/inside", child, here);
    CHECK(access(path, F_OK) == 0);
    sprintf(path, "%s/m/inside", here);
    IN_CHILD({
        CHECK_ERR(setns(theirs, CLONE_NEWUTS), EINVAL);
        CHECK(setns(theirs, CLONE_NEWNS) == 0);
        char cwd[600];
        CHECK(getcwd(cwd, 600) && !strcmp(cwd, "/")); /* at its root */
        CHECK(access(path, F_OK) == 0);
        CHECK(setns(own, 0) == 0);
        CHECK_ERR(access(path, F_OK), ENOENT);
    });
    IN_CHILD({ /* a shared root cannot go elsewhere */
        int fds[2];
        CHECK(pipe(fds) == 0);
        pid_t sharer = syscall(SYS_clone, CLONE_FS | SIGCHLD, 0, 0, 0, 0);
        if (!sharer) {
            await(fds[0]);
            _exit(0);
        }
        CHECK_ERR(setns(theirs, 0), EINVAL);
        go(fds[1]);
        CHECK(status_of(sharer) == 0);
    });
    IN_CHILD({
        CHECK(setresuid(1000, 1000, 1000) == 0);
        CHECK_ERR(setns(theirs, 0), EPERM);
        CHECK_ERR(unshare(CLONE_NEWNS), EPERM);
    });
    go(down[1]);
    CHECK(status_of(child) == 0);
    CHECK_ERR(syscall(SYS_clone, CLONE_NEWNS | CLONE_FS | SIGCHLD, 0, 0, 0, 0), EINVAL);
}

static void locked(void)
{
    struct statvfs vfs;
    CHECK(mount("x", "m", "tmpfs", MS_NODEV, 0) == 0);
    put("m/hidden");
    CHECK(mkdir("m/d", 0755) == 0 && mount("y", "m/d", "tmpfs", MS_RDONLY | MS_NOSUID, 0) == 0);
    CHECK(mount(0, "m", 0, MS_SHARED, 0) == 0);
    CHECK(pipe(up) == 0 && pipe(down) == 0);
    pid_t child = fork();
    if (!child) {
        CHECK(unshare(CLONE_NEWUSER | CLONE_NEWNS) == 0);
        CHECK(write_text("/proc/self/setgroups", "deny") == 4);
        CHECK(write_text("/proc/self/uid_map", "0 0 1") == 5);
        CHECK(write_text("/proc/self/gid_map", "0 0 1") == 5);
        CHECK_ERR(umount("m/d"), EINVAL); /* locked together */
        CHECK_ERR(mount("m/d", "n", 0, MS_MOVE, 0), EINVAL);
        CHECK_ERR(mount(0, "m/d", 0, MS_REMOUNT | MS_BIND | MS_NOSUID, 0), EPERM);
        CHECK_ERR(mount(0, "m/d", 0, MS_REMOUNT | MS_BIND | MS_RDONLY, 0), EPERM);
        CHECK(mount(0, "m/d", 0, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NOEXEC, 0) == 0);
        CHECK_ERR(mount("m", "n", 0, MS_BIND, 0), EINVAL); /* would show what m/d hides */
        CHECK(mount("m", "n", 0, MS_BIND | MS_REC, 0) == 0);
        CHECK_ERR(umount("n/d"), EINVAL);
        CHECK(umount2("n", MNT_DETACH) == 0);
        CHECK(mount("own", "n", "tmpfs", 0, 0) == 0 && mkdir("n/sub", 0755) == 0);
        CHECK(mount("own", "n/sub", "tmpfs", 0, 0) == 0 && umount("n/sub") == 0);
        /* what is mounted here stays here, what is mounted there comes */
        CHECK(mkdir("m/e", 0755) == 0 && mkdir("m/f", 0755) == 0);
        CHECK(mount("own", "m/f", "tmpfs", 0, 0) == 0);
        put("m/f/mine");
        go(up[1]);
        await(down[0]);
        CHECK(access("m/e/theirs", F_OK) == 0);
        CHECK(umount("m/e") == 0); /* one that came alone hides nothing */
        _exit(0);
    }
    await(up[0]);
    CHECK_ERR(access("m/f/mine", F_OK), ENOENT);
    CHECK(statvfs("m/d", &vfs) == 0 && !(vfs.f_flag & ST_NOEXEC));
    CHECK(mount("z", "m/e", "tmpfs", 0, 0) == 0);
    put("m/e/theirs");
    go(down[1]);
    CHECK(status_of(child) == 0);
    CHECK(umount("m/e") == 0 && umount("m/d") == 0);
    IN_CHILD(CHECK(chdir("m") == 0)); /* who is gone does not keep it busy */
    CHECK(umount("m") == 0);
}

int main(void)
{
    char here[512];
    CHECK(getcwd(here, sizeof here));
    CHECK(unshare(CLONE_NEWNS) == 0 && mount(0, "/", 0, MS_REC | MS_PRIVATE, 0) == 0);
    CHECK(mkdir("m", 0755) == 0 && mkdir("n", 0755) == 0);
    IN_CHILD(joining(here));
    IN_CHILD(locked());
    /* a mount namespace cannot be bound into itself, or into an older one */
    put("file");
    CHECK_ERR(mount("/proc/self/ns/mnt", "file", 0, MS_BIND, 0), EINVAL);
    CHECK(mount("/proc/self/ns/uts", "file", 0, MS_BIND, 0) == 0 && umount("file") == 0);
    return 0;
}
