/* stat, statx, access, chmod, chown, times, xattr, statfs, getcwd, chroot. Needs root. */
#define _GNU_SOURCE
#include "abi.h"
#include <fcntl.h>
#include <limits.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>
#include <utime.h>

#define BAD ((void *)8)

static struct stat st;
static struct statx stx;

static int make(const char *path, int mode)
{
    int fd = open(path, O_CREAT | O_RDWR | O_TRUNC, 0644);
    CHECK(fd >= 0 && fchmod(fd, mode) == 0);
    return fd;
}

static void wrong(void)
{
    struct timespec bad[2] = {{0, 2000000000}, {0, 0}};
    struct timeval bad_us[2] = {{0, 1000000}, {0, 0}};
    CHECK_ERR(syscall(SYS_newfstatat, 99, BAD, BAD, 1), EINVAL);
    CHECK_ERR(syscall(SYS_newfstatat, 99, BAD, BAD, 0), EFAULT);
    CHECK_ERR(syscall(SYS_newfstatat, 99, "x", BAD, 0), EBADF);
    CHECK_ERR(syscall(SYS_newfstatat, 99, "", BAD, 0), ENOENT);
    CHECK_ERR(syscall(SYS_newfstatat, 99, "", BAD, AT_EMPTY_PATH), EBADF);
    CHECK_ERR(syscall(SYS_stat, ".", BAD), EFAULT);
    CHECK_ERR(syscall(SYS_stat, "none", BAD), ENOENT);
    CHECK_ERR(syscall(SYS_fstat, 99, BAD), EBADF);
    CHECK_ERR(syscall(SYS_statx, 99, BAD, 1, 0, BAD), EINVAL);
    CHECK_ERR(syscall(SYS_statx, 99, BAD, AT_STATX_SYNC_TYPE, 0, BAD), EINVAL);
    CHECK_ERR(syscall(SYS_statx, 99, BAD, 0, 0x80000000, BAD), EINVAL);
    CHECK_ERR(syscall(SYS_statx, 99, "x", 0, 0, BAD), EBADF);
    CHECK_ERR(syscall(SYS_statx, AT_FDCWD, ".", 0, 0, BAD), EFAULT);
    CHECK_ERR(syscall(SYS_access, BAD, 8), EINVAL);
    CHECK_ERR(syscall(SYS_faccessat2, 99, BAD, 8, 1), EINVAL);
    CHECK_ERR(syscall(SYS_faccessat2, 99, BAD, 0, 1), EINVAL);
    CHECK_ERR(syscall(SYS_faccessat2, 99, BAD, 0, 0), EFAULT);
    CHECK_ERR(syscall(SYS_fchmodat, 99, BAD, 0), EFAULT);
    CHECK_ERR(syscall(SYS_fchmodat2, 99, BAD, 0, 1), EINVAL);
    CHECK_ERR(syscall(SYS_fchownat, 99, BAD, 0, 0, 1), EINVAL);
    CHECK_ERR(syscall(SYS_fchownat, 99, "x", 0, 0, 0), EBADF);
    CHECK_ERR(syscall(SYS_utimensat, 99, BAD, BAD, 1), EFAULT);
    CHECK_ERR(syscall(SYS_utimensat, 99, BAD, bad, 1), EINVAL);
    CHECK_ERR(syscall(SYS_utimensat, 99, BAD, 0, 1), EINVAL);
    CHECK_ERR(syscall(SYS_utimensat, 99, 0, 0, 0), EBADF);
    CHECK_ERR(syscall(SYS_utimes, BAD, bad_us), EINVAL);
    CHECK_ERR(syscall(SYS_setxattr, BAD, BAD, BAD, 100000, 9), EINVAL);
    CHECK_ERR(syscall(SYS_setxattr, BAD, BAD, BAD, 100000, 0), EFAULT);
    CHECK_ERR(syscall(SYS_setxattr, BAD, "user.a", BAD, 100000, 0), E2BIG);
    CHECK_ERR(syscall(SYS_setxattr, BAD, "user.a", BAD, 1, 0), EFAULT);
    CHECK_ERR(syscall(SYS_getxattr, "none", "", BAD, 1), ERANGE);
    CHECK_ERR(syscall(SYS_getxattr, "none", "user.a", BAD, 1), ENOENT);
    CHECK_ERR(syscall(SYS_statfs, "none", BAD), ENOENT);
    CHECK_ERR(syscall(SYS_fstatfs, 99, BAD), EBADF);
    CHECK_ERR(syscall(SYS_getcwd, BAD, 1), ERANGE);
    CHECK_ERR(syscall(SYS_chdir, BAD), EFAULT);
    CHECK_ERR(syscall(SYS_fchdir, 99), EBADF);
}

