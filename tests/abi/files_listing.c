/* A listing after each way to change a directory: names, kinds, numbers, positions, both forms. */
#define _GNU_SOURCE
#include "abi.h"
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define MOST 2000
struct entry {
    unsigned long ino;
    long next;
    unsigned short size;
};
static struct found {
    char name[256];
    unsigned long ino;
    long next;
    int kind;
} found[MOST];
static int count, dir;

/* Read the directory from `position` on with a small buffer. */
static void list(int old, long position)
{
    static char buf[1000];
    long bytes;
    count = 0;
    CHECK(lseek(dir, position, SEEK_SET) == position);
    while ((bytes = syscall(old ? SYS_getdents : SYS_getdents64, dir, buf, sizeof buf)) > 0)
        for (long at = 0; at < bytes; at += ((struct entry *)(buf + at))->size) {
            struct entry *e = (void *)(buf + at);
            struct found *f = &found[count++];
            CHECK(count < MOST && e->size % 8 == 0 && at + e->size <= bytes);
            strcpy(f->name, buf + at + (old ? 18 : 19));
            f->ino = e->ino, f->next = e->next;
            f->kind = buf[at + (old ? e->size - 1 : 18)];
        }
    CHECK(bytes == 0);
}

static struct found *seek_name(const char *name)
{
    for (int i = 0; i < count; i++)
        if (!strcmp(found[i].name, name))
            return &found[i];
    return NULL;
}

static int before;

/* `names` are there beside those of before, with the type and number that stat(2) tells. */
static void holds(const char *names)
{
    char copy[256], *rest;
    struct stat st;
    for (int old = 0; old < 2; old++) {
        list(old, 0);
        int wanted = before;
        strcpy(copy, names);
        for (char *name = strtok_r(copy, " ", &rest); name; name = strtok_r(NULL, " ", &rest)) {
            struct found *f = seek_name(name);
            CHECK(f && fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0);
            CHECK(f->ino == st.st_ino && f->kind == (st.st_mode & S_IFMT) >> 12);
            wanted++;
        }
        CHECK(count == wanted);
        CHECK(seek_name(".") && seek_name(".."));
    }
}

static int make(const char *name)
{
    return close(openat(dir, name, O_CREAT | O_EXCL | O_WRONLY, 0644));
}

static void changes(const char *place)
{
    CHECK((dir = open(place, O_RDONLY | O_DIRECTORY)) >= 0);
    list(0, 0);
    before = count;
    holds("");
    CHECK(make("file") == 0);
    holds("file");
    CHECK(mkdirat(dir, "sub", 0755) == 0);
    holds("file sub");
    CHECK(symlinkat("nowhere", dir, "link") == 0);
    holds("file sub link");
    CHECK(mkfifoat(dir, "fifo", 0600) == 0);
    holds("file sub link fifo");
    CHECK(linkat(dir, "file", dir, "hard", 0) == 0);
    holds("file sub link fifo hard");
    CHECK(renameat(dir, "fifo", dir, "other") == 0);
    holds("file sub link other hard");
    CHECK(renameat2(dir, "other", dir, "sub", RENAME_EXCHANGE) == 0);
    holds("file sub link other hard");
    CHECK(renameat2(dir, "other", dir, "sub", RENAME_EXCHANGE) == 0);
    CHECK(renameat(dir, "other", dir, "link") == 0);
    holds("file sub link hard");
    CHECK(renameat(dir, "file", dir, "sub/moved") == 0);
    holds("sub link hard");
    CHECK(renameat(dir, "sub/moved", dir, "back") == 0);
    holds("sub link hard back");
    CHECK(unlinkat(dir, "sub", AT_REMOVEDIR) == 0);
    holds("link hard back");
    CHECK(unlinkat(dir, "link", 0) == 0 && unlinkat(dir, "hard", 0) == 0);
    holds("back");
    CHECK(unlinkat(dir, "back", 0) == 0);
    holds("");
    int fd = openat(dir, ".", O_TMPFILE | O_WRONLY, 0600);
    if (fd >= 0) { /* not every file system of a host has it */
        holds("");
        CHECK(linkat(fd, "", dir, "unnamed", AT_EMPTY_PATH) == 0);
        holds("unnamed");
        CHECK(unlinkat(dir, "unnamed", 0) == 0 && close(fd) == 0);
    }
    CHECK(close(dir) == 0);
}

/* Every position leads to the entries behind it; one of before a change still does. */
static void positions(void)
{
    char name[300];
    long next[MOST];
    CHECK(mkdir("many", 0755) == 0 && (dir = open("many", O_RDONLY | O_DIRECTORY)) >= 0);
    for (int i = 0; i < 200; i++) {
        sprintf(name, "%d%.*s", i, i, "0123456789abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklm"
                "nopqrstuvwxyz0123456789abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopqrstuv"
                "wxyz0123456789abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopqrstuvwxyz");
        CHECK(make(name) == 0);
    }
    list(0, 0);
    CHECK(count == 202);
    int all = count;
    for (int i = 0; i < all; i++)
        next[i] = found[i].next;
    for (int i = 0; i < all; i += 7) {
        char expected[256] = "";
        list(0, 0);
        if (i + 1 < all)
            strcpy(expected, found[i + 1].name);
        list(i & 1, next[i]);
        CHECK(count == all - i - 1 && (!count || !strcmp(found[0].name, expected)));
    }
    CHECK(lseek(dir, next[all - 1], SEEK_SET) >= 0);
    CHECK(syscall(SYS_getdents64, dir, name, sizeof name) == 0);
    CHECK(lseek(dir, next[150], SEEK_SET) >= 0);
    CHECK_ERR(syscall(SYS_getdents64, dir, name, 24), EINVAL);
    for (int left = 202; left > 2; left--) {
        int i = 0;
        list(0, 0);
        while (!strcmp(found[i].name, ".") || !strcmp(found[i].name, ".."))
            i++;
        CHECK(count == left && unlinkat(dir, found[i].name, 0) == 0);
    }
    CHECK(rmdir("many") == 0);
    CHECK(close(dir) == 0);
}

int main(void)
{
    CHECK(mkdir("new", 0755) == 0);
    changes("new");
    changes(".");
    if (getpid() == 1)
        changes("/etc"); /* of a sandbox: a directory that lies below */
    positions();
    return 0;
}
