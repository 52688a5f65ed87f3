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

static void drain(void)
{
    char buf[4096];
    while (read(in, buf, sizeof buf) > 0) {
    }
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

/* The file hears of a new name before its directory, of being replaced before what replaces it. */
static void names(int dir)
{
    CHECK(close(open("d/a", O_CREAT | O_RDWR, 0644)) == 0 && close(open("d/b", O_CREAT | O_RDWR, 0644)) == 0);
    CHECK(mkdir("d/e", 0700) == 0 && mkdir("d/f", 0700) == 0);
    drain();
    int a = inotify_add_watch(in, "d/a", IN_ALL_EVENTS), b = inotify_add_watch(in, "d/b", IN_ALL_EVENTS);
    int e = inotify_add_watch(in, "d/e", IN_ALL_EVENTS), f = inotify_add_watch(in, "d/f", IN_ALL_EVENTS);
    CHECK(link("d/a", "d/l") == 0);
    expect(2, a, IN_ATTRIB, dir, IN_CREATE);
    CHECK(link("d/b", "d/m") == 0);
    expect(2, b, IN_ATTRIB, dir, IN_CREATE);
    CHECK(rename("d/a", "d/b") == 0);
    expect(4, dir, IN_MOVED_FROM, dir, IN_MOVED_TO, b, IN_ATTRIB, a, IN_MOVE_SELF);
    CHECK(rename("d/b", "d/m") == 0); /* the last name of what was d/b */
    expect(6, dir, IN_MOVED_FROM, dir, IN_MOVED_TO, b, IN_ATTRIB, a, IN_MOVE_SELF, b, IN_DELETE_SELF, b, IN_IGNORED);
    CHECK(rename("d/e", "d/f") == 0);
    expect(6, dir, IN_MOVED_FROM | IN_ISDIR, dir, IN_MOVED_TO | IN_ISDIR, f, IN_ATTRIB | IN_ISDIR, e, IN_MOVE_SELF,
           f, IN_DELETE_SELF, f, IN_IGNORED);
    CHECK(chown("d/m", -1, -1) == 0);
    expect(0);
    CHECK(chown("d/m", 0, -1) == 0);
    expect(2, dir, IN_ATTRIB, a, IN_ATTRIB);
    CHECK(chmod("d/m", 04711) == 0 && chown("d/m", -1, -1) == 0); /* takes the bit away */
    expect(4, dir, IN_ATTRIB, a, IN_ATTRIB, dir, IN_ATTRIB, a, IN_ATTRIB);
    CHECK(inotify_rm_watch(in, a) == 0 && inotify_rm_watch(in, e) == 0);
    CHECK(unlink("d/m") == 0 && unlink("d/l") == 0 && rmdir("d/f") == 0);
    drain();
}

/* A watch stays when its directory, or its file, is opened and closed. */
static void reopened(int dir)
{
    int at = open("d", O_RDONLY | O_DIRECTORY), file = open("d/file", O_CREAT | O_RDONLY, 0600);
    char entries[1024];
    CHECK(close(file) == 0);
    drain();
    int watch = inotify_add_watch(in, "d/file", IN_CLOSE | IN_DELETE_SELF | IN_ATTRIB);
    CHECK(getdents64(at, entries, sizeof entries) > 0 && close(at) == 0);
    expect(2, dir, IN_ACCESS | IN_ISDIR, dir, IN_CLOSE_NOWRITE | IN_ISDIR);
    CHECK(close(open("d/file", O_RDONLY)) == 0);
    expect(3, dir, IN_OPEN, dir, IN_CLOSE_NOWRITE, watch, IN_CLOSE_NOWRITE);
    CHECK(unlink("d/file") == 0);
    expect(4, watch, IN_ATTRIB, watch, IN_DELETE_SELF, watch, IN_IGNORED, dir, IN_DELETE);
}

/* An event that is as the last one is left out, also if it is of another move. */
static void repeated(void)
{
    int dir = inotify_add_watch(in, "d", IN_MOVED_FROM | IN_CREATE);
    for (int i = 0; i < 2; i++) {
        CHECK(rename("d/a", "a") == 0 && rename("a", "d/a") == 0);
        CHECK(rename("d/a", "a") == 0 && link("a", "d/a") == 0 && unlink("a") == 0);
    }
    expect(4, dir, IN_MOVED_FROM, dir, IN_CREATE, dir, IN_MOVED_FROM, dir, IN_CREATE);
    CHECK(inotify_rm_watch(in, dir) == 0);
    drain();
}

/* A full queue says so once, however often it is full before that is read. */
static void overflown(void)
{
    char buf[sizeof(struct inotify_event) * 2];
    struct inotify_event *event = (void *)buf;
    int fds[2], lost = 0, more = 0, most = 16384;
    for (int i = 0; i < 2; i++) {
        fds[i] = open(i ? "d/y" : "d/x", O_CREAT | O_RDWR, 0600);
        CHECK(inotify_add_watch(in, i ? "d/y" : "d/x", IN_MODIFY) > 0);
    }
    FILE *limit = fopen("/proc/sys/fs/inotify/max_queued_events", "r");
    CHECK(fscanf(limit, "%d", &most) == 1 && fclose(limit) == 0);
    for (int i = 0; i < most + 2; i++)
        CHECK(write(fds[i & 1], "x", 1) == 1);
    CHECK(read(in, buf, sizeof buf) == sizeof buf);
    for (int i = 0; i < 4; i++)
        CHECK(write(fds[i & 1], "x", 1) == 1);
    while (read(in, buf, sizeof *event) == sizeof *event) {
        lost += event->mask == IN_Q_OVERFLOW && event->wd == -1;
        more += event->mask == IN_MODIFY;
    }
    CHECK(lost == 1 && more == most - 1);
    CHECK(write(fds[0], "x", 1) == 1 && read(in, buf, sizeof buf) == sizeof *event);
    CHECK(event->mask == IN_MODIFY);
}

int main(void)
{
    in = inotify_init1(IN_NONBLOCK);
    CHECK(mkdir("d", 0755) == 0);
    changes(inotify_add_watch(in, "d", IN_ALL_EVENTS));
    unlinked();
    unlinked_directory();
    int dir = inotify_add_watch(in, "d", IN_ALL_EVENTS);
    names(dir);
    reopened(dir);
    CHECK(inotify_rm_watch(in, dir) == 0 && close(open("d/a", O_CREAT, 0600)) == 0);
    drain();
    repeated();
    overflown();
    return 0;
}
