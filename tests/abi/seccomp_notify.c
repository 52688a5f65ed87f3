/* seccomp_unotify(2): a supervisor reads calls, answers them, lets them go on, gives descriptors. */
#define _GNU_SOURCE
#include "abi.h"
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define NOTIFY SECCOMP_RET_USER_NOTIF
#define LISTEN SECCOMP_FILTER_FLAG_NEW_LISTENER

static int install(unsigned number, unsigned action, unsigned flags)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, action),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {4, code};
    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
}

static void handler(int signo) {}

static struct seccomp_notif receive(int listener)
{
    struct seccomp_notif note = {0};
    CHECK(ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &note) == 0);
    return note;
}

static int answer(int listener, __u64 id, __s64 value, int error, unsigned flags)
{
    struct seccomp_notif_resp response = {id, value, error, flags};
    return ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &response);
}

/* Six calls; each is answered in a way of its own. */
static void supervised(void)
{
    CHECK_ERR(syscall(SYS_getppid), EXDEV);
    CHECK(syscall(SYS_getppid, 1, 2, 3, 4, 5, 6) == 4242);
    CHECK(syscall(SYS_getppid) == getppid_really());
    CHECK(syscall(SYS_getppid) == 1 && fcntl(20, F_GETFD) == FD_CLOEXEC);
    long fd = syscall(SYS_getppid);
    CHECK(fd > 0 && fcntl(fd, F_GETFD) == 0);
    _exit(5);
}

int getppid_really(void)
{
    char line[200];
    int parent = 0;
    FILE *status = fopen("/proc/self/status", "r");
    while (fgets(line, sizeof line, status))
        sscanf(line, "PPid: %d", &parent);
    fclose(status);
    return parent;
}

static void errors(void)
{
    CHECK_ERR(install(SYS_getppid, NOTIFY, SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV), EINVAL);
    CHECK_ERR(install(SYS_getppid, NOTIFY, LISTEN | SECCOMP_FILTER_FLAG_TSYNC), EINVAL);
    int unheard = fork();
    if (unheard == 0) {
        CHECK(install(SYS_getppid, NOTIFY, 0) == 0);
        CHECK_ERR(syscall(SYS_getppid), ENOSYS);
        _exit(0);
    }
    int status;
    CHECK(waitpid(unheard, &status, 0) == unheard && status == 0);
}

static void conversation(int listener)
{
    struct pollfd poller = {listener, POLLIN | POLLOUT};
    CHECK(poll(&poller, 1, 0) == 0);
    pid_t child = fork();
    if (child == 0)
        supervised();

    struct seccomp_notif note = receive(listener);
    CHECK((int)note.pid == child && note.data.nr == SYS_getppid);
    CHECK(note.data.arch == AUDIT_ARCH_X86_64 && note.flags == 0);
    __u64 wrong = note.id + 77;
    CHECK(ioctl(listener, SECCOMP_IOCTL_NOTIF_ID_VALID, &note.id) == 0);
    CHECK_ERR(ioctl(listener, SECCOMP_IOCTL_NOTIF_ID_VALID, &wrong), ENOENT);
    CHECK(poll(&poller, 1, 0) == 1 && poller.revents == POLLOUT);
    CHECK_ERR(answer(listener, wrong, 0, 0, 0), ENOENT);
    CHECK_ERR(answer(listener, note.id, 0, 0, 2), EINVAL);
    CHECK_ERR(answer(listener, note.id, 0, 5, SECCOMP_USER_NOTIF_FLAG_CONTINUE), EINVAL);
    CHECK(answer(listener, note.id, 0, -EXDEV, 0) == 0);

    note.pid = 1;
    CHECK_ERR(ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &note), EINVAL);
    CHECK_ERR(ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, (void *)8), EFAULT);
    note = receive(listener);
    for (int i = 0; i < 6; i++)
        CHECK(note.data.args[i] == i + 1);
    CHECK(answer(listener, note.id, 4242, 0, 0) == 0);

    note = receive(listener);
    CHECK(answer(listener, note.id, 0, 0, SECCOMP_USER_NOTIF_FLAG_CONTINUE) == 0);

    note = receive(listener);
    struct seccomp_notif_addfd add = {note.id, SECCOMP_ADDFD_FLAG_SETFD, 0, 20, O_CLOEXEC};
    CHECK(ioctl(listener, SECCOMP_IOCTL_NOTIF_ADDFD, &add) == 20);
    add.srcfd = 999;
    CHECK_ERR(ioctl(listener, SECCOMP_IOCTL_NOTIF_ADDFD, &add), EBADF);
    add.srcfd = 0;
    add.flags = 8;
    CHECK_ERR(ioctl(listener, SECCOMP_IOCTL_NOTIF_ADDFD, &add), EINVAL);
    add.flags = 0;
    CHECK_ERR(ioctl(listener, SECCOMP_IOCTL_NOTIF_ADDFD, &add), EINVAL);
    add.newfd = 0;
    add.id = wrong;
    CHECK_ERR(ioctl(listener, SECCOMP_IOCTL_NOTIF_ADDFD, &add), ENOENT);
    CHECK(answer(listener, note.id, 1, 0, 0) == 0);

    note = receive(listener);
    struct seccomp_notif_addfd send = {note.id, SECCOMP_ADDFD_FLAG_SEND, 0, 0, 0};
    CHECK(ioctl(listener, SECCOMP_IOCTL_NOTIF_ADDFD, &send) > 0);
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 5 << 8);
}

