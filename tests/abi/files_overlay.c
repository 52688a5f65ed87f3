/* Overlays: what is merged, copied up, hidden and moved, and what the upper layer says of it. Needs
 * root. */
#define _GNU_SOURCE
#include "abi.h"
#include <dirent.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>
#include "ns.h"
#include "overlay.h"

#ifndef RENAME_EXCHANGE
#define RENAME_NOREPLACE 1
#define RENAME_EXCHANGE 2
#endif
#define RENAME_WHITEOUT_ 4

static void fresh(void)
{
    CHECK(mount("none", "t", "tmpfs", 0, "mode=0755") == 0);
    const char *made[] = {"t/one", "t/two", "t/up", "t/work", "t/one/d", "t/two/d", "t/two/e"};
    for (int i = 0; i < 7; i++)
        CHECK(mkdir(made[i], 0755) == 0);
    put("t/one/a", "one");
    put("t/two/a", "two");
    put("t/two/b", "below");
    put("t/one/d/x", "x");
    put("t/two/d/y", "y");
    put("t/two/e/inner", "inner");
}

#define LAYERS "lowerdir=t/one:t/two,upperdir=t/up,workdir=t/work"

static void merged(void)
{
    struct stat before, after, top;
    fresh();
    CHECK(mount("over", "m", "overlay", 0, LAYERS) == 0);
    CHECK(has("m/a", "one") && has("m/b", "below") && has("m/d/x", "x") && has("m/d/y", "y"));
    CHECK(names("m") == 4 && names("m/d") == 2);
    CHECK(stat("m/d", &after) == 0 && after.st_nlink == 1);
    CHECK_ERR(access("t/up/b", F_OK), ENOENT);

    int early = open("m/b", O_RDONLY); /* follows the copy-up */
    CHECK(early >= 0 && stat("m/b", &before) == 0 && stat("m", &top) == 0);
    int fd = open("m/b", O_WRONLY | O_APPEND);
    CHECK(write(fd, "!", 1) == 1 && close(fd) == 0);
    char text[10] = {0};
    CHECK(pread(early, text, 9, 0) == 6 && !strcmp(text, "below!") && close(early) == 0);
    CHECK(has("m/b", "below!") && has("t/up/b", "below!") && has("t/two/b", "below"));
    CHECK(stat("m/b", &after) == 0 && after.st_ino == before.st_ino);
    CHECK(after.st_dev == before.st_dev && after.st_dev == top.st_dev);

    fd = open("m/e/inner", O_RDWR); /* copied up by that */
    CHECK(fd >= 0 && has("t/up/e/inner", "inner") && close(fd) == 0);

    CHECK(chmod("m/d/y", 0600) == 0 && chown("m/d/y", 5, 6) == 0); /* the directory, too */
    CHECK(stat("t/up/d/y", &after) == 0 && (after.st_mode & 07777) == 0600 && after.st_uid == 5);
    CHECK(stat("t/two/d/y", &after) == 0 && (after.st_mode & 07777) == 0644 && !after.st_uid);
    CHECK(names("m/d") == 2 && has("m/d/y", "y") && has("m/d/x", "x"));

    CHECK(link("m/a", "m/second") == 0 && stat("m/a", &before) == 0);
    CHECK(stat("m/second", &after) == 0 && after.st_ino == before.st_ino && after.st_nlink == 2);
    fd = open("m/d", O_TMPFILE | O_RDWR, 0644);
    CHECK(fd >= 0 && write(fd, "late", 4) == 4);
    char link_to[40];
    snprintf(link_to, sizeof link_to, "/proc/self/fd/%d", fd);
    CHECK(linkat(AT_FDCWD, link_to, AT_FDCWD, "m/d/late", AT_SYMLINK_FOLLOW) == 0);
    CHECK(close(fd) == 0 && has("m/d/late", "late") && has("t/up/d/late", "late"));
    CHECK(umount("m") == 0 && umount("t") == 0);
}

static void hidden(void)
{
    fresh();
    CHECK(mount("over", "m", "overlay", 0, LAYERS) == 0);
    CHECK(unlink("m/a") == 0 && is_whiteout("t/up/a"));
    CHECK_ERR(access("m/a", F_OK), ENOENT);
    CHECK(names("m") == 3);
    CHECK_ERR(mknod("m/w", S_IFCHR | 0600, makedev(0, 0)), EPERM);
    put("m/a", "again");
    CHECK(has("t/up/a", "again") && unlink("m/a") == 0 && is_whiteout("t/up/a"));

    CHECK_ERR(rmdir("m/d"), ENOTEMPTY);
    CHECK(unlink("m/d/x") == 0 && is_whiteout("t/up/d/x") && unlink("m/d/y") == 0);
    CHECK(names("m/d") == 0 && rmdir("m/d") == 0 && is_whiteout("t/up/d"));
    CHECK(mkdir("m/d", 0755) == 0 && marked("t/up/d", "trusted.overlay.opaque", "y"));
    CHECK(names("m/d") == 0 && names("t/two/d") == 1);
    CHECK_ERR(getxattr("m/d", "trusted.overlay.opaque", 0, 0), ENODATA);
    put("m/new", "new");
    CHECK(unlink("m/new") == 0); /* nothing to hide */
    CHECK_ERR(access("t/up/new", F_OK), ENOENT);
    CHECK(umount("m") == 0);

    CHECK(mount("over", "m", "overlay", 0, LAYERS) == 0); /* as it was left */
    CHECK(names("m") == 3 && names("m/d") == 0 && has("m/e/inner", "inner"));
    CHECK(umount("m") == 0 && umount("t") == 0);
}

