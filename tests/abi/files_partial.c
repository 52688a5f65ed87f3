/* Writes, vmsplice and getdents that do a part of it; the end of a directory of /proc. */
#define _GNU_SOURCE
#include "abi.h"
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/* Around what a write reached there are zeros, not what a removed file left in memory. */
static void writes(void)
{
    enum { SIZE = 32768 };
    static char old[1 << 20], data[SIZE], expected[SIZE];
    char *page = mmap(0, 12288, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(mprotect(page + 8192, 4096, PROT_NONE) == 0);
    memset(old, 'o', sizeof old);
    memset(page, 'n', 8192);
    for (int start = 0, some = 8192; start < 10000; start += 1021, some -= 777) {
        int fd = open("old", O_CREAT | O_EXCL | O_WRONLY, 0600);
        CHECK(write(fd, old, sizeof old) == sizeof old);
        CHECK(close(fd) == 0 && unlink("old") == 0);

        fd = open("new", O_CREAT | O_EXCL | O_RDWR, 0600);
        CHECK_ERR(pwrite(fd, page + 8192, 4096, start), EFAULT);
        CHECK(pwrite(fd, page + 8192 - some, 12288, start) == some);
        CHECK(ftruncate(fd, SIZE) == 0);
        memset(expected, 0, SIZE);
        memset(expected + start, 'n', some);
        CHECK(pread(fd, data, SIZE, 0) == SIZE && !memcmp(data, expected, SIZE));
        CHECK(close(fd) == 0 && unlink("new") == 0);
    }
    CHECK(munmap(page, 12288) == 0);
}

/* Memory that is not there, NULL too, is EFAULT on every file system, and the file stays as it is. */
static void writes_from_nowhere(const char *name)
{
    char *page = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(page != MAP_FAILED && munmap(page + 4096, 4096) == 0);
    char *nowhere[] = {NULL, (char *)8, page + 4096};
    for (int i = 0; i < 3; i++) {
        struct iovec first[] = {{nowhere[i], 8192}, {page, 10}}, last[] = {{page, 10}, {nowhere[i], 9}};
        struct stat now;
        int fd = open(name, O_CREAT | O_EXCL | O_RDWR, 0600);
        CHECK(fd >= 0);
        CHECK_ERR(write(fd, nowhere[i], 10), EFAULT);
        CHECK_ERR(write(fd, nowhere[i], 3 << 20), EFAULT);
        CHECK_ERR(pwrite(fd, nowhere[i], 8192, 0), EFAULT);
        CHECK_ERR(writev(fd, first, 2), EFAULT);
        CHECK_ERR(pwritev2(fd, first, 2, 0, RWF_DSYNC), EFAULT);
        CHECK_ERR(pwritev2(fd, first, 2, 0, RWF_APPEND), EFAULT);
        CHECK(lseek(fd, 0, SEEK_CUR) == 0 && fstat(fd, &now) == 0 && now.st_size == 0);
        CHECK(read(fd, nowhere[i], 10) == 0 && pread(fd, nowhere[i], 10, 4096) == 0);
        CHECK(writev(fd, last, 2) == 10 && fstat(fd, &now) == 0 && now.st_size == 10);
        CHECK_ERR(pread(fd, nowhere[i], 10, 0), EFAULT);
        CHECK_ERR(preadv(fd, first, 2, 0), EFAULT);
        CHECK(preadv(fd, last, 2, 0) == 10 && pread(fd, nowhere[i], 10, 10) == 0);
        CHECK(close(fd) == 0 && unlink(name) == 0);
    }
    CHECK(munmap(page, 4096) == 0);
}

/* A full file system has no room, whatever was to be written. */
static void writes_where_no_room_is(void)
{
    static char data[128 << 10];
    CHECK(unshare(CLONE_NEWNS) == 0 && mount(0, "/", 0, MS_REC | MS_PRIVATE, 0) == 0);
    CHECK(mkdir("t", 0700) == 0 && mount("none", "t", "tmpfs", 0, "size=64k") == 0);
    writes_from_nowhere("t/new");
    int fd = open("t/full", O_CREAT | O_WRONLY, 0600), other = open("t/other", O_CREAT | O_WRONLY, 0600);
    CHECK(write(fd, data, sizeof data) == 64 << 10);
    CHECK_ERR(write(other, NULL, 10), ENOSPC);
    CHECK(close(fd) == 0 && close(other) == 0 && umount("t") == 0 && rmdir("t") == 0);
}

static void vmsplices(void)
{
    static char big[1 << 20] __attribute__((aligned(4096)));
    int ends[2];
    CHECK(pipe(ends) == 0);
    struct iovec iov = {big, sizeof big};
    int size = fcntl(ends[1], F_GETPIPE_SZ);
    CHECK(vmsplice(ends[1], &iov, 1, 0) == size);
    CHECK_ERR(vmsplice(ends[1], &iov, 1, SPLICE_F_NONBLOCK), EAGAIN);
    iov.iov_len = 4096;
    CHECK_ERR(vmsplice(ends[1], &iov, 1, SPLICE_F_NONBLOCK), EAGAIN);
    for (int left = size; left; left -= 4096)
        CHECK(vmsplice(ends[0], &iov, 1, 0) == 4096);
    CHECK_ERR(vmsplice(ends[0], &iov, 1, SPLICE_F_NONBLOCK), EAGAIN);
    CHECK(close(ends[1]) == 0);
    CHECK(vmsplice(ends[0], &iov, 1, 0) == 0);
    CHECK(close(ends[0]) == 0);
}

/* What fits before the first byte that cannot be written is there; the rest comes later. */
static void entries(int number)
{
    char name[20], *page = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int count = 0, bytes;
    CHECK(mprotect(page + 4096, 4096, PROT_NONE) == 0);
    CHECK(mkdir("many", 0755) == 0);
    for (int i = 0; i < 100; i++) {
        snprintf(name, sizeof name, "many/%d", i);
        CHECK(close(open(name, O_CREAT | O_WRONLY, 0644)) == 0);
    }
    int fd = open("many", O_RDONLY | O_DIRECTORY);
    CHECK_ERR(syscall(number, fd, page + 4096, 4096), EFAULT);
    CHECK_ERR(syscall(number, fd, page + 4090, 4096), EFAULT);
    while ((bytes = syscall(number, fd, page + 4096 - 256, 4096)) > 0) {
        CHECK(bytes <= 256);
        for (char *at = page + 4096 - 256; bytes > 0; count++) {
            unsigned short size = *(unsigned short *)(at + 16);
            at += size;
            bytes -= size;
        }
    }
    CHECK(bytes == 0 && count == 102);
    CHECK(close(fd) == 0 && munmap(page, 8192) == 0);
    for (int i = 0; i < 100; i++) {
        snprintf(name, sizeof name, "many/%d", i);
        CHECK(unlink(name) == 0);
    }
    CHECK(rmdir("many") == 0);
}

static void ends_of_directories(void)
{
    const char *names[] = {"/proc/self", "/proc/self/task", "/proc", "/proc/sys"};
    for (int i = 0; i < 4; i++) {
        char buf[256];
        int fd = open(names[i], O_RDONLY | O_DIRECTORY);
        CHECK(lseek(fd, 0, SEEK_END) == 0);
        CHECK(syscall(SYS_getdents64, fd, buf, sizeof buf) > 0);
        CHECK_ERR(lseek(fd, -1, SEEK_END), EINVAL);
        CHECK(close(fd) == 0);
    }
}

int main(void)
{
    writes();
    writes_from_nowhere("new");
    writes_where_no_room_is();
    vmsplices();
    entries(SYS_getdents64);
    entries(SYS_getdents);
    ends_of_directories();
    return 0;
}
