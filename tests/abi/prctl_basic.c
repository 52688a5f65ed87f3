/* prctl(2), arch_prctl(2), iopl(2), ioperm(2). */
#define _GNU_SOURCE
#include "abi.h"
#include <asm/prctl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/io.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define BAD ((void *)8)

static void *thread(void *result)
{
    CHECK(prctl(PR_SET_NAME, "worker") == 0);
    CHECK(prctl(PR_GET_NAME, result) == 0);
    return NULL;
}

static void thread_names(void)
{
    char name[17] = "xxxxxxxxxxxxxxxx", other[17] = {0};
    CHECK(prctl(PR_SET_NAME, "a name of more than fifteen") == 0);
    CHECK(prctl(PR_GET_NAME, name) == 0 && strcmp(name, "a name of more ") == 0);
    pthread_t id;
    CHECK(pthread_create(&id, NULL, thread, other) == 0 && pthread_join(id, NULL) == 0);
    CHECK(strcmp(other, "worker") == 0);
    CHECK(prctl(PR_GET_NAME, name) == 0 && strcmp(name, "a name of more ") == 0);
    CHECK_ERR(prctl(PR_SET_NAME, BAD), EFAULT);
    CHECK_ERR(prctl(PR_GET_NAME, BAD), EFAULT);
}

static void flags_of_the_process(void)
{
    int value;
    CHECK(prctl(PR_GET_DUMPABLE) == 1);
    CHECK(prctl(PR_SET_DUMPABLE, 0) == 0 && prctl(PR_GET_DUMPABLE) == 0);
    CHECK_ERR(prctl(PR_SET_DUMPABLE, 2), EINVAL);
    CHECK(prctl(PR_SET_DUMPABLE, 1) == 0);
    CHECK(prctl(PR_GET_CHILD_SUBREAPER, &value) == 0 && value == 0);
    CHECK(prctl(PR_SET_CHILD_SUBREAPER, 7) == 0);
    CHECK(prctl(PR_GET_CHILD_SUBREAPER, &value) == 0 && value == 1);
    CHECK(prctl(PR_SET_CHILD_SUBREAPER, 0) == 0);
    CHECK_ERR(prctl(PR_GET_CHILD_SUBREAPER, BAD), EFAULT);
    CHECK(prctl(PR_GET_TIMERSLACK) == 50000);
    CHECK(prctl(PR_SET_TIMERSLACK, 1) == 0 && prctl(PR_GET_TIMERSLACK) == 1);
    CHECK(prctl(PR_SET_TIMERSLACK, -2000L) == 0);
    CHECK_ERR(prctl(PR_GET_TIMERSLACK), 2000);
    CHECK(prctl(PR_SET_TIMERSLACK, 1L << 63) == 0);
    CHECK(syscall(SYS_prctl, PR_GET_TIMERSLACK, 0, 0, 0, 0) == 1L << 63);
    CHECK(prctl(PR_SET_TIMERSLACK, 0) == 0 && prctl(PR_GET_TIMERSLACK) == 50000);
    CHECK(prctl(PR_GET_TIMING) == 0);
    CHECK_ERR(prctl(PR_SET_TIMING, 1), EINVAL);
    CHECK(prctl(PR_GET_TSC, &value) == 0 && value == PR_TSC_ENABLE);
    CHECK(prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0) == 0);
    CHECK(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) == 0);
    CHECK(prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0) == 1);
    CHECK_ERR(prctl(PR_GET_THP_DISABLE, 1, 0, 0, 0), EINVAL);
    CHECK(prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0) == 0);
    CHECK(prctl(PR_GET_SECCOMP) == 0);
    CHECK(prctl(PR_MCE_KILL_GET, 0, 0, 0, 0) == PR_MCE_KILL_DEFAULT);
    CHECK_ERR(prctl(PR_MCE_KILL, PR_MCE_KILL_SET, 9, 0, 0), EINVAL);
    CHECK_ERR(prctl(987654), EINVAL);
    CHECK_ERR(prctl(-1), EINVAL);
}

