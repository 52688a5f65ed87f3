/* tmpfs: what counts against its size. */
#define _GNU_SOURCE
#include "abi.h"
#include <fcntl.h>
#include <linux/falloc.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#define GETFSUUID 0x80111500

/* A link of 128 bytes, its NUL among them, lies in the inode; a longer one takes a page. */
static void long_links(void)
{
    char text[129] = {0};
    struct stat st;
    memset(text, 'a', 128);
    CHECK(symlink(text, "t/long") == 0);
    CHECK_ERR(symlink(text, "t/another"), ENOSPC);
    CHECK(symlink(text + 1, "t/short") == 0);
    CHECK(lstat("t/long", &st) == 0 && st.st_size == 128 && st.st_blocks == 8);
    CHECK(lstat("t/short", &st) == 0 && st.st_size == 127 && st.st_blocks == 0);
    int fd = open("t/file", O_CREAT | O_RDWR, 0644);
    CHECK_ERR(fallocate(fd, 0, 0, 4096), ENOSPC);
    CHECK(unlink("t/long") == 0);
    CHECK(fallocate(fd, 0, 0, 4096) == 0);
    CHECK(close(fd) == 0);
}

static void ids(void)
{
    struct {
        unsigned char size, id[16];
    } one = {0}, same = {0};
    int top = open("t", O_RDONLY), file = open("t/file", O_RDONLY), ends[2];
    CHECK(ioctl(top, GETFSUUID, &one) == 0 && one.size == 16 && one.id[6] >> 4 == 4);
    CHECK(ioctl(file, GETFSUUID, &same) == 0 && memcmp(&one, &same, sizeof one) == 0);
    CHECK_ERR(ioctl(top, GETFSUUID, 8), EFAULT);
    CHECK(pipe(ends) == 0);
    CHECK_ERR(ioctl(ends[0], GETFSUUID, &one), ENOTTY);
    CHECK(close(top) == 0 && close(file) == 0);
}

static void limited(void)
{
    int fd = open("t/file", O_RDWR | O_TRUNC);
    struct rlimit limit = {1000, RLIM_INFINITY};
    CHECK(signal(SIGXFSZ, SIG_IGN) != SIG_ERR && setrlimit(RLIMIT_FSIZE, &limit) == 0);
    CHECK_ERR(fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 1001), EFBIG);
    CHECK(fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 1000) == 0);
    CHECK_ERR(readahead(fd, 0, -1), EINVAL);
    CHECK(close(fd) == 0);
}

/* What mountinfo and mounts show of a file system that was mounted with these options. */
static void shows(const char *type, const char *given, const char *options)
{
    static char line[4096], super[200];
    int found = 0;
    CHECK(mount("shown", "t", type, MS_NOSUID | MS_DIRSYNC, given) == 0);
    FILE *list = fopen("/proc/self/mountinfo", "r");
    snprintf(super, sizeof super, " rw,nosuid,relatime - %s shown rw,%s\n", type, options);
    while (fgets(line, sizeof line, list))
        found += strlen(line) > strlen(super) && !strcmp(line + strlen(line) - strlen(super), super);
    fclose(list);
    if (found != 1)
        fprintf(stderr, "not shown: %s\n", super);
    CHECK(found == 1 && umount("t") == 0);
}

static void refused(const char *type, const char *options)
{
    CHECK_ERR(mount("refused", "t", type, 0, options), EINVAL);
}

