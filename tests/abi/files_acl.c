/* Access control lists: acl(5). On the working directory and on a tmpfs; needs root. */
#define _GNU_SOURCE
#include "abi.h"
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#define ACCESS "system.posix_acl_access"
#define DEFAULT "system.posix_acl_default"
enum { USER_OBJ = 1, USER = 2, GROUP_OBJ = 4, GROUP = 8, MASK = 16, OTHER = 32 };

struct entry {
    unsigned short tag, rights;
    unsigned id;
};

struct acl {
    unsigned version;
    struct entry entries[8];
};

#define SIZE(n) (sizeof(unsigned) + (n) * sizeof(struct entry))

static struct acl basic = {2, {{USER_OBJ, 6, -1}, {USER, 7, 1000}, {GROUP_OBJ, 4, -1},
                               {MASK, 7, -1}, {OTHER, 0, -1}}};

static int mode_of(const char *path)
{
    struct stat st;
    CHECK(lstat(path, &st) == 0);
    return st.st_mode & 07777;
}

static int make(const char *path, int mode)
{
    int fd = open(path, O_CREAT | O_EXCL | O_RDWR, mode);
    CHECK(fd >= 0 && close(fd) == 0);
    return 1;
}

/* Runs as a user without rights; the child's checks are ours. */
static void as_user(int uid, int gid, void (*run)(void))
{
    int status;
    pid_t pid = fork();
    if (!pid) {
        CHECK(setgroups(0, 0) == 0 && setresgid(gid, gid, gid) == 0 && setresuid(uid, uid, uid) == 0);
        run();
        _exit(0);
    }
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
}

static void may_write(void)
{
    CHECK(access("f", R_OK | W_OK) == 0);
    int fd = open("f", O_RDWR);
    CHECK(fd >= 0 && write(fd, "x", 1) == 1 && close(fd) == 0);
    CHECK_ERR(setxattr("f", ACCESS, &basic, SIZE(5), 0), EPERM);
    CHECK_ERR(removexattr("f", ACCESS), EPERM);
    CHECK(getxattr("f", ACCESS, 0, 0) == SIZE(5));
}

static void may_not(void)
{
    CHECK_ERR(access("f", R_OK), EACCES);
    CHECK_ERR(open("f", O_RDONLY), EACCES);
}

static void may_run(void)
{
    CHECK_ERR(access("f", W_OK), EACCES);
    CHECK(access("f", R_OK) == 0);
}

static void keeps_out(void)
{
    struct stat st;
    CHECK_ERR(stat("d/in", &st), EACCES);
    CHECK_ERR(chdir("d"), EACCES);
    CHECK_ERR(open("d", O_RDONLY | O_DIRECTORY), EACCES);
}

static void lets_in(void)
{
    struct stat st;
    CHECK(stat("d/in", &st) == 0);
}

static void values(void)
{
    struct acl got, bad;
    char names[256];
    CHECK(make("f", 0600));
    CHECK_ERR(getxattr("f", ACCESS, &got, sizeof got), ENODATA);
    CHECK(setxattr("f", ACCESS, &basic, SIZE(5), XATTR_CREATE) == 0);
    CHECK(setxattr("f", ACCESS, &basic, SIZE(5), XATTR_CREATE) == 0);
    CHECK(mode_of("f") == 0670);
    CHECK(getxattr("f", ACCESS, 0, 0) == SIZE(5));
    CHECK_ERR(getxattr("f", ACCESS, &got, 10), ERANGE);
    CHECK(getxattr("f", ACCESS, &got, sizeof got) == SIZE(5) && !memcmp(&got, &basic, SIZE(5)));
    CHECK(listxattr("f", names, sizeof names) >= (int)sizeof ACCESS);
    as_user(1000, 1000, may_write);
    as_user(1001, 1001, may_not);

    CHECK(chmod("f", 0640) == 0);
    CHECK(getxattr("f", ACCESS, &got, sizeof got) == SIZE(5));
    CHECK(got.entries[3].rights == 4 && got.entries[1].rights == 7 && got.entries[2].rights == 4);
    as_user(1000, 1000, may_run);

    bad = basic;
    bad.entries[3].tag = OTHER;
    CHECK_ERR(setxattr("f", ACCESS, &bad, SIZE(5), 0), EINVAL);
    bad = basic;
    bad.version = 1;
    CHECK_ERR(setxattr("f", ACCESS, &bad, SIZE(5), 0), EOPNOTSUPP);
    CHECK_ERR(setxattr("f", ACCESS, &basic, SIZE(5) - 1, 0), EINVAL);
    CHECK_ERR(setxattr("f", ACCESS, &basic, 2, 0), EINVAL);
    CHECK_ERR(setxattr("f", DEFAULT, &basic, SIZE(5), 0), EACCES);
    CHECK_ERR(getxattr("f", DEFAULT, 0, 0), ENODATA);
    CHECK(symlink("f", "l") == 0);
    CHECK_ERR(lsetxattr("l", ACCESS, &basic, SIZE(5), 0), EOPNOTSUPP);
    CHECK_ERR(lgetxattr("l", ACCESS, &got, sizeof got), EOPNOTSUPP);
    CHECK_ERR(setxattr("f", "system.posix_acl", &basic, SIZE(5), 0), EOPNOTSUPP);

    CHECK(setxattr("f", ACCESS, &basic, sizeof(unsigned), 0) == 0);
    CHECK_ERR(getxattr("f", ACCESS, 0, 0), ENODATA);
    CHECK(mode_of("f") == 0640);
    CHECK(removexattr("f", ACCESS) == 0);
    struct acl few = {2, {{USER_OBJ, 7, 0}, {GROUP_OBJ, 5, 0}, {OTHER, 1, 0}}};
    CHECK(setxattr("f", ACCESS, &few, SIZE(3), 0) == 0);
    CHECK_ERR(getxattr("f", ACCESS, 0, 0), ENODATA);
    CHECK(mode_of("f") == 0751);
}

