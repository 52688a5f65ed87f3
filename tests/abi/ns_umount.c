/* umount(2) goes on to mounts that follow: which of them go, and which stay, in a namespace of the same
 * owner and in one of a less privileged owner, where what came in one piece is locked. Needs root. */
#define _GNU_SOURCE
#include "abi.h"
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include "ns.h"

static int up[2], down[2];
static char here[300];

static void go(int fd) { CHECK(write(fd, "x", 1) == 1); }
static void await(int fd) { char c; CHECK(read(fd, &c, 1) == 1); }
static void memory(const char *place) { CHECK(mount("none", place, "tmpfs", 0, "mode=777") == 0); }
static void folder(const char *path) { CHECK(mkdir(path, 0777) == 0); }

static int by_name(const void *a, const void *b) { return strcmp(*(char **)a, *(char **)b); }

/* The mounts below s and w, in order. */
static const char *followers(void)
{
    static char text[1 << 16], found[4096];
    char *names[64], *rest, place[600];
    int fd = open("/proc/self/mountinfo", O_RDONLY), size = 0, some, count = 0;
    while ((some = read(fd, text + size, sizeof text - 1 - size)) > 0)
        size += some;
    text[size] = 0;
    close(fd);
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        CHECK(sscanf(line, "%*s %*s %*s %*s %599s", place) == 1);
        if (strncmp(place, here, strlen(here)) || place[strlen(here)] != '/')
            continue;
        char *name = place + strlen(here) + 1;
        if (name[0] == 'w' || !strncmp(name, "s/", 2))
            names[count++] = strdup(name);
    }
    qsort(names, count, sizeof *names, by_name);
    found[0] = 0;
    for (int i = 0; i < count; i++) {
        strcat(strcat(found, i ? " " : ""), names[i]);
        free(names[i]);
    }
    return found;
}

/* What the follower has done before. */
static void none(void) {}
static void over_a_directory(void) { memory("s/x/b/c/d"); }
static void over_c(void) { memory("s/x/b/c"); }
static void over_x(void) { memory("s/x"); }
static void busy(void) { CHECK(chdir("s/x/b/c") == 0); }
static void copy(void) { CHECK(mount("s/x", "w", 0, MS_BIND | MS_REC, 0) == 0); }
static void copy_of_b(void) { CHECK(mount("s/x/b", "w", 0, MS_BIND | MS_REC, 0) == 0); }
static void private_b(void) { CHECK(mount(0, "s/x/b", 0, MS_PRIVATE, 0) == 0); }
static void own_namespace(void) { CHECK(unshare(CLONE_NEWNS) == 0); }
static void moved(void) { CHECK(mount("s/x", "w", 0, MS_MOVE, 0) == 0); }
static void shared_again(void) { CHECK(mount(0, "s/x", 0, MS_SHARED | MS_REC, 0) == 0); copy(); }

/* What is unmounted: s/x/b/c; s/x/b with what is on it; s/x so; all three one by one. */
enum { ONE, TWO, ALL, EACH };

static const struct {
    void (*before)(void);
    const char *same[4], *less[4]; /* what is left in a namespace of the same, of a less privileged owner */
} CASES[] = {
    {none,
     {"s/x s/x/b", "s/x", "", ""},
     {"s/x s/x/b", "s/x", "", ""}},
    {over_a_directory,
     {"s/x s/x/b s/x/b/c s/x/b/c/d", "s/x s/x/b s/x/b/c s/x/b/c/d",
      "s/x s/x/b s/x/b/c s/x/b/c/d", "s/x s/x/b s/x/b/c s/x/b/c/d"},
     {"s/x s/x/b s/x/b/c s/x/b/c/d", "s/x s/x/b s/x/b/c s/x/b/c/d",
      "s/x s/x/b s/x/b/c s/x/b/c/d", "s/x s/x/b s/x/b/c s/x/b/c/d"}},
    {over_c,
     {"s/x s/x/b s/x/b/c", "s/x s/x/b s/x/b/c", "s/x s/x/b s/x/b/c", "s/x s/x/b s/x/b/c"},
     {"s/x s/x/b s/x/b/c", "s/x s/x/b s/x/b/c s/x/b/c", "s/x s/x/b s/x/b/c s/x/b/c", "s/x s/x/b s/x/b/c"}},
    {over_x,
     {"s/x s/x s/x/b", "s/x s/x", "s/x", "s/x"},
     {"s/x s/x s/x/b", "s/x s/x", "s/x", "s/x"}},
    {busy,
     {"s/x s/x/b s/x/b/c", "s/x", "", "s/x s/x/b s/x/b/c"},
     {"s/x s/x/b s/x/b/c", "s/x", "", "s/x s/x/b s/x/b/c"}},
    {copy,
     {"s/x s/x/b w w/b", "s/x w", "w", "w"},
     {"s/x s/x/b w w/b", "s/x w", "w w/b w/b/c", "w"}},
    {copy_of_b,
     {"s/x s/x/b w", "s/x w", "w", "w"},
     {"s/x s/x/b w", "s/x w w/c", "w w/c", "w"}},
    {private_b,
     {"s/x s/x/b s/x/b/c", "s/x s/x/b s/x/b/c", "s/x s/x/b s/x/b/c", "s/x s/x/b s/x/b/c"},
     {"s/x s/x/b s/x/b/c", "s/x s/x/b s/x/b/c", "s/x s/x/b s/x/b/c", "s/x s/x/b s/x/b/c"}},
    {own_namespace,
     {"s/x s/x/b", "s/x", "", ""},
     {"s/x s/x/b", "s/x", "", ""}},
    {moved,
     {"w w/b", "w", "w", "w"},
     {"w w/b", "w", "w w/b w/b/c", "w"}},
    {shared_again,
     {"s/x s/x/b w w/b", "s/x w", "w", "w"},
     {"s/x s/x/b w w/b", "s/x w", "w w/b w/b/c", "w"}},
};

