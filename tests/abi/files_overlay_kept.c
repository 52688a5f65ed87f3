/* Overlays that a program has mounted, and what is open of them. Between making and looking lie many
 * calls: tests/e2e/test_snapshots.py stops it at one of those. Needs root. */
#define _GNU_SOURCE
#include "abi.h"
#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>
#include "ns.h"
#include "overlay.h"

enum { TEXT = 1 << 16 };
static char before[TEXT], now[TEXT];

static void look(char *text)
{
    int fd = open("/proc/self/mountinfo", O_RDONLY), at = 0, got;
    CHECK(fd >= 0);
    while ((got = read(fd, text + at, TEXT - 1 - at)) > 0)
        at += got;
    text[at] = 0;
    CHECK(close(fd) == 0);
}

static void tree(const char *top)
{
    CHECK(chdir(top) == 0);
    for (char *each[] = {"one", "two", "up", "work", "one/d", "two/d", "two/e", "two/list", 0}, **at = each;
         *at; at++)
        CHECK(mkdir(*at, 0755) == 0);
    put("one/a", "one");
    put("two/b", "below");
    put("two/c", "linked");
    put("two/g", "gone");
    put("two/m", "mapped");
    put("one/d/x", "x");
    put("two/d/y", "y");
    put("two/e/inner", "inner");
    put("two/e/late", "late");
    for (char name[] = "two/list/1"; name[9] <= '9'; name[9]++)
        put(name, name);
    CHECK(link("two/c", "two/e/c") == 0 && symlink("b", "two/l") == 0);
    CHECK(chdir("..") == 0);
}

static void same_stat(const struct stat *was, const struct stat *is)
{
    CHECK(was->st_dev == is->st_dev && was->st_ino == is->st_ino);
    CHECK(was->st_mode == is->st_mode && was->st_size == is->st_size);
}

struct known {
    const char *path;
    struct stat st;
};

static struct known known[] = {
    {"m", {0}}, {"m/a", {0}}, {"m/b", {0}}, {"m/d", {0}}, {"m/d/x", {0}}, {"m/d/y", {0}},
    {"m/e", {0}}, {"m/e/inner", {0}}, {"m/l", {0}}, {"m/new", {0}}, {"m/c", {0}},
    {"far", {0}}, {"far/b", {0}}, {"far/d", {0}}, {"far/moved", {0}}, {"far/moved/inner", {0}},
    {"far/d/x", {0}}, {"over", {0}}, {"over/top", {0}}, {"over/d", {0}}, {"bound", {0}},
};
enum { KNOWN = sizeof known / sizeof *known };

static void rest(void)
{
    for (int i = 0; i < 400; i++)
        CHECK(syscall(SYS_getpgid, 0) >= 0);
}

static struct {
    int early, written, gone, nameless, directory, removed, locked, watch, lower_gone;
    struct stat early_was, gone_was, nameless_was, removed_was;
    char *map, *shared;
    int listed[2], left[2]; /* names that are to be listed */
} held;

static void opened(void)
{
    held.early = open("m/b", O_RDONLY); /* of the lower layer, and copied up afterwards */
    held.gone = open("m/g", O_RDONLY);
    CHECK(held.early >= 0 && held.gone >= 0 && unlink("m/g") == 0);
    CHECK((held.written = open("m/b", O_RDWR | O_APPEND)) >= 0);
    CHECK(write(held.written, "!", 1) == 1);
    CHECK((held.nameless = open("m/d", O_TMPFILE | O_RDWR, 0640)) >= 0);
    CHECK(write(held.nameless, "tmp", 3) == 3);
    put("m/new", "new");
    int fd = open("m/lost", O_CREAT | O_RDWR, 0600);
    CHECK(fd >= 0 && write(fd, "lost", 4) == 4 && unlink("m/lost") == 0);
    held.lower_gone = fd;
    CHECK(mkdir("m/dir", 0711) == 0 && (held.removed = open("m/dir", O_RDONLY)) >= 0);
    CHECK(rmdir("m/dir") == 0);
    CHECK((held.directory = open("m/e", O_RDONLY | O_DIRECTORY)) >= 0);
    CHECK((held.locked = open("m/a", O_RDWR)) >= 0 && flock(held.locked, LOCK_EX) == 0);
    struct flock range = {.l_type = F_WRLCK, .l_start = 1, .l_len = 2};
    CHECK(fcntl(held.locked, F_OFD_SETLK, &range) == 0);
    CHECK((fd = open("m/m", O_RDONLY)) >= 0);
    held.map = mmap(0, 4096, PROT_READ, MAP_SHARED, fd, 0);
    CHECK(held.map != MAP_FAILED && close(fd) == 0 && !strcmp(held.map, "mapped"));
    put("m/m", "copied"); /* which it does not show */
    held.shared = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, held.written, 0);
    CHECK(held.shared != MAP_FAILED && !memcmp(held.shared, "below!", 6));
    CHECK((held.watch = inotify_init1(IN_NONBLOCK)) >= 0);
    CHECK(inotify_add_watch(held.watch, "m/d", IN_CREATE) == 1);
    CHECK(fstat(held.early, &held.early_was) == 0 && fstat(held.gone, &held.gone_was) == 0);
    CHECK(fstat(held.nameless, &held.nameless_was) == 0);
    CHECK(fstat(held.removed, &held.removed_was) == 0);
}

