/* mount, umount2, pivot_root: in a namespace of its own. Needs root. */
#define _GNU_SOURCE
#include "abi.h"
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define BAD ((void *)8)

static void touch(const char *path)
{
    int fd = open(path, O_CREAT | O_WRONLY, 0644);
    CHECK(fd >= 0);
    close(fd);
}

static dev_t dev(const char *path)
{
    struct stat st;
    CHECK(stat(path, &st) == 0);
    return st.st_dev;
}

static void wrong(void)
{
    CHECK_ERR(mount(BAD, BAD, BAD, 0, BAD), EFAULT);
    CHECK_ERR(mount("x", "none", "tmpfs", 0, 0), ENOENT);
    CHECK_ERR(mount("x", ".", "nonsense", 0, 0), ENODEV);
    CHECK_ERR(mount("x", ".", 0, 0, 0), EINVAL);
    CHECK_ERR(mount(0, ".", 0, MS_BIND, 0), EINVAL);
    CHECK_ERR(mount("none", ".", 0, MS_BIND, 0), ENOENT);
    CHECK_ERR(mount(0, "/proc/self", 0, MS_REMOUNT, 0), EINVAL);
    CHECK_ERR(mount("x", ".", "tmpfs", 0, "nonsense=1"), EINVAL);
    CHECK_ERR(umount2(BAD, 1 << 20), EINVAL);
    CHECK_ERR(umount2(BAD, 0), EFAULT);
    CHECK_ERR(umount2("none", 0), ENOENT);
    CHECK_ERR(umount2(".", 0), EINVAL);
}

/* Marked at the first call, gone at the second; whoever has used it in between takes the mark. */
static void expiring(const char *path)
{
    CHECK(mount("src", "m", "tmpfs", 0, 0) == 0);
    CHECK_ERR(umount2(path, MNT_EXPIRE), EAGAIN);
    CHECK(umount2(path, MNT_EXPIRE) == 0);
    CHECK_ERR(umount2("m", 0), EINVAL);
}

