/* Who may look into a process by its files in /proc, and what becomes of files opened before it was
   another program: proc(5), "ptrace access mode". */
#define _GNU_SOURCE
#include "abi.h"
#include <dirent.h>
#include <elf.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char text[1 << 16];

static int open_of(pid_t pid, const char *name)
{
    snprintf(text, 100, "/proc/%d/%s", pid, name);
    return open(text, O_RDONLY);
}

static void become(int id)
{
    CHECK(setresgid(id, id, id) == 0 && setresuid(id, id, id) == 0);
    CHECK(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) == 0);
}

static void expect_success(pid_t child)
{
    int status;
    CHECK(child > 0 && waitpid(child, &status, 0) == child && status == 0);
}

/* What a user has open of a process of his own does not tell of the set-user-ID program that it
   becomes. */
static void set_user_id(void)
{
    const char *of_space[] = {"maps", "smaps", "environ"};
    const char *looked[] = {"personality", "syscall"};
    int files[3], others[2], to[2], from[2];
    char byte;
    CHECK(pipe(to) == 0 && pipe(from) == 0);
    pid_t pid = fork();
    if (!pid) {
        become(1000);
        CHECK(read(to[0], &byte, 1) == 1 && dup2(from[1], 1) == 1 && dup2(to[0], 0) == 0);
        execl("./setuid", "setuid", "wait", NULL);
        _exit(1);
    }
    pid_t reader = fork();
    if (!reader) {
        become(1000);
        while (open_of(pid, "environ") < 0)
            usleep(1000);
        for (int i = 0; i < 3; i++)
            CHECK((files[i] = open_of(pid, of_space[i])) >= 0);
        for (int i = 0; i < 2; i++)
            CHECK((others[i] = open_of(pid, looked[i])) >= 0);
        int rollup = open_of(pid, "smaps_rollup"), auxv = open_of(pid, "auxv");
        int io = open_of(pid, "io"), stat = open_of(pid, "stat");
        unsigned long words[100] = {0};
        CHECK(write(to[1], "x", 1) == 1 && read(from[0], &byte, 1) == 1);
        for (int i = 0; i < 3; i++)
            CHECK(read(files[i], text, 100) == 0);
        CHECK_ERR(read(rollup, text, 100), ESRCH);
        for (int i = 0; i < 2; i++)
            CHECK_ERR(read(others[i], text, 100), EPERM);
        CHECK_ERR(read(io, text, 100), EACCES);
        CHECK(read(auxv, words, sizeof words) > 0);
        int i = 0;
        while (words[i] && words[i] != AT_SECURE)
            i += 2;
        CHECK(words[i] == AT_SECURE && words[i + 1] == 0); /* of the old program */
        CHECK(read(stat, text, sizeof text) > 0);
        char *field = strrchr(text, ')');
        for (int i = 2; i < 28; i++)
            field = strchr(field + 1, ' ');
        CHECK(strncmp(field, " 0 0 0 ", 7) == 0); /* startstack, kstkesp, kstkeip */
        CHECK_ERR(open_of(pid, "maps"), EACCES);
        _exit(0);
    }
    expect_success(reader);
    CHECK(write(to[1], "x", 1) == 1);
    expect_success(pid);
}

/* Which descriptors there are is told to nobody else. */
static void descriptors(void)
{
    pid_t parent = getpid(), child = fork();
    if (!child) {
        become(1000);
        snprintf(text, 100, "/proc/%d/fdinfo", parent);
        CHECK(opendir(text) == NULL && errno == EACCES);
        snprintf(text, 100, "/proc/%d/fdinfo/0", parent);
        CHECK_ERR(access(text, F_OK), EACCES);
        CHECK_ERR(open(text, O_RDONLY | O_CREAT, 0600), EACCES);
        CHECK_ERR(unlink("/proc/self/fdinfo/2"), EACCES);
        CHECK(open("/proc/self/fdinfo/2", O_RDONLY | O_CREAT, 0600) >= 0);
        CHECK(opendir("/proc/self/fdinfo") && access("/proc/self/fdinfo/2", R_OK) == 0);
        _exit(0);
    }
    expect_success(child);
}

/* What a thread shows of itself, too; and where it may run. */
static void of_thread(void)
{
    const char *files[] = {"uid_map", "gid_map", "projid_map", "setgroups", "smaps_rollup"};
    cpu_set_t before, one;
    for (int i = 0; i < 5; i++) {
        snprintf(text, 100, "/proc/thread-self/%s", files[i]);
        CHECK(access(text, R_OK) == 0);
    }
    CHECK(sched_getaffinity(0, sizeof before, &before) == 0);
    int last = 0, fd = open("/proc/thread-self/status", O_RDONLY);
    for (int i = 0; i < CPU_SETSIZE; i++)
        last = CPU_ISSET(i, &before) ? i : last;
    CPU_ZERO(&one);
    CPU_SET(last, &one);
    CHECK(sched_setaffinity(0, sizeof one, &one) == 0 && read(fd, text, sizeof text) > 0);
    char *field = strstr(text, "\nCpus_allowed_list:\t"), wanted[20];
    sprintf(wanted, "%d\n", last);
    CHECK(field && strncmp(field + 20, wanted, strlen(wanted)) == 0);
    CHECK(sched_setaffinity(0, sizeof before, &before) == 0 && close(fd) == 0);
}

