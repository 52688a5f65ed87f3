/* inotify: which changes give which event, and what IN_EXCL_UNLINK keeps away. */
#define _GNU_SOURCE
#include "abi.h"
#include <dirent.h>
#include <fcntl.h>
#include <stdarg.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

static int in;

/* The next events, as pairs of a watch and a mask; nothing more may be there. */
static void expect(int count, ...)
{
    char buf[4096], *at = buf;
    va_list args;
    ssize_t n = read(in, buf, sizeof buf);
    va_start(args, count);
    CHECK(count ? n > 0 : n == -1);
    for (int i = 0; i < count; i++) {
        int wd = va_arg(args, int);
        unsigned mask = va_arg(args, unsigned);
        struct inotify_event *event = (void *)at;
        CHECK(at < buf + n);
        if (event->wd != wd || event->mask != mask) {
            fprintf(stderr, "event %d: %d %x, not %d %x\n", i, event->wd, event->mask, wd, mask);
            exit(1);
        }
        at += sizeof *event + event->len;
    }
    CHECK(!count || at == buf + n);
    va_end(args);
}

/* A time that is set alone looks like what would have set it. */
static void changes(int dir)
{
    struct timespec access[2] = {{0, UTIME_NOW}, {0, UTIME_OMIT}};
    struct timespec change[2] = {{0, UTIME_OMIT}, {0, UTIME_NOW}};
    struct timespec both[2] = {{1, 0}, {2, 0}}, none[2] = {{0, UTIME_OMIT}, {0, UTIME_OMIT}};
    int fd = open("d/file", O_CREAT | O_RDWR, 0644);
    int file = inotify_add_watch(in, "d/file", IN_ALL_EVENTS);
    expect(2, dir, IN_CREATE, dir, IN_OPEN);
    CHECK(utimensat(AT_FDCWD, "d/file", access, 0) == 0);
    expect(2, dir, IN_ACCESS, file, IN_ACCESS);
    CHECK(futimens(fd, change) == 0);
    expect(2, dir, IN_MODIFY, file, IN_MODIFY);
    CHECK(futimens(fd, both) == 0);
    expect(2, dir, IN_ATTRIB, file, IN_ATTRIB);
    CHECK(futimens(fd, none) == 0);
    expect(0);
    CHECK(ftruncate(fd, 5) == 0);
    expect(2, dir, IN_MODIFY, file, IN_MODIFY);
    CHECK(fchmod(fd, 0600) == 0);
    expect(2, dir, IN_ATTRIB, file, IN_ATTRIB);
    CHECK(fallocate(fd, 0, 0, 100) == 0);
    expect(2, dir, IN_MODIFY, file, IN_MODIFY);
    CHECK(close(fd) == 0 && unlink("d/file") == 0);
    expect(6, dir, IN_CLOSE_WRITE, file, IN_CLOSE_WRITE, file, IN_ATTRIB, file, IN_DELETE_SELF,
           file, IN_IGNORED, dir, IN_DELETE);
}

/* Of a file without a name the descriptor's reads and writes are not told, changes are. */
static void unlinked(void)
{
    struct timespec both[2] = {{1, 0}, {2, 0}};
    char byte = 'x';
    int dir = inotify_add_watch(in, "d", IN_ALL_EVENTS | IN_EXCL_UNLINK);
    int fd = open("d/gone", O_CREAT | O_RDWR, 0644);
    int file = inotify_add_watch(in, "d/gone", IN_ALL_EVENTS | IN_EXCL_UNLINK);
    expect(2, dir, IN_CREATE, dir, IN_OPEN);
    CHECK(unlink("d/gone") == 0);
    expect(2, file, IN_ATTRIB, dir, IN_DELETE);
    CHECK(write(fd, &byte, 1) == 1 && pread(fd, &byte, 1, 0) == 1);
    expect(0);
    CHECK(ftruncate(fd, 100) == 0);
    expect(2, dir, IN_MODIFY, file, IN_MODIFY);
    CHECK(futimens(fd, both) == 0 && fchmod(fd, 0600) == 0);
    expect(4, dir, IN_ATTRIB, file, IN_ATTRIB, dir, IN_ATTRIB, file, IN_ATTRIB);
    CHECK(close(fd) == 0);
    expect(2, file, IN_DELETE_SELF, file, IN_IGNORED);
}

static void unlinked_directory(void)
{
    int dir = inotify_add_watch(in, "d", IN_ALL_EVENTS | IN_EXCL_UNLINK);
    CHECK(mkdir("d/sub", 0755) == 0);
    int fd = open("d/sub", O_RDONLY | O_DIRECTORY);
    int sub = inotify_add_watch(in, "d/sub", IN_ALL_EVENTS | IN_EXCL_UNLINK);
    expect(2, dir, IN_CREATE | IN_ISDIR, dir, IN_OPEN | IN_ISDIR);
    CHECK(rmdir("d/sub") == 0);
    expect(1, dir, IN_DELETE | IN_ISDIR);
    CHECK(close(fd) == 0);
    expect(2, sub, IN_DELETE_SELF, sub, IN_IGNORED);
}

int main(void)
{
    in = inotify_init1(IN_NONBLOCK);
    CHECK(mkdir("d", 0755) == 0);
    changes(inotify_add_watch(in, "d", IN_ALL_EVENTS));
    unlinked();
    unlinked_directory();
    return 0;
}