static void unmount(int what, int refused)
{
    if (what == ONE || what == EACH) {
        if (refused)
            CHECK_ERR(umount2("s/x/b/c", 0), EBUSY);
        else
            CHECK(umount2("s/x/b/c", 0) == 0);
    }
    if (what == TWO)
        CHECK(umount2("s/x/b", MNT_DETACH) == 0);
    if (what == ALL)
        CHECK(umount2("s/x", MNT_DETACH) == 0);
    if (what == EACH && !refused)
        CHECK(umount2("s/x/b", 0) == 0 && umount2("s/x", 0) == 0);
}

static void follower(int number, int what, int less)
{
    const char *expected = (less ? CASES[number].less : CASES[number].same)[what];
    CHECK(unshare((less ? CLONE_NEWUSER : 0) | CLONE_NEWNS) == 0);
    if (less) {
        CHECK(write_text("/proc/self/uid_map", "0 0 1") == 5);
        CHECK(write_text("/proc/self/setgroups", "deny") == 4 && write_text("/proc/self/gid_map", "0 0 1") == 5);
    } else {
        CHECK(mount(0, "s", 0, MS_SLAVE, 0) == 0);
    }
    CHECK(chdir(here) == 0);
    go(up[1]);
    await(down[0]);
    CHECK(!strcmp(followers(), "s/x s/x/b s/x/b/c"));
    if (less) {
        CHECK_ERR(umount2("s/x/b/c", MNT_DETACH), EINVAL);
        CHECK_ERR(umount2("s/x", 0), EBUSY);
    }
    CASES[number].before();
    go(up[1]);
    await(down[0]);
    if (strcmp(followers(), expected)) {
        fprintf(stderr, "case %d, %d, %d: %s, not %s\n", number, what, less, followers(), expected);
        _exit(1);
    }
    _exit(0);
}

static void one(int number, int what, int less)
{
    CHECK(unshare(CLONE_NEWNS) == 0);
    memory(".");
    CHECK(chdir(here) == 0);
    folder("a"), folder("s"), folder("w");
    memory("a");
    folder("a/b");
    memory("a/b");
    folder("a/b/c");
    memory("a/b/c");
    folder("a/b/c/d");
    memory("s");
    CHECK(mount(0, "s", 0, MS_SHARED, 0) == 0);
    folder("s/x");
    CHECK(pipe(up) == 0 && pipe(down) == 0);
    pid_t child = fork();
    if (!child)
        follower(number, what, less);
    await(up[0]);
    CHECK(mount("a", "s/x", 0, MS_BIND | MS_REC, 0) == 0);
    go(down[1]);
    await(up[0]);
    unmount(what, CASES[number].before == busy);
    go(down[1]);
    CHECK(status_of(child) == 0);
}

int main(void)
{
    CHECK(unshare(CLONE_NEWNS) == 0 && mount(0, "/", 0, MS_REC | MS_PRIVATE, 0) == 0);
    CHECK(mkdir("t", 0777) == 0 && chdir("t") == 0 && getcwd(here, sizeof here) != NULL);
    for (unsigned i = 0; i < sizeof CASES / sizeof *CASES; i++)
        for (int what = ONE; what <= EACH; what++)
            for (int less = 0; less < 2; less++)
                IN_CHILD(one(i, what, less));
    CHECK(chdir("..") == 0 && rmdir("t") == 0);
    return 0;
}
