/* Flags of inodes, as chattr(1) sets them: immutable and append-only files and directories. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "abi.h"

static const struct timespec OLD[2] = {{1, 0}, {1, 0}};

static int flags_of(const char *path)
{
    int fd = open(path, O_RDONLY), flags = 0;
    ioctl(fd, FS_IOC_GETFLAGS, &flags);
    close(fd);
    return flags;
}

/* Set or take back flags. */
static int change(const char *path, int flag, int on)
{
    int fd = open(path, O_RDONLY), flags = flags_of(path);
    flags = on ? flags | flag : flags & ~flag;
    int result = ioctl(fd, FS_IOC_SETFLAGS, &flags);
    close(fd);
    return result;
}

/* Nothing stays behind that cannot be removed. */
static void undo(void)
{
    change("f", FS_IMMUTABLE_FL | FS_APPEND_FL, 0);
    change("d", FS_IMMUTABLE_FL | FS_APPEND_FL, 0);
}

static void shown(void)
{
    struct statx x;
    struct fsxattr extended;
    int fd = open("f", O_RDONLY);
    CHECK(change("f", FS_NODUMP_FL, 1) == 0 && flags_of("f") & FS_NODUMP_FL);
    CHECK(ioctl(fd, FS_IOC_FSGETXATTR, &extended) == 0 && extended.fsx_xflags & FS_XFLAG_NODUMP);
    CHECK(statx(AT_FDCWD, "f", 0, 0, &x) == 0);
    CHECK(x.stx_attributes & STATX_ATTR_NODUMP && x.stx_attributes_mask & STATX_ATTR_NODUMP);
    extended.fsx_xflags &= ~FS_XFLAG_NODUMP;
    CHECK(ioctl(fd, FS_IOC_FSSETXATTR, &extended) == 0 && !(flags_of("f") & FS_NODUMP_FL));
    CHECK_ERR(ioctl(fd, FS_IOC_SETFLAGS, 8), EFAULT);
    close(fd);
}

/* What neither kind of file lets happen. */
static void fixed(int fd)
{
    CHECK_ERR(open("f", O_WRONLY), EPERM);
    CHECK_ERR(open("f", O_RDONLY | O_TRUNC), EPERM);
    CHECK_ERR(truncate("f", 1), EPERM);
    CHECK_ERR(chmod("f", 0600), EPERM);
    CHECK_ERR(chown("f", 0, 0), EPERM);
    CHECK_ERR(utimensat(AT_FDCWD, "f", OLD, 0), EPERM);
    CHECK_ERR(unlink("f"), EPERM);
    CHECK_ERR(rename("f", "g"), EPERM);
    CHECK_ERR(rename("other", "f"), EPERM);
    CHECK_ERR(link("f", "g"), EPERM);
    CHECK_ERR(setxattr("f", "user.a", "b", 1, 0), EPERM);
    CHECK_ERR(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 1), EPERM);
}

static void immutable(int fd)
{
    CHECK(change("f", FS_IMMUTABLE_FL, 1) == 0);
    fixed(fd);
    CHECK_ERR(open("f", O_WRONLY | O_APPEND), EPERM);
    CHECK_ERR(utimensat(AT_FDCWD, "f", NULL, 0), EPERM);
    CHECK_ERR(access("f", W_OK), EPERM);
    CHECK(change("f", FS_IMMUTABLE_FL, 0) == 0);
    CHECK(change("d", FS_IMMUTABLE_FL, 1) == 0);
    CHECK_ERR(mkdir("d/e", 0755), EPERM);
    CHECK_ERR(unlink("d/x"), EPERM);
    CHECK_ERR(rmdir("d"), EPERM);
    CHECK((fd = open("d/x", O_WRONLY)) >= 0);
    close(fd);
    CHECK(change("d", FS_IMMUTABLE_FL, 0) == 0);
}

static void append_only(int fd)
{
    CHECK(change("f", FS_APPEND_FL, 1) == 0);
    fixed(fd);
    CHECK(write(fd, "x", 1) == 1); /* open already */
    CHECK_ERR(ftruncate(fd, 1), EPERM);
    CHECK(utimensat(AT_FDCWD, "f", NULL, 0) == 0);
    int end = open("f", O_WRONLY | O_APPEND);
    CHECK(end >= 0 && write(end, "y", 1) == 1);
    CHECK_ERR(fcntl(end, F_SETFL, 0), EPERM);
    CHECK(mmap(NULL, 1, PROT_READ, MAP_SHARED, fd, 0) == MAP_FAILED && errno == EACCES);
    close(end);
    CHECK(change("f", FS_APPEND_FL, 0) == 0);
    CHECK(change("d", FS_APPEND_FL, 1) == 0);
    CHECK(mkdir("d/e", 0755) == 0);
    CHECK_ERR(rmdir("d/e"), EPERM);
    CHECK_ERR(rename("d/x", "d/y"), EPERM);
    CHECK(change("d", FS_APPEND_FL, 0) == 0);
}

static void as_user(void)
{
    CHECK(chown("f", 1000, 1000) == 0 && setuid(1000) == 0);
    CHECK(change("f", FS_NODUMP_FL, 1) == 0);
    CHECK_ERR(change("f", FS_IMMUTABLE_FL, 1), EPERM);
    CHECK_ERR(change("d", FS_NODUMP_FL, 1), EPERM);
    _exit(0);
}

int main(void)
{
    int fd = open("f", O_CREAT | O_RDWR, 0644), other = open("other", O_CREAT | O_RDWR, 0644), s;
    CHECK(fd >= 0 && other >= 0 && mkdir("d", 0755) == 0 && chmod(".", 0755) == 0);
    close(open("d/x", O_CREAT | O_RDWR, 0644));
    atexit(undo);
    shown();
    immutable(fd);
    append_only(fd);
    if (!fork())
        as_user();
    CHECK(wait(&s) > 0 && s == 0);
    return 0;
}
