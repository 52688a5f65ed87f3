/* User and group ids: credentials(7), setresuid(2), setfsuid(2), getgroups(2). */
#define _GNU_SOURCE
#include "abi.h"
#include <grp.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <fcntl.h>
#include <unistd.h>

#define BAD ((void *)8)

/* libc's set*id calls go to every thread; the kernel's are meant here */
#define setresuid(r, e, s) syscall(SYS_setresuid, r, e, s)
#define setreuid(r, e) syscall(SYS_setreuid, r, e)
#define setuid(u) syscall(SYS_setuid, u)
#define setresgid(r, e, s) syscall(SYS_setresgid, r, e, s)
#define setregid(r, e) syscall(SYS_setregid, r, e)
#define setgid(g) syscall(SYS_setgid, g)
#define setgroups(n, g) syscall(SYS_setgroups, n, g)

static int uids(int r, int e, int s)
{
    uid_t real, effective, saved;
    CHECK(getresuid(&real, &effective, &saved) == 0);
    return real == r && effective == e && saved == s && getuid() == r && geteuid() == e;
}

static int gids(int r, int e, int s)
{
    gid_t real, effective, saved;
    CHECK(getresgid(&real, &effective, &saved) == 0);
    return real == r && effective == e && saved == s && getgid() == r && getegid() == e;
}

static void in_child(void (*what)(void))
{
    int status;
    pid_t child = fork();
    if (child == 0) {
        what();
        _exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child && status == 0);
}

static void root_sets_all(void)
{
    CHECK(setresuid(1, 2, 3) == 0 && uids(1, 2, 3));
    CHECK(setresuid(-1, 1, -1) == 0 && uids(1, 1, 3));
    CHECK(setresuid(3, 3, -1) == 0 && uids(3, 3, 3));
    CHECK_ERR(setresuid(-1, 1, -1), EPERM);
    CHECK_ERR(setuid(0), EPERM);
    CHECK_ERR(setuid(-1), EINVAL);
    CHECK(setuid(3) == 0);
}

static void temporarily_down_and_up(void)
{
    CHECK(setresuid(-1, 1000, -1) == 0 && uids(0, 1000, 0));
    CHECK_ERR(setgid(5), EPERM);
    CHECK_ERR(setresuid(7, -1, -1), EPERM);
    CHECK(setresuid(-1, 0, -1) == 0 && uids(0, 0, 0));
    CHECK(setgid(5) == 0 && gids(5, 5, 5));
}

static void setreuid_changes_the_saved_one(void)
{
    CHECK(setreuid(-1, 5) == 0 && uids(0, 5, 5));
    CHECK(setreuid(5, 0) == 0 && uids(5, 0, 0));
    CHECK(setreuid(-1, 5) == 0 && uids(5, 5, 0));
    CHECK_ERR(setreuid(-1, 6), EPERM);
    CHECK_ERR(setreuid(6, -1), EPERM);
}

static void setuid_of_the_unprivileged(void)
{
    CHECK(setresuid(10, 11, 12) == 0);
    CHECK(setuid(12) == 0 && uids(10, 12, 12));
    CHECK(setuid(10) == 0 && uids(10, 10, 12));
    CHECK_ERR(setuid(11), EPERM);
}

static void groups_likewise(void)
{
    CHECK(setresgid(1, 2, 3) == 0 && gids(1, 2, 3));
    CHECK(setregid(-1, 3) == 0 && gids(1, 3, 3));
    CHECK(setgid(9) == 0 && gids(9, 9, 9));
    CHECK_ERR(setgid(-1), EINVAL);
    CHECK(setresuid(5, 5, 5) == 0);
    CHECK_ERR(setresgid(1, -1, -1), EPERM);
    CHECK_ERR(setregid(1, -1), EPERM);
    CHECK_ERR(setgid(1), EPERM);
    CHECK(setgid(9) == 0);
}

static void file_system_ids(void)
{
    CHECK(setfsuid(77) == 0);
    CHECK(setfsuid(-1) == 77);
    CHECK(setfsgid(78) == 0 && setfsgid(-1) == 78);
    CHECK_ERR(open("owned", O_CREAT | O_EXCL | O_WRONLY, 0600), EACCES);
    CHECK(setfsuid(0) == 77);
    int fd = open("owned", O_CREAT | O_EXCL | O_WRONLY, 0600);
    struct stat st;
    CHECK(fd >= 0 && fstat(fd, &st) == 0 && st.st_uid == 0 && st.st_gid == 78);
    unlink("owned");
    CHECK(setfsuid(77) == 0 && setresuid(-1, -1, 0) == 0 && setfsuid(-1) == 77);
    CHECK(setresgid(0, -1, -1) == 0 && setfsgid(-1) == 78);
    CHECK(setreuid(-1, -1) == 0 && setfsuid(-1) == 0 && setresgid(-1, 0, -1) == 0 && setfsgid(-1) == 0);
    CHECK(setresuid(5, 6, 7) == 0 && setfsuid(-1) == 6);
    CHECK(setfsuid(8) == 6 && setfsuid(-1) == 6);
    CHECK(setfsuid(7) == 6 && setfsuid(-1) == 7);
    CHECK(setresuid(-1, 5, -1) == 0 && setfsuid(-1) == 5);
}

static void supplementary_groups(void)
{
    gid_t set[] = {30, 10, 20}, got[4];
    CHECK(setgroups(3, set) == 0);
    CHECK(getgroups(0, NULL) == 3 && getgroups(4, got) == 3);
    CHECK(got[0] == 10 && got[1] == 20 && got[2] == 30);
    CHECK_ERR(getgroups(2, got), EINVAL);
    CHECK_ERR(getgroups(-1, got), EINVAL);
    CHECK_ERR(syscall(SYS_getgroups, 3, BAD), EFAULT);
    CHECK_ERR(setgroups(65537, set), EINVAL);
    CHECK_ERR(setgroups(-1, set), EINVAL);
    CHECK_ERR(setgroups(3, BAD), EFAULT);
    set[0] = -1;
    CHECK_ERR(setgroups(1, set), EINVAL);
    CHECK(setgroups(0, BAD) == 0 && getgroups(0, NULL) == 0);
    CHECK(setresuid(5, 5, 5) == 0);
    CHECK_ERR(setgroups(0, NULL), EPERM);
    CHECK_ERR(setgroups(70000, NULL), EPERM);
}

static void changed_ids_are_not_dumpable(void)
{
    CHECK(prctl(PR_GET_DUMPABLE) == 1);
    CHECK(setresuid(-1, 5, -1) == 0);
    CHECK(prctl(PR_GET_DUMPABLE) == 0);
    CHECK(prctl(PR_SET_DUMPABLE, 1) == 0 && prctl(PR_GET_DUMPABLE) == 1);
}

static void bad_pointers(void)
{
    uid_t id;
    CHECK_ERR(syscall(SYS_getresuid, &id, &id, BAD), EFAULT);
    CHECK_ERR(syscall(SYS_getresgid, BAD, &id, &id), EFAULT);
}

int main(void)
{
    umask(0);
    chmod(".", 0755);
    in_child(root_sets_all);
    in_child(temporarily_down_and_up);
    in_child(setreuid_changes_the_saved_one);
    in_child(setuid_of_the_unprivileged);
    in_child(groups_likewise);
    if (mkdir("ids", 0755) == 0 && chdir("ids") == 0) {
        in_child(file_system_ids);
        chdir("..");
        rmdir("ids");
    }
    in_child(supplementary_groups);
    in_child(changed_ids_are_not_dumpable);
    bad_pointers();
    return 0;
}
