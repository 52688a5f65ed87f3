/* security.capability in user namespaces: whose root the capabilities are for. */
#define _GNU_SOURCE
#include "abi.h"
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#define NAME "security.capability"

struct caps {
    unsigned magic, data[4], root;
};

static int fd, fd_foreign;

static int set(int file, unsigned magic, unsigned root, int size)
{
    struct caps caps = {magic, {0x21, 0x1, 0, 0}, root};
    return fsetxattr(file, NAME, &caps, size, 0);
}

/* The size that is read, which is what the length is, too; the capabilities are the same. */
static int get(int file, unsigned *magic, unsigned *root)
{
    struct caps caps = {.root = 77};
    int size = fgetxattr(file, NAME, &caps, sizeof caps);
    if (size < 0)
        return -errno;
    CHECK(fgetxattr(file, NAME, 0, 0) == size);
    CHECK(caps.data[0] == 0x21 && caps.data[1] == 1 && caps.data[2] == 0);
    *magic = caps.magic;
    *root = caps.root;
    return size;
}

static void expect(int file, int size, unsigned magic, unsigned root)
{
    unsigned seen_magic = 0, seen_root = 77;
    CHECK(get(file, &seen_magic, &seen_root) == size);
    if (size > 0)
        CHECK(seen_magic == magic && seen_root == root);
}

static void write_map(pid_t pid, const char *file, int id)
{
    char path[50], line[50];
    snprintf(path, sizeof path, "/proc/%d/%s", pid, file);
    int map = open(path, O_WRONLY), n = snprintf(line, sizeof line, "0 %d 1\n", id);
    CHECK(map >= 0 && write(map, line, n) == n && close(map) == 0);
}

static void as_root_of(int id, void (*run)(void))
{
    int ready[2], go[2], status;
    char c;
    CHECK(pipe(ready) == 0 && pipe(go) == 0);
    pid_t pid = fork();
    if (!pid) {
        CHECK(unshare(CLONE_NEWUSER) == 0 && write(ready[1], "", 1) == 1);
        CHECK(read(go[0], &c, 1) == 1);
        CHECK(setresgid(0, 0, 0) == 0 && setresuid(0, 0, 0) == 0);
        run();
        _exit(0);
    }
    CHECK(read(ready[0], &c, 1) == 1);
    write_map(pid, "uid_map", id);
    write_map(pid, "gid_map", id);
    CHECK(write(go[1], "", 1) == 1);
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
    close(ready[0]), close(ready[1]), close(go[0]), close(go[1]);
}

static void sees_own(void)
{
    expect(fd, 20, 0x2000001, 77);
    CHECK_ERR(set(fd_foreign, 0x2000000, 0, 20), EPERM);
    CHECK_ERR(set(fd, 0x3000000, 5, 24), EINVAL);
    CHECK(set(fd, 0x2000000, 0, 20) == 0);
    expect(fd, 20, 0x2000000, 77);
}

static void sees_nothing(void)
{
    expect(fd, -EOVERFLOW, 0, 0);
    expect(fd_foreign, 20, 0x2000001, 77);
    CHECK_ERR(set(fd, 0x2000000, 0, 20), EPERM);
    CHECK_ERR(fremovexattr(fd, NAME), EPERM);
}

int main(void)
{
    fd = open("own", O_RDWR | O_CREAT, 0600);
    fd_foreign = open("foreign", O_RDWR | O_CREAT, 0600);
    CHECK(fd >= 0 && fd_foreign >= 0 && fchown(fd, 1000, 1000) == 0);
    CHECK_ERR(set(fd, 0x2000000, 0, 24), EINVAL);
    CHECK_ERR(set(fd, 0x3000000, 0, 20), EINVAL);
    CHECK_ERR(set(fd, 0x1000000, 0, 12), EINVAL);
    CHECK_ERR(set(fd, 0x4000000, 0, 24), EINVAL);
    CHECK_ERR(set(fd, 0x2000000, 0, 3), EINVAL);
    CHECK_ERR(setxattr("none", NAME, "", 1, 0), ENOENT);
    CHECK(set(fd, 0x2000001, 0, 20) == 0);
    expect(fd, 20, 0x2000001, 77);
    CHECK(set(fd, 0x3000001, 0, 24) == 0);
    expect(fd, 20, 0x2000001, 77);
    CHECK(set(fd, 0x3000001, 1000, 24) == 0 && set(fd_foreign, 0x2000001, 0, 20) == 0);
    expect(fd, 24, 0x3000001, 1000);
    CHECK_ERR(fgetxattr(fd, NAME, &(struct caps){0}, 20), ERANGE);
    as_root_of(2000, sees_nothing);
    as_root_of(1000, sees_own);
    expect(fd, 24, 0x3000000, 1000);
    CHECK(unlink("own") == 0 && unlink("foreign") == 0);
    return 0;
}
