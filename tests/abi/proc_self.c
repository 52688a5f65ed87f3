/* /proc/self and /proc/PID: what ps, the C library and language run-times read. */
#define _GNU_SOURCE
#include "abi.h"
#include <dirent.h>
#include <elf.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/auxv.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static char text[65536];

static ssize_t slurp(const char *path)
{
    int fd = open(path, O_RDONLY);
    if (fd < 0)
        return -1;
    ssize_t n, total = 0;
    while ((n = read(fd, text + total, sizeof text - 1 - total)) > 0)
        total += n;
    int error = errno;
    close(fd);
    errno = error;
    if (n < 0)
        return -1;
    text[total] = 0;
    return total;
}

static long field(const char *name)
{
    char *at = strstr(text, name);
    CHECK(at != NULL);
    return strtol(at + strlen(name), NULL, 0);
}

static int link_is(const char *path, const char *want)
{
    char target[4096];
    ssize_t n = readlink(path, target, sizeof target - 1);
    CHECK(n > 0);
    target[n] = 0;
    return strcmp(target, want) == 0;
}

static void self_is_a_link(void)
{
    char want[64];
    sprintf(want, "%d", getpid());
    CHECK(link_is("/proc/self", want));
    sprintf(want, "%d/task/%ld", getpid(), syscall(SYS_gettid));
    CHECK(link_is("/proc/thread-self", want));
    struct stat a, b;
    sprintf(want, "/proc/%d", getpid());
    CHECK(stat("/proc/self", &a) == 0 && stat(want, &b) == 0 && S_ISDIR(a.st_mode));
    CHECK(a.st_ino == b.st_ino && a.st_dev == b.st_dev);
    CHECK(lstat("/proc/self", &a) == 0 && S_ISLNK(a.st_mode));
    CHECK_ERR(access("/proc/999999", F_OK), ENOENT);
    CHECK_ERR(access("/proc/01", F_OK), ENOENT);
    CHECK_ERR(mkdir("/proc/self/x", 0700), ENOENT);
}

static void status_and_stat(void)
{
    CHECK(slurp("/proc/self/status") > 0);
    CHECK(field("\nPid:\t") == getpid() && field("\nTgid:\t") == getpid());
    CHECK(field("\nPPid:\t") == getppid() && field("\nUid:\t") == getuid());
    CHECK(field("\nThreads:\t") == 1 && field("\nTracerPid:\t") == 0);
    CHECK(field("\nVmSize:\t") > 0 && field("\nVmRSS:\t") > 0);
    CHECK(strstr(text, "State:\tR (running)") != NULL);
    umask(027);
    CHECK(slurp("/proc/self/status") > 0 && strstr(text, "Umask:\t0027") != NULL);
    umask(022);

    prctl(PR_SET_NAME, "a) b (c");
    CHECK(slurp("/proc/self/stat") > 0);
    int pid, ppid, group, session, used;
    char state;
    CHECK(sscanf(text, "%d (a) b (c) %c %d %d %d %n", &pid, &state, &ppid, &group, &session,
                 &used) == 5);
    CHECK(pid == getpid() && state == 'R' && ppid == getppid());
    CHECK(group == getpgrp() && session == getsid(0));
    int count = 0;
    for (char *at = strrchr(text, ')') + 2; *at; at++)
        count += *at == ' ' || *at == '\n';
    CHECK(count == 50);
    CHECK(slurp("/proc/self/statm") > 0);
    long size, resident;
    CHECK(sscanf(text, "%ld %ld", &size, &resident) == 2 && size >= resident && resident > 0);
}

static void names_and_arguments(char **argv)
{
    CHECK(prctl(PR_SET_NAME, "first") == 0);
    CHECK(slurp("/proc/self/comm") == 6 && strcmp(text, "first\n") == 0);
    int fd = open("/proc/self/comm", O_WRONLY);
    CHECK(fd >= 0 && write(fd, "second name that is long", 24) == 24);
    close(fd);
    char name[16];
    CHECK(prctl(PR_GET_NAME, name) == 0 && strcmp(name, "second name tha") == 0);
    ssize_t n = slurp("/proc/self/cmdline");
    CHECK(n > 0 && strcmp(text, argv[0]) == 0 && text[n - 1] == 0);
    CHECK(slurp("/proc/self/environ") > 0);
}