static void stats(void)
{
    int fd = make("f", 0640);
    CHECK(write(fd, "hello", 5) == 5);
    CHECK(stat("f", &st) == 0 && st.st_size == 5 && st.st_mode == (S_IFREG | 0640));
    CHECK(st.st_nlink == 1 && st.st_uid == 0 && st.st_blksize >= 512);
    CHECK(fstatat(fd, "", &st, AT_EMPTY_PATH) == 0 && st.st_size == 5);
    CHECK(statx(AT_FDCWD, "f", 0, STATX_ALL, &stx) == 0);
    CHECK((stx.stx_mask & STATX_BASIC_STATS) == STATX_BASIC_STATS);
    CHECK(stx.stx_ino == st.st_ino && stx.stx_size == 5 && stx.stx_mode == st.st_mode);
    CHECK(makedev(stx.stx_dev_major, stx.stx_dev_minor) == st.st_dev);
    CHECK(stat("/", &st) == 0 && S_ISDIR(st.st_mode));
    CHECK(statx(AT_FDCWD, "/proc", 0, 0, &stx) == 0);
    CHECK(stx.stx_attributes & STATX_ATTR_MOUNT_ROOT);
    close(fd);
}

static void times(void)
{
    struct timespec ts[2] = {{1000000000, 5}, {1100000000, 7}};
    struct timeval tv[2] = {{1200000000, 3}, {1300000000, 4}};
    struct utimbuf ub = {1400000000, 1500000000};
    int fd = make("t", 0644);
    CHECK(utimensat(AT_FDCWD, "t", ts, 0) == 0 && stat("t", &st) == 0);
    CHECK(st.st_atim.tv_sec == 1000000000 && st.st_atim.tv_nsec == 5);
    CHECK(st.st_mtim.tv_sec == 1100000000 && st.st_mtim.tv_nsec == 7);
    CHECK(st.st_ctim.tv_sec > 1600000000);
    ts[0].tv_nsec = UTIME_OMIT;
    ts[1].tv_nsec = UTIME_NOW;
    CHECK(futimens(fd, ts) == 0 && fstat(fd, &st) == 0);
    CHECK(st.st_atim.tv_sec == 1000000000 && st.st_mtim.tv_sec > 1600000000);
    ts[1].tv_nsec = UTIME_OMIT;
    CHECK(utimensat(99, "none", ts, 0) == 0);
    CHECK(utimes("t", tv) == 0 && stat("t", &st) == 0);
    CHECK(st.st_atim.tv_sec == 1200000000 && st.st_mtim.tv_nsec == 4000);
    CHECK(utime("t", &ub) == 0 && stat("t", &st) == 0 && st.st_mtim.tv_sec == 1500000000);
    ts[0] = (struct timespec){-5, 999999999};
    ts[1] = (struct timespec){-1, 0};
    CHECK(utimensat(AT_FDCWD, "t", ts, 0) == 0 && stat("t", &st) == 0);
    CHECK(st.st_atim.tv_sec == -5 && st.st_atim.tv_nsec == 999999999);
    CHECK(write(fd, "x", 1) == 1 && fstat(fd, &st) == 0 && st.st_mtim.tv_sec > 1600000000);
    CHECK(symlink("t", "tl") == 0);
    ts[0] = ts[1] = (struct timespec){77, 0};
    CHECK(utimensat(AT_FDCWD, "tl", ts, AT_SYMLINK_NOFOLLOW) == 0);
    CHECK(lstat("tl", &st) == 0 && st.st_mtim.tv_sec == 77);
    CHECK(stat("t", &st) == 0 && st.st_mtim.tv_sec != 77);
    close(fd);
}

