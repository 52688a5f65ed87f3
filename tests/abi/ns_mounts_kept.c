/* Mounts that a program has made, namespaces of them, and who shares what with whom. Between making
 * and looking lie many calls: tests/e2e/test_snapshots.py stops it at one of those. Needs root. */
#define _GNU_SOURCE
#include "abi.h"
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include "ns.h"

enum { TEXT = 1 << 16 };
static char before[TEXT], now[TEXT], home[256], path[512];

static void read_all(const char *name, char *text)
{
    int fd = open(name, O_RDONLY), at = 0, got;
    CHECK(fd >= 0);
    while ((got = read(fd, text + at, TEXT - 1 - at)) > 0)
        at += got;
    text[at] = 0;
    CHECK(close(fd) == 0);
}

/* mountinfo, without what the device of namespaces is numbered, which is nobody's business. */
static void look(char *text)
{
    read_all("/proc/self/mountinfo", text);
    char *line = strstr(text, " - nsfs "), *end;
    if (line) {
        end = strchr(line, '\n');
        while (line > text && line[-1] != '\n')
            line--;
        memmove(line, end + 1, strlen(end));
    }
}

static const char *at_home(const char *name)
{
    snprintf(path, sizeof path, "%s/%s", home, name);
    return path;
}

static void make(const char *name, const char *text)
{
    int fd = open(name, O_CREAT | O_EXCL | O_WRONLY, 0644), size = strlen(text);
    CHECK(fd >= 0 && write(fd, text, size) == size && close(fd) == 0);
}

static void same(const char *name, const char *text)
{
    read_text(name, now, TEXT);
    CHECK(!strcmp(now, text));
}

static int down[2], up[2];

/* All is made: the parent goes on, until it lets this one. */
static void wait_for_parent(void)
{
    char byte;
    look(before);
    CHECK(write(up[1], "x", 1) == 1 && read(down[0], &byte, 1) == 1);
    look(now);
}

static void peer(void)
{
    CHECK(unshare(CLONE_NEWNS) == 0 && mount("ram", "m", "ramfs", MS_NODEV, "mode=0711") == 0);
    make("m/file", "ramfs");
    CHECK(chdir("m") == 0);
    wait_for_parent();
    CHECK(strcmp(before, now)); /* what the parent has mounted since */
    same("file", "ramfs");
    same("../t/late/file", "late");
    CHECK(mkdir("../t/theirs", 0755) == 0 && mount("peer", "../t/theirs", "tmpfs", 0, 0) == 0);
    make("../t/theirs/file", "from a peer");
}

/* In a user namespace: it receives, and sends nothing; what it got it cannot take apart. */
static void follower(void)
{
    CHECK(unshare(CLONE_NEWUSER | CLONE_NEWNS) == 0);
    CHECK(write_text("/proc/self/setgroups", "deny") == 4);
    CHECK(write_text("/proc/self/uid_map", "0 0 1") == 5);
    CHECK(write_text("/proc/self/gid_map", "0 0 1") == 5);
    CHECK(mount("own", "m", "tmpfs", 0, "size=64k,nr_inodes=9") == 0);
    CHECK(mount(0, "m", 0, MS_UNBINDABLE, 0) == 0);
    wait_for_parent();
    same("t/late/file", "late");
    CHECK_ERR(umount2("over", 0), EINVAL);
    CHECK_ERR(mount(0, "over", 0, MS_REMOUNT | MS_BIND, 0), EPERM);
    CHECK_ERR(open("over", O_WRONLY), EROFS);
    CHECK_ERR(mount("m", "p", 0, MS_BIND, 0), EINVAL);
    CHECK(mkdir("t/mine", 0755) == 0 && mount("mine", "t/mine", "tmpfs", 0, 0) == 0);
    make("t/mine/file", "for nobody else");
}