static void links_of_the_process(void)
{
    char cwd[4096], exe[4096];
    struct stat a, b;
    CHECK(getcwd(cwd, sizeof cwd) && link_is("/proc/self/cwd", cwd));
    CHECK(link_is("/proc/self/root", "/"));
    ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
    CHECK(n > 0);
    exe[n] = 0;
    CHECK(stat(exe, &a) == 0 && stat("/proc/self/exe", &b) == 0 && a.st_ino == b.st_ino);
    CHECK(stat("/proc/self/cwd", &a) == 0 && stat(".", &b) == 0 && a.st_ino == b.st_ino);
    CHECK(stat("/proc/self/root/proc", &a) == 0 && stat("/proc", &b) == 0 && a.st_ino == b.st_ino);
    int fd = open("/proc/self/exe", O_WRONLY);
    CHECK(fd == -1);
}

/* d_path() has a page for it, and a program goes down as far as it likes. */
static void links_to_what_lies_deep(void)
{
    enum { LENGTH = 200, DEPTH = 24 };
    char name[LENGTH + 1], at[4096], link[64];
    memset(name, 'd', LENGTH);
    name[LENGTH] = 0;
    int top = open(".", O_RDONLY), depth = 0;
    for (; depth < DEPTH; depth++) {
        if (syscall(SYS_getcwd, at, sizeof at) < 0)
            break;
        CHECK(link_is("/proc/self/cwd", at));
        CHECK(mkdir(name, 0700) == 0 && chdir(name) == 0);
    }
    CHECK_ERR(syscall(SYS_getcwd, at, sizeof at), ENAMETOOLONG);
    CHECK_ERR(readlink("/proc/self/cwd", at, sizeof at), ENAMETOOLONG);
    int file = open("file", O_CREAT | O_RDWR, 0600);
    CHECK(file >= 0);
    sprintf(link, "/proc/self/fd/%d", file);
    CHECK_ERR(readlink(link, at, sizeof at), ENAMETOOLONG);
    int again = open(link, O_RDONLY);
    CHECK(again >= 0 && close(again) == 0 && close(file) == 0 && unlink("file") == 0);
    while (depth--)
        CHECK(chdir("..") == 0 && rmdir(name) == 0);
    CHECK(fchdir(top) == 0 && close(top) == 0);
}

static void running_program_cannot_be_written(void)
{
    int from = open("/proc/self/exe", O_RDONLY), to = open("busy", O_CREAT | O_WRONLY, 0700), n;
    CHECK(from >= 0 && to >= 0);
    while ((n = read(from, text, sizeof text)) > 0)
        CHECK(write(to, text, n) == n);
    CHECK_ERR(execl("./busy", "busy", NULL), ETXTBSY);
    close(from);
    close(to);
    int tell[2], status;
    char byte;
    CHECK(pipe(tell) == 0);
    pid_t child = fork();
    if (child == 0) {
        dup2(tell[1], 1);
        execl("./busy", "busy", "pause", NULL);
        _exit(1);
    }
    CHECK(read(tell[0], &byte, 1) == 1);
    CHECK_ERR(open("busy", O_WRONLY), ETXTBSY);
    CHECK_ERR(open("busy", O_RDWR | O_TRUNC), ETXTBSY);
    CHECK_ERR(open("busy", O_RDONLY | O_TRUNC), ETXTBSY);
    CHECK_ERR(truncate("busy", 0), ETXTBSY);
    sprintf(text, "/proc/%d/exe", child);
    char path[4096];
    CHECK(getcwd(path, sizeof path - 10));
    strcat(path, strcmp(path, "/") ? "/busy" : "busy");
    CHECK(link_is(text, path));
    kill(child, 9);
    CHECK(waitpid(child, &status, 0) == child && WTERMSIG(status) == 9);
    to = open("busy", O_WRONLY);
    CHECK(to >= 0);
    close(to);
    unlink("busy");
}

