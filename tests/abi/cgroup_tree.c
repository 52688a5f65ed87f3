/* Control groups of version 2: a tree that programs make, who is in it, what holds for them. */
#define _GNU_SOURCE
#include "abi.h"
#include <dirent.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/inotify.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

static char top[64], text[4096];
static const char *const EVERYWHERE[] = {
    "cgroup.controllers", "cgroup.events", "cgroup.freeze", "cgroup.kill", "cgroup.max.depth",
    "cgroup.max.descendants", "cgroup.procs", "cgroup.stat", "cgroup.subtree_control",
    "cgroup.threads", "cgroup.type", "cpu.stat"};

static char *path(const char *cgroup, const char *file)
{
    static char made[4][256];
    static int next;
    char *at = made[next++ % 4];
    snprintf(at, sizeof made[0], "%s/%s%s%s", top, cgroup, *file ? "/" : "", file);
    return at;
}

static const char *get(const char *cgroup, const char *file)
{
    int fd = open(path(cgroup, file), O_RDONLY);
    CHECK(fd >= 0);
    ssize_t n = read(fd, text, sizeof text - 1);
    CHECK(n >= 0);
    text[n] = 0;
    close(fd);
    return text;
}

/* 0, or the errno. */
static int put(const char *cgroup, const char *file, const char *value)
{
    int fd = open(path(cgroup, file), O_WRONLY);
    CHECK(fd >= 0);
    int error = write(fd, value, strlen(value)) < 0 ? errno : 0;
    close(fd);
    return error;
}

static int put_pid(const char *cgroup, pid_t pid)
{
    char number[16];
    sprintf(number, "%d\n", pid);
    return put(cgroup, "cgroup.procs", number);
}

static void make(const char *cgroup)
{
    CHECK(mkdir(path(cgroup, ""), 0755) == 0);
}

static void drop(const char *cgroup)
{
    CHECK(rmdir(path(cgroup, "")) == 0);
}

static pid_t sleeper(void)
{
    pid_t pid = fork();
    if (!pid)
        for (;;)
            pause();
    CHECK(pid > 0);
    return pid;
}