int main(void)
{
    struct statvfs vfs;
    char buf[8];
    CHECK(unshare(CLONE_NEWNS) == 0);
    CHECK(mount(0, "/", 0, MS_REC | MS_PRIVATE, 0) == 0);
    CHECK(mkdir("m", 0755) == 0 && mkdir("n", 0755) == 0);
    wrong();
    expiring("m");
    expiring("m/.");
    expiring("m/../m");
    touch("m/under");
    CHECK(mount("src", "m", "tmpfs", MS_NOSUID, "size=64k,mode=0700") == 0);
    CHECK(dev("m") != dev("."));
    CHECK_ERR(access("m/under", F_OK), ENOENT);
    struct stat st;
    CHECK(stat("m", &st) == 0 && (st.st_mode & 07777) == 0700);
    CHECK(statvfs("m", &vfs) == 0 && vfs.f_blocks * vfs.f_bsize == 65536);
    CHECK(vfs.f_flag & ST_NOSUID);
    int fd = open("m/f", O_CREAT | O_RDWR, 0644);
    char big[70000] = {0};
    CHECK(write(fd, big, sizeof big) == 65536);
    CHECK_ERR(write(fd, big, 1), ENOSPC);
    CHECK_ERR(umount("m"), EBUSY);
    close(fd);
    /* binds see the same files, with rights of their own */
    CHECK(mount("m", "n", 0, MS_BIND, 0) == 0);
    CHECK(access("n/f", F_OK) == 0 && dev("n") == dev("m"));
    CHECK(mount(0, "n", 0, MS_REMOUNT | MS_BIND | MS_RDONLY, 0) == 0);
    CHECK_ERR(open("n/g", O_CREAT | O_RDWR, 0644), EROFS);
    CHECK_ERR(open("n/f", O_RDWR), EROFS);
    CHECK_ERR(unlink("n/f"), EROFS);
    CHECK_ERR(mkdir("n/d", 0755), EROFS);
    CHECK_ERR(mkdir("n/f", 0755), EEXIST);
    CHECK_ERR(chmod("n/f", 0600), EROFS);
    CHECK_ERR(access("n/f", W_OK), EROFS);
    CHECK(access("m/f", W_OK) == 0 && unlink("m/f") == 0);
    CHECK_ERR(link("m", "n/x"), EROFS);
    touch("m/a");
    CHECK_ERR(link("m/a", "n/b"), EROFS);
    CHECK_ERR(rename("m/a", "x"), EXDEV);
    CHECK_ERR(rmdir("m"), EBUSY);
    int here = open(".", O_PATH);
    CHECK(mkdir("gone", 0777) == 0 && chdir("gone") == 0 && rmdir("../gone") == 0);
    CHECK_ERR(mount("none", ".", "tmpfs", 0, 0), ENOENT);  /* no place any more */
    CHECK(fchdir(here) == 0 && close(here) == 0);
    CHECK_ERR(rename("m", "k"), EBUSY);
    CHECK(umount("n") == 0);
    CHECK_ERR(umount("n"), EINVAL);
    /* a file on a file */
    touch("one");
    CHECK(mount("m/a", "one", 0, MS_BIND, 0) == 0 && dev("one") == dev("m"));
    CHECK_ERR(mount("m/a", "n", 0, MS_BIND, 0), ENOTDIR);
    CHECK_ERR(unlink("one"), EBUSY);
    CHECK(umount("one") == 0);
    /* recursive binds, moves, .. */
    CHECK(mkdir("m/sub", 0755) == 0 && mount("x", "m/sub", "tmpfs", 0, 0) == 0);
    touch("m/sub/deep");
    CHECK(mount("m", "n", 0, MS_BIND | MS_REC, 0) == 0 && access("n/sub/deep", F_OK) == 0);
    CHECK(umount("n/sub") == 0 && access("n/sub/deep", F_OK) == -1);
    CHECK(umount("n") == 0);
    CHECK(mount("m/sub", "n", 0, MS_MOVE, 0) == 0);
    CHECK(access("n/deep", F_OK) == 0 && access("m/sub/deep", F_OK) == -1);
    CHECK(access("n/../one", F_OK) == 0);
    /* lazy: it is gone from the tree, what is open works on */
    fd = open("n/deep", O_RDWR);
    CHECK(umount2("n", MNT_DETACH) == 0);
    CHECK(write(fd, "x", 1) == 1 && access("n/deep", F_OK) == -1);
    close(fd);
    /* noexec, nodev */
    CHECK(mount(0, "m", 0, MS_REMOUNT | MS_BIND | MS_NOEXEC | MS_NODEV, 0) == 0);
    CHECK(chmod("m/a", 0755) == 0);
    CHECK_ERR(access("m/a", X_OK), EACCES);
    CHECK_ERR(execl("m/a", "m/a", (char *)0), EACCES);
    if (mknod("m/null", S_IFCHR | 0666, 0x103) == 0)
        CHECK_ERR(open("m/null", O_RDONLY), EACCES);
    /* another root */
    CHECK(mkdir("m/old", 0755) == 0);
    CHECK(chdir("m") == 0);
    fd = open(".", O_PATH);
    CHECK(mkdir("gone", 0755) == 0 && chdir("gone") == 0 && rmdir("../gone") == 0);
    CHECK_ERR(syscall(SYS_pivot_root, "..", "."), ENOENT);
    CHECK(fchdir(fd) == 0);
    close(fd);
    CHECK(syscall(SYS_pivot_root, ".", "old") == 0);
    CHECK(chroot(".") == 0 && chdir("/") == 0);
    CHECK(access("/a", F_OK) == 0 && access("/old/proc", F_OK) == 0);
    CHECK(umount2("/old", MNT_DETACH) == 0);
    CHECK(access("/old/proc", F_OK) == -1);
    return 0;
}