/* With another root, and nothing of the old one but what it has open. */
static void away(void)
{
    int held = open("t/file", O_RDONLY);
    CHECK(unshare(CLONE_NEWNS) == 0 && mount("root", "r", "tmpfs", 0, 0) == 0);
    CHECK(chdir("r") == 0 && mkdir("old", 0755) == 0 && mkdir("proc", 0755) == 0);
    CHECK(mount("proc", "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, 0) == 0);
    CHECK(held >= 0 && close(held) == 0); /* that of the namespace from which it came */
    CHECK(syscall(SYS_pivot_root, ".", "old") == 0 && chdir("/") == 0);
    CHECK(umount2("/old", MNT_DETACH) == 0);
    make("/here", "a root");
    int file = open("/here", O_RDONLY);
    wait_for_parent();
    CHECK(!strcmp(before, now));
    same("/here", "a root");
    CHECK(read(file, now, 3) == 3 && !memcmp(now, "a r", 3));
    CHECK_ERR(access("/old/bin", F_OK), ENOENT);
}

struct child {
    pid_t pid;
    int word; /* lets it go on */
};

static struct child begun(void (*run)(void))
{
    char byte;
    CHECK(pipe(down) == 0);
    pid_t child = fork();
    if (!child) {
        CHECK(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0);
        run();
        _exit(0);
    }
    CHECK(child > 0 && close(down[0]) == 0 && read(up[0], &byte, 1) == 1);
    return (struct child){child, down[1]};
}

static void ended(struct child child)
{
    CHECK(write(child.word, "x", 1) == 1 && status_of(child.pid) == 0);
}

int main(void)
{
    struct stat was, is;
    char name[64];
    CHECK(getcwd(home, sizeof home) && pipe(up) == 0);
    CHECK(unshare(CLONE_NEWNS) == 0 && mount(0, "/", 0, MS_REC | MS_PRIVATE, 0) == 0);
    for (const char *each = "tmpr"; *each; each++)
        CHECK(mkdir((char[]){*each, 0}, 0755) == 0);
    CHECK(mount("first", "t", "tmpfs", MS_NOSUID, "size=1m,mode=0750") == 0);
    CHECK(mount(0, "t", 0, MS_SHARED, 0) == 0);
    make("t/file", "in memory");
    make("t/lost", "no name");
    make("over", "hidden");
    make("lost", "hidden");
    make("names", "hidden");
    CHECK(mount("t/file", "over", 0, MS_BIND, 0) == 0);
    CHECK(mount(0, "over", 0, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOATIME, 0) == 0);
    CHECK(mount("t/lost", "lost", 0, MS_BIND, 0) == 0 && unlink("t/lost") == 0);
    CHECK(mount("/proc/self/ns/uts", "names", 0, MS_BIND, 0) == 0);
    CHECK(mkdir("t/sub", 0755) == 0 && mount("t/sub", "p", 0, MS_BIND, 0) == 0);
    make("p/inside", "the same");
    int written = open("t/sub/inside", O_RDWR | O_APPEND);
    CHECK(written >= 0 && stat("t/file", &was) == 0);
    CHECK(mkdir("d", 0755) == 0 && mount("pts", "d", "devpts", 0, "mode=0640,ptmxmode=0666") == 0);
    int master = open("d/ptmx", O_RDWR | O_NOCTTY), open_ = 0, line;
    CHECK(master >= 0 && ioctl(master, TIOCSPTLCK, &open_) == 0);
    CHECK((line = open("d/0", O_RDWR | O_NOCTTY)) >= 0 && write(line, "in", 2) == 2);
    struct child first = begun(peer);
    snprintf(name, sizeof name, "/proc/%d/ns/mnt", first.pid);
    int theirs = open(name, O_RDONLY), place = open(name, O_PATH);
    CHECK(theirs >= 0 && place >= 0);
    struct child second = begun(follower), third = begun(away);
    look(before);

    for (int i = 0; i < 400; i++)
        CHECK(syscall(SYS_getpgid, 0) >= 0);

    look(now);
    CHECK(!strcmp(before, now));
    CHECK(stat("t/file", &is) == 0 && was.st_dev == is.st_dev && was.st_ino == is.st_ino);
    CHECK(write(line, "side", 4) == 4);
    for (int at = 0, got; at < 6; at += got)
        CHECK((got = read(master, now + at, 6 - at)) > 0);
    CHECK(!memcmp(now, "inside", 6));
    CHECK(open("d/ptmx", O_RDWR | O_NOCTTY) >= 0 && stat("d/1", &is) == 0);
    CHECK((is.st_mode & 07777) == 0640 && is.st_dev != was.st_dev);
    same("over", "in memory");
    same("lost", "no name");
    CHECK(write(written, "!", 1) == 1);
    same("p/inside", "the same!");
    CHECK_ERR(open("over", O_WRONLY), EROFS);
    CHECK(mkdir("t/late", 0755) == 0 && mount("late", "t/late", "tmpfs", 0, 0) == 0);
    make("t/late/file", "late");
    IN_CHILD({
        CHECK(setns(theirs, CLONE_NEWNS) == 0);
        same(at_home("m/file"), "ramfs");
    });
    CHECK_ERR(setns(place, CLONE_NEWNS), EBADF);
    IN_CHILD({
        int names = open("names", O_RDONLY);
        CHECK(names >= 0 && setns(names, CLONE_NEWUTS) == 0);
    });
    ended(first);
    ended(second);
    ended(third);
    same("t/theirs/file", "from a peer");
    CHECK(access("t/mine", F_OK) == 0);
    CHECK_ERR(access("t/mine/file", F_OK), ENOENT);
    return 0;
}
