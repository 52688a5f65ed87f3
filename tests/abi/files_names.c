/* link, symlink, unlink, rename, mkdir, rmdir, mknod, readlink: rules and the order of checks. */
#define _GNU_SOURCE
#include "abi.h"
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#define BAD ((void *)8)

static void touch(const char *path)
{
    int fd = open(path, O_CREAT | O_WRONLY, 0644);
    CHECK(fd >= 0);
    close(fd);
}

static struct stat st;
static ino_t ino(const char *path)
{
    CHECK(lstat(path, &st) == 0);
    return st.st_ino;
}

static void wrong(void)
{
    char buf[8];
    CHECK_ERR(unlinkat(99, BAD, 1), EINVAL);
    CHECK_ERR(unlinkat(99, BAD, 0), EFAULT);
    CHECK_ERR(unlinkat(99, "x", 0), EBADF);
    CHECK_ERR(unlinkat(99, "", 0), ENOENT);
    CHECK_ERR(syscall(SYS_renameat2, 99, BAD, 99, BAD, 64), EINVAL);
    CHECK_ERR(syscall(SYS_renameat2, 99, BAD, 99, BAD, RENAME_EXCHANGE | RENAME_NOREPLACE), EINVAL);
    CHECK_ERR(syscall(SYS_renameat2, 99, BAD, 99, BAD, 0), EFAULT);
    CHECK_ERR(syscall(SYS_renameat2, 99, "a", 99, "b", 0), EBADF);
    CHECK_ERR(linkat(99, BAD, 99, BAD, 1), EINVAL);
    CHECK_ERR(linkat(99, BAD, 99, BAD, 0), EFAULT);
    CHECK_ERR(symlinkat(BAD, 99, BAD), EFAULT);
    CHECK_ERR(symlinkat("", 99, "x"), ENOENT);
    CHECK_ERR(symlinkat("x", 99, "x"), EBADF);
    CHECK_ERR(mkdirat(99, BAD, 0), EFAULT);
    CHECK_ERR(mkdirat(99, "x", 0), EBADF);
    CHECK_ERR(mknodat(99, BAD, S_IFDIR, 0), EPERM);
    CHECK_ERR(mknodat(99, BAD, S_IFLNK, 0), EINVAL);
    CHECK_ERR(mknodat(99, BAD, S_IFIFO, 0), EFAULT);
    CHECK_ERR(syscall(SYS_readlinkat, 99, BAD, BAD, 0), EINVAL);
    CHECK_ERR(syscall(SYS_readlinkat, 99, BAD, BAD, 8), EFAULT);
    CHECK_ERR(readlinkat(99, "x", buf, 8), EBADF);
    CHECK_ERR(readlink("", buf, 8), ENOENT);
    CHECK_ERR(readlink(".", buf, 8), EINVAL);
    CHECK_ERR(rmdir(BAD), EFAULT);
    CHECK_ERR(mkdir("", 0700), ENOENT);
}

static void directories(void)
{
    CHECK(mkdir("d", 0755) == 0);
    CHECK_ERR(mkdir("d", 0755), EEXIST);
    CHECK_ERR(mkdir(".", 0755), EEXIST);
    CHECK_ERR(mkdir("/", 0755), EEXIST);
    CHECK_ERR(mkdir("none/d", 0755), ENOENT);
    CHECK(mkdir("d/slashes///", 0755) == 0);
    CHECK(rmdir("d/slashes/") == 0);
    touch("d/f");
    CHECK_ERR(rmdir("d"), ENOTEMPTY);
    CHECK_ERR(rmdir("d/f"), ENOTDIR);
    CHECK_ERR(rmdir("d/."), EINVAL);
    CHECK_ERR(rmdir("d/.."), ENOTEMPTY);
    CHECK_ERR(unlink("d"), EISDIR);
    CHECK_ERR(unlink("d/"), EISDIR);
    CHECK_ERR(unlink("d/f/"), ENOTDIR);
    CHECK_ERR(unlink("d/."), EISDIR);
    CHECK_ERR(unlink("none"), ENOENT);
    CHECK(unlink("d/f") == 0);
    int fd = open("d", O_RDONLY);
    CHECK(rmdir("d") == 0);
    CHECK_ERR(openat(fd, "x", O_CREAT | O_RDWR, 0600), ENOENT);
    CHECK_ERR(mkdirat(fd, "x", 0700), ENOENT);
    CHECK(fstat(fd, &st) == 0 && st.st_nlink == 0);
    char buf[64];
    CHECK_ERR(syscall(SYS_getdents64, fd, buf, sizeof buf), ENOENT);
    close(fd);
    umask(077);
    CHECK(mkdir("masked", 01777) == 0);
    CHECK(stat("masked", &st) == 0 && (st.st_mode & 07777) == 01700);
    umask(022);
}