/* The supervisor lets a call go on that sleeps. */
static void sleeping_call(void)
{
    int status;
    pid_t outer = fork();
    if (outer == 0) {
        int listener = install(SYS_nanosleep, NOTIFY, LISTEN);
        pid_t child = fork();
        if (child == 0) {
            struct timespec moment = {0, 1000000};
            CHECK(syscall(SYS_nanosleep, &moment, NULL) == 0);
            _exit(3);
        }
        struct seccomp_notif note = receive(listener);
        CHECK(answer(listener, note.id, 0, 0, SECCOMP_USER_NOTIF_FLAG_CONTINUE) == 0);
        CHECK(waitpid(child, &status, 0) == child && status == 3 << 8);
        _exit(0);
    }
    CHECK(waitpid(outer, &status, 0) == outer && status == 0);
}

static void interruptions(int listener)
{
    /* a signal ends the wait; the answer comes too late */
    pid_t child = fork();
    if (child == 0) {
        struct sigaction action = {.sa_handler = handler};
        CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
        CHECK_ERR(syscall(SYS_getppid), EINTR);
        _exit(0);
    }
    struct seccomp_notif note = receive(listener);
    int status;
    CHECK(kill(child, SIGUSR1) == 0);
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    CHECK_ERR(answer(listener, note.id, 0, 0, 0), ENOENT);

    child = fork();
    if (child == 0) {
        syscall(SYS_getppid);
        _exit(0);
    }
    note = receive(listener);
    CHECK(kill(child, SIGKILL) == 0);
    CHECK(waitpid(child, &status, 0) == child && status == SIGKILL);
    CHECK_ERR(ioctl(listener, SECCOMP_IOCTL_NOTIF_ID_VALID, &note.id), ENOENT);
}

int main(void)
{
    struct seccomp_notif_sizes sizes;
    CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    CHECK(syscall(SYS_seccomp, SECCOMP_GET_NOTIF_SIZES, 0, &sizes) == 0);
    CHECK(sizes.seccomp_notif == 80 && sizes.seccomp_notif_resp == 24);
    unsigned action = NOTIFY;
    CHECK(syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) == 0);
    errors();
    sleeping_call();
    int listener = install(SYS_getppid, NOTIFY, LISTEN);
    CHECK(listener >= 0 && fcntl(listener, F_GETFD) == FD_CLOEXEC);
    CHECK_ERR(install(SYS_getppid, NOTIFY, LISTEN), EBUSY);
    conversation(listener);
    interruptions(listener);
    CHECK(close(listener) == 0);
    CHECK_ERR(syscall(SYS_getppid), ENOSYS);
    return 0;
}