static void owners(void)
{
    int fd = make("o", 06755);
    CHECK(chown("o", 1000, 1001) == 0 && stat("o", &st) == 0);
    CHECK(st.st_uid == 1000 && st.st_gid == 1001 && (st.st_mode & 07777) == 0755);
    CHECK(fchown(fd, -1, 5) == 0 && stat("o", &st) == 0 && st.st_uid == 1000 && st.st_gid == 5);
    CHECK(symlink("o", "ol") == 0 && lchown("ol", 7, 8) == 0);
    CHECK(lstat("ol", &st) == 0 && st.st_uid == 7 && st.st_gid == 8);
    CHECK(stat("ol", &st) == 0 && st.st_uid == 1000);
    CHECK(chmod("o", 04711) == 0 && stat("o", &st) == 0 && (st.st_mode & 07777) == 04711);
    CHECK_ERR(syscall(SYS_fchmodat2, AT_FDCWD, "ol", 0600, AT_SYMLINK_NOFOLLOW), EOPNOTSUPP);
    CHECK_ERR(chmod("none", 0600), ENOENT);
    CHECK_ERR(chown("o/x", 0, 0), ENOTDIR);
    close(fd);
}

static int user(void)
{
    if (chmod("f", 0600) != -1 || errno != EPERM)
        return 1;
    if (chown("f", 1000, -1) != -1 || errno != EPERM)
        return 2;
    if (chmod("mine", 02755) || stat("mine", &st) || (st.st_mode & 07777) != 0755)
        return 3; /* not of the group: no set-group-id bit */
    if (chown("mine", 1000, -1) || (chown("mine", 0, -1) != -1 || errno != EPERM))
        return 4;
    if (chown("mine", -1, 50) != -1 || errno != EPERM)
        return 5;
    if (chown("mine", -1, 1000))
        return 6;
    struct timespec ts[2] = {{1, 0}, {1, 0}};
    if (utimensat(AT_FDCWD, "f", ts, 0) != -1 || errno != EPERM)
        return 7;
    if (utimensat(AT_FDCWD, "f", 0, 0) != -1 || errno != EACCES)
        return 8;
    if (access("f", R_OK) != -1 || errno != EACCES)
        return 9;
    if (access("mine", R_OK | W_OK | X_OK))
        return 10;
    if (chroot("/") != -1 || errno != EPERM)
        return 11;
    if (setxattr("f", "user.a", "v", 1, 0) != -1 || (errno != EACCES && errno != EOPNOTSUPP))
        return 12;
    if (setxattr("mine", "trusted.a", "v", 1, 0) != -1 || errno != EPERM)
        return 13;
    if (truncate("f", 0) != -1 || errno != EACCES)
        return 14;
    return 0;
}

static void as_user(void)
{
    int status;
    close(make("mine", 0755));
    CHECK(chown("mine", 1000, 60) == 0);
    chmod("f", 0640);
    chmod(".", 0755);
    pid_t pid = fork();
    if (pid == 0) {
        if (setgid(1000) || setuid(1000))
            _exit(99);
        _exit(user());
    }
    CHECK(waitpid(pid, &status, 0) == pid);
    if (status)
        fprintf(stderr, "user: %d\n", WEXITSTATUS(status));
    CHECK(status == 0);
    /* set-id bits go when somebody else writes */
    int fd = make("suid", 06777);
    close(fd);
    pid = fork();
    if (pid == 0) {
        if (setgid(1000) || setuid(1000))
            _exit(99);
        fd = open("suid", O_WRONLY);
        _exit(write(fd, "x", 1) != 1);
    }
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
    CHECK(stat("suid", &st) == 0 && (st.st_mode & 07777) == 0777);
}

static void access_by_real_id(void)
{
    int status;
    close(make("private", 0600));
    pid_t pid = fork();
    if (pid == 0) {
        if (setresuid(1000, 0, 0))
            _exit(1);
        if (access("private", R_OK) != -1 || errno != EACCES)
            _exit(2);
        if (faccessat(AT_FDCWD, "private", R_OK, AT_EACCESS))
            _exit(3);
        if (open("private", O_RDONLY) < 0)
            _exit(4);
        _exit(0);
    }
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
    CHECK(access("private", X_OK) == -1 && errno == EACCES);
}

