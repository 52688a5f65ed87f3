/* What may still be asked of a process that has ended and was not waited for, and of a leader that
 * has ended before its threads: calls by pid, by pidfd, and /proc/PID. */
#define _GNU_SOURCE
#include "abi.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef PIDFD_THREAD
#define PIDFD_THREAD O_EXCL
#endif
enum { FILE_, VM, FILES, FS, SIGHAND, IO, SYSVSEM, EPOLL_TFD, UNKNOWN };

static char text[8192];

/* What the file says; -1 with errno if it cannot be opened or read. */
static int say(int pid, const char *name)
{
    char path[64];
    sprintf(path, "/proc/%d/%s", pid, name);
    int fd = open(path, O_RDONLY);
    if (fd < 0)
        return -1;
    int length = 0, part;
    while ((part = read(fd, text + length, sizeof text - 1 - length)) > 0)
        length += part;
    int error = errno;
    close(fd);
    errno = error;
    text[length] = 0;
    return part < 0 ? -1 : length;
}

static int put(int pid, const char *name, const char *what)
{
    char path[64];
    sprintf(path, "/proc/%d/%s", pid, name);
    int fd = open(path, O_WRONLY);
    CHECK(fd >= 0);
    int result = write(fd, what, strlen(what)), error = errno;
    close(fd);
    errno = error;
    return result;
}

static int entries(int pid, const char *name)
{
    char path[64];
    sprintf(path, "/proc/%d/%s", pid, name);
    DIR *directory = opendir(path);
    CHECK(directory != NULL);
    int count = 0;
    for (struct dirent *each; (each = readdir(directory));)
        count += each->d_name[0] != '.';
    closedir(directory);
    return count;
}

static long link_of(int pid, const char *name)
{
    char path[64], target[256];
    sprintf(path, "/proc/%d/%s", pid, name);
    return readlink(path, target, sizeof target);
}

static int field(int number)
{
    char *at = strrchr(text, ')') + 1;
    for (int i = 2; i < number; i++)
        at = strchr(at, ' ') + 1;
    return atoi(at);
}

static void scheduling(int pid)
{
    struct sched_param param = {0};
    struct timespec interval;
    cpu_set_t cpus;
    struct {
        unsigned size, policy;
        unsigned long flags;
        int nice;
        unsigned priority;
        unsigned long times[3];
    } attr = {48};
    CHECK(syscall(SYS_sched_getscheduler, pid) == SCHED_OTHER);
    CHECK(syscall(SYS_sched_setscheduler, pid, SCHED_BATCH, &param) == 0);
    CHECK(syscall(SYS_sched_getscheduler, pid) == SCHED_BATCH);
    CHECK(syscall(SYS_sched_setparam, pid, &param) == 0);
    CHECK(syscall(SYS_sched_getparam, pid, &param) == 0);
    CHECK(syscall(SYS_sched_rr_get_interval, pid, &interval) == 0);
    CHECK(syscall(SYS_sched_getattr, pid, &attr, sizeof attr, 0) == 0 && attr.policy == SCHED_BATCH);
    attr.policy = SCHED_OTHER;
    CHECK(syscall(SYS_sched_setattr, pid, &attr, 0) == 0);
    CHECK(syscall(SYS_sched_getscheduler, pid) == SCHED_OTHER);
    CHECK(syscall(SYS_sched_getaffinity, pid, sizeof cpus, &cpus) > 0);
    CHECK(syscall(SYS_sched_setaffinity, pid, sizeof cpus, &cpus) == 0);
    CHECK(syscall(SYS_getpriority, PRIO_PROCESS, pid) > 0);
    CHECK(syscall(SYS_setpriority, PRIO_PROCESS, pid, 18) == 0);
    CHECK(syscall(SYS_getpriority, PRIO_PROCESS, pid) == 2);
    /* the priority of I/O is gone with the process: what is set is taken and not kept */
    CHECK(syscall(SYS_ioprio_get, 1, pid) == 0);
    CHECK(syscall(SYS_ioprio_set, 1, pid, 2 << 13 | 3) == 0);
    CHECK(syscall(SYS_ioprio_get, 1, pid) == 0);
}

static void group_of_a_zombie(int pid)
{
    CHECK(getpgid(pid) == pid && getsid(pid) == pid);
    CHECK(syscall(SYS_getpriority, PRIO_PGRP, pid) == 2);
    CHECK(syscall(SYS_setpriority, PRIO_PGRP, pid, 19) == 0);
    CHECK(syscall(SYS_getpriority, PRIO_PGRP, pid) == 1);
    CHECK(syscall(SYS_ioprio_get, 2, pid) == (2 << 13 | 7));
    CHECK(syscall(SYS_ioprio_set, 2, pid, 2 << 13 | 3) == 0);
    CHECK_ERR(setpgid(pid, pid), EPERM);
}

