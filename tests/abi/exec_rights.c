/* What execve(2) of a set-id program gives, and what stands against it. credentials(7) */
#define _GNU_SOURCE
#include "abi.h"
#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#define USER 12345

/* The program: euid, egid, dumpable, AT_SECURE, and which personality is left. */
static int report(char **argv)
{
    CHECK(geteuid() == atoi(argv[1]));
    CHECK(getegid() == atoi(argv[2]));
    CHECK(prctl(PR_GET_DUMPABLE) == atoi(argv[3]));
    CHECK(getauxval(AT_SECURE) == atoi(argv[4]));
    CHECK(personality(-1) == strtol(argv[5], NULL, 16));
    return 0;
}

static void copy_self(const char *name, int mode)
{
    char buf[65536];
    int from = open("/proc/self/exe", O_RDONLY), to = open(name, O_CREAT | O_TRUNC | O_WRONLY, 0700);
    ssize_t n;
    CHECK(from >= 0 && to >= 0);
    while ((n = read(from, buf, sizeof buf)) > 0)
        CHECK(write(to, buf, n) == n);
    CHECK(n == 0 && fchmod(to, mode) == 0 && close(to) == 0 && close(from) == 0);
}

static void become_user(void)
{
    CHECK(syscall(SYS_setgroups, 0, NULL) == 0);
    CHECK(setresgid(USER, USER, USER) == 0 && setresuid(USER, USER, USER) == 0);
    CHECK(prctl(PR_SET_DUMPABLE, 1) == 0);
}

static void go(char *program, char *euid, char *egid, char *dumpable, char *secure, char *persona)
{
    execl(program, program, euid, egid, dumpable, secure, persona, NULL);
    perror(program);
    _exit(2);
}

static void well(pid_t pid)
{
    int status;
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
}

static void set_id(void)
{
    pid_t pid = fork();
    if (pid == 0) {
        become_user();
        CHECK(personality(READ_IMPLIES_EXEC | ADDR_NO_RANDOMIZE | SHORT_INODE) == 0);
        go("./setuid", "0", "12345", "0", "1", "1000000");
    }
    well(pid);
    if ((pid = fork()) == 0) {
        become_user();
        CHECK(personality(READ_IMPLIES_EXEC | ADDR_NO_RANDOMIZE) == 0);
        go("./plain", "12345", "12345", "1", "0", "40000");
    }
    well(pid);
    if ((pid = fork()) == 0) {
        become_user();
        go("./setgid", "12345", "0", "0", "1", "0");
    }
    well(pid);
}

static void no_new_privs(void)
{
    pid_t pid = fork();
    if (pid == 0) {
        become_user();
        CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
        go("./setuid", "12345", "12345", "1", "0", "0");
    }
    well(pid);
}

/* By way of another mount namespace: every mount there is as with MS_NOSUID. */
static void foreign_mount(void)
{
    int ready[2];
    char byte, path[64];
    CHECK(pipe(ready) == 0);
    pid_t other = fork();
    if (other == 0) {
        CHECK(unshare(CLONE_NEWNS) == 0);
        become_user();
        CHECK(write(ready[1], "r", 1) == 1);
        for (;;)
            pause();
    }
    CHECK(read(ready[0], &byte, 1) == 1);
    snprintf(path, sizeof path, "/proc/%d/cwd/setuid", other);
    pid_t pid = fork();
    if (pid == 0) {
        become_user();
        go(path, "12345", "12345", "1", "0", "0");
    }
    well(pid);
    CHECK(kill(other, SIGKILL) == 0 && waitpid(other, NULL, 0) == other);
    close(ready[0]);
    close(ready[1]);
}

static int in_shared_root(void *none)
{
    go("./setuid", "12345", "12345", "1", "1", "0");
    return 3;
}

static char stack[65536] __attribute__((aligned(16)));

static void shared_root(void)
{
    pid_t pid = fork();
    if (pid == 0) {
        become_user();
        pid_t other = clone(in_shared_root, stack + sizeof stack, CLONE_FS | SIGCHLD, NULL);
        CHECK(other > 0);
        well(other);
        _exit(0);
    }
    well(pid);
}

static void traced(void)
{
    int status;
    pid_t pid = fork();
    if (pid == 0) {
        become_user();
        pid_t other = fork();
        if (other == 0) {
            CHECK(ptrace(PTRACE_TRACEME, 0, NULL, NULL) == 0);
            go("./setuid", "12345", "12345", "1", "1", "0");
        }
        CHECK(waitpid(other, &status, 0) == other && WIFSTOPPED(status));
        CHECK(ptrace(PTRACE_CONT, other, NULL, NULL) == 0);
        well(other);
        _exit(0);
    }
    well(pid);
}