struct entry {
    unsigned long long ino, next;
    unsigned short size;
    unsigned char type;
    char name[];
};

/* A listing that is begun, and then names go. */
static void listed(int which, const char *directory)
{
    char path[400];
    held.left[which] = names(directory);
    int fd = held.listed[which] = open(directory, O_RDONLY | O_DIRECTORY);
    long size = syscall(SYS_getdents64, fd, before, 104);
    for (long at = 0; at < size; at += ((struct entry *)(before + at))->size) {
        struct entry *entry = (void *)(before + at);
        if (entry->name[0] == '.')
            continue;
        snprintf(path, sizeof path, "%s/%s", directory, entry->name);
        CHECK(unlink(path) == 0);
        held.left[which]--;
    }
    CHECK(size > 0 && held.left[which] > 0);
}

static void looked_at(void)
{
    char text[100] = {0};
    struct stat st;
    CHECK(pread(held.early, text, 99, 0) == 6 && !strcmp(text, "below!"));
    CHECK(fstat(held.early, &st) == 0);
    same_stat(&held.early_was, &st);
    memset(text, 0, sizeof text);
    CHECK(read(held.gone, text, 99) == 4 && !strcmp(text, "gone") && fstat(held.gone, &st) == 0);
    same_stat(&held.gone_was, &st);
    CHECK(write(held.written, "?", 1) == 1 && has("m/b", "below!?") && has("t/up/b", "below!?"));
    CHECK(!memcmp(held.shared, "below!?", 7) && (held.shared[0] = 'B') && has("m/b", "Below!?"));
    CHECK(fstat(held.nameless, &st) == 0);
    same_stat(&held.nameless_was, &st);
    char link_to[40];
    snprintf(link_to, sizeof link_to, "/proc/self/fd/%d", held.nameless);
    CHECK(linkat(AT_FDCWD, link_to, AT_FDCWD, "m/d/late", AT_SYMLINK_FOLLOW) == 0);
    CHECK(has("m/d/late", "tmp") && has("t/up/d/late", "tmp"));
    CHECK(pread(held.lower_gone, text, 99, 0) == 4 && !memcmp(text, "lost", 4));
    CHECK(fstat(held.removed, &st) == 0);
    same_stat(&held.removed_was, &st);
    CHECK_ERR(openat(held.removed, "x", O_CREAT | O_WRONLY, 0600), ENOENT);
    CHECK(faccessat(held.directory, "inner", F_OK, 0) == 0);
    CHECK(!strcmp(held.map, "mapped") && has("m/m", "copied"));
    struct inotify_event *event = (void *)before;
    CHECK(read(held.watch, before, TEXT) >= (ssize_t)sizeof *event && event->mask == IN_CREATE);
    CHECK(!strcmp(event->name, "late"));
    int other = open("m/a", O_RDWR);
    CHECK(other >= 0);
    CHECK_ERR(flock(other, LOCK_SH | LOCK_NB), EWOULDBLOCK);
    struct flock range = {.l_type = F_RDLCK, .l_start = 2, .l_len = 1};
    CHECK_ERR(fcntl(other, F_OFD_SETLK, &range), EAGAIN);
    for (int which = 0; which < 2; which++) {
        for (long size; (size = syscall(SYS_getdents64, held.listed[which], now, TEXT)); )
            for (long at = 0; at < size; at += ((struct entry *)(now + at))->size)
                held.left[which]--;
        CHECK(held.left[which] == 0);
    }
}

