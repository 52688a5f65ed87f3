/* Overlays: what a copy of a lower file keeps, and what hangs on files that are copied. Needs
 * root. */
#define _GNU_SOURCE
#include "abi.h"
#include <linux/magic.h>
#include <sched.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/statfs.h>
#include "overlay.h"

#ifndef RENAME_EXCHANGE
#define RENAME_EXCHANGE 2
#endif
#define LAYERS "lowerdir=t/low,upperdir=t/up,workdir=t/work"

static void begin(const char *options)
{
    const char *made[] = {"t/low", "t/up", "t/work", "t/low/d"};
    CHECK(mount("none", "t", "tmpfs", 0, "mode=0755") == 0);
    for (int i = 0; i < 4; i++)
        CHECK(mkdir(made[i], 0755) == 0);
    put("t/low/file", "contents");
    put("t/low/d/x", "x");
    if (options)
        CHECK(mount("over", "m", "overlay", 0, options) == 0);
}

static void end(void)
{
    CHECK(umount("m") == 0 && umount("t") == 0);
}

static void attributes(void)
{
    /* struct vfs_cap_data, revision 2: CAP_NET_RAW */
    static const unsigned char caps[20] = {1, 0, 0, 2, 0, 0x20};
    struct timespec times[2] = {{1000, 1}, {2000, 2}};
    struct stat st;
    char value[64];
    begin(0);
    CHECK(chown("t/low/file", 5, 6) == 0 && chmod("t/low/file", 0750) == 0);
    CHECK(setxattr("t/low/file", "trusted.b", "two", 3, 0) == 0);
    CHECK(setxattr("t/low/file", "security.capability", caps, 20, 0) == 0);
    CHECK(utimensat(AT_FDCWD, "t/low/file", times, 0) == 0);
    CHECK(mount("over", "m", "overlay", 0, LAYERS) == 0);
    CHECK(setxattr("m/file", "trusted.c", "x", 1, 0) == 0);
    CHECK(stat("t/up/file", &st) == 0 && (st.st_mode & 07777) == 0750);
    CHECK(st.st_uid == 5 && st.st_gid == 6 && st.st_size == 8);
    CHECK(st.st_mtim.tv_sec == 2000 && st.st_mtim.tv_nsec == 2);
    CHECK(getxattr("t/up/file", "trusted.b", value, 64) == 3 && !memcmp(value, "two", 3));
    CHECK(getxattr("t/up/file", "security.capability", value, 64) == 20);
    CHECK_ERR(getxattr("t/low/file", "trusted.c", value, 64), ENODATA);
    CHECK_ERR(removexattr("m/d/x", "trusted.none"), ENODATA); /* which copies nothing */
    CHECK_ERR(access("t/up/d", F_OK), ENOENT);
    end();
}

/* Those of an overlay that is to be a layer have another name below. */
static void marks(void)
{
    char value[64] = {0};
    begin(LAYERS);
    CHECK(setxattr("m/file", "trusted.overlay.opaque", "y", 1, 0) == 0);
    CHECK(marked("t/up/file", "trusted.overlay.overlay.opaque", "y"));
    CHECK(getxattr("m/file", "trusted.overlay.opaque", value, 64) == 1);
    CHECK(listxattr("m/file", value, 64) == sizeof "trusted.overlay.opaque");
    CHECK(!strcmp(value, "trusted.overlay.opaque"));
    CHECK(removexattr("m/file", "trusted.overlay.opaque") == 0);
    CHECK(listxattr("m/file", value, 64) == 0);
    end();
}

