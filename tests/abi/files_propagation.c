/* Mounts that come and go on peers because they do on one of them. */
#define _GNU_SOURCE
#include "abi.h"
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

/* How many mounts the namespace has whose place or file system is named so. */
static int count(const char *what)
{
    static char line[1 << 12];
    int found = 0;
    FILE *list = fopen("/proc/self/mountinfo", "r");
    CHECK(list);
    while (fgets(line, sizeof line, list))
        found += strstr(line, what) != 0;
    fclose(list);
    return found;
}

/* What is below what goes, goes on the peers, too. */
static void nested(void)
{
    CHECK(mkdir("a", 0755) == 0 && mkdir("b", 0755) == 0);
    CHECK(mount("nested", "a", "tmpfs", 0, 0) == 0 && mount(0, "a", 0, MS_SHARED, 0) == 0);
    CHECK(mount("a", "b", 0, MS_BIND, 0) == 0);
    CHECK(mkdir("a/x", 0755) == 0 && mount("inner", "a/x", "tmpfs", 0, 0) == 0);
    CHECK(mkdir("b/x/y", 0755) == 0 && mount("inner", "b/x/y", "tmpfs", 0, 0) == 0);
    CHECK(mkdir("a/x/y/z", 0755) == 0 && mount("inner", "a/x/y/z", "tmpfs", 0, 0) == 0);
    CHECK(count(" inner ") == 6);
    CHECK_ERR(umount("a/x"), EBUSY);
    CHECK(umount2("a/x", MNT_DETACH) == 0);
    CHECK(count(" inner ") == 0);
    CHECK(umount("b") == 0 && umount("a") == 0);
}

/* A peer's mount with something private on it stays. */
static void kept(void)
{
    CHECK(mount("kept", "a", "tmpfs", 0, 0) == 0 && mount(0, "a", 0, MS_SHARED, 0) == 0);
    CHECK(mount("a", "b", 0, MS_BIND, 0) == 0);
    CHECK(mkdir("a/x", 0755) == 0 && mount("inner", "a/x", "tmpfs", 0, 0) == 0);
    CHECK(mkdir("a/x/y", 0755) == 0 && mount(0, "b/x", 0, MS_PRIVATE, 0) == 0);
    CHECK(mount("own", "b/x/y", "tmpfs", 0, 0) == 0);
    CHECK(umount2("a/x", MNT_DETACH) == 0);
    CHECK(count(" inner ") == 1 && count(" own ") == 1);
    CHECK(umount2("b", MNT_DETACH) == 0 && umount("a") == 0 && count(" own ") == 0);
}

/* A shared mount bound on itself doubles each time. */
static void doubled(void)
{
    CHECK(mkdir("p", 0755) == 0 && mount("top", "p", "tmpfs", 0, 0) == 0);
    CHECK(mkdir("p/c", 0755) == 0 && mount("many", "p/c", "tmpfs", 0, 0) == 0);
    CHECK(mount(0, "p/c", 0, MS_SHARED, 0) == 0);
    for (int all = 1; all < 4096; all *= 2) {
        if (all <= 256)
            CHECK(count(" many ") == all);
        CHECK(mount("p/c", "p/c", 0, MS_BIND, 0) == 0);
    }
    CHECK(umount2("p", MNT_DETACH) == 0);
    CHECK(count(" many ") == 0 && rmdir("p") == 0);
}

int main(void)
{
    CHECK(unshare(CLONE_NEWNS) == 0 && mount(0, "/", 0, MS_REC | MS_PRIVATE, 0) == 0);
    nested();
    kept();
    doubled();
    return 0;
}