static void moved(void)
{
    struct stat before, after;
    fresh();
    CHECK(mount("over", "m", "overlay", 0, LAYERS) == 0);
    CHECK_ERR(rename("m/e", "m/f"), EXDEV);
    CHECK_ERR(rename("m/d", "m/f"), EXDEV);
    CHECK(stat("m/b", &before) == 0 && rename("m/b", "m/c") == 0 && is_whiteout("t/up/b"));
    CHECK(stat("m/c", &after) == 0 && after.st_ino == before.st_ino && has("m/c", "below"));
    CHECK(renameat2(AT_FDCWD, "m/a", AT_FDCWD, "m/c", RENAME_EXCHANGE) == 0);
    CHECK(has("m/a", "below") && has("m/c", "one"));
    CHECK_ERR(renameat2(AT_FDCWD, "m/a", AT_FDCWD, "m/z", RENAME_WHITEOUT_), EINVAL);
    CHECK(rename("m/a", "m/d/x") == 0 && has("m/d/x", "below") && is_whiteout("t/up/a"));
    CHECK(mkdir("m/own", 0755) == 0);
    put("m/own/file", "own");
    CHECK(rename("m/own", "m/e/own") == 0 && has("m/e/own/file", "own"));
    CHECK(mkdir("m/empty", 0755) == 0);
    CHECK_ERR(rename("m/empty", "m/e"), ENOTEMPTY);
    CHECK(unlink("m/d/x") == 0 && unlink("m/d/y") == 0 && rename("m/empty", "m/d") == 0);
    CHECK(names("m/d") == 0 && marked("t/up/d", "trusted.overlay.opaque", "y"));
    CHECK(umount("m") == 0 && umount("t") == 0);
}

static void redirected(void)
{
    fresh();
    CHECK(mount("over", "m", "overlay", 0, LAYERS ",redirect_dir=on") == 0);
    CHECK(rename("m/e", "m/f") == 0 && has("m/f/inner", "inner"));
    CHECK(marked("t/up/f", "trusted.overlay.redirect", "e") && is_whiteout("t/up/e"));
    CHECK(rename("m/f", "m/d/g") == 0 && has("m/d/g/inner", "inner"));
    CHECK(marked("t/up/d/g", "trusted.overlay.redirect", "/e"));
    CHECK(umount("m") == 0);
    CHECK(mount("over", "m", "overlay", 0, LAYERS) == 0); /* followed all the same */
    CHECK(has("m/d/g/inner", "inner") && names("m/d/g") == 1);
    CHECK(umount("m") == 0);
    CHECK(mount("over", "m", "overlay", 0, LAYERS ",redirect_dir=nofollow") == 0);
    CHECK_ERR(access("m/d/g/inner", F_OK), EPERM);
    CHECK(umount("m") == 0 && umount("t") == 0);
}

static void otherwise(void)
{
    struct stat st;
    fresh();
    CHECK(mount("over", "m", "overlay", 0, "lowerdir=t/one:t/two") == 0);
    CHECK(has("m/a", "one") && has("m/b", "below"));
    CHECK_ERR(open("m/new", O_CREAT | O_WRONLY, 0644), EROFS);
    CHECK_ERR(unlink("m/a"), EROFS);
    CHECK(umount("m") == 0);

    CHECK(mount("over", "m", "overlay", 0, LAYERS ",userxattr") == 0);
    CHECK(unlink("m/e/inner") == 0 && rmdir("m/e") == 0 && mkdir("m/e", 0755) == 0);
    CHECK(marked("t/up/e", "user.overlay.opaque", "y"));
    CHECK(chown("m/d", 0, 7) == 0 && chmod("m/d", 02755) == 0 && mkdir("m/d/sub", 0755) == 0);
    CHECK(stat("t/up/d/sub", &st) == 0 && st.st_gid == 7 && st.st_mode & S_ISGID);
    CHECK(umount("m") == 0 && umount("t") == 0);
}