static void bytes(void)
{
    char found[8] = {0};
    struct stat st;
    begin(0);
    int fd = open("t/low/sparse", O_CREAT | O_WRONLY, 0644);
    CHECK(pwrite(fd, "data", 4, 3 << 20) == 4 && ftruncate(fd, 5 << 20) == 0 && close(fd) == 0);
    CHECK(mount("over", "m", "overlay", 0, LAYERS) == 0);
    CHECK(chmod("m/sparse", 0600) == 0);
    CHECK(stat("t/up/sparse", &st) == 0 && st.st_size == 5 << 20 && st.st_blocks < 4 << 11);
    fd = open("t/up/sparse", O_RDONLY);
    CHECK(pread(fd, found, 6, (3 << 20) - 1) == 6 && !memcmp(found, "\0data\0", 6));
    CHECK(close(fd) == 0);
    CHECK(truncate("m/file", 3) == 0 && has("t/up/file", "con") && has("t/low/file", "contents"));
    fd = open("m/d/x", O_WRONLY | O_TRUNC);
    CHECK(fd >= 0 && close(fd) == 0 && has("t/up/d/x", "") && has("t/low/d/x", "x"));
    end();
}

static void links(void)
{
    struct stat a, b, after;
    begin(0);
    CHECK(link("t/low/file", "t/low/other") == 0);
    CHECK(mount("over", "m", "overlay", 0, LAYERS) == 0);
    CHECK(stat("m/file", &a) == 0 && stat("m/other", &b) == 0);
    CHECK(a.st_ino == b.st_ino && a.st_nlink == 2 && b.st_nlink == 2);
    CHECK(chmod("m/file", 0600) == 0);
    CHECK(stat("m/file", &a) == 0 && stat("m/other", &after) == 0);
    CHECK(a.st_ino != after.st_ino && after.st_ino == b.st_ino && a.st_nlink == 1);
    CHECK((after.st_mode & 07777) == 0644);
    end();
}

static void without_a_name(void)
{
    struct stat st;
    begin(LAYERS);
    int file = open("m/file", O_RDONLY), dir = open("m/d", O_RDONLY);
    CHECK(file >= 0 && dir >= 0 && unlink("m/file") == 0);
    CHECK(fstat(file, &st) == 0 && st.st_nlink == 1); /* in its layer */
    CHECK_ERR(fchmod(file, 0600), EEXIST);
    CHECK_ERR(linkat(file, "", AT_FDCWD, "m/again", AT_EMPTY_PATH), ENOENT);
    CHECK(unlink("m/d/x") == 0 && rmdir("m/d") == 0); /* which was copied up by that */
    CHECK(fstat(dir, &st) == 0 && st.st_nlink == 1 && fchmod(dir, 0700) == 0);
    CHECK_ERR(openat(dir, "new", O_CREAT | O_WRONLY, 0644), ENOENT);
    CHECK(close(file) == 0 && close(dir) == 0);
    end();
}

static void mapped(void)
{
    char found[2] = {0};
    begin(LAYERS);
    int early = open("m/file", O_RDONLY);
    const char *old = mmap(0, 4096, PROT_READ, MAP_SHARED, early, 0);
    CHECK(old != MAP_FAILED && old[0] == 'c');
    int fd = open("m/file", O_RDWR);
    char *new = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(new != MAP_FAILED && new[0] == 'c');
    new[0] = 'C';
    CHECK(old[0] == 'c'); /* still the lower file */
    CHECK(pread(fd, found, 1, 0) == 1 && found[0] == 'C');
    CHECK(pread(early, found, 1, 0) == 1 && found[0] == 'C');
    CHECK(has("t/up/file", "Contents") && has("t/low/file", "contents"));
    CHECK(munmap((void *)old, 4096) == 0 && munmap(new, 4096) == 0);
    CHECK(fsync(fd) == 0 && fdatasync(early) == 0 && close(fd) == 0 && close(early) == 0);
    fd = open("m/d", O_RDONLY);
    CHECK(fsync(fd) == 0 && close(fd) == 0);
    end();
}