static void options(void)
{
    shows("tmpfs", "", "dirsync");
    shows("tmpfs", "rw,sync,lazytime,,size=1m,mode=700", "sync,dirsync,lazytime,size=1024k,mode=700");
    shows("tmpfs", "size=0,nr_inodes=0,sync,async", "dirsync,size=0k,nr_inodes=0");
    shows("tmpfs", "mpol=local,uid=5,gid=6,huge=never", "dirsync,uid=5,gid=6,mpol=local");
    shows("ramfs", "mode=711,size=5,whatever", "dirsync,mode=711");
    shows("ramfs", 0, "dirsync");
    shows("devpts", "newinstance,gid=5,mode=0620", "dirsync,gid=5,mode=620,ptmxmode=000");
    shows("devpts", "max=3,ptmxmode=666", "dirsync,mode=600,ptmxmode=666,max=3");
    refused("tmpfs", "huge=sometimes");
    refused("tmpfs", "mpol=any");
    refused("sysfs", "mode=700");
    refused("mqueue", "mode=700");
    refused("devpts", "max=-1");
    refused("devpts", "max=1048577");
    struct statfs room;
    char super[10];
    CHECK(mount("r", "t", "ramfs", 0, "ro,mode=711") == 0 && statfs("t", &room) == 0);
    CHECK(room.f_type == 0x858458f6 && room.f_blocks == 0 && room.f_files == 0);
    CHECK_ERR(open("t/file", O_CREAT | O_RDWR, 0600), EROFS);
    CHECK(mount(0, "t", 0, MS_REMOUNT, "rw") == 0);
    int fd = open("t/file", O_CREAT | O_RDWR, 0600);
    CHECK(write(fd, "x", 1) == 1 && close(fd) == 0);
    CHECK_ERR(setxattr("t/file", "user.x", "y", 1, 0), EOPNOTSUPP);
    CHECK_ERR(mount(0, "t", 0, MS_REMOUNT, "bad,ro") == 0 ? open("t/new", O_CREAT, 0600) : -1, EROFS);
    CHECK(umount("t") == 0);
    CHECK(mount("t", "t", "tmpfs", MS_SYNCHRONOUS | MS_MANDLOCK | 256, 0) == 0);
    CHECK(statfs("t", &room) == 0 && (room.f_flags & ~0x1020) == 0x2050); /* nosymfollow, too */
    CHECK(mount(0, "t", 0, MS_REMOUNT | MS_NOATIME, "size=40k,nr_inodes=5") == 0);
    CHECK(statfs("t", &room) == 0 && room.f_blocks == 10 && room.f_files == 5);
    CHECK((room.f_flags & 0x2450) == 0x400);
    struct timespec old[2] = {{100, 0}, {200, 0}};
    struct stat st;
    CHECK(symlink("nothing", "t/l") == 0);
    CHECK(utimensat(AT_FDCWD, "t/l", old, AT_SYMLINK_NOFOLLOW) == 0);
    CHECK(readlink("t/l", super, 10) == 7 && stat("t/l", &st) == -1);
    CHECK(lstat("t/l", &st) == 0 && st.st_atime == 100);
    CHECK_ERR(mount(0, "t", 0, MS_REMOUNT | MS_RELATIME, "dirsync"), EINVAL);
    CHECK(mount(0, "t", 0, MS_REMOUNT | MS_RELATIME, "sync,async") == 0);
    CHECK(stat("t/l", &st) == -1 && lstat("t/l", &st) == 0 && st.st_atime > 200);
    CHECK(umount("t") == 0 && mount("t", "t", "tmpfs", 0, "size=0,nr_inodes=0") == 0);
    CHECK_ERR(mount(0, "t", 0, MS_REMOUNT, "size=40k"), EINVAL);
    CHECK_ERR(mount(0, "t", 0, MS_REMOUNT, "nr_inodes=5"), EINVAL);
    CHECK(umount("t") == 0);
}

static int inodes_free(void)
{
    struct statfs room;
    CHECK(statfs("t", &room) == 0);
    return room.f_ffree;
}

/* A hard link counts as an inode; the first name of a file made without one does not. */
static void links(void)
{
    CHECK(mount("t", "t", "tmpfs", 0, "nr_inodes=4") == 0);
    CHECK(close(open("t/1", O_CREAT | O_RDWR, 0600)) == 0 && inodes_free() == 2);
    CHECK(link("t/1", "t/2") == 0 && inodes_free() == 1);
    int fd = open("t", O_TMPFILE | O_RDWR, 0600);
    CHECK(fd >= 0 && inodes_free() == 0);
    CHECK_ERR(link("t/1", "t/3"), ENOSPC);
    CHECK_ERR(link("t/1", "t/2"), EEXIST);
    CHECK(linkat(fd, "", AT_FDCWD, "t/t", AT_EMPTY_PATH) == 0 && inodes_free() == 0);
    CHECK(close(fd) == 0 && rename("t/t", "t/2") == 0 && inodes_free() == 1);
    CHECK(unlink("t/1") == 0 && inodes_free() == 2);
    CHECK(umount("t") == 0);
}

static sigjmp_buf back;
static siginfo_t told;

static void on_signal(int number, siginfo_t *info, void *context)
{
    told = *info;
    siglongjmp(back, number);
}

/* The signal that a load or a store gives, or 0. */
static int access_to(volatile char *at, int store)
{
    int number = sigsetjmp(back, 1);
    if (!number) {
        if (store)
            *at = 1;
        else
            (void)*at;
    }
    return number;
}

static void is_sigbus(char *at, int store)
{
    CHECK(access_to(at, store) == SIGBUS && told.si_code == BUS_ADRERR && told.si_addr == at);
}

/* A page that a mapping needs and the file system has no room for is SIGBUS, a hole that is only read
 * too; what is there stays usable, and room that comes back is used. */