static void end(pid_t pid)
{
    int status;
    CHECK(waitpid(pid, &status, 0) == pid);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

/* Waits until the events of a cgroup say so: each change is told to poll(2). */
static void until(const char *cgroup, const char *wanted)
{
    int fd = open(path(cgroup, "cgroup.events"), O_RDONLY);
    CHECK(fd >= 0);
    for (;;) {
        ssize_t n = pread(fd, text, sizeof text - 1, 0);
        CHECK(n > 0);
        text[n] = 0;
        if (strstr(text, wanted))
            break;
        struct pollfd one = {fd, POLLPRI, 0};
        CHECK(poll(&one, 1, -1) == 1 && one.revents & POLLPRI && one.revents & POLLERR);
    }
    close(fd);
}

static int own_path_ends(const char *cgroup)
{
    int fd = open("/proc/self/cgroup", O_RDONLY);
    ssize_t n = read(fd, text, sizeof text - 1);
    CHECK(n > 0);
    close(fd);
    text[n] = 0;
    char *line = strstr(text, "0::");
    CHECK(line != NULL);
    *strchr(line, '\n') = 0;
    size_t have = strlen(line), want = strlen(cgroup);
    return have >= want && !strcmp(line + have - want, cgroup);
}

static void directory_has_its_files(void)
{
    make("a");
    for (size_t i = 0; i < sizeof EVERYWHERE / sizeof *EVERYWHERE; i++)
        CHECK(access(path("a", EVERYWHERE[i]), F_OK) == 0);
    CHECK(!strcmp(get("a", "cgroup.type"), "domain\n"));
    CHECK(!strcmp(get("a", "cgroup.procs"), "") && !strcmp(get("a", "cgroup.threads"), ""));
    CHECK(!strcmp(get("a", "cgroup.events"), "populated 0\nfrozen 0\n"));
    CHECK(!strcmp(get("a", "cgroup.max.depth"), "max\n"));
    CHECK(!strcmp(get("a", "cgroup.max.descendants"), "max\n"));
    CHECK(!strcmp(get("a", "cgroup.freeze"), "0\n"));
    CHECK(!strcmp(get("a", "cgroup.subtree_control"), "")
          || !strcmp(get("a", "cgroup.subtree_control"), "\n"));
    CHECK(strstr(get("a", "cgroup.stat"), "nr_descendants 0\n"));
    CHECK(strstr(get("a", "cpu.stat"), "usage_usec 0\n"));
    struct stat st;
    CHECK(stat(path("a", ""), &st) == 0 && S_ISDIR(st.st_mode) && (st.st_mode & 07777) == 0755);
    CHECK(stat(path("a", "cgroup.procs"), &st) == 0 && (st.st_mode & 07777) == 0644);
    CHECK(stat(path("a", "cgroup.events"), &st) == 0 && (st.st_mode & 07777) == 0444);
    CHECK(stat(path("a", "cgroup.kill"), &st) == 0 && (st.st_mode & 07777) == 0200);
    int kill_file = open(path("a", "cgroup.kill"), O_RDONLY); /* root may open it */
    CHECK_ERR(read(kill_file, text, sizeof text), EINVAL);
    close(kill_file);
    CHECK(put("a", "cgroup.events", "1") == EINVAL);
    CHECK_ERR(mkdir(path("a", ""), 0755), EEXIST);
    CHECK_ERR(mkdir(path("a", "cgroup.procs"), 0755), EEXIST);
    CHECK_ERR(mkdir(path("a", "with\nnewline"), 0755), EINVAL);
    CHECK_ERR(open(path("a", "file"), O_CREAT | O_WRONLY, 0644), EACCES);
    CHECK_ERR(unlink(path("a", "cgroup.procs")), EPERM);
    CHECK_ERR(rename(path("a", ""), path("b", "")), EPERM);
    make("a/b");
    CHECK(strstr(get("a", "cgroup.stat"), "nr_descendants 1\n"));
    CHECK_ERR(rmdir(path("a", "")), EBUSY);
    int events = open(path("a/b", "cgroup.events"), O_RDONLY);
    int inside = open(path("a/b", ""), O_RDONLY | O_DIRECTORY);
    drop("a/b");
    CHECK_ERR(read(events, text, sizeof text), ENODEV);
    CHECK_ERR(mkdirat(inside, "c", 0755), ENOENT);
    CHECK_ERR(openat(inside, "cgroup.procs", O_RDONLY), ENOENT);
    close(events);
    close(inside);
    drop("a");
}

static void processes_move_and_children_stay(void)
{
    make("a");
    make("a/b");
    pid_t pid = fork();
    if (!pid) {
        CHECK(put("a/b", "cgroup.procs", "0") == 0); /* the writer itself */
        CHECK(own_path_ends("/a/b"));
        pid_t child = fork();
        if (!child) {
            CHECK(own_path_ends("/a/b"));
            CHECK(put("a", "cgroup.procs", "0\n") == 0);
            CHECK(own_path_ends("/a"));
            _exit(0);
        }
        int status;
        CHECK(waitpid(child, &status, 0) == child && status == 0);
        _exit(0);
    }
    int status;
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
    pid = sleeper();
    CHECK(put_pid("a", pid) == 0);
    CHECK(atoi(get("a", "cgroup.procs")) == pid && atoi(get("a", "cgroup.threads")) == pid);
    CHECK(!strcmp(get("a/b", "cgroup.procs"), ""));
    CHECK(!strcmp(get("a", "cgroup.events"), "populated 1\nfrozen 0\n"));
    CHECK_ERR(rmdir(path("a/b", "")) == 0 ? mkdir(path("a", ""), 0755) : -2, EEXIST);
    CHECK_ERR(rmdir(path("a", "")), EBUSY);
    CHECK(put("a", "cgroup.procs", "x") == EINVAL);
    CHECK(put("a", "cgroup.procs", "-1") == EINVAL);
    CHECK(put("a", "cgroup.procs", "1073741824") == ESRCH);
    kill(pid, SIGKILL);
    until("a", "populated 0");
    CHECK(!strcmp(get("a", "cgroup.procs"), "")); /* a zombie is nowhere */
    drop("a");
    char name[64];
    sprintf(name, "/proc/%d/cgroup", pid);
    int fd = open(name, O_RDONLY);
    ssize_t n = read(fd, text, sizeof text - 1);
    CHECK(n > 0);
    text[n] = 0;
    CHECK(strstr(text, "/a (deleted)\n"));
    close(fd);
    end(pid);
}

static void changes_are_told_to_inotify(void)
{
    make("a");
    int watching = inotify_init1(IN_CLOEXEC);
    int file = inotify_add_watch(watching, path("a", "cgroup.events"), IN_MODIFY);
    int directory = inotify_add_watch(watching, path("a", ""), IN_CREATE | IN_DELETE);
    CHECK(file > 0 && directory > 0);
    pid_t pid = sleeper();
    CHECK(put_pid("a", pid) == 0);
    char buffer[512];
    struct inotify_event *event = (void *)buffer;
    CHECK(read(watching, buffer, sizeof buffer) > 0);
    CHECK(event->wd == file && event->mask == IN_MODIFY);
    kill(pid, SIGKILL);
    CHECK(read(watching, buffer, sizeof buffer) > 0);
    CHECK(event->wd == file && event->mask == IN_MODIFY);
    CHECK(!strcmp(get("a", "cgroup.events"), "populated 0\nfrozen 0\n"));
    end(pid);
    make("a/b");
    CHECK(read(watching, buffer, sizeof buffer) > 0);
    CHECK(event->wd == directory && event->mask == (IN_CREATE | IN_ISDIR));
    CHECK(!strcmp(event->name, "b"));
    drop("a/b");
    close(watching);
    drop("a");
}

static void kill_reaches_all_below(void)
{
    make("a");
    make("a/b");
    pid_t one = sleeper(), other = sleeper();
    CHECK(put_pid("a", one) == 0 && put_pid("a/b", other) == 0);
    CHECK(put("a", "cgroup.kill", "0") == ERANGE);
    CHECK(put("a", "cgroup.kill", "x") == EINVAL);
    CHECK(put("a", "cgroup.kill", "1\n") == 0);
    end(one);
    end(other);
    until("a", "populated 0");
    drop("a/b");
    drop("a");
}

static void end_with_3(int signo)
{
    _exit(3);
}

static void frozen_ones_stand_still(void)
{
    make("a");
    make("a/b");
    int pipes[2];
    CHECK(pipe(pipes) == 0);
    pid_t pid = fork();
    if (!pid) {
        signal(SIGUSR1, end_with_3);
        for (;;)
            CHECK(write(pipes[1], "x", 1) == 1);
    }
    CHECK(read(pipes[0], text, 1) == 1); /* the handler is there */
    CHECK(put_pid("a/b", pid) == 0);
    CHECK(put("a", "cgroup.freeze", "2") == ERANGE);
    CHECK(put("a", "cgroup.freeze", "1") == 0);
    until("a", "frozen 1");
    CHECK(!strcmp(get("a/b", "cgroup.events"), "populated 1\nfrozen 1\n"));
    CHECK(!strcmp(get("a/b", "cgroup.freeze"), "0\n") && !strcmp(get("a", "cgroup.freeze"), "1\n"));
    CHECK(fcntl(pipes[0], F_SETFL, O_NONBLOCK) == 0);
    while (read(pipes[0], text, sizeof text) > 0)
        ;
    CHECK_ERR(read(pipes[0], text, sizeof text), EAGAIN);
    kill(pid, SIGUSR1); /* waits until it is thawed */
    pid_t second = sleeper();
    CHECK(put_pid("a", second) == 0);
    until("a", "frozen 1");
    int status;
    CHECK(waitpid(pid, &status, WNOHANG) == 0);
    CHECK(put("a", "cgroup.freeze", "0") == 0);
    CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 3);
    until("a", "frozen 0");
    CHECK(put("a", "cgroup.freeze", "1") == 0);
    until("a", "frozen 1");
    kill(second, SIGKILL); /* does not wait */
    end(second);
    CHECK(!strcmp(get("a", "cgroup.events"), "populated 0\nfrozen 1\n"));
    drop("a/b");
    drop("a");
}