/* As echo(1) writes it: the end of the line is a part of the name. */
static void names(void)
{
    int fd = open("/proc/self/comm", O_RDWR);
    CHECK(fd >= 0 && write(fd, "a\\b\n", 4) == 4);
    CHECK(pread(fd, text, 100, 0) == 5 && memcmp(text, "a\\b\n\n", 5) == 0);
    close(fd);
    fd = open("/proc/self/stat", O_RDONLY);
    CHECK(fd >= 0 && read(fd, text, sizeof text) > 0 && strstr(text, " (a\\b\n) "));
    close(fd);
    fd = open("/proc/self/status", O_RDONLY);
    CHECK(fd >= 0 && read(fd, text, sizeof text) > 0 && strstr(text, "Name:\ta\\\\b\\n\n"));
    close(fd);
}

/* A process of root as another user finds it: the errno of stat(2), of opendir(3), and whether it is
   listed; with the group 7 or without. */
static void expect_shown(int in_group, int of_stat, int of_open, int listed)
{
    pid_t parent = getpid(), child = fork();
    if (!child) {
        gid_t group = 7;
        char name[20];
        struct dirent *entry;
        struct stat st;
        int found = 0, own = 0;
        CHECK(setgroups(in_group, &group) == 0);
        become(1000);
        sprintf(text, "p/%d", parent);
        CHECK(stat(text, &st) == 0 ? of_stat == 0 : errno == of_stat);
        CHECK(opendir(text) ? of_open == 0 : errno == of_open);
        sprintf(text, "p/%d/comm", parent);
        CHECK(open(text, O_RDONLY) >= 0 ? of_open == 0 : errno == of_open);
        CHECK(open(text, O_RDONLY | O_CREAT, 0600) >= 0 ? of_open == 0 : errno == of_open);
        DIR *all = opendir("p");
        sprintf(name, "%d", parent);
        sprintf(text, "%d", getpid());
        while ((entry = readdir(all))) {
            found |= strcmp(entry->d_name, name) == 0;
            own |= strcmp(entry->d_name, text) == 0;
        }
        CHECK(own && found == listed);
        CHECK(opendir("p/self") && access("p/self/comm", R_OK) == 0);
        CHECK(open("p/self/comm", O_WRONLY | O_CREAT | O_TRUNC, 0600) >= 0);
        _exit(0);
    }
    expect_success(child);
}

static void remount(const char *options)
{
    CHECK(mount("proc", "p", "proc", MS_REMOUNT, options) == 0);
}

static void hidden(void)
{
    CHECK(unshare(CLONE_NEWNS) == 0 && mount(0, "/", 0, MS_REC | MS_PRIVATE, 0) == 0);
    CHECK(mkdir("p", 0755) == 0);
    CHECK_ERR(mount("proc", "p", "proc", 0, "hidepid=3"), EINVAL);
    CHECK_ERR(mount("proc", "p", "proc", 0, "gid=x"), EINVAL);
    CHECK(mount("proc", "p", "proc", 0, "hidepid=2,gid=7") == 0);
    expect_shown(0, ENOENT, ENOENT, 0);
    expect_shown(1, 0, 0, 1);
    int fd = open("/proc/self/mounts", O_RDONLY);
    ssize_t size = read(fd, text, sizeof text - 1);
    CHECK(size > 0);
    text[size] = 0;
    CHECK(strstr(text, ",gid=7,hidepid=invisible 0 0\n"));
    close(fd);
    remount("hidepid=noaccess");
    expect_shown(0, 0, EPERM, 1);
    expect_shown(1, 0, 0, 1);
    remount("hidepid=4");
    expect_shown(0, ENOENT, ENOENT, 0);
    expect_shown(1, ENOENT, ENOENT, 0);
    remount("hidepid=0");
    expect_shown(0, 0, 0, 1);
}

static int adjust(const char *name, const char *value)
{
    int fd = open(name, O_WRONLY);
    CHECK(fd >= 0);
    int result = write(fd, value, strlen(value)) > 0 ? 0 : errno;
    close(fd);
    return result;
}

/* It may become as low again as somebody with CAP_SYS_RESOURCE has made it. */
static void scores(void)
{
    pid_t child = fork();
    if (!child) {
        CHECK(adjust("/proc/self/oom_score_adj", "50") == 0);
        become(1000);
        CHECK(adjust("/proc/self/oom_score_adj", "500") == 0);
        CHECK(adjust("/proc/self/oom_adj", "3") == EACCES);
        CHECK(adjust("/proc/self/oom_score_adj", "50") == 0);
        CHECK(adjust("/proc/self/oom_score_adj", "-1") == EACCES);
        if (!(child = fork()))
            _exit(adjust("/proc/self/oom_score_adj", "-1") != EACCES);
        expect_success(child);
        _exit(0);
    }
    expect_success(child);
}

static void copy_self(const char *name, int mode)
{
    int from = open("/proc/self/exe", O_RDONLY), to = open(name, O_CREAT | O_WRONLY, 0700), n;
    CHECK(from >= 0 && to >= 0);
    while ((n = read(from, text, sizeof text)) > 0)
        CHECK(write(to, text, n) == n);
    CHECK(n == 0 && fchmod(to, mode) == 0 && close(to) == 0 && close(from) == 0);
}

int main(int argc, char **argv)
{
    if (argc == 2) {
        CHECK(geteuid() == 0 && write(1, "x", 1) == 1 && read(0, text, 1) == 1);
        return 0;
    }
    copy_self("setuid", 04755);
    set_user_id();
    descriptors();
    of_thread();
    names();
    hidden();
    scores();
    return 0;
}