static void links(void)
{
    char buf[8];
    touch("f");
    CHECK(link("f", "g") == 0);
    CHECK(ino("f") == ino("g") && st.st_nlink == 2);
    CHECK_ERR(link("f", "g"), EEXIST);
    CHECK_ERR(link("none", "h"), ENOENT);
    CHECK(mkdir("dir", 0755) == 0);
    CHECK_ERR(link("dir", "h"), EPERM);
    CHECK_ERR(link("f", "dir"), EEXIST);
    CHECK_ERR(link("f", "new/"), ENOENT);
    CHECK(symlink("f", "s") == 0);
    CHECK(link("s", "s2") == 0);
    CHECK(ino("s") == ino("s2") && S_ISLNK(st.st_mode) && st.st_nlink == 2);
    CHECK(linkat(AT_FDCWD, "s", AT_FDCWD, "s3", AT_SYMLINK_FOLLOW) == 0);
    CHECK(ino("s3") == ino("f"));
    CHECK(readlink("s", buf, 8) == 1 && buf[0] == 'f');
    CHECK(symlink("0123456789", "long") == 0);
    CHECK(readlink("long", buf, 8) == 8 && memcmp(buf, "01234567", 8) == 0);
    CHECK(lstat("long", &st) == 0 && st.st_size == 10);
    CHECK_ERR(symlink("x", "f"), EEXIST);
    CHECK_ERR(symlink("x", "new/"), ENOENT);
    int fd = open(".", O_TMPFILE | O_RDWR, 0600);
    if (fd >= 0) {
        char self[40];
        CHECK(write(fd, "data", 4) == 4);
        CHECK(fstat(fd, &st) == 0 && st.st_nlink == 0);
        snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
        CHECK(linkat(AT_FDCWD, self, AT_FDCWD, "tmp", AT_SYMLINK_FOLLOW) == 0);
        CHECK(stat("tmp", &st) == 0 && st.st_size == 4 && st.st_nlink == 1);
        close(fd);
    }
    CHECK(unlink("f") == 0 && ino("g") && st.st_nlink == 2);
}

static void renames(void)
{
    touch("a");
    touch("b");
    ino_t a = ino("a"), b = ino("b");
    CHECK_ERR(renameat2(AT_FDCWD, "a", AT_FDCWD, "b", RENAME_NOREPLACE), EEXIST);
    CHECK(renameat2(AT_FDCWD, "a", AT_FDCWD, "b", RENAME_EXCHANGE) == 0);
    CHECK(ino("a") == b && ino("b") == a);
    CHECK_ERR(renameat2(AT_FDCWD, "a", AT_FDCWD, "none", RENAME_EXCHANGE), ENOENT);
    CHECK(rename("a", "b") == 0 && ino("b") == b);
    CHECK_ERR(rename("a", "c"), ENOENT);
    CHECK(link("b", "c") == 0 && rename("b", "c") == 0);
    CHECK(ino("b") == ino("c"));
    CHECK(mkdir("x", 0755) == 0 && mkdir("x/y", 0755) == 0 && mkdir("e", 0755) == 0);
    CHECK_ERR(rename("x", "x/y/z"), EINVAL);
    CHECK_ERR(rename("x", "b"), ENOTDIR);
    CHECK_ERR(rename("b", "x"), EISDIR);
    CHECK_ERR(rename("b", "d/"), ENOTDIR);
    CHECK_ERR(rename("e", "x"), ENOTEMPTY);
    CHECK_ERR(rename("x/y", "x"), ENOTEMPTY);
    CHECK_ERR(rename(".", "q"), EBUSY);
    CHECK_ERR(rename("x/..", "q"), EBUSY);
    CHECK_ERR(rename("x", "."), EBUSY);
    CHECK(rename("x", "x") == 0);
    ino_t x = ino("x");
    CHECK(rename("x", "e") == 0 && ino("e") == x);
    CHECK(stat("e/y", &st) == 0);
    CHECK(rename("e/y", "y/") == 0);
    CHECK(stat("e", &st) == 0);
    CHECK(stat("e/../y", &st) == 0);
}