static void clone_gives_birth_in_a_cgroup(void)
{
    make("a");
    make("gone");
    int fd = open(path("a", ""), O_RDONLY | O_DIRECTORY);
    int gone = open(path("gone", ""), O_PATH | O_DIRECTORY);
    drop("gone");
    struct clone_args args = {.flags = CLONE_INTO_CGROUP, .exit_signal = SIGCHLD, .cgroup = fd};
    pid_t pid = syscall(SYS_clone3, &args, sizeof args);
    if (!pid) {
        CHECK(own_path_ends("/a"));
        _exit(0);
    }
    int status;
    CHECK(pid > 0 && waitpid(pid, &status, 0) == pid && status == 0);
    args.cgroup = gone;
    CHECK_ERR(syscall(SYS_clone3, &args, sizeof args), ENOENT);
    args.cgroup = open("/", O_RDONLY | O_DIRECTORY);
    CHECK_ERR(syscall(SYS_clone3, &args, sizeof args), EBADF);
    args.cgroup = open(path("a", "cgroup.procs"), O_RDONLY);
    CHECK_ERR(syscall(SYS_clone3, &args, sizeof args), EBADF);
    args.cgroup = 987;
    CHECK_ERR(syscall(SYS_clone3, &args, sizeof args), EBADF);
    close(fd);
    close(gone);
    drop("a");
}