static void descriptors(void)
{
    char path[64], want[4096];
    int fd = open("fdtest", O_CREAT | O_RDWR | O_TRUNC, 0600);
    CHECK(fd >= 0 && write(fd, "content", 7) == 7);
    sprintf(path, "/proc/self/fd/%d", fd);
    CHECK(getcwd(want, sizeof want - 10));
    strcat(want, strcmp(want, "/") ? "/fdtest" : "fdtest");
    CHECK(link_is(path, want));
    struct stat a, b;
    CHECK(lstat(path, &a) == 0 && (a.st_mode & 0777) == 0700 && a.st_size == 64);
    CHECK(stat(path, &a) == 0 && fstat(fd, &b) == 0 && a.st_ino == b.st_ino);
    /* a new description of the same file, also when it has no name any more */
    CHECK(unlink("fdtest") == 0);
    strcat(want, " (deleted)");
    CHECK(link_is(path, want));
    int again = open(path, O_RDONLY);
    CHECK(again >= 0 && read(again, want, 10) == 7 && memcmp(want, "content", 7) == 0);
    close(again);
    CHECK(lseek(fd, 0, SEEK_CUR) == 7);

    sprintf(path, "/proc/self/fdinfo/%d", fd);
    CHECK(slurp(path) > 0 && field("pos:\t") == 7 && field("flags:\t") == (O_RDWR | 0100000));
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    CHECK(slurp(path) > 0 && field("flags:\t") & O_CLOEXEC);
    close(fd);
    sprintf(path, "/proc/self/fd/%d", fd);
    CHECK_ERR(readlink(path, want, 9), ENOENT);
    CHECK_ERR(access("/proc/self/fd/x", F_OK), ENOENT);

    int ends[2];
    CHECK(pipe(ends) == 0);
    sprintf(path, "/proc/self/fd/%d", ends[0]);
    CHECK(readlink(path, want, sizeof want) > 6 && memcmp(want, "pipe:[", 6) == 0);
    CHECK(lstat(path, &a) == 0 && (a.st_mode & 0777) == 0500);
    /* a pipe can be opened anew by its link */
    int other = open(path, O_WRONLY);
    CHECK(other >= 0 && write(other, "p", 1) == 1 && read(ends[0], want, 1) == 1);
    close(other);
    close(ends[0]);
    close(ends[1]);

    CHECK((fd = eventfd(5, 0)) >= 0);
    sprintf(path, "/proc/self/fdinfo/%d", fd);
    CHECK(slurp(path) > 0 && field("eventfd-count:") == 5 && field("eventfd-id:") >= 0);
    close(fd);
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
    sprintf(path, "/proc/self/fdinfo/%d", ends[0]);
    CHECK(slurp(path) > 0 && field("scm_fds:") == 0);
    close(ends[0]);
    close(ends[1]);

    DIR *dir = opendir("/proc/self/fd");
    int seen = 0;
    for (struct dirent *e; (e = readdir(dir));)
        if (strcmp(e->d_name, "0") == 0 || atoi(e->d_name) == dirfd(dir))
            seen++;
    CHECK(seen >= 2);
    closedir(dir);
}

static void memory(void)
{
    char *page = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(page != MAP_FAILED);
    strcpy(page, "in memory");
    CHECK(mprotect(page + 4096, 4096, PROT_NONE) == 0);
    char line[64];
    CHECK(slurp("/proc/self/maps") > 0);
    sprintf(line, "%lx-%lx ---p 00000000 00:00 0", (long)page + 4096, (long)page + 8192);
    CHECK(strstr(text, line) != NULL);
    CHECK(strstr(text, "[stack]\n") != NULL && strstr(text, "[heap]\n") != NULL);
    CHECK(strstr(text, "r-xp ") != NULL);
    CHECK(slurp("/proc/self/smaps") > 0 && strstr(text, "\nRss: ") && strstr(text, "\nVmFlags: rd"));

    int fd = open("/proc/self/mem", O_RDWR);
    CHECK(fd >= 0);
    CHECK(pread(fd, line, 9, (long)page) == 9 && memcmp(line, "in memory", 9) == 0);
    CHECK(pwrite(fd, "IN", 2, (long)page) == 2 && memcmp(page, "IN memory", 9) == 0);
    CHECK(pread(fd, line, 16, (long)page + 4096 - 8) >= 8);
    CHECK_ERR(pread(fd, line, 1, 8), EIO);
    /* what a private mapping forbids is done, to a page of its own; to a shared page it is not */
    int file = open("/proc/self/exe", O_RDONLY), own = memfd_create("file", 0);
    CHECK(file >= 0 && own >= 0 && write(own, "lent", 5) == 5);
    char *private = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, file, 0);
    char *of_program = mmap(NULL, 4096, PROT_READ, MAP_SHARED, file, 0);
    char *of_own = mmap(NULL, 4096, PROT_READ, MAP_SHARED, own, 0);
    CHECK(private != MAP_FAILED && of_program != MAP_FAILED && of_own != MAP_FAILED);
    CHECK(pwrite(fd, "IN", 2, (long)private) == 2 && memcmp(private, "INLF", 4) == 0);
    CHECK_ERR(pwrite(fd, "IN", 2, (long)of_program), EIO);
    CHECK_ERR(pwrite(fd, "IN", 2, (long)of_own), EIO);
    CHECK(memcmp(of_program, "\177ELF", 4) == 0 && strcmp(of_own, "lent") == 0);
    close(file);
    close(own);
    close(fd);

    CHECK(slurp("/proc/self/auxv") > 0);
    unsigned long phdr = 0, random = 0;
    for (Elf64_auxv_t *v = (void *)text; v->a_type; v++) {
        if (v->a_type == AT_PHDR)
            phdr = v->a_un.a_val;
        if (v->a_type == AT_RANDOM)
            random = v->a_un.a_val;
    }
    CHECK(phdr == getauxval(AT_PHDR) && random == getauxval(AT_RANDOM));
}

