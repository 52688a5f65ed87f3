/* Overlays: options, by mount(2) and by fsconfig(2), and what is shown of them. Needs root. */
#define _GNU_SOURCE
#include "abi.h"
#include <linux/mount.h>
#include <sched.h>
#include <sys/syscall.h>
#include "overlay.h"

#define MS_RDONLY 1
#define MS_REMOUNT 32
#define MS_REC 16384
#define MS_PRIVATE (1 << 18)
#define UPPER ",upperdir=t/up,workdir=t/work"
int mount(const char *, const char *, const char *, unsigned long, const void *);
int umount(const char *);

static long fsopen(const char *t, unsigned f) { return syscall(SYS_fsopen, t, f); }
static long fsmount(int f, unsigned fl, unsigned a) { return syscall(SYS_fsmount, f, fl, a); }
static long fsconfig(int f, unsigned c, const void *k, const void *v, int a)
{
    return syscall(SYS_fsconfig, f, c, k, v, a);
}
static long move_mount(int d, const char *p, int e, const char *q, unsigned f)
{
    return syscall(SYS_move_mount, d, p, e, q, f);
}

static void fresh(void)
{
    const char *made[] = {"t/a", "t/b", "t/co,ma", "t/co:lon", "t/back\\slash", "t/up", "t/work"};
    CHECK(mount("none", "t", "tmpfs", 0, "mode=0755") == 0);
    for (int i = 0; i < 7; i++)
        CHECK(mkdir(made[i], 0755) == 0);
    put("t/a/f", "a");
    put("t/b/g", "b");
    put("t/co,ma/h", "comma");
    put("t/co:lon/i", "colon");
    put("t/back\\slash/j", "slash");
}

/* What mountinfo has of it behind "overlay shown". */
static int shown(const char *options)
{
    static char line[4096], end[1000];
    int found = 0;
    FILE *list = fopen("/proc/self/mountinfo", "r");
    snprintf(end, sizeof end, " - overlay shown %s\n", options);
    while (fgets(line, sizeof line, list))
        found += strlen(line) > strlen(end) && !strcmp(line + strlen(line) - strlen(end), end);
    fclose(list);
    return found;
}

static void by_mount(void)
{
    static const struct {
        const char *given, *shown;
    } all[] = {
        {"lowerdir=t/a:t/b", "ro,lowerdir=t/a:t/b,redirect_dir=on"},
        {"lowerdir=t/a:t/b,redirect_dir=nofollow", "ro,lowerdir=t/a:t/b,redirect_dir=nofollow"},
        {"lowerdir=t/a" UPPER, "rw,lowerdir=t/a" UPPER ",uuid=on"},
        {"lowerdir=t/a" UPPER ",redirect_dir=off,index=off,xino=on", "rw,lowerdir=t/a" UPPER},
        {"lowerdir=t/a" UPPER ",redirect_dir=on,uuid=null",
         "rw,lowerdir=t/a" UPPER ",redirect_dir=on,uuid=null"},
        {"lowerdir=t/a" UPPER ",userxattr",
         "rw,lowerdir=t/a" UPPER ",redirect_dir=nofollow,uuid=on,userxattr"},
        {"lowerdir=t/co\\:lon:t/co\\,ma:t/back\\\\slash",
         "ro,lowerdir=t/co\\134:lon:t/co\\134\\054ma:t/back\\134\\134slash,redirect_dir=on"},
        {"lowerdir=t/a::t/b" UPPER, "rw,lowerdir=t/a::t/b" UPPER},
    };
    fresh();
    for (int i = 0; i < sizeof all / sizeof *all; i++) {
        CHECK(mount("shown", "m", "overlay", 0, all[i].given) == 0);
        if (!shown(all[i].shown))
            fprintf(stderr, "%s\n", all[i].given);
        CHECK(shown(all[i].shown));
        CHECK(umount("m") == 0);
    }
    CHECK(umount("t") == 0);
}

static void remounted(void)
{
    fresh();
    CHECK(mount("shown", "m", "overlay", 0, "lowerdir=t/a:t/b") == 0);
    CHECK(mount(0, "m", 0, MS_REMOUNT | MS_RDONLY, "none such") == 0); /* options are ignored */
    CHECK_ERR(mount(0, "m", 0, MS_REMOUNT, 0), EROFS);
    CHECK(umount("m") == 0);
    CHECK(mount("shown", "m", "overlay", 0, "lowerdir=t/a" UPPER) == 0);
    CHECK(mount(0, "m", 0, MS_REMOUNT | MS_RDONLY, "none=such") == 0);
    CHECK_ERR(open("m/f", O_WRONLY), EROFS);
    CHECK(mount(0, "m", 0, MS_REMOUNT, 0) == 0);
    put("m/f", "changed");
    CHECK(has("t/up/f", "changed") && umount("m") == 0 && umount("t") == 0);
}

static void by_descriptor(void)
{
    fresh();
    int fd = fsopen("overlay", FSOPEN_CLOEXEC);
    CHECK(fd >= 0 && fsconfig(fd, FSCONFIG_SET_STRING, "source", "shown", 0) == 0);
    CHECK(fsconfig(fd, FSCONFIG_SET_STRING, "lowerdir+", "t/co:lon", 0) == 0);
    CHECK(fsconfig(fd, FSCONFIG_SET_STRING, "lowerdir+", "t/co,ma", 0) == 0);
    CHECK(fsconfig(fd, FSCONFIG_SET_STRING, "lowerdir+", "t/back\\slash", 0) == 0);
    CHECK(fsconfig(fd, FSCONFIG_SET_STRING, "upperdir", "t/up", 0) == 0);
    CHECK(fsconfig(fd, FSCONFIG_SET_STRING, "workdir", "t/work", 0) == 0);
    CHECK_ERR(fsconfig(fd, FSCONFIG_SET_STRING, "redirect_dir", "maybe", 0), EINVAL);
    CHECK_ERR(fsconfig(fd, FSCONFIG_SET_FLAG, "none_such", 0, 0), EINVAL);
    CHECK(fsconfig(fd, FSCONFIG_CMD_CREATE, 0, 0, 0) == 0);
    int tree = fsmount(fd, FSMOUNT_CLOEXEC, 0);
    CHECK(tree >= 0 && move_mount(tree, "", AT_FDCWD, "m", MOVE_MOUNT_F_EMPTY_PATH) == 0);
    CHECK(has("m/h", "comma") && has("m/i", "colon") && has("m/j", "slash"));
    put("m/new", "new");
    CHECK(has("t/up/new", "new") && close(tree) == 0 && close(fd) == 0);
    CHECK(umount("m") == 0 && umount("t") == 0);
}

int main(void)
{
    if (unshare(CLONE_NEWNS))
        return 0; /* no right to mount */
    CHECK(mount(0, "/", 0, MS_REC | MS_PRIVATE, 0) == 0);
    umask(022);
    CHECK(mkdir("t", 0755) == 0 && mkdir("m", 0755) == 0);
    by_mount();
    remounted();
    by_descriptor();
    return 0;
}