static void attributes(void)
{
    char buf[64];
    int fd = make("x", 0644);
    if (setxattr("x", "user.a", "value", 5, 0) == -1 && errno == EOPNOTSUPP)
        return;
    CHECK_ERR(setxattr("x", "user.a", "v", 1, XATTR_CREATE), EEXIST);
    CHECK_ERR(setxattr("x", "user.b", "v", 1, XATTR_REPLACE), ENODATA);
    CHECK(getxattr("x", "user.a", 0, 0) == 5);
    CHECK_ERR(getxattr("x", "user.a", buf, 4), ERANGE);
    CHECK(fgetxattr(fd, "user.a", buf, 64) == 5 && memcmp(buf, "value", 5) == 0);
    CHECK_ERR(getxattr("x", "user.none", buf, 64), ENODATA);
    CHECK_ERR(getxattr("x", "nonsense", buf, 64), EOPNOTSUPP);
    CHECK(fsetxattr(fd, "user.b", "", 0, 0) == 0);
    ssize_t n = listxattr("x", buf, 64);
    CHECK(n >= 14 && memmem(buf, n, "user.a\0", 7) && memmem(buf, n, "user.b\0", 7));
    CHECK_ERR(listxattr("x", buf, 3), ERANGE);
    CHECK(removexattr("x", "user.a") == 0);
    CHECK_ERR(removexattr("x", "user.a"), ENODATA);
    CHECK(symlink("x", "xl") == 0);
    CHECK_ERR(lsetxattr("xl", "user.a", "v", 1, 0), EPERM);
    CHECK(setxattr("x", "trusted.t", "v", 1, 0) == 0);
    CHECK(getxattr("x", "trusted.t", buf, 64) == 1);
    close(fd);
}

static void places(void)
{
    char buf[PATH_MAX], again[PATH_MAX];
    struct statfs sf;
    CHECK(getcwd(buf, sizeof buf) == buf);
    CHECK(mkdir("deep", 0755) == 0 && chdir("deep") == 0);
    CHECK(getcwd(again, sizeof again) && strlen(again) > strlen(buf) && strstr(again, "/deep"));
    CHECK(rename("../deep", "../moved") == 0 && getcwd(again, sizeof again));
    CHECK(strstr(again, "/moved"));
    CHECK(rmdir("../moved") == 0);
    CHECK_ERR(syscall(SYS_getcwd, buf, sizeof buf), ENOENT);
    CHECK(chdir("..") == 0);
}

static int later(struct timespec a, struct timespec b)
{
    return a.tv_sec > b.tv_sec || (a.tv_sec == b.tv_sec && a.tv_nsec > b.tv_nsec);
}

/* What counts as an access and as a change: mappings, FIFOs, room. */
static void accesses(void)
{
    struct timespec old[2] = {{1000, 0}, {1000, 0}};
    struct stat st;
    struct statx x;
    int file = open("acc", O_CREAT | O_RDWR, 0644), fifo;
    char c;

    CHECK(write(file, "a", 1) == 1 && futimens(file, old) == 0);
    CHECK(mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, file, 0) != MAP_FAILED);
    CHECK(fstat(file, &st) == 0 && later(st.st_atim, old[0]) && !later(st.st_mtim, old[1]));
    CHECK(futimens(file, old) == 0 && fallocate(file, 0, 0, 8192) == 0);
    CHECK(fstat(file, &st) == 0 && later(st.st_mtim, old[1]));
    CHECK(mkfifo("fifo", 0600) == 0 && (fifo = open("fifo", O_RDWR)) >= 0);
    CHECK(futimens(fifo, old) == 0 && write(fifo, "a", 1) == 1);
    CHECK(fstat(fifo, &st) == 0 && later(st.st_mtim, old[1]) && !later(st.st_atim, old[0]));
    CHECK(read(fifo, &c, 1) == 1 && fstat(fifo, &st) == 0 && later(st.st_atim, old[0]));
    CHECK(statx(AT_FDCWD, "acc", 0, STATX_BASIC_STATS, &x) == 0 && !(x.stx_mask & STATX_BTIME));
    CHECK(x.stx_attributes_mask & STATX_ATTR_MOUNT_ROOT && !x.stx_attributes);
    close(file);
    close(fifo);
}

int main(void)
{
    CHECK(mkdir("work", 0755) == 0 && chdir("work") == 0); /* not a sticky directory */
    wrong();
    stats();
    times();
    owners();
    as_user();
    access_by_real_id();
    attributes();
    struct statfs sf;
    CHECK(statfs(".", &sf) == 0 && sf.f_bsize > 0 && sf.f_namelen == 255);
    CHECK(statfs("/proc", &sf) == 0 && sf.f_type == 0x9fa0);
    CHECK_ERR(chdir("f"), ENOTDIR);
    CHECK_ERR(chdir("none"), ENOENT);
    places();
    accesses();
    return 0;
}