static void locked(void)
{
    char events[512];
    begin(LAYERS);
    int early = open("m/file", O_RDONLY);
    CHECK(flock(early, LOCK_EX) == 0);
    int fd = open("m/file", O_WRONLY);
    CHECK_ERR(flock(fd, LOCK_EX | LOCK_NB), EWOULDBLOCK);
    CHECK(close(fd) == 0 && close(early) == 0);
    int watch = inotify_init1(IN_NONBLOCK);
    CHECK(inotify_add_watch(watch, "m/d", IN_CREATE | IN_DELETE | IN_ATTRIB) > 0);
    CHECK(chmod("m/d/x", 0600) == 0);
    put("m/d/new", "new");
    CHECK(unlink("m/d/x") == 0);
    ssize_t size = read(watch, events, sizeof events), at = 0;
    static const struct {
        unsigned mask;
        const char *name;
    } expected[] = {{IN_ATTRIB, "x"}, {IN_CREATE, "new"}, {IN_DELETE, "x"}};
    for (int i = 0; i < 3; i++) {
        struct inotify_event *event = (void *)(events + at);
        CHECK(at < size && event->mask == expected[i].mask);
        CHECK(!strcmp(event->name, expected[i].name));
        at += sizeof *event + event->len;
    }
    CHECK(at == size && close(watch) == 0);
    end();
}

static void exchanged(void)
{
    begin(LAYERS ",redirect_dir=on");
    CHECK(renameat2(AT_FDCWD, "m/d", AT_FDCWD, "m/file", RENAME_EXCHANGE) == 0);
    CHECK(has("m/file/x", "x") && has("m/d", "contents") && names("m") == 2);
    CHECK(marked("t/up/file", "trusted.overlay.redirect", "d"));
    CHECK(umount("m") == 0 && mount("over", "m", "overlay", 0, LAYERS) == 0);
    CHECK(has("m/file/x", "x") && has("m/d", "contents") && names("m") == 2);
    end();
}

/* As the names were when it was opened; a position is one to come back to. */
static void listed(void)
{
    char name[16];
    begin(0);
    for (int i = 0; i < 300; i++) {
        snprintf(name, sizeof name, "t/%s/n%d", i % 2 ? "low" : "up", i);
        put(name, "");
    }
    CHECK(mount("over", "m", "overlay", 0, LAYERS) == 0);
    CHECK(names("m") == 302);
    DIR *dir = opendir("m");
    for (int i = 0; i < 100; i++)
        CHECK(readdir(dir) != 0);
    long place = telldir(dir);
    char next[256];
    strcpy(next, readdir(dir)->d_name);
    for (int i = 0; i < 150; i++)
        CHECK(readdir(dir) != 0);
    seekdir(dir, place);
    CHECK(!strcmp(readdir(dir)->d_name, next));
    CHECK(unlink("m/n7") == 0);
    int count = 0;
    for (rewinddir(dir); readdir(dir);)
        count++;
    CHECK(count == 303 && closedir(dir) == 0);
    end();
}

static void of_the_whole(void)
{
    struct statfs over, upper;
    struct {
        struct file_handle head;
        char room[128];
    } handle = {{128}};
    int id;
    begin(LAYERS);
    CHECK(statfs("m", &over) == 0 && statfs("t", &upper) == 0);
    CHECK(over.f_type == OVERLAYFS_SUPER_MAGIC && over.f_blocks == upper.f_blocks);
    CHECK_ERR(name_to_handle_at(AT_FDCWD, "m/file", &handle.head, &id, 0), EOPNOTSUPP);
    CHECK(mkdir("t/more", 0755) == 0 && mkdir("m2", 0755) == 0 && mkdir("m3", 0755) == 0);
    CHECK(mount("over", "m2", "overlay", 0, "lowerdir=m:t/more") == 0);
    CHECK(has("m2/d/x", "x") && names("m2") == 2);
    CHECK_ERR(mount("over", "m3", "overlay", 0, "lowerdir=m2:t/more"), EINVAL);
    CHECK(umount("m2") == 0 && rmdir("m2") == 0 && rmdir("m3") == 0);
    end();
}

int main(void)
{
    if (unshare(CLONE_NEWNS))
        return 0; /* no right to mount */
    CHECK(mount(0, "/", 0, MS_REC | MS_PRIVATE, 0) == 0);
    umask(022);
    CHECK(mkdir("t", 0755) == 0 && mkdir("m", 0755) == 0);
    attributes();
    marks();
    bytes();
    links();
    without_a_name();
    mapped();
    locked();
    exchanged();
    listed();
    of_the_whole();
    return 0;
}