/* Eight bytes for each page: bit 63 present, bit 61 of a file or shared. */
static void pages(void)
{
    char *own = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    unsigned long entry[2];
    CHECK(own != MAP_FAILED && shared != MAP_FAILED && munmap(own + 4096, 4096) == 0);
    *own = *shared = 1;
    int fd = open("/proc/self/pagemap", O_RDONLY);
    CHECK(fd >= 0);
    CHECK(pread(fd, entry, sizeof entry, (long)own / 4096 * 8) == sizeof entry);
    CHECK(entry[0] >> 63 == 1 && !(entry[0] >> 61 & 1) && entry[1] >> 63 == 0);
    CHECK(pread(fd, entry, 8, (long)shared / 4096 * 8) == 8);
    CHECK(entry[0] >> 63 == 1 && (entry[0] >> 61 & 1));
    CHECK(lseek(fd, (long)pages / 4096 * 8, SEEK_SET) == (long)pages / 4096 * 8);
    CHECK(read(fd, entry, 8) == 8 && entry[0] >> 63 == 1 && (entry[0] >> 61 & 1));
    CHECK_ERR(pread(fd, entry, 8, 4), EINVAL);
    CHECK_ERR(pread(fd, entry, 4, 8), EINVAL);
    CHECK_ERR(lseek(fd, 0, SEEK_END), EINVAL);
    CHECK(pread(fd, entry, 8, ((1L << 47) - 4096) / 4096 * 8) == 0);
    CHECK(pread(fd, entry, 16, ((1L << 47) - 8192) / 4096 * 8) == 8);
    struct stat st;
    CHECK(fstat(fd, &st) == 0 && (st.st_mode & 07777) == 0400);
    close(fd);
    munmap(own, 4096);
    munmap(shared, 4096);
    fd = open("/proc/self/clear_refs", O_WRONLY);
    CHECK(fd >= 0 && write(fd, "5", 1) == 1 && write(fd, "1\n", 2) == 2);
    CHECK_ERR(write(fd, "6", 1), EINVAL);
    CHECK_ERR(write(fd, "0", 1), EINVAL);
    CHECK_ERR(write(fd, "x", 1), EINVAL);
    close(fd);
}

/* A number of kB of the mapping that starts at `at`, or where its flags are. */
static long of_mapping(void *at, const char *name, char **flags)
{
    char head[32];
    CHECK(slurp("/proc/self/smaps") > 0);
    sprintf(head, "%08lx-", (long)at);
    char *entry = strstr(text, head), *row = entry ? strstr(entry, name) : NULL;
    CHECK(row != NULL);
    *flags = strstr(entry, "\nVmFlags: ");
    CHECK(*flags != NULL);
    (*flags)[strcspn(*flags + 1, "\n") + 1] = 0;
    return atol(row + strlen(name));
}