static void mapped(void)
{
    enum { PAGE = 4096, ROOM = 16 * PAGE, SIZE = 64 * PAGE };
    static char data[ROOM];
    struct sigaction act = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO}, old;
    struct statfs room;
    struct stat now;
    int ends[2], touched = 0;
    CHECK(mount("t", "t", "tmpfs", 0, "size=64k") == 0 && sigaction(SIGBUS, &act, &old) == 0);
    int fd = open("t/mapped", O_CREAT | O_RDWR, 0600), other = open("t/other", O_CREAT | O_RDWR, 0600);
    CHECK(ftruncate(fd, SIZE) == 0 && pipe(ends) == 0 && write(ends[1], data, PAGE) == PAGE);
    char *shared = mmap(0, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    char *only_read = mmap(0, SIZE, PROT_READ, MAP_SHARED, fd, 0);
    char *private = mmap(0, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    CHECK(access_to(shared, 1) == 0 && access_to(shared + PAGE, 0) == 0);
    CHECK(access_to(only_read + 2 * PAGE, 0) == 0 && access_to(private + 3 * PAGE, 0) == 0);
    CHECK(access_to(private + 4 * PAGE, 1) == 0);
    CHECK(fstat(fd, &now) == 0 && now.st_blocks == 5 * 8);
    CHECK(statfs("t", &room) == 0 && room.f_bfree == 11);
    CHECK(write(other, data, ROOM) == 11 * PAGE);

    is_sigbus(shared + 20 * PAGE + 17, 1);
    is_sigbus(shared + 20 * PAGE + 18, 0);
    is_sigbus(only_read + 21 * PAGE, 0);
    is_sigbus(private + 22 * PAGE, 0);
    is_sigbus(private + 23 * PAGE + 4095, 1);
    CHECK(fstat(fd, &now) == 0 && now.st_blocks == 5 * 8);
    CHECK_ERR(write(ends[1], shared + 30 * PAGE, 100), EFAULT);
    CHECK_ERR(read(ends[0], shared + 31 * PAGE, 100), EFAULT);
    CHECK_ERR(read(ends[0], private + 32 * PAGE, 100), EFAULT);
    CHECK_ERR(pread(fd, shared + 33 * PAGE, 100, 0), EFAULT);
    CHECK_ERR(pwrite(other, shared + 33 * PAGE, 100, 0), EFAULT);
    CHECK_ERR(pwrite(fd, "x", 1, 34 * PAGE), ENOSPC);
    CHECK_ERR(fallocate(fd, 0, 0, SIZE), ENOSPC);
    CHECK_ERR(madvise(shared + 35 * PAGE, PAGE, 23 /* MADV_POPULATE_WRITE */), EFAULT);
    CHECK_ERR(mlock(shared + 36 * PAGE, PAGE), ENOMEM);
    CHECK(access_to(shared, 1) == 0 && access_to(only_read + 3 * PAGE, 0) == 0 && access_to(private, 1) == 0);

    CHECK(close(other) == 0 && unlink("t/other") == 0);
    while (access_to(shared + touched * PAGE, 1) == 0)
        touched++;
    CHECK(touched == 16 && fstat(fd, &now) == 0 && now.st_blocks == 16 * 8);
    CHECK(mount(0, "t", 0, MS_REMOUNT, "size=68k") == 0 && access_to(shared + 16 * PAGE, 1) == 0);
    is_sigbus(shared + 17 * PAGE, 1);
    CHECK_ERR(mount(0, "t", 0, MS_REMOUNT, "size=64k"), EINVAL);
    CHECK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, PAGE) == 0);
    CHECK(access_to(shared + 17 * PAGE, 1) == 0);
    is_sigbus(shared, 1);
    CHECK(munmap(shared, SIZE) == 0 && munmap(only_read, SIZE) == 0 && munmap(private, SIZE) == 0);
    CHECK(close(fd) == 0 && unlink("t/mapped") == 0 && statfs("t", &room) == 0 && room.f_bfree == 17);
    CHECK(close(ends[0]) == 0 && close(ends[1]) == 0 && sigaction(SIGBUS, &old, 0) == 0 && umount("t") == 0);
}

int main(void)
{
    CHECK(unshare(CLONE_NEWNS) == 0 && mount(0, "/", 0, MS_REC | MS_PRIVATE, 0) == 0);
    CHECK(mkdir("t", 0755) == 0);
    mapped();
    CHECK(mount("t", "t", "tmpfs", 0, "size=4096") == 0);
    long_links();
    ids();
    limited();
    CHECK(umount("t") == 0);
    options();
    links();
    return 0;
}