static void other_calls(int pid)
{
    struct rlimit64 limit;
    struct {
        unsigned version;
        int pid;
    } head = {0x20080522, pid};
    unsigned caps[6];
    char bytes[16];
    void *pages[1] = {bytes}, *robust = &robust;
    int status[1];
    size_t size = 0;
    unsigned long node = 1;
    struct iovec local = {bytes, 8}, remote = {bytes, 8};
    CHECK(syscall(SYS_prlimit64, pid, RLIMIT_NOFILE, 0, &limit) == 0);
    CHECK(syscall(SYS_prlimit64, pid, RLIMIT_NOFILE, &limit, 0) == 0);
    CHECK(syscall(SYS_capget, &head, caps) == 0);
    CHECK(syscall(SYS_get_robust_list, pid, &robust, &size) == 0 && !robust && size == 24);
    CHECK_ERR(syscall(SYS_kcmp, pid, pid, FILE_, 0, 0), EBADF);
    CHECK_ERR(syscall(SYS_kcmp, getpid(), pid, FILE_, 0, 0), EBADF);
    CHECK_ERR(syscall(SYS_kcmp, pid, pid, EPOLL_TFD, 0, 0), EFAULT);
    CHECK_ERR(syscall(SYS_kcmp, pid, pid, UNKNOWN, 0, 0), EINVAL);
    for (int kind = VM; kind <= SYSVSEM; kind++)
        CHECK(syscall(SYS_kcmp, pid, pid, kind, 0, 0) == 0);
    CHECK(syscall(SYS_kcmp, getpid(), pid, VM, 0, 0) > 0);
    CHECK(syscall(SYS_kcmp, getpid(), pid, SIGHAND, 0, 0) > 0);
    CHECK_ERR(syscall(SYS_move_pages, pid, 1, pages, 0, status, 0), EINVAL);
    CHECK_ERR(syscall(SYS_migrate_pages, pid, 64, &node, &node), EINVAL);
    CHECK_ERR(process_vm_readv(pid, &local, 1, &remote, 1, 0), ESRCH);
    CHECK_ERR(process_vm_writev(pid, &local, 1, &remote, 1, 0), ESRCH);
    CHECK_ERR(ptrace(PTRACE_ATTACH, pid, 0, 0), EPERM);
    CHECK_ERR(ptrace(PTRACE_SEIZE, pid, 0, 0), EPERM);
    CHECK_ERR(ptrace(PTRACE_PEEKDATA, pid, 0, 0), ESRCH);
    CHECK(kill(pid, 0) == 0 && kill(pid, SIGWINCH) == 0);
    CHECK(syscall(SYS_tkill, pid, SIGWINCH) == 0 && syscall(SYS_tgkill, pid, pid, SIGWINCH) == 0);
    int fds[2];
    CHECK(pipe(fds) == 0);
    struct f_owner_ex owner = {F_OWNER_TID, pid};
    CHECK(fcntl(fds[0], F_SETOWN_EX, &owner) == 0);
    memset(&owner, 0, sizeof owner);
    CHECK(fcntl(fds[0], F_GETOWN_EX, &owner) == 0);
    CHECK(owner.type == F_OWNER_TID && owner.pid == pid);
    close(fds[0]);
    close(fds[1]);
}

/* `ended`: the whole process, not only its leader. */
static void descriptors(int pid, int ended)
{
    char bytes[8], line[32];
    struct iovec remote = {bytes, 8};
    int whole = syscall(SYS_pidfd_open, pid, 0);
    CHECK(whole >= 0);
    CHECK_ERR(syscall(SYS_pidfd_getfd, whole, 0, 0), ESRCH);
    CHECK_ERR(syscall(SYS_process_madvise, whole, &remote, 1, 20, 0), ESRCH);
    CHECK_ERR(syscall(SYS_process_mrelease, whole, 0), ended ? ESRCH : EINVAL);
    CHECK_ERR(setns(whole, CLONE_NEWNET), ESRCH);
    struct pollfd poller = {whole, POLLIN};
    CHECK(poll(&poller, 1, 0) == ended);
    close(whole);
    int thread = syscall(SYS_pidfd_open, pid, PIDFD_THREAD);
    if (thread < 0) { /* Linux before 6.9 */
        CHECK_ERR(syscall(SYS_pidfd_open, pid, PIDFD_THREAD), EINVAL);
        return;
    }
    poller.fd = thread;
    if (ended) /* of a leader alone, kernels differ */
        CHECK(poll(&poller, 1, 0) == 1 && poller.revents == POLLIN);
    sprintf(line, "fdinfo/%d", thread);
    CHECK(say(getpid(), line) > 0);
    sprintf(line, "Pid:\t%d\n", pid);
    CHECK(strstr(text, line) != NULL);
    close(thread);
}