/* "Shared" is what others map too, not what could be shared. */
static void sharing(void)
{
    char *flags, *at = mmap(NULL, 8192, PROT_READ | PROT_WRITE,
                            MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    CHECK(at != MAP_FAILED);
    long rss = of_mapping(at, "\nRss:", &flags);
    CHECK(strstr(flags, " sh ") && strstr(flags, " ms"));
    CHECK(of_mapping(at, "\nPss:", &flags) == rss);
    CHECK(of_mapping(at, "\nShared_Dirty:", &flags) == 0);
    CHECK(of_mapping(at, "\nAnonymous:", &flags) == 0);
    int fd = memfd_create("both ways", 0);
    char name[32];
    CHECK(fd >= 0 && ftruncate(fd, 4096) == 0);
    sprintf(name, "/proc/self/fd/%d", fd);
    int reader = open(name, O_RDONLY);
    at = mmap(NULL, 4096, PROT_READ, MAP_SHARED, reader, 0);
    CHECK(at != MAP_FAILED && of_mapping(at, "\nSize:", &flags) == 4);
    CHECK(!strstr(flags, " sh ") && !strstr(flags, " mw ") && strstr(flags, " ms"));
    munmap(at, 4096);
    close(fd);
    close(reader);
}

static void timers(void)
{
    struct sigevent event = {.sigev_notify = SIGEV_NONE, .sigev_signo = 0};
    timer_t first, second;
    char wanted[200];
    CHECK(timer_create(CLOCK_MONOTONIC, NULL, &first) == 0);
    CHECK(timer_create(CLOCK_PROCESS_CPUTIME_ID, &event, &second) == 0);
    CHECK(slurp("/proc/self/timers") > 0);
    sprintf(wanted, "notify: none/pid.%d\nClockID: -6\nID: 0\n", getpid());
    CHECK(strstr(text, wanted) && strstr(text, "\nsignal: 14/0000000000000000\n"));
    sprintf(wanted, "notify: signal/pid.%d\nClockID: 1\n", getpid());
    CHECK(strstr(text, wanted));
    CHECK(timer_delete(first) == 0 && timer_delete(second) == 0);
    CHECK(slurp("/proc/self/timers") == 0);
}

static void limits_and_scores(void)
{
    struct rlimit limit;
    CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    CHECK(slurp("/proc/self/limits") > 0);
    CHECK(strncmp(text, "Limit                     Soft Limit", 36) == 0);
    CHECK(field("Max open files ") == (long)limit.rlim_cur);
    CHECK(slurp("/proc/self/oom_score") > 0);
    int fd = open("/proc/self/oom_score_adj", O_RDWR);
    CHECK(fd >= 0 && write(fd, "300", 3) == 3);
    CHECK(slurp("/proc/self/oom_score_adj") == 4 && strcmp(text, "300\n") == 0);
    CHECK_ERR(write(fd, "1001", 4), EINVAL);
    CHECK_ERR(write(fd, "x", 1), EINVAL);
    close(fd);
    CHECK(slurp("/proc/self/uid_map") > 0 && atol(text) == 0);
    CHECK(slurp("/proc/self/cgroup") > 0 && strchr(text, ':'));
    CHECK(slurp("/proc/self/personality") == 9 && strcmp(text, "00000000\n") == 0);
    CHECK(slurp("/proc/self/wchan") > 0);
    CHECK(slurp("/proc/self/io") > 0 && strstr(text, "rchar: ") == text);
    CHECK(slurp("/proc/self/mounts") > 0 && strstr(text, " /proc proc "));
    CHECK(slurp("/proc/self/mountinfo") > 0 && strstr(text, " - proc "));
}

static int gate[2];

static void *sleeper(void *arg)
{
    char byte;
    prctl(PR_SET_NAME, "sleeper");
    *(int *)arg = syscall(SYS_gettid);
    read(gate[0], &byte, 1);
    return NULL;
}

static void threads(void)
{
    volatile int tid = 0;
    pthread_t id;
    char path[64];
    CHECK(pipe(gate) == 0 && pthread_create(&id, NULL, sleeper, (void *)&tid) == 0);
    sprintf(path, "/proc/self/task/%d/status", tid);
    do {
        usleep(1000);
        sprintf(path, "/proc/self/task/%d/status", tid);
    } while (!tid || slurp(path) < 0 || !strstr(text, "S (sleeping)"));
    CHECK(strstr(text, "Name:\tsleeper\n") == text);
    CHECK(field("\nPid:\t") == tid && field("\nTgid:\t") == getpid());
    CHECK(field("\nThreads:\t") == 2);
    struct stat st;
    CHECK(stat("/proc/self/task", &st) == 0 && st.st_nlink == 4);
    sprintf(path, "/proc/%d/comm", tid);
    CHECK(slurp(path) == 8 && strcmp(text, "sleeper\n") == 0);
    CHECK(write(gate[1], "x", 1) == 1 && pthread_join(id, NULL) == 0);
    sprintf(path, "/proc/self/task/%d", tid);
    for (int i = 0; access(path, F_OK) == 0 && i < 1000; i++)
        usleep(1000);
    CHECK_ERR(access(path, F_OK), ENOENT);
}

static void zombies_and_the_gone(void)
{
    char path[64];
    pid_t child = fork();
    if (child == 0)
        _exit(3);
    siginfo_t info;
    CHECK(waitid(P_PID, child, &info, WEXITED | WNOWAIT) == 0);
    sprintf(path, "/proc/%d/status", child);
    CHECK(slurp(path) > 0 && strstr(text, "State:\tZ (zombie)"));
    CHECK(strstr(text, "VmSize") == NULL);
    int status_fd = open(path, O_RDONLY);
    sprintf(path, "/proc/%d", child);
    int dir = open(path, O_RDONLY | O_DIRECTORY);
    CHECK(dir >= 0 && status_fd >= 0);
    sprintf(path, "/proc/%d/cmdline", child);
    CHECK(slurp(path) == 0);
    sprintf(path, "/proc/%d/exe", child);
    CHECK_ERR(readlink(path, text, 100), ENOENT);
    CHECK(waitpid(child, NULL, 0) == child);
    CHECK_ERR(access(path, F_OK), ENOENT);
    CHECK_ERR(read(status_fd, text, 10), ESRCH);
    CHECK_ERR(openat(dir, "limits", O_RDONLY), ESRCH);
    close(dir);
    close(status_fd);
}

static void others_are_private(void)
{
    char path[64];
    int status;
    if (fork() == 0) {
        CHECK(setgid(1234) == 0 && setuid(1234) == 0);
        sprintf(path, "/proc/%d/environ", getppid());
        CHECK_ERR(open(path, O_RDONLY), EACCES);
        sprintf(path, "/proc/%d/exe", getppid());
        CHECK_ERR(readlink(path, text, 100), EACCES);
        sprintf(path, "/proc/%d/fd", getppid());
        CHECK_ERR(open(path, O_RDONLY), EACCES);
        sprintf(path, "/proc/%d/status", getppid());
        CHECK(slurp(path) > 0);
        sprintf(path, "/proc/%d/cmdline", getppid());
        CHECK(slurp(path) > 0);
        sprintf(path, "/proc/%d/comm", getppid());
        CHECK_ERR(open(path, O_WRONLY), EACCES);
        _exit(0);
    }
    CHECK(wait(&status) > 0 && status == 0);
}

/* A process that has become somebody else may not be looked into, but finds its own files. */
static void own_descriptors_after_a_change_of_identity(void)
{
    int status;
    pid_t parent = getpid(), child = fork();
    if (!child) {
        char path[64];
        int file = open("mine", O_CREAT | O_RDWR, 0666);
        CHECK(file >= 0 && syscall(SYS_setresuid, 1000, 1000, 1000) == 0);
        snprintf(path, sizeof path, "/proc/self/fd/%d", file);
        CHECK(readlink(path, path, sizeof path) > 0);
        CHECK(opendir("/proc/self/fd") != NULL);
        snprintf(path, sizeof path, "/proc/%d/fd", parent);
        CHECK(opendir(path) == NULL && errno == EACCES);
        _exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    unlink("mine");
}

int main(int argc, char **argv)
{
    if (argc > 1) {
        write(1, "x", 1);
        pause();
    }
    CHECK(malloc(100) != NULL);
    self_is_a_link();
    status_and_stat();
    names_and_arguments(argv);
    links_of_the_process();
    links_to_what_lies_deep();
    running_program_cannot_be_written();
    descriptors();
    memory();
    pages();
    sharing();
    timers();
    limits_and_scores();
    threads();
    zombies_and_the_gone();
    others_are_private();
    own_descriptors_after_a_change_of_identity();
    return 0;
}
