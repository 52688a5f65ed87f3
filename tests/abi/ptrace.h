/* Shared by the ptrace programs. */
#ifndef PTRACE_H
#define PTRACE_H

#define _GNU_SOURCE
#include "abi.h"

#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#define EVENT(status) ((status) >> 16)

/* A stop of `pid` whose signal (low byte) and event are these. */
static inline void expect_stop(pid_t pid, int signo, int event)
{
    int status = 0;
    CHECK(waitpid(pid, &status, __WALL) == pid);
    if (!WIFSTOPPED(status) || WSTOPSIG(status) != signo || EVENT(status) != event) {
        fprintf(stderr, "status %#x instead of signal %d event %d\n", status, signo, event);
        abort();
    }
}

static inline void expect_exit(pid_t pid, int code)
{
    int status = 0;
    CHECK(waitpid(pid, &status, __WALL) == pid);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != code) {
        fprintf(stderr, "status %#x instead of exit %d\n", status, code);
        abort();
    }
}

static inline void expect_killed(pid_t pid, int signo)
{
    int status = 0;
    CHECK(waitpid(pid, &status, __WALL) == pid);
    if (!WIFSIGNALED(status) || WTERMSIG(status) != signo) {
        fprintf(stderr, "status %#x instead of signal %d\n", status, signo);
        abort();
    }
}

/* A child that is traced and stopped by SIGSTOP; it goes on as `body`. */
static inline pid_t traced(void (*body)(void))
{
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        CHECK(ptrace(PTRACE_TRACEME, 0, 0, 0) == 0);
        raise(SIGSTOP);
        body();
        _exit(0);
    }
    expect_stop(pid, SIGSTOP, 0);
    return pid;
}

static inline struct user_regs_struct regs_of(pid_t pid)
{
    struct user_regs_struct r;
    CHECK(ptrace(PTRACE_GETREGS, pid, 0, &r) == 0);
    return r;
}

/* One letter of /proc/PID/status: State, and TracerPid. */
static inline char state_of(pid_t pid)
{
    char path[64], line[256], letter = 0;
    snprintf(path, sizeof path, "/proc/%d/status", pid);
    FILE *f = fopen(path, "r");
    CHECK(f);
    while (fgets(line, sizeof line, f))
        if (sscanf(line, "State: %c", &letter) == 1)
            break;
    fclose(f);
    return letter;
}

static inline int tracer_of(pid_t pid)
{
    char path[64], line[256];
    int tracer = -1;
    snprintf(path, sizeof path, "/proc/%d/status", pid);
    FILE *f = fopen(path, "r");
    CHECK(f);
    while (fgets(line, sizeof line, f))
        if (sscanf(line, "TracerPid: %d", &tracer) == 1)
            break;
    fclose(f);
    return tracer;
}

/* Wait until a process is in a state, without changing anything. */
static inline void await_state(pid_t pid, char letter)
{
    for (int i = 0; i < 5000; i++) {
        if (state_of(pid) == letter)
            return;
        usleep(1000);
    }
    fprintf(stderr, "state %c instead of %c\n", state_of(pid), letter);
    abort();
}

#endif