static void goes_on(void)
{
    CHECK_ERR(access("m/g", F_OK), ENOENT);
    CHECK_ERR(open("bound/x", O_CREAT | O_WRONLY, 0600), EROFS);
    CHECK(is_whiteout("t/up/g") && !is_whiteout("t/up/b"));
    CHECK(unlink("m/d/x") == 0 && is_whiteout("t/up/d/x") && names("m/d") == 2);
    CHECK(unlink("m/d/y") == 0 && unlink("m/d/late") == 0 && rmdir("m/d") == 0);
    CHECK(mkdir("m/d", 0755) == 0 && marked("t/up/d", "trusted.overlay.opaque", "y"));
    CHECK(names("m/d") == 0 && has("far/moved/late", "late"));
    CHECK(marked("s/up/moved", "trusted.overlay.redirect", "e"));
    CHECK(rename("far/moved", "far/again") == 0 && has("far/again/inner", "inner"));
    CHECK(mkdir("far/own", 0755) == 0);
    for (int i = 0; i < KNOWN; i++) {
        struct stat st, own;
        CHECK(stat("far/own", &own) == 0);
        CHECK(lstat(known[i].path, &st) || st.st_dev != own.st_dev || st.st_ino != own.st_ino);
    }
    put("over/late", "late");
    CHECK(has("u/up/late", "late"));
    CHECK(has("old/a", "alone") && has("old/b", "below"));
    CHECK(umount("old") == 0 && umount("over") == 0);
}

int main(void)
{
    char text[512];
    CHECK(unshare(CLONE_NEWNS) == 0 && mount(0, "/", 0, MS_REC | MS_PRIVATE, 0) == 0);
    for (char *each[] = {"t", "m", "s", "far", "over", "u", "bound", "old", "gone", "c", 0}, **at = each;
         *at; at++)
        CHECK(mkdir(*at, 0755) == 0);
    CHECK(mount("layers", "t", "tmpfs", 0, "mode=0755") == 0);
    CHECK(mount("second", "s", "tmpfs", 0, "mode=0755") == 0);
    CHECK(mount("third", "u", "tmpfs", 0, "mode=0755") == 0);
    CHECK(mount("gone", "gone", "tmpfs", 0, "mode=0755") == 0);
    tree("t");
    tree("s");
    CHECK(mount("over", "m", "overlay", MS_NOSUID,
                "lowerdir=t/one:t/two,upperdir=t/up,workdir=t/work") == 0);
    /* layers on two file systems: directories have numbers of their own */
    CHECK(mount("far", "far", "overlay", 0,
                "lowerdir=s/one:t/two,upperdir=s/up,workdir=s/work,redirect_dir=on") == 0);
    CHECK(rename("far/e", "far/moved") == 0);
    /* an overlay below an overlay, and one whose layer is mounted no longer */
    CHECK(mkdir("u/up", 0755) == 0 && mkdir("u/work", 0755) == 0);
    CHECK(mount("twice", "over", "overlay", 0, "lowerdir=m:s/two,upperdir=u/up,workdir=u/work") == 0);
    put("over/top", "top");
    put("gone/a", "alone");
    CHECK(mount("old", "old", "overlay", MS_RDONLY, "lowerdir=gone:t/two") == 0);
    CHECK(umount2("gone", MNT_DETACH) == 0);
    CHECK(mount("m/d", "bound", 0, MS_BIND, 0) == 0);
    CHECK(mount(0, "bound", 0, MS_REMOUNT | MS_BIND | MS_RDONLY, 0) == 0);
    int cgroups = mount("groups", "c", "cgroup2", 0, 0) == 0;
    opened();
    CHECK(mkdir("u/list", 0755) == 0);
    for (char name[] = "u/list/1"; name[7] <= '9'; name[7]++)
        put(name, name);
    listed(0, "far/list");
    listed(1, "u/list");
    for (int i = 0; i < KNOWN; i++)
        CHECK(lstat(known[i].path, &known[i].st) == 0);
    CHECK(chdir("m/e") == 0);
    look(before);

    rest();

    look(now);
    CHECK(!strcmp(before, now));
    CHECK(getcwd(text, sizeof text) && !strcmp(text + strlen(text) - 4, "/m/e"));
    CHECK(has("inner", "inner") && chdir("../..") == 0);
    for (int i = 0; i < KNOWN; i++) {
        struct stat st;
        CHECK(lstat(known[i].path, &st) == 0);
        same_stat(&known[i].st, &st);
    }
    CHECK(!cgroups || access("c/cgroup.procs", F_OK) == 0);
    looked_at();
    goes_on();
    return 0;
}