/* Capabilities that root has given up do not come back where nothing is to be gained. */
static void root_stays_poor(void)
{
    pid_t pid = fork();
    if (pid == 0) {
        struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
        struct __user_cap_data_struct data[2] = {{1 << CAP_SETUID, 1 << CAP_SETUID, 0}};
        CHECK(syscall(SYS_capset, &head, data) == 0);
        CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
        execl("./plain", "./plain", "caps", NULL);
        _exit(2);
    }
    well(pid);
}

static int poor(void)
{
    struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2];
    CHECK(syscall(SYS_capget, &head, data) == 0);
    CHECK(data[0].permitted == 1 << CAP_SETUID && data[0].effective == 1 << CAP_SETUID);
    CHECK(data[1].permitted == 0);
    return 0;
}

/* With READ_IMPLIES_EXEC what can be read can be called. */
static void readable_is_executable(void)
{
    pid_t pid = fork();
    if (pid == 0) {
        CHECK(personality(READ_IMPLIES_EXEC) == 0);
        unsigned char *code = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                                   -1, 0);
        code[0] = 0xc3;
        ((void (*)(void))code)();
        CHECK(mprotect(code, 4096, PROT_READ) == 0);
        ((void (*)(void))code)();
        _exit(0);
    }
    well(pid);
}

static void peek(char *program, int readable)
{
    struct user_regs_struct regs;
    int status;
    pid_t pid = fork();
    if (pid == 0) {
        CHECK(ptrace(PTRACE_TRACEME, 0, NULL, NULL) == 0);
        execl(program, program, "pause", NULL);
        _exit(2);
    }
    CHECK(waitpid(pid, &status, 0) == pid && WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP);
    CHECK(ptrace(PTRACE_GETREGS, pid, NULL, &regs) == 0);
    if (readable) {
        CHECK(ptrace(PTRACE_PEEKDATA, pid, regs.rsp, NULL) == 2 && errno == 0);
        CHECK(ptrace(PTRACE_POKEDATA, pid, regs.rsp, 2) == 0);
    } else {
        CHECK_ERR(ptrace(PTRACE_PEEKDATA, pid, regs.rsp, NULL), EIO);
        CHECK_ERR(ptrace(PTRACE_POKEDATA, pid, regs.rsp, 2), EIO);
    }
    CHECK(kill(pid, SIGKILL) == 0 && waitpid(pid, &status, 0) == pid);
}

/* 0, or why a process that has become `program` cannot be traced. */
static int attach(char *program)
{
    int ends[2], status, failure;
    char byte;
    CHECK(pipe2(ends, O_CLOEXEC) == 0);
    pid_t pid = fork();
    if (pid == 0) {
        execl(program, program, "pause", NULL);
        _exit(2);
    }
    close(ends[1]);
    CHECK(read(ends[0], &byte, 1) == 0 && close(ends[0]) == 0);
    failure = ptrace(PTRACE_ATTACH, pid, NULL, NULL) == 0 ? 0 : errno;
    CHECK(kill(pid, SIGKILL) == 0);
    do
        CHECK(waitpid(pid, &status, 0) == pid);
    while (WIFSTOPPED(status));
    return failure;
}

/* Who may not read a program may not look at its memory; capabilities count where its owner is. */
static void unreadable(void)
{
    copy_self("unreadable", 0111);
    int fd = open("script", O_CREAT | O_WRONLY, 0111);
    CHECK(fd >= 0 && write(fd, "#!./plain pause\n", 16) == 16 && close(fd) == 0);
    CHECK(chmod("script", 0111) == 0);
    peek("./unreadable", 1);
    pid_t pid = fork();
    if (pid == 0) {
        become_user();
        peek("./plain", 1);
        peek("./unreadable", 0);
        CHECK(attach("./plain") == 0);
        CHECK(attach("./unreadable") == EPERM);
        CHECK(unshare(CLONE_NEWUSER) == 0);
        CHECK(attach("./plain") == 0);
        CHECK(attach("./script") == 0);
        CHECK(attach("./unreadable") == EPERM);
        _exit(0);
    }
    well(pid);
    unlink("unreadable");
    unlink("script");
}

int main(int argc, char **argv)
{
    while (argc >= 2 && strcmp(argv[1], "pause") == 0)
        pause();
    if (argc == 2)
        return poor();
    if (argc > 2)
        return report(argv);
    copy_self("plain", 0755);
    copy_self("setuid", 04755);
    copy_self("setgid", 02755);
    set_id();
    no_new_privs();
    foreign_mount();
    shared_root();
    traced();
    root_stays_poor();
    readable_is_executable();
    unreadable();
    unlink("plain");
    unlink("setuid");
    unlink("setgid");
    return 0;
}