static void nodes(void)
{
    CHECK(mknod("fifo", S_IFIFO | 0644, 0) == 0);
    CHECK(lstat("fifo", &st) == 0 && S_ISFIFO(st.st_mode));
    CHECK(mknod("sock", S_IFSOCK | 0644, 0) == 0);
    CHECK_ERR(open("sock", O_RDONLY), ENXIO);
    CHECK(mknod("plain", 0644, 0) == 0);
    CHECK(lstat("plain", &st) == 0 && S_ISREG(st.st_mode) && st.st_size == 0);
    CHECK_ERR(mknod("fifo", S_IFIFO | 0644, 0), EEXIST);
    if (mknod("null", S_IFCHR | 0666, makedev(1, 3)) == 0) {
        CHECK(stat("null", &st) == 0 && st.st_rdev == makedev(1, 3));
    }
}

static void listing(void)
{
    char name[16], buf[256];
    int seen = 0, dots = 0;
    CHECK(mkdir("many", 0755) == 0);
    for (int i = 0; i < 200; i++) {
        snprintf(name, sizeof name, "many/%d", i);
        touch(name);
    }
    DIR *dir = opendir("many");
    struct dirent *entry;
    while ((entry = readdir(dir))) {
        if (entry->d_name[0] == '.') {
            CHECK(entry->d_type == DT_DIR);
            dots++;
            continue;
        }
        CHECK(entry->d_type == DT_REG);
        snprintf(buf, sizeof buf, "many/%s", entry->d_name);
        CHECK(ino(buf) == entry->d_ino);
        CHECK(unlink(buf) == 0);
        seen++;
    }
    CHECK(seen == 200 && dots == 2);
    rewinddir(dir);
    touch("many/late");
    rewinddir(dir);
    seen = 0;
    while ((entry = readdir(dir)))
        seen++;
    CHECK(seen == 3);
    closedir(dir);
    int fd = open("many", O_RDONLY);
    CHECK_ERR(syscall(SYS_getdents64, fd, buf, 8), EINVAL);
    CHECK_ERR(syscall(SYS_getdents64, 99, BAD, 8), EBADF);
    CHECK_ERR(syscall(SYS_getdents64, fd, BAD, 4096), EFAULT);
    CHECK(syscall(SYS_getdents64, fd, buf, 256) > 0);
    CHECK(syscall(SYS_getdents64, fd, buf, 256) == 0);
    int again = open("many", O_RDONLY);
    CHECK_ERR(read(again, buf, 1), EISDIR);
    int file = open("many/late", O_RDONLY);
    CHECK_ERR(syscall(SYS_getdents64, file, buf, 256), ENOTDIR);
}

static void sticky(void)
{
    int status;
    CHECK(mkdir("sticky", 0777) == 0 && chmod("sticky", 01777) == 0);
    chmod(".", 0755);
    touch("sticky/root");
    pid_t pid = fork();
    if (pid == 0) {
        if (setgid(1000) || setuid(1000))
            _exit(9);
        if (unlink("sticky/root") != -1 || errno != EPERM)
            _exit(1);
        if (rename("sticky/root", "sticky/x") != -1 || errno != EPERM)
            _exit(2);
        if (mkdir("sticky/mine", 0700) || rmdir("sticky/mine"))
            _exit(3);
        if (mknod("sticky/dev", S_IFCHR | 0600, makedev(1, 3)) != -1 || errno != EPERM)
            _exit(4);
        if (mkdir("mine", 0700) != -1 || errno != EACCES)
            _exit(5);
        if (unlink("b") != -1 || errno != EACCES)
            _exit(6);
        if (unlink("none") != -1 || errno != ENOENT)
            _exit(7);
        _exit(0);
    }
    CHECK(waitpid(pid, &status, 0) == pid);
    CHECK(status == 0);
}

int main(void)
{
    wrong();
    directories();
    links();
    renames();
    nodes();
    listing();
    sticky();
    return 0;
}