static void directories(void)
{
    struct acl got, all = {2, {{USER_OBJ, 7, -1}, {USER, 7, 1000}, {GROUP_OBJ, 5, -1},
                               {MASK, 7, -1}, {OTHER, 5, -1}}};
    struct acl none = all;
    none.entries[1].rights = 0;
    umask(077);
    CHECK(mkdir("d", 0777) == 0 && chmod("d", 0755) == 0 && make("d/in", 0644));
    CHECK(setxattr("d", ACCESS, &none, SIZE(5), 0) == 0);
    CHECK(mode_of("d") == 0775);
    as_user(1000, 1000, keeps_out);
    as_user(1001, 1001, lets_in);
    CHECK(removexattr("d", ACCESS) == 0);
    as_user(1000, 1000, lets_in);

    CHECK(setxattr("d", DEFAULT, &all, SIZE(5), 0) == 0);
    CHECK(mode_of("d") == 0775);
    CHECK(make("d/f", 0666) && mode_of("d/f") == 0664);
    CHECK(getxattr("d/f", ACCESS, &got, sizeof got) == SIZE(5));
    CHECK(got.entries[0].rights == 6 && got.entries[1].rights == 7 && got.entries[3].rights == 6);
    CHECK(mkdir("d/s", 0700) == 0 && mode_of("d/s") == 0700);
    CHECK(getxattr("d/s", DEFAULT, &got, sizeof got) == SIZE(5) && !memcmp(&got, &all, SIZE(5)));
    CHECK(mknod("d/p", S_IFIFO | 0666, 0) == 0 && mode_of("d/p") == 0664);
    CHECK(removexattr("d", DEFAULT) == 0);
    CHECK(make("d/later", 0666) && mode_of("d/later") == 0600);
    umask(022);
}

static int file;

static void seen_inside(void)
{
    struct acl got;
    CHECK(fgetxattr(file, ACCESS, &got, sizeof got) == SIZE(5));
    CHECK(got.entries[1].tag == USER && got.entries[1].id == 0);
    got.entries[1].id = 1;
    CHECK_ERR(fsetxattr(file, ACCESS, &got, SIZE(5), 0), EINVAL);
}

static void write_map(pid_t pid, const char *name, int id)
{
    char path[50], line[50];
    snprintf(path, sizeof path, "/proc/%d/%s", pid, name);
    int map = open(path, O_WRONLY), n = snprintf(line, sizeof line, "0 %d 1\n", id);
    CHECK(map >= 0 && write(map, line, n) == n && close(map) == 0);
}

/* The ids are those of the user namespace. */
static void namespaces(void)
{
    int ready[2], go[2], status;
    char c;
    CHECK(make("n", 0600) && setxattr("n", ACCESS, &basic, SIZE(5), 0) == 0);
    CHECK((file = open("n", O_RDWR)) >= 0);
    CHECK(pipe(ready) == 0 && pipe(go) == 0);
    pid_t pid = fork();
    if (!pid) {
        CHECK(unshare(CLONE_NEWUSER) == 0 && write(ready[1], "", 1) == 1);
        CHECK(read(go[0], &c, 1) == 1);
        CHECK(setresgid(0, 0, 0) == 0 && setresuid(0, 0, 0) == 0);
        seen_inside();
        _exit(0);
    }
    CHECK(read(ready[0], &c, 1) == 1);
    write_map(pid, "uid_map", 1000);
    write_map(pid, "gid_map", 1000);
    CHECK(write(go[1], "", 1) == 1);
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
    close(file);
}

static void all(void)
{
    values();
    directories();
    namespaces();
}

int main(void)
{
    umask(022);
    CHECK(chmod(".", 0755) == 0);
    CHECK(mkdir("here", 0755) == 0 && mkdir("memory", 0755) == 0);
    CHECK(unshare(CLONE_NEWNS) == 0 && mount(0, "/", 0, MS_REC | MS_PRIVATE, 0) == 0);
    CHECK(mount("none", "memory", "tmpfs", 0, "mode=0755") == 0);
    CHECK(chdir("here") == 0);
    all();
    CHECK(chdir("../memory") == 0);
    all();
    CHECK(chdir("..") == 0 && mkdir("plain", 0755) == 0);
    CHECK(mount("none", "plain", "ramfs", 0, 0) == 0 && make("plain/f", 0600));
    CHECK_ERR(setxattr("plain/f", ACCESS, &basic, SIZE(5), 0), EOPNOTSUPP);
    CHECK_ERR(getxattr("plain/f", ACCESS, 0, 0), EOPNOTSUPP);
    return 0;
}