static void files(int pid, int threads)
{
    static const char *const empty[] = {"cmdline", "maps", "smaps", "coredump_filter", "timers"};
    static const char *const no_memory[] = {"environ", "auxv", "mem", "pagemap", "smaps_rollup"};
    static const char *const no_files[] = {"exe",    "cwd",    "root", "ns/uts", "ns/mnt",
                                           "ns/net", "ns/ipc", "fd/0"};
    static const char *const no_mounts[] = {"mounts", "mountinfo", "mountstats"};
    char line[64];
    int ended = threads == 1;
    CHECK(say(pid, "stat") > 0);
    CHECK(strrchr(text, ')')[2] == 'Z' && field(20) == threads);
    CHECK(field(23) == 0 && field(24) == 0 && field(26) == 0 && field(35) == ended);
    CHECK(field(52) == (ended ? 3 << 8 : 0));
    CHECK(say(pid, "statm") > 0 && strcmp(text, "0 0 0 0 0 0 0\n") == 0);
    CHECK(say(pid, "status") > 0);
    sprintf(line, "\nThreads:\t%d\n", threads);
    CHECK(strstr(text, line) && strstr(text, "\nState:\tZ (zombie)\n"));
    CHECK(strstr(text, "\nFDSize:\t0\n") && !strstr(text, "Umask") && !strstr(text, "Vm"));
    for (int i = 0; i < 5; i++)
        CHECK(say(pid, empty[i]) == 0);
    for (int i = 0; i < 5; i++) { /* of some, kernels before 6.15 say that they are empty */
        int length = say(pid, no_memory[i]), error = errno;
        CHECK(length == 0 || (length == -1 && error == ESRCH));
    }
    for (int i = 0; i < 3; i++)
        CHECK_ERR(say(pid, no_mounts[i]), EINVAL);
    for (int i = 0; i < 8; i++)
        CHECK_ERR(link_of(pid, no_files[i]), ENOENT);
    CHECK(link_of(pid, "ns/pid") > 0 && link_of(pid, "ns/user") > 0);
    CHECK_ERR(link_of(pid, "ns/pid_for_children"), ENOENT);
    CHECK(entries(pid, "fd") == 0 && entries(pid, "fdinfo") == 0);
    CHECK(entries(pid, "task") == threads);
    CHECK(say(pid, "oom_score") > 0 && (strcmp(text, "0\n") == 0) == ended);
    CHECK(say(pid, "syscall") > 0 && strcmp(text, "-1 0x0 0x0\n") == 0);
    CHECK(say(pid, "limits") > 0 && say(pid, "comm") > 0 && say(pid, "io") > 0);
    CHECK_ERR(put(pid, "comm", "other"), EINVAL);
    CHECK_ERR(put(pid, "coredump_filter", "3"), ESRCH);
    CHECK(put(pid, "oom_score_adj", "5") == 1);
    CHECK(say(pid, "oom_score_adj") == 2 && strcmp(text, "5\n") == 0);
    CHECK(put(pid, "clear_refs", "1") == 1);
}

static void *sleeps(void *none)
{
    for (;;)
        pause();
    return none;
}

int main(void)
{
    siginfo_t info;
    int pid = fork();
    if (pid == 0) {
        setsid();
        _exit(3);
    }
    CHECK(waitid(P_PID, pid, &info, WEXITED | WNOWAIT) == 0);
    scheduling(pid);
    group_of_a_zombie(pid);
    other_calls(pid);
    descriptors(pid, 1);
    files(pid, 1);
    CHECK(waitpid(pid, NULL, 0) == pid);
    CHECK_ERR(syscall(SYS_sched_getscheduler, pid), ESRCH);
    CHECK_ERR(syscall(SYS_getpriority, PRIO_PROCESS, pid), ESRCH);
    CHECK_ERR(syscall(SYS_kcmp, pid, pid, VM, 0, 0), ESRCH);

    pid = fork();
    if (pid == 0) {
        pthread_t thread;
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* where a check fails */
        CHECK(pthread_create(&thread, NULL, sleeps, NULL) == 0);
        syscall(SYS_exit, 0);
    }
    do
        CHECK(say(pid, "stat") > 0);
    while (strrchr(text, ')')[2] != 'Z');
    CHECK(waitpid(pid, NULL, WNOHANG) == 0);
    scheduling(pid);
    other_calls(pid);
    descriptors(pid, 0);
    files(pid, 2);
    CHECK(kill(pid, SIGKILL) == 0 && waitpid(pid, NULL, 0) == pid);
    return 0;
}