static void refused(void)
{
    static const struct {
        const char *options;
        int error;
    } all[] = {
        {"upperdir=t/up,workdir=t/work", EINVAL},
        {"lowerdir=t/one", EINVAL},
        {"lowerdir=t/one,upperdir=t/up", EINVAL},
        {"lowerdir=t/one:t/none", ENOENT},
        {"lowerdir=t/one:t/one/a", EINVAL},
        {"lowerdir=t/one:t/one", ELOOP},
        {"lowerdir=t/one/d:t/one", ELOOP},
        {"lowerdir=t/up,upperdir=t/up,workdir=t/work", ELOOP},
        {"lowerdir=t/one,upperdir=t/up,workdir=t/up/w", EINVAL},
        {"lowerdir=t/one,upperdir=t/up,workdir=w", EINVAL},
        {LAYERS ",redirect_dir=maybe", EINVAL},
        {LAYERS ",userxattr,redirect_dir=on", EINVAL},
        {LAYERS ",none_such", EINVAL},
    };
    fresh();
    CHECK(mkdir("t/up/w", 0755) == 0 && mkdir("w", 0755) == 0);
    for (int i = 0; i < sizeof all / sizeof *all; i++) {
        int done = mount("over", "m", "overlay", 0, all[i].options);
        if (done != -1 || errno != all[i].error)
            fprintf(stderr, "%s: %d, errno %d\n", all[i].options, done, errno);
        CHECK(done == -1);
    }
    CHECK(umount("t") == 0);
}

/* Whoever mounts it gets no more rights than before. */
static void in_user_namespace(void)
{
    struct stat st;
    unsigned caps[] = {0x02000000, 1 << CAP_NET_RAW, 0, 0, 0};
    unsigned stored[6];
    const char *made[] = {"t/low", "t/mine", "t/mine/up", "t/mine/work"};
    CHECK(mount("none", "t", "tmpfs", 0, "mode=0755") == 0);
    for (int i = 0; i < 4; i++)
        CHECK(mkdir(made[i], 0755) == 0 && (!i || chown(made[i], 1000, 1000) == 0));
    CHECK(mkdir("t/low/d", 0755) == 0);
    put("t/low/d/below", "below");
    CHECK(mkdir("t/mine/top", 0755) == 0 && mkdir("t/mine/top/d", 0755) == 0);
    CHECK(setxattr("t/mine/top/d", "trusted.overlay.opaque", "y", 1, 0) == 0);
    put("t/low/open", "open");
    put("t/low/secret", "secret");
    CHECK(chmod("t/low/open", 0666) == 0 && chmod("t/low/secret", 0600) == 0);
    put("t/low/capable", "capable");
    put("t/low/labelled", "labelled");
    CHECK(chown("t/low/capable", 1000, 1000) == 0 && chown("t/low/labelled", 1000, 1000) == 0);
    CHECK(setxattr("t/low/capable", "security.capability", caps, 20, 0) == 0);
    CHECK(setxattr("t/low/labelled", "security.test", "x", 1, 0) == 0);
    IN_CHILD({
        CHECK(setresgid(1000, 1000, 1000) == 0 && setresuid(1000, 1000, 1000) == 0);
        CHECK(unshare(CLONE_NEWUSER | CLONE_NEWNS) == 0);
        CHECK(prctl(PR_SET_DUMPABLE, 1) == 0); /* whose files of /proc are its own */
        CHECK(write_text("/proc/self/setgroups", "deny") == 4);
        CHECK(write_text("/proc/self/uid_map", "0 1000 1") == 8);
        CHECK(write_text("/proc/self/gid_map", "0 1000 1") == 8);
        CHECK(mount("over", "m", "overlay", 0,
                    "lowerdir=t/low,upperdir=t/mine/up,workdir=t/mine/work,userxattr") == 0);
        CHECK(has("m/open", "open"));
        CHECK_ERR(open("m/secret", O_RDONLY), EACCES);
        CHECK_ERR(open("m/open", O_WRONLY), EOVERFLOW); /* its owner is nobody here */
        CHECK(unlink("m/open") == 0 && is_whiteout("t/mine/up/open"));
        put("m/new", "new");
        CHECK(stat("t/mine/up/new", &st) == 0 && st.st_uid == 0);
        CHECK_ERR(mknod("m/null", S_IFCHR | 0666, makedev(1, 3)), EPERM);
        CHECK(chmod("m/capable", 0700) == 0);
        CHECK_ERR(chmod("m/labelled", 0700), EPERM);
        CHECK(umount("m") == 0);
        CHECK(mount("over", "m", "overlay", 0, "lowerdir=t/mine/top:t/low") == 0);
        CHECK(has("m/d/below", "below")); /* trusted.overlay.opaque is not for it */
    });
    CHECK(stat("t/mine/up/new", &st) == 0 && st.st_uid == 1000);
    /* What the copy is capable of, it is where user 1000 is root. */
    CHECK(getxattr("t/mine/up/capable", "security.capability", stored, sizeof stored) == 24);
    CHECK(stored[0] >> 24 == 3 && stored[1] == caps[1] && stored[5] == 1000);
    CHECK(umount("t") == 0);
}

int main(void)
{
    if (unshare(CLONE_NEWNS))
        return 0; /* no right to mount */
    CHECK(mount(0, "/", 0, MS_REC | MS_PRIVATE, 0) == 0);
    umask(022);
    CHECK(mkdir("t", 0755) == 0 && mkdir("m", 0755) == 0);
    merged();
    hidden();
    moved();
    redirected();
    otherwise();
    refused();
    in_user_namespace();
    return 0;
}