/* Every thread has a default: what the one that made it had. */
static void timer_slack(void)
{
    int status, old = prctl(PR_GET_TIMERSLACK);
    CHECK(old > 0 && prctl(PR_SET_TIMERSLACK, 70000) == 0 && prctl(PR_GET_TIMERSLACK) == 70000);
    pid_t child = fork();
    if (child == 0) {
        CHECK(prctl(PR_GET_TIMERSLACK) == 70000);
        CHECK(prctl(PR_SET_TIMERSLACK, 1) == 0 && prctl(PR_GET_TIMERSLACK) == 1);
        CHECK(prctl(PR_SET_TIMERSLACK, 0) == 0 && prctl(PR_GET_TIMERSLACK) == 70000);
        _exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    CHECK(prctl(PR_SET_TIMERSLACK, 0) == 0 && prctl(PR_GET_TIMERSLACK) == old);
}

static void no_new_privs(void)
{
    CHECK(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 0);
    CHECK_ERR(prctl(PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0), EINVAL);
    CHECK_ERR(prctl(PR_SET_NO_NEW_PRIVS, 1, 1, 0, 0), EINVAL);
    CHECK_ERR(prctl(PR_GET_NO_NEW_PRIVS, 1, 0, 0, 0), EINVAL);
    pid_t child = fork();
    if (child == 0) {
        CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
        if (fork() == 0)
            _exit(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1 ? 0 : 1);
        int status;
        CHECK(wait(&status) > 0 && status == 0);
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    CHECK(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 0);
}

static void parent_death(void)
{
    int signo, tell[2];
    char byte;
    CHECK(prctl(PR_GET_PDEATHSIG, &signo) == 0 && signo == 0);
    CHECK(prctl(PR_SET_PDEATHSIG, SIGUSR1) == 0);
    CHECK(prctl(PR_GET_PDEATHSIG, &signo) == 0 && signo == SIGUSR1);
    CHECK(prctl(PR_SET_PDEATHSIG, 0) == 0);
    CHECK_ERR(prctl(PR_SET_PDEATHSIG, 65), EINVAL);
    CHECK(pipe(tell) == 0);
    pid_t middle = fork();
    if (middle == 0) {
        CHECK(prctl(PR_SET_PDEATHSIG, SIGUSR1) == 0);
        int ready[2];
        CHECK(pipe(ready) == 0);
        if (fork() == 0) {
            close(tell[0]);
            CHECK(prctl(PR_GET_PDEATHSIG, &signo) == 0 && signo == 0);
            CHECK(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0);
            CHECK(write(ready[1], "r", 1) == 1);
            pause();
            _exit(1);
        }
        CHECK(read(ready[0], &byte, 1) == 1);
        _exit(0);
    }
    close(tell[1]);
    CHECK(waitpid(middle, NULL, 0) == middle);
    /* the write end is closed when the grandchild has died of its parent's death */
    CHECK(read(tell[0], &byte, 1) == 0);
    close(tell[0]);
}

static void subreaper_inherits_orphans(void)
{
    int pipefd[2], told[2];
    pid_t orphan;
    CHECK(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0);
    CHECK(pipe(pipefd) == 0 && pipe(told) == 0);
    pid_t middle = fork();
    if (middle == 0) {
        if ((orphan = fork()) == 0) {
            close(pipefd[1]);
            char byte;
            read(pipefd[0], &byte, 1);
            _exit(5);
        }
        CHECK(write(told[1], &orphan, sizeof orphan) == sizeof orphan);
        _exit(0);
    }
    CHECK(waitpid(middle, NULL, 0) == middle);
    int status;
    CHECK(read(told[0], &orphan, sizeof orphan) == sizeof orphan);
    close(pipefd[1]);
    CHECK(waitpid(orphan, &status, 0) == orphan && WEXITSTATUS(status) == 5);
    close(pipefd[0]);
    CHECK(prctl(PR_SET_CHILD_SUBREAPER, 0) == 0);
}

static void segment_bases(void)
{
    unsigned long fs, gs = 0x1234;
    CHECK(syscall(SYS_arch_prctl, ARCH_GET_FS, &fs) == 0 && fs != 0);
    CHECK(syscall(SYS_arch_prctl, ARCH_SET_FS, fs) == 0);
    static unsigned long word = 42;
    CHECK(syscall(SYS_arch_prctl, ARCH_SET_GS, &word) == 0);
    CHECK(syscall(SYS_arch_prctl, ARCH_GET_GS, &gs) == 0 && gs == (unsigned long)&word);
    unsigned long seen;
    __asm__ volatile("mov %%gs:0, %0" : "=r"(seen));
    CHECK(seen == 42);
    CHECK(syscall(SYS_arch_prctl, ARCH_SET_GS, 0) == 0);
    CHECK_ERR(syscall(SYS_arch_prctl, ARCH_SET_FS, 1UL << 47), EPERM);
    CHECK_ERR(syscall(SYS_arch_prctl, ARCH_GET_FS, BAD), EFAULT);
    CHECK_ERR(syscall(SYS_arch_prctl, 0x3001, 0), EINVAL);
    CHECK_ERR(syscall(SYS_arch_prctl, 0, 0), EINVAL);
}

static void no_ports_without_rights(void)
{
    if (iopl(0) < 0 && errno == ENOSYS) /* CONFIG_X86_IOPL_IOPERM is off */
        return;
    CHECK_ERR(iopl(4), EINVAL);
    CHECK(iopl(0) == 0);
    CHECK_ERR(ioperm(65535, 2, 1), EINVAL);
    CHECK_ERR(ioperm(0, 0, 1), EINVAL);
    pid_t child = fork();
    if (child == 0) {
        CHECK(setuid(1234) == 0);
        CHECK_ERR(iopl(3), EPERM);
        CHECK_ERR(ioperm(0x80, 1, 1), EPERM);
        CHECK(ioperm(0x80, 1, 0) == 0);
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
}

int main(void)
{
    thread_names();
    flags_of_the_process();
    timer_slack();
    no_new_privs();
    parent_death();
    subreaper_inherits_orphans();
    segment_bases();
    no_ports_without_rights();
    return 0;
}