static void depth_and_number_are_bounded(void)
{
    make("a");
    CHECK(put("a", "cgroup.max.depth", "-1") == ERANGE);
    CHECK(put("a", "cgroup.max.depth", "x") == EINVAL);
    CHECK(put("a", "cgroup.max.depth", "1_0") == EINVAL && put("a", "cgroup.max.depth", "0b1") == EINVAL);
    CHECK(put("a", "cgroup.max.depth", "09") == EINVAL && put("a", "cgroup.max.depth", "+010") == 0);
    CHECK(!strcmp(get("a", "cgroup.max.depth"), "8\n") && put("a", "cgroup.max.depth", "0x1") == 0);
    CHECK(put("a", "cgroup.max.depth", "1") == 0 && !strcmp(get("a", "cgroup.max.depth"), "1\n"));
    make("a/b");
    CHECK_ERR(mkdir(path("a/b/c", ""), 0755), EAGAIN);
    CHECK(put("a", "cgroup.max.depth", "max\n") == 0);
    CHECK(put("a", "cgroup.max.descendants", "1") == 0);
    CHECK_ERR(mkdir(path("a/b/c", ""), 0755), EAGAIN);
    CHECK(put("a", "cgroup.max.descendants", "2") == 0);
    make("a/b/c");
    drop("a/b/c");
    drop("a/b");
    CHECK(put("a", "cgroup.subtree_control", "+nonsense") == EINVAL);
    CHECK(put("a", "cgroup.subtree_control", "pids") == EINVAL);
    CHECK(put("a", "cgroup.subtree_control", "") == 0);
    CHECK(put("a", "cgroup.type", "domain") == EINVAL);
    drop("a");
}

static void attributes_are_kept(void)
{
    make("a");
    CHECK(chown(path("a", "cgroup.procs"), 65534, 65534) == 0);
    CHECK(chmod(path("a", ""), 0750) == 0);
    struct stat st;
    CHECK(stat(path("a", "cgroup.procs"), &st) == 0 && st.st_uid == 65534 && st.st_gid == 65534);
    CHECK(stat(path("a", ""), &st) == 0 && (st.st_mode & 07777) == 0750 && st.st_uid == 0);
    CHECK(setxattr(path("a", ""), "trusted.invocation", "12", 2, 0) == 0);
    CHECK(setxattr(path("a", ""), "user.delegate", "1", 1, 0) == 0);
    CHECK(getxattr(path("a", ""), "trusted.invocation", text, sizeof text) == 2);
    CHECK(!memcmp(text, "12", 2));
    CHECK_ERR(getxattr(path("a", ""), "user.other", text, sizeof text), ENODATA);
    CHECK(removexattr(path("a", ""), "user.delegate") == 0);
    CHECK_ERR(getxattr(path("a", ""), "user.delegate", text, sizeof text), ENODATA);
    drop("a");
}

static void user_moves_within_what_is_his(void)
{
    make("a");
    make("a/b");
    make("a/c");
    pid_t pid = sleeper();
    CHECK(put_pid("a/b", pid) == 0);
    CHECK(chown(path("a/c", "cgroup.procs"), 65534, 65534) == 0);
    pid_t user = fork();
    if (!user) {
        CHECK(setgid(65534) == 0 && setuid(65534) == 0);
        CHECK_ERR(open(path("a/b", "cgroup.procs"), O_WRONLY), EACCES);
        CHECK(put_pid("a/c", pid) == EACCES); /* not the common ancestor's */
        CHECK_ERR(mkdir(path("a/d", ""), 0755), EACCES);
        _exit(0);
    }
    int status;
    CHECK(waitpid(user, &status, 0) == user && status == 0);
    CHECK(chown(path("a", "cgroup.procs"), 65534, 65534) == 0 && chown(path("a", ""), 65534, 0) == 0);
    user = fork();
    if (!user) {
        CHECK(setgid(65534) == 0 && setuid(65534) == 0);
        CHECK(put_pid("a/c", pid) == 0);
        make("a/d");
        struct stat st;
        CHECK(stat(path("a/d", "cgroup.procs"), &st) == 0 && st.st_uid == 65534);
        drop("a/d");
        _exit(0);
    }
    CHECK(waitpid(user, &status, 0) == user && status == 0);
    CHECK(atoi(get("a/c", "cgroup.procs")) == pid);
    kill(pid, SIGKILL);
    end(pid);
    drop("a/b");
    drop("a/c");
    drop("a");
}

static void namespace_shows_paths_from_its_root(void)
{
    make("a");
    make("a/b");
    pid_t outside = sleeper();
    pid_t pid = fork();
    if (!pid) {
        CHECK(put("a", "cgroup.procs", "0") == 0);
        CHECK(unshare(CLONE_NEWCGROUP) == 0);
        CHECK(own_path_ends("0::/"));
        CHECK(put("a/b", "cgroup.procs", "0") == 0);
        CHECK(own_path_ends("0::/b"));
        char name[64];
        sprintf(name, "/proc/%d/cgroup", outside);
        int fd = open(name, O_RDONLY);
        ssize_t n = read(fd, text, sizeof text - 1);
        CHECK(n > 0);
        text[n] = 0;
        CHECK(strstr(text, "0::/..") != NULL);
        char place[64] = "/tmp/cgroup-XXXXXX";
        CHECK(mkdtemp(place));
        CHECK(mount("none", place, "cgroup2", 0, NULL) == 0);
        CHECK(access("/proc/self/cgroup", F_OK) == 0 && chdir(place) == 0);
        CHECK(access("b/cgroup.procs", F_OK) == 0 && access("a", F_OK) != 0);
        CHECK(chdir("/") == 0 && umount(place) == 0 && rmdir(place) == 0);
        _exit(0);
    }
    int status;
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
    kill(outside, SIGKILL);
    end(outside);
    drop("a/b");
    drop("a");
}

int main(void)
{
    char place[64] = "/tmp/cgroup-XXXXXX";
    CHECK(mkdtemp(place));
    CHECK(unshare(CLONE_NEWNS) == 0 && mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0);
    CHECK(mount("none", place, "cgroup2", 0, NULL) == 0);
    sprintf(top, "%s/abi-%d", place, getpid());
    CHECK(mkdir(top, 0755) == 0);
    directory_has_its_files();
    processes_move_and_children_stay();
    changes_are_told_to_inotify();
    kill_reaches_all_below();
    frozen_ones_stand_still();
    clone_gives_birth_in_a_cgroup();
    depth_and_number_are_bounded();
    attributes_are_kept();
    user_moves_within_what_is_his();
    namespace_shows_paths_from_its_root();
    CHECK(rmdir(top) == 0 && umount2(place, MNT_DETACH) == 0 && rmdir(place) == 0);
    return 0;
}
